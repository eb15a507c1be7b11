"""The map of the dataset: its view, its graticule, and what it shows of few and of no slumps."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from darts_export.dataset.graticule import draw_graticule
from darts_export.dataset.map_view import LEAST_WIDTH_M, SIDE_PX, View
from darts_export.dataset.planes import NORTH, SOUTH

PLACES = [
    (NORTH, (-135, -134.8), (68.4, 68.6)),
    (NORTH, (179.5, -179.5), (66, 71)),
    (NORTH, (-180, 180), (62, 80)),
    (NORTH, (10, 30), (77, 81)),
    (NORTH, (60, 60.001), (89.5, 89.5)),
    (SOUTH, (-58, -60), (-62, -64)),
    (NORTH, (25, 25), (70, 70)),
]


def view_of(plane, longitude, latitude):
    turns = np.linspace(0, 1, 25)
    east = longitude[0] + turns * ((longitude[1] - longitude[0]) % 360 or (360 if longitude[0] != longitude[1] else 0))
    here = np.stack([east, latitude[0] + (turns * 7 % 1) * (latitude[1] - latitude[0])], axis=1)
    return View.around(plane, np.empty((0, 2)), *here.T), here


@pytest.mark.parametrize(("plane", "longitude", "latitude"), PLACES)
def test_labels_cover_neither_each_other_nor_slumps(plane, longitude, latitude):
    view, here = view_of(plane, longitude, latitude)
    dots = np.stack(view.pixels(*here.T), axis=1)
    assert ((dots >= 0) & (dots <= SIDE_PX)).all()
    canvas = Image.new("RGB", (SIDE_PX, SIDE_PX))
    boxes = draw_graticule(ImageDraw.Draw(canvas), view, dots)
    assert len(boxes) >= 4
    for one, other in combinations(boxes, 2):
        assert one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= SIDE_PX
        assert 0 <= top < bottom <= SIDE_PX
        assert not ((dots > (left, top)) & (dots < (right, bottom))).all(axis=1).any()


@pytest.mark.parametrize(("plane", "longitude", "latitude"), PLACES)
def test_pixels_and_places_are_each_others_inverse(plane, longitude, latitude):
    view, here = view_of(plane, longitude, latitude)
    lon, lat = view.places(*view.pixels(*here.T))
    np.testing.assert_allclose(lat, here[:, 1], atol=1e-6)
    np.testing.assert_allclose((lon - here[:, 0] + 180) % 360 - 180, 0, atol=1e-6)
    assert view.width_m >= LEAST_WIDTH_M


@pytest.mark.parametrize(("plane", "latitude"), [(NORTH, 70.0), (SOUTH, -65.0)])
def test_north_is_up_and_east_is_right(plane, latitude):
    for longitude in (-170.0, -45.0, 0.0, 100.0, 179.9):
        view, _ = view_of(plane, (longitude, longitude), (latitude, latitude))
        columns, rows = view.pixels(
            np.array([longitude, longitude, longitude + 0.1]), latitude + np.array([0, 0.05, 0])
        )
        assert columns[:2] == pytest.approx(SIDE_PX / 2)
        assert rows[1] < rows[0]
        assert columns[2] > columns[0]
        assert rows[2] == pytest.approx(rows[0], abs=5)
