"""Thumbnails of tiles, small enough for many on one page."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import cv2
import numpy as np

from darts.records.ledger import Outcome
from darts.records.tile_places import tile_folder

MOST_PICTURES = 60
LONGEST_SIDE_PX = 160
MOST_BYTES = 8_000
_QUALITIES = (82, 70, 55, 40, 25)

THUMBNAIL, PREVIEW = "thumbnail.jpg", "preview.html"

T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """A tile's thumbnail as it stands in the page."""

    tile_id: str
    source: str
    """Data URI."""
    link: str
    """Relative address of the tile's page, or of its thumbnail in full."""


def collect_pictures(outcomes: Sequence[Outcome], folder: Path) -> list[Picture]:
    """Return pictures of at most 60 tiles, chosen evenly by id among those that have one.

    Args:
        outcomes: one a tile.
        folder: the output folder, where the page lies; it may have been moved since.
    """
    may = sorted((o for o in outcomes if not o.files or THUMBNAIL in o.files), key=lambda outcome: outcome.tile_id)
    pictures = []
    for outcome in evenly(may, MOST_PICTURES):
        there = tile_folder(folder, outcome.tile_id, outcome.output_path)
        small = shrink(there / THUMBNAIL)
        if small is not None:
            page = there / PREVIEW
            target = page if page.is_file() else there / THUMBNAIL
            source = f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"
            pictures.append(Picture(outcome.tile_id, source, relative_link(target, folder)))
    return pictures


def evenly(items: Sequence[T], most: int) -> list[T]:
    """Return at most so many items, spread over all, the first and last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def shrink(path: Path) -> bytes | None:
    """Return a picture as a JPEG of at most 160 pixels and 8 KB; None where there is none that can be read."""
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
        picture = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except (OSError, cv2.error):
        return None
    if picture is None:
        return None
    scale = LONGEST_SIDE_PX / max(picture.shape[:2])
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    for quality in _QUALITIES:
        small = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(small) <= MOST_BYTES:
            return small
    return None


def relative_link(target: Path, folder: Path) -> str:
    """Return the address of a file seen from a folder, fit for HTML."""
    try:
        relative = os.path.relpath(target.absolute(), folder.absolute())
    except ValueError:  # another drive
        return target.absolute().as_uri()
    return "./" + quote(os.fsencode(Path(relative).as_posix()))
