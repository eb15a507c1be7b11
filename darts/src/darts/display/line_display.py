"""The lines of the log that tell how far a run is."""

import logging
import time
from collections.abc import Callable

from darts.display.course import Course
from darts.display.logs import log_event
from darts.records.events import Fill
from darts.records.ledger import Outcome

logger = logging.getLogger("darts.display.line_display")

FILL_EVERY_S = 10.0
"""How full a worker is, is logged at most this often."""


class LineReporter:
    """Writes a line of the log for each tile that ended."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic, *, quiet: bool = False) -> None:
        """`quiet` sends what went well to log files only, for beside a live display."""
        self.course = Course(total, clock)
        self._clock = clock
        self._well = logging.DEBUG if quiet else logging.INFO
        self._workers: set[str] = set()
        self._fill_told: dict[str, float] = {}

    def step(self, tile_id: str, step: str, worker: str) -> None:
        """A tile enters a step."""
        self.course.begin_work()
        event = {"event": "step", "tile_id": tile_id, "step": step, "worker": worker}
        log_event(logger, logging.DEBUG, event, "%s: %s", tile_id, step)

    def finished(self, outcome: Outcome) -> None:
        """A tile is done, failed or skipped, or an attempt at it failed and is made again."""
        self.course.count(outcome)
        if outcome.worker:
            self._workers.add(outcome.worker)
        if outcome.again:
            log_event(
                logger, logging.WARNING, _tile_event(outcome), "%s: attempt %d failed and is made again: %s",
                outcome.tile_id, outcome.attempt, outcome.error,
            )  # fmt: skip
            return
        course = self.course
        level = logging.ERROR if outcome.status == "failed" else self._well
        event = {**_tile_event(outcome), "ended": course.ended, "total": course.total}
        log_event(
            logger, level, event, "%s, %s: %s",
            ", ".join(filter(None, (self._count(), course.rate_text(), course.left_text()))),
            outcome.tile_id, self._told(outcome),
        )  # fmt: skip

    def fill(self, fill: Fill) -> None:
        """A worker tells how full it is."""
        now = self._clock()
        if now - self._fill_told.get(fill.worker, float("-inf")) < FILL_EVERY_S:
            return
        self._fill_told[fill.worker] = now
        event = {
            "event": "fill",
            "worker": fill.worker,
            "tiles": fill.tiles,
            "bytes_held": fill.bytes_held,
            "bytes_limit": fill.bytes_limit,
        }
        log_event(
            logger, logging.DEBUG, event, "%s holds %d bytes, tiles: %s", fill.worker, fill.bytes_held, fill.tiles
        )

    def _count(self) -> str:
        return f"tile {self.course.ended} of {self.course.total}"

    def _told(self, outcome: Outcome) -> str:
        if outcome.status == "skipped":
            return "skipped, already complete"
        where = f" on {outcome.worker}" if len(self._workers) > 1 and outcome.worker else ""
        if outcome.status == "failed":
            return f"failed{where}: {outcome.error}"
        return f"done in {sum(outcome.seconds.values()):.1f} s{where}"


def _tile_event(outcome: Outcome) -> dict[str, object]:
    return {
        "event": "tile",
        "tile_id": outcome.tile_id,
        "status": outcome.status,
        "error": outcome.error,
        "cause": outcome.cause,
        "attempt": outcome.attempt,
        "again": outcome.again,
        "worker": outcome.worker,
        "seconds": outcome.seconds,
        "output_path": outcome.output_path,
    }
