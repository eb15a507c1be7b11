"""Scenes as the Copernicus Data Space serves them: STAC items of the form of 2026, and JPEG 2000.

Those of Earth Search can be had from here too.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from darts_acquisition.scene_ids import parse_cdse_id
from darts_acquisition.testing.earth_search import make_earth_search_item, make_earth_search_scene
from darts_acquisition.testing.scene_files import jp2_bytes
from darts_acquisition.testing.scene_items import (
    SENTINEL_BANDS,
    footprint_of,
    grid_of,
    known,
    made_pixels,
    make_collection,
    make_item,
)  # fmt: skip
from darts_acquisition.times import iso_utc
from darts_utils.errors import ConfigError

__all__ = ["make_cdse_item", "make_cdse_scene", "make_collection", "make_earth_search_item", "make_earth_search_scene"]

CDSE_COLLECTION = "sentinel-2-l2a"
BUCKET = "eodata"
CDSE_BANDS = ("B02_10m", "B03_10m", "B04_10m", "B08_10m", "SCL_20m")
_OF_BAND = {band: (common, wavelength) for band, _, common, wavelength in SENTINEL_BANDS.values()}


def make_cdse_item(
    scene_id: str,
    *,
    geobox_10m: GeoBox,
    bands: Sequence[str] = CDSE_BANDS,
    files: Mapping[str, bytes] | None = None,
    cloud_cover: float = 5.0,
    snow_cover: float = 3.0,
    sun_azimuth: float | None = 178.25,
    sun_elevation: float | None = 43.5,
    baseline: str | None = None,
    scale: float | None = 1e-4,
    offset: float | None = -0.1,
    properties: Mapping[str, Any] | None = None,
    footprint: BaseGeometry | None = None,
) -> dict[str, Any]:
    """Return an item of the Copernicus Data Space.

    Args:
        scene_id: such as `S2A_MSIL2A_20241107T113311_N0511_R080_T32VKR_20241107T123948`.
        geobox_10m: grid of the 10 m bands; coarser ones have its upper left corner.
        bands: assets, as `B02_10m`.
        files: bytes of the assets, for their size and checksum; None: the item gives neither.
        cloud_cover: percent.
        snow_cover: percent.
        sun_azimuth: degrees; None: the item does not say.
        sun_elevation: degrees; None: the item does not say.
        baseline: `processing:version`; None: that of the id.
        scale: `raster:scale` of the assets; None: they do not say.
        offset: `raster:offset` of the assets; None: they do not say.
        properties: added to the others, or in their place; None takes one away.
        footprint: longitude and latitude; None: that of the grid, in two parts at the antimeridian.
    """
    scene = parse_cdse_id(scene_id)
    version = baseline or scene.processing_baseline
    given: dict[str, Any] = {
        "gsd": 10,
        "created": _time_made(scene_id),
        "updated": _time_made(scene_id),
        "datetime": iso_utc(scene.acquired),
        "start_datetime": iso_utc(scene.acquired),
        "end_datetime": iso_utc(scene.acquired),
        "platform": f"sentinel-{str(scene.platform)[1:].lower()}",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "grid:code": f"MGRS-{scene.mgrs_tile}",
        "eo:cloud_cover": cloud_cover,
        "eo:snow_cover": snow_cover,
        "product:type": "S2MSI2A",
        "processing:level": "L2",
        "processing:version": version,
        "processing:datetime": _time_made(scene_id),
        "eopf:datatake_id": f"G{scene.platform}_{scene.acquired:%Y%m%dT%H%M%S}_008996_N{version}",
        "sat:relative_orbit": int(scene_id.split("_R")[1][:3]),
        "view:sun_azimuth": sun_azimuth,
        "view:sun_elevation": sun_elevation,
    }
    assets = {}
    for name in bands:
        band, resolution = _cdse_band(name)
        assets[name] = _cdse_asset(scene_id, name, band, resolution, geobox_10m)
        if band != "SCL":
            assets[name] |= known({"raster:scale": scale, "raster:offset": offset})
        if files is not None:
            assets[name] |= {
                "file:size": len(files[name]), "file:checksum": "1620" + hashlib.sha3_256(files[name]).hexdigest()
            }  # fmt: skip
    return make_item(scene_id, CDSE_COLLECTION, footprint or footprint_of(geobox_10m), given, properties, assets)


def make_cdse_scene(
    scene_id: str,
    geobox_10m: GeoBox,
    seed: int = 0,
    *,
    bands: Sequence[str] = CDSE_BANDS,
    wedge: bool = True,
    block: int = 128,
    **options: Any,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return an item and its files, S3 key → lossless JPEG 2000; see `make_cdse_item` for the options.

    Digital numbers are smooth, SCL has all classes; both are 0 in a wedge unless that is declined.
    """
    grids = {name: grid_of(geobox_10m, _cdse_band(name)[1]) for name in bands}
    files = {}
    for n, (name, grid) in enumerate(grids.items()):
        files[name] = jp2_bytes(made_pixels(_cdse_band(name)[0], grid, seed + n, wedge), grid, block)
    item = make_cdse_item(scene_id, geobox_10m=geobox_10m, bands=bands, files=files, **options)
    return item, {_key(item["assets"][name]["href"]): data for name, data in files.items()}


def _cdse_asset(scene_id: str, name: str, band: str, resolution: int, geobox_10m: GeoBox) -> dict[str, Any]:
    scene = parse_cdse_id(scene_id)
    grid = grid_of(geobox_10m, resolution)
    start = f"{scene.acquired:%Y%m%dT%H%M%S}"
    path = (
        f"{scene_id}.SAFE/GRANULE/L2A_T{scene.mgrs_tile}_A008996_{start}/IMG_DATA/R{resolution}m/"
        f"T{scene.mgrs_tile}_{start}_{name}.jp2"
    )
    asset: dict[str, Any] = {
        "href": f"s3://{BUCKET}/Sentinel-2/MSI/L2A/{scene.acquired:%Y/%m/%d}/{path}",
        "type": "image/jp2",
        "title": f"{band} - {resolution}m",
        "roles": ["data", "sampling:original", f"gsd:{resolution}m"],
        "gsd": resolution,
        "nodata": 0,
        "data_type": "uint8" if band == "SCL" else "uint16",
        "proj:code": str(geobox_10m.crs),
        "proj:bbox": list(grid.boundingbox.bbox),
        "proj:shape": list(grid.shape.yx),
        "proj:transform": list(grid.transform)[:6],
        "file:local_path": path,
        "auth:refs": ["s3"],
        "storage:refs": ["cdse-s3", "creodias-s3"],
        "alternate:name": "S3",
    }
    common, wavelength = _OF_BAND[band]
    if common is not None:
        asset["bands"] = [{"name": band, "eo:common_name": common, "eo:center_wavelength": wavelength}]
        asset["roles"].insert(1, "reflectance")
    return asset


def _cdse_band(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\w+)_(10|20|60)m", name)
    if match is None or match[1] not in _OF_BAND:
        raise ConfigError(f"the Copernicus Data Space has no asset {name!r}; it has such as B02_10m and SCL_20m")
    return match[1], int(match[2])


def _time_made(scene_id: str) -> str:
    time = datetime.strptime(scene_id.rpartition("_")[2].removesuffix(".SAFE"), "%Y%m%dT%H%M%S")
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z")


def _key(href: str) -> str:
    return href.removeprefix(f"s3://{BUCKET}/")
