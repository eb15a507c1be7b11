"""How much memory the tiles in flight may take together."""

import threading
from collections.abc import Hashable


class MemoryGate:
    """Lets holders in while their bytes fit below a limit; one alone always may, however large.

    Nobody knows the bytes of a tile before it is loaded: the largest seen so far stands for it, and the very first
    is let in alone.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._held: dict[Hashable, int] = {}
        self._largest: int | None = None
        self._open = True
        self._changed = threading.Condition()

    @property
    def held(self) -> int:
        """Bytes of all holders."""
        with self._changed:
            return sum(self._held.values())

    def enter(self, holder: Hashable) -> bool:
        """Wait until there is room for a holder of unknown size; return False if the gate was shut meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open or self._fits())
            if self._open:
                self._held[holder] = self._expected()
            return self._open

    def resize(self, holder: Hashable, n_bytes: int, *, seen: bool = False) -> None:
        """Say how much a holder takes from now on; `seen`: that is what a loaded tile takes, so others may too."""
        with self._changed:
            self._held[holder] = n_bytes
            if seen:
                self._largest = max(n_bytes, self._largest or 0)
            self._changed.notify_all()

    def leave(self, holder: Hashable) -> None:
        """Give back what a holder took; one that never entered is passed over."""
        with self._changed:
            self._held.pop(holder, None)
            self._changed.notify_all()

    def shut(self) -> None:
        """Let nobody in any more."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def _expected(self) -> int:
        return self._largest if self._largest is not None else (self.limit or 0)

    def _fits(self) -> bool:
        if not self._held:
            return True
        if self._largest is None:
            return False  # the first tile tells how large they are
        return self.limit is None or sum(self._held.values()) + self._largest <= self.limit
