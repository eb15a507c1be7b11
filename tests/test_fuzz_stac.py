"""Replies of a STAC API of any content, and the scenes that they become in the raw data store."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition.testing.earth_search import make_earth_search_scene
from darts_acquisition.testing.loopback import LoopbackHandler, LoopbackServer, serving
from tests.fuzzing import NASTY_NAMES, Sandbox, fuzzed, odd_values, sandbox

__all__ = ["sandbox"]

SCENE = "S2B_T08WMA_20230719T204021_L2A"
GRID = GeoBox((16, 20), Affine(10, 0, 471_200, 0, -10, 7_546_900), "EPSG:32608")


class Api(LoopbackServer):
    """A STAC API that answers each search with the same text, and has the files of one scene."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.item, self.files = make_earth_search_scene(SCENE, GRID, base_url=self.url, block=16)
        self.landing: bytes = b""
        self.found: bytes = b""

    def landing_page(self) -> dict[str, Any]:
        return {
            "type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "made replies",
            "conformsTo": ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"],
            "links": [{"rel": "search", "href": f"{self.url}/search", "method": "POST"}],
        }  # fmt: skip


class _Handler(LoopbackHandler):
    server: Api

    def answer(self) -> None:
        self.read_body()
        path = self.path.partition("?")[0].lstrip("/")
        if path == "":
            self.reply(200, self.server.landing, "application/json")
        elif path == "search":
            self.reply(200, self.server.found, "application/geo+json")
        elif path in self.server.files:
            self.reply(200, self.server.files[path], "image/tiff")
        else:
            self.reply(404, b"not found", "text/plain")


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    server = Api()
    with serving(server):
        yield server


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value within a value."""
    found = [path] if path else []
    if isinstance(value, dict):
        return found + [place for key, inner in value.items() for place in places(inner, (*path, key))]
    if isinstance(value, list):
        return found + [place for key, inner in enumerate(value) for place in places(inner, (*path, key))]
    return found


GONE = "(gone)"


def put(whole: Any, path: tuple[Any, ...], value: Any) -> None:
    """Put a value into its place, or take away what is there."""
    for key in path[:-1]:
        try:
            whole = whole[key]
        except (KeyError, IndexError, TypeError):
            return
    try:
        if value == GONE:
            del whole[path[-1]]
        else:
            whole[path[-1]] = value
    except (KeyError, IndexError, TypeError):
        return


TEMPLATE, _ = make_earth_search_scene(SCENE, GRID, base_url="http://127.0.0.1:1", block=16)
HREFS = ("assets", "red", "href")
hrefs = st.sampled_from([
    "../../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "file:///dev/zero", "/dev/zero", "/proc/self/mem",
    "file://../x", "ftp://127.0.0.1/x", "s3://", "s3://bucket", "s3:///key", "http://", "http://[::1", "https://127.0.0.1:1/x",
    "http://127.0.0.1:99999999/", "x" * 3_000, "a\0b", "data:,x", "/vsicurl/http://127.0.0.1:1/x", "", " ", "?", "#",
    "http://127.0.0.1:1/" + "x" * 300 + "." + "y" * 300, "file:///tmp/../../etc/hostname", "\ud800", "//", "file:",
    "./red.tif", "red.tif", ".", "..", "/",
])  # fmt: skip
changes = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(places(TEMPLATE)), st.just(GONE) | odd_values()),
        st.tuples(st.just(HREFS), hrefs),
        st.tuples(st.just(("id",)), st.sampled_from(NASTY_NAMES)),
        st.tuples(st.just(("links",)), odd_values()),
        st.tuples(st.just(("geometry",)), odd_values()),
        st.tuples(
            st.tuples(st.just("properties"), st.sampled_from([
                "s2:product_uri", "s2:datatake_id", "processing:datetime", "created", "s2:generation_time",
                "start_datetime", "proj:epsg", "proj:transform", "proj:shape", "processing:version",
                "s2:mean_solar_zenith",
            ])),
            st.one_of(odd_values(), st.sampled_from([
                "S2B_MSIL2A_99999999T999999_N0509_R014_T08WMA_20230720T012345", "GS2B_99999999T999999_0_N05.09",
                "x_99999999T999999", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "EPSG:" + "9" * 5_000,
                "EPSG:²", [1e300, 0, 0, 0, -1e300, 0], [1e9, 1e9], "99.99", 99.99, 1e308,
            ])),
        ),
    ),
    min_size=1, max_size=3,
)  # fmt: skip
SEARCH = ("--tile-ids", "08WMA", "--start-date", "2023-07-01", "--end-date", "2023-08-31")
BY_ID = (f"--scene-ids={SCENE}",)


def command(api: Api, *more: str) -> list[str]:
    return [
        *more, "--raw-data-source", "earth-search", "--stac.endpoint", f"{api.url}/", "--stac.retries", "0",
        "--stac.requests-per-second", "1e6", "--stac.timeout-s", "5", "--stac.s3-endpoint", "http://127.0.0.1:1",
    ]  # fmt: skip


def item_of(api: Api) -> dict[str, Any]:
    return copy.deepcopy(api.item)


@pytest.mark.parametrize("selection", [SEARCH, BY_ID], ids=["search", "by id"])
@fuzzed(short=2, share=0.06)
@given(given=changes)
@example([(("links",), ["x"])])
@example([(("type",), None)])
@example([(("links",), 3)])
@example([(HREFS, "file:///dev/zero")])
@example([(HREFS, "a\0b")])
@example([(HREFS, "http://[::1")])
@example([(("properties", "start_datetime"), "0001-01-01T00:00:00+23:00"), (("properties", "datetime"), None)])
@example([(("properties", "proj:code"), "EPSG:" + "9" * 5_000)])
@example([(("properties", "s2:datatake_id"), "GS2B_99999999T999999_0_N05.09")])
def test_an_item(sandbox: Sandbox, api: Api, selection: tuple[str, ...], given: list[tuple[Any, Any]]) -> None:
    sandbox.clear()
    item = item_of(api)
    for path, value in given:
        put(item, path, value)
    api.landing = json.dumps(api.landing_page()).encode()
    api.found = json.dumps({"type": "FeatureCollection", "features": [item, api.item]}).encode()
    seen = sandbox.run(*command(api, "prepare-data", "sentinel2", *selection, "--optical"))
    stores = [path for path in sandbox.data.rglob("*.zarr") if (path / "zarr.json").is_file()]
    assert len(stores) <= 2
    if stores:
        ids = [path.name.removeprefix("earth-search-s2-sr-scene-").removesuffix(".zarr") for path in stores]
        sandbox.run(
            "run", "sentinel2", "--offline", "--dry-run", "--raw-data-source", "earth-search", "--scene-ids", *ids
        )
    assert seen.code in (-1, 0, 1, 2)


replies = st.one_of(
    st.binary(max_size=40),
    odd_values().map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {},
        optional={
            "type": odd_values(),
            "features": odd_values() | st.lists(odd_values(), max_size=3),
            "links": odd_values() | st.lists(st.fixed_dictionaries({"rel": st.just("next"), "href": odd_values()})),
            "numberMatched": odd_values(),
            "context": odd_values(),
        },
    ).map(lambda value: json.dumps(value).encode()),
    st.just(b"[" * 100_000),
    st.just(b'{"features": [], "numberMatched": ' + b"9" * 5_000 + b"}"),
    st.just(b"<html>"),
)


@fuzzed(short=3, share=0.04)
@given(reply=replies, landing=st.one_of(st.none(), st.none(), replies), by_id=st.booleans())
def test_a_reply(sandbox: Sandbox, api: Api, reply: bytes, landing: bytes | None, by_id: bool) -> None:
    sandbox.clear()
    api.landing = json.dumps(api.landing_page()).encode() if landing is None else landing
    api.found = reply
    sandbox.run(*command(api, "prepare-data", "sentinel2", *(BY_ID if by_id else SEARCH), "--optical"))


@fuzzed(short=3, share=0.03)
@given(given=st.lists(st.tuples(st.sampled_from(["links", "conformsTo", "id", "type", "stac_version", "description"]),
                                odd_values() | st.just(GONE)), min_size=1, max_size=2))  # fmt: skip
def test_a_landing_page(sandbox: Sandbox, api: Api, given: list[tuple[str, Any]]) -> None:
    sandbox.clear()
    page = api.landing_page()
    for key, value in given:
        put(page, (key,), value)
    api.landing = json.dumps(page).encode()
    api.found = json.dumps({"type": "FeatureCollection", "features": [api.item]}).encode()
    sandbox.run(*command(api, "run", "sentinel2", *SEARCH, "--dry-run"))


STORED = ("zarr.json", "red/zarr.json", "scl/zarr.json")


@fuzzed(short=2, share=0.04)
@given(file=st.sampled_from(STORED), data=st.data())
def test_a_scene_in_the_store(sandbox: Sandbox, api: Api, file: str, data: st.DataObject) -> None:
    sandbox.clear()
    api.landing = json.dumps(api.landing_page()).encode()
    api.found = json.dumps({"type": "FeatureCollection", "features": [api.item]}).encode()
    assert sandbox.run(*command(api, "prepare-data", "sentinel2", *BY_ID, "--optical")).code == 0
    (scene,) = sandbox.data.rglob(f"*{SCENE}.zarr")
    told = json.loads((scene / file).read_text())
    for path, value in data.draw(
        st.lists(st.tuples(st.sampled_from(places(told)), st.just(GONE) | odd_values()), min_size=1, max_size=2)
    ):
        put(told, path, value)
    (scene / file).write_text(json.dumps(told))
    run = ("run", "sentinel2", "--offline", "--raw-data-source", "earth-search", *BY_ID)
    sandbox.run(*run, "--dry-run")
