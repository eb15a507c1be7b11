import json
import os
import signal
import string
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darts.records.ledger import (
    LEDGER_NAME,
    Ledger,
    Outcome,
    Record,
    RunEnd,
    RunStart,
    last_outcomes,
    ledger_files,
    made,
    read_ledgers,
    require_ledgers,
)
from darts.records.sharding import Shard
from darts_utils.errors import ConfigError, StoreError

START = RunStart(
    run="r", started="2026-07-01T12:00:00+00:00", command=("run", "planet"), tiles=("a", "b"), shard="1/2", options="x",
    settings={"patch_size": 512, "model_weights": {"m": 0.5}, "more_thresholds": [0.4]}, versions={"darts": "1"},
    overwrite=True, workers=("cuda:0",), host="h", pid=7,
)  # fmt: skip
DONE = Outcome(
    tile_id="a", output_path="out/a", status="success", run="r", finished="2026-07-01T12:01:00+00:00",
    models={"m": "1f"}, seconds={"Segmenting": 1.5}, corners=((1.0, 2.5), (3.0, 4.0)), bytes_loaded=5,
    files={"x.tif": (7, "ab")},
)  # fmt: skip
END = RunEnd(run="r", finished="2026-07-01T12:02:00+00:00", reason="interrupted")


def outcome(tile_id: str, status: Any = "success", **more: Any) -> Outcome:
    return Outcome(tile_id=tile_id, output_path=f"out/{tile_id}", status=status, **more)


def ids(ledger: Ledger) -> list[str]:
    return [record.tile_id for record in ledger.records() if isinstance(record, Outcome)]


def test_records_come_back_as_written(tmp_path: Path) -> None:
    written: list[Record] = [START, DONE, outcome("b", "failed", error="ä → b\nc\r\u2028", cause="E", again=True), END]
    for record in written:
        Ledger(tmp_path).append(record)
    assert list(Ledger(tmp_path).records()) == read_ledgers(tmp_path) == written
    # Every field was told: one that is not read back would be seen above.
    assert all(getattr(START, f.name) != f.default for f in fields(START) if isinstance(f.default, str | int | tuple))


@given(text=st.text(st.characters(exclude_categories=())))
def test_any_text_comes_back_lone_surrogates_too(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    # The two halves of one sign, told apart, are that sign once they were written.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    folder = tmp_path_factory.mktemp("out")
    record = outcome(text, "failed", error=text, seconds={text: 1.0}, files={text: (1, text)})
    Ledger(folder).append(record)
    assert list(Ledger(folder).records()) == [record]


def test_a_file_name_that_is_no_utf_8_can_be_recorded(tmp_path: Path) -> None:
    name = os.fsdecode(b"tile-\xe4")
    Ledger(tmp_path).append(outcome(name, "failed", error=f"MissingDataError: {name}"))
    assert ids(Ledger(tmp_path)) == [name]
    (tmp_path / LEDGER_NAME).read_bytes().decode("ascii")


def test_settings_of_any_kind_can_be_recorded(tmp_path: Path) -> None:
    Ledger(tmp_path).append(RunStart(run="r", started="", settings={"path": Path("/a"), "nan": float("nan")}))
    (record,) = Ledger(tmp_path).records()
    assert isinstance(record, RunStart)
    assert record.settings["path"] == "/a"


def test_a_folder_without_ledger_has_no_records(tmp_path: Path) -> None:
    assert list(Ledger(tmp_path).records()) == read_ledgers(tmp_path) == []


def test_a_record_torn_at_any_byte_is_passed_over_and_spoils_no_other(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    written: list[Record] = [outcome("a"), START, DONE, END]
    ends = [0]
    for record in written:
        ledger.append(record)
        ends.append(ledger.path.stat().st_size)
    content = ledger.path.read_bytes()
    for cut in range(len(content) + 1):
        ledger.path.write_bytes(content[:cut])
        # A record is whole without its line break, too.
        whole = [record for record, end in zip(written, ends[1:], strict=True) if end - 1 <= cut]
        assert list(ledger.records()) == whole, cut
        if cut % 101 == 0 or cut in ends:  # a disk takes its time
            ledger.append(outcome("later"))
            assert list(ledger.records()) == [*whole, outcome("later")], cut


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_foreign_bytes_between_records_are_passed_over(
    tmp_path_factory: pytest.TempPathFactory, junk: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("out")
    ledger = Ledger(folder)
    ledger.append(outcome("a"))
    line = ledger.path.read_bytes()
    ledger.path.write_bytes(line + b"".join(piece + b"\n" + line for piece in junk))
    assert ids(ledger) == ["a"] * (len(junk) + 1)


@pytest.mark.parametrize(
    "line",
    [
        "", "null", "5", '"tile"', "[]", "{}", '{"kind": "tile"}', '{"kind": "later", "tile_id": "x"}',
        '{"kind": ["tile"]}', '{"kind": null, "tile_id": "x", "output_path": "", "status": "success"}',
        '{"tile_id": 5, "output_path": "", "status": "success"}',
        '{"tile_id": ["x"], "output_path": "", "status": "success"}',
        '{"tile_id": "x", "output_path": "", "status": "success", "finished": 5}',
        '{"tile_id": "x", "output_path": "", "status": "success", "files": {"a": 5}}',
        '{"tile_id": "x", "output_path": "", "status": "success", "files": ["a"]}',
        '{"tile_id": "x", "output_path": "", "status": "success", "corners": [[1, 2, 3]]}',
        '{"tile_id": "x", "output_path": "", "status": "success", "seconds": {"a": null}}',
        '{"kind": "run", "run": "r", "started": "", "tiles": "ab", "settings": []}',
        "[" * 100_000, "9" * 5000, "\x00" * 100, "\ufeff{}",
    ],
)  # fmt: skip
def test_lines_that_are_no_records_are_passed_over(tmp_path: Path, line: str) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(outcome("a"))
    with ledger.path.open("a") as file:
        file.write(line + "\n")
    ledger.append(outcome("b"))
    assert list(ledger.records()) == [outcome("a"), outcome("b")]
    assert set(last_outcomes(read_ledgers(tmp_path))) == {"a", "b"}


def test_what_a_later_version_tells_besides_does_not_hide_a_record(tmp_path: Path) -> None:
    line = {"kind": "tile", "tile_id": "a", "output_path": "out/a", "status": "success", "colour": "blue"}
    Ledger(tmp_path).path.write_text(json.dumps(line))
    assert list(Ledger(tmp_path).records()) == [outcome("a")]


def test_ledgers_of_earlier_versions_are_read(tmp_path: Path) -> None:
    Ledger(tmp_path).path.write_text(
        '{"tile_id": "a", "output_path": "out/a", "status": "failed", "error": "StoreError: full", "run": "r", '
        '"finished": "2026-01-01T00:00:00+00:00", "options": "12", "version": "0.1", "seconds": {"Segmenting": 1.5}}\n'
    )
    (record,) = Ledger(tmp_path).records()
    assert record == outcome(
        "a", "failed", error="StoreError: full", run="r", finished="2026-01-01T00:00:00+00:00", options="12",
        version="0.1", seconds={"Segmenting": 1.5},
    )  # fmt: skip


def test_shards_have_ledgers_of_their_own_that_are_read_together_in_time(tmp_path: Path) -> None:
    one, two, whole = Ledger(tmp_path, Shard(1, 2)), Ledger(tmp_path, Shard(2, 2)), Ledger(tmp_path)
    assert len({one.path, two.path, whole.path}) == 3
    one.append(outcome("a", finished="2026-01-01T00:00:01+00:00"))
    two.append(outcome("b", finished="2026-01-01T00:00:02+00:00"))
    one.append(outcome("c", finished="2026-01-01T00:00:03+00:00"))
    whole.append(outcome("d", finished="2026-01-01T00:00:00+00:00"))
    (tmp_path / "darts-ledger copy.jsonl").write_bytes(one.path.read_bytes())
    assert ledger_files(tmp_path) == sorted([one.path, two.path, whole.path])
    assert [record.tile_id for record in read_ledgers(tmp_path) if isinstance(record, Outcome)] == list("dabc")


def test_a_clock_that_was_set_back_does_not_turn_records_of_one_ledger_round(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(outcome("a", "failed", finished="2026-01-01T00:00:09+00:00"))
    ledger.append(outcome("a", finished="2026-01-01T00:00:03+00:00"))
    Ledger(tmp_path, Shard(1, 2)).append(outcome("b", finished="2026-01-01T00:00:05+00:00"))
    assert last_outcomes(read_ledgers(tmp_path))["a"].status == "success"


def test_last_outcomes_leave_out_skips_that_say_nothing_new_and_made_wants_files() -> None:
    first, second = outcome("a", files={"x": (1, "f")}), outcome("a", "failed")
    found = outcome("c", "skipped", files={"x": (1, "f")})  # complete, whatever was told of it before
    records: list[Record] = [START, first, second, outcome("a", "skipped"), outcome("b", "skipped"), END]
    assert last_outcomes(records) == {"a": second}
    assert last_outcomes([outcome("c", "failed"), found]) == {"c": found}
    assert made(records) == {"a": first}
    assert first.bytes_written == 1


WRITER = """
import sys
from pathlib import Path
from darts.records.ledger import Ledger, Outcome
ledger = Ledger(Path(sys.argv[1]))
for n in range(10**6):
    ledger.append(Outcome(tile_id=str(n), output_path="", status="success", error="x" * (n % 5000)))
    print(n, flush=True)
"""


def test_a_kill_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    for lines in (1, 2, 25):
        folder = tmp_path / str(lines)
        folder.mkdir()
        writer = subprocess.Popen([sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(lines)]
        os.kill(writer.pid, signal.SIGKILL)
        told = "".join([*told, writer.communicate()[0]]).split()
        ledger = Ledger(folder)
        assert len(told) >= lines
        assert ids(ledger)[: len(told)] == told
        ledger.append(outcome("next"))
        assert ids(ledger)[-1] == "next"


FILLER = """
import sys
from pathlib import Path
from darts.records.ledger import Ledger, Outcome
folder = Path(sys.argv[1])
ledger = Ledger(folder)
told = 0
try:
    for n in range(1000):
        ledger.append(Outcome(tile_id=str(n), output_path="", status="failed", error="x" * 3000))
        told += 1
except Exception as error:
    print(type(error).__name__, error)
whole = [record.tile_id for record in ledger.records()]
assert whole == [str(n) for n in range(told)], (whole, told)
assert 0 < told < 1000
with ledger.path.open("r+b") as file:  # as if somebody had made room
    file.truncate(ledger.path.stat().st_size - 5000)
left = [record.tile_id for record in ledger.records()]
ledger.append(Outcome(tile_id="after", output_path="", status="success"))
assert [record.tile_id for record in ledger.records()] == [*left, "after"]
print("went on")
"""


def test_on_a_full_disk_there_is_one_error_and_what_was_written_stays(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=64k tmpfs '{tmp_path}' && exec \"$@\""
    # In a mount namespace of its own, so that nothing stays mounted.
    command = ["unshare", "-m", "bash", "-c", mount, "-"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    done = subprocess.run(
        [*command, sys.executable, "-c", FILLER, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    error, end = done.stdout.splitlines()
    assert error.startswith(f"StoreError cannot write the ledger {tmp_path}/{LEDGER_NAME}: No space left")
    assert end == "went on"


def test_a_ledger_that_cannot_be_written_or_read_is_one_error(tmp_path: Path) -> None:
    Ledger(tmp_path).path.mkdir()
    with pytest.raises(StoreError, match=f"cannot write the ledger {tmp_path}"):
        Ledger(tmp_path).append(END)
    with pytest.raises(StoreError, match=f"cannot read the ledger {tmp_path}"):
        read_ledgers(tmp_path)


def test_a_folder_that_no_run_wrote_into_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no ledger"):
        require_ledgers(tmp_path)
    with pytest.raises(ConfigError, match="not a folder"):
        require_ledgers(tmp_path / string.ascii_letters)
    Ledger(tmp_path, Shard(2, 3)).append(END)
    require_ledgers(tmp_path)
