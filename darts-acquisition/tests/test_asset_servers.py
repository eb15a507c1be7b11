"""Servers of every kind: none at all, local files, bodies that come short or compressed, and no search for keys."""

import dataclasses
import gzip
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from darts_acquisition import transfers
from darts_acquisition.stac_sources import CDSE_SOURCE
from darts_acquisition.transfers import fetch
from darts_utils.errors import RemoteError

from .test_transfers import DATA, OTHER_CHECKSUM, RIGHT, WHAT


def test_a_server_that_is_not_there_is_an_error_that_names_the_address(tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "BACKOFF_S", 0.01)
    source = dataclasses.replace(CDSE_SOURCE, retries=1, requests_per_second=None)
    with pytest.raises(RemoteError, match=rf"{WHAT}, http://127.0.0.1:9/x.jp2: the connection broke.*2 tries"):
        fetch("http://127.0.0.1:9/x.jp2?secret=1", tmp_path / "x", source=source, what=WHAT)


@pytest.mark.parametrize("as_uri", [False, True])
def test_a_local_file_is_verified_too(tmp_path, as_uri):
    original = tmp_path / "with a space.jp2"
    original.write_bytes(DATA)
    href = original.as_uri() if as_uri else str(original)
    fetch(href, tmp_path / "copy", source=CDSE_SOURCE, **RIGHT)
    assert (tmp_path / "copy").read_bytes() == DATA
    with pytest.raises(RemoteError, match="SHA3-256"):
        fetch(href, tmp_path / "other", source=CDSE_SOURCE, checksum=OTHER_CHECKSUM)
    with pytest.raises(RemoteError, match="No such file"):
        fetch(href + "x", tmp_path / "other", source=CDSE_SOURCE)


def test_an_address_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(RemoteError, match="ftp://"):
        fetch("ftp://server/file", tmp_path / "x", source=CDSE_SOURCE)


class HalfServer(BaseHTTPRequestHandler):
    """Breaks off at a third of the file; when asked for the rest, sends only a part of it, and says so."""

    protocol_version = "HTTP/1.1"
    part = len(DATA) // 3
    parts: int | None = None
    """After so many requests all is sent; None: never."""
    asked = 0

    def do_GET(self):
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        type(self).asked += 1
        whole = self.parts is not None and self.asked > self.parts
        end = len(DATA) if whole else min(start + self.part, len(DATA))
        self.send_response(206 if asked else 200)
        self.send_header("ETag", '"one"')
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(DATA)}")
        self.send_header("Content-Length", str(end - start if asked else len(DATA)))
        self.end_headers()
        self.wfile.write(DATA[start:end])
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture(params=["s3", "http"])
def half(request, monkeypatch, tmp_path):
    """(its handler, address of the asset, source)"""
    handler = type("Handler", (HalfServer,), {})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setattr(transfers, "BACKOFF_S", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        source = dataclasses.replace(CDSE_SOURCE, s3_endpoint=url, requests_per_second=None, timeout_s=5, retries=2)
        yield handler, "s3://eodata/B02.jp2" if request.param == "s3" else f"{url}/B02.jp2", source
        server.shutdown()
        thread.join()


def test_a_part_of_what_was_asked_for_is_not_taken_for_the_whole(half, tmp_path):
    handler, href, source = half
    handler.parts = 2
    fetch(href, tmp_path / "B02.jp2", source=source, what=WHAT)
    assert (tmp_path / "B02.jp2").read_bytes() == DATA
    assert handler.asked == 3


def test_a_file_that_stays_short_is_an_error_though_nobody_said_its_size(half, tmp_path):
    _, href, source = half
    with pytest.raises(RemoteError, match=rf"{WHAT}.*the server sent \d+ of {len(DATA)} bytes.*2 tries"):
        fetch(href, tmp_path / "B02.jp2", source=dataclasses.replace(source, retries=1), what=WHAT)
    assert list(tmp_path.iterdir()) == []


def test_a_body_that_comes_compressed_all_the_same_is_taken_whole(tmp_path):
    packed = gzip.compress(DATA)

    class Handler(HalfServer):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(packed)))
            self.end_headers()
            self.wfile.write(packed)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        source = dataclasses.replace(CDSE_SOURCE, requests_per_second=None, timeout_s=5, retries=0)
        try:
            fetch(f"http://127.0.0.1:{server.server_port}/a", tmp_path / "a", source=source)
        finally:
            server.shutdown()
            thread.join()
    assert (tmp_path / "a").read_bytes() == DATA


LOOK_FOR_KEYS = """
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append(args[1]) if event == "socket.connect" else None)
from dataclasses import replace
from darts_acquisition.asset_servers import AssetServers, PassingError, RefusedError
from darts_acquisition.stac_sources import CDSE_SOURCE
source = replace(CDSE_SOURCE, s3_endpoint="http://127.0.0.1:9", timeout_s=2)
try:
    with AssetServers(source).opened("s3://eodata/B02.jp2"):
        pass
except (PassingError, RefusedError) as error:
    print(type(error).__name__, sorted({host for host, _ in seen}))
"""


@pytest.mark.parametrize(
    ("keys", "outcome"),
    [({}, "RefusedError []"), ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, "PassingError ['127.0.0.1']")],
)
def test_keys_are_not_looked_for_on_the_network(tmp_path, keys, outcome):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    asked = subprocess.run(
        [sys.executable, "-c", LOOK_FOR_KEYS],
        env=environment | {"HOME": str(tmp_path)} | keys, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert asked.stdout.strip() == outcome, asked.stderr
