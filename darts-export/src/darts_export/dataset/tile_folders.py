"""The tiles' folders in output folders of runs."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from darts_export.products import PRODUCTS
from darts_utils.errors import MissingDataError, StoreError
from darts_utils.paths import is_folder
from darts_utils.quoting import listed

LEVELS_BELOW = 2
"""Tiles lie one or two folders below an output folder: <scene>/ or <tile>/<scene>/."""


def _tables(token: str) -> tuple[str, ...]:
    return tuple(name for name in PRODUCTS[token].files if name.endswith(".parquet"))


(EXTENT_FILE,) = _tables("extent")
_SEGMENTS, _CUT_SEGMENTS = _tables("polygonized")


class TileFolder(NamedTuple):
    """A folder that holds files of a tile."""

    path: Path
    place: int
    """Number of the output folder it was found in, in the order they were named."""


def segment_files(suffix: str) -> tuple[str, str]:
    """Return the names of the files of whole and of cut segments of a layer."""
    return _SEGMENTS.replace("{model}", suffix), _CUT_SEGMENTS.replace("{model}", suffix)


def layers_in(folder: Path) -> list[str]:
    """Return the suffixes of the layers whose whole segments a tile's folder holds; none where it cannot be read."""
    before, after = _SEGMENTS.split("{model}")
    return sorted(path.name.removeprefix(before).removesuffix(after) for path in folder.glob(f"{before}*{after}"))


def find_tiles(outputs: Sequence[Path], suffix: str) -> list[TileFolder]:
    """Return the folders with any of a tile's three files, in an order that does not depend on that of `outputs`.

    Hidden folders, such as those of unfinished tiles, do not count. A folder that cannot be looked into does: reading
    it tells why.

    Raises:
        MissingDataError: an output folder is not there, or none of them holds a tile.
        StoreError: an output folder cannot be looked into.
    """
    wanted = {EXTENT_FILE, *segment_files(suffix)}
    found: dict[Path, tuple[tuple[str, ...], TileFolder]] = {}
    for place, output in enumerate(outputs):
        if not output.is_dir():
            raise MissingDataError(f"{output} is no folder; name output folders of `darts run`")
        try:
            for path in _with_any(output, wanted, LEVELS_BELOW):
                found.setdefault(path.resolve(), (path.relative_to(output).parts, TileFolder(path, place)))
        except OSError as error:
            raise StoreError(f"{output} cannot be looked into: {error.strerror or error}") from error
    if not found:
        raise MissingDataError(
            f"no tile in {listed(outputs, 3)}, one or two levels below: none has {sorted(wanted)[-1]} or the like. "
            "Run darts with the export bands polygonized and extent."
        )
    return [folder for _, folder in sorted(found.values())]


def _with_any(folder: Path, wanted: set[str], levels: int) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        # In order, so that of a folder and a link to it always the same one counts.
        listed = sorted(entries, key=lambda entry: entry.name)
    if any(entry.name in wanted for entry in listed):
        yield folder
    # A stray file must not hide the tiles below it, so a tile's folder is looked into as well.
    for entry in listed if levels else ():
        if not entry.name.startswith(".") and is_folder(entry):
            try:
                yield from _with_any(Path(entry.path), wanted, levels - 1)
            except PermissionError:
                yield Path(entry.path)
