"""Pieces to one outline: exact where they lie on one grid of pixels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import shapely

from darts_export.dataset.planes import polygons_of

OFF_GRID = 1e-3
"""Corners further from a common grid than this share of a pixel are on another one."""

SNAP_PX = 2**-10
"""Corners where polygons of several grids cross are rounded to this share of a pixel."""

UNSEEN_PX = 0.01
"""Less than this many pixels outside is rounding; one that is really outside counts 1."""


class Joined(NamedTuple):
    """Groups of pieces, each in one outline."""

    geometry: np.ndarray
    """(Multi)polygons, without collinear points where `on_grid`."""
    on_grid: np.ndarray
    """Whether all pieces of the group lie on one grid of pixels."""
    added: list[np.ndarray]
    """Area that each piece adds to those before it, in units of the CRS squared; empty if not asked for."""


def join(groups: Sequence[np.ndarray], pixel: np.ndarray, *, added: bool = False) -> Joined:
    """Return the union of each group of pieces.

    On one grid of square pixels of the side `pixel`, corners are counted in whole pixels, so that nothing is rounded:
    the outline is that of the union's pixels. On several grids, corners are rounded to a thousandth of a pixel.
    """
    if not len(groups):
        return Joined(np.empty(0, object), np.empty(0, bool), [])
    pieces = np.concatenate(groups)
    number = np.array([len(group) for group in groups])
    starts = np.cumsum(number) - number
    points, piece = shapely.get_coordinates(pieces, return_index=True)
    group = np.repeat(np.arange(len(groups)), number)[piece]
    # Far from the origin a grid of odd pixels has rounded corners: they are counted from a corner of the group's own.
    origin = points[np.searchsorted(piece, starts)]
    counted = (points - origin[group]) / pixel[group, None]
    off_grid = np.zeros(len(groups))
    np.maximum.at(off_grid, group, np.abs(counted - np.rint(counted)).max(axis=1))
    on_grid = off_grid < OFF_GRID
    onto = shapely.set_coordinates(pieces.copy(), np.where(on_grid[group, None], np.rint(counted), counted))

    parts = [onto[start : start + count] for start, count in zip(starts, number, strict=True)]
    # Where edges of several grids cross, slivers come out that are no polygon any more once they are rounded.
    unions = np.array(
        [
            polygons_of(shapely.union_all(part, grid_size=None if one_grid else SNAP_PX))
            for part, one_grid in zip(parts, on_grid, strict=True)
        ],
        dtype=object,
    )
    areas = [_added(*pair) * side**2 for *pair, side in zip(parts, unions, pixel, strict=True)] if added else []
    unions[on_grid] = without_collinear(unions[on_grid])
    points, group = shapely.get_coordinates(unions, return_index=True)
    return Joined(shapely.set_coordinates(unions, origin[group] + points * pixel[group, None]), on_grid, areas)


def without_collinear(geometry: np.ndarray) -> np.ndarray:
    """Return (multi)polygons without the points at which their rings do not turn; exact for whole numbers."""
    if not len(geometry):
        return geometry
    _, points, (rings, polygons, wholes) = shapely.to_ragged_array(_as_multi(geometry))
    ring_of_point = np.repeat(np.arange(len(rings) - 1), np.diff(rings))
    first, last = rings[:-1][ring_of_point], rings[1:][ring_of_point] - 1  # the last point repeats the first
    at = np.arange(len(points))
    before = points[np.where(at == first, last - 1, at - 1)]
    after = points[np.where(at == last, first + 1, at + 1)]
    into, out = points - before, after - points
    turns = into[:, 0] * out[:, 1] != into[:, 1] * out[:, 0]
    turns[rings[1:] - 1] = False  # rings are closed again below
    number = np.bincount(ring_of_point[turns], minlength=len(rings) - 1)
    stops = np.concatenate([[0], np.cumsum(number + 1)])
    closed = np.empty((stops[-1], 2))
    closing = np.zeros(len(closed), bool)
    closing[stops[1:] - 1] = True
    closed[~closing] = points[turns]
    closed[closing] = closed[stops[:-1]]
    multi = shapely.from_ragged_array(shapely.GeometryType.MULTIPOLYGON, closed, (stops, polygons, wholes))
    return as_single(multi)


def as_single(geometry: np.ndarray) -> np.ndarray:
    """Return multipolygons of one part as polygons."""
    single = (shapely.get_num_geometries(geometry) == 1) & (shapely.get_type_id(geometry) == 6)
    return np.where(single, shapely.get_geometry(geometry, 0), geometry)


def lies_within(outline: Any, seen: Sequence[Any], pixel: float, *, tolerance_px: float = 0) -> bool:
    """Return whether an outline lies within the union of what was seen, but for `tolerance_px` around it."""
    margin = (2 + tolerance_px) * pixel
    left, bottom, right, top = outline.bounds
    around = shapely.box(left - margin, bottom - margin, right + margin, top + margin)
    near = [part for part in shapely.intersection(list(seen), around) if not part.is_empty] if len(seen) else []
    if not near:
        return False
    union = shapely.union_all(near)
    if tolerance_px:
        union = shapely.buffer(union, tolerance_px * pixel, join_style="mitre")
    return bool(shapely.area(shapely.difference(outline, union)) < UNSEEN_PX * pixel**2)


def _added(pieces: np.ndarray, union: Any) -> np.ndarray:
    covered = pieces[0]
    areas = [covered.area]
    for piece in pieces[1:-1]:
        covered = covered.union(piece)
        areas.append(covered.area)
    if len(pieces) > 1:
        areas.append(union.area)
    return np.maximum(np.diff(areas, prepend=0), 0)


def _as_multi(geometry: np.ndarray) -> np.ndarray:
    parts, owner = shapely.get_parts(geometry, return_index=True)
    multi: np.ndarray = np.asarray(shapely.multipolygons(parts, indices=owner))
    return multi
