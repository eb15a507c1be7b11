"""The live display on a terminal, and what it shows of the machine."""

import io
import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.logging import RichHandler

from darts.display.live_display import LiveReporter, live_display
from darts.display.logs import configure_logging, logger
from darts.display.machine_use import GpuUse, MachineUse, process_tree_use, read_gpus
from darts.display.progress import reporting
from darts.records.events import Fill

from .display_samples import HOSTILE, Clock, failed, outcome

pytestmark = pytest.mark.usefixtures("fresh_log")

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
