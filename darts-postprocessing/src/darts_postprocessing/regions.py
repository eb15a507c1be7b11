"""8-connected regions of probability above a threshold: what any kind of array gives, measured by region."""

from typing import Any, Protocol

import numpy as np

from darts_postprocessing.labels import LabelRegions
from darts_postprocessing.measures import Measures
from darts_utils.arrays import array_namespace


class Regions(Protocol):
    """The 8-connected regions of probabilities above a threshold."""

    count: int

    def above(self, threshold: float) -> "Regions":
        """Return the regions above a higher threshold."""

    def measure(self, extent: Any) -> Measures:
        """Return sizes and places; `extent` is bool."""

    def peaks(self) -> np.ndarray:
        """Return the highest probability in each region."""

    def count_class(self, classes: Any, wanted: int) -> np.ndarray:
        """Return how many pixels of each region have the class `wanted`, int64."""

    def mask_of(self, chosen: np.ndarray) -> Any:
        """Return the pixels of chosen regions, bool (y, x)."""

    def values_of(self, chosen: np.ndarray) -> Any:
        """Return the probabilities (y, x) of chosen regions, NaN elsewhere."""


def find_regions(probs: Any, threshold: float) -> Regions:
    """Return the regions of `probs` (y, x) above `threshold`, which is rounded as `probs` are; NaN is in none."""
    if array_namespace(probs) is np and probs.dtype == np.float32:
        from darts_postprocessing.runs import RunRegions  # its kernels load numba

        return RunRegions(probs, threshold)
    return LabelRegions(probs, threshold)
