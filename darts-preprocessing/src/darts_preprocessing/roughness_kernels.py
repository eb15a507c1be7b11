"""Loops for roughness. Import this module where it is used; it loads numba.

Rows are worked off in short loops without branches, which run on vector units. Results do not depend on the blocks.
"""

import math

import numpy as np

from darts_utils.compiled import kernel, kernel_part

ROWS = 64
"""Rows of a block where nothing but the 3×3 stencil lies around."""
WINDOW_ROWS = 256
"""Least rows of a block with a wider window; each block reads a window's height of rows besides."""
WINDOW_COLS = 1024
"""Least columns of a block with a wider window; what is kept of some rows then stays in the cache."""


@kernel
def ruggedness(block: int, dem: np.ndarray, riley: bool, out: np.ndarray) -> None:
    """Fill a block of `ROWS` rows with the differences to the eight neighbours: root of squares, or mean."""
    height, width = out.shape
    for r in range(block * ROWS, min((block + 1) * ROWS, height)):
        out[r] = math.nan
        if 0 < r < height - 1 and width > 2:
            if riley:
                _root_of_squares(dem[r - 1], dem[r], dem[r + 1], out[r, 1:-1])
            else:
                _mean_difference(dem[r - 1], dem[r], dem[r + 1], out[r, 1:-1])


@kernel_part
def _root_of_squares(n: np.ndarray, here: np.ndarray, s: np.ndarray, out: np.ndarray) -> None:
    for k in range(out.size):
        z = float(here[k + 1])
        total = (n[k] - z) ** 2 + (n[k + 1] - z) ** 2 + (n[k + 2] - z) ** 2
        total += (here[k] - z) ** 2 + (here[k + 2] - z) ** 2
        total += (s[k] - z) ** 2 + (s[k + 1] - z) ** 2 + (s[k + 2] - z) ** 2
        out[k] = math.sqrt(total) + total * 0  # infinity, which is missing, becomes NaN


@kernel_part
def _mean_difference(n: np.ndarray, here: np.ndarray, s: np.ndarray, out: np.ndarray) -> None:
    for k in range(out.size):
        z = float(here[k + 1])
        total = abs(n[k] - z) + abs(n[k + 1] - z) + abs(n[k + 2] - z) + abs(here[k] - z) + abs(here[k + 2] - z)
        total += abs(s[k] - z) + abs(s[k + 1] - z) + abs(s[k + 2] - z)
        out[k] = total / 8 + total * 0


def vector_ruggedness(dem: np.ndarray, dx: float, dy: float, rows: int, cols: int, out: np.ndarray) -> None:
    """Fill `out` with 1 - |sum of normals| / their number over windows that reach `rows` and `cols` to each side.

    Args:
        dem: elevation in metres; what is not finite is missing.
        dx, dy: size of a pixel in metres.
        rows, cols: reach of the window; what lies beyond the edge does not count.
        out: float32, of the DEM's shape.
    """
    # Normals are rounded to a step so large that sums over a window are exact: a running sum then gets rid of what it
    # leaves behind, and does not depend on where it began. A float64 plus 1.5 · 2^52 steps has no digits below a step.
    step = 2.0 ** (math.ceil(math.log2((2 * rows + 1) * (2 * cols + 1))) - 51)
    rows, cols = min(rows, out.shape[0]), min(cols, out.shape[1])
    block_rows, block_cols, across, blocks = _blocks(out, rows, cols)
    _vector_ruggedness(
        blocks, block_rows, block_cols, across, dem, 1 / (8 * dx), 1 / (8 * dy), 1.5 * 2.0**52 * step, rows, cols, out
    )


def _blocks(out: np.ndarray, rows: int, cols: int) -> tuple[int, int, int, int]:
    """Return rows and columns of a block, how many stand side by side, and how many there are."""
    block_rows, block_cols = max(WINDOW_ROWS, 2 * rows), max(WINDOW_COLS, 4 * cols)
    across = math.ceil(out.shape[1] / block_cols)
    return block_rows, block_cols, across, across * math.ceil(out.shape[0] / block_rows)


@kernel
def _vector_ruggedness(
    block: int, block_rows: int, block_cols: int, across: int, dem: np.ndarray, per_east: float, per_north: float,
    rounder: float, rows: int, cols: int, out: np.ndarray,
) -> None:  # fmt: skip
    first_row, first_col = block // across * block_rows, block % across * block_cols
    stop_row, stop_col = min(first_row + block_rows, out.shape[0]), min(first_col + block_cols, out.shape[1])
    # Columns that have normals and lie within reach, and where they begin in the sums.
    left, right = max(first_col - cols, 1), min(stop_col + cols, dem.shape[1] - 1)
    offset, inner, width = left - (first_col - cols), max(right - left, 0), stop_col - first_col
    sums = np.zeros((4, width + 2 * cols))  # east, north, up and number, of each column
    inside = sums[:, offset : offset + inner]
    windows = np.empty((4, width))
    scratch = np.empty((5, inner + 2))
    for r in range(first_row - 2 * rows, stop_row):
        if 0 < r + rows < dem.shape[0] - 1 and inner > 0:
            _add_normals(dem, r + rows, left, per_east, per_north, rounder, 1.0, scratch, inside)
        if r < first_row:
            continue
        if 0 < r - rows - 1 < dem.shape[0] - 1 and inner > 0 and r > first_row:
            _add_normals(dem, r - rows - 1, left, per_east, per_north, rounder, -1.0, scratch, inside)
        _sum_along(sums, 2 * cols, windows)
        _one_less_resultant(
            windows[0], windows[1], windows[2], windows[3], dem[r, first_col:stop_col], out[r, first_col:stop_col]
        )


@kernel_part
def _add_normals(
    dem: np.ndarray, y: int, left: int, per_east: float, per_north: float, rounder: float, sign: float,
    scratch: np.ndarray, sums: np.ndarray,
) -> None:  # fmt: skip
    """Add the normals of one row, from column `left` on, to the sums of each column, or take them off."""
    columns = slice(left - 1, left + 1 + sums.shape[1])
    inner = sums.shape[1]
    total, change = scratch[0], scratch[1]
    fall_x, fall_y, up = scratch[2, :inner], scratch[3, :inner], scratch[4, :inner]
    _across_rows(dem[y - 1, columns], dem[y, columns], dem[y + 1, columns], total, change)
    for k in range(inner):  # NaN where a pixel of the stencil is not finite
        fall_x[k] = (total[k + 2] - total[k]) * per_east + (total[k] + total[k + 1] + total[k + 2]) * 0
    for k in range(inner):
        fall_y[k] = (change[k] + 2 * change[k + 1] + change[k + 2]) * per_north
    for k in range(inner):
        up[k] = 1 / math.sqrt(1 + fall_x[k] * fall_x[k] + fall_y[k] * fall_y[k])
    _add(fall_x, up, rounder, sign, sums[0])
    _add(fall_y, up, rounder, sign, sums[1])
    _add_up(up, rounder, sign, sums[2], sums[3])


@kernel_part
def _across_rows(n: np.ndarray, here: np.ndarray, s: np.ndarray, total: np.ndarray, change: np.ndarray) -> None:
    for k in range(total.size):
        total[k] = float(n[k]) + 2 * float(here[k]) + float(s[k])
        change[k] = float(s[k]) - float(n[k])


@kernel_part
def _add(fall: np.ndarray, up: np.ndarray, rounder: float, sign: float, sums: np.ndarray) -> None:
    for k in range(sums.size):
        part = fall[k] * up[k]
        part = part if part == part else 0.0
        sums[k] += sign * ((part + rounder) - rounder)


@kernel_part
def _add_up(up: np.ndarray, rounder: float, sign: float, sums: np.ndarray, number: np.ndarray) -> None:
    for k in range(sums.size):
        part = up[k] if up[k] == up[k] else 0.0
        sums[k] += sign * ((part + rounder) - rounder)
        number[k] += sign if up[k] == up[k] else 0.0


@kernel_part
def _sum_along(sums: np.ndarray, reach: int, windows: np.ndarray) -> None:
    """Fill the sum over each pixel and the `reach` pixels after it."""
    east, north, up, number = sums[0], sums[1], sums[2], sums[3]
    x, y, z, n = east[:reach].sum(), north[:reach].sum(), up[:reach].sum(), number[:reach].sum()
    left_x = left_y = left_z = left_n = 0.0
    for k in range(windows.shape[1]):
        # In this order each sum waits for one addition only. The four stand side by side for the same reason.
        x += east[k + reach] - left_x
        y += north[k + reach] - left_y
        z += up[k + reach] - left_z
        n += number[k + reach] - left_n
        left_x, left_y, left_z, left_n = east[k], north[k], up[k], number[k]
        windows[0, k], windows[1, k], windows[2, k], windows[3, k] = x, y, z, n


@kernel_part
def _one_less_resultant(
    east: np.ndarray, north: np.ndarray, up: np.ndarray, number: np.ndarray, dem: np.ndarray, out: np.ndarray
) -> None:
    for k in range(out.size):
        up[k] = math.sqrt(east[k] * east[k] + north[k] * north[k] + up[k] * up[k])
    for k in range(out.size):
        value = 1 - up[k] / number[k]  # 0/0 is NaN: nothing around has a normal
        out[k] = (0.0 if value < 0 else value) + dem[k] * 0  # what is not finite times 0 is NaN


def dissection(dem: np.ndarray, rows: int, cols: int, out: np.ndarray) -> None:
    """Fill `out` with (z - min) / (max - min) over windows that reach `rows` and `cols` to each side.

    Args:
        dem: elevation; what is not finite is missing.
        rows, cols: reach of the window; what lies beyond the edge does not count.
        out: float32, of the DEM's shape.
    """
    rows, cols = min(rows, out.shape[0]), min(cols, out.shape[1])
    block_rows, block_cols, across, blocks = _blocks(out, rows, cols)
    _dissection(blocks, block_rows, block_cols, across, dem, rows, cols, out)


@kernel
def _dissection(
    block: int, block_rows: int, block_cols: int, across: int, dem: np.ndarray, rows: int, cols: int, out: np.ndarray
) -> None:
    """Extremes down the columns after van Herk (1992, doi:10.1016/0167-8655(92)90069-C), then along rows.

    Rows are cut into runs as long as the window is high: a window is the end of one run and the beginning of the next,
    whose extremes are known.
    """
    run_rows = 2 * rows + 1
    first_row, first_col = block // across * block_rows, block % across * block_cols
    stop_row, stop_col = min(first_row + block_rows, out.shape[0]), min(first_col + block_cols, out.shape[1])
    left, width = first_col - cols, stop_col - first_col + 2 * cols
    # Of heights, and of heights times -1: the least of those is the highest.
    ends = np.empty((2, run_rows + 1, width), np.float32)
    starts, scratch = np.empty((2, 2, width), np.float32), np.empty((2, 2, width), np.float32)
    ends[:, run_rows] = math.inf
    for run in range(first_row, stop_row, run_rows):
        starts[:, 0] = math.inf
        for side in range(2):
            for t in range(run_rows - 1, -1, -1):
                _lower(dem, run - rows + t, left, 1 - 2 * side, ends[side, t + 1], ends[side, t])
        for t in range(min(run_rows, stop_row - run)):
            for side in range(2):
                if t > 0:
                    known, least = starts[side, (t - 1) % 2], starts[side, t % 2]
                    _lower(dem, run + rows + t, left, 1 - 2 * side, known, least)
                _lesser(ends[side, t], starts[side, t % 2], scratch[side, 0])
            lowest = _least_along(scratch[0], 2 * cols + 1)
            minus_highest = _least_along(scratch[1], 2 * cols + 1)
            _share(dem[run + t, first_col:stop_col], lowest, minus_highest, out[run + t, first_col:stop_col])


@kernel_part
def _lower(dem: np.ndarray, y: int, left: int, sign: int, known: np.ndarray, out: np.ndarray) -> None:
    """Fill the least of what is known of each column and the valid pixels of one row, from column `left` on."""
    skip = max(-left, 0)
    stop = min(dem.shape[1] - left, out.size) if 0 <= y < dem.shape[0] else skip
    out[:skip] = known[:skip]
    out[stop:] = known[stop:]
    if skip < stop:
        _lower_by(dem[y, left + skip : left + stop], np.float32(sign), known[skip:stop], out[skip:stop])


@kernel_part
def _lower_by(row: np.ndarray, sign: float, known: np.ndarray, out: np.ndarray) -> None:
    for k in range(out.size):
        z = sign * row[k]
        out[k] = z if -math.inf < z < known[k] else known[k]


@kernel_part
def _lesser(first: np.ndarray, second: np.ndarray, out: np.ndarray) -> None:
    for k in range(out.size):
        out[k] = first[k] if first[k] < second[k] else second[k]


@kernel_part
def _least_along(values: np.ndarray, size: int) -> np.ndarray:
    """Return the least of each `size` neighbours in the first row of `values`; the second is for scratch.

    The least of twice as many neighbours is the lesser of two: few steps that run on vector units.
    """
    length, at, span = values.shape[1] - size + 1, 0, 1
    while 2 * span <= size:
        reach = values.shape[1] - 2 * span + 1
        _lesser(values[at, :reach], values[at, span : span + reach], values[1 - at, :reach])
        at, span = 1 - at, 2 * span
    _lesser(values[at, :length], values[at, size - span : size - span + length], values[1 - at, :length])
    return values[1 - at, :length]


@kernel_part
def _share(dem: np.ndarray, lowest: np.ndarray, minus_highest: np.ndarray, out: np.ndarray) -> None:
    for k in range(out.size):
        above, span = float(dem[k]) - float(lowest[k]), -float(minus_highest[k]) - float(lowest[k])
        # Where all are equally high both are 0. What is not finite times 0 is NaN.
        out[k] = above / (1.0 if span == 0 else span) + dem[k] * 0
