"""One tile's polygons and extent, from its files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from darts_export.dataset.tile_folders import EXTENT_FILE, segment_files
from darts_utils.errors import StoreError

DEFAULT_MIN_OBJECT_PX = 32
"""Smallest object of a run, where a tile's files do not say it."""

NUMBERS = (
    "npixel", "area_m2", "perimeter_m", "mean", "min", "max", "median", "std", "probability_std",
    "valid_share_around", "threshold",
)  # fmt: skip
"""Columns of segments that are used, NaN where a file has not got them."""

NEEDED = ("npixel", "area_m2", "mean", "min", "max")


@dataclass(frozen=True)
class TilePolygons:
    """What a tile brings to the dataset."""

    tile_id: str
    image_id: str
    sensor: str
    time: datetime
    model: str
    crs: str
    tags: Mapping[str, Any]
    """`DARTS_*` tags of the segments, as far as the file has them."""
    seen: Any
    clear: Any
    geometry: np.ndarray
    """Segments, whole ones and then cut ones, in the tile's CRS."""
    cut: np.ndarray
    numbers: Mapping[str, np.ndarray]

    def tag(self, name: str) -> float | None:
        """Return the number that a tag holds, None if there is none."""
        value = self.tags.get(f"DARTS_{name}")
        try:
            return None if value in (None, "") else float(value)
        except (TypeError, ValueError):
            return None


def read_tile(folder: Path, suffix: str) -> TilePolygons:
    """Return a tile's polygons of the layer `suffix`.

    Raises:
        StoreError: a file is missing, damaged, or holds something else; or the tile has no time.
    """
    extent, extent_crs, _ = _read(folder / EXTENT_FILE, ("kind", "tile_id", "image_id", "sensor", "acquisition_time"))
    kinds = dict(zip(extent["kind"].to_pylist(), _polygons(folder / EXTENT_FILE, extent), strict=True))
    if set(kinds) != {"seen", "clear"}:
        raise StoreError(f"{folder / EXTENT_FILE} has no rows `seen` and `clear`")
    ids = {name: extent[name][0].as_py() for name in ("tile_id", "image_id", "sensor", "acquisition_time")}
    if not isinstance(ids["acquisition_time"], datetime):
        raise StoreError(f"{folder / EXTENT_FILE} tells no acquisition_time, so the tile belongs to no year")

    parts: list[tuple[pa.Table, np.ndarray]] = []
    tags: Mapping[str, Any] = {}
    for file in segment_files(suffix):
        table, crs, tags = _read(folder / file, (*NEEDED, "model"))
        if crs != extent_crs:
            raise StoreError(f"{folder / file} is in {crs}, and {EXTENT_FILE} in {extent_crs}")
        parts.append((table, _polygons(folder / file, table)))
    models = [name for table, _ in parts for name in table["model"].unique().to_pylist() if name is not None]
    return TilePolygons(
        tile_id=str(ids["tile_id"] or folder.name),
        image_id=str(ids["image_id"] or ""),
        sensor=str(ids["sensor"] or ""),
        time=ids["acquisition_time"],
        model=str(models[0]) if models else "",
        crs=extent_crs,
        tags=tags,
        seen=kinds["seen"],
        clear=kinds["clear"],
        geometry=np.concatenate([geometry for _, geometry in parts]),
        cut=np.repeat([False, True], [len(geometry) for _, geometry in parts]),
        numbers={name: np.concatenate([_number(table, name) for table, _ in parts]) for name in NUMBERS},
    )


def _read(path: Path, needed: tuple[str, ...]) -> tuple[pa.Table, str, Mapping[str, Any]]:
    """Return a file's rows, its CRS, and its `DARTS_*` tags."""
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            missing = {"geometry", *needed} - set(schema.names)
            if missing:
                raise StoreError(f"{path} lacks the columns {', '.join(sorted(missing))}")
            columns = [name for name in ("geometry", *needed, *NUMBERS) if name in schema.names]
            table = _with_numbers(file.read(columns=list(dict.fromkeys(columns)), use_threads=False))
        metadata = schema.metadata or {}
        crs = _crs_of(json.dumps(json.loads(metadata[b"geo"])["columns"]["geometry"]["crs"]))
        tags = json.loads(metadata.get(b"darts", b"{}"))
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing") from error
    except StoreError:
        raise
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, CRSError) as error:
        raise StoreError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return table, crs, tags if isinstance(tags, dict) else {}


@lru_cache(maxsize=256)
def _crs_of(projjson: str) -> str:
    crs = CRS.from_json(projjson)
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.to_wkt())


def _with_numbers(table: pa.Table) -> pa.Table:
    types = [(field.name, pa.float64() if field.name in NUMBERS else field.type) for field in table.schema]
    return table.cast(pa.schema(types))


def _polygons(path: Path, table: pa.Table) -> np.ndarray:
    try:
        geometry = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    except (shapely.GEOSException, TypeError) as error:
        raise StoreError(f"{path} holds no geometry that can be read: {error}") from error
    polygons = np.asarray(geometry, dtype=object)
    wrong = ~np.isin(shapely.get_type_id(polygons), (3, 6)) | ~shapely.is_valid(polygons)
    if wrong.any():
        raise StoreError(f"{path} holds {wrong.sum()} geometries that are no valid polygons")
    return polygons


def _number(table: pa.Table, name: str) -> np.ndarray:
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    values: np.ndarray = table[name].to_numpy(zero_copy_only=False)
    return values
