"""ArcticDEM mosaics v4.1 from a local cube, filled from their source where it lacks something."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition.arcticdem_source import PGC, ArcticDemSource, arcticdem_fetcher
from darts_acquisition.chunk_selection import Target
from darts_acquisition.cube import CHUNK_PX, Cube
from darts_acquisition.cube_filling import fill_cube
from darts_acquisition.local_cubes import check_target, find_cube, missing_chunks, read_around
from darts_acquisition.transfer_report import SILENT, TransferReport
from darts_utils.bands import BANDS, describe
from darts_utils.errors import ConfigError

RESOLUTIONS = (2, 10, 32)
VARIABLES = {"dem": ("float32", float("nan")), "datamask": ("uint8", 0)}
"""Variables of the cube, under the names of the source: elevation in metres above the ellipsoid, and 1 where the
mosaic has data."""

_RIM_M = {2: 100, 10: 100, 32: 96}
"""How far the tiles reach beyond the 100 km lattice, by the official tile index of v4.1."""
_STRIP_PX = 1024
"""Rows that are clipped at once; bounds the memory for what is in between."""
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


def create_arcticdem_cube(path: Path | str, resolution: int, chunk: int = CHUNK_PX, *, exist_ok: bool = False) -> Cube:
    """Make an empty ArcticDEM cube (`dem` float32 in metres, NaN nodata; `datamask` uint8) and return it."""
    return Cube.create(path, arcticdem_geobox(resolution), VARIABLES, chunk, exist_ok=exist_ok)


def load_arcticdem(
    geobox: GeoBox,
    data_dir: Path | str,
    resolution: int,
    buffer: int = 0,
    offline: bool = False,
    *,
    source: ArcticDemSource = PGC,
) -> xr.Dataset:
    """Return elevation around a tile, in EPSG:3413; what the cube lacks is downloaded into it first.

    `dem` is float32, metres, clipped to −100 … 3000, NaN where there is none; `arcticdem_data_mask` is uint8, 1 where
    there is elevation. The rectangle covers the tile and the buffer; in chunks of its corners that the tile's footprint
    and the buffer do not touch, and beyond the mosaic's grid, both are missing (NaN, 0).

    Args:
        geobox: the grid of the tile, in any CRS.
        data_dir: the cube, or the folder that holds `arcticdem_<resolution>m.icechunk`.
        resolution: 2, 10 or 32 m.
        buffer: pixels of the DEM around the tile.
        offline: never touch the network; without, it is touched only where something is missing.
        source: where missing chunks come from.

    Raises:
        ConfigError: a parameter cannot work, or the cube has another resolution.
        MissingDataError: offline, and the cube is absent or lacks the area.
        RemoteError: what is missing cannot be had.
        StoreError: the cube is damaged or cannot be written.
    """
    path = _path(data_dir, resolution)
    check_target(geobox, buffer)
    if not offline:
        download_arcticdem(geobox, path, resolution, source=source, buffer=buffer)
    raw = read_around(path, geobox, buffer, pixel=resolution)
    dem, mask = raw["dem"].data, raw["datamask"].data
    for start in range(0, len(dem), _STRIP_PX):
        rows = slice(start, start + _STRIP_PX)
        np.clip(dem[rows], *BANDS["dem"].valid, out=dem[rows])
        mask[rows] = (mask[rows] == 1) & np.isfinite(dem[rows])
    return xr.Dataset(
        {
            "dem": describe(_bare(raw["dem"]), "dem", _SOURCE),
            "arcticdem_data_mask": describe(_bare(raw["datamask"]), "arcticdem_data_mask", _SOURCE),
        }
    )


def missing_arcticdem(aoi: Target, data_dir: Path | str, resolution: int, *, buffer: int = 0) -> list[GeoBox]:
    """Return the chunks that `download_arcticdem` would fetch, for the same arguments; asks no server."""
    return missing_chunks(_path(data_dir, resolution), arcticdem_geobox(resolution), aoi, buffer)


def download_arcticdem(
    aoi: Target,
    data_dir: Path | str,
    resolution: int,
    *,
    source: ArcticDemSource = PGC,
    buffer: int = 0,
    report: TransferReport = SILENT,
    on_chunk: Callable[[GeoBox], None] | None = None,
) -> int:
    """Fill the cube for an area of interest, and make it if it is absent; return how many chunks were stored.

    Asks no server where nothing is missing. Can be interrupted at any moment: chunks that were stored stay, and the
    next call goes on. Several processes may fill one cube.

    Args:
        aoi: the grid of a tile, or several (then exactly what `load_arcticdem` needs of them); or areas: a vector
            file, GeoDataFrame, geometry or GeoJSON, see `areas.read_areas`.
        data_dir: the cube, or the folder that holds `arcticdem_<resolution>m.icechunk`.
        resolution: 2, 10 or 32 m.
        source: where it comes from.
        buffer: pixels of the DEM around the area.
        report: hears of the bytes as they come.
        on_chunk: hears of each chunk that is there now, whoever stored it.

    Raises:
        ConfigError: a parameter cannot work, or the cube has another resolution.
        RemoteError: a chunk cannot be had; names chunk, item, asset and cause. Others are stored.
        StoreError: the cube is damaged or cannot be written.
    """
    path = _path(data_dir, resolution)
    missing = missing_chunks(path, arcticdem_geobox(resolution), aoi, buffer)
    if path.exists() and not missing:
        return 0
    cube = create_arcticdem_cube(path, resolution, exist_ok=True)
    if not missing:
        return 0
    stop = threading.Event()
    fetch = arcticdem_fetcher(resolution, source, report, stop)
    return fill_cube(cube, missing, fetch, workers=source.connections, on_chunk=on_chunk, stop=stop)


def _bare(stored: xr.DataArray) -> xr.DataArray:
    """Return an array without attributes; `drop_attrs` would copy the pixels, a gigabyte for a scene."""
    bare = stored.copy(deep=False)
    bare.attrs = {}
    return bare


def _path(data_dir: Path | str, resolution: int) -> Path:
    return find_cube(data_dir, f"arcticdem_{_checked(resolution)}m.icechunk")


def _checked(resolution: int) -> int:
    if resolution not in RESOLUTIONS:
        raise ConfigError(f"ArcticDEM has the resolutions {RESOLUTIONS} m, not {resolution!r}")
    return resolution
