"""Landsat trends (tasseled cap, TCVIS) from local cubes, filled from Earth Engine where they lack something."""

import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition.chunk_selection import Target
from darts_acquisition.cube import CHUNK_PX, Cube
from darts_acquisition.cube_filling import fill_cube
from darts_acquisition.earth_engine import GEE_SOURCE, EarthEngineSource
from darts_acquisition.local_cubes import check_target, find_cube, missing_chunks, read_around
from darts_acquisition.tcvis_source import tcvis_fetcher
from darts_acquisition.transfer_report import SILENT, TransferReport
from darts_utils.bands import describe
from darts_utils.errors import ConfigError

CUBE_YEARS = (2019, 2020, 2022, 2024)
"""Last years of the periods of twenty years that the trends were computed over."""
RESOLUTION_DEG = 0.0002695
VARIABLES = {"TCB_slope": ("uint8", 0), "TCG_slope": ("uint8", 0), "TCW_slope": ("uint8", 0)}
"""Variables of the cube, under the names of the source; 0 is nodata."""

_NAMES = {"TCB_slope": "tc_brightness", "TCG_slope": "tc_greenness", "TCW_slope": "tc_wetness"}
_SOUTH = 40
_CHUNKS_AT_ONCE = 2
"""Each is cut into several requests, and takes some 100 MB."""
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


def create_tcvis_cube(path: Path | str, chunk: int = CHUNK_PX, *, exist_ok: bool = False) -> Cube:
    """Make an empty TCVIS cube (`TCB_slope`, `TCG_slope`, `TCW_slope`, uint8, 0 nodata) and return it."""
    return Cube.create(path, tcvis_geobox(), VARIABLES, chunk, exist_ok=exist_ok)


def load_tcvis(
    geobox: GeoBox,
    data_dir: Path | str,
    year: int | None = None,
    buffer: int = 0,
    offline: bool = False,
    *,
    source: EarthEngineSource = GEE_SOURCE,
) -> xr.Dataset:
    """Return the trends around a tile, in EPSG:4326; what the cube lacks is downloaded into it first.

    `tc_brightness`, `tc_greenness`, `tc_wetness` are float32, 1 to 255, NaN where there is none or the cube ends. The
    rectangle covers the tile and the buffer; in chunks of its corners that the tile's footprint and the buffer do not
    touch, all are missing. Across the antimeridian longitudes run on.

    Args:
        geobox: the grid of the tile, in any CRS.
        data_dir: the folder that holds `TCTrend2024.icechunk` and its like, or one cube.
        year: the year of the scene; None: the newest cube.
        buffer: pixels of the cube around the tile.
        offline: never touch the network; without, it is touched only where something is missing.
        source: how Earth Engine is asked for missing chunks.

    Raises:
        ConfigError: a parameter cannot work, `data_dir` is the cube of another period, or online, there are no
            credentials or no project.
        MissingDataError: offline, and the cube is absent or lacks the area.
        RemoteError: what is missing cannot be had.
        StoreError: the cube is damaged or cannot be written.
    """
    path = _find(data_dir, year)
    check_target(geobox, buffer)
    if not offline:
        download_tcvis(geobox, path, year, source=source, buffer=buffer)
    raw = read_around(path, geobox, buffer, pixel=RESOLUTION_DEG)
    return xr.Dataset({name: _trend(raw[variable], name) for variable, name in _NAMES.items()})


def missing_tcvis(aoi: Target, data_dir: Path | str, year: int | None = None, *, buffer: int = 0) -> list[GeoBox]:
    """Return the chunks that `download_tcvis` would fetch, for the same arguments; asks no server."""
    return missing_chunks(_find(data_dir, year), tcvis_geobox(), aoi, buffer)


def download_tcvis(
    aoi: Target,
    data_dir: Path | str,
    year: int | None = None,
    *,
    source: EarthEngineSource = GEE_SOURCE,
    buffer: int = 0,
    report: TransferReport = SILENT,
    on_chunk: Callable[[GeoBox], None] | None = None,
) -> int:
    """Fill the cube of a year for an area of interest, and make it if it is absent; return how many chunks were stored.

    Asks nothing of Earth Engine where nothing is missing. Can be interrupted at any moment: chunks that were stored
    stay, and the next call goes on. Several processes may fill one cube.

    Args:
        aoi: the grid of a tile, or several (then exactly what `load_tcvis` needs of them); or areas: a vector file,
            GeoDataFrame, geometry or GeoJSON, see `areas.read_areas`.
        data_dir: the folder that holds `TCTrend2024.icechunk` and its like, or one cube.
        year: the year of the scene; None: the newest cube.
        source: how Earth Engine is asked.
        buffer: pixels of the cube around the area.
        report: hears of the bytes as they come.
        on_chunk: hears of each chunk that is there now, whoever stored it.

    Raises:
        ConfigError: a parameter cannot work, or there are no credentials or no project.
        RemoteError: a chunk cannot be had; names cube, chunk, asset and cause. Others are stored.
        StoreError: the cube is damaged or cannot be written.
    """
    path = _find(data_dir, year)
    missing = missing_chunks(path, tcvis_geobox(), aoi, buffer)
    if not missing:
        if not path.exists():
            create_tcvis_cube(path, exist_ok=True)
        return 0
    stop = threading.Event()
    fetch = tcvis_fetcher(_cube_year(path, year), source, report, stop)
    cube = create_tcvis_cube(path, exist_ok=True)
    return fill_cube(cube, missing, fetch, workers=_CHUNKS_AT_ONCE, on_chunk=on_chunk, stop=stop)


def _find(data_dir: Path | str, year: int | None) -> Path:
    if year is not None and (isinstance(year, bool) or not isinstance(year, int | np.integer)):
        raise ConfigError(f"year must be the year of the scene as a whole number, got {year!r}")
    needed = tcvis_cube_year(year)
    path = find_cube(data_dir, f"TCTrend{needed}.icechunk")
    if year is not None and _cube_year(path, year) != needed:
        raise ConfigError(
            f"a scene of {year} takes TCTrend{needed}.icechunk, but data_dir is {path}; pass the folder of the cubes"
        )
    return path


def _cube_year(path: Path, year: int | None) -> int:
    """Return the year of a cube: that of its name, else the one that a scene takes."""
    named = re.fullmatch(r"TCTrend(\d{4})\.icechunk", path.name)
    return int(named[1]) if named else tcvis_cube_year(year)


def _trend(stored: xr.DataArray, name: str) -> xr.DataArray:
    values = stored.data.astype("float32")
    values[stored.data == 0] = np.nan
    return describe(xr.DataArray(values, stored.coords, stored.dims), name, _SOURCE)
