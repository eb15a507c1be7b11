"""What belongs together: connected components of numbered things, and pairs of things that lie close."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import shapely


def connected(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return for each of `count` things the lowest number in its connected component; edges join first and second."""
    label = np.arange(count)
    while True:
        a, b = label[first], label[second]
        apart = a != b
        if not apart.any():
            return label
        np.minimum.at(label, np.maximum(a, b)[apart], np.minimum(a, b)[apart])
        while True:
            shorter = label[label]
            if (shorter == label).all():
                break
            label = shorter


def members(label: np.ndarray) -> Iterator[np.ndarray]:
    """Give the members of each component that has several, in order of their lowest numbers."""
    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.diff(label[order], prepend=-1))
    for start, stop in pairwise([*starts.tolist(), len(order)]):
        if stop - start > 1:
            yield order[start:stop]


def close_pairs(geometry: np.ndarray, group: np.ndarray, distance: np.ndarray | None = None) -> Any:
    """Return the pairs i < j of geometries of the same group that intersect, or lie within `distance` of each other.

    Args:
        geometry: polygons in a plane.
        group: a number for each; pairs of different groups are not looked for.
        distance: for each geometry; of a pair the larger one counts.
    """
    first: list[np.ndarray] = [np.empty(0, "int64")]
    second: list[np.ndarray] = [np.empty(0, "int64")]
    for rows in members(_lowest_of(group)):
        part = geometry[rows]
        tree = shapely.STRtree(part)
        if distance is None:
            left, right = tree.query(part, predicate="intersects")
        else:
            left, right = tree.query(part, predicate="dwithin", distance=distance[rows])
        different = left != right
        left, right = rows[left[different]], rows[right[different]]
        first.append(np.minimum(left, right))
        second.append(np.maximum(left, right))
    pairs = np.unique(np.stack([np.concatenate(first), np.concatenate(second)]), axis=1)
    return pairs[0], pairs[1]


def _lowest_of(group: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    lowest: np.ndarray = first[inverse]
    return lowest
