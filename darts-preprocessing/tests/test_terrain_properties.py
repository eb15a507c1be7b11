"""Laws of terrain that hold on any grid and any DEM, and disks added up in float64 on DEMs made to be difficult."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_preprocessing import (
    calculate_aspect,
    calculate_curvature,
    calculate_hillshade,
    calculate_slope,
    calculate_topographic_position_index,
    preprocess_v2,
)
from darts_utils.grids import crop, meridian_convergence, pad_metres, pixel_centres
from darts_utils.testing import dem_on, optical_tile, rough_dem, utm_geobox

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

TPI_TOLERANCE_M = 1e-3
DERIVED = {
    "slope": calculate_slope,
    "aspect": calculate_aspect,
    "hillshade": lambda ds: calculate_hillshade(ds, 158.0, 21.0),
    "curvature": calculate_curvature,
}

PIXELS = st.one_of(st.sampled_from([0.5, 2, 3, 3.125, 10, 90]), st.floats(0.5, 90))
SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24))
CRS = st.sampled_from(["EPSG:32608", "EPSG:32708", "EPSG:3413"])
SHARES = st.one_of(st.sampled_from([0, 1]), st.floats(0, 1))


@st.composite
def dems(draw):
    """A DEM of any shape and pixel size, with some, all or none of its pixels missing, in steps of 1/64 m."""
    shape, dx, dy, crs = draw(SHAPES), draw(PIXELS), draw(PIXELS), draw(CRS)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    values = np.round(rng.choice([1, 30, 2000]) * rng.random(shape) * 64) / 64
    values[rng.random(shape) < draw(st.sampled_from([0, 0.6]))] = 250  # plains
    values[rng.random(shape) < draw(SHARES)] = np.nan
    corner = {"EPSG:32608": (600_000, 7_800_000), "EPSG:32708": (400_000, 2_200_000), "EPSG:3413": (-2e6, -6e5)}[crs]
    return dem_on(GeoBox(shape, Affine(dx, 0, corner[0], 0, -dy, corner[1]), crs), values)


def turned(first, second):
    return np.abs((first - second + 180) % 360 - 180)


def complete(valid):
    """Return where a pixel and its eight neighbours are all there."""
    around = np.pad(valid, 1)
    rows, cols = valid.shape
    return np.all([around[r : r + rows, c : c + cols] for r in range(3) for c in range(3)], axis=0)


@settings(max_examples=30, deadline=None)
@given(dem=dems())
def test_each_feature_is_missing_where_the_rule_says_and_nowhere_else(dem):
    valid = np.isfinite(dem.dem.values)
    inside = complete(valid)
    for name, calculate in DERIVED.items():
        values = calculate(dem)[name].values
        flat = calculate_slope(dem).slope.values == 0 if name == "aspect" else False
        assert np.array_equal(np.isfinite(values), inside & ~np.bool_(flat)), name
    assert np.array_equal(np.isfinite(calculate_topographic_position_index(dem, "3px").tpi), valid)


@settings(max_examples=30, deadline=None)
@given(dem=dems())
def test_each_feature_stays_within_its_range(dem):
    slope, aspect, hillshade = (DERIVED[name](dem)[name].values for name in ("slope", "aspect", "hillshade"))
    assert not (slope < 0).any()
    assert not (slope > 90).any()
    assert not (aspect < 0).any()
    assert not (aspect >= 360).any()
    assert not (hillshade < 0).any()
    assert not (hillshade > 1).any()


@settings(max_examples=30, deadline=None)
@given(dem=dems(), constant=st.integers(-64 * 100, 64 * 3000), radius=st.integers(1, 30))
def test_a_constant_added_to_the_dem_changes_nothing(dem, constant, radius):
    raised = dem.assign(dem=dem.dem + np.float32(constant / 64))  # exact
    for name, calculate in DERIVED.items():
        first, second = calculate(dem)[name].values, calculate(raised)[name].values
        assert np.allclose(first, second, rtol=1e-5, atol=1e-5, equal_nan=True), name
    first, second = (calculate_topographic_position_index(ds, f"{radius}px").tpi for ds in (dem, raised))
    assert np.allclose(first, second, rtol=0, atol=2 * TPI_TOLERANCE_M, equal_nan=True)


@settings(max_examples=30, deadline=None)
@given(dem=dems(), right=st.integers(-3000, 3000), down=st.integers(-3000, 3000))
def test_the_place_of_the_grid_turns_directions_and_changes_nothing_else(dem, right, down):
    geobox = dem.odc.geobox
    elsewhere = dem_on(GeoBox(geobox.shape, geobox.affine * Affine.translation(right, down), geobox.crs), dem.dem)
    for name, calculate in {
        "slope": calculate_slope,
        "curvature": calculate_curvature,
        "tpi": lambda ds: calculate_topographic_position_index(ds, "4px", "1px"),
    }.items():
        assert np.array_equal(calculate(dem)[name], calculate(elsewhere)[name], equal_nan=True), name
    turn = meridian_convergence(elsewhere.odc.geobox).values - meridian_convergence(geobox).values
    error = turned(calculate_aspect(elsewhere).aspect.values, calculate_aspect(dem).aspect.values + turn)
    assert np.nan_to_num(error).max() < 2e-3


@settings(max_examples=20, deadline=None)
@given(dem=dems(), quarter=st.sampled_from(["mirrored", "upside down", "both"]))
def test_a_mirrored_dem_has_mirrored_features(dem, quarter):
    flip = {"mirrored": np.s_[:, ::-1], "upside down": np.s_[::-1], "both": np.s_[::-1, ::-1]}[quarter]
    mirrored = dem_on(dem.odc.geobox, dem.dem.values[flip])
    for name, calculate, atol in [
        ("slope", calculate_slope, 1e-4),
        ("curvature", calculate_curvature, 1e-3),
        ("tpi", lambda ds: calculate_topographic_position_index(ds, "3px"), 2 * TPI_TOLERANCE_M),
    ]:
        first, second = calculate(dem)[name].values[flip], calculate(mirrored)[name].values
        assert np.allclose(first, second, rtol=1e-5, atol=atol, equal_nan=True), name


@pytest.mark.parametrize("left", [600_000, 399_960.1])
@pytest.mark.parametrize("name", ["slope", "aspect", "hillshade", "curvature", "tpi"])
def test_a_part_that_was_cut_out_of_a_dataset_has_features_too(name, left):
    # Its coordinates are rounded otherwise than those of a grid that begins there, and may not be joined with them.
    dem = rough_dem(utm_geobox((40, 50), left=left, pixel=3.125), seed=7)
    calculate = {**DERIVED, "tpi": lambda ds: calculate_topographic_position_index(ds, "3px")}[name]
    part = dem.isel(y=slice(13, None), x=slice(17, None))
    inside = (slice(4, -4), slice(4, -4))
    expected = calculate(dem)[name].values[13:, 17:][inside]
    result = calculate(part)
    assert result.sizes == part.sizes
    assert np.allclose(result[name].values[inside], expected, atol=2 * TPI_TOLERANCE_M)


def hills(geobox):
    """Hills of some 30 m height and 500 m length, at places on the ground and not of the grid."""
    x, y = pixel_centres(geobox, *np.meshgrid(*(np.arange(n) for n in geobox.shape.xy)))
    return dem_on(geobox, 400 + 30 * np.sin(x / 80) * np.cos(y / 95) + 10 * np.sin((x + 2 * y) / 60))


@pytest.mark.parametrize(
    "geobox",
    [
        utm_geobox((70, 90), left=399_963, top=7_800_001, pixel=10),
        utm_geobox((70, 90), left=540_000, top=9_110_000, pixel=9, crs="EPSG:32633"),
        utm_geobox((70, 90), left=374_000, top=7_546_000, pixel=10, crs="EPSG:32601"),
    ],
)
def test_a_part_of_a_tile_has_the_features_of_the_tile(geobox):
    dem = hills(pad_metres(geobox, 600).to_crs("EPSG:3413", resolution=10))
    features = ["dem", "slope", "aspect", "hillshade", "curvature", "relative_elevation"]
    optical = optical_tile(geobox)
    whole = preprocess_v2(optical, dem, None, 80, features=features)
    for part in (geobox[:1, :1], geobox[20:51, 40:55], geobox[-30:, :], geobox[33:34, 7:60]):
        piece = preprocess_v2(crop(optical, part), dem, None, 80, features=features)
        expected = crop(whole, part)
        assert piece.odc.geobox == part
        # Sample positions of either may be 0.02 pixels off, on ground as steep as 1 in 2.
        off = 2 * 0.02 * geobox.affine.a * 0.5
        assert np.abs(piece.dem - expected.dem).max() < off
        assert np.abs(piece.slope - expected.slope).max() < 0.05
        steep = expected.slope.values > 5
        assert (turned(piece.aspect.values, expected.aspect.values) * steep).max() < 0.2
        assert np.abs(piece.hillshade - expected.hillshade).max() < 1e-3
        assert np.abs(piece.curvature - expected.curvature).max() < 0.05
        assert np.abs(piece.relative_elevation - expected.relative_elevation).max() < 2 * TPI_TOLERANCE_M + off / 10


def checkerboard(shape):
    return np.where(np.indices(shape).sum(axis=0) % 2, 3000.0, 0.0)


def spike(shape):
    values = np.zeros(shape)
    values[shape[0] // 2, shape[1] // 3] = 3000
    return values


def pit_in_a_plateau(shape):
    values = np.full(shape, 2999.98)
    values[shape[0] // 3, shape[1] // 2] = -100
    return values


def one_valid(shape):
    values = np.full(shape, np.nan)
    values[shape[0] // 2, shape[1] // 2] = 1234.56
    return values


def two_far_apart(shape):
    values = np.full(shape, np.nan)
    values[0, 0], values[-1, -1] = -100, 3000
    return values


def frame_missing(shape):
    values = 1500 + 1500 * np.sin(np.arange(shape[0] * shape[1]).reshape(shape) ** 2.0)
    values[:2] = values[-1:] = values[:, :1] = values[:, -2:] = np.nan
    return values


def a_column_of_three(shape):
    values = np.full(shape, np.nan)
    values[:, ::3] = checkerboard(shape)[:, ::3]
    return values


def cliff(shape):
    values = np.zeros(shape)
    values[:, shape[1] // 2 :] = 3000
    values[shape[0] // 2] = np.nan
    return values


def nothing(shape):
    return np.full(shape, np.nan)


def speckled(shape):
    rng = np.random.default_rng(5)
    values = rng.choice([-100.0, 0.0, 3000.0], shape)
    values[rng.random(shape) < 0.97] = np.nan
    return values


NASTY = [
    checkerboard, spike, pit_in_a_plateau, one_valid, two_far_apart, frame_missing, a_column_of_three, cliff, nothing,
    speckled,
]  # fmt: skip


def position_at(dem, spots, outer, inner=0.0, stretch=(1.0, 1.0)):
    """Return elevation minus the mean around, pixel by pixel in float64; `stretch` is the size of a pixel (y, x)."""
    z = dem.astype("float64")
    valid = np.isfinite(z)
    rows, cols = np.indices(z.shape, sparse=True)
    out = np.full(len(spots), np.nan)
    for k, (r, c) in enumerate(spots):
        far = ((rows - r) * stretch[0]) ** 2 + ((cols - c) * stretch[1]) ** 2
        ring = (far <= outer**2 * (1 + 1e-9)) & valid
        if inner > 0:
            ring &= far > inner**2 * (1 + 1e-9)
        if valid[r, c] and ring.any():
            out[k] = z[r, c] - z[ring].mean()
    return out


def spots_of(dem, count=60):
    """Return pixels to look at: corners, those at the edge of what is valid, and some drawn at random."""
    rng = np.random.default_rng(1)
    height, width = dem.shape
    valid = np.isfinite(dem)
    rims = np.argwhere(valid & ~complete(valid))
    extremes = np.argwhere((dem == np.nanmax(dem)) | (dem == np.nanmin(dem))) if valid.any() else rims
    drawn = [rng.permutation(some)[: count // 3] for some in (rims, extremes)]
    random = np.stack([rng.integers(0, height, count), rng.integers(0, width, count)], axis=1)
    corners = [(r, c) for r in (0, height - 1) for c in (0, width - 1)]
    return np.unique(np.concatenate([*drawn, random, corners]), axis=0)


@pytest.mark.parametrize("draw", NASTY)
@pytest.mark.parametrize(
    ("shape", "outer", "inner"),
    [
        ((37, 41), 1, 0), ((37, 41), 1.5, 0.5), ((37, 41), 2.3, 0), ((37, 41), 10, 0), ((37, 41), 10, 9.5),
        ((20, 31), 50, 0), ((1, 33), 4, 0), ((33, 1), 4, 2), ((130, 150), 120, 0), ((130, 150), 60, 30),
    ],
)  # fmt: skip
def test_disks_and_rings_are_exact_to_a_millimetre_whatever_the_ground(draw, shape, outer, inner):
    values = draw(shape).astype("float32")
    found = calculate_topographic_position_index(dem_on(utm_geobox(shape), values), f"{outer}px", f"{inner}px").tpi
    assert np.isnan(found.values[np.isnan(values)]).all()
    spots = spots_of(values)
    expected = position_at(values, spots, outer, inner)
    result = found.values[tuple(spots.T)]
    assert np.array_equal(np.isnan(result), np.isnan(expected))
    assert np.nan_to_num(np.abs(result - expected)).max() < TPI_TOLERANCE_M


@pytest.mark.parametrize("draw", [checkerboard, pit_in_a_plateau, frame_missing, speckled])
@pytest.mark.parametrize(("outer", "inner"), [(30, 0), (100, 60)])
def test_a_large_tile_is_as_exact_as_a_small_one(draw, outer, inner):
    values = draw((700, 1100)).astype("float32")
    found = calculate_topographic_position_index(
        dem_on(utm_geobox(values.shape), values), f"{outer}px", f"{inner}px"
    ).tpi.values
    spots = spots_of(values, 30)
    expected = position_at(values, spots, outer, inner)
    result = found[tuple(spots.T)]
    assert np.array_equal(np.isnan(result), np.isnan(expected))
    assert np.nan_to_num(np.abs(result - expected)).max() < TPI_TOLERANCE_M


@settings(max_examples=40, deadline=None)
@given(
    dem=dems(), outer=st.floats(1.01, 30), inner=st.one_of(st.just(0.0), st.floats(0.05, 0.95)), metres=st.booleans()
)
def test_disks_and_rings_of_any_radius_and_pixel_size_are_exact_to_a_millimetre(dem, outer, inner, metres):
    geobox = dem.odc.geobox
    dx, dy = geobox.affine.a, -geobox.affine.e
    inner = round(inner * outer, 2)
    outer = round(outer, 2)
    unit, stretch = (min(dx, dy), (dy, dx)) if metres else (1.0, (1.0, 1.0))
    outer_length, inner_length = outer * unit, inner * unit
    reach = np.arange(-31, 32)
    far = np.hypot(*(axis * size for axis, size in zip(np.meshgrid(reach, reach, indexing="ij"), stretch, strict=True)))
    # What lies on the circle itself depends on the last digit of the radius.
    assume(not np.isclose(far, outer_length, rtol=1e-6).any())
    assume(not np.isclose(far[far > 0], inner_length, rtol=1e-6).any())
    assume(((far < outer_length) & (far > inner_length)).any())
    radii = (outer_length, inner_length) if metres else (f"{outer}px", f"{inner}px")
    tpi = calculate_topographic_position_index(dem, *radii).tpi.values
    spots = np.argwhere(np.ones(tpi.shape, bool))
    expected = position_at(dem.dem.values, spots, outer_length, inner_length, stretch).reshape(tpi.shape)
    assert np.array_equal(np.isnan(tpi), np.isnan(expected))
    assert np.nan_to_num(np.abs(tpi - expected)).max() < TPI_TOLERANCE_M
