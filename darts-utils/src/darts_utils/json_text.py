"""JSON that others wrote."""

import json
import sys
from typing import Any

import numpy as np

LARGEST = sys.float_info.max


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: it is no JSON, no Unicode, or nested deeper than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float holds: not NaN or infinite, and no whole number beyond all floats."""
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return real and bool(abs(value) <= LARGEST)
