"""Compiled loops over the pixels of rasters. Import where used: numba takes a second (`darts_utils.compiled`)."""

from typing import Any

import numpy as np

from darts_utils.compiled import kernel


@kernel
def encode_floats(
    block: int, rows_at_once: int, values: Any, low: float, high: float, scale: float, offset: float, nodata: int,
    avoided: int, out: Any,
) -> None:  # fmt: skip
    """Write the disk form of a float band, as `darts_utils.bands.encode` has it, bit by bit, in a tenth of its time.

    A value whose code would be `avoided` takes the next one; NaN becomes `nodata`.
    """
    for row in range(block * rows_at_once, min((block + 1) * rows_at_once, values.shape[0])):
        for column in range(values.shape[1]):
            value = np.float64(values[row, column])
            code = np.rint((min(max(value, low), high) - offset) / scale)
            code = code + 1 if code == avoided else code
            out[row, column] = code if value == value else nodata


@kernel
def halve(block: int, rows_at_once: int, values: Any, nodata: Any, whole: bool, out: Any) -> None:
    """Write the mean of the valid pixels of each 2 × 2, rounded to nearest if `whole`; `nodata` where none is valid.

    Neither `nodata` nor NaN is valid. At an odd edge fewer pixels are there.
    """
    height, width = values.shape
    shift = 0.5 if whole else 0.0
    for row in range(block * rows_at_once, min((block + 1) * rows_at_once, out.shape[0])):
        upper = values[2 * row]
        lower = values[min(2 * row + 1, height - 1)]
        twice = 1 if 2 * row + 1 < height else 0  # a last row that stands alone counts once
        for column in range(width // 2):
            a, b = upper[2 * column], upper[2 * column + 1]
            c, d = lower[2 * column], lower[2 * column + 1]
            valid_a, valid_b = (a == a) & (a != nodata), (b == b) & (b != nodata)
            valid_c, valid_d = (c == c) & (c != nodata), (d == d) & (d != nodata)
            number = valid_a + valid_b + twice * (valid_c + valid_d)
            total = (np.float64(a) if valid_a else 0.0) + (np.float64(b) if valid_b else 0.0)
            total += twice * ((np.float64(c) if valid_c else 0.0) + (np.float64(d) if valid_d else 0.0))
            mean = total / max(number, 1)
            out[row, column] = (np.floor(mean + shift) if whole else mean) if number > 0 else nodata
        if width % 2:
            a, c = upper[width - 1], lower[width - 1]
            valid_a, valid_c = (a == a) & (a != nodata), (c == c) & (c != nodata)
            number = valid_a + twice * valid_c
            total = (np.float64(a) if valid_a else 0.0) + twice * (np.float64(c) if valid_c else 0.0)
            mean = total / max(number, 1)
            out[row, width // 2] = (np.floor(mean + shift) if whole else mean) if number > 0 else nodata


@kernel
def mean_boxes(block: int, rows_at_once: int, values: Any, step: int, mean: Any) -> None:
    """Write the mean of the finite values under each pixel of a picture; NaN where less than half of them is finite.

    Of the rows under a pixel every `step`th counts. Where the picture is larger, pixels repeat.
    """
    height, width = values.shape
    rows, columns = mean.shape
    total = np.empty(width, np.float32)
    number = np.empty(width, np.int32)
    for row in range(block * rows_at_once, min((block + 1) * rows_at_once, rows)):
        top = row * height // rows
        bottom = max((row + 1) * height // rows, top + 1)
        total[:] = 0
        number[:] = 0
        lines = 0
        for y in range(top, bottom, step):
            line = values[y]
            lines += 1
            for x in range(width):
                value = np.float32(line[x])
                finite = value - value == 0
                total[x] += value if finite else np.float32(0)
                number[x] += finite
        for column in range(columns):
            left = column * width // columns
            right = max((column + 1) * width // columns, left + 1)
            under, valid = 0.0, 0
            for x in range(left, right):
                under += total[x]
                valid += number[x]
            mean[row, column] = under / valid if 2 * valid >= (right - left) * lines else np.nan
