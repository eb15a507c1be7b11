"""Made pixels, and the files that archives keep them in."""

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile
from rasterio.shutil import copy


def smooth_dn(shape: tuple[int, int], seed: int, *, wedge: bool = True) -> np.ndarray:
    """Return digital numbers (uint16) of smooth hills with a little noise, 1100 to 6500; 0 in a wedge if asked for."""
    rng = np.random.default_rng(seed)
    rows, columns = (np.linspace(0, 1, side, dtype="float32") for side in shape)
    total = np.full(shape, 3800, "float32")
    for amplitude in (1500, 700, 300):
        across, down = rng.uniform(1, 9, 2)
        total += amplitude * np.outer(np.sin(6.3 * (down * rows + rng.random())), np.cos(6.3 * across * columns))
    values = total.astype("uint16")
    values += rng.integers(0, 200, shape, "uint16")
    if wedge:
        values[in_wedge(shape)] = 0
    return values


def classes(shape: tuple[int, int], *, wedge: bool = True) -> np.ndarray:
    """Return a scene classification (uint8): cells of all classes 1 to 11; 0 in a wedge if asked for."""
    row, column = (np.arange(side) // max(1, min(shape) // 16) for side in shape)
    values = ((row[:, None] * 3 + column) % 11 + 1).astype("uint8")
    if wedge:
        values[in_wedge(shape)] = 0
    return values


def in_wedge(shape: tuple[int, int]) -> np.ndarray:
    """Return where the satellite did not look: a tenth of the scene's side, in its upper left corner."""
    row, column = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((row + 0.5) / shape[0] + (column + 0.5) / shape[1] < 0.1)


def jp2_bytes(values: np.ndarray, geobox: GeoBox, block: int = 128) -> bytes:
    """Return values as lossless JPEG 2000 in blocks, several where the raster is larger than one."""
    side = min(block, *values.shape)
    return _encode(
        values, geobox, "JP2OpenJPEG", None, QUALITY=100, REVERSIBLE="YES", BLOCKXSIZE=side, BLOCKYSIZE=side,
        RESOLUTIONS=3,
    )  # fmt: skip


def cog_bytes(
    values: np.ndarray, geobox: GeoBox, nodata: float | None, block: int = 128, predictor: str = "NO"
) -> bytes:
    """Return values as a deflated Cloud-Optimized GeoTIFF with overviews.

    Args:
        values: (y, x).
        geobox: their grid.
        nodata: value that means none; None: there is none.
        block: side of its tiles, a multiple of 16.
        predictor: of the compression, as GDAL calls them.
    """
    return _encode(
        values, geobox, "COG", nodata, BLOCKSIZE=block, COMPRESS="DEFLATE", PREDICTOR=predictor,
        OVERVIEW_RESAMPLING="NEAREST", BIGTIFF="NO",
    )  # fmt: skip


def _encode(values: np.ndarray, geobox: GeoBox, driver: str, nodata: float | None, **options: object) -> bytes:
    # Drivers of finished files copy from a whole dataset; memory serves as one.
    # Without its extension, JPEG 2000 comes as a bare codestream without georeference.
    ext = ".jp2" if driver == "JP2OpenJPEG" else ".tif"
    with MemoryFile() as source, MemoryFile(ext=ext) as target:
        with source.open(
            driver="GTiff", width=values.shape[1], height=values.shape[0], count=1, dtype=values.dtype,
            crs=str(geobox.crs), transform=geobox.transform, nodata=nodata, BIGTIFF="IF_SAFER",
        ) as file:  # fmt: skip
            file.write(values, 1)
        with source.open() as file:
            copy(file, target.name, driver=driver, **options)
        return bytes(target.read())
