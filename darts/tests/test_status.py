import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darts.cli import run_command_line
from darts.records.ledger import Ledger, Outcome, Record, RunEnd, RunStart
from darts.records.run_lock import Holder, hold_output
from darts.records.sharding import Shard
from darts.records.status import summarize

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def at(seconds: float) -> str:
    return (NOON + timedelta(seconds=seconds)).isoformat()


def start(tiles: str = "abcd", run: str = "r1", seconds: float = 0, **more: Any) -> RunStart:
    more = {"host": "node", "pid": 7, "options": "0p"} | more
    return RunStart(run=run, started=at(seconds), tiles=tuple(tiles), **more)


def tile(
    tile_id: str, status: Any = "success", seconds: float | dict[str, float] = 0, run: str = "r1", **more: Any
) -> Outcome:
    """Return an outcome; `seconds` is its time, or how long its steps took."""
    more = {"options": "0p"} | more
    if isinstance(seconds, dict):
        more["seconds"], seconds = seconds, 0
    return Outcome(tile_id=tile_id, output_path=f"o/{tile_id}", status=status, run=run, finished=at(seconds), **more)


def end(seconds: float, run: str = "r1", reason: str = "finished") -> RunEnd:
    return RunEnd(run=run, finished=at(seconds), reason=reason)


def holder(shard: str = "", pid: int = 7, host: str = "node") -> Holder:
    return Holder(host=host, pid=pid, since=at(0), shard=shard)


def failing(tile_id: str, error: str, **more: Any) -> Outcome:
    return tile(tile_id, "failed", error=error, cause=error.partition(":")[0], **more)


def test_tiles_are_done_failed_by_cause_or_left() -> None:
    summary = summarize([
        start("abcdefg"), tile("a"), failing("b", "StoreError: full 1"), failing("c", "RemoteError: 503"),
        failing("d", "StoreError: full 2"), tile("e", "skipped"), end(60),
    ])  # fmt: skip
    assert (summary.tiles, summary.done, summary.failed, summary.left, summary.skipped) == (7, 2, 3, 5, 1)
    assert summary.left_tiles == tuple("bcdfg")
    assert [(f.cause, f.tiles, f.error) for f in summary.failures] == [
        ("StoreError", ("b", "d"), "StoreError: full 2"),
        ("RemoteError", ("c",), "RemoteError: 503"),
    ]


def test_a_tile_is_what_its_last_attempt_made_of_it() -> None:
    summary = summarize([
        start("abc"), failing("a", "E: 1", again=True), tile("a", attempt=2), tile("b"), failing("c", "E: 2"), end(9),
        start("abc", "r2", 10, overwrite=True), failing("b", "E: 3", run="r2"), tile("c", run="r2"), end(20, "r2"),
    ])  # fmt: skip
    assert (summary.done, summary.left_tiles) == (2, ("b",))
    # A plain run finds the files that the failed attempt left as they were.
    assert summarize([tile("b"), failing("b", "E: 3"), tile("b", "skipped")]).done == 1


def test_a_tile_that_is_tried_again_has_not_failed_unless_its_run_died() -> None:
    records = [start("ab"), failing("a", "RemoteError: 503", again=True)]
    summary = summarize(records, [holder()])
    assert (summary.failed, summary.left, summary.runs[0].failed, summary.runs[0].remaining) == (0, 2, 0, 2)
    assert (summarize(records).failed, summarize(records).left) == (1, 2)


def test_left_is_over_the_tiles_of_all_runs() -> None:
    summary = summarize([start("abc"), tile("a"), end(5), start("cd", "r2", 10), tile("c", run="r2"), end(15, "r2")])
    assert (summary.tiles, summary.left_tiles) == (4, ("b", "d"))


def test_shards_are_summed_and_those_that_never_started_are_named() -> None:
    ids = [f"tile{n}" for n in range(40)]
    shares = {n: [name for name in ids if Shard(n, 4).holds(name)] for n in (1, 2, 3, 4)}
    records: list[Record] = [start([], "old", shard="1/2"), end(1, "old")]  # type: ignore[arg-type]
    for n in (1, 3):
        # One lists its share, the other one all tiles: the shard says which are meant.
        tiles = shares[n] if n == 1 else ids
        records.append(start(tiles, f"r{n}", 2 + n, shard=f"{n}/4", pid=n))  # type: ignore[arg-type]
    records += [tile(name, run="r1", seconds=30) for name in shares[1]]
    records += [tile(name, run="r3", seconds=30) for name in shares[3][:2]]
    summary = summarize(records, [holder("3/4", pid=3)])
    assert summary.shards_not_started == ("2/4", "4/4")
    assert summary.tiles == 40
    assert summary.done == len(shares[1]) + 2
    states = {run.run: (run.state, run.tiles, run.remaining) for run in summary.runs}
    assert states["r1"] == ("killed", len(shares[1]), 0)
    assert states["r3"] == ("at work", len(shares[3]), len(shares[3]) - 2)


def test_a_run_without_end_is_at_work_if_it_holds_the_folder_and_was_killed_otherwise() -> None:
    # The process numbers of containers come again and again.
    records = [start("ab"), tile("a"), start("ab", "r2", 10), tile("b", run="r2")]
    assert [run.state for run in summarize(records, [holder()]).runs] == ["killed", "at work"]
    assert [run.state for run in summarize(records).runs] == ["killed", "killed"]
    assert [run.state for run in summarize([*records, end(20, "r2", "interrupted")]).runs] == ["killed", "interrupted"]
    for other in (holder(pid=8), holder(host="other"), holder(shard="1/2")):
        summary = summarize(records, [other])
        assert summary.at_work == ()
        assert summary.starting == (other,)


def test_the_rate_is_of_the_tiles_that_were_worked_on() -> None:
    # Skips before the first tile, and models that load before the start, take no time of tiles.
    records = [start("abcdef"), tile("a", "skipped", 100), tile("b", "skipped", 200), tile("c", seconds=230)]
    records += [failing("d", "E: 1", seconds=250, again=True), failing("d", "E: 2", seconds=260)]
    summary = summarize([*records, end(400)])
    assert summary.rate == pytest.approx(2.0)  # two tiles in 60 s
    assert summary.seconds_left == pytest.approx(90)  # d, e and f
    at_work = summarize(records, [holder()])
    assert at_work.seconds_left == pytest.approx(60)  # d had its turn in this run


def test_skips_that_nobody_recorded_are_counted_and_take_no_time_of_tiles() -> None:
    records = [start("ab"), tile("a", seconds=5), failing("b", "E: 1"), end(9)]
    first = Outcome(
        tile_id="b", output_path="", status="success", run="r2", finished=at(1000), seconds={"Segmenting": 25, "x": 5}
    )
    records += [start("abcd", "r2", 10), first, tile("c", seconds=1030, run="r2")]
    run = summarize(records, [holder()]).runs[-1]
    assert (run.done, run.skipped, run.remaining) == (2, 1, 1)
    assert run.rate == pytest.approx(2.0)  # two tiles in 60 s
    assert summarize([*records, start("abcd", "r3", 2000, overwrite=True)]).skipped == 0


def test_rates_of_shards_at_work_are_added_and_the_slowest_decides() -> None:
    ids = [f"tile{n}" for n in range(200)]
    one, two = ([name for name in ids if Shard(n, 2).holds(name)] for n in (1, 2))
    records: list[Record] = [
        start(ids, "r1", shard="1/2", pid=1), start(ids, "r2", shard="2/2", pid=2),  # type: ignore[arg-type]
        *(tile(name, run="r1", seconds=60) for name in one[:6]),
        *(tile(name, run="r2", seconds=60) for name in two[:2]),
    ]  # fmt: skip
    summary = summarize(records, [holder("1/2", 1), holder("2/2", 2)])
    assert summary.rate == pytest.approx(8)
    assert summary.seconds_left == pytest.approx((len(two) - 2) / 2 * 60)
    assert summarize([*records, end(70, "r1")], [holder("2/2", 2)]).rate == pytest.approx(2)


def test_without_two_moments_there_is_no_rate() -> None:
    for records in ([start()], [start(), tile("a")], [start(), tile("a", seconds=-5)], [tile("a", run="old")]):
        summary = summarize(records, [holder()])
        assert summary.rate is None
    assert summarize([start("ab"), tile("a")], [holder()]).seconds_left is None
    nothing: list[Record] = []
    assert summarize(nothing).seconds_left is None


def test_a_run_that_makes_all_tiles_again_has_them_before_it() -> None:
    records = [start("ab"), tile("a"), tile("b"), end(5), start("ab", "r2", 10), tile("a", "skipped", 11, "r2")]
    assert summarize(records, [holder()]).runs[-1].remaining == 0
    records = [start("ab"), tile("a"), tile("b"), end(5), start("ab", "r2", 10, overwrite=True)]
    assert summarize(records, [holder()]).runs[-1].remaining == 2


def test_what_differs_between_runs_is_told() -> None:
    summary = summarize([
        start("ab", settings={"patch_size": 512, "same": [1]}, options="x"), tile("a", options="x"), end(1),
        start("ab", "r2", 2, settings={"patch_size": 1024, "same": [1], "new": None}, options="y"),
        tile("b", options="y", run="r2"), end(3, "r2"),
        start("c", "r3", 4, settings={"patch_size": 1024, "same": [1], "new": 0.5}, options="z"),
    ])  # fmt: skip
    assert {d.setting: dict(d.values) for d in summary.differences} == {
        "patch_size": {"512": ("r1",), "1024": ("r2", "r3")},
        "new": {"null": ("r1", "r2"), "0.5": ("r3",)},
    }
    assert summary.done_by_options == {"x": 1, "y": 1}


def test_bytes_and_seconds_are_summed_over_all_attempts() -> None:
    files = {"x.tif": (10, "f"), "y.tif": (5, "f")}
    summary = summarize([
        tile("a", files=files, bytes_loaded=100, seconds={"Segmenting": 3.0, "Exporting": 1.0}),
        failing("b", "E: 1", bytes_loaded=50, seconds={"Segmenting": 5.0, "Odd": float("nan")}),
        tile("a", "skipped", files=files),
    ])  # fmt: skip
    assert (summary.bytes_loaded, summary.bytes_written) == (150, 15)
    assert summary.seconds_by_step == {"Segmenting": 8.0, "Exporting": 1.0}


STATES = st.sampled_from(["success", "failed", "skipped"])
RUNS = st.sampled_from(["r1", "r2", "elsewhere"])


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), STATES, RUNS, st.booleans()), max_size=25),
    st.sets(st.sampled_from("abcxyz")),
    st.booleans(),
)
def test_whatever_the_records_tell_every_tile_is_counted_once(
    told: list[tuple[str, str, str, bool]], listed: set[str], ended: bool
) -> None:
    records: list[Record] = [start(sorted(listed)), start("a", "r2", 1)]  # type: ignore[arg-type]
    records += [
        tile(name, status, n, run, again=again and status == "failed")
        for n, (name, status, run, again) in enumerate(told, 2)
    ]
    records += [end(99)] if ended else []
    summary = summarize(records, [holder()])
    everything = listed | {"a"} | {name for name, *_ in told}
    last = {name: status for name, status, *_ in told}
    assert summary.tiles == len(everything) == summary.done + summary.left
    assert set(summary.left_tiles) == {name for name in everything if last.get(name, "failed") == "failed"}
    assert sum(len(failure.tiles) for failure in summary.failures) == summary.failed <= summary.left
    assert summary.seconds_left is None or summary.seconds_left >= 0
    json.dumps(summary.done_by_options, allow_nan=False)


# ---- the command -----------------------------------------------------------------------------------------------------

Darts = Callable[..., tuple[int, str, str]]


@pytest.fixture
def darts(capsys: pytest.CaptureFixture[str]) -> Darts:
    def run(*tokens: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command_line([str(token) for token in tokens])
        return code, *capsys.readouterr()

    return run


def write(folder: Path, *records: Record, shard: Shard | None = None) -> None:
    for record in records:
        Ledger(folder, shard).append(record)


def test_the_command_tells_all_of_it(tmp_path: Path, darts: Darts) -> None:
    write(
        tmp_path,
        start("abcd", settings={"patch_size": 512}, versions={"darts": "1.2"}),
        tile("a", seconds=60, bytes_loaded=2500000),
        failing("b", "StoreError: [full] 😀\n\x1b[31mred", seconds=120), end(130, reason="interrupted"),
        start("abcd", "r2", 200, settings={"patch_size": 256}), tile("a", "skipped", 201, "r2"),
        tile("c", "success", 261, "r2"),
    )  # fmt: skip
    code, out, err = darts("status", tmp_path)
    assert (code, err) == (0, "")
    for words in (
        "done            2   50.0 %", "left            2   1 failed, 1 not tried", "skipped         1",
        "rate            1   tiles a minute in the last run; the rest would take about 2 min", "2.5 MB loaded",
        "1  StoreError, such as b: [full] 😀 \\x1b[31mred",
        "r1  interrupted: 1 done, 1 failed, 0 skipped, 2 not reached; options 0p, darts 1.2",
        "r2  killed: 1 done, 0 failed, 1 skipped, 2 not reached", "patch_size: 512 in r1; 256 in r2",
    ):  # fmt: skip
        assert words in out, out


def test_json_is_one_object(tmp_path: Path, darts: Darts) -> None:
    write(tmp_path, start("ab"), failing("b\udce4", "E: \udce4", seconds=60))
    code, out, _ = darts("status", tmp_path, "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["tiles"], told["done"], told["failed"], told["left"]) == (3, 0, 1, 3)
    assert told["failures"][0]["error"] == "E: \udce4"
    assert told["runs"][0]["state"] == "killed"
    assert darts("status", tmp_path)[0] == 0


HOLDING = """
import os, socket, sys
from pathlib import Path
from darts.records.ledger import Ledger, RunStart
from darts.records.run_lock import hold_output
from darts.records.sharding import Shard
folder, shard = Path(sys.argv[1]), Shard(1, 2)
with hold_output(folder, shard):
    print("holds", flush=True)
    sys.stdin.readline()
    Ledger(folder, shard).append(RunStart(
        run="r", started="2026-07-01T12:00:00+00:00", tiles=("a", "b", "c"), shard="1/2", host=socket.gethostname(),
        pid=os.getpid()))
    print("started", flush=True)
    sys.stdin.read()
"""


def test_a_run_is_seen_from_its_first_moment_to_its_death(tmp_path: Path, darts: Darts) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDING, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "holds\n"
        assert f"process {child.pid}" in darts("status", tmp_path)[1]
        assert "starting" in darts("status", tmp_path)[1]
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "started\n"
        _, out, _ = darts("status", tmp_path)
        assert "starting" not in out
        assert f"process {child.pid}" in out
        assert "0 of" in out
        assert "shards   2/2 never started" in out
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    _, out, _ = darts("status", tmp_path)
    assert "at work now\n  nothing" in out
    assert "r  killed, shard 1/2: 0 done" in out


def test_many_runs_are_counted_and_not_all_named(tmp_path: Path, darts: Darts) -> None:
    write(tmp_path, *(start("a", f"r{n}", n) for n in range(50)))
    _, out, _ = darts("status", tmp_path)
    assert "30 earlier runs" in out
    assert len(json.loads(darts("status", tmp_path, "--json")[1])["runs"]) == 50


def test_an_empty_or_foreign_ledger_is_a_folder_without_tiles(tmp_path: Path, darts: Darts) -> None:
    Ledger(tmp_path).path.write_bytes(b"\x00\x00{torn")
    code, out, _ = darts("status", tmp_path)
    assert code == 0
    assert "tiles           0" in out


@pytest.mark.parametrize("command", ["status", "verify"])
def test_what_is_no_output_folder_is_one_error(tmp_path: Path, darts: Darts, command: str) -> None:
    (tmp_path / "file").touch()
    for path, words in ((tmp_path, "holds no ledger"), (tmp_path / "no", "not a folder"), (tmp_path / "file", "not a")):
        code, out, err = darts(command, path)
        assert (code, out) == (2, "")
        assert err.count("error:") == 1
        assert words in " ".join(err.split())
        assert path.name in "".join(err.split())


def test_status_loads_no_torch_and_no_geodata(tmp_path: Path) -> None:
    write(tmp_path, start(), tile("a"))
    script = (
        "import sys\nfrom pathlib import Path\nfrom darts.commands.status import status\n"
        f"status(Path({str(tmp_path)!r}))\n"
        "print([name for name in ('torch', 'geopandas', 'rasterio', 'xarray', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_looking_while_a_run_is_at_work_does_not_disturb_it(tmp_path: Path, darts: Darts) -> None:
    with hold_output(tmp_path):
        write(tmp_path, start(host="", pid=0))
        before = sorted(path.name for path in tmp_path.iterdir())
        for _ in range(3):
            darts("status", tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
