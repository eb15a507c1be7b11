"""Mean and standard deviation of planes that are seen one after another."""

from typing import Any

import numpy as np

from darts_utils.arrays import array_namespace
from darts_utils.errors import GridMismatchError

ROWS_AT_ONCE = 256
"""Rows that are worked on at a time, so that temporary arrays stay small."""


class RunningSpread:
    """Mean and standard deviation of planes (y, x), NaN left out, holding no plane but the sums.

    Welford's update, whose squares do not cancel (Welford 1962, doi:10.1080/00401706.1962.10490022).
    """

    def __init__(self) -> None:
        self.mean: Any = None
        """Mean over the planes so far (float32), NaN where all of them are NaN."""
        self._count: Any = None
        self._squares: Any = None

    def add(self, plane: Any) -> None:
        """Take in another plane; it is left as it is.

        Raises:
            GridMismatchError: it has another shape than those before.
            DeviceError: it lives on another device than those before.
        """
        if self.mean is None:
            xp = array_namespace(plane)
            self.mean = xp.array(plane, np.float32)
            self._count = (~xp.isnan(plane)).astype(np.uint16)
            return
        xp = array_namespace(plane, self.mean)
        if plane.shape != self.mean.shape:
            raise GridMismatchError(f"a model returned {plane.shape} pixels where another gave {self.mean.shape}")
        if self._squares is None:  # one model alone needs no squares
            self._squares = xp.zeros(plane.shape, np.float32)
        for start in range(0, len(plane), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            self._add_rows(plane[rows], self.mean[rows], self._count[rows], self._squares[rows], xp)

    def std(self) -> Any:
        """Return the population standard deviation (float32), NaN where all planes are NaN."""
        xp = array_namespace(self.mean)
        if self._squares is None:
            return self.mean * 0
        variance = self._squares / xp.maximum(self._count, 1)
        xp.sqrt(variance, out=variance)
        xp.copyto(variance, np.float32(np.nan), where=self._count == 0)
        return variance

    @staticmethod
    def _add_rows(plane: Any, mean: Any, count: Any, squares: Any, xp: Any) -> None:
        valid = ~xp.isnan(plane)
        first = valid & (count == 0)
        mean[first] = plane[first]
        count += valid
        difference = xp.where(valid, plane - mean, 0)
        mean += difference / xp.maximum(count, 1)
        squares += xp.where(valid, difference * (plane - mean), 0)
