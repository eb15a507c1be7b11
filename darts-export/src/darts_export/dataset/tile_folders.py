"""The tiles' folders in output folders of runs."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from darts_utils.errors import MissingDataError

EXTENT_FILE = "prediction_extent.parquet"
LEVELS_BELOW = 2
"""Tiles lie one or two folders below an output folder: <scene>/ or <tile>/<scene>/."""


class TileFolder(NamedTuple):
    """A folder that holds files of a tile."""

    path: Path
    place: int
    """Number of the output folder it was found in, in the order they were named."""


def segment_files(suffix: str) -> tuple[str, str]:
    """Return the names of the files of whole and of cut segments of a layer."""
    return f"prediction_segments{suffix}.parquet", f"prediction_cut_segments{suffix}.parquet"


def find_tiles(outputs: Sequence[Path], suffix: str) -> list[TileFolder]:
    """Return the folders with any of a tile's three files, in an order that does not depend on that of `outputs`.

    Hidden folders, such as those of unfinished tiles, do not count.

    Raises:
        MissingDataError: an output folder is not there, or none of them holds a tile.
    """
    wanted = {EXTENT_FILE, *segment_files(suffix)}
    found: dict[Path, tuple[tuple[str, ...], TileFolder]] = {}
    for place, output in enumerate(outputs):
        if not output.is_dir():
            raise MissingDataError(f"{output} is no folder; name output folders of `darts run`")
        for path in _with_any(output, wanted, LEVELS_BELOW):
            entry = (path.relative_to(output).parts, TileFolder(path, place))
            found.setdefault(path.resolve(), entry)
    if not found:
        raise MissingDataError(
            f"no tile in {', '.join(map(str, outputs))}: folders one or two levels below with "
            f"{', '.join(sorted(wanted))} are looked for. Run darts with the export bands polygonized and extent."
        )
    return [folder for _, folder in sorted(found.values())]


def _with_any(folder: Path, wanted: set[str], levels: int) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        listed = list(entries)
    if any(entry.name in wanted for entry in listed):
        yield folder
        return
    if levels:
        for entry in listed:
            if not entry.name.startswith(".") and entry.is_dir():
                yield from _with_any(Path(entry.path), wanted, levels - 1)
