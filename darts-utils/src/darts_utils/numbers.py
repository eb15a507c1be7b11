"""Which values are numbers."""

import sys
from typing import Any

import numpy as np

LARGEST = sys.float_info.max


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float holds: not NaN or infinite, and no whole number beyond all floats."""
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return real and bool(abs(value) <= LARGEST)
