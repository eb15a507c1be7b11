"""Counts and areas by year and region, read from the tables of the dataset."""

import re
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pyogrio
import shapely
from pyogrio.errors import DataSourceError

from darts_export.dataset.columns import SUMMARY
from darts_export.dataset.coverage import Cell, cell_at
from darts_export.dataset.planes import NORTH, SOUTH, polygons_of, project, project_points, to_lonlat
from darts_utils.errors import ConfigError

ALL = "all"
_CELL_NAME = re.compile(r"[NS][+-]\d{5}[+-]\d{5}")
_LONGEST_EDGE_M, _LONGEST_EDGE_DEGREES = 10_000.0, 0.1
"""Longer edges of regions are divided before they go to longitude and latitude."""
_ALL_YEARS = -1
_KEYS = ["region", "year"]


def read_regions(path: Path, column: str | None = None) -> gpd.GeoDataFrame:
    """Return the polygons of a vector file in EPSG:4326, with their `region` from `column` (None: the first text).

    Raises:
        ConfigError: the file cannot be read, or has no such column, or no polygons in a known CRS.
    """
    try:
        regions = pyogrio.read_dataframe(path)
    except (DataSourceError, OSError) as error:
        raise ConfigError(f"regions cannot be read from {path}: {error}") from error
    texts = [name for name in regions.columns if pd.api.types.is_string_dtype(regions[name]) and name != "geometry"]
    name = column or (texts[0] if texts else None)
    if name is None or name not in regions.columns:
        raise ConfigError(
            f"{path} has no column {column or 'of text'!r} to name regions by; it has {[*regions.columns]}"
        )
    if regions.crs is None or not regions.geom_type.isin(["Polygon", "MultiPolygon"]).all():
        raise ConfigError(f"{path} must hold polygons, with a CRS")
    if regions[name].isna().any():
        raise ConfigError(f"{path} has {regions[name].isna().sum()} polygons without a {name}: name them, or leave out")
    names = regions[name].astype(str)
    taken = sorted(region for region in set(names) if region == ALL or _CELL_NAME.fullmatch(region))
    if taken:
        raise ConfigError(f"{path} names a region {taken[0]!r}, which the summary uses itself; rename it")
    frame = gpd.GeoDataFrame({"region": names}, geometry=_to_lonlat(regions.geometry), crs="EPSG:4326")
    # One that comes in several rows is one, so that nothing of it counts twice.
    return frame.dissolve("region").reset_index()


def _to_lonlat(regions: gpd.GeoSeries) -> np.ndarray:
    """Return polygons in EPSG:4326, those that a plane has whole cut at ±180°."""
    geometry = shapely.make_valid(np.asarray(regions.values))
    bounds = shapely.bounds(geometry)
    if regions.crs.is_geographic and (np.abs(bounds[:, [0, 2]]) <= 180).all():
        return np.asarray(
            shapely.make_valid(np.asarray(gpd.GeoSeries(geometry, crs=regions.crs).to_crs("EPSG:4326").values))
        )
    crs = regions.crs.to_wkt()
    edge = _LONGEST_EDGE_DEGREES if regions.crs.is_geographic else _LONGEST_EDGE_M
    dense = shapely.segmentize(geometry, edge)
    x, y = shapely.get_coordinates(shapely.centroid(dense)).T
    _, latitude = project_points(x, y, crs, "EPSG:4326")
    lonlat = dense.copy()
    for plane, here in ((NORTH, latitude >= 0), (SOUTH, latitude < 0)):
        lonlat[here] = to_lonlat(dense[here], crs, plane)
    return np.array([polygons_of(one) for one in shapely.make_valid(lonlat)], dtype=object)


def summarize(folder: Path, regions: gpd.GeoDataFrame | None = None) -> pd.DataFrame:
    """Return the summary of the tables in `folder`, a row for each region and year, and for all years.

    A footprint belongs to the cell, and to the regions, that hold the middle of its bounding box.
    """
    parts = []
    for table, count in (("level1", "n_level1"), ("level2", "n_level2"), ("slumps", "n_slumps")):
        for rows in _places(folder / f"{table}.parquet", regions):
            number = rows.assign(**{count: 1}).drop(columns="area_km2" if table != "level2" else [])
            parts.append(number.groupby(_KEYS, as_index=False).sum())
            if table != "slumps":
                every = number.assign(year=_ALL_YEARS).drop(columns="area_km2", errors="ignore")
                parts.append(every.groupby(_KEYS, as_index=False).sum())
            if table == "level2":  # a slump has one footprint a year
                parts[-2]["n_slumps"] = parts[-2][count]
    parts += list(_areas(folder / "coverage.parquet", regions))
    nothing = pd.DataFrame({"region": pd.Series(dtype=object), "year": pd.Series(dtype="int64")})
    numbers = pd.concat([nothing, *parts]).groupby(_KEYS).sum(min_count=1).reset_index()
    for column in SUMMARY:
        if column.name not in numbers and column.name not in ("longitude", "latitude"):
            numbers[column.name] = np.nan
    counts = ["n_level1", "n_level2", "n_slumps"]
    numbers[counts] = numbers[counts].fillna(0).astype("int64")
    one_year = numbers["year"] != _ALL_YEARS
    areas = ["area_km2", "seen_km2", "clear_km2"]
    numbers[areas] = numbers[areas].fillna(0).where(one_year)
    middle = {name: _middle(name) for name in numbers["region"].unique()}
    numbers["longitude"] = [middle[name][0] for name in numbers["region"]]
    numbers["latitude"] = [middle[name][1] for name in numbers["region"]]
    numbers["year"] = numbers["year"].astype("Int32").where(one_year)
    first = numbers["region"] != ALL
    order = numbers.assign(first=first).sort_values(["first", "region", "year"], na_position="first").index
    return numbers.loc[order, [column.name for column in SUMMARY]].reset_index(drop=True)


def write_summary(folder: Path, summary: pd.DataFrame) -> None:
    """Write the summary as Parquet and as CSV."""
    schema = pa.schema([(column.name, column.type) for column in SUMMARY])
    table = pa.Table.from_pandas(summary, schema=schema, preserve_index=False, safe=False).replace_schema_metadata()
    pq.write_table(table, folder / "summary.parquet", compression="zstd")
    rounded = summary.round({"area_km2": 6, "seen_km2": 3, "clear_km2": 3, "longitude": 4, "latitude": 4})
    plain = pa.Table.from_pandas(rounded, schema=schema, preserve_index=False, safe=False)
    pyarrow.csv.write_csv(plain, folder / "summary.csv", pyarrow.csv.WriteOptions(quoting_style="needed"))


def middles(boxes: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return longitude and latitude of the middles of bounding boxes; of what crosses ±180° it lies there."""
    left, bottom, right, top = (
        boxes.field(name).to_numpy(zero_copy_only=False) for name in ("xmin", "ymin", "xmax", "ymax")
    )  # fmt: skip
    return np.where(right - left > 180, 180.0, (left + right) / 2), (bottom + top) / 2


def _places(path: Path, regions: gpd.GeoDataFrame | None) -> Iterator[pd.DataFrame]:
    """Give region and year of the rows of a table, a row for each region they belong to."""
    with pq.ParquetFile(path) as file:
        names = [name for name in ("year", "area_m2", "bbox") if name in file.schema_arrow.names]
        for batch in file.iter_batches(100_000, columns=names):
            longitude, latitude = middles(batch.column("bbox"))
            year = batch.column("year").to_numpy() if "year" in names else np.full(len(batch), _ALL_YEARS)
            rows = pd.DataFrame({"year": year.astype("int64"), "area_km2": batch.column("area_m2").to_numpy() / 1e6})
            yield rows.assign(region=ALL)
            yield rows.assign(region=_cells(longitude, latitude))
            if regions is not None:
                points, region = shapely.STRtree(regions.geometry.values).query(
                    shapely.points(longitude, latitude), predicate="intersects"
                )
                yield rows.iloc[points].assign(region=regions["region"].to_numpy()[region])


def _cells(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    names = np.empty(len(longitude), dtype=object)
    for plane in (NORTH, SOUTH):
        here = (latitude >= 0) == (plane == NORTH)
        places = cell_at(*project_points(longitude[here], latitude[here], "EPSG:4326", plane))
        names[here] = [Cell(plane, int(across), int(up)).name for across, up in zip(*places, strict=True)]
    return names


def _areas(path: Path, regions: gpd.GeoDataFrame | None) -> Iterator[pd.DataFrame]:
    names = ["year", "kind", "region", "area_km2", *(["geometry"] if regions is not None else [])]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(2000, columns=names):
            rows = batch.select(names[:4]).to_pandas()
            yield from (_by_kind(rows), _by_kind(rows.assign(region=ALL)))
            if regions is not None:
                covered = shapely.from_wkb(batch.column("geometry").to_numpy(zero_copy_only=False))
                polygon, region = shapely.STRtree(regions.geometry.values).query(covered, predicate="intersects")
                common = shapely.intersection(covered[polygon], regions.geometry.values[region])
                inside = rows.iloc[polygon].assign(region=regions["region"].to_numpy()[region])
                south = rows["region"].str.startswith("S").to_numpy()[polygon]
                area = np.zeros(len(common))
                for plane, here in ((NORTH, ~south), (SOUTH, south)):
                    flat = project(common[here], "EPSG:4326", plane, longest_edge=0.05)
                    area[here] = shapely.area(flat) / 1e6
                yield _by_kind(inside.assign(area_km2=area))


def _by_kind(rows: pd.DataFrame) -> pd.DataFrame:
    kind = rows["kind"].map({"seen": "seen_km2", "clear": "clear_km2"})
    total = rows.assign(kind=kind).groupby([*_KEYS, "kind"])["area_km2"].sum().unstack("kind")
    return total.reset_index().rename_axis(columns=None)


def _middle(region: str) -> tuple[float, float]:
    if not _CELL_NAME.fullmatch(region):
        return np.nan, np.nan
    return Cell(NORTH if region[0] == "N" else SOUTH, int(region[1:7]) // 100, int(region[7:]) // 100).middle()
