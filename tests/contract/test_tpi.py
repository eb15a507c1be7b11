"""SPEC 6: TPI = elevation minus the mean over a disk, its centre included, or an annulus; valid pixels only."""

import numpy as np
import pytest

from darts_preprocessing import calculate_topographic_position_index as calculate_tpi

NAN = np.nan


def tpi(ds, outer, inner=0):
    result = calculate_tpi(ds, outer, inner).tpi
    assert result.dtype == np.float32
    assert result.odc.geobox == ds.odc.geobox
    return result.values


def spike(on_grid, size=31, **options):
    dem = np.zeros((size, size), "float32")
    dem[size // 2, size // 2] = 1
    return on_grid(dem=dem, **options)


def test_the_disk_of_100_m_at_10_m_has_317_pixels_its_centre_among_them(on_grid):
    values = tpi(spike(on_grid, size=61), 100)
    assert values[30, 30] == pytest.approx(1 - 1 / 317, abs=1e-6)
    assert values[30, 20] == pytest.approx(-1 / 317, abs=1e-6)  # 100 m away: on the disk
    assert values[24, 22] == pytest.approx(-1 / 317, abs=1e-6)  # 60 m and 80 m: 100 m as well
    assert values[30, 19] == pytest.approx(0, abs=1e-6)  # 110 m away
    assert values[23, 22] == pytest.approx(0, abs=1e-6)  # 70 m and 80 m: 106 m
    assert np.sum(np.abs(values) > 1e-4) == 317


def test_a_radius_can_be_given_in_pixels(on_grid):
    ds = spike(on_grid, dx=2, dy=2)
    assert np.allclose(tpi(ds, "10px"), tpi(ds, 20), atol=1e-6)
    assert tpi(ds, "10px")[15, 15] == pytest.approx(1 - 1 / 317, abs=1e-6)
    assert np.allclose(tpi(ds, "20m"), tpi(ds, 20), atol=1e-6)


def test_the_smallest_disk_by_hand(on_grid):
    # Radius of one pixel: the pixel and its four sides. At edges and gaps those that are there count.
    dem = np.float32([[5, 1, 3], [2, 5, NAN], [4, 4, 9]])
    expected = [
        [5 - (5 + 1 + 2) / 3, 1 - (1 + 5 + 3 + 5) / 4, 3 - (3 + 1) / 2],
        [2 - (2 + 5 + 4 + 5) / 4, 5 - (5 + 1 + 2 + 4) / 4, NAN],
        [4 - (4 + 2 + 4) / 3, 4 - (4 + 5 + 4 + 9) / 4, 9 - (9 + 4) / 2],
    ]
    assert np.allclose(tpi(on_grid(dem=dem), 10), expected, atol=1e-5, equal_nan=True)


def test_an_annulus_leaves_its_middle_out(on_grid):
    # 15 m to 20 m at 10 m: the four pixels two steps away.
    values = tpi(spike(on_grid, size=9), 20, 15)
    assert values[4, 4] == pytest.approx(1, abs=1e-6)
    assert values[4, 6] == pytest.approx(-1 / 4, abs=1e-6)
    assert values[4, 5] == pytest.approx(0, abs=1e-6)
    assert values[5, 5] == pytest.approx(0, abs=1e-6)
    # 5 m to 10 m: the four sides without the centre.
    assert tpi(spike(on_grid, size=9), 10, 5)[4, 4] == pytest.approx(1, abs=1e-6)


def test_a_gap_costs_its_own_pixels_only(on_grid):
    dem = np.full((40, 40), 2500, "float32")
    dem[10:15, 10:15] = NAN
    values = tpi(on_grid(dem=dem), 100)
    assert np.array_equal(np.isnan(values), np.isnan(dem))
    assert np.nanmax(np.abs(values)) < 1e-3


@pytest.mark.parametrize("height", [0, 2500, -100])
def test_flat_ground_is_0_up_to_the_edge(on_grid, height):
    values = tpi(on_grid(dem=np.full((25, 30), height, "float32")), 100)
    assert np.abs(values).max() < 1e-3


def test_a_disk_is_round_on_the_ground_when_pixels_are_not_square(on_grid):
    # Radius 10 m at 10 m by 5 m: one pixel to the sides, two up and down, none of the corners (11.2 m): 7 pixels.
    values = tpi(spike(on_grid, size=9, dx=10, dy=5), 10)
    assert np.sum(np.abs(values) > 1e-4) == 7
    assert values[6, 4] == pytest.approx(-1 / 7, abs=1e-6)


def test_without_any_valid_pixel_all_is_nan(on_grid):
    assert np.isnan(tpi(on_grid(dem=np.full((4, 4), NAN, "float32")), 100)).all()


def test_one_pixel_alone_is_at_its_own_mean(on_grid):
    assert tpi(on_grid(dem=np.float32([[123]])), 100).tolist() == [[0]]
