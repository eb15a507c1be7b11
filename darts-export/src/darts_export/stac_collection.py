"""STAC collections: of the tiles of a run, and of a merged dataset."""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from darts_export.stac_assets import (
    MEDIA_TYPES,
    STAC_VERSION,
    file_fields,
    href,
    stac_time,
    used_extensions,
    write_json,
)
from darts_export.stac_geometry import united_bbox
from darts_utils.errors import ConfigError, StoreError
from darts_utils.paths import is_folder

ITEM_FILE = "item.json"
COLLECTION_FILE = "collection.json"

SUMMARIZED = (
    "constellation", "gsd", "proj:code", "processing:software", "darts:modelfiles", "darts:modelchecksums",
)  # fmt: skip
"""Properties of items whose values the collection of a run lists."""

_logger = logging.getLogger("darts.export")


@dataclass(frozen=True, kw_only=True)
class DatasetAsset:
    """A file of a merged dataset."""

    file: str
    """Name, relative to the collection's folder."""
    title: str
    description: str
    media_type: str = ""
    """By the file's suffix if empty."""
    roles: tuple[str, ...] = ("data",)
    columns: Sequence[tuple[str, str, str]] = ()
    """Name, type and meaning of each column, for a table."""
    rows: int | None = None
    """Number of rows of a table, None if not counted."""


def write_collection(
    output_folder: Path | str,
    *,
    title: str | None = None,
    description: str | None = None,
    id: str | None = None,
    license: str = "other",
    providers: Sequence[Mapping[str, Any]] = (),
) -> Path | None:
    """Write `collection.json` over all tiles of a run and return its path; None, and nothing written, without tiles.

    Tiles are the folders with an `item.json` in `output_folder` and one level below. One that cannot be read is left
    out with a warning. The items are not changed; the same items give the same bytes.

    Args:
        output_folder: folder of the tiles' folders.
        title: default: names the folder.
        description: CommonMark.
        id: default: the folder's name.
        license: SPDX identifier, or "other".
        providers: STAC providers: mappings with `name`, `roles`, `url`.

    Raises:
        StoreError: there is no such folder, or the collection cannot be written.
    """
    folder = Path(output_folder)
    if not folder.is_dir():
        raise StoreError(f"cannot write a collection of {folder}: there is no such folder. Run a pipeline first.")
    name = folder.resolve().name or "darts"
    links, seen = [], _Summary()
    for path in _item_files(folder):
        item = _read_item(folder / path)
        if item is not None:
            seen.add(item)
            link = {"rel": "item", "href": href(path), "type": "application/geo+json", "title": item["id"]}
            links.append(link)
    if not links:
        _logger.warning("%s has no %s below it: no collection was written", folder, ITEM_FILE)
        return None
    collection = _collection(
        id=id or name,
        title=title or f"Thaw features: {name}",
        description=description or "Thaw features found by darts, an item a tile.",
        license=license,
        providers=providers,
        bbox=united_bbox(seen.boxes),
        interval=seen.interval(),
    )
    collection |= {
        "summaries": seen.summaries(),
        "item_assets": {key: seen.assets[key] for key in sorted(seen.assets)},
        "links": [*collection["links"], *links],
    }
    return _write(folder, collection)


def write_dataset_collection(
    folder: Path | str,
    assets: Mapping[str, DatasetAsset],
    *,
    id: str,
    title: str,
    description: str,
    bbox: tuple[float, float, float, float],
    start: datetime | None = None,
    end: datetime | None = None,
    license: str = "other",
    providers: Sequence[Mapping[str, Any]] = (),
    keywords: Sequence[str] = (),
    summaries: Mapping[str, Any] | None = None,
) -> Path:
    """Write `collection.json` of a merged dataset into `folder` and return its path.

    Sizes and checksums of the files are taken from `folder`, so write them first.

    Args:
        folder: folder of the dataset.
        assets: its files by key.
        id: of the collection.
        title: a line.
        description: CommonMark.
        bbox: west, south, east, north in EPSG:4326; west > east across the antimeridian (see `united_bbox`).
        start: first acquisition, UTC if it has no zone; None if unknown.
        end: last acquisition.
        license: SPDX identifier, or "other".
        providers: STAC providers: mappings with `name`, `roles`, `url`.
        keywords: for searching.
        summaries: further summaries by name: lists of values, or mappings with `minimum` and `maximum`.

    Raises:
        ConfigError: a file is missing or stands outside the folder, or the bbox is none.
        StoreError: the collection cannot be written.
    """
    folder = Path(folder)
    west, south, east, north = bbox
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise ConfigError(f"bbox is west, south, east, north in degrees; got {bbox}")
    collection = _collection(
        id=id,
        title=title,
        description=description,
        license=license,
        providers=providers,
        bbox=bbox,
        interval=(stac_time(start) if start else None, stac_time(end) if end else None),
    )
    if keywords:
        collection["keywords"] = list(keywords)
    if summaries:
        collection["summaries"] = dict(summaries)
    collection["assets"] = {key: _dataset_asset(folder, asset) for key, asset in assets.items()}
    return _write(folder, collection)


def _collection(
    *,
    id: str,
    title: str,
    description: str,
    license: str,
    providers: Sequence[Mapping[str, Any]],
    bbox: Sequence[float],
    interval: tuple[str | None, str | None],
) -> dict[str, Any]:
    collection: dict[str, Any] = {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        "id": id,
        "title": title,
        "description": description,
        "license": license,
    }
    if providers:
        collection["providers"] = [dict(provider) for provider in providers]
    return collection | {
        "extent": {"spatial": {"bbox": [list(bbox)]}, "temporal": {"interval": [list(interval)]}},
        "links": [{"rel": "root", "href": f"./{COLLECTION_FILE}", "type": "application/json", "title": title}],
    }


def _write(folder: Path, collection: dict[str, Any]) -> Path:
    # Of the assets only: summaries repeat fields of the items, which declare their extensions themselves.
    collection["stac_extensions"] = used_extensions(collection.get("assets"))
    path = folder / COLLECTION_FILE
    write_json(path, collection)
    return path


def _dataset_asset(folder: Path, asset: DatasetAsset) -> dict[str, Any]:
    path = folder / asset.file
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"the collection of {folder} lists {asset.file!r}, which is no file in this folder")
    entry: dict[str, Any] = {
        "href": href(asset.file),
        "title": asset.title,
        "description": asset.description,
        "type": asset.media_type or MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
        "roles": list(asset.roles),
        **file_fields(path),
    }
    if asset.columns:
        rows = ({"name": name, "type": kind, "description": meaning} for name, kind, meaning in asset.columns)
        entry["table:columns"] = list(rows)
        if any(name == "geometry" for name, _, _ in asset.columns):
            entry["table:primary_geometry"] = "geometry"
    if asset.rows is not None:
        entry["table:row_count"] = asset.rows
    return entry


def _item_files(folder: Path) -> Iterator[str]:
    """Yield the paths of items, relative to the folder, in order; half-written folders (hidden names) are left out."""
    for name in _subfolders(folder):
        if (folder / name / ITEM_FILE).is_file():
            yield f"{name}/{ITEM_FILE}"
        else:
            for inner in _subfolders(folder / name):
                if (folder / name / inner / ITEM_FILE).is_file():
                    yield f"{name}/{inner}/{ITEM_FILE}"


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and is_folder(entry))


def _read_item(path: Path) -> dict[str, Any] | None:
    try:
        item = json.loads(path.read_bytes())
        if item["type"] != "Feature" or not isinstance(item["id"], str):
            raise ValueError("it is no STAC item")
        if item["geometry"] is not None:
            west, south, east, north = map(float, item["bbox"])
            if not (-90 <= south <= north <= 90 and abs(west) <= 180 and abs(east) <= 180):
                raise ValueError(f"its bbox is {item['bbox']}")
        dict(item["properties"]), dict(item["assets"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        _logger.warning("%s is left out of the collection: %s", path, error)
        return None
    return dict(item)


class _Summary:
    """What the items of a run have in common: places, times, values of some properties, kinds of assets."""

    def __init__(self) -> None:
        self.boxes: list[Sequence[float]] = []
        self.assets: dict[str, dict[str, Any]] = {}
        self.first: str | None = None
        self.last: str | None = None
        self._values: dict[str, dict[str, Any]] = {name: {} for name in SUMMARIZED}
        self._counts: list[int] = []

    def add(self, item: Mapping[str, Any]) -> None:
        properties = item["properties"]
        if item["geometry"] is not None:
            self.boxes.append(item["bbox"])
        time = properties.get("datetime")
        if isinstance(time, str):  # of an unknown time, start and end say nothing
            self.first = min(self.first or time, time)
            self.last = max(self.last or time, time)
        for name in SUMMARIZED:
            value = properties.get(name)
            for one in value if isinstance(value, list) else [value]:
                if one is not None:
                    self._values[name][json.dumps(one, sort_keys=True)] = one
        if isinstance(properties.get("darts:objects"), int):
            self._counts.append(properties["darts:objects"])
        for key, asset in item["assets"].items():
            if key not in self.assets:
                self.assets[key] = {name: asset[name] for name in ("title", "type", "roles") if name in asset}

    def interval(self) -> tuple[str | None, str | None]:
        return self.first, self.last

    def summaries(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            name: [values[key] for key in sorted(values)] for name, values in self._values.items() if values
        }
        if self._counts:
            found["darts:objects"] = {"minimum": min(self._counts), "maximum": max(self._counts)}
        return found
