import json

import numpy as np
import pystac_client
import pytest
import requests
from pystac_client.exceptions import APIError
from shapely.geometry import Point, mapping

from darts_acquisition.testing import cql2_stac_server, fault_proxy, make_collection
from darts_acquisition.testing.cql2_filters import FilterError, matches

TILES = ("08WMA", "08WNA", "55WFR")


def item(n: int) -> dict:
    lon = -179.75 + n * 0.5
    ring = [[lon - 0.2, 68], [lon + 0.2, 68], [lon + 0.2, 69], [lon - 0.2, 69], [lon - 0.2, 68]]
    properties = {
        "datetime": f"2024-{n % 12 + 1:02d}-01T00:00:00Z",
        "eo:cloud_cover": n % 10,
        "grid:code": f"MGRS-{TILES[n % 3]}",
    }
    if n % 7 == 0:
        del properties["eo:cloud_cover"]
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": f"item-{n:03d}", "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [lon - 0.2, 68, lon + 0.2, 69],
        "properties": properties, "links": [], "assets": {},
    }  # fmt: skip


ITEMS = [item(n) for n in range(60)]


@pytest.fixture(scope="module")
def running():
    with cql2_stac_server(make_collection(), ITEMS, page_size=20, max_geometry_vertices=50) as server:
        yield server


@pytest.fixture
def server(running):
    running.clear()
    running.misbehave.ignore_filter = running.misbehave.duplicate_pages = False
    return running


@pytest.fixture
def find(server):
    client = pystac_client.Client.open(server.url)

    def find(**search) -> list[str]:
        return sorted(item.id for item in client.search(collections=["sentinel-2-l2a"], **search).items())

    return find


def op(name: str, *args) -> dict:
    return {"op": name, "args": list(args)}


CLOUD = {"property": "eo:cloud_cover"}
TILE = {"property": "grid:code"}
DATE = {"property": "datetime"}


def ids(keep) -> list[str]:
    return [item["id"] for item in ITEMS if keep(item["properties"], item)]


def cloud(properties: dict) -> float:
    return properties.get("eo:cloud_cover", np.nan)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("limit", [1, 7, 20, 100])
def test_every_item_comes_once_over_the_pages(server, find, method, limit):
    assert find(method=method, limit=limit) == ids(lambda *_: True)
    assert len(server.searches) == -(-60 // min(limit, 20))


@pytest.mark.parametrize(
    ("expression", "keep"),
    [
        (op("<=", CLOUD, 3), lambda p: cloud(p) <= 3),
        (op("<", CLOUD, 3), lambda p: cloud(p) < 3),
        (op("=", CLOUD, 0), lambda p: cloud(p) == 0),
        (op("<>", CLOUD, 0), lambda p: cloud(p) > 0),
        (op("not", op(">", CLOUD, 3)), lambda p: cloud(p) <= 3),
        (op("in", TILE, ["MGRS-08WMA", "MGRS-08WNA"]), lambda p: "55" not in p["grid:code"]),
        (op("between", CLOUD, 2, 4), lambda p: 2 <= cloud(p) <= 4),
        (op("like", TILE, "MGRS-08W_A"), lambda p: "08W" in p["grid:code"]),
        (op("like", TILE, "%FR"), lambda p: p["grid:code"].endswith("FR")),
        (op("isNull", CLOUD), lambda p: "eo:cloud_cover" not in p),
        (op("not", op("isNull", CLOUD)), lambda p: "eo:cloud_cover" in p),
        (op("or", op("=", CLOUD, 1), op("isNull", CLOUD)), lambda p: cloud(p) == 1 or "eo:cloud_cover" not in p),
        (op("and", op("<=", CLOUD, 5), op("=", TILE, "MGRS-08WMA")), lambda p: cloud(p) <= 5 and "MA" in str(p)),
        (op(">=", DATE, {"timestamp": "2024-10-01T00:00:00Z"}), lambda p: p["datetime"] > "2024-10"),
        (op("=", {"property": "id"}, "item-003"), None),
    ],
)  # fmt: skip
def test_filters(find, expression, keep):
    expected = ["item-003"] if keep is None else ids(lambda properties, _: keep(properties))
    assert 0 < len(expected) < 60
    assert find(filter=expression, filter_lang="cql2-json") == expected


def test_a_filter_may_come_by_get(find):
    found = find(filter=op("=", TILE, "MGRS-55WFR"), filter_lang="cql2-json", method="GET", limit=5)
    assert found == ids(lambda p, _: "55WFR" in p["grid:code"])


def test_datetime_bbox_intersects_and_ids(find):
    assert find(datetime="2024-03-01T00:00:00Z/..") == ids(lambda p, _: p["datetime"] >= "2024-03")
    assert find(datetime="2024-03-01T00:00:00Z/2024-04-01T00:00:00Z") == ids(
        lambda p, _: p["datetime"][:7] in ("2024-03", "2024-04")
    )
    assert find(bbox=[-180, 60, -179, 70]) == ["item-000", "item-001"]
    assert find(intersects=mapping(Point(-179.2, 68.5).buffer(0.06, 4))) == ["item-001"]
    assert find(ids=["item-009", "item-008", "nothing"]) == ["item-008", "item-009"]


def test_a_bbox_may_go_over_the_antimeridian(server):
    body = {"bbox": [179, 60, -179.7, 70], "limit": 100}
    found = requests.post(server.url + "search", json=body, timeout=5).json()["features"]
    assert [item["id"] for item in found] == ["item-000"]


def test_geometries_with_too_many_vertices_are_refused(find):
    with pytest.raises(APIError, match="65 vertices, the most allowed are 50"):
        find(intersects=mapping(Point(-179, 68.5).buffer(0.1, 16)))


@pytest.mark.parametrize(
    "wrong", [op("t_after", CLOUD, 1), {"op": "="}, op("=", {"propertie": "x"}, 1), op("<", TILE, 3), "text"]
)
def test_a_wrong_filter_is_refused(server, wrong):
    reply = requests.post(server.url + "search", json={"filter": wrong, "filter-lang": "cql2-json"}, timeout=5)
    assert (reply.status_code, reply.json()["code"]) == (400, "BadRequest")


def test_what_is_unknown_stays_unknown_when_negated():
    lacking = {"properties": {}}
    assert not matches(op("=", CLOUD, 1), lacking)
    assert not matches(op("not", op("=", CLOUD, 1)), lacking)
    assert matches(op("or", op("=", CLOUD, 1), op("isNull", CLOUD)), lacking)
    with pytest.raises(FilterError):
        matches(op("sideways", CLOUD), lacking)


def test_it_can_ignore_filters(server, find):
    server.misbehave.ignore_filter = True
    assert len(find(filter=op("<", CLOUD, 3), filter_lang="cql2-json")) == 60


def test_it_can_repeat_items(server, find):
    server.misbehave.duplicate_pages = True
    found = find(limit=20)
    assert len(found) == 62
    assert set(found) == {item["id"] for item in ITEMS}


def test_single_items_and_the_collection_are_shown(server):
    client = pystac_client.Client.open(server.url)
    assert client.get_collection("sentinel-2-l2a").get_item("item-004").id == "item-004"
    assert len(list(client.get_collection("sentinel-2-l2a").get_items())) == 60
    assert requests.get(f"{server.url}collections/other", timeout=5).status_code == 404
    assert requests.get(f"{server.url}collections/sentinel-2-l2a/items/x", timeout=5).status_code == 404


def test_requests_are_recorded(server, find):
    find(ids=["item-001"])
    assert ("POST", "/search") in server.requests
    assert server.searches == [{"collections": ["sentinel-2-l2a"], "ids": ["item-001"]}]


def test_next_links_lead_through_a_proxy(server):
    with fault_proxy(server.url) as proxy:
        found = list(pystac_client.Client.open(proxy.url).search(limit=20).items())
        assert len(found) == 60
        assert len([path for method, path in proxy.requests if (method, path) == ("POST", "/search")]) == 3
        assert server.url not in json.dumps([item.to_dict() for item in found])
