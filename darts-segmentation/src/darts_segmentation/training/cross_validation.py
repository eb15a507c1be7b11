"""Cross-validation: as many trainings as folds and seeds, each tested on what it never saw."""

import csv
import dataclasses
import io
import json
import logging
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from darts_segmentation.training.evaluation import EvaluationOptions
from darts_segmentation.training.fit_options import FitOptions
from darts_utils.errors import ConfigError
from darts_utils.numbers import whole_number
from darts_utils.store import replacing

logger = logging.getLogger("darts.training")

LEAST_FOLDS, MOST_FOLDS = 3, 1000
"""One for the test and one for the validation of each training, and at least one to train on."""
RUNS_FILE, SUMMARY_FILE = "runs.csv", "summary.json"


@dataclass(frozen=True, kw_only=True)
class CrossOptions:
    """How often is trained, and on what."""

    folds: int = 5
    """Parts of the data; each is the test of one training, and the part after it its validation."""
    seeds: list[int] = field(default_factory=lambda: [42])
    """Each fold is trained with each of these seeds; the parts are the same."""

    def __post_init__(self) -> None:
        whole_number("folds", self.folds, LEAST_FOLDS, MOST_FOLDS)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds must name at least one number, and each once, got {self.seeds}")


@dataclass(frozen=True)
class CrossScores:
    """Scores of all trainings."""

    runs: Mapping[str, Mapping[str, float]]
    """Scores by training (its folder's name) and name; NaN where a question has no answer."""

    def spread(self, name: str) -> tuple[float, float, int]:
        """Return mean and standard deviation of a score over the trainings that have it, and how many those are."""
        values = [scores[name] for scores in self.runs.values() if not math.isnan(scores[name])]
        if not values:
            return math.nan, math.nan, 0
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan, len(values)

    @property
    def names(self) -> list[str]:
        """Names of the scores."""
        return list(next(iter(self.runs.values())))

    def lines(self) -> list[str]:
        """Return a table for people, a line each."""
        width = max(map(len, self.names))
        rows = [f"{len(self.runs)} trainings: mean ± standard deviation"]
        for name in self.names:
            mean, deviation, count = self.spread(name)
            few = "" if count == len(self.runs) else f"   ({count} of {len(self.runs)})"
            rows.append(f"  {name:<{width}}  {mean:.3f} ± {deviation:.3f}{few}")
        return rows


def cross_validate(folder: Path, options: FitOptions, cross: CrossOptions) -> CrossScores:
    """Return the scores of trainings on all folds with all seeds; their folders lie in `folder`.

    Calling again goes on: whole trainings are not made again, and one that was killed goes on from its last epoch.
    Their scores are in `runs.csv`, mean and spread in `summary.json`.

    Raises:
        ConfigError: an option cannot be, or there are fewer blocks of samples than folds.
    """
    from darts_segmentation.training.evaluation import evaluate_run
    from darts_segmentation.training.fitting import fit

    if options.split_named:
        raise ConfigError("split_named: the folds of a cross-validation are all of the data; leave it out")
    folds = list(_folds(options, cross.folds))
    testing = EvaluationOptions(bootstrap=0, device=options.device)
    runs: dict[str, dict[str, float]] = {}
    for seed in cross.seeds:
        for number, splits in enumerate(folds, start=1):
            name = f"seed-{seed}-fold-{number}"
            logger.info("training %d of %d: %s", len(runs) + 1, len(folds) * len(cross.seeds), name)
            fit(dataclasses.replace(options, seed=seed), folder / name, splits=splits)
            scores, _ = evaluate_run(folder / name, testing)
            runs[name] = {" ".join(path): float(figure.value) for path, figure in scores.figures.items()}
            found = CrossScores(runs)
            _write(folder, found)
    return found


def _folds(options: FitOptions, count: int) -> Iterator[dict[str, list[int]]]:
    """Yield for each fold the patches to train, to validate and to test with."""
    from darts_segmentation.training.batches import JoinedPatches
    from darts_segmentation.training.splits import fold_samples

    metadata = JoinedPatches(options.datasets).metadata
    # As numbers in the joined datasets.
    metadata = metadata.assign(patch=np.arange(len(metadata)))
    parts = [fold["val"] for fold in fold_samples(metadata, count, by=options.split_by, seed=options.seed)]
    for number, test in enumerate(parts):
        val = parts[(number + 1) % count]
        others = [part for part in parts if part is not test and part is not val]
        yield {"train": sorted(np.concatenate(others).tolist()), "val": val.tolist(), "test": test.tolist()}


def _write(folder: Path, scores: CrossScores) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["training", *scores.names])
    writer.writerows([name, *run.values()] for name, run in scores.runs.items())
    summary: dict[str, Any] = {}
    for name in scores.names:
        mean, deviation, count = scores.spread(name)
        summary[name] = {"mean": _plain(mean), "std": _plain(deviation), "trainings": count}
    for file, content in ((RUNS_FILE, text.getvalue()), (SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")):
        with replacing(folder / file) as temporary:
            temporary.write_text(content, encoding="utf-8")


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
