"""The executor: hands tiles to workers, and watches over them; what it decides is the same for every kind of worker."""

import dataclasses
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from darts.display.progress import Reporter
from darts.executors.workers import InTurn, Workers
from darts.records.events import Dropped, Fill, Finished, Job, Lost, Step
from darts.records.ledger import Outcome, now
from darts.tiles import Tile
from darts_utils.stopping import Stop

logger = logging.getLogger("darts.executors.executor")

POLL_S = 0.2
"""How long a stop that was asked for may go unnoticed."""

MOST_ATTEMPTS = 2

MOST_LOSSES = 3
"""Attempts at a tile whose workers get lost: nobody knows which of their tiles it was, so the last one is alone."""


LOST = "WorkerLost"
"""Cause of tiles whose worker died."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is made, and when a run is given up."""

    overwrite: bool = False
    """Make complete tiles again."""
    max_failures: int | None = None
    """Give up when more tiles than this failed."""
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Bytes of the files of each tile that the ledger knows."""


@dataclass
class Executor:
    """Takes tiles through workers, each tried again where that may help, and yields their outcomes."""

    workers: Workers
    policy: Policy
    reporter: Reporter
    stop: Stop
    batch_size: int
    """Patches per forward pass; halved for the tiles to come when a device runs out of memory."""
    left: list[str] = field(default_factory=list, init=False)
    """Ids of tiles that were not worked on because the run stopped."""
    given_up: str = field(default="", init=False)
    """Why the run was given up before its end."""
    _failures: int = field(default=0, init=False)
    _smaller_batch: int | None = field(default=None, init=False)

    def run(self, tiles: Sequence[Tile]) -> Iterator[tuple[Outcome, Finished]]:
        """Yield the outcome of every attempt, with what was measured of it, in the order in which they end."""
        waiting = deque(
            Job(tile=tile, overwrite=self.policy.overwrite, sizes=self.policy.sizes.get(tile.tile_id, {}))
            for tile in tiles
        )
        in_flight: dict[str, Job] = {}
        if isinstance(self.workers, InTurn):
            self.workers.on_step = self._tell_step
        stopped = False
        while waiting or in_flight:
            if self.stop.asked or self.given_up:
                if not stopped:
                    self.workers.stop()
                    stopped = True
                if not in_flight:
                    break
            while waiting and not stopped and self.workers.room() > 0:
                if in_flight and (waiting[0].alone or any(job.alone for job in in_flight.values())):
                    break
                job = waiting.popleft()
                if self._smaller_batch is not None:
                    job = dataclasses.replace(job, batch_size=self._smaller_batch)
                in_flight[job.tile.tile_id] = job
                self.workers.submit(job)
            event = self.workers.next_event(POLL_S)
            if isinstance(event, Step):
                self._tell_step(event)
            elif isinstance(event, Fill):
                self.reporter.fill(event)
            elif isinstance(event, Dropped):
                waiting.appendleft(in_flight.pop(event.tile_id))
            elif isinstance(event, Finished):
                yield self._conclude(event, in_flight, waiting)
            elif isinstance(event, Lost):
                logger.warning("%s is lost: %s", event.worker, event.reason)
                for finished in _losses(event):
                    yield self._conclude(finished, in_flight, waiting)
        self.left = [job.tile.tile_id for job in waiting]

    def _tell_step(self, step: Step) -> None:
        self.reporter.step(step.tile_id, step.step, step.worker)

    def _conclude(self, finished: Finished, in_flight: dict[str, Job], waiting: deque[Job]) -> tuple[Outcome, Finished]:
        """Decide whether the tile is tried again."""
        outcome = finished.outcome
        job = in_flight.pop(outcome.tile_id)
        again = self._next_attempt(job, finished)
        if again is not None:
            waiting.append(again)
        elif outcome.status == "failed":
            self._failures += 1
            most = self.policy.max_failures
            if most is not None and self._failures > most:
                self.given_up = f"given up after {self._failures} failed tile{'s' * (self._failures != 1)}"
        outcome = dataclasses.replace(outcome, again=again is not None, finished=now())
        self.reporter.finished(outcome)
        return outcome, finished

    def _next_attempt(self, job: Job, finished: Finished) -> Job | None:
        if finished.outcome.status != "failed" or self.stop.asked or self.given_up:
            return None
        if finished.outcome.cause == LOST and job.attempt < MOST_LOSSES:
            return dataclasses.replace(job, attempt=job.attempt + 1, alone=job.attempt + 1 == MOST_LOSSES)
        if job.attempt >= MOST_ATTEMPTS:
            return None
        if finished.out_of_memory:
            tried = job.batch_size or self.batch_size
            if tried == 1:
                return None
            self._smaller_batch = min(tried // 2, self._smaller_batch or tried)
            logger.warning("memory of the device is short: from here on %d patches at once", self._smaller_batch)
        elif not finished.transient:
            return None
        return dataclasses.replace(job, attempt=job.attempt + 1, batch_size=self._smaller_batch)


def _losses(event: Lost) -> Iterator[Finished]:
    """Yield what a lost worker leaves of each of its jobs; they may do better elsewhere."""
    for job in event.jobs:
        outcome = Outcome(
            tile_id=job.tile.tile_id,
            output_path=str(job.tile.output),
            status="failed",
            error=f"{LOST}: {event.reason}",
            cause=LOST,
            attempt=job.attempt,
            worker=event.worker,
        )
        yield Finished(outcome)
