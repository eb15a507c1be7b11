"""Compiled loops that trace the outlines of regions from their runs (`darts_utils.runs`)."""

from typing import Any

import numpy as np

from darts_utils.compiled import kernel

NONE = np.int32(-1)


@kernel
def find_corners(
    block: int, first: Any, start: Any, stop: Any, part: Any, x_of: Any, y_of: Any, after: Any, twin: Any,
    part_of: Any, count: Any,
) -> None:  # fmt: skip
    """Find all corners of outlines, and which corner comes after which on its ring.

    Rings keep set pixels on their left (y up). Where pixels meet at a corner alone, two corners are there, each other's
    `twin`, one for each pixel. From left to right, the corners on a line between rows begin and end an edge in turn.
    """
    height = len(first) - 1
    corners, widest = np.int64(0), np.int64(0)
    for row in range(height):
        widest = max(widest, first[row + 1] - first[row])
    top = np.empty(2 * widest, np.int32)  # corner at which the vertical edge through each toggle of the row above began
    new_top = np.empty(2 * widest, np.int32)
    for y in range(height + 1):
        begin_above, toggles_above = 0, 0
        if y > 0:
            begin_above, toggles_above = first[y - 1], 2 * (first[y] - first[y - 1])
        begin_below, toggles_below = 0, 0
        if y < height:
            begin_below, toggles_below = first[y], 2 * (first[y + 1] - first[y])
        i, j = 0, 0
        open_corner: Any = -1
        while i < toggles_above or j < toggles_below:
            run_a, run_b = begin_above + i // 2, begin_below + j // 2
            starts_a, starts_b = i % 2 == 0, j % 2 == 0
            x_a, x_b = np.int64(2**40), np.int64(2**40)
            if i < toggles_above:
                x_a = start[run_a] if starts_a else stop[run_a]
            if j < toggles_below:
                x_b = start[run_b] if starts_b else stop[run_b]
            if x_a == x_b and starts_a == starts_b:
                new_top[j] = top[i]
                i += 1
                j += 1
                continue
            ends, begins = x_a <= x_b, x_b <= x_a  # a vertical edge ends here, another begins
            upper = corners
            lower = corners + (1 if ends else 0)
            if ends:
                x_of[upper], y_of[upper], part_of[upper], twin[upper] = x_a, y, part[run_a], NONE
                if starts_a:
                    after[top[i]] = upper  # downwards on the left side of a run
                    after[upper] = NONE
                else:
                    after[upper] = top[i]
                corners += 1
                i += 1
            if begins:
                x_of[lower], y_of[lower], part_of[lower], twin[lower] = x_b, y, part[run_b], NONE
                after[lower] = NONE
                new_top[j] = lower
                corners += 1
                j += 1
            # Of two corners at one point, the one whose pixel lies to the left ends a horizontal edge.
            one, two = upper, lower
            if ends and begins:
                twin[upper], twin[lower] = lower, upper
                if starts_a:
                    one, two = lower, upper
            elif begins:
                one = lower
            for corner in range(2 if ends and begins else 1):
                here = one if corner == 0 else two
                # A corner that a vertical edge leads to goes on along its row; to the others their row leads.
                from_row = (not starts_a) if (ends and here == upper) else starts_b
                if open_corner < 0:
                    open_corner = here
                    continue
                if from_row:
                    after[open_corner] = here
                else:
                    after[here] = open_corner
                open_corner = -1
        top, new_top = new_top, top
    count[0] = corners


@kernel
def trace_rings(
    block: int, x_of: Any, y_of: Any, after: Any, twin: Any, ring_corner: Any, ring_end: Any, twice_area: Any,
    count: Any,
) -> None:  # fmt: skip
    """Write the corners of each ring one after another, where each ring ends, and twice its signed area in pixels.

    A way that comes to a point for the second time is split there, so that no ring touches itself. Outer rings have a
    positive area (y up), those of holes a negative one.
    """
    corners = len(after)
    place = np.full(corners, NONE, np.int32)  # of a corner on the way so far
    done = np.zeros(corners, np.bool_)
    way = np.empty(corners, np.int32)
    rings, written = 0, 0
    for begin in range(corners):
        if done[begin]:
            continue
        length = 0
        corner = begin
        while True:
            closing = done[corner]
            other = corner if closing else twin[corner]
            if closing or (other != NONE and place[other] != NONE):
                since = 0 if closing else place[other]
                area = np.int64(0)
                before = way[length - 1]
                for step in range(since, length):
                    here = way[step]
                    area += np.int64(x_of[here]) * y_of[before] - np.int64(x_of[before]) * y_of[here]
                    before = here
                    place[here] = NONE
                    ring_corner[written] = here
                    written += 1
                ring_end[rings], twice_area[rings] = written, area
                rings += 1
                length = since
            if closing:
                break
            done[corner] = True
            place[corner] = length
            way[length] = corner
            length += 1
            corner = after[corner]
    count[0] = rings
