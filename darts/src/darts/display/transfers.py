"""What a user sees of downloads: bytes, rate and time left, live on a terminal and in plain lines elsewhere."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from darts.display.logs import live_console

logger = logging.getLogger("darts.display.transfers")

LINE_EVERY_S = 15.0
"""Plain lines come this often, and at each item that is done."""
RATE_OVER_S = 60.0
"""The rate is that of the last minute, so that it follows what the network gives now."""


class TransferDisplay(Protocol):
    """Hears of downloads from any thread."""

    def received(self, n_bytes: int) -> None:
        """So many bytes more were received."""

    def done(self, item: str) -> None:
        """An item (a scene, a chunk of a cube) is there."""

    def failed(self, item: str, error: Exception) -> None:
        """An item cannot be had."""


class _NoDisplay:
    def received(self, n_bytes: int) -> None:
        pass

    def done(self, item: str) -> None:
        pass

    def failed(self, item: str, error: Exception) -> None:
        pass


SILENT: TransferDisplay = _NoDisplay()
"""Shows nothing."""


@contextmanager
def transferring(what: str, items: int, n_bytes: int | None) -> Iterator[TransferDisplay]:
    """Give the display for `items` downloads of `what` (scenes, chunks) that have `n_bytes` in all, None if unknown."""
    state = TransferState(what, items, n_bytes)
    console = live_console()
    if console is None:
        yield _PlainDisplay(state)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        yield _LiveDisplay(state, progress)


class TransferState:
    """Counts what came, and tells rate and time left; safe for threads."""

    def __init__(self, what: str, items: int, n_bytes: int | None) -> None:
        self.what, self.items, self.n_bytes = what, items, n_bytes
        self.items_done = self.bytes_done = 0
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._samples: list[tuple[float, int, int]] = [(self._start, 0, 0)]

    def add(self, *, items: int = 0, n_bytes: int = 0) -> None:
        """Count what came."""
        with self._lock:
            self.items_done += items
            self.bytes_done += n_bytes
            now = time.monotonic()
            if items or now - self._samples[-1][0] > 0.5:
                self._samples.append((now, self.bytes_done, self.items_done))
                while len(self._samples) > 2 and now - self._samples[0][0] > RATE_OVER_S:
                    del self._samples[0]

    def text(self) -> str:
        """Return how far it is, such as `3 of 12 scenes, 1.2 GB of 4.8 GB, 23.4 MB/s, about 2 min left`."""
        parts = [f"{self.items_done} of {self.items} {self.what}"]
        if self.bytes_done or self.n_bytes:
            of = "" if self.n_bytes is None else f" of {size_text(self.n_bytes)}"
            parts.append(f"{size_text(self.bytes_done)}{of}")
        with self._lock:
            then, then_bytes, then_items = self._samples[0]
        seconds = max(time.monotonic() - then, 1e-6)
        per_second = (self.bytes_done - then_bytes) / seconds
        if per_second > 0:
            parts.append(f"{size_text(per_second)}/s")
        left_s = self._seconds_left(per_second, (self.items_done - then_items) / seconds)
        if left_s is not None:
            parts.append(f"about {duration_text(left_s)} left")
        return ", ".join(parts)

    def _seconds_left(self, bytes_per_second: float, items_per_second: float) -> float | None:
        if self.items_done >= self.items:
            return None
        if self.n_bytes and bytes_per_second > 0:
            return max(self.n_bytes - self.bytes_done, 0) / bytes_per_second
        if items_per_second > 0:
            return (self.items - self.items_done) / items_per_second
        return None


class _PlainDisplay:
    def __init__(self, state: TransferState) -> None:
        self._state = state
        self._last = time.monotonic()

    def received(self, n_bytes: int) -> None:
        self._state.add(n_bytes=n_bytes)
        if time.monotonic() - self._last > LINE_EVERY_S:
            self._last = time.monotonic()
            logger.info("%s", self._state.text())

    def done(self, item: str) -> None:
        self._state.add(items=1)
        self._last = time.monotonic()
        logger.info("%s is there; %s", item, self._state.text())

    def failed(self, item: str, error: Exception) -> None:
        self._state.add(items=1)
        logger.error("%s failed: %s", item, error)


class _LiveDisplay:
    def __init__(self, state: TransferState, progress: Progress) -> None:
        self._state, self._progress = state, progress
        self._in_bytes = state.n_bytes is not None
        total = state.n_bytes if self._in_bytes else state.items
        self._task = progress.add_task("fetching", total=total, state=state.text())

    def received(self, n_bytes: int) -> None:
        self._state.add(n_bytes=n_bytes)
        self._update()

    def done(self, item: str) -> None:
        self._state.add(items=1)
        logger.debug("%s is there", item)
        self._update()

    def failed(self, item: str, error: Exception) -> None:
        self._state.add(items=1)
        logger.error("%s failed: %s", item, error)
        self._update()

    def _update(self) -> None:
        completed = self._state.bytes_done if self._in_bytes else self._state.items_done
        self._progress.update(self._task, completed=completed, state=self._state.text())


def size_text(n_bytes: float) -> str:
    """Return a number of bytes as a person reads it, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n_bytes) < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def duration_text(seconds: float) -> str:
    """Return a duration as a person reads it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
