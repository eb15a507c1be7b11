"""How far an output folder is: what its ledgers and its locks say, summed over runs and shards."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from darts.records.ledger import Outcome, Record, RunEnd, RunStart
from darts.records.run_lock import Holder
from darts.records.run_status import AT_WORK, RunStatus, describe_runs, match_holders, shard_of, share_of
from darts.records.sharding import Shard
from darts_utils.option_tags import option_of


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The tiles that failed for one cause."""

    cause: str
    """Class of the error."""
    tiles: tuple[str, ...]
    error: str
    """What the error said of the last of them."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting that is not the same in all runs."""

    setting: str
    values: Mapping[str, tuple[str, ...]]
    """Runs by value, which is told as JSON."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How far an output folder is."""

    tiles: int
    """All tiles of all runs."""
    done: int
    """Tiles whose files are complete."""
    failed: int
    """Tiles whose last attempt failed, and that are not being tried again."""
    left: int
    """Tiles that are not done: those that failed, and those that were not tried."""
    skipped: int
    """Tiles that were complete before the runs at work, or the last run."""
    left_tiles: tuple[str, ...]
    failures: tuple[Failure, ...]
    """The most frequent cause first."""
    rate: float | None
    """Tiles a minute of the runs at work together, or of the last run."""
    seconds_left: float | None
    """Until the runs at work have seen to all their tiles; without one, what a run at that rate would take."""
    runs: tuple[RunStatus, ...]
    """Oldest first."""
    starting: tuple[Holder, ...]
    """Runs that hold the folder, and have not recorded their start yet."""
    shards_not_started: tuple[str, ...]
    """Shares of the newest division that no run took."""
    differences: tuple[Difference, ...]
    done_by_options: Mapping[str, int]
    """Done tiles by the hash of the settings that made them; empty: unknown."""
    bytes_loaded: int
    bytes_written: int
    seconds_by_step: Mapping[str, float]
    """Summed over all attempts; the largest first."""

    @property
    def at_work(self) -> tuple[RunStatus, ...]:
        """The runs that are at work."""
        return tuple(run for run in self.runs if run.state == AT_WORK)


def summarize(records: Iterable[Record], holders: Iterable[Holder] = ()) -> Summary:
    """Return how far a folder is.

    A tile is done when its last outcome was a success, or a skip, which says that its files are complete. A run
    without an end that holds the folder is at work; one that does not was killed.

    Args:
        records: of all ledgers, in the order of their times.
        holders: who holds the folder.
    """
    starts: dict[str, RunStart] = {}
    ends: dict[str, RunEnd] = {}
    outcomes: list[Outcome] = []
    last: dict[str, Outcome] = {}
    done_before: dict[str, set[str]] = {}
    for record in records:
        if isinstance(record, RunStart):
            starts[record.run] = record
            done_before[record.run] = {t for t in share_of(record) if t in last and last[t].status != "failed"}
        elif isinstance(record, RunEnd):
            ends[record.run] = record
        else:
            outcomes.append(record)
            last[record.tile_id] = record
    open_runs = [start for start in starts.values() if start.run not in ends]
    working, starting = match_holders(open_runs, holders)

    wanted = dict.fromkeys(chain.from_iterable(start.tiles for start in starts.values())) | dict.fromkeys(last)
    done = {tile_id for tile_id, outcome in last.items() if outcome.status != "failed"}
    failed = [o for o in last.values() if o.status == "failed" and not (o.again and o.run in working)]
    runs = describe_runs(starts, ends, working, outcomes, done, done_before)
    present = [run for run in runs if run.state == AT_WORK] or runs[-1:]
    rate = _sum(run.rate for run in present)
    left_tiles = tuple(tile_id for tile_id in wanted if tile_id not in done)
    return Summary(
        tiles=len(wanted),
        done=len(done),
        failed=len(failed),
        left=len(left_tiles),
        skipped=sum(run.skipped for run in present),
        left_tiles=left_tiles,
        failures=_failures(failed),
        rate=rate,
        seconds_left=_seconds_left(present, len(left_tiles)) if working else rate and 60 * len(left_tiles) / rate,
        runs=tuple(runs),
        starting=tuple(starting),
        shards_not_started=_not_started(list(starts.values())),
        differences=_differences(starts.values()),
        done_by_options=_made_with(outcomes, done),
        bytes_loaded=sum(outcome.bytes_loaded for outcome in outcomes),
        bytes_written=sum(outcome.bytes_written for outcome in outcomes if outcome.status == "success"),
        seconds_by_step=_seconds_by_step(outcomes),
    )


def _not_started(starts: Sequence[RunStart]) -> tuple[str, ...]:
    newest = shard_of(starts[-1]) if starts else None
    if newest is None:
        return ()
    taken = {start.shard for start in starts}
    shards = (str(Shard(number, newest.count)) for number in range(1, newest.count + 1))
    return tuple(shard for shard in shards if shard not in taken)


def _failures(failed: Sequence[Outcome]) -> tuple[Failure, ...]:
    by_cause: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in failed:
        by_cause[outcome.cause or outcome.error.partition(":")[0]].append(outcome)
    return tuple(
        Failure(cause=cause, tiles=tuple(outcome.tile_id for outcome in of_cause), error=of_cause[-1].error)
        for cause, of_cause in sorted(by_cause.items(), key=lambda item: (-len(item[1]), item[0]))
    )


def _seconds_left(at_work: Sequence[RunStatus], left: int) -> float | None:
    """Return the seconds until the slowest run is through, None where no run tells its rate yet."""
    if not any(run.remaining for run in at_work):
        return 0.0
    return max((60 * run.remaining / run.rate for run in at_work if run.rate and run.remaining), default=None)


def _differences(starts: Iterable[RunStart]) -> tuple[Difference, ...]:
    """Return the settings in which runs differ; runs that recorded none are left out."""
    told = [start for start in starts if start.settings]
    names = dict.fromkeys(name for start in told for name in start.settings)
    found = []
    for name in names:
        values: dict[str, list[str]] = defaultdict(list)
        for start in told:
            values[json.dumps(start.settings.get(name), sort_keys=True)].append(start.run)
        if len(values) > 1:
            found.append(
                Difference(setting=option_of(name), values={value: tuple(runs) for value, runs in values.items()})
            )
    return tuple(found)


def _made_with(outcomes: Iterable[Outcome], done: Collection[str]) -> dict[str, int]:
    options = {o.tile_id: o.options for o in outcomes if o.status == "success"}
    return dict(Counter(options.get(tile_id, "") for tile_id in done).most_common())


def _seconds_by_step(outcomes: Iterable[Outcome]) -> dict[str, float]:
    sums: Counter[str] = Counter()
    for outcome in outcomes:
        for step, seconds in outcome.seconds.items():
            if math.isfinite(seconds):
                sums[step] += seconds  # type: ignore[assignment]  # a Counter of floats
    return dict(sums.most_common())


def _sum(rates: Iterable[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None
