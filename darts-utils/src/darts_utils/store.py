"""Complete or absent: files and folders that appear whole under their name, or not at all."""

import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from darts_utils.errors import StoreError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; what was written there takes the target's name when the block ends well.

    Works for a file and for a folder (which the caller creates). A folder that stands in the way is moved aside first
    and removed afterwards, so a kill at any moment leaves the old one, the new one, or none, and never a mixture.
    On an exception the temporary path is removed and the target is left as it was.

    Raises:
        StoreError: the folder cannot be written, or the block wrote nothing.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(target.parent, os.W_OK):
            raise PermissionError(13, "Permission denied", str(target.parent))
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}. Choose a folder you may write.") from error
    temporary = _temporary_name(target)
    try:
        yield temporary
        if not temporary.exists():
            raise StoreError(f"cannot write {target}: its writer left nothing at {temporary}")
        _flush(temporary)
        if target.is_dir():
            _swap_folder(temporary, target)
        else:
            temporary.replace(target)
        _flush_entry(target.parent)
    finally:
        _remove(temporary)


def remove_leftovers(target: Path) -> None:
    """Remove what interrupted writers of `target` left beside it.

    Only for targets with one writer at a time: a temporary path of a writer that still runs would go too.
    """
    target = Path(target)
    # The random part is spelled out, so that the leftovers of a target "a" are not those of its neighbour "a.tif".
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 8}.tmp"):
        _remove(leftover)


def is_named(descriptor: int, path: Path) -> bool:
    """Return whether an open file still has a name, which its holder before may have removed or given to another."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def held(target: Path) -> Iterator[bool]:
    """Hold the lock of `target`, a hidden file beside it, and give True; or give False, if somebody else holds it.

    The system lets go of it when the process dies, however it dies. Where there are no locks (some file systems,
    Windows) this gives True and holds nothing.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return

    path = target.with_name(f".{target.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}. Choose a folder you may write.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = is_named(descriptor, path)
        except BlockingIOError:
            alone = False
        except OSError:  # a file system without locks
            alone = True
        try:
            yield alone
        finally:
            if alone:
                with suppress(OSError):
                    path.unlink()
                with suppress(OSError):
                    # Closing alone would leave the lock with a process that was forked meanwhile.
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _temporary_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")


def _swap_folder(new: Path, target: Path) -> None:
    """Let `new` take the name of the folder `target`; if it cannot, `target` is put back."""
    aside = _temporary_name(target)
    target.rename(aside)
    try:
        new.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Ask the system to put `path` (and all files below it) on disk, so that a rename never names empty files."""
    for entry in [path, *(path.rglob("*") if path.is_dir() else [])]:
        _flush_entry(entry)


def _flush_entry(entry: Path) -> None:
    descriptor = os.open(entry, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
