"""The executor decides what is tried again, and when a run ends; workers here follow a script."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path

from darts.executors.executor import LOST, MOST_LOSSES, Executor, Policy
from darts.records.events import Dropped, Event, Fill, Finished, Job, Lost, Ready, Step
from darts.records.ledger import Outcome
from darts.tiles import Tile
from darts_utils.stopping import Stop


class Silent:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def step(self, tile_id: str, step: str, worker: str) -> None:
        self.heard.append(f"{tile_id} {step} {worker}")

    def finished(self, outcome: Outcome) -> None:
        self.heard.append(f"{outcome.tile_id} {outcome.status}")

    def fill(self, fill: Fill) -> None:
        self.heard.append(f"{fill.worker} holds {fill.bytes_held}")


class Scripted:
    """Workers that answer each job with the events of a function; what is submitted last is answered first."""

    names = ("one",)
    facts = Ready(worker="one")

    def __init__(self, answer: Callable[[Job], Sequence[Event]], *, room: int = 3) -> None:
        self._answer = answer
        self._room = room
        self.jobs: list[Job] = []
        self.submitted: list[Job] = []
        self.most_at_once = 0
        self.stopped = 0
        self._events: deque[Event] = deque()

    def room(self) -> int:
        return self._room - len(self.jobs)

    def submit(self, job: Job) -> None:
        self.submitted.append(job)
        self.jobs.append(job)
        self.most_at_once = max(self.most_at_once, len(self.jobs))

    def next_event(self, timeout_s: float) -> Event | None:
        if not self._events and self.jobs:
            job = self.jobs.pop()
            if self.stopped:
                return Dropped(job.tile.tile_id, "one")
            self._events.extend(self._answer(job))
        return self._events.popleft() if self._events else None

    def stop(self) -> None:
        self.stopped += 1

    def close(self, *, now: bool = False) -> None: ...


def tiles(count: int) -> list[Tile]:
    return [Tile(f"t{n}", n, Path(f"out/t{n}")) for n in range(count)]


def finished(job: Job, status: str = "success", **more: object) -> Finished:
    known = {key: more.pop(key) for key in ("transient", "out_of_memory") if key in more}
    outcome = Outcome(
        tile_id=job.tile.tile_id,
        output_path="",
        status=status,
        attempt=job.attempt,
        **more,  # type: ignore[arg-type]
    )
    return Finished(outcome, **known)  # type: ignore[arg-type]


def run(workers: Scripted, count: int, **policy: object) -> tuple[list[Outcome], Executor]:
    executor = Executor(workers, Policy(**policy), Silent(), Stop(), batch_size=8)  # type: ignore[arg-type]
    return [outcome for outcome, _ in executor.run(tiles(count))], executor


def test_every_tile_has_one_outcome_and_no_more_jobs_are_given_than_fit() -> None:
    workers = Scripted(lambda job: [finished(job)], room=3)
    outcomes, executor = run(workers, 10)
    assert sorted(outcome.tile_id for outcome in outcomes) == sorted(tile.tile_id for tile in tiles(10))
    assert workers.most_at_once == 3
    assert executor.left == []


def test_what_workers_tell_reaches_the_reporter() -> None:
    workers = Scripted(lambda job: [Step(job.tile.tile_id, "Segmenting", "one"), Fill("one", 5), finished(job)])
    reporter = Silent()
    list(Executor(workers, Policy(), reporter, Stop(), batch_size=8).run(tiles(1)))
    assert reporter.heard == ["t0 Segmenting one", "one holds 5", "t0 success"]


def test_a_permanent_failure_is_not_tried_again() -> None:
    outcomes, _ = run(Scripted(lambda job: [finished(job, "failed", cause="ConfigError")]), 3)
    assert [(outcome.status, outcome.again) for outcome in outcomes] == [("failed", False)] * 3


def test_a_transient_failure_is_tried_once_more_after_the_others() -> None:
    def answer(job: Job) -> list[Event]:
        if job.tile.tile_id == "t0":
            return [finished(job, "failed", transient=True)]
        return [finished(job)]

    outcomes, _ = run(Scripted(answer, room=1), 4)
    assert [(o.tile_id, o.attempt, o.again) for o in outcomes if o.tile_id == "t0"] == [
        ("t0", 1, True),
        ("t0", 2, False),
    ]
    assert outcomes[-1].tile_id == "t0"


def test_a_device_that_runs_out_of_memory_gets_half_the_batch_from_then_on() -> None:
    def answer(job: Job) -> list[Event]:
        fits = (job.batch_size or 8) <= 2
        return [finished(job) if fits else finished(job, "failed", out_of_memory=True, cause="OutOfMemoryError")]

    workers = Scripted(answer, room=1)
    outcomes, _ = run(workers, 6)
    sizes = [job.batch_size for job in workers.submitted]
    assert sizes[0] is None
    assert all(later is not None and later <= 4 for later in sizes[1:])
    last = {outcome.tile_id: outcome for outcome in outcomes}
    assert Counter(outcome.status for outcome in last.values()) == {"success": 6}


def test_a_batch_of_one_that_does_not_fit_fails() -> None:
    workers = Scripted(lambda job: [finished(job, "failed", out_of_memory=True)], room=1)
    executor = Executor(workers, Policy(), Silent(), Stop(), batch_size=1)
    assert [outcome.again for outcome, _ in executor.run(tiles(1))] == [False]


def test_tiles_of_a_lost_worker_are_tried_again_and_the_last_time_alone() -> None:
    def answer(job: Job) -> list[Event]:
        if job.tile.tile_id != "t1":
            return [finished(job)]
        lost = (job, *workers.jobs)
        workers.jobs.clear()
        return [Lost("one", "its process was ended by SIGKILL", lost)]

    workers = Scripted(answer, room=4)
    outcomes, _ = run(workers, 6)
    last = {outcome.tile_id: outcome for outcome in outcomes}
    assert {name: outcome.status for name, outcome in last.items()} == {
        f"t{n}": "failed" if n == 1 else "success" for n in range(6)
    }
    assert last["t1"].cause == LOST
    assert last["t1"].attempt == MOST_LOSSES
    assert "SIGKILL" in last["t1"].error
    alone = [job for job in workers.submitted if job.alone]
    assert "t1" in {job.tile.tile_id for job in alone}


def test_more_failures_than_allowed_end_the_run() -> None:
    workers = Scripted(lambda job: [finished(job, "failed")], room=1)
    outcomes, executor = run(workers, 10, max_failures=2)
    assert len(outcomes) == 3
    assert len(executor.left) == 7
    assert "3 failed tiles" in executor.given_up
    assert workers.stopped == 1


def test_an_attempt_that_is_tried_again_is_no_failure() -> None:
    workers = Scripted(
        lambda job: [finished(job, "failed", transient=True) if job.attempt == 1 else finished(job)], room=1
    )
    outcomes, executor = run(workers, 4, max_failures=0)
    assert executor.given_up == ""
    assert [outcome.status for outcome in outcomes if not outcome.again] == ["success"] * 4


def test_a_stop_finishes_what_is_computed_and_names_what_is_left() -> None:
    stop = Stop()
    done: list[str] = []

    def answer(job: Job) -> list[Event]:
        done.append(job.tile.tile_id)
        stop.asked = len(done) == 2
        return [finished(job)]

    workers = Scripted(answer, room=3)
    executor = Executor(workers, Policy(), Silent(), stop, batch_size=8)
    outcomes = [outcome for outcome, _ in executor.run(tiles(9))]
    assert len(outcomes) == 2
    assert sorted([*done, *executor.left]) == sorted(tile.tile_id for tile in tiles(9))


def test_a_stop_before_the_first_tile_leaves_all() -> None:
    stop = Stop()
    stop.asked = True
    executor = Executor(Scripted(lambda job: [finished(job)]), Policy(), Silent(), stop, batch_size=8)
    assert list(executor.run(tiles(3))) == []
    assert executor.left == ["t0", "t1", "t2"]


def test_jobs_say_what_the_ledger_knows_of_the_files() -> None:
    workers = Scripted(lambda job: [finished(job)])
    run(workers, 2, sizes={"t1": {"a.tif": 5}}, overwrite=True)
    assert [(job.tile.tile_id, dict(job.sizes), job.overwrite) for job in workers.submitted] == [
        ("t0", {}, True),
        ("t1", {"a.tif": 5}, True),
    ]
