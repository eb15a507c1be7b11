"""What a search makes of replies that lie, repeat themselves or are none, and of servers that take no filters."""

import email.utils
import json
import time

import pytest

from darts_acquisition import stac_client
from darts_acquisition.stac_search import search_s2_sr
from darts_acquisition.testing.s2_items import make_search_item
from darts_utils.errors import ConfigError, RemoteError

from .scripted_stac import AREA, IDS, ITEMS, JULY, page, scripted_server, search, short_waits, source_at

__all__ = ["short_waits"]

FILTERS = [
    "https://api.stacspec.org/v1.0.0/item-search#filter",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json",
]


def _raises(answer, *words, **changes):
    with scripted_server(answer) as server, pytest.raises(RemoteError) as caught:
        search(server.url, **changes)
    for word in words:
        assert word in str(caught.value)
    return server


def test_retry_after_as_a_date_is_waited_for(monkeypatch):
    waits = []
    monkeypatch.setattr(stac_client.time, "sleep", waits.append)

    def answer(_body, number, _url):
        values = {1: "7", 2: email.utils.formatdate(time.time() + 30, usegmt=True), 3: "86400", 4: "soon"}
        return (429, {"Retry-After": values[number]}, b"") if number in values else page(ITEMS[:1])

    with scripted_server(answer) as server:
        assert search(server.url, retries=4) == IDS[:1]
    seconds, date, long, unreadable = [wait for wait in waits if wait > 0]
    assert seconds == 7
    assert 27 < date <= 30
    assert long == stac_client.LONGEST_RETRY_AFTER_S
    assert unreadable < 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_retry_after_that_is_no_time_is_not_obeyed(monkeypatch, value):
    waits = []
    monkeypatch.setattr(stac_client.time, "sleep", waits.append)
    with scripted_server(lambda _, n, __: (429, {"Retry-After": value}, b"") if n == 1 else page(ITEMS[:1])) as server:
        assert search(server.url) == IDS[:1]
    assert all(0 <= wait < 1 for wait in waits)


@pytest.mark.parametrize("name", ["numberMatched", "context"])
@pytest.mark.parametrize("sent", [0, 2])
def test_fewer_items_than_the_server_says_there_are_is_an_error(name, sent):
    count = {"numberMatched": 4} if name == "numberMatched" else {"context": {"matched": 4}}

    def answer(*_):
        status, headers, content = page(ITEMS[:sent])
        return status, headers, {**content, **count}

    server = _raises(answer, "4 items match", f"sent {sent}", "narrow the search")
    assert len(server.requests) == 2


def test_items_that_come_when_the_search_is_sent_again_are_found():
    def answer(body, number, url):
        status, headers, content = page(ITEMS[:1] if number == 1 else ITEMS[:4])
        return status, headers, {**content, "numberMatched": 4}

    with scripted_server(answer) as server:
        assert search(server.url) == IDS[:4]


@pytest.mark.parametrize("count", [0, 2, None, "many"])
def test_a_count_that_is_too_small_or_none_is_no_error(count):
    def answer(*_):
        status, headers, content = page(ITEMS[:3])
        return status, headers, {**content, "numberMatched": count}

    with scripted_server(answer) as server:
        assert search(server.url) == IDS[:3]
    assert len(server.requests) == 1


def test_a_next_link_to_the_same_page_is_noticed():
    server = _raises(lambda body, n, url: page(ITEMS[:3], href=f"{url}search", body=body), "again and again", "3 items")
    assert len(server.requests) == 1


def test_pages_that_repeat_under_new_links_are_noticed():
    server = _raises(
        lambda body, n, url: page(ITEMS[:3], href=f"{url}search", body={**body, "token": n}), "again and again"
    )
    assert len(server.requests) <= 4


def test_empty_pages_without_end_are_noticed(monkeypatch):
    monkeypatch.setattr(stac_client, "MOST_EMPTY_PAGES", 5)
    server = _raises(lambda body, n, url: page([], href=f"{url}search", body={**body, "token": n}), "again and again")
    assert len(server.requests) == 6


def test_pages_that_overlap_or_are_empty_in_between_lose_nothing():
    parts = {1: ITEMS[:5], 2: [], 3: ITEMS[3:8], 4: ITEMS[8:9]}

    def answer(body, number, url):
        following = {"href": "search", "merge": True, "body": {"token": number}} if number < 4 else {}
        return page(parts[number], **following)

    with scripted_server(answer) as server:
        assert search(server.url) == IDS[:9]
    assert all(request["collections"] == ["sentinel-2-l2a"] for request in server.requests)
    assert [request.get("token") for request in server.requests] == [None, 1, 2, 3]


def test_a_moved_search_is_asked_in_full_at_its_new_place():
    def answer(body, number, url):
        return (301, {"Location": "/elsewhere"}, b"") if number == 1 else page(ITEMS[:2])

    with scripted_server(answer) as server:
        assert search(server.url) == IDS[:2]
    assert server.requests[0] == server.requests[1]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"<html>Please log in</html>", "did not send JSON"),
        ([1, 2], "something else than a list of items"),
        ({"message": "ok"}, "something else than a list of items"),
        ({"features": ["a"]}, "something else than a list of items"),
    ],
)
def test_replies_that_are_no_items_are_an_error(content, word):
    _raises(lambda *_: (200, {}, content), word, "/search")


def test_a_page_for_people_is_not_asked_for_again():
    server = _raises(lambda *_: (200, {"Content-Type": "text/html"}, b"<html>Log in"), "Log in")
    assert len(server.requests) == 1


def test_an_address_that_is_no_stac_api_is_named(tmp_path):
    from darts_acquisition.testing import file_server

    (tmp_path / "index.json").write_text('{"hello": "world"}')
    with file_server(tmp_path) as url, pytest.raises(RemoteError, match=r"not the landing page of a STAC API"):
        search(f"{url}/index.json", retries=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"geometry": None}, ("footprint", "it has none")),
        ({"id": None}, ("without an id",)),
        ({"properties": {"datetime": None}}, ("cannot be read", "datetime")),
        ({"properties": {"datetime": "yesterday"}}, ()),
        ({"properties": None}, ()),
    ],
)
def test_an_item_that_is_none_is_named(changes, words):
    bad = {**ITEMS[1], **changes}
    name = IDS[1] if changes.get("id", "") is not None else ""
    _raises(lambda *_: page([ITEMS[0], bad]), name, *words)


def test_an_item_without_assets_is_found():
    with scripted_server(lambda *_: page([{k: v for k, v in ITEMS[0].items() if k != "assets"}])) as server:
        assert search(server.url) == IDS[:1]


# Filters and areas that a server does not take


def test_filters_are_sent_to_a_server_that_takes_them():
    with scripted_server(lambda *_: page(ITEMS[:1]), FILTERS) as server:
        search_s2_sr(source_at(server.url), tiles="08WMA", max_cloud_cover=0.5, max_snow_cover=None, **JULY)
        search_s2_sr(source_at(server.url, filters=False), tiles="08WMA", **JULY)
    first = server.requests[0]
    assert first["filter-lang"] == "cql2-json"
    assert first["filter"] == {
        "op": "and",
        "args": [
            {"op": "in", "args": [{"property": "grid:code"}, ["MGRS-08WMA", "MGRS-8WMA"]]},
            {"op": "<=", "args": [{"property": "eo:cloud_cover"}, 0.5]},
        ],
    }
    assert "intersects" not in first
    assert "filter" not in server.requests[-1]
    assert "intersects" in server.requests[-1]


def test_what_comes_back_is_checked_again():
    liars = [
        make_search_item("08WMA", "20210703T210029", eo__cloud_cover=50),
        make_search_item("52WEE", "20210703T210029"),
        ITEMS[4],
    ]
    with scripted_server(lambda *_: page(liars), FILTERS) as server:
        assert search(server.url) == [IDS[4]]


def test_a_server_that_refuses_the_filter_is_asked_without_it():
    def answer(body, number, url):
        return (400, {}, {"detail": "no such queryable"}) if "filter" in body else page(ITEMS[:2])

    with scripted_server(answer, FILTERS) as server:
        found = search_s2_sr(source_at(server.url), AREA, months=[5, 7], years=[2021])
    assert list(found) == IDS[:2]
    assert ["filter" in body for body in server.requests] == [True, False, False]


def test_a_filter_that_hides_items_which_fit_is_not_trusted(caplog):
    def answer(body, number, url):
        return page([] if "filter" in body else ITEMS[:2])

    with scripted_server(answer, FILTERS) as server:
        assert search(server.url) == IDS[:2]
    assert "applies filters wrongly" in caplog.text


def test_a_filter_on_a_property_that_no_item_has_is_an_error_and_not_an_empty_list():
    snowless = make_search_item("08WMA", "20210703T210029", eo__snow_cover=None)

    def answer(body, number, url):
        return page([] if "eo:snow_cover" in json.dumps(body) else [snowless])

    with scripted_server(answer, FILTERS) as server, pytest.raises(ConfigError, match="eo:snow_cover"):
        search(server.url)


@pytest.mark.parametrize("status", [400, 413])
def test_an_area_that_is_too_large_for_the_server_is_made_simpler(status):
    def corners(geometry):
        polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        return sum(len(ring) for polygon in polygons for ring in polygon)

    def answer(body, number, url):
        too_large = corners(body["intersects"]) > 20
        return (status, {}, {"detail": "too many vertices"}) if too_large else page(ITEMS[:2])

    with scripted_server(answer, FILTERS) as server:
        found = search_s2_sr(source_at(server.url), AREA.buffer(0.5, quad_segs=100), **JULY)
    assert list(found) == IDS[:2]


def test_an_area_that_is_refused_in_every_form_is_one_error():
    server = _raises(lambda *_: (413, {}, {"detail": "no areas here"}), "HTTP 413", "no areas here")
    assert len(server.requests) <= 4
