"""Polygons of all tiles on disk, in order of place, so that a part of the Earth can be read at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

CELL_M = 8192.0
"""Side of the cells in which places are counted."""

_CELLS_ACROSS = 2**15
_ROWS_A_BATCH = 2048


@dataclass(frozen=True)
class SpillFile:
    """A file of polygons in order of their cells, and which cells its batches hold."""

    path: Path
    first: np.ndarray
    """Lowest cell of each batch."""
    last: np.ndarray
    """Highest cell of each batch."""


@dataclass(frozen=True)
class Counts:
    """How many polygons a cell holds, for cells in order."""

    cells: np.ndarray
    number: np.ndarray

    @staticmethod
    def of(cells: np.ndarray) -> "Counts":
        """Count the polygons of each cell."""
        return Counts(*np.unique(cells, return_counts=True))

    @staticmethod
    def total(counts: Sequence["Counts"]) -> "Counts":
        """Return the sum of counts."""
        if not counts:
            return Counts(np.empty(0, "uint64"), np.empty(0, "int64"))
        cells, place = np.unique(np.concatenate([count.cells for count in counts]), return_inverse=True)
        number = np.bincount(place, np.concatenate([count.number for count in counts]), minlength=len(cells))
        return Counts(cells, number.astype("int64"))

    def divided(self, most: int) -> list[tuple[int, int]]:
        """Return ranges of cells, both ends included, that hold at most `most` polygons, or are one cell."""
        groups: list[tuple[int, int]] = []
        start, held = 0, 0
        for place, number in enumerate(self.number):
            if held and held + number > most:
                groups.append((int(self.cells[start]), int(self.cells[place - 1])))
                start, held = place, 0
            held += int(number)
        if len(self.cells):
            groups.append((int(self.cells[start]), int(self.cells[-1])))
        return groups


def cells_of_boxes(bounds: np.ndarray, south: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells that boxes touch: the box's row, and the cell, an entry for each pair of both.

    Cells are numbered along a Morton curve, neighbours mostly close to each other, those of the south plane last.

    Args:
        bounds: left, bottom, right, top in the plane of the hemisphere, in metres.
        south: which boxes lie in the south plane.
    """
    low = np.floor(bounds[:, :2] / CELL_M).astype("int64") + _CELLS_ACROSS // 2
    high = np.floor(bounds[:, 2:] / CELL_M).astype("int64") + _CELLS_ACROSS // 2
    wide, tall = (high - low + 1).T
    number = wide * tall
    row = np.repeat(np.arange(len(bounds)), number)
    within = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)
    across, up = within % wide[row], within // wide[row]
    cell = _spread(low[row, 0] + across) | (_spread(low[row, 1] + up) << np.uint64(1))
    return row, cell | (south[row].astype("uint64") << np.uint64(62))


def write_spill(path: Path, table: pa.Table) -> SpillFile:
    """Write polygons, in order of their column `cell`."""
    order = np.argsort(table["cell"].to_numpy(), kind="stable")
    table = table.take(pa.array(order))
    batches = table.combine_chunks().to_batches(_ROWS_A_BATCH)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    cells = [batch.column("cell").to_numpy() for batch in batches]
    return SpillFile(path, np.array([c[0] for c in cells], "uint64"), np.array([c[-1] for c in cells], "uint64"))


def read_range(files: Sequence[SpillFile], first: int, last: int) -> Iterator[pa.RecordBatch]:
    """Give the polygons of the cells from `first` to `last`, that one included."""
    for file in files:
        places = np.flatnonzero((file.last >= first) & (file.first <= last))
        if not len(places):
            continue
        with pa.OSFile(str(file.path)) as source, pa.ipc.open_file(source) as reader:
            for place in places:
                batch = reader.get_batch(int(place))
                cells = batch.column("cell").to_numpy()
                yield batch.slice(*_within(cells, first, last))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as an Arrow file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_schema(path: Path) -> pa.Schema:
    """Return the schema of an Arrow file."""
    with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
        return reader.schema


def read_tables(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """Give the tables of Arrow files, one after the other."""
    for path in paths:
        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
            yield reader.read_all()


def _within(cells: np.ndarray, first: int, last: int) -> tuple[int, int]:
    start = int(np.searchsorted(cells, np.uint64(first), side="left"))
    stop = int(np.searchsorted(cells, np.uint64(last), side="right"))
    return start, stop - start


def _spread(value: np.ndarray) -> np.ndarray:
    """Return values with a zero between any two of their lower 31 bits."""
    spread = value.astype("uint64")
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF), (8, 0x00FF00FF00FF00FF), (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333), (1, 0x5555555555555555),
    ):  # fmt: skip
        spread = (spread | (spread << np.uint64(shift))) & np.uint64(mask)
    return spread
