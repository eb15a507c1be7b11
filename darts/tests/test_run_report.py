"""The report of a run: what its records say, and the page that tells of it."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darts.records.ledger import Outcome, Record
from darts.report.run_charts import MOST_BINS, bin_seconds, span_text
from darts.report.run_report import LONGEST_ERROR, write_run_report
from darts.report.run_story import tell_story

from .report_samples import (
    HOSTILE,
    RUN,
    STARTED,
    Page,
    at,
    campaign,
    end,
    failed,
    hostile_records,
    outcome,
    page,
    render,
    square,
    start,
)

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


# ---- the page ----


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
