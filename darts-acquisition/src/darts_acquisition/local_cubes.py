"""What the loaders of auxiliary data share: which cube, what it lacks of an area, what to say where that is missing."""

from pathlib import Path
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox

from darts_acquisition.chunk_selection import Target, chunk_geobox, chunks_of
from darts_acquisition.cube import CHUNK_PX, Cube
from darts_utils.errors import ConfigError, MissingDataError


def find_cube(data_dir: Path | str, name: str) -> Path:
    """Return the path of a cube: `data_dir` itself if its name says that it is one, else the cube `name` in it."""
    data_dir = Path(data_dir)
    return data_dir if data_dir.suffix == ".icechunk" else data_dir / name


def read_around(path: Path, geobox: GeoBox, buffer: int, *, pixel: float) -> xr.Dataset:
    """Return what the cube at `path`, whose pixels must measure `pixel`, has of a tile's area.

    Raises:
        ConfigError: no GeoBox, a buffer that is no whole number, or a cube of another pixel size.
        MissingDataError: the cube is absent or lacks the area; advises what to run.
        StoreError: the cube is damaged.
    """
    check_target(geobox, buffer)
    fetch = f"`darts prepare-data {_sensor(geobox)} --aux` and the options that choose the tiles"
    try:
        cube = open_cube(path, pixel)
    except MissingDataError as error:
        raise MissingDataError(f"{error}; fetch it on a machine with internet with {fetch}") from error
    return cube.read(geobox, int(buffer), fetch=fetch)


def missing_chunks(path: Path, grid: GeoBox, target: Target, buffer: int = 0) -> list[GeoBox]:
    """Return the chunks that the cube at `path` lacks of a target; all of them where it does not exist yet.

    Args:
        path: the cube.
        grid: its whole source grid.
        target: a geobox, a list of them, or areas as `areas.read_areas` takes them.
        buffer: pixels of the cube around the target.

    Raises:
        ConfigError: the target or the buffer cannot work, or the cube has another pixel size.
        StoreError: the cube is damaged.
    """
    check_buffer(buffer)
    try:
        return open_cube(path, grid.affine.a).missing(target, int(buffer))
    except MissingDataError:
        return [chunk_geobox(chunk, grid, CHUNK_PX) for chunk in chunks_of(target, grid, CHUNK_PX, int(buffer))]


def open_cube(path: Path, pixel: float) -> Cube:
    """Open a cube whose pixels must measure `pixel`.

    Raises:
        MissingDataError: there is none.
        ConfigError: it has another pixel size.
        StoreError: it is damaged.
    """
    cube = Cube.open(path)
    if abs(cube.geobox.affine.a - pixel) > 1e-6 * pixel:
        raise ConfigError(f"cube {path} has pixels of {cube.geobox.affine.a:g}, but {pixel:g} was asked for")
    return cube


def _sensor(geobox: GeoBox) -> str:
    """Return whose tile it is: pixels of PlanetScope measure 3 m, those of Sentinel-2 10 m and more."""
    in_metres = geobox.crs is not None and geobox.crs.projected
    return "planet" if in_metres and abs(geobox.affine.a) < 5 else "sentinel2"


def check_target(geobox: Any, buffer: Any) -> None:
    """Check what a tile is loaded around.

    Raises:
        ConfigError: no GeoBox, or a buffer that is no whole number.
    """
    if not isinstance(geobox, GeoBox):
        raise ConfigError(f"geobox must be a GeoBox (tile.odc.geobox), got {type(geobox).__name__}")
    check_buffer(buffer)


def check_buffer(buffer: Any) -> None:
    """Check a buffer.

    Raises:
        ConfigError: it is no whole number, or negative.
    """
    try:
        whole = not isinstance(buffer, bool) and int(buffer) == buffer and buffer >= 0
    except (TypeError, ValueError):
        whole = False
    if not whole:
        raise ConfigError(f"buffer must be a whole number of pixels, 0 or more, got {buffer!r}")
