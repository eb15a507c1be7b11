"""Tiles, elevation and trends to make features of: synthetic, always the same, as rough and as gappy as real ones."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from darts_utils.testing import tile_on, utm_geobox

WIDE_RADIUS_M = 1000
"""The largest radius of the TPI that the elevation reaches for."""
TRENDS = ("tc_brightness", "tc_greenness", "tc_wetness")
TCVIS_PIXEL_DEG = 0.0002695


@dataclass(frozen=True)
class Case:
    """A tile of some sensor."""

    size: int
    pixel_m: float
    dem_pixel_m: float


CASES = {"sentinel2": Case(10980, 10, 10), "planet": Case(8000, 3, 2)}


@dataclass(frozen=True)
class Inputs:
    """What `preprocess_v2` takes."""

    tile: xr.Dataset
    arcticdem: xr.Dataset
    tcvis: xr.Dataset

    def arrays(self) -> list[np.ndarray]:
        """Return all bands."""
        return [band for dataset in (self.tile, self.arcticdem, self.tcvis) for band in arrays_of(dataset)]


def make_inputs(case: str, size: int) -> Inputs:
    """Return a tile near 70° N with a wedge of nodata, a rough DEM in EPSG:3413 with holes, and trends in EPSG:4326."""
    rng = np.random.default_rng(20240720)
    what = CASES[case]
    geobox = utm_geobox((size, size), pixel=what.pixel_m)
    around = geobox.pad(math.ceil(WIDE_RADIUS_M / what.pixel_m) + 10)
    dem_grid = grid_over(around, "EPSG:3413", what.dem_pixel_m)
    tcvis_grid = grid_over(geobox.pad(30), "EPSG:4326", TCVIS_PIXEL_DEG)

    bands: dict[str, np.ndarray] = {}
    for name, level in (("red", 0.06), ("nir", 0.25)):
        bands[name] = relief(
            geobox.shape.yx, rng, shortest_px=8, longest_px=500, height=0.1 * level, noise=0.05 * level
        )
        bands[name] += np.float32(level)
        for row in range(size):  # 8 % of the tile
            bands[name][row, : round(0.16 * (size - row))] = np.nan
    tile = tile_on(geobox, bands, azimuth=170.5, elevation=31.2, acquisition_time="2024-07-20T20:40:21Z")

    dem = relief(dem_grid.shape.yx, rng, shortest_px=8, longest_px=20_000 / what.dem_pixel_m, height=60, noise=0.1)
    dem += np.float32(500)
    height, width = dem.shape
    for _ in range(math.ceil(height * width / 500**2)):
        top, left, side = rng.integers(height), rng.integers(width), rng.integers(2, 24)
        dem[top : top + side, left : left + side] = np.nan
    arcticdem = tile_on(dem_grid, {"dem": dem, "arcticdem_data_mask": np.isfinite(dem).view("uint8")})

    trends: dict[str, np.ndarray] = {}
    for name in TRENDS:  # whole numbers as float32, as the loader gives them
        values = relief(tcvis_grid.shape.yx, rng, shortest_px=4, longest_px=1000, height=25, noise=5)
        values += np.float32(128)
        np.clip(np.rint(values, out=values), 1, 255, out=values)
        trends[name] = values
    return Inputs(tile, arcticdem, tile_on(tcvis_grid, trends))


def grid_over(geobox: GeoBox, crs: str, pixel: float) -> GeoBox:
    return GeoBox.from_bbox(geobox.footprint(crs).boundingbox, crs, resolution=pixel)


def relief(
    shape: tuple[int, int], rng: np.random.Generator, *, shortest_px: float, longest_px: float, height: float,
    noise: float,
) -> np.ndarray:  # fmt: skip
    """Return plane waves of all lengths, the longest `height` high and shorter ones lower, with noise; float32 (y, x).

    sin(a + b) = sin a cos b + cos a sin b: a wave is a product of two rows with two columns, and their sum one matrix
    product. The noise repeats every 512 pixels.
    """
    waves = max(round(2 * math.log2(longest_px / shortest_px)), 1)
    lengths = np.geomspace(longest_px, shortest_px, waves)
    heights = height * (lengths / longest_px) ** 0.9
    headings, phases = rng.uniform(0, 2 * np.pi, (2, waves))
    down = 2 * np.pi * np.arange(shape[0])[:, None] * np.sin(headings) / lengths + phases
    across = 2 * np.pi * np.arange(shape[1])[:, None] * np.cos(headings) / lengths
    left = np.hstack([heights * np.sin(down), heights * np.cos(down)]).astype("float32")
    right = np.hstack([np.cos(across), np.sin(across)]).astype("float32")
    values = left @ right.T

    block = rng.normal(0, noise, (512, 512)).astype("float32")
    line = np.tile(block, (1, math.ceil(shape[1] / 512)))[:, : shape[1]]
    for start in range(0, shape[0], 512):
        rows = values[start : start + 512]
        rows += line[: len(rows)]
    return values


def arrays_of(data: xr.Dataset | xr.DataArray) -> list[np.ndarray]:
    return [data.data] if isinstance(data, xr.DataArray) else [band.data for band in data.data_vars.values()]
