"""Workers in processes: what cannot work there is said once and clearly."""

import logging
import multiprocessing
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from darts.executors.crew import Crew, Member
from darts.executors.processes import Processes, _Child
from darts.pipelines import Sentinel2Pipeline
from darts.pipelines.summary import RunSummary
from darts.records.events import Job
from darts.records.ledger import Outcome
from darts.records.sharding import parse_shard
from darts.tiles import Tile
from darts_utils.errors import ConfigError

SCRIPT = """
from darts.executors.processes import Processes

class Pipeline:
    def for_worker(self, device, memory):
        return self

def work():
    Processes(Pipeline(), ["cpu"], memory=None, n_tiles=1)
"""


def last_line(script: str, folder: Path, *, from_file: bool) -> tuple[str, int]:
    """Return the last line that a script writes on stderr, and how many processes told of an error."""
    path = folder / "script.py"
    path.write_text(script)
    words = [str(path)] if from_file else ["-c", script]
    done = subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True, cwd=folder, timeout=60)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1], done.stderr.count("Traceback (most recent call last):")


def test_a_script_without_a_guard_is_told_so_at_once(tmp_path: Path) -> None:
    told, errors = last_line(SCRIPT + "\nwork()\n", tmp_path, from_file=True)
    assert told.startswith("darts_utils.errors.ConfigError")
    assert 'if __name__ == "__main__":' in told
    assert errors <= 3  # the worker's, with its cause, and the script's own: it is not started again and again


def test_a_pipeline_that_no_other_process_can_find_is_refused(tmp_path: Path) -> None:
    told, _ = last_line(SCRIPT + "\nif __name__ == '__main__':\n    work()\n", tmp_path, from_file=False)
    assert "define pipelines of your own in a module" in told


def test_a_tile_that_cannot_be_sent_is_named() -> None:
    ours, theirs = multiprocessing.Pipe()
    workers = object.__new__(Processes)
    workers._crew = Crew([_Child(name="cpu", device="cpu", cores=frozenset(), ready=True, connection=ours)], 1)
    with theirs, ours, pytest.raises(ConfigError, match="tile t cannot be sent to another process"):
        workers.submit(Job(tile=Tile("t", lambda: 0, Path("t"))))


def test_devices_leave_the_options_as_they_are_so_that_a_pipeline_runs_twice(tmp_path: Path) -> None:
    pipeline = Sentinel2Pipeline(scene_ids=["a"], raw_data_store=tmp_path, devices=["cpu", "cpu"])
    for _ in range(2):
        pipeline._check()
        assert pipeline.device is None
        assert pipeline.first_device == "cpu"


@pytest.mark.parametrize("most", [True, -1])
def test_most_failures_are_a_number(tmp_path: Path, most: int) -> None:
    with pytest.raises(ConfigError, match="max_failures"):
        Sentinel2Pipeline(scene_ids=["a"], raw_data_store=tmp_path, max_failures=most)._check()


def test_a_pipeline_that_downloaded_can_be_sent(tmp_path: Path) -> None:
    pipeline = Sentinel2Pipeline(scene_ids=["a"], raw_data_store=tmp_path)
    pipeline._report = threading.Lock()  # type: ignore[assignment, misc]  # as a display holds
    assert pickle.loads(pickle.dumps(pipeline.for_worker("cpu", None))).device == "cpu"


def test_all_that_asks_for_tiles_hears_of_the_share_alone(tmp_path: Path) -> None:
    ids = [f"t{n}" for n in range(12)]
    shares = [Sentinel2Pipeline(scene_ids=ids, raw_data_store=tmp_path, shard=f"{n}/3") for n in (1, 2, 3)]
    for pipeline in shares:
        tiles = pipeline._tiles()
        assert pipeline._tiles_found == tiles
        assert all(parse_shard(pipeline.shard or "").holds(tile.tile_id) for tile in tiles)
    assert sorted(tile.tile_id for pipeline in shares for tile in pipeline._tiles_found) == sorted(ids)


@pytest.mark.parametrize(("level", "shown"), [(logging.DEBUG, True), (logging.INFO, False)])
def test_messages_of_workers_keep_to_the_level_of_the_log(
    level: int, shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(level, "darts.somewhere"):
        record = logging.LogRecord("darts.somewhere", logging.DEBUG, "", 0, "a detail", (), None)
        logging.getLogger("darts.somewhere").addHandler(caplog.handler)
        try:
            Crew([member := Member("one")], 1).hear(member, record)
        finally:
            logging.getLogger("darts.somewhere").removeHandler(caplog.handler)
    assert ("a detail" in caplog.text) == shown


def test_an_attempt_that_was_to_be_made_again_is_no_failed_tile() -> None:
    left = Outcome(tile_id="a", output_path="", status="failed", again=True)
    failed = Outcome(tile_id="b", output_path="", status="failed")
    assert RunSummary((left, failed), ("a",), True).count("failed") == 1
