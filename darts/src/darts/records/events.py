"""What the workers of a run tell the one who watches over it; plain values that travel between processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from darts.records.ledger import Outcome
from darts.tiles import Tile


@dataclass(frozen=True, kw_only=True)
class Job:
    """A tile to work on."""

    tile: Tile
    attempt: int = 1
    overwrite: bool = False
    """Whether a complete tile is made again."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the tile's files as the ledger knows them, empty where it does not."""
    batch_size: int | None = None
    """Patches per forward pass where it shall be less than the options say."""
    alone: bool = False
    """Whether nothing else shall be worked on meanwhile, as the tile may have taken workers down."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A worker has its models loaded, and says what it computes with."""

    worker: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Options and model checksums that shape results."""
    fingerprint: str = ""
    """Their hash."""


@dataclass(frozen=True)
class Step:
    """A tile enters a step."""

    tile_id: str
    step: str
    worker: str


@dataclass(frozen=True)
class Finished:
    """An attempt at a tile is over."""

    outcome: Outcome
    calls: Sequence[tuple[str, float]] = ()
    """Functions that were called and the seconds each took."""
    transient: bool = False
    """Whether another attempt may do better."""
    out_of_memory: bool = False
    """Whether the device's memory was too small."""


@dataclass(frozen=True)
class Dropped:
    """A tile was let go of before it was computed, because the run stops."""

    tile_id: str
    worker: str


@dataclass(frozen=True)
class Fill:
    """How full a worker is."""

    worker: str
    bytes_held: int = 0
    """Estimated bytes of all tiles that are in the worker."""
    bytes_limit: int | None = None
    tiles: dict[str, int] = field(default_factory=dict)
    """Tiles by where they are: load, wait (loaded, to be computed), compute, export."""


@dataclass(frozen=True)
class Lost:
    """A worker is gone, with the jobs that it held."""

    worker: str
    reason: str
    jobs: Sequence[Job] = ()


Event = Step | Finished | Dropped | Fill | Lost
