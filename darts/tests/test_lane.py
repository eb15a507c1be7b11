"""One lane: every job ends in one event, memory stays bounded, whatever the stages do."""

import gc
import random
import threading
import time
import weakref
from collections import Counter
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from darts.executors.attempts import is_transient
from darts.executors.gate import MemoryGate
from darts.executors.lane import WINDOW, Lane
from darts.records.events import Dropped, Event, Fill, Finished, Job, Step
from darts.tiles import Inputs, Tile
from darts.timings import TileClock
from darts_utils.errors import RemoteError, StoreError

SIDE = 16
PLANE = SIDE * SIDE * 4


class Ensemble:
    checksums: ClassVar = {"m": "0"}


class SmallPlan:
    """Has the stages of a plan, on small arrays; fails where it is told to."""

    ensemble = Ensemble()
    fingerprint = "f"

    def __init__(self, folder: Path, failing: dict[int, str] | None = None, *, wait: float = 0.0) -> None:
        self.folder = folder
        self.failing = failing or {}
        self.wait = wait
        self.held: set[int] = set()
        self.most_held = 0
        self.loaded: list[weakref.ref[Any]] = []
        self.lock = threading.Lock()
        self.computing = threading.Semaphore(1)

    def missing(self, tile: Tile) -> str:
        self._fail(tile, "missing")
        return "none" if (tile.output / "a").exists() else "all"

    def load(self, tile: Tile, clock: TileClock) -> Inputs:
        with self.lock:
            self.held.add(tile.key)
            self.most_held = max(self.most_held, len(self.held))
        clock.run("Loading Optical", time.sleep, self.wait * random.random())
        self._fail(tile, "load")
        plane = np.zeros((SIDE, SIDE), "float32")
        self.loaded.append(weakref.ref(plane))
        return Inputs(xr.Dataset({"red": (("y", "x"), plane)}), None, None)

    def compute(self, tile: Tile, inputs: Inputs, clock: TileClock, batch_size: int | None = None) -> xr.Dataset:
        assert self.computing.acquire(blocking=False), "two tiles are computed at once"
        try:
            (data, _, _) = inputs.take()
            clock.run("Segmenting", time.sleep, self.wait * random.random())
            self._fail(tile, "compute")
            return data * 2
        finally:
            self.computing.release()

    def finish(self, tile: Tile, segmented: xr.Dataset, clock: TileClock) -> None:
        clock.run("Exporting", time.sleep, self.wait * random.random())
        self._fail(tile, "finish")
        tile.output.mkdir(parents=True, exist_ok=True)
        (tile.output / "a").write_text(tile.tile_id)
        with self.lock:
            self.held.discard(tile.key)

    def files(self) -> tuple[str, ...]:
        return ("a",)

    def bytes_needed(self, inputs: Inputs) -> int:
        return inputs.nbytes

    def bytes_to_finish(self, segmented: xr.Dataset) -> int:
        return int(segmented.nbytes)

    def _fail(self, tile: Tile, stage: str) -> None:
        if self.failing.get(tile.key) == stage:
            with self.lock:
                self.held.discard(tile.key)
            raise StoreError(f"{stage} of {tile.tile_id}")


class HeldPlan(SmallPlan):
    """Computes when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reached, self.go_on = threading.Event(), threading.Event()

    def compute(self, tile: Tile, inputs: Inputs, clock: TileClock, batch_size: int | None = None) -> xr.Dataset:
        self.reached.set()
        self.go_on.wait(10)
        return super().compute(tile, inputs, clock, batch_size)


def run_all(plan: SmallPlan, count: int, memory: int | None = None) -> list[Event]:
    events: SimpleQueue[Event] = SimpleQueue()
    lane = Lane(plan, events.put, name="cpu", memory=memory)  # type: ignore[arg-type]
    for n in range(count):
        lane.submit(Job(tile=Tile(f"t{n}", n, plan.folder / f"t{n}")))
    lane.close()
    return [events.get() for _ in range(events.qsize())]


def ends(events: list[Event]) -> dict[str, str]:
    found: list[tuple[str, str]] = [(e.outcome.tile_id, e.outcome.status) for e in events if isinstance(e, Finished)]
    found += [(e.tile_id, "dropped") for e in events if isinstance(e, Dropped)]
    assert len(dict(found)) == len(found), "a tile ended twice"
    return dict(found)


@given(st.dictionaries(st.integers(0, 7), st.sampled_from(["missing", "load", "compute", "finish"])))
@settings(max_examples=20, deadline=None)
def test_every_tile_ends_once_whatever_fails(tmp_path_factory: pytest.TempPathFactory, failing: dict[int, str]) -> None:
    plan = SmallPlan(tmp_path_factory.mktemp("out"), failing)
    events = run_all(plan, 8)
    assert ends(events) == {f"t{n}": "failed" if n in failing else "success" for n in range(8)}
    errors = {e.outcome.tile_id: e.outcome.error for e in events if isinstance(e, Finished) and e.outcome.error}
    assert errors == {f"t{n}": f"StoreError: {stage} of t{n}" for n, stage in failing.items()}


def test_tiles_in_flight_fit_the_memory(tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path, wait=0.01)
    events = run_all(plan, 20, memory=3 * PLANE)
    assert Counter(ends(events).values()) == {"success": 20}
    assert plan.most_held <= 3
    assert max(event.bytes_held for event in events if isinstance(event, Fill)) <= 3 * PLANE


def test_a_tile_larger_than_the_memory_is_worked_on_alone(tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path, wait=0.005)
    assert Counter(ends(run_all(plan, 6, memory=PLANE // 2)).values()) == {"success": 6}
    assert plan.most_held == 1


def test_without_a_limit_the_window_bounds_the_tiles(tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path, wait=0.005)
    run_all(plan, 6)
    assert plan.most_held <= WINDOW


def test_nobody_holds_on_to_what_was_loaded(tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path)
    run_all(plan, 5)
    gc.collect()
    assert [reference() for reference in plan.loaded] == [None] * 5


def test_complete_tiles_are_skipped_and_their_files_written_down(tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path)
    run_all(plan, 2)
    events = [event for event in run_all(plan, 3) if isinstance(event, Finished)]
    assert {e.outcome.tile_id: e.outcome.status for e in events} == {"t0": "skipped", "t1": "skipped", "t2": "success"}
    assert all(set(event.outcome.files) == {"a"} for event in events)


@pytest.mark.parametrize(("size", "status"), [(2, "skipped"), (3, "success")])
def test_a_tile_whose_files_are_not_those_of_the_ledger_is_made_again(tmp_path: Path, size: int, status: str) -> None:
    run_all(SmallPlan(tmp_path), 1)
    events: SimpleQueue[Event] = SimpleQueue()
    lane = Lane(SmallPlan(tmp_path), events.put, name="cpu", memory=None)  # type: ignore[arg-type]
    lane.submit(Job(tile=Tile("t0", 0, tmp_path / "t0"), sizes={"a": size}))
    lane.close()
    assert ends([events.get() for _ in range(events.qsize())]) == {"t0": status}


def test_steps_are_told_with_the_worker(tmp_path: Path) -> None:
    steps = [event for event in run_all(SmallPlan(tmp_path), 1) if isinstance(event, Step)]
    assert [(step.step, step.worker) for step in steps] == [
        ("Loading Optical", "cpu"),
        ("Waiting", "cpu"),
        ("Segmenting", "cpu"),
        ("Exporting", "cpu"),
    ]


def test_a_stop_drops_what_is_not_computed_and_finishes_the_rest(tmp_path: Path) -> None:
    plan = HeldPlan(tmp_path)
    events: SimpleQueue[Event] = SimpleQueue()
    lane = Lane(plan, events.put, name="cpu", memory=None)  # type: ignore[arg-type]
    for n in range(6):
        lane.submit(Job(tile=Tile(f"t{n}", n, tmp_path / f"t{n}")))
    assert plan.reached.wait(10)
    lane.stop()
    plan.go_on.set()
    lane.close()
    found = Counter(ends([events.get() for _ in range(events.qsize())]).values())
    assert found == {"success": 1, "dropped": 5}


def test_an_abandoned_lane_ends_its_threads_and_writes_nothing_further(tmp_path: Path) -> None:
    plan = HeldPlan(tmp_path)
    lane = Lane(plan, lambda event: None, name="cpu", memory=None)  # type: ignore[arg-type]
    for n in range(6):
        lane.submit(Job(tile=Tile(f"t{n}", n, tmp_path / f"t{n}")))
    assert plan.reached.wait(10)
    lane.abandon()
    plan.go_on.set()
    for threads in lane._threads.values():
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
    assert not list(tmp_path.iterdir())


def test_a_tile_is_told_of_even_where_the_device_broke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OutOfMemoryError(RuntimeError): ...

    class Broken(SmallPlan):
        def compute(self, tile: Tile, inputs: Inputs, clock: TileClock, batch_size: int | None = None) -> xr.Dataset:
            raise OutOfMemoryError("no room")

    def refuse() -> None:
        raise RuntimeError("an illegal access was met")

    monkeypatch.setattr("darts.executors.attempts._empty_device_caches", refuse)
    assert ends(run_all(Broken(tmp_path), 2)) == {"t0": "failed", "t1": "failed"}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_the_gate_lets_in_what_fits_and_any_that_is_alone(sizes: list[int], limit: int) -> None:
    gate = MemoryGate(limit)
    held: set[int] = set()
    together: list[set[int]] = []
    lock = threading.Lock()

    def visit(n: int) -> None:
        assert gate.enter(n)
        gate.resize(n, sizes[n], seen=True)
        with lock:
            held.add(n)
            together.append(set(held))
        with lock:
            held.discard(n)
        gate.leave(n)

    threads = [threading.Thread(target=visit, args=(n,)) for n in range(len(sizes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(together) == len(sizes)
    assert gate.held == 0
    # Sizes are expected, not known, at the gate: a holder may take more than the largest before it.
    largest = max(sizes)
    assert all(len(group) == 1 or sum(sizes[n] for n in group) <= limit + largest for group in together)


def test_a_shut_gate_lets_nobody_in() -> None:
    gate = MemoryGate(1)
    assert gate.enter("first")
    waiting = threading.Thread(target=lambda: answers.append(gate.enter("second")))
    answers: list[bool] = []
    waiting.start()
    gate.shut()
    waiting.join(10)
    assert answers == [False]


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (RemoteError("busy", transient=True), True),
        (RemoteError("refused"), False),
        (OSError(5, "Input/output error"), True),
        (OSError(28, "No space left on device"), False),
        (StoreError("cannot read"), False),
    ],
)
def test_what_may_pass_is_told_from_what_stays(error: Exception, passing: bool) -> None:
    assert is_transient(error) is passing
    wrapped = StoreError("wrapped")
    wrapped.__cause__ = error
    assert is_transient(wrapped) is passing
