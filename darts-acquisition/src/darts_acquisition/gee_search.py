"""Search Earth Engine for Sentinel-2 Level-2A scenes."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pystac
from shapely.geometry import mapping

from darts_acquisition.areas import Aoi
from darts_acquisition.earth_engine import GEE_SOURCE, EarthEngineSource, compute_value, connect
from darts_acquisition.gee_items import GRID_BAND, GeeItem, item_of
from darts_acquisition.scene_choice import choose_items, drop_older
from darts_acquisition.search_criteria import Criteria, read_criteria
from darts_acquisition.search_dates import Interval
from darts_acquisition.search_geometry import geometries_to_send, widen_at_antimeridian
from darts_acquisition.stac_sources import SCL, StacSource

PAGE = 500
"""Scenes asked for at a time."""
MAX_VERTICES = 500
"""Areas of interest with more corners are simplified outwards before they are sent."""
_EVER = datetime(2015, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

logger = logging.getLogger("darts.acquisition")


def search_gee_s2_sr(
    intersects: Aoi | None = None,
    tiles: str | Sequence[str] | None = None,
    start_date: str | date | None = None,
    end_date: str | date | None = None,
    max_cloud_cover: float | None = 10,
    max_snow_cover: float | None = 10,
    months: Iterable[int] | None = None,
    years: Iterable[int] | None = None,
    *,
    source: EarthEngineSource = GEE_SOURCE,
) -> dict[str, GeeItem]:
    """Return the scenes of Earth Engine that meet all conditions, id → item, in order of time.

    Of several processings of an acquisition the newest baseline stays.

    Args:
        intersects: an area in any form that `read_areas` takes.
        tiles: MGRS tiles, with or without the leading T.
        start_date: YYYY-MM-DD. A range of dates beats months and years.
        end_date: YYYY-MM-DD, included.
        max_cloud_cover: percent; None or 100: any.
        max_snow_cover: percent; None or 100: any.
        months: 1 to 12; None: all, where years are given.
        years: None: 2015 to this year, where months are given.
        source: how Earth Engine is asked, and which collection.

    Raises:
        ConfigError: a parameter that cannot be; or there are no credentials or no project.
        RemoteError: Earth Engine cannot be reached, refuses, or sends something wrong.
    """
    criteria = read_criteria(intersects, tiles, start_date, end_date, max_cloud_cover, max_snow_cover, months, years)
    connect(source)
    infos = [info for query in _queries(criteria) for info in _pages(query, source)]
    found = {item.id: (item, _as_stac(item, info)) for info in infos for item in [item_of(info, source)]}
    properties = _properties(source)
    chosen = drop_older(choose_items((stac for _, stac in found.values()), criteria, properties), properties)
    logger.info("Earth Engine: %d scenes of %d found", len(chosen), len(found))
    items = [found[stac.id][0] for stac in chosen]
    return {item.id: item for item in sorted(items, key=lambda item: (item.acquired, item.id))}


def _queries(criteria: Criteria) -> Iterator[list[Any]]:
    """Yield the filters of each query; together the queries find all that meets the criteria."""
    import ee

    filters = []
    if criteria.tiles is not None:
        # With and without the leading zero of the zone, whichever the archive uses.
        names = [name for tile in criteria.tiles for name in dict.fromkeys((tile, tile.lstrip("0")))]
        filters.append(ee.Filter.inList("MGRS_TILE", names))
    if criteria.intervals:
        filters.append(ee.Filter.Or(*map(_within, criteria.intervals)))
    for limit, name in (
        (criteria.max_cloud_cover, "CLOUDY_PIXEL_PERCENTAGE"),
        (criteria.max_snow_cover, "SNOW_ICE_PERCENTAGE"),
    ):
        if limit is not None:
            filters.append(ee.Filter.lte(name, limit))
    if criteria.area is None:
        yield filters
        return
    for part in geometries_to_send(widen_at_antimeridian(criteria.area), MAX_VERTICES):
        # Edges are straight in longitude and latitude, as ours are, not the shortest way over the globe.
        yield [*filters, ee.Filter.bounds(ee.Geometry({**mapping(part), "geodesic": False}))]


def _within(interval: Interval) -> Any:
    import ee

    start, end = interval.start or _EVER[0], interval.end or _EVER[1]
    return ee.Filter.date(int(start.timestamp() * 1000), int(end.timestamp() * 1000))


def _pages(filters: list[Any], source: EarthEngineSource) -> Iterator[dict[str, Any]]:
    """Yield what Earth Engine knows of each scene that passes all filters."""
    import ee

    collection = ee.ImageCollection(source.collection)
    for one in filters:
        collection = collection.filter(one)
    # Only the band whose grid is needed: with all of them a scene is described in 15 KB.
    collection = collection.select([GRID_BAND])
    for offset in range(0, 10**9, PAGE):
        what = f"search in {source.collection}, scenes from {offset} on"
        page = compute_value(source, what, collection.toList(PAGE, offset))
        yield from page
        if len(page) < PAGE:
            return


def _as_stac(item: GeeItem, info: dict[str, Any]) -> pystac.Item:
    """Return a scene as `scene_choice` takes it."""
    properties = info["properties"]
    return pystac.Item(
        item.id,
        geometry=mapping(item.geometry),
        bbox=None,
        datetime=item.acquired,
        properties={
            "mgrs_tile": item.mgrs_tile,
            "cloud": item.cloud,
            "snow": item.snow,
            "baseline": item.baseline,
            "s2:product_uri": properties.get("PRODUCT_ID"),
            "s2:datatake_id": properties.get("DATATAKE_IDENTIFIER"),
        },
    )


def _properties(source: EarthEngineSource) -> StacSource:
    """Return under which names `scene_choice` finds what it asks for."""
    return StacSource(
        name="Earth Engine",
        endpoint=source.address or "https://earthengine.googleapis.com",
        collection=source.collection,
        assets={SCL: "SCL"},
        tile_property="mgrs_tile",
        cloud_property="cloud",
        snow_property="snow",
        baseline_property="baseline",
    )
