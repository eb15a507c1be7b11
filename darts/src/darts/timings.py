"""Seconds by tile and step, and by function."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pandas as pd

T = TypeVar("T")

STEPS = (
    "Loading Optical",
    "Loading ArcticDEM",
    "Loading TCVis",
    "Preprocessing",
    "Segmenting",
    "Postprocessing",
    "Exporting",
)
"""The steps of a tile, in their order."""


class Timings:
    """Collects seconds; reads as two tables."""

    def __init__(self) -> None:
        self._steps: dict[str, dict[str, float]] = defaultdict(dict)
        self._functions: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def step(self, tile_id: str, step: str) -> Iterator[None]:
        """Measure one step of a tile; also when it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._steps[tile_id][step] = time.perf_counter() - start

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function and measure it under its name."""
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            self._functions[function.__qualname__].append(time.perf_counter() - start)

    def of_tile(self, tile_id: str) -> dict[str, float]:
        """Return the seconds of a tile by step."""
        return dict(self._steps.get(tile_id, {}))

    def by_step(self) -> pd.DataFrame:
        """Return one row a tile: `tile_id` and the seconds of each step (float64, NaN where it did not run)."""
        rows = [{"tile_id": tile_id, **seconds} for tile_id, seconds in self._steps.items()]
        return pd.DataFrame(rows, columns=["tile_id", *STEPS]).astype(
            {"tile_id": "string"} | dict.fromkeys(STEPS, float)
        )

    def by_function(self) -> pd.DataFrame:
        """Return one row a function: `function`, `calls`, and its `total`, `mean`, `min` and `max` seconds."""
        rows = [(name, len(s), sum(s), sum(s) / len(s), min(s), max(s)) for name, s in sorted(self._functions.items())]
        return pd.DataFrame(rows, columns=["function", "calls", "total", "mean", "min", "max"])
