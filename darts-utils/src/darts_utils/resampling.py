"""Kernels that sample rasters at the positions of another grid; `darts_utils.grids.align` calls them.

Positions come as nodes of a `CoarseField`: u counts columns and v rows of the source from its outer corner, so that
pixel j spans j … j + 1. Sources and outputs are contiguous. Import this module where it is used; it loads numba.
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
"""Rows that one thread takes at a time; run by run of columns, so that a rotated source is read from the cache."""
RUN = 128
"""Columns whose weights are worked out together, which runs on vector units; the kernel has one width over a run."""
MOST_TAPS = 8
"""Source pixels along one axis for which there are fast loops."""

# Sums may be taken in the order that suits the processor; NaN and infinity keep their meaning.
_quick_part = kernel_part(fastmath={"reassoc", "nsz", "contract"})

# Unsigned, so that there is no test for negative indices.
_1, _2, _3, _4 = (np.uint64(k) for k in range(1, 5))
_HALF, _ONE, _SESQUI, _TWO, _FIVE_HALVES, _FOUR = (np.float32(k) for k in (0.5, 1, 1.5, 2, 2.5, 4))


@kernel
def sample_cubic(
    block: int, sources: tuple[np.ndarray, ...], height: int, width: int, u_nodes: np.ndarray, v_nodes: np.ndarray,
    cell_rows: float, cell_cols: float, first_row: int, outs: tuple[np.ndarray, ...],
) -> None:  # fmt: skip
    """Fill a block of `BLOCK_ROWS` rows of each output by cubic convolution.

    Weights are renormalised over finite pixels. NaN where the nearest source pixel is not finite or the position lies
    outside the source.

    Args:
        block: number of the block.
        sources: bands of one raster, flattened, of one dtype.
        height, width: its shape.
        u_nodes, v_nodes, cell_rows, cell_cols: the positions over the whole target.
        first_row: row of the target that is the outputs' first.
        outs: for each band the target's columns of some rows.
    """
    rows, cols = outs[0].shape
    u_run, v_run = np.empty(RUN), np.empty(RUN)
    base = np.empty(RUN, np.int64)
    a = np.empty((MOST_TAPS + 3, RUN), np.float32)
    b = np.empty((MOST_TAPS + 3, RUN), np.float32)
    for start in range(0, cols, RUN):
        n = min(RUN, cols - start)
        u, v = u_run[:n], v_run[:n]
        for row in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, rows)):
            wide = _widened(_positions(u_nodes, row + first_row, start, cell_rows, cell_cols, u))
            high = _widened(_positions(v_nodes, row + first_row, start, cell_rows, cell_cols, v))
            taps_x = 2 * math.ceil(2 * wide)
            taps_y = 2 * math.ceil(2 * high)
            quick = taps_x <= MOST_TAPS and taps_y <= MOST_TAPS
            quick = quick and _all_within(u, taps_x // 2, width) and _all_within(v, taps_y // 2, height)
            if quick:
                _weights(u, taps_x, wide, base[:n], a, False, 1)
                _weights(v, taps_y, high, base[:n], b, True, width)
            for band in range(len(sources)):
                source, out = sources[band], outs[band][row, start : start + n]
                if quick:
                    _take(source, width, base, a, taps_x, b, taps_y, out)
                for k in range(n):
                    # What is missing makes the quick sum NaN.
                    if not (quick and math.isfinite(out[k])):
                        out[k] = _one(source, height, width, u[k], v[k], wide, high)


@kernel
def sample_nearest(
    block: int, source: np.ndarray, u_nodes: np.ndarray, v_nodes: np.ndarray, cell_rows: float, cell_cols: float,
    first_row: int, outside: Any, out: np.ndarray,
) -> None:  # fmt: skip
    """Fill a block of `BLOCK_ROWS` rows of `out` from the source pixels that hold the positions, else `outside`."""
    height, width = source.shape
    rows, cols = out.shape
    u_run, v_run = np.empty(RUN), np.empty(RUN)
    for start in range(0, cols, RUN):
        u, v = u_run[: cols - start], v_run[: cols - start]
        for row in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, rows)):
            _positions(u_nodes, row + first_row, start, cell_rows, cell_cols, u)
            _positions(v_nodes, row + first_row, start, cell_rows, cell_cols, v)
            for k in range(u.size):
                if u[k] >= -EDGE and v[k] >= -EDGE and u[k] + EDGE < width and v[k] + EDGE < height:
                    out[row, start + k] = source[np.uint64(v[k] + EDGE), np.uint64(u[k] + EDGE)]
                else:
                    out[row, start + k] = outside


@kernel_part
def _positions(
    nodes: np.ndarray, row: int, start: int, cell_rows: float, cell_cols: float, out: np.ndarray
) -> Any:  # fmt: skip
    """Fill a run of a row, from column `start` on, from a coarse field.

    Returns how many source pixels a target pixel spans: the least over the run, so that a jump, as at a pole, does not
    count.
    """
    i = min(int(row / cell_rows), nodes.shape[0] - 2)
    s = row / cell_rows - i
    j = min(int(start / cell_cols), nodes.shape[1] - 2)
    span = math.inf
    k = 0
    while k < out.size:
        left = nodes[i, j] * (1 - s) + nodes[i + 1, j] * s
        change = (nodes[i, j + 1] * (1 - s) + nodes[i + 1, j + 1] * s - left) / cell_cols
        span = min(span, math.hypot(change, (nodes[i + 1, j] - nodes[i, j]) / cell_rows))
        stop = min(math.ceil((j + 1) * cell_cols) - start, out.size) if j < nodes.shape[1] - 2 else out.size
        offset = start - j * cell_cols
        for m in range(k, stop):
            out[m] = left + change * (m + offset)
        k = max(k, stop)
        j += 1
    return span


@kernel_part
def _all_within(places: np.ndarray, reach: int, size: int) -> Any:
    """Return whether kernels that reach so many pixels to each side lie within the source at all places."""
    least, most = reach + 1.0, size - reach - 1.0  # one pixel more than needed, for rounding
    inside = True
    for k in range(places.size):
        inside = inside and places[k] >= least and places[k] <= most
    return inside


@kernel_part
def _widened(span: float) -> Any:
    return span if span > WIDEN_FROM and math.isfinite(span) else 1.0


@_quick_part
def _weights(
    places: np.ndarray, taps: int, wide: float, base: np.ndarray, weights: np.ndarray, add: bool, stride: int
) -> None:
    """Fill the weights (tap, column) along one axis for positions in pixels, and the first tap's index in `base`.

    A widened kernel's weights have their centre up to 0.04 pixels beside the position; what is moved between the two
    pixels next to it puts that right, so that a plane stays a plane. Three more rows of `weights` are room to work in.
    """
    reach = taps // 2
    for k in range(base.size):
        place = places[k] - 0.5
        before = int(place)  # the pixel whose centre lies before the position; `place` is not negative
        base[k] = (base[k] if add else 0) + (before - reach + 1) * stride
        weights[0, k] = place - before
    if wide == 1.0:
        for k in range(base.size):
            t = weights[0, k]
            weights[0, k] = ((-_HALF * t + _ONE) * t - _HALF) * t
            weights[1, k] = (_SESQUI * t - _FIVE_HALVES) * t * t + _ONE
            weights[2, k] = ((-_SESQUI * t + _TWO) * t + _HALF) * t
            weights[3, k] = (_HALF * t - _HALF) * t * t
        return
    narrow = np.float32(1 / wide)
    share, total, shift = weights[MOST_TAPS], weights[MOST_TAPS + 1], weights[MOST_TAPS + 2]
    for k in range(base.size):
        share[k] = weights[0, k]
        total[k] = shift[k] = 0
    for tap in range(taps):
        offset = np.float32(tap - reach + 1)
        for k in range(base.size):
            x = abs(offset - share[k]) * narrow
            near = (_SESQUI * x - _FIVE_HALVES) * x * x + _ONE
            far = ((-_HALF * x + _FIVE_HALVES) * x - _FOUR) * x + _TWO
            weight = near if x < _ONE else far if x < _TWO else np.float32(0)
            weights[tap, k] = weight
            total[k] += weight
            shift[k] += weight * (offset - share[k])
    for tap in range(taps):
        for k in range(base.size):
            weights[tap, k] /= total[k]
    for k in range(base.size):
        weights[reach - 1, k] += shift[k] / total[k]
        weights[reach, k] -= shift[k] / total[k]


@_quick_part
def _take(
    source: np.ndarray, width: int, base: np.ndarray, a: np.ndarray, taps_x: int, b: np.ndarray, taps_y: int,
    out: np.ndarray,
) -> None:  # fmt: skip
    """Fill a run of columns with the weighted sums. Differences to a pixel near by keep the precision of heights."""
    below = np.uint64(width)
    near = np.uint64((taps_y // 2 - 1) * width + taps_x // 2 - 1)
    if taps_x == 4 and taps_y == 4:
        for k in range(out.size):
            q = np.uint64(base[k])
            z = source[q + near]
            a0, a1, a2, a3 = a[0, k], a[1, k], a[2, k], a[3, k]
            total = b[0, k] * _dot4(source, q, z, a0, a1, a2, a3)
            q += below
            total += b[1, k] * _dot4(source, q, z, a0, a1, a2, a3)
            q += below
            total += b[2, k] * _dot4(source, q, z, a0, a1, a2, a3)
            q += below
            total += b[3, k] * _dot4(source, q, z, a0, a1, a2, a3)
            out[k] = z + total
        return
    for k in range(out.size):
        q = np.uint64(base[k])
        z = source[q + near]
        a0, a1, a2, a3 = a[0, k], a[1, k], a[2, k], a[3, k]
        total = z - z
        if taps_x == 4:
            for tap in range(taps_y):
                total += b[tap, k] * _dot4(source, q, z, a0, a1, a2, a3)
                q += below
        elif taps_x == 6:
            for tap in range(taps_y):
                part = _dot4(source, q, z, a0, a1, a2, a3)
                total += b[tap, k] * (part + _dot2(source, q + _4, z, a[4, k], a[5, k]))
                q += below
        else:
            for tap in range(taps_y):
                part = _dot4(source, q, z, a0, a1, a2, a3)
                total += b[tap, k] * (part + _dot4(source, q + _4, z, a[4, k], a[5, k], a[6, k], a[7, k]))
                q += below
        out[k] = z + total


@_quick_part
def _dot4(source: np.ndarray, q: Any, z: float, a0: float, a1: float, a2: float, a3: float) -> Any:
    return (
        a0 * (source[q] - z) + a1 * (source[q + _1] - z) + a2 * (source[q + _2] - z) + a3 * (source[q + _3] - z)
    )  # fmt: skip


@_quick_part
def _dot2(source: np.ndarray, q: Any, z: float, a0: float, a1: float) -> Any:
    return a0 * (source[q] - z) + a1 * (source[q + _1] - z)


@kernel_part
def _one(source: np.ndarray, height: int, width: int, u: float, v: float, wide: float, high: float) -> Any:
    """Return the value at one position, over whatever part of the kernel is there."""
    if not (u >= -EDGE and v >= -EDGE and u + EDGE < width and v + EDGE < height):
        return np.nan
    nearest = source[int(v + EDGE) * width + int(u + EDGE)]
    if not math.isfinite(nearest):
        return np.nan
    reach_x, reach_y = math.ceil(2 * wide), math.ceil(2 * high)
    x0 = int(u + 0.5) - 1  # the pixel whose centre lies before the position; u + 0.5 is not negative
    y0 = int(v + 0.5) - 1
    total_x, shift_x = _moments(u - 0.5 - x0, wide, reach_x)
    total_y, shift_y = _moments(v - 0.5 - y0, high, reach_y)
    total = weights = 0.0
    for m in range(max(y0 - reach_y + 1, 0), min(y0 + reach_y, height - 1) + 1):
        line = line_weights = 0.0
        for k in range(max(x0 - reach_x + 1, 0), min(x0 + reach_x, width - 1) + 1):
            value = source[m * width + k]
            if math.isfinite(value):
                weight = _weight(k + 0.5 - u, k - x0, wide, total_x, shift_x)
                line += weight * (value - nearest)
                line_weights += weight
        weight = _weight(m + 0.5 - v, m - y0, high, total_y, shift_y)
        total += weight * line
        weights += weight * line_weights
    return nearest + total / weights if weights > LEAST_WEIGHT else nearest


@kernel_part
def _moments(share: float, wide: float, reach: int) -> Any:
    """Return the sum of a kernel's weights and how far their centre lies behind the position, in pixels."""
    total = shift = 0.0
    for offset in range(1 - reach, reach + 1):
        weight = _keys((offset - share) / wide)
        total += weight
        shift += weight * (offset - share)
    return total, shift / total


@kernel_part
def _weight(distance: float, offset: int, wide: float, total: float, shift: float) -> Any:
    """Return a pixel's weight; `offset` is 0 for the pixel before the position. See `_weights`."""
    weight = _keys(distance / wide) / total
    if offset == 0:
        return weight + shift
    return weight - shift if offset == 1 else weight


@kernel_part
def _keys(x: float) -> Any:
    """Cubic convolution with a = -1/2 (Keys 1981, doi:10.1109/TASSP.1981.1163711, eq. 15)."""
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    if x < 2:
        return ((-0.5 * x + 2.5) * x - 4) * x + 2
    return 0.0
