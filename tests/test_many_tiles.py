"""Many tiles through the real command: overlapped, in processes, in shards, interrupted and taken up again."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from darts.records.ledger import LEDGER_NAME, Outcome, RunEnd, RunStart, made, read_ledgers
from tests.conftest import OPTICAL, Sample, results_of, save_tiny_model, write_small_scene
from tests.fork_server import Process

TILES = tuple(f"t{n}" for n in range(5))


@pytest.fixture(scope="module")
def store(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    for n, name in enumerate(TILES):
        write_small_scene(folder, name, sample.landscape, slice(30 * n, 30 * n + 96), slice(20 * n, 20 * n + 80))
    return folder


@pytest.fixture
def run(darts: Callable, sample: Sample, store: Path) -> Callable:
    """Return a function that works on the tiles, into a folder, with further options."""

    def call(output: Path, *options: object, tiles: tuple[str, ...] = TILES) -> object:
        return darts("run", "sentinel2", "--scene-ids", *tiles, *common(sample, store, output), *options)

    return call


def common(sample: Sample, store: Path, output: Path) -> list[object]:
    return [
        "--offline", "--raw-data-store", store, "--output-data-dir", output, "--model-files", sample.optical_model,
        "--export-bands", "probabilities", "polygonized",
    ]  # fmt: skip


@pytest.fixture
def undisturbed(run: Callable, tmp_path: Path) -> dict[str, str]:
    """Hashes of all files of all tiles, made one after the other by this process."""
    assert run(tmp_path / "undisturbed", "--executor", "sequential").code == 0
    return hashes(tmp_path / "undisturbed")


@pytest.fixture(scope="module")
def on_one_core(
    start_darts: Callable, sample: Sample, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The same, made by a process on one core: networks round differently on another number of them."""
    output = tmp_path_factory.mktemp("alone")
    made = start_darts(*command(sample, store, output, "--executor", "sequential"), one_core=True)
    assert made.wait() == 0, made.text
    return hashes(output)


def hashes(output: Path) -> dict[str, str]:
    files = sorted(output.glob("t*/*"))
    return {str(file.relative_to(output)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def command(sample: Sample, store: Path, output: Path, *options: str) -> list[object]:
    words = ["run", "sentinel2", "--scene-ids", *TILES, "--darts-dir", sample.folder]
    return [*words, *common(sample, store, output), *options]


def outcomes(output: Path) -> list[Outcome]:
    return [record for record in read_ledgers(output) if isinstance(record, Outcome)]


def test_overlapped_tiles_have_the_same_bytes_as_tiles_in_turn(
    run: Callable, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    result = run(tmp_path / "out", "--executor", "overlapped")
    assert result.code == 0, result.text
    assert len(undisturbed) == len(TILES) * 4
    assert hashes(tmp_path / "out") == undisturbed
    assert sorted(results_of(tmp_path / "out").tile_id) == list(TILES)


def test_the_ledger_tells_all_of_a_tile(run: Callable, sample: Sample, tmp_path: Path) -> None:
    assert run(tmp_path / "out", tiles=TILES[:1]).code == 0
    start, outcome, end = read_ledgers(tmp_path / "out")
    assert isinstance(start, RunStart)
    assert isinstance(outcome, Outcome)
    assert isinstance(end, RunEnd)
    assert (outcome.status, outcome.attempt, outcome.worker) == ("success", 1, "cpu")
    assert outcome.run == start.run == end.run
    assert outcome.options == start.options
    assert outcome.models == {"optical": hashlib.sha256(sample.optical_model.read_bytes()).hexdigest()}
    assert set(outcome.seconds) == {"Loading Optical", "Preprocessing", "Segmenting", "Postprocessing", "Exporting"}
    assert outcome.bytes_loaded > 96 * 80 * 4 * 4
    assert {name: digest for name, (_, digest) in outcome.files.items()} == {
        Path(name).name: digest for name, digest in hashes(tmp_path / "out").items()
    }
    assert all(-137 < lon < -135 and 69 < lat < 70 for lon, lat in outcome.corners)
    assert start.tiles == TILES[:1]
    assert start.settings["patchsize"] == 1024
    assert end.reason == "finished"


def test_shards_share_a_folder_and_make_every_tile_once(
    run: Callable, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    for number in (1, 2, 3):
        result = run(tmp_path / "out", "--shard", f"{number}/3")
        assert result.code == 0, result.text
    assert hashes(tmp_path / "out") == undisturbed
    assert sorted(outcome.tile_id for outcome in outcomes(tmp_path / "out")) == list(TILES)
    assert len(list((tmp_path / "out").glob("darts-ledger-shard*of3.jsonl"))) == 3


@contextmanager
def held(output: Path, shard: str) -> Iterator[int]:
    """Let another process hold a folder."""
    output.mkdir(exist_ok=True)
    code = (
        "import sys; from pathlib import Path\n"
        "from darts.records.run_lock import hold_output; from darts.records.sharding import parse_shard\n"
        "with hold_output(Path(sys.argv[1]), parse_shard(sys.argv[2]) if sys.argv[2] else None):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(output), shard], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other.pid
        assert other.stdin is not None
        other.stdin.close()


def test_a_folder_has_one_run_at_a_time_and_different_shards_share_it(run: Callable, tmp_path: Path) -> None:
    with held(tmp_path / "out", "2/3") as pid:
        same = run(tmp_path / "out", "--shard", "2/3")
        assert same.code == 2
        assert f"process {pid} on" in same.flat
        assert "2/3" in same.flat
        assert run(tmp_path / "out").code == 2
        assert run(tmp_path / "out", "--shard", "1/4").code == 2
        assert run(tmp_path / "out", "--shard", "1/3").code == 0


@pytest.mark.parametrize("text", ["3", "0/3", "4/3", "1/0", "a/b", "-1/3"])
def test_a_shard_that_cannot_be_is_refused(run: Callable, tmp_path: Path, text: str) -> None:
    result = run(tmp_path / "out", f"--shard={text}")
    assert result.code == 2
    assert "shard must be like 3/16" in result.flat
    assert not (tmp_path / "out").exists()


def test_other_options_are_refused_and_named(run: Callable, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run(output, tiles=TILES[:2]).code == 0
    refused = run(output, "--min-object-size", "5", tiles=TILES[:3])
    assert refused.code == 2
    assert "2 tiles made with other options or models (t0, t1): min_object_size was 32, now 5" in refused.flat
    assert "--overwrite" in refused.flat
    assert len([record for record in read_ledgers(output) if isinstance(record, RunStart)]) == 1
    assert run(output, "--min-object-size", "5", "--overwrite", tiles=TILES[:2]).code == 0
    assert run(output, "--min-object-size", "5", tiles=TILES[:3]).code == 0
    assert run(output, "--batch-size", "1", "--min-object-size", "5", tiles=TILES[:3]).code == 0


def test_a_model_that_was_replaced_is_refused(run: Callable, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "models" / "mine.pt", (*OPTICAL, "ndvi"), seed=3)
    assert run(tmp_path / "out", "--model-files", model, tiles=TILES[:1]).code == 0
    save_tiny_model(model, (*OPTICAL, "ndvi"), seed=4)
    refused = run(tmp_path / "out", "--model-files", model, tiles=TILES[:1])
    assert refused.code == 2
    assert "models mine was " in refused.flat


def test_tiles_of_a_killed_run_are_those_of_its_options(run: Callable, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run(output, tiles=TILES[:1]).code == 0
    ledger = output / LEDGER_NAME
    start, _, _ = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(start + b'{"kind": "tile", "tile_id": "t0", "outp')  # killed after the tile, before its record
    assert "other options" in run(output, "--mask-erosion-size", "3", tiles=TILES[:1]).flat
    again = run(output, tiles=TILES[:1])
    assert again.code == 0
    assert "1 skipped" in again.flat
    assert set(made(read_ledgers(output))["t0"].files) == {file.name for file in (output / "t0").iterdir()}


def test_failed_tiles_are_tried_again_unless_told_otherwise(run: Callable, tmp_path: Path) -> None:
    output = tmp_path / "out"
    tiles = ("absent", *TILES[:2])
    assert run(output, tiles=tiles).code == 1
    assert run(output, tiles=tiles).code == 1
    assert [o.cause for o in outcomes(output) if o.status == "failed"] == ["MissingDataError"] * 2
    skipping = run(output, "--skip-failed", tiles=tiles)
    assert skipping.code == 0
    assert "absent" not in results_of(output).tile_id.tolist()


@pytest.mark.parametrize(("option", "left"), [(("--fail-fast",), 3), (("--max-failures", "1"), 2)])
def test_a_run_is_given_up_after_so_many_failures(
    run: Callable, tmp_path: Path, option: tuple[str, ...], left: int
) -> None:
    tiles = ("absent-1", "absent-2", *TILES[:2])
    result = run(tmp_path / "out", *option, "--executor", "sequential", tiles=tiles)
    assert result.code == 1
    assert "given up" in result.flat
    end = read_ledgers(tmp_path / "out")[-1]
    assert isinstance(end, RunEnd)
    assert "failed tile" in end.reason
    assert len(results_of(tmp_path / "out")) == len(tiles) - left


def test_an_interrupt_finishes_what_is_computed_and_a_restart_the_rest(
    start_darts: Callable, sample: Sample, store: Path, tmp_path: Path, on_one_core: dict[str, str]
) -> None:
    output = tmp_path / "out"
    words = command(sample, store, output, "--executor", "overlapped")
    process = start_darts(*words, one_core=True, real_end=True)
    wait_for(lambda: "tiles, results go to" in process.text, process)
    process.signal(signal.SIGINT)
    assert process.wait() == 130, process.text
    assert "Traceback" not in process.text
    end = read_ledgers(output)[-1]
    assert isinstance(end, RunEnd)
    assert end.reason == "interrupted"
    assert not list(output.glob(".*.tmp"))
    done = hashes(output)
    assert len(done) < len(on_one_core)
    assert done.items() <= on_one_core.items()
    assert start_darts(*words, one_core=True).wait() == 0
    assert hashes(output) == on_one_core


def test_a_worker_that_is_killed_costs_only_its_tiles(
    start_darts: Callable, sample: Sample, store: Path, tmp_path: Path, on_one_core: dict[str, str]
) -> None:
    output = tmp_path / "out"
    process = start_darts(*command(sample, store, output, "--devices", "cpu", "cpu"), fork_workers=False)
    victim = wait_for(lambda: worker_of(process.pid), process)
    wait_for(lambda: (output / LEDGER_NAME).exists(), process)
    os.kill(victim, signal.SIGKILL)
    assert process.wait() == 0, process.text
    assert hashes(output) == on_one_core
    lost = [outcome for outcome in outcomes(output) if outcome.cause == "WorkerLost"]
    assert all(outcome.again for outcome in lost)
    assert "SIGKILL" in process.text


def test_a_second_interrupt_stops_at_once(start_darts: Callable, sample: Sample, store: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    words = command(sample, store, output, "--executor", "overlapped", "--patch-size", "32", "--overlap", "28")
    process = start_darts(*words, real_end=True)
    for word in ("tiles, results go to", "stopping"):
        wait_for(lambda word=word: word in process.text, process)
        process.signal(signal.SIGINT)
    assert process.wait() == 130, process.text
    assert "Traceback" not in process.text


def worker_of(pid: int) -> int | None:
    """Return the process id of a worker that has its share of the cores already, None if there is none yet."""
    workers = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.Error):  # some other child, which ends just now
            workers += [child.pid] if "spawn_main" in " ".join(child.cmdline()) else []
    return workers[-1] if len(workers) == 2 else None


def wait_for(question: Callable, process: Process) -> int:
    while not (answer := question()):
        assert not process.ended, process.text
        time.sleep(0.01)
    return answer
