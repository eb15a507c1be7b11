"""One tile on its way to files, and what several products share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import geopandas as gpd
import numpy as np
import xarray as xr

from darts_export import vectors
from darts_export.metadata import PREFIX, as_text
from darts_export.rasters import tile_geobox, write_raster
from darts_utils.arrays import to_host
from darts_utils.layers import object_suffix
from darts_utils.option_tags import TAGS

ENSEMBLE = "ensemble"
"""`model` of the objects found on the mean of all models."""

THRESHOLD_TAG = f"{PREFIX}{TAGS['binarization_threshold']}"
"""Tag that names the threshold of the main layers."""


@dataclass(frozen=True)
class Export:
    """A tile, the folder its files go to, and what they say of their making. Products may use it at the same time."""

    tile: xr.Dataset
    folder: Path
    models: tuple[str, ...]
    tags: Mapping[str, Any]
    ids: Mapping[str, Any]
    thresholds: tuple[float, ...] = ()
    """Further thresholds, with layers and files of their own."""
    _segments: dict[tuple[str, float | None], gpd.GeoDataFrame] = field(default_factory=dict, init=False, repr=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    @property
    def segments(self) -> gpd.GeoDataFrame:
        """Objects of the mean of all models."""
        return self.objects_of("")

    def objects_of(self, model: str, threshold: float | None = None) -> gpd.GeoDataFrame:
        """Objects of a model (empty: of the mean) at the main or a further threshold, with statistics of its own."""
        with self._lock:
            if (model, threshold) not in self._segments:
                found = to_host(self.tile[f"binarized_segmentation{object_suffix(model, threshold)}"].data)
                probabilities = to_host(self.tile[f"probabilities{object_suffix(model)}"].data)
                self._segments[model, threshold] = self._described(
                    found.astype(bool, copy=False), probabilities, model, threshold
                )
            return self._segments[model, threshold]

    def cut_objects_of(self, model: str, threshold: float | None = None) -> gpd.GeoDataFrame:
        """Objects that postprocessing removed because they reach outside the extent."""
        name = f"cut_probabilities{object_suffix(model, threshold)}"
        if name in self.tile:
            probabilities = to_host(self.tile[name].data)
        else:
            probabilities = np.full(tile_geobox(self.tile).shape, np.float32(np.nan))
        return self._described(np.isfinite(probabilities), probabilities, model, threshold)

    def raster(self, file: str, *names: str) -> None:
        """Write one raster of the bands `names`."""
        write_raster(self.folder / file, self.tile, names, as_text(self.tags))

    def _described(
        self, found: np.ndarray, probabilities: np.ndarray, model: str, threshold: float | None
    ) -> gpd.GeoDataFrame:
        # The spread between models belongs to their mean alone.
        spread = to_host(self.tile["probability_std"].data) if not model and "probability_std" in self.tile else None
        if threshold is None:
            threshold = _number(self.tags.get(THRESHOLD_TAG))
        return vectors.segments(
            self.tile, found, probabilities, model or ENSEMBLE, self.ids, threshold=threshold, spread=spread
        )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
