"""How far a run is: tiles by what became of them, their rate, and the time left."""

import time
from collections import deque
from collections.abc import Callable

from darts.display.transfers import duration_text
from darts.records.ledger import Outcome

RATE_OVER_S = 900.0
"""The rate is that of the last quarter of an hour, so that it follows what tiles take now ..."""
RATE_OVER_TILES = 16
"""... and of so many tiles at least."""


class Course:
    """Counts the tiles of a run as they end."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = self.failed = self.skipped = 0
        self._clock = clock
        self._since: float | None = None
        self._ends: deque[float] = deque()

    @property
    def ended(self) -> int:
        """Tiles that were done, failed or skipped."""
        return self.done + self.failed + self.skipped

    @property
    def left(self) -> int:
        """Tiles that did not end yet."""
        return max(self.total - self.ended, 0)

    def begin_work(self) -> None:
        """Hear that a tile is worked on; the first one starts the clock, so that skips before it do not count."""
        if self._since is None:
            self._since = self._clock()

    def count(self, outcome: Outcome) -> None:
        """Count a tile that ended; an attempt that is made again is no end."""
        if outcome.again:
            return
        if outcome.status == "skipped":
            self.skipped += 1
            return
        self.done += outcome.status == "success"
        self.failed += outcome.status == "failed"
        self.begin_work()
        now = self._clock()
        self._ends.append(now)
        while len(self._ends) > RATE_OVER_TILES and now - self._ends[0] > RATE_OVER_S:
            self._since = self._ends.popleft()

    def per_second(self) -> float | None:
        """Return the rate at which tiles that are worked on end, None before the first.

        It counts ends, not seconds a tile: tiles overlap. Between two ends it stays, unless the next is overdue.
        """
        if not self._ends or self._since is None:
            return None
        n = len(self._ends)
        seconds = max(self._ends[-1] - self._since, (self._clock() - self._since) * n / (n + 1))
        return n / seconds if seconds > 0 else None

    def seconds_left(self) -> float | None:
        """Return about how long the tiles that are left take, None where that is not known."""
        rate = self.per_second()
        if rate is None or not self.left:
            return None
        waited = min(self._clock() - self._ends[-1], 1 / rate)
        return self.left / rate - waited

    def rate_text(self) -> str:
        """Return the rate as a person reads it, empty before the first tile."""
        rate = self.per_second()
        if rate is None:
            return ""
        return f"{60 * rate:.1f} tiles/min" if rate >= 1 / 60 else f"{3600 * rate:.1f} tiles/h"

    def left_text(self) -> str:
        """Return the time left as a person reads it, empty where it is not known."""
        seconds = self.seconds_left()
        return "" if seconds is None else f"about {duration_text(seconds)} left"
