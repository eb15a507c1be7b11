"""Scores of a model: sums first, so that any set of patches or tiles can be joined, ratios and intervals last."""

from darts_segmentation.training.scores.bootstrap import Interval, interval, intervals
from darts_segmentation.training.scores.boundaries import BoundaryCounts, boundary_overlap
from darts_segmentation.training.scores.calibration import (
    LogitHistogram,
    Reliability,
    count_logits,
    expected_calibration_error,
    fit_temperature,
    logits_of,
    reliability,
    with_temperature,
)
from darts_segmentation.training.scores.counts import Counts, Hits
from darts_segmentation.training.scores.instances import (
    ObjectCounts,
    ObjectRanking,
    Overlaps,
    match_objects,
    overlap_objects,
)
from darts_segmentation.training.scores.pixels import PixelCounts, ScoreHistogram, ThresholdCurve, count_pixels
from darts_segmentation.training.scores.report import SampleCounts, Scores, score_patches

__all__ = [
    "BoundaryCounts",
    "Counts",
    "Hits",
    "Interval",
    "LogitHistogram",
    "ObjectCounts",
    "ObjectRanking",
    "Overlaps",
    "PixelCounts",
    "Reliability",
    "SampleCounts",
    "ScoreHistogram",
    "Scores",
    "ThresholdCurve",
    "boundary_overlap",
    "count_logits",
    "count_pixels",
    "expected_calibration_error",
    "fit_temperature",
    "interval",
    "intervals",
    "logits_of",
    "match_objects",
    "overlap_objects",
    "reliability",
    "score_patches",
    "with_temperature",
]
