"""Objects: 8-connected regions of probability above a threshold, found in one labelling pass."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import xarray as xr

from darts_postprocessing.masks import Raster, as_bool, check_pixels
from darts_utils.arrays import Device, array_namespace, ndimage_of, resolve_array_device, to_device
from darts_utils.errors import ConfigError, GridMismatchError

ROWS_AT_ONCE = 512
"""Labels are counted and looked up on this many rows at a time, so that the extra memory stays small."""


class Objects(NamedTuple):
    """What one labelling pass finds; two bool arrays (y, x) without a common pixel."""

    kept: Any
    """Pixels of the objects that lie inside the mask and are large enough."""
    cut: Any
    """Pixels of the objects of any size that reach outside the mask; they were removed whole."""


def binarize(probs: Raster, threshold: float, min_object_size: int, mask: Any, device: Device = None) -> Raster:
    """Return where `probs` shows an object: 8-connected regions of probability > `threshold`.

    An object with any pixel outside `mask` goes whole; then go those with fewer than `min_object_size` pixels.

    Args:
        probs: probability 0 to 1, (y, x), not yet masked; NaN is never part of an object. Not changed.
        threshold: 0 to 1.
        min_object_size: in pixels; an object of just this size stays.
        mask: True (or non-zero) is valid, same shape and kind of array.
        device: where to compute; None is where `probs` lives.

    Returns:
        bool, (y, x), the kind of array that `probs` is, on `device`.

    Raises:
        ConfigError: `threshold` or `min_object_size` cannot be.
        GridMismatchError: `mask` has another shape.
    """
    if device is not None:
        target = resolve_array_device(device)
        probs, mask = to_device(probs, target), to_device(mask, target)
    extent = mask.data if isinstance(mask, xr.DataArray) else mask
    if isinstance(probs, xr.DataArray):
        return probs.copy(deep=False, data=find_objects(probs.data, threshold, min_object_size, extent).kept)
    return find_objects(probs, threshold, min_object_size, extent).kept


def find_objects(probs: Any, threshold: float, min_object_size: int, extent: Any) -> Objects:
    """Return the objects of plain arrays, kept and cut ones; parameters and errors as for `binarize`."""
    check_threshold(threshold)
    check_pixels("min_object_size", min_object_size)
    if probs.shape != extent.shape:
        raise GridMismatchError(
            f"probabilities have the shape {probs.shape}, their mask {extent.shape}; cut both alike"
        )
    xp = array_namespace(probs, extent)
    extent = as_bool(extent)
    above = xp.ascontiguousarray(probs > threshold)
    labels, count = _label(above)

    size = xp.zeros(count + 1, "int64")
    reaches_out = xp.zeros(count + 1, bool)
    for rows in _row_blocks(len(labels)):
        size += xp.bincount(labels[rows][above[rows]], minlength=count + 1)
        reaches_out[labels[rows][above[rows] & ~extent[rows]]] = True
    keep = ~reaches_out & (size >= min_object_size)
    keep[0] = False  # label 0 is the background

    kept = xp.empty(above.shape, bool)
    for rows in _row_blocks(len(labels)):
        kept[rows] = keep[labels[rows]]
        above[rows] &= reaches_out[labels[rows]]
    return Objects(kept=kept, cut=above)


def check_threshold(threshold: float) -> None:
    """Check that a probability threshold lies in 0 to 1.

    Raises:
        ConfigError: it does not.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"a probability threshold lies between 0 and 1; got {threshold!r}")


def _label(above: Any) -> tuple[Any, int]:
    """Return the 8-connected regions numbered from 1 (int32, background 0), and how many there are."""
    xp = array_namespace(above)
    if xp is np:
        if above.size == 0:
            return np.zeros(above.shape, "int32"), 0
        count, labels = cv2.connectedComponents(above.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
        return labels, count - 1
    labels, count = ndimage_of(xp).label(above, structure=xp.ones((3, 3)))
    return labels, int(count)


def _row_blocks(height: int) -> Iterator[slice]:
    for start in range(0, height, ROWS_AT_ONCE):
        yield slice(start, start + ROWS_AT_ONCE)
