"""What Earth Engine knows of a Sentinel-2 scene besides its pixels."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from odc.geo.geobox import GeoBox
from rasterio import Affine
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from darts_acquisition.earth_engine import GEE_SOURCE, EarthEngineSource, compute_value, connect
from darts_acquisition.raw_scene import SceneInfo
from darts_acquisition.scene_ids import parse_gee_id
from darts_utils.errors import ConfigError, DartsError, RemoteError

GRID_BAND = "B2"
"""A band of 10 m, whose grid a scene takes."""


@dataclass(frozen=True, kw_only=True)
class GeeItem:
    """A Sentinel-2 scene of Earth Engine."""

    id: str
    """Such as `20230701T194909_20230701T195350_T11XNA`."""
    geobox: GeoBox
    """Its grid of 10 m."""
    acquired: datetime
    """UTC."""
    cloud: float | None = None
    """Percent."""
    snow: float | None = None
    """Percent."""
    baseline: str | None = None
    """Processing baseline, such as `05.09`."""
    sun_azimuth: float | None = None
    """Degrees clockwise from true north, mean of the scene."""
    sun_elevation: float | None = None
    """Degrees above the horizon, mean of the scene."""
    geometry: BaseGeometry
    """Footprint in longitude and latitude; that of the grid where Earth Engine gives none."""

    @property
    def mgrs_tile(self) -> str:
        """MGRS tile without the leading T, such as `11XNA`."""
        return parse_gee_id(self.id).mgrs_tile

    def scene_info(self) -> SceneInfo:
        """Return what the raw data store keeps of it."""
        return SceneInfo(
            scene_id=self.id,
            geobox=self.geobox,
            acquired=self.acquired,
            sun_azimuth=self.sun_azimuth,
            sun_elevation=self.sun_elevation,
            processing_baseline=self.baseline,
        )


def get_gee_item(scene_id: str, source: EarthEngineSource = GEE_SOURCE) -> GeeItem:
    """Ask Earth Engine for a scene by its id.

    Raises:
        ConfigError: the id does not have the form of Earth Engine's.
        RemoteError: Earth Engine does not have it, or cannot be reached.
    """
    import ee

    parse_gee_id(scene_id)
    connect(source)
    image = ee.Image(asset_id(scene_id, source)).select([GRID_BAND])
    return item_of(compute_value(source, f"scene {scene_id}", image), source)


def asset_id(scene_id: str, source: EarthEngineSource) -> str:
    """Return the name of a scene in Earth Engine."""
    return f"{source.collection}/{scene_id}"


def item_of(info: Any, source: EarthEngineSource) -> GeeItem:
    """Return the scene that Earth Engine describes as `info`.

    Raises:
        RemoteError: the description lacks the id, time or grid, or they cannot be.
    """
    try:
        properties = info["properties"]
        scene_id = str(properties["system:index"])
        parse_gee_id(scene_id)
        zenith = _number(properties, "MEAN_SOLAR_ZENITH_ANGLE")
        geobox = _geobox(next(band for band in info["bands"] if band["id"] == GRID_BAND))
        item = GeeItem(
            id=scene_id,
            geobox=geobox,
            acquired=datetime.fromtimestamp(properties["system:time_start"] / 1000, UTC),
            cloud=_number(properties, "CLOUDY_PIXEL_PERCENTAGE"),
            snow=_number(properties, "SNOW_ICE_PERCENTAGE"),
            baseline=properties.get("PROCESSING_BASELINE"),
            sun_azimuth=_number(properties, "MEAN_SOLAR_AZIMUTH_ANGLE"),
            sun_elevation=None if zenith is None else 90 - zenith,
            geometry=_footprint(properties.get("system:footprint")) or geobox.extent.to_crs("EPSG:4326").geom,
        )
        item.scene_info().check()
    except (LookupError, TypeError, ValueError, StopIteration, DartsError) as error:
        name = _name(info)
        raise RemoteError(
            f"Earth Engine, collection {source.collection}: the description of {name} lacks or garbles what a scene "
            f"needs ({type(error).__name__}: {error}). Check that this is a collection of Sentinel-2 Level-2A."
        ) from error
    return item


def _name(info: Any) -> str:
    try:
        return str(info.get("id") or info["properties"]["system:index"])
    except (AttributeError, LookupError, TypeError):
        return "a scene"


def _geobox(band: dict[str, Any]) -> GeoBox:
    width, height = band["dimensions"]
    # Clipped assets begin at another pixel than their transform does.
    column, row = map(float, band.get("origin", (0, 0)))
    affine = Affine(*map(float, band["crs_transform"])) * Affine.translation(column, row)
    geobox = GeoBox((int(height), int(width)), affine, band["crs"])
    if geobox.crs is None or geobox.crs.epsg is None or not geobox.crs.projected or min(geobox.shape) < 1:
        raise ConfigError(f"grid {geobox!r}")
    return geobox


def _footprint(footprint: Any) -> BaseGeometry | None:
    """Return the footprint, which Earth Engine gives as a ring; None where it gives none."""
    if not isinstance(footprint, dict) or not footprint.get("coordinates"):
        return None
    rings = footprint["coordinates"]
    return Polygon(rings if footprint.get("type") == "LinearRing" else rings[0])


def _number(properties: dict[str, Any], name: str) -> float | None:
    value = properties.get(name)
    return None if value is None else float(value)
