"""Tables of the dataset to GeoParquet and GeoPackage, a part at a time."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely
from pyproj import CRS

from darts_export.completeness import is_complete
from darts_export.dataset.columns import stored_schema
from darts_export.dataset.spill import read_schema, read_tables, write_table
from darts_export.styles import extent_style, outline_style, probability_style
from darts_export.vector_files import GEOMETRY_COLUMN, finish_geopackage
from darts_utils.errors import StoreError

_BOX = ("xmin", "ymin", "xmax", "ymax")
_BBOX_TYPE = pa.struct([(name, pa.float64()) for name in _BOX])
_ROWS_AT_ONCE = 20_000


STYLES = {
    "level1": probability_style("pval_mean"),
    "level2": probability_style("pval_mean"),
    "slumps": outline_style(),
    "coverage": extent_style(),
}
"""How QGIS draws each table."""


def write_part(path: Path, table: str, columns: Mapping[str, Any], geometry: np.ndarray) -> None:
    """Write rows of a table as an Arrow file, with the bounds of all of them."""
    schema = stored_schema(table)
    arrays = {name: pa.Array.from_pandas(columns[name], type=schema.field(name).type, safe=False) for name in columns}
    arrays["geometry"] = pa.array(shapely.to_wkb(geometry), pa.binary())
    bounds = json.dumps(shapely.total_bounds(geometry).tolist()) if len(geometry) else "null"
    rows = pa.table([arrays[name] for name in schema.names], schema=schema.with_metadata({"bounds": bounds}))
    write_table(path, rows)


def write_geoparquet(path: Path, table: str, parts: Sequence[Path]) -> int:
    """Write parts of a table as GeoParquet 1.1 with a bbox column, and return the number of rows."""
    bounds = [found for part in parts if (found := json.loads(read_schema(part).metadata[b"bounds"]))]
    schema = stored_schema(table).append(pa.field("bbox", _BBOX_TYPE))
    schema = schema.with_metadata({"geo": json.dumps(_geo_metadata(bounds))})
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for part in read_tables(parts):
            if len(part):
                boxes = shapely.bounds(shapely.from_wkb(part["geometry"].to_numpy(zero_copy_only=False)))
                column = pa.StructArray.from_arrays([pa.array(side) for side in boxes.T], fields=list(_BBOX_TYPE))
                writer.write_table(part.append_column(schema.field("bbox"), column).cast(schema))
                rows += len(part)
    return rows


def write_geopackage(path: Path, table: str, source: Path, rows: int) -> None:
    """Write a GeoPackage of multipolygons from a GeoParquet file of ours; the layer has the file's name.

    Raises:
        StoreError: it did not come out with all of the `rows`.
    """
    schema = stored_schema(table)
    with pq.ParquetFile(source) as file:
        batches = (
            _promoted(batch, schema) for batch in file.iter_batches(_ROWS_AT_ONCE, columns=schema.names)
        )  # fmt: skip
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(schema, batches),
            path,
            driver="GPKG",
            layer=path.stem,
            geometry_name="geometry",
            geometry_type="MultiPolygon",
            crs="EPSG:4326",
            GEOMETRY_NAME=GEOMETRY_COLUMN,
            VERSION="1.2",  # QGIS of Debian 12 warns of later ones
        )
    with closing(sqlite3.connect(path)) as database, database:
        finish_geopackage(database, path.stem, STYLES[table])
        (written,) = database.execute(f'SELECT count(*) FROM "{path.stem}"').fetchone()
    if written != rows or not is_complete(path):  # GDAL can fail without a word when a disk is full
        raise StoreError(f"{path.name} came out with {written} of {rows} rows. Is the disk full?")


def _promoted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    geometry = shapely.from_wkb(batch.column("geometry").to_numpy(zero_copy_only=False))
    parts, owner = shapely.get_parts(geometry, return_index=True)
    wkb: Any = shapely.to_wkb(shapely.multipolygons(parts, indices=owner)) if len(parts) else []
    at = schema.names.index("geometry")
    return batch.set_column(at, schema.field(at), pa.array(wkb, pa.binary()))


def _geo_metadata(bounds: list[list[float]]) -> dict[str, Any]:
    column: dict[str, Any] = {
        "encoding": "WKB",
        "crs": CRS.from_epsg(4326).to_json_dict(),
        "geometry_types": ["MultiPolygon", "Polygon"],
        "edges": "planar",
        "covering": {"bbox": {name: ["bbox", name] for name in _BOX}},
    }
    if bounds:
        sides = np.array(bounds)
        column["bbox"] = [*sides[:, :2].min(axis=0).tolist(), *sides[:, 2:].max(axis=0).tolist()]
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
