"""Where a tile lies in longitude and latitude, also across the antimeridian and around a pole."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer
from shapely.geometry.polygon import orient

from darts_export.rasters import transformed

BBox = tuple[float, float, float, float]
"""West, south, east, north in degrees; west > east across the antimeridian."""

DECIMALS = 6
"""Of degrees in what is written: 0.1 m."""

WIDEST_TURN = 5.0
MOST_HALVINGS = 12
"""Edges beside a pole are halved until their ends differ by fewer degrees of longitude; this often, as one through the
pole always turns by 180."""

PARTS_PER_SIDE = 16
"""Longer edges are divided before they go to longitude and latitude: a side of 110 km at 72° N bends by 0.7 km there,
its parts by 3 m."""


def valid_hull(valid: np.ndarray, transform: Any) -> Any:
    """Return the convex hull of the valid pixels (bool, rows × columns) in map coordinates, of all where none is valid.

    A hull has few points and holds every valid pixel; the exact outline is in the product `extent`.
    """
    rows, columns = valid.shape
    lines = np.flatnonzero(valid.any(axis=1))
    if len(lines):
        first = valid[lines].argmax(axis=1)
        last = columns - valid[lines, ::-1].argmax(axis=1)
        corners: list[tuple[Any, Any]] = [
            (x, y + side) for side in (0, 1) for ends in (first, last) for x, y in zip(ends, lines, strict=True)
        ]
    else:
        corners = [(0, 0), (columns, 0), (columns, rows), (0, rows)]
    x, y = np.array(corners, "float64").T
    return shapely.convex_hull(shapely.multipoints(transformed(transform, x, y)))


def to_geographic(outline: Any, crs: Any) -> tuple[Any, BBox] | None:
    """Return a polygon without holes as one in EPSG:4326, and its bbox; None where the CRS has no such place.

    As RFC 7946 asks (3.1.9, 5.2), what crosses the antimeridian is a multipolygon cut there, with west > east in its
    bbox; what holds a pole reaches up to it and goes round the Earth.
    """
    longitude, latitude = _around(outline, Transformer.from_crs(str(crs), "EPSG:4326", always_xy=True))
    if len(longitude) < 3:
        return None
    # Laid out without a jump; a ring around a pole then ends a turn away from where it began.
    unrolled = np.unwrap(np.append(longitude, longitude[0]), period=360)
    turn = round((unrolled[-1] - unrolled[0]) / 360)
    ring = list(zip(unrolled, np.append(latitude, latitude[0]), strict=True))
    if turn:
        pole = 90.0 if latitude.mean() > 0 else -90.0
        ring += [(unrolled[-1], pole), (unrolled[0], pole)]
    whole = shapely.make_valid(shapely.Polygon(ring))
    west, south, east, north = map(float, whole.bounds)
    turns = range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360))
    # What goes round the pole ends where it began, so that parts of two turns may meet.
    geometry = shapely.union_all([_in_turn(whole, number) for number in turns])
    # Simplified by less than rounding changes anyway, so that a small tile has four corners.
    polygons = [orient(part) for part in shapely.get_parts(geometry.simplify(10.0**-DECIMALS / 2)) if part.area > 0]
    if not polygons:
        return None
    geometry = polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
    if turn or east - west >= 360:
        return geometry, (-180.0, south, 180.0, north)
    return geometry, (_folded_west(west), south, _folded_east(east), north)


def united_bbox(boxes: Iterable[Sequence[float]]) -> BBox:
    """Return the smallest west, south, east, north that holds all boxes; the whole Earth if there are none."""
    places = [tuple(map(float, box)) for box in boxes]
    if not places:
        return -180.0, -90.0, 180.0, 90.0
    south, north = min(box[1] for box in places), max(box[3] for box in places)
    # Laid out over two turns, so that what reaches past the end of the first covers the start of the second.
    arcs = sorted(
        (west + turn, (east if east >= west else east + 360) + turn)
        for west, _, east, _ in places
        for turn in (-360.0, 0.0)
    )
    reach, gaps = arcs[0][1], []
    for west, east in arcs[1:]:
        if west > reach and west >= -180:
            gaps.append((west - reach, west))
        reach = max(reach, east)
    if not gaps:
        return -180.0, south, 180.0, north
    # All but the widest gap is needed.
    gap, west = max(gaps)
    east = round(west + 360 - gap, DECIMALS + 3)
    return west, south, east if east <= 180 else east - 360, north


def rounded(values: Any) -> Any:
    """Return coordinates, nested as GeoJSON has them, with the decimals that are written."""
    if isinstance(values, list | tuple):
        return [rounded(value) for value in values]
    return round(float(values), DECIMALS)


def _around(outline: Any, to_geographic: Transformer) -> tuple[np.ndarray, np.ndarray]:
    """Return longitude and latitude of places round a polygon, close enough that lines between them follow its sides.

    Beside a pole, a short way turns far; places that the CRS doesn't know are left out.
    """
    ring = shapely.segmentize(shapely.normalize(outline).exterior, max(outline.length / (4 * PARTS_PER_SIDE), 1e-9))
    points = shapely.get_coordinates(ring)
    for _ in range(MOST_HALVINGS):
        longitude, latitude = to_geographic.transform(*points.T)
        turned = np.abs((np.diff(longitude) + 180) % 360 - 180)
        far = np.flatnonzero(turned > WIDEST_TURN)
        if not len(far):
            break
        points = np.insert(points, far + 1, (points[far] + points[far + 1]) / 2, axis=0)
    longitude, latitude = to_geographic.transform(*points[:-1].T)
    known = np.isfinite(longitude) & np.isfinite(latitude)
    return longitude[known], latitude[known]


def _in_turn(whole: Any, turn: int) -> Any:
    """Return what lies in one turn of longitudes, moved to -180 … 180."""
    start = 360.0 * turn - 180
    part = shapely.intersection(whole, shapely.box(start, -90, start + 360, 90))
    moved = shapely.transform(part, lambda points: points - [360.0 * turn, 0])
    return shapely.MultiPolygon([piece for piece in shapely.get_parts(moved) if isinstance(piece, shapely.Polygon)])


def _folded_west(longitude: float) -> float:
    return (longitude + 180) % 360 - 180 if not -180 <= longitude < 180 else longitude


def _folded_east(longitude: float) -> float:
    return 180 - (180 - longitude) % 360 if not -180 < longitude <= 180 else longitude
