from pathlib import Path

import numpy as np
import pytest
from odc.geo.geobox import GeoBox
from rasterio import Affine

import darts_acquisition as da
from darts_utils.errors import ConfigError, MissingDataError, NotBuiltError

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
    first = da.load_arcticdem(TILE, cube.path, 10)
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
    with pytest.raises(NotBuiltError, match=r"EPSG:3413.*not built yet"):
        da.load_arcticdem(far, tmp_path, 10)


def test_an_absent_cube_names_the_command_of_its_pipeline(tmp_path):
    with pytest.raises(MissingDataError, match=r"arcticdem_2m\.icechunk.*darts prepare-data planet --aux"):
        da.load_arcticdem(TILE, tmp_path, 2, offline=True)
    with pytest.raises(NotBuiltError):
        da.load_arcticdem(TILE, tmp_path, 32)


@pytest.mark.parametrize(
    "wrong", [{"resolution": 5}, {"buffer": -1}, {"buffer": 1.5}, {"buffer": True}, {"geobox": "tile"}]
)
def test_parameters_that_cannot_work_are_refused(cube, tmp_path, wrong):
    with pytest.raises(ConfigError):
        da.load_arcticdem(**({"geobox": TILE, "data_dir": tmp_path, "resolution": 10} | wrong))


def test_a_cube_of_another_resolution_is_refused(cube):
    with pytest.raises(ConfigError, match="10"):
        da.load_arcticdem(TILE, cube.path, 32)


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
