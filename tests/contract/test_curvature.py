"""SPEC 6: curvature = -100 (z_xx + z_yy), in 1/100 m, positive on ridges, not clipped in memory."""

import numpy as np
import pytest

from darts_preprocessing import calculate_curvature


def parabola(on_grid, across, along, dx=10.0, dy=10.0):
    """z = across x² + along y² around the middle of five by five pixels."""
    x = (np.arange(5) - 2)[None, :] * dx
    y = (np.arange(5) - 2)[:, None] * dy
    return on_grid(dem=np.float32(across * x**2 + along * y**2), dx=dx, dy=dy)


@pytest.mark.parametrize(
    ("across", "along", "curvature"),
    [
        (-0.0005, 0, 0.1),
        (0, -0.0005, 0.1),
        (0.0005, 0, -0.1),
        (-0.0005, -0.001, 0.3),
        (0.001, -0.001, 0),
        (-0.1, 0, 20),
        (0, 0.1, -20),
    ],
)
def test_ridges_are_positive_and_hollows_negative(on_grid, across, along, curvature):
    result = calculate_curvature(parabola(on_grid, across, along)).curvature
    assert result.dtype == np.float32
    assert np.allclose(result.values[1:-1, 1:-1], curvature, atol=1e-4)


@pytest.mark.parametrize(("dx", "dy"), [(2, 2), (32, 32), (10, 5), (5, 10)])
def test_pixels_of_any_size_and_shape_give_the_same_curvature(on_grid, dx, dy):
    result = calculate_curvature(parabola(on_grid, -0.0005, -0.001, dx, dy)).curvature
    assert np.allclose(result.values[1:-1, 1:-1], 0.3, atol=1e-4)


def test_a_slope_without_bend_has_none(plane):
    assert np.allclose(calculate_curvature(plane(0.3, -0.4)).curvature.values[1:-1, 1:-1], 0, atol=1e-3)


def test_a_spike_counts_from_the_four_sides_and_not_from_the_corners(on_grid):
    # Spike of 1 m at 10 m pixels: -100 x 2 x (0 - 2 + 0) / 100 = 4 on it, -1 beside it, 0 at its corners.
    dem = np.zeros((5, 5), "float32")
    dem[2, 2] = 1
    curvature = calculate_curvature(on_grid(dem=dem)).curvature.values
    assert np.allclose(curvature[1:-1, 1:-1], [[0, -1, 0], [-1, 4, -1], [0, -1, 0]])


def test_it_is_nan_at_the_frame_and_around_missing_pixels(on_grid):
    dem = np.zeros((7, 7), "float32")
    dem[3, 3] = np.nan
    missing = np.isnan(calculate_curvature(on_grid(dem=dem)).curvature.values)
    expected = np.ones((7, 7), bool)
    expected[1:-1, 1:-1] = False
    expected[2:5, 2:5] = True
    assert np.array_equal(missing, expected)
