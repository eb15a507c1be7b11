"""The STAC collection of the dataset."""

from collections.abc import Mapping
from datetime import UTC, datetime, time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from darts_export.dataset.columns import SUMMARY, TABLES
from darts_export.stac_collection import DatasetAsset, write_dataset_collection
from darts_export.stac_geometry import united_bbox
from darts_utils.quoting import counted

ABOUT = {
    "level1": ("Level 1", "a footprint for each slump and observation, joined across tiles"),
    "level2": ("Level 2", "a footprint for each slump and calendar year: the largest extent"),
    "slumps": ("Slumps", "a row for each slump across years, with the change of its area"),
    "coverage": ("Coverage", "what was seen, and what was seen clear, by year and cell of 100 km"),
}


def write_catalogue(folder: Path, name: str, tiles: pd.DataFrame, rows: Mapping[str, int]) -> None:
    """Write `collection.json` over the files in `folder`; `name` is that of the dataset."""
    assets: dict[str, DatasetAsset] = {}
    for table, (title, description) in ABOUT.items():
        columns = [(column.name, str(column.type), column.meaning) for column in TABLES[table]]
        columns.append(("geometry", "binary", "polygon, EPSG:4326"))
        for suffix, form in (("parquet", "GeoParquet"), ("gpkg", "GeoPackage")):
            assets[f"{table}-{suffix}"] = DatasetAsset(
                file=f"{table}.{suffix}", title=f"{title} ({form})", description=description, columns=columns,
                rows=rows[table],
            )  # fmt: skip
    columns = [(column.name, str(column.type), column.meaning) for column in SUMMARY]
    for suffix in ("parquet", "csv"):
        assets[f"summary-{suffix}"] = DatasetAsset(
            file=f"summary.{suffix}", title=f"Summary ({suffix})", description="counts and areas by year and region",
            columns=columns,
        )  # fmt: skip
    assets["map"] = DatasetAsset(
        file="map.png", title="Map", description="slumps and coverage", roles=("overview", "thumbnail")
    )
    boxes = pq.read_table(folder / "coverage.parquet", columns=["bbox"])["bbox"].to_pylist()
    days = pd.to_datetime(tiles["time"], utc=True)
    columns_told = (("darts:sensors", "sensor"), ("darts:models", "model"), ("darts:made_by", "made_by"))
    told = {name: sorted(set(tiles[column]) - {""}) for name, column in columns_told}
    write_dataset_collection(
        folder,
        assets,
        id=name,
        title=f"DARTS dataset: {name}",
        description="Retrogressive thaw slumps and active-layer detachments, found by darts and merged from "
        f"{counted(len(tiles), 'tile')}.",
        bbox=united_bbox([tuple(box.values()) for box in boxes]) if boxes else (-180.0, -90.0, 180.0, 90.0),
        start=datetime.combine(days.min().date(), time(), UTC),
        end=datetime.combine(days.max().date(), time(23, 59, 59), UTC),
        keywords=("permafrost", "thaw slump", "Arctic"),
        summaries={name: values for name, values in told.items() if values},  # STAC has no empty ones
    )
