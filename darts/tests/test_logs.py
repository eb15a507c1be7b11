"""Logs: JSON line by line, whatever is logged, and files that may not be written."""

import json
import logging
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darts.cli import run_command_line
from darts.display.line_display import FILL_EVERY_S, LineReporter
from darts.display.logs import configure_logging, json_line, log_flags, log_to_file, logger, logs_json
from darts.records.events import Fill
from darts_acquisition.search_dates import search_intervals
from darts_utils.errors import StoreError

from .display_samples import HOSTILE, Clock, failed, outcome

pytestmark = pytest.mark.usefixtures("fresh_log")


def json_lines(captured: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in captured.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    return lines


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
