"""Seconds by tile and step, and by function."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
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


class TileClock:
    """Measures the steps of one attempt at a tile, on whatever thread they run."""

    def __init__(self, on_step: Callable[[str], None] = lambda step: None) -> None:
        self.seconds: dict[str, float] = {}
        """Seconds by step, also of one that failed."""
        self.calls: list[tuple[str, float]] = []
        """Functions that were called, with their seconds."""
        self._on_step = on_step

    def run(self, step: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function as (part of) a step."""
        self._on_step(step)
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds = time.perf_counter() - start
            self.seconds[step] = self.seconds.get(step, 0.0) + seconds
            self.calls.append((function.__qualname__, seconds))


class Timings:
    """Collects seconds; reads as two tables."""

    def __init__(self) -> None:
        self._steps: dict[str, dict[str, float]] = {}
        self._functions: dict[str, list[float]] = defaultdict(list)

    def add(self, tile_id: str, seconds: Mapping[str, float], calls: Iterable[tuple[str, float]] = ()) -> None:
        """Take over what was measured of a tile; a further attempt takes the place of the one before."""
        if seconds:
            self._steps[tile_id] = dict(seconds)
        for function, took in calls:
            self._functions[function].append(took)

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
