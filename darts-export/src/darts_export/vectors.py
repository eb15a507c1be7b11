"""Polygons of objects and of the extent, with attributes; written as GeoParquet and GeoPackage."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import rasterio.features
import shapely
import xarray as xr
from pyproj import Geod, Transformer

from darts_export.rasters import tile_geobox
from darts_utils.arrays import to_host

_TIME = "datetime64[ms, UTC]"

SEGMENT_COLUMNS: Mapping[str, str] = {
    "Region_ID": "int32",
    "min": "float64",
    "max": "float64",
    "mean": "float64",
    "median": "float64",
    "std": "float64",
    "npixel": "int64",
    "area_m2": "float64",
    "tile_id": "string",
    "image_id": "string",
    "sensor": "string",
    "acquisition_time": _TIME,
    "model": "string",
}
"""Columns and types of segments, the same with and without detections."""

EXTENT_COLUMNS: Mapping[str, str] = {
    "kind": "string",
    **{name: SEGMENT_COLUMNS[name] for name in ("tile_id", "image_id", "sensor", "acquisition_time")},
}
"""Columns and types of the extent."""

SCL_CLOUDS = (8, 9, 10)
"""Classes of the Sentinel-2 scene classification: cloud of medium and high probability, thin cirrus."""

UDM_CLOUDS = 0b0011_1000
"""Bits of `planet_udm`: light haze, heavy haze, cloud."""

LONGEST_EDGE_PX = 20
"""Longer edges are divided before they go to longitude and latitude, so that they stay straight in the tile's CRS."""

_FIXED_TIME = "1970-01-01T00:00:00.000Z"


def segments(
    tile: xr.Dataset, objects: np.ndarray, probabilities: np.ndarray, model: str, ids: Mapping[str, Any]
) -> gpd.GeoDataFrame:
    """Return one row for each 8-connected region of `objects` (bool), in raster order of their first pixels.

    `min`, `max`, `mean`, `median` and (population) `std` are of the finite `probabilities` (0 to 1) on the region,
    `npixel` counts its pixels, `area_m2` is geodesic on WGS 84. Geometries are valid polygons in the tile's CRS that
    follow the pixels; parts that meet at corners alone make a multipolygon; holes stay.
    """
    geobox = tile_geobox(tile)
    top, left, window = _window(objects)
    labels, count = _numbered(window)
    around = np.s_[top : top + window.shape[0], left : left + window.shape[1]]
    geometry = _outlines(labels, window, count, geobox[around].affine if count else None)
    pixel = max(abs(geobox.resolution.x), abs(geobox.resolution.y))
    columns = {
        "Region_ID": np.arange(1, count + 1),
        **_statistics(labels[window], probabilities[around][window].astype("float64"), count),
        "area_m2": geodesic_area_m2(geometry, str(geobox.crs), longest_edge=LONGEST_EDGE_PX * pixel),
        **ids,
        "model": model,
    }
    return _frame(SEGMENT_COLUMNS, columns, geometry, geobox.crs)


def extent(tile: xr.Dataset, ids: Mapping[str, Any]) -> gpd.GeoDataFrame:
    """Return two rows: `seen`, the tile's extent, and `clear`, the part of it with quality 2 and without any cloud."""
    geobox = tile_geobox(tile)
    seen = to_host(tile["extent"].data).astype(bool)
    clear = seen & (to_host(tile["quality_data_mask"].data) == 2)
    if "s2_scl" in tile:
        clear &= ~np.isin(to_host(tile["s2_scl"].data), SCL_CLOUDS)
    if "planet_udm" in tile:
        clear &= (to_host(tile["planet_udm"].data).astype("uint8") & UDM_CLOUDS) == 0
    geometry = []
    for mask in (seen, clear):
        parts: Any = [shapely.geometry.shape(part) for part, _ in _shapes(mask.view("uint8"), mask, geobox.affine)]
        geometry.append(shapely.MultiPolygon(parts))
    return _frame(EXTENT_COLUMNS, {"kind": ["seen", "clear"], **ids}, np.array(geometry), geobox.crs)


def write_parquet(path: Path, frame: gpd.GeoDataFrame) -> None:
    """Write GeoParquet 1.1 (WKB, with a bbox column)."""
    frame.to_parquet(
        path,
        index=False,
        compression="zstd",
        geometry_encoding="WKB",
        write_covering_bbox=True,
        schema_version="1.1.0",
    )


def write_geopackage(path: Path, frame: gpd.GeoDataFrame) -> None:
    """Write a GeoPackage of multipolygons whose layer has the file's name."""
    pyogrio.write_dataframe(
        frame,
        path,
        driver="GPKG",
        layer=path.stem,
        geometry_type="MultiPolygon",
        promote_to_multi=True,
        use_arrow=True,
    )
    # GDAL stamps the time of writing; an option against it holds for the whole process, other threads included.
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE gpkg_contents SET last_change = ?", (_FIXED_TIME,))


def geodesic_area_m2(geometry: np.ndarray, crs: str, longest_edge: float) -> np.ndarray:
    """Return the areas of polygons on the WGS 84 ellipsoid, in m²; `longest_edge` is in units of the CRS.

    Karney's method (J. Geodesy 87, 2013), which crosses the antimeridian and encloses poles.
    """
    area = np.zeros(len(geometry))
    parts, part_owner = shapely.get_parts(geometry, return_index=True)
    rings, part_of_ring = shapely.get_rings(parts, return_index=True)
    if not len(rings):
        return area
    owner = part_owner[part_of_ring]
    exterior = np.diff(part_of_ring, prepend=-1) > 0  # the first ring of each part; the others are holes

    dense = shapely.segmentize(rings, longest_edge)
    points, ring_of_point = shapely.get_coordinates(dense, return_index=True)
    longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*points.T)
    stops = np.searchsorted(ring_of_point, np.arange(len(rings) + 1))
    geod = Geod(ellps="WGS84")
    for ring, (start, stop) in enumerate(pairwise(stops)):
        signed, _ = geod.polygon_area_perimeter(longitude[start:stop], latitude[start:stop])
        area[owner[ring]] += abs(signed) if exterior[ring] else -abs(signed)
    return area


def _window(objects: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Return the smallest window that holds all objects: its first row and column, and a copy of what is in it."""
    rows, columns = (np.flatnonzero(objects.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 0, 0, np.zeros((0, 0), bool)
    window = objects[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return int(rows[0]), int(columns[0]), np.array(window, bool, order="C")


def _numbered(objects: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the 8-connected regions numbered from 1 by their first pixel, and how many there are."""
    if not objects.size:
        return np.zeros(objects.shape, "int32"), 0
    count, labels = cv2.connectedComponents(objects.view("uint8"), connectivity=8, ltype=cv2.CV_32S)
    # OpenCV's order depends on its number of threads; that of the first pixels does not.
    _, first = np.unique(labels[objects], return_index=True)
    rank = np.zeros(count, "int32")
    rank[1 + np.argsort(first)] = np.arange(1, count)
    return rank[labels], count - 1


def _outlines(labels: np.ndarray, objects: np.ndarray, count: int, transform: Any) -> np.ndarray:
    """Return the (multi)polygon of each numbered region."""
    if count == 0:
        return np.array([], dtype=object)
    shapes = [(shapely.geometry.shape(part), int(label)) for part, label in _shapes(labels, objects, transform)]
    shapes.sort(key=lambda part: part[1])
    parts = np.array([part for part, _ in shapes], dtype=object)
    owner = np.array([label - 1 for _, label in shapes])
    outlines: Any = shapely.multipolygons(parts, indices=owner)
    single = np.bincount(owner, minlength=count) == 1
    outlines[single] = parts[single[owner]]
    return np.asarray(outlines)


def _shapes(values: np.ndarray, mask: np.ndarray, transform: Any) -> Any:
    # Traced with 8-connectivity, rings touch themselves at corners and are invalid; the 4-connected parts of a region
    # are valid, and together a valid multipolygon.
    return rasterio.features.shapes(values, mask=mask, connectivity=4, transform=transform) if values.size else ()


def _statistics(labels: np.ndarray, values: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Return statistics of the finite values by label 1 to `count` (NaN where there are none), and pixel counts."""
    npixel = np.bincount(labels, minlength=count + 1)[1:]
    finite = np.isfinite(values)
    order = np.lexsort((values[finite], labels[finite]))
    label, value = labels[finite][order] - 1, values[finite][order]
    number = np.bincount(label, minlength=count)
    some = number > 0
    first = (np.cumsum(number) - number)[some]
    middle, upper = first + (number[some] - 1) // 2, first + number[some] // 2
    sums = np.bincount(label, weights=value, minlength=count)
    mean = np.divide(sums, number, out=np.full(count, np.nan), where=some)
    squares = np.bincount(label, weights=(value - mean[label]) ** 2, minlength=count)

    def where_some(found: np.ndarray) -> np.ndarray:
        column = np.full(count, np.nan)
        column[some] = found
        return column

    return {
        "min": where_some(value[first]),
        "max": where_some(value[first + number[some] - 1]),
        "mean": mean,
        "median": where_some((value[middle] + value[upper]) / 2),
        "std": where_some(np.sqrt(squares[some] / number[some])),
        "npixel": npixel,
    }


def _frame(schema: Mapping[str, str], columns: Mapping[str, Any], geometry: np.ndarray, crs: Any) -> gpd.GeoDataFrame:
    rows = range(len(geometry))
    typed = {}
    for name, dtype in schema.items():
        # A column of missing times has no unit yet, so the type is set in a second step.
        raw = pd.Series(columns[name], index=rows, dtype="datetime64[ns, UTC]" if dtype == _TIME else dtype)
        typed[name] = raw.dt.as_unit("ms") if dtype == _TIME else raw
    return gpd.GeoDataFrame(typed, geometry=gpd.GeoSeries(geometry, index=rows, crs=str(crs)))
