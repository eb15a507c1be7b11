"""What to send of an area of interest: few polygons with few corners that hold it whole."""

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon, box

from darts_acquisition.antimeridian import Surface, polygons_of, surface_of

WORLD = box(-180, -90, 180, 90)
TOLERANCES_DEG = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Widening that is tried before an area is split: a scene is some 1° wide, so this finds few that do not fit."""
COARSE_DEG = (0.3, 1.0, 3.0)
"""Widening that a single polygon takes before it is sent as its bounding box."""
BOX_CORNERS = 5
TILE_DEG = 1.1
"""Height of a scene."""


def geometries_to_send(area: Surface, max_vertices: int) -> list[Surface]:
    """Return polygons with at most so many corners each (a box's 5 at least) that together hold the area."""
    if _corners(area) <= max_vertices:
        return [area]
    for tolerance in TOLERANCES_DEG:
        wider = _widened(area, tolerance)
        if wider is not None and _corners(wider) <= max_vertices:
            return [wider]
    parts = polygons_of(area if wider is None else wider)
    return _packed([_coarse(part, max_vertices) for part in parts], max(max_vertices, BOX_CORNERS))


def widen_at_antimeridian(area: Surface) -> Surface:
    """Return the area and, where it is near the antimeridian, a scene's width on both sides of that.

    Archives hold footprints across the antimeridian as one ring whose edges run the long way around the earth; on the
    server these do not meet what lies between their corners and the antimeridian.
    """
    boxes = []
    for polygon in polygons_of(area):
        west, south, east, north = polygon.bounds
        south, north = max(south - TILE_DEG, -90), min(north + TILE_DEG, 90)
        width = min(TILE_DEG / max(np.cos(np.radians(max(abs(south), abs(north)))), 0.05), 20)
        if west < -180 + width or east > 180 - width:
            boxes += [box(-180, south, -180 + width, north), box(180 - width, south, 180, north)]
    return surface_of(shapely.union_all([area, *boxes])) if boxes else area


def _widened(area: Surface, tolerance: float) -> Surface | None:
    """Return a simpler area that holds this one, or None where that failed."""
    # Both simplifications move the outline by up to half the tolerance; circles of 8 corners reach 0.92 of the radius.
    outlines = shapely.simplify([Polygon(polygon.exterior) for polygon in polygons_of(area)], tolerance / 2)
    wider = shapely.union_all(shapely.buffer(outlines, 1.2 * tolerance, quad_segs=2))
    simple = shapely.intersection(shapely.simplify(wider, tolerance / 2), WORLD)
    simple = surface_of(shapely.make_valid(simple))
    return simple if simple.covers(area) else None


def _coarse(polygon: Polygon, max_vertices: int) -> Surface:
    for tolerance in COARSE_DEG:
        if _corners(polygon) <= max_vertices:
            return polygon
        wider = _widened(polygon, tolerance)
        if wider is not None and _corners(wider) <= max_vertices:
            return wider
    return polygon if _corners(polygon) <= max_vertices else box(*polygon.bounds)


def _packed(parts: list[Surface], max_vertices: int) -> list[Surface]:
    """Return neighbouring parts put together up to the limit."""
    order = sorted(parts, key=lambda part: (round(part.bounds[1]), part.bounds[0]))
    groups: list[list[Polygon]] = []
    room = 0
    for part in order:
        if _corners(part) > room:
            groups.append([])
            room = max_vertices
        groups[-1] += polygons_of(part)
        room -= _corners(part)
    return [group[0] if len(group) == 1 else MultiPolygon(group) for group in groups]


def _corners(surface: Surface) -> int:
    return int(shapely.get_num_coordinates(surface))
