"""Search a STAC API for Sentinel-2 Level-2A scenes."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import geopandas as gpd
import pandas as pd
import pystac
import shapely
from shapely.geometry import mapping

from darts_acquisition.antimeridian import Surface, surface_of
from darts_acquisition.areas import Aoi, read_areas
from darts_acquisition.mgrs_tiles import tile_area
from darts_acquisition.scene_choice import choose_items, drop_older, footprint, item_time
from darts_acquisition.search_criteria import Criteria, read_criteria
from darts_acquisition.search_geometry import BOX_CORNERS, geometries_to_send, widen_at_antimeridian
from darts_acquisition.stac_client import NO_STAC, RequestRefusedError, StacApi, shown_address, without_secrets
from darts_acquisition.stac_sources import StacSource
from darts_utils.errors import ConfigError, MissingDataError, RemoteError
from darts_utils.names import plain_name
from darts_utils.quoting import first_line, shown

logger = logging.getLogger("darts.acquisition")

IDS_AT_A_TIME = 100
_BAD_QUERY = (400, 422, 501)
_TOO_LARGE = (400, 413, 414, 422)


def search_s2_sr(
    source: StacSource,
    intersects: Aoi | None = None,
    tiles: str | Sequence[str] | None = None,
    start_date: str | date | None = None,
    end_date: str | date | None = None,
    max_cloud_cover: float | None = 10,
    max_snow_cover: float | None = 10,
    months: Iterable[int] | None = None,
    years: Iterable[int] | None = None,
) -> dict[str, pystac.Item]:
    """Return the scenes that meet all conditions, id → item, in order of time; one for each acquisition.

    Of several processings of an acquisition the newest baseline stays.

    Args:
        source: where to search.
        intersects: an area in any form that `read_areas` takes.
        tiles: MGRS tiles, with or without the leading T.
        start_date: YYYY-MM-DD. A range of dates beats months and years.
        end_date: YYYY-MM-DD, included.
        max_cloud_cover: percent; None or 100: any.
        max_snow_cover: percent; None or 100: any.
        months: 1 to 12; None: all, where years are given.
        years: None: 2015 to this year, where months are given.

    Raises:
        ConfigError: a parameter that cannot be, or asks for what the items of this source do not say.
        RemoteError: the server failed, refused, or sent something that is no scene.
    """
    criteria = read_criteria(intersects, tiles, start_date, end_date, max_cloud_cover, max_snow_cover, months, years)
    found = _Search(StacApi(source), criteria).run()
    chosen = drop_older(choose_items(found.values(), criteria, source), source)
    logger.info("%s: %d scenes of %d items found", source.name, len(chosen), len(found))
    return {item.id: item for item in sorted(chosen, key=lambda item: (item_time(item), item.id))}


def get_items(source: StacSource, ids: Sequence[str]) -> dict[str, pystac.Item]:
    """Return the items of scene ids (with or without `.SAFE`), id → item, in the order asked for.

    Raises:
        MissingDataError: the source does not have all of them; names those that it lacks.
        RemoteError: the server failed, refused, or sent something that is no scene.
    """
    wanted = list(dict.fromkeys(scene_id.strip().removesuffix(".SAFE") for scene_id in ids))
    if not wanted:
        return {}
    api = StacApi(source)
    found: dict[str, pystac.Item] = {}
    for start in range(0, len(wanted), IDS_AT_A_TIME):
        some = wanted[start : start + IDS_AT_A_TIME]
        query = {"collections": [source.collection], "ids": some, "limit": max(len(some), 1)}
        for page in api.pages(query):
            for feature in page:
                if feature.get("id") in some:
                    item = read_item(feature, source)
                    found.setdefault(item.id, item)
    if missing := [scene_id for scene_id in wanted if scene_id not in found]:
        raise MissingDataError(
            f"{source.name} has no scene {', '.join(missing)} in {source.collection} at "
            f"{shown_address(source.endpoint)}; check the ids, or search again: a reprocessed scene has another id"
        )
    return {scene_id: found[scene_id] for scene_id in wanted}


def read_item(feature: Mapping[str, Any], source: StacSource) -> pystac.Item:
    """Return a feature of a reply as an item, checked: id, time, footprint.

    Raises:
        RemoteError: it is no STAC item.
    """
    name = feature.get("id")
    try:
        plain_name(name, "id")
    except ConfigError as error:
        raise RemoteError(
            f"{shown_address(source.endpoint)} sent an item without an id that can name a folder: {shown(name)}. "
            "Narrow the search, or tell the operator."
        ) from error
    try:
        # Only the links that need no server: pystac follows root and parent on its own, which would break offline runs.
        links = [link for link in feature.get("links") or () if link.get("rel") in ("self", "derived_from", "via")]
        defaults = {"type": "Feature", "stac_version": "1.0.0", "assets": {}, "collection": source.collection}
        item = pystac.Item.from_dict({**defaults, **feature, "links": links}, preserve_dict=False)
    except NO_STAC as error:
        raise RemoteError(
            f"scene {name}: {shown_address(source.endpoint)} sent an item that cannot be read: {_text(error)}"
        ) from error
    footprint(item)
    item_time(item)
    return item


def _text(error: Exception) -> str:
    return without_secrets(first_line(error))


class _Search:
    """A search that learns what the server takes."""

    def __init__(self, api: StacApi, criteria: Criteria) -> None:
        self._api = api
        self._criteria = criteria
        source = api.source
        self._filter = _cql2(criteria, source) if source.filters and api.can_filter else None
        if _cql2(criteria, source) is not None and self._filter is None:
            logger.info("%s takes no filters: cloud, snow and tiles are checked here", source.name)
        area = criteria.area
        if area is None and criteria.tiles and self._filter is None:
            # Without filters, where the tiles lie keeps the server from sending everything.
            squares = pd.concat([read_areas(tile_area(tile)) for tile in criteria.tiles])
            area = surface_of(shapely.union_all(list(gpd.GeoSeries(squares))))
        self._area = None if area is None else widen_at_antimeridian(area)
        self._query: dict[str, Any] = {"collections": [source.collection], "limit": source.page_size}

    def run(self) -> dict[str, pystac.Item]:
        """Return what the server finds, each item once."""
        queries = [{**self._query, "datetime": str(interval)} for interval in self._criteria.intervals] or [self._query]
        found: dict[str, pystac.Item] = {}
        for query in queries:
            for feature in self._ask_everywhere(query):
                if str(feature.get("id")) not in found:
                    item = read_item(feature, self._api.source)
                    found[item.id] = item
        if not found and self._filter is not None and self._filter_hides_items(queries):
            return self.run()
        return found

    def _filter_hides_items(self, queries: Sequence[dict[str, Any]]) -> bool:
        """Look at a page of unfiltered items where a filter found none: a property may go by another name here.

        Raises:
            ConfigError: no item says what the filter asks for.
        """
        self._filter, sent = None, self._filter
        for query in queries:
            page = list(itertools.islice(self._ask_everywhere(query), self._api.source.page_size))
            items = [read_item(feature, self._api.source) for feature in page]
            if choose_items(items, self._criteria, self._api.source):
                logger.warning("%s applies filters wrongly: they are applied here", self._api.source.name)
                return True
            if items:
                break
        self._filter = sent
        return False

    def _ask_everywhere(self, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if self._area is None:
            yield from self._ask(query)
        else:
            yield from self._ask_for(self._area, self._api.source.max_vertices, query)

    def _ask_for(self, area: Surface, max_vertices: int, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for geometry in geometries_to_send(area, max_vertices):
            try:
                yield from self._ask({**query, "intersects": mapping(geometry)})
            except RequestRefusedError as error:
                corners = int(shapely.get_num_coordinates(geometry))
                if error.status not in _TOO_LARGE or corners <= BOX_CORNERS:
                    raise
                fewer = max(corners // 4, BOX_CORNERS)
                logger.info("%s: an area of %d corners was refused; trying %d", self._api.source.name, corners, fewer)
                yield from self._ask_for(geometry, fewer, query)

    def _ask(self, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if self._filter is None:
            yield from self._items(query)
            return
        try:
            yield from self._items({**query, "filter-lang": "cql2-json", "filter": self._filter})
        except RequestRefusedError as error:
            if error.status not in _BAD_QUERY:
                raise
            # Refused for the filter, or for something else: then this is refused as well.
            yield from self._items(query)
            logger.info("%s refused the filter (%s): it is applied here", self._api.source.name, error)
            self._filter = None

    def _items(self, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for page in self._api.pages(query):
            yield from page


def _cql2(criteria: Criteria, source: StacSource) -> dict[str, Any] | None:
    """Return the filter in CQL2 JSON, or None where there is nothing to filter."""
    conditions: list[dict[str, Any]] = []
    if criteria.tiles is not None:
        codes = []
        for tile in criteria.tiles:
            codes += [f"MGRS-{tile}"] + ([f"MGRS-{tile[1:]}"] if tile.startswith("0") else [])
        conditions.append({"op": "in", "args": [{"property": source.tile_property}, codes]})
    for limit, name in (
        (criteria.max_cloud_cover, source.cloud_property),
        (criteria.max_snow_cover, source.snow_property),
    ):
        if limit is not None:
            conditions.append({"op": "<=", "args": [{"property": name}, limit]})
    if len(conditions) > 1:
        return {"op": "and", "args": conditions}
    return conditions[0] if conditions else None
