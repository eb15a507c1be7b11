"""Pixels of Earth Engine images: in tiles within the limits of a request, several in flight, each reply checked."""

import io
import itertools
import math
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from darts_acquisition.earth_engine_requests import BadReplyError, ask
from darts_acquisition.earth_engine_source import GEE_SOURCE, EarthEngineSource
from darts_acquisition.transfer_report import SILENT, TransferReport
from darts_utils.errors import ConfigError, RemoteError

TILE_BYTES = 24_000_000
"""Half of what Earth Engine allows a request: width × height × bands × (bytes of a value + 1) ≤ 48 MiB."""
TILE_PX = 2048
STRIP_PX = 2048


def fetch_pixels(
    image: Any,
    bands: Mapping[str, str],
    geobox: GeoBox,
    *,
    what: str,
    source: EarthEngineSource = GEE_SOURCE,
    report: TransferReport = SILENT,
    stop: threading.Event | None = None,
) -> dict[str, np.ndarray]:
    """Return the pixels of an `ee.Image` on a grid, name → array; 0 where the image is masked or ends.

    Args:
        image: an `ee.Image`; values are taken from the nearest pixel where its grid is another.
        bands: name → dtype (`uint8`, `uint16`, …) of the bands to fetch.
        geobox: the grid, with an EPSG code.
        what: names the image in errors.
        source: limits and retries.
        report: hears of bytes received.
        stop: once set, what failed is not asked for again.

    Raises:
        RemoteError: a tile could not be had, or holds values that the dtype cannot; names `what` and the pixels.
    """
    values = {name: np.empty(geobox.shape.yx, dtype) for name, dtype in bands.items()}
    for tile, pixels in _fetch(image, bands, geobox, geobox.shape.y, what, source, report, stop):
        for name in bands:
            values[name][tile.rows, tile.columns] = pixels[name]
    return values


def fetch_strips(
    image: Any,
    bands: Mapping[str, str],
    geobox: GeoBox,
    *,
    what: str,
    source: EarthEngineSource = GEE_SOURCE,
    report: TransferReport = SILENT,
    rows: int = STRIP_PX,
) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
    """Yield the same strip by strip (rows, name → array), so that the whole never need be in memory."""
    strip: dict[str, np.ndarray] = {}
    for tile, pixels in _fetch(image, bands, geobox, rows, what, source, report):
        first = tile.rows.start // rows * rows
        within = slice(tile.rows.start - first, tile.rows.stop - first)
        height = min(rows, geobox.shape.y - first)
        if not strip:
            strip = {name: np.empty((height, geobox.shape.x), dtype) for name, dtype in bands.items()}
        for name in bands:
            strip[name][within, tile.columns] = pixels[name]
        if within.stop == height and tile.columns.stop == geobox.shape.x:
            yield slice(first, first + height), strip
            strip = {}


@dataclass(frozen=True)
class _Tile:
    rows: slice
    columns: slice


def _fetch(
    image: Any,
    bands: Mapping[str, str],
    geobox: GeoBox,
    strip_px: int,
    what: str,
    source: EarthEngineSource,
    report: TransferReport,
    stop: threading.Event | None = None,
) -> Iterator[tuple[_Tile, dict[str, np.ndarray]]]:
    """Yield tiles in order: strip by strip, from left to right."""
    # Masked pixels hold anything; 0 is what the store takes as missing.
    filled = image.select(list(bands)).unmask(0, False)
    ended = threading.Event()

    def fetch(tile: _Tile) -> dict[str, np.ndarray]:
        part = geobox[tile.rows, tile.columns]
        where = f"{what}, rows {tile.rows.start} to {tile.rows.stop}, columns {tile.columns.start} to " + str(
            tile.columns.stop
        )
        return ask(source, where, lambda: _fetch_tile(filled, bands, part, where, report), stop=stop or ended)

    with _several_at_once(source.connections, ended) as pool:
        waiting: deque[tuple[_Tile, Future[dict[str, np.ndarray]]]] = deque()
        for tile in _tiles(geobox, bands, strip_px):
            # As many ahead as are in flight: what is done waits in memory for its turn.
            if len(waiting) == source.connections:
                done, future = waiting.popleft()
                yield done, future.result()
            waiting.append((tile, pool.submit(fetch, tile)))
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()


@contextmanager
def _several_at_once(connections: int, ended: threading.Event) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(connections, thread_name_prefix="earth-engine")
    try:
        yield pool
    finally:
        ended.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _tiles(geobox: GeoBox, bands: Mapping[str, str], strip_px: int) -> Iterator[_Tile]:
    pixel_bytes = len(bands) * (max(np.dtype(dtype).itemsize for dtype in bands.values()) + 1)
    side = min(TILE_PX, math.isqrt(TILE_BYTES // pixel_bytes))
    height, width = geobox.shape.yx
    for first in range(0, height, strip_px):
        for rows in _even_parts(first, min(first + strip_px, height), side):
            for columns in _even_parts(0, width, side):
                yield _Tile(rows, columns)


def _even_parts(start: int, stop: int, longest: int) -> Iterable[slice]:
    count = math.ceil((stop - start) / longest)
    edges = [start + (stop - start) * i // count for i in range(count + 1)]
    return [slice(low, high) for low, high in itertools.pairwise(edges)]


def _fetch_tile(
    image: Any, bands: Mapping[str, str], geobox: GeoBox, what: str, report: TransferReport
) -> dict[str, np.ndarray]:
    import ee

    reply = ee.data.computePixels({"expression": image, "fileFormat": "NPY", "grid": pixel_grid(geobox)})
    stream = io.BytesIO(reply)
    try:
        pixels = np.load(stream, allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        # OSError and SyntaxError: what numpy raises on a header cut short.
        raise BadReplyError(f"pixels that cannot be read ({error})") from error
    if stream.read(1):
        raise BadReplyError("more bytes than the pixels have")
    if pixels.shape != geobox.shape.yx:
        raise BadReplyError(f"pixels of shape {pixels.shape} instead of {geobox.shape.yx}")
    lacking = [name for name in bands if name not in (pixels.dtype.names or ())]
    if lacking:
        raise BadReplyError(f"pixels without band {', '.join(lacking)}")
    values = {name: _as_dtype(pixels[name], dtype, name, what) for name, dtype in bands.items()}
    report.received(len(reply))
    return values


def pixel_grid(geobox: GeoBox) -> dict[str, Any]:
    """Return a grid as Earth Engine takes it.

    Raises:
        ConfigError: its CRS has no EPSG code.
    """
    if geobox.crs is None or geobox.crs.epsg is None:
        raise ConfigError(f"Earth Engine needs a grid whose CRS has an EPSG code, got {geobox!r}")
    a, b, c, d, e, f = geobox.affine[:6]
    return {
        "dimensions": {"width": geobox.shape.x, "height": geobox.shape.y},
        "affineTransform": {
            "scaleX": a,
            "shearX": b,
            "translateX": c,
            "shearY": d,
            "scaleY": e,
            "translateY": f,
        },
        "crsCode": f"EPSG:{geobox.crs.epsg}",
    }


def _as_dtype(values: np.ndarray, dtype: str, band: str, what: str) -> np.ndarray:
    """Return values as `dtype`; Earth Engine widens types as it computes, so only values that do not fit are wrong."""
    if values.dtype == dtype:
        return np.ascontiguousarray(values)
    with np.errstate(invalid="ignore"):
        cast = values.astype(dtype)
    if not np.array_equal(cast, values):
        raise RemoteError(
            f"Earth Engine, {what}: band {band} came as {values.dtype} with values that {dtype} cannot hold. "
            "Check that this is the right collection or asset."
        )
    return cast
