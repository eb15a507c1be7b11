"""Sums over disks by running sums along rows. Import this module where it is used; it loads numba."""

import math

import numpy as np

from darts_utils.compiled import kernel, kernel_part

BLOCK_COLS = 512
"""Columns of a block; the running sums of one disk's rows then stay in the cache."""
BLOCK_ROWS = 256
"""Least rows of a block; each block sums a disk's height of rows anew."""


def above_disk_mean(
    dem: np.ndarray, top: int, left: int, outer: np.ndarray, inner: np.ndarray, out: np.ndarray
) -> None:
    """Fill `out` with elevation minus its mean over a disk around the pixel, of which a smaller disk is left out.

    Args:
        dem: elevation; what is not finite does not count, nor does what lies beyond the edge.
        top, left: pixel of the DEM under the output's first.
        outer: for each row offset 0, 1, … the columns that the disk reaches to each side.
        inner: likewise for the disk that is left out, -1 where it has no pixel.
        out: float32; NaN where the pixel or all pixels around are missing.
    """
    block_rows = max(BLOCK_ROWS, 4 * outer.size)
    down, across = math.ceil(out.shape[0] / block_rows), math.ceil(out.shape[1] / BLOCK_COLS)
    _above_disk_mean(down * across, block_rows, across, dem, top, left, outer, inner, out)


@kernel_part
def _add_row(running: np.ndarray, half: int, reach: int, sign: int, total: np.ndarray) -> None:
    """Add to each pixel's total what lies up to `half` columns away in one row, from the row's running sum."""
    # Slices of equal length, so that the loop is free of index checks and runs on vector units.
    behind = running[reach + half + 1 : reach + half + 1 + total.size]
    before = running[reach - half : reach - half + total.size]
    if sign > 0:
        for c in range(total.size):
            total[c] += behind[c] - before[c]
    else:
        for c in range(total.size):
            total[c] -= behind[c] - before[c]


@kernel_part
def _run_along(dem: np.ndarray, y: int, first: int, sums: np.ndarray, counts: np.ndarray) -> int:
    """Fill the running sum and number of one row's valid pixels from column `first` on; return their number."""
    running = 0.0
    number = 0
    inside = 0 <= y < dem.shape[0]
    for k in range(sums.size - 1):
        x = first + k
        if inside and 0 <= x < dem.shape[1] and math.isfinite(dem[y, x]):
            running += dem[y, x]
            number += 1
        sums[k + 1] = running
        counts[k + 1] = number
    return number


@kernel
def _above_disk_mean(
    block: int, block_rows: int, blocks_across: int, dem: np.ndarray, top: int, left: int, outer: np.ndarray,
    inner: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    up = outer.size - 1
    ring = 2 * up + 1
    reach = outer[0]
    area = 0
    for offset in range(-up, up + 1):
        area += 2 * outer[abs(offset)] + 1
        if inner[abs(offset)] >= 0:
            area -= 2 * inner[abs(offset)] + 1
    height, width = out.shape
    first_row, first_col = block // blocks_across * block_rows, block % blocks_across * BLOCK_COLS
    stop_row, cols = min(first_row + block_rows, height), min(BLOCK_COLS, width - first_col)
    around = cols + 2 * reach
    # Running sums of the rows that the disk covers now, each kept at its row number modulo their count.
    sums = np.zeros((ring, around + 1))
    counts = np.zeros((ring, around + 1), np.int32)
    gaps = np.zeros(ring, np.int64)
    total = np.empty(cols)
    count = np.empty(cols, np.int32)
    for y in range(first_row + top - up, stop_row + top + up):
        at = y % ring
        gaps[at] = around - _run_along(dem, y, first_col + left - reach, sums[at], counts[at])
        r = y - top - up  # the row whose disk is complete now
        if r < first_row:
            continue
        total[:] = 0
        for offset in range(-up, up + 1):
            at = (r + top + offset) % ring
            _add_row(sums[at], outer[abs(offset)], reach, 1, total)
            if inner[abs(offset)] >= 0:
                _add_row(sums[at], inner[abs(offset)], reach, -1, total)
        if gaps.sum() == 0:
            count[:] = area
        else:
            count[:] = 0
            for offset in range(-up, up + 1):
                at = (r + top + offset) % ring
                _add_row(counts[at], outer[abs(offset)], reach, 1, count)
                if inner[abs(offset)] >= 0:
                    _add_row(counts[at], inner[abs(offset)], reach, -1, count)
        for c in range(cols):
            here = dem[r + top, first_col + left + c]
            if math.isfinite(here) and count[c] > 0:
                out[r, first_col + c] = here - total[c] / count[c]
            else:
                out[r, first_col + c] = math.nan
