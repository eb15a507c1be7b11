"""Planes to work in, and the way from any CRS to longitude and latitude, across the antimeridian and the pole."""

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer

NORTH, SOUTH = "EPSG:6931", "EPSG:6932"
"""Lambert azimuthal equal-area planes of the two hemispheres."""

_HALF_PLANE_M = 2e7
_ON_THE_LINE_M = 1e-6
_LONGEST_EDGE_M = 1000.0
"""Longer edges of what is cut at the antimeridian are divided, so that they stay straight in the plane."""


def project(geometry: np.ndarray, source: str, target: str, longest_edge: float | None = None) -> np.ndarray:
    """Return geometries in another CRS, point by point; edges above `longest_edge` (in units of `source`) are divided.

    A point always gives the same point, whatever it is part of.
    """
    if longest_edge is not None:
        geometry = shapely.segmentize(geometry, longest_edge)
    if source == target:
        return geometry
    to_target: Any = _transformer(source, target).transform
    moved: Any = shapely.transform(geometry, to_target, interleaved=False)
    return np.asarray(moved)


def project_points(x: Any, y: Any, source: str, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Return points in another CRS."""
    if source == target:
        return np.asarray(x, "float64"), np.asarray(y, "float64")
    xx, yy = _transformer(source, target).transform(x, y)
    return np.asarray(xx), np.asarray(yy)


def to_lonlat(geometry: np.ndarray, crs: str, plane: str) -> np.ndarray:
    """Return polygons in EPSG:4326, cut at ±180° where they cross it, and closed along ±90° where they hold a pole."""
    lonlat = project(geometry, crs, "EPSG:4326")
    bounds = shapely.bounds(lonlat)
    with np.errstate(invalid="ignore"):
        turned = (bounds[:, 2] - bounds[:, 0] > 180) | (bounds[:, 0] < -180) | (bounds[:, 2] > 180)
    for row in np.flatnonzero(turned):
        flat = project(shapely.segmentize(geometry[row : row + 1], _edge_of(geometry[row])), crs, plane)[0]
        lonlat[row] = cut_at_the_antimeridian(flat, plane)
    return lonlat


def cut_at_the_antimeridian(flat: Any, plane: str) -> Any:
    """Return a polygon of the plane in EPSG:4326, cut at ±180°, and closed along a pole it holds."""
    # The antimeridian is the half of the y axis on which y has the sign of `up`; the other half is Greenwich.
    up = 1 if plane == NORTH else -1
    # A pole within is made a corner: of the quarters around it.
    holds_pole = flat.intersects(shapely.Point(0, 0))
    bands = (-_HALF_PLANE_M, *([0.0] if holds_pole else []), _HALF_PLANE_M)
    found = []
    for left, right, edge in ((0.0, _HALF_PLANE_M, 180.0), (-_HALF_PLANE_M, 0.0, -180.0)):
        for bottom, top in pairwise(bands):
            cut = polygons_of(flat.intersection(shapely.box(left, bottom, right, top)))
            parts = [part for part in shapely.get_parts(cut) if not part.is_empty]
            found += [_half_to_lonlat(part, plane, up, edge) for part in parts]
    return polygons_of(shapely.union_all(found))  # what was cut at Greenwich and around the pole is one again


def polygons_of(geometry: Any) -> Any:
    """Return the polygons of a geometry as one (multi)polygon, without the points and lines that an overlay leaves."""
    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        return geometry
    every = shapely.get_parts(shapely.get_parts(geometry))
    parts = [part for part in every if part.geom_type == "Polygon" and not part.is_empty]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


@lru_cache(maxsize=256)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


def _edge_of(geometry: Any) -> float:
    """Return the longest edge in units of the geometry's CRS: metres, or degrees where the bounds say so."""
    left, bottom, right, top = geometry.bounds
    degrees = max(abs(left), abs(right)) <= 720 and max(abs(bottom), abs(top)) <= 90
    return 0.01 if degrees else _LONGEST_EDGE_M


def _half_to_lonlat(part: Any, plane: str, up: int, edge: float) -> Any:
    rings = []
    for ring in shapely.get_rings(part):
        x, y = shapely.get_coordinates(ring)[:-1].T
        x = np.where(np.abs(x) < _ON_THE_LINE_M, 0, x)
        lon, lat = project_points(x, y, plane, "EPSG:4326")
        on_line = x == 0
        lon = np.where(on_line & (y * up > 0), edge, np.where(on_line, 0.0, lon))
        points = list(zip(lon.tolist(), lat.tolist(), strict=True))
        for at in np.flatnonzero(on_line & (np.abs(y) < _ON_THE_LINE_M)):
            # The pole is a point on Earth and a line here: it is walked along, from the meridian before to the next.
            before, after = points[at - 1][0], points[(at + 1) % len(points)][0]
            points[at : at + 1] = [(before, 90.0 * up), (after, 90.0 * up)]
        rings.append(points)
    return shapely.Polygon(rings[0], rings[1:])
