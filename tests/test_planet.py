"""`darts run planet` on folders as Planet delivers them."""

import json
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from darts_acquisition import create_arcticdem_cube
from tests.conftest import OPTICAL, Sample, results_of, save_tiny_model

GRID = GeoBox((120, 140), Affine(3, 0, 500_000, 0, -3, 7_700_000), "EPSG:32608")


def write_planet(folder: Path, *, bands: int = 4, udm2: bool = True, clip: bool = False, seed: int = 0) -> None:
    """Write a scene or orthotile folder with reflectance, usable data mask and metadata."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    dn = rng.integers(300, 3000, (bands, *GRID.shape.yx)).astype("uint16")
    dn[:, :, :20] = 0
    eight, clipped = "_8b" if bands == 8 else "", "_clip" if clip else ""
    profile = {
        "driver": "GTiff", "width": GRID.shape.x, "height": GRID.shape.y, "crs": "EPSG:32608",
        "transform": GRID.transform,
    }  # fmt: skip
    name = f"{folder.name}_3B_AnalyticMS"
    with rasterio.open(folder / f"{name}_SR{eight}{clipped}.tif", "w", dtype="uint16", count=bands, **profile) as file:
        file.write(dn)
    if udm2:
        mask = np.zeros((8, *GRID.shape.yx), "uint8")
        mask[0] = 1
        mask[[0, 5], :30] = np.array([0, 1])[:, None, None]  # cloud
        mask[7, :, :20] = 1  # blackfill
        with rasterio.open(folder / f"{folder.name}_3B_udm2{clipped}.tif", "w", dtype="uint8", count=8, **profile) as f:
            f.write(mask)
    metadata = {"properties": {"sun_azimuth": 170.5, "sun_elevation": 35.2, "acquired": "2022-07-30T20:58:51.1Z"}}
    (folder / f"{folder.name}_metadata.json").write_text(json.dumps(metadata))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    orthotiles, scenes = tmp_path / "tiles", tmp_path / "scenes"
    write_planet(orthotiles / "4372514" / "5790392_4372514_2022-07-30_2459", bands=4, clip=True)
    write_planet(scenes / "20220730_205851_17_2459", bands=8, seed=1)
    write_planet(scenes / "20220730_205853_2459", bands=4, udm2=False, seed=2)
    return orthotiles, scenes


def test_orthotiles_and_scenes_are_found_and_worked_on(
    darts: Callable, sample: Sample, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    result = darts(
        "run", "planet", "--orthotiles-dir", folders[0], "--scenes-dir", folders[1], "--offline",
        "--output-data-dir", tmp_path / "out", "--model-files", sample.optical_model,
    )  # fmt: skip
    assert result.code == 0, result.text
    expected = {
        "4372514/5790392_4372514_2022-07-30_2459", "20220730_205851_17_2459", "20220730_205853_2459"
    }  # fmt: skip
    assert set(results_of(tmp_path / "out").tile_id) == expected
    assert result.flat.count("has pixels of 3 × 3 m; the model optical was trained on 10 m") == 1
    for tile_id in expected:
        with rasterio.open(tmp_path / "out" / tile_id / "probabilities.tif") as raster:
            assert raster.transform == GRID.transform
            probabilities = raster.read(1)
        assert (probabilities[:, :20] == 255).all()
        extent = gpd.read_parquet(tmp_path / "out" / tile_id / "prediction_extent.parquet")
        assert extent.sensor.unique().tolist() == ["PlanetScope"]
        assert extent.acquisition_time[0].isoformat().startswith("2022-07-30T20:58:51")


def test_cloud_is_low_quality_and_seen_but_not_clear(
    darts: Callable, sample: Sample, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run = (
        "run", "planet", "--scenes-dir", folders[1], "--image-ids", "20220730_205851_17_2459", "--offline",
        "--model-files", sample.optical_model, "--mask-erosion-size", 0,
    )  # fmt: skip
    assert darts(*run, "--output-data-dir", tmp_path / "low").code == 0
    assert darts(*run, "--output-data-dir", tmp_path / "high", "--quality-level", "high_quality").code == 0
    seen = {}
    for level in ("low", "high"):
        extent = gpd.read_parquet(tmp_path / level / "20220730_205851_17_2459" / "prediction_extent.parquet")
        seen[level] = extent.set_index("kind").geometry.area / 9
    assert seen["low"]["seen"] == 120 * 120
    assert seen["low"]["clear"] == 90 * 120
    assert seen["high"]["seen"] == 90 * 120


def test_terrain_comes_from_the_two_metre_cube(darts: Callable, folders: tuple[Path, Path], tmp_path: Path) -> None:
    cube = create_arcticdem_cube(tmp_path / "arcticdem_2m.icechunk", 2, chunk=256)
    area = cube.aligned(GRID, 120)
    elevation = np.linspace(100, 130, area.shape.x, dtype="float32") * np.ones((area.shape.y, 1), "float32")
    block = {"dem": elevation, "datamask": np.ones(area.shape.yx, "uint8")}
    cube.write(xr.Dataset({name: (("y", "x"), values) for name, values in block.items()}, coords=xr_coords(area)))
    model = save_tiny_model(tmp_path / "terrain.pt", (*OPTICAL, "slope", "relative_elevation"))
    result = darts(
        "run", "planet", "--scenes-dir", folders[1], "--image-ids", "20220730_205853_2459", "--offline",
        "--output-data-dir", tmp_path / "out", "--model-files", model, "--arcticdem-dir", cube.path,
        "--export-bands", "slope", "probabilities",
    )  # fmt: skip
    assert result.code == 0, result.text
    with rasterio.open(tmp_path / "out" / "20220730_205853_2459" / "slope.tif") as raster:
        slope = raster.read(1, masked=True) * raster.scales[0] + raster.offsets[0]
    expected = np.degrees(np.arctan(30 / (2 * (area.shape.x - 1))))
    assert slope.mask.sum() == 0
    assert np.abs(slope - expected).max() < 0.05  # the plane in EPSG:3413 is a little steeper or flatter in UTM


def test_an_image_id_that_is_not_there_is_named(darts: Callable, sample: Sample, folders: tuple[Path, Path]) -> None:
    result = darts(
        "run", "planet", "--scenes-dir", folders[1], "--image-ids", "20200101_000000_0000", "--offline",
        "--model-files", sample.optical_model,
    )  # fmt: skip
    assert result.code == 2
    assert "20200101_000000_0000' not found" in result.flat


def test_an_empty_folder_and_a_missing_one_are_named(darts: Callable, sample: Sample, tmp_path: Path) -> None:
    run = ("run", "planet", "--offline", "--model-files", sample.optical_model)
    assert "no Planet images were found" in darts(*run, "--scenes-dir", tmp_path).flat
    (tmp_path / "20210821_210019_24a1_3B_AnalyticMS_SR_clip.tif").touch()  # side by side, as an order comes
    flat = darts(*run, "--scenes-dir", tmp_path).flat
    assert "expected a folder for each, such as 20210821_210019_24a1/…_SR.tif" in flat
    assert "20210821_210019_24a1_3B_AnalyticMS_SR_clip.tif lies there without one" in flat
    result = darts(*run, "--scenes-dir", tmp_path / "none")
    assert result.code == 2
    assert "is not a folder" in result.flat


def test_a_broken_folder_fails_alone(
    darts: Callable, sample: Sample, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    broken = folders[1] / "20220731_101010_2459"
    broken.mkdir()
    (broken / "20220731_101010_2459_3B_AnalyticMS_SR.tif").write_bytes(b"not a raster")
    result = darts(
        "run", "planet", "--orthotiles-dir", folders[0], "--scenes-dir", folders[1], "--offline",
        "--output-data-dir", tmp_path / "out", "--model-files", sample.optical_model,
    )  # fmt: skip
    assert result.code == 1
    results = results_of(tmp_path / "out").set_index("tile_id")
    assert results.status["20220731_101010_2459"] == "failed"
    assert (results.status == "success").sum() == 3
