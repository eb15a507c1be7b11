"""Kernels that sample a raster at the positions of another grid; `darts_utils.grids.align` calls them.

Positions come as nodes of a `CoarseField`: u counts columns and v rows of the source from its outer corner, so that
pixel j spans j … j + 1. Import this module where it is used; it loads numba.
"""

import math
from typing import Any

import numpy as np

from darts_utils.compiled import kernel, kernel_part

WIDEN_FROM = 1 / 0.95
"""The kernel widens when a target pixel is larger than this many source pixels, as in GDAL."""
LEAST_WEIGHT = 0.1
"""Where the valid share of a kernel is smaller, its weights cancel nearly, and the nearest pixel stands for them."""
EDGE = 1e-6
"""Positions this close to a pixel's end, in pixels, count to the next: rounding must not decide."""


BLOCK_ROWS = 32
"""Rows that one thread takes at a time; cell by cell, so that a rotated source is read from the cache."""
ONE, TWO, THREE = np.uintp(1), np.uintp(2), np.uintp(3)


@kernel_part
def _keys(x: float) -> Any:
    """Cubic convolution with a = -1/2 (Keys 1981, doi:10.1109/TASSP.1981.1163711, eq. 15)."""
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    if x < 2:
        return ((-0.5 * x + 2.5) * x - 4) * x + 2
    return 0.0


@kernel_part
def _four_weights(t: float) -> Any:
    """Return the weights of the four pixels around a position a share `t` of a pixel behind the second."""
    return (
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )


@kernel_part
def _four(source: np.ndarray, y: Any, x: Any, a0: float, a1: float, a2: float, a3: float) -> Any:
    return a0 * source[y, x] + a1 * source[y, x + ONE] + a2 * source[y, x + TWO] + a3 * source[y, x + THREE]


@kernel_part
def _along_row(nodes: np.ndarray, i: int, j: int, s: float, cell_rows: float, cell_cols: float) -> Any:
    """Return the value at the start of cell (i, j), a share `s` down, and its change per pixel along and down."""
    first = nodes[i, j] * (1 - s) + nodes[i + 1, j] * s
    last = nodes[i, j + 1] * (1 - s) + nodes[i + 1, j + 1] * s
    return first, (last - first) / cell_cols, (nodes[i + 1, j] - nodes[i, j]) / cell_rows


@kernel
def sample_cubic(
    block: int, source: np.ndarray, u_nodes: np.ndarray, v_nodes: np.ndarray, cell_rows: float, cell_cols: float,
    out: np.ndarray,
) -> None:  # fmt: skip
    """Fill a block of `BLOCK_ROWS` rows of `out` by cubic convolution; weights are renormalised over finite pixels.

    NaN where the nearest source pixel is not finite or the position lies outside the source.
    """
    height, width = source.shape
    wx = np.empty(8)
    for j in range(u_nodes.shape[1] - 1):
        start = math.ceil(j * cell_cols)
        stop = math.ceil((j + 1) * cell_cols) if j < u_nodes.shape[1] - 2 else out.shape[1]
        for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, out.shape[0])):
            i = min(int(r / cell_rows), u_nodes.shape[0] - 2)
            s = r / cell_rows - i
            u0, du, u_down = _along_row(u_nodes, i, j, s, cell_rows, cell_cols)
            v0, dv, v_down = _along_row(v_nodes, i, j, s, cell_rows, cell_cols)
            # Source pixels that a target pixel spans along the source's columns and rows.
            wide = math.hypot(du, u_down)
            high = math.hypot(dv, v_down)
            if not wide > WIDEN_FROM or not math.isfinite(wide):
                wide = 1.0
            if not high > WIDEN_FROM or not math.isfinite(high):
                high = 1.0
            plain = wide == 1.0 and high == 1.0
            reach_x = math.ceil(2 * wide)
            reach_y = math.ceil(2 * high)
            if wx.size < 2 * reach_x:
                wx = np.empty(2 * reach_x)
            for c in range(start, stop):
                out[r, c] = np.nan
                u = u0 + du * (c - j * cell_cols)
                v = v0 + dv * (c - j * cell_cols)
                if not (u >= -EDGE and v >= -EDGE and u + EDGE < width and v + EDGE < height):
                    continue
                nearest = source[np.uintp(v + EDGE), np.uintp(u + EDGE)]
                if not math.isfinite(nearest):
                    continue
                x0 = int(u + 0.5) - 1  # the pixel whose centre lies before the position; u + 0.5 is not negative
                y0 = int(v + 0.5) - 1
                if plain and x0 >= 1 and y0 >= 1 and x0 + 2 < width and y0 + 2 < height:
                    a0, a1, a2, a3 = _four_weights(u - 0.5 - x0)
                    b0, b1, b2, b3 = _four_weights(v - 0.5 - y0)
                    x, y = np.uintp(x0 - 1), np.uintp(y0 - 1)  # unsigned: no test for negative indices
                    total = (
                        b0 * _four(source, y, x, a0, a1, a2, a3)
                        + b1 * _four(source, y + ONE, x, a0, a1, a2, a3)
                        + b2 * _four(source, y + TWO, x, a0, a1, a2, a3)
                        + b3 * _four(source, y + THREE, x, a0, a1, a2, a3)
                    )
                    if math.isfinite(total):  # no pixel is missing, and the weights sum to one
                        out[r, c] = total
                        continue
                first_x = max(x0 - reach_x + 1, 0)
                last_x = min(x0 + reach_x, width - 1)
                for k in range(first_x, last_x + 1):
                    wx[k - first_x] = _keys((k + 0.5 - u) / wide)
                total = 0.0
                weights = 0.0
                for m in range(max(y0 - reach_y + 1, 0), min(y0 + reach_y, height - 1) + 1):
                    line = 0.0
                    line_weights = 0.0
                    for k in range(first_x, last_x + 1):
                        value = source[m, k]
                        if math.isfinite(value):
                            line += wx[k - first_x] * value
                            line_weights += wx[k - first_x]
                    weight = _keys((m + 0.5 - v) / high)
                    total += weight * line
                    weights += weight * line_weights
                out[r, c] = total / weights if weights > LEAST_WEIGHT * wide * high else nearest


@kernel
def sample_nearest(
    block: int, source: np.ndarray, u_nodes: np.ndarray, v_nodes: np.ndarray, cell_rows: float, cell_cols: float,
    outside: Any, out: np.ndarray,
) -> None:  # fmt: skip
    """Fill a block of `BLOCK_ROWS` rows of `out` from the source pixels that hold the positions, else `outside`."""
    height, width = source.shape
    for j in range(u_nodes.shape[1] - 1):
        start = math.ceil(j * cell_cols)
        stop = math.ceil((j + 1) * cell_cols) if j < u_nodes.shape[1] - 2 else out.shape[1]
        for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, out.shape[0])):
            i = min(int(r / cell_rows), u_nodes.shape[0] - 2)
            s = r / cell_rows - i
            u0, du, _ = _along_row(u_nodes, i, j, s, cell_rows, cell_cols)
            v0, dv, _ = _along_row(v_nodes, i, j, s, cell_rows, cell_cols)
            for c in range(start, stop):
                u = u0 + du * (c - j * cell_cols)
                v = v0 + dv * (c - j * cell_cols)
                if u >= -EDGE and v >= -EDGE and u + EDGE < width and v + EDGE < height:
                    out[r, c] = source[np.uintp(v + EDGE), np.uintp(u + EDGE)]
                else:
                    out[r, c] = outside
