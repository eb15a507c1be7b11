"""Who works on an output folder: one run as a whole, or any number of different shards of one division."""

import errno
import fcntl
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from darts.records.sharding import Shard
from darts_utils.errors import ConfigError, StoreError

logger = logging.getLogger("darts.records.run_lock")

_NAME = re.compile(r"\.darts-run(?:-shard([0-9]+)of([0-9]+))?\.lock")

_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})
"""What file systems say that have no locks: Lustre without `flock`, NFS without its lock service, some FUSE ones."""

_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
"""What they say when somebody else has the lock."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A run that is at work on a folder."""

    host: str
    pid: int
    since: str
    """Start of the run, ISO 8601 UTC."""
    shard: str = ""
    """Its share, such as 3/16; empty: all tiles."""

    def __str__(self) -> str:
        share = f" with shard {self.shard}" if self.shard else ""
        return f"process {self.pid} on {self.host}{share}, since {self.since}"


@contextmanager
def hold_output(folder: Path, shard: Shard | None = None) -> Iterator[None]:
    """Hold an output folder for one run; the system lets go of it when the process dies, however it dies.

    Where the file system has no locks, this warns and holds nothing.

    Raises:
        ConfigError: another run holds the folder, this very shard, or a share of another division.
        StoreError: the folder cannot be written.
    """
    try:
        held = _take(folder, shard)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise StoreError(
                f"cannot write the output folder {folder}: {error.strerror or error}. Choose a folder you may write."
            ) from error
        logger.warning(
            "the file system of %s has no locks (%s): see to it that no two runs%s work on it at once",
            folder, error.strerror, "" if shard is None else " of the same shard",
        )  # fmt: skip
        held = ExitStack()
    with held:
        yield


def check_free(folder: Path, shard: Shard | None = None) -> None:
    """Check that no other run is at work on what a run would take; it may be a moment later.

    Raises:
        ConfigError: somebody is, and who.
    """
    for other, its_shard in _locks(folder).items():
        if _excludes(its_shard, shard) and (holder := _holder(other)) is not None:
            raise ConfigError(
                f"{folder} is being worked on by {holder}: wait for it or stop it, or choose another folder"
                + ("; different shards of one division may share a folder" if shard is not None else "")
            )


def holders(folder: Path) -> list[Holder]:
    """Return the runs that are at work on a folder now; none where the file system has no locks."""
    return [holder for path in _locks(folder) if (holder := _holder(path)) is not None]


def _take(folder: Path, shard: Shard | None) -> ExitStack:
    """Take the lock of a run, and return what lets go of it.

    Raises:
        ConfigError: somebody holds what it would share.
        OSError: there is no writing here, or no locking.
    """
    with ExitStack() as looking, ExitStack() as held:
        # One process at a time looks at the locks and takes one.
        gate = _open(folder / ".darts-run.gate", looking)
        fcntl.flock(gate, fcntl.LOCK_EX)
        check_free(folder, shard)
        path = _path(folder, shard)
        descriptor = _open(path, held)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # nobody holds it; at most somebody is just looking
        held.callback(_remove, path)  # before it is closed: whoever comes next makes a file of its own
        me = Holder(
            host=socket.gethostname(),
            pid=os.getpid(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            shard=str(shard or ""),
        )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(me)).encode(), 0)
        return held.pop_all()


def _open(path: Path, closing: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    closing.callback(os.close, descriptor)
    return descriptor


def _remove(path: Path) -> None:
    with suppress(OSError):  # a folder that became read-only keeps the file, which holds nothing by itself
        path.unlink()


def _path(folder: Path, shard: Shard | None) -> Path:
    return folder / (".darts-run.lock" if shard is None else f".darts-run-{shard.file_name}.lock")


def _locks(folder: Path) -> dict[Path, Shard | None]:
    """Return the lock files of a folder, those of killed runs too, with the shard of each."""
    found: dict[Path, Shard | None] = {}
    for path in sorted(folder.glob(".darts-run*.lock")):
        if match := _NAME.fullmatch(path.name):
            with suppress(ConfigError):  # no share that there is: somebody else's file
                found[path] = Shard(int(match[1]), int(match[2])) if match[1] else None
    return found


def _excludes(one: Shard | None, other: Shard | None) -> bool:
    """Return whether two runs could want the same tile."""
    return one is None or other is None or one == other or one.count != other.count


def _holder(path: Path) -> Holder | None:
    """Return who holds a lock, None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        # Shared: two that look at the same time must not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return _read_holder(descriptor) if error.errno in _HELD else None
    else:
        return None
    finally:
        os.close(descriptor)


def _read_holder(descriptor: int) -> Holder:
    try:
        told = json.loads(os.pread(descriptor, 4096, 0))
        return Holder(host=str(told["host"]), pid=int(told["pid"]), since=str(told["since"]), shard=str(told["shard"]))
    except (OSError, ValueError, TypeError, KeyError):  # it is just being written
        return Holder(host="an unknown host", pid=0, since="just now")
