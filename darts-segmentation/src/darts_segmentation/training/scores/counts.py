"""Counts that add up: what every score is made of, so that patches, tiles and runs can be joined in any order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np


class Counts:
    """Base of frozen dataclasses of counts; a field is a number, an array, other counts, or a mapping of counts.

    Arrays of counts that are added must have one length, mappings the same keys.
    """

    def __add__(self, other: Self) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        return type(self).total([self, other])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, name), getattr(other, name)) for name in _names(self))

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def total(cls, values: Sequence[Self]) -> Self:
        """Return the sum of one or more counts."""
        return next(cls.weighted_sums(values, np.ones((1, len(values)), "int64")))

    @classmethod
    def weighted_sums(cls, values: Sequence[Self], weights: np.ndarray) -> Iterator[Self]:
        """Give, for each row of `weights` (whole numbers, (sum, value)), the sum of the values so many times each."""
        columns = [_weighted_sums([getattr(value, name) for value in values], weights) for name in _names(cls)]
        for row in zip(*columns, strict=True):
            yield cls(*row)


@dataclass(frozen=True, eq=False)
class Hits(Counts):
    """What was found, and what is there: pixels or objects. A ratio is NaN where its denominator is 0."""

    tp: int = 0
    """There, and found."""
    fp: int = 0
    """Found, but not there."""
    fn: int = 0
    """There, but not found."""

    @property
    def there(self) -> int:
        """What there is to find."""
        return self.tp + self.fn

    @property
    def precision(self) -> float:
        """Share of what was found that is right; NaN where nothing was found."""
        return share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of what is there that was found; NaN where nothing is there."""
        return share(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN only where nothing is there and nothing was found."""
        return share(2 * self.tp, 2 * self.tp + self.fp + self.fn)


def _names(counts: Any) -> list[str]:
    return [field.name for field in fields(counts)]


def _weighted_sums(column: Sequence[Any], weights: np.ndarray) -> Iterator[Any]:
    first = column[0]
    if isinstance(first, Counts):
        yield from type(first).weighted_sums(column, weights)
    elif isinstance(first, Mapping):
        parts = [_weighted_sums([value[key] for value in column], weights) for key in first]
        for _ in range(len(weights)):
            yield {key: next(part) for key, part in zip(first, parts, strict=True)}
    else:
        table = np.asarray(column)
        # Products of whole numbers are slow in NumPy; doubles hold them exactly, up to 2⁵³.
        sums = (weights.astype("float64") @ table.reshape(len(column), -1)).reshape(len(weights), *table.shape[1:])
        sums = np.rint(sums).astype("int64") if np.issubdtype(table.dtype, np.integer) else sums
        yield from sums if table.ndim > 1 else sums.tolist()


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)


def share(part: float, whole: float) -> float:
    """Return part / whole; NaN where the whole is 0, for there is no answer then."""
    return float(part / whole) if whole else float("nan")
