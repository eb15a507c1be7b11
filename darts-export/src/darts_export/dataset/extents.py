"""Extents of tiles on disk: well-known binary, one after the other."""

from collections.abc import Mapping
from typing import Any, BinaryIO

import shapely

BOX = ("left", "bottom", "right", "top")
"""Columns of bounds in the plane."""


def put_extents_down(file: BinaryIO, extents: Mapping[str, Any]) -> dict[str, int]:
    """Append geometries to a file, and return where each begins and ends: `<name>_at`, `<name>_end`."""
    places = {}
    for name, geometry in extents.items():
        places[f"{name}_at"] = file.tell()
        file.write(shapely.to_wkb(geometry))
        places[f"{name}_end"] = file.tell()
    return places


def pick_extent_up(path: str, start: int, end: int) -> Any:
    """Return the geometry that lies between two places of a file."""
    with open(path, "rb") as file:  # noqa: PTH123 - a Path for each of some hundred thousand reads costs time
        file.seek(start)
        return shapely.from_wkb(file.read(end - start))
