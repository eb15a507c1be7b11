"""What a tile's files say about their making: `DARTS_*` tags, the metadata file, ids of the tile."""

import json
import logging
import math
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

PREFIX = "DARTS_"

TILE_ATTRS = (
    "tile_id", "image_id", "sensor", "acquisition_time", "azimuth", "elevation", "quality_source",
)  # fmt: skip
"""Attributes of a tile that become tags."""

_logger = logging.getLogger("darts.export")


def identity(tile: xr.Dataset, folder_name: str) -> dict[str, Any]:
    """Return the columns that say which tile a row is of; what the tile doesn't carry is null.

    `tile_id` falls back on the name of the tile's folder; `acquisition_time` is a UTC timestamp.
    """
    attrs = tile.attrs
    texts = {name: None if _absent(attrs.get(name)) else str(attrs[name]) for name in ("tile_id", "image_id", "sensor")}
    return {
        **texts,
        "tile_id": texts["tile_id"] or folder_name,
        "acquisition_time": _timestamp(attrs.get("acquisition_time")),
    }


def darts_tags(tile: xr.Dataset, metadata: Mapping[str, Any] | None, folder_name: str) -> dict[str, Any]:
    """Return all `DARTS_*` tags by name, sorted: the caller's `metadata` over those of the tile and the software."""
    tags = {name: tile.attrs[name] for name in TILE_ATTRS if not _absent(tile.attrs.get(name))}
    tags = {"tile_id": folder_name, "software": f"darts-export {version('darts-export')}"} | tags
    tags = {PREFIX + name: value for name, value in tags.items()}
    tags |= {PREFIX + str(name).removeprefix(PREFIX): value for name, value in (metadata or {}).items()}
    return {name: _plain(tags[name]) for name in sorted(tags)}


def as_text(tags: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags as a GeoTIFF takes them: texts as they are, anything else as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in tags.items()}


def write_metadata(path: Path, tags: Mapping[str, Any]) -> None:
    """Write the tags as a JSON object."""
    path.write_text(json.dumps(tags, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it; sets are sorted and NaN is null, so that files are valid and stay the same."""
    if isinstance(value, Mapping):
        return {str(key): _plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value), key=str)
    if isinstance(value, np.ndarray) and not value.ndim:
        return _plain(value[()])
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if pd.isna(value):
        return None
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, np.datetime64):
        return str(value)
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | bool | int | float) else str(value)


def _absent(value: Any) -> bool:
    return value == "" if isinstance(value, str) else bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _timestamp(value: Any) -> Any:
    if _absent(value):
        return pd.NaT
    try:
        if isinstance(value, int | float | np.number):
            raise ValueError("a number may count anything")
        scalar: Any = value[()] if isinstance(value, np.ndarray) else value
        time = pd.Timestamp(scalar)
        return time.tz_localize("UTC") if time.tzinfo is None else time.tz_convert("UTC")
    except (ValueError, TypeError):
        _logger.warning("acquisition_time %r is no ISO 8601 time; the polygons get none", value)
        return pd.NaT
