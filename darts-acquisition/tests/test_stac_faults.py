"""What a search makes of servers that fail or refuse, what it keeps secret, and how fast it asks."""

import traceback

import pytest

from darts_acquisition.rate_limit import shared_limit
from darts_acquisition.stac_search import get_items
from darts_acquisition.testing import Fault, fault_proxy, make_collection, stac_server
from darts_utils.errors import DartsError, RemoteError

from .scripted_stac import IDS, ITEMS, page, scripted_server, search, short_waits, source_at

__all__ = ["short_waits"]


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
    assert search(proxy.url, timeout_s=0.5) == IDS
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
        search(proxy.url, timeout_s=0.3)
    message = str(caught.value)
    assert word in message
    assert "after 4 tries" in message
    assert f"POST {proxy.url}/search" in message
    assert len([r for r in proxy.requests if r[0] == "POST"]) == 4


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_not_asked_again(proxy, status):
    proxy.faults(Fault("POST /search", "status", status=status))
    with pytest.raises(RemoteError, match=f"HTTP {status}"):
        search(proxy.url)
    assert len(proxy.requests) == 2


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(RemoteError, match=r"http://127\.0\.0\.1:9/ failed after 2 tries.*refused"):
        search("http://127.0.0.1:9/", retries=1)


def test_ids_are_asked_for_again_too(proxy):
    proxy.faults(Fault("POST /search", "status", status=503, times=2))
    assert list(get_items(source_at(proxy.url), IDS[:3])) == IDS[:3]


# Secrets


def _with_secrets(url):
    return url.replace("http://", "http://user:password@") + "?token=hidden"


def test_secrets_in_addresses_are_not_shown():
    with pytest.raises(RemoteError) as caught:
        search(_with_secrets("http://127.0.0.1:9/"), retries=0)
    assert "password" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_secrets_of_an_address_that_is_no_stac_api_are_not_shown():
    def answer(*_):
        raise AssertionError("not asked")

    with (
        scripted_server(answer, landing={"type": "Feature", "id": "x"}) as server,
        pytest.raises(RemoteError) as caught,
    ):
        search(_with_secrets(server.url), retries=0)
    shown = "".join(traceback.format_exception(caught.value))
    assert server.url in shown
    assert "password" not in shown
    assert "hidden" not in shown


@pytest.mark.parametrize("items", [[], [{**ITEMS[0], "properties": None, "links": []}]])
def test_secrets_are_not_shown_when_items_are_missing_or_none(items):
    with scripted_server(lambda *_: page(items)) as server, pytest.raises(DartsError) as caught:
        get_items(source_at(_with_secrets(server.url)), IDS[:1])
    assert server.url in str(caught.value)
    assert "password" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_secrets_that_a_server_repeats_are_not_shown():
    text = b"Cannot POST http://user:password@inside/search?token=hidden nor /search?key=hidden"
    with scripted_server(lambda *_: (403, {}, text)) as server, pytest.raises(RemoteError) as caught:
        search(server.url, retries=0)
    assert "Cannot POST http://inside/search nor /search?" in str(caught.value)
    assert "password" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_secrets_of_an_address_that_a_server_redirects_to_are_not_shown():
    place = {"Location": "ftp://user:password@inside/search?token=hidden"}
    with scripted_server(lambda *_: (302, place, b"")) as server, pytest.raises(RemoteError) as caught:
        search(server.url, retries=0)
    shown = "".join(traceback.format_exception(caught.value))
    assert "password" not in shown
    assert "hidden" not in shown


# Rate


def test_every_request_keeps_to_the_rate(proxy, monkeypatch):
    starts = []
    limit = shared_limit(proxy.url, 1000.0)
    monkeypatch.setattr(type(limit), "wait", lambda self: starts.append(self))
    proxy.faults(Fault("POST /search", "status", status=503, times=1))
    search(proxy.url, requests_per_second=1000.0)
    assert len(starts) == len(proxy.requests) == 5
    assert set(starts) == {limit}


def test_one_limit_serves_all_who_ask_a_server():
    assert shared_limit("http://a", 4) is shared_limit("http://a", 4)
    assert shared_limit("http://a", 4) is not shared_limit("http://b", 4)
    assert shared_limit("http://a", 4) is not shared_limit("http://a", 2)


def test_requests_are_spaced_by_the_rate(proxy):
    search(proxy.url, requests_per_second=20)
    starts = [request.started_s for request in proxy.log]
    assert starts[-1] - starts[0] >= (len(starts) - 1) / 20 - 0.02
