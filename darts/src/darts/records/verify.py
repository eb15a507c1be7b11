"""Whether the files of an output folder are those that its ledgers tell of. Only looks: nothing is changed."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from darts.records.ledger import Outcome, Record, RunEnd, RunStart, made, read_ledgers, require_ledgers
from darts.records.run_lock import Holder, holders
from darts.records.run_status import match_holders, time_of
from darts.records.tile_places import has_leftovers, leftovers, places_of, tile_folder, unknown_tiles
from darts_export.completeness import is_complete
from darts_utils.threads import cores

NOT_RECORDED = "no ledger tells of its files: run again to record them"

MOST_LOOKS = 10
"""How often a tile is checked that runs make again and again meanwhile."""

CLOCKS_S = 60.0
"""Seconds by which the clock of a file server may be behind that of a run."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as the ledgers tell."""

    tile_id: str
    what: str
    """Such as missing, wrong size, changed, unreadable, gone."""
    file: str = ""
    """Name in the tile's folder; empty: the folder itself."""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was checked, and what was found."""

    tiles: int
    """Tiles that were checked."""
    files: int
    n_bytes: int
    """Recorded bytes of these files."""
    findings: tuple[Finding, ...]
    """What is wrong."""
    remarks: tuple[Finding, ...]
    """What is worth knowing, and not wrong."""


def verify_output(
    output: Path, *, quick: bool = False, on_tile: Callable[[int, int], None] = lambda done, total: None
) -> Verification:
    """Check the files of every tile against the newest record of them: size, SHA-256, and whether they open.

    Args:
        output: output folder of darts run; it may have been moved or copied, and runs may be at work on it: a tile
            that one of them just writes is only remarked on.
        quick: compare sizes alone.
        on_tile: hears of tiles checked, and of all.

    Raises:
        ConfigError: it is no output folder of darts.
        StoreError: a ledger cannot be read.
    """
    require_ledgers(output)
    before = holders(output)
    records = read_ledgers(output)
    tiles = [*_recorded(output, records), *_unrecorded(output, records)]
    checks: list[_Check] = []
    for check in _in_threads(lambda tile: _check(tile, quick=quick), tiles):
        checks.append(check)
        on_tile(len(checks), len(tiles))
    at_work = bool(before or holders(output))
    if at_work:
        checks = _look_again(output, checks, quick=quick)
    return Verification(
        tiles=len(checks),
        files=sum(check.files for check in checks),
        n_bytes=sum(check.n_bytes for check in checks),
        findings=tuple(finding for check in checks for finding in check.findings),
        remarks=(
            *(remark for check in checks for remark in check.remarks),
            *_remarks_beside(output, [tile.folder for tile in tiles], at_work=at_work),
        ),
    )


@dataclass(frozen=True)
class _Tile:
    tile_id: str
    folder: Path
    outcome: Outcome | None
    """The newest that tells of the tile's files, None where none does."""


@dataclass(frozen=True)
class _Check:
    tile: _Tile
    findings: tuple[Finding, ...] = ()
    remarks: tuple[Finding, ...] = ()
    files: int = 0
    n_bytes: int = 0


def _recorded(output: Path, records: Sequence[Record]) -> Iterator[_Tile]:
    for tile_id, outcome in made(records).items():
        yield _Tile(tile_id, tile_folder(output, tile_id, outcome.output_path), outcome)


def _unrecorded(output: Path, records: Sequence[Record]) -> Iterator[_Tile]:
    """Yield tiles whose files no ledger tells of, and that are there or should be."""
    known = made(records)
    last = {record.tile_id: record for record in records if isinstance(record, Outcome)}
    listed = (tile_id for record in records if isinstance(record, RunStart) for tile_id in record.tiles)
    for tile_id in dict.fromkeys([*last, *listed]):
        if tile_id not in known:
            outcome = last.get(tile_id)
            expected = outcome is not None and outcome.status != "failed"
            folder = tile_folder(output, tile_id, outcome.output_path if outcome else "")
            if expected or folder.is_dir():
                yield _Tile(tile_id, folder, None)


def _check(tile: _Tile, *, quick: bool) -> _Check:
    if not tile.folder.is_dir():
        gone = Finding(tile_id=tile.tile_id, what="gone", detail=f"no folder {tile.folder}")
        return _Check(tile, (gone,))
    try:
        there = sorted(path.name for path in tile.folder.iterdir())
    except OSError as error:
        closed = Finding(tile_id=tile.tile_id, what="unreadable", detail=error.strerror or str(error))
        return _Check(tile, (closed,))
    if tile.outcome is None:
        return _check_unrecorded(tile, there, quick=quick)
    files = tile.outcome.files
    findings = []
    for name, (size, digest) in files.items():
        if fault := _fault(tile.folder / name, size, digest, quick=quick):
            findings.append(Finding(tile_id=tile.tile_id, file=name, what=fault[0], detail=fault[1]))
    extra = [
        Finding(tile_id=tile.tile_id, file=name, what="extra", detail="the ledger does not tell of it")
        for name in there
        if name not in files
    ]
    return _Check(tile, tuple(findings), tuple(extra), len(files), tile.outcome.bytes_written)


def _check_unrecorded(tile: _Tile, there: Iterable[str], *, quick: bool) -> _Check:
    files = [tile.folder / name for name in there if not name.startswith(".") and (tile.folder / name).is_file()]
    damaged = [path.name for path in files if not quick and not is_complete(path)]
    if damaged:
        return _Check(tile, tuple(Finding(tile_id=tile.tile_id, file=name, what="unreadable") for name in damaged))
    remark = Finding(tile_id=tile.tile_id, what="not recorded", detail=NOT_RECORDED)
    return _Check(tile, (), (remark,))


def _fault(path: Path, size: int, digest: str, *, quick: bool) -> tuple[str, str] | None:
    """Return what is wrong with a file, None if nothing is."""
    try:
        if not path.is_file():
            return "missing", ""
        if (found := path.stat().st_size) != size:
            return "wrong size", f"{found} bytes, recorded {size}"
        if quick:
            return None
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return "unreadable", error.strerror or str(error)
    if content != digest:
        return "changed", f"SHA-256 {content[:12]}…, recorded {digest[:12]}…"
    return None if is_complete(path) else ("unreadable", "it is as it was recorded, and was damaged then")


def _look_again(output: Path, checks: list[_Check], *, quick: bool) -> list[_Check]:
    """Return checks without what runs at work did to tiles while these were checked."""
    doubtful = {
        check.tile.tile_id: place for place, check in enumerate(checks) if check.findings or check.tile.outcome is None
    }
    for _ in range(MOST_LOOKS):
        at_work = holders(output)
        records = read_ledgers(output)
        newest = {tile.tile_id: tile for tile in _recorded(output, records)}
        writing = _Writing(records, at_work)
        for tile_id, place in list(doubtful.items()):
            tile = checks[place].tile
            if (now := newest.get(tile_id, tile)) != tile:  # made anew since; by what stands there now?
                checks[place] = _check(now, quick=quick)
                if checks[place].findings:
                    continue
            elif writing.has(tile):
                detail = "a run just makes it: check it afterwards"
                checks[place] = _Check(tile, (), (Finding(tile_id=tile_id, what="at work", detail=detail),))
            del doubtful[tile_id]
        if not doubtful:
            break
    return checks


class _Writing:
    """Which tiles the runs at work just write."""

    def __init__(self, records: Sequence[Record], at_work: Iterable[Holder]) -> None:
        ended = {record.run for record in records if isinstance(record, RunEnd)}
        starts = [record for record in records if isinstance(record, RunStart) and record.run not in ended]
        names, _ = match_holders(starts, at_work)
        self._starts = [start for start in starts if start.run in names]
        self._tiles = {start.run: frozenset(start.tiles) for start in self._starts}
        self._over = {
            (record.run, record.tile_id) for record in records if isinstance(record, Outcome) and not record.again
        }

    def has(self, tile: _Tile) -> bool:
        """Return whether a run has a tile before it, and shows in the folder that it has begun to write it."""
        return any(
            tile.tile_id in self._tiles[start.run]
            and (start.run, tile.tile_id) not in self._over
            and (has_leftovers(tile.folder) or _made_since(tile.folder, start.started))
            for start in self._starts
        )


def _made_since(folder: Path, started: str) -> bool:
    since = time_of(started)
    try:
        return since is not None and folder.stat().st_mtime >= since.timestamp() - CLOCKS_S
    except OSError:
        return False


def _remarks_beside(output: Path, folders: Sequence[Path], *, at_work: bool) -> Iterator[Finding]:
    places = places_of(output, folders)
    for folder in sorted(unknown_tiles(places, frozenset(folders))):
        yield Finding(tile_id=folder.relative_to(output).as_posix(), what="not recorded", detail=NOT_RECORDED)
    # While runs are at work, such a file may be one that they just write.
    for path in [] if at_work else sorted(leftovers(places)):
        detail = "of a run that was killed; the next that writes this tile removes it"
        yield Finding(tile_id=path.relative_to(output).as_posix(), what="leftover", detail=detail)


def _in_threads(function: Callable[[T], R], jobs: Iterable[T]) -> Iterator[R]:
    """Yield the results of a function in the order of its jobs, of which only some are waiting at a time."""
    jobs = iter(jobs)
    with ThreadPoolExecutor(cores()) as pool:
        try:
            while batch := list(islice(jobs, 64)):
                yield from pool.map(function, batch)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
