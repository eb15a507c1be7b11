"""Regions as runs of pixels, for float32 in host memory: work and memory go with the regions, not with the tile.

Import this module where it is used; it loads numba.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from darts_postprocessing import run_kernels as kernels
from darts_postprocessing.regions import Measures


class RunRegions:
    """The 8-connected regions of an array above a threshold."""

    def __init__(self, probs: np.ndarray, threshold: float, within: RunRegions | None = None) -> None:
        """Find the regions; `within` are those above a lower threshold, the only places to look at."""
        self._probs = np.ascontiguousarray(probs)
        lower = _Runs.of_rows(probs.shape) if within is None else within._runs
        self._runs: _Runs = lower.above(self._probs, threshold)
        self._region, self.count = self._runs.connect()

    def above(self, threshold: float) -> RunRegions:
        """Return the regions above a higher threshold."""
        return RunRegions(self._probs, threshold, self)

    def measure(self, extent: np.ndarray) -> Measures:
        """Return sizes and places; `extent` is bool."""
        size, row_sum, column_sum = (np.zeros(self.count, "int64") for _ in range(3))
        reaches_out = np.zeros(self.count, bool)
        kernels.measure(1, *self._placed, np.ascontiguousarray(extent), size, reaches_out, row_sum, column_sum)
        return Measures(size, reaches_out, row_sum, column_sum)

    def peaks(self) -> np.ndarray:
        """Return the highest probability in each region."""
        peaks = np.full(self.count, -np.inf, np.float32)
        kernels.find_peaks(1, *self._placed, self._probs, peaks)
        return peaks

    def count_class(self, classes: np.ndarray, wanted: int) -> np.ndarray:
        """Return how many pixels of each region have the class `wanted`, int64."""
        if classes.dtype != np.uint8:
            classes, wanted = (classes == wanted).view(np.uint8), 1
        count = np.zeros(self.count, "int64")
        kernels.count_class(1, *self._placed, np.ascontiguousarray(classes), wanted, count)
        return count

    def mask_of(self, chosen: np.ndarray) -> np.ndarray:
        """Return the pixels of chosen regions, bool (y, x)."""
        mask = np.zeros(self._probs.shape, bool)
        kernels.paint(self._runs.blocks, *self._placed, chosen, mask)
        return mask

    def values_of(self, chosen: np.ndarray) -> np.ndarray:
        """Return the probabilities (y, x) of chosen regions, NaN elsewhere."""
        values = np.empty_like(self._probs)
        kernels.copy_values(self._runs.blocks, *self._placed, chosen, self._probs, values)
        return values

    @property
    def _placed(self) -> tuple[np.ndarray, ...]:
        return self._runs.first, self._runs.starts, self._runs.ends, self._region


def copy_within(extent: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return `values` with NaN outside the extent."""
    values = np.ascontiguousarray(values)
    kept = np.empty_like(values)
    kernels.copy_within(_blocks(len(values)), values, np.ascontiguousarray(extent), kept)
    return kept


@dataclass(frozen=True)
class _Runs:
    """Runs of pixels; see `run_kernels`."""

    first: np.ndarray
    """The number of each row's first run, and at last how many there are; int64."""
    starts: np.ndarray
    """The first column of each run, int32."""
    ends: np.ndarray
    """The column behind each run, int32."""

    @classmethod
    def of_rows(cls, shape: tuple[int, ...]) -> _Runs:
        """Return whole rows, a run each."""
        height, width = shape
        first = np.arange(height + 1) if width else np.zeros(height + 1, "int64")
        return cls(first, np.zeros(first[-1], "int32"), np.full(first[-1], width, "int32"))

    @property
    def blocks(self) -> int:
        """How many blocks of rows kernels work on."""
        return _blocks(len(self.first) - 1)

    def above(self, values: np.ndarray, threshold: float) -> _Runs:
        """Return the runs of `values` above `threshold` within these."""
        limit = np.float32(threshold)
        first = np.zeros_like(self.first)
        kernels.count_runs(self.blocks, values, limit, self.first, self.starts, self.ends, first[1:])
        np.cumsum(first, out=first)
        starts, ends = np.empty(first[-1], "int32"), np.empty(first[-1], "int32")
        kernels.find_runs(self.blocks, values, limit, self.first, self.starts, self.ends, first, starts, ends)
        return _Runs(first, starts, ends)

    def connect(self) -> tuple[np.ndarray, int]:
        """Return the number, from 0, of each run's 8-connected region (int32), and how many regions there are."""
        region, count = np.empty(len(self.starts), "int32"), np.zeros(1, "int64")
        kernels.join_rows(self.blocks, self.first, self.starts, self.ends, region)
        kernels.join_blocks(1, self.first, self.starts, self.ends, region)
        kernels.number_regions(1, region, count)
        return region, int(count[0])


def _blocks(rows: int) -> int:
    return math.ceil(rows / kernels.BLOCK_ROWS)
