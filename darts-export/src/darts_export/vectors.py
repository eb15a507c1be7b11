"""Polygons of objects and of the extent, with attributes."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from darts_export.geodesy import LONGEST_EDGE_PX, PixelArea, geodesic_measures
from darts_export.rasters import tile_geobox
from darts_utils.arrays import to_host
from darts_utils.threads import on_all_cores

_TIME = "datetime64[ms, UTC]"

SEGMENT_COLUMNS: Mapping[str, str] = {
    "Region_ID": "int32",
    "segment_id": "string",
    "min": "float64",
    "max": "float64",
    "mean": "float64",
    "median": "float64",
    "std": "float64",
    "npixel": "int64",
    "area_m2": "float64",
    "perimeter_m": "float64",
    "probability_std": "float64",
    "valid_share_around": "float64",
    "tile_id": "string",
    "image_id": "string",
    "sensor": "string",
    "acquisition_time": _TIME,
    "model": "string",
    "threshold": "float64",
}
"""Columns and types of segments, the same with and without detections."""

EXTENT_COLUMNS: Mapping[str, str] = {
    "kind": "string",
    "area_m2": "float64",
    **{name: SEGMENT_COLUMNS[name] for name in ("tile_id", "image_id", "sensor", "acquisition_time")},
}
"""Columns and types of the extent."""

SCL_CLOUDS = (8, 9, 10)
"""Classes of the Sentinel-2 scene classification: cloud of medium and high probability, thin cirrus."""

UDM_CLOUDS = 0b0011_1000
"""Bits of `planet_udm`: light haze, heavy haze, cloud."""

AROUND_PX = 10
"""Radius in which `valid_share_around` looks."""

ID_BYTES = 12
"""Length of `segment_id`; two of a thousand million objects get the same with a chance of 10⁻¹¹."""

_ROWS_AT_ONCE = 256


def segments(
    tile: xr.Dataset,
    objects: np.ndarray,
    probabilities: np.ndarray,
    model: str,
    ids: Mapping[str, Any],
    *,
    threshold: float = math.nan,
    spread: np.ndarray | None = None,
) -> gpd.GeoDataFrame:
    """Return one row for each 8-connected region of `objects` (bool), in raster order of their first pixels.

    Geometries are valid polygons in the tile's CRS that follow the pixels; parts that meet at corners alone make a
    multipolygon; holes stay. Columns (`SEGMENT_COLUMNS`):

    - `Region_ID` counts from 1; `segment_id` is a hash of tile id, image id, acquisition time, model, threshold, grid
      and the region's pixels: the same object of the same scene always has it, and no other.
    - `min`, `max`, `mean`, `median` and (population) `std` of the finite `probabilities` (0 to 1) on the region.
    - `npixel`; `area_m2` and `perimeter_m` (holes included) on the WGS 84 ellipsoid.
    - `probability_std`: mean of the finite values of `spread`, the spread between models; NaN without.
    - `valid_share_around`: share of the tile's `extent` among pixels not of the region within 10 pixels of it (distance
      of centres); what lies beyond the tile's edge counts as not valid. NaN where the tile has no extent.
    - `model`, `threshold` of the probability (NaN: not known), and `ids`.
    """
    from darts_export.regions import find_regions

    geobox = tile_geobox(tile)
    regions = find_regions(objects)
    geometry = regions.outlines(geobox.affine)
    area, perimeter = geodesic_measures(geometry, str(geobox.crs), _longest_edge(geobox))
    valid = to_host(tile["extent"].data).astype(bool, copy=False) if "extent" in tile else None
    of = [str(ids[name]) for name in ("tile_id", "image_id", "acquisition_time")] + [model, str(threshold)]
    of += [str(geobox.crs), *map(str, geobox.shape), *(str(float(number)) for number in geobox.affine[:6])]
    columns = {
        "Region_ID": np.arange(1, regions.count + 1),
        "segment_id": [_segment_id(repr(of), runs) for runs in regions.runs_of_each()],
        **regions.statistics(probabilities),
        "npixel": regions.npixel,
        "area_m2": area,
        "perimeter_m": perimeter,
        "probability_std": math.nan if spread is None else regions.statistics(spread)["mean"],
        "valid_share_around": math.nan if valid is None else regions.share_around(valid, AROUND_PX),
        **ids,
        "model": model,
        "threshold": threshold,
    }
    return _frame(SEGMENT_COLUMNS, columns, geometry, geobox.crs)


def extent(tile: xr.Dataset, ids: Mapping[str, Any]) -> gpd.GeoDataFrame:
    """Return two rows: `seen`, the tile's extent, and `clear`, the part of it with quality 2 and without any cloud.

    Outlines follow the pixels; `area_m2` is the sum of their areas on the WGS 84 ellipsoid.
    """
    from darts_export.regions import find_regions

    geobox = tile_geobox(tile)
    seen = to_host(tile["extent"].data).astype(bool, copy=False)
    parts = [find_regions(mask) for mask in (seen, seen_clear(tile, seen))]
    geometry = np.array([regions.whole_outline(geobox.affine) for regions in parts])
    pixel_area = PixelArea.on(geobox)
    area = [pixel_area.total_m2(regions.row, regions.runs.starts, regions.runs.ends) for regions in parts]
    return _frame(EXTENT_COLUMNS, {"kind": ["seen", "clear"], "area_m2": area, **ids}, geometry, geobox.crs)


def seen_clear(tile: xr.Dataset, seen: np.ndarray) -> np.ndarray:
    """Return the part of `seen` with quality 2 and without any cloud."""
    quality = to_host(tile["quality_data_mask"].data)
    scl, udm = (to_host(tile[name].data) if name in tile else None for name in ("s2_scl", "planet_udm"))
    clear = seen.copy()

    def look(start: int) -> None:
        rows = slice(start, start + _ROWS_AT_ONCE)
        clear[rows] &= quality[rows] == 2
        if scl is not None:
            for cloud in SCL_CLOUDS:
                clear[rows] &= scl[rows] != cloud
        if udm is not None:
            clear[rows] &= (udm[rows].astype("uint8", copy=False) & UDM_CLOUDS) == 0

    on_all_cores(look, range(0, len(seen), _ROWS_AT_ONCE))
    return clear


def _segment_id(of: str, runs: np.ndarray) -> str:
    digest = hashlib.blake2b(of.encode(), digest_size=ID_BYTES)
    digest.update(runs.astype("<i4", copy=False).tobytes())
    return digest.hexdigest()


def _longest_edge(geobox: Any) -> float:
    return LONGEST_EDGE_PX * max(abs(geobox.resolution.x), abs(geobox.resolution.y))


def _frame(schema: Mapping[str, str], columns: Mapping[str, Any], geometry: np.ndarray, crs: Any) -> gpd.GeoDataFrame:
    rows = range(len(geometry))
    typed = {}
    for name, dtype in schema.items():
        # A column of missing times has no unit yet, so the type is set in a second step.
        raw = pd.Series(columns[name], index=rows, dtype="datetime64[ns, UTC]" if dtype == _TIME else dtype)
        typed[name] = raw.dt.as_unit("ms") if dtype == _TIME else raw
    return gpd.GeoDataFrame(typed, geometry=gpd.GeoSeries(geometry, index=rows, crs=str(crs)))
