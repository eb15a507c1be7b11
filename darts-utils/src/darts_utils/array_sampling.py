"""The kernels of `darts_utils.resampling` as plain array code, for arrays on a GPU.

Everything is a slice, a gather or arithmetic on whole arrays, which numpy and cupy share: on a GPU each is one launch
over many pixels, and on numpy the tests can compare it with the kernels. Coarse fields stay on the host; what is
uploaded of them is a few numbers per row and cell. The constants stay in the kernels' module, since compiled code kept
on disk notices no change in another; it loads numba, and is imported where it is used.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from darts_utils.arrays import array_namespace, on_device_of

BLOCK_ROWS = 512
"""Rows of the target worked on at a time. Enough that a step takes a GPU longer than its launch (5.6 million pixels of
a Sentinel-2 tile), and few enough that the scratch memory of some 110 bytes a pixel stays at 0.6 GB."""
WEIGHTS_AT_ONCE = 8
"""Weights kept per pixel; where a kernel has more, the block is taken in parts."""
MOST_REACH = 16
"""Source pixels to each side up to which a kernel is summed tap by tap. A target pixel with a larger kernel covers
hundreds of them; lines of taps are then an axis of their own, which takes fewer launches."""
LINE_ELEMENTS = 2**21
"""Taps of one line of the kernel that are gathered at a time where they are an axis."""
SHORT_INDEX = 2**31
"""Sources of fewer pixels are indexed by 32 bits, which saves a third of what a tap reads and writes."""


def sample_cubic(
    sources: tuple[Any, ...], u_nodes: np.ndarray, v_nodes: np.ndarray, cell_rows: float, cell_cols: float,
    first_row: int, outs: tuple[Any, ...],
) -> None:  # fmt: skip
    """Fill the outputs by cubic convolution; weights are renormalised over finite pixels.

    NaN where the nearest source pixel is not finite or the position lies outside the source.

    Args:
        sources: bands (row, column) of one raster, of one floating dtype; contiguous, or they are copied.
        u_nodes, v_nodes, cell_rows, cell_cols: the positions over the whole target, on the host.
        first_row: row of the target that is the outputs' first.
        outs: for each band the target's columns of some rows, where the sources live.

    Raises:
        DeviceError: arrays live on different devices.
    """
    from darts_utils.resampling import EDGE, RUN  # loads numba

    xp = array_namespace(*sources, *outs)
    height, width = sources[0].shape
    rows, cols = outs[0].shape
    # Sums meet NaN and infinity, and what comes of them is sorted out afterwards.
    with on_device_of(sources[0]), np.errstate(all="ignore"):
        columns = Columns(xp, cols, u_nodes.shape[1] - 1, cell_cols)
        # As in the compiled kernel, a run of columns has one width of the kernel.
        run = xp.asarray(np.arange(cols) // RUN)
        runs = [(int(columns.cells[at]), int(columns.cells[min(at + RUN, cols) - 1])) for at in range(0, cols, RUN)]
        for start in range(0, rows, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, rows)
            u_lines, v_lines = (
                Lines.of(nodes, cell_rows, cell_cols, start + first_row, stop + first_row)
                for nodes in (u_nodes, v_nodes)
            )
            u, v = columns.values(u_lines), columns.values(v_lines)
            inside = (u >= -EDGE) & (v >= -EDGE) & (u + EDGE < width) & (v + EDGE < height)
            # Of a position that is NaN no index can be made.
            u, v = xp.where(inside, u, 0.5), xp.where(inside, v, 0.5)
            wide, high = _widened(u_lines, runs), _widened(v_lines, runs)
            pixels = _Pixels(
                inside, u, v, _per_pixel(xp, wide, run), _per_pixel(xp, high, run), wide.max(), high.max()
            )  # fmt: skip
            for members, reach in _groups(_reach(wide, width), _reach(high, height)):
                if members is None:
                    for part in _parts(stop - start, reach):
                        values = _convolve(xp, sources, pixels.at(part), *reach)
                        for out, value in zip(outs, values, strict=True):
                            out[start + part.start : start + part.stop] = value
                else:
                    row, col = xp.nonzero(xp.take(xp.asarray(members), run, axis=1))
                    for part in _parts(len(row), reach):
                        place = row[part], col[part]
                        values = _convolve(xp, sources, pixels.at(place), *reach)
                        for out, value in zip(outs, values, strict=True):
                            out[start:stop][place] = value


def sample_nearest(
    source: Any, u_nodes: np.ndarray, v_nodes: np.ndarray, cell_rows: float, cell_cols: float, first_row: int,
    outside: Any, out: Any,
) -> None:  # fmt: skip
    """Fill `out` from the source pixels that hold the positions, else with the scalar `outside`; see `sample_cubic`."""
    from darts_utils.resampling import EDGE  # loads numba

    xp = array_namespace(source, out)
    height, width = source.shape
    with on_device_of(source), np.errstate(all="ignore"):
        flat = source.reshape(-1)
        columns = Columns(xp, out.shape[1], u_nodes.shape[1] - 1, cell_cols)
        for start in range(0, out.shape[0], BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, out.shape[0])
            u, v = (
                columns.values(Lines.of(nodes, cell_rows, cell_cols, start + first_row, stop + first_row)) + EDGE
                for nodes in (u_nodes, v_nodes)
            )
            inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
            u, v = xp.where(inside, u, 0), xp.where(inside, v, 0)
            out[start:stop] = xp.where(inside, flat[_pixel_at(flat, u, v, width)], outside)


@dataclass(frozen=True)
class Lines:
    """A coarse field along some rows: within each cell a straight line, of which float64 (row, cell) are kept."""

    first: np.ndarray
    """The value at the start of the cell."""
    step: np.ndarray
    """Its change per column."""
    down: np.ndarray
    """Its change per row at the start of the cell."""

    @classmethod
    def of(cls, nodes: np.ndarray, cell_rows: float, cell_cols: float, start: int, stop: int) -> "Lines":
        """Return the lines of rows start … stop of a field's nodes."""
        place = np.arange(start, stop) / cell_rows
        i = np.minimum(place.astype("int64"), nodes.shape[0] - 2)
        share = (place - i)[:, None]
        line = nodes[i] * (1 - share) + nodes[i + 1] * share
        down = (nodes[i + 1] - nodes[i])[:, :-1] / cell_rows
        return cls(line[:, :-1], (line[:, 1:] - line[:, :-1]) / cell_cols, down)


class Columns:
    """The columns of a target, and the cells of a coarse field that they lie in."""

    def __init__(self, xp: ModuleType, count: int, cells: int, cell_cols: float) -> None:
        columns = np.arange(count)
        self.cells = np.searchsorted(np.ceil(np.arange(1, cells) * cell_cols), columns, side="right")
        self._xp = xp
        self._cells = xp.asarray(self.cells)
        self._beyond = xp.asarray(columns - self.cells * cell_cols)

    def values(self, lines: Lines) -> Any:
        """Return the field, float64 (row, column), where the columns live."""
        first, step = (self._xp.take(self._xp.asarray(part), self._cells, axis=1) for part in (lines.first, lines.step))
        step *= self._beyond
        step += first
        return step


@dataclass(frozen=True)
class _Pixels:
    """Some pixels of the target: where each lies in the source, and how many source pixels its kernel is widened to."""

    inside: Any
    u: Any
    v: Any
    wide: Any
    high: Any
    most_wide: float
    """The largest of `wide`, on the host."""
    most_high: float

    def at(self, place: Any) -> "_Pixels":
        """Return a part of them: rows, or a list of pixels."""
        wide, high = self.wide, self.high
        if not isinstance(place, slice):
            xp = array_namespace(self.u)
            wide, high = xp.broadcast_to(wide, self.u.shape), xp.broadcast_to(high, self.u.shape)
        return _Pixels(
            self.inside[place], self.u[place], self.v[place], wide[place], high[place], self.most_wide, self.most_high
        )  # fmt: skip


def _widened(lines: Lines, runs: list[tuple[int, int]]) -> np.ndarray:
    """Return by row and run of columns how many source pixels a target pixel spans, where that widens the kernel.

    Else it is 1. The least over the run's cells, from the first to the last, counts.
    """
    from darts_utils.resampling import WIDEN_FROM  # loads numba

    by_cell = np.hypot(lines.step, lines.down)
    span = np.stack([np.fmin.reduce(by_cell[:, first : last + 1], axis=1) for first, last in runs], axis=1)
    return np.where(np.isfinite(span) & (span > WIDEN_FROM), span, 1.0)


def _per_pixel(xp: ModuleType, by_run: np.ndarray, run: Any) -> Any:
    """Return by (row, column) what the host holds by (row, run), or one column that stands for all."""
    one = by_run[:, :1]
    return xp.asarray(one) if (by_run == one).all() else xp.take(xp.asarray(by_run), run, axis=1)


def _reach(wide: np.ndarray, size: int) -> np.ndarray:
    """Return how many source pixels a kernel reaches to each side; more than the source has make no difference."""
    return np.minimum(np.ceil(2 * wide), size).astype("int64")


def _groups(across: np.ndarray, down: np.ndarray) -> Iterator[tuple[np.ndarray | None, tuple[int, int]]]:
    """Yield groups of (row, run) with kernels of similar size, None for all, and how far the largest reaches."""
    doublings = np.ceil(np.log2(np.maximum(across, down)))
    for doubling in np.unique(doublings):
        members = doublings == doubling
        yield None if members.all() else members, (int(across[members].max()), int(down[members].max()))


def _parts(count: int, reach: tuple[int, int]) -> Iterator[slice]:
    """Yield parts of rows or of a list such that the weights of their kernels take no more memory than usual."""
    parts = math.ceil(2 * sum(reach) / WEIGHTS_AT_ONCE) if max(reach) <= MOST_REACH else 1
    length = max(math.ceil(count / parts), 1)
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


def _convolve(xp: ModuleType, sources: tuple[Any, ...], pixels: _Pixels, reach_x: int, reach_y: int) -> Iterator[Any]:
    """Yield for each band the values at pixels whose kernels reach no further than `reach_x`, `reach_y`."""
    from darts_utils.resampling import EDGE  # loads numba

    height, width = sources[0].shape
    quick = max(reach_x, reach_y) <= MOST_REACH and 2 * reach_x <= width and 2 * reach_y <= height
    if quick:
        dtype = sources[0].dtype
        x, complete, across = _taps(xp, pixels.u, pixels.wide, reach_x, width, dtype)
        y, complete_y, down = _taps(xp, pixels.v, pixels.high, reach_y, height, dtype)
        complete &= complete_y
        first = _pixel_at(sources[0], x, y, width)
        del x, y, complete_y
    nearest_at = _pixel_at(sources[0], pixels.u + EDGE, pixels.v + EDGE, width)
    for source in sources:
        flat = source.reshape(-1)
        nearest = flat[nearest_at]
        there = xp.isfinite(nearest)
        there &= pixels.inside
        values = xp.where(there, nearest, xp.nan)
        if quick:
            values += _weighted_sum(xp, flat, first, width, across, down, nearest)
            # What is missing has made the sum NaN or infinite, also under a weight of 0.
            there &= ~(complete & xp.isfinite(values))
        found = xp.nonzero(there)
        at_once = max(LINE_ELEMENTS // (2 * reach_x), 1)
        for start in range(0, len(found[0]), at_once):
            place = tuple(axis[start : start + at_once] for axis in found)
            values[place] = _over_what_is_there(xp, source, pixels.at(place), nearest[place], reach_x, reach_y)
        yield values


def _pixel_at(flat: Any, x: Any, y: Any, width: int) -> Any:
    """Return where pixels (x, y), not negative, lie in a flattened source; parts of a pixel are cut off."""
    index = "int32" if flat.size < SHORT_INDEX else "int64"
    return y.astype(index) * width + x.astype(index)


def _taps(xp: ModuleType, at: Any, wide: Any, reach: int, size: int, dtype: Any) -> tuple[Any, Any, list[Any]]:
    """Return along one axis the first source pixel under each kernel, whether all taps lie in the source, and weights.

    Where they do not, the first is moved so that the gather stays inside; what comes of it is of no use.
    """
    before = xp.floor(at - 0.5)  # the pixel whose centre lies before the position
    share = (at - 0.5 - before).astype(dtype)
    first = before - (reach - 1)
    held = xp.clip(first, 0, size - 2 * reach)
    if reach == 2:  # not widened
        return held, held == first, [_far(1 + share), _near(share), _near(1 - share), _far(2 - share)]
    narrow = (1 / wide).astype(dtype)
    weights = [_keys(xp, (tap - share) * narrow) for tap in range(1 - reach, reach + 1)]
    total, shift = _moments(share, zip(range(1 - reach, reach + 1), weights, strict=True))
    weights = [weight / total for weight in weights]
    weights[reach - 1] += shift
    weights[reach] -= shift
    return held, held == first, weights


def _moments(share: Any, taps: Iterable[tuple[int, Any]]) -> tuple[Any, Any]:
    """Return the sum of the taps' weights, and how far their centre lies behind the position, in pixels."""
    total, shift = 0.0, 0.0
    for offset, weight in taps:
        total = total + weight
        shift = shift + weight * (offset - share)
    return total, shift / total


def _weighted_sum(
    xp: ModuleType, flat: Any, first: Any, width: int, across: list[Any], down: list[Any], nearest: Any
) -> Any:
    """Return the weighted sums of differences to the nearest pixel, which keep the precision of heights."""
    total = xp.zeros_like(nearest)
    for m, weight_down in enumerate(down):
        line = xp.zeros_like(nearest)
        for k, weight in enumerate(across):
            tap = flat[first + (m * width + k)]
            tap -= nearest
            tap *= weight
            line += tap
        line *= weight_down
        total += line
    return total


def _over_what_is_there(xp: ModuleType, source: Any, pixels: _Pixels, nearest: Any, reach_x: int, reach_y: int) -> Any:
    """Return the values of a list of pixels over whatever part of their kernels is there; `nearest` must be."""
    from darts_utils.resampling import LEAST_WEIGHT  # loads numba

    height, width = source.shape
    flat = source.reshape(-1)
    taps = xp.arange(1 - reach_x, reach_x + 1)[:, None]
    weigh_x, weigh_y = (
        _weigher(xp, at, spread, math.ceil(2 * most))
        for at, spread, most in ((pixels.u, pixels.wide, pixels.most_wide), (pixels.v, pixels.high, pixels.most_high))
    )
    col = xp.floor(pixels.u - 0.5) + taps
    across = xp.where((col >= 0) & (col < width), weigh_x(taps), 0)
    col = xp.clip(col, 0, width - 1)
    middle = xp.floor(pixels.v - 0.5)
    total, weights = xp.zeros_like(middle), xp.zeros_like(middle)
    for tap in range(1 - reach_y, reach_y + 1):
        row = middle + tap
        down = xp.where((row >= 0) & (row < height), weigh_y(tap), 0)
        values = flat[_pixel_at(flat, col, xp.clip(row, 0, height - 1), width)]
        there = xp.isfinite(values)
        total += down * (across * xp.where(there, values - nearest, 0)).sum(axis=0)
        weights += down * (across * there).sum(axis=0)
    return nearest + xp.where(weights > LEAST_WEIGHT, total / weights, 0)


def _weigher(xp: ModuleType, at: Any, wide: Any, reach: int) -> Callable[[Any], Any]:
    """Return a function of taps (0 is the pixel before the position) that gives their weights along one axis."""
    share = at - 0.5 - xp.floor(at - 0.5)
    taps = range(1 - reach, reach + 1)
    total, shift = _moments(share, ((tap, _keys(xp, (tap - share) / wide)) for tap in taps))

    def weigh(tap: Any) -> Any:
        moved = (tap == 0) * shift - (tap == 1) * shift
        return _keys(xp, (tap - share) / wide) / total + moved

    return weigh


def _keys(xp: ModuleType, x: Any) -> Any:
    """Cubic convolution with a = -1/2 (Keys 1981, doi:10.1109/TASSP.1981.1163711, eq. 15)."""
    x = abs(x)
    return xp.where(x < 1, _near(x), xp.where(x < 2, _far(x), 0))


def _near(x: Any) -> Any:
    return (1.5 * x - 2.5) * x * x + 1


def _far(x: Any) -> Any:
    return ((-0.5 * x + 2.5) * x - 4) * x + 2
