"""What was seen where: the extents of tiles, read when they are needed."""

from typing import Any

import numpy as np
import pandas as pd

from darts_export.dataset.extents import BOX, pick_extent_up
from darts_export.dataset.planes import project

EDGE_M = 1000.0
"""Longer edges of extents are divided before they go to another plane."""


class Looks:
    """The extents of tiles, and which of them are near."""

    def __init__(self, tiles: pd.DataFrame) -> None:
        self._tile = tiles.index.to_numpy()
        self._crs, self._file = tiles["crs"].to_numpy(), tiles["extents"].to_numpy()
        self._places = {
            kind: (tiles[f"{kind}_at"].to_numpy(), tiles[f"{kind}_end"].to_numpy()) for kind in ("seen", "clear")
        }
        self._bounds = tiles[list(BOX)].to_numpy("float64")
        self._plane = tiles["plane"].to_numpy()
        self._all = np.arange(len(tiles))
        self._of_observation = tiles.reset_index().groupby("observation").indices

    def near(self, bounds: Any, plane: str, observation: int | None = None) -> np.ndarray:
        """Return the numbers of tiles (of one observation) whose extent may touch a box of the plane."""
        rows = self._all if observation is None else self._of_observation[observation]
        left, bottom, right, top = self._bounds[rows].T
        with np.errstate(invalid="ignore"):
            touch = (left <= bounds[2]) & (right >= bounds[0]) & (bottom <= bounds[3]) & (top >= bounds[1])
        found: np.ndarray = self._tile[rows[touch & (self._plane[rows] == plane)]]
        return found

    def extent(self, tile: int, kind: str = "seen") -> Any:
        """Return the extent of a tile in its CRS."""
        at = self._at(tile)
        start, end = self._places[kind]
        return pick_extent_up(str(self._file[at]), int(start[at]), int(end[at]))

    def crs(self, tile: int) -> str:
        """Return the CRS of a tile."""
        return str(self._crs[self._at(tile)])

    def flat_extent(self, tile: int, kind: str = "seen") -> Any:
        """Return the extent of a tile in the plane."""
        return flat(self.extent(tile, kind), self.crs(tile), str(self._plane[self._at(tile)]))

    def _at(self, tile: int) -> int:
        return int(np.searchsorted(self._tile, tile))


def flat(geometry: Any, crs: str, plane: str) -> Any:
    """Return a geometry with long edges in the plane."""
    left, bottom, right, top = geometry.bounds if not geometry.is_empty else (0, 0, 0, 0)
    degrees = max(abs(left), abs(right)) <= 720 and max(abs(bottom), abs(top)) <= 90
    return project(np.array([geometry], dtype=object), crs, plane, EDGE_M / 111e3 if degrees else EDGE_M)[0]
