"""One pass over a DEM for all that comes from its 3×3 stencil. Import this module where it is used; it loads numba."""

import math
from typing import Any

import numba
import numpy as np

from darts_utils.compiled import kernel_part, parallel

BLOCK_ROWS = 32
"""Rows that one thread takes at a time."""
DEGREES = 180 / math.pi


@kernel_part
def _between(nodes: np.ndarray, rows: np.ndarray, i: int, j: int, s: float) -> Any:
    return nodes[i, j] * (1 - s) + nodes[i + 1, j] * s


@kernel_part
def _compass(angle: float) -> Any:
    """Return an angle of -360 … 360 degrees as 0 … 360; what would round to 360 as a float32 is north."""
    angle = angle + 360 if angle < 0 else angle
    return 0.0 if angle > 359.99998 else angle


@kernel_part
def _leave_missing(
    slope: np.ndarray, aspect: np.ndarray, hillshade: np.ndarray, curvature: np.ndarray, r: int, c: int
) -> None:
    if slope.size > 0:
        slope[r, c] = math.nan
    if aspect.size > 0:
        aspect[r, c] = math.nan
    if hillshade.size > 0:
        hillshade[r, c] = math.nan
    if curvature.size > 0:
        curvature[r, c] = math.nan


@parallel
def derive(
    dem: np.ndarray, top: int, left: int, step_east: float, step_north: float,
    cosines: np.ndarray, sines: np.ndarray, rows: np.ndarray, cols: np.ndarray, step: int,
    sun_east: float, sun_north: float, sun_up: float, legacy: bool,
    slope: np.ndarray, aspect: np.ndarray, hillshade: np.ndarray, curvature: np.ndarray,
) -> None:  # fmt: skip
    """Fill the outputs (those of size 0 are left out) from the window of `dem` that starts at (`top`, `left`).

    Args:
        dem: elevation; what is not finite is missing.
        top, left: pixel of the DEM under the outputs' first.
        step_east, step_north: metres from a pixel to the one in the next column, and to the one in the next row
            (negative on a north-up grid).
        cosines, sines, rows, cols, step: nodes of a coarse field over the outputs, of the angle that is added to
            grid azimuths.
        sun_east, sun_north, sun_up: unit vector towards the sun.
        legacy: aspect of flat ground is -1 before the angle is added; hillshade from plain differences at a pixel
            size of 1, without the angle.
        slope, aspect, hillshade, curvature: outputs of one shape, float32.
    """
    height = max(slope.shape[0], aspect.shape[0], hillshade.shape[0], curvature.shape[0])
    width = max(slope.shape[1], aspect.shape[1], hillshade.shape[1], curvature.shape[1])
    want_slope, want_aspect = slope.size > 0, aspect.size > 0
    want_hillshade, want_curvature = hillshade.size > 0, curvature.size > 0
    per_east, per_north = 1 / (8 * step_east), 1 / (8 * step_north)
    bend_x, bend_y = 100 / step_east**2, 100 / step_north**2
    half_x, half_y = math.copysign(0.5, step_east), math.copysign(0.5, step_north)
    for block in numba.prange((height + BLOCK_ROWS - 1) // BLOCK_ROWS):
        for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, height)):
            i = min(r // step, rows.size - 2)
            s = (r - rows[i]) / (rows[i + 1] - rows[i])
            y = r + top
            for j in range(cols.size - 1):
                along = cols[j + 1] - cols[j]
                cos0 = _between(cosines, rows, i, j, s)
                cos_step = (_between(cosines, rows, i, j + 1, s) - cos0) / along
                sin0 = _between(sines, rows, i, j, s)
                sin_step = (_between(sines, rows, i, j + 1, s) - sin0) / along
                stop = cols[j + 1] if j < cols.size - 2 else width
                for c in range(cols[j], stop):
                    x = c + left
                    # Leave early: a variable that is set in one branch only is miscompiled by numba's parallel loops.
                    if not (0 < y < dem.shape[0] - 1 and 0 < x < dem.shape[1] - 1):
                        _leave_missing(slope, aspect, hillshade, curvature, r, c)
                        continue
                    nw, n, ne = float(dem[y - 1, x - 1]), float(dem[y - 1, x]), float(dem[y - 1, x + 1])
                    w, here, e = float(dem[y, x - 1]), float(dem[y, x]), float(dem[y, x + 1])
                    sw, so, se = float(dem[y + 1, x - 1]), float(dem[y + 1, x]), float(dem[y + 1, x + 1])
                    if not math.isfinite(nw + n + ne + w + here + e + sw + so + se):
                        _leave_missing(slope, aspect, hillshade, curvature, r, c)
                        continue
                    # Downhill, in grid east and grid north (Horn 1981, doi:10.1109/PROC.1981.11918).
                    fall_x = -((ne - nw) + 2 * (e - w) + (se - sw)) * per_east
                    fall_y = -((sw - nw) + 2 * (so - n) + (se - ne)) * per_north
                    steep = fall_x * fall_x + fall_y * fall_y
                    cosine = cos0 + cos_step * (c - cols[j])
                    sine = sin0 + sin_step * (c - cols[j])
                    fall_east = fall_x * cosine + fall_y * sine
                    fall_north = fall_y * cosine - fall_x * sine
                    if want_slope:
                        slope[r, c] = math.atan(math.sqrt(steep)) * DEGREES
                    if want_aspect:
                        if steep > 0:
                            aspect[r, c] = _compass(math.atan2(fall_east, fall_north) * DEGREES)
                        elif legacy:
                            aspect[r, c] = _compass(math.atan2(sine, cosine) * DEGREES - 1)
                        else:
                            aspect[r, c] = math.nan
                    if want_hillshade:
                        if legacy:
                            fall_east = -(e - w) * half_x
                            fall_north = -(so - n) * half_y
                            steep = fall_east * fall_east + fall_north * fall_north
                        towards_sun = sun_up + sun_east * fall_east + sun_north * fall_north
                        hillshade[r, c] = 0.5 + 0.5 * towards_sun / math.sqrt(1 + steep)
                    if want_curvature:
                        curvature[r, c] = -bend_x * (w - 2 * here + e) - bend_y * (n - 2 * here + so)
