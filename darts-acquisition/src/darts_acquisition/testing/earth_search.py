"""Scenes as Earth Search serves its collection `sentinel-2-c1-l2a`: STAC items, and Cloud-Optimized GeoTIFFs."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from darts_acquisition.testing.scene_files import cog_bytes
from darts_acquisition.testing.scene_items import SENTINEL_BANDS, footprint_of, grid_of, known, made_pixels, make_item
from darts_utils.errors import ConfigError

COLLECTION = "sentinel-2-c1-l2a"
BANDS = ("blue", "green", "red", "nir", "scl")
_ID = re.compile(r"(?P<platform>S2[A-D])_T(?P<zone>\d{2})(?P<band>[A-Z])(?P<square>[A-Z]{2})_(?P<time>\d{8}T\d{6})_L2A")


def make_earth_search_item(
    scene_id: str,
    *,
    geobox_10m: GeoBox,
    base_url: str,
    bands: Sequence[str] = BANDS,
    files: Mapping[str, bytes] | None = None,
    cloud_cover: float = 5.0,
    snow_cover: float = 3.0,
    sun_azimuth: float | None = 178.25,
    sun_elevation: float | None = 43.5,
    baseline: str = "05.10",
    scale: float | None = 1e-4,
    offset: float | None = -0.1,
    properties: Mapping[str, Any] | None = None,
    footprint: BaseGeometry | None = None,
) -> dict[str, Any]:
    """Return an item of Earth Search, with addresses that begin with `base_url`; see `make_cdse_item`.

    Args:
        scene_id: such as `S2B_T43QDB_20200110T053549_L2A`.
        geobox_10m: grid of the 10 m bands.
        base_url: address of the server of the files, without a trailing slash.
        bands: assets, as `blue`.
        files: bytes of the assets, for their size and checksum; None: the item gives neither.
        cloud_cover: percent.
        snow_cover: percent.
        sun_azimuth: degrees; None: the item does not say.
        sun_elevation: degrees; None: the item does not say.
        baseline: `s2:processing_baseline`.
        scale: of the assets' `raster:bands`; None: they do not say.
        offset: of the assets' `raster:bands`; None: they do not say.
        properties: added to the others, or in their place; None takes one away.
        footprint: longitude and latitude; None: that of the grid, in two parts at the antimeridian.
    """
    match = _parts(scene_id)
    acquired = datetime.strptime(match["time"], "%Y%m%dT%H%M%S").strftime("%Y-%m-%dT%H:%M:%S.024000Z")
    given: dict[str, Any] = {
        "datetime": acquired,
        "created": acquired,
        "updated": acquired,
        "platform": f"sentinel-{match['platform'][1:].lower()}",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "proj:code": str(geobox_10m.crs),
        "mgrs:utm_zone": int(match["zone"]),
        "mgrs:latitude_band": match["band"],
        "mgrs:grid_square": match["square"],
        "grid:code": f"MGRS-{match['zone']}{match['band']}{match['square']}",
        "eo:cloud_cover": cloud_cover,
        "s2:snow_ice_percentage": snow_cover,
        "s2:processing_baseline": baseline,
        "s2:product_type": "S2MSI2A",
        "view:sun_azimuth": sun_azimuth,
        "view:sun_elevation": sun_elevation,
    }
    assets = {}
    for name in bands:
        band, resolution, common, wavelength = _band(name)
        grid = grid_of(geobox_10m, resolution)
        raster = {"nodata": 0, "data_type": "uint8" if band == "SCL" else "uint16", "spatial_resolution": resolution}
        assets[name] = {
            "href": f"{base_url}/{_path(scene_id, band)}",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data"],
            "gsd": resolution,
            "proj:shape": list(grid.shape.yx),
            "proj:transform": list(grid.transform)[:6],
            "raster:bands": [raster if band == "SCL" else raster | known({"scale": scale, "offset": offset})],
        }
        if common is not None:
            assets[name]["eo:bands"] = [{"name": band, "common_name": common, "center_wavelength": wavelength}]
        if files is not None:
            assets[name] |= {
                "file:size": len(files[name]), "file:checksum": "1220" + hashlib.sha256(files[name]).hexdigest()
            }  # fmt: skip
    return make_item(scene_id, COLLECTION, footprint or footprint_of(geobox_10m), given, properties, assets)


def make_earth_search_scene(
    scene_id: str,
    geobox_10m: GeoBox,
    seed: int = 0,
    *,
    base_url: str,
    bands: Sequence[str] = BANDS,
    wedge: bool = True,
    block: int = 128,
    **options: Any,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return an item and its files, path below `base_url` → COG; see `make_earth_search_item` for the options."""
    files = {}
    for n, name in enumerate(bands):
        band, resolution, _, _ = _band(name)
        grid = grid_of(geobox_10m, resolution)
        files[name] = cog_bytes(made_pixels(band, grid, seed + n, wedge), grid, 0, block)
    item = make_earth_search_item(
        scene_id, geobox_10m=geobox_10m, base_url=base_url, bands=bands, files=files, **options
    )
    return item, {_path(scene_id, _band(name)[0]): data for name, data in files.items()}


def _band(name: str) -> tuple[str, int, str | None, float | None]:
    if name not in SENTINEL_BANDS:
        raise ConfigError(f"Earth Search has no asset {name!r}; it has {', '.join(SENTINEL_BANDS)}")
    return SENTINEL_BANDS[name]


def _parts(scene_id: str) -> "re.Match[str]":
    match = _ID.fullmatch(scene_id)
    if match is None:
        raise ConfigError(f"{scene_id!r} is no id of Earth Search, such as S2B_T43QDB_20200110T053549_L2A")
    return match


def _path(scene_id: str, band: str) -> str:
    part = _parts(scene_id)
    time = datetime.strptime(part["time"], "%Y%m%dT%H%M%S")
    place = f"{int(part['zone'])}/{part['band']}/{part['square']}/{time.year}/{time.month}"
    return f"{COLLECTION}/{place}/{scene_id}/{band}.tif"
