"""Networks over tiles, from the top down: patches are cut, predicted and blended, and finished rows handed on.

Besides the bands and the result, what is held are a batch of patches, a copy of it for a network that sees it turned
or sees some of its bands, and, for each network and turn, the rows of the tile that patches at work lie on. Networks
share the cut and normalised patches.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import xarray as xr

from darts_segmentation.patches import PatchOptions, Span, as_index, plan_spans
from darts_segmentation.turns import AS_IS, DIRECTIONS, Turn
from darts_utils.arrays import array_namespace, on_device_of
from darts_utils.bands import normalize, require_bands
from darts_utils.errors import ConfigError

ROWS_IN_CACHE = 32
"""Rows of a patch that are normalised and interleaved at once."""

Predict = Callable[[Any], Any]
"""Turns patches (batch, y, x, band), contiguous, float32 in 0 … 1, into probabilities (batch, y, x), float32, in the
same namespace; it neither changes nor keeps the patches."""


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
    """Probabilities (rows, columns), float32, NaN where invalid: the turns of the first reader, then those of the next.
    Valid until the next are asked for."""


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
    tiles: Sequence[TileRows],
    readers: Sequence[Reader],
    options: PatchOptions,
    tallies: Sequence[Tally] | None = None,
    *,
    turns: Sequence[Turn] = (AS_IS,),
) -> Iterator[Finished]:
    """Yield the tiles' probabilities in order, tile by tile and row by row: a layer for each reader and turn.

    Without readers nothing is yielded. A patch in which no pixel is valid for a reader is not predicted by it. Batches
    are filled across rows of patches and across tiles. Each patch is shown to each reader in all `turns`, and what it
    says is turned back. `tallies`, one a reader, are counted up by patch, whatever the turns.

    Raises:
        DeviceError: bands live on different devices.
    """
    if not readers:
        return
    tallies = tallies or [Tally() for _ in readers]
    canvases = [_Canvas(index, tile, readers, turns, options, tallies) for index, tile in enumerate(tiles)]
    work = [_RowOfPatches(canvas, number) for canvas in canvases for number in range(canvas.patch_rows)]
    benches: dict[Any, _Bench] = {}
    for together in _groups(work, options.batch_size):
        geometry = together[0].canvas.geometry
        if list(benches) != geometry:
            patches = sum(len(row.canvas.cuts[0].columns) for row in work if row.canvas.geometry == geometry)
            # The buffers of another geometry are let go of before the new ones are there.
            benches.clear()
            for key, cut in zip(geometry, together[0].canvas.cuts, strict=True):
                benches[key] = _Bench(readers, turns, cut, min(options.batch_size, patches))
        last = {row.canvas: row.number for row in together}
        for row in together:
            planes = row.canvas.open(row.number, last[row.canvas])
            for key, cut in zip(geometry, row.canvas.cuts, strict=True):
                benches[key].take(row, cut, planes)
            del planes
        for bench in benches.values():
            bench.clear()
        for canvas, number in last.items():
            finished = canvas.finish(number)
            if len(finished.layers[0]):  # several rows of patches in the padding begin at the tile's first row
                yield finished


def predict_planes(
    tiles: Sequence[TileRows],
    readers: Sequence[Reader],
    options: PatchOptions,
    tallies: Sequence[Tally] | None = None,
    *,
    turns: Sequence[Turn] = (AS_IS,),
) -> list[list[Any]]:
    """Return for each tile the readers' planes (y, x): the mean over the turns, float32, NaN where invalid."""
    planes: list[list[Any]] = [[] for _ in tiles]
    for finished in predict_tiles(tiles, readers, options, tallies, turns=turns):
        xp = array_namespace(*finished.layers)
        of_tile = planes[finished.tile]
        with on_device_of(finished.layers[0]):
            if not of_tile:
                shape = tiles[finished.tile].shape
                of_tile.extend(xp.empty(shape, np.float32) for _ in readers)
            for number, plane in enumerate(of_tile):
                rows = plane[finished.first : finished.first + len(finished.layers[0])]
                mean_of_turns(finished.layers[number * len(turns) :][: len(turns)], out=rows)
    return planes


def mean_of_turns(layers: Sequence[Any], out: Any) -> None:
    """Write the mean of what a reader says of an image in its turns, exact where the turns agree."""
    out[...] = layers[0]
    for count, layer in enumerate(layers[1:], start=2):
        out += (layer - out) / np.float32(count)


_Channel = tuple[str, tuple[float, float] | None, Turn]
"""Band, limits of its normalisation, and the turn that changes its values: none but for directions."""


def _channels(reader: Reader, turn: Turn) -> list[_Channel]:
    return [(name, reader.limits.get(name), turn if name in DIRECTIONS else AS_IS) for name in reader.bands]


@dataclass(frozen=True)
class _Cut:
    """Readers that see the same pixels of a patch, and the patches."""

    readers: tuple[int, ...]
    channels: tuple[_Channel, ...]
    """What is cut for any of the readers."""
    rows: list[Span]
    columns: list[Span]

    @property
    def sides(self) -> tuple[int, int]:
        return self.rows[0].size, self.columns[0].size


class _Canvas:
    """The rows of a tile that are at work."""

    def __init__(
        self,
        index: int,
        tile: TileRows,
        readers: Sequence[Reader],
        turns: Sequence[Turn],
        options: PatchOptions,
        tallies: Sequence[Tally],
    ) -> None:
        self.index, self.tile, self.readers, self.turns, self.tallies = index, tile, readers, turns, tallies
        self.cuts = _cuts(tile.shape, readers, turns, options)
        self.names = tuple(dict.fromkeys(name for reader in readers for name in (*reader.bands, *reader.asked)))
        self.valid: list[Any] = []
        self.layers: Any = None
        """(reader and turn, rows, columns) from row `top` of the tile on."""
        self.top = self.first = self.known = 0
        """Rows of the tile: the first in `layers`, the first not handed on yet, the first not seen yet."""

    @property
    def geometry(self) -> list[tuple[tuple[int, ...], tuple[int, int]]]:
        """Which readers see inputs of which sides."""
        return [(cut.readers, cut.sides) for cut in self.cuts]

    @property
    def patch_rows(self) -> int:
        return len(self.cuts[0].rows)

    def open(self, number: int, last: int) -> "_Planes":
        """Return the bands under a row of patches, and get ready for what its patches will say.

        Rows of patches down to `last` are worked on before any rows are finished.
        """
        spans = [cut.rows[number] for cut in self.cuts]
        ranges = [(int(index.min()), int(index.max()) + 1) for index in (as_index(span.source) for span in spans)]
        target = spans[0].target
        first = min(target.start, *(start for start, _ in ranges))
        stop = max(target.stop, *(end for _, end in ranges))
        planes = _Planes(first, self.tile.rows(self.names, first, stop))
        rows = planes.part(target.start, target.stop)
        array_namespace(*rows.values())  # refuses bands of two devices
        with on_device_of(next(iter(rows.values()))):
            found = {asked: _valid(rows, asked) for asked in dict.fromkeys(reader.asked for reader in self.readers)}
            self.valid = [found[reader.asked] for reader in self.readers]
            self._extend(target, self.cuts[0].rows[last].target.stop)
        return planes

    def _extend(self, target: slice, stop: int) -> None:
        """Add rows down to the target's end: 0 where a pixel is valid, else NaN, which stays NaN whatever is added."""
        xp = array_namespace(*self.valid)
        if self.layers is None or stop - self.top > self.layers.shape[1]:
            self._make_room(stop - self.first, xp)
        fresh = slice(self.known - self.top, target.stop - self.top)
        for number, valid in enumerate(self.valid):
            start = xp.where(valid[self.known - target.start :], np.float32(0), np.float32(np.nan))
            self.layers[number * len(self.turns) : (number + 1) * len(self.turns), fresh] = start
        self.known = target.stop

    def _make_room(self, height: int, xp: Any) -> None:
        """Begin the layers with the first row that was not handed on yet, and let them have room for `height` rows."""
        before, held = self.layers, slice(self.first - self.top, self.known - self.top)
        if before is None or height > before.shape[1]:
            count = len(self.readers) * len(self.turns)
            self.layers = xp.empty((count, height, self.tile.shape[1]), np.float32)
        for number in range(len(self.layers) if before is not None else 0):
            # Both may be the same memory.
            self.layers[number, : held.stop - held.start] = before[number, held].copy()
        self.top = self.first

    def blend(self, layer: int, rows: Span, columns: Span, probabilities: Any) -> None:
        target = slice(rows.target.start - self.top, rows.target.stop - self.top)
        blend(probabilities, rows, columns, self.layers[layer, target, columns.target])

    def finish(self, last: int) -> Finished:
        """Return the rows that no patch after the row of patches `last` lies on, and hold them no longer."""
        rows = self.cuts[0].rows
        until = rows[last + 1].target.start if last + 1 < len(rows) else self.tile.shape[0]
        done = slice(self.first - self.top, until - self.top)
        finished = Finished(self.index, self.first, [layer[done] for layer in self.layers])
        self.first = until
        if until == self.tile.shape[0]:
            self.layers, self.valid = None, []
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

    def __init__(self, readers: Sequence[Reader], turns: Sequence[Turn], cut: _Cut, most: int) -> None:
        self.readers, self.turns = readers, turns
        self.channels = cut.channels
        for number in cut.readers:
            most = min(most, readers[number].most(*cut.sides) or most)
        self.size = max(most, 1)
        self.sides = cut.sides
        self.buffer: Any = None
        self.waiting: list[tuple[_Canvas, Span, Span, tuple[int, ...]]] = []
        self.selections = {
            (number, place): [cut.channels.index(channel) for channel in _channels(readers[number], turn)]
            for number in cut.readers
            for place, turn in enumerate(turns)
        }

    def take(self, row: _RowOfPatches, cut: _Cut, planes: _Planes) -> None:
        """Cut the patches of a row that hold valid pixels; whenever the batch is full, predict."""
        canvas, rows = row.canvas, cut.rows[row.number]
        for columns in cut.columns:
            used = tuple(n for n in cut.readers if bool(canvas.valid[n][:, columns.target].any()))
            for number in cut.readers:
                canvas.tallies[number].planned += 1
                canvas.tallies[number].predicted += number in used
            if not used:
                continue
            any_band = next(iter(planes.bands.values()))
            with on_device_of(any_band):
                if self.buffer is None:
                    # Bands come last, as the network computes fastest (torch: channels_last).
                    shape = (self.size, *self.sides, len(self.channels))
                    self.buffer = array_namespace(any_band).empty(shape, np.float32)
                xp = array_namespace(self.buffer, *planes.bands.values())
                _cut(planes, rows, columns, self.channels, self.buffer[len(self.waiting)], xp)
            self.waiting.append((canvas, rows, columns, used))
            if len(self.waiting) == self.size:
                self.clear()

    def clear(self) -> None:
        """Predict what waits and blend it."""
        if not self.waiting:
            return
        with on_device_of(self.buffer):
            for (number, place), channels in self.selections.items():
                slots = [slot for slot, (*_, used) in enumerate(self.waiting) if number in used]
                if not slots:
                    continue
                turn = self.turns[place]
                answers = turn.undone(self.readers[number].predict(_seen(self.buffer, slots, channels, turn)))
                for slot, probabilities in zip(slots, answers, strict=True):
                    canvas, rows, columns, _ = self.waiting[slot]
                    canvas.blend(number * len(self.turns) + place, rows, columns, probabilities)
        self.waiting = []


def _cuts(
    shape: tuple[int, int], readers: Sequence[Reader], turns: Sequence[Turn], options: PatchOptions
) -> list[_Cut]:
    """Return the readers grouped by the sides of their inputs, which is all that strides change."""
    planned = {
        (reader.stride, reader.least): tuple(
            plan_spans(size, options, stride=reader.stride, least=reader.least) for size in shape
        )
        for reader in readers
    }
    alike: dict[tuple[int, int], list[int]] = {}
    for number, reader in enumerate(readers):
        rows, columns = planned[reader.stride, reader.least]
        alike.setdefault((rows[0].size, columns[0].size), []).append(number)
    cuts = []
    for members in alike.values():
        # All bands as they are come first: without turns a network that sees them all sees the batch itself.
        channels = dict.fromkeys(
            channel for turn in turns for number in members for channel in _channels(readers[number], turn)
        )
        rows, columns = planned[readers[members[0]].stride, readers[members[0]].least]
        cuts.append(_Cut(tuple(members), tuple(channels), rows, columns))
    return cuts


def _groups(work: Sequence[_RowOfPatches], batch_size: int) -> Iterator[list[_RowOfPatches]]:
    """Yield rows of patches in order, as many together as fill a batch and have inputs of the same sides."""
    together: list[_RowOfPatches] = []
    for row, following in pairwise([*work, None]):
        assert row is not None
        together.append(row)
        patches = sum(len(one.canvas.cuts[0].columns) for one in together)
        alike = following is not None and row.canvas.geometry == following.canvas.geometry
        if patches >= batch_size or not alike:
            yield together
            together = []


def _seen(buffer: Any, slots: Sequence[int], channels: Sequence[int], turn: Turn) -> Any:
    """Return some patches of a batch as a network sees them: contiguous, turned, its own channels.

    That is the batch itself where it is the same; else one copy of it.
    """
    if turn == AS_IS and list(channels) == list(range(buffer.shape[3])) and list(slots) == list(range(len(slots))):
        return buffer[: len(slots)]
    xp = array_namespace(buffer)
    turned = turn.of(buffer)
    height, width = turned.shape[1:3]
    seen = xp.empty((len(slots), height, width, len(channels)), np.float32)
    step = ROWS_IN_CACHE if xp is np else height
    for patch, slot in zip(seen, slots, strict=True):
        for start in range(0, height, step):
            part = slice(start, start + step)
            for place, run in _runs(channels):
                patch[part, :, place] = turned[slot, part, :, run]
    return seen


def _runs(channels: Sequence[int]) -> list[tuple[slice, slice]]:
    """Return where runs of neighbouring channels go, and where they come from: a run is copied at once."""
    starts = [i for i, channel in enumerate(channels) if i == 0 or channel != channels[i - 1] + 1]
    ends = [*starts[1:], len(channels)]
    return [(slice(i, j), slice(channels[i], channels[i] + j - i)) for i, j in zip(starts, ends, strict=True)]


def _valid(planes: Mapping[str, Any], asked: Sequence[str]) -> Any:
    """Return where (y, x) all planes asked for are finite; planes of whole numbers always are."""
    xp = array_namespace(*planes.values())
    valid = xp.ones(next(iter(planes.values())).shape, bool)
    for name in asked:
        if np.issubdtype(planes[name].dtype, np.inexact):
            valid &= xp.isfinite(planes[name])
    return valid


def _cut(
    planes: _Planes, rows: Span, columns: Span, channels: Sequence[_Channel], slot: Any, xp: Any
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
    windows = {name: planes.bands[name][window] for name in dict.fromkeys(name for name, *_ in channels)}
    for start in range(0, rows.size, step):
        part = slice(start, start + step)
        for place, (name, limits, turn) in enumerate(channels):
            slot[part, :, place] = normalize(turn.of_directions(windows[name][part]), name, limits)


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
