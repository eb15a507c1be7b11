"""A plain rule on NDVI and slope, the yardstick that shows what the landscape gives away for nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import cv2
import numpy as np

from darts.demo.score import score_objects
from darts.demo.types import Field, Labels, Mask

if TYPE_CHECKING:
    from darts_segmentation.training.scores import ObjectCounts

HIDDEN_CLASSES = (0, 1, 3, 6, 8, 9, 11)
"""Scene classes that the rule leaves out (no data, shadow, water, cloud, snow): a help that the models do without."""
NDVI_STEPS = (0.14, 0.18, 0.22, 0.26, 0.30, 0.34, 0.38, 0.42, 0.50)
SLOPE_STEPS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0, 90.0)
SIZE_STEPS = (32, 40, 50, 65, 90)


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


@dataclass(frozen=True)
class RuleScene:
    """What tuning needs of a scene; all (y, x)."""

    ndvi: Field
    slope: Field
    scl: Labels
    extent: Mask
    truth: Labels
    cloud: Mask
    edge: Mask


def apply_rule(ndvi: Field, slope: Field, scl: Labels, extent: Mask, rule: Rule) -> Labels:
    """Return the objects that a rule finds (int32 labels, 8-connected, numbers may have gaps)."""
    with np.errstate(invalid="ignore"):
        low = (ndvi < rule.ndvi) if rule.ndvi_below else (ndvi > rule.ndvi)
        steep = (slope > rule.slope) if rule.slope_above else (slope < rule.slope)
    chosen = low & steep & extent & ~np.isin(scl, HIDDEN_CLASSES)
    labels, sizes = _label(chosen)
    labels[(sizes < rule.min_size_px)[labels]] = 0
    return labels


def tune_rule(scenes: Sequence[RuleScene]) -> "tuple[Rule, ObjectCounts]":
    """Return the rule with the best object F1 over all scenes together, and its score: grid search over all options."""
    scores: dict[Rule, ObjectCounts] = {}
    for below, above in product((True, False), repeat=2):
        for ndvi, slope in product(NDVI_STEPS, SLOPE_STEPS):
            rule = Rule(ndvi=ndvi, slope=slope, ndvi_below=below, slope_above=above, min_size_px=SIZE_STEPS[0])
            for scene in scenes:
                labels = apply_rule(scene.ndvi, scene.slope, scene.scl, scene.extent, rule)
                sizes = np.bincount(labels.ravel())
                for size in SIZE_STEPS:
                    labels[(sizes < size)[labels]] = 0
                    key = replace(rule, min_size_px=size)
                    score = score_objects(labels, scene.truth, scene.extent, cloud=scene.cloud, edge=scene.edge)
                    scores[key] = scores[key] + score if key in scores else score
    best = max(scores, key=lambda rule: scores[rule].f1)
    return best, scores[best]


def _label(mask: Mask) -> tuple[Labels, Labels]:
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype("uint8"), connectivity=8)
    labels: Labels = np.asarray(pieces, "int32")
    sizes = np.asarray(stats[:, cv2.CC_STAT_AREA], "int64")
    sizes[0] = mask.size
    return labels, sizes
