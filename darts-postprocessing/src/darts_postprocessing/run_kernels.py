"""Compiled loops over the pixels of regions, along their runs (`darts_utils.runs`); import where used: it loads numba.

`region` holds the number of each run's region.
"""

import numpy as np

from darts_utils.compiled import kernel
from darts_utils.runs import BLOCK_ROWS


@kernel
def measure(
    block: int, first: np.ndarray, starts: np.ndarray, ends: np.ndarray, region: np.ndarray, extent: np.ndarray,
    size: np.ndarray, reaches_out: np.ndarray, row_sum: np.ndarray, column_sum: np.ndarray,
) -> None:  # fmt: skip
    """Add up pixels, their rows and their columns by region, and note which has a pixel outside `extent`."""
    for r in range(len(first) - 1):
        for i in range(first[r], first[r + 1]):
            start, end = np.int64(starts[i]), np.int64(ends[i])
            k = region[i]
            size[k] += end - start
            row_sum[k] += r * (end - start)
            column_sum[k] += (start + end - 1) * (end - start) // 2
            if not reaches_out[k]:
                reaches_out[k] = not extent[r, start:end].all()


@kernel
def find_peaks(
    block: int, first: np.ndarray, starts: np.ndarray, ends: np.ndarray, region: np.ndarray, values: np.ndarray,
    peak: np.ndarray,
) -> None:  # fmt: skip
    """Raise `peak` of each region to its largest value."""
    for r in range(len(first) - 1):
        for i in range(first[r], first[r + 1]):
            highest = peak[region[i]]
            for c in range(starts[i], ends[i]):
                highest = max(highest, values[r, c])
            peak[region[i]] = highest


@kernel
def count_class(
    block: int, first: np.ndarray, starts: np.ndarray, ends: np.ndarray, region: np.ndarray, classes: np.ndarray,
    wanted: int, count: np.ndarray,
) -> None:  # fmt: skip
    """Count the pixels of one class by region."""
    for r in range(len(first) - 1):
        for i in range(first[r], first[r + 1]):
            pixels = 0
            for c in range(starts[i], ends[i]):
                pixels += classes[r, c] == wanted
            count[region[i]] += pixels


@kernel
def paint(
    block: int, first: np.ndarray, starts: np.ndarray, ends: np.ndarray, region: np.ndarray, chosen: np.ndarray,
    out: np.ndarray,
) -> None:  # fmt: skip
    """Set the pixels of chosen regions True."""
    for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(first) - 1)):
        for i in range(first[r], first[r + 1]):
            if chosen[region[i]]:
                out[r, starts[i] : ends[i]] = True


@kernel
def copy_values(
    block: int, first: np.ndarray, starts: np.ndarray, ends: np.ndarray, region: np.ndarray, chosen: np.ndarray,
    values: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """Copy the values of chosen regions; all others become NaN."""
    for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(first) - 1)):
        out[r] = np.nan
        for i in range(first[r], first[r + 1]):
            if chosen[region[i]]:
                for c in range(starts[i], ends[i]):  # a copy of slices takes 4 s longer to compile
                    out[r, c] = values[r, c]


@kernel
def copy_within(block: int, values: np.ndarray, extent: np.ndarray, out: np.ndarray) -> None:
    """Copy the values within the extent; all others become NaN."""
    for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(out))):
        for c in range(out.shape[1]):
            out[r, c] = values[r, c] if extent[r, c] else np.nan
