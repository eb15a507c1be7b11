"""A STAC API on 127.0.0.1 that filters by CQL2, pages by token and refuses large geometries, as the big ones do."""

import base64
import contextlib
import json
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import shapely
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from darts_acquisition.testing.cql2_filters import FilterError, matches
from darts_acquisition.testing.loopback import LoopbackHandler, LoopbackServer, serving
from darts_acquisition.testing.processes import check_items

_CONFORMANCE = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/item-search#filter",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/filter",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/features-filter",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json",
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-cql2",
    "http://www.opengis.net/spec/cql2/1.0/conf/advanced-comparison-operators",
]
_LISTS = ("ids", "collections")
_OBJECTS = ("intersects", "filter")


@dataclass
class Misbehaviour:
    """What the server does wrong; to be switched while it runs."""

    ignore_filter: bool = False
    """Returns items that the filter excludes."""
    duplicate_pages: bool = False
    """Begins each page with the last item of the page before."""


class Cql2StacServer:
    """A running server."""

    def __init__(self, server: "_Server") -> None:
        self._server = server
        self.url = server.url + "/"
        """Base address with a trailing slash."""
        self.misbehave = server.misbehave
        """Switches of what it does wrong."""

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and path (with query) of the requests seen."""
        with self._server.lock:
            return list(self._server.seen)

    @property
    def searches(self) -> list[dict[str, Any]]:
        """Parameters of the searches seen, those of GET requests as POST has them."""
        with self._server.lock:
            return list(self._server.searches)

    def clear(self) -> None:
        """Forget the requests seen."""
        with self._server.lock:
            self._server.seen.clear()
            self._server.searches.clear()


@contextlib.contextmanager
def cql2_stac_server(
    collection: dict[str, Any],
    items: list[dict[str, Any]],
    *,
    page_size: int | None = None,
    max_geometry_vertices: int | None = None,
) -> Iterator[Cql2StacServer]:
    """Serve items until the block ends, by GET and POST.

    It searches by ids, collections, datetime, bbox, intersects and `filter` in cql2-json, newest first. Pages are of
    10 items unless the client asks otherwise; the next one is had by a token.

    Args:
        collection: that of the items.
        items: what it has.
        page_size: the most items of a page, whatever the client asks; None: 10,000.
        max_geometry_vertices: an `intersects` with more is answered with 400; None: any is taken.

    Raises:
        ConfigError: an item is of another collection.
    """
    check_items(collection, items)
    server = _Server(collection, items, page_size or 10_000, max_geometry_vertices)
    with serving(server):
        yield Cql2StacServer(server)


class _Server(LoopbackServer):
    def __init__(
        self, collection: dict[str, Any], items: list[dict[str, Any]], page_size: int, max_vertices: int | None
    ) -> None:
        self.collection = collection
        self.items = sorted(items, key=lambda item: (_utc(item["properties"]["datetime"]), item["id"]), reverse=True)
        self.shapes = {item["id"]: shape(item["geometry"]) for item in items}
        self.page_size = page_size
        self.max_vertices = max_vertices
        self.misbehave = Misbehaviour()
        self.seen: list[tuple[str, str]] = []
        self.searches: list[dict[str, Any]] = []
        super().__init__(_Handler)


class _Refused(Exception):  # noqa: N818
    """Answered with 400."""


class _Handler(LoopbackHandler):
    server: _Server

    def answer(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        parts = [part for part in urllib.parse.unquote(address.path).split("/") if part]
        body = self.read_body()
        with self.server.lock:
            self.server.seen.append((self.command, self.path))
        try:
            if parts == ["search"]:
                self._search(_parameters(address.query, body))
            elif not parts:
                self.reply_json(200, self._landing_page())
            elif parts == ["conformance"]:
                self.reply_json(200, {"conformsTo": _CONFORMANCE})
            elif parts == ["collections"]:
                self.reply_json(200, {"collections": [self._collection()], "links": []})
            elif parts[:2] == ["collections", self.server.collection["id"]]:
                self._in_collection(parts[2:], address.query)
            else:
                self._fail(404, "NotFoundError", f"{address.path} not found")
        except (_Refused, FilterError, ValueError, KeyError, TypeError) as error:
            self._fail(400, "BadRequest", str(error))

    def _in_collection(self, rest: list[str], query: str) -> None:
        if not rest:
            self.reply_json(200, self._collection())
        elif rest == ["items"]:
            self._search({**_parameters(query, b""), "collections": [self.server.collection["id"]]})
        else:
            found = [item for item in self.server.items if rest == ["items", item["id"]]]
            if found:
                self.reply_json(200, self._linked(found[0]), "application/geo+json")
            else:
                self._fail(404, "NotFoundError", f"{'/'.join(rest)} not found")

    def _search(self, asked: dict[str, Any]) -> None:
        with self.server.lock:
            self.server.searches.append(asked)
        found = self._find(asked)
        limit = int(asked.get("limit") or 10)
        if limit < 1:
            raise _Refused("limit must be 1 or more")
        start, size = _from_token(asked.get("token")), min(limit, self.server.page_size)
        page = found[start : start + size]
        if self.server.misbehave.duplicate_pages and start:
            page = [found[start - 1], *page]
        links = [{"rel": "root", "type": "application/json", "href": self.server.url + "/"}]
        if start + size < len(found):
            links.append(self._next_link(start + size))
        reply = {
            "type": "FeatureCollection", "links": links, "numberReturned": len(page),
            "features": [self._linked(item) for item in page],
        }  # fmt: skip
        self.reply_json(200, reply, "application/geo+json")

    def _find(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        if asked.get("filter") is not None and asked.get("filter-lang", "cql2-json") != "cql2-json":
            raise _Refused(f"filter-lang {asked['filter-lang']!r} is not supported; cql2-json is")
        area = self._area(asked)
        interval = _interval(asked["datetime"]) if asked.get("datetime") else None
        # Evaluated even when ignored, and on all items: a filter that is wrong is refused.
        stays = {
            item["id"]: asked.get("filter") is None or matches(asked["filter"], item) for item in self.server.items
        }

        def fits(item: dict[str, Any]) -> bool:
            return (
                (not asked.get("ids") or item["id"] in asked["ids"])
                and (not asked.get("collections") or item["collection"] in asked["collections"])
                and (interval is None or interval[0] <= _utc(item["properties"]["datetime"]) <= interval[1])
                and (area is None or area.intersects(self.server.shapes[item["id"]]))
                and (stays[item["id"]] or self.server.misbehave.ignore_filter)
            )

        return [item for item in self.server.items if fits(item)]

    def _area(self, asked: dict[str, Any]) -> BaseGeometry | None:
        if asked.get("bbox") and asked.get("intersects"):
            raise _Refused("bbox and intersects exclude each other")
        if asked.get("bbox"):
            corners = [float(number) for number in asked["bbox"]]
            west, south, east, north = corners if len(corners) == 4 else (*corners[:2], *corners[3:5])
            if west <= east:
                return box(west, south, east, north)
            return shapely.union_all([box(west, south, 180, north), box(-180, south, east, north)])
        if asked.get("intersects") is None:
            return None
        area = shape(asked["intersects"])
        vertices, most = shapely.get_num_coordinates(area), self.server.max_vertices
        if most is not None and vertices > most:
            raise _Refused(f"intersects has {vertices} vertices, the most allowed are {most}")
        if not area.is_valid:
            raise _Refused("intersects is no valid geometry")
        return area

    def _next_link(self, start: int) -> dict[str, Any]:
        token = base64.urlsafe_b64encode(f"next:{start}".encode()).decode()
        link = {"rel": "next", "type": "application/geo+json", "method": self.command}
        if self.command == "POST":
            return link | {"href": f"{self.server.url}/search", "merge": True, "body": {"token": token}}
        address = urllib.parse.urlsplit(self.path)
        query = [(name, value) for name, value in urllib.parse.parse_qsl(address.query) if name != "token"]
        return link | {"href": f"{self.server.url}{address.path}?{urllib.parse.urlencode([*query, ('token', token)])}"}

    def _linked(self, item: dict[str, Any]) -> dict[str, Any]:
        place = f"{self.server.url}/collections/{item['collection']}"
        own = [
            {"rel": "self", "type": "application/geo+json", "href": f"{place}/items/{item['id']}"},
            {"rel": "collection", "type": "application/json", "href": place},
            {"rel": "root", "type": "application/json", "href": self.server.url + "/"},
        ]
        others = [link for link in item.get("links", []) if link["rel"] not in ("self", "collection", "root")]
        return {**item, "links": own + others}

    def _collection(self) -> dict[str, Any]:
        url, place = self.server.url, f"{self.server.url}/collections/{self.server.collection['id']}"
        links = [
            {"rel": "self", "type": "application/json", "href": place},
            {"rel": "items", "type": "application/geo+json", "href": f"{place}/items"},
            {"rel": "root", "type": "application/json", "href": f"{url}/"},
        ]
        return {**self.server.collection, "links": links}

    def _landing_page(self) -> dict[str, Any]:
        url = self.server.url
        links = [
            {"rel": "self", "type": "application/json", "href": f"{url}/"},
            {"rel": "root", "type": "application/json", "href": f"{url}/"},
            {"rel": "conformance", "type": "application/json", "href": f"{url}/conformance"},
            {"rel": "data", "type": "application/json", "href": f"{url}/collections"},
            *(
                {"rel": "search", "type": "application/geo+json", "href": f"{url}/search", "method": method}
                for method in ("GET", "POST")
            ),
        ]
        return {
            "type": "Catalog", "stac_version": "1.1.0", "id": "made", "description": "a STAC API for tests",
            "conformsTo": _CONFORMANCE, "links": links,
        }  # fmt: skip

    def _fail(self, status: int, code: str, description: str) -> None:
        self.reply_json(status, {"code": code, "description": description})


def _parameters(query: str, body: bytes) -> dict[str, Any]:
    if body:
        return dict(json.loads(body))
    asked: dict[str, Any] = dict(urllib.parse.parse_qsl(query))
    for name in _LISTS:
        if name in asked:
            asked[name] = asked[name].split(",")
    for name in _OBJECTS:
        if name in asked and (name != "filter" or asked.get("filter-lang") == "cql2-json"):
            asked[name] = json.loads(asked[name])
    if "bbox" in asked:
        asked["bbox"] = [float(number) for number in asked["bbox"].split(",")]
    return asked


def _from_token(token: str | None) -> int:
    if token is None:
        return 0
    name, _, start = base64.urlsafe_b64decode(token).decode().partition(":")
    if name != "next":
        raise _Refused("the token is not one of ours")
    return int(start)


def _interval(text: str) -> tuple[datetime, datetime]:
    start, _, end = text.partition("/")
    if "/" not in text:
        end = start
    return (
        datetime.min.replace(tzinfo=UTC) if start in ("", "..") else _utc(start),
        datetime.max.replace(tzinfo=UTC) if end in ("", "..") else _utc(end),
    )


def _utc(text: str) -> datetime:
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if time.tzinfo is None:
        raise _Refused(f"{text!r} is no time of RFC 3339")
    return time
