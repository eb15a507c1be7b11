import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from darts.ledger import LEDGER_NAME, Ledger, Outcome


def outcome(tile_id: str, status: str = "success", **more: str) -> Outcome:
    return Outcome(tile_id=tile_id, output_path=f"out/{tile_id}", status=status, **more)


def test_outcomes_come_back_as_written(tmp_path: Path) -> None:
    written = [outcome("a", options="x", seconds={"Segmenting": 1.5}), outcome("b", "failed", error="ä → b\nc")]
    for entry in written:
        Ledger(tmp_path).append(entry)
    assert list(Ledger(tmp_path).outcomes()) == written


def test_a_folder_without_ledger_has_no_outcomes(tmp_path: Path) -> None:
    assert list(Ledger(tmp_path).outcomes()) == []


def test_a_torn_last_line_is_passed_over_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(outcome("a"))
    ledger.append(outcome("b"))
    whole = ledger.path.read_bytes()
    for cut in range(len(whole) // 2 + 1, len(whole)):
        ledger.path.write_bytes(whole[:cut])
        ledger.append(outcome("c"))
        ids = [entry.tile_id for entry in ledger.outcomes()]
        assert ids[0] == "a"
        assert ids[-1] == "c"
        assert set(ids) <= {"a", "b", "c"}


def test_last_options_are_those_of_the_last_success(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for entry in (outcome("a", options="1"), outcome("a", options="2"), outcome("a", "failed", options="3")):
        ledger.append(entry)
    assert ledger.last_options() == {"a": "2"}


def test_a_kill_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from darts.ledger import Ledger, Outcome\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for n in range(10**6):\n"
        "    ledger.append(Outcome(tile_id=str(n), output_path='', status='success'))\n"
        "    print(n, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    while not (tmp_path / LEDGER_NAME).exists():
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(writer.pid, signal.SIGKILL)
    told = writer.communicate()[0].split()
    ids = [entry.tile_id for entry in Ledger(tmp_path).outcomes()]
    assert len(told) > 0
    assert ids[: len(told)] == told
