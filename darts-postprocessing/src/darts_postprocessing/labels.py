"""Regions as an array of labels: for GPUs, and for arrays in host memory that are not float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from darts_postprocessing.measures import Measures
from darts_utils.arrays import array_namespace, ndimage_of, to_host

ROWS_AT_ONCE = 512
"""Labels are counted and looked up on this many rows at a time, so that the extra memory stays small."""


class LabelRegions:
    """The 8-connected regions of an array above a threshold."""

    def __init__(self, probs: Any, threshold: float) -> None:
        self._probs = probs
        self._xp = array_namespace(probs)
        self._ndimage = ndimage_of(self._xp)
        self._labels, count = self._ndimage.label(probs > float(threshold), structure=self._xp.ones((3, 3)))
        self.count = int(count)

    def above(self, threshold: float) -> LabelRegions:
        """Return the regions above a higher threshold."""
        return LabelRegions(self._probs, threshold)

    def measure(self, extent: Any) -> Measures:
        """Return sizes and places; `extent` is bool."""
        xp = self._xp
        size, out, row_sum, column_sum = (xp.zeros(self.count, "int64") for _ in range(4))
        columns = xp.arange(extent.shape[1])
        for rows in self._row_blocks():
            labels, lines = self._labels[rows], xp.arange(rows.start, rows.start + len(extent[rows]))
            size += self._sums(labels, xp.ones_like(labels))
            out += self._sums(labels, ~extent[rows])
            row_sum += self._sums(labels, xp.broadcast_to(lines[:, None], labels.shape))
            column_sum += self._sums(labels, xp.broadcast_to(columns, labels.shape))
        return Measures(to_host(size), to_host(out > 0), to_host(row_sum), to_host(column_sum))

    def peaks(self) -> np.ndarray:
        """Return the highest probability in each region."""
        if self.count == 0:
            return np.zeros(0, self._probs.dtype)
        numbers = self._xp.arange(1, self.count + 1)
        peaks = self._xp.asarray(self._ndimage.maximum(self._probs, self._labels, numbers))
        return np.asarray(to_host(peaks), self._probs.dtype)

    def count_class(self, classes: Any, wanted: int) -> np.ndarray:
        """Return how many pixels of each region have the class `wanted`, int64."""
        count = self._xp.zeros(self.count, "int64")
        for rows in self._row_blocks():
            count += self._sums(self._labels[rows], classes[rows] == wanted)
        return np.asarray(to_host(count))

    def mask_of(self, chosen: np.ndarray) -> Any:
        """Return the pixels of chosen regions, bool (y, x)."""
        by_label = self._xp.asarray(np.append(False, chosen))  # label 0 is the background
        mask = self._xp.empty(self._labels.shape, bool)
        for rows in self._row_blocks():
            mask[rows] = by_label[self._labels[rows]]
        return mask

    def values_of(self, chosen: np.ndarray) -> Any:
        """Return the probabilities (y, x) of chosen regions, NaN elsewhere."""
        return self._xp.where(self.mask_of(chosen), self._probs, self._xp.float32(self._xp.nan))

    def _sums(self, labels: Any, values: Any) -> Any:
        """Return the sum of `values` by region; in float64, which is exact up to 2⁵³."""
        inside = labels > 0
        sums = self._xp.bincount(labels[inside], values[inside].astype("float64"), self.count + 1)
        return sums[1:].astype("int64")

    def _row_blocks(self) -> Iterator[slice]:
        for start in range(0, len(self._labels), ROWS_AT_ONCE):
            yield slice(start, start + ROWS_AT_ONCE)
