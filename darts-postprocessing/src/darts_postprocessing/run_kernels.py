"""Compiled loops over the runs of regions. Import this module where it is used; it loads numba.

A run is a longest row of neighbouring pixels above a limit. The runs of row r are numbers `first[r]` to `first[r + 1]`
(exclusive), from left to right; run i takes the columns `starts[i]` to `ends[i]` (exclusive).
"""

import numpy as np

from darts_utils.compiled import kernel, kernel_part

BLOCK_ROWS = 128
"""Rows of a block."""


@kernel
def count_runs(
    block: int, values: np.ndarray, limit: float, within_first: np.ndarray, within_starts: np.ndarray,
    within_ends: np.ndarray, counts: np.ndarray,
) -> None:  # fmt: skip
    """Count, row by row, the runs of `values` above `limit` that lie within other runs."""
    for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(counts))):
        count = 0
        for k in range(within_first[r], within_first[r + 1]):
            count += _count(values[r, within_starts[k] : within_ends[k]], limit)
        counts[r] = count


@kernel
def find_runs(
    block: int, values: np.ndarray, limit: float, within_first: np.ndarray, within_starts: np.ndarray,
    within_ends: np.ndarray, first: np.ndarray, starts: np.ndarray, ends: np.ndarray,
) -> None:  # fmt: skip
    """Write the runs that `count_runs` counted; rows without one are not looked at again."""
    edges = np.zeros((values.shape[1] + 8) // 8 * 8, np.uint8)
    eights = edges.view(np.uint64)
    for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(first) - 1)):
        i = first[r]
        for k in range(within_first[r], within_first[r + 1]):
            if i == first[r + 1]:
                break
            left, stop = within_starts[k], within_ends[k]
            _mark_edges(values[r, left:stop], limit, edges)
            inside = False
            for word in range((stop - left + 8) // 8):
                if eights[word] == 0:
                    continue
                for c in range(8 * word, 8 * word + 8):
                    if edges[c]:
                        if inside:
                            ends[i] = left + c
                            i += 1
                        else:
                            starts[i] = left + c
                        inside = not inside


@kernel
def join_rows(block: int, first: np.ndarray, starts: np.ndarray, ends: np.ndarray, before: np.ndarray) -> None:
    """Join the runs of a block of rows that touch, by side or corner.

    `before[i]` becomes a run of the same region with a number of at most i.
    """
    top, stop = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(first) - 1)
    for i in range(first[top], first[stop]):
        before[i] = i
    for r in range(top + 1, stop):
        _join_row(r, first, starts, ends, before)


@kernel
def join_blocks(block: int, first: np.ndarray, starts: np.ndarray, ends: np.ndarray, before: np.ndarray) -> None:
    """Join across the seams of all blocks; there is one such block of work."""
    for r in range(BLOCK_ROWS, len(first) - 1, BLOCK_ROWS):
        _join_row(r, first, starts, ends, before)


@kernel
def number_regions(block: int, before: np.ndarray, count: np.ndarray) -> None:
    """Turn `before` into the number of each run's region, from 0 on, in the order of their first runs."""
    regions = 0
    for i in range(len(before)):
        if before[i] == i:
            before[i] = regions
            regions += 1
        else:
            before[i] = before[before[i]]
    count[0] = regions


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
                out[r, starts[i] : ends[i]] = values[r, starts[i] : ends[i]]


@kernel
def copy_within(block: int, values: np.ndarray, extent: np.ndarray, out: np.ndarray) -> None:
    """Copy the values within the extent; all others become NaN."""
    for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(out))):
        for c in range(out.shape[1]):
            out[r, c] = values[r, c] if extent[r, c] else np.nan


# Comparisons with the pixel before, without a branch, run on vector units.


@kernel_part
def _count(values: np.ndarray, limit: float) -> int:
    count = np.int32(values[0] > limit)
    for c in range(1, len(values)):
        count += np.int32((values[c] > limit) and not (values[c - 1] > limit))
    return int(count)


@kernel_part
def _mark_edges(values: np.ndarray, limit: float, edges: np.ndarray) -> None:
    """Mark where runs begin and end (behind their last pixel), up to the end of the eight marks that hold the last."""
    size = len(values)
    edges[0] = values[0] > limit
    for c in range(1, size):
        edges[c] = (values[c] > limit) != (values[c - 1] > limit)
    edges[size] = values[size - 1] > limit
    edges[size + 1 : (size + 8) // 8 * 8] = 0


@kernel_part
def _join_row(r: int, first: np.ndarray, starts: np.ndarray, ends: np.ndarray, before: np.ndarray) -> None:
    """Join the runs of row r with those of the row above that they touch."""
    i, j = first[r - 1], first[r]
    while i < first[r] and j < first[r + 1]:
        # Ends are exclusive, so equal columns touch by a corner.
        if starts[j] <= ends[i] and starts[i] <= ends[j]:
            a, b = _root(before, i), _root(before, j)
            before[max(a, b)] = min(a, b)
        if ends[i] < ends[j]:
            i += 1
        else:
            j += 1


@kernel_part
def _root(before: np.ndarray, i: int) -> int:
    while before[i] != i:
        before[i] = before[before[i]]
        i = before[i]
    return i
