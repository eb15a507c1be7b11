"""The rows of a tile that patches at work lie on: where their probabilities are blended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from darts_segmentation.cuts import Planes, plan_cuts
from darts_segmentation.patches import PatchOptions, Span, as_index
from darts_segmentation.readers import Reader, Tally, TileRows
from darts_segmentation.turns import Turn
from darts_utils.arrays import array_namespace, on_device_of, to_host

ROWS_AT_ONCE = 64
"""Rows that are looked at for valid pixels at a time, so that temporary arrays stay small."""


@dataclass(frozen=True, eq=False)
class Finished:
    """Rows of a tile to which no patch will add anything."""

    tile: int
    """The tile's place in the sequence of tiles."""
    first: int
    layers: list[Any]
    """Probabilities (rows, columns), float32, NaN where invalid: the turns of the first reader, then those of the next.
    Valid until the next are asked for."""


class Canvas:
    """A tile being predicted, of which the rows at work are held, for each reader and turn."""

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
        self.cuts = plan_cuts(tile.shape, readers, turns, options)
        self.names = tuple(dict.fromkeys(name for reader in readers for name in (*reader.bands, *reader.asked)))
        self.filled: list[npt.NDArray[np.bool_]] = []
        """For each reader, in which columns of the row of patches opened last there is a valid pixel; on the host."""
        self.layers: list[Any] = []
        """For each reader and turn, (rows, columns) from row `top` of the tile on."""
        self.top = self.first = self.known = 0
        """Rows of the tile: the first in `layers`, the first not handed on yet, the first not seen yet."""

    @property
    def geometry(self) -> list[tuple[tuple[int, ...], tuple[int, int]]]:
        """Which readers see inputs of which sides."""
        return [(cut.readers, cut.sides) for cut in self.cuts]

    @property
    def patch_rows(self) -> int:
        """How many rows of patches there are."""
        return len(self.cuts[0].rows)

    def open(self, number: int, last: int) -> Planes:
        """Return the bands under a row of patches, and get ready for what its patches will say.

        Rows of patches down to `last` are opened before any more rows are finished.
        """
        spans = [cut.rows[number] for cut in self.cuts]
        ranges = [(int(index.min()), int(index.max()) + 1) for index in (as_index(span.source) for span in spans)]
        target = spans[0].target
        first = min(target.start, *(start for start, _ in ranges))
        stop = max(target.stop, *(end for _, end in ranges))
        planes = Planes(first, self.tile.rows(self.names, first, stop))
        rows = planes.part(target.start, target.stop)
        xp = array_namespace(*rows.values())  # refuses bands of two devices
        with on_device_of(next(iter(rows.values()))):
            until = self.cuts[0].rows[last].target.stop
            if not self.layers or until - self.top > len(self.layers[0]):
                self._make_room(until - self.first, xp)
            self._look(rows, target, xp)
        return planes

    def _look(self, rows: Mapping[str, Any], target: slice, xp: Any) -> None:
        """Find the valid pixels of a row of patches, and add its rows to the layers.

        They begin with 0 where a pixel is valid, else with NaN, which stays NaN whatever is blended in.
        """
        seekers: dict[tuple[str, ...], list[int]] = {}
        for number, reader in enumerate(self.readers):
            seekers.setdefault(reader.asked, []).append(number)
        height = target.stop - target.start
        filled = {asked: xp.zeros(self.tile.shape[1], bool) for asked in seekers}
        # A GPU would only have more kernels to start.
        step = ROWS_AT_ONCE if xp is np else height
        for start in range(0, height, step):
            part = {name: plane[start : start + step] for name, plane in rows.items()}
            fresh = max(self.known - target.start - start, 0)
            place = target.start + start + fresh - self.top
            for asked, numbers in seekers.items():
                valid = _valid(part, asked)
                filled[asked] |= valid.any(axis=0)
                if fresh >= len(valid):
                    continue
                blank = xp.where(valid[fresh:], np.float32(0), np.float32(np.nan))
                for number in numbers:
                    for layer in self.layers[number * len(self.turns) :][: len(self.turns)]:
                        layer[place : place + len(blank)] = blank
        on_host = {asked: to_host(columns) for asked, columns in filled.items()}
        self.filled = [on_host[reader.asked] for reader in self.readers]
        self.known = target.stop

    def _make_room(self, height: int, xp: Any) -> None:
        """Begin the layers with the first row that was not handed on yet, and let them have room for `height` rows."""
        held = slice(self.first - self.top, self.known - self.top)
        self.layers = self.layers or [None] * (len(self.readers) * len(self.turns))
        for number, before in enumerate(self.layers):
            room = before
            if before is None or height > len(before):
                room = self.layers[number] = xp.empty((height, self.tile.shape[1]), np.float32)
            if before is not None:
                # Both may be the same memory.
                room[: held.stop - held.start] = before[held].copy()
        self.top = self.first

    def blend(self, layer: int, rows: Span, columns: Span, probabilities: Any) -> None:
        """Blend what a patch was told into a layer."""
        target = slice(rows.target.start - self.top, rows.target.stop - self.top)
        blend(probabilities, rows, columns, self.layers[layer][target, columns.target])

    def finish(self, last: int) -> Finished:
        """Return the rows that no patch after the row of patches `last` lies on, and hold them no longer."""
        rows = self.cuts[0].rows
        until = rows[last + 1].target.start if last + 1 < len(rows) else self.tile.shape[0]
        done = slice(self.first - self.top, until - self.top)
        finished = Finished(self.index, self.first, [layer[done] for layer in self.layers])
        self.first = until
        if until == self.tile.shape[0]:
            self.layers, self.filled = [], []
        return finished


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


def _valid(planes: Mapping[str, Any], asked: Sequence[str]) -> Any:
    """Return where (y, x) all planes asked for are finite; planes of whole numbers always are."""
    xp = array_namespace(*planes.values())
    valid = xp.ones(next(iter(planes.values())).shape, bool)
    for name in asked:
        if np.issubdtype(planes[name].dtype, np.inexact):
            valid &= xp.isfinite(planes[name])
    return valid
