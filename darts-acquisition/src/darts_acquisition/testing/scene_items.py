"""What the STAC items of all made Sentinel-2 scenes have in common."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import shapely
import shapely.affinity
import shapely.geometry
from odc.geo.geobox import GeoBox, zoom_out
from rasterio.warp import transform as transform_points
from shapely.geometry.base import BaseGeometry

from darts_acquisition.testing.scene_files import classes, smooth_dn
from darts_utils.errors import ConfigError

SENTINEL_BANDS = {
    "coastal": ("B01", 20, "coastal", 0.443), "blue": ("B02", 10, "blue", 0.493), "green": ("B03", 10, "green", 0.56),
    "red": ("B04", 10, "red", 0.665), "rededge1": ("B05", 20, "rededge071", 0.704),
    "rededge2": ("B06", 20, "rededge075", 0.741), "rededge3": ("B07", 20, "rededge078", 0.783),
    "nir": ("B08", 10, "nir", 0.833), "nir08": ("B8A", 20, "nir08", 0.865), "nir09": ("B09", 60, "nir09", 0.945),
    "swir16": ("B11", 20, "swir16", 1.614), "swir22": ("B12", 20, "swir22", 2.202), "scl": ("SCL", 20, None, None),
}  # fmt: skip
"""Asset of Earth Search → Sentinel-2's band, its pixel in metres, common name, central wavelength in micrometres."""


def make_collection(collection_id: str = "sentinel-2-l2a") -> dict[str, Any]:
    """Return a collection that the items may be in."""
    return {
        "type": "Collection", "stac_version": "1.1.0", "id": collection_id, "description": "made scenes",
        "license": "other", "links": [],
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2015-06-27T00:00:00Z", None]]}
        },
    }  # fmt: skip


def make_item(
    scene_id: str,
    collection: str,
    footprint: BaseGeometry,
    given: Mapping[str, Any],
    properties: Mapping[str, Any] | None,
    assets: dict[str, Any],
) -> dict[str, Any]:
    """Return an item; `properties` are added to those `given`, or take their place, and None takes one away."""
    return {
        "type": "Feature", "stac_version": "1.1.0", "stac_extensions": [], "id": scene_id, "collection": collection,
        "geometry": shapely.geometry.mapping(footprint), "bbox": list(footprint.bounds), "links": [],
        "properties": known({**given, **(properties or {})}), "assets": assets,
    }  # fmt: skip


def made_pixels(band: str, grid: GeoBox, seed: int, wedge: bool) -> np.ndarray:
    """Return the values of a band on its grid, 0 in a wedge if asked for."""
    return classes(grid.shape.yx, wedge=wedge) if band == "SCL" else smooth_dn(grid.shape.yx, seed, wedge=wedge)


def grid_of(geobox_10m: GeoBox, resolution: int) -> GeoBox:
    """Return the grid of the bands of a resolution in metres.

    Raises:
        ConfigError: its pixels do not fit into the grid.
    """
    factor = resolution // 10
    if any(side % factor for side in geobox_10m.shape.yx):
        raise ConfigError(f"a grid with bands of {resolution} m needs sides that {factor} divides: {geobox_10m.shape}")
    return zoom_out(geobox_10m, factor) if factor > 1 else geobox_10m


def footprint_of(geobox: GeoBox) -> BaseGeometry:
    """Return the corners of a grid in longitude and latitude, cut in two at the antimeridian."""
    left, bottom, right, top = geobox.boundingbox.bbox
    xs, ys = [left, left, right, right], [top, bottom, bottom, top]
    lon, lat = transform_points(str(geobox.crs), "EPSG:4326", xs, ys)
    if max(lon) - min(lon) <= 180:
        return shapely.Polygon(zip(lon, lat, strict=True))
    whole = shapely.Polygon([(x % 360, y) for x, y in zip(lon, lat, strict=True)])
    east = whole.intersection(shapely.box(0, -90, 180, 90))
    west = shapely.affinity.translate(whole.intersection(shapely.box(180, -90, 360, 90)), xoff=-360)
    return shapely.union_all([west, east])


def known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without those that are None."""
    return {name: value for name, value in values.items() if value is not None}
