"""Threaded HTTP/1.1 servers on 127.0.0.1 that end, with all their connections, when their block does."""

import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LoopbackServer(ThreadingHTTPServer):
    """An HTTP server on a free port of 127.0.0.1."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type["LoopbackHandler"]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        """Base address without a trailing slash."""
        self.closing = threading.Event()
        """Set when the server ends; whoever waits waits on this."""
        self.lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread | None] = {}

    def address(self) -> str:
        """Return the base address."""
        return self.url

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, so that an idle one can be ended too."""
        with self.lock:
            self._connections[request] = None
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        with self.lock:
            self._connections[request] = threading.current_thread()
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self.lock:
                self._connections.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that hang up are what faults are about; anything else fails the test by itself."""

    def end(self) -> None:
        """Stop serving, end every connection and wait for their threads."""
        self.closing.set()
        self.shutdown()
        self.server_close()
        with self.lock:
            connections = dict(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in connections.values():
            if thread is not None:
                thread.join(5)


class LoopbackHandler(BaseHTTPRequestHandler):
    """Handles the requests of one connection, which stays open between them."""

    protocol_version = "HTTP/1.1"
    server: Any
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def answer(self) -> None:
        """Answer one request, whatever its method."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Answer one request."""
        self.answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET  # noqa: N815

    def read_body(self) -> bytes:
        """Return the body of the request."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole response; a HEAD request gets no body."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(self, status: int, value: Any, content_type: str = "application/json") -> None:
        """Send a value as JSON."""
        self.reply(status, json.dumps(value).encode(), content_type)

    def reset(self) -> None:
        """End the connection with a TCP reset instead of an orderly close."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Files made from the socket keep it open past its own close(); the descriptor itself must go.
            os.close(self.connection.detach())

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass


@contextlib.contextmanager
def serving(server: LoopbackServer) -> Iterator[None]:
    """Serve until the block ends, however it ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.end()
        thread.join(5)
