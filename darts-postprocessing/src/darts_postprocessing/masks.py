"""Masks of valid pixels: erosion by a disk, and the frame along the tile's edge."""

import math
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from darts_utils.arrays import Device, array_namespace, resolve_array_device, to_device
from darts_utils.errors import ConfigError
from darts_utils.threads import on_all_cores

Raster = TypeVar("Raster", xr.DataArray, Any)
"""A DataArray, or a plain array (numpy, cupy)."""

ROWS_AT_ONCE = 256
"""Masks are compared on this many rows at a time, on all cores."""


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


def valid_pixels(probs: Any, quality: Any, level: int) -> Any:
    """Return where probabilities are not NaN and the quality is at least `level`, bool (y, x)."""
    xp = array_namespace(probs, quality)
    valid = xp.empty(probs.shape, bool)

    def fill(rows: slice) -> None:
        xp.equal(probs[rows], probs[rows], out=valid[rows])  # NaN alone is not itself
        if level > 0:
            valid[rows] &= quality[rows] >= level

    if xp is np:
        on_all_cores(fill, _row_blocks(len(valid)))
    else:
        fill(slice(None))
    return valid


def keep_within(extent: Any, values: Any) -> Any:
    """Return `values` (floats) with NaN outside the extent."""
    xp = array_namespace(extent, values)
    if xp is not np or values.dtype != np.float32:
        return xp.where(extent, values, xp.float32(xp.nan))
    from darts_postprocessing.runs import copy_within  # loads numba

    return copy_within(extent, values)


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
    elif size == 0 or valid.size == 0:
        eroded = valid.copy()
    else:
        eroded = _erode_by_sweeps(np.ascontiguousarray(valid), size)
    if frame_px:
        eroded[:frame_px] = False
        eroded[-frame_px:] = False
        eroded[:, :frame_px] = False
        eroded[:, -frame_px:] = False
    return eroded


def _erode_by_sweeps(valid: np.ndarray, radius: int) -> np.ndarray:
    from darts_postprocessing import erosion_kernels as kernels  # loads numba

    height, width = valid.shape
    radius = min(radius, height + width)  # further than any two pixels
    far = radius + 1
    near = np.empty((height, (width + 7) // 8 * 8), np.min_scalar_type(far + 1))
    kernels.count_rows(math.ceil(near.shape[1] / kernels.BLOCK_COLUMNS), valid, far, near)
    reaches = np.array([*(math.isqrt(radius**2 - rows**2) for rows in range(radius + 1)), -(2**40)])
    far_word = np.full(8, far, near.dtype).view(np.uint64)[0]
    eroded = np.empty(valid.shape, bool)
    kernels.reach_along_rows(
        math.ceil(height / kernels.BLOCK_ROWS), near, near.view(np.uint64), far_word, reaches, eroded
    )
    return eroded


def _erode_on_gpu(valid: Any, radius: int) -> Any:
    if radius == 0 or bool(valid.all()):
        return valid.copy()
    from cucim.core.operations.morphology import distance_transform_edt

    # Squared distances are integers: halfway to the next one, rounding of the root cannot matter.
    return distance_transform_edt(valid) > math.sqrt(radius**2 + 0.5)


def _row_blocks(height: int) -> Iterator[slice]:
    for start in range(0, height, ROWS_AT_ONCE):
        yield slice(start, start + ROWS_AT_ONCE)
