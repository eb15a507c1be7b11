"""A picture of the dataset: what was seen, and how many slumps there are, from above the pole."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import shapely
from PIL import Image, ImageDraw, ImageFont

from darts_export.dataset.planes import NORTH, SOUTH, project, project_points
from darts_export.dataset.summary import middles

SIDE_PX = 1400
STRIP_PX = 64
LEAST_WIDTH_M = 100_000.0
DOT_PX = 5
"""Slumps are counted in squares of this side."""

SEA, SEEN, CLEAR, GRID, INK = (246, 248, 250), (205, 220, 230), (168, 198, 214), (150, 160, 168), (40, 40, 40)
RAMP = ((255, 205, 60), (240, 110, 30), (190, 20, 60), (90, 0, 70))
"""One slump in a square, ten, a hundred, a thousand and more."""


def draw_map(folder: Path) -> Image.Image:
    """Return a map of the tables in `folder`, of the hemisphere that has more slumps."""
    longitude, latitude = _slumps(folder / "slumps.parquet")
    coverage = _coverage(folder / "coverage.parquet")
    south = (latitude < 0).sum() > (latitude >= 0).sum() if len(latitude) else _lies_south(coverage)
    plane = SOUTH if south else NORTH
    here = (latitude < 0) == south
    x, y = project_points(longitude[here], latitude[here], "EPSG:4326", plane)
    outlines = {kind: _flat(polygons, plane) for kind, polygons in coverage.items()}
    view = _View.around([shapely.total_bounds(polygons) for polygons in outlines.values()], x, y)

    canvas = Image.new("RGB", (SIDE_PX, SIDE_PX + STRIP_PX), SEA)
    draw = ImageDraw.Draw(canvas)
    for kind, colour in (("seen", SEEN), ("clear", CLEAR)):
        _fill(draw, outlines.get(kind, np.empty(0, object)), view, colour)
    _draw_graticule(draw, view, plane)
    largest = _draw_slumps(canvas, *view.pixels(x, y))
    _draw_strip(draw, view, f"DARTS dataset: {len(longitude)} slumps", largest)
    return canvas


class _View:
    """A square of the plane on the picture."""

    def __init__(self, left: float, top: float, metres_a_px: float) -> None:
        self.left, self.top, self.metres_a_px = left, top, metres_a_px

    @classmethod
    def around(cls, boxes: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> "_View":
        corners = np.array([*(box.reshape(2, 2) for box in boxes if np.isfinite(box).all())]).reshape(-1, 2)
        points = np.concatenate([corners, np.stack([x, y], axis=1)])
        low, high = (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(2), np.zeros(2))
        width = max(1.1 * float((high - low).max()), LEAST_WIDTH_M)
        middle = (low + high) / 2
        return cls(middle[0] - width / 2, middle[1] + width / 2, width / SIDE_PX)

    def pixels(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        return (np.asarray(x) - self.left) / self.metres_a_px, (self.top - np.asarray(y)) / self.metres_a_px


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


def _flat(polygons: np.ndarray, plane: str) -> np.ndarray:
    same = (shapely.bounds(polygons)[:, 1] < 0) == (plane == SOUTH)
    return project(shapely.segmentize(polygons[same], 0.5), "EPSG:4326", plane)


def _fill(draw: ImageDraw.ImageDraw, polygons: np.ndarray, view: _View, colour: Any) -> None:
    for part in shapely.get_parts(polygons):
        for ring, shade in zip(shapely.get_rings(part), [colour, *[None] * len(part.interiors)], strict=True):
            # Holes are small on this map: what lies in them is left as it is, under the polygons drawn later.
            if shade is not None:
                points = np.stack(view.pixels(*shapely.get_coordinates(ring).T), axis=1)
                draw.polygon([tuple(point) for point in points.tolist()], fill=shade)


def _draw_graticule(draw: ImageDraw.ImageDraw, view: _View, plane: str) -> None:
    up = 1 if plane == NORTH else -1
    font = ImageFont.load_default(size=15)
    wide = view.metres_a_px * SIDE_PX
    parallels = 10 if wide > 3e6 else 5 if wide > 1e6 else 1
    meridians = 30 if wide > 3e6 else 10 if wide > 1e6 else 5 if wide > 3e5 else 1
    lines = [(np.linspace(-180, 180, 361), np.full(361, float(lat)), lat) for lat in range(30, 90, parallels)]
    lines += [(np.full(121, float(lon)), np.linspace(30, 90, 121), lon) for lon in range(-180, 180, meridians)]
    for at, (lon, lat, value) in enumerate(lines):
        columns, rows = view.pixels(*project_points(lon, up * lat, "EPSG:4326", plane))
        near = (np.abs(columns - SIDE_PX / 2) < 2 * SIDE_PX) & (np.abs(rows - SIDE_PX / 2) < 2 * SIDE_PX)
        points = list(zip(columns.tolist(), rows.tolist(), strict=True))
        for start in np.flatnonzero(near[:-1] & near[1:]).tolist():
            draw.line(points[start : start + 2], fill=GRID, width=1)
        is_parallel = lat[0] == lat[-1] and at < len(range(30, 90, parallels))
        inside = [p for p in points if 30 < p[0] < SIDE_PX - 60 and 20 < p[1] < SIDE_PX - 30]
        if inside:
            side = ("N" if up > 0 else "S") if is_parallel else ("E" if value > 0 else "W")
            side = "" if not is_parallel and value in (0, -180) else side
            draw.text(inside[len(inside) // 4], f"{abs(value)}°{side}", fill=GRID, font=font, anchor="lb")


def _draw_slumps(canvas: Image.Image, columns: np.ndarray, rows: np.ndarray) -> int:
    """Draw squares by their number of slumps, and return the largest number."""
    if not len(columns):
        return 0
    across = SIDE_PX // DOT_PX
    place = (rows // DOT_PX).astype("int64") * across + (columns // DOT_PX).astype("int64")
    squares, number = np.unique(place, return_counts=True)
    draw = ImageDraw.Draw(canvas)
    for square, count in zip(squares.tolist(), number.tolist(), strict=True):
        left, top = square % across * DOT_PX, square // across * DOT_PX
        draw.rectangle((left, top, left + DOT_PX - 1, top + DOT_PX - 1), fill=_colour(count))
    return int(number.max())


def _colour(count: int) -> tuple[int, int, int]:
    at = np.log10(count)
    red, green, blue = (round(float(np.interp(at, range(len(RAMP)), [c[i] for c in RAMP]))) for i in range(3))
    return red, green, blue


def _draw_strip(draw: ImageDraw.ImageDraw, view: _View, text: str, largest: int) -> None:
    font, small = ImageFont.load_default(size=22), ImageFont.load_default(size=15)
    middle = SIDE_PX + STRIP_PX / 2
    draw.rectangle((0, SIDE_PX, SIDE_PX, SIDE_PX + STRIP_PX), fill=(255, 255, 255))
    draw.text((20, middle), text, fill=INK, font=font, anchor="lm")
    at = SIDE_PX * 0.45
    for label, colour in (("seen", SEEN), ("clear", CLEAR)):
        draw.rectangle((at, middle - 8, at + 22, middle + 8), fill=colour)
        draw.text((at + 28, middle), label, fill=INK, font=small, anchor="lm")
        at += 90
    for count in (1, 10, 100, 1000):
        if count <= max(largest, 1):
            draw.rectangle((at, middle - 8, at + 16, middle + 8), fill=_colour(count))
            draw.text((at + 20, middle), str(count), fill=INK, font=small, anchor="lm")
            at += 66
    longest = view.metres_a_px * SIDE_PX / 6
    power = 10.0 ** np.floor(np.log10(longest))
    metres = max(step * power for step in (1, 2, 5) if step * power <= longest)
    right, length = SIDE_PX - 20, metres / view.metres_a_px
    draw.line([(right - length, middle), (right, middle)], fill=INK, width=3)
    draw.text((right - length - 8, middle), f"{metres / 1000:g} km", fill=INK, font=small, anchor="rm")
