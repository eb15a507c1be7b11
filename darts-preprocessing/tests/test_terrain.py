import numpy as np
import pyproj
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_preprocessing import (
    calculate_aspect,
    calculate_curvature,
    calculate_hillshade,
    calculate_slope,
    calculate_topographic_position_index,
)
from darts_preprocessing.terrain import derivatives
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError
from darts_utils.grids import meridian_convergence, pixel_centres
from darts_utils.testing import cone_dem, dem_on, plane_dem, rough_dem, utm_geobox

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

GRIDS = {
    "60 N": utm_geobox((30, 40), left=300_000, top=6_660_000),
    "70 N": utm_geobox((30, 40), left=600_000, top=7_800_000),
    "82 N": utm_geobox((30, 40), left=540_000, top=9_110_000, crs="EPSG:32633"),
    "70 S": utm_geobox((30, 40), left=600_000, top=2_200_000, crs="EPSG:32708"),
    "polar": utm_geobox((30, 40), left=-2_000_000, top=-600_000, crs="EPSG:3413", pixel=2),
    "oblong": GeoBox((30, 40), Affine(10, 0, 600_000, 0, -5, 7_800_000), "EPSG:32608"),
}
EVERY_GRID = pytest.mark.parametrize("geobox", GRIDS.values(), ids=GRIDS.keys())
UTM = GRIDS["70 N"]
INNER = (slice(1, -1), slice(1, -1))


def turned(first, second):
    """Smallest angle between directions in degrees."""
    return np.abs((first - second + 180) % 360 - 180)


def true_azimuth(geobox, grid_azimuth):
    """Geodesic azimuth of a short walk from each pixel along a grid azimuth."""
    rows, cols = np.indices(geobox.shape)
    x, y = pixel_centres(geobox, cols, rows)
    step_x, step_y = 5 * np.sin(np.radians(grid_azimuth)), 5 * np.cos(np.radians(grid_azimuth))
    to_degrees = pyproj.Transformer.from_crs(geobox.crs.proj, geobox.crs.proj.geodetic_crs, always_xy=True)
    here, there = to_degrees.transform(x - step_x, y - step_y), to_degrees.transform(x + step_x, y + step_y)
    return pyproj.Geod(ellps="WGS84").inv(*here, *there)[0]


def brute_derivatives(dem, dx, dy, convergence, azimuth, altitude):
    """Slope, aspect, hillshade and curvature pixel by pixel, in float64, by angles as SPEC writes them."""
    out = {name: np.full(dem.shape, np.nan) for name in ("slope", "aspect", "hillshade", "curvature")}
    z = dem.astype("float64")
    for r in range(1, dem.shape[0] - 1):
        for c in range(1, dem.shape[1] - 1):
            (nw, n, ne), (w, m, e), (sw, s, se) = z[r - 1 : r + 2, c - 1 : c + 2]
            if not np.isfinite(z[r - 1 : r + 2, c - 1 : c + 2]).all():
                continue
            rise_east = ((ne + 2 * e + se) - (nw + 2 * w + sw)) / (8 * dx)
            rise_north = ((nw + 2 * n + ne) - (sw + 2 * s + se)) / (8 * dy)
            slope = np.arctan(np.hypot(rise_east, rise_north))
            out["slope"][r, c] = np.degrees(slope)
            out["curvature"][r, c] = -100 * ((w - 2 * m + e) / dx**2 + (n - 2 * m + s) / dy**2)
            aspect = 0.0
            if slope > 0:
                aspect = (np.degrees(np.arctan2(-rise_east, -rise_north)) + convergence[r, c]) % 360
                out["aspect"][r, c] = aspect
            zenith = np.radians(90 - altitude)
            cos_i = np.cos(zenith) * np.cos(slope)
            cos_i += np.sin(zenith) * np.sin(slope) * np.cos(np.radians(azimuth - aspect))
            out["hillshade"][r, c] = (1 + cos_i) / 2
    return out


@EVERY_GRID
@pytest.mark.parametrize("grid_azimuth", [0, 45, 100, 225, 315])
def test_a_plane_has_its_slope_and_looks_where_a_walker_would_go(geobox, grid_azimuth):
    dem = plane_dem(geobox, 12, grid_azimuth)
    slope, aspect = calculate_slope(dem).slope, calculate_aspect(dem).aspect
    assert slope.dtype == aspect.dtype == np.float32
    assert np.abs(slope.values[INNER] - 12).max() < 5e-3
    assert turned(aspect.values, true_azimuth(geobox, grid_azimuth))[INNER].max() < 0.05


@pytest.mark.parametrize("geobox", [GRIDS["70 N"], GRIDS["70 S"], GRIDS["82 N"]])
def test_a_cone_looks_away_from_its_tip_everywhere(geobox):
    dem = cone_dem(geobox, 20)
    slope, aspect = calculate_slope(dem).slope.values, calculate_aspect(dem).aspect.values
    rows, cols = np.indices(geobox.shape)
    east, north = cols - 19.5, 14.5 - rows
    far = np.hypot(east, north) > 10
    far[[0, -1]] = far[:, [0, -1]] = False
    assert np.abs(slope[far] - 20).max() < 0.2
    away = np.degrees(np.arctan2(east, north)) + meridian_convergence(geobox).values
    assert turned(aspect, away)[far].max() < 0.2


@EVERY_GRID
@pytest.mark.parametrize("share", [0, 0.03, 0.5])
def test_derivatives_agree_with_a_loop_over_pixels(geobox, share):
    dem = rough_dem(geobox, seed=1, nodata_share=share)
    expected = brute_derivatives(
        dem.dem.values, abs(geobox.affine.a), abs(geobox.affine.e), meridian_convergence(geobox).values, 201.3, 17.2
    )
    found = {
        "slope": calculate_slope(dem).slope,
        "aspect": calculate_aspect(dem).aspect,
        "hillshade": calculate_hillshade(dem, 201.3, 17.2).hillshade,
        "curvature": calculate_curvature(dem).curvature,
    }
    together = derivatives(dem.dem.values, geobox, geobox, list(found), sun=(201.3, 17.2))
    for name, values in found.items():
        assert values.dtype == np.float32
        assert values.odc.geobox == geobox
        assert np.array_equal(np.isnan(values), np.isnan(expected[name]))
        error = turned(values, expected[name]) if name == "aspect" else np.abs(values - expected[name])
        assert np.nan_to_num(error).max() < 1e-3 * (1 + np.nan_to_num(np.abs(values)).max() * (name == "curvature"))
        assert np.array_equal(together[name], values, equal_nan=True)


@EVERY_GRID
def test_light_comes_from_the_sun(geobox):
    # P1: light came from 94 degrees off. P2: a 10 degree slope was shaded as 60. Known: SPEC's formula at 30 degrees.
    facing = {}
    for azimuth in range(0, 360, 45):
        dem = plane_dem(geobox, 10, azimuth - meridian_convergence(geobox).values.mean())
        shade = calculate_hillshade(dem, 180, 30).hillshade.values[INNER]
        facing[azimuth] = shade.mean()
        expected = 0.5 + 0.5 * (0.5 * np.cos(np.radians(10)) - np.sqrt(0.75) * np.sin(np.radians(10)) * np.cos(np.radians(azimuth)))  # fmt: skip  # noqa: E501
        assert np.abs(shade - expected).max() < 1e-3
    assert max(facing, key=facing.get) == 180
    assert min(facing, key=facing.get) == 0
    assert facing[180] == pytest.approx(0.8214, abs=1e-3)
    assert facing[90] == pytest.approx(0.7462, abs=1e-3)
    assert facing[0] == pytest.approx(0.6710, abs=1e-3)


def test_flat_ground_has_no_aspect_and_is_lit_by_the_height_of_the_sun():
    flat = dem_on(UTM, np.full(UTM.shape, 250))
    assert np.isnan(calculate_aspect(flat).aspect).all()
    assert (calculate_slope(flat).slope.values[INNER] == 0).all()
    assert np.allclose(calculate_hillshade(flat, 77, 30).hillshade.values[INNER], 0.75)
    assert (calculate_curvature(flat).curvature.values[INNER] == 0).all()


def test_a_hole_spoils_its_stencil_and_nothing_else():
    # P4: one missing pixel spoiled 441.
    dem = rough_dem(UTM)
    dem["dem"][10, 20] = np.nan
    stencil = np.zeros(UTM.shape, bool)
    stencil[9:12, 19:22] = True
    stencil[[0, -1]] = stencil[:, [0, -1]] = True
    for ds, name in [
        (calculate_slope(dem), "slope"),
        (calculate_aspect(dem), "aspect"),
        (calculate_hillshade(dem, 180, 30), "hillshade"),
        (calculate_curvature(dem), "curvature"),
    ]:
        assert np.array_equal(np.isnan(ds[name]), stencil)
    tpi = calculate_topographic_position_index(dem, 100).tpi
    assert np.argwhere(np.isnan(tpi.values)).tolist() == [[10, 20]]


def test_infinite_heights_count_as_missing():
    dem = rough_dem(UTM)
    holed = dem.copy(deep=True)
    holed["dem"][5, 5] = np.nan
    dem["dem"][5, 5] = np.inf
    for calculate in (calculate_slope, calculate_curvature, lambda ds: calculate_topographic_position_index(ds, 50)):
        first, second = calculate(dem), calculate(holed)
        name = list(first.data_vars)[-1]
        assert np.array_equal(first[name], second[name], equal_nan=True)


def test_north_may_be_at_the_bottom():
    dem = rough_dem(UTM)
    a, _, c, _, e, f, *_ = UTM.affine
    upside_down = dem_on(GeoBox(UTM.shape, Affine(a, 0, c, 0, -e, f + 30 * e), UTM.crs), dem.dem.values[::-1])
    for name, calculate in {
        "slope": calculate_slope,
        "aspect": calculate_aspect,
        "hillshade": lambda ds: calculate_hillshade(ds, 140, 20),
        "curvature": calculate_curvature,
        "tpi": lambda ds: calculate_topographic_position_index(ds, 60),
    }.items():
        expected, found = calculate(dem)[name].values, calculate(upside_down)[name].values[::-1]
        assert np.allclose(found, expected, atol=1e-3, equal_nan=True), name


@settings(max_examples=15, deadline=None)
@given(constant=st.integers(-100, 2000), seed=st.integers(0, 5))
def test_adding_a_constant_to_the_dem_changes_nothing(constant, seed):
    dem = rough_dem(UTM, seed, nodata_share=0.02)
    dem["dem"] = (np.round(dem.dem * 64) / 64).astype("float32")  # so that the sum is exact
    raised = dem.assign(dem=dem.dem + np.float32(constant))
    for calculate in (
        calculate_slope,
        calculate_aspect,
        lambda ds: calculate_hillshade(ds, 200, 25),
        calculate_curvature,
        lambda ds: calculate_topographic_position_index(ds, 70),
    ):
        first, second = calculate(dem), calculate(raised)
        name = list(first.data_vars)[-1]
        assert np.allclose(first[name], second[name], atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 2), (2, 3), (3, 3)])
def test_small_grids_work(shape):
    geobox = utm_geobox(shape)
    slope = calculate_slope(plane_dem(geobox, 5, 90)).slope
    assert np.isfinite(slope).sum() == max(shape[0] - 2, 0) * max(shape[1] - 2, 0)
    assert np.isfinite(calculate_topographic_position_index(plane_dem(geobox, 5, 90), 100).tpi).all()


def test_the_input_is_left_alone_and_the_output_described():
    dem = rough_dem(UTM, nodata_share=0.1)
    before = dem.copy(deep=True)
    result = calculate_hillshade(calculate_aspect(calculate_slope(dem)), 180, 30)
    result = calculate_topographic_position_index(calculate_curvature(result), 100)
    assert dem.identical(before)
    assert set(result.data_vars) == {*dem.data_vars, "slope", "aspect", "hillshade", "curvature", "tpi"}
    assert result.attrs == dem.attrs
    for name in ("slope", "aspect", "hillshade", "curvature", "tpi"):
        assert {"long_name", "units", "data_source"} <= set(result[name].attrs)
        assert result[name].attrs["data_source"] == "synthetic"


@pytest.mark.parametrize("calculate", [calculate_slope, calculate_aspect, calculate_curvature])
def test_what_cannot_work_is_refused(calculate):
    with pytest.raises(MissingBandError, match="lacks dem"):
        calculate(rough_dem(UTM).drop_vars("dem"))
    with pytest.raises(GridMismatchError, match="grid"):
        calculate(xr.Dataset({"dem": (("y", "x"), np.zeros((4, 4), "float32"))}))
    degrees = GeoBox((5, 5), Affine(0.1, 0, -132, 0, -0.1, 70), "EPSG:4326")
    with pytest.raises(ConfigError, match="degree"):
        calculate(dem_on(degrees, np.zeros((5, 5))))
    skew = GeoBox((5, 5), Affine(10, 1, 600_000, 1, -10, 7_800_000), "EPSG:32608")
    with pytest.raises(GridMismatchError, match="axes"):
        calculate(dem_on(skew, np.zeros((5, 5))))


def test_sun_angles_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="nan"):
        calculate_hillshade(rough_dem(UTM), float("nan"), 30)
    with pytest.raises(ConfigError, match="120"):
        calculate_hillshade(rough_dem(UTM), 180, 120)
    with pytest.raises(ConfigError, match="north-ish"):
        calculate_aspect(rough_dem(UTM), terrain_convention="north-ish")


def brute_tpi(dem, outer_px, inner_px):
    """Elevation minus mean over pixels whose distance in (rows, columns) lies within the ellipses, in float64."""
    out = np.full(dem.shape, np.nan)
    rows, cols = np.indices(dem.shape)
    for r, c in np.argwhere(np.isfinite(dem)):
        ring = ((rows - r) / outer_px[0]) ** 2 + ((cols - c) / outer_px[1]) ** 2 <= 1 + 1e-12
        if inner_px is not None:
            ring &= ((rows - r) / inner_px[0]) ** 2 + ((cols - c) / inner_px[1]) ** 2 > 1 + 1e-12
        around = dem[ring & np.isfinite(dem)].astype("float64")
        if around.size:
            out[r, c] = dem[r, c] - around.mean()
    return out


@pytest.mark.parametrize("share", [0, 0.2, 0.9, 1])
@pytest.mark.parametrize(
    ("geobox", "outer", "inner", "outer_px", "inner_px"),
    [
        (GRIDS["70 N"], 100, 0, (10, 10), None),
        (GRIDS["70 N"], 55, 0, (5.5, 5.5), None),
        (GRIDS["70 N"], "7px", 0, (7, 7), None),
        (GRIDS["70 N"], "100 m", "30m", (10, 10), (3, 3)),
        (GRIDS["70 N"], 60, 5, (6, 6), (0.5, 0.5)),
        (GRIDS["70 N"], 1000, 0, (100, 100), None),
        (GRIDS["oblong"], 40, 0, (8, 4), None),
        (GRIDS["oblong"], 40, 20, (8, 4), (4, 2)),
        (GRIDS["oblong"], "4px", "2px", (4, 4), (2, 2)),
        (GRIDS["polar"], 15, 0, (7.5, 7.5), None),
    ],
)
def test_topographic_position_agrees_with_a_loop_over_pixels(geobox, outer, inner, outer_px, inner_px, share):
    dem = rough_dem(geobox, seed=2, nodata_share=share)
    tpi = calculate_topographic_position_index(dem, outer, inner).tpi
    assert tpi.dtype == np.float32
    assert tpi.odc.geobox == geobox
    assert np.allclose(tpi, brute_tpi(dem.dem.values, outer_px, inner_px), atol=1e-4, equal_nan=True)


def test_topographic_position_has_no_seams_between_blocks():
    # Kernels work in blocks of 256 rows and 512 columns.
    geobox = utm_geobox((600, 1100))
    dem = rough_dem(geobox, seed=3, nodata_share=0.01)
    tpi = calculate_topographic_position_index(dem, 50).tpi.values
    for rows in (slice(240, 280), slice(500, 530), slice(570, 600)):
        for cols in (slice(490, 540), slice(1010, 1040), slice(1070, 1100)):
            wide = tuple(slice(max(s.start - 5, 0), s.stop + 5) for s in (rows, cols))
            expected = brute_tpi(dem.dem.values[wide], (5, 5), None)
            inside = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip((rows, cols), wide, strict=True))
            assert np.allclose(tpi[rows, cols], expected[inside], atol=1e-4, equal_nan=True)


@pytest.mark.parametrize(
    ("outer", "inner", "problem"),
    [
        (5, 0, "no pixel of 10 m × 10 m"), (100, 100, "no pixel"), (100, 200, "no pixel"), ("ten", 0, "got 'ten'"),
        (-10, 0, "got -10"), (float("nan"), 0, "got nan"), (100, "3km", "inner radius"),
    ],
)  # fmt: skip
def test_radii_that_enclose_nothing_or_say_nothing_are_refused(outer, inner, problem):
    with pytest.raises(ConfigError, match=problem):
        calculate_topographic_position_index(rough_dem(UTM), outer, inner)


def legacy_features(dem, geobox, azimuth, altitude):
    """The older DARTS aspect and hillshade, after SPEC 6, with differences to both sides as the old code took them."""
    rows, cols = np.indices(dem.shape)
    x, y = pixel_centres(geobox, cols, rows)
    z = dem.astype("float64")
    turn = np.degrees(np.arctan2(x, y)) + 90
    pad = np.pad(z, 1, constant_values=np.nan)
    nw, n, ne = pad[:-2, :-2], pad[:-2, 1:-1], pad[:-2, 2:]
    w, e = pad[1:-1, :-2], pad[1:-1, 2:]
    sw, s, se = pad[2:, :-2], pad[2:, 1:-1], pad[2:, 2:]
    rise_east = (ne + 2 * e + se) - (nw + 2 * w + sw)
    rise_north = (nw + 2 * n + ne) - (sw + 2 * s + se)
    aspect = np.degrees(np.arctan2(-rise_east, -rise_north)) % 360
    aspect = np.where((rise_east == 0) & (rise_north == 0), -1, aspect)
    sun = np.radians(round(azimuth) - (np.degrees(np.arctan2(x.mean(), y.mean())) + 90))
    height = np.radians(round(altitude))
    down, right = np.gradient(z)
    slope, faces = np.arctan(np.hypot(down, right)), np.arctan2(-right, down)
    cos_i = np.sin(height) * np.cos(slope) + np.cos(height) * np.sin(slope) * np.cos(sun - faces)
    return (aspect + turn) % 360, (1 + cos_i) / 2


@pytest.mark.parametrize("geobox", [GRIDS["70 N"], GRIDS["60 N"], GRIDS["polar"]])
def test_the_legacy_convention_reproduces_the_older_features(geobox):
    dem = rough_dem(geobox, seed=4)
    dem["dem"][10:14, 10:14] = 300
    aspect, hillshade = legacy_features(dem.dem.values, geobox, 201.3, 17.4)
    found = calculate_aspect(dem, terrain_convention="legacy").aspect.values
    assert turned(found, aspect)[INNER].max() < 2e-3
    flat = found[11, 11]
    rows, cols = np.indices(geobox.shape)
    x, y = pixel_centres(geobox, cols, rows)
    assert turned(flat, np.degrees(np.arctan2(x, y))[11, 11] + 89) < 2e-3
    shade = calculate_hillshade(dem, 201.3, 17.4, terrain_convention="legacy").hillshade.values
    assert np.abs(shade - hillshade)[INNER].max() < 1e-3
    if geobox is not GRIDS["polar"]:  # some 94 degrees from the truth: what P1 was about
        truth = calculate_aspect(dem).aspect.values
        assert 85 < np.nanmedian(turned(found, truth)[INNER]) < 100
