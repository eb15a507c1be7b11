"""ArcticDEM mosaics v4.1 as the Polar Geospatial Center serves them: STAC items and Cloud-Optimized GeoTIFFs."""

from typing import Any

import numpy as np
import shapely
import shapely.geometry
from odc.geo.geobox import GeoBox
from rasterio.warp import transform as transform_points

from darts_acquisition.testing.scene_files import cog_bytes
from darts_acquisition.testing.scene_items import make_collection

NODATA = -9999.0


def make_pgc_collection(resolution: int) -> dict[str, Any]:
    """Return the collection of the mosaics of a resolution: 2, 10 or 32 m."""
    return make_collection(_collection(resolution))


def make_pgc_item(tile: str, geobox: GeoBox, *, base_url: str) -> dict[str, Any]:
    """Return the item of a tile, with addresses that begin with `base_url`.

    Args:
        tile: such as `41_16`; at 2 m `41_16_1_1`.
        geobox: its grid, in EPSG:3413; the pixel is the resolution.
        base_url: address of the server of the files, without a trailing slash.
    """
    resolution = round(geobox.resolution.x)
    item_id = f"{tile}_{resolution}m_v4.1"
    outline = shapely.segmentize(shapely.box(*geobox.boundingbox.bbox), 20_000)
    xs, ys = zip(*outline.exterior.coords, strict=True)
    lon, lat = transform_points("EPSG:3413", "EPSG:4326", xs, ys)
    footprint = shapely.Polygon(zip(lon, lat, strict=True))
    assets = {
        name: {
            "href": f"{base_url}/{_path(tile, resolution, name)}",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data"],
        }
        for name in ("dem", "datamask")
    }
    return {
        "type": "Feature", "stac_version": "1.1.0", "stac_extensions": [], "id": item_id,
        "collection": _collection(resolution), "geometry": shapely.geometry.mapping(footprint),
        "bbox": list(footprint.bounds), "links": [], "assets": assets,
        "properties": {
            "title": item_id, "created": "2023-03-01T00:00:00Z", "published": "2023-03-01T00:00:00Z",
            "datetime": "2007-09-01T00:00:00Z", "start_datetime": "2007-09-01T00:00:00Z",
            "end_datetime": "2022-10-01T00:00:00Z", "constellation": "maxar", "gsd": resolution,
            "proj:code": "EPSG:3413", "proj:bbox": list(geobox.boundingbox.bbox),
            "proj:shape": list(geobox.shape.yx), "proj:transform": list(geobox.transform)[:6],
        },
    }  # fmt: skip


def make_pgc_tile(
    tile: str, geobox: GeoBox, dem: np.ndarray, datamask: np.ndarray | None = None, *, base_url: str, block: int = 128
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return an item and its files, path below `base_url` → COG; see `make_pgc_item`.

    Args:
        tile: such as `41_16`.
        geobox: its grid.
        dem: elevation in metres, NaN where there is none.
        datamask: 1 where measured; None: where there is elevation.
        base_url: address of the server of the files.
        block: side of the files' tiles.
    """
    mask = np.isfinite(dem) if datamask is None else datamask
    elevation = np.where(np.isfinite(dem), dem, NODATA).astype("float32")
    resolution = round(geobox.resolution.x)
    return make_pgc_item(tile, geobox, base_url=base_url), {
        _path(tile, resolution, "dem"): cog_bytes(elevation, geobox, NODATA, block),
        _path(tile, resolution, "datamask"): cog_bytes(mask.astype("uint8"), geobox, None, block),
    }


def _collection(resolution: int) -> str:
    return f"arcticdem-mosaics-v4.1-{resolution}m"


def _path(tile: str, resolution: int, asset: str) -> str:
    folder = "_".join(tile.split("_")[:2])
    return f"arcticdem/mosaics/v4.1/{resolution}m/{folder}/{tile}_{resolution}m_v4.1_{asset}.tif"
