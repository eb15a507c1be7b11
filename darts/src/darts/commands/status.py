"""`darts status`: how far an output folder is."""

import dataclasses
import json as json_format
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from darts.display.plain_text import one_line
from darts.records.ledger import read_ledgers, require_ledgers
from darts.records.run_lock import holders
from darts.records.run_status import RunStatus
from darts.records.status import Summary, summarize
from darts_utils.quoting import counted

Flag = Annotated[bool, Parameter(negative="")]

MOST_RUNS = 20
"""Runs that are named; the others are counted."""

MOST_NAMES = 12
"""Shards or runs that are named in one line."""


def status(output: Path, /, *, json: Flag = False) -> int:
    """Tell how far an output folder is: tiles done, failed by cause and left, the rate, what is at work, all runs.

    Reads the ledgers of all runs and shards, at any time, also while they are at work.

    Parameters
    ----------
    output
        Output folder of darts run.
    json
        Print one JSON object.
    """
    summary = read_status(output)
    if json:
        print(json_format.dumps({"output": str(output), **dataclasses.asdict(summary)}, indent=2))
    else:
        text = "\n".join(_lines(output, summary))
        Console().print(text, markup=False, highlight=False, soft_wrap=True, emoji=False)
    return 0


def read_status(output: Path) -> Summary:
    """Return how far an output folder is.

    Raises:
        ConfigError: it is no output folder of darts.
        StoreError: a ledger cannot be read.
    """
    before = holders(output)
    if not before:  # one that just starts may have no ledger yet
        require_ledgers(output)
    records = read_ledgers(output)
    # A run that starts or ends while the ledgers are read was at work, and was not killed.
    return summarize(records, dict.fromkeys([*before, *holders(output)]))


def _lines(output: Path, summary: Summary) -> Iterator[str]:
    yield one_line(output)
    yield from _counts(summary)
    yield from _section("at work now", _at_work(summary))
    yield from _section("failed tiles", _failures(summary))
    yield from _section("runs", _runs(summary))
    yield from _section("settings that differ between runs", _differences(summary))
    yield from _section("seconds by step, all tiles together", _steps(summary.seconds_by_step))


def _counts(summary: Summary) -> Iterator[str]:
    share = f"   {100 * summary.done / summary.tiles:.1f} %" if summary.tiles else ""
    untried = summary.left - summary.failed
    yield f"  tiles    {summary.tiles:>8}"
    yield f"  done     {summary.done:>8}{share}"
    yield f"  left     {summary.left:>8}" + (f"   {summary.failed} failed, {untried} not tried" * bool(summary.failed))
    if summary.skipped:
        yield f"  skipped  {summary.skipped:>8}   were complete before the {_last_run(summary)}"
    if summary.rate:
        left = summary.seconds_left
        if summary.at_work:
            time = f", about {_duration(left)} to go" if left else ""
        else:
            time = f" in the last run; the rest would take about {_duration(left)}" if left else " in the last run"
        yield f"  rate     {summary.rate:>8.3g}   tiles a minute{time}"
    if summary.bytes_loaded or summary.bytes_written:
        yield f"  bytes    {_bytes(summary.bytes_loaded)} loaded, {_bytes(summary.bytes_written)} written"
    if summary.shards_not_started:
        yield f"  shards   {_some(summary.shards_not_started)} never started"


def _last_run(summary: Summary) -> str:
    return "runs at work" if len(summary.at_work) > 1 else "run at work" if summary.at_work else "last run"


def _at_work(summary: Summary) -> Iterator[str]:
    for run in summary.at_work:
        gone = run.done + run.failed + run.skipped
        pace = f", {run.rate:.3g} tiles a minute" if run.rate else ""
        last = f", last tile {_ago(run.last)}" if run.last else ""
        yield f"{_who(run)}: {gone} of {counted(run.tiles, 'tile')}{pace}{last}"
    for holder in summary.starting:
        yield f"{one_line(holder)}: starting"
    if not (summary.at_work or summary.starting):
        yield "nothing"


def _who(run: RunStatus) -> str:
    shard = f" with shard {run.shard}" if run.shard else ""
    workers = f", {', '.join(run.workers)}" if run.workers else ""
    return one_line(f"process {run.pid} on {run.host}{shard}{workers}, since {run.started}")


def _failures(summary: Summary) -> Iterator[str]:
    for failure in summary.failures:
        message = failure.error.removeprefix(f"{failure.cause}: ")
        example = f"{failure.cause}, such as {failure.tiles[-1]}: {message}"
        yield f"{len(failure.tiles):>6}  {one_line(example)}"


def _runs(summary: Summary) -> Iterator[str]:
    if len(summary.runs) > MOST_RUNS:
        yield f"{len(summary.runs) - MOST_RUNS} earlier runs"
    shown = summary.runs[-MOST_RUNS:]
    width = max((len(one_line(run.run)) for run in shown), default=0)
    for run in shown:
        shard = f", shard {run.shard}" if run.shard else ""
        undone = run.tiles - run.done - run.failed - run.skipped
        rest = f", {undone} not reached" if undone else ""
        yield (
            f"{one_line(run.run):<{width}}  {one_line(run.state)}{one_line(shard)}: {run.done} done, "
            f"{run.failed} failed, {run.skipped} skipped{rest}"
            + (f"; options {one_line(run.options)}" if run.options else "")
            + (f", darts {one_line(run.version)}" if run.version else "")
        )


def _differences(summary: Summary) -> Iterator[str]:
    for difference in summary.differences:
        values = (f"{one_line(value)} in {_some(runs)}" for value, runs in difference.values.items())
        yield f"{one_line(difference.setting)}: {'; '.join(values)}"
    if len(summary.done_by_options) > 1:
        counts = (f"{n} with {one_line(options) or 'unknown'}" for options, n in summary.done_by_options.items())
        yield f"done tiles by options: {', '.join(counts)}"


def _steps(seconds: Mapping[str, float]) -> Iterator[str]:
    total = sum(seconds.values())
    for step, took in seconds.items():
        yield f"{one_line(step):<20} {took:>12.1f}  {100 * took / total if total else 0:>5.1f} %"


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    """Yield lines under a title; nothing without lines."""
    for number, line in enumerate(lines):
        if number == 0:
            yield title
        yield f"  {line}"


def _some(names: tuple[str, ...]) -> str:
    """Return the last names, and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(map(one_line, names[-MOST_NAMES:])) + (f" and {more} more" if more > 0 else "")


def _ago(time: str) -> str:
    try:
        then = datetime.fromisoformat(time)
        return f"{_duration((datetime.now(UTC) - then).total_seconds())} ago"
    except (ValueError, TypeError):
        return one_line(time)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "an unknown time"
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 2:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if days < 2 else f"{days:.1f} days"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
