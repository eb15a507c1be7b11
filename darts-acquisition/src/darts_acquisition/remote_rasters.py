"""Parts of rasters on HTTP servers, on the pixels of a grid of ours."""

import logging
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import reproject
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from darts_acquisition.asset_servers import shown
from darts_acquisition.footprints import crs_of
from darts_acquisition.http_ranges import RangeServer, RemoteFile
from darts_acquisition.rasters import NO_CLOUD
from darts_utils.errors import RemoteError

logger = logging.getLogger("darts.acquisition")

DAMAGE_TRIES = 3
"""How often a file is fetched whose pixels cannot be decoded."""
SAME_PX = 1e-3
"""Pixels that are no further apart coincide."""
RIM_PX = 2
"""What interpolation needs around."""
Slices = tuple[slice, slice]


class DamageError(Exception):
    """Pixels that cannot be right; raised by those who know what they mean."""


@dataclass(frozen=True)
class Overlap:
    """What a raster has of a block."""

    values: np.ndarray
    place: Slices
    """Rows and columns of the block."""


def read_overlap(
    url: str,
    block: GeoBox,
    *,
    what: str,
    server: RangeServer,
    decode: Callable[[np.ndarray, float | None], np.ndarray],
    resampling: Literal["nearest", "bilinear"] = "nearest",
    nodata: float = 0,
) -> Overlap | None:
    """Return the first band of a GeoTIFF within a block, or None if it lies elsewhere.

    Only the ranges of the file that hold these pixels are fetched. Pixels that do not coincide with the block's, but
    are as large, are interpolated.

    Args:
        url: `http(s)://`.
        block: the grid, north-up.
        what: names the file in errors.
        server: how it is asked.
        decode: turns pixels as stored and the file's nodata value into values; raises DamageError.
        resampling: where pixels do not coincide.
        nodata: of decoded values.

    Raises:
        RemoteError: the file cannot be had, is damaged, or is in another CRS or of another pixel size.
    """
    damage: str | None = None
    for n in range(1, DAMAGE_TRIES + 1):
        file = RemoteFile(url, what, server)
        damage = None
        try:
            overlap = _read(file, f"{what}, {shown(url)}", block, decode, Resampling[resampling], nodata)
        except (RasterioError, DamageError) as error:
            damage = str(error.__cause__ or error).strip().rstrip(".")
        # GDAL hears of failures of the network only as bytes that lack.
        if file.failure is not None:
            raise file.failure
        if damage is None:
            return overlap
        logger.info("%s, %s: damaged (%s); %d times fetched", what, shown(url), damage, n)
    raise RemoteError(
        f"{what}, {shown(url)}: it is damaged ({damage}), {DAMAGE_TRIES} times fetched. Try again later, or tell the "
        "provider.",
        transient=True,
    )


def _read(
    file: RemoteFile,
    where: str,
    block: GeoBox,
    decode: Callable[[np.ndarray, float | None], np.ndarray],
    resampling: Resampling,
    nodata: float,
) -> Overlap | None:
    name = posixpath.basename(urlsplit(where).path) or "raster.tif"
    environment = rasterio.Env(session=NO_CLOUD, GDAL_NUM_THREADS="1", GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
    with environment, rasterio.open(name, opener=file.open, driver="GTiff") as source:
        _require_same_grid(source, block, where)
        to_source = ~source.transform * block.affine
        left, top = to_source * (0, 0)
        right, bottom = to_source * (block.shape.x, block.shape.y)
        aligned = np.abs(np.array([left, top, right, bottom]) - np.round([left, top, right, bottom])).max() < SAME_PX
        if aligned:
            rows, columns = (round(top), round(bottom)), (round(left), round(right))
        else:
            rows = int(np.floor(top)) - RIM_PX, int(np.ceil(bottom)) + RIM_PX
            columns = int(np.floor(left)) - RIM_PX, int(np.ceil(right)) + RIM_PX
        (r0, r1), (c0, c1) = _clipped(rows, source.height), _clipped(columns, source.width)
        if r0 >= r1 or c0 >= c1:
            return None
        window = Window(c0, r0, c1 - c0, r1 - r0)
        file.fetch_ahead(_stored_ranges(source, window))
        values = decode(source.read(1, window=window), source.nodata)
        if aligned:
            return Overlap(values, (slice(r0 - rows[0], r1 - rows[0]), slice(c0 - columns[0], c1 - columns[0])))
        return _interpolated(values, window_transform(window, source.transform), block, resampling, nodata)


def _require_same_grid(source: rasterio.DatasetReader, block: GeoBox, where: str) -> None:
    """Check CRS and pixel size of a raster."""
    ours = crs_of(block)
    epsg = ours.to_epsg()
    if not _is_same_crs(source, ours, block):
        raise RemoteError(f"{where}: it is in {_name(source)}, but EPSG:{epsg} is expected; choose another source")
    t, b = source.transform, block.affine
    if t.b or t.d or not np.allclose([t.a, t.e], [b.a, b.e], rtol=0.01):
        raise RemoteError(f"{where}: its pixels measure {t.a:g} × {t.e:g}, but {b.a:g} × {b.e:g} is expected")


def _is_same_crs(source: rasterio.DatasetReader, ours: CRS, block: GeoBox) -> bool:
    """Compare CRSs by where they put the corners of a block, since names and axes are written in many ways."""
    if source.crs is None:
        return False
    left, bottom, right, top = block.boundingbox
    x, y = np.array([left, right, right, left]), np.array([top, top, bottom, bottom])
    try:
        there = Transformer.from_crs(ours, CRS.from_wkt(source.crs.to_wkt()), always_xy=True).transform(x, y)
    except CRSError:
        return False
    return bool(np.allclose(there, [x, y], rtol=0, atol=block.affine.a * SAME_PX))


def _name(source: rasterio.DatasetReader) -> str:
    if source.crs is None:
        return "no CRS"
    epsg = source.crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else str(source.crs.to_wkt())[:60]


def _stored_ranges(source: rasterio.DatasetReader, window: Window) -> Iterator[tuple[int, int]]:
    """Yield where in the file the blocks of a window lie; nothing where the format does not tell."""
    height, width = source.block_shapes[0]
    for row in range(window.row_off // height, -(-(window.row_off + window.height) // height)):
        for column in range(window.col_off // width, -(-(window.col_off + window.width) // width)):
            offset = source.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=1)
            size = source.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=1)
            if offset and size:
                yield int(offset), int(offset) + int(size)


def _interpolated(
    values: np.ndarray, transform: Affine, block: GeoBox, resampling: Resampling, nodata: float
) -> Overlap:
    out = np.full(block.shape.yx, nodata, values.dtype)
    crs = crs_of(block).to_wkt()
    reproject(
        values, out, src_transform=transform, src_crs=crs, src_nodata=nodata,
        dst_transform=block.affine, dst_crs=crs, dst_nodata=nodata, resampling=resampling,
    )  # fmt: skip
    return Overlap(out, (slice(0, block.shape.y), slice(0, block.shape.x)))


def _clipped(span: tuple[int, int], size: int) -> tuple[int, int]:
    return max(span[0], 0), min(span[1], size)
