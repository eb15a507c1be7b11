"""Runs made up for tests of reports: what their records say, and their pages as they are read."""

import dataclasses
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from pyproj import Geod

from darts.records.ledger import Outcome, Record, RunEnd, RunStart
from darts.report.run_report import render_run_report
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


def hostile_records() -> list[Record]:
    return [
        start(HOSTILE, "b", command=(HOSTILE,), shard=HOSTILE, host=HOSTILE, workers=(HOSTILE,),
              versions={HOSTILE: HOSTILE}),
        outcome(HOSTILE, corners=square(10, 70), models={HOSTILE: HOSTILE}, worker=HOSTILE, output_path=f"x/{HOSTILE}"),
        failed("b", f"{HOSTILE}: {HOSTILE}", worker="w", corners=square(10.1, 70)),
        end(reason=HOSTILE),
    ]  # fmt: skip
