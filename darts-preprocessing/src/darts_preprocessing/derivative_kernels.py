"""One pass over a DEM for all that comes from its 3×3 stencil. Import this module where it is used; it loads numba.

Each row is worked off in short loops without branches, which run on vector units.
"""

import math
from typing import Any

import numpy as np

from darts_utils.compiled import kernel, kernel_part

BLOCK_ROWS = 32
"""Rows of a block."""
DEGREES = 180 / math.pi
EIGHTH_TURN = math.tan(math.pi / 8)


@kernel
def derive(
    block: int, dem: np.ndarray, top: int, left: int, step_east: float, step_north: float,
    cosines: np.ndarray, sines: np.ndarray, cell_rows: float, cell_cols: float, first_row: int,
    sun_east: float, sun_north: float, sun_up: float, legacy: bool,
    slope: np.ndarray, aspect: np.ndarray, hillshade: np.ndarray, curvature: np.ndarray,
) -> None:  # fmt: skip
    """Fill a block of `BLOCK_ROWS` rows of the outputs (those of size 0 are left out) from a window of `dem`.

    Args:
        block: number of the block.
        dem: elevation; what is not finite is missing.
        top, left: pixel of the DEM under the outputs' first.
        step_east, step_north: metres from a pixel to the one in the next column, and to the one in the next row
            (negative on a north-up grid).
        cosines, sines, cell_rows, cell_cols: a coarse field over the grid that the outputs are rows of, of the angle
            that is added to grid azimuths.
        first_row: row of that grid that is the outputs' first.
        sun_east, sun_north, sun_up: unit vector towards the sun.
        legacy: aspect of flat ground is -1 before the angle is added; hillshade from plain differences at a pixel
            size of 1, without the angle.
        slope, aspect, hillshade, curvature: outputs of one shape, float32.
    """
    height = max(slope.shape[0], aspect.shape[0], hillshade.shape[0], curvature.shape[0])
    width = max(slope.shape[1], aspect.shape[1], hillshade.shape[1], curvature.shape[1])
    # Columns whose stencil lies within the DEM.
    first = min(max(1 - left, 0), width)
    stop = max(min(dem.shape[1] - 1 - left, width), first)
    fall_x, fall_y, missing = np.empty(stop - first), np.empty(stop - first), np.empty(stop - first)
    cosine, sine = np.empty(width), np.empty(width)
    half_x, half_y = math.copysign(0.5, step_east), math.copysign(0.5, step_north)
    for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, height)):
        y = r + top
        inside = 0 < y < dem.shape[0] - 1
        for out in (slope, aspect, hillshade, curvature):
            if out.size > 0:
                out[r, : first if inside else width] = math.nan
                out[r, stop:] = math.nan
        if not inside:
            continue
        columns = slice(left + first - 1, left + stop + 1)
        n, here, s = dem[y - 1, columns], dem[y, columns], dem[y + 1, columns]
        _fall(n, here, s, 1 / (8 * step_east), 1 / (8 * step_north), fall_x, fall_y, missing)
        if slope.size > 0:
            _slope(fall_x, fall_y, slope[r, first:stop])
        if aspect.size > 0 or hillshade.size > 0:
            _along_row(cosines, r + first_row, cell_rows, cell_cols, cosine)
            _along_row(sines, r + first_row, cell_rows, cell_cols, sine)
        if aspect.size > 0:
            _aspect(fall_x, fall_y, missing, cosine[first:stop], sine[first:stop], legacy, aspect[r, first:stop])
        if curvature.size > 0:
            _curvature(n, here, s, missing, 100 / step_east**2, 100 / step_north**2, curvature[r, first:stop])
        if hillshade.size > 0:
            if legacy:
                _plain_fall(n, here, s, missing, half_x, half_y, fall_x, fall_y)
                cosine[:] = 1
                sine[:] = 0
            _hillshade(
                fall_x, fall_y, cosine[first:stop], sine[first:stop], sun_east, sun_north, sun_up,
                hillshade[r, first:stop],
            )  # fmt: skip


@kernel_part
def _fall(
    n: np.ndarray, here: np.ndarray, s: np.ndarray, per_east: float, per_north: float,
    fall_x: np.ndarray, fall_y: np.ndarray, missing: np.ndarray,
) -> None:  # fmt: skip
    """Fill how the ground falls per metre of grid east and grid north (Horn 1981, doi:10.1109/PROC.1981.11918).

    `missing` becomes NaN where a pixel of the stencil is missing, else 0.
    """
    for k in range(fall_x.size):
        nw, ne = np.float64(n[k]), np.float64(n[k + 2])
        w, e = np.float64(here[k]), np.float64(here[k + 2])
        sw, se = np.float64(s[k]), np.float64(s[k + 2])
        up, down = np.float64(n[k + 1]), np.float64(s[k + 1])
        gone = (nw + up + ne + w + here[k + 1] + e + sw + down + se) * 0.0
        fall_x[k] = gone - ((ne - nw) + 2 * (e - w) + (se - sw)) * per_east
        fall_y[k] = gone - ((sw - nw) + 2 * (down - up) + (se - ne)) * per_north
        missing[k] = gone


@kernel_part
def _plain_fall(
    n: np.ndarray, here: np.ndarray, s: np.ndarray, missing: np.ndarray, half_x: float, half_y: float,
    fall_x: np.ndarray, fall_y: np.ndarray,
) -> None:  # fmt: skip
    for k in range(fall_x.size):
        fall_x[k] = missing[k] - (np.float64(here[k + 2]) - np.float64(here[k])) * half_x
        fall_y[k] = missing[k] - (np.float64(s[k + 1]) - np.float64(n[k + 1])) * half_y


@kernel_part
def _slope(fall_x: np.ndarray, fall_y: np.ndarray, out: np.ndarray) -> None:
    for k in range(out.size):
        out[k] = _angle(math.sqrt(fall_x[k] * fall_x[k] + fall_y[k] * fall_y[k]), 1.0) * DEGREES


@kernel_part
def _aspect(
    fall_x: np.ndarray, fall_y: np.ndarray, missing: np.ndarray, cosine: np.ndarray, sine: np.ndarray, legacy: bool,
    out: np.ndarray,
) -> None:  # fmt: skip
    for k in range(out.size):
        out[k] = _compass(fall_x[k] * cosine[k] + fall_y[k] * sine[k], fall_y[k] * cosine[k] - fall_x[k] * sine[k])
    if legacy:
        for k in range(out.size):
            if fall_x[k] == 0 and fall_y[k] == 0:
                before = _compass(sine[k], cosine[k]) - 1
                out[k] = before + 360 if before < 0 else before


@kernel_part
def _hillshade(
    fall_x: np.ndarray, fall_y: np.ndarray, cosine: np.ndarray, sine: np.ndarray, sun_east: float, sun_north: float,
    sun_up: float, out: np.ndarray,
) -> None:  # fmt: skip
    for k in range(out.size):
        fall_east = fall_x[k] * cosine[k] + fall_y[k] * sine[k]
        fall_north = fall_y[k] * cosine[k] - fall_x[k] * sine[k]
        steep = fall_x[k] * fall_x[k] + fall_y[k] * fall_y[k]
        # cos s = 1 / sqrt(1 + steep), and sin s towards the sun is the fall towards it times cos s.
        out[k] = 0.5 + 0.5 * (sun_up + sun_east * fall_east + sun_north * fall_north) / math.sqrt(1 + steep)


@kernel_part
def _curvature(
    n: np.ndarray, here: np.ndarray, s: np.ndarray, missing: np.ndarray, per_east: float, per_north: float,
    out: np.ndarray,
) -> None:  # fmt: skip
    for k in range(out.size):
        twice = 2 * np.float64(here[k + 1])
        bend_x = np.float64(here[k]) - twice + np.float64(here[k + 2])
        bend_y = np.float64(n[k + 1]) - twice + np.float64(s[k + 1])
        out[k] = missing[k] - per_east * bend_x - per_north * bend_y


@kernel_part
def _along_row(nodes: np.ndarray, row: int, cell_rows: float, cell_cols: float, out: np.ndarray) -> None:
    """Fill one row of a coarse field."""
    i = min(int(row / cell_rows), nodes.shape[0] - 2)
    share = row / cell_rows - i
    for j in range(nodes.shape[1] - 1):
        left = nodes[i, j] * (1 - share) + nodes[i + 1, j] * share
        change = (nodes[i, j + 1] * (1 - share) + nodes[i + 1, j + 1] * share - left) / cell_cols
        stop = math.ceil((j + 1) * cell_cols) if j < nodes.shape[1] - 2 else out.size
        for c in range(math.ceil(j * cell_cols), stop):
            out[c] = left + change * (c - j * cell_cols)


@kernel_part
def _compass(east: float, north: float) -> Any:
    """Return the direction of a vector in degrees clockwise from north, 0 … 360; NaN where it has no length."""
    angle = _angle(abs(east), abs(north)) * DEGREES
    angle = 180 - angle if north < 0 else angle
    angle = 360 - angle if east < 0 else angle
    return 0.0 if angle > 359.99998 else angle  # would be 360 as a float32


@kernel_part
def _angle(opposite: float, adjacent: float) -> Any:
    """Return atan(opposite / adjacent) of lengths, 0 … pi/2, to 2e-8; NaN of 0/0.

    Range reduction and polynomial of Cephes' atanf (Moshier 1989): unlike the C library's it runs on vector units.
    """
    x = min(opposite, adjacent) / max(opposite, adjacent)
    beyond = x > EIGHTH_TURN
    x = (x - 1) / (x + 1) if beyond else x
    z = x * x
    angle = (
        ((8.05374449538e-2 * z - 1.38776856032e-1) * z + 1.99777106478e-1) * z - 3.33329491539e-1
    ) * z * x + x  # fmt: skip
    angle = angle + math.pi / 4 if beyond else angle
    return math.pi / 2 - angle if opposite > adjacent else angle
