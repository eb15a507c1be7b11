import base64
import dataclasses
import json
import random
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Proj
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

from darts.records.ledger import Outcome, Record, RunEnd, RunStart
from darts.report.report_pictures import LONGEST_SIDE_PX, MOST_BYTES, MOST_PICTURES, evenly, shrink
from darts.report.run_charts import MOST_BINS, bin_seconds, span_text
from darts.report.run_report import LONGEST_ERROR, render_run_report, write_run_report
from darts.report.run_story import tell_story
from darts.report.tile_map import WIDTH, View, draw_map, look_at
from darts.timings import STEPS

RUN = "2026-07-01T12-30-00Z"
STARTED = datetime(2026, 7, 1, 12, 30, tzinfo=UTC)
HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>{{data}} &amp; \udc80 \"<!--"
)

Corners = tuple[tuple[float, float], ...]


def square(lon: float, lat: float, km: float = 20) -> Corners:
    """Return the corners of a square on the Earth."""
    geod = Geod(ellps="WGS84")
    found = [geod.fwd(lon, lat, 45 + 90 * k, km * 1000 / 2**0.5) for k in range(4)]
    return tuple((float(east), float(north)) for east, north, _ in found)


def at(seconds: float) -> str:
    return (STARTED + timedelta(seconds=seconds)).isoformat()


def start(*tiles: str, **fields: Any) -> RunStart:
    return RunStart(run=RUN, started=at(0), tiles=tiles, **fields)


def outcome(tile_id: str, status: str = "success", seconds: float = 1, **fields: Any) -> Outcome:
    """Return an outcome so many seconds after the start."""
    fields = {"output_path": f"nowhere/{tile_id}", "run": RUN, "finished": at(seconds)} | fields
    return Outcome(tile_id=tile_id, status=status, **fields)  # type: ignore[arg-type]


def failed(tile_id: str, error: str = "MissingDataError: no DEM", **fields: Any) -> Outcome:
    return outcome(tile_id, "failed", error=error, cause=error.partition(":")[0], **fields)


def end(seconds: float = 60, reason: str = "finished") -> RunEnd:
    return RunEnd(run=RUN, finished=at(seconds), reason=reason)


class Page(HTMLParser):
    """A page that was read: what was opened, and whether all of it was closed."""

    VOID = frozenset({"meta", "img", "br", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.faults: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        assert self.faults == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str, **attributes: str) -> int:
        return sum(name == tag and attributes.items() <= found.items() for name, found in self.tags)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def data(self) -> Any:
        return json.loads(next(text for text in self.texts if text.startswith("[[") or text == "[]"))


def render(records: Sequence[Record], folder: Path = Path("nowhere"), **options: Any) -> str:
    return render_run_report(records, stem=RUN, options=options, folder=folder)


def page(records: Sequence[Record], folder: Path = Path("nowhere"), **options: Any) -> Page:
    return Page(render(records, folder, **options))


def picture(path: Path, shape: tuple[int, int] = (768, 1024), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (*shape, 3), np.uint8)
    assert cv2.imwrite(str(path), noise)


# ---- what the records say ----


def test_the_state_of_a_tile_is_what_the_run_left_it_in() -> None:
    story = tell_story(
        [
            outcome("earlier", run="old"),
            failed("failed earlier", run="old"),
            outcome("of another run", run="old"),
            start("done", "earlier", "failed earlier", "failed", "healed", "to be tried", "skipped", "never"),
            outcome("done"),
            failed("failed", again=True),
            failed("failed", attempt=2),
            failed("healed", again=True),
            outcome("healed", attempt=2),
            failed("to be tried", again=True),
            outcome("skipped", "skipped"),
            end(reason="interrupted"),
        ],
        RUN,
    )
    assert dict(story.states) == {
        "done": "done",
        "earlier": "before",
        "failed earlier": "left",
        "failed": "failed",
        "healed": "done",
        "to be tried": "left",
        "skipped": "before",
        "never": "left",
    }
    assert [(o.tile_id, o.attempt) for o in story.failures] == [("failed", 2)]
    assert story.reason == "interrupted"
    assert story.seconds == 60


def test_a_run_that_was_killed_has_no_end_but_a_last_tile() -> None:
    story = tell_story([start("a", "b"), outcome("a", seconds=40)], RUN)
    assert (story.reason, story.seconds) == ("not ended, or killed", 40)


def test_the_newest_place_and_the_models_of_complete_tiles_are_known() -> None:
    old, new = square(10, 70), square(11, 71)
    story = tell_story(
        [
            outcome("a", run="old", corners=old, models={"m": "1"}, files={"x": (1, "")}),
            outcome("b", run="old", corners=old, models={"m": "1"}),
            start("a", "b", "c"),
            failed("a", corners=new),
            outcome("b", "skipped"),
            outcome("c", models={"m": "2"}, corners=()),
        ],
        RUN,
    )
    assert dict(story.corners) == {"a": new, "b": old}
    assert story.models() == [("m", "2", 1)], "a failed, and a skip says nothing of models"


def test_times_that_are_none_are_left_out() -> None:
    story = tell_story([outcome("a", finished="yesterday"), outcome("b", finished="2026-07-01T12:30:00")], RUN)
    assert story.began == story.ended == STARTED
    assert tell_story([], RUN).seconds is None


# ---- the map ----


@given(
    st.floats(-180, 180), st.floats(-90, 90),
    st.lists(st.tuples(st.floats(-180, 180), st.floats(-90, 90)), min_size=1, max_size=5),
)  # fmt: skip
def test_the_projection_is_that_of_proj(lon: float, lat: float, places: list[tuple[float, float]]) -> None:
    view = View(lon, lat)
    proj = Proj(f"+proj=laea +lat_0={lat:.17f} +lon_0={lon:.17f} +R=1")
    degrees = np.array(places).T
    x, y = view.project(*degrees)
    wanted_x, wanted_y = proj(*degrees)
    near = np.hypot(x, y) < 1.99  # the antipode is no point
    assert np.allclose(x[near], wanted_x[near], atol=1e-6)
    assert np.allclose(y[near], wanted_y[near], atol=1e-6)
    assert (np.hypot(x, y) <= 2 + 1e-6).all()
    back_lon, back_lat = view.unproject(x[near], y[near])
    again_x, again_y = view.project(back_lon + lon, back_lat)
    assert np.allclose(again_x, x[near], atol=1e-5)
    assert np.allclose(again_y, y[near], atol=1e-5)


def outlines(content: str) -> list[np.ndarray]:
    paths = re.findall(r'<path d="M([-\d. ]+)Z"/>', content)
    return [np.array(path.split(), float).reshape(-1, 2) for path in paths]


@pytest.mark.parametrize(
    ("middle", "spread"),
    [((180, 69), 2), ((-179.99, -40), 1), ((0, 90), 3), ((77, -90), 3), ((-150, 70), 4), ((0, 0), 1), ((25, 88), 1.5)],
)
def test_squares_stay_squares_wherever_they_lie(middle: tuple[float, float], spread: float) -> None:
    rnd = random.Random(1)
    geod = Geod(ellps="WGS84")
    tiles = []
    for _ in range(30):
        lon, lat, _ = geod.fwd(*middle, rnd.uniform(0, 360), rnd.uniform(0, spread) * 111e3)
        tiles.append(("done", square(lon, lat, 20)))
    drawn = draw_map(tiles, ("done",))
    assert drawn is not None
    assert drawn.shown == tuple(range(30))
    corners = np.array(outlines(drawn.content))
    assert corners.min() >= 0
    assert (corners.max(axis=(0, 1)) <= (WIDTH, drawn.height)).all()
    view = look_at([corner for _, corner in tiles])
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1) / view.scale * 6371
    assert sides == pytest.approx(np.full(sides.shape, 20.0), rel=0.02)


@pytest.mark.parametrize(
    "tiles",
    [
        [square(10, 70, 0.001)],
        [square(10, 70)] * 3,
        [square(lon, lat, 50) for lon, lat in ((0, 90), (0, -90), (0, 0), (180, 0), (90, 0), (-90, 0))],
        [square(0, 0), square(180, 0)],
        [square(lon, 60) for lon in range(-180, 180, 5)],
        [((0.0, 90.0), (90.0, 90.0), (180.0, 90.0), (-90.0, 90.0))],
        [((179.0, 70.0), (541.0, 70.0), (541.0, 69.0), (-181.0, 69.0))],
    ],
)  # fmt: skip
def test_any_places_give_a_map_with_a_net(tiles: list[Corners]) -> None:
    drawn = draw_map([("done", corners) for corners in tiles], ("done",))
    assert drawn is not None
    numbers = [float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", re.sub(r"<text.*?</text>", "", drawn.content))]
    assert np.isfinite(numbers).all()
    assert "nan" not in drawn.content
    assert len(outlines(drawn.content)) == len(tiles)
    assert 2 <= drawn.content.split("tiles")[0].count("<path") <= 40
    labels = re.findall(r"<text [^>]*>([^<]*)</text>", drawn.content)
    assert any(label.endswith("m") for label in labels), "a scale"
    assert any("°" in label for label in labels)


def test_labels_stand_at_their_lines() -> None:
    drawn = draw_map([("done", square(-150, 70, 300)), ("done", square(-156, 68, 300))], ("done",))
    assert drawn is not None
    view = look_at([square(-150, 70, 300), square(-156, 68, 300)])
    labels = re.findall(r'<text x="(\d+)" y="(\d+)" text-anchor="\w+">(\d+)° ([NW])</text>', drawn.content)
    assert {kind for *_, kind in labels} == {"N", "W"}
    for x, y, degrees, kind in labels:
        lon, lat = view.unproject(
            np.array([view.left + float(x) / view.scale]), np.array([view.top - (float(y) + 4) / view.scale])
        )
        found = lat[0] if kind == "N" else -(lon[0] + view.longitude)
        assert found == pytest.approx(float(degrees), abs=0.35)


def test_failed_tiles_lie_above_the_others_and_impossible_places_are_left_out() -> None:
    here = square(10, 70)
    tiles = [("failed", here), ("done", ()), ("done", here), ("done", ((float("nan"), 0.0),) * 4),
             ("done", ((0.0, 91.0),) * 4), ("left", here)]  # fmt: skip
    drawn = draw_map(tiles, ("done", "left", "failed"))
    assert drawn is not None
    assert drawn.shown == (2, 5, 0)
    assert draw_map(tiles[3:5], ("done", "left", "failed")) is None


# ---- pictures ----


def test_pictures_are_small_whatever_they_were(tmp_path: Path) -> None:
    for shape in ((768, 1024), (1024, 3), (100, 90), (1, 1)):
        picture(tmp_path / "x.jpg", shape)
        small = shrink(tmp_path / "x.jpg")
        assert small is not None
        assert len(small) <= MOST_BYTES
        height, width = cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        assert max(height, width) == min(max(shape), LONGEST_SIDE_PX)


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"\xff\xd8\xff\xe0broken"])
def test_a_picture_that_cannot_be_read_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.jpg").write_bytes(content)
    assert shrink(tmp_path / "x.jpg") is None


@given(st.integers(0, 500), st.integers(2, 60))
def test_the_choice_is_even_and_holds_the_first_and_the_last(number: int, most: int) -> None:
    chosen = evenly(range(number), most)
    assert len(chosen) == min(number, most)
    if number:
        assert (chosen[0], chosen[-1]) == (0, number - 1)
    steps = np.diff(chosen)
    assert len(steps) == 0 or (steps.min() >= 1 and steps.max() - steps.min() <= 1)


def test_pictures_link_to_the_page_of_their_tile(tmp_path: Path) -> None:
    ids = [f"t {i:03}#%?" for i in range(MOST_PICTURES + 30)]
    for number, tile_id in enumerate(ids[:5]):
        picture(tmp_path / "out" / tile_id / "thumbnail.jpg", (90, 120), number)
    (tmp_path / "out" / ids[1] / "preview.html").write_text("")
    found = page([outcome(i, output_path=str(tmp_path / "out" / i)) for i in ids[:5]], tmp_path / "out")
    links = [attrs["href"] for tag, attrs in found.tags if tag == "a"]
    assert links == [
        f"./t%20{i:03}%23%25%3F/{'preview.html' if i == 1 else 'thumbnail.jpg'}" for i in range(5)
    ]  # fmt: skip
    moved = tmp_path / "moved"
    (tmp_path / "out").rename(moved)
    again = page([outcome(i, output_path=str(tmp_path / "out" / i)) for i in ids[:5]], moved)
    assert again.count("img") == 5


def test_at_most_sixty_pictures_are_shown(tmp_path: Path) -> None:
    records = []
    for number in range(MOST_PICTURES + 7):
        path = tmp_path / f"t{number}" / "thumbnail.jpg"
        picture(path, (20, 30), number)
        records.append(outcome(f"t{number}", output_path=str(path.parent), files={"thumbnail.jpg": (1, "")}))
    records.append(outcome("none", output_path=str(tmp_path / "t0"), files={"other.tif": (1, "")}))
    found = page(records, tmp_path)
    assert found.count("img") == MOST_PICTURES
    assert f"Pictures of {MOST_PICTURES} of {MOST_PICTURES + 8} tiles" in found.text
    sources = [attrs["src"] or "" for tag, attrs in found.tags if tag == "img"]
    assert all(
        base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))[:2] == b"\xff\xd8" for source in sources
    )


# ---- the page ----


def campaign(number: int, tmp_path: Path) -> list[Record]:
    """Return the records of a run of many tiles around the Arctic."""
    rnd = random.Random(7)
    ids = [f"S2A_MSIL2A_20240726T210128_N0511_R014_T{i:05}_20240727T002245" for i in range(number)]
    records: list[Record] = [start(*ids, command=("run", "sentinel2"), workers=("cuda:0", "cuda:1"), host="node17")]
    for i, tile_id in enumerate(ids):
        lon, lat = rnd.uniform(-180, 180), rnd.uniform(60, 80)
        corners = tuple((lon + x, lat + y) for x, y in ((-1, 0.5), (1, 0.5), (1, -0.5), (-1, -0.5)))
        fields = {"corners": corners, "worker": f"cuda:{i % 2}", "output_path": str(tmp_path / tile_id)}
        if i % 4 == 3:
            cause = rnd.choice(["MissingDataError", "TileReadError"])
            error = f"{cause}: the DEM of {tile_id} {'is not there ' * 9}"
            found = failed(tile_id, error, seconds=12.0 * i, **fields)
        else:
            found = outcome(tile_id, seconds=12.0 * i, models={"tcvis": "ab" * 32}, **fields)
        records.append(dataclasses.replace(found, seconds={step: rnd.uniform(0, 9) for step in STEPS}))
    return [*records, end(12.0 * number)]


def test_ten_thousand_tiles_make_a_page_below_five_megabytes(tmp_path: Path) -> None:
    text = render(campaign(10_000, tmp_path), tmp_path)
    assert len(text.encode()) < 5e6
    found = Page(text)
    assert len(found.data) == 10_000
    assert "10000 tiles · 7500 done · 2500 failed · finished" in found.text
    assert found.count("dd") > 2500


def test_the_page_tells_all_of_a_run(tmp_path: Path) -> None:
    (tmp_path / f"{RUN}.results.parquet").write_text("")
    (tmp_path / f"{RUN}.log").write_text("")
    records = [
        start("a", "b", "c", "d", command=("run", "planet"), shard="3/16", workers=("cuda:0", "cpu"), host="node17",
              versions={"darts": "0.4.0", "torch": "2.9"}),
        Outcome(tile_id="a", output_path="x", status="success", run=RUN, finished=at(30), worker="cuda:0",
                seconds={"Segmenting": 20.0, "Exporting": 5.0}, corners=square(10, 70), models={"m": "feed"},
                files={"x.tif": (2_500_000, "")}),
        failed("b", "MissingDataError: no DEM", attempt=2, worker="cpu"),
        failed("c", "ValueError: bad"),
        end(100, "interrupted"),
    ]  # fmt: skip
    options = {"patch_size": 512, "model_files": [Path("/m/a.pt"), Path("/m/b.pt")], "overwrite": False,
               "aoi_file": None, "stac": {"page_size": 7}}  # fmt: skip
    text = page(records, tmp_path, **options).text
    for told in (
        f"Run {RUN}", "4 tiles · 1 done · 1 left · 2 failed · interrupted", "started 2026-07-01 12:30:00 UTC",
        "took 1 min 40 s", "command darts run planet", "shard 3/16", "host node17", "workers cuda:0, cpu",
        "darts 0.4.0", "torch 2.9", "written 2.5 MB", "3 of unknown place, not on the map",
        "Segmenting 80.0 % 20 s 20 s", "Exporting 20.0 % 5 s 5 s", "0.25 × the 1 min 40 s of the run",
        "cuda:0 1 0 25 s", "MissingDataError: 1 tile b MissingDataError: no DEM (attempt 2)",
        "ValueError: 1 tile c ValueError: bad", "m feed (1 tile)", "patch_size 512", "model_files /m/a.pt, /m/b.pt",
        "overwrite false", "stac.page_size 7", f"{RUN}.results.parquet results by tile", f"{RUN}.log log",
    ):  # fmt: skip
        assert told in text, told
    assert "aoi_file" not in text
    assert "timer.parquet" not in text, "it is not there"


@pytest.mark.parametrize(
    "records",
    [[], [start()], [start(), end()], [start("a")], [outcome("a", finished="")], [end()], [outcome("a", run="other")]],
)
def test_a_run_of_nothing_has_a_page(records: list[Record]) -> None:
    found = page(records)
    assert found.data == []
    assert "place is known" in found.text


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run_report(tmp_path / f"{name}.html", campaign(50, tmp_path), stem=RUN, options={"a": {"c", "b", "d"}})
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    text = render(campaign(40, tmp_path), tmp_path)
    assert not re.search(
        r"https?:|//\w|@import|url\(", re.sub(r'="data:[^"]*"|^\s*//.*$', "", text, flags=re.MULTILINE)
    )
    links = [attrs.get("href") or attrs.get("src") or "" for _, attrs in Page(text).tags]
    assert all(link.startswith(("./", "../", "data:", "")) for link in links)
    assert "default-src 'none'" in text


def hostile_records() -> list[Record]:
    return [
        start(HOSTILE, "b", command=(HOSTILE,), shard=HOSTILE, host=HOSTILE, workers=(HOSTILE,),
              versions={HOSTILE: HOSTILE}),
        outcome(HOSTILE, corners=square(10, 70), models={HOSTILE: HOSTILE}, worker=HOSTILE, output_path=f"x/{HOSTILE}"),
        failed("b", f"{HOSTILE}: {HOSTILE}", worker="w", corners=square(10.1, 70)),
        end(reason=HOSTILE),
    ]  # fmt: skip


def test_texts_from_outside_stay_texts(tmp_path: Path) -> None:
    plain = page([start("a", "b"), outcome("a", corners=square(10, 70)), failed("b", corners=square(10.1, 70)), end()])
    write_run_report(tmp_path / "x.html", hostile_records(), stem=RUN, options={HOSTILE: {HOSTILE: [HOSTILE]}})
    found = Page((tmp_path / "x.html").read_text(encoding="utf-8"))
    assert found.count("script") == plain.count("script") == 2
    assert found.count("img") == 0
    assert not any("onerror" in attrs for _, attrs in found.tags)
    shown = HOSTILE.replace("\udc80", "\\udc80")
    assert found.text.count(" ".join(shown.split())) >= 8
    assert [tile_id for tile_id, _ in found.data] == [HOSTILE, "b"]


def test_long_errors_are_shortened_and_countless_ones_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darts.report.run_report.MOST_FAILURES", 5)
    records = [failed(f"t{i}", f"{'A' if i < 6 else 'B'}: {'x' * 1000}") for i in range(10)]
    found = page(records)
    assert "A: 6 tiles" in found.text
    assert "1 more are in the table of results." in found.text
    assert "4 more are in the table of results." in found.text
    assert max(len(text) for text in found.texts if text.startswith("A: x")) == LONGEST_ERROR


def test_the_bars_of_the_chart_hold_every_attempt() -> None:
    records = [start(), *(outcome(f"t{i}", seconds=13.0 * i) for i in range(100)), failed("f", seconds=700), end(1300)]
    found = page(records)
    titles = [text for text in found.texts if re.match(r".* to .*: \d+ done", text)]
    assert sum(int(re.findall(r"(\d+) done", title)[0]) for title in titles) == 100
    assert sum("1 failed" in title for title in titles) == 1
    heights = [float(a["height"] or 0) for t, a in found.tags if t == "rect"]
    assert 0 <= min(heights) <= max(heights) <= 100


@given(st.floats(0, 1e8))
def test_bins_are_at_most_sixty(seconds: float) -> None:
    assert seconds / bin_seconds(seconds) <= MOST_BINS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.04, "0.0 s"), (59.9, "59.9 s"), (59.96, "1 min"), (245, "4 min 5 s"), (3599.7, "1 h"),
     (9000, "2 h 30 min"), (86_399.9, "1 d"), (273_600, "3 d 4 h")],
)  # fmt: skip
def test_spans_of_time_are_readable(seconds: float, text: str) -> None:
    assert span_text(seconds) == text


# ---- in a browser ----


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
