"""What works on the tiles of a run: this thread, threads, processes, or a cluster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Protocol

from darts.executors.attempts import Attempt
from darts.executors.lane import WINDOW, Lane
from darts.executors.work import Work
from darts.memory import memory_budget
from darts.plan import Plan
from darts.records.events import Dropped, Event, Finished, Job, Ready, Step


class Workers(Protocol):
    """Works on tiles."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the workers."""

    @property
    def facts(self) -> Ready:
        """What they compute with."""

    def room(self) -> int:
        """Return how many further jobs they take now."""

    def submit(self, job: Job) -> None:
        """Work on a job."""

    def next_event(self, timeout_s: float) -> Event | None:
        """Return what happened next, None if nothing did for a while.

        Raises:
            DartsError: no worker is left.
        """

    def stop(self) -> None:
        """Let go of jobs that are not computed yet."""

    def close(self, *, now: bool = False) -> None:
        """Let go of the workers, with `now` whatever they do; otherwise nothing is in flight any more."""


@contextmanager
def start_workers(pipeline: Work, n_tiles: int) -> Iterator[Workers]:
    """Start what works on tiles, as the options say; it ends with the block.

    Raises:
        DartsError: a model, a device or an option is wrong.
    """
    workers = _start(pipeline, n_tiles)
    now = True
    try:
        yield workers
        now = False
    finally:
        workers.close(now=now)


class InTurn:
    """One tile after the other in the calling thread: the simplest to debug."""

    def __init__(self, plan: Plan) -> None:
        self.names = (plan.device,)
        self.facts = plan.ready(plan.device)
        self.on_step: Callable[[Step], None] = lambda step: None
        """Hears of steps as they begin; events come too late for that."""
        self._plan = plan
        self._job: Job | None = None

    def room(self) -> int:
        """Return 1 where there is no job yet."""
        return int(self._job is None)

    def submit(self, job: Job) -> None:
        """Take the job that the next call of `next_event` works on."""
        self._job = job

    def next_event(self, timeout_s: float) -> Event | None:
        """Work on the job, and return what became of it."""
        if self._job is None:
            return None
        job, self._job = self._job, None
        attempt = Attempt(self._plan, job, self._hear, self.names[0])
        try:
            if attempt.complete:
                return attempt.skipped()
            attempt.load()
            attempt.compute()
            return attempt.finish()
        except Exception as error:  # a bad tile must not stop the others
            return attempt.failed(error)

    def stop(self) -> None:
        """Nothing is in flight between two tiles."""

    def close(self, *, now: bool = False) -> None:
        """Nothing to let go of."""

    def _hear(self, event: Event) -> None:
        if isinstance(event, Step):
            self.on_step(event)


class Threads:
    """The threads of one lane in this process."""

    def __init__(self, plan: Plan) -> None:
        self.names = (plan.device,)
        self.facts = plan.ready(plan.device)
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._lane = Lane(plan, self._events.put, name=plan.device, memory=plan.options.memory_budget)
        self._jobs = 0

    def room(self) -> int:
        """Return how many further jobs fit."""
        return WINDOW - self._jobs

    def submit(self, job: Job) -> None:
        """Work on a job."""
        self._jobs += 1
        self._lane.submit(job)

    def next_event(self, timeout_s: float) -> Event | None:
        """Return what happened next, None if nothing did for a while."""
        try:
            event = self._events.get(timeout=timeout_s)
        except Empty:
            return None
        self._jobs -= isinstance(event, Finished | Dropped)
        return event

    def stop(self) -> None:
        """Let go of jobs that are not computed yet."""
        self._lane.stop()

    def close(self, *, now: bool = False) -> None:
        """End the threads; with `now` nobody waits until they are through with what they do."""
        if now:
            self._lane.abandon()
        else:
            self._lane.close()


def _start(pipeline: Work, n_tiles: int) -> Workers:
    if pipeline.executor == "ray":
        from darts.executors.ray_workers import RayWorkers

        return RayWorkers(pipeline, n_tiles)
    if pipeline.devices is not None and len(pipeline.devices) > 1:
        from darts.executors.processes import Processes

        memory = memory_budget(pipeline.memory_budget)
        return Processes(pipeline, pipeline.devices, memory=memory, n_tiles=n_tiles)
    plan = pipeline.plan()
    one_by_one = pipeline.executor == "sequential" or (pipeline.executor == "auto" and n_tiles <= 1)
    return InTurn(plan) if one_by_one else Threads(plan)
