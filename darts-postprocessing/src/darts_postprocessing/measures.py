"""What is known of regions of probability."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Measures:
    """What is known of each region, in host memory. Whole numbers, so that every kind of array gives the same bits."""

    size: np.ndarray
    """Pixels, int64."""
    reaches_out: np.ndarray
    """Whether a pixel lies outside the extent, bool."""
    row_sum: np.ndarray
    """Sum of the rows of all pixels, int64."""
    column_sum: np.ndarray
    """Sum of their columns, int64."""
