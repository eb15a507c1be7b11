"""Runs on a Ray cluster, a real one on this machine; and what is decided without one."""

import contextlib
import errno
import hashlib
import inspect
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import xarray as xr

from darts.executors import ray_cluster, ray_workers
from darts.executors.executor import LOST
from darts.executors.ray_cluster import Share, join_cluster, share_of
from darts.pipelines.base import _BasePipeline
from darts.pipelines.summary import RunSummary
from darts.records.ledger import Outcome, last_outcomes, read_ledgers
from darts_utils.errors import CheckpointError, ConfigError, DeviceError, StoreError

pytest.importorskip("ray")


@dataclass(kw_only=True)
class Drawn(_BasePipeline):
    """Tiles that are drawn rather than read, by names; some do as they are called."""

    names: list[str] = field(default_factory=lambda: ["a", "b", "c"])
    trap: Path | None = None
    """Folder in which the tile named killer leaves word before it kills its process, which it does once."""

    def _tileinfos(self) -> list[tuple[Any, Path]]:
        return [(name, self._output(self.default_dirs.resolve()) / name) for name in self.names]

    def _get_tile_id(self, tilekey: str) -> str:
        return tilekey

    def _load_tile(self, tilekey: str) -> xr.Dataset:
        from darts_utils.testing import optical_tile, utm_geobox

        if tilekey == "bad":
            import numba
            import torch

            raise StoreError(f"this tile is bad: threads {torch.get_num_threads()}, {numba.get_num_threads()}")
        if tilekey == "killer" and self.trap is not None:
            try:
                (self.trap / "killed").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        tile = optical_tile(utm_geobox((96, 96)), seed=len(tilekey) + ord(tilekey[-1]))
        return tile.assign_attrs(tile_id=tilekey, sensor="drawn", quality_source="valid pixels")

    def _arcticdem_resolution(self) -> Any:
        return 10

    def _default_output_name(self) -> str:
        return "drawn"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import segmentation_models_pytorch as smp
    import torch

    from darts_segmentation import save_checkpoint

    torch.manual_seed(0)
    tiny = {"arch": "unet", "encoder_name": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": (16, 8, 8),
            "classes": 1, "in_channels": 4}  # fmt: skip
    network = smp.create_model(**tiny, encoder_weights=None)
    path = tmp_path_factory.mktemp("models") / "tiny.pt"
    bands = ["blue", "green", "red", "nir"]
    save_checkpoint(path, model=tiny, bands=bands, state_dict=network.state_dict(), patch_size=64)
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster of two cores on this machine, which this process is connected to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_cluster, "available_cores", lambda: 2)
        patch.setenv("RAY_worker_niceness", "0")  # 15, Ray's own, starves workers where other tests run beside
        joined = join_cluster("local", gpus=False)
        import ray

        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        joined.leave()


@pytest.fixture(scope="module")
def given(model: Path) -> dict[str, Any]:
    """Options of all runs."""
    return {"model_files": model, "device": "cpu", "patch_size": 64, "overlap": 16, "mask_erosion_size": 2,
            "offline": True, "export_bands": ["probabilities", "polygonized", "extent"]}  # fmt: skip


@pytest.fixture
def on_ray(cluster: None, given: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return given | {"output_data_dir": tmp_path / "out", "executor": "ray", "ray_workers": 1}


@dataclass
class Watched:
    """A run on the cluster, and what it told of itself."""

    output: Path
    names: list[str]
    summary: RunSummary
    limits: set[int]
    """Bytes that a worker could take."""


def watch(output: Path, names: list[str], **options: Any) -> Watched:
    pipeline = Drawn(**options, output_data_dir=output, executor="ray", names=names, memory_budget="4GB")
    handler, log = Collect(), logging.getLogger("darts")
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    summary = pipeline.run()
    log.setLevel(before)
    log.removeHandler(handler)
    events = [getattr(record, "darts_event", {}) for record in handler.records]
    return Watched(output, names, summary, {event["bytes_limit"] for event in events if "bytes_limit" in event})


@pytest.fixture(scope="module")
def watched(cluster: None, given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A run of one worker, with a tile that fails."""
    return watch(tmp_path_factory.mktemp("watched") / "out", ["a", "bad", "c"], ray_workers=1, **given)


class Collect(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.mark.slow
def test_a_killed_worker_costs_an_attempt_and_no_tile(cluster: None, given: dict[str, Any], tmp_path: Path) -> None:
    names = ["a", "killer", "bad", "c", "d", "e"]
    disturbed = watch(tmp_path / "out", names, ray_workers=2, trap=tmp_path, **given)
    assert (tmp_path / "killed").exists()
    records = read_ledgers(disturbed.output)
    lost = [record for record in records if isinstance(record, Outcome) and record.cause == LOST]
    assert "killer" in {outcome.tile_id for outcome in lost}
    assert len({outcome.worker for outcome in lost}) == 1
    assert all(outcome.again and "its process died" in outcome.error for outcome in lost)
    last = last_outcomes(records)
    # Another tile may have been complete when its worker died, and is found so.
    assert {name for name in names if last[name].status == "failed"} == {"bad"}
    assert last["killer"].status == "success"
    assert last["killer"].attempt == 2
    assert {outcome.worker for outcome in last.values()} <= {"ray-1", "ray-2"}
    assert disturbed.summary.exit_code == 1  # of the bad tile
    assert disturbed.limits == {2_000_000_000}
    assert_made_as_in_one_process(disturbed, given, tmp_path)


def test_a_cluster_makes_the_same_bytes_as_one_process(watched: Watched, given: dict[str, Any], tmp_path: Path) -> None:
    assert watched.summary.exit_code == 1  # of the bad tile
    assert_made_as_in_one_process(watched, given, tmp_path)


def assert_made_as_in_one_process(run: Watched, given: dict[str, Any], folder: Path) -> None:
    import torch

    names = [name for name in run.names if name != "bad"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in each worker: networks round by how many there are
    Drawn(**given, output_data_dir=folder / "here", executor="sequential", names=names).run()
    torch.set_num_threads(threads)
    made = files_of(folder / "here")
    assert len(made) >= 4 * len(names)
    assert files_of(run.output) == made


def test_what_workers_log_is_in_the_log_of_the_run_with_tracebacks(watched: Watched) -> None:
    log = next(watched.output.glob("*.log")).read_text()
    assert "bad failed" in log
    assert "StoreError: this tile is bad" in log
    assert "in _load_tile" in log


def test_a_worker_keeps_to_its_cores_and_its_part_of_the_memory(watched: Watched) -> None:
    last = last_outcomes(read_ledgers(watched.output))
    assert "threads 1, 1" in last["bad"].error
    assert watched.limits == {4_000_000_000}


@pytest.mark.slow
def test_a_run_that_is_given_up_leaves_what_no_worker_computes_yet(on_ray: dict[str, Any]) -> None:
    names = ["bad", *"cdefghijklmnop"]
    summary = Drawn(**on_ray, names=names, fail_fast=True).run()
    made = [outcome.tile_id for outcome in summary.outcomes]
    assert sorted([*made, *summary.left]) == sorted(names)
    assert summary.left


@pytest.mark.slow
def test_a_model_that_a_worker_refuses_is_the_error_of_the_run(on_ray: dict[str, Any], tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.pt"
    spoilt.write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=r"spoilt\.pt"):
        Drawn(**on_ray | {"model_files": spoilt}).run()


def test_a_pipeline_that_cannot_be_sent_is_refused_in_one_line(on_ray: dict[str, Any]) -> None:
    pipeline = Drawn(**on_ray)
    pipeline.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"Drawn cannot be sent to the cluster: .*lock") as caught:
        pipeline.run()
    assert "\n" not in str(caught.value)


def test_a_cluster_without_room_is_told_with_what_it_has(
    on_ray: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "PATIENCE_S", 0.5)
    expected = (
        r"no room .* one takes 64 cores, the cluster has 1 node with 2 cores and 0 GPUs, of which \d cores .* free"
    )
    with pytest.raises(DeviceError, match=expected):
        Drawn(**on_ray | {"ray_cpus": 64}).run()


def test_a_node_with_another_version_of_darts_is_refused(
    on_ray: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "__version__", "0.0.0")
    with pytest.raises(ConfigError, match=r"has darts .*, this is 0\.0\.0; all nodes of a cluster need the same"):
        Drawn(**on_ray).run()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"install the extra: pip install 'darts-permafrost\[ray\]'"):
        ray_workers.RayWorkers(Drawn(executor="ray"), 1)


@pytest.mark.parametrize("address", ["nonsense", "ray://nowhere", "127.0.0.1:port", "127.0.0.1:99999"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=address):
        join_cluster(address, gpus=False)


def test_an_address_where_nobody_listens_is_refused_at_once() -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(
        ConfigError, match=f"no Ray cluster answers at 127.0.0.1:{port}: .*{os.strerror(errno.ECONNREFUSED)}"
    ):
        join_cluster(f"127.0.0.1:{port}", gpus=False)


def test_a_server_of_another_kind_is_refused() -> None:
    server = HTTPServer(("", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(ConfigError, match="is no Ray cluster"):
            join_cluster(f"127.0.0.1:{server.server_port}", gpus=False)
    finally:
        server.shutdown()
        server.server_close()


def test_a_worker_takes_a_gpu_where_there_are_some_and_its_part_of_the_cores() -> None:
    plain, one, two = {"CPU": 8.0}, {"CPU": 6.0, "GPU": 1.0}, {"CPU": 9.0, "GPU": 2.0}
    assert share_of(Drawn(), [plain]) == Share(1, 0)
    assert share_of(Drawn(ray_cpus=3), [plain]) == Share(3, 0)
    assert share_of(Drawn(), [plain, one, two]) == Share(4, 1)
    assert share_of(Drawn(device="cpu"), [plain, one, two]) == Share(1, 0)
    assert share_of(Drawn(device="cuda", ray_cpus=1), [one]) == Share(1, 1)
    assert [Share(4, 1).fits(node) for node in (plain, one, two, {})] == [0, 1, 2, 0]
    assert [Share(3, 0).fits(node) for node in (plain, one, two, {})] == [2, 2, 3, 0]
    with pytest.raises(DeviceError, match="no node of the cluster has a GPU"):
        share_of(Drawn(device="cuda"), [plain])
    with pytest.raises(ConfigError, match="Ray chooses among the GPUs"):
        share_of(Drawn(device=1), [one])


SCRIPT = """
{imports}

{drawn}

@dataclass(kw_only=True)
class Disturbing(Drawn):
    mode: str
    driver: int
    heard: Path

    def _load_tile(self, tilekey: str):
        if tilekey == "c" and self.mode == "killed":
            os.kill(self.driver, signal.SIGKILL)
        elif tilekey == "c" and self.mode != "finished":
            os.killpg(self.driver, signal.SIGINT)
            while not self.heard.exists():
                time.sleep(0.05)
            if self.mode == "interrupted twice":
                os.killpg(self.driver, signal.SIGINT)
                time.sleep(1000)
        return super()._load_tile(tilekey)


class Touch(logging.Handler):
    def emit(self, record):
        heard.touch()


heard = Path("heard")
logging.getLogger("darts.stopping").addHandler(Touch())
pipeline = Disturbing(**{given!r}, mode={mode!r}, driver=os.getpid(), heard=heard)
summary = pipeline.run()
print(f"{{len(summary.outcomes)}} of {{len(pipeline.names)}}, interrupted: {{summary.interrupted}}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["finished", "interrupted", "interrupted twice", "killed"])
def test_a_cluster_of_its_own_ends_with_a_run_that_is(mode: str, given: dict[str, Any], tmp_path: Path) -> None:
    names = list("abcd" if mode == "finished" else "abcdefghijklmnop")
    options = given | {"executor": "ray", "ray_workers": 1, "names": names, "output_data_dir": "out",
                       "model_files": str(given["model_files"])}  # fmt: skip
    imports = (
        "import logging, os, signal, time\nfrom dataclasses import dataclass, field\nfrom pathlib import Path\n"
        "from typing import Any\nimport xarray as xr\nfrom darts.pipelines.base import _BasePipeline\n"
        "from darts_utils.errors import StoreError"
    )
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(imports=imports, drawn=inspect.getsource(Drawn), given=options, mode=mode))
    home, mark = tmp_path / "home", str(tmp_path)
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    run = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, env=environment | {"HOME": str(home), "MARK": mark},
        start_new_session=True, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    left = [process for process in psutil.process_iter() if _environment(process).get("MARK") == mark]
    assert not psutil.wait_procs(left, timeout=30)[1]
    assert not list(home.rglob("*"))
    ended = {"finished": 0, "interrupted": 0, "interrupted twice": -signal.SIGINT, "killed": -signal.SIGKILL}
    assert run.returncode == ended[mode], run.stderr
    if mode == "finished":
        assert run.stdout == "4 of 4, interrupted: False\n"
    if mode == "interrupted":
        done = [outcome for outcome in last_outcomes(read_ledgers(tmp_path / "out")).values() if outcome.files]
        assert run.stdout == f"{len(done)} of 16, interrupted: True\n"
        assert 0 < len(done) < 16
        assert "Traceback" not in run.stderr
    assert "raylet" not in run.stderr


def _environment(process: psutil.Process) -> dict[str, str]:
    with contextlib.suppress(psutil.Error):
        return process.environ()
    return {}


def files_of(folder: Path) -> dict[str, str]:
    """Return hashes of the files of all tiles."""
    files = [file for tile in folder.iterdir() if tile.is_dir() for file in tile.iterdir()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
