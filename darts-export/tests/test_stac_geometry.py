import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from darts_export.stac_geometry import to_geographic, united_bbox, valid_hull

GEOD = Geod(ellps="WGS84")

PLACES = {
    "Peel Plateau": ("EPSG:32608", (399960, 7600020)),
    "south": ("EPSG:32760", (300000, 4800000)),
    "antimeridian, zone 1": ("EPSG:32601", (320000, 7500000)),
    "antimeridian, zone 60": ("EPSG:32660", (600000, 7500000)),
    "pole in the middle": ("EPSG:3413", (-54900, 54900)),
    "pole near a corner": ("EPSG:3413", (-1000, 1000)),
    "pole on the edge": ("EPSG:3413", (0, 50000)),
    "beside the pole": ("EPSG:3413", (1000, 50000)),
    "south pole": ("EPSG:3031", (-30000, 80000)),
    "degrees": ("EPSG:4326", (20, 70)),
    "degrees up to 180": ("EPSG:4326", (178.902, 70)),
}


def grid(place, shape=(60, 60)):
    """A tile of 110 km (1.1°) in few pixels."""
    crs, (x, y) = PLACES[place]
    size = 1.098 / 60 if crs == "EPSG:4326" else 109800 / 60
    return crs, Affine(size, 0, x, 0, -size, y), shape


def in_bbox(bbox, longitude, latitude, slack=2e-5):
    west, south, east, north = bbox
    across = (longitude >= west - slack) | (longitude <= east + slack)
    within = (longitude >= west - slack) & (longitude <= east + slack)
    return (across if west > east else within) & (latitude >= south - slack) & (latitude <= north + slack)


@pytest.mark.parametrize("place", PLACES)
def test_a_footprint_holds_its_tile_wherever_it_lies(place):
    crs, transform, shape = grid(place)
    outline = valid_hull(np.ones(shape, bool), transform)
    geometry, bbox = to_geographic(outline, crs)
    assert geometry.is_valid
    west, south, east, north = geometry.bounds
    assert -180 <= west < east <= 180
    assert -90 <= south < north <= 90
    row, column = np.indices(shape) + 0.5
    longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*(transform @ (column, row)))
    assert shapely.contains_xy(geometry.buffer(1e-4), longitude.ravel(), latitude.ravel()).all()
    assert in_bbox(bbox, longitude, latitude).all()
    crossing = "antimeridian" in place
    assert (bbox[0] > bbox[2]) == crossing
    assert (geometry.geom_type == "MultiPolygon") == crossing
    if place in ("pole in the middle", "pole near a corner", "south pole"):
        assert bbox[0] == -180
        assert bbox[2] == 180


@pytest.mark.parametrize("place", [place for place in PLACES if "pole" not in place])
def test_a_footprint_is_as_large_as_its_tile(place):
    crs, transform, shape = grid(place)
    geometry, _ = to_geographic(valid_hull(np.ones(shape, bool), transform), crs)
    dense = shapely.segmentize(geometry, 0.01)
    area = sum(abs(GEOD.geometry_area_perimeter(part)[0]) for part in shapely.get_parts(dense))
    corners = shapely.segmentize(shapely.box(0, 0, *shape), 0.2)
    x, y = transform @ tuple(shapely.get_coordinates(corners).T)
    wanted, _ = GEOD.polygon_area_perimeter(*Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y))
    assert area == pytest.approx(abs(wanted), rel=1e-3)


def test_a_small_tile_has_four_corners():
    geometry, _ = to_geographic(valid_hull(np.ones((70, 90), bool), Affine(10, 0, 5e5, 0, -10, 7.6e6)), "EPSG:32608")
    assert len(geometry.exterior.coords) <= 6
    assert geometry.exterior.is_ccw


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.floats(0, 1))
def test_a_hull_is_that_of_all_valid_pixels(seed, rows, columns, share):
    valid = np.random.default_rng(seed).random((rows, columns)) < share
    hull = valid_hull(valid, Affine(2, 0, 100, 0, -3, 50))
    where = valid if valid.any() else ~valid
    boxes = [shapely.box(100 + 2 * c, 50 - 3 * r - 3, 102 + 2 * c, 50 - 3 * r) for r, c in np.argwhere(where)]
    assert hull.equals(shapely.convex_hull(shapely.union_all(boxes)))


def test_a_place_the_projection_does_not_know_is_none():
    outline = shapely.box(1e12, 1e12, 2e12, 2e12)
    assert to_geographic(outline, "EPSG:3413") is None or to_geographic(outline, "EPSG:3413")[0].is_valid
    assert to_geographic(shapely.box(np.inf, 0, np.inf, 1), "EPSG:32608") is None


longitudes = st.integers(-18, 17).map(lambda tens: 10.0 * tens)
boxes = st.lists(
    st.tuples(longitudes, st.integers(0, 35), st.integers(-80, 0), st.integers(0, 80)), min_size=1, max_size=6
)


@given(boxes)
def test_the_united_box_is_the_smallest_that_holds_all(drawn):
    covered = np.zeros(36, bool)  # tens of degrees, from 180° W
    places = []
    for west, tens, south, north in drawn:
        east = west + 10 * tens
        places.append((west, south, east if east <= 180 else east - 360, north))
        first = round((west + 180) / 10)
        covered[np.arange(first, first + tens) % 36] = True
    west, south, east, north = united_bbox(places)
    assert (south, north) == (min(box[1] for box in places), max(box[3] for box in places))
    assert -180 <= west <= 180
    assert -180 <= east <= 180
    span = east - west if east >= west else east - west + 360
    for box in places:
        for longitude in (box[0], box[2]):
            assert span == 360 or (longitude - west) % 360 <= span
    kept = np.zeros(36, bool)
    first = round((west + 180) / 10)
    kept[np.arange(first, first + round(span / 10)) % 36] = True
    assert (kept | ~covered).all()
    # Brute force: no start and length smaller than this hold all cells and points.
    points = {round((longitude + 180) / 10) % 36 for box in places for longitude in (box[0], box[2])}
    needed = set(np.flatnonzero(covered))

    def holds(start, length):
        cells, ends = {(start + i) % 36 for i in range(length)}, {(start + i) % 36 for i in range(length + 1)}
        return needed <= cells and points <= ends

    smallest = min((length for length in range(37) for start in range(36) if holds(start, length)), default=36)
    assert span == 10 * smallest


def test_without_boxes_it_is_the_earth():
    assert united_bbox([]) == (-180, -90, 180, 90)
