"""Scores by object: 8-connected regions, found and true ones matched one to one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from darts_segmentation.training.scores.counts import Counts, Hits, share
from darts_segmentation.training.scores.pixels import check_shapes
from darts_utils.errors import ConfigError


@dataclass(frozen=True, eq=False)
class ObjectCounts(Hits):
    """Objects by what became of them; `tp` are matches, so true objects as well as found ones."""

    ignored: int = 0
    """True objects that do not count."""
    iou_sum: float = 0.0
    """Sum of the IoU of the matches."""

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the matches; NaN without a match."""
        return share(self.iou_sum, self.tp)


@dataclass(frozen=True, eq=False)
class ObjectRanking(Counts):
    """Found objects with their scores, from which average precision comes."""

    scores: np.ndarray
    """Score of each found object (float64)."""
    matched: np.ndarray
    """Whether it is right (bool)."""
    weights: np.ndarray
    """How often it counts (int64): once, but in a bootstrap."""
    true: int
    """How many true objects there are."""

    @classmethod
    def weighted_sums(cls, values: Sequence[Self], weights: np.ndarray) -> Iterator[Self]:
        """Give, for each row of `weights`, all found objects, highest score first, with the weights of their values."""
        scores = np.concatenate([value.scores for value in values])
        order = np.argsort(-scores, kind="stable")
        matched = np.concatenate([value.matched for value in values])[order]
        single = np.concatenate([value.weights for value in values])[order]
        owner = np.repeat(np.arange(len(values)), [len(value.scores) for value in values])[order]
        true = np.array([value.true for value in values])
        for row in weights:
            yield cls(scores[order], matched, single * row[owner], int(row @ true))

    @property
    def average_precision(self) -> float:
        """Area under the staircase of precision over recall; NaN where nothing is there, 0 where nothing was found.

        The staircase is not smoothed, and ends at the share of true objects that was found at all; what is missed adds
        nothing. Objects of one score enter together.
        """
        order = np.argsort(-self.scores, kind="stable")
        scores, weights = self.scores[order], self.weights[order]
        last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
        found = np.cumsum(weights)[last]
        right = np.cumsum(weights * self.matched[order])[last]
        steps = np.diff(right, prepend=0)
        return share(float((steps * right / np.maximum(found, 1)).sum()), self.true)


@dataclass(frozen=True)
class Overlaps:
    """The found and the true objects of one patch or tile, and how they overlap."""

    found: int
    """How many found objects count; they are numbered from 0."""
    true: int
    """How many true objects count."""
    ignored: int
    """True objects that do not count."""
    scores: np.ndarray
    """Mean probability in each found object (float64); NaN without probabilities."""
    rows: np.ndarray
    """Of each overlapping pair that counts, the found object …"""
    columns: np.ndarray
    """… and the true one."""
    iou: np.ndarray
    """Their intersection over union (float64)."""
    iou_ignored: np.ndarray
    """Highest IoU of each found object with a true one that does not count (float64, 0 without)."""

    def counts(self, iou: float = 0.5) -> ObjectCounts:
        """Return the counts at an IoU of at least `iou`: as many matches as there can be, of these those that fit best.

        Raises:
            ConfigError: `iou` is not in (0, 1].
        """
        near = self._at_least(iou)
        # One more match is worth more than the IoU of all others together.
        chosen = near[_assign(self.rows[near], self.columns[near], self.iou[near] + near.size + 1)]
        excused = self.iou_ignored >= iou
        excused[self.rows[chosen]] = False
        return ObjectCounts(
            tp=chosen.size,
            fp=self.found - chosen.size - int(excused.sum()),
            fn=self.true - chosen.size,
            ignored=self.ignored,
            iou_sum=float(self.iou[chosen].sum()),
        )

    def ranking(self, iou: float = 0.5) -> ObjectRanking:
        """Return the found objects by score, for average precision at an IoU of at least `iou`.

        Those with the higher score choose first, yet give way where both can have a match: so whatever score one cuts
        at, as many are matched as there can be, and all together as many as in `counts`. COCO's rule, where each takes
        the best that is left for good, gives the same above an IoU of 0.5 and sometimes fewer matches below.

        Raises:
            ConfigError: `iou` is not in (0, 1], or the objects have no scores.
        """
        near = self._at_least(iou)
        if np.isnan(self.scores).any():
            raise ConfigError("a ranking takes scores; give the probabilities to overlap_objects")
        # Matchable sets are a matroid: those of the greatest total rank are what a greedy choice by rank gives.
        rank = np.empty(self.found)
        rank[np.argsort(self.scores, kind="stable")] = np.arange(1, self.found + 1)
        chosen = near[_assign(self.rows[near], self.columns[near], rank[self.rows[near]])]
        matched = np.zeros(self.found, bool)
        matched[self.rows[chosen]] = True
        counted = matched | (self.iou_ignored < iou)
        return ObjectRanking(
            self.scores[counted], matched[counted], np.ones(int(counted.sum()), "int64"), self.true
        )  # fmt: skip

    def _at_least(self, iou: float) -> np.ndarray:
        if not 0 < iou <= 1:
            raise ConfigError(f"iou lies above 0 and is at most 1; got {iou!r}")
        return np.flatnonzero(self.iou >= iou)


def overlap_objects(
    found: np.ndarray, truth: np.ndarray, *, ignore: np.ndarray | None = None, min_object_size: int = 1,
    probabilities: np.ndarray | None = None,
) -> Overlaps:  # fmt: skip
    """Return the objects found, the true ones, and how they overlap.

    Found objects with fewer than `min_object_size` pixels go, as in a run. True ones as small, or with more than half
    of their pixels in `ignore`, do not count, neither as found nor as missed. A found object does not count when more
    than half of its pixels are in `ignore` or on such true objects, and is no error when it reaches the IoU asked for
    with such a one. IoU is that of the pixels outside `ignore`; with true objects that do not count, that of all.

    Args:
        found: (y, x), bool, whose 8-connected regions are objects; or the number of the object at each pixel, 0 without
            one, as int32 or int64.
        truth: likewise.
        ignore: bool (y, x), where the truth is not known or nothing was to be seen.
        min_object_size: in pixels.
        probabilities: (y, x), for the objects' scores.

    Raises:
        ConfigError: a mask is neither bool nor of numbers.
        GridMismatchError: shapes differ.
    """
    check_shapes(found=found, truth=truth, ignore=ignore, probabilities=probabilities)
    if ignore is None:
        ignore = np.zeros(found.shape, bool)
    found_labels, true_labels = _label("found", found), _label("truth", truth)
    n_found, n_true = int(found_labels.max(initial=0)) + 1, int(true_labels.max(initial=0)) + 1
    found_size, true_size = _sizes(found_labels, n_found), _sizes(true_labels, n_true)
    true_seen = true_size - _sizes(true_labels[ignore], n_true)
    least = max(min_object_size, 1)  # a number may be missing
    true_counts = (2 * true_seen >= true_size) & (true_size >= least)
    true_counts[0] = True

    away = ignore | ~true_counts[true_labels]
    found_counts = (2 * _sizes(found_labels[away], n_found) <= found_size) & (found_size >= least)
    found_counts[0] = False
    found_seen = found_size - _sizes(found_labels[ignore], n_found)

    both = (found_labels > 0) & (true_labels > 0)
    pairs, where, shared = np.unique(
        found_labels[both].astype("int64") * n_true + true_labels[both], return_inverse=True, return_counts=True
    )
    rows, columns = np.divmod(pairs, n_true)
    iou_ignored = np.zeros(n_found)
    stray = ~true_counts[columns]
    iou = shared / (found_size[rows] + true_size[columns] - shared)
    np.maximum.at(iou_ignored, rows[stray], iou[stray])

    shared = np.bincount(where[~ignore[both]], minlength=pairs.size)
    iou = shared / np.maximum(found_seen[rows] + true_seen[columns] - shared, 1)
    kept = found_counts[rows] & ~stray & (shared > 0)
    numbers_found, numbers_true = np.cumsum(found_counts) - 1, np.cumsum(true_counts) - 2
    count_true = int(true_counts.sum()) - 1
    return Overlaps(
        found=int(found_counts.sum()),
        true=count_true,
        ignored=int((true_size[1:] > 0).sum()) - count_true,
        scores=_mean_inside(probabilities, found_labels, found_size)[found_counts],
        rows=numbers_found[rows[kept]],
        columns=numbers_true[columns[kept]],
        iou=iou[kept],
        iou_ignored=iou_ignored[found_counts],
    )


def match_objects(
    found: np.ndarray, truth: np.ndarray, *, ignore: np.ndarray | None = None, iou: float = 0.5,
    min_object_size: int = 1,
) -> ObjectCounts:  # fmt: skip
    """Return how many objects were found, missed and wrong; parameters and rules as in `overlap_objects`."""
    return overlap_objects(found, truth, ignore=ignore, min_object_size=min_object_size).counts(iou)


def _label(name: str, mask: np.ndarray) -> np.ndarray:
    """Number the 8-connected regions from 1; 0 is what lies outside."""
    if mask.dtype in ("int32", "int64"):
        return mask
    if mask.dtype != bool:
        # Taken as numbers, a mask of 0 and 1 would be one object.
        raise ConfigError(f"{name} is bool, or int32 or int64 where it holds objects' numbers; got {mask.dtype}")
    if not mask.size:  # OpenCV crashes on it
        return np.zeros(mask.shape, "int32")
    labels = cv2.connectedComponents(np.ascontiguousarray(mask, "uint8"), connectivity=8, ltype=cv2.CV_32S)[1]
    return np.asarray(labels)


def _sizes(labels: np.ndarray, number: int) -> np.ndarray:
    return np.bincount(labels.ravel(), minlength=number)


def _mean_inside(probabilities: np.ndarray | None, labels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    if probabilities is None:
        return np.full(sizes.size, np.nan)
    inside = labels > 0
    sums = np.bincount(labels[inside], weights=probabilities[inside], minlength=sizes.size)
    return sums / np.maximum(sizes, 1)


def _assign(rows: np.ndarray, columns: np.ndarray, worth: Any) -> np.ndarray:
    """Return which pairs to take, each row and column at most once, for the greatest total worth (all above 0)."""
    if not rows.size:
        return np.zeros(0, "int64")
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1)
    chosen = [np.flatnonzero(alone)]
    # Pairs in conflict fall into small groups, each solved by itself.
    rest = np.flatnonzero(~alone)
    if not rest.size:
        return chosen[0]
    first_column = int(rows.max()) + 1
    nodes = first_column + int(columns.max()) + 1
    edges = coo_array((np.ones(rest.size), (rows[rest], first_column + columns[rest])), shape=(nodes, nodes))
    group = connected_components(edges, directed=False)[1][rows[rest]]
    order = np.argsort(group, kind="stable")
    for pairs in np.split(rest[order], np.flatnonzero(np.diff(group[order])) + 1):
        its_rows, row = np.unique(rows[pairs], return_inverse=True)
        its_columns, column = np.unique(columns[pairs], return_inverse=True)
        table = np.zeros((its_rows.size, its_columns.size))
        number = np.full(table.shape, -1)
        table[row, column], number[row, column] = worth[pairs], pairs
        picked = number[linear_sum_assignment(table, maximize=True)]
        chosen.append(picked[picked >= 0])
    return np.concatenate(chosen)
