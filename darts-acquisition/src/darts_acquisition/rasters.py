"""Raster files of users: opened so that damage raises, their grid checked."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyproj
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.session import DummySession
from rasterio.windows import Window

from darts_acquisition.raw_scene import check_size
from darts_utils.errors import ConfigError, GridMismatchError, MissingDataError, StoreError
from darts_utils.quoting import first_line

DRIVERS = ("GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID")
"""GeoTIFF and JPEG 2000. Other formats, VRT above all, can be texts that make GDAL read further files or addresses."""

NO_CLOUD = DummySession()
"""For `rasterio.Env`: where keys of AWS are in the environment it would make a client of them, for each file."""
MOST_STRETCH = 1.2
"""How many metres of a CRS one on the ground may be. Polar grids: 1.1 at 50° N; Web Mercator: 2.9 at 70° N."""


@contextmanager
def open_raster(path: Path) -> Iterator[rasterio.DatasetReader]:
    """Give a GeoTIFF or JPEG 2000 file for reading; what goes wrong inside the block names the file.

    Raises:
        MissingDataError: no such file.
        StoreError: in neither format, or damaged.
    """
    if not path.is_file():
        raise MissingDataError(f"there is no file {path}")
    try:
        # GDAL decodes JPEG 2000 in threads of its own, where damage turns into zeros without an error; one does not.
        environment = rasterio.Env(session=NO_CLOUD, GDAL_NUM_THREADS="1")
        # `rasterio.open` takes one driver only.
        with environment, rasterio.DatasetReader(path, driver=list(DRIVERS)) as source:
            yield source
    except RasterioError as error:
        cause = first_line(error.__cause__ or error, path, most=60)  # a path can be a line long
        raise StoreError(f"cannot read {path}: {cause}. Fetch or copy the file again.") from error
    except UnicodeEncodeError as error:
        raise StoreError(f"cannot read {path}: its name is no Unicode text; rename the file or its folder") from error


def raster_geobox(source: rasterio.DatasetReader) -> GeoBox:
    """Return the grid of a raster.

    Raises:
        ConfigError: no CRS, not in metres, metres that are none on the ground, rotated or not north-up, or larger than
            any tile.
    """
    check_size(source.name, source.shape)
    if source.crs is None:
        raise ConfigError(f"{source.name} has no CRS; assign it, for instance with `gdal_edit.py -a_srs EPSG:… FILE`")
    if not source.crs.is_projected or abs(source.crs.linear_units_factor[1] - 1) > 1e-6:
        raise ConfigError(
            f"{source.name} is in {source.crs.to_string()[:30]}, not projected in metres; "
            "`gdalwarp -t_srs EPSG:326…` it to UTM"
        )
    transform = source.transform
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise ConfigError(f"{source.name} is rotated, not north-up, or has no transform; warp it with `gdalwarp`")
    geobox = GeoBox(source.shape, transform, source.crs.to_wkt())
    if (times := _stretch(geobox)) > MOST_STRETCH:
        raise ConfigError(
            f"{source.name}: {times:.1f} m of its CRS ({source.crs.to_string()[:30]}) are 1 m on the ground there, and "
            "areas and slopes would be wrong; `gdalwarp -t_srs EPSG:326…` it to UTM"
        )
    return geobox


def _stretch(geobox: GeoBox) -> float:
    """Return how many times longer the CRS makes things in the middle of a grid; 0 where PROJ cannot tell."""
    assert geobox.crs is not None  # see raster_geobox
    proj = pyproj.Proj(geobox.crs.proj)
    left, bottom, right, top = geobox.boundingbox
    longitude, latitude = proj((left + right) / 2, (bottom + top) / 2, inverse=True)
    if not (math.isfinite(longitude) and abs(latitude) <= 90):
        return 0.0
    factors = proj.get_factors(longitude, latitude, errcheck=False)
    return factors.tissot_semimajor if math.isfinite(factors.tissot_semimajor) else 0.0


def require_one_grid(first: tuple[Path, GeoBox], other: tuple[Path, GeoBox]) -> None:
    """Check that two files lie on one grid.

    Raises:
        GridMismatchError: names both files and how they differ.
    """
    (first_path, a), (other_path, b) = first, other
    if a == b:
        return
    also = other_path.name if other_path.parent == first_path.parent else other_path  # two long paths are two lines
    raise GridMismatchError(f"{first_path} and {also} differ in {grid_difference(a, b)}; warp one to the other")


def grid_difference(a: GeoBox, b: GeoBox) -> str:
    """Return in few words what of one grid differs from another first."""
    if a.crs != b.crs:
        return f"CRS: {str(a.crs)[:18]}, {str(b.crs)[:18]}"
    (width, _, left, _, height, top), (width_b, _, left_b, _, height_b, top_b) = a.affine[:6], b.affine[:6]
    numbers = {"pixel width": (width, width_b), "pixel height": (height, height_b), "left": (left, left_b),
               "top": (top, top_b)}  # fmt: skip
    for what, (here, there) in numbers.items():
        if here != there:
            return f"{what}: {here:.10g}, {there:.10g}"
    return f"size: {'×'.join(map(str, a.shape.yx))}, {'×'.join(map(str, b.shape.yx))}"


def read_strips(
    source: rasterio.DatasetReader, bands: Sequence[int], rows_at_once: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield strips of rows of some bands (numbers from 1) as arrays (band, y, x)."""
    for start in range(0, source.height, rows_at_once):
        height = min(rows_at_once, source.height - start)
        window = Window(0, start, source.width, height)
        yield slice(start, start + height), source.read(list(bands), window=window)
