"""Scores by pixel: counts at one threshold, and histograms of probability by truth that hold all thresholds."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np

from darts_segmentation.training.scores.counts import Counts, Hits, share
from darts_utils.errors import ConfigError, GridMismatchError

IGNORE = 2
"""Value of a target where nothing is known."""
BINS = 1000
"""Bins of a histogram of probabilities; each multiple of 1/1000 is a threshold at which counts are exact."""


@dataclass(frozen=True, eq=False)
class PixelCounts(Hits):
    """Pixels by truth and prediction. A ratio is NaN where its denominator is 0: the question has no answer there."""

    tn: int = 0
    """No slump, none found."""

    @property
    def accuracy(self) -> float:
        """Share of pixels that are right; NaN without pixels."""
        return share(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def specificity(self) -> float:
        """Share of the background that was left alone; NaN without background."""
        return share(self.tn, self.tn + self.fp)

    @property
    def iou(self) -> float:
        """Intersection over union; NaN only where nothing is there and nothing was found."""
        return share(self.tp, self.tp + self.fp + self.fn)

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance; NaN where truth and prediction are all of one and the same class."""
        found, there = self.tp + self.fp, self.tp + self.fn
        clear, absent = self.fn + self.tn, self.fp + self.tn
        # 2 (tp·tn - fp·fn) / …: the usual formula without its differences of nearly equal shares.
        return share(2 * (self.tp * self.tn - self.fp * self.fn), found * absent + there * clear)


class ThresholdCurve(NamedTuple):
    """Scores at every threshold that a histogram knows, in rising order; float64, NaN as in `PixelCounts`.

    The first, 0, takes in all pixels, also those of probability 0.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    iou: np.ndarray


@dataclass(frozen=True, eq=False)
class ScoreHistogram(Counts):
    """How often which probability was given, by truth.

    Bin i holds the probabilities in (i/bins, (i + 1)/bins], the first also 0, with edges as float32, so that
    "probability > threshold" is exact for each threshold that is an edge. Average precision and AUROC take the
    probabilities of a bin as equal: AUROC is off by at most half the share of pairs (positive, negative) in one bin.
    Average precision comes out too low where many pixels of both classes crowd in the highest bin: a model that is too
    sure of itself takes a temperature first, or more bins.
    """

    positives: np.ndarray
    """Slump pixels by bin (int64)."""
    negatives: np.ndarray
    """Background pixels by bin (int64)."""
    confidence: np.ndarray
    """Sum of the probabilities in each bin (float64)."""
    squared_error: float
    """Sum of (probability - truth)² over all pixels."""

    @classmethod
    def empty(cls, bins: int = BINS) -> Self:
        """Return the histogram of no pixel."""
        return cls(np.zeros(bins, "int64"), np.zeros(bins, "int64"), np.zeros(bins), 0.0)

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.positives)

    def counts(self, threshold: float) -> PixelCounts:
        """Return the exact counts where a probability > `threshold` is a slump.

        Raises:
            ConfigError: the threshold is no multiple of 1/bins above 0.
        """
        edge = edge_of(threshold, self.bins)
        tp, fp = int(self.positives[edge:].sum()), int(self.negatives[edge:].sum())
        return PixelCounts(tp, fp, int(self.positives.sum()) - tp, int(self.negatives.sum()) - fp)

    @property
    def average_precision(self) -> float:
        """Area under the staircase of precision over recall; NaN where no slump is."""
        tp, fp = _from_above(self.positives), _from_above(self.negatives)
        steps = np.diff(tp, prepend=0)
        return share(float((steps * tp / np.maximum(tp + fp, 1)).sum()), float(tp[-1]))

    @property
    def auroc(self) -> float:
        """Probability that a slump pixel scores higher than one of the background; NaN unless there are both."""
        above = _from_above(self.positives)[::-1] - self.positives
        wins = float((self.negatives * (above + 0.5 * self.positives)).sum())
        return share(wins, float(self.positives.sum()) * float(self.negatives.sum()))

    @property
    def brier(self) -> float:
        """Mean squared error of the probabilities, from the values themselves; NaN without pixels."""
        return share(self.squared_error, int(self.positives.sum() + self.negatives.sum()))

    def curve(self) -> ThresholdCurve:
        """Return the scores at every threshold from 0 to 1."""
        tp = np.append(_from_above(self.positives)[::-1], 0)
        fp = np.append(_from_above(self.negatives)[::-1], 0)
        missed = tp[0] - tp
        with np.errstate(invalid="ignore"):
            return ThresholdCurve(
                thresholds=np.arange(self.bins + 1) / self.bins,
                precision=tp / (tp + fp),
                recall=tp / np.full_like(tp, tp[0]),
                f1=2 * tp / (2 * tp + fp + missed),
                iou=tp / (tp + fp + missed),
            )

    def best_threshold(self, score: Literal["f1", "iou"] = "f1") -> float:
        """Return the threshold above 0 with the highest score of the curve; NaN where no slump is.

        Where a run of thresholds scores alike, its middle; of several such runs, the longest (of these, the lowest).
        """
        curve = self.curve()
        values = getattr(curve, score)[1:]
        if not self.positives.any():
            return float("nan")
        best = 1 + np.flatnonzero(values == values.max())
        runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
        longest = max(runs, key=len)
        return float(curve.thresholds[(longest[0] + longest[-1]) // 2])


def count_pixels(
    probabilities: np.ndarray, target: np.ndarray, bins: int = BINS, *, ignore: np.ndarray | None = None
) -> ScoreHistogram:
    """Return the histogram of one patch or tile; pixels of unknown truth or without a probability do not count.

    Args:
        probabilities: any shape, 0 to 1, taken as float32; NaN where the model saw nothing.
        target: 0 background, 1 slump, 2 ignore; or bool.
        bins: how many; thresholds are multiples of 1/bins.
        ignore: where the truth is not known, as bool, besides what the target says.

    Raises:
        ConfigError: a target or a probability has a value that cannot be.
        GridMismatchError: shapes differ.
    """
    positive, labelled = read_target(target, probabilities, ignore=ignore)
    values = np.asarray(probabilities, "float32")[labelled]
    truth = positive[labelled]
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise ConfigError(
            f"probabilities lie between 0 and 1, got {values.min():g} … {values.max():g}; are these logits?"
        )
    edges = (np.arange(1, bins) / bins).astype("float32")
    where = np.searchsorted(edges, values, side="left")
    positives = np.bincount(where[truth], minlength=bins)
    return ScoreHistogram(
        positives=positives,
        negatives=np.bincount(where, minlength=bins) - positives,
        confidence=np.bincount(where, weights=values, minlength=bins),
        squared_error=float(np.square(values - truth, dtype="float64").sum()),
    )


def read_target(
    target: np.ndarray, probabilities: np.ndarray, *, ignore: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the truth is slump, and where truth and probability are both known; bool.

    Raises:
        ConfigError: the target has a value that cannot be.
        GridMismatchError: shapes differ.
    """
    check_shapes(probabilities=probabilities, target=target, ignore=ignore)
    labelled = ~np.isnan(probabilities)
    if ignore is not None:
        labelled &= ~ignore
    if target.dtype == bool:
        return target, labelled
    if target.size and not (target.min() >= 0 and target.max() <= IGNORE):
        raise ConfigError(
            f"a target holds 0 (background), 1 (slump) and 2 (ignore), got {target.min()} … {target.max()}"
        )
    return target == 1, labelled & (target != IGNORE)


def check_shapes(**arrays: np.ndarray | None) -> None:
    """Check that the arrays have one shape; None is passed over.

    Raises:
        GridMismatchError: they differ.
    """
    shapes = {name: array.shape for name, array in arrays.items() if array is not None}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise GridMismatchError(f"what is scored must lie on one grid, got the shapes {listed}")


def edge_of(threshold: float, bins: int) -> int:
    """Return which edge of a histogram's bins a threshold is.

    Raises:
        ConfigError: it is none.
    """
    edge = round(threshold * bins) if 0 < threshold <= 1 else 0
    if edge == 0 or abs(edge / bins - threshold) > 1e-9:
        raise ConfigError(
            f"a threshold is a multiple of 1/{bins} above 0 and up to 1, where counts are exact; got {threshold!r}"
        )
    return edge


def _from_above(counts: np.ndarray) -> np.ndarray:
    """Sum over this and all higher bins, highest bin first."""
    return np.cumsum(counts[::-1])
