"""Where the tiles of an output folder lie, also after it was moved or copied, and what else lies there."""

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from darts_export.products import PRODUCTS, expected_files

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
"""Names under which `darts_utils.store.replacing` writes."""

_PRODUCT_FILES = frozenset(expected_files(tuple(PRODUCTS)))


def tile_folder(output: Path, tile_id: str, recorded: str) -> Path:
    """Return the folder of a tile in an output folder, which may have been moved or copied since it was recorded.

    Args:
        output: the folder as it is now.
        tile_id: name of the tile; most pipelines also call its folder so, below the output folder.
        recorded: path of the tile's folder at that time; empty: not known.
    """
    was, name = Path(recorded), PurePosixPath(tile_id).parts
    if not recorded:
        return output / tile_id
    for root in (output.absolute(), output.resolve()):
        if was.is_relative_to(root):
            return output / was.relative_to(root)
    least = len(name) if name and was.parts[-len(name) :] == name else 1
    # A tile of one folder deeper may have the same last name: the longest part that is there is meant.
    for length in range(len(was.parts) - was.is_absolute(), least, -1):
        if (there := output.joinpath(*was.parts[-length:])).is_dir():
            return there
    return output.joinpath(*was.parts[-least:])


def leftovers(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield what killed writers left in folders under temporary names."""
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            if _TEMPORARY.fullmatch(path.name):
                yield path


def has_leftovers(target: Path) -> bool:
    """Return whether somebody writes, or was killed while writing, this very file or folder."""
    return any(path.name[1:-13] == target.name for path in leftovers([target.parent]))


def places_of(output: Path, folders: Iterable[Path]) -> set[Path]:
    """Return the folders that tiles' folders lie in, from the output folder down."""
    found = {output}
    for folder in folders:
        parents = [parent for parent in folder.parents if parent not in found and parent.is_relative_to(output)]
        found.update(parent for parent in parents if parent.is_dir())
    return found


def unknown_tiles(places: Collection[Path], known: Collection[Path]) -> Iterator[Path]:
    """Yield folders beside those of known tiles that look like tiles."""
    for place in places:
        for folder in place.iterdir():
            if folder in known or folder in places or folder.name.startswith(".") or not folder.is_dir():
                continue
            if any((folder / file).is_file() for file in _PRODUCT_FILES):
                yield folder
