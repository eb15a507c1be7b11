"""Inference on bare arrays, for tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from darts_segmentation.inference import Predict, Reader, Tally, predict_planes
from darts_segmentation.patches import PatchOptions


class ArrayRows:
    """Planes (y, x) as a tile; it notes which rows were asked for."""

    def __init__(self, planes: Mapping[str, np.ndarray]) -> None:
        self.planes = planes
        self.shape = next(iter(planes.values())).shape
        self.asked: list[tuple[int, int]] = []

    def rows(self, names: Sequence[str], first: int, stop: int) -> dict[str, Any]:
        assert 0 <= first < stop <= self.shape[0]
        self.asked.append((first, stop))
        return {name: self.planes[name][first:stop] for name in names}


def predict_in_patches(
    bands: Mapping[str, np.ndarray], valid: np.ndarray, predict: Predict, options: PatchOptions, **reader: Any
) -> tuple[Any, int, int]:
    """Return the plane, and how many patches were planned and predicted."""
    tile = ArrayRows({**bands, "valid": np.where(valid, np.float32(0), np.float32(np.nan))})
    tally = Tally()
    readers = [Reader(bands=tuple(bands), asked=("valid",), predict=predict, **reader)]
    ((plane,),) = predict_planes([tile], readers, options, [tally])
    return plane, tally.planned, tally.predicted
