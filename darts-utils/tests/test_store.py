import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from darts_utils.errors import StoreError
from darts_utils.store import held, remove_leftovers, replacing


def write_folder(path: Path, content: str) -> None:
    (path / "sub").mkdir(parents=True)
    (path / "a.txt").write_text(content)
    (path / "sub" / "b.txt").write_text(content)


def write_and_stop(target, write, error) -> None:
    with replacing(target) as temporary:
        write(temporary, "new")
        raise error("stop")


def read_folder(path: Path) -> set[str]:
    return {(path / name).read_text() for name in ("a.txt", "sub/b.txt")}


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_appears_under_its_name_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert temporary.parent == target.parent, "a rename works only within one file system"
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(target.parent) == ["a.txt"]


def test_a_folder_appears_whole_when_the_block_ends(tmp_path):
    with replacing(tmp_path / "tile") as temporary:
        write_folder(temporary, "new")
        assert not (tmp_path / "tile").exists()
    assert read_folder(tmp_path / "tile") == {"new"}
    assert names(tmp_path) == ["tile"]


def test_the_temporary_name_is_the_one_of_the_contract(tmp_path):
    with replacing(tmp_path / "tile.zarr") as temporary:
        assert temporary.name.startswith(".tile.zarr.")
        assert temporary.suffix == ".tmp"
        temporary.mkdir()


def test_an_old_file_is_replaced(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_nothing_of_an_old_folder_stays(tmp_path):
    write_folder(tmp_path / "tile", "old")
    (tmp_path / "tile" / "only-old.txt").write_text("old")
    with replacing(tmp_path / "tile") as temporary:
        write_folder(temporary, "new")
        assert read_folder(tmp_path / "tile") == {"old"}
    assert read_folder(tmp_path / "tile") == {"new"}
    assert not (tmp_path / "tile" / "only-old.txt").exists()
    assert names(tmp_path) == ["tile"]


def test_a_file_can_take_the_place_of_a_folder(tmp_path):
    write_folder(tmp_path / "tile", "old")
    with replacing(tmp_path / "tile") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "tile").read_text() == "new"
    assert names(tmp_path) == ["tile"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_exception_leaves_the_old_folder_and_no_leftover(tmp_path, error):
    write_folder(tmp_path / "tile", "old")
    with pytest.raises(error, match="stop"):
        write_and_stop(tmp_path / "tile", write_folder, error)
    assert read_folder(tmp_path / "tile") == {"old"}
    assert names(tmp_path) == ["tile"]


def test_an_exception_leaves_the_old_file_and_no_leftover(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ValueError, match="stop"):
        write_and_stop(tmp_path / "a.txt", Path.write_text, ValueError)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_block_that_writes_nothing_leaves_the_old_and_says_so(tmp_path):
    write_folder(tmp_path / "tile", "old")
    with pytest.raises(StoreError, match="tile"), replacing(tmp_path / "tile"):
        pass
    assert read_folder(tmp_path / "tile") == {"old"}


def test_a_failing_rename_puts_the_old_folder_back(tmp_path, monkeypatch):
    write_folder(tmp_path / "tile", "old")
    rename = Path.rename

    def write(target):
        with replacing(target) as temporary:
            write_folder(temporary, "new")
            (temporary / "new").touch()

    def fail_on_the_second(self, target):
        if Path(target) == tmp_path / "tile" and (self / "new").exists():
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_second)
    with pytest.raises(OSError, match="Input/output"):
        write(tmp_path / "tile")
    assert read_folder(tmp_path / "tile") == {"old"}
    assert names(tmp_path) == ["tile"]


def test_a_link_to_a_folder_is_replaced_and_its_goal_left_alone(tmp_path):
    write_folder(tmp_path / "elsewhere", "old")
    (tmp_path / "tile").symlink_to(tmp_path / "elsewhere")
    with replacing(tmp_path / "tile") as temporary:
        write_folder(temporary, "new")
    assert read_folder(tmp_path / "tile") == {"new"}
    assert read_folder(tmp_path / "elsewhere") == {"old"}
    assert names(tmp_path) == ["elsewhere", "tile"]


def test_a_target_below_a_file_is_refused_before_the_work_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*file/a\.txt"), replacing(tmp_path / "file" / "a.txt"):
        pytest.fail("the block ran")


def test_a_folder_without_write_permission_is_refused_before_the_work_starts():
    # Root may write anywhere: a child process tries it as nobody, outside of pytest's private folders.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if os.getuid() == 0:
                    os.setuid(65534)
                with replacing(Path(folder) / "a.txt"):
                    code = 2
            except StoreError as error:
                code = 0 if folder in str(error) and "may write" in str(error) else 3
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        Path(folder).chmod(0o755)
        assert os.waitstatus_to_exitcode(status) == 0


KILL_AT_A_STEP = """
    import os, signal, sys
    from pathlib import Path
    from darts_utils.store import replacing

    target, kind, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

    def count(event, args):
        # Every change to the file system is a step; the process dies right before the one it was told.
        global steps
        if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree") or (
            event == "open" and str(target.parent) in str(args[0])
        ):
            if steps == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            steps -= 1

    sys.addaudithook(count)
    with replacing(target) as temporary:
        if kind == "folder":
            (temporary / "sub").mkdir(parents=True)
            (temporary / "a.txt").write_text("new")
            (temporary / "sub" / "b.txt").write_text("new")
        else:
            temporary.write_text("new")
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("old", [True, False], ids=["replaces", "creates"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_and_never_a_mixture(tmp_path, kind, old):
    seen = set()
    for step in range(60):
        folder = tmp_path / str(step)
        folder.mkdir()
        target = folder / "tile"
        if old and kind == "folder":
            write_folder(target, "old")
        elif old:
            target.write_text("old")
        code = _run(KILL_AT_A_STEP, target, kind, step)
        assert code in (0, -signal.SIGKILL)
        if not target.exists():
            seen.add("none")
        elif kind == "folder":
            (content,) = read_folder(target)  # a mixture would not unpack
            seen.add(content)
        else:
            seen.add(target.read_text())
        remove_leftovers(target)
        assert names(folder) == (["tile"] if target.exists() else [])
        if code == 0:
            break
    else:
        pytest.fail("the writer never came to its end")
    # Two renames swap a folder, so a kill between them leaves none; a file is swapped by one.
    allowed = {"new", "old" if old else "none"} | ({"none"} if kind == "folder" else set())
    assert {"new", "old" if old else "none"} <= seen <= allowed


def _run(code: str, *arguments) -> int:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, check=False).returncode


def test_leftovers_go_and_everything_else_stays(tmp_path):
    (tmp_path / ".tile.01234567.tmp").write_text("")
    write_folder(tmp_path / ".tile.89abcdef.tmp", "half")
    others = [".tile.zarr.01234567.tmp", ".tile2.01234567.tmp", ".tile.tmp", "tile.01234567.tmp", ".tile.notours.tmp"]
    for name in [*others, "tile"]:
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path / "tile")
    assert names(tmp_path) == sorted([*others, "tile"])


def test_leftovers_of_a_name_with_brackets_are_found(tmp_path):
    (tmp_path / ".probabilities-[a].tif.01234567.tmp").write_text("")
    (tmp_path / ".probabilities-a.tif.01234567.tmp").write_text("")
    remove_leftovers(tmp_path / "probabilities-[a].tif")
    assert names(tmp_path) == [".probabilities-a.tif.01234567.tmp"]


def test_leftovers_of_a_folder_that_is_not_there_are_none(tmp_path):
    remove_leftovers(tmp_path / "nowhere" / "tile")


def test_one_holds_a_lock_at_a_time_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "new" / "target"
    with held(target) as first:
        with held(target) as second:
            assert (first, second) == (True, False)
        assert _held_by_another_process(target)
    assert list(target.parent.iterdir()) == []
    with held(target) as again:
        assert again


def test_a_process_that_dies_lets_go_of_its_lock(tmp_path: Path) -> None:
    target = tmp_path / "target"
    killed = _hold_elsewhere(target, "os.kill(os.getpid(), 9)")
    assert (killed.returncode, killed.stdout.strip()) == (-9, "True")
    assert (tmp_path / ".target.lock").exists()
    with held(target) as alone:
        assert alone
    assert not (tmp_path / ".target.lock").exists()


def test_a_lock_where_nothing_can_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"), held(tmp_path / "file" / "target"):
        pass


def _held_by_another_process(target: Path) -> bool:
    return _hold_elsewhere(target, "pass").stdout == "False\n"


def _hold_elsewhere(target: Path, then: str) -> "subprocess.CompletedProcess[str]":
    code = f"""
        import os, pathlib
        from darts_utils.store import held
        with held(pathlib.Path({str(target)!r})) as alone:
            print(alone, flush=True)
            {then}
    """
    words = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(words, capture_output=True, text=True, check=False)
