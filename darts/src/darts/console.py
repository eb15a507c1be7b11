"""What a user sees while darts works: log lines, a progress display on a terminal, and tables at the end."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from darts.ledger import Outcome

logger = logging.getLogger("darts")

THIRD_PARTY = ("rasterio", "torch", "xarray", "zarr", "icechunk", "pyogrio")
"""Libraries whose debug messages show from -vv on."""


def configure_logging(command: str, *, verbosity: int = 0, log_dir: Path | None = None, plain: bool = False) -> None:
    """Send the log of darts to the terminal, and with `log_dir` to a file there too.

    On a terminal lines are coloured and share the screen with the progress display; elsewhere, or with `plain`, they
    are plain. `verbosity` 0 shows information, 1 debug messages of darts, 2 those of the libraries, 3 everything.
    """
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    level = logging.DEBUG if verbosity else logging.INFO
    console = Console(stderr=True)
    shown: logging.Handler
    if plain or not console.is_terminal:
        shown = logging.StreamHandler(sys.stderr)
        shown.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    else:
        shown = RichHandler(console=console, show_path=verbosity > 0, markup=False, log_time_format="%H:%M:%S")
    shown.setLevel(level)
    logger.addHandler(shown)
    if log_dir is not None:
        log_to_file(log_dir / f"darts_{command}_{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}.log")
    for name in THIRD_PARTY if verbosity >= 2 else ():
        other = logging.getLogger(name)
        other.setLevel(logging.DEBUG)
        if shown not in other.handlers:
            other.addHandler(shown)


def log_to_file(path: Path) -> logging.Handler:
    """Also write the log, debug messages included, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    handler.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    return handler


def live_console() -> Console | None:
    """Return the terminal that the log goes to, None where it goes elsewhere or shall be plain."""
    return next((handler.console for handler in logger.handlers if isinstance(handler, RichHandler)), None)


class Reporter(Protocol):
    """Shows how far a run is."""

    def step(self, tile_id: str, step: str) -> None:
        """A tile enters a step."""

    def finished(self, outcome: Outcome) -> None:
        """A tile is done, failed or skipped."""


@contextmanager
def reporting(total: int) -> Iterator[Reporter]:
    """Give the reporter that fits where the log goes: a live display on a terminal, else plain lines."""
    console = live_console()
    if console is None:
        yield _PlainReporter(total)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _LiveReporter(progress, total)


class _Rate:
    """Tiles a minute, of those that were worked on."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._worked = 0

    def count(self, outcome: Outcome) -> None:
        self._worked += outcome.status != "skipped"

    def per_minute(self) -> float:
        return 60 * self._worked / max(time.monotonic() - self._start, 1e-6)

    def text(self) -> str:
        return f"{self.per_minute():.1f} tiles/min" if self._worked else ""


class _PlainReporter:
    def __init__(self, total: int) -> None:
        self._total, self._done, self._rate = total, 0, _Rate()

    def step(self, tile_id: str, step: str) -> None:
        logger.debug("%s: %s", tile_id, step)

    def finished(self, outcome: Outcome) -> None:
        self._done += 1
        self._rate.count(outcome)
        left = self._total - self._done
        rate = self._rate.per_minute()
        remaining = f", about {left / rate * 60:.0f} s left" if left and rate else ""
        took = sum(outcome.seconds.values())
        what = {"success": f"done in {took:.1f} s", "skipped": "skipped, already complete"}.get(
            outcome.status, f"failed: {outcome.error}"
        )
        level = logging.ERROR if outcome.status == "failed" else logging.INFO
        logger.log(level, "tile %d of %d%s, %s: %s", self._done, self._total, remaining, outcome.tile_id, what)


class _LiveReporter:
    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._rate = progress, _Rate()
        self._task = progress.add_task("starting", total=total, rate="")

    def step(self, tile_id: str, step: str) -> None:
        self._progress.update(self._task, description=f"{escape(tile_id)}  [bold]{step}[/bold]")

    def finished(self, outcome: Outcome) -> None:
        self._rate.count(outcome)
        self._progress.update(self._task, advance=1, rate=self._rate.text())
        if outcome.status == "failed":
            logger.error("%s failed: %s", outcome.tile_id, outcome.error)


def print_summary(outcomes: Sequence[Outcome], seconds: float) -> None:
    """Print how many tiles were done, skipped and failed; a table names those that failed."""
    console = Console(stderr=True)
    count = {state: sum(o.status == state for o in outcomes) for state in ("success", "skipped", "failed")}
    console.print(
        f"{len(outcomes)} tile{'s' * (len(outcomes) != 1)} in {seconds:.1f} s: "
        f"{count['success']} done, {count['skipped']} skipped, {count['failed']} failed",
        highlight=False,
    )
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        print_failures(console, "Failed tiles", "tile", [(outcome.tile_id, outcome.error) for outcome in failed])


def print_failures(console: Console, title: str, heading: str, failures: Iterable[tuple[str, str]]) -> None:
    """Print a table of what failed, each with its error."""
    table = Table(title=title, title_justify="left")
    for name in (heading, "error"):
        table.add_column(name, overflow="fold")
    for name, error in failures:
        table.add_row(escape(name), escape(error))  # messages hold brackets, which Rich takes for markup
    console.print(table)
