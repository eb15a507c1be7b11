"""Complete or absent: files and folders that appear whole under their name, or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darts_utils.errors import StoreError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; what was written there takes the target's name when the block ends well.

    Works for a file and for a folder (which the caller creates). A folder that stands in the way is moved aside first
    and removed afterwards, so a kill at any moment leaves the old one, the new one, or none, and never a mixture.
    On an exception the temporary path is removed and the target is left as it was.

    Raises:
        StoreError: the folder cannot be written.
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
        _flush(temporary)
        if target.is_dir():
            aside = _temporary_name(target)
            target.rename(aside)
            temporary.rename(target)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            temporary.replace(target)
        _flush(target.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def remove_leftovers(target: Path) -> None:
    """Remove what interrupted writers of `target` left beside it.

    Only for targets with one writer at a time: a temporary path of a writer that still runs would go too.
    """
    target = Path(target)
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _temporary_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")


def _flush(path: Path) -> None:
    """Ask the system to put `path` (and all files below it) on disk, so that a rename never names empty files."""
    for entry in [path, *(path.rglob("*") if path.is_dir() else [])]:
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
