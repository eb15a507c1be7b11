"""A proxy between a client and a server on 127.0.0.1 that puts faults into the responses."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from darts_acquisition.testing.child import Child, child_server
from darts_utils.errors import ConfigError

Action = Literal[
    "status", "reset", "truncate_right_length", "truncate_short_length", "stall", "corrupt", "ignore_range"
]


@dataclass(frozen=True)
class Fault:
    """What is wrong with the responses to some requests."""

    match: str
    """Regular expression, searched for in `METHOD /path?query`."""
    action: Action
    """`status`: an error instead of asking the server. `reset`: TCP reset in the body. `truncate_right_length`: the
    body ends early, though the header gives its whole length. `truncate_short_length`: as if the short body were all.
    `stall`: silence in the body. `corrupt`: bytes in the middle are flipped. `ignore_range`: 200 and the whole body
    to a request for a range."""
    status: int = 503
    """Of the action `status`."""
    retry_after: float | None = None
    """Seconds in the header Retry-After of the action `status`; None: no such header."""
    times: int | None = None
    """How many responses are hit; None: all."""
    after_bytes: int = 1000
    """Bytes of the body that still arrive, at most half of it; negative: not even the headers (reset, stall)."""
    stall_s: float = 30
    """Length of the silence; after it the connection closes."""
    body: str = "injected by the fault proxy"
    """Of the action `status`, such as an error of S3 in XML."""
    content_type: str = "text/plain"
    """Of `body`."""

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ConfigError(f"no such fault: {self.action!r}; there are {', '.join(get_args(Action))}")
        try:
            re.compile(self.match)
        except re.error as error:
            raise ConfigError(f"match of a fault is no regular expression: {self.match!r} ({error})") from error


@dataclass(frozen=True)
class ProxiedRequest:
    """A request as the proxy saw it."""

    method: str
    path: str
    """With its query."""
    range: str | None
    """Its Range header."""
    started_s: float
    """When it came, on a clock that only goes forward."""
    fault: str | None
    """The action that hit it."""


class FaultProxy:
    """A running proxy."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self.url: str = child.call("address")
        """Base address without a trailing slash."""

    def faults(self, *rules: Fault) -> None:
        """Put these rules in place of all earlier ones; the first that matches and is not used up hits."""
        self._child.call("set_rules", [dataclasses.asdict(rule) for rule in rules])

    def clear(self) -> None:
        """Remove the rules, and forget the requests seen and `max_in_flight`."""
        self._child.call("clear")

    def end(self) -> None:
        """End all connections and answer no more, before the block does."""
        self._child.end()

    @property
    def log(self) -> list[ProxiedRequest]:
        """The requests seen, in order of arrival."""
        return [ProxiedRequest(*entry) for entry in self._child.call("requests")]

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and path (with query) of the requests seen."""
        return [(request.method, request.path) for request in self.log]

    @property
    def max_in_flight(self) -> int:
        """The most requests that were being answered at the same moment."""
        most: int = self._child.call("most_in_flight")
        return most


@contextlib.contextmanager
def fault_proxy(upstream: str, *, latency_s: float = 0, bytes_per_second: float | None = None) -> Iterator[FaultProxy]:
    """Stand before a server until the block ends, in a process of its own.

    Addresses of the server in JSON responses become the proxy's, so that links lead through it too. Everything else,
    the Host header and with it the signature of a request included, passes as it is.

    Args:
        upstream: base address of the server, `http://127.0.0.1:PORT`, with a path or without.
        latency_s: added before the first byte of each response; requests in flight at once wait side by side.
        bytes_per_second: rate of each response; None: no limit.
    """
    options = {"latency_s": latency_s, "bytes_per_second": bytes_per_second}
    with child_server("fault_injection", upstream=upstream.rstrip("/"), **options) as child:
        yield FaultProxy(child)
