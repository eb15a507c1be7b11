"""Which files hold labels and footprints, and their rows in one form: EPSG:4326, valid, with parsed columns."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from shapely.geometry.base import BaseGeometry

from darts.training.options import LabelOptions
from darts.training.targets import BACKGROUND, IGNORE, SLUMP
from darts_acquisition import parse_cdse_id, parse_gee_id, parse_planet_name
from darts_acquisition.areas import UNREADABLE, read_areas
from darts_utils.errors import ConfigError
from darts_utils.quoting import first_line

LONLAT = "EPSG:4326"
LABELS, FOOTPRINTS = "TrainingLabel", "ImageFootprints"
"""What the names of the published files begin with; the rest is the same in both."""
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIMES = "datetime64[ns, UTC]"
_CENTURIES = "1700-01-01T00:00Z", "2200-01-01T00:00Z"


@dataclass(frozen=True)
class LabelFile:
    """A file of labels, and the one with its footprints."""

    labels: Path
    footprints: Path | None


def label_files(options: LabelOptions) -> Iterator[LabelFile]:
    """Yield the files that options name.

    Raises:
        ConfigError: one is missing, or a folder holds none.
    """
    option = "annotators" if options.annotators else "labels"
    for path in options.annotators or options.labels:
        if not path.exists():
            raise ConfigError(f"{option}: there is no {path}; check --{option}")
        found = [path]
        # A File Geodatabase is a folder that is a file.
        if path.is_dir() and path.suffix.lower() != ".gdb":
            found = sorted(path.glob(f"{LABELS}*.gpkg"))
            if not found:
                raise ConfigError(f"{option}: {path} holds no {LABELS}*.gpkg; name the files themselves")
        for file in found:
            yield LabelFile(file, options.footprints or _footprints_beside(file))


def read_rows(file: Path, options: LabelOptions, problems: Counter[str], what: str) -> gpd.GeoDataFrame:
    """Return the polygons of a file: image_id (None: not told), time, region, label, geometry in EPSG:4326.

    Raises:
        ConfigError: it cannot be read as vectors, or has no CRS.
    """
    table = _read(file)
    if table.crs is None:
        raise ConfigError(f"{file} has no CRS; write it into the file (ogr2ogr -a_srs) first")
    usable = table.geom_type.isin(["Polygon", "MultiPolygon", "GeometryCollection"]) & ~table.is_empty
    if not usable.all():
        problems[f"{what} that are no polygons; left out"] += int((~usable).sum())
    table = table[usable].reset_index(drop=True)
    endless = _with_endless_coordinates(table.geometry)
    if endless.any():
        problems[f"{what} with coordinates that are no numbers; left out"] += int(endless.sum())
        table = table[~endless].reset_index(drop=True)
    if broken := int((~table.is_valid).sum()):
        problems[f"{what} with invalid outlines; repaired"] += broken
    geometries = _lonlat(table.geometry.make_valid())
    rows = gpd.GeoDataFrame(
        {
            "image_id": _texts(table, options.image_column),
            "time": _times(table, options.date_column),
            "region": _texts(table, options.region_column).map(_spelt, na_action="ignore").astype(object),
            "label": _values(table, options.label_column, problems) if what == "labels" else SLUMP,
        },
        geometry=geometries,
        crs=LONLAT,
    )
    without_area = rows.geometry.isna()
    if without_area.any():
        problems[f"{what} that enclose no area; left out"] += int(without_area.sum())
    return rows[~without_area].reset_index(drop=True)


def read_footprints(file: Path, options: LabelOptions, problems: Counter[str]) -> gpd.GeoDataFrame:
    """Return the footprints of a file; dates that are none come from the image's id.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
    """
    if not file.exists():
        raise ConfigError(f"footprints: there is no {file}; check --footprints")
    rows = read_rows(file, options, problems, "footprints")
    if rows["image_id"].isna().all() and len(rows) == 1 and options.image_id is not None:
        rows["image_id"] = options.image_id
    numbered = pd.Series([f"{file.stem}-{number}" for number in range(1, len(rows) + 1)], rows.index, dtype=object)
    rows["image_id"] = rows["image_id"].fillna(numbered)
    undated = rows["time"].isna()
    if undated.any():
        told = rows.loc[undated, "image_id"].map(_time_in_id)
        rows.loc[undated, "time"] = _in_nanoseconds(pd.to_datetime(told, utc=True, errors="coerce"))
        if named := int((undated & rows["time"].notna()).sum()):
            problems["footprints without a date that can be read; taken from the image id"] += named
    return rows


def _footprints_beside(file: Path) -> Path | None:
    if not file.name.startswith(LABELS):
        return None
    beside = file.with_name(FOOTPRINTS + file.name.removeprefix(LABELS))
    return beside if beside.exists() else None


def _read(file: Path) -> gpd.GeoDataFrame:
    if file.suffix.lower() in (".parquet", ".geoparquet"):
        try:
            return gpd.read_parquet(file)
        except UNREADABLE as error:
            raise ConfigError(f"{file} cannot be read as GeoParquet: {first_line(error)}") from error
    try:
        layers = gpd.list_layers(file)
        names = layers["name"][layers["geometry_type"].notna()]
        table = gpd.read_file(file, layer=names.iloc[0]) if len(names) == 1 else None
    except UNREADABLE as error:
        raise ConfigError(f"{file} cannot be read as vectors: {first_line(error)}") from error
    if table is None:
        raise ConfigError(f"{file} has {len(names)} layers with geometries; write the right one into a file of its own")
    return table


def _with_endless_coordinates(geometries: gpd.GeoSeries) -> np.ndarray:
    """Return which geometries have a coordinate that is NaN or infinite, which nothing can repair."""
    coordinates, rows = shapely.get_coordinates(geometries.to_numpy(), return_index=True)
    found = np.zeros(len(geometries), bool)
    found[rows[~np.isfinite(coordinates).all(axis=1)]] = True
    return found


def _lonlat(geometries: gpd.GeoSeries) -> "list[BaseGeometry | None]":
    """Return areas in EPSG:4326; None for those that enclose none, or lie outside their CRS."""
    try:
        return list(read_areas(geometries)) if len(geometries) else []
    except ConfigError:
        if len(geometries) == 1:
            return [None]
        # One bad row refuses all of them: halve until it stands alone.
        half = len(geometries) // 2
        return _lonlat(geometries[:half]) + _lonlat(geometries[half:])


def _texts(table: gpd.GeoDataFrame, column: str) -> pd.Series:
    if column not in table:
        return pd.Series(None, table.index, dtype=object)
    texts = table[column].astype(object).map(lambda value: str(value).strip(), na_action="ignore")
    # Of nothing but gaps, pandas would make numbers.
    return texts.where(texts.notna() & (texts != ""), None).astype(object)


def _spelt(region: str) -> str:
    """Return a region's name in one spelling: `Banks_Island` is `Banks Island`."""
    return " ".join(region.replace("_", " ").split())


def _times(table: gpd.GeoDataFrame, column: str) -> pd.Series:
    """Return times, UTC; NaT where there is none that can be read."""
    if column not in table:
        return pd.Series(pd.NaT, table.index, dtype=_TIMES)
    texts = table[column].astype(object).map(str)
    # pandas would read 202-00-722, too.
    texts = texts.where(texts.str.match(_DAY), None)
    return _in_nanoseconds(pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601"))


def _in_nanoseconds(times: pd.Series) -> pd.Series:
    """Return times as `_TIMES`; NaT for those of other centuries, which nanoseconds do not hold."""
    first, last = map(pd.Timestamp, _CENTURIES)
    return times.where(times.between(first, last)).astype(pd.DatetimeTZDtype("ns", "UTC"))


def _time_in_id(image_id: str) -> Any:
    """Return the time that the id of an image tells; NaT where it tells none."""
    with suppress(ConfigError):
        name = parse_planet_name(image_id)
        return pd.Timestamp(name.day, tz="UTC") if name.time is None else pd.Timestamp(name.time)
    for parse in (parse_cdse_id, parse_gee_id):
        with suppress(ConfigError):
            return pd.Timestamp(parse(image_id).acquired)
    return pd.NaT


def _values(table: gpd.GeoDataFrame, column: str, problems: Counter[str]) -> Any:
    """Return the values of labels, uint8; 1, 1.0 and "1" are one."""
    if column not in table:
        return np.full(len(table), SLUMP, "uint8")
    numbers = pd.to_numeric(table[column], errors="coerce")
    known = numbers.isin([BACKGROUND, SLUMP, IGNORE])
    if not known.all():
        problems["labels with a value other than 0, 1 or 2, or none; their area is ignored"] += int((~known).sum())
    return numbers.where(known, IGNORE).astype("uint8").to_numpy()
