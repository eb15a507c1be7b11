"""A worker in a process of its own: builds the plan, works on jobs that it receives, and tells of all that happens."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from darts.executors.work import Work
from darts.records.events import Job
from darts_utils.errors import DartsError

logger = logging.getLogger("darts.executors.serving")

Tell = Callable[[Any], None]
"""Sends an event, a log record, an error or the end of the worker to the one who watches over the run."""


@dataclass(frozen=True)
class Gone:
    """A worker gives up; another try may do better."""

    reason: str


STOP, CLOSE = "stop", "close"
"""What a worker receives besides jobs: let go of what is not computed yet; end."""


def serve(pipeline: Work, name: str, receive: Callable[[], Job | str], tell: Tell) -> None:
    """Build the plan and work on jobs until CLOSE is received; `tell` is called from several threads.

    What `receive` raises is raised here, with tiles still in flight.
    """
    # Libraries count cores when they are imported, so whoever bounds them does it before this.
    from darts.executors.lane import Lane
    from darts.memory import memory_budget

    try:
        plan = pipeline.plan()
    except DartsError as error:
        tell(error)
        return
    except Exception as error:
        logger.debug("no plan", exc_info=True)
        tell(Gone(f"it could not start: {type(error).__name__}: {error}"))
        return
    tell(plan.ready(name))
    lane = Lane(plan, tell, name=name, memory=memory_budget(pipeline.memory_budget))
    while (message := receive()) != CLOSE:
        if isinstance(message, Job):
            lane.submit(message)
        else:
            lane.stop()
    lane.close()


def tell_logs(tell: Tell) -> None:
    """Let this process tell what darts logs, and show nothing of it itself."""
    root = logging.getLogger("darts")
    root.handlers = [_ToWatcher(tell)]
    root.setLevel(logging.DEBUG)
    root.propagate = False


class _ToWatcher(logging.Handler):
    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        try:
            told = copy.copy(record)
            told.msg, told.args = record.getMessage(), ()
            if record.exc_info:  # tracebacks do not travel; their text does
                told.exc_text = logging.Formatter().formatException(record.exc_info)
                told.exc_info = None
            self._tell(told)
        except Exception:  # a bad message must not stop the work
            self.handleError(record)
