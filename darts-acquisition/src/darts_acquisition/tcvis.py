"""Landsat trends (tasseled cap, TCVIS) from local cubes."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition.cube import CHUNK_PX, Cube
from darts_acquisition.local_cubes import NOT_BUILT, find_cube, read_around
from darts_utils.bands import describe
from darts_utils.errors import ConfigError, NotBuiltError

CUBE_YEARS = (2019, 2020, 2022, 2024)
"""Last years of the periods of twenty years that the trends were computed over."""
RESOLUTION_DEG = 0.0002695
VARIABLES = {"TCB_slope": ("uint8", 0), "TCG_slope": ("uint8", 0), "TCW_slope": ("uint8", 0)}
"""Variables of the cube, under the names of the source; 0 is nodata."""

_NAMES = {"TCB_slope": "tc_brightness", "TCG_slope": "tc_greenness", "TCW_slope": "tc_wetness"}
_SOUTH = 40
_COMMAND = "darts prepare-data sentinel2 --aux"
_SOURCE = "Landsat tasseled cap trends, Nitze et al."


def tcvis_cube_year(scene_year: int | None = None) -> int:
    """Return the cube for a scene of `scene_year`: the earliest not before the year after, else the newest."""
    if scene_year is None:
        return CUBE_YEARS[-1]
    return next((year for year in CUBE_YEARS if year >= scene_year + 1), CUBE_YEARS[-1])


def tcvis_geobox() -> GeoBox:
    """Return the whole grid of the trends: EPSG:4326, pixels of 0.0002695°, from −180° and the pole to 40° N.

    360° are 1,335,807.05 pixels: the last column reaches 0.95 pixel beyond 180°.
    """
    shape = (-int(-(90 - _SOUTH) // RESOLUTION_DEG), -int(-360 // RESOLUTION_DEG))
    return GeoBox(shape, Affine(RESOLUTION_DEG, 0, -180, 0, -RESOLUTION_DEG, 90), "EPSG:4326")


def create_tcvis_cube(path: Path | str, chunk: int = CHUNK_PX) -> Cube:
    """Make an empty TCVIS cube (`TCB_slope`, `TCG_slope`, `TCW_slope`, uint8, 0 nodata) and return it."""
    return Cube.create(path, tcvis_geobox(), VARIABLES, chunk)


def load_tcvis(
    geobox: GeoBox, data_dir: Path | str, year: int | None = None, buffer: int = 0, offline: bool = False
) -> xr.Dataset:
    """Return the trends around a tile, in EPSG:4326; across the antimeridian longitudes run on.

    `tc_brightness`, `tc_greenness`, `tc_wetness` are float32, 1 to 255, NaN where the cube has none or ends.

    Args:
        geobox: the grid of the tile, in any CRS.
        data_dir: the folder that holds `TCTrend2024.icechunk` and its like, or one cube.
        year: the year of the scene; None: the newest cube.
        buffer: pixels of the cube around the tile.
        offline: never touch the network.

    Raises:
        ConfigError: a parameter cannot work, or `data_dir` is the cube of another period.
        MissingDataError: offline, and the cube is absent or lacks the area.
        NotBuiltError: not offline, and the same: downloads come later.
        StoreError: the cube is damaged.
    """
    if year is not None and (isinstance(year, bool) or not isinstance(year, int | np.integer)):
        raise ConfigError(f"year must be the year of the scene as a whole number, got {year!r}")
    path = _find(data_dir, year)
    raw = read_around(path, geobox, buffer, pixel=RESOLUTION_DEG, fetch_command=_COMMAND, offline=offline)
    return xr.Dataset({name: _trend(raw[source], name) for source, name in _NAMES.items()})


def download_tcvis(aoi: Any, data_dir: Path | str, year: int | None = None) -> None:
    """Fill the cube of a year for an area of interest (not built yet)."""
    raise NotBuiltError(NOT_BUILT)


def _find(data_dir: Path | str, year: int | None) -> Path:
    needed = tcvis_cube_year(year)
    path = find_cube(data_dir, f"TCTrend{needed}.icechunk")
    named = re.fullmatch(r"TCTrend(\d{4})\.icechunk", path.name)
    if year is not None and named and int(named[1]) != needed:
        raise ConfigError(
            f"a scene of {year} takes TCTrend{needed}.icechunk, but data_dir is {path}; pass the folder of the cubes"
        )
    return path


def _trend(stored: xr.DataArray, name: str) -> xr.DataArray:
    values = stored.data.astype("float32")
    values[stored.data == 0] = np.nan
    return describe(stored.copy(data=values).drop_attrs(deep=False), name, _SOURCE)
