"""The layers that an ensemble adds to a tile: mean, spread, and what each model says."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from darts_ensemble.spread import ROWS_AT_ONCE, RunningSpread
from darts_segmentation.inference import mean_of_turns
from darts_utils.arrays import array_namespace, on_device_of
from darts_utils.bands import describe

LEAST_WEIGHT = 1e-30
"""Of the largest weight; less could not be told from 0 in float32, and a model alone at a pixel would have no say."""


class EnsembleLayers:
    """The planes that an ensemble adds to a tile, filled some rows at a time."""

    def __init__(
        self,
        models: Sequence[str],
        weights: Mapping[str, float] | None,
        shape: tuple[int, int],
        keep_inputs: bool,
        augment: bool,
    ) -> None:
        self.models, self.weights, self.shape, self.augment = models, weights, shape, augment
        self.kept = tuple(models) if keep_inputs else ()
        self.planes: dict[str, Any] = {}

    def add(self, first: int, answers: Mapping[str, Sequence[Any]]) -> None:
        """Take in what the models say of rows from `first` on, each in one turn or in all."""
        some = answers[self.models[0]][0]
        # On a CPU a few rows at a time, so that the sums over the models take little memory.
        step = ROWS_AT_ONCE if array_namespace(some) is np else len(some)
        for start in range(0, len(some), step):
            part = slice(start, start + step)
            rows = slice(first + start, first + min(start + step, len(some)))
            self._add_rows(rows, {name: [layer[part] for layer in layers] for name, layers in answers.items()})

    def _add_rows(self, rows: slice, answers: Mapping[str, Sequence[Any]]) -> None:
        spread = RunningSpread()
        largest = max(self.weights.values()) if self.weights else 1
        for name in self.models:
            # A share of 1/8 is exact, so it changes no bit of the result.
            weight = max(self.weights[name] / largest, LEAST_WEIGHT) if self.weights else 1.0
            for answer in answers[name]:
                spread.add(answer, weight / len(answers[name]))
        with on_device_of(spread.mean):
            self._plane("probabilities", spread.mean)[rows] = spread.mean
            if len(self.models) > 1 or self.augment:
                std = spread.std()
                self._plane("probability_std", std)[rows] = std
            for name in self.kept:
                mean_of_turns(answers[name], out=self._plane(f"probabilities-{name}", spread.mean)[rows])

    def _plane(self, name: str, like: Any) -> Any:
        if name not in self.planes:
            self.planes[name] = array_namespace(like).empty(self.shape, np.float32)
        return self.planes[name]

    def described(self) -> dict[str, xr.DataArray]:
        """Return the planes as layers with names, units and sources."""
        models = ", ".join(self.models)
        mean = "mean"
        if self.weights is not None:
            models = ", ".join(f"{name} ({self.weights[name]:g})" for name in self.models)
            mean = "weighted mean"
        if self.augment:
            models += ", over flips and quarter turns"
        sources = {"probabilities": f"{mean} of models {models}", "probability_std": f"models {models}"}
        return {
            name: describe(
                xr.DataArray(plane, dims=("y", "x")),
                name,
                sources.get(name) or f"model {name.removeprefix('probabilities-')}",
            )
            for name, plane in self.planes.items()
        }
