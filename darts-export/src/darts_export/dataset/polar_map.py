"""A picture of the dataset: what was seen, and how many slumps there are, seen from above the pole."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import shapely
from PIL import Image, ImageDraw, ImageFont

from darts_export.dataset.graticule import draw_graticule
from darts_export.dataset.map_view import SIDE_PX, View
from darts_export.dataset.planes import NORTH, SOUTH
from darts_export.dataset.summary import middles

STRIP_PX = 64
FEW = 2000
"""Up to so many slumps are drawn larger."""
DOT_PX = {True: 10, False: 5}
"""Slumps are counted in squares of this side, where they are few and where they are many."""

SEA, SEEN, CLEAR, INK = (246, 248, 250), (205, 220, 230), (168, 198, 214), (40, 40, 40)
RAMP = ((255, 205, 60), (240, 110, 30), (190, 20, 60), (90, 0, 70))
"""One slump in a square, ten, a hundred, a thousand and more."""


def draw_map(folder: Path) -> Image.Image:
    """Return a map of the tables in `folder`, of the hemisphere that has more slumps."""
    longitude, latitude = _slumps(folder / "slumps.parquet")
    coverage = _coverage(folder / "coverage.parquet")
    south = (latitude < 0).sum() > (latitude >= 0).sum() if len(latitude) else _lies_south(coverage)
    here = (latitude < 0) == south
    longitude, latitude = longitude[here], latitude[here]
    same = {kind: _of_hemisphere(polygons, south) for kind, polygons in coverage.items()}
    view = View.around(SOUTH if south else NORTH, shapely.get_coordinates([*same.get("seen", ())]), longitude, latitude)

    canvas = Image.new("RGB", (SIDE_PX, SIDE_PX + STRIP_PX), SEA)
    draw = ImageDraw.Draw(canvas)
    for kind, colour in (("seen", SEEN), ("clear", CLEAR)):
        _fill(draw, same.get(kind, np.empty(0, object)), view, colour)
    dots = view.pixels(longitude, latitude)
    draw_graticule(draw, view, np.stack(dots, axis=1))
    largest = _draw_slumps(draw, *dots)
    _draw_strip(draw, view, _title(len(longitude), int((~here).sum()), south), largest)
    return canvas


def _slumps(path: Path) -> tuple[np.ndarray, np.ndarray]:
    points = [middles(batch.column("bbox")) for batch in pq.ParquetFile(path).iter_batches(columns=["bbox"])]
    longitude, latitude = zip(*points, strict=True) if points else ((np.empty(0),), (np.empty(0),))
    return np.concatenate(longitude), np.concatenate(latitude)


def _coverage(path: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(path, columns=["kind", "geometry"])
    kinds = table["kind"].to_numpy(zero_copy_only=False)
    geometry = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    return {kind: geometry[kinds == kind] for kind in ("seen", "clear")} if len(table) else {}


def _lies_south(coverage: dict[str, np.ndarray]) -> bool:
    return bool(coverage) and float(np.nanmean(shapely.bounds(coverage["seen"])[:, 1])) < 0


def _of_hemisphere(polygons: np.ndarray, south: bool) -> np.ndarray:
    same: np.ndarray = polygons[(shapely.bounds(polygons)[:, 1] < 0) == south]
    return same


def _title(slumps: int, elsewhere: int, south: bool) -> str:
    title = f"DARTS dataset: {slumps} slump{'' if slumps == 1 else 's'}"
    return title + (f" ({elsewhere} more in the {'north' if south else 'south'})" if elsewhere else "")


def _fill(draw: ImageDraw.ImageDraw, polygons: np.ndarray, view: View, colour: Any) -> None:
    # Holes are small on this map: what lies in them is left as it is, under the polygons drawn later.
    for ring in shapely.get_exterior_ring(shapely.get_parts(polygons)):
        points = view.pixels(*shapely.get_coordinates(shapely.segmentize(ring, 0.5)).T)
        draw.polygon([tuple(point) for point in np.stack(points, axis=1).tolist()], fill=colour)


def _draw_slumps(draw: ImageDraw.ImageDraw, columns: np.ndarray, rows: np.ndarray) -> int:
    """Draw squares by their number of slumps, and return the largest number."""
    if not len(columns):
        return 0
    side = DOT_PX[len(columns) <= FEW]
    across = SIDE_PX // side
    place = (rows // side).astype("int64") * across + (columns // side).astype("int64")
    squares, number = np.unique(place, return_counts=True)
    for square, count in zip(squares.tolist(), number.tolist(), strict=True):
        left, top = square % across * side, square // across * side
        draw.rectangle((left, top, left + side - 1, top + side - 1), fill=_colour(count))
    return int(number.max())


def _colour(count: int) -> tuple[int, int, int]:
    at = np.log10(count)
    red, green, blue = (round(float(np.interp(at, range(len(RAMP)), [c[i] for c in RAMP]))) for i in range(3))
    return red, green, blue


def _draw_strip(draw: ImageDraw.ImageDraw, view: View, text: str, largest: int) -> None:
    font, small = ImageFont.load_default(size=22), ImageFont.load_default(size=15)
    middle = SIDE_PX + STRIP_PX / 2
    draw.rectangle((0, SIDE_PX, SIDE_PX, SIDE_PX + STRIP_PX), fill=(255, 255, 255))
    draw.text((20, middle), text, fill=INK, font=font, anchor="lm")
    at = SIDE_PX * 0.45
    for label, colour in (("seen", SEEN), ("seen clear", CLEAR)):
        draw.rectangle((at, middle - 8, at + 22, middle + 8), fill=colour)
        draw.text((at + 28, middle), label, fill=INK, font=small, anchor="lm")
        at += 44 + draw.textlength(label, font=small)
    for count in (1, 10, 100, 1000):
        if count <= largest:
            label = f"{count} slump" if count == 1 else str(count)
            draw.rectangle((at, middle - 8, at + 16, middle + 8), fill=_colour(count))
            draw.text((at + 22, middle), label, fill=INK, font=small, anchor="lm")
            at += 38 + draw.textlength(label, font=small)
    longest = view.metres_a_px * SIDE_PX / 6
    power = 10.0 ** np.floor(np.log10(longest))
    metres = max(step * power for step in (1, 2, 5) if step * power <= longest)
    right, length = SIDE_PX - 20, metres / view.metres_a_px
    draw.line([(right - length, middle), (right, middle)], fill=INK, width=3)
    draw.text((right - length - 8, middle), f"{metres / 1000:g} km", fill=INK, font=small, anchor="rm")
