"""Patches as networks see them: which pixels and channels, cut out of planes, turned, picked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from darts_segmentation.patches import PatchOptions, Span, as_index, plan_spans
from darts_segmentation.readers import Reader
from darts_segmentation.turns import AS_IS, DIRECTIONS, Turn
from darts_utils.arrays import array_namespace
from darts_utils.bands import normalize

ROWS_IN_CACHE = 32
"""Rows of a patch that are normalised and interleaved at once."""


@dataclass(frozen=True)
class Channel:
    """A band as networks see it."""

    name: str
    limits: tuple[float, float] | None
    """Limits of its normalisation, None for those of the band table."""
    turn: Turn
    """The turn that changes its values: none but for directions."""
    raw: bool
    """Whether it is not normalised."""


@dataclass(frozen=True)
class Cut:
    """Readers that see the same pixels of a patch, and the patches."""

    readers: tuple[int, ...]
    channels: tuple[Channel, ...]
    """What is cut for any of the readers."""
    rows: list[Span]
    columns: list[Span]

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the networks' inputs."""
        return self.rows[0].size, self.columns[0].size


@dataclass(frozen=True, eq=False)
class Planes:
    """Rows of bands, from row `first` of the tile on."""

    first: int
    bands: Mapping[str, Any]

    def part(self, start: int, stop: int) -> dict[str, Any]:
        """Return rows of the tile."""
        return {name: plane[start - self.first : stop - self.first] for name, plane in self.bands.items()}


def plan_cuts(
    shape: tuple[int, int], readers: Sequence[Reader], turns: Sequence[Turn], options: PatchOptions
) -> list[Cut]:
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
            channel for turn in turns for number in members for channel in channels_of(readers[number], turn)
        )
        rows, columns = planned[readers[members[0]].stride, readers[members[0]].least]
        cuts.append(Cut(tuple(members), tuple(channels), rows, columns))
    return cuts


def channels_of(reader: Reader, turn: Turn) -> list[Channel]:
    """Return what a reader sees of a patch in a turn."""
    return [
        Channel(
            name,
            None if reader.raw else reader.limits.get(name),
            turn if name in DIRECTIONS else AS_IS,
            reader.raw,
        )
        for name in reader.bands
    ]


def cut_patch(
    planes: Planes, rows: Span, columns: Span, channels: Sequence[Channel], slot: Any, xp: Any
) -> None:  # fmt: skip
    """Fill `slot` (y, x, channel) with what networks see of a patch."""
    window: tuple[Any, Any]
    if isinstance(rows.source, slice) and isinstance(columns.source, slice):
        window = slice(rows.source.start - planes.first, rows.source.stop - planes.first), columns.source
    else:
        index = as_index(rows.source) - planes.first, as_index(columns.source)
        window = xp.asarray(index[0])[:, None], xp.asarray(index[1])[None, :]
    # On a CPU a few rows of all bands stay in its cache while they are interleaved.
    step = ROWS_IN_CACHE if xp is np else rows.size
    windows = {name: planes.bands[name][window] for name in dict.fromkeys(channel.name for channel in channels)}
    for start in range(0, rows.size, step):
        part = slice(start, start + step)
        for place, channel in enumerate(channels):
            values = channel.turn.of_directions(windows[channel.name][part])
            slot[part, :, place] = values if channel.raw else normalize(values, channel.name, channel.limits)


def is_whole(channels: Sequence[int], count: int, turn: Turn) -> bool:
    """Return whether a network that sees these of `count` channels in this turn sees the batch itself."""
    return turn == AS_IS and list(channels) == list(range(count))


def seen(buffer: Any, slots: Sequence[int], channels: Sequence[int], turn: Turn, empty: Any = None) -> Any:
    """Return some patches of a batch as a network sees them: turned, its own channels.

    That is the batch itself where it is the same; else one copy of it, in what `empty` (default: of the namespace)
    returns for its shape.
    """
    if is_whole(channels, buffer.shape[3], turn) and list(slots) == list(range(len(slots))):
        return buffer[: len(slots)]
    xp = array_namespace(buffer)
    turned = turn.of(buffer)
    height, width = turned.shape[1:3]
    shape = len(slots), height, width, len(channels)
    copy = xp.empty(shape, np.float32) if empty is None else empty(shape)
    step = ROWS_IN_CACHE if xp is np else height
    for patch, slot in zip(copy, slots, strict=True):
        for start in range(0, height, step):
            part = slice(start, start + step)
            for place, run in _runs(channels):
                patch[part, :, place] = turned[slot, part, :, run]
    return copy


def pack(buffer: Any, slots: Sequence[int], channels: Sequence[int]) -> Any:
    """Return some patches of a batch with some of their channels, in the memory of the batch, which is lost.

    Both lists must be in order, so that nothing is overwritten before it is moved; the batch must be contiguous.
    """
    height, width, count = buffer.shape[1], buffer.shape[2], len(channels)
    packed = buffer.reshape(-1)[: len(slots) * height * width * count].reshape(len(slots), height, width, count)
    runs = _runs(channels)
    for place, slot in enumerate(slots):
        for start in range(0, height, ROWS_IN_CACHE):
            part = slice(start, min(start + ROWS_IN_CACHE, height))
            # Source and target may overlap within these rows.
            rows = np.empty((part.stop - part.start, width, count), np.float32)
            for target, run in runs:
                rows[:, :, target] = buffer[slot, part, :, run]
            packed[place, part] = rows
    return packed


def _runs(channels: Sequence[int]) -> list[tuple[slice, slice]]:
    """Return where runs of neighbouring channels go, and where they come from: a run is copied at once."""
    starts = [i for i, channel in enumerate(channels) if i == 0 or channel != channels[i - 1] + 1]
    ends = [*starts[1:], len(channels)]
    return [(slice(i, j), slice(channels[i], channels[i] + j - i)) for i, j in zip(starts, ends, strict=True)]
