"""`gdaldem` without its program: the GDAL library inside rasterio's wheel, called through ctypes."""

import ctypes
import math
from pathlib import Path

import numpy as np
import rasterio
import rasterio._base
from odc.geo.geobox import GeoBox
from rasterio import Affine

# A symbol is looked up in what the extension module is linked against too: the very library that rasterio uses.
GDAL = ctypes.CDLL(rasterio._base.__file__)
MISSING = None if hasattr(GDAL, "GDALDEMProcessing") else "the GDAL of this rasterio exports no GDALDEMProcessing"
"""Why there is no oracle here, or None."""

if MISSING is None:
    # Without declared types ctypes passes pointers as 32 bits.
    GDAL.GDALOpen.restype = ctypes.c_void_p
    GDAL.GDALOpen.argtypes = [ctypes.c_char_p, ctypes.c_int]
    GDAL.GDALClose.argtypes = [ctypes.c_void_p]
    GDAL.GDALDEMProcessingOptionsNew.restype = ctypes.c_void_p
    GDAL.GDALDEMProcessingOptionsNew.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_void_p]
    GDAL.GDALDEMProcessingOptionsFree.argtypes = [ctypes.c_void_p]
    GDAL.GDALDEMProcessing.restype = ctypes.c_void_p
    GDAL.GDALDEMProcessing.argtypes = [
        ctypes.c_char_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_int),
    ]  # fmt: skip
NODATA = -9999.0


def gdaldem(mode: str, dem: np.ndarray, geobox: GeoBox, folder: Path, *options: str) -> np.ndarray:
    """Return what `gdaldem MODE` makes of elevations (y, x) with NaN for what is missing, float64, NaN for nodata.

    `mode` is slope, aspect, TRI, TPI or hillshade. Hillshade, of bytes, keeps its numbers 1 … 255; 0 becomes NaN.

    Raises:
        RuntimeError: GDAL refuses.
    """
    source, result = folder / "dem.tif", folder / f"{mode}.tif"
    profile = {
        "driver": "GTiff", "height": dem.shape[0], "width": dem.shape[1], "count": 1, "dtype": "float32",
        "crs": geobox.crs.to_wkt(), "transform": Affine(*geobox.affine[:6]), "nodata": NODATA,
    }  # fmt: skip
    with rasterio.open(source, "w", **profile) as file:  # registers GDAL's drivers as well
        file.write(np.where(np.isfinite(dem), dem, NODATA).astype("float32"), 1)
    words = [word.encode() for word in options]
    opened = GDAL.GDALOpen(bytes(source), 0)
    parsed = GDAL.GDALDEMProcessingOptionsNew((ctypes.c_char_p * (len(words) + 1))(*words, None), None)
    made = None
    try:
        if opened and parsed:
            made = GDAL.GDALDEMProcessing(bytes(result), opened, mode.encode(), None, parsed, ctypes.c_int(0))
        if not made:
            raise RuntimeError(f"gdaldem {mode} {' '.join(options)} made nothing of {source}")
    finally:
        for dataset in (made, opened):
            if dataset:
                GDAL.GDALClose(dataset)  # writes what is still in memory
        GDAL.GDALDEMProcessingOptionsFree(parsed)
    with rasterio.open(result) as file:
        values = file.read(1).astype("float64")
        nodata = math.nan if file.nodata is None else file.nodata
    values[values == nodata] = math.nan
    return values
