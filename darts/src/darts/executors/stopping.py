"""Ctrl-C once finishes what is in flight, twice stops now."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger("darts.executors.stopping")


class Stop:
    """Whether a run was asked to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stopping_on_signals() -> Iterator[Stop]:
    """Turn the first interrupt, or a batch system's SIGTERM, into a stop that is asked for; the next one interrupts.

    Signals are the main thread's; elsewhere nothing is changed, and an interrupt does what it did.

    Raises:
        KeyboardInterrupt: interrupted once more.
    """
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        logger.warning("stopping: tiles that are being computed get finished; once more stops now")

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
