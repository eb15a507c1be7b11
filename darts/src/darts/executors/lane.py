"""One device and the threads around it: tiles are loaded ahead and exported behind while it computes."""

import threading
from collections import Counter
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from darts.executors.attempts import Attempt, Emit
from darts.executors.gate import MemoryGate
from darts.memory import give_back_memory
from darts.plan import Plan
from darts.records.events import Dropped, Event, Fill, Job, Step

LOADERS = 2
EXPORTERS = 2
WINDOW = LOADERS + 1 + 1 + EXPORTERS
"""Tiles in a lane: being loaded, loaded and waiting, being computed, being exported."""


class Lane:
    """Works on tiles in three stages, each on threads of its own; tells of all that happens through `emit`.

    `emit` is called from these threads. Memory is bounded by the gate, which a tile enters before it is loaded and
    leaves when its files are written.
    """

    def __init__(self, plan: Plan, emit: Emit, *, name: str, memory: int | None) -> None:
        self.name = name
        self._plan = plan
        self._emit = emit
        self._gate = MemoryGate(memory)
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._places: Counter[str] = Counter()
        self._places_lock = threading.Lock()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._loaded: SimpleQueue[Attempt | None] = SimpleQueue()
        self._computed: SimpleQueue[Attempt | None] = SimpleQueue()
        self._threads = {
            stage: [
                # A second interrupt ends the process at once, whatever the threads are in.
                threading.Thread(target=work, name=f"darts-{stage}-{n}", daemon=True)
                for n in range(count)
            ]
            for stage, work, count in (
                ("load", self._load_all, LOADERS),
                ("compute", self._compute_all, 1),
                ("export", self._finish_all, EXPORTERS),
            )
        }
        for threads in self._threads.values():
            for thread in threads:
                thread.start()

    def submit(self, job: Job) -> None:
        """Work on a tile when its turn comes."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Let go of tiles that are not being computed yet; those that are get their files."""
        self._stopping.set()
        self._gate.shut()

    def close(self) -> None:
        """Wait until all tiles that were submitted are through."""
        for stage in self._threads:  # each before the next one, which gets tiles from it
            self._end(stage)
            for thread in self._threads[stage]:
                thread.join()

    def abandon(self) -> None:
        """Let the threads end when they are through with what they do; nobody waits for them or hears of it.

        Nothing further is written: a tile whose export did not begin stays absent.
        """
        self._abandoned.set()
        self.stop()
        for stage in self._threads:
            self._end(stage)

    def _end(self, stage: str) -> None:
        """Let the threads of a stage end after what waits there already."""
        queues: dict[str, SimpleQueue[Any]] = {"load": self._jobs, "compute": self._loaded, "export": self._computed}
        for _ in self._threads[stage]:
            queues[stage].put(None)

    def _load_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            attempt = Attempt(self._plan, job, self._emit, self.name)
            self._work("load", self._load, attempt, self._loaded)

    def _compute_all(self) -> None:
        while (attempt := self._loaded.get()) is not None:
            self._work("compute", self._compute, attempt, self._computed)

    def _finish_all(self) -> None:
        while (attempt := self._computed.get()) is not None:
            self._work("export", self._finish, attempt, self._computed)

    def _work(
        self, place: str, work: Callable[[Attempt], Event | None], attempt: Attempt, next_stage: SimpleQueue[Any]
    ) -> None:
        """Do one stage of a tile; then hand it on, or tell that it is over."""
        self._move(place, 1)
        try:
            over = work(attempt)
        except BaseException as error:  # a bad tile must not stop the others, nor a thread end with it
            over = attempt.failed(error)
        if over is None:
            next_stage.put(attempt)
        else:
            self._gate.leave(attempt)
            give_back_memory()
            self._emit(over)
        self._move(place, -1)

    def _load(self, attempt: Attempt) -> Event | None:
        if not self._stopping.is_set() and attempt.complete:
            return attempt.skipped()
        if self._stopping.is_set() or not self._gate.enter(attempt):
            return Dropped(attempt.job.tile.tile_id, self.name)
        attempt.load()
        self._gate.resize(attempt, attempt.bytes_held, seen=True)
        self._emit(Step(attempt.job.tile.tile_id, "Waiting", self.name))
        return None

    def _compute(self, attempt: Attempt) -> Event | None:
        if self._stopping.is_set():
            return Dropped(attempt.job.tile.tile_id, self.name)
        attempt.compute()
        self._gate.resize(attempt, attempt.bytes_held)
        return None

    def _finish(self, attempt: Attempt) -> Event:
        if self._abandoned.is_set():
            return Dropped(attempt.job.tile.tile_id, self.name)
        return attempt.finish()

    def _move(self, place: str, change: int) -> None:
        with self._places_lock:
            self._places[place] += change
            tiles = {**self._places, "wait": self._loaded.qsize()}
        self._emit(Fill(self.name, self._gate.held, self._gate.limit, tiles))
