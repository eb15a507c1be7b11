"""Tiles whose features are made some rows at a time, for when they would not fit the memory as a whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from darts_preprocessing import ALL_FEATURES, preprocess_v2
from darts_utils.bands import BANDS

WORKING_BYTES_PX = 24
"""What segmentation, postprocessing and export hold of a pixel besides the bands: probabilities and their spread,
masks, labels, what is being written."""


@dataclass(frozen=True)
class FeatureRows:
    """A tile whose features are computed when their rows are asked for, the same numbers as in the whole tile."""

    optical: xr.Dataset
    dem: xr.Dataset | None
    tcvis: xr.Dataset | None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `preprocess_v2`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the tile."""
        return self.optical.sizes["y"], self.optical.sizes["x"]

    def rows(self, names: Sequence[str], first: int, stop: int) -> dict[str, Any]:
        """Return planes (rows, columns) of bands and features."""
        made = [name for name in names if name in ALL_FEATURES]
        if made:
            part = preprocess_v2(self.optical, self.dem, self.tcvis, **self.options, features=made, rows=(first, stop))
        else:
            part = self.optical.isel(y=slice(first, stop))
        return {name: part[name].transpose("y", "x").data for name in names}


def bytes_as_a_whole(
    inputs: Sequence[xr.Dataset | None], shape: tuple[int, int], features: Sequence[str], layers: int = 0
) -> int:
    """Return about how many bytes a tile takes when its features are there as a whole, with more layers of models."""
    pixels = shape[0] * shape[1]
    loaded = sum(data.nbytes for data in inputs if data is not None)
    return loaded + pixels * (
        sum(np.dtype(BANDS[name].memory).itemsize for name in features) + WORKING_BYTES_PX + 4 * layers
    )
