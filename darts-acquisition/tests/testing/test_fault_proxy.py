import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pystac_client
import pytest
import requests

from darts_acquisition.testing import Fault, fault_proxy, file_server, s3_server, stac_server
from darts_utils.errors import ConfigError

BODY = bytes(n * 7 % 251 for n in range(5000))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("files")
    (folder / "a.bin").write_bytes(BODY)
    (folder / "b.bin").write_bytes(BODY[::-1])
    (folder / "empty.bin").write_bytes(b"")
    with file_server(folder) as url:
        yield url


@pytest.fixture(scope="module")
def shared_proxy(files):
    with fault_proxy(files) as proxy:
        yield proxy


@pytest.fixture
def proxy(shared_proxy):
    shared_proxy.clear()
    return shared_proxy


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=5)


def read_until_it_breaks(url: str, timeout_s: float = 5) -> tuple[requests.Response, bytes, Exception | None]:
    """Return what arrived before the response broke off, and how it did."""
    arrived = b""
    with requests.get(url, stream=True, timeout=timeout_s) as response:
        try:
            for block in response.iter_content(100):
                arrived += block
        except requests.RequestException as error:
            return response, arrived, error
    return response, arrived, None


def test_without_faults_everything_passes_as_it_is(proxy, files):
    direct, through = get(f"{files}/a.bin", Range="bytes=5-9"), get(f"{proxy.url}/a.bin", Range="bytes=5-9")
    assert (through.status_code, through.content) == (206, BODY[5:10])
    same = ("Content-Type", "Content-Range", "ETag", "Content-Length", "Accept-Ranges")
    assert {name: through.headers[name] for name in same} == {name: direct.headers[name] for name in same}
    head = requests.head(f"{proxy.url}/a.bin", timeout=5)
    assert (head.status_code, head.headers["Content-Length"]) == (200, "5000")
    assert get(f"{proxy.url}/none?x=1").status_code == 404
    assert get(f"{proxy.url}/empty.bin").content == b""
    assert proxy.requests == [("GET", "/a.bin"), ("HEAD", "/a.bin"), ("GET", "/none?x=1"), ("GET", "/empty.bin")]
    assert [request.range for request in proxy.log] == ["bytes=5-9", None, None, None]


def test_one_connection_serves_many_requests(proxy):
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=5)
    connection.connect()
    first = connection.sock
    for _ in range(3):
        connection.request("GET", "/a.bin")
        assert connection.getresponse().read() == BODY
        assert connection.sock is first
    connection.close()


def test_status_with_and_without_retry_after(proxy):
    proxy.faults(Fault("GET /a", "status", 429, retry_after=2, times=1), Fault("GET /a", "status", 503, times=1))
    first, second, third = (get(f"{proxy.url}/a.bin") for _ in range(3))
    assert (first.status_code, first.headers["Retry-After"]) == (429, "2")
    assert (second.status_code, second.headers.get("Retry-After")) == (503, None)
    assert (third.status_code, third.content) == (200, BODY)
    assert [request.fault for request in proxy.log] == ["status", "status", None]


def test_a_rule_hits_only_what_it_matches(proxy):
    proxy.faults(Fault(r"GET /a\.bin\?x=1$", "status"))
    assert [get(proxy.url + path).status_code for path in ("/a.bin", "/b.bin", "/a.bin?x=1")] == [200, 200, 503]


def test_reset_breaks_the_body_off_with_a_tcp_reset(proxy):
    proxy.faults(Fault("a.bin", "reset", after_bytes=500))
    response, arrived, error = read_until_it_breaks(f"{proxy.url}/a.bin")
    assert response.headers["Content-Length"] == "5000"
    assert arrived == BODY[:500]
    assert "Connection reset by peer" in str(error)


def test_reset_before_the_headers(proxy):
    proxy.faults(Fault("a.bin", "reset", after_bytes=-1))
    with pytest.raises(requests.ConnectionError, match="reset"):
        get(f"{proxy.url}/a.bin")


def test_truncated_body_with_the_right_length(proxy):
    proxy.faults(Fault("a.bin", "truncate_right_length"))
    response, arrived, error = read_until_it_breaks(f"{proxy.url}/a.bin")
    assert response.headers["Content-Length"] == "5000"
    assert arrived == BODY[:1000]
    assert "IncompleteRead" in str(error)


def test_truncated_body_with_the_short_length_looks_whole(proxy):
    proxy.faults(Fault("a.bin", "truncate_short_length"))
    response, arrived, error = read_until_it_breaks(f"{proxy.url}/a.bin")
    assert (response.headers["Content-Length"], arrived, error) == ("1000", BODY[:1000], None)


def test_a_fault_hits_a_body_shorter_than_its_bytes_too(proxy):
    proxy.faults(Fault("a.bin", "truncate_short_length", after_bytes=10**9))
    assert get(f"{proxy.url}/a.bin").content == BODY[:2500]


def test_corrupt_changes_bytes_but_not_the_length(proxy):
    proxy.faults(Fault("a.bin", "corrupt", times=1))
    body = get(f"{proxy.url}/a.bin").content
    assert len(body) == len(BODY)
    assert sum(a != b for a, b in zip(body, BODY, strict=True)) == 16
    assert get(f"{proxy.url}/a.bin").content == BODY


def test_ignored_range_answers_with_everything(proxy):
    proxy.faults(Fault("a.bin", "ignore_range", times=1))
    assert get(f"{proxy.url}/a.bin").status_code == 200  # asks for no range: the rule is not used up
    response = get(f"{proxy.url}/a.bin", Range="bytes=5-9")
    assert (response.status_code, response.content) == (200, BODY)
    assert get(f"{proxy.url}/a.bin", Range="bytes=5-9").status_code == 206


def test_stall_is_longer_than_a_timeout(proxy):
    proxy.faults(Fault("a.bin", "stall", stall_s=600))
    _, arrived, error = read_until_it_breaks(f"{proxy.url}/a.bin", timeout_s=0.3)
    assert arrived == BODY[:1000]
    assert "timed out" in str(error)


def test_stall_ends_with_the_proxy(files):
    with fault_proxy(files) as proxy, ThreadPoolExecutor(1) as pool:
        proxy.faults(Fault("a.bin", "stall", stall_s=600))
        stalled = pool.submit(read_until_it_breaks, f"{proxy.url}/a.bin", timeout_s=300)
        while not proxy.requests:
            time.sleep(0.01)
        proxy.end()
        _, arrived, error = stalled.result(30)
    assert arrived == BODY[:1000]
    assert error is not None


def test_clear_removes_rules_and_memory(proxy):
    proxy.faults(Fault("a.bin", "status"))
    assert get(f"{proxy.url}/a.bin").status_code == 503
    proxy.clear()
    assert (proxy.requests, proxy.max_in_flight) == ([], 0)
    assert get(f"{proxy.url}/a.bin").status_code == 200


def test_latency_does_not_put_requests_in_a_row(files):
    with fault_proxy(files, latency_s=0.3) as proxy, ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(get, [f"{proxy.url}/a.bin"] * 6))
        assert [reply.content for reply in replies] == [BODY] * 6
        assert proxy.max_in_flight == 6
        started = [request.started_s for request in proxy.log]
        assert max(started) - min(started) < 0.3  # the last came in while the first waited


def test_a_slow_line_brings_the_whole_body(files):
    with fault_proxy(files, bytes_per_second=20000) as proxy:
        response = get(f"{proxy.url}/a.bin")
    assert response.content == BODY
    assert response.elapsed.total_seconds() < 5


def test_an_unknown_action_is_refused():
    with pytest.raises(ConfigError, match="explode"):
        Fault("x", "explode")  # type: ignore[arg-type]


def test_a_server_that_is_gone_gives_502():
    with fault_proxy("http://127.0.0.1:9") as proxy:
        assert get(f"{proxy.url}/a.bin").status_code == 502


def test_links_in_stac_lead_through_the_proxy():
    collection = {
        "type": "Collection", "stac_version": "1.1.0", "id": "c", "description": "d", "license": "other", "links": [],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
    }  # fmt: skip
    items = [
        {
            "type": "Feature", "stac_version": "1.1.0", "id": f"item-{n}", "collection": "c", "bbox": [0, 0, 0, 0],
            "geometry": {"type": "Point", "coordinates": [0, 0]}, "links": [], "assets": {},
            "properties": {"datetime": "2024-01-01T00:00:00Z"},
        }
        for n in range(5)
    ]  # fmt: skip
    with stac_server(collection, items) as url, fault_proxy(url) as proxy:
        for method, asked in (("GET", {}), ("POST", {"collections": ["c"]})):
            proxy.clear()
            search = pystac_client.Client.open(proxy.url).search(**asked, limit=2, method=method)
            assert sorted(item.id for item in search.items()) == [item["id"] for item in items]
            assert len([path for how, path in proxy.requests if how == method and path.startswith("/search")]) >= 3
        assert url.rstrip("/") not in requests.get(proxy.url, timeout=5).text


def test_s3_works_through_the_proxy():
    with s3_server() as s3, fault_proxy(s3.endpoint) as proxy:
        s3.put("eodata", "a.bin", BODY)
        client = boto3.client("s3", endpoint_url=proxy.url, region_name="x", aws_access_key_id="a",
                              aws_secret_access_key="b")  # fmt: skip
        assert client.get_object(Bucket="eodata", Key="a.bin")["Body"].read() == BODY
        assert client.get_object(Bucket="eodata", Key="a.bin", Range="bytes=1-3")["Body"].read() == BODY[1:4]
        client.put_object(Bucket="eodata", Key="b.bin", Body=BODY)
        assert s3.client.get_object(Bucket="eodata", Key="b.bin")["Body"].read() == BODY
        assert client.head_object(Bucket="eodata", Key="a.bin")["ContentLength"] == len(BODY)
