import errno
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from darts.records.run_lock import hold_output, holders
from darts.records.sharding import Shard, parse_shard
from darts_utils.errors import ConfigError, StoreError

HOLDER = """
import sys
from pathlib import Path
from darts.records.run_lock import hold_output
from darts.records.sharding import parse_shard
from darts_utils.errors import DartsError
try:
    with hold_output(Path(sys.argv[1]), parse_shard(sys.argv[2]) if sys.argv[2] else None):
        print("holds", flush=True)
        sys.stdin.read()
except DartsError as error:
    print(type(error).__name__, error, flush=True)
"""

Hold = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """Return a function that lets another process hold the folder until its input ends."""
    children = []

    def start(shard: str = "") -> "subprocess.Popen[str]":
        child = subprocess.Popen(
            [sys.executable, "-c", HOLDER, tmp_path, shard], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def said(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    return child.stdout.readline().rstrip()


def shard_of(text: str) -> Shard | None:
    return parse_shard(text) if text else None


@pytest.mark.parametrize(("first", "second"), [("", ""), ("3/16", "3/16"), ("", "3/16"), ("3/16", ""), ("1/2", "2/4")])
def test_two_runs_that_could_want_one_tile_exclude_each_other(
    tmp_path: Path, hold: Hold, first: str, second: str
) -> None:
    child = hold(first)
    assert said(child) == "holds"
    with pytest.raises(ConfigError) as refusal, hold_output(tmp_path, shard_of(second)):
        raise AssertionError("held by two")
    text = str(refusal.value)
    assert f"process {child.pid} on {socket.gethostname()}" in text
    assert (f"with shard {first}," in text) == bool(first)
    assert str(tmp_path) in text
    child.communicate("")
    with hold_output(tmp_path, shard_of(second)):
        pass


def test_the_second_process_hears_who_holds_the_folder(hold: Hold) -> None:
    first = hold("2/3")
    assert said(first) == "holds"
    words = said(hold("2/3"))
    assert words.startswith("ConfigError")
    assert f"process {first.pid} on {socket.gethostname()} with shard 2/3" in words


def test_different_shards_of_one_division_share_the_folder(tmp_path: Path, hold: Hold) -> None:
    children = [hold(f"{number}/3") for number in (1, 2, 3)]
    assert [said(child) for child in children] == ["holds"] * 3
    assert sorted((holder.pid, holder.shard) for holder in holders(tmp_path)) == sorted(
        (child.pid, f"{number}/3") for number, child in enumerate(children, 1)
    )
    children[1].communicate("")
    assert {holder.shard for holder in holders(tmp_path)} == {"1/3", "3/3"}


@pytest.mark.parametrize("shard", ["", "1/2"])
def test_a_holder_that_is_killed_lets_go(tmp_path: Path, hold: Hold, shard: str) -> None:
    child = hold(shard)
    assert said(child) == "holds"
    assert len(holders(tmp_path)) == 1
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert holders(tmp_path) == []
    with hold_output(tmp_path, shard_of(shard)):
        assert [holder.pid for holder in holders(tmp_path)] == [os.getpid()]
    assert holders(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == [".darts-run.gate"]


IN_TURN = """
import os, sys
from pathlib import Path
from darts.records.run_lock import hold_output
from darts.records.sharding import Shard
from darts_utils.errors import ConfigError
folder, shard = Path(sys.argv[1]), Shard(1, 2) if sys.argv[2] else None
print("ready", flush=True)
sys.stdin.readline()
held = 0
while held < 100:
    try:
        with hold_output(folder, shard):
            os.close(os.open(folder / "alone", os.O_CREAT | os.O_EXCL))
            held += 1
            os.unlink(folder / "alone")
    except ConfigError:
        pass
"""


def test_two_never_hold_the_folder_at_once(tmp_path: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", IN_TURN, tmp_path, shard],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for shard in ("", "1/2", "", "1/2")
    ]  # fmt: skip
    assert [said(child) for child in children] == ["ready"] * 4
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        assert child.communicate()[1] == ""
        assert child.returncode == 0


def test_of_many_that_start_at_once_one_wins(hold: Hold) -> None:
    words = [said(child) for child in [hold() for _ in range(6)]]
    assert words.count("holds") == 1
    assert sum(word.startswith("ConfigError") for word in words) == 5


def test_a_run_in_the_same_process_is_noticed_too(tmp_path: Path) -> None:
    with hold_output(tmp_path), pytest.raises(ConfigError, match=str(os.getpid())), hold_output(tmp_path):
        raise AssertionError("held twice")


def test_an_error_inside_lets_go_and_comes_through(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="inside"), hold_output(tmp_path):
        raise OSError("inside")
    assert holders(tmp_path) == []


def test_looking_disturbs_neither_holders_nor_others_that_look(tmp_path: Path) -> None:
    stale = tmp_path / ".darts-run.lock"
    stale.write_text(json.dumps({"host": "dead", "pid": 1, "since": "long ago", "shard": ""}))
    with stale.open() as looking:  # somebody looks at this very moment
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert holders(tmp_path) == []
    with hold_output(tmp_path):
        assert len(holders(tmp_path)) == len(holders(tmp_path)) == 1


def test_a_lock_that_is_just_being_written_is_held(tmp_path: Path) -> None:
    with (tmp_path / ".darts-run.lock").open("w") as half:
        fcntl.flock(half, fcntl.LOCK_EX)
        assert [holder.pid for holder in holders(tmp_path)] == [0]
        with pytest.raises(ConfigError, match="an unknown host"), hold_output(tmp_path):
            raise AssertionError("held by two")


def test_files_of_others_are_no_locks(tmp_path: Path) -> None:
    for name in (".darts-run-shard0of0.lock", ".darts-run-shard9of3.lock", ".darts-run-x.lock", ".darts-run.lock.bak"):
        (tmp_path / name).touch()
    with hold_output(tmp_path):
        assert len(holders(tmp_path)) == 1


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_the_file_system_has_no_locks_there_is_a_warning_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(logging.getLogger("darts"), "propagate", True)  # other tests may have set the log up
    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".darts-run.lock").write_text("{}")  # written on another machine
    with hold_output(tmp_path, Shard(1, 2)):
        assert holders(tmp_path) == []
    assert not [file for file in Path("/proc/self/fd").iterdir() if file.resolve().is_relative_to(tmp_path)]
    assert f"{tmp_path} has no locks" in caplog.text
    assert "same shard" in caplog.text


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write the output folder"), hold_output(tmp_path / "nowhere"):
        raise AssertionError("held nothing")
    assert holders(tmp_path / "nowhere") == []
