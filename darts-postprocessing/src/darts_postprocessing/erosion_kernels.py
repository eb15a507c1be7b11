"""Erosion by a disk in two sweeps, whose time does not depend on the radius. Loads numba; import where it is used.

First come the rows from each pixel to the nearest invalid one in its column, capped at `far`, one more than the
radius. Then, along each row, a pixel n rows from an invalid one takes the pixels at most √(radius² − n²) columns to
either side: how far the pixels so far have reached is all that a sweep has to know. Whole numbers throughout, so it is
exact.
"""

import numpy as np

from darts_utils.compiled import kernel

BLOCK_COLUMNS = 1024
"""Columns of a block of the sweeps down and up."""
BLOCK_ROWS = 64
"""Rows of a block of the sweeps along rows."""


@kernel
def count_rows(block: int, valid: np.ndarray, far: int, near: np.ndarray) -> None:
    """Fill a block of columns of `near`, which may have more columns than the mask; those are far from everything."""
    dtype, height = near.dtype.type, len(valid)
    left = block * BLOCK_COLUMNS
    stop = min(left + BLOCK_COLUMNS, valid.shape[1])
    near[:, stop : left + BLOCK_COLUMNS] = far
    for r in range(height):
        here, before, ok = near[r, left:stop], near[max(r - 1, 0), left:stop], valid[r, left:stop]
        if r == 0:
            before[:] = far
        for c in range(len(here)):
            here[c] = dtype(ok[c]) * min(dtype(before[c] + dtype(1)), dtype(far))
    for r in range(height - 2, -1, -1):
        here, below = near[r, left:stop], near[r + 1, left:stop]
        for c in range(len(here)):
            here[c] = min(here[c], dtype(below[c] + dtype(1)))


@kernel
def reach_along_rows(
    block: int, near: np.ndarray, words: np.ndarray, far_word: int, reaches: np.ndarray, eroded: np.ndarray
) -> None:
    """Fill a block of rows of the eroded mask.

    Args:
        block: number of the block.
        near: of each pixel, the rows to the nearest invalid one.
        words: the same memory, several pixels a number, to step over those that are all far or all invalid.
        far_word: such a number of pixels that are all far.
        reaches: by number of rows, the columns taken to either side; of far pixels none.
        eroded: the result.
    """
    width = eroded.shape[1]
    pixels = near.shape[1] // words.shape[1]
    for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(eroded))):
        row, out = near[r], eroded[r]
        out[:] = True
        taken = -1
        for k in range(words.shape[1]):
            left, stop = k * pixels, min((k + 1) * pixels, width)
            if words[r, k] == far_word:
                out[left : min(stop, taken + 1)] = False
            elif words[r, k] == 0:
                out[left:stop] = False
                taken = stop - 1 + reaches[0]
            else:
                for c in range(left, stop):
                    taken = max(taken, c + reaches[row[c]])
                    out[c] = c > taken
        taken = width
        for k in range(words.shape[1] - 1, -1, -1):
            left, stop = k * pixels, min((k + 1) * pixels, width)
            if words[r, k] == far_word:
                out[max(left, taken) : stop] = False
            elif words[r, k] == 0:
                taken = left - reaches[0]
            else:
                for c in range(stop - 1, left - 1, -1):
                    taken = min(taken, c - reaches[row[c]])
                    out[c] &= c < taken
