"""Polygons as GeoParquet and GeoPackage; the same input gives the same bytes."""

import io
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyarrow.parquet as pq
import pyogrio

TAGS_KEY = b"darts"
"""Key of the schema metadata that holds the `DARTS_*` tags as JSON."""

GEOMETRY_COLUMN = "geom"
"""Of GeoPackages."""

_FIXED_TIME = "1970-01-01T00:00:00.000Z"

_STYLES_TABLE = """
CREATE TABLE layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
  f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
  useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME
)
"""


def write_parquet(path: Path, frame: gpd.GeoDataFrame, tags: Mapping[str, Any] | None = None) -> None:
    """Write GeoParquet 1.1 (WKB, with a bbox column), and the tags as JSON in the metadata of its schema."""
    whole = io.BytesIO()
    frame.to_parquet(
        whole,
        index=False,
        compression=None,
        geometry_encoding="WKB",
        write_covering_bbox=True,
        schema_version="1.1.0",
    )
    table = pq.read_table(whole)
    metadata = table.schema.metadata | {TAGS_KEY: json.dumps(dict(tags or {}), ensure_ascii=False).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def write_geopackage(path: Path, frame: gpd.GeoDataFrame, style: str | None = None) -> None:
    """Write a GeoPackage of multipolygons whose layer has the file's name, and a style with which QGIS opens it."""
    # On a disk that is full for a moment GDAL leaves out rows, such as that of the CRS, and says nothing.
    memory = io.BytesIO()
    pyogrio.write_dataframe(
        frame,
        memory,
        driver="GPKG",
        layer=path.stem,
        geometry_type="MultiPolygon",
        promote_to_multi=True,
        use_arrow=True,
        GEOMETRY_NAME=GEOMETRY_COLUMN,
        VERSION="1.2",  # QGIS of Debian 12 warns of later ones
    )
    path.write_bytes(memory.getbuffer())
    with closing(sqlite3.connect(path)) as database, database:
        finish_geopackage(database, path.stem, style)


def finish_geopackage(database: sqlite3.Connection, layer: str, style: str | None) -> None:
    """Add the style of a layer that GDAL has written, and a time that is always the same."""
    if style is not None:
        _add_style(database, layer, style)
    # GDAL stamps the time of writing; an option against it holds for the whole process, other threads included.
    database.execute("UPDATE gpkg_contents SET last_change = ?", (_FIXED_TIME,))


def _add_style(database: sqlite3.Connection, layer: str, style: str) -> None:
    database.execute(_STYLES_TABLE)
    database.execute(
        "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
        "styleQML, styleSLD, useAsDefault, description, owner, update_time) "
        "VALUES ('', '', ?, ?, ?, ?, '', 1, '', '', ?)",
        (layer, GEOMETRY_COLUMN, layer, style, _FIXED_TIME),
    )
