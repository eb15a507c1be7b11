"""The same slump across years: ids that stay, through drift, splits and merges."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import shapely

from darts_export.dataset.clusters import close_pairs
from darts_utils.errors import ConfigError

NONE = -1

MOST_DRIFT_M = 1000.0

AREAS_A_M2 = 1000.0
"""Areas are compared in such units: finer differences are rounding."""


@dataclass(frozen=True, kw_only=True)
class Matching:
    """When outlines of different years are one slump."""

    drift_m: float = 10.0
    """How far images may be shifted against each other; each outline is grown by half of it before comparing."""
    min_share: float = 0.3
    """Two grown outlines match if they share at least this part of the smaller one's area."""

    def __post_init__(self) -> None:
        if not 0 <= self.drift_m <= MOST_DRIFT_M:
            raise ConfigError(f"drift is 0 to {MOST_DRIFT_M:.0f} m, got {self.drift_m}")
        if not 0 < self.min_share <= 1:
            raise ConfigError(f"min_share is above 0 and at most 1, got {self.min_share}")


@dataclass(frozen=True)
class Tracks:
    """Which slump each outline of Level 2 is; slumps are named by the row of their first outline."""

    slump: np.ndarray
    """Row of the first outline of its slump, for each row."""
    parent: np.ndarray
    """For the first outline of a slump that split off: the slump it was a part of; else -1."""
    merged_into: np.ndarray
    """For the first outline of a slump that merged into another: that one; else -1."""
    previous: np.ndarray
    """Row of the slump's outline before this one; -1 for the first."""


def match_years(level2: pd.DataFrame, matching: Matching) -> Tracks:
    """Follow slumps from year to year.

    The outlines of a year are matched with the last outline of each slump so far, however long ago that was, those
    with the largest common area first, and of equal ones those most alike in size; each slump goes on in one outline
    at most, and each outline has one slump. What is left over though it matches is a part that split off (a new slump
    with a parent), or a slump that merged into another one (it comes back if it is seen apart again).

    Later years never change what earlier ones gave, and nothing depends on outlines that do not hang together.

    Args:
        level2: `flat`, `year`, and `id` (which decides between pairs that are alike in all).
        matching: the rule.
    """
    year, ids = level2["year"].to_numpy(), level2["id"].to_numpy()
    slump, parent, merged, previous = (np.full(len(level2), NONE) for _ in range(4))
    last: dict[int, int] = {}  # slump: its last row
    grown = shapely.buffer(level2["flat"].to_numpy(), matching.drift_m / 2, join_style="mitre")
    early, late = _near(grown, year)
    for now in np.unique(year).tolist():
        start, stop = np.searchsorted(year[late], [now, now + 1])
        latest = [last[int(slump[row])] == row for row in early[start:stop]]
        before, after = early[start:stop][latest], late[start:stop][latest]
        pairs = [(int(slump[row]), int(to)) for row, to in _matches(grown, ids, before, after, matching.min_share)]
        _go_on(pairs, slump, previous, merged, last)
        for track, row in pairs:
            if slump[row] == NONE and parent[row] == NONE:
                parent[row] = track
        for row in np.flatnonzero((year == now) & (slump == NONE)).tolist():
            slump[row] = last[row] = row
        for track, row in pairs:
            if year[last[track]] != now and year[last[int(slump[row])]] == now and merged[track] == NONE:
                merged[track] = slump[row]
    return Tracks(slump, parent, merged, previous)


def _go_on(
    pairs: list[tuple[int, int]], slump: np.ndarray, previous: np.ndarray, merged: np.ndarray, last: dict[int, int]
) -> None:
    """Let slumps go on in outlines, the largest common area first."""
    gone_on: set[int] = set()
    for track, row in pairs:
        if track in gone_on or slump[row] != NONE:
            continue
        gone_on.add(track)
        slump[row], previous[row] = track, last[track]
        last[track] = row
        merged[track] = NONE


def _near(grown: np.ndarray, year: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of an earlier and a later outline that touch when grown, in order of the later year."""
    first, second = close_pairs(grown, np.zeros(len(grown), "int64"))
    early = np.where(year[first] <= year[second], first, second)
    late = first + second - early
    different = year[early] != year[late]
    early, late = early[different], late[different]
    order = np.argsort(year[late], kind="stable")
    return early[order], late[order]


def _matches(
    grown: np.ndarray, ids: np.ndarray, early: np.ndarray, late: np.ndarray, min_share: float
) -> Iterator[tuple[int, int]]:
    """Give the pairs that share enough, the largest common area first; of equal ones those most alike."""
    area = shapely.area(grown)
    shared = shapely.area(shapely.intersection(grown[early], grown[late]))
    # An outline that lies within two earlier ones shares all of itself with both: rounding must not decide.
    common, both = (np.rint(AREAS_A_M2 * value) for value in (shared, area[early] + area[late]))
    order = np.lexsort([ids[late], ids[early], both, -common])
    enough = order[(shared >= min_share * np.minimum(area[early], area[late]))[order]]
    return zip(early[enough], late[enough], strict=True)
