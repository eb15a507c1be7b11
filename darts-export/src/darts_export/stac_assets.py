"""What STAC items and collections share: versions of extensions, files as assets, JSON as it is written."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from darts_utils.errors import StoreError
from darts_utils.store import replacing

STAC_VERSION = "1.1.0"

EXTENSIONS: Mapping[str, str] = {
    "proj": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "file": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "processing": "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "table": "https://stac-extensions.github.io/table/v1.2.0/schema.json",
    "classification": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "eo": "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "view": "https://stac-extensions.github.io/view/v1.0.0/schema.json",
}
"""Address of an extension's schema by the prefix of its fields. They are names: nothing is fetched."""

MEDIA_TYPES: Mapping[str, str] = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".parquet": "application/vnd.apache.parquet",
    ".gpkg": "application/geopackage+sqlite3",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".json": "application/json",
    ".csv": "text/csv",
    ".html": "text/html",
    ".nc": "application/x-netcdf",
}
"""Media type of a file by its suffix."""

_READ_AT_ONCE = 1 << 20

_NUMBERS = re.compile(r"\[\n\s+[-+.0-9eE]+(?:,\s+[-+.0-9eE]+)*\s+\]")
"""A list of numbers over several lines; texts hold no line breaks in JSON, so this is never one of them."""


def file_fields(path: Path) -> dict[str, Any]:
    """Return `file:size` and `file:checksum` (SHA-256 as a multihash), nothing if there is no such file."""
    if not path.is_file():
        return {}
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_AT_ONCE):
            digest.update(block)
    # A multihash names its function (0x12: SHA-256) and the length of the digest in bytes (0x20) first.
    return {"file:size": path.stat().st_size, "file:checksum": f"1220{digest.hexdigest()}"}


def href(path: str) -> str:
    """Return a relative link to a file; signs with a meaning in links, and spaces, are spelled out."""
    return "./" + "".join(sign if ord(sign) > 127 else quote(sign) for sign in path)


def used_extensions(entry: Any) -> list[str]:
    """Return the addresses of the extensions whose fields occur anywhere in a STAC object, sorted."""
    return sorted({EXTENSIONS[prefix] for prefix in _prefixes(entry) if prefix in EXTENSIONS})


def stac_time(time: datetime) -> str:
    """Return a time as STAC writes it: UTC with a Z; one without a zone is UTC."""
    utc = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return utc.replace(tzinfo=None).isoformat() + "Z"


def write_json(path: Path, entry: Mapping[str, Any]) -> None:
    """Write a STAC object, whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    text = json.dumps(entry, indent=2, allow_nan=False, ensure_ascii=False)
    text = _NUMBERS.sub(lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text)
    try:
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}. Is the disk full?") from error


def _prefixes(entry: Any) -> Iterable[str]:
    if isinstance(entry, Mapping):
        for key, value in entry.items():
            yield str(key).partition(":")[0] if ":" in str(key) else ""
            yield from _prefixes(value)
    elif isinstance(entry, list | tuple):
        for value in entry:
            yield from _prefixes(value)
