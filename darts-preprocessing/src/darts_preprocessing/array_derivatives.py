"""The kernel of `darts_preprocessing.derivative_kernels` as plain array code, for arrays on a GPU.

Slices and arithmetic on whole arrays, which numpy and cupy share; on numpy the tests compare it with the kernel. Sums
are taken in float64 and in the kernel's order: where ground is flat, differences must cancel to exactly 0 in both.
"""

import math
from types import ModuleType
from typing import Any

import numpy as np

from darts_utils.array_sampling import Columns, Lines, on_device_of
from darts_utils.arrays import array_namespace

BLOCK_ROWS = 512
"""Rows worked on at a time: enough that a step takes a GPU longer than its launch, few enough that the scratch memory
of some 100 bytes a pixel stays at 0.6 GB for a Sentinel-2 tile."""


def derive(
    dem: Any, top: int, left: int, step_east: float, step_north: float,
    cosines: np.ndarray, sines: np.ndarray, cell_rows: float, cell_cols: float, first_row: int,
    sun_east: float, sun_north: float, sun_up: float, legacy: bool,
    slope: Any, aspect: Any, hillshade: Any, curvature: Any,
) -> None:  # fmt: skip
    """Fill the outputs (those of size 0 are left out) from a window of `dem`.

    Args:
        dem: elevation (row, column); what is not finite is missing.
        top, left: pixel of the DEM under the outputs' first.
        step_east, step_north: metres from a pixel to the one in the next column, and to the one in the next row
            (negative on a north-up grid).
        cosines, sines, cell_rows, cell_cols: a coarse field over the grid that the outputs are rows of, on the host, of
            the angle that is added to grid azimuths.
        first_row: row of that grid that is the outputs' first.
        sun_east, sun_north, sun_up: unit vector towards the sun.
        legacy: aspect of flat ground is -1 before the angle is added; hillshade from plain differences at a pixel
            size of 1, without the angle.
        slope, aspect, hillshade, curvature: outputs of one shape, where the DEM lives.

    Raises:
        DeviceError: arrays live on different devices.
    """
    outputs = [out for out in (slope, aspect, hillshade, curvature) if out.size > 0]
    xp = array_namespace(dem, *outputs)
    if not outputs:
        return
    height, width = outputs[0].shape
    # Pixels whose stencil lies within the DEM.
    rows, cols = _within(top, dem.shape[0], height), _within(left, dem.shape[1], width)
    with on_device_of(dem), np.errstate(all="ignore"):
        for out in outputs:
            out[...] = xp.nan
        columns = Columns(xp, width, cosines.shape[1] - 1, cell_cols)
        for start in range(rows.start, rows.stop if cols else rows.start, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, rows.stop)
            block = slice(start, stop), slice(cols.start, cols.stop)
            z = dem[top + start - 1 : top + stop + 1, left + cols.start - 1 : left + cols.stop + 1].astype("float64")
            missing = _missing(z)
            fall_x, fall_y = _fall(z, missing, 1 / (8 * step_east), 1 / (8 * step_north))
            if curvature.size > 0:
                curvature[block] = _curvature(z, missing, 100 / step_east**2, 100 / step_north**2)
            if slope.size > 0:
                slope[block] = _slope(xp, fall_x, fall_y)
            if aspect.size > 0 or (hillshade.size > 0 and not legacy):
                cosine, sine = (
                    columns.values(Lines.of(nodes, cell_rows, cell_cols, first_row + start, first_row + stop))[
                        :, block[1]
                    ]
                    for nodes in (cosines, sines)
                )
            if aspect.size > 0:
                aspect[block] = _aspect(xp, fall_x, fall_y, cosine, sine, legacy)
            if hillshade.size > 0:
                if legacy:
                    fall_x, fall_y = _plain_fall(
                        z, missing, math.copysign(0.5, step_east), math.copysign(0.5, step_north)
                    )
                    cosine, sine = 1.0, 0.0
                hillshade[block] = _hillshade(xp, fall_x, fall_y, cosine, sine, sun_east, sun_north, sun_up)


def _within(before: int, size: int, count: int) -> range:
    """Return the outputs' rows or columns with a neighbour in the DEM on both sides."""
    first = min(max(1 - before, 0), count)
    return range(first, max(min(size - 1 - before, count), first))


def _missing(z: Any) -> Any:
    """Return NaN where a pixel of the 3×3 stencil is missing, else 0."""
    rows = z[:-2] + z[1:-1] + z[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) * 0.0


def _fall(z: Any, missing: Any, per_east: float, per_north: float) -> tuple[Any, Any]:
    """Return how the ground falls per metre of grid east and grid north (Horn 1981, doi:10.1109/PROC.1981.11918)."""
    east = z[:, 2:] - z[:, :-2]
    fall_x = missing - (east[:-2] + 2 * east[1:-1] + east[2:]) * per_east
    south = z[2:] - z[:-2]
    fall_y = missing - (south[:, :-2] + 2 * south[:, 1:-1] + south[:, 2:]) * per_north
    return fall_x, fall_y


def _plain_fall(z: Any, missing: Any, half_x: float, half_y: float) -> tuple[Any, Any]:
    return (
        missing - (z[1:-1, 2:] - z[1:-1, :-2]) * half_x,
        missing - (z[2:, 1:-1] - z[:-2, 1:-1]) * half_y,
    )


def _slope(xp: ModuleType, fall_x: Any, fall_y: Any) -> Any:
    return xp.degrees(xp.arctan(xp.sqrt(fall_x * fall_x + fall_y * fall_y)))


def _aspect(xp: ModuleType, fall_x: Any, fall_y: Any, cosine: Any, sine: Any, legacy: bool) -> Any:
    aspect = _compass(xp, *_turned(fall_x, fall_y, cosine, sine))
    if not legacy:
        return aspect
    return xp.where((fall_x == 0) & (fall_y == 0), (_compass(xp, sine, cosine) + 359) % 360, aspect)


def _hillshade(
    xp: ModuleType, fall_x: Any, fall_y: Any, cosine: Any, sine: Any, sun_east: float, sun_north: float, sun_up: float
) -> Any:
    fall_east, fall_north = _turned(fall_x, fall_y, cosine, sine)
    # cos s = 1 / sqrt(1 + steep), and sin s towards the sun is the fall towards it times cos s.
    towards_sun = sun_up + sun_east * fall_east + sun_north * fall_north
    steep = fall_x * fall_x + fall_y * fall_y
    return 0.5 + 0.5 * towards_sun / xp.sqrt(1 + steep)


def _curvature(z: Any, missing: Any, per_east: float, per_north: float) -> Any:
    twice = 2 * z[1:-1, 1:-1]
    bend_x = z[1:-1, :-2] - twice + z[1:-1, 2:]
    bend_y = z[:-2, 1:-1] - twice + z[2:, 1:-1]
    return missing - per_east * bend_x - per_north * bend_y


def _turned(fall_x: Any, fall_y: Any, cosine: Any, sine: Any) -> tuple[Any, Any]:
    """Return the fall towards true east and true north."""
    return fall_x * cosine + fall_y * sine, fall_y * cosine - fall_x * sine


def _compass(xp: ModuleType, east: Any, north: Any) -> Any:
    """Return the direction of vectors in degrees clockwise from north, 0 … 360; NaN where they have no length."""
    angle = xp.degrees(xp.arctan2(east, north))
    angle = xp.where(angle < 0, angle + 360, angle)
    angle = xp.where(angle > 359.99998, 0, angle)  # would be 360 as a float32
    return xp.where((east == 0) & (north == 0), xp.nan, angle)
