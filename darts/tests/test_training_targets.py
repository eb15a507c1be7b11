"""Targets on the grid of a scene, against points in polygons one by one."""

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio import Affine

from darts.training.targets import Agreement, area_window, make_target
from darts_utils.errors import GridMismatchError

GRIDS = {
    "north": GeoBox((40, 50), Affine(10, 0, 500_000, 0, -10, 7_700_000), "EPSG:32608"),
    "far from the meridian": GeoBox((40, 50), Affine(10, 0, 300_000, 0, -10, 8_200_000), "EPSG:32608"),
    "south": GeoBox((40, 50), Affine(10, 0, 500_000, 0, -10, 2_300_000), "EPSG:32718"),
    "antimeridian": GeoBox((40, 50), Affine(10, 0, 377_090, 0, -10, 7_600_000), "EPSG:32601"),
    "polar": GeoBox((40, 50), Affine(10, 0, -2_000_000, 0, -10, 400_000), "EPSG:3413"),
}
CERTAIN_DEG = 4e-6
"""Long edges are bent to 0.1 m: centres nearer than some 0.4 m may go either way."""


def lonlat(grid: GeoBox, cols: object, rows: object) -> tuple[np.ndarray, np.ndarray]:
    x, y = grid.affine * (np.asarray(cols, float), np.asarray(rows, float))
    return Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(x, y)


def centres(grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    cols, rows = np.meshgrid(np.arange(grid.shape.x) + 0.5, np.arange(grid.shape.y) + 0.5)
    return lonlat(grid, cols, rows)


def polygon(grid: GeoBox, corners: list[tuple[float, float]]) -> shapely.Geometry:
    """Return a polygon by (column, row), in degrees; split where it crosses the antimeridian."""
    lon, lat = lonlat(grid, *zip(*corners, strict=True))
    if np.ptp(lon) > 180:
        around = shapely.Polygon(np.column_stack([lon % 360, lat]))
        east = around.intersection(shapely.box(0, -90, 180, 90))
        west = around.intersection(shapely.box(180, -90, 360, 90))
        return shapely.union_all([east, shapely.transform(west, lambda xy: xy - [360, 0])])
    return shapely.Polygon(np.column_stack([lon, lat]))


def labels(shapes: list, values: object = 1, **columns: object) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame({"label": values, **columns}, geometry=shapes, index=range(len(shapes)), crs="EPSG:4326")


def inside(grid: GeoBox, shape: shapely.Geometry) -> np.ndarray:
    """Return which centres lie in a polygon, one by one, in degrees."""
    return shapely.contains(shape, shapely.points(*centres(grid)))


def clear(grid: GeoBox) -> np.ndarray:
    return np.full(grid.shape.yx, 2, "uint8")


CORNERS = [(5.3, 4.1), (30.7, 8.2), (44.9, 33.3), (20.2, 36.6), (12.4, 18.8)]


@pytest.mark.parametrize("name", GRIDS)
def test_pixels_are_slumps_where_their_centre_lies_in_a_label(name: str) -> None:
    grid = GRIDS[name]
    shape = polygon(grid, CORNERS)
    target = make_target(grid, labels([shape]), None, clear(grid))
    assert target.dtype == "uint8"
    assert 300 < (target == 1).sum() < 1500
    np.testing.assert_array_equal(target, inside(grid, shape))


def test_the_antimeridian_grid_lies_on_it() -> None:
    lon, _ = centres(GRIDS["antimeridian"])
    assert lon.max() > 179.9
    assert lon.min() < -179.9


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(list(GRIDS)),
    corners=st.lists(st.tuples(st.floats(-10, 60), st.floats(-10, 50)), min_size=3, max_size=6, unique=True),
    holes=st.booleans(),
)
def test_any_polygon_gives_what_points_in_it_give(name: str, corners: list, holes: bool) -> None:
    grid = GRIDS[name]
    # Its hull: an outline that crosses itself has no one inside.
    hull = shapely.MultiPoint(corners).convex_hull
    if hull.geom_type != "Polygon" or hull.area < 1e-3:
        return
    shape = polygon(grid, list(hull.exterior.coords))
    if holes:
        middle = hull.centroid
        shape = shape.difference(polygon(grid, list(middle.buffer(1.7).exterior.coords)))
    target = make_target(grid, labels([shape]), None, clear(grid))
    lon, lat = centres(grid)
    points = shapely.points(lon, lat)
    certain = shapely.distance(shape.boundary, points) > CERTAIN_DEG / 4  # edges are shorter here
    np.testing.assert_array_equal(target[certain], shapely.contains(shape, points)[certain])


@pytest.mark.parametrize("name", GRIDS)
def test_outside_the_footprint_is_ignored(name: str) -> None:
    grid = GRIDS[name]
    slump = polygon(grid, CORNERS)
    footprint = polygon(grid, [(-20, -20), (25.5, -20), (33.5, 70), (-20, 70)])
    target = make_target(grid, labels([slump]), footprint, clear(grid))
    expected = np.where(inside(grid, footprint), inside(grid, slump), 2)
    certain = shapely.distance(footprint.boundary, shapely.points(*centres(grid))) > CERTAIN_DEG
    np.testing.assert_array_equal(target[certain], expected[certain])
    assert certain.mean() > 0.99
    assert set(np.unique(target)) == {0, 1, 2}


def test_a_long_edge_of_a_footprint_runs_straight_in_degrees() -> None:
    grid = GeoBox((300, 2500), Affine(10, 0, 480_000, 0, -10, 7_801_500), "EPSG:32608")
    lon, lat = centres(grid)
    (west, east), middle = (lon.min() - 0.1, lon.max() + 0.1), lat[150, 0]
    footprint = shapely.box(west, middle, east, 80)
    target = make_target(grid, labels([]), footprint, clear(grid))
    certain = np.abs(lat - middle) > CERTAIN_DEG
    np.testing.assert_array_equal((target == 0)[certain], (lat > middle)[certain])
    assert np.ptp(np.argmax(target == 2, axis=0)) > 3  # the parallel is bent in UTM


@pytest.mark.parametrize(("lowest", "ignored"), [(0, []), (1, [0]), (2, [0, 1])])
def test_low_quality_is_ignored(lowest: int, ignored: list[int]) -> None:
    grid = GRIDS["north"]
    quality = np.random.default_rng(1).integers(0, 3, grid.shape.yx).astype("uint8")
    slump = polygon(grid, CORNERS)
    target = make_target(grid, labels([slump]), None, quality, quality_level=lowest)
    np.testing.assert_array_equal(target, np.where(np.isin(quality, ignored), 2, inside(grid, slump)))


def test_areas_to_ignore_beat_slumps_and_background_labels_change_nothing() -> None:
    grid = GRIDS["north"]
    slump = polygon(grid, CORNERS)
    doubt = polygon(grid, [(20, 10), (60, 10), (60, 25), (20, 25)])
    stable = polygon(grid, [(0, 0), (50, 0), (50, 40), (0, 40)])
    target = make_target(grid, labels([slump, doubt, stable], [1, 2, 0]), None, clear(grid))
    np.testing.assert_array_equal(target, np.where(inside(grid, doubt), 2, inside(grid, slump)))


def test_a_ring_around_slumps_is_ignored() -> None:
    grid = GRIDS["far from the meridian"]
    shapes = [polygon(grid, [(10.2, 10.3), (15.1, 10.2), (15.4, 15.3), (10.1, 15.2)]), polygon(grid, CORNERS[2:])]
    target = make_target(grid, labels(shapes), None, clear(grid), label_buffer_m=35)
    to_utm = Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True)
    slumps = shapely.union_all([shapely.transform(shape, to_utm.transform, interleaved=False) for shape in shapes])
    cols, rows = np.meshgrid(np.arange(50) + 0.5, np.arange(40) + 0.5)
    distance = shapely.distance(slumps, shapely.points(*(grid.affine * (cols, rows))))
    certain = np.abs(distance - 35) > 0.7  # the buffer's round corners have sixteen sides to the half circle
    expected = np.where(distance == 0, 1, np.where(distance < 35, 2, 0))
    np.testing.assert_array_equal(target[certain], expected[certain])
    assert (target[~certain] != 1).all()
    assert (target == 2).sum() > 100


def test_votes_of_annotators_are_counted_person_by_person() -> None:
    grid = GRIDS["north"]
    rng = np.random.default_rng(3)
    shapes, who = [], []
    for person in range(5):
        for _ in range(3):  # who draws a place twice has one vote
            corners = rng.uniform([0, 0], [50, 40], (3, 2))
            shapes.append(polygon(grid, [tuple(corner) for corner in corners]))
            who.append(person)
    votes = sum(
        np.any([inside(grid, shape) for shape, owner in zip(shapes, who, strict=True) if owner == person], axis=0)
        for person in range(5)
    )
    assert votes.max() >= 3
    for least, disputed in ((1, None), (2, None), (3, 1), (3, 2), (5, None)):
        target = make_target(
            grid, labels(shapes, 1, annotator=who), None, clear(grid), agreement=Agreement(least, disputed)
        )
        doubtful = (votes >= disputed) & (votes < least) if disputed else np.zeros(votes.shape, bool)
        np.testing.assert_array_equal(target, np.where(doubtful, 2, votes >= least))


def test_touching_is_enough_where_one_says_so() -> None:
    grid = GRIDS["north"]
    speck = polygon(grid, [(10.1, 10.1), (10.3, 10.1), (10.3, 10.3), (10.1, 10.3)])
    assert make_target(grid, labels([speck]), None, clear(grid)).sum() == 0
    touched = make_target(grid, labels([speck]), None, clear(grid), all_touched=True)
    assert np.argwhere(touched == 1).tolist() == [[10, 10]]


def test_labels_elsewhere_on_earth_do_no_harm() -> None:
    grid = GRIDS["north"]
    elsewhere = [shapely.box(x, y, x + 1, y + 1) for x in (-179, -100, -46, 0, 45, 134, 178) for y in (-89, -69, 0, 68)]
    assert make_target(grid, labels(elsewhere), None, clear(grid)).sum() == 0
    assert make_target(grid, labels([]), shapely.box(0, 0, 1, 1), clear(grid)).min() == 2


def test_an_outline_that_crosses_itself_is_repaired() -> None:
    grid = GRIDS["north"]
    bow = polygon(grid, [(5, 5), (25, 25), (25, 5), (5, 25)])
    assert not bow.is_valid
    target = make_target(grid, labels([bow]), None, clear(grid))
    assert target[15, 20] == 1
    assert target[10, 15] == 0
    assert 150 < target.sum() < 250


def test_quality_of_another_shape_is_refused() -> None:
    with pytest.raises(GridMismatchError, match="quality"):
        make_target(GRIDS["north"], labels([]), None, np.zeros((3, 3)))


@pytest.mark.parametrize("name", GRIDS)
def test_the_window_of_an_area_holds_all_its_pixels_and_no_more_lines_than_it_touches(name: str) -> None:
    grid = GRIDS[name]
    corners = [(7.4, 6.6), (31.5, 6.6), (31.5, 22.2), (7.4, 22.2)]
    window = area_window(grid, polygon(grid, corners))
    assert window == (slice(6, 23), slice(7, 32))
    beyond = area_window(grid, polygon(grid, [(-9, -9), (60, -9), (60, 12.5), (-9, 12.5)]))
    assert beyond == (slice(0, 13), slice(0, 50))
    assert area_window(grid, polygon(grid, [(60, 60), (70, 60), (70, 70)])) is None
    assert area_window(grid, shapely.box(10, 10, 11, 11)) is None


def test_the_window_of_whole_pixels_takes_no_line_more() -> None:
    grid = GRIDS["far from the meridian"]
    part = grid[3:20, 5:30]
    outline = polygon(grid, [(5, 3), *((5 + k, 3) for k in range(1, 25)), (30, 3), (30, 20), (5, 20)])
    assert area_window(grid, outline) == (slice(3, 20), slice(5, 30))
    assert grid[area_window(grid, outline)] == part
