import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio import Affine

import darts_acquisition as da
from darts_utils.errors import ConfigError, MissingDataError, NotBuiltError

TILE = GeoBox((80, 60), Affine(10, 0, 471_000, 0, -10, 7_550_000), "EPSG:32608")
NAMES = {"TCB_slope": "tc_brightness", "TCG_slope": "tc_greenness", "TCW_slope": "tc_wetness"}


def _fill(path, target=TILE, buffer=20) -> da.Cube:
    cube = da.create_tcvis_cube(path, chunk=64)
    area = cube.aligned(target, buffer)
    rng = np.random.default_rng(0)
    codes = {name: (("y", "x"), rng.integers(0, 256, area.shape.yx).astype("uint8")) for name in NAMES}
    cube.write(xr.Dataset(codes, coords=xr_coords(area, dims=("y", "x"))))
    return cube


@pytest.mark.parametrize(
    ("scene", "cube"),
    [(2016, 2019), (2018, 2019), (2019, 2020), (2020, 2022), (2021, 2022), (2022, 2024), (2023, 2024), (2030, 2024)],
)
def test_a_scene_takes_the_earliest_cube_of_the_year_after_or_later(scene, cube):
    assert da.tcvis_cube_year(scene) == cube


def test_without_a_year_the_newest_cube_is_taken():
    assert da.tcvis_cube_year() == da.tcvis_cube_year(None) == 2024


def test_zeros_are_missing_and_the_rest_are_floats(tmp_path):
    cube = _fill(tmp_path / "TCTrend2022.icechunk")
    ds = da.load_tcvis(TILE, tmp_path, 2021, buffer=3, offline=True)
    raw = cube.read(TILE, 3)
    for source, name in NAMES.items():
        codes = raw[source].values
        assert ds[name].dtype == np.float32
        np.testing.assert_array_equal(ds[name], np.where(codes == 0, np.nan, codes))
    assert ds.odc.geobox == raw.odc.geobox
    assert ds.odc.geobox.crs.epsg == 4326
    assert ds["tc_wetness"].dims == ("y", "x")


def test_the_cube_itself_or_its_folder_online_or_offline_give_the_same(tmp_path):
    cube = _fill(tmp_path / "TCTrend2024.icechunk")
    first = da.load_tcvis(TILE, tmp_path)
    assert da.load_tcvis(TILE, cube.path, year=2023, offline=True).identical(first)


def test_a_cube_of_another_period_is_refused(tmp_path):
    cube = _fill(tmp_path / "TCTrend2024.icechunk")
    with pytest.raises(ConfigError, match=r"TCTrend2019.*TCTrend2024"):
        da.load_tcvis(TILE, cube.path, year=2017)


def test_beyond_the_grid_all_is_missing(tmp_path):
    da.create_tcvis_cube(tmp_path / "TCTrend2024.icechunk", chunk=64)
    south = GeoBox((20, 20), Affine(10, 0, 500_000, 0, -10, 4_000_000), "EPSG:32733")
    ds = da.load_tcvis(south, tmp_path, offline=True)
    assert all(np.isnan(ds[name]).all() for name in NAMES.values())


def test_what_is_absent_names_the_command_offline_and_is_not_built_online(tmp_path):
    with pytest.raises(MissingDataError, match=r"TCTrend2020\.icechunk.*darts prepare-data sentinel2 --aux"):
        da.load_tcvis(TILE, tmp_path, 2019, offline=True)
    _fill(tmp_path / "TCTrend2020.icechunk")
    far = GeoBox((10, 10), TILE.affine * Affine.translation(5000, 0), TILE.crs)
    with pytest.raises(MissingDataError, match=r"EPSG:4326.*darts prepare-data"):
        da.load_tcvis(far, tmp_path, 2019, offline=True)
    with pytest.raises(NotBuiltError, match="not built yet"):
        da.load_tcvis(far, tmp_path, 2019)


@pytest.mark.parametrize("wrong", [{"year": 2021.5}, {"year": "2021"}, {"buffer": -2}, {"geobox": None}])
def test_parameters_that_cannot_work_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError):
        da.load_tcvis(**({"geobox": TILE, "data_dir": tmp_path} | wrong))


def test_the_grid_covers_the_north_once_around():
    grid = da.tcvis_geobox()
    left, bottom, right, top = grid.boundingbox
    assert (left, top) == (-180, 90)
    assert 180 <= right < 180.0003
    assert bottom <= 40
    assert grid.affine.a == -grid.affine.e == 0.0002695


def test_a_tile_on_the_antimeridian_is_read_in_one_piece(tmp_path):
    tile = GeoBox((40, 40), Affine(10, 0, 385_200, 0, -10, 7_760_000), "EPSG:32601")
    tile = GeoBox(tile.shape, Affine.translation(-_east_of_antimeridian(tile), 0) * tile.affine, tile.crs)
    path = tmp_path / "TCTrend2024.icechunk"
    cube = da.create_tcvis_cube(path, chunk=64)
    for chunk in cube.missing(tile, 2):
        codes = {name: (("y", "x"), np.full(chunk.shape.yx, 9, "uint8")) for name in NAMES}
        cube.write(xr.Dataset(codes, coords=xr_coords(chunk, dims=("y", "x"))))
    x = da.load_tcvis(tile, tmp_path, buffer=2, offline=True)["x"].values
    np.testing.assert_allclose(np.diff(x), 0.0002695)
    assert min(abs(x[0]), abs(x[-1])) < 180 < max(abs(x[0]), abs(x[-1]))


def _east_of_antimeridian(tile: GeoBox) -> float:
    """How far the middle of a tile lies east of 180°, in metres."""
    from pyproj import Transformer

    x, y = tile.affine * (tile.shape.x / 2, tile.shape.y / 2)
    latitude = Transformer.from_crs("EPSG:32601", "EPSG:4326", always_xy=True).transform(x, y)[1]
    return x - Transformer.from_crs("EPSG:4326", "EPSG:32601", always_xy=True).transform(180.0, latitude)[0]
