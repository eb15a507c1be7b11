"""What a user sees while a run goes on: a live display on a terminal, else lines of the log."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from darts.display.line_display import LineReporter
from darts.display.logs import live_console
from darts.records.events import Fill
from darts.records.ledger import Outcome


class Reporter(Protocol):
    """Shows how far a run is; called from the thread of the coordinator alone."""

    def step(self, tile_id: str, step: str, worker: str) -> None:
        """A tile enters a step."""

    def finished(self, outcome: Outcome) -> None:
        """A tile is done, failed or skipped, or an attempt at it failed and is made again."""

    def fill(self, fill: Fill) -> None:
        """A worker tells how full it is."""


@contextmanager
def reporting(total: int, *, workers: Sequence[str] = ()) -> Iterator[Reporter]:
    """Give the reporter that fits where the log goes: a live display on a terminal, else lines, plain or JSON.

    `workers` are the devices or workers that compute; the display shows the GPUs among them.
    """
    console = live_console()
    if console is None:
        yield LineReporter(total)
        return
    from darts.display.live_display import live_display

    with live_display(console, total, workers) as reporter:
        yield reporter
