"""From a segmented tile to one that is ready for export: extent, objects, masked probabilities."""

from collections.abc import Sequence
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox

from darts_postprocessing.masks import check_pixels, erode_mask, keep_within, valid_pixels
from darts_postprocessing.objects import ObjectRules, check_threshold, choose_objects
from darts_utils.arrays import Device, on_device_of, resolve_array_device, to_device
from darts_utils.bands import describe, require_bands
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError
from darts_utils.layers import check_model_names, threshold_suffix
from darts_utils.quality import quality_number

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
    *,
    more_thresholds: Sequence[float] = (),
    grow_threshold: float | None = None,
    max_water_share: float | None = None,
    min_object_area: float | None = None,
) -> xr.Dataset:
    """Return the tile with its extent and objects, and with probabilities only inside the extent.

    `extent` holds the pixels of at least `quality_level` whose probability is not NaN, eroded by a disk, without a
    frame along the tile's edge. Objects are found on the probabilities as they are before that mask: one with any
    pixel outside the extent goes whole, and is kept in `cut_probabilities` so that a merge can join it with its other
    part in the neighbouring tile. What else removes objects (size, area, water, no seed) is not asked of those, of
    which only a part may be seen, and what it removes is not in `cut_probabilities`. With quality level 0 nothing is
    eroded and no frame is cut; pixels without a probability stay outside.

    Args:
        tile: with `probabilities` and `quality_data_mask`; not changed.
        bin_threshold: a probability above it is part of an object.
        mask_erosion_size: radius of the disk in pixels.
        min_object_size: objects with fewer pixels go.
        quality_level: 0, 1, 2 or "none", "low_quality", "high_quality"; pixels below are invalid.
        ensemble_subsets: models whose `probabilities-<model>` get objects of their own.
        device: where to compute; None is where the tile lives.
        edge_erosion_size: width of the frame in pixels; None is `mask_erosion_size`, 0 is no frame.
        more_thresholds: further thresholds in whole percent, each with objects of its own in layers that end with
            `-t40` for 0.40.
        grow_threshold: objects grow to it: they are regions above `grow_threshold` that hold a pixel above the
            threshold (hysteresis). At most each threshold in use; None is the threshold itself.
        max_water_share: objects of which a larger share of pixels is water in `s2_scl` go; 0 to 1, None keeps them.
        min_object_area: objects with a smaller area go, in m² on the ellipsoid; beside `min_object_size`. The area is
            that of the pixel at the object's centroid times the number of pixels (error below 0.001 %).

    Returns:
        A new tile with `extent` and `binarized_segmentation` (bool), `cut_probabilities` (float32, NaN where nothing
        was cut) and the last two again for each subset and each further threshold; all `probabilities…` and
        `probability_std` are NaN outside the extent.

    Raises:
        MissingBandError: the tile lacks probabilities, its quality mask, or `s2_scl` where `max_water_share` needs it.
        ConfigError: a parameter has a value that cannot work, or the tile went through here before.
        GridMismatchError: `min_object_area` needs a grid, which the tile lacks, or a band is not (y, x).
    """
    level = quality_number(quality_level)
    check_threshold(bin_threshold)
    check_pixels("mask_erosion_size", mask_erosion_size)
    rules = ObjectRules(
        min_size_px=min_object_size, grow_threshold=grow_threshold, max_water_share=max_water_share,
        min_area_m2=min_object_area,
    )  # fmt: skip
    frame_px = mask_erosion_size if edge_erosion_size is None else edge_erosion_size
    check_pixels("edge_erosion_size", frame_px)
    models = _models(ensemble_subsets)
    suffixes = _suffixes_by_threshold(bin_threshold, more_thresholds, models)
    rules.check_thresholds(list(suffixes))
    require_bands(
        tile, "quality_data_mask", "probabilities", *(f"probabilities-{model}" for model in models),
        purpose="prepare_export",
    )  # fmt: skip
    _require_unmasked(tile)
    geobox = None if min_object_area is None else _geobox(tile)
    masked = [name for name in map(str, tile.data_vars) if _is_probability(name)]
    used = [*masked, "quality_data_mask"]
    if max_water_share is not None:
        _require_classes(tile)
        used.append("s2_scl")
    tile = tile.assign({name: _plane(tile, name) for name in used})
    if device is not None:
        # Only what is used here moves; the other bands stay where they are.
        tile = tile.assign(to_device(tile[used], resolve_array_device(device)).data_vars)

    with on_device_of(tile["probabilities"].data):
        extent = valid_pixels(tile["probabilities"].data, tile["quality_data_mask"].data, level)
        if level > 0:
            extent = erode_mask(extent, mask_erosion_size, edge_size=frame_px)
        added = {"extent": _band(tile, extent, "extent")}
        classes = None if max_water_share is None else tile["s2_scl"].data
        for model in ("", *(f"-{model}" for model in models)):
            probs = tile[f"probabilities{model}"].data
            for found in choose_objects(probs, list(suffixes), rules, extent, scene_classes=classes, geobox=geobox):
                binarized, cut = f"binarized_segmentation{model}", f"cut_probabilities{model}"
                suffix = suffixes[found.threshold]
                added[binarized + suffix] = _band(tile, found.regions.mask_of(found.kept), binarized, suffix)
                added[cut + suffix] = _band(tile, found.regions.values_of(found.cut), cut, suffix)
        for name in masked:
            added[name] = tile[name].copy(deep=False, data=keep_within(extent, tile[name].data))
    return tile.assign(added)


def _require_unmasked(tile: xr.Dataset) -> None:
    if "cut_probabilities" in tile.data_vars:
        raise ConfigError(
            f"tile {_id_of(tile)} went through prepare_export before: its probabilities are gone outside the extent, "
            "and a second erosion would take more. Start from the tile as it was segmented."
        )


def _plane(tile: xr.Dataset, name: str) -> xr.DataArray:
    """Return a band as (y, x), computed where it is lazy (dask)."""
    band = tile[name]
    if set(band.dims) != {"y", "x"}:
        raise GridMismatchError(
            f"band {name!r} of tile {_id_of(tile)} has the dimensions {band.dims}, not ('y', 'x'); "
            "bring it onto the tile's grid"
        )
    return (band if band.chunks is None else band.compute()).transpose("y", "x")


def _id_of(tile: xr.Dataset) -> str:
    return str(tile.attrs.get("tile_id") or "without an id")


def _band(tile: xr.Dataset, values: Any, name: str, suffix: str = "") -> xr.DataArray:
    probs = tile["probabilities"]
    layer = describe(xr.DataArray(values, dims=probs.dims, coords=probs.coords), name, _SOURCE)
    if not suffix:
        return layer
    return layer.rename(name + suffix).assign_attrs(long_name=f"{layer.attrs['long_name']}, threshold 0.{suffix[-2:]}")


def _models(ensemble_subsets: Sequence[str]) -> Sequence[str]:
    if ensemble_subsets is None or isinstance(ensemble_subsets, str):
        raise ConfigError(f"ensemble_subsets is a list of model names; got {ensemble_subsets!r}")
    return tuple(ensemble_subsets)


def _suffixes_by_threshold(
    bin_threshold: float, more_thresholds: Sequence[float], models: Sequence[str]
) -> dict[float, str]:
    """Return by threshold what the names of its layers end with."""
    if more_thresholds is None or isinstance(more_thresholds, str | int | float):
        raise ConfigError(f"more_thresholds is a list of thresholds; got {more_thresholds!r}")
    if len(more_thresholds):
        check_model_names(models)
    suffixes = {bin_threshold: ""}
    for threshold in more_thresholds:
        check_threshold(threshold, "each of more_thresholds")
        if any(abs(threshold - other) < 1e-9 for other in suffixes):
            raise ConfigError(
                f"more_thresholds names {threshold!r} twice, or it is bin_threshold itself; give each threshold once"
            )
        suffixes[threshold] = threshold_suffix(threshold)
    return suffixes


def _geobox(tile: xr.Dataset) -> GeoBox:
    geobox = tile.odc.geobox
    if geobox is None or geobox.crs is None:
        raise GridMismatchError(
            f"min_object_area needs a tile with a grid and a CRS, tile {_id_of(tile)} "
            "has none. Give the smallest size in pixels instead (min_object_size), or load the tile with its CRS."
        )
    return geobox


def _require_classes(tile: xr.Dataset) -> None:
    if "s2_scl" not in tile.data_vars:
        raise MissingBandError(
            f"tile {_id_of(tile)} lacks s2_scl, which max_water_share needs; only "
            "Sentinel-2 scenes with a scene classification have it. Leave max_water_share out for this tile."
        )


def _is_probability(name: str) -> bool:
    return name in ("probabilities", "probability_std") or name.startswith("probabilities-")
