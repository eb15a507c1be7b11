import gc
import weakref

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_preprocessing import (
    ALL_FEATURES,
    FEATURES,
    calculate_hillshade,
    calculate_ndvi,
    calculate_topographic_position_index,
    disk_means,
    preprocess_v2,
)
from darts_utils.arrays import to_device, to_host
from darts_utils.bands import BANDS
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError
from darts_utils.grids import align, centre_of, meridian_convergence, pad_metres, pixel_centres
from darts_utils.sun import sun_position
from darts_utils.testing import dem_on, optical_tile, rough_dem, trend_tile, utm_geobox

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

DEM_BANDS = ("dem", "arcticdem_data_mask", "relative_elevation", "slope", "aspect", "hillshade", "curvature")
TRENDS = ("tc_brightness", "tc_greenness", "tc_wetness")


def covering(geobox, crs, resolution, margin_m=400):
    """Return a grid in another CRS, on multiples of its resolution, around a tile and its margin."""
    wide = pad_metres(geobox, margin_m).to_crs(crs, resolution=resolution)
    left, top = (np.floor(wide.affine.c / resolution), np.ceil(wide.affine.f / resolution))
    return GeoBox(wide.shape, Affine(resolution, 0, left * resolution, 0, -resolution, top * resolution), crs)


def inputs(geobox, seed=0, **options):
    dem = rough_dem(covering(geobox, "EPSG:3413", 10), seed)
    return optical_tile(geobox, seed, **options), dem, trend_tile(covering(geobox, "EPSG:4326", 0.0002695), seed)


TILE = utm_geobox((50, 60))


def test_a_part_of_a_tile_has_all_features():
    # P7: coordinates of a part differ in their last digits from those computed anew, and a join by them is empty.
    geobox = utm_geobox((60, 70), left=399_960.1, top=7_800_000.3, pixel=3.125)
    optical, dem, trends = inputs(geobox)
    part = optical.isel(y=slice(13, None), x=slice(17, None))
    result = preprocess_v2(part, dem, trends, features=[*DEM_BANDS, *TRENDS])
    for name in (*DEM_BANDS, *TRENDS):
        assert np.isfinite(result[name]).mean() > 0.9, name
        np.testing.assert_array_equal(result[name].x, part.x)


@pytest.mark.parametrize(
    "geobox",
    [
        TILE,
        utm_geobox((37, 53), left=399_960.123456, top=7_800_000.7, pixel=10),  # P6: odd origins
        utm_geobox((37, 53), left=300_000.1, top=6_700_000.3, pixel=3.125),
        utm_geobox((40, 40), left=540_000, top=9_050_000, crs="EPSG:32633"),
        utm_geobox((1, 1)),
        utm_geobox((40, 40), left=374_000, top=7_546_000, crs="EPSG:32601"),  # 180 degrees of longitude
    ],
)
def test_everything_the_inputs_allow_is_built_on_the_tiles_grid(geobox):
    optical, dem, trends = inputs(geobox)
    before = [ds.copy(deep=True) for ds in (optical, dem, trends)]
    result = preprocess_v2(optical, dem, trends)
    # P12: the caller's dataset gained eleven variables.
    assert all(ds.identical(copy) for ds, copy in zip((optical, dem, trends), before, strict=True))
    assert list(result.data_vars) == [*optical.data_vars, *FEATURES]
    assert result.attrs == optical.attrs
    assert result.odc.geobox == geobox
    for name in FEATURES:
        values = result[name]
        assert values.odc.geobox == geobox
        assert values.dims == ("y", "x")
        assert values.dtype == BANDS[name].memory, name  # P3: hillshade was float64
        assert values.attrs["units"] == BANDS[name].units
        assert values.attrs["long_name"] == BANDS[name].long_name
        assert values.attrs["data_source"]
        # No frame anywhere: the DEM reaches beyond the tile.
        assert np.isfinite(values).all(), name
    assert result[list(optical.data_vars)].identical(optical)


def test_numbers_are_those_of_the_parts():
    optical, dem, trends = inputs(TILE)
    result = preprocess_v2(optical, dem, trends, 60, 20)
    wide = align(dem, pad_metres(TILE, 100))
    inside = (slice(10, -10), slice(10, -10))
    assert np.array_equal(result.ndvi, calculate_ndvi(optical))
    assert np.allclose(result.dem, wide.dem[inside], atol=1e-3)
    assert np.allclose(result.hillshade, calculate_hillshade(wide, 180, 30).hillshade[inside], atol=1e-3)
    assert np.allclose(result.tc_wetness, align(trends, TILE).tc_wetness)
    z = wide.dem.values.astype("float64")
    rows, cols = np.mgrid[-6:7, -6:7]
    ring = (rows**2 + cols**2 <= 36) & (rows**2 + cols**2 > 4)
    for r, c in [(0, 0), (0, 59), (49, 0), (49, 59), (20, 30)]:
        around = z[r + 4 : r + 17, c + 4 : c + 17][ring]
        assert float(result.relative_elevation[r, c]) == pytest.approx(z[r + 10, c + 10] - around.mean(), abs=1e-3)


def test_indices_on_request_are_their_formulas():
    optical = optical_tile(TILE, 3)
    result = preprocess_v2(optical, None, None, features=["gndvi", "ikaw"])
    nir, green, red, blue = (optical[name].to_numpy().astype(float) for name in ("nir", "green", "red", "blue"))
    for name, first, second in (("gndvi", nir, green), ("ikaw", red, blue)):
        np.testing.assert_allclose(result[name], (first - second) / (first + second), atol=1e-6)
        assert result[name].attrs["long_name"] == BANDS[name].long_name


def test_a_polar_plane_keeps_its_slope_and_its_true_aspect_on_the_utm_grid():
    # In EPSG:3413 the plane falls towards grid azimuth 30; the tile sees it through two projections.
    grid = covering(TILE, "EPSG:3413", 10)
    cols, rows = np.meshgrid(np.arange(grid.shape.x), np.arange(grid.shape.y))
    x, y = pixel_centres(grid, cols, rows)
    fall = np.tan(np.radians(8)) * ((x - x.mean()) * np.sin(np.radians(30)) + (y - y.mean()) * np.cos(np.radians(30)))
    result = preprocess_v2(optical_tile(TILE), dem_on(grid, 500 - fall), None)
    expected = 30 + float(meridian_convergence(grid).mean())
    assert float(result.slope.mean()) == pytest.approx(8, abs=0.1)  # the scale of the polar grid is 0.99 here
    assert float(result.slope.std()) < 0.02
    assert np.abs((result.aspect - expected + 180) % 360 - 180).max() < 0.2


@pytest.mark.parametrize(
    ("with_dem", "with_trends", "missing"),
    [(True, False, TRENDS), (False, True, DEM_BANDS), (False, False, (*TRENDS, *DEM_BANDS))],
)
def test_what_an_absent_input_would_give_is_left_out(with_dem, with_trends, missing):
    optical, dem, trends = inputs(TILE)
    result = preprocess_v2(optical, dem if with_dem else None, trends if with_trends else None)
    assert set(result.data_vars) == {*optical.data_vars, *FEATURES} - set(missing)


@pytest.mark.parametrize(
    ("features", "built"),
    [
        (["ndvi"], ["ndvi"]),
        (["ikaw", "ndvi", "gndvi"], ["ndvi", "gndvi", "ikaw"]),
        (["slope"], ["slope"]),
        (["aspect"], ["slope", "aspect"]),  # slope decides where aspect is valid
        (["relative_elevation", "tc_wetness"], ["tc_wetness", "relative_elevation"]),
        (["arcticdem_data_mask"], ["arcticdem_data_mask"]),
        (["dem", "red", "quality_data_mask"], ["dem"]),  # what the tile has already
        ([], []),
        ("hillshade", ["hillshade"]),
    ],
)
def test_only_what_is_asked_for_is_built_and_equals_what_all_together_give(features, built):
    optical, dem, trends = inputs(TILE)
    everything = preprocess_v2(optical, dem, trends, features=ALL_FEATURES)
    result = preprocess_v2(optical, dem, trends, features=features)
    assert list(result.data_vars) == [*optical.data_vars, *built]
    for name in built:
        low, high = BANDS[name].valid
        assert np.allclose(result[name], everything[name], atol=1e-4 * (high - low), equal_nan=True)


def test_what_is_not_asked_for_is_not_needed_either():
    optical, dem, trends = inputs(TILE)
    no_sun = optical.copy()
    no_sun.attrs = {}
    assert "slope" in preprocess_v2(no_sun, dem, None, features=["slope"])
    no_nir = optical.drop_vars("nir")
    assert "slope" in preprocess_v2(no_nir, dem.drop_vars("arcticdem_data_mask"), None, features=["slope"])
    assert "tc_wetness" in preprocess_v2(no_nir, None, trends[["tc_wetness"]], features=["tc_wetness"])
    # A radius too small for any pixel only matters where it is used.
    assert "slope" in preprocess_v2(optical, dem, None, 1, features=["slope"])


def test_other_number_formats_of_the_dem_come_out_as_the_table_says():
    optical, dem, _ = inputs(TILE)
    expected = preprocess_v2(optical, dem, None)
    other = dem.assign(dem=dem.dem.astype("float64"), arcticdem_data_mask=dem.arcticdem_data_mask.astype(bool))
    result = preprocess_v2(optical, other, None)
    for name in DEM_BANDS:
        assert result[name].dtype == BANDS[name].memory
        low, high = BANDS[name].valid
        assert np.allclose(result[name], expected[name], atol=1e-3 * (high - low))


def test_radii_may_be_given_in_pixels():
    optical, dem, _ = inputs(TILE)
    in_metres, in_pixels = (
        preprocess_v2(optical, dem, None, radius, features=["relative_elevation"]) for radius in (70, "7px")
    )
    assert in_metres.equals(in_pixels)


def test_a_gap_in_the_dem_is_missing_in_the_terrain_and_marked():
    optical, dem, _ = inputs(TILE)
    whole = preprocess_v2(optical, dem, None)
    height, width = dem.dem.shape
    hole = (slice(height // 2 - 3, height // 2 + 3), slice(width // 2 - 3, width // 2 + 3))
    dem["dem"][hole] = np.nan
    dem["arcticdem_data_mask"][hole] = 0
    result = preprocess_v2(optical, dem, None)
    gap = np.isnan(result.dem.values)
    assert 25 < gap.sum() < 50
    assert np.array_equal(gap, result.arcticdem_data_mask == 0)
    assert np.array_equal(np.isnan(result.relative_elevation), gap)
    rows, cols = np.nonzero(gap)
    near = np.zeros(TILE.shape, bool)
    for r, c in zip(rows, cols, strict=True):
        near[r - 1 : r + 2, c - 1 : c + 2] = True
    for name in ("slope", "aspect", "hillshade", "curvature"):
        assert np.array_equal(np.isnan(result[name]), near)
        far = ~near
        rows, cols = np.nonzero(near)
        far[rows.min() - 3 : rows.max() + 4, cols.min() - 3 : cols.max() + 4] = False
        assert np.array_equal(result[name].values[far], whole[name].values[far])


def test_where_the_coverage_ends_the_features_end():
    optical, dem, trends = inputs(TILE)
    half = dem.isel(x=slice(0, dem.sizes["x"] // 2))
    half_trends = trends.isel(x=slice(0, trends.sizes["x"] // 2))
    result = preprocess_v2(optical, half, half_trends)
    for name in ("dem", "relative_elevation", *TRENDS):
        # P11: TCVIS was 0 outside its coverage, the strongest loss.
        share = float(np.isnan(result[name]).mean())
        assert 0.1 < share < 0.95, name
    assert (result.arcticdem_data_mask.values[np.isnan(result.dem.values)] == 0).all()
    assert float(result.tc_wetness.min()) > 0.5 - 32  # cubic overshoot, no zeros mixed in


def test_trends_in_the_form_on_disk_are_decoded_first():
    optical, _, trends = inputs(TILE)
    trends["tc_wetness"][:, ::7] = np.nan
    stored = trends.copy()
    for name in TRENDS:
        stored[name] = trends[name].fillna(0).astype("uint8")
    expected, result = preprocess_v2(optical, None, trends), preprocess_v2(optical, None, stored)
    assert np.isnan(expected.tc_wetness).any()
    for name in TRENDS:
        assert np.array_equal(result[name], expected[name], equal_nan=True)


@pytest.mark.parametrize("angle", [None, float("nan"), "unknown"])
def test_missing_sun_angles_are_computed_from_place_and_time(angle):
    optical, dem, _ = inputs(TILE)
    azimuth, elevation = sun_position(*centre_of(TILE), "2023-07-01T20:00:00Z")
    known = preprocess_v2(optical.assign_attrs(azimuth=azimuth, elevation=elevation), dem, None)
    computed = preprocess_v2(optical.assign_attrs(azimuth=angle), dem, None)
    assert np.abs(computed.hillshade - known.hillshade).max() < 1e-3
    assert np.abs(computed.hillshade - preprocess_v2(optical, dem, None).hillshade).max() > 0.01
    if angle is None:
        del optical.attrs["elevation"]
        assert np.array_equal(preprocess_v2(optical, dem, None).hillshade, computed.hillshade)


def test_without_angles_and_time_the_hillshade_is_refused_by_the_tiles_name():
    optical, dem, _ = inputs(TILE)
    for name in ("azimuth", "acquisition_time"):
        del optical.attrs[name]
    with pytest.raises(ConfigError, match=r"tile synthetic has neither sun angles.*acquisition_time"):
        preprocess_v2(optical, dem, None)


def test_the_legacy_convention_turns_aspect_and_light_and_leaves_the_rest():
    optical, dem, _ = inputs(TILE)
    today, legacy = (preprocess_v2(optical, dem, None, terrain_convention=c) for c in ("true-north", "legacy"))
    x, y = pixel_centres(TILE, *np.meshgrid(np.arange(60), np.arange(50)))
    turn = np.degrees(np.arctan2(x, y)) + 90 - meridian_convergence(TILE).values
    assert np.abs((legacy.aspect - today.aspect - turn + 180) % 360 - 180).max() < 1e-2
    assert np.abs(legacy.hillshade - today.hillshade).max() > 0.1
    for name in ("dem", "slope", "curvature", "relative_elevation", "ndvi"):
        assert np.array_equal(legacy[name], today[name])
    with pytest.raises(ConfigError, match="'grid-north'"):
        preprocess_v2(optical, dem, None, terrain_convention="grid-north")


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        ({"features": ["slopes"]}, ConfigError, "'slopes' is unknown; did you mean 'slope'"),
        ({"features": ["slope"], "ds_arcticdem": None}, ConfigError, "slope need ds_arcticdem, which is None"),
        ({"features": ["tc_wetness"], "ds_tcvis": None}, ConfigError, "tc_wetness need ds_tcvis, which is None"),
        ({"tpi_outer_radius": "far"}, ConfigError, "outer radius.*'far'"),
        ({"tpi_outer_radius": 1}, ConfigError, "no pixel of 10 m"),
        ({"tpi_inner_radius": 200}, ConfigError, "no pixel"),
        ({"device": "cuda:99"}, Exception, "GPU 99"),
    ],
)
def test_bad_parameters_are_refused_by_name(change, error, problem):
    optical, dem, trends = inputs(TILE)
    with pytest.raises(error, match=problem):
        preprocess_v2(**{"ds_optical": optical, "ds_arcticdem": dem, "ds_tcvis": trends} | change)


def test_bad_inputs_are_refused():
    optical, dem, trends = inputs(TILE)
    with pytest.raises(MissingBandError, match="lacks nir"):
        preprocess_v2(optical.drop_vars("nir"), dem, trends)
    with pytest.raises(MissingBandError, match="lacks dem"):
        preprocess_v2(optical, dem.drop_vars("dem"), trends)
    with pytest.raises(MissingBandError, match="lacks tc_wetness"):
        preprocess_v2(optical, dem, trends.drop_vars("tc_wetness"))
    bare = xr.Dataset({name: (("y", "x"), values.data) for name, values in optical.items()}, attrs={"tile_id": "t7"})
    with pytest.raises(GridMismatchError, match="tile t7 has no grid"):
        preprocess_v2(bare, dem, trends)
    degrees = GeoBox((20, 30), Affine(1e-4, 0, -132, 0, -1e-4, 70), "EPSG:4326")
    with pytest.raises(ConfigError, match="degree"):
        preprocess_v2(optical_tile(degrees), dem, trends)


def test_a_tile_in_degrees_gets_what_needs_no_metres():
    longitude, latitude = centre_of(TILE)
    degrees = GeoBox((20, 30), Affine(1e-4, 0, longitude, 0, -1e-4, latitude), "EPSG:4326")
    _, dem, trends = inputs(TILE)
    result = preprocess_v2(optical_tile(degrees), dem, trends, features=["ndvi", "dem", *TRENDS])
    assert result.odc.geobox == degrees
    assert np.isfinite(result.dem).all()


@pytest.mark.gpu
def test_features_on_a_gpu_are_those_of_the_cpu():
    import cupy

    optical, dem, trends = inputs(TILE)
    expected = preprocess_v2(optical, dem, trends)
    for aux in (lambda ds: ds, lambda ds: to_device(ds, "cuda")):
        result = preprocess_v2(to_device(optical, "cuda"), aux(dem), aux(trends))
        for name in FEATURES:
            assert isinstance(result[name].data, cupy.ndarray)
            low, high = BANDS[name].valid
            assert np.allclose(to_host(result[name]), expected[name], atol=1e-4 * (high - low), equal_nan=True)
    assert isinstance(preprocess_v2(optical, dem, trends, device="cuda").red.data, cupy.ndarray)
    assert isinstance(preprocess_v2(to_device(optical, "cuda"), dem, None, device="cpu").red.data, np.ndarray)


@pytest.mark.parametrize("crs", ["EPSG:32608", "EPSG:32719"])
@pytest.mark.parametrize(
    ("tpi", "convention"), [((100, 0), "true-north"), ((60, 30), "legacy"), ((250, 0), "true-north")]
)
def test_rows_of_a_tile_have_the_numbers_of_the_whole(crs, tpi, convention, monkeypatch):
    monkeypatch.setattr(disk_means, "LEAST_SIDE", 24)  # several blocks on a small tile
    monkeypatch.setattr(disk_means, "SIDE_OF_REACH", 3)
    geobox = utm_geobox((151, 47), crs=crs)
    optical = optical_tile(geobox, nodata_share=0.1)
    around = geobox.pad(40)
    dem = rough_dem(
        around.to_crs("EPSG:3413" if crs == "EPSG:32608" else "EPSG:4326", resolution="auto"), nodata_share=0.01
    )
    trends = trend_tile(around.to_crs("EPSG:4326", resolution=0.0002695))
    options = {"tpi_outer_radius": tpi[0], "tpi_inner_radius": tpi[1], "terrain_convention": convention}
    whole = preprocess_v2(optical, dem, trends, **options)
    for rows in [(0, 1), (150, 151), (0, 151), (7, 48), (48, 120), (70, 151)]:
        part = preprocess_v2(optical, dem, trends, **options, rows=rows)
        expected = whole.isel(y=slice(*rows))
        assert part.odc.geobox == geobox[slice(*rows), :]
        xr.testing.assert_identical(part.drop_vars("spatial_ref"), expected.drop_vars("spatial_ref"))
        one = preprocess_v2(optical, dem, trends, **options, rows=rows, features=["slope"])
        xr.testing.assert_equal(one.slope, part.slope)  # whatever else is asked for
    assert np.isfinite(whole.hillshade).mean() > 0.5


@pytest.mark.parametrize("rows", [(0, 0), (-1, 4), (5, 4), (0, 65)])
def test_rows_beyond_the_tile_are_refused(rows):
    with pytest.raises(ConfigError, match="rows must be"):
        preprocess_v2(optical_tile(utm_geobox()), None, None, rows=rows)


def test_bands_in_another_order_of_dimensions_give_the_same():
    geobox = utm_geobox((40, 40))
    tile, dem = optical_tile(geobox), rough_dem(geobox.pad(20))
    expected = preprocess_v2(tile, dem, None)
    for turned in (tile.transpose("x", "y"), tile.assign(nir=tile.nir.transpose("x", "y"))):
        found = preprocess_v2(turned, dem.transpose("x", "y"), None)
        for name in FEATURES[:1] + DEM_BANDS:
            np.testing.assert_array_equal(found[name].transpose("y", "x"), expected[name])


def test_a_mask_of_floats_is_still_a_mask():
    geobox = utm_geobox((40, 40), left=600_003)
    dem = rough_dem(utm_geobox((90, 90), left=599_800, top=7_800_200), nodata_share=0.02)
    expected = preprocess_v2(optical_tile(geobox), dem, None).arcticdem_data_mask
    for mask in (dem.arcticdem_data_mask.astype("float32"), dem.arcticdem_data_mask.where(dem.arcticdem_data_mask > 0)):
        found = preprocess_v2(optical_tile(geobox), dem.assign(arcticdem_data_mask=mask), None).arcticdem_data_mask
        np.testing.assert_array_equal(found, expected)


def test_nothing_of_a_convolution_outlives_the_call(monkeypatch):
    alive = weakref.WeakSet()
    start = disk_means._Convolution.__init__
    monkeypatch.setattr(disk_means._Convolution, "__init__", lambda one, *args: alive.add(one) or start(one, *args))
    calculate_topographic_position_index(rough_dem(utm_geobox((40, 40)), nodata_share=0.9), 100)
    gc.collect()
    assert len(alive) == 0


def test_a_forgotten_nodata_value_spoils_no_more_than_its_disk():
    dem = rough_dem(utm_geobox((80, 80)))
    expected = calculate_topographic_position_index(dem, 100).tpi.values
    dem.dem[40, 40] = -3.4e38
    found = calculate_topographic_position_index(dem, 100).tpi.values
    assert np.isnan(found[40, 40])
    rows, cols = np.indices(found.shape)
    beyond = np.hypot(rows - 40, cols - 40) > 10.5
    np.testing.assert_allclose(found[beyond], expected[beyond], atol=1e-3)
    assert np.isnan(found).sum() == 1
