"""Tiles, and the sources that give them: values, so that a new source needs no new executor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr


@dataclass(frozen=True)
class Tile:
    """One unit of work: what to load and where its results go."""

    tile_id: str
    """Name of the tile in records and files."""
    key: Any
    """What the source needs to load the tile."""
    output: Path
    """Folder of the tile's results."""


@dataclass(frozen=True)
class Source:
    """Where optical tiles come from."""

    load: Callable[[Any], xr.Dataset]
    """Load the optical tile of a key."""
    arcticdem_resolution: int
    """Resolution of the ArcticDEM that fits the source, in metres."""
    result_metadata: Callable[[Any], Mapping[str, Any]]
    """What the source adds to the metadata of a tile's results."""


class Inputs:
    """What was loaded for a tile, until it is taken; so that nobody else holds on to it while it is worked on."""

    def __init__(self, optical: xr.Dataset, dem: xr.Dataset | None, tcvis: xr.Dataset | None) -> None:
        self._datasets: tuple[xr.Dataset, xr.Dataset | None, xr.Dataset | None] | None = (optical, dem, tcvis)

    @property
    def datasets(self) -> tuple[xr.Dataset, xr.Dataset | None, xr.Dataset | None]:
        """The optical tile, the DEM and the trends.

        Raises:
            RuntimeError: they were taken.
        """
        if self._datasets is None:
            raise RuntimeError("the inputs of this tile were taken already")
        return self._datasets

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the tile."""
        sizes = self.datasets[0].sizes
        return sizes["y"], sizes["x"]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(data.nbytes for data in self.datasets if data is not None)

    def take(self) -> tuple[xr.Dataset, xr.Dataset | None, xr.Dataset | None]:
        """Return the datasets and let go of them."""
        taken = self.datasets
        self._datasets = None
        return taken
