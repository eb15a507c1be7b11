"""Bands as delivered (JPEG 2000, GeoTIFF) to strips on the grid of their scene."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from darts_acquisition.rasters import open_raster, raster_geobox
from darts_acquisition.raw_store import CHUNK_PX
from darts_utils.errors import GridMismatchError, StoreError
from darts_utils.threads import available_cores

STRIP_PX = CHUNK_PX
"""Rows of a strip: a chunk of the raw data store, two rows of tiles of the JPEG 2000 of Sentinel-2."""
_BLEND_ROWS = 256
"""Rows that are interpolated at once; bounds the memory for floats."""
_PIECE_PX = 1024
"""Columns that a thread decodes at once: those of a tile of the JPEG 2000 of Sentinel-2."""
_MOST_THREADS = 8


def band_grid(path: Path) -> GeoBox:
    """Return the grid of a band's file.

    Raises:
        StoreError: it cannot be read, or is no single band.
        ConfigError: it has no CRS in metres, or is not north-up.
    """
    with open_raster(path) as source:
        if source.count != 1:
            raise StoreError(f"{path} holds {source.count} bands instead of one")
        return raster_geobox(source)


def decode_digital_numbers(path: Path, grid: GeoBox) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield a band of digital numbers (uint16, 0 is nodata) as strips of rows of `grid`.

    A coarser band is interpolated between the centres of its pixels (bilinear, weights renormalised over pixels that
    are not 0) and rounded; 0 stays 0 all over the coarse pixel, and nothing else becomes 0.

    Raises:
        StoreError: the file is damaged or holds something else.
        GridMismatchError: its pixels do not divide into those of `grid`.
    """
    band, factor = _open(path, grid, "uint16")
    if factor == 1:
        yield from ((rows, band.read(rows)) for rows in _strips(grid))
        return
    coarse = band.read(slice(0, band.height))
    for rows in _strips(grid):
        yield rows, _finer(coarse, rows, grid, factor)


def decode_classes(path: Path, grid: GeoBox) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield a band of classes (uint8) as strips of rows of `grid`; pixels of a coarser band are repeated.

    Raises:
        StoreError: the file is damaged or holds something else.
        GridMismatchError: its pixels do not divide into those of `grid`.
    """
    band, factor = _open(path, grid, "uint8")
    coarse = band.read(slice(0, band.height))
    for rows in _strips(grid):
        first = rows.start // factor
        fine = coarse[first : -(-rows.stop // factor)].repeat(factor, axis=0).repeat(factor, axis=1)
        skipped = rows.start - first * factor
        yield rows, fine[skipped : skipped + rows.stop - rows.start, : grid.shape.x]


@dataclass(frozen=True)
class _Band:
    path: Path
    height: int
    width: int
    dtype: str

    def read(self, rows: slice) -> np.ndarray:
        """Return some rows, decoded piece by piece in threads.

        GDAL has threads for that too, in which damage of a JPEG 2000 turns into zeros without an error. Ours open the
        file each for themselves, and raise.
        """
        values = np.empty((rows.stop - rows.start, self.width), self.dtype)

        def read(corner: tuple[int, int]) -> None:
            row, column = corner
            height, width = min(STRIP_PX, rows.stop - row), min(_PIECE_PX, self.width - column)
            with open_raster(self.path) as source:
                piece = source.read(1, window=Window(column, row, width, height))
            values[row - rows.start : row - rows.start + height, column : column + width] = piece

        corners = list(itertools.product(range(rows.start, rows.stop, STRIP_PX), range(0, self.width, _PIECE_PX)))
        pool = ThreadPoolExecutor(min(_threads(), len(corners)), "darts-decode")
        try:
            for _ in pool.map(read, corners):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        return values


def _threads() -> int:
    # Those that a batch system gave us; not every system tells.
    return min(available_cores(), _MOST_THREADS)


def _strips(grid: GeoBox) -> Iterator[slice]:
    for start in range(0, grid.shape.y, STRIP_PX):
        yield slice(start, min(start + STRIP_PX, grid.shape.y))


def _open(path: Path, grid: GeoBox, dtype: str) -> tuple[_Band, int]:
    """Return a band that holds `dtype`, and how many pixels of `grid` make up the side of one of its own."""
    with open_raster(path) as source:
        factor = _factor(source, grid, dtype)
        return _Band(path, source.height, source.width, dtype), factor


def _factor(source: rasterio.DatasetReader, grid: GeoBox, dtype: str) -> int:
    """Return how many pixels of `grid` make up the side of one of the file."""
    if source.dtypes[0] != dtype or source.nodata not in (None, 0):
        raise StoreError(
            f"{source.name} holds {source.dtypes[0]} with nodata {source.nodata}, but the store keeps {dtype} with 0"
        )
    _require_blocks(source)
    factor = max(1, round(source.transform.a / grid.affine.a))
    shape = tuple(-(-side // factor) for side in grid.shape.yx)
    fine, coarse = np.array(grid.affine[:6]), np.array(source.transform[:6])
    fine[[0, 1, 3, 4]] *= factor
    if source.shape != shape or not np.allclose(coarse, fine, rtol=0, atol=1e-3):
        raise GridMismatchError(
            f"{source.name} has {source.height} × {source.width} pixels with the transform "
            f"{tuple(source.transform[:6])}, which do not divide into the {grid.shape.y} × {grid.shape.x} pixels of "
            f"{tuple(grid.affine[:6])}"
        )
    return factor


def _require_blocks(source: rasterio.DatasetReader) -> None:
    """Check that a TIFF holds pixels: without its table of tiles all of them would read as 0, without an error."""
    if source.driver not in ("GTiff", "COG"):
        return
    for (row, column), _ in source.block_windows(1):
        if source.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=1) is not None:
            return
    raise StoreError(f"{source.name} holds no pixels at all; the file is damaged or was never filled")


def _finer(coarse: np.ndarray, rows: slice, grid: GeoBox, factor: int) -> np.ndarray:
    strip = np.empty((rows.stop - rows.start, grid.shape.x), "uint16")
    columns = np.arange(grid.shape.x)
    for start in range(0, len(strip), _BLEND_ROWS):
        part = strip[start : start + _BLEND_ROWS]
        part[:] = _blend(coarse, np.arange(len(part)) + rows.start + start, columns, factor)
    return strip


def _blend(coarse: np.ndarray, rows: np.ndarray, columns: np.ndarray, factor: int) -> np.ndarray:
    """Return fine pixels, interpolated."""
    above, below, row_weight = _neighbours(rows, factor, coarse.shape[0])
    left, right, column_weight = _neighbours(columns, factor, coarse.shape[1])
    first = above.min()
    needed = coarse[first : below.max() + 1]
    values, valid = needed.astype("float32"), (needed != 0).astype("float32")

    def interpolated(field: np.ndarray) -> np.ndarray:
        # 0 adds nothing to the sum of values, as to the sum of weights.
        lines = field[above - first] * (1 - row_weight)[:, None]
        lines += field[below - first] * row_weight[:, None]
        result: np.ndarray = lines[:, left] * (1 - column_weight)
        result += lines[:, right] * column_weight
        return result

    blended = interpolated(values)
    if not valid.all():
        # The nearest pixel has a weight of at least a quarter, so where it is valid this divides by no small number.
        blended /= np.maximum(interpolated(valid), np.float32(0.2))
        blended[needed[(rows // factor - first)[:, None], (columns // factor)[None, :]] == 0] = 0
    return np.rint(blended).astype("uint16")


def _neighbours(fine: np.ndarray, factor: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the coarse pixels before and after the centres of fine ones, and the weight of the one after."""
    left = (2 * fine + 1 - factor) // (2 * factor)
    # In units of half a fine pixel all positions are whole numbers.
    weight = ((2 * fine + 1 - factor - 2 * factor * left) / (2 * factor)).astype("float32")
    return left.clip(0, size - 1), (left + 1).clip(0, size - 1), weight
