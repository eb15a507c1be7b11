"""Earth Engine's functions of images: each takes and gives images that are sampled only when pixels are asked for."""

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import shapely.geometry
from rasterio.features import geometry_mask
from rasterio.io import MemoryFile
from rasterio.warp import transform_geom

from darts_acquisition.testing.ee_values import Band, Collection, EarthEngineError, Element, Grid, as_geometry

MAX_BYTES = 50331648
MAX_SIDE = 32768
_CASTS = {
    "toUint8": "uint8", "toByte": "uint8", "toInt8": "int8", "toUint16": "uint16", "toShort": "int16",
    "toInt16": "int16", "toUint32": "uint32", "toInt32": "int32", "toInt": "int32", "toInt64": "int64",
    "toLong": "int64", "toFloat": "float32", "toDouble": "float64",
}  # fmt: skip
_ARITHMETIC: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
}  # fmt: skip


def stored_band(name: str, values: np.ndarray, valid: np.ndarray | None, grid: Grid) -> Band:
    """Return a band of values on a grid; masked outside, and where `valid` is False."""

    def sample(target: Grid) -> tuple[np.ndarray, np.ndarray]:
        row, column, inside = target.indices(grid)
        good = inside if valid is None else inside & valid[row, column]
        # What lies under a mask is sent as it is, so that clients that forget to unmask are found out.
        return np.where(inside, values[row, column], 0).astype(values.dtype), good

    return Band(name, values.dtype, sample, grid)


def constant(value: Any) -> Element:
    """Return the image that has a value, or a list of them, everywhere."""
    values = value if isinstance(value, list) else [value]
    bands = []
    for n, number in enumerate(values):
        dtype = np.dtype("float64" if isinstance(number, float) else "int64")

        def sample(grid: Grid, number: Any = number, dtype: np.dtype = dtype) -> tuple[np.ndarray, np.ndarray]:
            return np.full(grid.shape, number, dtype), np.ones(grid.shape, bool)

        bands.append(Band("constant" if len(values) == 1 else f"constant_{n}", dtype, sample))
    return Element({}, bands=tuple(bands))


def image_function(name: str, arguments: dict[str, Any]) -> Element | None:
    """Return what `Image.name` gives; None: there is no such function here."""
    if name == "constant":
        return constant(arguments["value"])
    if name in _CASTS:
        return _each_band(arguments["value"], lambda band: _cast(band, np.dtype(_CASTS[name])))
    if name in _ARITHMETIC:
        return _arithmetic(_ARITHMETIC[name], arguments["image1"], arguments["image2"])
    function = _FUNCTIONS.get(name)
    return None if function is None else function(**arguments)


def mosaic(collection: Collection) -> Element:
    """Return the image that shows the last valid value of the bands that the first image has."""
    if not collection.elements:
        return Element({}, bands=())
    images = [{band.name: band for band in element.image_bands()} for element in collection.elements]

    def over(layers: list[Band]) -> Band:
        def sample(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
            values, valid = layers[0].sample(grid)
            for layer in layers[1:]:
                upper, seen = layer.sample(grid)
                values, valid = np.where(seen, upper, values), valid | seen
            return values, valid

        return replace(layers[0], sample=sample, grid=None)

    return Element({}, bands=tuple(over([image[name] for image in images if name in image]) for name in images[0]))


def encode_pixels(image: Element, file_format: str, grid: Grid, only: list[str] | None) -> bytes:
    """Return an image's pixels on a grid as NPY or GeoTIFF; whatever lies there where masked.

    Raises:
        EarthEngineError: more than Earth Engine sends at once, or another format.
    """
    bands = image.image_bands() if only is None else _select(image, only).image_bands()
    if not bands:
        raise EarthEngineError("Image has no bands.")
    _check_size(bands, grid)
    arrays = {}
    for band in bands:
        values, _ = band.sample(grid)
        arrays[band.name] = np.broadcast_to(values, grid.shape).astype(band.dtype)
    if file_format in ("NPY", "NUMPY_NDARRAY"):
        packed = np.empty(grid.shape, [(name, values.dtype) for name, values in arrays.items()])
        for name, values in arrays.items():
            packed[name] = values
        buffer = io.BytesIO()
        np.save(buffer, packed)
        return buffer.getvalue()
    if file_format in ("GEO_TIFF", "AUTO_JPEG_PNG_GEO_TIFF"):
        return _geotiff(arrays, grid)
    raise EarthEngineError(f"the test server cannot write the file format '{file_format}'")


def _check_size(bands: tuple[Band, ...], grid: Grid) -> None:
    height, width = grid.shape
    if max(height, width) > MAX_SIDE:
        raise EarthEngineError(f"Pixel grid dimensions ({width}x{height}) must be less than or equal to {MAX_SIDE}.")
    size = height * width * sum(band.dtype.itemsize + 1 for band in bands)
    if size > MAX_BYTES:
        raise EarthEngineError(f"Total request size ({size} bytes) must be less than or equal to {MAX_BYTES} bytes.")


def _geotiff(arrays: Mapping[str, np.ndarray], grid: Grid) -> bytes:
    dtype = np.result_type(*arrays.values())
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=grid.shape[1], height=grid.shape[0], count=len(arrays), dtype=dtype, crs=grid.crs,
            transform=grid.affine, compress="deflate",
        ) as file:  # fmt: skip
            for n, (name, values) in enumerate(arrays.items(), 1):
                file.write(values.astype(dtype), n)
                file.set_band_description(n, name)
        return bytes(memory.read())


def _select(input: Element, bandSelectors: list[Any], newNames: list[str] | None = None) -> Element:
    bands = {band.name: band for band in input.image_bands()}
    chosen = []
    for selector in bandSelectors:
        name = list(bands)[selector] if isinstance(selector, int) and selector < len(bands) else selector
        if name not in bands:
            known = ", ".join(bands)
            raise EarthEngineError(
                f"Image.select: Band pattern '{name}' did not match any bands. Available bands: [{known}]"
            )
        chosen.append(bands[name])
    return _rename(input.with_bands(chosen), newNames or [band.name for band in chosen])


def _rename(input: Element, names: list[str]) -> Element:
    bands = input.image_bands()
    if len(names) != len(bands):
        raise EarthEngineError(f"Image.rename: the image has {len(bands)} bands, but {len(names)} names were given.")
    return input.with_bands([replace(band, name=name) for band, name in zip(bands, names, strict=True)])


def _add_bands(dstImg: Element, srcImg: Element, names: list[str] | None = None, overwrite: bool = False) -> Element:
    added = {band.name: band for band in (srcImg if names is None else _select(srcImg, names)).image_bands()}
    kept = {band.name: band for band in dstImg.image_bands()}
    for name, band in added.items():
        kept[name if overwrite or name not in kept else f"{name}_1"] = band
    return dstImg.with_bands([replace(band, name=name) for name, band in kept.items()])


def _unmask(input: Element, value: Element | None = None, sameFootprint: bool = True) -> Element:
    fill = (constant(0) if value is None else value).image_bands()[0]

    def unmask(band: Band) -> Band:
        def sample(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
            values, valid = band.sample(grid)
            inside = np.ones(grid.shape, bool)
            if sameFootprint and band.grid is not None:  # beyond the image's edges nothing is filled
                inside = np.broadcast_to(grid.indices(band.grid)[2], grid.shape)
            filled = np.where(inside & ~valid, fill.sample(grid)[0], values)
            return filled.astype(band.dtype), valid | inside

        return replace(band, sample=sample)

    return _each_band(input, unmask)


def _update_mask(image: Element, mask: Element) -> Element:
    layer = mask.image_bands()[0]

    def masked(band: Band) -> Band:
        def sample(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
            values, valid = band.sample(grid)
            keep, known = layer.sample(grid)
            return values, valid & known & (keep != 0)

        return replace(band, sample=sample)

    return _each_band(image, masked)


def _clip(input: Element, geometry: Any) -> Element:
    outline = as_geometry(geometry)

    def clipped(band: Band) -> Band:
        def sample(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
            values, valid = band.sample(grid)
            shape = transform_geom("EPSG:4326", grid.crs, shapely.geometry.mapping(outline))
            return values, valid & geometry_mask([shape], grid.shape, grid.affine, invert=True)

        return replace(band, sample=sample)

    return _each_band(input, clipped)


def _mask_of(image: Element) -> Element:
    def mask(band: Band) -> Band:
        def sample(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
            valid = np.broadcast_to(band.sample(grid)[1], grid.shape)
            return valid.astype("uint8"), np.ones(grid.shape, bool)

        return Band(band.name, np.dtype("uint8"), sample, band.grid)

    return _each_band(image, mask)


def _cast(band: Band, dtype: np.dtype) -> Band:
    def sample(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        values, valid = band.sample(grid)
        if dtype.kind != "f":
            limits = np.iinfo(dtype)
            values = np.clip(np.nan_to_num(values), limits.min, limits.max)
        return values.astype(dtype), valid

    return replace(band, dtype=dtype, sample=sample)


def _arithmetic(operate: Callable[[np.ndarray, np.ndarray], np.ndarray], image1: Element, image2: Element) -> Element:
    left, right = image1.image_bands(), image2.image_bands()
    if len(right) == 1:
        right *= len(left)
    if len(left) != len(right):
        raise EarthEngineError("the test server needs images with as many bands, or one band")

    def combined(a: Band, b: Band) -> Band:
        def sample(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
            (x, x_valid), (y, y_valid) = a.sample(grid), b.sample(grid)
            with np.errstate(all="ignore"):
                result = operate(x.astype("float64"), y.astype("float64"))
            return np.where(np.isfinite(result), result, 0), x_valid & y_valid & np.isfinite(result)

        return Band(a.name, np.dtype("float64"), sample, a.grid)

    return image1.with_bands([combined(a, b) for a, b in zip(left, right, strict=True)])


def _each_band(image: Element, change: Callable[[Band], Band]) -> Element:
    return image.with_bands([change(band) for band in image.image_bands()])


_FUNCTIONS: dict[str, Callable[..., Element]] = {
    "select": _select, "rename": _rename, "addBands": _add_bands, "unmask": _unmask, "updateMask": _update_mask,
    "clip": _clip, "mask": _mask_of,
}  # fmt: skip
