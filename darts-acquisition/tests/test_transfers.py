"""Assets over HTTP and S3: they arrive whole through faults that pass; those that stay are one error."""

import dataclasses
import hashlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from darts_acquisition import transfers
from darts_acquisition.stac_sources import CDSE_SOURCE
from darts_acquisition.testing import Fault, fault_proxy, file_server, s3_server
from darts_acquisition.transfers import StoppedError, fetch
from darts_utils.errors import ConfigError, RemoteError, StoreError

DATA = np.random.default_rng(1).bytes(3_000_000)
CHECKSUM = "1620" + hashlib.sha3_256(DATA).hexdigest()
OTHER_CHECKSUM = "1620" + hashlib.sha3_256(b"other").hexdigest()
RIGHT = {"size": len(DATA), "checksum": CHECKSUM}
WHAT = "scene S2X, asset B02_10m"


class Counter:
    def __init__(self):
        self.bytes = 0

    def received(self, n_bytes):
        self.bytes += n_bytes


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "eodata").mkdir()
    (folder / "eodata" / "B02.jp2").write_bytes(DATA)
    with s3_server() as s3, file_server(folder) as files:
        s3.put("eodata", "B02.jp2", DATA)
        s3.put("eodata", "public.tif", DATA, public=True)
        with fault_proxy(s3.endpoint) as s3_proxy, fault_proxy(files) as files_proxy:
            yield s3, s3_proxy, files_proxy


@pytest.fixture(params=["s3", "http"])
def server(request, servers, monkeypatch, tmp_path):
    """(proxy before the server, address of the asset, source)"""
    s3, s3_proxy, files_proxy = servers
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setattr(transfers, "BACKOFF_S", 0.01)
    s3_proxy.clear()
    files_proxy.clear()
    source = dataclasses.replace(
        CDSE_SOURCE, s3_endpoint=s3_proxy.url, requests_per_second=None, timeout_s=5, retries=3
    )
    if request.param == "s3":
        return s3_proxy, "s3://eodata/B02.jp2", source
    return files_proxy, f"{files_proxy.url}/eodata/B02.jp2", source


only_s3 = pytest.mark.parametrize("server", ["s3"], indirect=True)
only_http = pytest.mark.parametrize("server", ["http"], indirect=True)


def test_an_asset_arrives_byte_by_byte(server, tmp_path):
    _, href, source = server
    counter = Counter()
    fetch(href, tmp_path / "B02.jp2", source=source, **RIGHT, report=counter)
    assert (tmp_path / "B02.jp2").read_bytes() == DATA
    assert counter.bytes == len(DATA)
    assert [entry.name for entry in tmp_path.iterdir()] == ["B02.jp2"]


def test_neither_size_nor_checksum_are_needed(server, tmp_path):
    _, href, source = server
    fetch(href, tmp_path / "B02.jp2", source=source)
    assert (tmp_path / "B02.jp2").read_bytes() == DATA


HEALS = {
    "429 without Retry-After": Fault("B02", "status", status=429, times=2),
    "429 with Retry-After": Fault("B02", "status", status=429, retry_after=0.3, times=1),
    "500": Fault("B02", "status", status=500, times=3),
    "503": Fault("B02", "status", status=503, times=3),
    "504": Fault("B02", "status", status=504, times=1),
    "reset before the headers": Fault("B02", "reset", after_bytes=-1, times=2),
    "reset in the body": Fault("B02", "reset", after_bytes=1_200_000, times=3),
    "truncated, right length": Fault("B02", "truncate_right_length", after_bytes=1_200_000, times=2),
    "truncated, short length": Fault("B02", "truncate_short_length", after_bytes=1_200_000, times=2),
    "corrupt": Fault("B02", "corrupt", times=2),
}


@pytest.mark.parametrize("fault", HEALS.values(), ids=HEALS.keys())
def test_a_passing_fault_is_gone_after_another_try(server, tmp_path, fault):
    proxy, href, source = server
    proxy.faults(fault)
    counter = Counter()
    fetch(href, tmp_path / "B02.jp2", source=source, **RIGHT, report=counter)
    assert (tmp_path / "B02.jp2").read_bytes() == DATA
    assert counter.bytes == len(DATA), "what is fetched twice must not be counted twice"
    assert len(proxy.requests) == fault.times + 1


def test_silence_longer_than_the_timeout_is_a_passing_fault(server, tmp_path):
    proxy, href, source = server
    proxy.faults(Fault("B02", "stall", after_bytes=1_200_000, stall_s=20, times=1))
    fetch(href, tmp_path / "B02.jp2", source=dataclasses.replace(source, timeout_s=0.5), **RIGHT)
    assert (tmp_path / "B02.jp2").read_bytes() == DATA


STAYS = {
    "429": (Fault("B02", "status", status=429), "429"),
    "429 with Retry-After": (Fault("B02", "status", status=429, retry_after=0.01), "429"),
    "500": (Fault("B02", "status", status=500), "500"),
    "503": (Fault("B02", "status", status=503), "503"),
    "reset": (Fault("B02", "reset", after_bytes=-1), "broke"),
    "reset in the body": (Fault("B02", "reset", after_bytes=1000), "broke"),
    "truncated, right length": (Fault("B02", "truncate_right_length"), "broke"),
    "truncated, short length": (Fault("B02", "truncate_short_length"), r"expected 3000000 bytes, got 1000"),
    "silence": (Fault("B02", "stall", stall_s=20), r"silent for 0.3 s"),
    "corrupt": (Fault("B02", "corrupt"), r"expected SHA3-256 \w{64}, got \w{64}"),
}


@pytest.mark.parametrize(("fault", "cause"), STAYS.values(), ids=STAYS.keys())
def test_a_fault_that_stays_is_one_error_that_names_scene_asset_address_and_cause(server, tmp_path, fault, cause):
    proxy, href, source = server
    proxy.faults(fault)
    source = dataclasses.replace(source, timeout_s=0.3 if fault.action == "stall" else 5, retries=2)
    with pytest.raises(RemoteError, match=rf"{WHAT}, {href}: .*{cause}"):
        fetch(href, tmp_path / "B02.jp2", source=source, what=WHAT, **RIGHT)
    assert list(tmp_path.iterdir()) == []
    tries = len(proxy.requests)
    # A reset in the body is continued each time, and gains a thousand bytes.
    assert tries == 3, proxy.log


def test_a_broken_transfer_goes_on_where_it_broke(server, tmp_path):
    proxy, href, source = server
    proxy.faults(Fault("B02", "truncate_right_length", after_bytes=1_400_000, times=1))
    fetch(href, tmp_path / "B02.jp2", source=source, **RIGHT)
    assert (tmp_path / "B02.jp2").read_bytes() == DATA
    first, second = proxy.log
    assert first.range is None
    start = int(second.range.removeprefix("bytes=").rstrip("-"))
    assert 1_000_000 < start <= 1_400_000


def test_a_server_that_cannot_continue_sends_all_again(server, tmp_path):
    proxy, href, source = server
    proxy.faults(Fault("B02", "truncate_right_length", after_bytes=1_400_000, times=1), Fault("B02", "ignore_range"))
    counter = Counter()
    fetch(href, tmp_path / "B02.jp2", source=source, **RIGHT, report=counter)
    assert (tmp_path / "B02.jp2").read_bytes() == DATA
    assert counter.bytes == len(DATA)
    assert [request.fault for request in proxy.log] == ["truncate_right_length", "ignore_range"]


@only_s3
def test_a_file_that_changes_meanwhile_is_fetched_from_the_start(servers, server, tmp_path):
    s3, _, _ = servers
    proxy, _, source = server
    s3.put("eodata", "changing-B02", b"a" * len(DATA))
    proxy.faults(Fault("changing", "truncate_right_length", after_bytes=1_400_000, times=1))
    seen = threading.Event()

    class Change(Counter):
        def received(self, n_bytes):
            super().received(n_bytes)
            if not seen.is_set():
                seen.set()
                s3.put("eodata", "changing-B02", DATA)

    fetch("s3://eodata/changing-B02", tmp_path / "B02.jp2", source=source, **RIGHT, report=Change())
    assert (tmp_path / "B02.jp2").read_bytes() == DATA
    assert [bool(request.range) for request in proxy.log] == [False, True, False]


def test_retry_after_is_obeyed(server, tmp_path):
    proxy, href, source = server
    proxy.faults(Fault("B02", "status", status=429, retry_after=0.6, times=1))
    fetch(href, tmp_path / "B02.jp2", source=source, **RIGHT)
    first, second = proxy.log
    assert second.started_s - first.started_s >= 0.6


def test_a_server_that_asks_to_wait_for_hours_is_not_waited_for(server, tmp_path):
    proxy, href, source = server
    proxy.faults(Fault("B02", "status", status=503, retry_after=7200))
    with pytest.raises(RemoteError, match=rf"{WHAT}.*503.*wait for 7200 s"):
        fetch(href, tmp_path / "B02.jp2", source=source, what=WHAT)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_the_server_refuses_is_not_asked_again(server, tmp_path, status):
    proxy, href, source = server
    proxy.faults(Fault("B02", "status", status=status))
    with pytest.raises(RemoteError, match=rf"{WHAT}, {href}: .*{status}"):
        fetch(href, tmp_path / "B02.jp2", source=source, what=WHAT)
    assert len(proxy.requests) == 1


def test_an_absent_asset_is_an_error_that_names_it(server, tmp_path):
    proxy, href, source = server
    with pytest.raises(RemoteError, match=rf"{href}-gone: .*404"):
        fetch(f"{href}-gone", tmp_path / "B02.jp2", source=source)
    assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("expected", "cause"),
    [
        ({"size": len(DATA) + 1}, r"expected 3000001 bytes, got 3000000"),
        ({"size": len(DATA) - 1}, r"expected 2999999 bytes, got more"),
        ({"checksum": OTHER_CHECKSUM}, rf"expected SHA3-256 {OTHER_CHECKSUM[4:]}, got {CHECKSUM[4:]}"),
    ],
)
def test_what_differs_from_the_item_is_fetched_three_times_and_then_an_error(server, tmp_path, expected, cause):
    proxy, href, source = server
    with pytest.raises(RemoteError, match=rf"{WHAT}, {href}: {cause}, 3 times fetched"):
        fetch(href, tmp_path / "B02.jp2", source=source, what=WHAT, **expected)
    assert len(proxy.requests) == 3
    assert list(tmp_path.iterdir()) == []


def _s3_error(code):
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"


@only_s3
@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "InvalidAccessKeyId"), (403, "AccessDenied"), (400, "ExpiredToken"), (403, "SignatureDoesNotMatch")],
)
def test_keys_that_are_refused_or_expired_name_the_profile_and_how_to_set_them(server, tmp_path, status, code):
    proxy, href, source = server
    proxy.faults(Fault("B02", "status", status=status, body=_s3_error(code), content_type="application/xml"))
    with pytest.raises(RemoteError, match=rf"(?s){WHAT}.*{status} {code}.*'default'.*\.aws/credentials") as error:
        fetch(href, tmp_path / "B02.jp2", source=source, what=WHAT)
    assert "testing-secret-key" not in str(error.value)
    assert len(proxy.requests) == 1


@only_s3
def test_without_keys_the_error_names_the_profile_and_how_to_set_them(server, tmp_path, monkeypatch):
    proxy, href, source = server
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(RemoteError, match=rf"{WHAT}.*'default'.*\.aws/credentials.*AWS_ACCESS_KEY_ID"):
        fetch(href, tmp_path / "B02.jp2", source=source, what=WHAT)
    assert proxy.requests == []


@only_s3
def test_a_profile_that_does_not_exist_is_an_error_that_names_it(server, tmp_path):
    _, href, source = server
    with pytest.raises(ConfigError, match=r"'cdse-of-mine'.*\.aws/credentials"):
        fetch(href, tmp_path / "B02.jp2", source=source, profile="cdse-of-mine")


@only_s3
def test_the_keys_of_a_named_profile_are_used(server, tmp_path, monkeypatch):
    _, href, source = server
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "no-credentials").write_text("[mine]\naws_access_key_id = a\naws_secret_access_key = b\n")
    fetch(href, tmp_path / "B02.jp2", source=source, profile="mine", **RIGHT)
    assert (tmp_path / "B02.jp2").read_bytes() == DATA


@only_s3
def test_the_endpoint_of_the_environment_serves_where_the_source_names_none(server, tmp_path, monkeypatch):
    proxy, href, source = server
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", source.s3_endpoint)
    fetch(href, tmp_path / "B02.jp2", source=dataclasses.replace(source, s3_endpoint=None), **RIGHT)
    assert len(proxy.requests) == 1


@only_s3
def test_a_public_bucket_needs_no_keys(server, tmp_path, monkeypatch):
    _, _, source = server
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    source = dataclasses.replace(source, s3_unsigned=True)
    fetch("s3://eodata/public.tif", tmp_path / "a", source=source, **RIGHT)
    with pytest.raises(RemoteError, match="403"):
        fetch("s3://eodata/B02.jp2", tmp_path / "b", source=source)


@only_http
def test_errors_never_show_the_query_or_a_password(server, tmp_path):
    proxy, href, source = server
    proxy.faults(Fault("B02", "reset", after_bytes=-1))
    signed = href.replace("http://", "http://user:pass@") + "?X-Amz-Signature=abcdef"
    with pytest.raises(RemoteError) as error:
        fetch(signed, tmp_path / "x", source=source)
    assert "abcdef" not in str(error.value)
    assert "pass@" not in str(error.value)


def test_stopping_ends_a_transfer_that_waits(server, tmp_path):
    proxy, href, source = server
    proxy.faults(Fault("B02", "status", status=429, retry_after=60))
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(StoppedError):
        fetch(href, tmp_path / "x", source=source, stop=stop)
    assert list(tmp_path.iterdir()) == []


def test_no_more_transfers_run_at_once_than_the_source_allows_whatever_the_threads(servers, tmp_path):
    _, _, proxy = servers
    proxy.clear()
    source = dataclasses.replace(CDSE_SOURCE, name="narrow", connections=2, requests_per_second=None)
    with fault_proxy(proxy.url, latency_s=0.05) as slow:
        with ThreadPoolExecutor(8) as pool:
            for n in range(8):
                pool.submit(fetch, f"{slow.url}/eodata/B02.jp2", tmp_path / str(n), source=source)
        assert len(list(tmp_path.iterdir())) == 8
        assert slow.max_in_flight == 2


def test_requests_keep_to_the_rate_of_the_source(servers, tmp_path):
    _, _, proxy = servers
    proxy.clear()
    source = dataclasses.replace(CDSE_SOURCE, requests_per_second=20)
    for n in range(4):
        fetch(f"{proxy.url}/eodata/B02.jp2", tmp_path / str(n), source=source)
    times = [request.started_s for request in proxy.log]
    assert times[-1] - times[0] >= 3 / 20 - 0.03


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(servers, tmp_path):
    _, _, proxy = servers
    with pytest.raises(StoreError, match=rf"{WHAT}.*{tmp_path.name}/nowhere"):
        fetch(f"{proxy.url}/eodata/B02.jp2", tmp_path / "nowhere" / "x", source=CDSE_SOURCE, what=WHAT)


FULL = """
import dataclasses, pathlib, sys
from darts_acquisition.stac_sources import CDSE_SOURCE
from darts_acquisition.transfers import fetch
try:
    fetch(sys.argv[1], pathlib.Path(sys.argv[2], "x"), source=CDSE_SOURCE, what="scene S2X, asset B02_10m")
except Exception as error:
    print(type(error).__name__, error, list(pathlib.Path(sys.argv[2]).iterdir()))
"""


def test_a_full_disk_is_an_error_that_names_the_folder_and_leaves_nothing(servers, tmp_path):
    _, _, proxy = servers
    proxy.clear()
    (tmp_path / "disk").mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs '{tmp_path}/disk' && exec \"$@\""
    # In a mount namespace of its own, so that nothing stays mounted.
    command = ["unshare", "-m", "bash", "-c", mount, "-", sys.executable, "-c", FULL]
    if subprocess.run(["unshare", "-m", "bash", "-c", mount, "-", "true"], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    run = subprocess.run(
        [*command, f"{proxy.url}/eodata/B02.jp2", str(tmp_path / "disk")], capture_output=True, text=True
    )
    assert run.stdout.startswith("StoreError scene S2X, asset B02_10m: cannot write into"), run
    assert "No space left" in run.stdout
    assert run.stdout.rstrip().endswith("[]")
