"""Cloud-Optimized GeoTIFFs of a tile's bands, in the band table's disk form; the same input gives the same bytes."""

import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import odc.geo.xr  # noqa: F401 (registers `.odc`)
import rasterio
import rasterio.shutil
import xarray as xr
from rasterio.io import MemoryFile

from darts_utils.arrays import to_host
from darts_utils.bands import BANDS, Band, band, encode
from darts_utils.errors import ConfigError, MissingBandError
from darts_utils.threads import cores

BLOCK_PX = 512
"""Side of a block; rasters up to this size get one overview, larger ones as many as fit until one block is left."""

ROWS_AT_ONCE = 64
"""Rows that a core encodes or averages at a time."""

MASK_NODATA = 255
"""Declared for masks, whose values are 0 and 1: readers need a code, though each pixel has a value."""

NEVER_AVERAGED = ("aspect",)
"""Bands whose mean is no value of theirs: halfway between 350 and 10 degrees lies north."""


def write_raster(path: Path, tile: xr.Dataset, names: Sequence[str], tags: Mapping[str, str]) -> None:
    """Write the bands `names` of a tile into one Cloud-Optimized GeoTIFF.

    Bands of the band table are encoded as it says, with nodata, scale, offset and unit; any other variable keeps its
    values (bool as uint8, NaN as nodata). The tile is not changed.

    Raises:
        ConfigError: a variable is no raster, or the tile has no CRS.
    """
    geobox = tile_geobox(tile)
    layers = [_layer(tile, name) for name in names]
    averaged = all(layer.averaged for layer in layers)
    stem = f"{uuid.uuid4().hex}.tif"
    # GDAL makes overviews in some 15 times the time and compresses them twice. So all levels go uncompressed into
    # memory, the overviews as sidecar of one another, and the driver only compresses and puts them in order.
    with MemoryFile(dirname=f"darts-{stem}", filename=stem) as memory:
        level_name = memory.name
        options = {"driver": "GTiff", "count": len(layers), "dtype": layers[0].dtype, "nodata": layers[0].nodata}
        grid = {"crs": str(geobox.crs), "transform": geobox.affine}
        shapes = _level_shapes(geobox.shape)
        with ExitStack() as stack:
            targets = []
            for height, width in shapes:
                size = {"height": height, "width": width}
                targets.append(stack.enter_context(rasterio.open(level_name, "w", **options, **size, **grid)))
                level_name += ".ovr"
            for number, (name, layer) in enumerate(zip(names, layers, strict=True), start=1):
                values = _stored(tile, name, layer)
                for target in targets:
                    if target is not targets[0]:
                        values = _halved(values, layer, averaged)
                    target.write(values, number)
            full = targets[0]
            full.descriptions = names
            full.units = [layer.units for layer in layers]
            full.scales = [layer.scale for layer in layers]
            full.offsets = [layer.offset for layer in layers]
            full.update_tags(**tags)
        rasterio.shutil.copy(
            memory.name,
            path,
            driver="COG",
            blocksize=BLOCK_PX,
            compress="DEFLATE",
            level=1,  # half the time of the default level for 6 % more bytes
            predictor="YES" if all(layer.continuous for layer in layers) else "NO",
            overviews="AUTO" if len(shapes) > 1 else "NONE",
            bigtiff="IF_SAFER",
            num_threads=cores(),
        )


def tile_geobox(tile: xr.Dataset) -> Any:
    """Return the tile's geobox.

    Raises:
        ConfigError: the tile says not where on Earth it lies.
    """
    geobox = tile.odc.geobox
    if geobox is None or geobox.crs is None:
        raise ConfigError(
            "the tile has no geobox with a CRS; give it coordinates with `odc.geo.xr.xr_coords(geobox)`, or load it "
            "with one of the loaders of darts-acquisition"
        )
    return geobox


def transformed(transform: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return points (n, 2) under an affine transform, of whose versions none takes arrays like the next."""
    return np.stack(
        [x * transform.a + y * transform.b + transform.c, x * transform.d + y * transform.e + transform.f], axis=1
    )


class _Layer(NamedTuple):
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    units: str
    continuous: bool
    averaged: bool


def _layer(tile: xr.Dataset, name: str) -> _Layer:
    values = tile[name]
    if values.ndim != 2:
        raise ConfigError(f"variable {name!r} cannot be a raster: its dimensions are {values.dims}, not (y, x)")
    row = _row(name)
    if row is not None:
        continuous = row.memory == "float32"
        nodata: float | None = MASK_NODATA if row.memory == "bool" else row.nodata
        averaged = continuous and name not in NEVER_AVERAGED
        return _Layer(row.disk.replace("bool", "uint8"), nodata, row.scale, row.offset, row.units, continuous, averaged)
    kind = values.dtype.kind
    if kind not in "biuf":
        raise ConfigError(f"variable {name!r} cannot be a raster: its values are of type {values.dtype}")
    dtype = {"b": "uint8", "f": "float64" if values.dtype.itemsize == 8 else "float32"}.get(kind, str(values.dtype))
    nodata = {"b": MASK_NODATA, "f": np.nan}.get(kind)
    return _Layer(dtype, nodata, 1.0, 0.0, str(values.attrs.get("units", "")), kind == "f", kind == "f")


def _stored(tile: xr.Dataset, name: str, layer: _Layer) -> np.ndarray:
    """Return a variable as it stands in the file, (y, x)."""
    values = np.asarray(to_host(tile[name].data))
    row = _row(name)
    if row is None:
        return values.astype(layer.dtype, copy=False)
    if values.dtype.kind != "f" or row.nodata is None:
        return np.asarray(encode(values, name)).astype(layer.dtype, copy=False)
    from darts_export.raster_kernels import encode_floats

    stored = np.empty(values.shape, layer.dtype)
    avoided = row.nodata if row.nodata_is_in_range else np.iinfo("int64").min
    encode_floats(
        _blocks(values),
        ROWS_AT_ONCE,
        values,
        *map(float, row.valid),
        row.scale,
        row.offset,
        row.nodata,
        avoided,
        stored,
    )
    return stored


def _blocks(values: np.ndarray) -> int:
    return -(-len(values) // ROWS_AT_ONCE)


def _level_shapes(shape: Sequence[int]) -> list[tuple[int, int]]:
    """Return the sizes of full resolution and overviews."""
    shapes = [(int(shape[0]), int(shape[1]))]
    while max(shapes[-1]) > (BLOCK_PX if len(shapes) > 1 else 1):
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return shapes


def _halved(values: np.ndarray, layer: _Layer, averaged: bool) -> np.ndarray:
    """Return the next overview."""
    if not averaged:
        return values[::2, ::2]
    from darts_export.raster_kernels import halve

    out = np.empty((-(-values.shape[0] // 2), -(-values.shape[1] // 2)), values.dtype)
    whole = values.dtype.kind != "f"
    nodata = values.dtype.type(np.nan if layer.nodata is None else layer.nodata)
    halve(_blocks(out), ROWS_AT_ONCE, values, nodata, whole, out)
    return out


def _row(name: str) -> Band | None:
    """Return the band table's row, None for a variable of the user's own."""
    try:
        return BANDS[name] if name in BANDS else band(name)
    except MissingBandError:
        return None
