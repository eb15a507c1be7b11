"""The report of a run in a real browser, driven over the DevTools protocol."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

from darts.records.ledger import Record
from darts.report.run_report import write_run_report

from .report_samples import HOSTILE, RUN, campaign, hostile_records


class Tab:
    """A page in Chromium over the DevTools protocol; keeps what went wrong and what it asked the network for."""

    def __init__(self, port: int, url: str) -> None:
        self.loop = IOLoop(make_current=False)
        self.number = 0
        self.errors: list[Any] = []
        self.requests: list[str] = []
        targets = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list"))
        address = next(one for one in targets if one["type"] == "page")["webSocketDebuggerUrl"]
        self.socket = self.loop.run_sync(lambda: websocket_connect(address, max_message_size=1 << 28), timeout=30)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Page.navigate", url=url)
        deadline = time.monotonic() + 60
        while not self.value("document.readyState === 'complete' && location.protocol === 'file:'"):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def send(self, method: str, **params: Any) -> Any:
        self.number += 1
        self.socket.write_message(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.loop.run_sync(self.socket.read_message, timeout=60))
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            if message["method"] in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(message["params"])
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"][:60])

    def value(self, expression: str) -> Any:
        result = self.send("Runtime.evaluate", expression=f"JSON.stringify({expression})")
        assert "exceptionDetails" not in result, result
        return json.loads(result["result"].get("value", "null"))

    def until(self, expression: str) -> None:
        deadline = time.monotonic() + 30
        while not self.value(expression):
            assert time.monotonic() < deadline, expression
            time.sleep(0.05)

    def point(self, selector: str) -> tuple[float, float]:
        x, y = self.value(
            "(b => [b.x + b.width / 2, b.y + b.height / 2])"
            f"(document.querySelector('{selector}').getBoundingClientRect())"
        )
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        return x, y

    def click(self, selector: str) -> None:
        x, y = self.point(selector)
        self.send("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a headless Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("chromium is not installed (Debian: apt install chromium)")
    profile = tmp_path_factory.mktemp("profile")
    command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
               "--remote-debugging-port=0", "--window-size=1200,900", f"--user-data-dir={profile}",
               "--remote-allow-origins=*", "about:blank"]  # fmt: skip
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        told = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (told.exists() and told.read_text().strip()):
            assert browser.poll() is None, "chromium ended at once"
            assert time.monotonic() < deadline, "chromium does not listen"
            time.sleep(0.05)
        yield int(told.read_text().split()[0])
    finally:
        browser.terminate()
        browser.wait(30)


@pytest.fixture
def open_page(chromium: int, tmp_path: Path) -> Iterator[Callable[[Sequence[Record]], Tab]]:
    """Open the report of records; at the end, nothing may have gone wrong or been fetched."""
    tabs: list[Tab] = []

    def open_it(records: Sequence[Record]) -> Tab:
        path = tmp_path / "a run.report.html"
        write_run_report(path, records, stem=RUN, options={HOSTILE: HOSTILE})
        tabs.append(Tab(chromium, path.as_uri()))
        return tabs[-1]

    yield open_it
    for tab in tabs:
        tab.send("Runtime.evaluate", expression="1")
        assert tab.errors == []
        assert all(url.startswith(("file:", "data:")) for url in tab.requests), tab.requests
        tab.socket.close()


@pytest.mark.servers
def test_in_chromium_the_map_tells_of_tiles_and_zooms(open_page: Callable[[Sequence[Record]], Tab]) -> None:
    tab = open_page(hostile_records())
    assert tab.value("typeof window.hacked") == "undefined"
    assert tab.value("document.querySelectorAll('.tiles path').length") == 2
    tab.point(".tiles.failed path")
    tab.until("darts.names().includes('b')")
    tab.point(".tiles.done path")
    tab.until(f"darts.names().includes({json.dumps(HOSTILE)})")
    tab.click("#zoom-in")
    tab.until("darts.state().zoom > 1.5")
    tab.click("#fit")
    tab.until("darts.state().zoom === 1")
    background = "getComputedStyle(document.body).backgroundColor"
    light = tab.value(background)
    tab.click("#theme")
    tab.until(f"{background} !== {json.dumps(light)}")
    for width in (1200, 380):
        tab.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        tab.until(f"innerWidth === {width}")
        assert tab.value("document.documentElement.scrollWidth") <= width
        tab.until("Math.abs(document.querySelector('.net text').getBoundingClientRect().height - 15) < 6")
    tab.send("Emulation.clearDeviceMetricsOverride")


@pytest.mark.servers
def test_in_chromium_ten_thousand_tiles_are_shown(open_page: Callable[[Sequence[Record]], Tab], tmp_path: Path) -> None:
    tab = open_page(campaign(10_000, tmp_path))
    assert tab.value("document.querySelectorAll('.tiles path').length") == 10_000
    tab.click("#zoom-in")
    tab.until("darts.state().zoom > 1.5")
