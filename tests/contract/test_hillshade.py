"""SPEC 6: hillshade = (1 + cos i) / 2, cos i = cos z cos s + sin z sin s cos(sun azimuth - aspect)."""

import numpy as np
import pytest

from darts_preprocessing import calculate_hillshade

TAN_10 = 0.17632698
"""A slope of 10 degrees."""


def in_the_middle(ds, azimuth, elevation):
    shade = calculate_hillshade(ds, azimuth, elevation).hillshade
    assert shade.dtype == np.float32
    return float(shade[2, 2])


@pytest.mark.parametrize(("elevation", "shade"), [(30, 0.75), (90, 1.0), (0, 0.5), (25, 0.7113)])
def test_flat_ground_depends_on_the_height_of_the_sun_alone(plane, elevation, shade):
    for azimuth in (0, 90, 225):
        assert in_the_middle(plane(0, 0), azimuth, elevation) == pytest.approx(shade, abs=1e-4)


# cos 50 = 0.6428: the slope faces the sun. cos 70 = 0.3420: it turns away. cos 60 cos 10 = 0.4924: sideways.
@pytest.mark.parametrize(
    ("faces", "drop_east", "drop_north", "shade"),
    [
        ("south", 0, -TAN_10, 0.8214),
        ("north", 0, TAN_10, 0.6710),
        ("east", TAN_10, 0, 0.7462),
        ("west", -TAN_10, 0, 0.7462),
    ],
)
def test_a_sun_in_the_south_lights_what_faces_south(plane, faces, drop_east, drop_north, shade):
    assert in_the_middle(plane(drop_east, drop_north), 180, 30) == pytest.approx(shade, abs=1e-4)


@pytest.mark.parametrize(
    ("azimuth", "drop_east", "drop_north"),
    [(0, 0, TAN_10), (90, TAN_10, 0), (180, 0, -TAN_10), (270, -TAN_10, 0)],
)
def test_every_face_is_brightest_under_the_sun_it_looks_at(plane, azimuth, drop_east, drop_north):
    ds = plane(drop_east, drop_north)
    assert in_the_middle(ds, azimuth, 30) == pytest.approx(0.8214, abs=1e-4)
    assert in_the_middle(ds, (azimuth + 180) % 360, 30) == pytest.approx(0.6710, abs=1e-4)
    assert in_the_middle(ds, (azimuth + 90) % 360, 30) == pytest.approx(0.7462, abs=1e-4)


@pytest.mark.parametrize("pixel", [2.0, 10.0, 32.0])
def test_the_pixel_size_does_not_change_a_slope(plane, pixel):
    assert in_the_middle(plane(0, -TAN_10, dx=pixel, dy=pixel), 180, 30) == pytest.approx(0.8214, abs=1e-4)


def test_pixels_that_are_not_square_do_not_change_a_slope(plane):
    assert in_the_middle(plane(0, -TAN_10, dx=10, dy=5), 180, 30) == pytest.approx(0.8214, abs=1e-4)
    assert in_the_middle(plane(-TAN_10, 0, dx=10, dy=5), 270, 30) == pytest.approx(0.8214, abs=1e-4)


def test_the_sun_stands_by_true_north_and_not_by_the_grid(plane):
    # 132 W, 70 N: grid north lies 2.82 degrees east of true north, so this face looks to 2.82 degrees.
    # cos 60 cos 10 + sin 60 sin 10 cos(90 - 2.82) = 0.4924 + 0.1504 x 0.0492 = 0.4998
    ds = plane(0, TAN_10, left=614_449, top=7_768_715)
    assert in_the_middle(ds, 90, 30) == pytest.approx(0.7499, abs=1e-4)
    assert in_the_middle(ds, 2.82, 30) == pytest.approx(0.8214, abs=1e-4)


def test_a_low_sun_leaves_a_steep_far_side_dark_but_never_below_0(plane):
    # cos i = cos(90 + 60) would be -0.866 for a 60 degree slope turned away from a sun on the horizon.
    assert in_the_middle(plane(0, 1.7320508), 180, 0) == pytest.approx(0.067, abs=1e-3)


def test_missing_pixels_of_the_stencil_make_it_nan(plane):
    ds = plane(0, TAN_10, size=7)
    ds["dem"] = ds.dem.copy()
    ds.dem[3, 3] = np.nan
    missing = np.isnan(calculate_hillshade(ds, 180, 30).hillshade.values)
    assert missing[2:5, 2:5].all()
    missing[2:5, 2:5] = False
    assert not missing[1:-1, 1:-1].any()
