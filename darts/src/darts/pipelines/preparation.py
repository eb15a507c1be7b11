"""Downloads ahead of an offline run: each is whole or absent, a failed one never stops the others."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from darts.display.console import Failure, print_failures, say
from darts.display.transfers import TransferDisplay, duration_text, size_text, transferring

logger = logging.getLogger("darts.pipelines.preparation")

SCENES_AT_ONCE = 2
"""Scenes in flight: while one is decoded the next is fetched. Each fetches several assets at once by itself."""


@dataclass(frozen=True)
class Download:
    """Something that is fetched as a whole."""

    name: str
    n_bytes: int | None
    """What is still to come; None if the source does not say."""
    fetch: Callable[[], None]


@dataclass
class Preparation:
    """What became of the downloads."""

    fetched: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Name → error."""
    n_bytes: int = 0
    """Received over the network."""
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0: all is there; 1: some could not be had."""
        return 1 if self.failed else 0


@contextmanager
def receiving(what: str, items: int, n_bytes: int | None, into: Preparation) -> Iterator[TransferDisplay]:
    """Give the display for `items` downloads of `what`, and add bytes and seconds to `into`."""
    start = monotonic()
    with transferring(what, items, n_bytes) as display:
        try:
            yield _Counter(display, into)
        finally:
            into.seconds += monotonic() - start


def total_bytes(downloads: Sequence[Download]) -> int | None:
    """Return the sum of all sizes, None if one is unknown."""
    known = [download.n_bytes for download in downloads if download.n_bytes is not None]
    return sum(known) if len(known) == len(downloads) else None


def fetch_all(
    downloads: Sequence[Download], display: TransferDisplay, into: Preparation, *, at_once: int = SCENES_AT_ONCE
) -> None:
    """Fetch `downloads`, some at once, and note in `into` what became of each."""
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="darts-fetch")
    try:
        left: dict[Future[None], str] = {pool.submit(download.fetch): download.name for download in downloads}
        while left:
            for future in wait(left, return_when=FIRST_COMPLETED).done:
                _note(left.pop(future), future, display, into)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def print_preparation(result: Preparation) -> None:
    """Print what was fetched, what was there, and a table of what could not be had."""
    fetched = f"{len(result.fetched)} fetched"
    if result.n_bytes:
        rate = size_text(result.n_bytes / max(result.seconds, 1e-6))
        fetched += f" ({size_text(result.n_bytes)} in {duration_text(result.seconds)}, {rate}/s)"
    say(f"{fetched}, {len(result.present)} already there, {len(result.failed)} failed")
    if result.failed:
        print_failures("Failed downloads", "what", [Failure(name, error) for name, error in result.failed.items()])


def _note(name: str, future: Future[None], display: TransferDisplay, into: Preparation) -> None:
    try:
        future.result()
    except Exception as error:  # as in the executor: one that cannot be had must not stop the others
        logger.debug("%s failed", name, exc_info=True)
        into.failed[name] = f"{type(error).__name__}: {error}"
        display.failed(name, error)
    else:
        into.fetched.append(name)
        display.done(name)


class _Counter:
    """Hands on what it hears and adds up bytes."""

    def __init__(self, display: TransferDisplay, into: Preparation) -> None:
        self._display, self._into = display, into

    def received(self, n_bytes: int) -> None:
        self._into.n_bytes += n_bytes
        self._display.received(n_bytes)

    def done(self, item: str) -> None:
        self._display.done(item)

    def failed(self, item: str, error: Exception) -> None:
        self._display.failed(item, error)
