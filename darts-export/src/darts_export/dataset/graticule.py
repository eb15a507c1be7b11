"""Meridians and parallels of the map, with labels that leave each other alone."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import ImageDraw, ImageFont

from darts_export.dataset.map_view import SIDE_PX, View
from darts_export.dataset.planes import NORTH

COLOUR = (150, 160, 168)
FONT_PX = 15
LINES = 5
"""About so many parallels, and as many meridians, are drawn; twice as many around the pole."""

_STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
_METRES_A_DEGREE = 111_000
_POINTS = 400
_LABEL_TRIES = 40
_ROOM_PX = 6
"""Between a label, and others, dots and the edge."""


class _Line(NamedTuple):
    columns: np.ndarray
    rows: np.ndarray
    label: str
    order: np.ndarray
    """Which points come first when a place for the label is sought."""


def draw_graticule(draw: ImageDraw.ImageDraw, view: View, dots: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Draw lines, and labels where they cover neither each other nor `dots` (n, 2: column, row); return their boxes."""
    font = ImageFont.load_default(size=FONT_PX)
    lines = list(_lines(view))
    for line in lines:
        draw.line(list(zip(line.columns.tolist(), line.rows.tolist(), strict=True)), fill=COLOUR, width=1)
    taken: list[tuple[float, float, float, float]] = []
    for line in lines:
        for column, row in _places(line):
            box = draw.textbbox((column + 4, row - 4), line.label, font=font, anchor="lb")
            if _is_free(box, taken, dots):
                draw.text((column + 4, row - 4), line.label, fill=COLOUR, font=font, anchor="lb")
                taken.append(box)
                break
    return taken


def _lines(view: View) -> Iterator[_Line]:
    """Give parallels and then meridians."""
    along = np.linspace(0, SIDE_PX, 60)
    longitude, latitude = view.places(*np.meshgrid(along, along))
    pole = 90.0 if view.plane == NORTH else -90.0
    middle = float(longitude[30, 30])
    turned = (longitude - middle + 180) % 360 - 180
    column, row = (float(value) for value in view.pixels(np.zeros(()), np.full((), pole)))
    holds_pole = 0 <= column <= SIDE_PX and 0 <= row <= SIDE_PX
    if holds_pole:
        west, east = middle - 180, middle + 180
        south, north = (float(latitude.min()), pole) if pole > 0 else (pole, float(latitude.max()))
        meridians = 30.0
    else:
        west, east = middle + float(turned.min()), middle + float(turned.max())
        south, north = float(latitude.min()), float(latitude.max())
        across = view.width_m / (_METRES_A_DEGREE * max(float(np.cos(np.radians(latitude[30, 30]))), 1e-3))
        meridians = _step(across)
    parallels = _step(view.width_m / _METRES_A_DEGREE / (2 if holds_pole else 1))
    for value in _multiples(south, north, parallels):
        if abs(value) < 90:
            columns, rows = view.pixels(np.linspace(west, east, _POINTS), np.full(_POINTS, value))
            side = "N" if value > 0 else "S"
            yield _Line(columns, rows, f"{abs(value):g}°{side}", np.argsort(columns - rows, kind="stable"))
    for value in dict.fromkeys((_multiples(west, east, meridians) + 180) % 360 - 180):
        columns, rows = view.pixels(np.full(_POINTS, value), np.linspace(south, north, _POINTS))
        side = "" if value in (0, -180) else "E" if value > 0 else "W"
        from_the_equator = np.arange(_POINTS)[:: 1 if pole > 0 else -1]
        yield _Line(columns, rows, f"{abs(value):g}°{side}", from_the_equator)


def _step(degrees: float) -> float:
    return next((step for step in _STEPS if degrees / step <= LINES + 1), _STEPS[-1])


def _multiples(low: float, high: float, step: float) -> np.ndarray:
    """Return the multiples of a step within bounds, without the noise of floating point numbers."""
    return np.round(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step, 6)


def _places(line: _Line) -> Iterator[tuple[float, float]]:
    """Give points of a line on the picture where its label may stand, the best first."""
    columns, rows = line.columns[line.order], line.rows[line.order]
    inside = np.flatnonzero((columns >= 0) & (columns <= SIDE_PX) & (rows >= 0) & (rows <= SIDE_PX))
    for at in inside[:: max(1, len(inside) // _LABEL_TRIES)].tolist():
        yield float(columns[at]), float(rows[at])


def _is_free(
    box: tuple[float, float, float, float], taken: list[tuple[float, float, float, float]], dots: np.ndarray
) -> bool:
    left, top, right, bottom = box[0] - _ROOM_PX, box[1] - _ROOM_PX, box[2] + _ROOM_PX, box[3] + _ROOM_PX
    if left < 0 or top < 0 or right > SIDE_PX or bottom > SIDE_PX:
        return False
    if any(left < other[2] and other[0] < right and top < other[3] and other[1] < bottom for other in taken):
        return False
    covers = (dots[:, 0] > left) & (dots[:, 0] < right) & (dots[:, 1] > top) & (dots[:, 1] < bottom)
    return not covers.any()
