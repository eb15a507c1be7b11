"""Objects: 8-connected regions of probability above a threshold, found in one labelling pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from darts_postprocessing.areas import pixel_areas
from darts_postprocessing.masks import Raster, as_bool, check_pixels
from darts_postprocessing.regions import Regions, find_regions
from darts_utils.arrays import Device, resolve_array_device, to_device
from darts_utils.errors import ConfigError, GridMismatchError
from darts_utils.numbers import is_number

WATER = 6
"""The class of water in a Sentinel-2 scene classification."""


class Objects(NamedTuple):
    """What one labelling pass finds; two bool arrays (y, x) without a common pixel."""

    kept: Any
    """Pixels of the objects that lie inside the mask and are large enough."""
    cut: Any
    """Pixels of the objects of any size that reach outside the mask; they were removed whole."""


def binarize(
    probs: Raster, threshold: float, min_object_size: int, mask: Any, device: Device = None, *,
    grow_threshold: float | None = None,
) -> Raster:  # fmt: skip
    """Return where `probs` shows an object: 8-connected regions of probability > `threshold`.

    An object with any pixel outside `mask` goes whole; then go those with fewer than `min_object_size` pixels.

    Args:
        probs: probability 0 to 1, (y, x), not yet masked; NaN is never part of an object. Not changed.
        threshold: 0 to 1.
        min_object_size: in pixels; an object of just this size stays.
        mask: True (or non-zero) is valid, same shape and kind of array.
        device: where to compute; None is where `probs` lives.
        grow_threshold: at most `threshold`; objects are then regions above this one that hold a pixel above
            `threshold` (hysteresis).

    Returns:
        bool, (y, x), the kind of array that `probs` is, on `device`.

    Raises:
        ConfigError: `threshold`, `grow_threshold` or `min_object_size` cannot be.
        GridMismatchError: `mask` has another shape.
    """
    if device is not None:
        target = resolve_array_device(device)
        probs, mask = to_device(probs, target), to_device(mask, target)
    extent = mask.data if isinstance(mask, xr.DataArray) else mask
    values = probs.data if isinstance(probs, xr.DataArray) else probs
    found = find_objects(values, threshold, min_object_size, extent, grow_threshold=grow_threshold)
    return probs.copy(deep=False, data=found.kept) if isinstance(probs, xr.DataArray) else found.kept


def find_objects(
    probs: Any, threshold: float, min_object_size: int, extent: Any, *, grow_threshold: float | None = None
) -> Objects:
    """Return the objects of plain arrays, kept and cut ones; parameters and errors as for `binarize`."""
    rules = ObjectRules(min_size_px=min_object_size, grow_threshold=grow_threshold)
    check_threshold(threshold)
    rules.check_thresholds([threshold])
    if probs.shape != extent.shape:
        raise GridMismatchError(
            f"probabilities have the shape {probs.shape}, their mask {extent.shape}; cut both alike"
        )
    (found,) = choose_objects(probs, [threshold], rules, as_bool(extent))
    return Objects(kept=found.regions.mask_of(found.kept), cut=found.regions.mask_of(found.cut))


@dataclass(frozen=True, kw_only=True)
class ObjectRules:
    """Which regions are objects, and which objects are kept."""

    min_size_px: int = 0
    """Objects with fewer pixels go."""
    grow_threshold: float | None = None
    """Hysteresis: regions are those above this threshold, objects those that hold a pixel above the other one."""
    max_water_share: float | None = None
    """Objects of which a larger share is water go."""
    min_area_m2: float | None = None
    """Objects with a smaller area on the ellipsoid go."""

    def __post_init__(self) -> None:
        check_pixels("min_object_size", self.min_size_px)
        if self.grow_threshold is not None:
            check_threshold(self.grow_threshold, "grow_threshold")
        water, area = self.max_water_share, self.min_area_m2
        if water is not None and not (is_number(water) and 0 <= water <= 1):
            raise ConfigError(f"max_water_share is a share between 0 and 1, or None; got {water!r}")
        if area is not None and not (is_number(area) and 0 <= area < np.inf):
            raise ConfigError(f"min_object_area is in m², 0 or more, or None; got {area!r}")

    def check_thresholds(self, thresholds: Sequence[float]) -> None:
        """Check that objects can grow from seeds above each threshold.

        Raises:
            ConfigError: `grow_threshold` is higher than one of them.
        """
        if self.grow_threshold is not None and self.grow_threshold > min(thresholds):
            raise ConfigError(
                f"grow_threshold must be at most each threshold in use; got {self.grow_threshold!r} with a threshold "
                f"of {min(thresholds)!r}"
            )


class FoundObjects(NamedTuple):
    """The objects above one threshold."""

    threshold: float
    regions: Regions
    kept: np.ndarray
    """Which regions are kept as objects, bool."""
    cut: np.ndarray
    """Which regions reach outside the extent, bool."""


def choose_objects(
    probs: Any, thresholds: Sequence[float], rules: ObjectRules, extent: Any, *, scene_classes: Any = None,
    geobox: GeoBox | None = None,
) -> Iterator[FoundObjects]:  # fmt: skip
    """Give the objects above each threshold, in rising order.

    A region that reaches outside the extent is cut, whatever the other rules say, that on seeds too: they would judge a
    part of it.

    Args:
        probs: probability, (y, x).
        thresholds: of seeds where the rules have a threshold to grow to; then regions are found once for all.
        rules: which regions are objects, and which of them are kept.
        extent: bool, same shape and kind of array.
        scene_classes: of Sentinel-2, needed for the rule on water.
        geobox: the grid, needed for the rule on areas.
    """
    if rules.grow_threshold is not None:
        regions = find_regions(probs, rules.grow_threshold)
        kept, cut = _judge(regions, rules, extent, scene_classes, geobox)
        peaks = regions.peaks()
        for threshold in sorted(thresholds):
            seeded = peaks > float(threshold)
            # What is cut may have its seed in the part that another tile sees.
            yield FoundObjects(threshold, regions, kept & seeded, cut)
        return
    higher: Regions | None = None
    for threshold in sorted(thresholds):
        higher = find_regions(probs, threshold) if higher is None else higher.above(threshold)
        yield FoundObjects(threshold, higher, *_judge(higher, rules, extent, scene_classes, geobox))


def check_threshold(threshold: float, name: str = "a probability threshold") -> None:
    """Check that a probability threshold is a number in 0 to 1.

    Raises:
        ConfigError: it is not.
    """
    if not (is_number(threshold) and 0 <= threshold <= 1):
        raise ConfigError(f"{name} lies between 0 and 1; got {threshold!r}")


def _judge(
    regions: Regions, rules: ObjectRules, extent: Any, scene_classes: Any, geobox: GeoBox | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return which regions are kept, and which reach outside the extent; bool."""
    measures = regions.measure(extent)
    kept = ~measures.reaches_out & (measures.size >= rules.min_size_px)
    if rules.max_water_share is not None:
        # A quotient rather than a product: 3 of 10 pixels are then just the share 0.3.
        kept &= regions.count_class(scene_classes, WATER) / measures.size <= rules.max_water_share
    if rules.min_area_m2 is not None and geobox is not None:
        # Pixel areas change so slowly that the one at the centroid is the mean of all pixels.
        rows, columns = measures.row_sum / measures.size, measures.column_sum / measures.size
        kept &= measures.size * pixel_areas(geobox, rows, columns) >= rules.min_area_m2
    return kept, measures.reaches_out
