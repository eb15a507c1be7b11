"""ArcticDEM mosaics v4.1 from a local cube."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition.cube import CHUNK_PX, Cube
from darts_acquisition.local_cubes import NOT_BUILT, find_cube, read_around
from darts_utils.bands import BANDS, describe
from darts_utils.errors import ConfigError, NotBuiltError

RESOLUTIONS = (2, 10, 32)
VARIABLES = {"dem": ("float32", float("nan")), "datamask": ("uint8", 0)}
"""Variables of the cube, under the names of the source: elevation in metres above the ellipsoid, and 1 where the
mosaic has data."""

_RIM_M = {2: 100, 10: 100, 32: 96}
"""How far the tiles reach beyond the 100 km lattice, by the official tile index of v4.1."""
_SOURCE = "ArcticDEM mosaics v4.1, Polar Geospatial Center"


def arcticdem_geobox(resolution: int) -> GeoBox:
    """Return the whole grid of the mosaic (EPSG:3413) at 2, 10 or 32 m: the bounds of the official tile index.

    Raises:
        ConfigError: another resolution.
    """
    rim = _RIM_M[_checked(resolution)]
    left, top, right, bottom = -4_000_000 - rim, 4_100_000 + rim, 3_400_000 + rim, -3_400_000 - rim
    shape = ((top - bottom) // resolution, (right - left) // resolution)
    return GeoBox(shape, Affine(resolution, 0, left, 0, -resolution, top), "EPSG:3413")


def create_arcticdem_cube(path: Path | str, resolution: int, chunk: int = CHUNK_PX) -> Cube:
    """Make an empty ArcticDEM cube (`dem` float32 in metres, NaN nodata; `datamask` uint8) and return it."""
    return Cube.create(path, arcticdem_geobox(resolution), VARIABLES, chunk)


def load_arcticdem(
    geobox: GeoBox, data_dir: Path | str, resolution: int, buffer: int = 0, offline: bool = False
) -> xr.Dataset:
    """Return elevation around a tile, in EPSG:3413.

    `dem` is float32, metres, clipped to −100 … 3000, NaN where there is none; `arcticdem_data_mask` is uint8, 1 where
    there is elevation. Beyond the mosaic's grid both are missing (NaN, 0).

    Args:
        geobox: the grid of the tile, in any CRS.
        data_dir: the cube, or the folder that holds `arcticdem_<resolution>m.icechunk`.
        resolution: 2, 10 or 32 m.
        buffer: pixels of the DEM around the tile.
        offline: never touch the network.

    Raises:
        ConfigError: a parameter cannot work, or the cube has another resolution.
        MissingDataError: offline, and the cube is absent or lacks the area.
        NotBuiltError: not offline, and the same: downloads come later.
        StoreError: the cube is damaged.
    """
    path = find_cube(data_dir, f"arcticdem_{_checked(resolution)}m.icechunk")
    command = f"darts prepare-data {'planet' if resolution == 2 else 'sentinel2'} --aux"
    raw = read_around(path, geobox, buffer, pixel=resolution, fetch_command=command, offline=offline)
    dem = raw["dem"].data
    np.clip(dem, *BANDS["dem"].valid, out=dem)
    mask = ((raw["datamask"].data == 1) & np.isfinite(dem)).astype("uint8")
    return xr.Dataset(
        {
            "dem": describe(raw["dem"].copy(data=dem).drop_attrs(deep=False), "dem", _SOURCE),
            "arcticdem_data_mask": describe(
                raw["datamask"].copy(data=mask).drop_attrs(deep=False), "arcticdem_data_mask", _SOURCE
            ),
        }
    )


def download_arcticdem(aoi: Any, data_dir: Path | str, resolution: int) -> None:
    """Fill the cube for an area of interest (not built yet)."""
    raise NotBuiltError(NOT_BUILT)


def _checked(resolution: int) -> int:
    if resolution not in RESOLUTIONS:
        raise ConfigError(f"ArcticDEM has the resolutions {RESOLUTIONS} m, not {resolution!r}")
    return resolution
