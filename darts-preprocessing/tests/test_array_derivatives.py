"""Derivatives in array code beside the compiled kernel, and beside loops over pixels in float64."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_preprocessing import array_derivatives, derivative_kernels
from darts_utils.arrays import to_host
from darts_utils.coarse import sample_coarsely
from darts_utils.testing import namespaces

NAMES = ("slope", "aspect", "hillshade", "curvature")
SUN = (0.46, -0.31, 0.83)


@pytest.fixture(params=namespaces(), ids=lambda module: module.__name__)
def xp(request):
    return request.param


def north_of(shape, angle=12.0, turn=0.01):
    """Return a field of an angle, in degrees, that changes over a grid."""

    def directions(cols, rows):
        angles = np.radians(angle + turn * (cols - 2 * rows))
        return np.stack([np.cos(angles), np.sin(angles)])

    return sample_coarsely(directions, shape, tolerance=1e-5)


def arguments(top, left, steps, north, first_row, legacy):
    return top, left, *steps, *north.nodes, north.cell_rows, north.cell_cols, first_row, *SUN, legacy


def by_arrays(xp, dem, shape, *args, names=NAMES):
    outputs = {name: xp.full(shape if name in names else (0, 0), 7, "float32") for name in NAMES}
    array_derivatives.derive(xp.asarray(dem), *arguments(*args), *outputs.values())
    return {name: to_host(values) for name, values in outputs.items()}


def by_kernel(dem, shape, *args):
    outputs = {name: np.empty(shape, "float32") for name in NAMES}
    blocks = math.ceil(shape[0] / derivative_kernels.BLOCK_ROWS)
    derivative_kernels.derive(blocks, dem, *arguments(*args), *outputs.values())
    return outputs


def assert_same(found, expected, tolerance=1e-6):
    """Check that the same pixels are NaN, and that values agree to a share of the band's range."""
    for name, reach in (("slope", 90), ("aspect", 360), ("hillshade", 1), ("curvature", None)):
        first, second = found[name].astype("float64"), expected[name].astype("float64")
        np.testing.assert_array_equal(np.isnan(first), np.isnan(second), err_msg=name)
        off = np.abs(first - second)[np.isfinite(second)]
        if name == "aspect":
            off = np.minimum(off, 360 - off)
            assert not (found[name] >= 360).any()
        if off.size:
            assert off.max() <= tolerance * (reach or max(np.nanmax(np.abs(second)), 1e-30)), name


def rough(shape, seed=0, missing=0.0, base=300.0):
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(shape)
    dem = base + 40 * np.sin(rows / 6) * np.cos(cols / 9) + rng.normal(0, 1, shape)
    dem[rng.random(shape) < missing] = np.nan
    return dem.astype("float32")


def plains(shape):
    dem = np.round(rough(shape) / 30) * 30
    dem[::7, 3::8] += 1e-3
    return dem.astype("float32")


def infinite(shape):
    dem = rough(shape)
    dem[::9, 2::5] = np.inf
    dem[4::11, ::6] = -np.inf
    return dem


def framed(shape):
    dem = rough(shape)
    dem[:2] = dem[-3:] = dem[:, :1] = dem[:, -2:] = np.nan
    return dem


DEMS = {
    "rough": rough((50, 60)),
    "heights of 3000 m": rough((50, 60), base=3000),
    "holes": rough((50, 60), missing=0.1),
    "plains": plains((50, 60)),
    "flat": np.full((50, 60), 250, "float32"),
    "infinite": infinite((50, 60)),
    "frame missing": framed((50, 60)),
    "all missing": np.full((50, 60), np.nan, "float32"),
    "two by two": rough((2, 2)),
    "three by three": rough((3, 3)),
    "one pixel": rough((1, 1)),
}
WINDOWS = {
    "whole": ((50, 60), 0, 0),
    "inside": ((20, 30), 7, 5),
    "one pixel": ((1, 1), 1, 1),
    "one row": ((1, 58), 1, 0),
    "one column": ((45, 1), 2, 33),
    "past every side": ((60, 70), -5, -4),
    "beside the DEM": ((10, 10), 80, 80),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dem", DEMS)
def test_derivatives_are_those_of_the_compiled_kernel(xp, dem, window, legacy):
    dem, (shape, top, left) = DEMS[dem], WINDOWS[window]
    args = (top, left, (10.0, -10.0), north_of(shape), 0, legacy)
    assert_same(by_arrays(xp, dem, shape, *args), by_kernel(dem, shape, *args))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("steps", [(2.0, -2.0), (3.125, -90.0), (10.0, 10.0), (-10.0, -5.0)])
@pytest.mark.parametrize("angle", [0.0, 90.0, 179.99, -135.0])
def test_pixels_of_any_size_and_order_and_any_north(xp, steps, angle, legacy):
    dem, shape = DEMS["holes"], (50, 60)
    args = (0, 0, steps, north_of(shape, angle, 0.0), 0, legacy)
    assert_same(by_arrays(xp, dem, shape, *args), by_kernel(dem, shape, *args))


@pytest.mark.parametrize("falls_to", [0.0, 37.0, 90.0, 180.0, 251.5, 270.0])
@pytest.mark.parametrize("steps", [(10.0, -10.0), (5.0, -20.0), (10.0, 10.0)])
def test_a_plane_has_the_slope_aspect_and_light_it_was_made_with(xp, steps, falls_to):
    angle, shape = 30.0, (9, 11)
    towards, fall = math.radians(falls_to), math.tan(math.radians(20))
    x, y = np.meshgrid(np.arange(11) * steps[0], np.arange(9) * steps[1])
    dem = (500 - fall * (x * math.sin(towards) + y * math.cos(towards))).astype("float32")
    found = by_arrays(xp, dem, shape, 0, 0, steps, north_of(shape, angle, 0.0), 0, False)
    inside = np.s_[1:-1, 1:-1]
    true = math.radians(falls_to + angle)  # grid azimuth plus the angle from true north to grid north
    light = SUN[2] * math.cos(math.radians(20)) + math.sin(math.radians(20)) * (
        SUN[0] * math.sin(true) + SUN[1] * math.cos(true)
    )
    np.testing.assert_allclose(found["slope"][inside], 20, atol=1e-3)
    off = (found["aspect"][inside] - falls_to - angle + 180) % 360 - 180
    np.testing.assert_allclose(off, 0, atol=2e-3)
    np.testing.assert_allclose(found["hillshade"][inside], 0.5 + 0.5 * light, atol=1e-5)
    np.testing.assert_allclose(found["curvature"][inside], 0, atol=1e-3)
    for values in found.values():
        values[inside] = np.nan
        assert np.isnan(values).all()


def test_curvature_is_the_bend_of_the_ground(xp):
    x, y = np.meshgrid(np.arange(12) * 2.0, np.arange(10) * -3.0)
    dem = (-0.01 * x**2 + 0.04 * y**2).astype("float32")
    found = by_arrays(xp, dem, (10, 12), 0, 0, (2.0, -3.0), north_of((10, 12)), 0, False)["curvature"]
    np.testing.assert_allclose(found[1:-1, 1:-1], -100 * (-0.02 + 0.08), atol=1e-3)


def by_loops(dem, steps, angle):
    """Return the derivatives pixel by pixel with Python's own numbers, north turned by one angle."""
    found = {name: np.full(dem.shape, np.nan) for name in NAMES}
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    for r, c in np.ndindex(dem.shape[0] - 2, dem.shape[1] - 2):
        (nw, n, ne), (w, z, e), (sw, s, se) = dem[r : r + 3, c : c + 3].tolist()
        if not all(map(math.isfinite, (nw, n, ne, w, z, e, sw, s, se))):
            continue
        fall_x = -((ne - nw) + 2 * (e - w) + (se - sw)) / (8 * steps[0])
        fall_y = -((sw - nw) + 2 * (s - n) + (se - ne)) / (8 * steps[1])
        east, north = fall_x * cosine + fall_y * sine, fall_y * cosine - fall_x * sine
        steep = math.hypot(east, north)
        place = r + 1, c + 1
        found["slope"][place] = math.degrees(math.atan(steep))
        found["aspect"][place] = math.degrees(math.atan2(east, north)) % 360 if steep else math.nan
        # Light falls by the angle between the sun and the ground's normal (east, north, 1) / |…|.
        cosine_i = (SUN[0] * east + SUN[1] * north + SUN[2]) / math.hypot(east, north, 1)
        found["hillshade"][place] = (1 + cosine_i) / 2
        found["curvature"][place] = -100 * ((w - 2 * z + e) / steps[0] ** 2 + (n - 2 * z + s) / steps[1] ** 2)
    return found


@pytest.mark.parametrize("dem", ["heights of 3000 m", "holes", "plains", "infinite"])
@pytest.mark.parametrize("steps", [(10.0, -10.0), (3.0, 2.0)])
def test_derivatives_are_those_of_a_loop_over_pixels(xp, dem, steps):
    dem = DEMS[dem]
    found = by_arrays(xp, dem, dem.shape, 0, 0, steps, north_of(dem.shape, 23.0, 0.0), 0, False)
    assert_same(found, by_loops(dem, steps, 23.0))


def test_ground_is_flat_only_where_differences_cancel_in_float64(xp):
    # Of 10000 km and 0.1 m, float32 loses the latter: aspect would be missing there, and slope 0.
    dem = np.random.default_rng(3).choice(np.float32([0, 3000, 1e-30, 0.1, 1e7]), (40, 40))
    found = by_arrays(xp, dem, dem.shape, 0, 0, (10.0, -10.0), north_of(dem.shape, 0.0, 0.0), 0, False)
    expected = by_loops(dem, (10.0, -10.0), 0.0)
    assert np.isnan(expected["aspect"][1:-1, 1:-1]).any()
    assert_same(found, expected)


@pytest.mark.parametrize("legacy", [False, True])
def test_flat_ground_faces_nowhere_and_in_the_legacy_convention_one_degree_before_north(xp, legacy):
    found = by_arrays(xp, DEMS["flat"], (50, 60), 0, 0, (10.0, -10.0), north_of((50, 60), 77.0, 0.0), 0, legacy)
    inside = np.s_[1:-1, 1:-1]
    np.testing.assert_allclose(found["aspect"][inside], 76 if legacy else np.nan, atol=1e-3)
    assert (found["slope"][inside] == 0).all()
    np.testing.assert_allclose(found["hillshade"][inside], 0.5 + 0.5 * SUN[2], atol=1e-6)


@pytest.mark.parametrize("legacy", [False, True])
def test_rows_of_a_target_are_those_of_the_whole_however_the_work_is_divided(xp, legacy, monkeypatch):
    dem, shape = DEMS["holes"], (44, 51)
    north = north_of(shape, turn=0.3)
    whole = by_arrays(xp, dem, shape, 3, 2, (10.0, -10.0), north, 0, legacy)
    monkeypatch.setattr(array_derivatives, "BLOCK_ROWS", 7)
    for first, stop in [(0, 44), (0, 1), (9, 30), (43, 44)]:
        part = by_arrays(xp, dem, (stop - first, 51), 3 + first, 2, (10.0, -10.0), north, first, legacy)
        for name in NAMES:
            np.testing.assert_array_equal(part[name], whole[name][first:stop])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("names", [(), *((name,) for name in NAMES), ("aspect", "curvature")])
def test_only_what_is_asked_is_computed_and_it_is_the_same(xp, names, legacy):
    dem, shape = DEMS["holes"], (50, 60)
    args = (0, 0, (10.0, -10.0), north_of(shape), 0, legacy)
    together, found = by_arrays(xp, dem, shape, *args), by_arrays(xp, dem, shape, *args, names=names)
    for name in NAMES:
        if name in names:
            np.testing.assert_array_equal(found[name], together[name])
        else:
            assert found[name].size == 0


def test_the_dem_is_not_written_to_and_windows_can_be_filled(xp):
    dem = DEMS["holes"]
    there = xp.asarray(dem.copy())
    room = xp.zeros((4, 60, 70), "float32")
    outputs = [band[5:55, 5:65] for band in room]
    args = arguments(0, 0, (10.0, -10.0), north_of((50, 60)), 0, False)
    array_derivatives.derive(there, *args, *outputs)
    np.testing.assert_array_equal(to_host(there), dem)
    expected = by_arrays(xp, dem, (50, 60), 0, 0, (10.0, -10.0), north_of((50, 60)), 0, False)
    for out, name in zip(outputs, NAMES, strict=True):
        np.testing.assert_array_equal(to_host(out), expected[name])
    room[:, 5:55, 5:65] = 0
    assert not to_host(room).any()


def test_scratch_memory_does_not_grow_with_the_target(monkeypatch):
    monkeypatch.setattr(array_derivatives, "BLOCK_ROWS", 32)

    def scratch(rows, legacy):
        dem = rough((rows, 300))
        outputs = [np.empty((rows, 300), "float32") for _ in NAMES]
        args = arguments(0, 0, (10.0, -10.0), north_of((rows, 300)), 0, legacy)
        tracemalloc.start()
        array_derivatives.derive(dem, *args, *outputs)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / (32 * 300)

    for legacy in (False, True):
        assert scratch(320, legacy) < 1.2 * scratch(32, legacy) + 20
        assert scratch(320, legacy) < 150  # bytes per pixel of a block


@st.composite
def cases(draw):
    size = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    dem = draw(st.sampled_from([0, 300, 3000])) + draw(st.sampled_from([1e-3, 1, 100])) * rng.random(size)
    dem[rng.random(size) < draw(st.sampled_from([0, 0.7]))] = 250
    share = draw(st.one_of(st.sampled_from([0, 1]), st.floats(0, 1)))
    dem[rng.random(size) < share] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    shape = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    pixel = st.one_of(st.sampled_from([0.5, 2.0, 3.125, 10.0, 90.0]), st.floats(0.5, 90))
    steps = draw(pixel), draw(pixel) * draw(st.sampled_from([-1, 1]))
    first_row = draw(st.integers(0, 40))
    north = north_of(
        (first_row + shape[0], shape[1]), draw(st.floats(-180, 180)), draw(st.sampled_from([0.0, 0.01, 1]))
    )
    window = draw(st.integers(-4, 12)), draw(st.integers(-4, 12))
    return dem.astype("float32"), shape, *window, steps, north, first_row, draw(st.booleans())


@settings(max_examples=80, deadline=None)
@given(case=cases())
def test_any_dem_under_any_window_has_the_derivatives_of_the_kernel(case):
    dem, shape, *args = case
    assert_same(by_arrays(np, dem, shape, *args), by_kernel(dem, shape, *args))


@pytest.mark.gpu
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["rough", "plains", "infinite"])
def test_a_gpu_gives_what_the_kernel_gives(name, legacy):
    import cupy

    dem = np.tile(DEMS[name], (25, 15))
    shape = (1200, 800)  # three blocks
    args = (20, 30, (10.0, -10.0), north_of((1500, 800)), 300, legacy)
    assert_same(by_arrays(cupy, dem, shape, *args), by_kernel(dem, shape, *args))
