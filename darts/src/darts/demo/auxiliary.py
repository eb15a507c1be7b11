"""The landscape on the grids of its auxiliary data: ArcticDEM in EPSG:3413, Landsat trends in EPSG:4326."""

import numpy as np
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio import Affine
from scipy import ndimage

from darts.demo.noise import soften, stream
from darts.demo.types import Field, Mask

DEM_CRS, DEM_RESOLUTION = "EPSG:3413", 10.0
TREND_CRS, TREND_RESOLUTION = "EPSG:4326", 0.0002695
NO_CHANGE = 128
"""Code of a trend of zero; 0 is missing."""
KNOT_PX = 16
"""Positions are projected exactly every so many pixels and interpolated between (error below 0.1 mm)."""


def render_dem(seed: int, elevation: Field, water: Mask, geobox: GeoBox) -> tuple[Field, GeoBox]:
    """Return the relief as ArcticDEM would hold it: on its grid, NaN outside, with small holes, mostly over water."""
    rng = stream(seed, "dem")
    elevation = elevation + 0.04 * rng.standard_normal(elevation.shape, dtype="float32")
    grid = _covering(geobox, DEM_CRS, DEM_RESOLUTION, (0.0, 0.0))
    row, col = _positions(grid, geobox)
    dem = ndimage.map_coordinates(elevation, (row, col), order=3, mode="constant", cval=np.nan)
    dem[~np.isfinite(dem)] = np.nan
    height, width = elevation.shape
    holes = np.zeros((height, width), bool)
    wet = np.flatnonzero(water)
    y, x = np.ogrid[:height, :width]
    for _ in range(int(rng.integers(2, 6)) if wet.size else 0):
        r, c = divmod(int(rng.choice(wet)), width)
        holes |= np.hypot(y - r, x - c) < rng.uniform(1.5, 4.0)
    nearest = np.rint(row).astype(int).clip(0, height - 1), np.rint(col).astype(int).clip(0, width - 1)
    dem[holes[nearest]] = np.nan
    return np.round(dem, 2).astype("float32"), grid


def render_trend(seed: int, trend: Field, geobox: GeoBox) -> tuple[Field, GeoBox]:
    """Return the trends as uint8 codes (3, y, x) on a geographic grid, blurred to Landsat's 30 m, 0 where missing."""
    rng = stream(seed, "trend")
    grid = _covering(geobox, TREND_CRS, TREND_RESOLUTION, (-180.0, 90.0))
    row, col = _positions(grid, geobox)
    inside = (row >= 0) & (row <= geobox.shape[0] - 1) & (col >= 0) & (col <= geobox.shape[1] - 1)
    codes = np.zeros((3, *row.shape), "uint8")
    for band in range(3):
        values = ndimage.map_coordinates(soften(trend[band], 1.1), (row, col), order=1, mode="nearest")
        values = values + rng.normal(NO_CHANGE, 3.0, row.shape)
        codes[band] = np.where(inside, np.clip(np.rint(values), 1, 255), 0)
    return codes, grid


def _covering(geobox: GeoBox, crs: str, resolution: float, origin: tuple[float, float]) -> GeoBox:
    """Return the grid in another CRS, on multiples of its resolution from `origin`, that covers a grid."""
    height, width = geobox.shape
    steps = np.linspace(0, 1, 33)
    edge_col = np.concatenate([steps * width, steps * width, np.zeros(33), np.full(33, width)])
    edge_row = np.concatenate([np.zeros(33), np.full(33, height), steps * height, steps * height])
    project = Transformer.from_crs(_wkt(geobox), crs, always_xy=True)
    x, y = project.transform(*_place(geobox.transform, edge_col, edge_row))
    left, right = np.floor((x.min() - origin[0]) / resolution), np.ceil((x.max() - origin[0]) / resolution)
    top, bottom = np.floor((origin[1] - y.max()) / resolution), np.ceil((origin[1] - y.min()) / resolution)
    corner = Affine.translation(origin[0] + left * resolution, origin[1] - top * resolution)
    return GeoBox((int(bottom - top), int(right - left)), corner * Affine.scale(resolution, -resolution), crs)


def _positions(grid: GeoBox, source: GeoBox) -> tuple[Field, Field]:
    """Return the fractional row and column in `source` of each pixel's centre of `grid`."""
    height, width = grid.shape
    knot_row = np.arange(0, height + KNOT_PX, KNOT_PX, dtype="float64")
    knot_col = np.arange(0, width + KNOT_PX, KNOT_PX, dtype="float64")
    col, row = np.meshgrid(knot_col + 0.5, knot_row + 0.5)
    project = Transformer.from_crs(_wkt(grid), _wkt(source), always_xy=True)
    source_col, source_row = _place(~source.transform, *project.transform(*_place(grid.transform, col, row)))
    at = np.meshgrid(np.arange(height) / KNOT_PX, np.arange(width) / KNOT_PX, indexing="ij")
    return (
        ndimage.map_coordinates(source_row - 0.5, at, order=1),
        ndimage.map_coordinates(source_col - 0.5, at, order=1),
    )


def _wkt(geobox: GeoBox) -> str:
    assert geobox.crs is not None
    return geobox.crs.to_wkt()


def _place(transform: Affine, col: Field, row: Field) -> tuple[Field, Field]:
    """Return where an affine transform puts many pixels."""
    a, b, c, d, e, f = transform[:6]
    return a * col + b * row + c, d * col + e * row + f
