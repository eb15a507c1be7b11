"""`darts prepare-data` against real servers on loopback, then `darts run --offline` with the network cut off."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from darts_acquisition.testing import Fault, fault_proxy
from tests.conftest import Result, Sample, results_of
from tests.loopback import CLOUDY, EE_SCENE, SCENES, World, loopback_world, make_cubes

SELECTION = ("--tile-ids", "08WMA", "--start-date", "2023-07-01", "--end-date", "2023-08-31")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with loopback_world(tmp_path_factory.mktemp("world")) as servers:
        yield servers


@pytest.fixture
def data(sample: Sample, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with models and empty cubes, and the keys of the S3 service."""
    for name, value in world.s3.environment().items():
        if name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, value)
    folder = tmp_path / "data"
    shutil.copytree(sample.folder / "models", folder / "models")
    make_cubes(folder / "aux")
    return folder


def rasters(output: Path) -> dict[str, str]:
    """Return a hash of every file of results that a tile has."""
    files = [file for file in output.glob("S2*/*") if file.is_file()]
    return {str(file.relative_to(output)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def counts(result: Result) -> tuple[int, ...]:
    """Return how much was fetched, was there, and failed."""
    found = re.search(r"(\d+) fetched.*?, (\d+) already there, (\d+) failed", result.flat)
    assert found, result.text
    return tuple(map(int, found.groups()))


def skip_without_namespaces() -> None:
    """Skip the test where no process may leave the network."""
    for unshare in (["unshare", "-n"], ["unshare", "-rn"]):
        if (
            shutil.which("unshare")
            and subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode == 0
        ):
            return
    pytest.skip("this machine does not let us cut the network off (unshare)")


def test_prepared_data_give_the_same_bytes_offline_as_a_run_online(
    darts: Callable, start_darts: Callable, world: World, data: Path, tmp_path: Path
) -> None:
    skip_without_namespaces()
    folders = ("--darts-dir", data)
    prepared = darts("prepare-data", "sentinel2", *SELECTION, *folders, *world.options, "--optical", "--aux")
    assert prepared.code == 0, prepared.text
    assert counts(prepared) == (4, 0, 0)  # two scenes, two cubes
    bands = ("probabilities", "binarized", "polygonized", "optical", "dem", "tcvis")
    run = ("run", "sentinel2", *SELECTION, "--overwrite", "--export-bands", *bands)
    output = ("--output-data-dir", tmp_path / "offline")
    offline = start_darts(*run, *folders, *world.options, "--offline", *output, without_network=True)
    assert offline.wait() == 0, offline.text

    fresh = tmp_path / "fresh"
    shutil.copytree(data / "models", fresh / "models")
    make_cubes(fresh / "aux")
    online = darts(*run, "--darts-dir", fresh, *world.options, "--output-data-dir", tmp_path / "online")
    assert online.code == 0, online.text
    assert sorted(results_of(tmp_path / "online").tile_id) == sorted(SCENES)
    made = rasters(tmp_path / "offline")
    assert len(made) >= 2 * 6
    assert made == rasters(tmp_path / "online")


def test_a_second_preparation_fetches_nothing(darts: Callable, world: World, data: Path) -> None:
    prepare = ("prepare-data", "sentinel2", *SELECTION, "--darts-dir", data, "--optical", "--aux")
    assert darts(*prepare, *world.options).code == 0
    world.ee.clear()
    with fault_proxy(world.s3.endpoint) as proxy:
        again = darts(*prepare, *world.behind(proxy.url))
        assert again.code == 0, again.text
        assert counts(again) == (0, 4, 0)
        assert not proxy.requests
    assert not world.ee.requests


def test_the_ids_found_are_kept_in_the_file_of_the_users_choice(
    darts: Callable, world: World, data: Path, tmp_path: Path
) -> None:
    ids = tmp_path / "ids.json"
    prepare = ("prepare-data", "sentinel2", *SELECTION, "--darts-dir", data, *world.options)
    assert darts(*prepare, "--optical", "--prep-data-scene-id-file", ids).code == 0
    assert json.loads(ids.read_text()) == sorted(SCENES)
    assert darts(*prepare, "--optical", "--prep-data-scene-id-file", ids, "--max-cloud-cover", "100").code == 1
    assert json.loads(ids.read_text()) == sorted([*SCENES, CLOUDY])  # whose images the service does not have


def test_a_scene_that_cannot_be_had_does_not_stop_the_others(darts: Callable, world: World, data: Path) -> None:
    result = darts(
        "prepare-data", "sentinel2", "--darts-dir", data, *world.options, "--optical",
        "--scene-ids", SCENES[0], CLOUDY, "S2A_MSIL2A_20200101T000000_N0500_R001_T08WMA_20200101T000000", SCENES[1],
    )  # fmt: skip
    assert result.code == 1
    assert counts(result) == (2, 0, 2)
    assert "has no scene S2A_MSIL2A_20200101T000000" in result.flat
    assert {path.name for path in (data / "input/sentinel2/cdse-scenes").glob("*.zarr")} == {
        f"cdse-s2-sr-scene-{scene}.zarr" for scene in SCENES
    }


def test_a_preparation_that_was_cut_short_is_taken_up(darts: Callable, world: World, data: Path) -> None:
    prepare = ("prepare-data", "sentinel2", *SELECTION, "--darts-dir", data, "--optical", "--aux")
    with fault_proxy(world.s3.endpoint) as proxy:
        proxy.faults(Fault(match="B08_10m", action="status", status=503))
        broken = darts(*prepare, *world.behind(proxy.url))
    assert broken.code == 1, broken.text
    assert counts(broken) == (2, 0, 2)  # the cubes are there
    for scene in SCENES:
        assert scene in broken.flat
    assert not list((data / "input/sentinel2/cdse-scenes").glob("*.zarr"))
    again = darts(*prepare, *world.options)
    assert again.code == 0, again.text
    assert counts(again) == (2, 2, 0)


def test_offline_a_selection_that_was_not_prepared_is_an_error(darts: Callable, world: World, data: Path) -> None:
    run = ("run", "sentinel2", "--darts-dir", data, *world.options, "--offline")
    asked = len(world.stac.requests)
    result = darts(*run, *SELECTION)
    assert result.code == 2
    assert "was not prepared" in result.flat
    assert len(world.stac.requests) == asked


def test_a_dry_run_tells_what_would_be_done_and_changes_nothing(darts: Callable, world: World, data: Path) -> None:
    before = sorted(data.rglob("*"))
    dry = darts("run", "sentinel2", *SELECTION, "--darts-dir", data, *world.options, "--dry-run")
    assert dry.code == 0, dry.text
    assert sorted(data.rglob("*")) == before
    assert "model full needs ArcticDEM and TCVIS" in dry.flat
    assert "model optical needs no auxiliary data" in dry.flat
    sizes = [asset["file:size"] for item in world_items(world) for asset in item["assets"].values()]
    for scene in SCENES:
        assert f"{scene} results to make; optical B02_10m, B03_10m, B04_10m, B08_10m, SCL_20m to fetch" in dry.flat
    assert f"2 tiles: 0 done, 2 to make; optical data of 2 to fetch ({sum(sizes) / 1000:.1f} kB)" in dry.flat
    assert "ArcticDEM 10 m" in dry.flat
    assert "chunks to fetch" in dry.flat

    prepare = ("prepare-data", "sentinel2", *SELECTION, "--darts-dir", data, *world.options, "--optical", "--aux")
    assert "to fetch" in darts(*prepare, "--dry-run").flat
    assert sorted(data.rglob("*")) == before
    assert darts(*prepare).code == 0
    asked = len(world.stac.requests), len(world.ee.requests)
    dry = darts("run", "sentinel2", *SELECTION, "--darts-dir", data, *world.options, "--offline", "--dry-run")
    assert dry.code == 0, dry.text
    assert "all optical data on disk; ArcticDEM 10 m on disk; TCVIS 2024 on disk" in dry.flat
    assert (len(world.stac.requests), len(world.ee.requests)) == asked


def test_an_offline_dry_run_names_what_would_fail(darts: Callable, world: World, data: Path) -> None:
    asked = len(world.stac.requests)
    run = ("run", "sentinel2", "--scene-ids", SCENES[0], "--darts-dir", data, *world.options)
    result = darts(*run, "--offline", "--dry-run")
    assert result.code == 0, result.text
    assert len(world.stac.requests) == asked
    assert "would fail: lacks B02_10m" in result.flat
    assert "1 would fail" in result.flat


def test_scenes_of_earth_engine_are_prepared_and_run_offline(
    darts: Callable, world: World, data: Path, tmp_path: Path
) -> None:
    selection = ("--raw-data-source", "gee", *SELECTION, "--darts-dir", data)
    prepared = darts("prepare-data", "sentinel2", *selection, *world.options, "--optical", "--aux")
    assert prepared.code == 0, prepared.text
    assert counts(prepared) == (3, 0, 0)
    asked = len(world.ee.requests)
    run = darts("run", "sentinel2", *selection, *world.options, "--offline", "--output-data-dir", tmp_path / "out")
    assert run.code == 0, run.text
    assert len(world.ee.requests) == asked
    assert (tmp_path / "out" / EE_SCENE / "probabilities.tif").is_file()


def test_a_tile_whose_area_is_not_known_is_a_failure_of_the_auxiliary_data(
    darts: Callable, world: World, data: Path
) -> None:
    options = ("--darts-dir", data, *world.options, "--aux")
    unknown = darts("prepare-data", "sentinel2", "--scene-ids", "abc", *options)
    assert unknown.code == 1, unknown.text
    assert counts(unknown) == (0, 0, 1)
    assert "has no scene abc" in unknown.flat
    some = darts("prepare-data", "sentinel2", "--scene-ids", "abc", SCENES[0], *options)
    assert some.code == 1
    assert counts(some) == (2, 0, 1)
    imported = darts("prepare-data", "sentinel2", "--raw-data-source", "import", "--scene-ids", "foo", *options)
    assert imported.code == 1
    assert counts(imported) == (0, 0, 1)


def test_preparing_and_offline_exclude_each_other(darts: Callable, world: World, data: Path) -> None:
    asked = len(world.stac.requests)
    result = darts("prepare-data", "sentinel2", *SELECTION, "--darts-dir", data, *world.options, "--aux", "--offline")
    assert result.code == 2
    assert "offline" in result.flat
    assert len(world.stac.requests) == asked


def test_an_offline_run_after_a_preparation_in_one_script_asks_no_server(
    world: World, data: Path, sample: Sample
) -> None:
    from dataclasses import replace

    from darts.pipelines import Sentinel2Pipeline
    from darts.pipelines.stac_options import StacOptions

    stac = StacOptions(endpoint=world.stac.url, s3_endpoint=world.s3.endpoint, requests_per_second=500)
    pipeline = Sentinel2Pipeline(
        tile_ids=["08WMA"], years=[2023], stac=stac, raw_data_store=str(data / "store"),  # type: ignore[arg-type]
        model_files=[sample.optical_model], output_data_dir=data / "out",
    )  # fmt: skip
    assert pipeline.prepare_data(optical=True).exit_code == 0
    asked = len(world.stac.requests)
    summary = replace(pipeline, offline=True).run()
    assert summary.count("success") == 2
    pipeline.offline = True
    assert pipeline.run().count("skipped") == 2
    assert len(world.stac.requests) == asked


def test_without_a_raw_data_store_nothing_is_kept(darts: Callable, world: World, data: Path, tmp_path: Path) -> None:
    result = darts(
        "run", "sentinel2", "--scene-ids", SCENES[0], "--darts-dir", data, *world.options, "--no-raw-data-store",
        "--model-files", data / "models" / "optical.pt", "--output-data-dir", tmp_path / "out",
    )  # fmt: skip
    assert result.code == 0, result.text
    assert (tmp_path / "out" / SCENES[0] / "probabilities.tif").is_file()
    assert not (data / "input").exists()


def test_without_models_all_auxiliary_data_is_prepared(darts: Callable, world: World, data: Path) -> None:
    shutil.rmtree(data / "models")
    result = darts(
        "prepare-data", "sentinel2", "--scene-ids", SCENES[0], "--darts-dir", data, *world.options, "--aux", "--dry-run"
    )
    assert result.code == 0, result.text
    assert "ArcticDEM 10 m" in result.flat
    assert "TCVIS 2024" in result.flat


def world_items(world: World) -> list[dict]:
    import requests

    body = {"collections": ["sentinel-2-l2a"], "ids": list(SCENES)}
    return requests.post(f"{world.stac.url}search", json=body, timeout=30).json()["features"]


def hear_interrupts() -> None:
    """Undo what a shell does to what it starts in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_interrupt_stops_at_once_and_leaves_nothing_half_done(world: World, data: Path) -> None:
    with fault_proxy(world.s3.endpoint) as proxy:
        proxy.faults(Fault(match="GET .*jp2", action="stall", after_bytes=100, stall_s=600))
        command = ["prepare-data", "sentinel2", *SELECTION, "--darts-dir", str(data), "--optical"]
        process = subprocess.Popen(
            [sys.executable, "-m", "darts", *command, *world.behind(proxy.url)], stderr=subprocess.PIPE, text=True,
            preexec_fn=hear_interrupts,
        )  # fmt: skip
        try:
            while not any("jp2" in path for _, path in proxy.requests) and process.poll() is None:
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, shown = process.communicate(timeout=60)  # far less than the server stalls
        finally:
            process.kill()
    assert process.returncode == 130, shown
    assert "interrupted" in shown
    store = data / "input/sentinel2/cdse-scenes"
    assert not list(store.glob("*.zarr"))
    left = [path for path in store.iterdir() if path.name.startswith(".")]
    assert left, "the test cut nothing off"
