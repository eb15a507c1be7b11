"""`darts run sentinel2`, end to end through the real command."""

import hashlib
import json
import shutil
import signal
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image
from rio_cogeo.cogeo import cog_validate

from darts.records.ledger import Ledger
from darts.timings import STEPS
from tests.conftest import Sample, results_of, write_dn, write_small_scene

DEFAULT_FILES = {
    "probabilities.tif",
    "binarized.tif",
    "prediction_segments.parquet",
    "prediction_segments.gpkg",
    "prediction_cut_segments.parquet",
    "prediction_extent.parquet",
    "prediction_extent.gpkg",
    "thumbnail.jpg",
}


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(scope="module")
def finished(start_darts: Callable, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder in which the scene was made once; whoever spoils it takes a copy."""
    output = tmp_path_factory.mktemp("finished") / "out"
    make(start_darts, sample, output)
    return output


def make(start_darts: Callable, sample: Sample, output: Path, *options: str) -> None:
    folders = ("--darts-dir", sample.folder, "--output-data-dir", output)
    run = start_darts("run", "sentinel2", "--scene-ids", sample.scene_id, "--offline", *folders, *options)
    assert run.wait() == 0, run.text


@pytest.fixture
def store(sample: Sample, tmp_path: Path) -> Path:
    """A raw data store of its own, so that a test may spoil it."""
    folder = tmp_path / "store"
    write_small_scene(folder, "good", sample.landscape, slice(0, 128), slice(0, 128))
    return folder


def test_a_run_writes_what_it_promises(finished: Path, sample: Sample) -> None:
    folder = finished / sample.scene_id
    assert {file.name for file in folder.iterdir()} == DEFAULT_FILES
    for file in folder.glob("*.tif"):
        valid, errors, warnings = cog_validate(file)
        assert valid, (file, errors)
        assert not warnings
        with rasterio.open(file) as raster:
            assert raster.crs == sample.landscape.geobox.crs.proj.to_wkt() or raster.crs.to_epsg() == 32608
            assert raster.transform == sample.landscape.geobox.transform
            assert raster.shape == tuple(sample.landscape.geobox.shape)
            assert raster.tags()["DARTS_tileid"] == sample.scene_id
            assert "full:" in raster.tags()["DARTS_modelchecksums"]
    segments = gpd.read_parquet(folder / "prediction_segments.parquet")
    assert segments.crs.to_epsg() == sample.landscape.geobox.crs.to_epsg()
    assert len(segments) == len(gpd.read_file(folder / "prediction_segments.gpkg"))
    with rasterio.open(folder / "binarized.tif") as raster:
        assert segments.npixel.sum() == (raster.read(1) == 1).sum()
    assert max(Image.open(folder / "thumbnail.jpg").size) >= 256


def test_a_run_keeps_its_records(darts: Callable, finished: Path, sample: Sample) -> None:
    output = finished
    results = results_of(output)
    assert results.tile_id.tolist() == [sample.scene_id]
    assert results.status.tolist() == ["success"]
    timer = pd.read_parquet(next(output.glob("*.timer.parquet")))
    assert (timer[list(STEPS)] > 0).all(axis=None)
    stopwatch = pd.read_parquet(next(output.glob("*.stopwatch.parquet")))
    assert "preprocess_v2" in stopwatch.function.tolist()
    assert next(output.glob("*.log")).stat().st_size > 0
    assert [record.kind for record in Ledger(output).records()] == ["run", "tile", "end"]
    config = next(output.glob("*.config.toml"))
    table = tomllib.loads(config.read_text())["darts"]["run"]["sentinel2"]
    assert table["scene-ids"] == [sample.scene_id]
    assert table["patch-size"] == 1024
    again = darts("run", "sentinel2", "--config-file", config)
    assert again.code == 0, again.text
    assert results_of(output).status.tolist() == ["skipped"]


def test_a_second_run_skips_complete_tiles_and_makes_partial_ones_again(
    start_darts: Callable, finished: Path, sample: Sample, output: Path
) -> None:
    shutil.copytree(finished, output)
    before = hashes(output / sample.scene_id)
    written = (output / sample.scene_id / "probabilities.tif").stat().st_mtime_ns
    make(start_darts, sample, output)
    assert (output / sample.scene_id / "probabilities.tif").stat().st_mtime_ns == written
    (output / sample.scene_id / "binarized.tif").unlink()
    make(start_darts, sample, output)
    assert hashes(output / sample.scene_id) == before
    (output / sample.scene_id / "probabilities.tif").write_bytes(b"")
    make(start_darts, sample, output)
    assert hashes(output / sample.scene_id) == before
    make(start_darts, sample, output, "--export-bands", "probabilities", "metadata")
    assert (output / sample.scene_id / "darts_inference.json").stat().st_size > 0


def test_every_export_band_can_be_asked_for(darts: Callable, sample: Sample, output: Path) -> None:
    bands = ("optical", "dem", "tcvis", "metadata", "slope", "probabilities", "red")
    result = darts(
        "run", "sentinel2", "--scene-ids", sample.scene_id, "--offline", "--output-data-dir", output,
        "--write-model-outputs", "--debug-data", "--export-bands", *bands, "--quality-level", "none",
    )  # fmt: skip
    assert result.code == 0, result.text
    names = {file.name for file in (output / sample.scene_id).iterdir()}
    assert names == {
        "optical.tif", "dem.tif", "tcvis.tif", "darts_inference.json", "slope.tif", "red.tif", "probabilities.tif",
        "probabilities-full.tif", "probabilities-optical.tif", "darts_inference_debug.nc",
    }  # fmt: skip
    with rasterio.open(output / sample.scene_id / "dem.tif") as raster:
        assert raster.count == 6
    said = json.loads((output / sample.scene_id / "darts_inference.json").read_text())
    assert said["DARTS_tileid"] == sample.scene_id


def test_a_bad_tile_is_recorded_and_never_stops_the_others(
    darts: Callable, sample: Sample, store: Path, output: Path
) -> None:
    land = sample.landscape
    bands = {name: land.digital_numbers[k] for k, name in enumerate(("B02_10m", "B03_10m", "B04_10m"))}
    write_dn(store, "a-lacks-nir", bands, land.geobox)
    write_small_scene(store, "b-damaged", land, slice(0, 64), slice(0, 64))
    chunk = max((f for f in (store / "cdse-s2-sr-scene-b-damaged.zarr").rglob("c/*/*")), key=lambda f: f.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[:-20])
    result = darts(
        "run", "sentinel2", "--scene-ids", "a-lacks-nir", "b-damaged", "c-absent", "good", "--offline",
        "--raw-data-store", store, "--output-data-dir", output, "--model-files", sample.optical_model,
    )  # fmt: skip
    assert result.code == 1
    results = results_of(output).set_index("tile_id")
    assert results.status.to_dict() == {
        "a-lacks-nir": "failed", "b-damaged": "failed", "c-absent": "failed", "good": "success"
    }  # fmt: skip
    assert "B08_10m" in results.error["a-lacks-nir"]
    assert "b-damaged" in results.error["b-damaged"]
    assert "c-absent" in results.error["c-absent"]
    for tile_id in ("a-lacks-nir", "b-damaged", "c-absent"):
        assert tile_id in result.text
        assert not (output / tile_id).exists()
    assert "Traceback" not in result.text


@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (3, 200)])
def test_tiles_of_any_size_work(
    darts: Callable, sample: Sample, tmp_path: Path, output: Path, shape: tuple[int, int]
) -> None:
    write_small_scene(tmp_path / "s", "odd", sample.landscape, slice(100, 100 + shape[0]), slice(50, 50 + shape[1]))
    result = darts(
        "run", "sentinel2", "--scene-ids", "odd", "--offline", "--raw-data-store", tmp_path / "s",
        "--output-data-dir", output,
    )  # fmt: skip
    assert result.code == 0, result.text
    with rasterio.open(output / "odd" / "probabilities.tif") as raster:
        assert raster.shape == shape


def test_a_tile_without_a_valid_pixel_is_done_and_empty(
    darts: Callable, sample: Sample, tmp_path: Path, output: Path
) -> None:
    names = ("B02_10m", "B03_10m", "B04_10m", "B08_10m")
    nothing = {name: np.zeros((60, 70), "uint16") for name in names} | {"SCL_20m": np.zeros((60, 70), "uint8")}
    write_dn(tmp_path / "s", "empty", nothing, sample.landscape.geobox[:60, :70])
    result = darts(
        "run", "sentinel2", "--scene-ids", "empty", "--offline", "--raw-data-store", tmp_path / "s",
        "--output-data-dir", output,
    )  # fmt: skip
    assert result.code == 0, result.text
    with rasterio.open(output / "empty" / "probabilities.tif") as raster:
        assert (raster.read(1) == 255).all()
    assert len(gpd.read_parquet(output / "empty" / "prediction_segments.parquet")) == 0


def test_only_what_is_asked_is_loaded(darts: Callable, sample: Sample, store: Path, output: Path) -> None:
    result = darts(
        "run", "sentinel2", "--scene-ids", "good", "--offline", "--raw-data-store", store, "--output-data-dir", output,
        "--model-files", sample.optical_model, "--arcticdem-dir", "nowhere", "--tcvis-dir", "nowhere",
    )  # fmt: skip
    assert result.code == 0, result.text
    timer = pd.read_parquet(next(output.glob("*.timer.parquet")))
    assert timer["Loading ArcticDEM"].isna().all()
    assert timer["Loading TCVis"].isna().all()


def test_a_cube_that_does_not_cover_the_tile_names_the_area_and_the_command(
    darts: Callable, sample: Sample, tmp_path: Path, output: Path
) -> None:
    away = sample.landscape.geobox.translate_pix(100_000, 0)
    ones = {name: np.full(tuple(away.shape), 2000, "uint16") for name in ("B02_10m", "B03_10m", "B04_10m", "B08_10m")}
    write_dn(tmp_path / "s", "away", ones | {"SCL_20m": np.full(tuple(away.shape), 4, "uint8")}, away)
    result = darts(
        "run", "sentinel2", "--scene-ids", "away", "--offline", "--raw-data-store", tmp_path / "s",
        "--output-data-dir", output,
    )  # fmt: skip
    assert result.code == 1
    error = results_of(output).error[0]
    assert "prepare-data sentinel2 --aux" in error
    assert "corners lon/lat" in error


def test_two_runs_give_the_same_bytes(start_darts: Callable, finished: Path, sample: Sample, tmp_path: Path) -> None:
    time.sleep(1.1)  # a time of day in seconds would show
    make(start_darts, sample, tmp_path / "again")
    assert hashes(tmp_path / "again" / sample.scene_id) == hashes(finished / sample.scene_id)


def test_a_kill_in_the_middle_of_export_leaves_nothing_half_written(
    start_darts: Callable, sample: Sample, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = (
        "run", "sentinel2", "--scene-ids", sample.scene_id, "--offline",
        "--output-data-dir", output, "--darts-dir", sample.folder,
    )  # fmt: skip
    run = start_darts(*command)
    while not run.ended and not list(output.glob(".*.tmp/*")):
        time.sleep(0.01)
    run.signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, run.text
    assert not (output / sample.scene_id).exists()
    assert list(output.glob(".*.tmp"))

    assert start_darts(*command).wait() == 0
    assert {file.name for file in (output / sample.scene_id).iterdir()} == DEFAULT_FILES
    assert not list(output.glob(".*.tmp"))
