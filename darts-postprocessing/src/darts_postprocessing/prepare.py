"""From a segmented tile to one that is ready for export: extent, objects, masked probabilities."""

from collections.abc import Sequence
from typing import Any

import xarray as xr

from darts_postprocessing.masks import check_pixels, erode_mask
from darts_postprocessing.objects import check_threshold, find_objects
from darts_utils.arrays import Device, array_namespace, resolve_array_device, to_device
from darts_utils.bands import describe, require_bands
from darts_utils.errors import ConfigError

QUALITY_LEVELS = {"none": 0, "low_quality": 1, "high_quality": 2}
"""The names of the quality levels."""

_SOURCE = "darts-postprocessing"


def prepare_export(
    tile: xr.Dataset,
    bin_threshold: float = 0.5,
    mask_erosion_size: int = 10,
    min_object_size: int = 32,
    quality_level: int | str = 1,
    ensemble_subsets: Sequence[str] = (),
    device: Device = None,
    edge_erosion_size: int | None = None,
) -> xr.Dataset:
    """Return the tile with its extent and objects, and with probabilities only inside the extent.

    `extent` holds the pixels of at least `quality_level` whose probability is not NaN, eroded by a disk, without a
    frame along the tile's edge. Objects are found on the probabilities as they are before that mask: one with any
    pixel outside the extent goes whole, and is kept in `cut_probabilities` so that a merge can join it with its other
    part in the neighbouring tile. With quality level 0 nothing is eroded and no frame is cut; pixels without a
    probability stay outside.

    Args:
        tile: with `probabilities` and `quality_data_mask`; not changed.
        bin_threshold: a probability above it is part of an object.
        mask_erosion_size: radius of the disk in pixels.
        min_object_size: objects with fewer pixels go.
        quality_level: 0, 1, 2 or "none", "low_quality", "high_quality"; pixels below are invalid.
        ensemble_subsets: models whose `probabilities-<model>` get objects of their own.
        device: where to compute; None is where the tile lives.
        edge_erosion_size: width of the frame in pixels; None is `mask_erosion_size`, 0 is no frame.

    Returns:
        A new tile with `extent` and `binarized_segmentation` (bool), `cut_probabilities` (float32, NaN where nothing
        was cut) and the last two again for each subset; all `probabilities…` and `probability_std` are NaN outside
        the extent.

    Raises:
        MissingBandError: the tile lacks probabilities or its quality mask.
        ConfigError: a parameter has a value that cannot work.
    """
    level = _quality_level(quality_level)
    check_threshold(bin_threshold)
    check_pixels("mask_erosion_size", mask_erosion_size)
    check_pixels("min_object_size", min_object_size)
    frame_px = mask_erosion_size if edge_erosion_size is None else edge_erosion_size
    check_pixels("edge_erosion_size", frame_px)
    suffixes = ("", *(f"-{model}" for model in _checked_names(ensemble_subsets)))
    layers = [f"probabilities{suffix}" for suffix in suffixes]
    require_bands(tile, "quality_data_mask", *layers, purpose="prepare_export")
    masked_names = [name for name in map(str, tile.data_vars) if _is_probability(name)]
    if device is not None:
        # Only what is used here moves; the other bands stay where they are.
        used = tile[[*masked_names, "quality_data_mask"]]
        tile = tile.assign(to_device(used, resolve_array_device(device)).data_vars)

    extent = _extent(tile, level, mask_erosion_size, frame_px)
    xp = array_namespace(extent)
    dims = tile["probabilities"].dims
    added: dict[str, xr.DataArray] = {"extent": _band(tile, dims, extent, "extent")}
    for suffix in suffixes:
        probs = tile[f"probabilities{suffix}"].data
        objects = find_objects(probs, bin_threshold, min_object_size, extent)
        binarized, cut = f"binarized_segmentation{suffix}", f"cut_probabilities{suffix}"
        added[binarized] = _band(tile, dims, objects.kept, binarized)
        added[cut] = _band(tile, dims, xp.where(objects.cut, probs, xp.float32(xp.nan)), cut)
    for name in masked_names:
        layer = tile[name]
        added[name] = layer.copy(deep=False, data=xp.where(extent, layer.data, xp.float32(xp.nan)))
    return tile.assign(added)


def _extent(tile: xr.Dataset, level: int, erosion_px: int, frame_px: int) -> Any:
    probs = tile["probabilities"].data
    xp = array_namespace(probs)
    valid = ~xp.isnan(probs)
    if level == 0:
        return valid
    valid &= tile["quality_data_mask"].data >= level
    return erode_mask(valid, erosion_px, edge_size=frame_px)


def _band(tile: xr.Dataset, dims: tuple[Any, ...], values: Any, name: str) -> xr.DataArray:
    return describe(xr.DataArray(values, dims=dims, coords=tile["probabilities"].coords), name, _SOURCE)


def _quality_level(level: int | str) -> int:
    known = QUALITY_LEVELS.get(level) if isinstance(level, str) else level
    if isinstance(known, bool) or known not in (0, 1, 2):
        raise ConfigError(f"quality_level is 0, 1, 2 or one of {', '.join(QUALITY_LEVELS)}; got {level!r}")
    return int(known)


def _checked_names(models: Sequence[str]) -> Sequence[str]:
    if isinstance(models, str):
        raise ConfigError(f"ensemble_subsets is a list of model names; got the text {models!r}")
    return models


def _is_probability(name: str) -> bool:
    return name in ("probabilities", "probability_std") or name.startswith("probabilities-")
