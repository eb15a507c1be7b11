"""The best plain rule of a grid search; `benchmarks/demo_rule.py` runs it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from darts.demo.rule import Rule, apply_rule
from darts.demo.score import score_objects
from darts.demo.types import Field, Labels, Mask

if TYPE_CHECKING:
    from darts_segmentation.training.scores import ObjectCounts

NDVI_STEPS = (0.14, 0.18, 0.22, 0.26, 0.30, 0.34, 0.38, 0.42, 0.50)
SLOPE_STEPS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0, 90.0)
SIZE_STEPS = (32, 40, 50, 65, 90)


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
