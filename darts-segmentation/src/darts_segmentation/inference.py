"""Networks over tiles, from the top down: patches are cut, predicted and blended, and finished rows handed on.

Besides the bands and the result, what is held are a batch of patches and, for each network, the rows of the tile that
patches at work lie on. Networks share the cut and normalised patches.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import xarray as xr

from darts_segmentation.patches import PatchOptions, Span, as_index, plan_spans
from darts_utils.arrays import array_namespace
from darts_utils.bands import normalize, require_bands
from darts_utils.errors import ConfigError

ROWS_IN_CACHE = 32
"""Rows of a patch that are normalised and interleaved at once."""

Predict = Callable[[Any], Any]
"""Turns patches (batch, y, x, band), float32 in 0 … 1, into probabilities (batch, y, x), in the same namespace."""


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
        ConfigError: it is no plane of ("y", "x"), or has no pixel.
    """

    def __init__(self, tile: xr.Dataset, names: Sequence[str], *, purpose: str) -> None:
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
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """(lo, hi) of bands that are not normalised by the range of the band table."""
    stride: int = 1
    """What the sides of its input must be a multiple of."""
    least: int = 1
    """Smallest side of its input."""
    most: Callable[[int, int], int | None] = lambda side_y, side_x: None
    """How many inputs of the given sides are worth predicting at once, None for any number."""


@dataclass(frozen=True, eq=False)
class Finished:
    """Rows of a tile to which no patch will add anything."""

    tile: int
    """The tile's place in the sequence of tiles."""
    first: int
    layers: list[Any]
    """For each reader probabilities (rows, columns), float32, NaN where invalid; valid until the next are asked for."""


@dataclass
class Tally:
    """Counts of one reader's patches."""

    planned: int = 0
    predicted: int = 0

    @property
    def skipped(self) -> float:
        """Share of the patches that were not predicted."""
        return 1 - self.predicted / self.planned if self.planned else 0.0


def predict_tiles(
    tiles: Sequence[TileRows], readers: Sequence[Reader], options: PatchOptions, tallies: Sequence[Tally] | None = None
) -> Iterator[Finished]:
    """Yield the tiles' probabilities in order, tile by tile and row by row.

    A patch in which no pixel is valid for a reader is not predicted by it. Batches are filled across rows of patches
    and across tiles. `tallies`, one a reader, are counted up.
    """
    tallies = tallies or [Tally() for _ in readers]
    canvases = [_Canvas(index, tile, readers, options, tallies) for index, tile in enumerate(tiles)]
    work = [_RowOfPatches(canvas, number) for canvas in canvases for number in range(canvas.patch_rows)]
    benches: dict[Any, _Bench] = {}
    for together in _groups(work, options.batch_size):
        for row in together:
            planes = row.canvas.open(row.number)
            for cut in row.canvas.cuts:
                key = (cut.readers, cut.sides)
                if key not in benches:
                    ahead = sum(len(other.canvas.cuts[0].columns) for other in work)
                    benches[key] = _Bench(readers, cut, min(options.batch_size, ahead))
                benches[key].take(row, cut, planes)
            del planes
        for bench in benches.values():
            bench.clear()
        for canvas, last in {row.canvas: row.number for row in together}.items():
            yield canvas.finish(last)


def predict_planes(
    tiles: Sequence[TileRows], readers: Sequence[Reader], options: PatchOptions, tallies: Sequence[Tally] | None = None
) -> list[list[Any]]:
    """Return for each tile the readers' planes (y, x) of probabilities, float32, NaN where invalid."""
    planes: list[list[Any]] = [[] for _ in tiles]
    for finished in predict_tiles(tiles, readers, options, tallies):
        of_tile = planes[finished.tile]
        if not of_tile:
            shape = tiles[finished.tile].shape
            of_tile.extend(array_namespace(layer).empty(shape, np.float32) for layer in finished.layers)
        for plane, layer in zip(of_tile, finished.layers, strict=True):
            plane[finished.first : finished.first + len(layer)] = layer
    return planes


@dataclass(frozen=True)
class _Cut:
    """Readers that see the same pixels of a patch, and the patches."""

    readers: tuple[int, ...]
    channels: tuple[tuple[str, tuple[float, float] | None], ...]
    """Band and limits of what is cut for any of the readers."""
    rows: list[Span]
    columns: list[Span]

    @property
    def sides(self) -> tuple[int, int]:
        return self.rows[0].size, self.columns[0].size


class _Canvas:
    """The rows of a tile that are at work."""

    def __init__(
        self, index: int, tile: TileRows, readers: Sequence[Reader], options: PatchOptions, tallies: Sequence[Tally]
    ) -> None:
        self.index, self.tile, self.readers, self.tallies = index, tile, readers, tallies
        self.cuts = _cuts(tile.shape, readers, options)
        self.names = tuple(dict.fromkeys(name for reader in readers for name in (*reader.bands, *reader.asked)))
        self.first = self.known = 0  # the first row that is held, and the first that was not seen yet
        self.layers: list[Any] = []
        self.valid: list[Any] = []

    @property
    def patch_rows(self) -> int:
        return len(self.cuts[0].rows)

    def open(self, number: int) -> "_Planes":
        """Return the bands under a row of patches, and get ready for what its patches will say."""
        spans = [cut.rows[number] for cut in self.cuts]
        ranges = [(int(index.min()), int(index.max()) + 1) for index in (as_index(span.source) for span in spans)]
        target = spans[0].target
        first = min(target.start, *(start for start, _ in ranges))
        stop = max(target.stop, *(end for _, end in ranges))
        planes = _Planes(first, self.tile.rows(self.names, first, stop))
        rows = planes.part(target.start, target.stop)
        found = {asked: _valid(rows, asked) for asked in dict.fromkeys(reader.asked for reader in self.readers)}
        self.valid = [found[reader.asked] for reader in self.readers]
        self._extend(target)
        return planes

    def _extend(self, target: slice) -> None:
        """Add rows down to the target's end: 0 where a pixel is valid, else NaN, which stays NaN whatever is added."""
        xp = array_namespace(self.valid[0])
        started = []
        for valid in self.valid:
            fresh = xp.where(valid[self.known - target.start :], np.float32(0), np.float32(np.nan))
            started.append(fresh)
        self.layers = [
            xp.concatenate([layer, fresh]) for layer, fresh in zip(self.layers, started, strict=True)
        ] if self.layers else started  # fmt: skip
        self.known = target.stop

    def blend(self, reader: int, rows: Span, columns: Span, probabilities: Any) -> None:
        target = slice(rows.target.start - self.first, rows.target.stop - self.first)
        blend(probabilities, rows, columns, self.layers[reader][target, columns.target])

    def finish(self, last: int) -> Finished:
        """Return the rows that no patch after the row of patches `last` lies on, and hold them no longer."""
        rows = self.cuts[0].rows
        until = rows[last + 1].target.start if last + 1 < len(rows) else self.tile.shape[0]
        done = until - self.first
        finished = Finished(self.index, self.first, [layer[:done] for layer in self.layers])
        self.layers = [layer[done:] for layer in self.layers] if until < self.tile.shape[0] else []
        self.first = until
        return finished


@dataclass(frozen=True, eq=False)
class _RowOfPatches:
    canvas: _Canvas
    number: int


@dataclass(frozen=True, eq=False)
class _Planes:
    """Rows of bands, from row `first` of the tile on."""

    first: int
    bands: Mapping[str, Any]

    def part(self, start: int, stop: int) -> dict[str, Any]:
        return {name: plane[start - self.first : stop - self.first] for name, plane in self.bands.items()}


class _Bench:
    """A batch being filled, for readers that see the same pixels."""

    def __init__(self, readers: Sequence[Reader], cut: _Cut, most: int) -> None:
        self.readers = readers
        self.channels = cut.channels
        for number in cut.readers:
            most = min(most, readers[number].most(*cut.sides) or most)
        self.size = max(most, 1)
        self.sides = cut.sides
        self.buffer: Any = None
        self.waiting: list[tuple[_Canvas, Span, Span, tuple[int, ...]]] = []
        self.selections = {number: _selection(readers[number], cut.channels) for number in cut.readers}

    def take(self, row: _RowOfPatches, cut: _Cut, planes: _Planes) -> None:
        """Cut the patches of a row that hold valid pixels; whenever the batch is full, predict."""
        canvas, rows = row.canvas, cut.rows[row.number]
        xp = array_namespace(*planes.bands.values())
        if self.buffer is None:
            # Bands come last, as the network computes fastest (torch: channels_last).
            self.buffer = xp.empty((self.size, *self.sides, len(self.channels)), np.float32)
        for columns in cut.columns:
            used = tuple(n for n in cut.readers if bool(canvas.valid[n][:, columns.target].any()))
            for number in cut.readers:
                canvas.tallies[number].planned += 1
                canvas.tallies[number].predicted += number in used
            if not used:
                continue
            _cut(planes, rows, columns, self.channels, self.buffer[len(self.waiting)], xp)
            self.waiting.append((canvas, rows, columns, used))
            if len(self.waiting) == self.size:
                self.clear()

    def clear(self) -> None:
        """Predict what waits and blend it."""
        for number, channels in self.selections.items():
            slots = [slot for slot, (*_, used) in enumerate(self.waiting) if number in used]
            if not slots:
                continue
            patches = self.buffer[: len(slots)] if len(slots) == len(self.waiting) else self.buffer[slots]
            answers = self.readers[number].predict(patches if channels is None else patches[..., channels])
            for slot, probabilities in zip(slots, answers, strict=True):
                canvas, rows, columns, _ = self.waiting[slot]
                canvas.blend(number, rows, columns, probabilities)
        self.waiting = []


def _cuts(shape: tuple[int, int], readers: Sequence[Reader], options: PatchOptions) -> list[_Cut]:
    """Return the readers grouped by what their inputs' sides must be."""
    kinds = dict.fromkeys((reader.stride, reader.least) for reader in readers)
    cuts = []
    for stride, least in kinds:
        members = tuple(n for n, reader in enumerate(readers) if (reader.stride, reader.least) == (stride, least))
        channels = dict.fromkeys(
            (name, readers[n].limits.get(name)) for n in members for name in readers[n].bands
        )  # fmt: skip
        rows, columns = (plan_spans(size, options, stride=stride, least=least) for size in shape)
        cuts.append(_Cut(members, tuple(channels), rows, columns))
    return cuts


def _groups(work: Sequence[_RowOfPatches], batch_size: int) -> Iterator[list[_RowOfPatches]]:
    """Yield rows of patches in order, as many together as fill a batch and have inputs of the same sides."""
    together: list[_RowOfPatches] = []
    for row, following in pairwise([*work, None]):
        assert row is not None
        together.append(row)
        patches = sum(len(one.canvas.cuts[0].columns) for one in together)
        sides = [cut.sides for cut in row.canvas.cuts]
        alike = following is not None and sides == [cut.sides for cut in following.canvas.cuts]
        if patches >= batch_size or not alike:
            yield together
            together = []


def _selection(reader: Reader, channels: Sequence[tuple[str, Any]]) -> list[int] | None:
    """Return which channels a reader sees, None if all of them as they are."""
    places = [channels.index((name, reader.limits.get(name))) for name in reader.bands]
    return None if places == list(range(len(channels))) else places


def _valid(planes: Mapping[str, Any], asked: Sequence[str]) -> Any:
    """Return where (y, x) all planes asked for are finite; planes of whole numbers always are."""
    any_plane = next(iter(planes.values()))
    valid = array_namespace(any_plane).ones(any_plane.shape, bool)
    for name in asked:
        if np.issubdtype(planes[name].dtype, np.inexact):
            valid &= array_namespace(any_plane).isfinite(planes[name])
    return valid


def _cut(
    planes: _Planes, rows: Span, columns: Span, channels: Sequence[tuple[str, Any]], slot: Any, xp: Any
) -> None:  # fmt: skip
    """Fill `slot` (y, x, channel) with what a network sees of a patch."""
    window: tuple[Any, Any]
    if isinstance(rows.source, slice) and isinstance(columns.source, slice):
        window = slice(rows.source.start - planes.first, rows.source.stop - planes.first), columns.source
    else:
        index = as_index(rows.source) - planes.first, as_index(columns.source)
        window = xp.asarray(index[0])[:, None], xp.asarray(index[1])[None, :]
    # On a CPU a few rows of all bands stay in its cache while they are interleaved.
    step = ROWS_IN_CACHE if xp is np else rows.size
    seen = [(name, limits, planes.bands[name][window]) for name, limits in channels]
    for start in range(0, rows.size, step):
        part = slice(start, start + step)
        for channel, (name, limits, values) in enumerate(seen):
            slot[part, :, channel] = normalize(values[part], name, limits)


def blend(probabilities: Any, rows: Span, columns: Span, mean: Any) -> None:
    """Blend a patch's probabilities (y, x) into the `mean` so far over the pixels where it lies.

    mean += (new − mean) · w / (sum of the weights so far, w included): equal to the sum of w·p over the sum of w, but
    its rounding errors do not add up with the number of patches (West 1979, doi:10.1145/359146.359153), and where
    patches agree it is exact. The weights are products of both axes', so their sum is known without a plane of it.
    Patches must come in order, row by row: what came before is known from the spans.
    """
    xp = array_namespace(mean)
    earlier = xp.asarray((rows.before / rows.share).astype(np.float32))[:, None]
    share = xp.asarray(columns.share.astype(np.float32))
    weight = share / (earlier + xp.asarray((columns.before + columns.share).astype(np.float32)))
    mean += (probabilities[rows.inside, columns.inside] - mean) * weight


def rows_at_work(options: PatchOptions, width: int) -> int:
    """Return about how many rows of a tile of so many columns are held at once."""
    columns = math.ceil(max(width - options.overlap, 1) / (options.patch_size - options.overlap))
    rows_of_patches = math.ceil(options.batch_size / columns)
    return options.patch_size + (rows_of_patches - 1) * (options.patch_size - options.overlap)
