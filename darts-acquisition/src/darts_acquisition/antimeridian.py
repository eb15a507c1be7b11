"""Polygons around the earth: rings in any CRS become polygons in longitude and latitude, and come back.

In longitude and latitude an edge is straight, and parts lie within −180…180: what crosses the antimeridian is split.
"""

from collections.abc import Callable, Sequence

import numpy as np
import shapely
from pyproj import Transformer
from shapely import affinity
from shapely.geometry import LinearRing, MultiPolygon, Point, Polygon, box
from shapely.geometry.base import BaseGeometry

from darts_utils.errors import ConfigError

Surface = Polygon | MultiPolygon

STRAIGHT_DEG = 1e-6
"""An edge is cut into pieces until none strays further from its curve, in degrees of latitude (about 0.1 m)."""
STRAIGHT_M = 0.1
"""The same in a projected CRS."""
STEP_DEG = 10.0
"""No piece of an edge turns further around the pole, so that its way across the antimeridian is certain."""
MOST_ROUNDS = 40
NEAR_POLE_M = 1e-3
SLIVER_DEG2 = 1e-14


def polygon_from_lonlat(polygon: Polygon) -> Surface:
    """Return a polygon drawn in degrees, valid and split at the antimeridian.

    Longitudes may run on beyond ±180 (170…190). Where all lie within ±180, an edge whose ends are more than 180° and
    less than 360° apart is taken the short way, across the antimeridian; a ring that goes around once holds the pole.

    Raises:
        ConfigError: coordinates are not longitude and latitude.
    """
    for ring in (polygon.exterior, *polygon.interiors):
        _check_lonlat(np.asarray(ring.coords))
    return _assemble(polygon, lambda ring: _split(*_unwrap_drawn(np.asarray(ring.coords))))


def polygon_to_lonlat(polygon: Polygon, transformer: Transformer) -> Surface:
    """Return a polygon of a projected CRS in longitude and latitude, edges bent as they run, split likewise.

    Raises:
        ConfigError: a part of it has no longitude and latitude.
    """
    return _assemble(polygon, lambda ring: _ring_to_lonlat(ring, transformer))


def project_surface(surface: Surface, transformer: Transformer) -> Surface:
    """Return polygons of longitude and latitude in a projected CRS, halves at the antimeridian joined.

    Raises:
        ConfigError: a part has no place in the CRS.
    """
    parts = []
    for polygon in polygons_of(surface):
        rings = [_project_ring(ring, transformer) for ring in (polygon.exterior, *polygon.interiors)]
        parts.append(shapely.difference(rings[0], shapely.union_all(rings[1:])) if rings[1:] else rings[0])
    # Both halves have the same corners on the antimeridian but for rounding: a grid of a millimetre makes them one.
    return surface_of(shapely.union_all(parts, grid_size=1e-3))


def join_lonlat(surface: Surface) -> Surface:
    """Return polygons split at the antimeridian as ones whose longitudes run on beyond 180, where that joins them."""
    parts = polygons_of(surface)
    spans = sorted((part.bounds[0], part.bounds[2]) for part in parts)
    reach, gaps = -180.0, []
    for west, east in spans:
        if west > reach:
            gaps.append((west - reach, reach))
        reach = max(reach, east)
    touches_both = spans[0][0] <= -180 and reach >= 180
    if not touches_both or not gaps:
        return surface
    _, seam = max(gaps)
    moved = [affinity.translate(part, 360) if part.bounds[0] < seam else part for part in parts]
    return surface_of(shapely.union_all(moved))


def polygons_of(geometry: BaseGeometry) -> list[Polygon]:
    """Return the polygons a geometry is made of that have an area; lines and points, as repairs leave them, go."""
    return [polygon for polygon in drawn_polygons(geometry) if polygon.area > 0]


def drawn_polygons(geometry: BaseGeometry) -> list[Polygon]:
    """Return the polygons of a geometry as they are; around a pole they may look as if they had no area."""
    if isinstance(geometry, Polygon):
        return [geometry]
    return [polygon for part in getattr(geometry, "geoms", ()) for polygon in drawn_polygons(part)]


def surface_of(geometry: BaseGeometry) -> Surface:
    """Return the polygons of a geometry as one; empty where it has none."""
    polygons = polygons_of(geometry)
    return polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)


def _assemble(polygon: Polygon, convert: Callable[[LinearRing], BaseGeometry]) -> Surface:
    shell = convert(polygon.exterior)
    holes = [convert(ring) for ring in polygon.interiors]
    return surface_of(shapely.difference(shell, shapely.union_all(holes)) if holes else shell)


def _check_lonlat(coordinates: np.ndarray) -> None:
    longitude, latitude = coordinates[:, 0], coordinates[:, 1]
    if not np.isfinite(coordinates).all() or np.abs(latitude).max() > 90 or np.abs(longitude).max() > 540:
        raise ConfigError(
            f"coordinates from {longitude.min():.10g}, {latitude.min():.10g} to {longitude.max():.10g}, "
            f"{latitude.max():.10g} are not longitude and latitude; give the right CRS with them, x before y"
        )


def _unwrap_drawn(coordinates: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Return a ring with longitudes that run on, and the latitude of the pole it goes around, if it does."""
    longitude, latitude = coordinates[:, 0], coordinates[:, 1]
    steps = np.diff(longitude)
    if np.abs(longitude).max() <= 180:
        jumps = (np.abs(steps) > 180) & (np.abs(steps) < 360)
        steps = np.where(jumps, steps - 360 * np.sign(steps), steps)
    run = longitude[0] + np.concatenate([[0], np.cumsum(steps)])
    around = abs(run[-1] - run[0]) > 180
    pole = _nearer_pole(latitude) if around else None
    return np.column_stack([run, latitude]), pole


def _ring_to_lonlat(ring: LinearRing, transformer: Transformer) -> BaseGeometry:
    poles = {latitude: _pole(latitude, transformer) for latitude in (90.0, -90.0)}
    points = np.asarray(shapely.segmentize(ring, max(ring.length / 64, 1e-9)).coords)[:, :2]
    for pole in poles.values():
        points = _with_corner_at(points, pole)
    points, lonlat = _bent(points, transformer, STRAIGHT_DEG)
    run = _run_on(lonlat, points, [pole for pole in poles.values() if pole is not None])
    if abs(run[-1, 0] - run[0, 0]) <= 180:
        return _split(run, None)
    inside = Polygon(points).buffer(0)
    around = [latitude for latitude, pole in poles.items() if pole is not None and inside.contains(pole)]
    return _split(run, around[0] if around else _nearer_pole(run[:, 1]))


def _pole(latitude: float, transformer: Transformer) -> Point | None:
    """Return where a pole lies in a projected CRS, or None if it has no place, or no single one."""
    x, y = transformer.transform([0.0, 120.0, -120.0], [latitude] * 3, direction="INVERSE")
    if not np.isfinite([x, y]).all() or np.ptp(x) > NEAR_POLE_M or np.ptp(y) > NEAR_POLE_M:
        return None
    return Point(x[0], y[0])


def _with_corner_at(points: np.ndarray, pole: Point | None) -> np.ndarray:
    """Return a ring with a corner on the pole where an edge runs over it, as tiles of polar grids do."""
    if pole is None or LinearRing(points).distance(pole) > NEAR_POLE_M:
        return points
    here = np.array([pole.x, pole.y])
    near = np.hypot(*(points - here).T) <= NEAR_POLE_M
    if near.any():
        points = points.copy()
        points[near] = here
        return points
    edges = shapely.linestrings(np.stack([points[:-1], points[1:]], axis=1))
    return np.insert(points, int(np.argmin(shapely.distance(edges, pole))) + 1, here, axis=0)


def _bent(points: np.ndarray, transformer: Transformer, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a ring with corners added until its edges are straight in the other CRS too; in both CRSs."""
    there = _transformed(points, transformer)
    degrees = transformer.target_crs is None or transformer.target_crs.is_geographic
    for _ in range(MOST_ROUNDS):
        middles = (points[:-1] + points[1:]) / 2
        middles_there = _transformed(middles, transformer)
        start, end = there[:-1], there[1:]
        if degrees:
            off, turn = _strays(start, middles_there, end)
            cut = (off > tolerance) | (turn > STEP_DEG)
        else:
            cut = np.hypot(*(middles_there - (start + end) / 2).T) > tolerance
        if not cut.any():
            break
        where = np.flatnonzero(cut) + 1
        points = np.insert(points, where, middles[cut], axis=0)
        there = np.insert(there, where, middles_there[cut], axis=0)
    return points, there


def _strays(start: np.ndarray, middle: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far middles lie from the chords, in degrees of latitude, and by how much longitude changes."""
    # The pole has no longitude of its own: the edge that ends there keeps the other end's.
    turn = np.where(_at_pole(start) | _at_pole(end), 0.0, _short_way(end[:, 0] - start[:, 0]))
    origin = np.where(_at_pole(start), end[:, 0], start[:, 0])
    east = np.where(_at_pole(middle), 0.0, _short_way(middle[:, 0] - origin) - turn / 2)
    north = middle[:, 1] - (start[:, 1] + end[:, 1]) / 2
    return np.hypot(east * np.cos(np.radians(middle[:, 1])), north), np.abs(turn)


def _at_pole(lonlat: np.ndarray) -> np.ndarray:
    return np.abs(lonlat[:, 1]) > 90 - 1e-9


def _run_on(lonlat: np.ndarray, points: np.ndarray, poles: Sequence[Point]) -> np.ndarray:
    """Return a transformed ring with longitudes that run on; a corner on a pole takes both its neighbours'."""
    at_pole = np.zeros(len(points), bool)
    for pole in poles:
        at_pole |= np.hypot(points[:, 0] - pole.x, points[:, 1] - pole.y) <= NEAR_POLE_M
    if not at_pole.any():
        return np.column_stack([np.unwrap(lonlat[:, 0], period=360), lonlat[:, 1]])
    # Turned so that it begins and ends at the pole, the ring is open and its longitudes are certain in between.
    first = int(np.argmax(at_pole))
    turned = np.concatenate([lonlat[first:-1], lonlat[: first + 1]])
    between = turned[~np.concatenate([at_pole[first:-1], at_pole[: first + 1]])]
    longitude = np.unwrap(between[:, 0], period=360)
    latitude = 90.0 if turned[0, 1] > 0 else -90.0
    ends = [[longitude[0], latitude]], [[longitude[-1], latitude]]
    return np.concatenate([ends[0], np.column_stack([longitude, between[:, 1]]), ends[1], ends[0]])


def _short_way(degrees: np.ndarray) -> np.ndarray:
    return (degrees + 180) % 360 - 180


def _nearer_pole(latitude: np.ndarray) -> float:
    return 90.0 if latitude.mean() >= 0 else -90.0


def _split(run: np.ndarray, pole: float | None) -> BaseGeometry:
    """Return the inside of a ring whose longitudes run on, as valid polygons within −180…180."""
    if pole is not None:
        return _around(run, pole)
    inside = shapely.make_valid(Polygon(run))
    west, _, east, _ = inside.bounds
    parts = []
    for turn in range(int(np.floor((west + 180) / 360)), int(np.ceil((east + 180) / 360))):
        part = inside
        if west < 360 * turn - 180 or east > 360 * turn + 180:
            part = shapely.intersection(inside, box(360 * turn - 180, -90, 360 * turn + 180, 90))
        parts += [affinity.translate(p, -360 * turn) for p in polygons_of(part) if p.area > SLIVER_DEG2]
    return shapely.union_all(parts) if len(parts) != 1 else parts[0]


def _around(run: np.ndarray, pole: float) -> BaseGeometry:
    """Return what lies between a pole and a ring whose longitudes run on all the way around it."""
    # Five rounds: a ring that turns back across the meridian where it began is only whole within its neighbours.
    once = np.array([run[-1, 0] - run[0, 0], 0])
    rounds = np.concatenate([*(run[:-1] + number * once for number in range(-2, 3)), run[-1:] + 2 * once])
    inside = shapely.make_valid(Polygon([*rounds, (rounds[-1, 0], pole), (rounds[0, 0], pole)]))
    turn = round(run[0, 0] / 360)
    part = shapely.intersection(inside, box(360 * turn - 180, -90, 360 * turn + 180, 90))
    return shapely.union_all([affinity.translate(p, -360 * turn) for p in polygons_of(part) if p.area > SLIVER_DEG2])


def _project_ring(ring: LinearRing, transformer: Transformer) -> BaseGeometry:
    points = np.asarray(shapely.segmentize(ring, STEP_DEG / 2).coords)[:, :2]
    _, projected = _bent(points, transformer, STRAIGHT_M)
    # Around a pole the ring runs there and back along the antimeridian; that seam goes.
    return shapely.make_valid(Polygon(projected), method="structure", keep_collapsed=False)


def _transformed(points: np.ndarray, transformer: Transformer) -> np.ndarray:
    x, y = transformer.transform(points[:, 0], points[:, 1])
    there = np.column_stack([x, y])
    if not np.isfinite(there).all():
        bad: Sequence[float] = points[~np.isfinite(there).all(axis=1)][0]
        target = transformer.target_crs
        raise ConfigError(
            f"the point {bad[0]:.10g}, {bad[1]:.10g} has no place in {target.name if target else 'the other CRS'}"
        )
    return there
