"""The STAC item of a tile: what its files are, where and when it was seen, how it was made."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import shapely
import xarray as xr

from darts_export.export import Export
from darts_export.metadata import PREFIX
from darts_export.rasters import tile_geobox
from darts_export.stac_assets import (
    MEDIA_TYPES,
    STAC_VERSION,
    file_fields,
    href,
    stac_time,
    used_extensions,
    write_json,
)
from darts_export.stac_geometry import rounded, to_geographic, valid_hull
from darts_utils.arrays import to_host

UNKNOWN_TIME = ("1970-01-01T00:00:00Z", "2099-12-31T23:59:59Z")
"""Start and end of an item whose acquisition time is unknown: STAC asks for some, and these hide it from no search."""

COMMON_NAMES = (
    "coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09",
    "swir16", "swir22",
)  # fmt: skip
"""Bands that are named as in the extension `eo`."""

CLASSES: Mapping[str, Sequence[tuple[int, str, str]]] = {
    "binarized_segmentation": ((0, "background", "No thaw feature"), (1, "thaw_feature", "Thaw feature")),
    "extent": ((0, "unseen", "Not seen, or too near to what was not"), (1, "seen", "Seen")),
    "quality_data_mask": ((0, "invalid", "Invalid"), (1, "low", "Low quality"), (2, "high", "High quality")),
}
"""Value, name and meaning of the classes of a raster, by the stem of its band."""

TITLES: Mapping[str, str] = {
    "probabilities": "Probability of thaw features",
    "probability_std": "Spread of probability between models",
    "binarized": "Thaw features as a mask",
    "prediction_segments": "Thaw features as polygons",
    "prediction_cut_segments": "Thaw features that reach outside the extent",
    "prediction_extent": "What was seen, and seen clear",
    "thumbnail": "Picture in natural colours with the thaw features",
    "preview": "Page to look at the tile",
    "optical": "Reflectance",
    "dem": "Terrain",
    "tcvis": "Landsat trends",
    "darts_inference": "How the files were made",
    "darts_inference_debug": "The whole tile as it was in memory",
}
"""A line on a file, by its stem; a model and a threshold may follow the stem."""

_OWN_FIELD = ("tile_id", "tileid", "acquisition_time", "azimuth", "elevation", "software", "version")
"""Tags that have a field of STAC, so that they don't come a second time as `darts:*`."""

_KEYS = {".parquet": "geoparquet", ".gpkg": "geopackage"}


def write_item(path: Path, export: Export, files: Sequence[str] | None = None) -> None:
    """Write the STAC item of a tile; its id is the tile's id, its links to files are relative.

    Write it last: bands are described as the rasters have them, sizes and checksums are those of the files that are
    there. The same tile gives the same bytes.

    Args:
        path: `item.json` in the tile's folder.
        export: the tile on its way to files.
        files: names of the files it lists; None: those in the folder.

    Raises:
        StoreError: the file cannot be written.
    """
    write_json(path, describe_item(path, export, files))


def describe_item(path: Path, export: Export, files: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the STAC item that `write_item` writes."""
    if files is None:
        files = sorted(file.name for file in path.parent.iterdir() if file.is_file() and not file.name.startswith("."))
    geobox = tile_geobox(export.tile)
    outline = valid_hull(_extent(export.tile), geobox.affine)
    place = to_geographic(outline, geobox.crs)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        "id": str(export.ids["tile_id"]),
        "geometry": place and {"type": place[0].geom_type, "coordinates": rounded(_coordinates(place[0]))},
        "bbox": place and rounded(place[1]),
        "properties": {
            **_time(export.ids.get("acquisition_time")),
            **_instrument(export.tile, geobox),
            **_projection(geobox, outline),
            **_making(export),
        },
        "links": [],
        "assets": {_key(file): _asset(path.parent / file) for file in files if file != path.name},
    }
    if place is None:
        del item["bbox"]
    item["stac_extensions"] = used_extensions(item)
    return item


def _extent(tile: xr.Dataset) -> np.ndarray:
    if "extent" in tile:
        return np.asarray(to_host(tile["extent"].data), bool)
    return np.ones(tile_geobox(tile).shape, bool)


def _coordinates(geometry: Any) -> Any:
    return shapely.geometry.mapping(geometry)["coordinates"]


def _time(acquired: Any) -> dict[str, Any]:
    if pd.isna(acquired):
        return {"datetime": None, "start_datetime": UNKNOWN_TIME[0], "end_datetime": UNKNOWN_TIME[1]}
    return {"datetime": stac_time(acquired.to_pydatetime())}


def _instrument(tile: xr.Dataset, geobox: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if geobox.crs.projected:
        fields["gsd"] = float(abs(geobox.resolution.x))
    if tile.attrs.get("sensor"):
        fields["constellation"] = str(tile.attrs["sensor"]).lower()
    for name, lowest, highest in (("azimuth", 0, 360), ("elevation", -90, 90)):
        angle = _number(tile.attrs.get(name))
        if angle is not None and lowest <= angle <= highest:
            fields[f"view:sun_{name}"] = angle
    return fields


def _projection(geobox: Any, outline: Any) -> dict[str, Any]:
    code = geobox.crs.to_epsg()
    fields: dict[str, Any] = {"proj:code": f"EPSG:{code}" if code else None}
    if not code:
        fields["proj:wkt2"] = geobox.crs.to_wkt()
    left, bottom, right, top = geobox.boundingbox.bbox
    return fields | {
        "proj:bbox": [left, bottom, right, top],
        "proj:geometry": {
            "type": "Polygon",
            "coordinates": _lists(_coordinates(shapely.geometry.polygon.orient(outline))),
        },
        "proj:shape": [int(side) for side in geobox.shape],
        "proj:transform": [float(number) for number in tuple(geobox.affine)[:6]],
    }


def _making(export: Export) -> dict[str, Any]:
    """Return software and, as `darts:*`, all tags that STAC has no field for."""
    tags = {name.removeprefix(PREFIX): value for name, value in export.tags.items()}
    software = dict([str(tags["software"]).split(" ", 1)]) if " " in str(tags.get("software")) else {}
    if tags.get("version"):
        software["darts"] = str(tags["version"])
    fields: dict[str, Any] = {"processing:software": software} if software else {}
    if {"binarized_segmentation", "probabilities"} <= set(export.tile.data_vars):
        fields["darts:objects"] = len(export.segments)
    return fields | {f"darts:{name}": tags[name] for name in sorted(tags) if name not in _OWN_FIELD}


def _key(file: str) -> str:
    """Return an asset's key: the file's stem, with the format where several files share it."""
    name = Path(file)
    format = _KEYS.get(name.suffix)
    return f"{name.stem}-{format}" if format else name.stem


def _asset(path: Path) -> dict[str, Any]:
    title = _title(path)
    asset: dict[str, Any] = {
        "href": href(path.name),
        **({"title": title} if title else {}),
        "type": MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
        "roles": _roles(path),
        **file_fields(path),
    }
    if path.suffix == ".tif" and path.is_file():
        asset["bands"] = _bands(path)
    return asset


def _title(path: Path) -> str:
    """Return a line on a file by its stem (the longest that fits, before a model or threshold), "" if none fits."""
    known = [stem for stem in TITLES if path.stem == stem or path.stem.startswith(f"{stem}-")]
    if not known:
        return ""
    stem = max(known, key=len)
    return TITLES[stem] + (f" ({path.stem[len(stem) + 1 :]})" if path.stem != stem else "")


def _roles(path: Path) -> list[str]:
    if path.stem == "thumbnail":
        return ["thumbnail"]
    if path.suffix in (".json", ".html"):
        return ["metadata"] if path.suffix == ".json" else ["overview"]
    return ["data"]


def _bands(path: Path) -> list[dict[str, Any]]:
    """Return the bands of a raster as its file describes them."""
    bands = []
    with rasterio.open(path) as source:
        for number in range(source.count):
            name = source.descriptions[number] or f"band {number + 1}"
            band: dict[str, Any] = {"name": name, "data_type": source.dtypes[number]}
            nodata = source.nodatavals[number]
            if nodata is not None:
                band["nodata"] = "nan" if math.isnan(nodata) else _whole(nodata)
            if source.units[number]:
                band["unit"] = source.units[number]
            if name in COMMON_NAMES:
                band["eo:common_name"] = name
            if (source.scales[number], source.offsets[number]) != (1, 0):
                band |= {"raster:scale": source.scales[number], "raster:offset": source.offsets[number]}
            classes = CLASSES.get(name.partition("-")[0])
            if classes:
                band["classification:classes"] = [
                    {"value": value, "name": label, "description": meaning} for value, label, meaning in classes
                ]
            bands.append(band)
    return bands


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole(number: float) -> float | int:
    return int(number) if number == int(number) else number


def _lists(values: Any) -> Any:
    return [_lists(value) for value in values] if isinstance(values, list | tuple) else float(values)
