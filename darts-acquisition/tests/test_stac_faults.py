"""What a search makes of servers that fail, refuse or send nonsense."""

import dataclasses
import email.utils
import json
import threading
import time
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from shapely.geometry import box

from darts_acquisition import CDSE_SOURCE, stac_client
from darts_acquisition.rate_limit import shared_limit
from darts_acquisition.stac_search import get_items, search_s2_sr
from darts_acquisition.testing import Fault, fault_proxy, make_collection, stac_server
from darts_acquisition.testing.s2_items import make_search_item
from darts_utils.errors import ConfigError, DartsError, RemoteError

AREA = box(-136, 67.5, -134, 68.5)
JULY = {"start_date": "2021-07-01", "end_date": "2021-07-31"}
ITEMS = [make_search_item("08WMA", f"202107{day:02d}T210029") for day in range(1, 26)]
IDS = [item["id"] for item in ITEMS]
FILTERS = [
    "https://api.stacspec.org/v1.0.0/item-search#filter",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json",
]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(stac_client, "BACKOFF_S", 0.01)


@pytest.fixture(scope="module")
def upstream():
    with stac_server(make_collection(), ITEMS) as url:
        yield url


@pytest.fixture(scope="module")
def running_proxy(upstream):
    with fault_proxy(upstream) as proxy:
        yield proxy


@pytest.fixture
def proxy(running_proxy):
    running_proxy.faults()
    running_proxy.clear()
    return running_proxy


def _source(url, **changes):
    settings = {"requests_per_second": None, "timeout_s": 5, "retries": 3, "page_size": 10, **changes}
    return dataclasses.replace(CDSE_SOURCE, endpoint=url, **settings)


def _search(url, **changes):
    return list(search_s2_sr(_source(url, **changes), AREA, **JULY))


# Failures that pass


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST /search", "status", status=429, times=2),
        Fault("POST /search", "status", status=429, retry_after=0.05, times=2),
        Fault("POST /search", "status", status=500, times=3),
        Fault("POST /search", "status", status=503, times=3),
        Fault("GET /", "status", status=502, times=1),
        Fault("POST /search", "reset", times=2),
        Fault("POST /search", "reset", after_bytes=-1, times=2),
        Fault("POST /search", "truncate_right_length", times=2),
        Fault("POST /search", "truncate_short_length", times=2),
        Fault("POST /search", "stall", stall_s=5, times=1),
    ],
    ids=lambda fault: f"{fault.action}-{fault.status if fault.action == 'status' else fault.after_bytes}",
)
def test_a_failure_that_passes_is_not_noticed(proxy, fault):
    proxy.faults(fault)
    assert _search(proxy.url, timeout_s=0.5) == IDS
    assert len(proxy.requests) == 4 + fault.times


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (Fault("POST /search", "status", status=429), "HTTP 429"),
        (Fault("POST /search", "status", status=503), "HTTP 503"),
        (Fault("POST /search", "reset"), "reset"),
        (Fault("POST /search", "truncate_right_length"), "IncompleteRead"),
        (Fault("POST /search", "truncate_short_length"), "did not send JSON"),
        (Fault("POST /search", "stall", stall_s=5), "silent"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failure_that_stays_is_one_error_after_all_tries(proxy, fault, word):
    proxy.faults(fault)
    with pytest.raises(RemoteError) as caught:
        _search(proxy.url, timeout_s=0.3)
    message = str(caught.value)
    assert word in message
    assert "after 4 tries" in message
    assert f"POST {proxy.url}/search" in message
    assert len([r for r in proxy.requests if r[0] == "POST"]) == 4


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_not_asked_again(proxy, status):
    proxy.faults(Fault("POST /search", "status", status=status))
    with pytest.raises(RemoteError, match=f"HTTP {status}"):
        _search(proxy.url)
    assert len(proxy.requests) == 2


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(RemoteError, match=r"http://127\.0\.0\.1:9/ failed after 2 tries.*refused"):
        _search("http://127.0.0.1:9/", retries=1)


def test_ids_are_asked_for_again_too(proxy):
    proxy.faults(Fault("POST /search", "status", status=503, times=2))
    assert list(get_items(_source(proxy.url), IDS[:3])) == IDS[:3]


def _with_secrets(url):
    return url.replace("http://", "http://user:password@") + "?token=hidden"


def test_secrets_in_addresses_are_not_shown():
    with pytest.raises(RemoteError) as caught:
        _search(_with_secrets("http://127.0.0.1:9/"), retries=0)
    assert "password" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_secrets_of_an_address_that_is_no_stac_api_are_not_shown():
    def answer(*_):
        raise AssertionError("not asked")

    with (
        scripted_server(answer, landing={"type": "Feature", "id": "x"}) as server,
        pytest.raises(RemoteError) as caught,
    ):
        _search(_with_secrets(server.url), retries=0)
    shown = "".join(traceback.format_exception(caught.value))
    assert server.url in shown
    assert "password" not in shown
    assert "hidden" not in shown


@pytest.mark.parametrize("items", [[], [{**ITEMS[0], "properties": None, "links": []}]])
def test_secrets_are_not_shown_when_items_are_missing_or_none(items):
    with scripted_server(lambda *_: _page(items)) as server, pytest.raises(DartsError) as caught:
        get_items(_source(_with_secrets(server.url)), IDS[:1])
    assert server.url in str(caught.value)
    assert "password" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_secrets_that_a_server_repeats_are_not_shown():
    text = b"Cannot POST http://user:password@inside/search?token=hidden nor /search?key=hidden"
    with scripted_server(lambda *_: (403, {}, text)) as server, pytest.raises(RemoteError) as caught:
        _search(server.url, retries=0)
    assert "Cannot POST http://inside/search nor /search?" in str(caught.value)
    assert "password" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_secrets_of_an_address_that_a_server_redirects_to_are_not_shown():
    place = {"Location": "ftp://user:password@inside/search?token=hidden"}
    with scripted_server(lambda *_: (302, place, b"")) as server, pytest.raises(RemoteError) as caught:
        _search(server.url, retries=0)
    shown = "".join(traceback.format_exception(caught.value))
    assert "password" not in shown
    assert "hidden" not in shown


# A server whose replies are written out here


@dataclasses.dataclass
class Scripted:
    url: str
    requests: list


@contextmanager
def scripted_server(answer, conforms_to=(), landing=None):
    """Serve a landing page (a right one, unless given), and what `answer` gives to each search.

    `answer(body, number, url)` returns status, headers, content.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self):
            links = [{"rel": "search", "href": f"{scripted.url}search", "type": "application/geo+json"}]
            catalog = {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "d", "links": links}
            self._reply(200, {}, landing or {**catalog, "conformsTo": list(conforms_to)})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            scripted.requests.append(body)
            self._reply(*answer(body, len(scripted.requests), scripted.url))

        def _reply(self, status, headers, content):
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    scripted = Scripted(f"http://127.0.0.1:{server.server_port}/", [])
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield scripted
    finally:
        server.shutdown()
        server.server_close()


def _page(items, **following):
    links = [{"rel": "next", "method": "POST", **following}] if following else []
    return 200, {}, {"type": "FeatureCollection", "features": items, "links": links}


def _raises(answer, *words, **changes):
    with scripted_server(answer) as server, pytest.raises(RemoteError) as caught:
        _search(server.url, **changes)
    for word in words:
        assert word in str(caught.value)
    return server


def test_retry_after_as_a_date_is_waited_for(monkeypatch):
    waits = []
    monkeypatch.setattr(stac_client.time, "sleep", waits.append)

    def answer(_body, number, _url):
        values = {1: "7", 2: email.utils.formatdate(time.time() + 30, usegmt=True), 3: "86400", 4: "soon"}
        return (429, {"Retry-After": values[number]}, b"") if number in values else _page(ITEMS[:1])

    with scripted_server(answer) as server:
        assert _search(server.url, retries=4) == IDS[:1]
    seconds, date, long, unreadable = [wait for wait in waits if wait > 0]
    assert seconds == 7
    assert 27 < date <= 30
    assert long == stac_client.LONGEST_RETRY_AFTER_S
    assert unreadable < 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_retry_after_that_is_no_time_is_not_obeyed(monkeypatch, value):
    waits = []
    monkeypatch.setattr(stac_client.time, "sleep", waits.append)
    with scripted_server(lambda _, n, __: (429, {"Retry-After": value}, b"") if n == 1 else _page(ITEMS[:1])) as server:
        assert _search(server.url) == IDS[:1]
    assert all(0 <= wait < 1 for wait in waits)


@pytest.mark.parametrize("name", ["numberMatched", "context"])
@pytest.mark.parametrize("sent", [0, 2])
def test_fewer_items_than_the_server_says_there_are_is_an_error(name, sent):
    count = {"numberMatched": 4} if name == "numberMatched" else {"context": {"matched": 4}}

    def answer(*_):
        status, headers, content = _page(ITEMS[:sent])
        return status, headers, {**content, **count}

    server = _raises(answer, "4 items match", f"sent {sent}", "narrow the search")
    assert len(server.requests) == 2


def test_items_that_come_when_the_search_is_sent_again_are_found():
    def answer(body, number, url):
        status, headers, content = _page(ITEMS[:1] if number == 1 else ITEMS[:4])
        return status, headers, {**content, "numberMatched": 4}

    with scripted_server(answer) as server:
        assert _search(server.url) == IDS[:4]


@pytest.mark.parametrize("count", [0, 2, None, "many"])
def test_a_count_that_is_too_small_or_none_is_no_error(count):
    def answer(*_):
        status, headers, content = _page(ITEMS[:3])
        return status, headers, {**content, "numberMatched": count}

    with scripted_server(answer) as server:
        assert _search(server.url) == IDS[:3]
    assert len(server.requests) == 1


def test_a_next_link_to_the_same_page_is_noticed():
    server = _raises(
        lambda body, n, url: _page(ITEMS[:3], href=f"{url}search", body=body), "again and again", "3 items"
    )
    assert len(server.requests) == 1


def test_pages_that_repeat_under_new_links_are_noticed():
    server = _raises(
        lambda body, n, url: _page(ITEMS[:3], href=f"{url}search", body={**body, "token": n}), "again and again"
    )
    assert len(server.requests) <= 4


def test_empty_pages_without_end_are_noticed(monkeypatch):
    monkeypatch.setattr(stac_client, "MOST_EMPTY_PAGES", 5)
    server = _raises(lambda body, n, url: _page([], href=f"{url}search", body={**body, "token": n}), "again and again")
    assert len(server.requests) == 6


def test_pages_that_overlap_or_are_empty_in_between_lose_nothing():
    parts = {1: ITEMS[:5], 2: [], 3: ITEMS[3:8], 4: ITEMS[8:9]}

    def answer(body, number, url):
        following = {"href": "search", "merge": True, "body": {"token": number}} if number < 4 else {}
        return _page(parts[number], **following)

    with scripted_server(answer) as server:
        assert _search(server.url) == IDS[:9]
    assert all(request["collections"] == ["sentinel-2-l2a"] for request in server.requests)
    assert [request.get("token") for request in server.requests] == [None, 1, 2, 3]


def test_a_moved_search_is_asked_in_full_at_its_new_place():
    def answer(body, number, url):
        return (301, {"Location": "/elsewhere"}, b"") if number == 1 else _page(ITEMS[:2])

    with scripted_server(answer) as server:
        assert _search(server.url) == IDS[:2]
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
        _search(f"{url}/index.json", retries=0)


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
    _raises(lambda *_: _page([ITEMS[0], bad]), name, *words)


def test_an_item_without_assets_is_found():
    with scripted_server(lambda *_: _page([{k: v for k, v in ITEMS[0].items() if k != "assets"}])) as server:
        assert _search(server.url) == IDS[:1]


# Filters and areas that a server does not take


def test_filters_are_sent_to_a_server_that_takes_them():
    with scripted_server(lambda *_: _page(ITEMS[:1]), FILTERS) as server:
        search_s2_sr(_source(server.url), tiles="08WMA", max_cloud_cover=0.5, max_snow_cover=None, **JULY)
        search_s2_sr(_source(server.url, filters=False), tiles="08WMA", **JULY)
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
    with scripted_server(lambda *_: _page(liars), FILTERS) as server:
        assert _search(server.url) == [IDS[4]]


def test_a_server_that_refuses_the_filter_is_asked_without_it():
    def answer(body, number, url):
        return (400, {}, {"detail": "no such queryable"}) if "filter" in body else _page(ITEMS[:2])

    with scripted_server(answer, FILTERS) as server:
        found = search_s2_sr(_source(server.url), AREA, months=[5, 7], years=[2021])
    assert list(found) == IDS[:2]
    assert ["filter" in body for body in server.requests] == [True, False, False]


def test_a_filter_that_hides_items_which_fit_is_not_trusted(caplog):
    def answer(body, number, url):
        return _page([] if "filter" in body else ITEMS[:2])

    with scripted_server(answer, FILTERS) as server:
        assert _search(server.url) == IDS[:2]
    assert "applies filters wrongly" in caplog.text


def test_a_filter_on_a_property_that_no_item_has_is_an_error_and_not_an_empty_list():
    snowless = make_search_item("08WMA", "20210703T210029", eo__snow_cover=None)

    def answer(body, number, url):
        return _page([] if "eo:snow_cover" in json.dumps(body) else [snowless])

    with scripted_server(answer, FILTERS) as server, pytest.raises(ConfigError, match="eo:snow_cover"):
        _search(server.url)


@pytest.mark.parametrize("status", [400, 413])
def test_an_area_that_is_too_large_for_the_server_is_made_simpler(status):
    def corners(geometry):
        polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        return sum(len(ring) for polygon in polygons for ring in polygon)

    def answer(body, number, url):
        too_large = corners(body["intersects"]) > 20
        return (status, {}, {"detail": "too many vertices"}) if too_large else _page(ITEMS[:2])

    with scripted_server(answer, FILTERS) as server:
        found = search_s2_sr(_source(server.url), AREA.buffer(0.5, quad_segs=100), **JULY)
    assert list(found) == IDS[:2]


def test_an_area_that_is_refused_in_every_form_is_one_error():
    server = _raises(lambda *_: (413, {}, {"detail": "no areas here"}), "HTTP 413", "no areas here")
    assert len(server.requests) <= 4


# Rate


def test_every_request_keeps_to_the_rate(proxy, monkeypatch):
    starts = []
    limit = shared_limit(proxy.url, 1000.0)
    monkeypatch.setattr(type(limit), "wait", lambda self: starts.append(self))
    proxy.faults(Fault("POST /search", "status", status=503, times=1))
    _search(proxy.url, requests_per_second=1000.0)
    assert len(starts) == len(proxy.requests) == 5
    assert set(starts) == {limit}


def test_one_limit_serves_all_who_ask_a_server():
    assert shared_limit("http://a", 4) is shared_limit("http://a", 4)
    assert shared_limit("http://a", 4) is not shared_limit("http://b", 4)
    assert shared_limit("http://a", 4) is not shared_limit("http://a", 2)


def test_requests_are_spaced_by_the_rate(proxy):
    _search(proxy.url, requests_per_second=20)
    starts = [request.started_s for request in proxy.log]
    assert starts[-1] - starts[0] >= (len(starts) - 1) / 20 - 0.02
