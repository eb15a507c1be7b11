"""Cases of a test by name, of which some are for the slow suite."""

from collections.abc import Mapping
from typing import Any

import pytest


def cases(table: Mapping[str, Any], *plain: str) -> list[Any]:
    """Return what `pytest.mark.parametrize` takes: all but the cases named are slow; a tuple is several values."""
    if unknown := set(plain) - set(table):
        raise ValueError(f"no cases: {sorted(unknown)}; there are {sorted(table)}")
    values = {name: case if isinstance(case, tuple) else (case,) for name, case in table.items()}
    return [
        pytest.param(*case, id=name, marks=() if name in plain else pytest.mark.slow) for name, case in values.items()
    ]
