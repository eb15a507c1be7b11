"""What the loaders of auxiliary data share: which cube, what to read of it, what to say where it is missing."""

from pathlib import Path
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox

from darts_acquisition.cube import Cube
from darts_utils.errors import ConfigError, MissingDataError, NotBuiltError

NOT_BUILT = "Downloads are not built yet: work on a cube that is filled already (offline), see `Cube.write`."


def find_cube(data_dir: Path | str, name: str) -> Path:
    """Return the path of a cube: `data_dir` itself if its name says that it is one, else the cube `name` in it."""
    data_dir = Path(data_dir)
    return data_dir if data_dir.suffix == ".icechunk" else data_dir / name


def read_around(
    path: Path, geobox: GeoBox, buffer: int, *, pixel: float, fetch_command: str, offline: bool
) -> xr.Dataset:
    """Return what the cube at `path`, whose pixels must measure `pixel`, has of a tile's area.

    Raises:
        ConfigError: no GeoBox, a buffer that is no whole number, or a cube of another pixel size.
        MissingDataError: offline, and the cube is absent or lacks the area; advises `fetch_command`.
        NotBuiltError: not offline, and the same.
        StoreError: the cube is damaged.
    """
    _check_target(geobox, buffer)
    try:
        try:
            cube = Cube.open(path)
        except MissingDataError as error:
            raise MissingDataError(f"{error}; fetch it on a machine with internet with `{fetch_command}`") from error
        if abs(cube.geobox.affine.a - pixel) > 1e-6 * pixel:
            raise ConfigError(f"cube {path} has pixels of {cube.geobox.affine.a:g}, but {pixel:g} was asked for")
        return cube.read(geobox, int(buffer), fetch_command=fetch_command)
    except MissingDataError as error:
        if offline:
            raise
        raise NotBuiltError(f"{error}. {NOT_BUILT}") from error


def _check_target(geobox: Any, buffer: Any) -> None:
    if not isinstance(geobox, GeoBox):
        raise ConfigError(f"geobox must be a GeoBox (tile.odc.geobox), got {type(geobox).__name__}")
    try:
        whole = not isinstance(buffer, bool) and int(buffer) == buffer and buffer >= 0
    except (TypeError, ValueError):
        whole = False
    if not whole:
        raise ConfigError(f"buffer must be a whole number of pixels, 0 or more, got {buffer!r}")
