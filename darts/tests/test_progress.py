import io
import json
import logging
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.logging import RichHandler

from darts.cli import run_command_line
from darts.display.console import ALIKE, Failure, grouped, print_summary
from darts.display.course import RATE_OVER_S, RATE_OVER_TILES, Course
from darts.display.line_display import FILL_EVERY_S, LineReporter
from darts.display.live_display import LiveReporter, live_display
from darts.display.logs import configure_logging, json_line, log_flags, log_to_file, logger, logs_json
from darts.display.machine_use import GpuUse, MachineUse, process_tree_use, read_gpus
from darts.display.progress import reporting
from darts.records.events import Fill
from darts.records.ledger import Outcome
from darts_acquisition.search_dates import search_intervals
from darts_utils.errors import StoreError

HOSTILE = "[bold red]a[/bold red] [link=x]\x1b[2J\n{b} %s <i> \udc80"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def fresh_log() -> Iterator[None]:
    yield
    configure_logging("after", plain=True)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


def outcome(tile_id: str = "a", status: str = "success", **fields: Any) -> Outcome:
    return Outcome(tile_id=tile_id, output_path=f"out/{tile_id}", status=status, **fields)  # type: ignore[arg-type]


def failed(tile_id: str = "a", error: str = "MissingDataError: no DEM", **fields: Any) -> Outcome:
    return outcome(tile_id, "failed", error=error, cause=error.partition(":")[0], **fields)


def json_lines(captured: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in captured.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    return lines


# ---- rate and time left ----


def test_before_the_first_tile_nothing_is_said_of_rate_and_time(clock: Clock) -> None:
    course = Course(10, clock)
    course.begin_work()
    clock.now += 100
    assert (course.per_second(), course.seconds_left(), course.rate_text(), course.left_text()) == (None, None, "", "")


def test_the_rate_is_that_of_ends_however_long_each_tile_took(clock: Clock) -> None:
    course = Course(100, clock)
    course.begin_work()
    for _ in range(10):
        clock.now += 6
        course.count(outcome(seconds={"Segmenting": 60.0}))  # ten at once
    assert course.per_second() == pytest.approx(1 / 6)
    assert course.seconds_left() == pytest.approx(90 * 6)
    assert (course.rate_text(), course.left_text()) == ("10.0 tiles/min", "about 9 min left")


def test_skips_neither_speed_up_the_rate_nor_slow_it_down(clock: Clock) -> None:
    course = Course(1000, clock)
    for _ in range(500):
        clock.now += 1
        course.count(outcome(status="skipped"))
    assert course.left_text() == ""
    course.begin_work()
    for _ in range(4):
        clock.now += 5
        course.count(outcome())
    assert course.per_second() == pytest.approx(1 / 5)
    assert course.left == 496


def test_the_rate_stays_between_two_ends_and_falls_once_the_next_is_overdue(clock: Clock) -> None:
    course = Course(10, clock)
    course.begin_work()
    for _ in range(4):
        clock.now += 60
        course.count(outcome())
    rates, left = [], []
    for _ in range(6):
        rates.append(course.per_second())
        left.append(course.seconds_left())
        clock.now += 30
    assert rates[:3] == pytest.approx([1 / 60] * 3)
    assert rates[3] > rates[4] > rates[5]
    assert left[:3] == pytest.approx([360, 330, 300]), "it counts down while one waits"


def test_the_rate_follows_what_tiles_take_now(clock: Clock) -> None:
    course = Course(10_000, clock)
    course.begin_work()
    for wait, number in ((1, 1000), (30, int(RATE_OVER_S / 30) + RATE_OVER_TILES)):
        for _ in range(number):
            clock.now += wait
            course.count(outcome())
    assert course.per_second() == pytest.approx(1 / 30, rel=0.1)


def test_failures_count_as_work_and_attempts_that_are_made_again_as_nothing(clock: Clock) -> None:
    course = Course(3, clock)
    course.begin_work()
    clock.now += 10
    course.count(failed(again=True))
    assert course.ended == 0
    course.count(failed())
    assert (course.failed, course.left, course.per_second()) == (1, 2, pytest.approx(0.1))


@given(st.lists(st.tuples(st.sampled_from(["success", "failed", "skipped"]), st.floats(0, 1e4)), max_size=60))
def test_whatever_happens_the_numbers_make_sense(events: list[tuple[str, float]]) -> None:
    clock = Clock()
    course = Course(len(events), clock)
    for status, wait in events:
        clock.now += wait
        course.count(outcome(status=status))
        rate, left = course.per_second(), course.seconds_left()
        assert rate is None or rate > 0
        assert left is None or left >= 0
        assert course.ended + course.left == len(events)
    assert course.left_text() == ""


# ---- lines ----


def plain_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what plain log lines say, without their times."""
    return [line.split(" ", 2)[2] for line in capsys.readouterr().err.splitlines()]


def test_plain_lines_tell_of_each_tile(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    configure_logging("run", plain=True)
    reporter = LineReporter(4, clock)
    reporter.finished(outcome("s", "skipped"))
    reporter.step("a", "Segmenting", "cpu")
    clock.now += 12
    reporter.finished(failed("a", attempt=1, again=True, worker="cpu"))
    clock.now += 18
    reporter.finished(outcome("a", attempt=2, seconds={"Segmenting": 10.0, "Exporting": 2.5}, worker="cpu"))
    clock.now += 30
    reporter.finished(failed("b", worker="cuda:0"))
    reporter.finished(outcome("c", worker="cuda:0", seconds={}))
    assert plain_lines(capsys) == [
        "INFO tile 1 of 4, s: skipped, already complete",
        "WARNING a: attempt 1 failed and is made again: MissingDataError: no DEM",
        "INFO tile 2 of 4, 2.0 tiles/min, about 60 s left, a: done in 12.5 s",
        "ERROR tile 3 of 4, 2.0 tiles/min, about 30 s left, b: failed on cuda:0: MissingDataError: no DEM",
        "INFO tile 4 of 4, 3.0 tiles/min, c: done in 0.0 s on cuda:0",
    ]


def test_steps_show_as_debug_messages_only(capsys: pytest.CaptureFixture[str]) -> None:
    for verbosity, lines in ((0, 0), (1, 1)):
        configure_logging("run", plain=True, verbosity=verbosity)
        LineReporter(1).step("a", "Segmenting", "cpu")
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_without_a_terminal_reporting_gives_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("run", plain=True)
    with reporting(1) as reporter:
        reporter.finished(outcome("a"))
    assert len(plain_lines(capsys)) == 1


# ---- JSON ----


def test_every_event_is_a_json_object_with_its_fields(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    configure_logging("run", as_json=True)
    reporter = LineReporter(2, clock)
    reporter.step(HOSTILE, "Segmenting", "cuda:0")
    fill = Fill("cuda:0", 10, None, {"load": 2})
    for wait in (0, FILL_EVERY_S / 2, FILL_EVERY_S):  # the second one comes too soon
        clock.now += wait
        reporter.fill(fill)
    reporter.finished(outcome("b", seconds={"Segmenting": float("nan"), "Exporting": 1.5}))
    reporter.finished(failed("c", "ValueError: 1\n2 \udcff", worker="cuda:0"))
    step, fill_1, fill_2, done, bad = json_lines(capsys.readouterr().err)
    assert (step["event"], step["step"], step["worker"]) == ("step", "Segmenting", "cuda:0")
    assert step["tile_id"] == HOSTILE.replace("\udc80", "\\udc80")
    assert fill_1["tiles"] == fill_2["tiles"] == {"load": 2}
    assert fill_1["bytes_limit"] is None
    assert (done["event"], done["status"], done["ended"], done["total"]) == ("tile", "success", 1, 2)
    assert done["seconds"] == {"Segmenting": None, "Exporting": 1.5}
    assert (bad["level"], bad["cause"], bad["error"]) == ("ERROR", "ValueError", "ValueError: 1\n2 \\udcff")


class Awkward:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


messages = st.one_of(st.text(), st.text(st.characters(categories=["Cs", "Cc", "Zl", "Zp", "Po"])))


@given(
    messages,
    st.lists(st.one_of(st.integers(), st.floats(), messages, st.none(), st.builds(Awkward)), max_size=3),
    st.dictionaries(messages, st.recursive(st.floats() | messages | st.binary(), lambda x: st.lists(x, max_size=2))),
)
def test_any_record_is_one_line_of_strict_json(message: str, args: list[Any], event: dict[str, Any]) -> None:
    record = logging.LogRecord("darts.x", logging.INFO, "file", 1, message, tuple(args), None)
    record.darts_event = event
    line = json_line(record)
    assert line.isascii()
    assert "\n" not in line
    fields = json.loads(line, parse_constant=pytest.fail)
    json.dumps(fields, ensure_ascii=False).encode()  # no half of a pair
    assert fields["logger"] == "darts.x"


SCRIPT = """
    import logging, sys, threading, warnings
    from pathlib import Path
    from darts.display.console import Failure, print_failures, print_summary, say
    from darts.records.ledger import Outcome
    from darts.display.logs import configure_logging, log_to_file
    configure_logging("x", as_json=True, verbosity=int(sys.argv[1]), log_dir=Path(sys.argv[2]))
    logging.getLogger("darts.some").info("two\\nlines \\udc80 %d", "not a number")
    logging.getLogger("some.library").warning("from a library")
    logging.getLogger("rasterio").debug("once, from -vv on")
    warnings.warn("mind this")
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("darts").exception("with a traceback")
    thread = threading.Thread(target=lambda: [][1])
    thread.start()
    thread.join()
    say("[a] message")
    print_failures("Failed scenes", "scene", [Failure("s", "E: [x]")])
    outcomes = [Outcome(tile_id=str(i), output_path="", status="failed", error="E: x", cause="E") for i in range(30)]
    print_summary(outcomes, 1.0, left=2, reason="interrupted")
    raise ValueError("nobody caught it")
"""


@pytest.mark.parametrize("verbosity", [0, 2])
def test_with_log_json_nothing_but_json_comes_on_stderr(tmp_path: Path, verbosity: int) -> None:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(verbosity), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = json_lines(done.stderr)
    told = [line["message"] for line in lines]
    assert told[0] == "two\nlines \\udc80 %d ('not a number',)"
    assert told.count("from a library") == 1
    assert told.count("once, from -vv on") == (verbosity == 2)
    assert any("mind this" in message for message in told)
    assert "ZeroDivisionError" in next(line["traceback"] for line in lines if "with a traceback" in line["message"])
    assert any(message.startswith("IndexError") for message in told)
    assert "[a] message" in told
    assert next(line for line in lines if line.get("event") == "failure")["scene"] == "s"
    summary = next(line for line in lines if line.get("event") == "summary")
    assert (summary["failed"], summary["left"], summary["reason"], summary["causes"]) == (
        30,
        2,
        "interrupted",
        {"E": 30},
    )
    assert told[-1] == "ValueError: nobody caught it"


def test_the_flag_makes_the_commands_own_errors_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "darts", "--log-json", "run", "planet", "--no-such-option", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = json_lines(done.stderr)
    assert line["level"] == "ERROR"
    assert "--no-such-option" in line["message"]


def test_a_command_within_a_command_logs_likewise(tmp_path: Path) -> None:
    configure_logging("demo", as_json=True, verbosity=2, log_dir=tmp_path)
    assert run_command_line([*log_flags(), "--version"]) == 0
    assert logs_json()
    assert log_flags() == ["--log-json", "-v", "-v", "--log-dir", str(tmp_path)]


def test_another_set_up_takes_back_what_json_changed(capsys: pytest.CaptureFixture[str]) -> None:
    hook, thread_hook, handlers = sys.excepthook, threading.excepthook, list(logging.getLogger().handlers)
    configure_logging("x", as_json=True, verbosity=2)
    assert logs_json()
    configure_logging("x", plain=True)
    assert not logs_json()
    assert (sys.excepthook, threading.excepthook, logging.getLogger().handlers) == (hook, thread_hook, handlers)
    logging.getLogger("rasterio").error("x")
    logger.info("y")
    assert "{" not in capsys.readouterr().err


# ---- log files ----


def test_what_the_libraries_of_darts_say_is_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("run", plain=True)
    search_intervals()
    assert " WARNING The search has no limit in time" in capsys.readouterr().err


def test_a_log_file_takes_any_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("run", plain=True)
    log_to_file(tmp_path / "logs" / "x.log")
    logger.debug("a file named %s", HOSTILE)
    assert "a file named" in (tmp_path / "logs" / "x.log").read_text()
    assert "Logging error" not in capsys.readouterr().err


def test_a_log_file_that_cannot_be_written_is_told_once_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("run", as_json=True)
    (tmp_path / "x.log").mkdir()
    log_to_file(tmp_path / "x.log")
    if Path("/dev/full").exists():
        log_to_file(Path("/dev/full"))
    for number in range(3):
        logger.info("line %d", number)
    for handler in list(logger.handlers):
        handler.close()
    told = [line["message"] for line in json_lines(capsys.readouterr().err)]
    assert [message for message in told if message.startswith("line")] == ["line 0", "line 1", "line 2"]
    assert len(told) == 3 + len(logger.handlers) - 1


def test_a_folder_of_logs_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=re.escape(str(tmp_path / "file"))):
        configure_logging("run", log_dir=tmp_path / "file" / "logs")


# ---- the live display ----


def screen(reporter: LiveReporter, width: int = 80, height: int = 24, **settings: Any) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, **settings)
    console.print(reporter, end="")
    text = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())  # type: ignore[attr-defined]
    return text.splitlines()


def test_the_display_shows_counts_rate_steps_fill_and_machine(clock: Clock) -> None:
    use = MachineUse(1.84, 3_200_000_000, 12_000_000_000, (GpuUse(0, 0.87, 40 * 10**9, 150 * 10**9),))
    reporter = LiveReporter(10, machine=lambda: use, clock=clock)
    reporter.step("one", "Loading Optical", "cuda:0")
    reporter.finished(outcome("zero", "skipped"))
    clock.now += 30
    reporter.finished(outcome("one"))
    reporter.step("two", "Segmenting", "cuda:0")
    clock.now += 12
    reporter.step("three", "Loading TCVis", "cuda:0")
    reporter.fill(Fill("cuda:0", 3_000_000_000, 8_000_000_000, {"load": 1, "wait": 0, "compute": 1, "export": 0}))
    bar, counts, two, three, fill, machine = screen(reporter, 120)
    assert bar.endswith("━ 2/10 tiles")
    assert counts == "1 done · 1 skipped · 0 failed · 2.0 tiles/min · about 4 min left"
    assert two.split() == ["12", "s", "Segmenting", "two"]
    assert three.split() == ["0", "s", "Loading", "TCVis", "three"]
    assert fill == "1 loading, 1 computing · 3.0 GB of 8.0 GB held"
    assert re.sub(r"of \d+ cores", "of n cores", machine) == (
        "CPU 1.8 of n cores · memory 3.2 GB, 12.0 GB free · GPU 0 87 %, 40.0 GB of 150.0 GB"
    )


def test_several_workers_have_a_line_each(clock: Clock) -> None:
    reporter = LiveReporter(10, clock=clock)
    for number in range(3):
        reporter.step(f"loads{number}", "Loading Optical", f"cuda:{number}")
        reporter.step(f"computes{number}", "Segmenting", f"cuda:{number}")
        reporter.fill(Fill(f"cuda:{number}", 10**9, None, {"wait": number}))
    lines = screen(reporter, 100)[2:]
    assert [line[:7] for line in lines] == ["cuda:0:", "cuda:1:", "cuda:2:"]
    assert "2 waiting · 1.0 GB held · Segmenting 0 s computes2 · Loading Optical 0 s loads2" in lines[2]
    reporter.fill(Fill("cuda:1", 0, None, {"wait": 0}))
    assert "computes1" not in screen(reporter, 100)[3], "it let go of its tiles"


@pytest.mark.parametrize("workers", [1, 7])
@pytest.mark.parametrize("width", [1, 7, 20, 80, 300])
@pytest.mark.parametrize("height", [1, 3, 8, 30])
def test_the_display_fits_any_screen_whatever_ids_hold(workers: int, width: int, height: int, clock: Clock) -> None:
    gpus = tuple(GpuUse(number, None, 1, 2) for number in range(8))
    reporter = LiveReporter(5, machine=lambda: MachineUse(1.0, 2, 3, gpus), clock=clock)
    for number in range(40):
        reporter.step(f"{number}{HOSTILE}{'長' * 40}", HOSTILE, f"[{number % workers}]\n")
    for number in range(9):  # more than there should be
        reporter.finished(failed(f"x{number}", HOSTILE))
    for encoding in ("utf-8", "ascii"):
        console = Console(
            file=io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace"),
            force_terminal=True, width=width, height=height,
        )  # fmt: skip
        console.print(reporter, end="")
    lines = screen(reporter, width, height)
    assert len(lines) <= max(height - 1, 1)
    assert "\x1b" not in "".join(lines)
    assert all(Console(width=1000).measure(line).maximum <= width for line in lines if line)


def test_hidden_tiles_are_counted(clock: Clock) -> None:
    reporter = LiveReporter(50, clock=clock)
    for number in range(30):
        reporter.step(f"tile{number}", "Segmenting", "cpu")
    lines = screen(reporter, height=10)
    shown = sum("tile" in line and "Segmenting" in line for line in lines)
    assert lines[-1].strip() == f"… and {30 - shown} more tiles in flight"


def test_a_run_of_no_tiles_has_a_display() -> None:
    assert screen(LiveReporter(0))[0].strip() == "0/0 tiles"


def terminal(height: int = 24) -> tuple[Console, io.StringIO]:
    """Let the log go to a recorded terminal."""
    configure_logging("run", plain=True)
    recorded = io.StringIO()
    console = Console(file=recorded, force_terminal=True, width=80, height=height)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    shown = RichHandler(console=console, show_path=False, markup=False, level=logging.INFO)
    logger.addHandler(shown)
    return console, recorded


def test_on_a_terminal_the_display_is_live_and_failures_scroll_above() -> None:
    _, recorded = terminal()
    with reporting(3, workers=("cpu",)) as reporter:
        assert isinstance(reporter, LiveReporter)
        reporter.step("a", "Segmenting", "cpu")
        reporter.finished(outcome("a"))
        reporter.finished(failed("b", "ValueError: [red]x[/red]", again=True))
        reporter.finished(failed("b", "ValueError: [red]x[/red]"))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", recorded.getvalue())
    assert "2/3 tiles" in text
    flat = " ".join(text.split())
    assert "WARNING b: attempt 1 failed and is made again: ValueError: [red]x[/red]" in flat
    assert "ERROR tile 2 of 3" in flat
    assert "INFO" not in text, "what goes well shows in the display alone"


def test_drawing_and_reporting_from_two_threads_neither_locks_nor_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    console, recorded = terminal()
    monkeypatch.setattr("darts.display.live_display.REFRESH_PER_S", 500)
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)

    def work() -> None:
        with live_display(console, 400, ("cpu",)) as reporter:
            for number in range(400):
                reporter.step(str(number), "Segmenting", "cpu")
                reporter.fill(Fill("cpu", number, None, {"compute": 1}))
                reporter.finished(failed(str(number)) if number % 4 else outcome(str(number)))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it waits for itself"
    assert raised == []
    assert recorded.getvalue().count("MissingDataError") == 300


def test_a_machine_that_cannot_be_read_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    console, _ = terminal()

    def broken() -> None:
        raise RuntimeError("no such machine")

    monkeypatch.setattr("darts.display.machine_use.process_tree_use", broken)
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    with live_display(console, 1) as reporter:
        reporter.finished(outcome())
    assert raised == []


# ---- the machine ----


def test_gpus_are_those_that_are_visible_and_work() -> None:
    answer = "0, GPU-aa, 87, 40000, 143771\n1, GPU-bb, [N/A], 10, 143771\n2, GPU-cc, 0, [N/A], 1\nsome error\n"
    first, second = GpuUse(0, 0.87, 40000 * 2**20, 143771 * 2**20), GpuUse(1, None, 10 * 2**20, 143771 * 2**20)
    assert read_gpus(answer, None) == (first, second)
    assert read_gpus(answer, None, ("cuda:1",)) == (second,)
    assert [gpu.bytes_used for gpu in read_gpus(answer, "1,0")] == [second.bytes_used, first.bytes_used]
    assert read_gpus(answer, "GPU-bb", ("cuda:0",)) == (GpuUse(0, None, 10 * 2**20, 143771 * 2**20),)
    assert read_gpus(answer, "") == read_gpus("", None) == ()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc of Linux")
def test_processes_below_count_also_when_they_have_ended() -> None:
    before, _ = process_tree_use()
    burn = "import time\nwhile time.process_time() < 0.3: pass\nb = bytearray(50_000_000)\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        during, memory = process_tree_use()
        alone, own_memory = process_tree_use(child.pid)
        child.communicate(b"\n")
    after, _ = process_tree_use()
    assert 0.25 < alone <= during - before + 0.05  # the system counts in hundredths of a second
    assert after >= during - 0.05
    assert own_memory is not None
    assert memory is not None
    assert 50_000_000 < own_memory < memory


def test_where_there_is_no_proc_the_own_process_counts(tmp_path: Path) -> None:
    seconds, memory = process_tree_use(proc=tmp_path)
    assert seconds == pytest.approx(sum(os.times()[:4]), abs=1)
    assert memory is None


# ---- the summary ----


def summary_of(capsys: pytest.CaptureFixture[str], *args: Any, **kwargs: Any) -> str:
    configure_logging("run", plain=True)
    print_summary(*args, **kwargs)
    return capsys.readouterr().err


def test_the_summary_counts_what_ended_and_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = [outcome("a"), outcome("b", "skipped"), failed("c", again=True)]
    text = summary_of(capsys, outcomes, 12.34, left=3, reason="interrupted")
    assert text == (
        "5 tiles in 12.3 s: 1 done, 1 skipped, 0 failed, 3 left; interrupted; run the same command again to go on\n"
    )
    assert summary_of(capsys, [outcome("a")], 7200) == "1 tile in 2.0 h: 1 done, 0 skipped, 0 failed\n"


def test_the_table_of_failures_shows_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = summary_of(capsys, [failed("[bold]x[/bold]", "E: [/] y")], 1)
    assert "[bold]x[/bold]" in text
    assert "E: [/] y" in text


def test_more_than_twenty_failures_of_one_cause_share_a_row() -> None:
    few = [Failure(f"f{i}", f"Few: {i}", "Few") for i in range(ALIKE)]
    many = [Failure(f"m{i}", f"Many: {i}") for i in range(ALIKE + 1)]
    mixed = [failure for pair in zip(many, few, strict=False) for failure in pair] + many[len(few) :]
    rows = grouped(mixed)
    assert rows[0] == ("21, such as m0, m1, m2", "for example Many: 0")
    assert rows[1:] == [(failure.name, failure.error) for failure in few]
    assert grouped([]) == []


def test_time_is_not_asked_of_a_clock_that_can_be_set_back() -> None:
    assert Course(1)._clock is time.monotonic
