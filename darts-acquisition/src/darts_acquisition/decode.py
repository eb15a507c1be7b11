"""Bands as delivered (JPEG 2000, GeoTIFF) to strips on the grid of their scene."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from darts_acquisition.rasters import open_raster, raster_geobox
from darts_acquisition.raw_store import CHUNK_PX
from darts_utils.errors import GridMismatchError, StoreError

STRIP_PX = CHUNK_PX
"""Rows of a strip: a chunk of the raw data store, two rows of tiles of the JPEG 2000 of Sentinel-2."""
_BLEND_ROWS = 256
"""Rows that are interpolated at once; bounds the memory for floats."""


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
    with open_raster(path) as source:
        factor = _factor(source, grid, "uint16")
        for rows in _strips(grid):
            yield rows, _finer(source, rows, grid, factor) if factor > 1 else _read(source, rows)


def decode_classes(path: Path, grid: GeoBox) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield a band of classes (uint8) as strips of rows of `grid`; pixels of a coarser band are repeated.

    Raises:
        StoreError: the file is damaged or holds something else.
        GridMismatchError: its pixels do not divide into those of `grid`.
    """
    with open_raster(path) as source:
        factor = _factor(source, grid, "uint8")
        for rows in _strips(grid):
            first = rows.start // factor
            coarse = _read(source, slice(first, -(-rows.stop // factor)))
            fine = coarse.repeat(factor, axis=0).repeat(factor, axis=1)
            skipped = rows.start - first * factor
            yield rows, fine[skipped : skipped + rows.stop - rows.start, : grid.shape.x]


def _strips(grid: GeoBox) -> Iterator[slice]:
    for start in range(0, grid.shape.y, STRIP_PX):
        yield slice(start, min(start + STRIP_PX, grid.shape.y))


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


def _read(source: rasterio.DatasetReader, rows: slice) -> np.ndarray:
    values: np.ndarray = source.read(1, window=Window(0, rows.start, source.width, rows.stop - rows.start))
    return values


def _finer(source: rasterio.DatasetReader, rows: slice, grid: GeoBox, factor: int) -> np.ndarray:
    strip = np.empty((rows.stop - rows.start, grid.shape.x), "uint16")
    first = max(0, _left(np.array([rows.start]), factor)[0].item())
    last = min(source.height, _left(np.array([rows.stop - 1]), factor)[0].item() + 2)
    coarse = _read(source, slice(first, last))
    columns = np.arange(grid.shape.x)
    for start in range(0, len(strip), _BLEND_ROWS):
        part = strip[start : start + _BLEND_ROWS]
        part[:] = _blend(coarse, np.arange(len(part)) + rows.start + start, columns, factor, (first, source.height))
    return strip


def _blend(coarse: np.ndarray, rows: np.ndarray, columns: np.ndarray, factor: int, cut: tuple[int, int]) -> np.ndarray:
    """Return fine pixels, interpolated; `coarse` begins at row `cut[0]` of the `cut[1]` that the band has."""
    above, below, row_weight = _neighbours(rows, factor, cut[1])
    left, right, column_weight = _neighbours(columns, factor, coarse.shape[1])
    needed = coarse[above.min() - cut[0] : below.max() + 1 - cut[0]]
    values, valid = needed.astype("float32"), (needed != 0).astype("float32")

    def interpolated(field: np.ndarray) -> np.ndarray:
        # 0 adds nothing to the sum of values, as to the sum of weights.
        offset = above.min()
        lines = field[above - offset] * (1 - row_weight)[:, None]
        lines += field[below - offset] * row_weight[:, None]
        result: np.ndarray = lines[:, left] * (1 - column_weight)
        result += lines[:, right] * column_weight
        return result

    blended = interpolated(values)
    if not valid.all():
        weights = interpolated(valid)
        # The nearest pixel has a weight of at least a quarter, so where it is valid this divides by no small number.
        blended /= np.maximum(weights, np.float32(0.2))
        nearest = needed[(rows // factor - above.min())[:, None], (columns // factor)[None, :]]
        blended[nearest == 0] = 0
    return np.rint(blended).astype("uint16")


def _neighbours(fine: np.ndarray, factor: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the coarse pixels before and after the centres of fine ones, and the weight of the one after."""
    left = _left(fine, factor)
    # In units of half a fine pixel all positions are whole numbers.
    weight = ((2 * fine + 1 - factor - 2 * factor * left) / (2 * factor)).astype("float32")
    return left.clip(0, size - 1), (left + 1).clip(0, size - 1), weight


def _left(fine: np.ndarray, factor: int) -> np.ndarray:
    return (2 * fine + 1 - factor) // (2 * factor)
