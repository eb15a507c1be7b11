"""Where a geobox lies on another grid, in pixels of that grid; also across the antimeridian and near a pole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from rasterio import Affine

from darts_utils.errors import ConfigError

EDGE_POINTS = (101, 401, 1601, 6401)
"""Points along each edge, since straight lines of one projection are curves in another; the next number is taken
where the last one still moved the bounds by more than half a pixel."""
INTERIOR_POINTS = 33
"""Points along each side of a lattice inside: near a pole the extremes need not lie on an edge."""
MARGIN_PX = 2
"""Pixels added where grids differ, for what lies between the points and for the reach of cubic resampling."""

Range = tuple[float, float]

_LONLAT = CRS.from_epsg(4326)


@dataclass(frozen=True)
class PixelWindow:
    """A block of pixels of a grid, end exclusive; may reach beyond the grid."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    def clipped(self, rows: tuple[int, int], columns: tuple[int, int]) -> "PixelWindow":
        """Return the part within `rows` and `columns`; empty (end = start) where there is none."""
        return PixelWindow(_clip(self.rows, rows), _clip(self.columns, columns))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def is_empty(self) -> bool:
        """Whether there is no pixel in it."""
        return min(self.shape) == 0


def full_circle_px(grid: GeoBox) -> int | None:
    """Return how many columns a grid in degrees has to 360°, or None if it does not go around.

    The pixel size need not divide 360°: then columns repeat to within half a pixel (0.05 pixel in TCVIS).
    """
    if not crs_of(grid).is_geographic:
        return None
    circle = round(360 / grid.affine.a)
    return circle if grid.shape.x >= circle else None


def window_of(target: GeoBox, grid: GeoBox, buffer_px: int = 0) -> PixelWindow:
    """Return the pixels of `grid` that cover `target` and `buffer_px` more on each side.

    On a grid that goes around the earth columns run on across the antimeridian (to either side of the grid's own).

    Raises:
        ConfigError: the target has no CRS, or cannot be expressed in the grid's.
    """
    margin = buffer_px
    if crs_of(target) == crs_of(grid):
        rows, columns = _bounds(target, grid, EDGE_POINTS[0])
    else:
        margin += MARGIN_PX
        rows, columns = _converged_bounds(target, grid)
    window = PixelWindow(_range(rows, margin), _range(columns, margin))
    circle = full_circle_px(grid)
    if circle is not None and window.shape[1] >= circle:
        return PixelWindow(window.rows, (0, circle))
    return window


def geobox_of(window: PixelWindow, grid: GeoBox) -> GeoBox:
    """Return a window of a grid as a geobox."""
    affine = grid.affine * Affine.translation(window.columns[0], window.rows[0])
    return GeoBox(window.shape, affine, grid.crs)


def parts_on_grid(window: PixelWindow, grid: GeoBox) -> Iterator[tuple[PixelWindow, int]]:
    """Yield the parts of a window that lie on the grid, each with the column of the window at which it begins."""
    height, width = grid.shape.yx
    circle = full_circle_px(grid)
    start, end = window.columns
    while start < end:
        turn = 0 if circle is None else start // circle * circle
        stop = end if circle is None else min(end, turn + circle)
        part = PixelWindow(window.rows, (start - turn, stop - turn)).clipped((0, height), (0, width))
        if not part.is_empty:
            yield part, part.columns[0] + turn - window.columns[0]
        start = stop


def describe_area(windows: Sequence[PixelWindow], grid: GeoBox) -> str:
    """Return the bounds of some windows of a grid in words: in its CRS, and in longitude and latitude."""
    rows = min(w.rows[0] for w in windows), max(w.rows[1] for w in windows)
    columns = min(w.columns[0] for w in windows), max(w.columns[1] for w in windows)
    left, bottom, right, top = geobox_of(PixelWindow(rows, columns), grid).boundingbox
    crs = crs_of(grid)
    name = f"EPSG:{crs.to_epsg()}" if crs.to_epsg() else "its CRS"
    text = f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g} in {name}"
    if crs.is_geographic:
        return text
    transformer = _transformer(crs, _LONLAT)
    corners = [transformer.transform(x, y) for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))]
    return text + ", corners lon/lat " + ", ".join(f"{lon:.3f}/{lat:.3f}" for lon, lat in corners)


def crs_of(geobox: GeoBox) -> CRS:
    """Return a grid's CRS for pyproj.

    Raises:
        ConfigError: it has none.
    """
    if geobox.crs is None:
        raise ConfigError(f"the grid has no CRS: {geobox!r}")
    return _crs(geobox.crs.to_wkt())


@lru_cache(maxsize=256)
def _crs(wkt: str) -> CRS:
    return CRS.from_wkt(wkt)


@lru_cache(maxsize=256)
def _transformer(source: CRS, target: CRS) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


def _converged_bounds(target: GeoBox, grid: GeoBox) -> tuple[Range, Range]:
    last = None
    for points in EDGE_POINTS:
        bounds = _bounds(target, grid, points)
        if last is not None and np.abs(np.subtract(bounds, last)).max() < 0.5:
            break
        last = bounds
    return bounds


def _bounds(target: GeoBox, grid: GeoBox, edge_points: int) -> tuple[Range, Range]:
    """Return the ranges of rows and columns of `grid` that a target takes, as fractions of pixels."""
    x, y = _sample(target, edge_points)
    if crs_of(target) != crs_of(grid):
        x, y = _transform(target, grid, x, y)
    if full_circle_px(grid) is not None:
        x = _unwrap(x)
        pole = _pole_inside(target)
        if pole is not None:
            x, y = np.append(x, (-180, 180)), np.append(y, (pole, pole))
    rows, columns = (y - grid.affine.f) / grid.affine.e, (x - grid.affine.c) / grid.affine.a
    return (rows.min(), rows.max()), (columns.min(), columns.max())


def _sample(target: GeoBox, edge_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return world coordinates of points along the edges and inside a geobox; the first is its middle."""
    height, width = target.shape.yx
    edge, inner = np.linspace(0, 1, edge_points), np.linspace(0, 1, INTERIOR_POINTS + 2)[1:-1]
    lattice_x, lattice_y = np.meshgrid(inner, inner)
    zero, one = np.zeros_like(edge), np.ones_like(edge)
    columns = width * np.concatenate([[0.5], edge, edge, zero, one, lattice_x.ravel()])
    rows = height * np.concatenate([[0.5], zero, one, edge, edge, lattice_y.ravel()])
    t = target.affine
    return t.a * columns + t.b * rows + t.c, t.d * columns + t.e * rows + t.f


def _transform(target: GeoBox, grid: GeoBox, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = _transformer(crs_of(target), crs_of(grid)).transform(x, y)
    known = np.isfinite(x) & np.isfinite(y)
    if not known[0]:
        raise ConfigError(f"the middle of the target grid has no place in {grid.crs}: {target!r}")
    return x[known], y[known]


def _unwrap(longitude: np.ndarray) -> np.ndarray:
    """Return longitudes that run on across the antimeridian; those within half a turn of the first."""
    return longitude[0] + (longitude - longitude[0] + 180) % 360 - 180


def _pole_inside(target: GeoBox) -> float | None:
    """Return the latitude of the pole that a projected target contains, if any."""
    if crs_of(target).is_geographic:
        return None
    transformer = _transformer(_LONLAT, crs_of(target))
    for latitude in (90.0, -90.0):
        column, row = ~target.affine * transformer.transform(0.0, latitude)
        if 0 <= column <= target.shape.x and 0 <= row <= target.shape.y:
            return latitude
    return None


def _range(pixels: Range, margin: int) -> tuple[int, int]:
    # Edges that fall on a pixel's edge but for rounding must not take the next pixel.
    low, high = np.floor(pixels[0] + 1e-6), np.ceil(pixels[1] - 1e-6)
    return int(low) - margin, max(int(high), int(low) + 1) + margin


def _clip(part: tuple[int, int], whole: tuple[int, int]) -> tuple[int, int]:
    start = min(max(part[0], whole[0]), whole[1])
    return start, max(start, min(part[1], whole[1]))
