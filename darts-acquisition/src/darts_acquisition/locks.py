"""One writer at a time, among all processes that share a file system."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darts_utils.errors import StoreError
from darts_utils.store import is_named


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the exclusive lock of `target`, a hidden file beside it; waits until it is free.

    The system lets go of the lock when the process dies, so a kill leaves no lock behind, at most the empty file.

    Raises:
        StoreError: the folder cannot be written.
    """
    import fcntl  # not on Windows, where reading still works

    path = target.with_name(f".{target.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                held = is_named(descriptor, path)
            except BaseException:
                os.close(descriptor)
                raise
            if held:
                break
            # The former holder removed the file while we waited: that file is no longer the lock.
            _release(descriptor)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}. Choose a folder you may write.") from error
    try:
        yield
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            _release(descriptor)


def _release(descriptor: int) -> None:
    import fcntl

    try:
        # Closing alone would leave the lock with a process that was forked meanwhile.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)
