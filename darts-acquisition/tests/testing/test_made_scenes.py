import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio import Affine
from rasterio.io import MemoryFile
from shapely.geometry import Point, shape

from darts_acquisition.testing import (
    make_cdse_item,
    make_cdse_scene,
    make_earth_search_scene,
    make_pgc_tile,
)
from darts_acquisition.testing.scene_files import smooth_dn
from darts_utils.errors import ConfigError

SHARED = Path(__file__).parents[4] / "shared/data"
CDSE_ID = "S2C_MSIL2A_20260527T014651_N0512_R017_T55WFR_20260527T042005"
COG_ID = "S2B_T08WMA_20240719T204201_L2A"
GRID = GeoBox((200, 300), Affine(10, 0, 600000, 0, -10, 7_600_020), "EPSG:32655")


@pytest.fixture(scope="module")
def cdse():
    return make_cdse_scene(CDSE_ID, GRID, 3)


@dataclass
class Decoded:
    pixels: np.ndarray
    driver: str
    block: tuple[int, int]
    transform: Affine
    epsg: int
    nodata: float | None
    layout: str | None
    overviews: list[int]


def decoded(data: bytes) -> Decoded:
    with rasterio.Env(GDAL_NUM_THREADS=1), MemoryFile(data) as memory, memory.open() as file:
        structure = file.tags(ns="IMAGE_STRUCTURE")
        return Decoded(
            file.read(1), file.driver, file.block_shapes[0], file.transform, file.crs.to_epsg(), file.nodata,
            structure.get("LAYOUT"), file.overviews(1),
        )  # fmt: skip


def test_a_cdse_scene_is_lossless_jpeg_2000_in_several_blocks_on_the_grid_its_item_gives(cdse):
    item, files = cdse
    for n, (name, asset) in enumerate(item["assets"].items()):
        data = files[asset["href"].removeprefix("s3://eodata/")]
        file = decoded(data)
        pixels = file.pixels
        assert file.driver == "JP2OpenJPEG"
        assert file.block[0] < pixels.shape[0] or file.block[1] < pixels.shape[1]
        assert list(pixels.shape) == asset["proj:shape"]
        assert list(file.transform)[:6] == asset["proj:transform"]
        assert f"EPSG:{file.epsg}" == asset["proj:code"]
        assert pixels.dtype == asset["data_type"]
        if name != "SCL_20m":
            np.testing.assert_array_equal(pixels, smooth_dn(GRID.shape.yx, 3 + n))
        else:
            assert set(np.unique(pixels)) == set(range(12))
        assert len(data) == asset["file:size"]
        assert asset["file:checksum"] == "1620" + hashlib.sha3_256(data).hexdigest()


def test_the_nodata_wedge_of_all_bands_is_the_same(cdse):
    item, files = cdse
    pixels = {name: decoded(files[asset["href"][12:]]).pixels for name, asset in item["assets"].items()}
    scl = pixels.pop("SCL_20m").repeat(2, 0).repeat(2, 1) == 0
    assert scl.any()
    for values in pixels.values():
        assert ((values == 0) != scl).mean() < 0.005  # the coarser band has coarser steps
        assert not (values[~scl] == 0).all()


def test_a_cdse_item_has_the_fields_of_a_real_one(cdse):
    path = SHARED / "stac/cdse/openeo_issue1547_search_featurecollection.json"
    if not path.exists():
        pytest.skip(f"no sample data at {path}")
    real = json.loads(path.read_text())["features"][0]
    made, files = cdse
    assert made["id"] == real["id"]
    assert set(made["properties"]) < set(real["properties"])
    for name in ("grid:code", "processing:version", "platform", "sat:relative_orbit", "eopf:datatake_id"):
        assert made["properties"][name] == real["properties"][name], name
    for name, asset in made["assets"].items():
        real_asset = real["assets"][name]
        assert set(asset) < set(real_asset)
        assert Path(asset["href"]).parts[:8] == Path(real_asset["href"]).parts[:8]
        assert Path(asset["href"]).name == Path(real_asset["href"]).name
        same = ("proj:code", "proj:transform", "data_type", "nodata", "gsd", "raster:scale", "raster:offset", "type")
        assert {key: asset.get(key) for key in same} == {key: real_asset.get(key) for key in same}
    assert files


def test_a_cdse_item_covers_its_grid_on_both_sides_of_the_antimeridian():
    grid = GeoBox((10980, 10980), Affine(10, 0, 300000, 0, -10, 7_500_000), "EPSG:32601")
    item = make_cdse_item("S2A_MSIL2A_20230602T235651_N0509_R030_T01WCQ_20230603T031757", geobox_10m=grid)
    footprint = shape(item["geometry"])
    assert footprint.geom_type == "MultiPolygon"
    assert footprint.is_valid
    assert footprint.bounds[0] == pytest.approx(-180)
    assert footprint.contains(Point(-179.5, 67))
    assert footprint.contains(Point(179.9, 67))
    assert footprint.area < 4


def test_options_change_an_item():
    item = make_cdse_item(
        CDSE_ID, geobox_10m=GRID, sun_azimuth=None, scale=None, offset=None, baseline="02.14",
        properties={"eo:snow_cover": None, "eo:cloud_cover": 0},
    )  # fmt: skip
    assert not {"view:sun_azimuth", "eo:snow_cover"} & set(item["properties"])
    assert (item["properties"]["eo:cloud_cover"], item["properties"]["processing:version"]) == (0, "02.14")
    assert not {"raster:scale", "raster:offset", "file:size"} & set(item["assets"]["B02_10m"])


def test_items_are_valid_stac(cdse, tmp_path):
    for item in (cdse[0], make_earth_search_scene(COG_ID, GRID, base_url="http://x")[0]):
        assert pystac.Item.from_dict(item).to_dict()["assets"].keys() == item["assets"].keys()


def test_an_earth_search_scene_is_of_cogs_with_overviews():
    item, files = make_earth_search_scene(COG_ID, GRID, 5, base_url="http://127.0.0.1:1/archive")
    assert item["properties"]["grid:code"] == "MGRS-08WMA"
    for n, (name, asset) in enumerate(item["assets"].items()):
        data = files[asset["href"].removeprefix("http://127.0.0.1:1/archive/")]
        file = decoded(data)
        assert (file.layout, bool(file.overviews)) == ("COG", True)
        assert list(file.transform)[:6] == asset["proj:transform"]
        assert (file.nodata, asset["raster:bands"][0]["nodata"]) == (0, 0)
        if name != "scl":
            np.testing.assert_array_equal(file.pixels, smooth_dn(GRID.shape.yx, 5 + n))
            assert (asset["raster:bands"][0]["scale"], asset["raster:bands"][0]["offset"]) == (1e-4, -0.1)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()


def test_a_grid_that_coarser_bands_do_not_fit_is_refused():
    with pytest.raises(ConfigError, match="2 divides"):
        make_cdse_item(CDSE_ID, geobox_10m=GeoBox((11, 10), GRID.transform, "EPSG:32655"))
    with pytest.raises(ConfigError, match="B99_10m"):
        make_cdse_item(CDSE_ID, geobox_10m=GRID, bands=("B99_10m",))


def test_an_arcticdem_tile_keeps_elevations_and_gaps():
    grid = GeoBox((300, 200), Affine(10, 0, -2_500_000, 0, -10, 500_000), "EPSG:3413")
    dem = np.linspace(-5, 900, 60000, dtype="float32").reshape(300, 200)
    dem[:9] = np.nan
    item, files = make_pgc_tile("41_16", grid, dem, base_url="http://x")
    assert (item["id"], item["collection"]) == ("41_16_10m_v4.1", "arcticdem-mosaics-v4.1-10m")
    file = decoded(files[item["assets"]["dem"]["href"].removeprefix("http://x/")])
    np.testing.assert_array_equal(file.pixels, np.where(np.isnan(dem), -9999, dem))
    assert (file.nodata, file.epsg, file.transform) == (-9999, 3413, grid.transform)
    mask = decoded(files["arcticdem/mosaics/v4.1/10m/41_16/41_16_10m_v4.1_datamask.tif"]).pixels
    np.testing.assert_array_equal(mask, ~np.isnan(dem))
    assert shape(item["geometry"]).is_valid
