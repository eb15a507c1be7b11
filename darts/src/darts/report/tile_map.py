"""A map of tiles as SVG: their outlines by state over a net of parallels and meridians."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Corners = Sequence[tuple[float, float]]
Points = NDArray[np.float64]

WIDTH = 1000
"""Units of the picture across; its height follows the tiles."""
_HEIGHTS = (420, 760)
_MARGIN = 0.06
_SMALLEST = 1 / 6371
"""Radius of the Earth that is shown at least: 1 km."""
_EARTH_KM = 6371.0
_STEPS_DEG = (30, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
_LINES = 7
_EPSG_3413_MERIDIAN = -45.0
"""Points down on maps around the North Pole, as people of the Arctic know them."""


@dataclass(frozen=True)
class View:
    """Lambert's azimuthal equal-area projection of the sphere, and the window of it that is shown.

    It knows neither antimeridian nor pole, and serves a single tile and the whole Arctic alike.
    """

    longitude: float
    """Of the middle, degrees."""
    latitude: float
    left: float = -1.0
    top: float = 1.0
    scale: float = WIDTH / 2
    """Units of the picture a radius of the Earth."""
    height: int = WIDTH

    def project(self, lon: Points, lat: Points) -> tuple[Points, Points]:
        """Return places in radii of the Earth, x to the east and y to the north of the middle.

        Snyder, Map Projections: A Working Manual (USGS PP 1395, 1987), 22-4, 22-5 and 24-2.
        """
        lon, lat, middle = np.radians(lon) - math.radians(self.longitude), np.radians(lat), math.radians(self.latitude)
        along = math.sin(middle) * np.sin(lat) + math.cos(middle) * np.cos(lat) * np.cos(lon)
        k = np.sqrt(2 / np.maximum(1 + along, 1e-9))
        x = k * np.cos(lat) * np.sin(lon)
        y = k * (math.cos(middle) * np.sin(lat) - math.sin(middle) * np.cos(lat) * np.cos(lon))
        antipode = 1 + along < 1e-9  # it is a circle: somewhere on it
        return np.where(antipode, 2.0, x), np.where(antipode, 0.0, y)

    def unproject(self, x: Points, y: Points) -> tuple[Points, Points]:
        """Return longitude, as degrees from that of the middle, and latitude; NaN beyond the Earth.

        Snyder (1987), 20-14, 20-15, 20-18 and 24-16.
        """
        rho = np.hypot(x, y)
        c = 2 * np.arcsin(np.where(rho <= 2, rho, np.nan) / 2)
        middle = math.radians(self.latitude)
        share = np.divide(np.sin(c), rho, out=np.ones_like(rho), where=rho > 0)
        lat = np.arcsin(np.clip(np.cos(c) * math.sin(middle) + y * share * math.cos(middle), -1, 1))
        lon = np.arctan2(x * share, math.cos(middle) * np.cos(c) - y * share * math.sin(middle))
        return np.degrees(lon), np.degrees(lat)

    def draw(self, lon: Points, lat: Points) -> tuple[Points, Points]:
        """Return places in units of the picture."""
        x, y = self.project(lon, lat)
        return (x - self.left) * self.scale, (self.top - y) * self.scale


@dataclass(frozen=True)
class TileMap:
    """A drawn map."""

    content: str
    """Inside of an SVG of `WIDTH` by `height` units."""
    height: int
    shown: tuple[int, ...]
    """Which of the tiles it shows, in the order of its paths."""


def draw_map(tiles: Sequence[tuple[str, Corners]], states: Sequence[str]) -> TileMap | None:
    """Return the map of tiles, None where the place of none is known.

    Args:
        tiles: state and corners (longitude, latitude) of each tile; with none or impossible ones it is not shown.
        states: all states, those that lie below first; the classes of their paths.
    """
    possible = [number for number, (_, corners) in enumerate(tiles) if _possible(corners)]
    if not possible:
        return None
    view = look_at([tiles[number][1] for number in possible])
    scale_bar, taken = _scale_bar(view)
    parts = [*_graticule(view, taken)]
    shown: list[int] = []
    for state in states:
        of_state = [number for number in possible if tiles[number][0] == state]
        if of_state:
            parts += [f'<g class="tiles {state}">', *(_path(view, tiles[number][1]) for number in of_state), "</g>"]
            shown += of_state
    parts.append(scale_bar)
    return TileMap("\n".join(parts), view.height, tuple(shown))


def look_at(places: Sequence[Corners]) -> View:
    """Return the view that holds all places."""
    lon, lat = np.array([point for corners in places for point in corners], float).T
    directions = np.stack(
        [np.cos(np.radians(lat)) * np.cos(np.radians(lon)), np.cos(np.radians(lat)) * np.sin(np.radians(lon)),
         np.sin(np.radians(lat))]
    )  # fmt: skip
    middle = directions.mean(axis=1)
    length = float(np.linalg.norm(middle))
    middle = middle / length if length > 1e-6 else np.array([0.0, 0.0, 1.0])
    # Rounded, so that the last bits of a sum do not show.
    latitude = round(math.degrees(math.asin(float(np.clip(middle[2], -1, 1)))), 6)
    longitude = round(math.degrees(math.atan2(middle[1], middle[0])), 6)
    spread = math.degrees(math.acos(float(np.clip((middle @ directions).min(), -1, 1))))
    if 90 - abs(latitude) < spread:  # the tiles lie around the pole
        longitude, latitude = _EPSG_3413_MERIDIAN if latitude > 0 else 0.0, math.copysign(90.0, latitude)
    return _framed(View(longitude, latitude), lon, lat)


def _framed(view: View, lon: Points, lat: Points) -> View:
    x, y = view.project(lon, lat)
    wide = max(float(np.ptp(x)) * (1 + 2 * _MARGIN), _SMALLEST)
    high = max(float(np.ptp(y)) * (1 + 2 * _MARGIN), _SMALLEST)
    low, most = _HEIGHTS
    wide = max(wide, high * WIDTH / most)
    height = round(min(max(WIDTH * high / wide, low), most))
    middle_x, middle_y = (float(x.min() + x.max()) / 2, float(y.min() + y.max()) / 2)
    scale = WIDTH / wide
    return View(
        view.longitude, view.latitude, middle_x - wide / 2, middle_y + height / scale / 2, scale, height
    )  # fmt: skip


def _possible(corners: Corners) -> bool:
    return len(corners) >= 3 and all(math.isfinite(lon) and abs(lat) <= 90 for lon, lat in corners)


def _path(view: View, corners: Corners) -> str:
    lon, lat = np.array(corners, float).T
    points = " ".join(_point(x, y) for x, y in zip(*view.draw(lon, lat), strict=True))
    return f'<path d="M{points}Z"/>'


def _point(x: float, y: float) -> str:
    return f"{x:.2f} {y:.2f}"


def _graticule(view: View, taken: float) -> Iterator[str]:
    """Yield parallels and meridians with their labels, those left out that would lie right of `taken` at the bottom."""
    window = np.meshgrid(
        view.left + np.linspace(0, WIDTH, 61) / view.scale, view.top - np.linspace(0, view.height, 61) / view.scale
    )
    lon, lat = (angles[np.isfinite(angles)] for angles in view.unproject(*window))
    low, high, west, east = float(lat.min()), float(lat.max()), float(lon.min()), float(lon.max())
    for pole in (90.0, -90.0):
        at_x, at_y = view.draw(np.zeros(1), np.full(1, pole))
        if 0 <= at_x[0] <= WIDTH and 0 <= at_y[0] <= view.height:
            low, high, west, east = min(low, pole), max(high, pole), -180.0, 180.0
    yield '<g class="net">'
    labels = []
    step = _step(high - low)
    for degrees in _multiples(low, high, step):
        if abs(degrees) == 90:
            continue
        along = np.linspace(west, east, 181) + view.longitude
        line, inside = _line(view, along, np.full(along.shape, degrees))
        yield line
        if len(inside):
            x, y = inside[np.argmin(inside[:, 0])]
            labels.append(_label(x, y, _name(degrees, step, "N", "S"), view))
    meridians = (west + view.longitude, east + view.longitude)
    # All around, the last one may be the first one again.
    step, most = (30.0, 12) if east - west > 350 else (_step(east - west), None)
    for degrees in _multiples(*meridians, step)[:most]:
        up = np.linspace(low, high, 121)
        line, inside = _line(view, np.full(up.shape, degrees), up)
        yield line
        if len(inside):
            turned = (degrees + 180) % 360 - 180
            name = _name(turned, step, "E", "W") if abs(turned) < 180 else "180°"
            # Away from the pole, where meridians are apart.
            x, y = inside[0 if abs(low) < abs(high) else -1]
            if x < taken or y < view.height - 50:
                labels.append(_label(x, y, name, view))
    yield from labels
    yield "</g>"


def _step(degrees: float) -> float:
    return next((step for step in reversed(_STEPS_DEG) if degrees / step <= _LINES), _STEPS_DEG[0])


def _multiples(low: float, high: float, step: float) -> list[float]:
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _line(view: View, lon: Points, lat: Points) -> tuple[str, Points]:
    """Return a line as a path, and those of its points that lie within the picture."""
    x, y = view.draw(lon, lat)
    near = (np.abs(x - WIDTH / 2) < WIDTH) & (np.abs(y - view.height / 2) < view.height)
    pieces = []
    for i in np.flatnonzero(near):
        pieces.append(f"{'L' if i and near[i - 1] else 'M'}{x[i]:.1f} {y[i]:.1f}")
    inside = (x >= 0) & (x <= WIDTH) & (y >= 0) & (y <= view.height)
    return f'<path d="{"".join(pieces)}"/>', np.stack([x[inside], y[inside]], axis=-1)


def _label(x: float, y: float, text: str, view: View) -> str:
    anchor = "start" if x < 0.1 * WIDTH else "end" if x > 0.9 * WIDTH else "middle"
    x, y = min(max(x, 6), WIDTH - 6), min(max(y - 4, 18), view.height - 6)
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{text}</text>'


def _name(degrees: float, step: float, positive: str, negative: str) -> str:
    decimals = max(0, -math.floor(math.log10(step)))
    text = f"{abs(degrees):.{decimals}f}°"
    return text if float(text[:-1]) == 0 else f"{text} {positive if degrees > 0 else negative}"


def _scale_bar(view: View) -> tuple[str, float]:
    """Return a bar of a round length, and where it begins; the projection is true to scale in the middle."""
    most = 180 / view.scale * _EARTH_KM
    power = 10.0 ** math.floor(math.log10(most))
    km = max(factor * power for factor in (1, 2, 5) if factor * power <= most)
    length = km / _EARTH_KM * view.scale
    text = f"{km:g} km" if km >= 1 else f"{1000 * km:g} m"
    x, y = WIDTH - 20 - length, view.height - 14
    bar = (
        f'<g class="scale"><path d="M{x:.1f} {y - 8}v8h{length:.1f}v-8"/>'
        f'<text x="{x + length / 2:.1f}" y="{y - 6}" text-anchor="middle">{text}</text></g>'
    )
    return bar, x - 60
