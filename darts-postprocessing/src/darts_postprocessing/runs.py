"""Regions as runs of pixels, for float32 in host memory: work and memory go with the regions, not with the tile.

Import this module where it is used; it loads numba.
"""

from __future__ import annotations

import math

import numpy as np

from darts_postprocessing import run_kernels as kernels
from darts_postprocessing.measures import Measures
from darts_utils.runs import BLOCK_ROWS, Runs, find_runs


class RunRegions:
    """The 8-connected regions of an array above a threshold."""

    def __init__(self, probs: np.ndarray, threshold: float, within: RunRegions | None = None) -> None:
        """Find the regions; `within` are those above a lower threshold, the only places to look at."""
        self._probs = np.ascontiguousarray(probs)
        self._runs: Runs = (
            find_runs(self._probs, threshold) if within is None else within._runs.above(self._probs, threshold)
        )
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
    kernels.copy_within(math.ceil(len(values) / BLOCK_ROWS), values, np.ascontiguousarray(extent), kept)
    return kept
