"""Areas of interest: polygons from any vector file or object, in any CRS, in longitude and latitude."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from pyproj import CRS, Transformer
from shapely.geometry import Polygon, shape
from shapely.geometry.base import BaseGeometry

from darts_acquisition.antimeridian import (
    Surface,
    drawn_polygons,
    join_lonlat,
    polygon_from_lonlat,
    polygon_to_lonlat,
    project_surface,
    surface_of,
)
from darts_utils.errors import ConfigError
from darts_utils.quoting import first_line, listed

LONLAT = "EPSG:4326"
UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, shapely.errors.ShapelyError
)  # fmt: skip
"""What the libraries raise at vector files that are damaged, or no vector files; those of GDAL and PROJ are runtime
errors."""
Aoi: TypeAlias = str | Path | gpd.GeoDataFrame | gpd.GeoSeries | BaseGeometry | Geometry | GeoBox | Mapping[str, Any]
"""What names an area of interest, see `read_areas`."""


def read_areas(aoi: Aoi) -> gpd.GeoSeries:
    """Return areas as valid polygons in EPSG:4326, one row each, split at the antimeridian into parts within −180…180.

    Takes a vector file of any format GDAL or GeoParquet knows, a GeoDataFrame or GeoSeries, an odc-geo geometry or
    GeoBox, each in any CRS; a shapely geometry or GeoJSON in longitude and latitude. Straight edges of a projected CRS
    are bent as they run (to 0.1 m), also around a pole; invalid polygons are repaired.

    In longitude and latitude, polygons may run on beyond ±180 (170…190). Where all longitudes lie within ±180, an edge
    whose ends are more than 180° and less than 360° apart is taken the short way, across the antimeridian, so a box
    from 170 to −170 is 20° wide, and one from −180 to 180 goes all around. A ring that goes around once holds the pole.

    Raises:
        ConfigError: no such file, or none of vectors; no CRS; nothing in it, or rows without a polygon; coordinates
            that are not what the CRS says.
    """
    name = f"area of interest {aoi}" if isinstance(aoi, str | Path) else "area of interest"
    rows = _load(aoi, name)
    if rows.crs is None:
        raise ConfigError(f"{name} has no CRS; write it into the file (ogr2ogr -a_srs, or gdf.set_crs) first")
    if rows.empty:
        raise ConfigError(f"{name} is empty; it needs at least one polygon")
    _check_polygons(rows, name)
    convert = _converter(CRS(rows.crs))
    areas = []
    for label, geometry in rows.items():
        try:
            area = surface_of(
                shapely.union_all([convert(polygon) for polygon in drawn_polygons(shapely.force_2d(geometry))])
            )
        except (ConfigError, shapely.errors.GEOSException) as error:
            raise ConfigError(f"{name}, row {label}: {error}") from error
        if area.is_empty:
            raise ConfigError(f"{name}, row {label} encloses no area; remove it, or draw it again")
        areas.append(area)
    return gpd.GeoSeries(areas, index=rows.index, crs=LONLAT)


def project_areas(areas: gpd.GeoSeries, crs: Any) -> list[Surface]:
    """Return areas (of `read_areas`) in another CRS, edges bent as they run, halves at the antimeridian joined.

    In a CRS of longitude and latitude, longitudes run on beyond 180 where that joins the halves (170…190).

    Raises:
        ConfigError: an area has no place in the CRS.
    """
    target = CRS.from_user_input(getattr(crs, "proj", crs))
    if target.is_geographic:
        return [join_lonlat(area) for area in areas]
    transformer = Transformer.from_crs(LONLAT, target, always_xy=True)
    return [project_surface(area, transformer) for area in areas]


def _load(aoi: Aoi, name: str) -> gpd.GeoSeries:
    """Return the geometries of what was given, in its own CRS."""
    if isinstance(aoi, str | Path):
        return _read_file(Path(aoi), name)
    if isinstance(aoi, gpd.GeoDataFrame):
        return aoi.geometry
    if isinstance(aoi, gpd.GeoSeries):
        return aoi
    if isinstance(aoi, GeoBox):
        aoi = aoi.extent
    if isinstance(aoi, Geometry):
        return gpd.GeoSeries([aoi.geom], crs=None if aoi.crs is None else aoi.crs.to_wkt())
    if isinstance(aoi, BaseGeometry):
        return gpd.GeoSeries([aoi], crs=LONLAT)
    if isinstance(aoi, Mapping):
        return gpd.GeoSeries(_geojson_geometries(aoi, name), crs=LONLAT)
    raise ConfigError(
        f"the {name} must be a vector file, GeoDataFrame, GeoSeries, geometry, GeoJSON or GeoBox, "
        f"got {type(aoi).__name__}"
    )


def _read_file(path: Path, name: str) -> gpd.GeoSeries:
    if not path.exists():
        raise ConfigError(f"{name}: there is no such file")
    if path.suffix.lower() in {".parquet", ".geoparquet"}:
        try:
            return gpd.read_parquet(path).geometry
        except UNREADABLE as error:
            raise ConfigError(f"{name} cannot be read as GeoParquet: {first_line(error)}") from error
    try:
        layers = [str(layer) for layer, kind in pyogrio.list_layers(path) if kind is not None]
        # GDAL may repair rings as it reads; what is wrong is repaired below, or named.
        rows = [pyogrio.read_dataframe(path, layer=layer, columns=[]).geometry for layer in layers]
    except UNREADABLE as error:
        raise ConfigError(f"{name} cannot be read as vectors: {first_line(error)}") from error
    if not rows:
        raise ConfigError(f"{name} holds no layer with geometries")
    if len({layer.crs for layer in rows}) > 1:
        raise ConfigError(f"{name} has layers of several CRSs; write the one that is meant into a file of its own")
    return gpd.GeoSeries(pd.concat(rows, ignore_index=True), crs=rows[0].crs)


def _geojson_geometries(geojson: Mapping[str, Any], name: str) -> list[BaseGeometry | None]:
    kind = geojson.get("type")
    try:
        if kind == "FeatureCollection":
            return [shape(f["geometry"]) if f.get("geometry") else None for f in geojson["features"]]
        if kind == "Feature":
            return [shape(geojson["geometry"]) if geojson.get("geometry") else None]
        return [shape(dict(geojson))]
    except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        raise ConfigError(f"{name} is not GeoJSON: {error!r}") from error


def _check_polygons(rows: gpd.GeoSeries, name: str) -> None:
    missing = rows.isna() | rows.is_empty
    if missing.any():
        raise ConfigError(f"{name} has rows without geometry: row {listed(rows.index[missing])}; remove them")
    kinds = rows.geom_type
    other = ~kinds.isin(["Polygon", "MultiPolygon", "GeometryCollection"])
    if other.any():
        raise ConfigError(
            f"{name} has rows that are no polygons: {', '.join(sorted(set(kinds[other])))} "
            f"in row {listed(rows.index[other])}; give points and lines an extent first (buffer them in metres)"
        )


def _converter(crs: CRS) -> Callable[[Polygon], Surface]:
    """Return what turns a polygon of a CRS into longitude and latitude."""
    if crs.is_geographic and all(axis.unit_name == "degree" for axis in crs.axis_info[:2]):
        if crs.equals(CRS(LONLAT), ignore_axis_order=True) or crs.equals(CRS("OGC:CRS84")):
            return polygon_from_lonlat
        datum = Transformer.from_crs(crs, LONLAT, always_xy=True)

        def shift(polygon: Polygon) -> Surface:
            return polygon_from_lonlat(shapely.transform(polygon, lambda xy: _keep_turns(xy, datum)))

        return shift
    transformer = Transformer.from_crs(crs, LONLAT, always_xy=True)
    return lambda polygon: polygon_to_lonlat(polygon, transformer)


def _keep_turns(xy: np.ndarray, datum: Transformer) -> np.ndarray:
    """Return coordinates of another datum with longitudes still beyond ±180 where they were."""
    longitude, latitude = datum.transform(xy[:, 0], xy[:, 1])
    turns = np.round((xy[:, 0] - longitude) / 360)
    return np.column_stack([longitude + 360 * turns, latitude])
