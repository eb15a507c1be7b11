"""Our own limit on how often we ask a server."""

import threading
import time


class RateLimit:
    """Lets at most so many requests a second pass, evenly spaced, whatever the number of threads; None: no limit."""

    def __init__(self, per_second: float | None) -> None:
        self._interval = 0.0 if per_second is None else 1.0 / per_second
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Return when the next request may be sent."""
        if not self._interval:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._interval
        time.sleep(start - now)


_shared: dict[tuple[str, float | None], RateLimit] = {}
_shared_lock = threading.Lock()


def shared_limit(server: str, per_second: float | None) -> RateLimit:
    """Return the one limit of this process for a server at this rate."""
    with _shared_lock:
        return _shared.setdefault((server, per_second), RateLimit(per_second))
