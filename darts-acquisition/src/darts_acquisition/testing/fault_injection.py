"""The process of the fault proxy: passes requests on, and breaks the responses that a rule hits."""

import contextlib
import dataclasses
import http.client
import re
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from darts_acquisition.testing.faults import Fault, ProxiedRequest
from darts_acquisition.testing.loopback import LoopbackHandler, LoopbackServer

_OF_BODY = ("truncate_right_length", "truncate_short_length", "corrupt")
_HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
_BLOCK = 65536


def make_server(upstream: str, latency_s: float, bytes_per_second: float | None) -> "ProxyServer":
    """Return the proxy, not yet serving."""
    return ProxyServer(upstream, latency_s, bytes_per_second)


@dataclass
class _State:
    rules: list[Fault] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)
    log: list[ProxiedRequest] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0


class ProxyServer(LoopbackServer):
    """Accepts connections and knows the rules."""

    def __init__(self, upstream: str, latency_s: float, bytes_per_second: float | None) -> None:
        super().__init__(_Handler)
        self.upstream = upstream
        self.latency_s = latency_s
        self.bytes_per_second = bytes_per_second
        self._state = _State()

    def set_rules(self, rules: list[dict[str, Any]]) -> None:
        """Put these rules in place of all earlier ones."""
        with self.lock:
            self._state.rules, self._state.hits = [Fault(**rule) for rule in rules], [0] * len(rules)

    def clear(self) -> None:
        """Forget rules and requests."""
        with self.lock:
            self._state = _State(in_flight=self._state.in_flight)

    def requests(self) -> list[list[Any]]:
        """Return the fields of the requests seen."""
        with self.lock:
            return [list(dataclasses.astuple(request)) for request in self._state.log]

    def most_in_flight(self) -> int:
        """Return the most requests that were being answered at once."""
        return self._state.most_in_flight

    def take_fault(self, method: str, path: str, range_header: str | None) -> Fault | None:
        """Log a request and return the fault that hits its response."""
        with self.lock:
            fault = None
            for n, rule in enumerate(self._state.rules):
                left = rule.times is None or self._state.hits[n] < rule.times
                # What cannot be done to a response must not use up a rule.
                possible = not (method == "HEAD" and rule.action in _OF_BODY)
                possible &= rule.action != "ignore_range" or range_header is not None
                if left and possible and re.search(rule.match, f"{method} {path}"):
                    self._state.hits[n] += 1
                    fault = rule
                    break
            action = None if fault is None else fault.action
            self._state.log.append(ProxiedRequest(method, path, range_header, time.monotonic(), action))
            return fault

    @contextlib.contextmanager
    def count_in_flight(self) -> Iterator[None]:
        """Count one request more until the block ends."""
        with self.lock:
            self._state.in_flight += 1
            self._state.most_in_flight = max(self._state.most_in_flight, self._state.in_flight)
        try:
            yield
        finally:
            with self.lock:
                self._state.in_flight -= 1


class _Handler(LoopbackHandler):
    server: ProxyServer

    def answer(self) -> None:
        body = self.read_body()
        with self.server.count_in_flight():
            fault = self.server.take_fault(self.command, self.path, self.headers.get("Range"))
            if fault is not None and fault.action == "status":
                self.server.closing.wait(self.server.latency_s)
                retry = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
                self.reply(fault.status, fault.body.encode(), fault.content_type, retry)
                return
            if fault is not None and fault.action in ("reset", "stall") and fault.after_bytes < 0:
                self._break_off(fault)
                return
            self._forward(body, fault)

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        address = urllib.parse.urlsplit(self.server.upstream)
        upstream = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
        try:
            upstream.putrequest(self.command, address.path + self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                dropped = name.lower() in _HOP_BY_HOP | {"content-length", "expect"}
                if not dropped and not (fault and fault.action == "ignore_range" and name.lower() == "range"):
                    upstream.putheader(name, value)
            if body or self.command in ("POST", "PUT", "PATCH"):
                upstream.putheader("Content-Length", str(len(body)))
            upstream.putheader("Connection", "close")
            upstream.endheaders(body or None)
            response = upstream.getresponse()
            self.server.closing.wait(self.server.latency_s)
            self._relay(response, fault)
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if not self.server.closing.is_set() and not self.close_connection:
                self.close_connection = True
                self.reply(502, f"the server behind the proxy failed: {error!r}".encode(), "text/plain")
        finally:
            upstream.close()

    def _relay(self, response: http.client.HTTPResponse, fault: Fault | None) -> None:
        """Send the server's response on, with its fault."""
        length = response.getheader("Content-Length")
        as_json = "json" in (response.getheader("Content-Type") or "")
        streamed = fault is None and not as_json and length is not None and self.command != "HEAD"
        body = b"" if streamed else response.read()
        if as_json:
            body = body.replace(self.server.upstream.encode(), self.server.url.encode())
        size = int(length or 0) if streamed or self.command == "HEAD" else len(body)
        kept = len(body)
        if fault is not None and fault.action not in ("corrupt", "ignore_range"):
            kept = min(max(fault.after_bytes, 0), len(body) // 2)
        if fault is not None and fault.action == "corrupt":
            body = _flip_the_middle(body)

        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        if response.status not in (204, 304) and not 100 <= response.status < 200:
            short = fault is not None and fault.action == "truncate_short_length"
            self.send_header("Content-Length", str(kept if short else size))
        if fault is not None and fault.action in ("truncate_right_length", "reset", "stall"):
            self.close_connection = True
        # A failure from here on cannot be told with a status any more.
        self.end_headers()
        try:
            if streamed:
                while block := response.read(_BLOCK):
                    self._send(block)
                self.close_connection |= bool(response.length)
            elif self.command != "HEAD":
                self._send(body[:kept])
        except (http.client.HTTPException, OSError):
            self.close_connection = True
            return
        if fault is not None and fault.action in ("reset", "stall"):
            self._break_off(fault)

    def _send(self, data: bytes) -> None:
        rate = self.server.bytes_per_second
        if rate is None:
            self.wfile.write(data)
            return
        step = max(1, min(_BLOCK, int(rate / 20)))
        for start in range(0, len(data), step):
            part = data[start : start + step]
            self.wfile.write(part)
            if self.server.closing.wait(len(part) / rate):
                return

    def _break_off(self, fault: Fault) -> None:
        self.close_connection = True
        if fault.action == "stall":
            self.server.closing.wait(fault.stall_s)
        else:
            self.reset()


def _flip_the_middle(body: bytes) -> bytes:
    start = len(body) // 2
    stop = min(len(body), start + 16)
    return body[:start] + bytes(byte ^ 0xFF for byte in body[start:stop]) + body[stop:]
