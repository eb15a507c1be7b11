"""Which values are numbers, and whole ones."""

import sys
from typing import Any

import numpy as np

from darts_utils.errors import ConfigError
from darts_utils.quoting import shown

LARGEST = sys.float_info.max


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float holds: not NaN or infinite, and no whole number beyond all floats."""
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return real and bool(abs(value) <= LARGEST)


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return the value of a parameter as a whole number.

    Raises:
        ConfigError: it is none, less than `least`, or more than `most`.
    """
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name} must be a whole number {limits}, got {shown(value)}")
    return int(value)
