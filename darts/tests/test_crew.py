"""Which worker of a cluster gets a tile, which is left out, and which is refused."""

from pathlib import Path

import pytest

from darts.executors.crew import LEAST_WINDOW, MOST_DEATHS, Crew, Member
from darts.executors.lane import WINDOW
from darts.records.events import Dropped, Finished, Job, Ready
from darts.records.ledger import Outcome
from darts.tiles import Tile
from darts_utils.errors import StoreError


def test_workers_have_fewer_jobs_each_towards_the_end() -> None:
    crew = Crew([Member("x", ready=True), Member("y", ready=True), Member("z")], n_tiles=40)
    jobs = [job(name) for name in range(40)]
    assert crew.room() == 2 * WINDOW  # the third is not ready
    took = [crew.assign(jobs[n]).name for n in range(4)]
    assert took == ["x", "y", "x", "y"]
    assert crew.room() == 2 * WINDOW - 4
    for n in range(4):
        crew.hear(crew.members[n % 2], finished(jobs[n]))
    assert all(not member.jobs for member in crew.members)
    for n in range(4, 34):
        crew.hear(crew.assign(jobs[n]), finished(jobs[n]))
    assert crew.room() == 2 * LEAST_WINDOW


def test_a_worker_that_dies_again_and_again_is_left_out_but_a_tile_done_counts_anew() -> None:
    crew = Crew([Member("x", ready=True)], n_tiles=40)
    (member,) = crew.members
    for _ in range(MOST_DEATHS - 1):
        assert crew.lose(member, "why")[1]
    member.ready = True
    crew.assign(job("done"))
    crew.hear(member, finished(job("done")))
    crew.assign(job("first"))
    crew.assign(job("let go"))
    crew.hear(member, Dropped("let go", "x"))
    for n in range(MOST_DEATHS):
        lost, again = crew.lose(member, "why")
        assert [job.tile.tile_id for job in lost.jobs] == (["first"] if n == 0 else [])
        assert again == (n < MOST_DEATHS - 1)


def test_a_worker_with_another_model_than_the_first_is_refused() -> None:
    crew = Crew([Member("x"), Member("y")], n_tiles=1)
    crew.hear(crew.members[0], Ready(worker="x", settings={"models": "one"}, fingerprint="1"))
    with pytest.raises(StoreError, match=r"worker y loaded other models .* models was one, now two"):
        crew.hear(crew.members[1], Ready(worker="y", settings={"models": "two"}, fingerprint="2"))


def job(name: object) -> Job:
    return Job(tile=Tile(str(name), None, Path(str(name))))


def finished(job: Job) -> Finished:
    return Finished(Outcome(tile_id=job.tile.tile_id, output_path=str(job.tile.output), status="success"))
