"""Compiled loops over the runs of a mask: finding them, and joining them to regions.

A run is a row's longest stretch of set pixels: `row`, `start`, `stop` (exclusive). Runs are in raster order; those of
row y are `first[y]` … `first[y + 1]`. Import where used: numba takes a second (`darts_utils.compiled`).
"""

from typing import Any

import numpy as np

from darts_utils.compiled import kernel, kernel_part

CHUNK_PX = 64
"""Chunks without a change of value, which are most, are found by one vectorised loop."""


@kernel
def count_runs(block: int, rows_at_once: int, mask: Any, counts: Any) -> None:
    """Count the runs of each row of `mask` (uint8, 0 and 1)."""
    for row in range(block * rows_at_once, min((block + 1) * rows_at_once, mask.shape[0])):
        line = mask[row]
        count = np.int64(line[0])
        for x in range(1, len(line)):
            count += line[x] > line[x - 1]
        counts[row] = count


@kernel
def find_runs(block: int, rows_at_once: int, mask: Any, first: Any, row_of: Any, start: Any, stop: Any) -> None:
    """Write the runs of each row."""
    for row in range(block * rows_at_once, min((block + 1) * rows_at_once, mask.shape[0])):
        run, last = first[row], first[row + 1]
        if run == last:
            continue
        line = mask[row]
        width = len(line)
        if line[0]:
            row_of[run], start[run] = row, 0
        for left in range(1, width, CHUNK_PX):
            right = min(left + CHUNK_PX, width)
            changes = np.uint8(0)
            for x in range(left, right):
                changes |= line[x] ^ line[x - 1]
            if changes == 0:
                continue
            for x in range(left, right):
                if line[x] > line[x - 1]:
                    row_of[run], start[run] = row, x
                elif line[x] < line[x - 1]:
                    stop[run] = x
                    run += 1
        if run < last:
            stop[run] = width


@kernel_part
def root_of(parent: Any, run: int) -> Any:
    """Return the first run of the region that a run belongs to, and shorten the way there."""
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


@kernel
def join_runs(block: int, reach: int, first: Any, start: Any, stop: Any, label: Any, count: Any) -> None:
    """Number regions from 0 by their first pixel; neighbours overlap by a pixel (reach 0) or meet at a corner (1)."""
    for run in range(len(start)):
        label[run] = run
    for row in range(1, len(first) - 1):
        above, end_above = first[row - 1], first[row]
        run, end = first[row], first[row + 1]
        while run < end and above < end_above:
            if start[above] < stop[run] + reach and start[run] < stop[above] + reach:
                a, b = root_of(label, above), root_of(label, run)
                label[max(a, b)] = min(a, b)
            if stop[above] < stop[run]:
                above += 1
            else:
                run += 1
    regions = 0
    for run in range(len(start)):
        # A root comes before its runs, so theirs is numbered already.
        if label[run] == run:
            label[run] = regions
            regions += 1
        else:
            label[run] = label[label[run]]
    count[0] = regions
