"""A plain rule on NDVI and slope, the yardstick that shows what the landscape gives away for nothing."""

from dataclasses import dataclass

import cv2
import numpy as np

from darts.demo.types import Field, Labels, Mask

HIDDEN_CLASSES = (0, 1, 3, 6, 8, 9, 11)
"""Scene classes that the rule leaves out (no data, shadow, water, cloud, snow): a help that the models do without."""


@dataclass(frozen=True)
class Rule:
    """A pixel is a slump where NDVI and slope lie on the right side of their limits, in objects of some size."""

    ndvi: float
    slope: float
    """Degrees."""
    ndvi_below: bool = True
    """The sign: NDVI below its limit (else above)."""
    slope_above: bool = True
    """The sign: slope above its limit (else below)."""
    min_size_px: int = 32


RULE = Rule(ndvi=0.22, slope=1.0, min_size_px=50)
"""The best of the grid search over the training seeds (`benchmarks/demo_rule.py`)."""


def apply_rule(ndvi: Field, slope: Field, scl: Labels, extent: Mask, rule: Rule) -> Labels:
    """Return the objects that a rule finds (int32 labels, 8-connected, numbers may have gaps)."""
    with np.errstate(invalid="ignore"):
        low = (ndvi < rule.ndvi) if rule.ndvi_below else (ndvi > rule.ndvi)
        steep = (slope > rule.slope) if rule.slope_above else (slope < rule.slope)
    chosen = low & steep & extent & ~np.isin(scl, HIDDEN_CLASSES)
    labels, sizes = _label(chosen)
    labels[(sizes < rule.min_size_px)[labels]] = 0
    return labels


def _label(mask: Mask) -> tuple[Labels, Labels]:
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype("uint8"), connectivity=8)
    labels: Labels = np.asarray(pieces, "int32")
    sizes = np.asarray(stats[:, cv2.CC_STAT_AREA], "int64")
    sizes[0] = mask.size
    return labels, sizes
