"""Runs of pixels, found row by row, and joined to connected regions: no image of labels is made.

Loads numba; import this module where it is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from darts_utils.compiled import kernel, kernel_part

BLOCK_ROWS = 128
"""Rows of a block, which is the work of one core at a time."""


@dataclass(frozen=True)
class Runs:
    """Longest rows of neighbouring pixels above a limit, from top to bottom and left to right.

    Run i takes the columns `starts[i]` to `ends[i]` (exclusive); the runs of row r are numbers `first[r]` to
    `first[r + 1]` (exclusive).
    """

    first: np.ndarray
    """The number of each row's first run, and at last how many there are; int64."""
    starts: np.ndarray
    """The first column of each run, int32."""
    ends: np.ndarray
    """The column behind each run, int32."""

    @property
    def blocks(self) -> int:
        """How many blocks of `BLOCK_ROWS` rows there are."""
        return math.ceil((len(self.first) - 1) / BLOCK_ROWS)

    @property
    def rows(self) -> np.ndarray:
        """The row of each run, int32."""
        return np.repeat(np.arange(len(self.first) - 1, dtype="int32"), np.diff(self.first))

    def above(self, values: np.ndarray, limit: float) -> Runs:
        """Return the runs of `values` (y, x; contiguous) above a limit of their type within these; NaN is in none."""
        limit = values.dtype.type(limit)
        first = np.zeros_like(self.first)
        _count_runs(self.blocks, values, limit, self.first, self.starts, self.ends, first[1:])
        np.cumsum(first, out=first)
        starts, ends = np.empty((2, first[-1]), "int32")
        _find_runs(self.blocks, values, limit, self.first, self.starts, self.ends, first, starts, ends)
        return Runs(first, starts, ends)

    def connect(self, *, corners: bool = True) -> tuple[np.ndarray, int]:
        """Return the number of each run's connected region (int32), and how many regions there are.

        Regions are numbered from 0 in the order of their first pixels. With `corners` pixels that meet at a corner are
        connected (8-connectivity), else those that share a side (4-connectivity).
        """
        region, count = np.empty(len(self.starts), "int32"), np.zeros(1, "int64")
        reach = int(corners)
        _join_rows(self.blocks, reach, self.first, self.starts, self.ends, region)
        _join_blocks(1, reach, self.first, self.starts, self.ends, region)
        _number_regions(1, region, count)
        return region, int(count[0])


def find_runs(values: np.ndarray, limit: float = 0) -> Runs:
    """Return the runs of `values` (y, x; bool or a number) above a limit of their type; NaN is in none."""
    values = np.ascontiguousarray(values)
    height, width = values.shape
    first = np.arange(height + 1) if width else np.zeros(height + 1, "int64")
    whole_rows = Runs(first, np.zeros(first[-1], "int32"), np.full(first[-1], width, "int32"))
    return whole_rows.above(values.view("uint8") if values.dtype == bool else values, limit)


@kernel
def _count_runs(
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
def _find_runs(
    block: int, values: np.ndarray, limit: float, within_first: np.ndarray, within_starts: np.ndarray,
    within_ends: np.ndarray, first: np.ndarray, starts: np.ndarray, ends: np.ndarray,
) -> None:  # fmt: skip
    """Write the runs that `_count_runs` counted; rows without one are not looked at again."""
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
def _join_rows(
    block: int, reach: int, first: np.ndarray, starts: np.ndarray, ends: np.ndarray, before: np.ndarray
) -> None:
    """Join the runs of a block of rows that touch: by a side (reach 0), or also by a corner (1).

    `before[i]` becomes a run of the same region with a number of at most i.
    """
    top, stop = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(first) - 1)
    for i in range(first[top], first[stop]):
        before[i] = i
    for r in range(top + 1, stop):
        _join_row(r, reach, first, starts, ends, before)


@kernel
def _join_blocks(
    block: int, reach: int, first: np.ndarray, starts: np.ndarray, ends: np.ndarray, before: np.ndarray
) -> None:
    """Join across the seams of all blocks; there is one such block of work."""
    for r in range(BLOCK_ROWS, len(first) - 1, BLOCK_ROWS):
        _join_row(r, reach, first, starts, ends, before)


@kernel
def _number_regions(block: int, before: np.ndarray, count: np.ndarray) -> None:
    """Turn `before` into the number of each run's region, from 0 on, in the order of their first runs."""
    regions = 0
    for i in range(len(before)):
        if before[i] == i:
            before[i] = regions
            regions += 1
        else:
            # A region's first run has the lowest number, so it was numbered before.
            before[i] = before[before[i]]
    count[0] = regions


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
def _join_row(r: int, reach: int, first: np.ndarray, starts: np.ndarray, ends: np.ndarray, before: np.ndarray) -> None:
    """Join the runs of row r with those of the row above that they touch."""
    i, j = first[r - 1], first[r]
    while i < first[r] and j < first[r + 1]:
        # Ends are exclusive, so equal columns touch by a corner.
        if starts[j] < ends[i] + reach and starts[i] < ends[j] + reach:
            a, b = _root(before, i), _root(before, j)
            before[max(a, b)] = min(a, b)
        if ends[i] < ends[j]:
            i += 1
        else:
            j += 1


@kernel_part
def _root(before: np.ndarray, i: int) -> Any:
    while before[i] != i:
        before[i] = before[before[i]]
        i = before[i]
    return i
