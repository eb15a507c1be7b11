"""What became of each run of an output folder: at work, ended or killed, and how fast it is."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from darts.records.ledger import Outcome, RunEnd, RunStart
from darts.records.run_lock import Holder
from darts.records.sharding import Shard, parse_shard
from darts_utils.errors import ConfigError

AT_WORK = "at work"
KILLED = "killed"
UNKNOWN = "unknown"
"""State of a run whose start was not recorded, by an earlier version."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """One run, and what became of its tiles in it."""

    run: str
    state: str
    """At work, killed, unknown, or the reason of its end."""
    started: str
    last: str
    """Time of its last outcome, empty without one."""
    shard: str
    tiles: int
    """Tiles it was to see to."""
    done: int
    failed: int
    skipped: int
    """Tiles that were complete when it began, or when it came to them."""
    remaining: int
    """Tiles that it still has to work on, or left undone."""
    rate: float | None
    """Tiles a minute; None before there are two moments to tell it from."""
    options: str
    version: str
    workers: tuple[str, ...]
    host: str
    pid: int


def match_holders(open_runs: Sequence[RunStart], holders: Iterable[Holder]) -> tuple[set[str], list[Holder]]:
    """Return the runs that are at work, and the holders that recorded no start yet."""
    # Process numbers come again, above all in containers: the newest run is meant.
    newest = {(start.host, start.pid, start.shard): start.run for start in open_runs}
    by_holder = {holder: newest.get((holder.host, holder.pid, holder.shard)) for holder in holders}
    return {run for run in by_holder.values() if run}, [holder for holder, run in by_holder.items() if not run]


def describe_runs(
    starts: Mapping[str, RunStart],
    ends: Mapping[str, RunEnd],
    working: Collection[str],
    outcomes: Iterable[Outcome],
    done: Collection[str],
    done_before: Mapping[str, Collection[str]],
) -> list[RunStatus]:
    """Return the status of each run, oldest first.

    Args:
        starts: starts by run.
        ends: ends by run.
        working: runs that are at work.
        outcomes: of all runs, in the order of their times.
        done: tiles that are complete.
        done_before: those that were when a run started, by run.
    """
    courses: dict[str, _Course] = {run: _Course(begin=start.started) for run, start in starts.items()}
    for outcome in outcomes:
        courses.setdefault(outcome.run, _Course()).add(outcome)
    found = []
    for run, course in courses.items():
        start = starts.get(run, RunStart(run=run, started=""))
        share = share_of(start) or tuple(course.last)
        complete = () if start.overwrite else done_before.get(run, ())  # skipped, and mostly not recorded
        states = Counter(outcome.status for outcome in course.last.values() if not outcome.again)
        if run in ends:
            state = ends[run].reason
        elif run not in starts:
            state = UNKNOWN
        else:
            state = AT_WORK if run in working else KILLED
        seen = {tile_id for tile_id, outcome in course.last.items() if not outcome.again}
        found.append(
            RunStatus(
                run=run,
                state=state,
                started=start.started,
                last=max((outcome.finished for outcome in course.last.values()), default=""),
                shard=start.shard,
                tiles=len(share),
                done=states["success"],
                failed=states["failed"],
                skipped=states["skipped"] + sum(t not in course.last for t in complete),
                remaining=sum(t not in seen and (start.overwrite or t not in done) for t in share),
                rate=course.rate,
                options=start.options or next((o.options for o in course.last.values()), ""),
                version=start.versions.get("darts", ""),
                workers=start.workers,
                host=start.host,
                pid=start.pid,
            )
        )
    return sorted(found, key=lambda run: run.started or run.last)


def shard_of(start: RunStart) -> Shard | None:
    """Return the shard of a run, None if it takes all tiles."""
    try:
        return parse_shard(start.shard) if start.shard else None
    except ConfigError:  # no ledger of ours
        return None


def share_of(start: RunStart) -> tuple[str, ...]:
    """Return the tiles that a run sees to: its shard of them."""
    shard = shard_of(start)
    return start.tiles if shard is None else tuple(tile_id for tile_id in start.tiles if shard.holds(tile_id))


def time_of(text: str) -> datetime | None:
    """Return a recorded time; None where it is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


@dataclass
class _Course:
    """What is known of one run while its outcomes are gone through."""

    last: dict[str, Outcome] = field(default_factory=dict)
    worked: int = 0
    """Tiles that were worked on to an end."""
    begin: str = ""
    """Its start, or the last skip before the first tile that was worked on."""
    first: Outcome | None = None
    """The first tile that was worked on."""
    end: str = ""
    """When the last tile was worked on."""

    def add(self, outcome: Outcome) -> None:
        self.last[outcome.tile_id] = outcome
        if outcome.status != "skipped":
            self.worked += not outcome.again
            self.first = self.first or outcome
            self.end = outcome.finished
        elif self.first is None:
            self.begin = outcome.finished

    @property
    def rate(self) -> float | None:
        begin, end = time_of(self.begin), time_of(self.end)
        if self.first is None or begin is None or end is None:
            return None
        took = sum(self.first.seconds.values())
        if 0 < took < math.inf and (first := time_of(self.first.finished)):
            # Complete tiles that come first are skipped without a word, and take their time.
            begin = max(begin, first - timedelta(seconds=took))
        seconds = (end - begin).total_seconds()
        return 60 * self.worked / seconds if seconds > 0 and self.worked else None
