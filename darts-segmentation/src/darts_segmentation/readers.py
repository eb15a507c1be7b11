"""What inference takes: tiles that hand out rows, and networks that read patches of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import xarray as xr

from darts_utils.bands import require_bands
from darts_utils.errors import ConfigError

Predict = Callable[[Any], Any]
"""Turns patches (batch, y, x, band), contiguous, float32 in 0 … 1, into probabilities (batch, y, x), float32, in the
same namespace; it neither changes nor keeps the patches."""


@runtime_checkable
class PredictsAhead(Protocol):
    """A `Predict` whose device works while the next patches are cut."""

    @property
    def buffers(self) -> int:
        """How many arrays of patches on the host are worth filling in turn."""

    def empty(self, shape: tuple[int, ...]) -> Any:
        """Return a float32 array on the host, of any content and layout, from which patches reach the device fast."""

    def start(self, patches: Any) -> Callable[[], Any]:
        """Return a function that waits for what the call would give; until then `patches` must stay as they are."""

    def __call__(self, patches: Any) -> Any:
        """Return probabilities."""


class TileRows(Protocol):
    """A tile whose bands can be had some rows at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def rows(self, names: Sequence[str], first: int, stop: int) -> Mapping[str, Any]:
        """Return planes (rows, columns) of bands in memory form, from row `first` to before row `stop`."""


class DatasetRows:
    """A tile that is there as a whole.

    Raises:
        MissingBandError: the tile lacks bands.
        ConfigError: it is no Dataset, no plane of ("y", "x"), or has no pixel.
    """

    def __init__(self, tile: xr.Dataset, names: Sequence[str], *, purpose: str) -> None:
        if not isinstance(tile, xr.Dataset):
            raise ConfigError(
                f"{purpose} takes a tile as an xarray Dataset, got {type(tile).__name__}; several tiles at once go to "
                "segment_tile_batched, as a list"
            )
        require_bands(tile, *names, purpose=purpose)
        bands = tile[list(names)]
        sizes = dict(bands.sizes) if names else {name: tile.sizes[name] for name in ("y", "x") if name in tile.sizes}
        if set(sizes) != {"y", "x"} or any(bands[name].ndim != 2 for name in names):
            raise ConfigError(f"a tile must have the dimensions (y, x), got {sizes}")
        if 0 in sizes.values():
            raise ConfigError(f"a tile must have at least one pixel, got {sizes}")
        # compute() only matters for dask arrays; others are taken as they are.
        ordered = bands.transpose("y", "x", missing_dims="ignore").compute()
        self._planes = {str(name): band.data for name, band in ordered.data_vars.items()}
        self.shape: tuple[int, int] = (sizes["y"], sizes["x"])

    def rows(self, names: Sequence[str], first: int, stop: int) -> Mapping[str, Any]:
        """Return planes of bands, views of the tile's."""
        return {name: self._planes[name][first:stop] for name in names}


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """A network as inference sees it."""

    bands: tuple[str, ...]
    """Its channels in order."""
    asked: tuple[str, ...]
    """Bands that must be finite where a pixel is valid; bands of whole numbers always are."""
    predict: Predict
    """The network; one that is a `PredictsAhead` is given the next patches while it works."""
    raw: bool = False
    """Whether `predict` takes bands as they are in memory, as float32, and normalises them itself."""
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """(lo, hi) of bands that are not normalised by the range of the band table."""
    stride: int = 1
    """What the sides of its input must be a multiple of."""
    least: int = 1
    """Smallest side of its input."""
    most: Callable[[int, int], int | None] = lambda side_y, side_x: None
    """How many inputs of the given sides are worth predicting at once, None for any number."""


@dataclass
class Tally:
    """Counts of one reader's patches."""

    planned: int = 0
    predicted: int = 0

    @property
    def skipped(self) -> float:
        """Share of the patches that were not predicted."""
        return 1 - self.predicted / self.planned if self.planned else 0.0
