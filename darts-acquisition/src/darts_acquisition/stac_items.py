"""What a STAC item of a Sentinel-2 scene says: where its assets lie, their grids and scaling, sun, time, baseline."""

import contextlib
import logging
import math
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pystac
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio import Affine

from darts_acquisition.raw_scene import SceneInfo
from darts_acquisition.scene_ids import baseline_has_offset, parse_cdse_id
from darts_acquisition.stac_sources import SCL, StacSource
from darts_acquisition.times import parse_utc
from darts_utils.errors import ConfigError, MissingBandError, RemoteError
from darts_utils.numbers import is_number
from darts_utils.quoting import shown
from darts_utils.sun import sun_position

logger = logging.getLogger("darts.acquisition")

SCALE = 1e-4
BASELINE_OFFSET = -0.1
"""Reflectance = DN × SCALE, and this added from processing baseline 04.00 on, where an item has no scale and offset."""

MOST_BYTES = 1 << 50
"""An asset that is larger by its item has no size that counts."""

_BASELINE_PROPERTIES = ("s2:processing_baseline", "processing:version", "sentinel2:processing_baseline")
_UTM = range(32601, 32661), range(32701, 32761)


@dataclass(frozen=True, kw_only=True)
class ItemAsset:
    """One band of a scene, as its item describes it."""

    name: str
    href: str
    size: int | None
    """Bytes."""
    checksum: str | None
    """Multihash in hexadecimal."""
    grid: GeoBox | None
    """Grid of its pixels; None where the item does not say."""
    scaling: tuple[float, float] | None
    """Reflectance = DN × first + second; None for the scene classification."""


def item_assets(item: pystac.Item, source: StacSource, names: Iterable[str]) -> dict[str, ItemAsset]:
    """Return what an item says of some of its assets.

    Raises:
        MissingBandError: it has no such asset.
        RemoteError: what it says cannot be, such as a grid that is not in UTM.
    """
    names = list(names)
    if missing := [name for name in names if name not in item.assets]:
        has = f"it has {', '.join(item.assets)}" if item.assets else "it has none at all"
        raise MissingBandError(
            f"scene {item.id}: the item of {source.name} has no asset {', '.join(missing)}; {has}. "
            "Ask for other bands, or leave the scene out."
        )
    return {name: _asset(item, source, name) for name in names}


def item_grid(item: pystac.Item, source: StacSource) -> GeoBox | None:
    """Return the finest grid among the assets of the source's bands, None where the item describes no grid.

    Raises:
        RemoteError: a grid is described that cannot be.
    """
    grids = [_grid(item, name) for name in source.assets.values() if name in item.assets]
    return finest(grid for grid in grids if grid is not None)


def finest(grids: Iterable[GeoBox]) -> GeoBox | None:
    """Return the grid with the smallest pixels, None of none."""
    return min(grids, key=lambda grid: abs(grid.affine.a), default=None)


def scene_info(item: pystac.Item, source: StacSource, geobox: GeoBox) -> SceneInfo:
    """Return what the raw data store keeps of a scene besides its pixels.

    Raises:
        RemoteError: the item has no time that can be read.
    """
    acquired = _acquired(item)
    azimuth, elevation = _sun(item, acquired, geobox)
    return SceneInfo(
        scene_id=stored_id(item.id),
        geobox=geobox,
        acquired=acquired,
        sun_azimuth=azimuth,
        sun_elevation=elevation,
        processing_baseline=item_baseline(item, source),
    )


def stored_id(scene_id: str) -> str:
    """Return the id under which the raw data store keeps a scene: some archives write `.SAFE` after it."""
    return scene_id.removesuffix(".SAFE")


def item_baseline(item: pystac.Item, source: StacSource) -> str | None:
    """Return the processing baseline, such as `05.11`, by the properties, else by the id; None if neither tells."""
    for name in (source.baseline_property, *_BASELINE_PROPERTIES):
        value = item.properties.get(name)
        text = f"{value:05.2f}" if isinstance(value, float) else str(value)
        if re.fullmatch(r"\d{2}\.?\d{2}", text):
            return text if "." in text else f"{text[:2]}.{text[2:]}"
    ids = (item.id, str(item.properties.get("s2:product_uri", "")))
    for scene_id in ids:
        with contextlib.suppress(ConfigError):
            return parse_cdse_id(scene_id).processing_baseline
    return None


def _asset(item: pystac.Item, source: StacSource, name: str) -> ItemAsset:
    asset = item.assets[name]
    try:
        href = asset.get_absolute_href() or asset.href
        urllib.parse.urlsplit(href)
    except (ValueError, TypeError, AttributeError) as error:  # no address, or no text at all
        raise RemoteError(f"scene {item.id}: the address of asset {name} of the item cannot be read") from error
    size, checksum = asset.extra_fields.get("file:size"), asset.extra_fields.get("file:checksum")
    if not href:
        raise RemoteError(f"scene {item.id}: asset {name} of the item has no address")
    return ItemAsset(
        name=name,
        href=href,
        size=size if isinstance(size, int) and 0 < size < MOST_BYTES else None,
        checksum=checksum if isinstance(checksum, str) else None,
        grid=_grid(item, name),
        scaling=None if name == source.assets[SCL] else _scaling(item, source, name),
    )


def _scaling(item: pystac.Item, source: StacSource, name: str) -> tuple[float, float]:
    """Return scale and offset by the asset itself; what it does not give goes by the processing baseline."""
    scale, offset = _given(item, name, "scale"), _given(item, name, "offset")
    if source.offset_applied_property is not None and item.properties.get(source.offset_applied_property) is True:
        offset = 0.0
    if offset is None:
        baseline = item_baseline(item, source)
        if baseline is None:
            raise RemoteError(
                f"scene {item.id}, asset {name}: the item of {source.name} gives neither an offset of reflectance "
                f"(raster:offset) nor a processing baseline ({source.baseline_property}); name the property that "
                "holds it as baseline_property of the source"
            )
        offset = BASELINE_OFFSET if baseline_has_offset(baseline) else 0.0
    scale = SCALE if scale is None else scale
    if not (is_number(scale) and is_number(offset) and scale > 0):
        raise RemoteError(f"scene {item.id}, asset {name}: scale {shown(scale)} and offset {shown(offset)} cannot be")
    return float(scale), float(offset)


def _given(item: pystac.Item, name: str, key: str) -> Any:
    """Return `scale` or `offset` of an asset: its own, or that of its one band; None where it gives none."""
    fields = item.assets[name].extra_fields
    places = (
        (f"raster:{key}", fields.get(f"raster:{key}")),
        ("raster:bands", _one_band(item, name, "raster:bands").get(key)),
        # STAC 1.1
        ("bands", _one_band(item, name, "bands").get(f"raster:{key}")),
    )
    given = [(place, value) for place, value in places if value is not None]
    if any(value != given[0][1] for _, value in given[1:]):
        said = ", ".join(f"{shown(value)} by {place}" for place, value in given)
        raise RemoteError(f"scene {item.id}, asset {name}: what the item says contradicts itself: {key} is {said}")
    return given[0][1] if given else None


def _one_band(item: pystac.Item, name: str, field: str) -> Mapping[str, Any]:
    bands = item.assets[name].extra_fields.get(field)
    if not isinstance(bands, list) or not bands:
        return {}
    if len(bands) > 1:
        raise RemoteError(
            f"scene {item.id}, asset {name}: the item gives it {len(bands)} bands in {field} instead of one"
        )
    return bands[0] if isinstance(bands[0], Mapping) else {}


def _grid(item: pystac.Item, name: str) -> GeoBox | None:
    def field(key: str) -> Any:
        return item.assets[name].extra_fields.get(key, item.properties.get(key))

    code, transform, shape = field("proj:code"), field("proj:transform"), field("proj:shape")
    if code is None and (epsg := field("proj:epsg")) is not None:
        code = f"EPSG:{epsg}"
    if code is not None and not is_utm(code):
        raise RemoteError(
            f"scene {item.id}, asset {name}: the item says that it is in {str(code)[:60]}, but those of Sentinel-2 are "
            "in UTM (EPSG:326… or EPSG:327…); darts does not warp them. Take the scene from another source."
        )
    if code is None or transform is None or shape is None:
        return None
    try:
        a, b, c, d, e, f = (float(number) for number in transform[:6])
        height, width = (int(side) for side in shape)
        if b or d or not a > 0 or not e < 0 or min(height, width) < 1 or not math.isfinite(a + c + e + f):
            raise ValueError
        return GeoBox((height, width), Affine(a, b, c, d, e, f), code)
    except (TypeError, ValueError, OverflowError) as error:
        raise RemoteError(
            f"scene {item.id}, asset {name}: the item gives proj:transform {shown(transform)} and proj:shape "
            f"{shown(shape)}, which is no north-up grid. Take the scene from another source."
        ) from error


def is_utm(code: Any) -> bool:
    """Whether a code such as `EPSG:32655` is of UTM on WGS 84."""
    match = re.fullmatch(r"EPSG:([0-9]{5})", str(code).upper())
    return match is not None and any(int(match[1]) in zones for zones in _UTM)


def _acquired(item: pystac.Item) -> datetime:
    value: datetime | str | None = item.datetime or item.properties.get("start_datetime")
    if value is None:
        with contextlib.suppress(ConfigError):
            return parse_cdse_id(item.id).acquired
    try:
        return parse_utc(str(value) if value is None else value, "datetime")
    except ConfigError as error:
        raise RemoteError(f"scene {item.id}: the item has no time of acquisition ({error})") from error


def _sun(item: pystac.Item, acquired: datetime, geobox: GeoBox) -> tuple[float | None, float | None]:
    """Return the sun's azimuth and elevation in degrees; None where the item does not say, or mistakes the zenith."""
    properties = item.properties
    azimuth = _angle(properties.get("view:sun_azimuth", properties.get("s2:mean_solar_azimuth")), 0, 360)
    elevation = _angle(properties.get("view:sun_elevation"), -90, 90)
    zenith = _angle(properties.get("s2:mean_solar_zenith"), 0, 180)
    if elevation is None:
        elevation = None if zenith is None else 90 - zenith
    else:
        # The item's own bbox would not do: across the antimeridian it may span the whole Earth.
        longitude, latitude = _centre(geobox)
        expected = sun_position(longitude, latitude, acquired)[1]
        if abs(90 - elevation - expected) < 2 and abs(elevation - expected) > 5:
            logger.warning(
                "scene %s: the item gives a sun elevation of %.1f°, where the sun stands at %.1f° (so %.1f° will be "
                "the zenith angle); the angles are computed from place and time instead",
                item.id, elevation, expected, elevation,
            )  # fmt: skip
            return None, None
    return azimuth, elevation


def _centre(geobox: GeoBox) -> tuple[float, float]:
    """Return longitude and latitude of the middle of a north-up grid."""
    transform = geobox.affine
    x = transform.c + transform.a * geobox.shape.x / 2
    y = transform.f + transform.e * geobox.shape.y / 2
    longitude, latitude = Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True).transform(x, y)
    return longitude, latitude


def _angle(value: Any, low: float, high: float) -> float | None:
    return float(value) if is_number(value) and low <= value <= high else None
