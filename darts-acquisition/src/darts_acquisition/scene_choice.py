"""Which of the items found are meant: checked against the search again, one for each acquisition."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pystac
import shapely
from shapely.geometry import shape

from darts_acquisition.antimeridian import Surface, drawn_polygons, polygon_from_lonlat, surface_of
from darts_acquisition.mgrs_tiles import parse_mgrs_tile
from darts_acquisition.scene_ids import parse_cdse_id
from darts_acquisition.search_criteria import Criteria
from darts_acquisition.stac_sources import StacSource
from darts_acquisition.times import parse_stamp, parse_utc
from darts_utils.errors import ConfigError, RemoteError
from darts_utils.quoting import first_line

logger = logging.getLogger("darts.acquisition")

SAME_AREA = 0.9
"""Share of a footprint that the newer one must hold for the older to be the same scene: a datatake cut between two
ground stations gives two scenes of one tile, which are no duplicates."""

_PRODUCT_NAMES = ("s2:product_uri", "sentinel2:product_title", "sentinel:product_id")
_DATATAKES = ("eopf:datatake_id", "s2:datatake_id", "sentinel2:datatake_id")
_DATATAKE = re.compile(r"G(?P<platform>S2[A-D])_(?P<start>\d{8}T\d{6})_\d+_N(?P<baseline>\d{2}\.?\d{2})")
_MADE = ("processing:datetime", "s2:generation_time", "sentinel2:generation_time", "created")


def choose_items(items: Iterable[pystac.Item], criteria: Criteria, source: StacSource) -> list[pystac.Item]:
    """Return the items that meet all criteria, whatever the server thought.

    Items that do not say what a criterion asks for do not meet it; a warning counts them.

    Raises:
        ConfigError: no item says what a criterion asks for, so it can never be met.
        RemoteError: an item has no footprint, or no time.
    """
    items = list(items)
    if criteria.area is not None:
        shapely.prepare(criteria.area)
        items = [item for item in items if criteria.area.intersects(footprint(item))]
    if criteria.intervals:
        items = [item for item in items if any(item_time(item) in interval for interval in criteria.intervals)]
    if criteria.tiles is not None:
        tiles = set(criteria.tiles)
        items = _known(items, partial(item_tile, source=source), source, "tile_property", "tiles")
        items = [item for item in items if item_tile(item, source) in tiles]
    for limit, name, parameter in (
        (criteria.max_cloud_cover, "cloud_property", "max_cloud_cover"),
        (criteria.max_snow_cover, "snow_property", "max_snow_cover"),
    ):
        if limit is not None:
            key = getattr(source, name)
            items = _known(items, partial(_percent, key), source, name, parameter)
            items = [item for item in items if item.properties[key] <= limit]
    return items


def drop_older(items: Iterable[pystac.Item], source: StacSource) -> list[pystac.Item]:
    """Return the items without those that a newer processing of the same acquisition replaces.

    The same acquisition is one datatake of a platform over one tile whose footprints agree; the newer processing
    baseline wins, then the later time of processing.
    """
    items = list(items)
    groups: dict[Any, list[pystac.Item]] = {}
    for item in items:
        groups.setdefault(_acquisition(item, source) or item.id, []).append(item)
    older: set[str] = set()
    for group in groups.values():
        kept: list[pystac.Item] = []
        for item in sorted(group, key=lambda item: _version(item, source), reverse=True):
            newer = next((newer for newer in kept if _replaces(newer, item)), None)
            if newer is None:
                kept.append(item)
            else:
                older.add(item.id)
                logger.info("%s is left out: %s is a newer processing of the same", item.id, newer.id)
    return [item for item in items if item.id not in older]


def footprint(item: pystac.Item) -> Surface:
    """Return where an item lies, valid and split at the antimeridian.

    Raises:
        RemoteError: it has no footprint, or none that can be read.
    """
    try:
        if not item.geometry:
            raise ValueError("it has none")
        polygons = drawn_polygons(shapely.force_2d(shape(item.geometry)))
        area = surface_of(shapely.union_all([polygon_from_lonlat(polygon) for polygon in polygons]))
    except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        raise RemoteError(f"scene {item.id}: the footprint of its item cannot be read: {first_line(error)}") from error
    if area.is_empty:
        raise RemoteError(f"scene {item.id}: the footprint of its item encloses no area")
    return area


def item_time(item: pystac.Item) -> datetime:
    """Return when a scene was taken, UTC; of a time span, its start.

    Raises:
        RemoteError: it does not say.
    """
    time = item.datetime or item.properties.get("start_datetime")
    if time is None:
        raise RemoteError(f"scene {item.id}: its item has no time")
    try:
        return parse_utc(time)
    except ConfigError as error:
        raise RemoteError(f"scene {item.id}: its item has no time that can be read: {error}") from error


def item_tile(item: pystac.Item, source: StacSource) -> str | None:
    """Return an item's MGRS tile in its full form, or None if it does not say."""
    with contextlib.suppress(ConfigError):
        return parse_mgrs_tile(str(item.properties.get(source.tile_property)))
    for name in _product_names(item):
        with contextlib.suppress(ConfigError):
            return parse_cdse_id(name).mgrs_tile
    return None


def _known(
    items: list[pystac.Item],
    value: Callable[[pystac.Item], Any],
    source: StacSource,
    setting: str,
    parameter: str,
) -> list[pystac.Item]:
    """Return the items that have a value."""
    known = [item for item in items if value(item) is not None]
    name = getattr(source, setting)
    if items and not known:
        off = "leave tiles out" if parameter == "tiles" else f"turn the filter off ({parameter} 100 or None)"
        raise ConfigError(
            f"{source.name}: none of the {len(items)} items found has the property {name!r}, so {parameter} cannot "
            f"be met; name the right property in the source's setting {setting}, or {off}"
        )
    if len(known) < len(items):
        logger.warning(
            "%s: %d of %d items found do not have the property %r and are left out, as they may not meet %s.",
            source.name,
            len(items) - len(known),
            len(items),
            name,
            parameter,
        )
    return known


def _percent(key: str, item: pystac.Item) -> float | None:
    value = item.properties.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value == value else None


def _product_names(item: pystac.Item) -> list[str]:
    return [item.id, *(str(item.properties[key]) for key in _PRODUCT_NAMES if item.properties.get(key))]


def _acquisition(item: pystac.Item, source: StacSource) -> tuple[str, datetime, str] | None:
    """Return platform, start of the datatake and tile of an item, as far as it says all three."""
    for name in _product_names(item):
        with contextlib.suppress(ConfigError):
            scene = parse_cdse_id(name)
            return str(scene.platform), scene.acquired, scene.mgrs_tile
    tile = item_tile(item, source)
    match = _datatake(item.properties)
    if tile is None or match is None:
        return None
    with contextlib.suppress(ConfigError):
        return match["platform"], parse_stamp(match["start"], "datatake"), tile
    return None


def _datatake(properties: Mapping[str, Any]) -> re.Match[str] | None:
    return next((match for key in _DATATAKES if (match := _DATATAKE.match(str(properties.get(key, ""))))), None)


def _version(item: pystac.Item, source: StacSource) -> tuple[tuple[int, ...], datetime, str]:
    """Return what sorts the processings of an acquisition: baseline, time of processing, id."""
    baselines = [item.properties.get(source.baseline_property)]
    for name in _product_names(item):
        with contextlib.suppress(ConfigError):
            baselines.append(parse_cdse_id(name).processing_baseline)
    match = _datatake(item.properties)
    baselines.append(match["baseline"] if match else None)
    baseline = next((numbers for text in baselines if (numbers := _baseline(text))), (0, 0))
    return baseline, _made(item), item.id


def _baseline(text: Any) -> tuple[int, ...] | None:
    match = re.fullmatch(r"(\d{1,2})\.?(\d{2})", str(text))
    return (int(match[1]), int(match[2])) if match else None


def _made(item: pystac.Item) -> datetime:
    for key in _MADE:
        if key in item.properties:
            with contextlib.suppress(ConfigError):
                return parse_utc(item.properties[key])
    for name in _product_names(item):
        if match := re.search(r"_(\d{8}T\d{6})(?:\.SAFE)?$", name):
            with contextlib.suppress(ConfigError):
                return parse_stamp(match[1], name)
    return datetime.min.replace(tzinfo=UTC)


def _replaces(newer: pystac.Item, older: pystac.Item) -> bool:
    old = footprint(older)
    return shapely.intersection(footprint(newer), old).area >= SAME_AREA * old.area
