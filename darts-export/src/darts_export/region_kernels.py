"""Compiled loops over the pixels on regions and around them, along their runs (`darts_utils.runs`)."""

from typing import Any

import numpy as np

from darts_utils.compiled import kernel, kernel_part


@kernel
def take_pixels(block: int, row_of: Any, start: Any, stop: Any, target: Any, values: Any, taken: Any) -> None:
    """Copy the pixels of each run to the place in `taken` that `target` names."""
    for run in range(len(start)):
        place = target[run]
        for x in range(start[run], stop[run]):
            taken[place] = values[row_of[run], x]
            place += 1


@kernel
def sum_up(block: int, regions_at_once: int, begin: Any, values: Any, figures: Any) -> None:
    """Write min, max, mean, median and population std of each region's finite values; NaN where it has none.

    The values of region k are `values[begin[k] : begin[k + 1]]`; they are left sorted, the finite ones first.
    """
    for region in range(block * regions_at_once, min((block + 1) * regions_at_once, len(begin) - 1)):
        part = values[begin[region] : begin[region + 1]]
        number = 0
        for index in range(len(part)):
            if np.isfinite(part[index]):
                part[number] = part[index]
                number += 1
        if number == 0:
            figures[:, region] = np.nan
            continue
        part = np.sort(part[:number])
        total = 0.0
        for value in part:
            total += value
        mean = total / number
        squares = 0.0
        for value in part:
            squares += (value - mean) ** 2
        figures[0, region] = part[0]
        figures[1, region] = part[number - 1]
        figures[2, region] = mean
        figures[3, region] = (np.float64(part[(number - 1) // 2]) + np.float64(part[number // 2])) / 2
        figures[4, region] = np.sqrt(squares / number)


@kernel
def look_around(
    block: int, regions_at_once: int, begin: Any, row_of: Any, start: Any, stop: Any, half_width: Any, valid: Any,
    around: Any, seen: Any,
) -> None:  # fmt: skip
    """Count, for each region, the pixels within a disk of it but not of it, and how many of them are `valid`.

    The runs of region k are `begin[k]` … `begin[k + 1]`, by row. `half_width[d]` is the disk's half width d rows from
    its centre. A row of the region grown by the disk is the union of its runs in the rows around, each made wider.
    """
    height, width = valid.shape
    radius = len(half_width) - 1
    first = np.empty(2 * radius + 1, np.int64)
    for region in range(block * regions_at_once, min((block + 1) * regions_at_once, len(begin) - 1)):
        low, end = begin[region], begin[region + 1]
        high = low
        number, number_valid = np.int64(0), np.int64(0)
        for run in range(low, end):
            number -= stop[run] - start[run]
            number_valid -= count_set(valid, row_of[run], start[run], stop[run])
        for row in range(row_of[low] - radius, row_of[end - 1] + radius + 1):
            while low < end and row_of[low] < row - radius:
                low += 1
            high = max(high, low)
            while high < end and row_of[high] <= row + radius:
                high += 1
            first[:] = high
            for run in range(low, high):
                if run == low or row_of[run] != row_of[run - 1]:
                    first[row_of[run] - row + radius] = run
            reached = np.int64(-(2**40))
            for _ in range(low, high):
                # The runs of one row are in order, so the next one begins first among those that come next in each row.
                nearest, begins, ends = -1, np.int64(2**40), np.int64(0)
                for place in range(2 * radius + 1):
                    run = first[place]
                    if run < high and row_of[run] - row + radius == place:
                        wider = half_width[abs(place - radius)]
                        if start[run] - wider < begins:
                            nearest, begins, ends = place, start[run] - wider, stop[run] + wider
                first[nearest] += 1
                begins = max(begins, reached)
                if ends > begins:
                    number += ends - begins
                    if 0 <= row < height:
                        number_valid += count_set(valid, row, max(begins, 0), min(ends, width))
                    reached = ends
        around[region], seen[region] = number, number_valid


@kernel_part
def count_set(mask: Any, row: int, start: int, stop: int) -> Any:
    """Return how many of a row's pixels from `start` to `stop` are set."""
    total = 0
    for x in range(start, stop):
        total += mask[row, x]
    return total
