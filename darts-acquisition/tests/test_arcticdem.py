import json
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from odc.geo.geobox import GeoBox
from rasterio import Affine

import darts_acquisition as da
from darts_acquisition.arcticdem import missing_arcticdem
from darts_acquisition.arcticdem_source import ArcticDemSource
from darts_acquisition.testing import (
    cql2_stac_server,
    file_server,
    make_pgc_collection,
    make_pgc_tile,
    stac_server,
)
from darts_acquisition.testing.arcticdem_mosaic import Mosaic, serve_mosaic
from darts_utils.errors import ConfigError, MissingDataError, RemoteError

INDEX = Path(__file__).parents[3] / "shared" / "data" / "dem" / "ArcticDEM_Mosaic_Index_v4_1_gpkg.gpkg"
TILE = GeoBox((80, 60), Affine(10, 0, 471_000, 0, -10, 7_550_000), "EPSG:32608")


@pytest.fixture
def cube(tmp_path) -> da.Cube:
    """A DEM cube of small chunks, filled around TILE."""
    import xarray as xr
    from odc.geo.xr import xr_coords

    cube = da.create_arcticdem_cube(tmp_path / "arcticdem_10m.icechunk", 10, chunk=64)
    area = cube.aligned(TILE, 30)
    rng = np.random.default_rng(0)
    dem = rng.uniform(-500, 4000, area.shape.yx).astype("float32")
    dem[rng.random(dem.shape) < 0.1] = np.nan
    mask = (rng.random(dem.shape) < 0.9).astype("uint8")
    cube.write(
        xr.Dataset({"dem": (("y", "x"), dem), "datamask": (("y", "x"), mask)}, coords=xr_coords(area, dims=("y", "x")))
    )
    return cube


def test_elevation_is_clipped_and_masked(cube, tmp_path):
    raw = cube.read(TILE, 10)
    ds = da.load_arcticdem(TILE, tmp_path, 10, buffer=10, offline=True)
    np.testing.assert_array_equal(ds["dem"], np.clip(raw["dem"].values, -100, 3000))
    expected = (raw["datamask"].values == 1) & np.isfinite(raw["dem"].values)
    np.testing.assert_array_equal(ds["arcticdem_data_mask"], expected)
    assert ds["dem"].dtype == np.float32
    assert ds["arcticdem_data_mask"].dtype == np.uint8
    assert np.isnan(ds["dem"]).any()
    assert ds.odc.geobox == raw.odc.geobox
    assert ds.odc.geobox.crs.epsg == 3413
    assert ds["dem"].attrs["units"] == "m"


def test_the_cube_itself_or_its_folder_online_or_offline_give_the_same(cube, tmp_path):
    # Nothing is missing, so that nobody is asked: nobody listens there.
    source = ArcticDemSource(endpoint="http://127.0.0.1:9/", retries=0)
    first = da.load_arcticdem(TILE, cube.path, 10, source=source)
    assert da.load_arcticdem(TILE, tmp_path, 10, offline=True).identical(first)


def test_the_buffer_is_in_pixels_of_the_dem(cube, tmp_path):
    bare = da.load_arcticdem(TILE, tmp_path, 10, offline=True).odc.geobox
    assert da.load_arcticdem(TILE, tmp_path, 10, buffer=7, offline=True).odc.geobox == bare.pad(7)


def test_what_the_cube_lacks_names_the_area_and_the_command(cube, tmp_path):
    far = GeoBox((10, 10), TILE.affine * Affine.translation(0, 5000), TILE.crs)
    with pytest.raises(
        MissingDataError, match=r"arcticdem_10m.*EPSG:3413.*lon/lat.*darts prepare-data sentinel2 --aux"
    ):
        da.load_arcticdem(far, tmp_path, 10, offline=True)


def test_an_absent_cube_names_the_command_of_its_pipeline(tmp_path):
    with pytest.raises(MissingDataError, match=r"arcticdem_2m\.icechunk.*darts prepare-data planet --aux"):
        da.load_arcticdem(TILE.zoom_out(0.3), tmp_path, 2, offline=True)


@pytest.mark.parametrize(
    "wrong", [{"resolution": 5}, {"buffer": -1}, {"buffer": 1.5}, {"buffer": True}, {"geobox": "tile"}]
)
def test_parameters_that_cannot_work_are_refused(cube, tmp_path, wrong):
    with pytest.raises(ConfigError):
        da.load_arcticdem(**({"geobox": TILE, "data_dir": tmp_path, "resolution": 10} | wrong))


def test_a_cube_of_another_resolution_is_refused(cube):
    with pytest.raises(ConfigError, match="10"):
        da.load_arcticdem(TILE, cube.path, 32)


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    with serve_mosaic(tmp_path_factory.mktemp("mosaic")) as mosaic:
        yield mosaic


def _empty_cube(folder: Path) -> da.Cube:
    return da.create_arcticdem_cube(folder / "arcticdem_10m.icechunk", 10, chunk=100)


def _check(cube: da.Cube, mosaic: Mosaic, chunks) -> None:
    for chunk in chunks:
        dem, mask = mosaic.on(chunk)
        stored = cube.read(chunk)
        np.testing.assert_array_equal(stored["dem"], dem)
        np.testing.assert_array_equal(stored["datamask"], mask)


def test_what_is_missing_is_downloaded_once_and_loaded(mosaic, tmp_path):
    cube = _empty_cube(tmp_path)
    needed = cube.missing(TILE, 7)
    mosaic.api.clear()
    mosaic.files.clear()
    online = da.load_arcticdem(TILE, tmp_path, 10, buffer=7, source=mosaic.source)
    assert cube.missing(TILE, 7) == []
    _check(cube, mosaic, needed)
    assert {path for _, path in mosaic.api.requests} == {"/", "/search"}
    assert mosaic.files.requests
    mosaic.api.clear()
    mosaic.files.clear()
    assert da.load_arcticdem(TILE, tmp_path, 10, buffer=7, source=mosaic.source).identical(online)
    assert da.load_arcticdem(TILE, tmp_path, 10, buffer=7, offline=True).identical(online)
    assert mosaic.api.requests == mosaic.files.requests == []
    # There is elevation, there are holes, and there is sea without a tile.
    dem = online["dem"].values
    assert np.isfinite(dem).any()
    assert np.isnan(dem[-3:]).all()


def test_offline_nobody_is_asked(mosaic, tmp_path):
    _empty_cube(tmp_path)
    mosaic.api.clear()
    with pytest.raises(MissingDataError, match="prepare-data"):
        da.load_arcticdem(TILE, tmp_path, 10, offline=True, source=mosaic.source)
    assert mosaic.api.requests == []


def test_only_what_is_missing_is_fetched(mosaic, tmp_path):
    cube = _empty_cube(tmp_path)
    small = TILE[:20, :20]
    missing = missing_arcticdem(TILE, tmp_path, 10)
    told = []
    assert da.download_arcticdem(small, tmp_path, 10, source=mosaic.source) == len(cube.chunks_touching(small))
    left = missing_arcticdem(TILE, tmp_path, 10)
    assert 0 < len(left) < len(missing)
    assert da.download_arcticdem(TILE, tmp_path, 10, source=mosaic.source, on_chunk=told.append) == len(left)
    assert sorted(map(str, told)) == sorted(map(str, left))
    _check(cube, mosaic, missing)


@pytest.mark.parametrize("crs", [4326, 3413, 32608])
def test_an_area_of_interest_in_any_crs_covers_what_its_tile_needs(mosaic, tmp_path, crs):
    cube = _empty_cube(tmp_path)
    area = gpd.GeoDataFrame(geometry=[TILE.extent.geom], crs=TILE.crs.to_wkt()).to_crs(crs)
    area.to_file(tmp_path / "area.gpkg")
    # Four corners in another CRS are not quite the tile: a pixel or two off.
    da.download_arcticdem(tmp_path / "area.gpkg", tmp_path, 10, source=mosaic.source, buffer=8)
    assert cube.missing(TILE, 5) == []
    _check(cube, mosaic, cube.chunks_touching(TILE, 5))


def test_an_absent_cube_is_made_and_lacks_everything(tmp_path):
    missing = missing_arcticdem(TILE, tmp_path, 10)
    assert missing_arcticdem([TILE, TILE], tmp_path, 10) == missing
    assert [chunk.shape.yx for chunk in missing] == [(3600, 3600)] * len(missing)
    assert list(tmp_path.iterdir()) == []
    sea = GeoBox((10, 10), Affine(10, 0, 500_000, 0, -10, 100_000), "EPSG:32608")
    assert da.download_arcticdem(sea, tmp_path, 10) == 0
    assert da.Cube.open(tmp_path / "arcticdem_10m.icechunk").geobox == da.arcticdem_geobox(10)


def test_the_bytes_that_came_are_reported(mosaic, tmp_path):
    _empty_cube(tmp_path)

    class Report:
        n = 0

        def received(self, n_bytes):
            self.n += n_bytes

    report = Report()
    da.download_arcticdem(TILE, tmp_path, 10, source=mosaic.source, report=report)
    assert report.n > 80 * 60 * 4 / 2


def test_where_there_is_no_tile_the_sea_is_remembered(mosaic, tmp_path):
    cube = _empty_cube(tmp_path)
    sea = GeoBox((20, 20), TILE.affine * Affine.translation(30_000, 0), TILE.crs)
    ds = da.load_arcticdem(sea, tmp_path, 10, source=mosaic.source)
    assert np.isnan(ds["dem"]).all()
    assert not ds["arcticdem_data_mask"].any()
    assert cube.missing(sea) == []
    mosaic.api.clear()
    da.load_arcticdem(sea, tmp_path, 10, source=mosaic.source)
    assert mosaic.api.requests == []


def test_s3_addresses_are_read_over_https_without_keys(mosaic, tmp_path):
    https = mosaic.files.url + "/arcticdem/"
    items = json.loads(json.dumps(mosaic.items).replace(https, "s3://arcticdem/"))
    with cql2_stac_server(make_pgc_collection(10), items) as server:
        source = replace(mosaic.source, endpoint=server.url, s3_endpoint=mosaic.files.url + "/{bucket}")
        cube = _empty_cube(tmp_path)
        da.download_arcticdem(TILE, tmp_path, 10, source=source)
    _check(cube, mosaic, cube.chunks_touching(TILE))


@pytest.mark.parametrize("resolution", [2, 32])
def test_other_resolutions_come_from_collections_of_their_own(tmp_path, resolution):
    grid = da.arcticdem_geobox(resolution)
    tile = GeoBox((200, 200), Affine(5, 0, 471_000, 0, -5, 7_550_000), "EPSG:32608")
    box = da.Cube(tmp_path, grid, 300, {}, {}).aligned(tile)
    dem = np.random.default_rng(0).uniform(0, 900, box.shape.yx).astype("float32")
    name = "41_16_1_1" if resolution == 2 else "41_16"
    files = tmp_path / "files"
    with file_server(files) as address:
        item, contents = make_pgc_tile(name, box, dem, base_url=address)
        for path, content in contents.items():
            (files / path).parent.mkdir(parents=True, exist_ok=True)
            (files / path).write_bytes(content)
        with stac_server(make_pgc_collection(resolution), [item]) as endpoint:
            cube = da.create_arcticdem_cube(tmp_path / f"arcticdem_{resolution}m.icechunk", resolution, chunk=300)
            da.download_arcticdem(tile, tmp_path, resolution, source=ArcticDemSource(endpoint=endpoint, retries=0))
    stored = cube.read(tile)
    column, row = (round(n) for n in ~box.affine * (stored.odc.geobox.affine.c, stored.odc.geobox.affine.f))
    height, width = stored["dem"].shape
    known = np.isfinite(stored["dem"].values)
    assert known.mean() > 0.4
    expected = dem[row : row + height, column : column + width]
    np.testing.assert_array_equal(stored["dem"].values[known], expected[known])


def test_a_tile_between_the_pixels_is_interpolated(tmp_path):
    """As those along the meridian x = 0 of the mosaic of 32 m, which begin 12 or 20 m off."""
    grid = da.arcticdem_geobox(32)
    tile = GeoBox((40, 40), Affine(32, 0, -640, 0, -32, -1_000_000), "EPSG:3413")
    chunk = da.Cube(tmp_path, grid, 64, {}, {}).aligned(tile)
    box = GeoBox((200, 200), Affine(32, 0, chunk.affine.c - 320 + 12, 0, -32, chunk.affine.f + 320), "EPSG:3413")
    rows, columns = np.mgrid[:200, :200] + 0.5
    # A plane: interpolation must give it back, to rounding.
    dem = (100 + columns * 32 * 0.01 + rows * 32 * 0.02).astype("float32")
    files = tmp_path / "files"
    with file_server(files) as address:
        item, contents = make_pgc_tile("13_41", box, dem, base_url=address)
        for path, content in contents.items():
            (files / path).parent.mkdir(parents=True, exist_ok=True)
            (files / path).write_bytes(content)
        with stac_server(make_pgc_collection(32), [item]) as endpoint:
            cube = da.create_arcticdem_cube(tmp_path / "arcticdem_32m.icechunk", 32, chunk=64)
            da.download_arcticdem(tile, tmp_path, 32, source=ArcticDemSource(endpoint=endpoint, retries=0))
    stored = cube.read(tile)
    x, y = np.meshgrid(stored["x"].values, stored["y"].values)
    expected = 100 + (x - box.affine.c) * 0.01 + (box.affine.f - y) * 0.02
    np.testing.assert_allclose(stored["dem"].values, expected, atol=1e-3)
    assert (stored["datamask"] == 1).all()


@pytest.mark.parametrize("wrong", [{"endpoint": "ftp://x"}, {"connections": 0}, {"retries": -1}, {"timeout_s": 0}])
def test_a_source_that_cannot_work_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ArcticDemSource(**wrong)


def test_a_collection_without_items_is_an_error_and_no_sea(mosaic, tmp_path):
    cube = _empty_cube(tmp_path)
    source = replace(mosaic.source, collections={10: "arcticdem-mosaics-v9.9-10m"})
    with pytest.raises(RemoteError, match=r"arcticdem-mosaics-v9\.9-10m"):
        da.download_arcticdem(TILE, tmp_path, 10, source=source)
    assert len(cube.missing(TILE)) == len(cube.chunks_touching(TILE))


@pytest.mark.skipif(not INDEX.is_file(), reason=f"the official tile index is not at {INDEX}")
@pytest.mark.parametrize("resolution", [2, 10, 32])
def test_the_grid_spans_all_tiles_of_the_official_index_on_their_pixels(resolution):
    import pyogrio

    layer = f"ArcticDEM_Mosaic_Index_v4_1_{resolution}m"
    bounds = pyogrio.read_info(INDEX, layer=layer, force_total_bounds=True)["total_bounds"]
    grid = da.arcticdem_geobox(resolution)
    assert tuple(grid.boundingbox) == bounds
    assert grid.affine.a == -grid.affine.e == resolution
    # Pixel edges of every tile are multiples of the resolution, those of the grid too.
    assert grid.affine.c % resolution == grid.affine.f % resolution == 0


def test_another_resolution_has_no_grid():
    with pytest.raises(ConfigError, match="5"):
        da.arcticdem_geobox(5)
