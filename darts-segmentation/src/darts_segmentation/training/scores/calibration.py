"""Calibration: do probabilities mean what they say, and the temperature that makes them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from darts_segmentation.checkpoint import Checkpoint, load_checkpoint, save_again
from darts_segmentation.training.scores.counts import Counts, share
from darts_segmentation.training.scores.pixels import IGNORE, ScoreHistogram, check_shapes
from darts_utils.errors import ConfigError

logger = logging.getLogger("darts.segmentation")

LOGIT_LIMIT = 32.0
"""Logits beyond this share the last bin of their side; their mean is kept."""
LOGIT_BINS_PER_UNIT = 32
TEMPERATURES = (0.05, 20.0)
"""Temperatures outside are not fitted: so far off, something else is wrong."""

Grouping = Literal["width", "mass"]


class Reliability(NamedTuple):
    """How often it is a slump where the model says so; a row for each group of probabilities that occur."""

    low: np.ndarray
    """Probabilities above this (the first group: from 0 on) …"""
    high: np.ndarray
    """… up to this one."""
    pixels: np.ndarray
    """How many there are (int64)."""
    confidence: np.ndarray
    """Their mean probability (float64)."""
    share: np.ndarray
    """The share of slump among them (float64)."""


def reliability(histogram: ScoreHistogram, groups: int = 10, by: Grouping = "width") -> Reliability:
    """Return the reliability table of a histogram; groups without a pixel are left out.

    Args:
        histogram: of the pixels.
        groups: how many; by width they must divide the histogram's bins.
        by: "width" for groups as wide, "mass" for groups with as many pixels, as far as the histogram's bins, which
            stay whole, allow it: most pixels of an ordinary scene lie in the lowest one.

    Raises:
        ConfigError: `groups` or `by` cannot be.
    """
    count = histogram.positives + histogram.negatives
    if by == "width" and groups > 0 and histogram.bins % groups == 0:
        group = np.repeat(np.arange(groups), histogram.bins // groups)
    elif by == "mass" and groups > 0:
        # A bin belongs where its middle pixel falls.
        middle = np.cumsum(count) - count / 2
        group = np.minimum(middle * groups / max(int(count.sum()), 1), groups - 1).astype("int64")
    else:
        raise ConfigError(
            f"reliability has groups by 'width', whose number divides {histogram.bins}, or by 'mass'; "
            f"got {groups!r} by {by!r}"
        )
    filled = np.flatnonzero(count)
    numbers, where = np.unique(group[filled], return_inverse=True)

    def add(values: np.ndarray) -> np.ndarray:
        return np.bincount(where, weights=values[filled], minlength=numbers.size)

    pixels = add(count)
    return Reliability(
        low=np.searchsorted(group, numbers, side="left") / histogram.bins,
        high=np.searchsorted(group, numbers, side="right") / histogram.bins,
        pixels=pixels.astype("int64"),
        confidence=add(histogram.confidence) / pixels,
        share=add(histogram.positives) / pixels,
    )


def expected_calibration_error(histogram: ScoreHistogram, groups: int = 10, by: Grouping = "width") -> float:
    """Return the mean distance of mean probability and share of slump, weighted by pixels; NaN without pixels."""
    table = reliability(histogram, groups, by)
    return share(float((table.pixels * np.abs(table.confidence - table.share)).sum()), int(table.pixels.sum()))


@dataclass(frozen=True, eq=False)
class LogitHistogram(Counts):
    """How often which logit was given, by truth: enough to fit a temperature to any number of pixels."""

    counts: np.ndarray
    """Pixels (int64) by truth and bin, (2, bin)."""
    sums: np.ndarray
    """Sums of their logits (float64), (2, bin)."""

    @classmethod
    def empty(cls) -> Self:
        """Return the histogram of no pixel."""
        shape = (2, 2 * round(LOGIT_LIMIT * LOGIT_BINS_PER_UNIT))
        return cls(np.zeros(shape, "int64"), np.zeros(shape))

    def nll(self, temperature: float = 1.0) -> float:
        """Return the mean negative log likelihood, each logit taken as its bin's mean; NaN without pixels.

        This is below the exact one, for logits from -32 to 32 by at most 1/(32 · 1024 · temperature²).
        """
        means = self._means()
        # -log sigmoid(z) for slumps, -log(1 - sigmoid(z)) for background
        losses = np.logaddexp(0, np.stack([means[0], -means[1]]) / temperature)
        return share(float((self.counts * losses).sum()), int(self.counts.sum()))

    def _slope(self, inverse: float) -> float:
        """Derivative of the sum of log losses by the inverse temperature, in which they are convex."""
        means = self._means()
        background, slump = self.counts
        return float((background * means[0] * expit(inverse * means[0])).sum()) - float(
            (slump * means[1] * expit(-inverse * means[1])).sum()
        )

    def _means(self) -> np.ndarray:
        return self.sums / np.maximum(self.counts, 1)


def count_logits(logits: np.ndarray, target: np.ndarray, *, ignore: np.ndarray | None = None) -> LogitHistogram:
    """Return the histogram of logits as the network gives them, before any temperature.

    Args:
        logits: any shape; NaN where the model saw nothing.
        target: 0 background, 1 slump, 2 ignore; or bool.
        ignore: where the truth is not known, as bool, besides what the target says.

    Raises:
        GridMismatchError: shapes differ.
    """
    check_shapes(logits=logits, target=target, ignore=ignore)
    labelled = ~np.isnan(logits) & (target != IGNORE)
    if ignore is not None:
        labelled &= ~ignore
    values = np.clip(logits[labelled], -1e6, 1e6).astype("float64")
    side = round(LOGIT_LIMIT * LOGIT_BINS_PER_UNIT)
    where = np.clip(np.floor(values * LOGIT_BINS_PER_UNIT), -side, side - 1).astype("int64") + side
    where += 2 * side * (target[labelled] == 1)
    return LogitHistogram(
        counts=np.bincount(where, minlength=4 * side).reshape(2, -1),
        sums=np.bincount(where, weights=values, minlength=4 * side).reshape(2, -1),
    )


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Return the logits (float64) of float32 probabilities; 0 and 1 count as the nearest numbers between."""
    tiny = np.finfo("float32").smallest_subnormal
    inside = np.clip(np.asarray(probabilities, "float64"), tiny, 1 - np.finfo("float32").epsneg)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def fit_temperature(logits: LogitHistogram, *, limits: tuple[float, float] = TEMPERATURES) -> float:
    """Return the temperature by which logits must be divided for the likelihood to be greatest; never worse than 1.

    Where one class is missing, nothing can be fitted and 1 comes back; where the best lies outside `limits`, as with
    logits that part the classes without error, the nearest limit. Both are warned of.

    Raises:
        ConfigError: 1 is not within the limits.
    """
    low, high = limits
    if not 0 < low <= 1 <= high < np.inf:
        raise ConfigError(f"limits of the temperature are above 0 and have 1 between them; got {limits!r}")
    background, slump = logits.counts.sum(axis=1)
    if not (background and slump):
        logger.warning(
            "no temperature was fitted: it takes slumps and background, got %d and %d pixels", slump, background
        )
        return 1.0
    for limit in limits:
        slope = logits._slope(1 / limit)
        # Falling losses ask for a greater inverse, rising ones for a smaller one.
        if (slope <= 0 and limit == low) or (slope >= 0 and limit == high):
            logger.warning(
                "the temperature that fits best lies beyond %g, which is taken; are these pixels too few or too clear?",
                limit,
            )
            return float(limit)
    return float(1 / brentq(logits._slope, 1 / high, 1 / low, xtol=1e-9, rtol=1e-12))


def with_temperature(
    path_in: Path | str, path_out: Path | str, temperature: float, note: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Write a checkpoint again with the temperature in its card, and return it; the file may be the same.

    Args:
        path_in: the checkpoint. A temperature that its card has is replaced, not multiplied.
        path_out: the file to write.
        temperature: by which the network's logits are divided.
        note: how it was fitted, in plain values; the card's `calibration`.

    Raises:
        ConfigError: the temperature is no positive number.
        CheckpointError, MissingDataError, StoreError: as in loading and saving.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature must be a positive number; got {temperature!r}")
    model = load_checkpoint(path_in)
    card = {**model.card, "temperature": float(temperature)}
    # What is said of an older temperature is not true of this one.
    card.pop("calibration", None)
    return save_again(model, path_out, card={**card, "calibration": dict(note)} if note else card)
