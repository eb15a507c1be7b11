"""Masks of valid pixels: erosion by a disk, and the frame along the tile's edge."""

from typing import Any, TypeVar

import cv2
import numpy as np
import xarray as xr

from darts_utils.arrays import Device, array_namespace, resolve_array_device, to_device
from darts_utils.errors import ConfigError

Raster = TypeVar("Raster", xr.DataArray, Any)
"""A DataArray, or a plain array (numpy, cupy)."""

SMALL_DISK_PX = 16
"""Up to this radius OpenCV's erosion beats the distance transform, whose time does not depend on the radius."""

BLOCK_PX = 512
"""Distances are taken block by block (with a halo), so that blocks without a border cost nothing."""


def erode_mask(mask: Raster, size: int, device: Device = None, edge_size: int | None = None) -> Raster:
    """Return `mask` (True or non-zero is valid) eroded by a disk, with a frame along the array's edge set False.

    A pixel stays when no invalid pixel lies at a centre distance of at most `size` pixels. What lies beyond the edge
    does not count there: the frame of `edge_size` pixels (None: `size`) does that, and 0 is no frame.

    Args:
        mask: (y, x), bool or integer; not changed.
        size: radius of the disk in pixels, 0 or more.
        device: where to compute; None is where `mask` lives.
        edge_size: width of the frame in pixels, 0 or more.

    Returns:
        bool, (y, x), the kind of array that `mask` is, on `device`.

    Raises:
        ConfigError: `size` or `edge_size` is no whole number of pixels, or the mask has not two dimensions.
    """
    check_pixels("size", size)
    frame_px = size if edge_size is None else edge_size
    check_pixels("edge_size", frame_px)
    if device is not None:
        mask = to_device(mask, resolve_array_device(device))
    if isinstance(mask, xr.DataArray):
        return mask.copy(deep=False, data=_erode(mask.data, size, frame_px))
    return _erode(mask, size, frame_px)


def as_bool(mask: Any) -> Any:
    """Return a mask as bool, without a copy where it is that already; any non-zero value is True."""
    return mask if mask.dtype == bool else mask != 0


def check_pixels(name: str, value: Any) -> None:
    """Check that a parameter is a number of pixels: an integer, 0 or more.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise ConfigError(f"{name} must be a whole number of pixels, 0 or more; got {value!r}")


def _erode(mask: Any, size: int, frame_px: int) -> Any:
    if mask.ndim != 2:
        raise ConfigError(f"a mask has the dimensions (y, x); got an array of shape {mask.shape}")
    valid = as_bool(mask)
    if array_namespace(valid) is not np:
        eroded = _erode_on_gpu(valid, size)
    elif size == 0 or valid.all():
        eroded = valid.copy()
    elif size <= SMALL_DISK_PX:
        eroded = cv2.erode(np.ascontiguousarray(valid).view(np.uint8), _disk(size)).view(bool)
    else:
        eroded = _erode_by_distance(np.ascontiguousarray(valid).view(np.uint8), size)
    if frame_px:
        eroded[:frame_px] = False
        eroded[-frame_px:] = False
        eroded[:, :frame_px] = False
        eroded[:, -frame_px:] = False
    return eroded


def _disk(radius: int) -> np.ndarray:
    square = np.arange(-radius, radius + 1) ** 2
    return (square[:, None] + square <= radius**2).astype(np.uint8)


def _erode_by_distance(valid: np.ndarray, radius: int) -> np.ndarray:
    eroded = np.empty(valid.shape, bool)
    height, width = valid.shape
    step = max(BLOCK_PX, 2 * radius)
    for top in range(0, height, step):
        for left in range(0, width, step):
            block = eroded[top : top + step, left : left + step]
            above, before = max(0, top - radius), max(0, left - radius)
            around = valid[above : top + step + radius, before : left + step + radius]
            count = cv2.countNonZero(around)
            if count in (0, around.size):
                block[:] = count > 0
                continue
            distance = cv2.distanceTransform(around, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            rows, columns = block.shape
            inner = distance[top - above :, left - before :][:rows, :columns]
            np.greater(inner, _just_above(radius), out=block)
    return eroded


def _erode_on_gpu(valid: Any, radius: int) -> Any:
    if radius == 0 or bool(valid.all()):
        return valid.copy()
    from cucim.core.operations.morphology import distance_transform_edt

    return distance_transform_edt(valid) > _just_above(radius)


def _just_above(radius: int) -> float:
    # Squared distances are integers: halfway to the next one, rounding of the root cannot matter.
    return float(np.sqrt(radius**2 + 0.5))
