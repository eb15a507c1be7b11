"""The map of a report: its projection, its net, and tiles wherever they lie."""

import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Proj

from darts.report.tile_map import WIDTH, View, draw_map, look_at

from .report_samples import Corners, square


@given(
    st.floats(-180, 180), st.floats(-90, 90),
    st.lists(st.tuples(st.floats(-180, 180), st.floats(-90, 90)), min_size=1, max_size=5),
)  # fmt: skip
def test_the_projection_is_that_of_proj(lon: float, lat: float, places: list[tuple[float, float]]) -> None:
    view = View(lon, lat)
    proj = Proj(f"+proj=laea +lat_0={lat:.17f} +lon_0={lon:.17f} +R=1")
    degrees = np.array(places).T
    x, y = view.project(*degrees)
    wanted_x, wanted_y = proj(*degrees)
    near = np.hypot(x, y) < 1.99  # the antipode is no point
    assert np.allclose(x[near], wanted_x[near], atol=1e-6)
    assert np.allclose(y[near], wanted_y[near], atol=1e-6)
    assert (np.hypot(x, y) <= 2 + 1e-6).all()
    back_lon, back_lat = view.unproject(x[near], y[near])
    again_x, again_y = view.project(back_lon + lon, back_lat)
    assert np.allclose(again_x, x[near], atol=1e-5)
    assert np.allclose(again_y, y[near], atol=1e-5)


def outlines(content: str) -> list[np.ndarray]:
    paths = re.findall(r'<path d="M([-\d. ]+)Z"/>', content)
    return [np.array(path.split(), float).reshape(-1, 2) for path in paths]


@pytest.mark.parametrize(
    ("middle", "spread"),
    [((180, 69), 2), ((-179.99, -40), 1), ((0, 90), 3), ((77, -90), 3), ((-150, 70), 4), ((0, 0), 1), ((25, 88), 1.5)],
)
def test_squares_stay_squares_wherever_they_lie(middle: tuple[float, float], spread: float) -> None:
    rnd = random.Random(1)
    geod = Geod(ellps="WGS84")
    tiles = []
    for _ in range(30):
        lon, lat, _ = geod.fwd(*middle, rnd.uniform(0, 360), rnd.uniform(0, spread) * 111e3)
        tiles.append(("done", square(lon, lat, 20)))
    drawn = draw_map(tiles, ("done",))
    assert drawn is not None
    assert drawn.shown == tuple(range(30))
    corners = np.array(outlines(drawn.content))
    assert corners.min() >= 0
    assert (corners.max(axis=(0, 1)) <= (WIDTH, drawn.height)).all()
    view = look_at([corner for _, corner in tiles])
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1) / view.scale * 6371
    assert sides == pytest.approx(np.full(sides.shape, 20.0), rel=0.02)


@pytest.mark.parametrize(
    "tiles",
    [
        [square(10, 70, 0.001)],
        [square(10, 70)] * 3,
        [square(lon, lat, 50) for lon, lat in ((0, 90), (0, -90), (0, 0), (180, 0), (90, 0), (-90, 0))],
        [square(0, 0), square(180, 0)],
        [square(lon, 60) for lon in range(-180, 180, 5)],
        [((0.0, 90.0), (90.0, 90.0), (180.0, 90.0), (-90.0, 90.0))],
        [((179.0, 70.0), (541.0, 70.0), (541.0, 69.0), (-181.0, 69.0))],
    ],
)  # fmt: skip
def test_any_places_give_a_map_with_a_net(tiles: list[Corners]) -> None:
    drawn = draw_map([("done", corners) for corners in tiles], ("done",))
    assert drawn is not None
    numbers = [float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", re.sub(r"<text.*?</text>", "", drawn.content))]
    assert np.isfinite(numbers).all()
    assert "nan" not in drawn.content
    assert len(outlines(drawn.content)) == len(tiles)
    assert 2 <= drawn.content.split("tiles")[0].count("<path") <= 40
    labels = re.findall(r"<text [^>]*>([^<]*)</text>", drawn.content)
    assert any(label.endswith("m") for label in labels), "a scale"
    assert any("°" in label for label in labels)


def test_labels_stand_at_their_lines() -> None:
    drawn = draw_map([("done", square(-150, 70, 300)), ("done", square(-156, 68, 300))], ("done",))
    assert drawn is not None
    view = look_at([square(-150, 70, 300), square(-156, 68, 300)])
    labels = re.findall(r'<text x="(\d+)" y="(\d+)" text-anchor="\w+">(\d+)° ([NW])</text>', drawn.content)
    assert {kind for *_, kind in labels} == {"N", "W"}
    for x, y, degrees, kind in labels:
        lon, lat = view.unproject(
            np.array([view.left + float(x) / view.scale]), np.array([view.top - (float(y) + 4) / view.scale])
        )
        found = lat[0] if kind == "N" else -(lon[0] + view.longitude)
        assert found == pytest.approx(float(degrees), abs=0.35)


def test_failed_tiles_lie_above_the_others_and_impossible_places_are_left_out() -> None:
    here = square(10, 70)
    tiles = [("failed", here), ("done", ()), ("done", here), ("done", ((float("nan"), 0.0),) * 4),
             ("done", ((0.0, 91.0),) * 4), ("left", here)]  # fmt: skip
    drawn = draw_map(tiles, ("done", "left", "failed"))
    assert drawn is not None
    assert drawn.shown == (2, 5, 0)
    assert draw_map(tiles[3:5], ("done", "left", "failed")) is None
