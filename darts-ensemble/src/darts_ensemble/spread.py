"""Weighted mean and standard deviation of planes that are seen one after another."""

import math
from typing import Any

import numpy as np

from darts_utils.arrays import array_namespace, on_device_of
from darts_utils.errors import ConfigError, GridMismatchError

ROWS_AT_ONCE = 64
"""Rows that are worked on at a time, so that temporary arrays stay small."""


class RunningSpread:
    """Mean and standard deviation of planes (y, x), NaN left out, holding no plane but the sums.

    Welford's update, whose squares do not cancel (Welford 1962, doi:10.1080/00401706.1962.10490022), with weights
    (West 1979, doi:10.1145/359146.359153).
    """

    def __init__(self) -> None:
        self.mean: Any = None
        """Mean over the planes so far (float32), NaN where all of them are NaN."""
        self._weights: Any = None
        self._squares: Any = None

    def add(self, plane: Any, weight: float = 1.0) -> None:
        """Take in another plane, which counts `weight` times; it is left as it is.

        Raises:
            ConfigError: the weight is not a positive finite number.
            GridMismatchError: it has another shape than those before.
            DeviceError: it lives on another device than those before.
        """
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(f"weight must be a positive finite number, got {weight!r}")
        counted = np.float32(weight)
        with on_device_of(plane):
            if self.mean is None:
                xp = array_namespace(plane)
                self.mean = xp.array(plane, np.float32)
                self._weights = xp.where(xp.isnan(plane), np.float32(0), counted)
                return
            xp = array_namespace(plane, self.mean)
            if plane.shape != self.mean.shape:
                raise GridMismatchError(f"a model returned {plane.shape} pixels where another gave {self.mean.shape}")
            if self._squares is None:  # one plane alone needs no squares
                self._squares = xp.zeros(plane.shape, np.float32)
            step = ROWS_AT_ONCE if xp is np else max(len(plane), 1)
            for start in range(0, len(plane), step):
                rows = slice(start, start + step)
                self._add_rows(plane[rows], counted, self.mean[rows], self._weights[rows], self._squares[rows], xp)

    def std(self) -> Any:
        """Return the population standard deviation (float32), NaN where all planes are NaN."""
        with on_device_of(self.mean):
            xp = array_namespace(self.mean)
            if self._squares is None:
                return self.mean * 0
            missing = self._weights == 0
            variance = self._squares / xp.where(missing, np.float32(1), self._weights)
            xp.sqrt(variance, out=variance)
            xp.copyto(variance, np.float32(np.nan), where=missing)
            return variance

    @staticmethod
    def _add_rows(plane: Any, weight: Any, mean: Any, weights: Any, squares: Any, xp: Any) -> None:
        valid = ~xp.isnan(plane)
        first = valid & (weights == 0)
        mean[first] = plane[first]
        difference = xp.where(valid, plane - mean, np.float32(0))
        # Where the plane is missing the difference is 0, so any number that is no 0 will do for the sum.
        total = xp.where(valid, weights + weight, np.float32(1))
        # West's form takes no difference from the new mean, in which the digits of small weights would be lost.
        squares += difference * difference * (weight * weights / total)
        mean += difference * weight / total
        weights += xp.where(valid, weight, np.float32(0))
