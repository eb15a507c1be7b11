"""Tiles, and the sources that give them: values, so that a new source needs no new executor."""

from collections.abc import Callable, Mapping, Sequence
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

    tiles: Sequence[Tile]
    load: Callable[[Any], xr.Dataset]
    """Load the optical tile of a key."""
    arcticdem_resolution: int
    """Resolution of the ArcticDEM that fits the source, in metres."""
    result_metadata: Callable[[Any], Mapping[str, Any]]
    """What the source adds to the metadata of a tile's results."""
