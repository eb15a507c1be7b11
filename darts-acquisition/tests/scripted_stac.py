"""A STAC API whose replies a test writes out, and searches of it that do not wait long."""

import dataclasses
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from shapely.geometry import box

from darts_acquisition import CDSE_SOURCE, stac_client
from darts_acquisition.stac_search import search_s2_sr
from darts_acquisition.testing.s2_items import make_search_item

AREA = box(-136, 67.5, -134, 68.5)
JULY = {"start_date": "2021-07-01", "end_date": "2021-07-31"}
ITEMS = [make_search_item("08WMA", f"202107{day:02d}T210029") for day in range(1, 26)]
IDS = [item["id"] for item in ITEMS]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(stac_client, "BACKOFF_S", 0.01)


def source_at(url, **changes):
    settings = {"requests_per_second": None, "timeout_s": 5, "retries": 3, "page_size": 10, **changes}
    return dataclasses.replace(CDSE_SOURCE, endpoint=url, **settings)


def search(url, **changes):
    return list(search_s2_sr(source_at(url, **changes), AREA, **JULY))


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


def page(items, **following):
    links = [{"rel": "next", "method": "POST", **following}] if following else []
    return 200, {}, {"type": "FeatureCollection", "features": items, "links": links}
