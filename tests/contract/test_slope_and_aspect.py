"""SPEC 6: slope after Horn in degrees; aspect in degrees clockwise from true north, NaN on flat ground."""

import numpy as np
import pytest

from darts_preprocessing import calculate_aspect, calculate_slope

TAN_10 = 0.17632698


def middle(ds, name):
    values = ds[name].values
    assert values.dtype == np.float32
    return float(values[tuple(side // 2 for side in values.shape)])


@pytest.mark.parametrize(
    ("drop_east", "drop_north", "degrees"),
    [(0, 0, 0), (TAN_10, 0, 10), (0, -TAN_10, 10), (1, 0, 45), (0.3, 0.4, 26.5651), (-3, 4, 78.6901)],
)
def test_a_plane_has_the_slope_of_its_steepest_line(plane, drop_east, drop_north, degrees):
    assert middle(calculate_slope(plane(drop_east, drop_north)), "slope") == pytest.approx(degrees, abs=1e-3)


def test_pixels_that_are_not_square_are_measured_by_their_own_sides(plane):
    assert middle(calculate_slope(plane(TAN_10, 0, dx=10, dy=5)), "slope") == pytest.approx(10, abs=1e-3)
    assert middle(calculate_slope(plane(0, TAN_10, dx=2, dy=32)), "slope") == pytest.approx(10, abs=1e-3)


def test_horn_counts_the_corners_once_and_the_sides_twice(on_grid):
    # Corner: dz/dx = dz/dy = 8 / (8 x 10) = 0.1; atan(0.1414) = 8.0495.
    corner = on_grid(dem=np.float32([[0, 0, 0], [0, 0, 0], [0, 0, 8]]))
    assert middle(calculate_slope(corner), "slope") == pytest.approx(8.0495, abs=1e-3)
    # Side: dz/dx = 2 x 8 / (8 x 10) = 0.2; atan(0.2) = 11.3099.
    side = on_grid(dem=np.float32([[0, 0, 0], [0, 0, 8], [0, 0, 0]]))
    assert middle(calculate_slope(side), "slope") == pytest.approx(11.3099, abs=1e-3)
    # The centre has no weight at all.
    spike = on_grid(dem=np.float32([[0, 0, 0], [0, 8, 0], [0, 0, 0]]))
    assert middle(calculate_slope(spike), "slope") == 0


def test_the_aspect_of_a_corner_follows_horn(on_grid):
    # The ground rises to the south-east, so it looks to the north-west.
    corner = on_grid(left=499_985, dem=np.float32([[0, 0, 0], [0, 0, 0], [0, 0, 8]]))
    assert middle(calculate_aspect(corner), "aspect") == pytest.approx(315, abs=1e-2)
    # East side up by 8, south-east corner up by 8: dz/dx = 24/80, dz/dy (south) = 8/80; looks to 270 + 18.435.
    both = on_grid(left=499_985, dem=np.float32([[0, 0, 0], [0, 0, 8], [0, 0, 8]]))
    assert middle(calculate_aspect(both), "aspect") == pytest.approx(288.435, abs=1e-2)


@pytest.mark.parametrize(
    ("drop_east", "drop_north", "degrees"),
    [
        (0, 1, 0), (1, 1, 45), (1, 0, 90), (1, -1, 135), (0, -1, 180), (-1, -1, 225), (-1, 0, 270), (-1, 1, 315),
        (0.5, 0.8660254, 30),
    ],
)  # fmt: skip
def test_on_the_central_meridian_aspect_is_the_compass_direction(plane, drop_east, drop_north, degrees):
    aspect = middle(calculate_aspect(plane(0.1 * drop_east, 0.1 * drop_north)), "aspect")
    assert (aspect - degrees + 180) % 360 - 180 == pytest.approx(0, abs=1e-2)
    assert 0 <= aspect <= 360


# Meridian convergence at the middle pixel; positive where grid north lies east of true north.
@pytest.mark.parametrize(
    ("place", "crs", "x", "y", "convergence"),
    [
        ("132 W 70 N", "EPSG:32608", 614_473.7, 7_768_690.1, 2.82),
        ("138 W 70 N", "EPSG:32608", 385_526.3, 7_768_690.1, -2.82),
        ("132 W 70 S", "EPSG:32708", 614_473.7, 2_231_309.9, -2.82),
        ("180, 68 N, west of zone 1's meridian", "EPSG:32601", 374_626.8, 7_545_908.4, -2.78),
        ("45 W in the polar grid", "EPSG:3413", 0, -2_200_000, 0),
        ("135 W in the polar grid", "EPSG:3413", -2_200_000, 0, -90),
        ("45 E in the polar grid", "EPSG:3413", 2_200_000, 0, 90),
    ],
)
@pytest.mark.parametrize(("drop_east", "drop_north", "grid_azimuth"), [(0, 0.1, 0), (0.1, 0, 90), (-0.1, 0, 270)])
def test_away_from_it_the_meridian_convergence_is_added(
    plane, place, crs, x, y, convergence, drop_east, drop_north, grid_azimuth
):
    ds = plane(drop_east, drop_north, crs=crs, left=x - 25, top=y + 25)
    aspect = middle(calculate_aspect(ds), "aspect")
    assert (aspect - grid_azimuth - convergence + 180) % 360 - 180 == pytest.approx(0, abs=6e-3)
    assert 0 <= aspect <= 360


def test_flat_ground_has_a_slope_of_0_and_no_aspect(plane):
    flat = plane(0, 0)
    assert (calculate_slope(flat).slope.values[1:-1, 1:-1] == 0).all()
    assert np.isnan(calculate_aspect(flat).aspect.values).all()


@pytest.mark.parametrize(("calculate", "name"), [(calculate_slope, "slope"), (calculate_aspect, "aspect")])
def test_missing_pixels_of_the_stencil_make_them_nan(plane, calculate, name):
    ds = plane(0.1, 0.2, size=7)
    dem = ds.dem.values.copy()
    dem[3, 3] = np.nan
    before = ds.copy(deep=True)
    missing = np.isnan(calculate(ds.assign(dem=(("y", "x"), dem)))[name].values)
    expected = np.ones((7, 7), bool)  # the frame has no neighbours outside
    expected[1:-1, 1:-1] = False
    expected[2:5, 2:5] = True
    assert np.array_equal(missing, expected)
    assert ds.identical(before)


@pytest.mark.parametrize(("calculate", "name"), [(calculate_slope, "slope"), (calculate_aspect, "aspect")])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2)])
def test_a_grid_smaller_than_the_stencil_is_nan(on_grid, calculate, name, shape):
    ds = calculate(on_grid(dem=np.zeros(shape, "float32")))
    assert ds[name].shape == shape
    assert np.isnan(ds[name].values).all()
