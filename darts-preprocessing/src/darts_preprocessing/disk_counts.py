"""How many pixels of a disk are valid, where few are missing. Import this module where it is used; it loads numba."""

import numpy as np

from darts_utils.compiled import kernel, kernel_part


@kernel
def count_valid(
    block: int, valid: np.ndarray, outer: np.ndarray, inner: np.ndarray, area: int, out: np.ndarray
) -> None:  # fmt: skip
    """Fill `out`, float32, with the number of valid pixels in the disk around each pixel of a window but its margins.

    The cost goes with the number of missing pixels, not with the disk's area: a missing pixel is taken from the rows of
    the disks that reach it by noting, for each row of centres, where it begins to count and where it ends; that is
    summed up along the row.

    Args:
        block: always 0; a window is one block.
        valid: bool (y, x), with a margin of the disk's reach on all sides.
        outer, inner, area: the disk, see `disk_means.Disk`, and its number of pixels.
        out: the numbers, without the margins.
    """
    height, width = out.shape
    change = np.zeros((height, width + 1), np.int32)
    up, across = outer.size - 1, outer[0]  # a disk is widest at its centre
    for y in range(valid.shape[0]):
        for x in range(valid.shape[1]):
            if valid[y, x]:
                continue
            # Pixel (y, x) of the window is (y - up, x - across) of the output.
            for row in range(max(y - 2 * up, 0), min(y, height - 1) + 1):
                offset = abs(row + up - y)
                _note(change[row], x - across, outer[offset], -1)
                if inner[offset] >= 0:
                    _note(change[row], x - across, inner[offset], 1)
    for row in range(height):
        number = area
        for col in range(width):
            number += change[row, col]
            out[row, col] = number


@kernel_part
def _note(change: np.ndarray, place: int, half: int, sign: int) -> None:
    """Note that a pixel counts for the centres up to `half` columns to each side."""
    start, stop = max(place - half, 0), min(place + half + 1, change.size - 1)
    if start < stop:
        change[start] += sign
        change[stop] -= sign
