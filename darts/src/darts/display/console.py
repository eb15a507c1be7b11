"""What a user reads on stderr besides the log: single messages, and what became of a run, with tables of failures."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from darts.display.logs import log_event, logs_json
from darts.display.transfers import duration_text
from darts.records.ledger import Outcome

logger = logging.getLogger("darts.display.console")

ALIKE = 20
"""More failures than this with the same cause share a row."""
NAMED = 3
"""So many of those are named."""


@dataclass(frozen=True)
class Failure:
    """Something that failed."""

    name: str
    error: str
    """Class and message."""
    cause: str = ""
    """Class of the error; empty: what stands before the colon of `error`."""


def say(message: str, *, level: int = logging.INFO, label: str = "") -> None:
    """Write a message to stderr, after a red `label`; where stderr takes JSON alone, as a line of the log."""
    if logs_json():
        logger.log(level, "%s", message)
        return
    prefix = f"[bold red]{escape(label)}:[/bold red] " if label else ""
    Console(stderr=True).print(f"{prefix}{escape(message)}", highlight=False, soft_wrap=True)


def print_summary(outcomes: Sequence[Outcome], seconds: float, *, left: int = 0, reason: str = "finished") -> None:
    """Print how many tiles were done, skipped, failed and are left; a table names those that failed.

    Args:
        outcomes: those of this run; attempts that were made again do not count.
        seconds: how long the run took.
        left: how many tiles it did not come to.
        reason: why it ended: finished, interrupted, or why it was given up.
    """
    ended = [outcome for outcome in outcomes if not outcome.again]
    count = Counter(outcome.status for outcome in ended)
    total = len(ended) + left
    parts = [f"{count['success']} done", f"{count['skipped']} skipped", f"{count['failed']} failed"]
    parts += [f"{left} left"] if left else []
    took = f"{seconds:.1f} s" if seconds < 90 else duration_text(seconds)
    line = f"{total} tile{'s' * (total != 1)} in {took}: {', '.join(parts)}"
    if reason != "finished":
        line += f"; {reason}"
    if left:
        line += "; run the same command again to go on"
    failed = [Failure(outcome.tile_id, outcome.error, outcome.cause) for outcome in ended if outcome.status == "failed"]
    event = {
        "event": "summary",
        "reason": reason,
        "seconds": round(seconds, 3),
        "total": total,
        "done": count["success"],
        "skipped": count["skipped"],
        "failed": count["failed"],
        "left": left,
        "causes": dict(sorted(Counter(_cause(failure) for failure in failed).items())),
    }
    if logs_json():
        log_event(logger, logging.INFO, event, "%s", line)  # the failures were told one by one
        return
    say(line)
    if failed:
        print_failures("Failed tiles", "tile", failed)


def print_failures(title: str, heading: str, failures: Iterable[Failure]) -> None:
    """Print a table of what failed, each with its error; many with the same cause share a row."""
    failures = list(failures)
    if logs_json():
        for failure in failures:
            event = {"event": "failure", heading: failure.name, "error": failure.error, "cause": _cause(failure)}
            log_event(logger, logging.ERROR, event, "%s failed: %s", failure.name, failure.error)
        return
    table = Table(title=title, title_justify="left")
    for name in (heading, "error"):
        table.add_column(name, overflow="fold")
    for name, error in grouped(failures):
        table.add_row(escape(name), escape(error))  # messages hold brackets, which Rich takes for markup
    Console(stderr=True).print(table)


def grouped(failures: Sequence[Failure]) -> list[tuple[str, str]]:
    """Return names and errors in order; more than `ALIKE` of one cause are one row, where the first of them stood."""
    alike: dict[str, list[Failure]] = {}
    for failure in failures:
        alike.setdefault(_cause(failure), []).append(failure)
    rows, told = [], set()
    for failure in failures:
        group = alike[cause := _cause(failure)]
        if len(group) <= ALIKE:
            rows.append((failure.name, failure.error))
        elif cause not in told:
            told.add(cause)
            names = ", ".join(one.name for one in group[:NAMED])
            rows.append((f"{len(group)}, such as {names}", f"for example {failure.error}"))
    return rows


def _cause(failure: Failure) -> str:
    return failure.cause or failure.error.partition(":")[0]
