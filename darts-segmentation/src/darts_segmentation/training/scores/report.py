"""The report of a model: all scores of its patches or tiles, with intervals over samples."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np

from darts_segmentation.training.scores.bootstrap import Interval, check_draws, intervals
from darts_segmentation.training.scores.boundaries import BoundaryCounts, boundary_overlap, boundary_width
from darts_segmentation.training.scores.calibration import expected_calibration_error, reliability
from darts_segmentation.training.scores.counts import Counts, share
from darts_segmentation.training.scores.instances import ObjectCounts, ObjectRanking, overlap_objects
from darts_segmentation.training.scores.pixels import BINS, ScoreHistogram, count_pixels, edge_of, read_target
from darts_utils.errors import ConfigError, GridMismatchError

CURVE_POINTS = 100
"""Steps of the curve that `Scores.to_dict` gives; the histogram itself is finer."""


@dataclass(frozen=True, eq=False)
class SampleCounts(Counts):
    """All counts of one sample, or of several together."""

    patches: int
    """Patches or tiles."""
    pixels: ScoreHistogram
    """Pixels by probability and truth."""
    boundaries: Mapping[float, BoundaryCounts]
    """By threshold."""
    objects: Mapping[tuple[float, float], ObjectCounts]
    """By threshold and IoU."""
    rankings: Mapping[tuple[float, float], ObjectRanking]
    """By threshold and IoU."""


Statistic = Callable[[SampleCounts], float]


@dataclass(frozen=True)
class Scores:
    """The scores of a model."""

    samples: Mapping[str, SampleCounts]
    """Counts by sample."""
    total: SampleCounts
    """Their sum."""
    figures: Mapping[tuple[str, ...], Interval]
    """Scores with their intervals, by the path of keys under which `to_dict` has them."""
    options: Mapping[str, Any]
    """How they were made."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything in plain JSON values; NaN, where a question has no answer, is None."""
        pixels = self.total.pixels
        curve = pixels.curve()
        steps = np.arange(CURVE_POINTS + 1) * pixels.bins // CURVE_POINTS
        report: dict[str, Any] = {
            "options": dict(self.options),
            "samples": len(self.samples),
            **_plain_counts(self.total),
        }
        for path, figure in self.figures.items():
            place = report
            for key in path:
                place = place.setdefault(key, {})
            place |= {name: _plain(value) for name, value in figure._asdict().items()}
        report["curve"] = {name: _plain(values[steps]) for name, values in curve._asdict().items()}
        report["reliability"] = {name: _plain(values) for name, values in reliability(pixels)._asdict().items()}
        report["by_sample"] = {name: _plain_counts(counts) for name, counts in self.samples.items()}
        return report

    def lines(self) -> list[str]:
        """Return a table for people, a line each."""
        pixels = self.total.pixels
        labelled, slump = _labelled(pixels)
        table = [
            f"{len(self.samples):,} samples, {self.total.patches:,} patches, {labelled:,} pixels of known truth, "
            f"{_percent(share(slump, labelled))} of them slump"
        ]
        group: tuple[str, ...] = ()
        for path, figure in self.figures.items():
            if path[:-1] != group:
                group = path[:-1]
                table.append(f"{_heading(group)}:")
            name = _name(path[-1])
            if np.isnan(figure.low):
                table.append(f"  {name:<24} {_number(figure.value):>6}")
            else:
                span = f"{_number(figure.low)} … {_number(figure.high)}"
                table.append(f"  {name:<24} {_number(figure.value):>6}   {span}")
        return table


def score_patches(
    items: Iterable[tuple[str, np.ndarray, np.ndarray]], *, thresholds: Sequence[float] = (0.5,),
    ious: Sequence[float] = (0.3, 0.5, 0.75), min_object_size: int = 32, distance_px: int | None = None,
    bins: int = BINS, bootstrap: int = 1000, level: float = 0.95, seed: int = 0,
) -> Scores:  # fmt: skip
    """Return the scores of a model from what it says of patches or tiles, which are taken one after another.

    Objects are those of each patch: where patches cut them, or overlap, pieces count, and count again; whole tiles are
    better for objects.

    Args:
        items: (sample, probabilities, target): probabilities (y, x), 0 to 1, NaN where the model saw nothing; target
            (y, x), 0 background, 1 slump, 2 ignore. The patches of one sample need not follow each other. Samples are
            what the bootstrap draws, and should be independent: overlapping ones should share a name.
        thresholds: a probability above is slump; multiples of 1/bins.
        ious: what a match of objects takes.
        min_object_size: in pixels; smaller objects do not count.
        distance_px: width of boundaries; None is 2 % of the first patch's diagonal.
        bins: of the histogram of probabilities.
        bootstrap: draws for the intervals; 0 for none.
        level: of the intervals.
        seed: of the draws.

    Raises:
        ConfigError: an option or a value cannot be, or there is no item.
        GridMismatchError: probabilities and target differ in shape.
    """
    check_draws(bootstrap, level)
    for threshold in thresholds:
        edge_of(threshold, bins)
    samples: dict[str, SampleCounts] = {}
    for sample, probabilities, target in items:
        if probabilities.ndim != 2:
            raise GridMismatchError(f"patches are (y, x); that of {sample!r} has the shape {probabilities.shape}")
        if distance_px is None:
            distance_px = boundary_width(probabilities.shape)
        try:
            counts = _count(probabilities, target, thresholds, ious, min_object_size, distance_px, bins)
        except (ConfigError, GridMismatchError) as error:
            raise type(error)(f"sample {sample!r}: {error}") from error
        samples[sample] = samples[sample] + counts if sample in samples else counts
    options = {
        "thresholds": list(thresholds), "ious": list(ious), "min_object_size": min_object_size,
        "distance_px": distance_px, "bins": bins, "bootstrap": bootstrap, "level": level, "seed": seed,
    }  # fmt: skip
    values = list(samples.values())
    figures = intervals(values, dict(_statistics(thresholds, ious)), bootstrap, level, seed)
    return Scores(samples=samples, total=SampleCounts.total(values), figures=figures, options=options)


def _count(
    probabilities: np.ndarray, target: np.ndarray, thresholds: Sequence[float], ious: Sequence[float],
    min_object_size: int, distance_px: int, bins: int,
) -> SampleCounts:  # fmt: skip
    truth, labelled = read_target(target, probabilities)
    histogram = count_pixels(probabilities, target, bins)
    boundaries, objects, rankings = {}, {}, {}
    for threshold in thresholds:
        found = np.asarray(probabilities, "float32") > np.float32(threshold)
        boundaries[threshold] = boundary_overlap(found, truth, ignore=~labelled, distance_px=distance_px)
        overlaps = overlap_objects(
            found, truth, ignore=~labelled, min_object_size=min_object_size, probabilities=probabilities
        )
        for iou in ious:
            objects[threshold, iou] = overlaps.counts(iou)
            rankings[threshold, iou] = overlaps.ranking(iou)
    return SampleCounts(1, histogram, boundaries, objects, rankings)


def _statistics(thresholds: Sequence[float], ious: Sequence[float]) -> Iterator[tuple[tuple[str, ...], Statistic]]:
    for name in ("average_precision", "auroc", "brier"):
        yield ("probabilities", name), attrgetter(f"pixels.{name}")
    yield ("probabilities", "calibration_error"), lambda counts: expected_calibration_error(counts.pixels)
    yield (
        ("probabilities", "calibration_error_by_mass"),
        lambda counts: expected_calibration_error(counts.pixels, by="mass"),
    )
    yield ("probabilities", "best_threshold"), lambda counts: counts.pixels.best_threshold()
    yield ("probabilities", "best_f1"), lambda counts: _highest(counts.pixels.curve().f1)
    for threshold in thresholds:
        top = ("thresholds", f"{threshold:g}")
        for name in ("accuracy", "precision", "recall", "f1", "iou", "kappa"):
            yield (*top, "pixels", name), partial(_pixel_score, threshold=threshold, name=name)
        yield (*top, "boundaries", "iou"), partial(_boundary_iou, threshold=threshold)
        for iou in ious:
            for name in ("precision", "recall", "f1", "mean_iou"):
                yield (*top, "objects", f"{iou:g}", name), partial(_object_score, key=(threshold, iou), name=name)
            yield (*top, "objects", f"{iou:g}", "average_precision"), partial(_ranking_score, key=(threshold, iou))


def _pixel_score(counts: SampleCounts, *, threshold: float, name: str) -> float:
    return float(getattr(counts.pixels.counts(threshold), name))


def _boundary_iou(counts: SampleCounts, *, threshold: float) -> float:
    return counts.boundaries[threshold].iou


def _object_score(counts: SampleCounts, *, key: tuple[float, float], name: str) -> float:
    return float(getattr(counts.objects[key], name))


def _ranking_score(counts: SampleCounts, *, key: tuple[float, float]) -> float:
    return counts.rankings[key].average_precision


def _highest(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.max()) if known.size else float("nan")


def _labelled(pixels: ScoreHistogram) -> tuple[int, int]:
    slump = int(pixels.positives.sum())
    return slump + int(pixels.negatives.sum()), slump


def _plain_counts(counts: SampleCounts) -> dict[str, Any]:
    """Return patches, pixels and the counts at each threshold, nested as the figures are."""
    labelled, slump = _labelled(counts.pixels)
    at: dict[str, Any] = {}
    for threshold, boundary in counts.boundaries.items():
        at[f"{threshold:g}"] = {
            "pixels": dict(vars(counts.pixels.counts(threshold))),
            "boundaries": dict(vars(boundary)),
            "objects": {
                f"{iou:g}": dict(vars(objects)) for (its, iou), objects in counts.objects.items() if its == threshold
            },
        }
    return {"patches": counts.patches, "labelled": labelled, "slump": slump, "thresholds": at}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value.tolist()]
    return None if isinstance(value, float) and np.isnan(value) else value


def _heading(group: tuple[str, ...]) -> str:
    if group[0] != "thresholds":
        return " ".join(group)
    iou = f", matched at IoU ≥ {group[3]}" if len(group) > 3 else ""
    return f"{group[2]} at probability > {group[1]}{iou}"


def _name(key: str) -> str:
    return " ".join({"auroc": "AUROC", "iou": "IoU", "f1": "F1"}.get(word, word) for word in key.split("_"))


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1%}".replace("%", " %")
