"""The live display of a run: tiles, rate, time left, what is in flight, how full workers are, how busy the machine."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from darts.display.line_display import LineReporter
from darts.display.machine_use import MachineUse, MachineWatch
from darts.display.transfers import duration_text, size_text
from darts.records.events import Fill
from darts.records.ledger import Outcome
from darts_utils.threads import available_cores

STAGES = {"load": "loading", "wait": "waiting", "compute": "computing", "export": "exporting"}
REFRESH_PER_S = 4
_BAR_COLUMNS = 50
_DONE, _SKIPPED, _FAILED, _SOFT = "green", "cyan", "bold red", "dim"


@contextmanager
def live_display(console: Console, total: int, workers: Sequence[str] = ()) -> Iterator["LiveReporter"]:
    """Show a run at the bottom of a terminal within the block; lines of the log scroll above it."""
    with MachineWatch(workers).watching() as watch:
        reporter = LiveReporter(total, machine=lambda: watch.use)
        with Live(reporter, console=console, refresh_per_second=REFRESH_PER_S, transient=True):
            yield reporter


@dataclass(frozen=True)
class _InFlight:
    tile_id: str
    step: str
    worker: str
    since: float


class LiveReporter:
    """Hears of a run in one thread and is drawn in another.

    Nothing is logged while the lock is held: the log waits for the screen, and the screen for the lock.
    """

    def __init__(
        self,
        total: int,
        *,
        machine: Callable[[], MachineUse] = MachineUse,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines = LineReporter(total, clock, quiet=True)
        self._machine, self._clock = machine, clock
        self._in_flight: dict[str, _InFlight] = {}
        self._fills: dict[str, Fill] = {}
        self._lock = threading.Lock()

    def step(self, tile_id: str, step: str, worker: str) -> None:
        """A tile enters a step."""
        with self._lock:
            self._in_flight[tile_id] = _InFlight(tile_id, step, worker, self._clock())
            self._lines.course.begin_work()
        self._lines.step(tile_id, step, worker)

    def finished(self, outcome: Outcome) -> None:
        """A tile is done, failed or skipped, or an attempt at it failed and is made again."""
        with self._lock:
            self._in_flight.pop(outcome.tile_id, None)
        self._lines.finished(outcome)

    def fill(self, fill: Fill) -> None:
        """A worker tells how full it is."""
        with self._lock:
            self._fills[fill.worker] = fill
            if not any(fill.tiles.values()):  # it let go of its tiles, because the run stops
                self._in_flight = {key: tile for key, tile in self._in_flight.items() if tile.worker != fill.worker}
        self._lines.fill(fill)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            in_flight, fills = list(self._in_flight.values()), dict(self._fills)
        bar = "-" if options.ascii_only else "━"
        yield from self._drawn(in_flight, fills, options.max_width, console.height, bar)

    def _drawn(
        self, in_flight: list[_InFlight], fills: dict[str, Fill], width: int, height: int, bar: str
    ) -> list[Text]:
        head = [self._bar(width, bar), *_packed(self._counts(), width)]
        foot = _packed(_machine_texts(self._machine()), width)
        workers = sorted({*fills, *(tile.worker for tile in in_flight)})
        if len(workers) <= 1:
            foot = _packed([text for fill in fills.values() for text in _fill_texts(fill)], width) + foot
        room = max(height - 1 - len(head) - len(foot), 0)
        if len(workers) > 1:
            middle = [self._worker_line(name, fills.get(name), in_flight) for name in workers]
            what = "workers"
        else:
            middle = [self._tile_line(tile) for tile in in_flight]
            what = "tiles in flight"
        if len(middle) > room:
            more = len(middle) - max(room - 1, 0)
            middle = [*middle[: max(room - 1, 0)], Text(f"  … and {more} more {what}", style=_SOFT)][:room]
        return [_cropped(line, width) for line in (head + middle + foot)[: max(height - 1, 1)]]

    def _bar(self, width: int, bar: str) -> Text:
        course = self._lines.course
        counter = f"{course.ended}/{course.total} tiles"
        line = Text(no_wrap=True)
        columns = min(_BAR_COLUMNS, width - len(counter) - 1)
        if columns >= 5 and course.total:
            left = columns
            for number, style in ((course.done, _DONE), (course.skipped, _SKIPPED), (course.failed, _FAILED)):
                share = min(round(columns * number / course.total), left)
                share = max(share, min(1, number, left))  # the first failure shows
                line.append(bar * share, style)
                left -= share
            line.append(bar * left, _SOFT).append(" ")
        return line.append(counter, "bold")

    def _counts(self) -> list[Text]:
        course = self._lines.course
        texts = [Text(f"{course.done} done", _DONE if course.done else _SOFT)]
        if course.skipped:
            texts.append(Text(f"{course.skipped} skipped", _SKIPPED))
        texts.append(Text(f"{course.failed} failed", _FAILED if course.failed else _SOFT))
        return texts + [Text(text) for text in (course.rate_text(), course.left_text()) if text]

    def _tile_line(self, tile: _InFlight) -> Text:
        waited = duration_text(self._clock() - tile.since)
        line = Text(f"{waited:>7}  ", _SOFT).append(f"{_readable(tile.step):<16} ", "bold")
        return line.append(_readable(tile.tile_id))

    def _worker_line(self, name: str, fill: Fill | None, in_flight: list[_InFlight]) -> Text:
        line = Text(f"{_readable(name)}: ", "bold")
        own = [tile for tile in in_flight if tile.worker == name]
        own.sort(key=lambda tile: (tile.step.startswith("Loading"), tile.since))  # what computes comes first
        texts = [] if fill is None else [Text(f"{fill.tiles.get('wait', 0)} waiting"), _held(fill)]
        texts += [
            Text(f"{_readable(tile.step)} ")
            .append(duration_text(self._clock() - tile.since), _SOFT)
            .append(f" {_readable(tile.tile_id)}")
            for tile in own
        ]
        return line.append_text(Text(" · ", _SOFT).join(texts)) if texts else line.append("idle", _SOFT)


def _fill_texts(fill: Fill) -> list[Text]:
    stages = {**dict.fromkeys(STAGES, 0), **fill.tiles}
    counts = ", ".join(f"{number} {STAGES.get(stage, stage)}" for stage, number in stages.items() if number)
    return [*([Text(counts)] if counts else []), _held(fill)]


def _held(fill: Fill) -> Text:
    limit = "" if fill.bytes_limit is None else f" of {size_text(fill.bytes_limit)}"
    return Text(f"{size_text(fill.bytes_held)}{limit} held")


def _machine_texts(use: MachineUse) -> list[Text]:
    texts = []
    if use.cores_busy is not None:
        texts.append(f"CPU {use.cores_busy:.1f} of {available_cores()} cores")
    if use.bytes_used is not None:
        free = "" if use.bytes_free is None else f", {size_text(use.bytes_free)} free"
        texts.append(f"memory {size_text(use.bytes_used)}{free}")
    for gpu in use.gpus:
        busy = "" if gpu.busy is None else f"{100 * gpu.busy:.0f} %, "
        texts.append(f"GPU {gpu.index} {busy}{size_text(gpu.bytes_used)} of {size_text(gpu.bytes_total)}")
    return [Text(text, _SOFT) for text in texts]


def _packed(texts: Sequence[Text], width: int) -> list[Text]:
    """Return texts in as few lines as they fit into, with a dot between neighbours."""
    lines: list[Text] = []
    for text in texts:
        if lines and lines[-1].cell_len + 3 + text.cell_len <= width:
            lines[-1].append(" · ", _SOFT).append_text(text)
        else:
            lines.append(Text().append_text(text))
    return lines


def _cropped(line: Text, width: int) -> Text:
    line.no_wrap, line.overflow = True, "ellipsis"
    line.truncate(max(width, 1), overflow="ellipsis")
    return line


def _readable(text: str) -> str:
    """Return a name without characters that would move the cursor or cannot be encoded."""
    return "".join(character if character.isprintable() else "�" for character in text)
