"""Smooth functions of pixel position: exact at a few places and bilinear between, to a verified error."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FIRST_CELL_PX = 256
ROWS_AT_ONCE = 512

Function = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes columns and rows of pixels (float64, of one shape) and returns values (function, …)."""


@dataclass(frozen=True)
class CoarseField:
    """Values of one or more functions at nodes over a pixel grid; centres of pixels lie on whole numbers.

    Nodes reach from the first pixel to the last (of a single one: to where the next would be), evenly spaced.
    """

    nodes: np.ndarray
    """Values, float64 (function, node row, node column), at least two nodes each way."""
    cell_rows: float
    """Rows from one node to the next, at least 1."""
    cell_cols: float
    """Columns from one node to the next, at least 1."""

    def at(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Return the values on the grid of `rows` × `cols`, float64 (function, row, column)."""
        i, s = _cell(rows / self.cell_rows, self.nodes.shape[1])
        j, t = _cell(cols / self.cell_cols, self.nodes.shape[2])
        by_row = self.nodes[:, i] * (1 - s)[:, None] + self.nodes[:, i + 1] * s[:, None]
        return np.asarray(by_row[:, :, j] * (1 - t) + by_row[:, :, j + 1] * t)


def sample_coarsely(function: Function, shape: tuple[int, int], *, tolerance: float) -> CoarseField:
    """Sample `function` over a pixel grid so coarsely that bilinear interpolation stays within `tolerance` of it.

    The error is verified at the middle of each cell and of its sides, where that of bilinear interpolation peaks.
    Where no coarser field will do, it is exact at every pixel.
    """
    last = tuple(max(size - 1, 1) for size in shape)
    cells = tuple(math.ceil(size / FIRST_CELL_PX) for size in last)
    field = _sample(function, last, cells)
    while cells != last:
        # The finer samples hold the middles of the cells. They are computed already, so they are what is returned,
        # with a quarter of the error that was verified.
        cells = tuple(min(2 * count, size) for count, size in zip(cells, last, strict=True))
        coarser, field = field, _sample(function, last, cells)
        with np.errstate(invalid="ignore"):
            rows, cols = (_positions(size, count) for size, count in zip(last, cells, strict=True))
            error = np.abs(coarser.at(rows, cols) - field.nodes)
        if np.all(error < tolerance):
            break
    return field


def _sample(function: Function, last: tuple[int, ...], cells: tuple[int, ...]) -> CoarseField:
    rows, cols = (_positions(size, count) for size, count in zip(last, cells, strict=True))
    parts = [
        function(*np.meshgrid(cols, rows[start : start + ROWS_AT_ONCE])) for start in range(0, len(rows), ROWS_AT_ONCE)
    ]
    return CoarseField(np.concatenate(parts, axis=1), last[0] / cells[0], last[1] / cells[1])


def _positions(last: int, cells: int) -> np.ndarray:
    return np.arange(cells + 1) * (last / cells)


def _cell(place: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each place counted in nodes, the node before it and the share of the way to the next."""
    cell = np.minimum(place.astype("int64"), nodes - 2)
    return cell, place - cell
