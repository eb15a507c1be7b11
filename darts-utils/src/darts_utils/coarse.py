"""Smooth functions of pixel position, exact at every few pixels and bilinear between, to a verified error."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FIRST_STEP_PX = 256
ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class CoarseField:
    """Values of one or more functions at nodes of a pixel grid; pixel centres lie on whole numbers."""

    step: int
    """Distance of nodes in pixels; the last row and column of nodes may lie closer."""
    rows: np.ndarray
    """Rows of the nodes, int64, at least two."""
    cols: np.ndarray
    """Columns of the nodes, int64, at least two."""
    nodes: np.ndarray
    """Values, float64 (function, node row, node column)."""

    def at(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Return the values on the grid of `rows` × `cols`, float64 (function, row, column)."""
        i, s = _cell(self.rows, self.step, rows)
        j, t = _cell(self.cols, self.step, cols)
        by_row = self.nodes[:, i] * (1 - s)[:, None] + self.nodes[:, i + 1] * s[:, None]
        return np.asarray(by_row[:, :, j] * (1 - t) + by_row[:, :, j + 1] * t)


def sample_coarsely(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], shape: tuple[int, int], *, tolerance: float
) -> CoarseField:
    """Sample `function` so coarsely that bilinear interpolation stays within `tolerance` of it.

    Args:
        function: takes columns and rows of pixels (float64, any equal shape) and returns (function, …) values.
        shape: rows and columns of the pixel grid.
        tolerance: largest error, in units of the values, at the middle of cells and of their sides, where the error
            of bilinear interpolation peaks. At a step of one pixel the values are exact at every pixel.
    """
    step = FIRST_STEP_PX
    while step > 1 and step // 2 >= max(shape):
        step //= 2
    field = _sample(function, shape, step)
    while field.step > 1:
        # The finer samples hold the middles of all cells. They are computed already, so they are what is returned,
        # with a quarter of the error that was verified.
        finer = _sample(function, shape, field.step // 2)
        with np.errstate(invalid="ignore"):
            error = np.abs(field.at(finer.rows, finer.cols) - finer.nodes)
        field = finer
        if np.all(error < tolerance):
            break
    return field


def _sample(function: Callable[[np.ndarray, np.ndarray], np.ndarray], shape: tuple[int, int], step: int) -> CoarseField:
    rows, cols = (_positions(size, step) for size in shape)
    parts = [
        function(*(part.astype("float64") for part in np.meshgrid(cols, rows[start : start + ROWS_AT_ONCE])))
        for start in range(0, len(rows), ROWS_AT_ONCE)
    ]
    return CoarseField(step, rows, cols, np.concatenate(parts, axis=1))


def _positions(size: int, step: int) -> np.ndarray:
    last = max(size - 1, 1)
    return np.append(np.arange(0, last, step), last)


def _cell(positions: np.ndarray, step: int, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each coordinate, the node before it and the share of the way to the next."""
    cell = np.minimum(at // step, len(positions) - 2)
    return cell, (at - positions[cell]) / (positions[cell + 1] - positions[cell])
