"""SAFE products from the folder to results: `darts import-scene`, then `darts run sentinel2`, offline."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio import Affine

import darts_acquisition as da
from darts_acquisition.testing.safe_products import PRODUCT, SafeLook, write_safe
from tests.conftest import Sample

LOOK = SafeLook(bands={10: ("B02", "B03", "B04", "B08")})
SECOND = PRODUCT.replace("20240719T20", "20240718T20")
THIRD = PRODUCT.replace("20240719T20", "20240717T20")


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_safe(tmp_path_factory.mktemp("product"), LOOK)


@pytest.fixture
def folder(product: Path, tmp_path: Path) -> Path:
    """A good product, a damaged one a level below, and one of Level-1C."""
    root = tmp_path / "products"
    shutil.copytree(product, root / product.name)
    (root / "2024").mkdir()
    damaged = write_safe(root / "2024", replace(LOOK, name=SECOND))
    image = damaged / replace(LOOK, name=SECOND).image("B08", 10)
    image.write_bytes(image.read_bytes()[:-100])
    write_safe(root, replace(LOOK, name=THIRD.replace("MSIL2A", "MSIL1C"), level="1C", bands={}))
    return root


def probabilities(output: Path) -> np.ndarray:
    with rasterio.open(output / "probabilities.tif") as raster:
        return raster.read(1)


def test_a_product_is_imported_and_run_offline(
    darts: Callable, sample: Sample, product: Path, tmp_path: Path
) -> None:  # fmt: skip
    result = darts("import-scene", product, "--store", tmp_path / "store")
    assert result.code == 0, result.text
    run = (
        "run", "sentinel2", "--raw-data-source", "import", "--raw-data-store", tmp_path / "store", "--offline",
        "--model-files", sample.optical_model, "--export-bands", "probabilities", "--mask-erosion-size", 2,
    )  # fmt: skip
    result = darts(*run, "--scene-ids", PRODUCT, "--output-data-dir", tmp_path / "out")
    assert result.code == 0, result.text
    with rasterio.open(tmp_path / "out" / PRODUCT / "probabilities.tif") as raster:
        assert raster.crs.to_epsg() == 32608
        assert raster.transform == Affine(10, 0, 399960, 0, -10, 7600020)
        assert raster.shape == (252, 252)
    assert (probabilities(tmp_path / "out" / PRODUCT)[:, :20] == 255).all()
    assert (probabilities(tmp_path / "out" / PRODUCT) <= 100).any()

    # The same digital numbers, by the other way in: what came from the metadata is given by hand.
    images = [product / LOOK.image(band, 10) for band in ("B02", "B03", "B04", "B08")]
    tifs = [tmp_path / f"{image.stem}.tif" for image in images]
    for image, tif in zip(images, tifs, strict=True):
        with rasterio.Env(GDAL_NUM_THREADS="1"), rasterio.open(image) as source:
            profile = {**source.profile, "driver": "GTiff"}
            with rasterio.open(tif, "w", **{k: v for k, v in profile.items() if "block" not in k}) as target:
                target.write(source.read())
    result = darts(
        "import-scene", *tifs, "--scene-id", "by-hand", "--store", tmp_path / "store", "--offset", "-0.1",
        "--acquisition-time", LOOK.start, "--scl", product / LOOK.image("SCL", 20),
        "--sun-azimuth", LOOK.sun[1], "--sun-elevation", 90 - float(LOOK.sun[0]),
    )  # fmt: skip
    assert result.code == 0, result.text
    assert darts(*run, "--scene-ids", "by-hand", "--output-data-dir", tmp_path / "out").code == 0
    np.testing.assert_array_equal(probabilities(tmp_path / "out/by-hand"), probabilities(tmp_path / "out" / PRODUCT))


def test_of_a_folder_of_products_those_that_fail_are_named_and_the_others_are_there(
    darts: Callable, folder: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    result = darts("import-scene", folder, "--store", store)
    assert result.code == 1, result.text
    assert "3 scenes: 1 imported, 0 skipped, 2 failed" in result.flat
    without_table = "".join(result.text.replace("│", "").split())
    assert "_B08_10m.jp2has" in without_table
    assert "Level-1Cproduct" in without_table
    assert da.list_scenes(store, da.IMPORT) == [PRODUCT]
    whole = write_safe(tmp_path / "whole", replace(LOOK, name=SECOND))
    result = darts("import-scene", folder / f"{PRODUCT}.SAFE", whole, "--store", store)
    assert result.code == 0, result.text
    assert "2 scenes: 1 imported, 1 skipped, 0 failed" in result.flat
    assert da.list_scenes(store, da.IMPORT) == sorted([PRODUCT, SECOND])
    assert "2 imported, 0 skipped" in darts(
        "import-scene", folder / f"{PRODUCT}.SAFE", whole, "--store", store, "--overwrite"
    ).flat  # fmt: skip


def test_a_product_that_fails_alone_is_the_error_of_the_command(darts: Callable, folder: Path, tmp_path: Path) -> None:
    level_1c = folder / f"{THIRD.replace('MSIL2A', 'MSIL1C')}.SAFE"
    result = darts("import-scene", level_1c, "--store", tmp_path / "store")
    assert result.code == 2
    assert "Level-1C" in result.flat
    result = darts("import-scene", tmp_path / "nowhere.SAFE", "--store", tmp_path / "store")
    assert result.code == 2
    assert "there is no file or folder" in result.flat


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scale", "1e-4"), "scale cannot be given"),
        (("--offset", "-0.1", "--sun-azimuth", "170"), "offset, sun_azimuth cannot be given"),
        (("--acquisition-time", "2024-07-19T20:40:19Z"), "acquisition_time cannot be given"),
        (("--nodata", "0"), "nodata cannot be given"),
        (("--bands", "blue=1", "green=2", "red=3", "nir=4"), "names alone"),
        (("--bands", "blue", "B08"), "'B08'"),
        (("--bands", "blue,green"), "'blue,green'"),
    ],
)
def test_options_of_geotiffs_are_refused_for_products(
    darts: Callable, product: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    result = darts("import-scene", product, "--store", tmp_path / "store", *options)
    assert result.code == 2
    assert said in result.flat
    assert not da.list_scenes(tmp_path / "store", da.IMPORT)


def test_bands_can_be_added_to_a_scene_that_is_there(darts: Callable, tmp_path: Path) -> None:
    product = write_safe(tmp_path, replace(LOOK, bands={**LOOK.bands, 20: ("B11",)}))
    store = tmp_path / "store"
    assert darts("import-scene", product, "--store", store).code == 0
    assert "in the store already" in darts("import-scene", product, "--store", store).flat
    assert (
        darts("import-scene", product, "--store", store, "--bands", "blue", "green", "red", "nir", "swir16").code == 0
    )
    assert "swir16" in da.open_scene(store, da.IMPORT, PRODUCT).bands


def test_one_name_for_several_scenes_is_refused(darts: Callable, folder: Path, tmp_path: Path) -> None:
    result = darts("import-scene", folder, "--scene-id", "one", "--store", tmp_path / "store")
    assert result.code == 2
    assert "cannot name 3 scenes" in result.flat


@pytest.fixture
def tifs(tmp_path: Path) -> Path:
    """A folder of GeoTIFFs of one scene each, of which one tells its time by its name."""
    folder = tmp_path / "tifs"
    folder.mkdir()
    grid = GeoBox((32, 32), Affine(10, 0, 399960, 0, -10, 7600020), "EPSG:32608")
    for name in ("S2_20210821T210019_20210821T210020_T08WMA.tif", "mine.tif", "._mine.tif"):
        profile = {"driver": "GTiff", "height": 32, "width": 32, "count": 4, "dtype": "uint16"}
        with rasterio.open(folder / name, "w", crs="EPSG:32608", transform=grid.affine, **profile) as file:
            file.write(np.full((4, 32, 32), 1500, "uint16"))
    return folder


def test_of_a_folder_of_geotiffs_each_is_a_scene(darts: Callable, tifs: Path, tmp_path: Path) -> None:
    result = darts("import-scene", tifs, "--store", tmp_path / "store")
    assert result.code == 1
    assert "2 scenes: 1 imported, 0 skipped, 1 failed" in result.flat
    assert "--acquisition-time" in result.text
    tile = da.load_imported_scene("S2_20210821T210019_20210821T210020_T08WMA", tmp_path / "store", device="cpu")
    assert tile.attrs["acquisition_time"] == "2021-08-21T21:00:19Z"
    result = darts("import-scene", tifs, "--store", tmp_path / "store", "--acquisition-time", "2022-07-01T20:00:00Z")
    assert result.code == 0, result.text
    assert "1 imported, 1 skipped" in result.flat
    mine = da.load_imported_scene("mine", tmp_path / "store", device="cpu")
    assert mine.attrs["acquisition_time"] == "2022-07-01T20:00:00Z"
    np.testing.assert_allclose(mine.red, 0.15, atol=1e-6)


def test_a_geotiff_without_time_of_acquisition_is_refused(darts: Callable, tifs: Path, tmp_path: Path) -> None:
    result = darts("import-scene", tifs / "mine.tif", "--store", tmp_path / "store")
    assert result.code == 2
    assert "mine.tif: give the time of acquisition" in result.flat


def test_files_and_folders_in_one_command_are_refused(
    darts: Callable, product: Path, tifs: Path, tmp_path: Path
) -> None:  # fmt: skip
    result = darts("import-scene", product, tifs / "mine.tif", "--store", tmp_path / "store")
    assert result.code == 2
    assert "one after the other" in result.flat


def test_an_empty_folder_is_named(darts: Callable, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = darts("import-scene", tmp_path / "empty", "--store", tmp_path / "store")
    assert result.code == 2
    assert "holds neither" in result.flat


def test_nodata_none_keeps_digital_numbers_of_zero(darts: Callable, tifs: Path, tmp_path: Path) -> None:
    with rasterio.open(tifs / "mine.tif", "r+") as file:
        file.write(np.zeros((4, 32, 32), "uint16"))
    options = ("--store", tmp_path / "store", "--acquisition-time", "2022-07-01T20:00:00Z")
    assert darts("import-scene", tifs / "mine.tif", "--nodata", "none", *options).code == 0
    assert np.isfinite(da.load_imported_scene("mine", tmp_path / "store", device="cpu").red).all()
    assert darts("import-scene", tifs / "mine.tif", "--overwrite", *options).code == 0
    assert np.isnan(da.load_imported_scene("mine", tmp_path / "store", device="cpu").red).all()


def test_one_line_of_the_configuration_names_the_store_of_imports_too(
    darts: Callable, tifs: Path, tmp_path: Path
) -> None:  # fmt: skip
    config = tmp_path / "darts.toml"
    config.write_text(f'[darts]\nraw-data-store = "{tmp_path / "shared"}"\n')
    command = ("import-scene", tifs / "mine.tif", "--acquisition-time", "2022-07-01T20:00:00Z", "--config-file", config)
    assert darts(*command).code == 0
    assert da.scene_exists(tmp_path / "shared", da.IMPORT, "mine")
