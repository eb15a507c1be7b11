"""Confidence intervals of scores by the bootstrap: samples are drawn, not pixels, which are not independent."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from darts_segmentation.training.scores.counts import Counts
from darts_utils.errors import ConfigError

C = TypeVar("C", bound=Counts)
K = TypeVar("K", bound=Hashable)

WEIGHTS_AT_ONCE = 2_000_000
"""Draws are summed in blocks of so many weights, to bound memory."""


class Interval(NamedTuple):
    """A statistic and the range in which it lies."""

    value: float
    """That of all samples; NaN where it has no answer."""
    low: float = float("nan")
    """NaN where fewer than two samples tell nothing of their spread, or no draw gives an answer."""
    high: float = float("nan")
    undefined: float = 0.0
    """Share of the draws that give no answer (NaN), which the range leaves out."""


def interval(
    values: Sequence[C], statistic: Callable[[C], float], n: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return a statistic of the sum of `values`, and its interval; see `intervals`."""
    return intervals(values, {"": statistic}, n, level, seed)[""]


def intervals(
    values: Sequence[C], statistics: Mapping[K, Callable[[C], float]], n: int = 1000, level: float = 0.95,
    seed: int = 0,
) -> dict[K, Interval]:  # fmt: skip
    """Return statistics of the sum of `values` with percentile intervals, all of the same draws.

    Args:
        values: counts, one of each sample; samples should be independent of each other (patches of one are not).
        statistics: what to compute from a sum of counts; NaN where there is no answer.
        n: how often as many samples are drawn, with replacement; 0 for no intervals.
        level: share of the draws within the interval.
        seed: the same one gives the same draws.

    Raises:
        ConfigError: there is no value, or `level` or `n` cannot be.
    """
    if not values:
        raise ConfigError("there is no sample to score")
    check_draws(n, level)
    kind, count = type(values[0]), len(values)
    total = kind.total(values)
    found = {name: statistic(total) for name, statistic in statistics.items()}
    if count < 2 or n == 0:
        return {name: Interval(value) for name, value in found.items()}
    rng = np.random.default_rng(seed)
    draws = np.empty((len(statistics), n))
    rows = max(1, WEIGHTS_AT_ONCE // count)
    for start in range(0, n, rows):
        weights = _draw(rng, min(rows, n - start), count)
        for place, drawn in enumerate(kind.weighted_sums(values, weights), start):
            draws[:, place] = [statistic(drawn) for statistic in statistics.values()]
    return {name: _interval(value, row, level) for (name, value), row in zip(found.items(), draws, strict=True)}


def check_draws(n: int, level: float) -> None:
    """Check the number of draws and the level of an interval.

    Raises:
        ConfigError: they cannot be.
    """
    if not 0 < level < 1 or n < 0:
        raise ConfigError(f"level lies between 0 and 1, and the draws are 0 or more; got {level!r} and {n!r}")


def _draw(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """How often each sample is drawn, (n, count)."""
    drawn = rng.integers(count, size=(n, count)) + count * np.arange(n)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * count).reshape(n, count)


def _interval(value: float, draws: np.ndarray, level: float) -> Interval:
    known = draws[~np.isnan(draws)]
    if not known.size:
        return Interval(value, undefined=1.0)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), 1 - known.size / draws.size)
