"""Networks over tiles, from the top down: patches are cut, predicted and blended, and finished rows handed on.

Besides the bands and the result, what is held are a batch of patches, a copy of it for a network that sees it turned
or sees some of its bands, and, for each network and turn, the rows of the tile that patches at work lie on. Networks
share the cut and normalised patches. Where a network works ahead, there are two batches, and their rows.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from darts_segmentation.bench import Bench, RowOfPatches
from darts_segmentation.canvas import Canvas, Finished
from darts_segmentation.cuts import Cut
from darts_segmentation.patches import PatchOptions
from darts_segmentation.readers import DatasetRows, Predict, PredictsAhead, Reader, Tally, TileRows
from darts_segmentation.turns import AS_IS, Turn
from darts_utils.arrays import array_namespace, on_device_of

__all__ = [
    "DatasetRows",
    "Finished",
    "Predict",
    "PredictsAhead",
    "Reader",
    "Tally",
    "TileRows",
    "mean_of_turns",
    "predict_planes",
    "predict_tiles",
]


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
    canvases = [Canvas(index, tile, readers, turns, options, tallies) for index, tile in enumerate(tiles)]
    rows = [(canvas, number) for canvas in canvases for number in range(canvas.patch_rows)]
    work = [RowOfPatches(place, canvas, number) for place, (canvas, number) in enumerate(rows)]
    for alike in _alike(work):
        # Buffers of one geometry are let go of before those of the next are there.
        yield from _predict_alike(alike, readers, turns, options)


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


def _predict_alike(
    work: Sequence[RowOfPatches], readers: Sequence[Reader], turns: Sequence[Turn], options: PatchOptions
) -> Iterator[Finished]:
    """Yield what networks say in rows of patches of one geometry."""
    cuts = work[0].canvas.cuts
    patches = sum(len(row.canvas.cuts[0].columns) for row in work)
    sizes = [_batch_size(cut, readers, min(options.batch_size, patches)) for cut in cuts]
    benches = [Bench(readers, turns, cut, size) for cut, size in zip(cuts, sizes, strict=True)]
    at_work: deque[dict[Canvas, RowOfPatches]] = deque()
    for together in _groups(work, max(sizes)):
        last = {row.canvas: row for row in together}
        at_work.append(last)
        for row in together:
            planes = row.canvas.open(row.number, last[row.canvas].number)
            for bench, cut in zip(benches, row.canvas.cuts, strict=True):
                bench.take(row, cut, planes)
            del planes
        for bench in benches:
            if not bench.works_ahead or together[-1] is work[-1]:
                bench.clear()
        while at_work and all(bench.is_done_with(max(row.place for row in at_work[0].values())) for bench in benches):
            for canvas, row in at_work.popleft().items():
                finished = canvas.finish(row.number)
                if len(finished.layers[0]):  # several rows of patches in the padding begin at the tile's first row
                    yield finished


def _batch_size(cut: Cut, readers: Sequence[Reader], most: int) -> int:
    return max(min([most, *(readers[number].most(*cut.sides) or most for number in cut.readers)]), 1)


def _alike(work: Sequence[RowOfPatches]) -> Iterator[list[RowOfPatches]]:
    """Yield neighbouring rows of patches whose inputs have the same sides."""
    together: list[RowOfPatches] = []
    for row, following in pairwise([*work, None]):
        assert row is not None
        together.append(row)
        if following is None or row.canvas.geometry != following.canvas.geometry:
            yield together
            together = []


def _groups(work: Sequence[RowOfPatches], batch_size: int) -> Iterator[list[RowOfPatches]]:
    """Yield rows of patches in order, as many together as fill a batch."""
    together: list[RowOfPatches] = []
    patches = 0
    for row in work:
        together.append(row)
        patches += len(row.canvas.cuts[0].columns)
        if patches >= batch_size:
            yield together
            together, patches = [], 0
    if together:
        yield together
