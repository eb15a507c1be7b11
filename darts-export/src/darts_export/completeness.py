"""Whether a file is all there: empty, truncated and unreadable ones are not."""

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import h5netcdf
import pyarrow.parquet
import rasterio
from PIL import Image
from rasterio.windows import Window

_logger = logging.getLogger("darts.export")


def is_complete(path: Path) -> bool:
    """Return whether a file exists and is whole, as far as its structure tells; pixels are not compared."""
    try:
        if path.stat().st_size == 0:
            return False
        return _CHECKS.get(path.suffix, _exists)(path)
    except FileNotFoundError:
        return False
    except Exception as error:  # readers raise all kinds of errors on damaged files, and each means the same
        _logger.warning("%s cannot be read and counts as missing: %s", path, error)
        return False


def _exists(path: Path) -> bool:
    return path.is_file()


def _geotiff(path: Path) -> bool:
    # The driver puts the last block of full resolution at the very end, followed by four bytes that repeat its last.
    with rasterio.open(path) as source:
        rows, columns = source.block_shapes[-1]
        row, column = (source.height - 1) // rows, (source.width - 1) // columns
        offset, size = (
            int(source.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=source.count) or 0)
            for what in ("OFFSET", "SIZE")
        )
        source.read(source.count, window=Window(column * columns, row * rows, 1, 1))
    return offset + size + 4 <= path.stat().st_size


def _parquet(path: Path) -> bool:
    with pyarrow.parquet.ParquetFile(path) as file:  # its index stands at the end
        return b"geo" in (file.schema_arrow.metadata or {})


def _geopackage(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(100)
    page_size = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    if (65536 if page_size == 1 else page_size) * pages != path.stat().st_size:
        return False
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        return bool(database.execute("SELECT count(*) FROM gpkg_contents").fetchone()[0])


def _jpeg(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
    with path.open("rb") as file:
        file.seek(-2, os.SEEK_END)
        return file.read() == b"\xff\xd9"


def _json(path: Path) -> bool:
    return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)


def _html(path: Path) -> bool:
    return path.read_bytes().rstrip().endswith(b"</html>")


def _netcdf(path: Path) -> bool:
    with h5netcdf.File(path, "r") as file:  # its header holds the length of the file
        return len(file.dimensions) > 0


_CHECKS: Mapping[str, Callable[[Path], bool]] = {
    ".tif": _geotiff,
    ".parquet": _parquet,
    ".gpkg": _geopackage,
    ".jpg": _jpeg,
    ".json": _json,
    ".html": _html,
    ".nc": _netcdf,
}
