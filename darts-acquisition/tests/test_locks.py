import errno
import fcntl
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from darts_acquisition.locks import locked
from darts_utils.errors import StoreError


def test_only_one_holds_the_lock_and_no_file_stays(tmp_path):
    inside, most = 0, 0

    def work():
        nonlocal inside, most
        for _ in range(20):
            with locked(tmp_path / "cube"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "cube"):
        raise KeyError
    with locked(tmp_path / "cube"):
        pass


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"), locked(tmp_path / "file" / "cube"):
        pass


def test_a_process_that_was_forked_meanwhile_does_not_keep_the_lock(tmp_path):
    waiting, got = threading.Event(), threading.Event()

    def wait():
        waiting.set()
        with locked(tmp_path / "cube"):
            got.set()

    thread = threading.Thread(target=wait)
    with locked(tmp_path / "cube"):
        thread.start()
        waiting.wait()
        time.sleep(0.1)  # until it waits for the lock
        child = os.fork()
        if child == 0:
            time.sleep(20)
            os._exit(0)
    try:
        assert got.wait(10)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        thread.join()


def test_a_lock_that_cannot_be_had_leaves_no_file_open(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match="No locks available"), locked(tmp_path / "cube"):
        pass
    assert not [file for file in Path("/proc/self/fd").iterdir() if file.resolve().is_relative_to(tmp_path)]
