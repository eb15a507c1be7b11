"""The report in a real browser, driven over the DevTools protocol."""

import json
import shutil
import subprocess
import time
import urllib.request

import numpy as np
import pytest
from pyproj import Transformer
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

from darts_export.export import Export
from darts_export.metadata import darts_tags, identity
from darts_export.report import write_report

pytestmark = pytest.mark.servers

WIDTH, HEIGHT = 1000, 800


class Page:
    """A page in Chromium; keeps what went wrong and what it asked the network for."""

    def __init__(self, port, url):
        self.loop = IOLoop(make_current=False)
        self.number = 0
        self.errors, self.requests = [], []
        targets = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list"))
        target = next(one for one in targets if one["type"] == "page")
        address = target["webSocketDebuggerUrl"]
        self.socket = self.loop.run_sync(lambda: websocket_connect(address, max_message_size=1 << 28), timeout=30)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && !!window.darts")

    def send(self, method, **params):
        self.number += 1
        self.socket.write_message(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.loop.run_sync(self.socket.read_message, timeout=60))
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            self._heard(message)

    def _heard(self, message):
        params = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown" or (
            message["method"] == "Log.entryAdded" and params["entry"]["level"] == "error"
        ):
            self.errors.append(params)
        if message["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(params)
        if message["method"] == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"][:60])

    def value(self, expression):
        result = self.send("Runtime.evaluate", expression=f"JSON.stringify({expression})", awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return json.loads(result["result"].get("value", "null"))

    def until(self, expression):
        deadline = time.monotonic() + 30
        while not self.value(expression):
            assert time.monotonic() < deadline, expression
            time.sleep(0.05)

    def mouse(self, kind, x, y, **params):
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **params)

    def click(self, selector):
        x, y = self.value(
            "(e => { e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect(); "
            f"return [b.x + b.width / 2, b.y + b.height / 2]; }})(document.querySelector({json.dumps(selector)}))"
        )
        self.press(x, y)

    def press(self, x, y):
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)

    def key(self, key):
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def state(self):
        return self.value("darts.state()")

    def on_screen(self, column, row):
        """Where a place of the tile lies in the window."""
        state, frame = self.state(), self.value("document.getElementById('view').getBoundingClientRect()")
        return frame["x"] + state["x"] + state["k"] * column, frame["y"] + state["y"] + state["k"] * row


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """The port of a headless Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("chromium is not installed (Debian: apt install chromium)")
    profile = tmp_path_factory.mktemp("profile")
    browser = subprocess.Popen(
        [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0",
            f"--window-size={WIDTH},{HEIGHT}", f"--user-data-dir={profile}", "--remote-allow-origins=*", "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
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
def open_page(chromium, tmp_path):
    """Open the report of a tile; at the end, nothing may have gone wrong or been fetched."""
    pages = []

    def open_it(tile, metadata=None):
        folder = tmp_path / "a tile"
        folder.mkdir()
        export = Export(tile, folder, (), darts_tags(tile, metadata, folder.name), identity(tile, folder.name))
        path = folder / "preview.html"
        write_report(path, export)
        pages.append(Page(chromium, path.as_uri()))
        return pages[-1]

    yield open_it
    for page in pages:
        page.send("Runtime.evaluate", expression="1")
        assert page.errors == []
        assert all(url.startswith(("file:", "data:")) for url in page.requests), page.requests
        page.socket.close()


def test_outlines_and_rows_are_those_of_the_objects(open_page, shared_tile):
    page = open_page(shared_tile)
    assert page.value("document.querySelectorAll('.object').length") == 2
    assert page.value("[...document.querySelectorAll('tbody tr')].map(r => r.cells[0].innerText)") == ["1", "2"]
    # The second object is 15 × 10 pixels, from column 60 and row 40.
    box = page.value("(b => [b.x, b.y, b.width, b.height])(document.querySelectorAll('.object')[1].getBBox())")
    assert box == [60, 40, 15, 10]
    assert page.value("[...document.querySelectorAll('image')].every(i => i.getAttribute('width') === '90')")


def test_layers_switch_off_and_fade(open_page, shared_tile):
    page = open_page(shared_tile)
    shown = "getComputedStyle(document.getElementById('layer-natural')).display"
    assert page.value(shown) == "inline"
    page.click("[data-layer=natural]")
    assert page.value(shown) == "none"
    page.click("[data-layer=probabilities]")
    assert page.value("getComputedStyle(document.getElementById('layer-probabilities')).display") == "inline"
    page.click("[data-layer=objects]")
    assert page.value("getComputedStyle(document.getElementById('layer-objects')).display") == "none"
    page.value("(s => { s.focus(); return 1; })(document.querySelector('[data-opacity=probabilities]'))")
    page.send("Input.dispatchKeyEvent", type="keyDown", key="Home", code="Home", windowsVirtualKeyCode=36)
    assert page.value("document.getElementById('layer-probabilities').getAttribute('opacity')") == "0"


def test_a_click_on_an_object_shows_its_attributes_and_marks_its_row(open_page, shared_tile):
    page = open_page(shared_tile)
    page.press(*page.on_screen(67, 45))
    assert page.state()["selected"] == 1
    text = page.value("document.getElementById('object').innerText")
    assert "Region_ID\n2" in text
    assert "an-image" in text
    assert page.value("document.querySelectorAll('tbody tr')[1].className") == "selected"
    page.mouse("mouseMoved", *page.on_screen(13, 11))
    assert "Region_ID\n1" in page.value("document.getElementById('object').innerText")
    page.mouse("mouseMoved", *page.on_screen(50, 5))
    assert "Region_ID\n2" in page.value("document.getElementById('object').innerText")
    page.value("(document.getElementById('view').focus(), 1)")
    page.key("Escape")
    assert page.state()["selected"] == -1


def test_the_hole_of_an_object_is_not_the_object(open_page, shared_tile):
    page = open_page(shared_tile)
    page.press(*page.on_screen(16.5, 15))
    assert page.state()["selected"] == -1


def test_a_click_in_the_table_zooms_to_the_object(open_page, shared_tile):
    page = open_page(shared_tile)
    before = page.state()["k"]
    page.click("tbody tr:nth-child(2) td:nth-child(3)")
    state = page.state()
    assert state["selected"] == 1
    assert state["k"] > before
    frame = page.value("document.getElementById('view').getBoundingClientRect()")
    middle = [frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2]
    assert page.on_screen(67.5, 45) == pytest.approx(middle, abs=1)


def test_the_table_sorts_by_a_column_in_both_directions(open_page, shared_tile):
    page = open_page(shared_tile)
    order = "[...document.querySelectorAll('tbody tr')].map(r => r.cells[0].innerText)"
    column = page.value("[...document.querySelectorAll('th')].findIndex(h => h.innerText === 'npixel')") + 1
    head = f"th:nth-child({column})"
    page.click(f"{head} button")
    assert page.value(order) == ["1", "2"]
    assert page.value(f"document.querySelector('{head}').getAttribute('aria-sort')") == "descending"
    page.click(f"{head} button")
    assert page.value(order) == ["2", "1"]


def test_wheel_drag_and_keys_move_the_map_about_what_they_point_at(open_page, shared_tile):
    page = open_page(shared_tile)
    x, y = page.on_screen(30, 20)
    k = page.state()["k"]
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-200)
    page.until(f"darts.state().k > {k}")
    assert page.on_screen(30, 20) == pytest.approx((x, y), abs=0.5)
    page.mouse("mouseMoved", x, y)
    page.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
    page.mouse("mouseMoved", x + 30, y + 10, button="left", buttons=1)
    page.mouse("mouseMoved", x + 60, y + 20, button="left", buttons=1)
    page.mouse("mouseReleased", x + 60, y + 20, button="left", clickCount=1)
    assert page.on_screen(30, 20) == pytest.approx((x + 60, y + 20), abs=0.5)
    assert page.state()["selected"] == -1, "a drag is no click"
    k = page.state()["k"]
    page.key("+")
    assert page.state()["k"] == pytest.approx(1.5 * k)
    page.key("0")
    at = page.state()["x"]
    page.key("ArrowLeft")
    assert page.state()["x"] > at


def test_two_fingers_zoom_about_their_middle(open_page, shared_tile):
    page = open_page(shared_tile)
    x, y = page.on_screen(30, 20)
    k = page.state()["k"]

    def touch(kind, apart):
        points = [] if kind == "touchEnd" else [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        page.send("Input.dispatchTouchEvent", type=kind, touchPoints=points)

    touch("touchStart", 40)
    for apart in (60, 70, 80):
        touch("touchMove", apart)
    touch("touchEnd", 0)
    page.until(f"darts.state().k > 1.5 * {k}")
    assert page.state()["k"] == pytest.approx(2 * k, rel=0.1)
    assert page.on_screen(30, 20) == pytest.approx((x, y), abs=15)


@pytest.mark.parametrize(
    ("crs", "corner", "resolution"),
    [
        ("EPSG:32608", (399960, 7600020), 1000.0),
        ("EPSG:32760", (300000, 4800000), 1000.0),
        ("EPSG:3413", (-50000, 40000), 1000.0),  # the pole
        ("EPSG:32601", (320000, 7500000), 1000.0),  # 180°
        ("EPSG:4326", (179.5, 70), 0.01),
    ],
)
def test_the_cursor_tells_longitude_and_latitude(open_page, make_tile, crs, corner, resolution):
    tile = make_tile({"probabilities": np.zeros((80, 100), "float32")}, crs, corner, resolution)
    page = open_page(tile)
    transform = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform
    for column, row in ((0, 0), (33.3, 71.2), (51, 41), (100, 80), (99.9, 0.1)):
        x, y = page.value(f"darts.onMap({column}, {row})")
        assert (x, y) == pytest.approx((corner[0] + column * resolution, corner[1] - row * resolution))
        longitude, latitude = page.value(f"darts.lonLat({column}, {row})")
        wanted = transform(x, y)
        assert latitude == pytest.approx(wanted[1], abs=1e-4)
        apart = (longitude - wanted[0] + 180) % 360 - 180
        assert abs(apart) * np.cos(np.radians(latitude)) < 1e-4


def test_the_scale_bar_follows_the_zoom(open_page, make_tile):
    tile = make_tile({"probabilities": np.zeros((80, 100), "float32")})
    page = open_page(tile)
    for _ in range(3):
        text = page.value("document.querySelector('#scale span').textContent")
        number, unit = text.split()
        metres = float(number) * {"m": 1, "km": 1000}[unit]
        width = page.value("document.querySelector('#scale i').getBoundingClientRect().width")
        assert width * 10 / page.state()["k"] == pytest.approx(metres, rel=0.02)
        page.click("#zoom-out")


def test_texts_from_outside_stay_texts(open_page, make_tile):
    evil = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>{{data}}"
    zeros = np.zeros((5, 6), "float32")
    found = zeros > 0
    found[1:3, 2:4] = True
    tile = make_tile(
        {"probabilities": zeros + 0.9, "binarized_segmentation": found},
        tile_id=evil,
        image_id="]]><!--<script>" + evil,
        sensor="<b>s</b>&amp;",
        acquisition_time="2021-08-21T21:00:00Z",
    )
    page = open_page(tile, {"<i>key</i>": {"a": evil}})
    assert page.value("document.title") == evil
    assert page.value("document.querySelector('h1').textContent") == evil
    assert page.value("typeof window.hacked") == "undefined"
    assert page.value("document.querySelectorAll('img, header b, dl b, dl i, dl script').length") == 0
    assert page.value("document.querySelectorAll('script').length") == 2
    page.press(*page.on_screen(3, 2))
    assert evil in page.value("document.getElementById('object').textContent")


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (300, 2)])
def test_tiles_of_any_shape_and_without_anything_in_them_are_shown(open_page, make_tile, shape):
    nothing = np.full(shape, np.float32(np.nan))
    page = open_page(make_tile({"red": nothing, "green": nothing, "blue": nothing, "probabilities": nothing}))
    assert page.value("document.querySelectorAll('image').length") == 2
    assert page.value("document.getElementById('list').hidden")
    assert page.state()["k"] > 0


def test_the_page_reads_in_the_dark(open_page, shared_tile):
    page = open_page(shared_tile)
    colours = (
        "[document.body, document.querySelector('aside')].map(e => getComputedStyle(e))"
        ".map(style => [style.backgroundColor, style.color])"
    )
    light = page.value(colours)
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = page.value(colours)
    page.send("Emulation.setEmulatedMedia", features=[])
    for (back_light, ink_light), (back_dark, ink_dark) in zip(light, dark, strict=True):
        assert contrast(back_light, ink_light) > 7
        assert contrast(back_dark, ink_dark) > 7
        assert back_light != back_dark


def contrast(first, second):
    """The contrast ratio of WCAG 2.1."""

    def luminance(colour):
        shares = np.array([int(part) for part in colour[4:-1].split(",")]) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    dark, bright = sorted((luminance(first), luminance(second)))
    return (bright + 0.05) / (dark + 0.05)


def test_every_control_has_a_name(open_page, shared_tile):
    page = open_page(shared_tile)
    tree = page.send("Accessibility.getFullAXTree")["nodes"]
    controls = ("button", "checkbox", "slider", "table", "application", "image")
    nameless = [
        node["role"]["value"]
        for node in tree
        if not node.get("ignored")
        and node.get("role", {}).get("value") in controls
        and not node.get("name", {}).get("value")
        and node["role"]["value"] != "table"
    ]
    assert nameless == []
