"""Means over disks by fast Fourier transforms: what they cost does not depend on the disk's area.

Each block of the output is convolved on its own (overlap-save), on all cores or on the GPU where the DEM lives. The
mean is taken of differences to a height near by, in single precision: errors stay below a millimetre (see the tests)
where heights differ by thousands of metres.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from darts_utils.arrays import array_namespace
from darts_utils.threads import on_all_cores

LEAST_SIDE = 480
MOST_SIDE = 2700
SIDE_OF_REACH = 18
"""Sides of the transformed squares in pixels, by the disk's reach: the margin of 2 × reach is transformed in vain, and
larger squares cost more a pixel."""

NOTES_OF_PIXEL = 0.75
"""Up to so many missing pixels times rows of half a disk for each pixel of a window, they are counted one by one."""
HIGHEST_M = 1e5
"""Heights beyond that are none: a nodata value that was not decoded must not spoil its whole block."""
LEAST_SHARE = 1 / 8
"""Where less of a disk is there, its block is computed in double precision."""


@dataclass(frozen=True)
class Disk:
    """Pixels around a centre, symmetric both ways: an ellipse, of which a smaller one may be left out."""

    outer: np.ndarray
    """For each row offset 0, 1, … the columns that it reaches to each side."""
    inner: np.ndarray
    """Likewise for the ellipse that is left out; -1 where it has no pixel. Of the same size."""

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns to each side of the centre."""
        return self.outer.size - 1, int(self.outer.max())

    @property
    def hollow(self) -> bool:
        """Whether the centre does not belong to it."""
        return bool(self.inner[0] >= 0)

    def pixels(self) -> np.ndarray:
        """Return the disk as an array of bool, the centre in its middle."""
        down, across = self.reach
        rows, cols = np.abs(np.arange(-down, down + 1)), np.abs(np.arange(-across, across + 1))
        return np.asarray((cols <= self.outer[rows, None]) & (cols > self.inner[rows, None]))


@dataclass(frozen=True)
class Blocks:
    """How a grid of rows or columns is worked off: in equal steps from its first pixel, whatever part is asked for."""

    step: int
    side: int
    """Pixels of the step with its margins, rounded up to a length that transforms fast."""

    @classmethod
    def of(cls, size: int, reach: int) -> "Blocks":
        """Return blocks for an axis of `size` pixels and a disk that reaches `reach` pixels to each side."""
        side = min(max(SIDE_OF_REACH * reach, LEAST_SIDE), max(MOST_SIDE, 4 * reach))
        step = math.ceil(size / math.ceil(size / (side - 2 * reach)))
        return cls(step, _fast_length(step + 2 * reach))

    def within(self, start: int, stop: int) -> list[int]:
        """Return the first pixels of the blocks that hold any of the pixels start … stop."""
        return list(range(start // self.step * self.step, stop, self.step))


def above_disk_mean(
    dem: Any, top: int, left: int, disk: Disk, out: Any, *, shape: tuple[int, int], first_row: int = 0
) -> None:
    """Fill `out` with elevation minus its mean over a disk around the pixel.

    Args:
        dem: elevation (y, x), float32; what is not finite, or more than 100 km, does not count, nor does what lies
            beyond the edge.
        top, left: pixel of the DEM under the output's first.
        disk: what is averaged.
        out: float32; NaN where the pixel or all pixels around are missing.
        shape: of the grid that `out` is a part of: all its columns, and the rows from `first_row` on.
        first_row: see `shape`. The numbers are the same to the last bit however the grid is parted by rows, if the
            DEM holds what `rows_needed` says.
    """
    xp = array_namespace(dem, out)
    down, across = Blocks.of(shape[0], disk.reach[0]), Blocks.of(shape[1], disk.reach[1])
    convolution = _Convolution(xp, (down.side, across.side), disk.pixels())
    area = int(disk.pixels().sum())
    top, origin = top - first_row, (disk.reach[0], disk.reach[1])

    def fill(block: tuple[int, int]) -> None:
        row, col = block
        height, width = min(down.step, shape[0] - row), min(across.step, shape[1] - col)
        window = _window(dem, top + row - origin[0], left + col - origin[1],
                         height + 2 * origin[0], width + 2 * origin[1], xp)  # fmt: skip
        above = _above_mean(window, disk, area, convolution, xp)
        first, last = max(row, first_row), min(row + height, first_row + out.shape[0])
        out[first - first_row : last - first_row, col : col + width] = above[first - row : last - row]

    blocks = [
        (row, col) for row in down.within(first_row, first_row + out.shape[0]) for col in across.within(0, shape[1])
    ]
    if xp is not np:
        for block in blocks:
            fill(block)
        return
    on_all_cores(fill, blocks)


def rows_needed(disk: Disk, rows: int, first: int, stop: int) -> tuple[int, int]:
    """Return from which to which row the DEM must reach so that rows first … stop of a grid of `rows` can be filled."""
    down = Blocks.of(rows, disk.reach[0])
    starts = down.within(first, stop)
    return starts[0] - disk.reach[0], min(starts[-1] + down.step, rows) + disk.reach[0]


def _window(dem: Any, top: int, left: int, height: int, width: int, xp: Any) -> Any:
    """Return a part of the DEM; NaN beyond its edge."""
    y, x = slice(max(top, 0), max(top + height, 0)), slice(max(left, 0), max(left + width, 0))
    inside = dem[y, x]
    if inside.shape == (height, width):
        return inside
    window = xp.full((height, width), np.float32(np.nan))
    y0, x0 = max(-top, 0), max(-left, 0)
    window[y0 : y0 + inside.shape[0], x0 : x0 + inside.shape[1]] = inside
    return window


def _above_mean(window: Any, disk: Disk, area: int, convolution: "_Convolution", xp: Any) -> Any:
    """Return elevation minus its mean over the disk for a window without its margins."""
    middle = tuple(slice(edge, size - edge) for edge, size in zip(disk.reach, window.shape, strict=True))
    valid = xp.abs(window) < HIGHEST_M
    complete = bool(valid.all())
    if not complete and not valid[middle].any():
        return xp.full_like(window[middle], np.nan)
    height = _height_near(window, valid, xp)

    def sums(dtype: Any) -> Any:
        room = convolution.room(dtype)
        local = room[: window.shape[0], : window.shape[1]]
        xp.subtract(window, height, out=local)
        if not complete:
            xp.copyto(local, dtype(0), where=~valid)
        return convolution.of(room)[middle]

    mean = sums(np.float32)
    if complete:
        mean *= np.float32(1 / area)
    else:
        number = _number_valid(valid, disk, area, convolution, xp)
        if float(number.min()) < LEAST_SHARE * area and bool((valid[middle] & (number < LEAST_SHARE * area)).any()):
            # Rounding goes with what a whole disk sums up to, and would be felt in the mean of few pixels.
            mean = sums(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean /= xp.where(number > 0, number, np.float32(np.nan)) if disk.hollow else number
    above = window[middle] - height
    above -= mean
    if not complete:
        xp.copyto(above, np.float32(np.nan), where=~valid[middle])
    return above


def _number_valid(valid: Any, disk: Disk, area: int, convolution: "_Convolution", xp: Any) -> Any:
    """Return how many valid pixels the disks hold, float32, for a window without its margins."""
    down, across = disk.reach
    missing = valid.size - int(xp.count_nonzero(valid))
    if xp is not np or missing * disk.outer.size > NOTES_OF_PIXEL * valid.size:
        room = convolution.room(np.float32)
        room[: valid.shape[0], : valid.shape[1]] = valid
        return xp.rint(convolution.of(room)[down : valid.shape[0] - down, across : valid.shape[1] - across])
    from darts_preprocessing.disk_counts import count_valid  # loads numba

    number = np.empty((valid.shape[0] - 2 * down, valid.shape[1] - 2 * across), np.float32)
    count_valid(1, valid, disk.outer, disk.inner, area, number)
    return number


def _height_near(window: Any, valid: Any, xp: Any) -> Any:
    """Return a height amid those of the window, as float32."""
    some = (slice(None, None, 8), slice(None, None, 8))
    chosen = window[some][valid[some]]
    if chosen.size == 0:
        chosen = window[valid]
    return chosen.mean(dtype=np.float64).astype(np.float32)


class _Convolution:
    """Sums over a disk around each pixel of an array; wrong near the edges, as far as the disk reaches."""

    def __init__(self, xp: Any, shape: tuple[int, int], pixels: np.ndarray) -> None:
        self.shape = shape
        self._xp = xp
        self._disk = _wrapped(shape, pixels)
        self._spectra: dict[str, Any] = {}

    def room(self, dtype: Any) -> Any:
        """Return an array of zeros to put values into."""
        return self._xp.zeros(self.shape, dtype)

    def of(self, values: Any) -> Any:
        """Return the sums; `values` may be overwritten."""
        if values.dtype.name not in self._spectra:
            self._spectra[values.dtype.name] = self._spectrum(values.dtype.name)
        spectrum = self._spectra[values.dtype.name]
        if self._xp is not np:
            return self._xp.fft.irfft2(self._xp.fft.rfft2(values) * spectrum, s=self.shape)
        import cv2

        # Without `nonzeroRows`, which takes OpenCV off its fast path.
        cv2.dft(values, dst=values)
        cv2.mulSpectrums(values, spectrum, 0, values)
        return cv2.dft(values, dst=values, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)

    def _spectrum(self, dtype: str) -> Any:
        if self._xp is not np:
            return self._xp.fft.rfft2(self._xp.asarray(self._disk.astype(dtype)))
        import cv2

        return cv2.dft(self._disk.astype(dtype))


def _wrapped(shape: tuple[int, int], pixels: np.ndarray) -> np.ndarray:
    """Return the disk with its centre at the array's first pixel, wrapped around the edges."""
    reach = pixels.shape[0] // 2, pixels.shape[1] // 2
    kernel = np.zeros(shape, np.float32)
    kernel[: pixels.shape[0], : pixels.shape[1]] = pixels
    return np.roll(kernel, (-reach[0], -reach[1]), axis=(0, 1))


def _fast_length(size: int) -> int:
    """Return the next length that transforms fast: a product of 2, 3 and 5, and even."""
    from scipy.fft import next_fast_len

    return 2 * int(next_fast_len(math.ceil(size / 2), real=True))
