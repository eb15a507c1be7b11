"""Faults at random moments through the real command: a plain restart ends with the bytes of an undisturbed run."""

import hashlib
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from darts.records.ledger import LEDGER_NAME
from tests.conftest import OPTICAL, Sample
from tests.disturbances import fill, flip_bytes, mounted, read_only, remount, truncate, workers_of
from tests.fault_bench import (
    FILES,
    TILES,
    Bench,
    Hashes,
    check_damage,
    check_failures,
    hashes,
    outcomes,
    prepared_bench,
    save_model,
    sizes,
    starts,
)
from tests.fork_server import ForkServer

THREADS = ("--executor", "overlapped")
IN_TURN = ("--executor", "sequential")
PROCESSES = ("--devices", "cpu", "cpu")


def moments(few: int, many: int = 100) -> pytest.MarkDecorator:
    """Return how many moments a test takes: few in the plain run, many in the long one."""
    return pytest.mark.parametrize("number", [few, pytest.param(many, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def bench(sample: Sample, tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Bench:
    return prepared_bench(tmp_path_factory.mktemp("bench"), sample, fork_server)


def draws(name: str, number: int) -> Iterator[tuple[int, random.Random]]:
    """Yield numbered sources of chance; each trial has one of its own, so that it can be looked at alone."""
    for n in range(number):
        yield n, random.Random(f"{name} {n}")


@moments(1)
def test_a_run_that_is_killed_is_taken_up_by_a_restart(bench: Bench, tmp_path: Path, number: int) -> None:
    killed = 0
    for n, draw in draws("kill", 5 * number):
        output, start = tmp_path / str(n), draw.choice(("empty", "complete", "damaged"))
        if start != "empty":
            shutil.copytree(bench.made, output)
        if start == "damaged":
            truncate(draw.choice(sorted(output.glob("t*/*"))), draw)
        how = draw.choice((THREADS, THREADS, IN_TURN, PROCESSES)) + ("--overwrite",) * (start == "complete")
        at = draw.randrange(1, bench.operations) if n % 2 else 0
        run = bench.start(bench.line(output, *how), folder=str(output), kill_at=at)
        if not at and bench.wait_for_a_moment(run, draw, f"kill {start} {how}"):
            run.signal(signal.SIGKILL)
        killed += run.wait() == -signal.SIGKILL

        before = [outcome.tile_id for outcome in outcomes(output) if outcome.status == "success"]
        if start == "empty":
            assert hashes(output).items() <= bench.expected.items()
            assert all(len(list(folder.iterdir())) == FILES for folder in output.glob("t*"))
        for _ in range(draw.choice((0, 0, 0, 1, 2))):
            restart = bench.start(bench.line(output, *THREADS))
            if bench.wait_for_a_moment(restart, draw, "restart"):
                restart.signal(signal.SIGKILL)
            restart.wait()
        bench.check_ends_well(output, *draw.choice(((), PROCESSES, IN_TURN)))
        if start == "empty":
            after = [outcome.tile_id for outcome in outcomes(output) if outcome.status == "success"]
            assert all(after.count(tile_id) == 1 for tile_id in before), "nothing is done twice"
        shutil.rmtree(output)
        if killed == number:
            return
    assert killed >= number / 2


@moments(1)
def test_a_worker_that_is_killed_costs_only_its_tiles(bench: Bench, tmp_path: Path, number: int) -> None:
    killed = 0
    for n, draw in draws("worker", 5 * number):
        output = tmp_path / str(n)
        at = draw.randrange(1, bench.operations // 2) if n % 2 else 0
        spawned = n % 20 == 19
        run = bench.start(
            bench.line(output, *PROCESSES),
            folder=str(output),
            kill_at=at,
            kill_worker=True,
            fork_workers=not spawned,
            real_end=True,
        )
        for _ in range(0 if at else draw.choice((1, 1, 2))):
            if bench.wait_for_a_moment(run, draw, f"worker {spawned}") and (workers := workers_of(run.pid)):
                draw.choice(workers).kill()
        assert run.wait() == 0, run.text
        killed += "SIGKILL" in run.text
        assert "Traceback" not in run.text
        assert hashes(output) == bench.expected
        lost = [outcome for outcome in outcomes(output) if outcome.cause == "WorkerLost"]
        assert all(outcome.again for outcome in lost)
        bench.check_ends_well(output)
        shutil.rmtree(output)
        if killed == number:
            return
    assert killed >= number / 2


@moments(2)
def test_on_a_full_disk_what_is_made_is_right_and_the_rest_fails(bench: Bench, tmp_path: Path, number: int) -> None:
    disk = tmp_path / "disk"
    needed_kb = sum(file.stat().st_blocks for file in bench.made.rglob("*")) // 2
    for n, draw in draws("disk", number):
        kind = ("small", "few files", "filling")[n % 3]
        limit = {
            "small": f"size={draw.randrange(8, needed_kb * 5 // 4)}k",
            "few files": f"nr_inodes={draw.randrange(2, 60)}",
            "filling": "size=16m",
        }[kind]
        with mounted(disk, limit):
            output = disk / "out"
            run = bench.start(bench.line(output, *draw.choice((THREADS, IN_TURN, PROCESSES))), real_end=True)
            filler = disk / "filler"
            if kind == "filling" and bench.wait_for_a_moment(run, draw, "disk"):
                fill(filler)
            code = run.wait()
            check_failures(output, run, code)
            filler.unlink(missing_ok=True)
            remount(disk, "size=64m,nr_inodes=10000")
            bench.check_ends_well(output)


@moments(1)
def test_an_output_folder_that_turns_read_only_fails_the_rest(bench: Bench, tmp_path: Path, number: int) -> None:
    turned = 0
    for n, draw in draws("read-only", 5 * number):
        output = tmp_path / str(n)
        output.mkdir()
        how = draw.choice((THREADS, IN_TURN, PROCESSES))
        run = bench.start(bench.line(output, *how), real_end=True)
        turned += bench.wait_for_a_moment(run, draw, f"read-only {how}")
        with read_only(output):
            code = run.wait()
        check_failures(output, run, code)
        bench.check_ends_well(output)
        shutil.rmtree(output)
        if turned == number:
            return
    assert turned >= number / 2


@moments(1)
def test_a_truncated_raw_store_fails_its_tile_alone(bench: Bench, tmp_path: Path, number: int) -> None:
    store = tmp_path / "store"
    shutil.copytree(bench.store, store)
    for n, draw in draws("raw store", number):
        output, tile_id = tmp_path / str(n), draw.choice(TILES)
        (scene,) = store.glob(f"*-{tile_id}.zarr")
        file = draw.choice(sorted(path for path in scene.rglob("*") if path.is_file() and path.stat().st_size))
        content = file.read_bytes()
        truncate(file, draw)
        run = bench.start(bench.line(output, *THREADS, "--raw-data-store", store))
        check_damage(output, run, run.wait(), {tile_id}, scene, bench.expected)
        file.write_bytes(content)
        bench.check_ends_well(output, "--raw-data-store", store)
        shutil.rmtree(output)


@moments(1)
def test_a_corrupt_cube_fails_its_tiles_and_never_shapes_results(bench: Bench, tmp_path: Path, number: int) -> None:
    cubes = tmp_path / "cubes"
    shutil.copytree(bench.sample.folder / "aux", cubes)
    options = ("--model-files", bench.full_model, "--arcticdem-dir", cubes, "--tcvis-dir", cubes)
    whole = tmp_path / "whole"
    undisturbed = bench.start(bench.line(whole, *options, *IN_TURN))
    assert undisturbed.wait() == 0, undisturbed.text
    expected = hashes(whole)
    for n, draw in draws("cube", number):
        output = tmp_path / str(n)
        file = draw.choice(sorted(path for path in cubes.rglob("*") if path.is_file() and path.stat().st_size))
        content = file.read_bytes()
        flip_bytes(file, draw)
        run = bench.start(bench.line(output, *options, *THREADS))
        (cube,) = (path for path in cubes.iterdir() if path in file.parents)
        check_damage(output, run, run.wait(), set(TILES), cube, expected)
        file.write_bytes(content)
        bench.check_ends_well(output, *options, like=expected)
        shutil.rmtree(output)


@dataclass
class Models:
    """A model file, and another that takes its place."""

    file: Path
    one: bytes
    other: bytes
    with_other: Hashes
    """Hashes of the files of all tiles that the other one makes."""

    def place(self, content: bytes) -> None:
        new = self.file.with_suffix(".new")
        new.write_bytes(content)
        new.replace(self.file)


@pytest.fixture(scope="module")
def models(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    file = folder / bench.optical_model.name
    save_model(file, (*OPTICAL, "ndvi"), seed=5)
    run = bench.start(bench.line(folder / "other", "--model-files", file))
    assert run.wait() == 0, run.text
    with_other = hashes(folder / "other")
    assert with_other.keys() == bench.expected.keys()
    return Models(file, bench.optical_model.read_bytes(), file.read_bytes(), with_other)


@pytest.mark.slow  # the short run has a replaced model in test_many_tiles
@moments(1)
def test_a_model_that_is_replaced_between_runs_is_refused(
    bench: Bench, models: Models, tmp_path: Path, number: int
) -> None:
    options = ("--model-files", models.file)
    for n, draw in draws("model between", number):
        output = tmp_path / str(n)
        models.place(models.one)
        run = bench.start(bench.line(output, *options, *THREADS))
        if bench.wait_for_a_moment(run, draw, "model between"):
            run.signal(signal.SIGKILL)
        run.wait()
        models.place(models.other)
        if hashes(output):
            refused = bench.start(bench.line(output, *options))
            assert refused.wait() == 2, refused.text
            assert "made with other options or models" in refused.flat
            assert "models optical was " in refused.flat
            assert "--overwrite" in refused.flat
            assert hashes(output).items() <= bench.expected.items()
        overwriting = bench.start(
            bench.line(output, *options, *THREADS, "--overwrite"),
            folder=str(output), kill_at=draw.randrange(1, bench.operations) if n % 2 else 0,
        )  # fmt: skip
        if overwriting.wait() == 0:
            bench.check_ends_well(output, *options, like=models.with_other)
        else:
            check_never_mixed(bench, models, output, first=draw.random() < 0.5)
        shutil.rmtree(output)


def test_a_killed_overwrite_with_other_options_is_not_taken_for_what_was_there(bench: Bench, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(bench.made, output)
    ledger = output / LEDGER_NAME  # read, and written at the start and after each tile
    other = bench.line(output, *IN_TURN, "--overwrite", "--min-object-size", "33")
    assert bench.start(other, folder=str(ledger), kill_at=3).wait() == -signal.SIGKILL
    assert sizes(output) == sizes(bench.made)
    assert hashes(output) != bench.expected, "it died after the first tile, and before it was written down"
    refused = bench.start(bench.line(output))
    assert refused.wait() == 2, refused.text
    assert "made with other options or models (t0, t1, t4): min_object_size was 33, now 32" in refused.flat
    bench.check_ends_well(output, "--overwrite")


@moments(1)
def test_a_model_that_is_replaced_during_a_run_changes_nothing_in_it(
    bench: Bench, models: Models, tmp_path: Path, number: int
) -> None:
    options = ("--model-files", models.file)
    for n, draw in draws("model during", number):
        output = tmp_path / str(n)
        models.place(models.one)
        how = draw.choice((THREADS, IN_TURN, PROCESSES))
        run = bench.start(bench.line(output, *options, *how))
        bench.wait_for_a_moment(run, draw, f"model during {how}")
        models.place(models.other)
        code = run.wait()
        if code == 0:
            assert hashes(output) in (bench.expected, models.with_other)
        else:
            # Workers that loaded different ones: the run ends before they are mixed.
            assert (code, how) == (2, PROCESSES), run.text
            assert "loaded other models" in run.flat
        assert hashes(output).items() <= bench.expected.items() or hashes(output).items() <= models.with_other.items()
        checksums = {tuple(o.models.values()) for o in outcomes(output) if o.status == "success"}
        assert len(checksums) <= 1
        sums = {hashlib.sha256(content).hexdigest(): content for content in (models.one, models.other)}
        content = sums[checksums.pop()[0]] if checksums else models.one
        models.place(content)
        bench.check_ends_well(output, *options, like=bench.expected if content == models.one else models.with_other)
        shutil.rmtree(output)


@pytest.mark.slow  # the short run has shards in test_many_tiles
@moments(1)
def test_the_same_shard_is_refused_and_different_ones_share_a_folder(bench: Bench, tmp_path: Path, number: int) -> None:
    for n, draw in draws("shards", number):
        output = tmp_path / str(n)
        first = bench.start(bench.line(output, "--shard", "1/2", *THREADS))
        at_work = n % 3 == 0 or bench.wait_for_a_moment(first, draw, "shards")
        again = bench.start(bench.line(output, "--shard", "1/2", *THREADS))
        other = bench.start(bench.line(output, "--shard", "2/2", *THREADS))
        codes = {"again": again.wait(), "first": first.wait(), "other": other.wait()}
        assert codes["other"] == 0, other.text
        won, lost = (first, again) if codes["first"] == 0 else (again, first)
        if set(codes.values()) == {0}:
            # One was over before the other began, which had nothing left to do.
            assert "2 skipped" in won.flat or "2 skipped" in lost.flat
        else:
            assert at_work
            assert sorted((codes["again"], codes["first"])) == [0, 2], first.text + again.text
            assert f"is being worked on by process {won.pid} on" in lost.flat
            assert "with shard 1/2" in lost.flat
            assert len([start for start in starts(output) if start.shard == "1/2"]) == 1
            assert "Traceback" not in lost.text
        made_now = [outcome.tile_id for outcome in outcomes(output) if outcome.status == "success"]
        assert sorted(made_now) == sorted(TILES)
        assert hashes(output) == bench.expected
        bench.check_ends_well(output)
        shutil.rmtree(output)


@pytest.mark.slow  # the short run has moments of interrupts in test_many_tiles
@pytest.mark.parametrize("number", [10])
@pytest.mark.parametrize("interrupts", [1, 2])
def test_interrupts_at_any_moment_end_a_run_without_a_traceback(
    bench: Bench, tmp_path: Path, number: int, interrupts: int
) -> None:
    interrupted = 0
    for n, draw in draws(f"interrupt {interrupts}", 5 * number):
        output = tmp_path / str(n)
        how = draw.choice((THREADS, IN_TURN, PROCESSES))
        run = bench.start(bench.line(output, *how), real_end=True)
        for k in range(interrupts):
            if bench.wait_for_a_moment(run, draw, f"interrupt {how} {k}"):
                run.signal(signal.SIGINT)
        code = run.wait()
        interrupted += code == 130
        assert code in (0, 130), run.text
        assert "Traceback" not in run.text
        assert hashes(output).items() <= bench.expected.items()
        bench.check_ends_well(output)
        shutil.rmtree(output)
        if interrupted == number:
            return
    assert interrupted >= number / 2


def check_never_mixed(bench: Bench, models: Models, output: Path, *, first: bool) -> None:
    """Check that restarts after a kill while one model's results were replaced never mix them with the other's."""
    content, like = (models.one, bench.expected) if first else (models.other, models.with_other)
    models.place(content)
    options: tuple[object, ...] = ("--model-files", models.file)
    restart = bench.start(bench.line(output, *options))
    if restart.wait() == 2:
        assert "made with other options or models" in restart.flat
        options += ("--overwrite",)
    else:
        assert hashes(output) == like
    bench.check_ends_well(output, *options, like=like)
