"""The ledger: append-only records of runs and of every attempt at a tile, in the output folder.

One line of JSON a record, each on disk before the next tile's. A run has one ledger and is its only writer; the shards
of a run have one each, and readers sum them.
"""

import heapq
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from sys import intern
from typing import Any, ClassVar, Literal

from darts.records.sharding import Shard
from darts_utils.errors import ConfigError, StoreError

LEDGER_NAME = "darts-ledger.jsonl"

_NAME = re.compile(r"darts-ledger(-shard\d+of\d+)?\.jsonl")  # no copies that somebody put beside them

State = Literal["success", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """A run begins."""

    kind: ClassVar[str] = "run"

    run: str
    """Name of the run, the stem of its records."""
    started: str
    """Time of the start, ISO 8601 UTC."""
    command: tuple[str, ...] = ()
    """Command line path, such as run sentinel2."""
    tiles: tuple[str, ...] = ()
    """Ids of all tiles of this run."""
    shard: str = ""
    """Which share of the tiles it takes, such as 3/16; empty: all."""
    options: str = ""
    """Hash of the settings."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Options and model checksums that shape results, by name."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of darts and of the libraries that compute."""
    overwrite: bool = False
    """Whether complete tiles are made again."""
    workers: tuple[str, ...] = ()
    """What computes: devices, or workers of a cluster."""
    host: str = ""
    pid: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one attempt at a tile."""

    kind: ClassVar[str] = "tile"

    tile_id: str
    output_path: str
    status: State
    error: str = ""
    """Class and message of the error of a failed tile."""
    cause: str = ""
    """Class of that error."""
    run: str = ""
    """Name of the run, the stem of its records."""
    attempt: int = 1
    """Which attempt of this run it was."""
    again: bool = False
    """Whether the run tries the tile once more."""
    finished: str = ""
    """Time of the outcome, ISO 8601 UTC."""
    options: str = ""
    """Hash of the options and model checksums that shape results."""
    version: str = ""
    """Version of darts."""
    models: dict[str, str] = field(default_factory=dict)
    """Checksum by model."""
    worker: str = ""
    """What computed it."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by step."""
    corners: tuple[tuple[float, float], ...] = ()
    """Longitude and latitude of the tile's corners, in order; empty where it was never loaded."""
    bytes_loaded: int = 0
    """Bytes of the loaded arrays."""
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Size in bytes and SHA-256 of each of the tile's files."""

    @property
    def bytes_written(self) -> int:
        """Bytes of the tile's files."""
        return sum(size for size, _ in self.files.values())


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """A run ends, other than by a kill."""

    kind: ClassVar[str] = "end"

    run: str
    finished: str
    """Time of the end, ISO 8601 UTC."""
    reason: str = "finished"
    """finished, interrupted, or why it was given up."""


Record = RunStart | Outcome | RunEnd

_KINDS: Mapping[str, type[Record]] = {record.kind: record for record in (RunStart, Outcome, RunEnd)}


class Ledger:
    """Appends the records of one run to its file, each on disk before this goes on."""

    def __init__(self, folder: Path, shard: Shard | None = None) -> None:
        self.path = folder / (LEDGER_NAME if shard is None else f"darts-ledger-{shard.file_name}.jsonl")

    def append(self, record: Record) -> None:
        """Add one record; it is on disk when this returns.

        Raises:
            StoreError: it cannot be written; readers pass over what is there of it.
        """
        # As ASCII every text can be written, also the lone surrogates of file names that are no UTF-8.
        line = json.dumps({"kind": record.kind, **asdict(record)}, default=str).encode("ascii") + b"\n"
        try:
            with self.path.open("ab+", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                # A writer that was killed may have left half a line: end it, so that this one stands alone.
                if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                    line = b"\n" + line
                _write_all(file.fileno(), line)
                os.fsync(file.fileno())
            if not size:
                _flush_entry(self.path.parent)
        except OSError as error:
            raise StoreError(
                f"cannot write the ledger {self.path}: {error.strerror or error}. Tiles that are complete stay so; "
                "make room or choose another folder, and run again"
            ) from error

    def records(self) -> Iterator[Record]:
        """Yield all records, oldest first; lines that were torn by a kill are passed over.

        Raises:
            StoreError: the file is there and cannot be read.
        """
        return _records(self.path)


def ledger_files(folder: Path) -> list[Path]:
    """Return the ledgers of an output folder, those of shards too."""
    return sorted(path for path in folder.glob("darts-ledger*.jsonl") if _NAME.fullmatch(path.name))


def require_ledgers(folder: Path) -> None:
    """Check that a folder is one that `darts run` wrote into.

    Raises:
        ConfigError: it is not there, or holds no ledger.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; name the output folder of darts run")
    if not ledger_files(folder):
        raise ConfigError(f"{folder} holds no ledger ({LEDGER_NAME}); name the output folder of darts run")


def read_ledgers(folder: Path) -> list[Record]:
    """Return the records of all ledgers of an output folder in the order of their times.

    Records of one ledger stay in the order in which they were written, also where the clock was set back.

    Raises:
        StoreError: a ledger cannot be read.
    """
    return list(heapq.merge(*map(_records, ledger_files(folder)), key=record_time))


def record_time(record: Record) -> str:
    """Return the time that a record tells, ISO 8601 UTC."""
    return record.started if isinstance(record, RunStart) else record.finished


def last_outcomes(records: Iterable[Record]) -> dict[str, Outcome]:
    """Return the last outcome of each tile that says something new.

    A skip does where it tells of files: a writer was killed after they were complete, before it could say so.
    """
    return {r.tile_id: r for r in records if isinstance(r, Outcome) and (r.status != "skipped" or r.files)}


def made(records: Iterable[Record]) -> dict[str, Outcome]:
    """Return for each tile the last outcome that tells of its files."""
    return {r.tile_id: r for r in records if isinstance(r, Outcome) and r.files}


def now() -> str:
    """Return the time as records have it, ISO 8601 UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _records(path: Path) -> Iterator[Record]:
    try:
        with path.open("rb") as file:
            for line in file:
                if record := _record(line):
                    yield record
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"cannot read the ledger {path}: {error.strerror or error}") from error


def _record(line: bytes) -> Record | None:
    """Return the record of a line, None if it was torn, is foreign, or is of a kind of a later version."""
    try:
        told = json.loads(line)
        record = _KINDS[told.get("kind", Outcome.kind)]
        # What a later version tells besides is left out; the rest still counts.
        return record(**{name: read(told[name]) for name, read in _FIELDS[record].items() if name in told})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _mapping(value: Any) -> dict[str, Any]:
    # Names come again in every record: one copy of each is enough.
    return {intern(name): item for name, item in value.items()}


# Adding nothing is the quickest way to refuse what is no number, or no text.
_READERS: Mapping[Any, Callable[[Any], Any]] = {
    str: _text,
    State: _text,
    int: int,
    bool: bool,
    tuple[str, ...]: lambda value: tuple(map(_text, value)),
    dict[str, Any]: _mapping,
    dict[str, str]: lambda value: {intern(name): intern(item) for name, item in value.items()},
    dict[str, float]: lambda value: {intern(name): item + 0.0 for name, item in value.items()},
    tuple[tuple[float, float], ...]: lambda value: tuple([(lon + 0.0, lat + 0.0) for lon, lat in value]),
    dict[str, tuple[int, str]]: lambda value: {
        intern(name): (size + 0, digest + "") for name, (size, digest) in value.items()
    },
}
"""How a field of each type is read from JSON; what has another type is not ours."""

_FIELDS: Mapping[type[Record], Mapping[str, Callable[[Any], Any]]] = {
    record: {field.name: _READERS[field.type] for field in fields(record)} for record in _KINDS.values()
}


def _write_all(descriptor: int, content: bytes) -> None:
    """Write all bytes, as one call where the system takes them."""
    while content:
        content = content[os.write(descriptor, content) :]


def _flush_entry(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
