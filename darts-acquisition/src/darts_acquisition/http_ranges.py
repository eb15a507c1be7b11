"""Files on HTTP servers, read in ranges: only what is needed, each range verified and tried again where that helps."""

import contextlib
import io
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import requests
import requests.adapters

from darts_acquisition.asset_servers import PassingError, RefusedError, innermost, shown
from darts_acquisition.retries import PASSING_STATUS, retry_after_s
from darts_acquisition.transfer_report import SILENT, TransferReport
from darts_acquisition.transfers import StoppedError, seconds_to_wait
from darts_utils.errors import RemoteError

T = TypeVar("T")

HEADER_BYTES = 1 << 16
"""Read at least at a time, where nothing was fetched ahead."""
GAP_BYTES = 1 << 16
"""Ranges that are no further apart are fetched as one."""
LONGEST_RANGE_BYTES = 8 << 20
_BLOCK_BYTES = 1 << 18


@dataclass(frozen=True)
class RangeServer:
    """How servers are asked for ranges; shared by all threads."""

    session: requests.Session
    timeout_s: float = 60
    retries: int = 5
    report: TransferReport = SILENT
    stop: threading.Event | None = None
    """Ends all reading when set."""

    def wait(self, seconds: float) -> None:
        """Wait, unless told to stop.

        Raises:
            StoppedError: it was.
        """
        if self.stop is None:
            time.sleep(seconds)
        elif self.stop.wait(seconds):
            raise StoppedError("the reading of a remote file")


def range_session(connections: int) -> requests.Session:
    """Return a session for so many threads."""
    session = requests.Session()
    adapter = requests.adapters.HTTPAdapter(pool_maxsize=connections, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    # Ranges of a compressed body would be other bytes.
    session.headers["Accept-Encoding"] = "identity"
    return session


class RemoteFile:
    """A file on an HTTP server; what was read of it is kept."""

    def __init__(self, url: str, what: str, server: RangeServer) -> None:
        self.failure: BaseException | None = None
        """What a reader could not raise, since libraries in between swallow exceptions."""
        self._url, self._server = url, server
        self._where = f"{what}, {shown(url)}"
        self._parts: list[tuple[int, bytes]] = []
        self._size: int | None = None
        self._version: str | None = None

    def open(self, path: str, mode: str = "rb") -> io.RawIOBase:
        """Return a reader with a position of its own, whatever the path, as `rasterio.open(…, opener=…)` wants it."""
        return _Reader(self)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        if self._size is None:
            self._fetch(0, HEADER_BYTES)
        assert self._size is not None
        return self._size

    def fetch_ahead(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch ranges (start, end) that will be read, in few requests."""
        for start, end in _merged(ranges):
            if self._kept(start, end - start) is None:
                self._fetch(start, end)

    def read(self, start: int, length: int) -> bytes:
        """Return bytes, fewer where the file ends.

        Raises:
            RemoteError: they cannot be had; names the file and the cause.
        """
        end = min(start + length, self.size)
        if end <= start:
            return b""
        kept = self._kept(start, end - start)
        if kept is None:
            self._fetch(start, min(max(end, start + HEADER_BYTES), self.size))
            kept = self._kept(start, end - start)
            assert kept is not None
        return kept

    def _kept(self, start: int, length: int) -> bytes | None:
        for at, part in reversed(self._parts):
            if at <= start and start + length <= at + len(part):
                return part[start - at : start - at + length]
        return None

    def _fetch(self, start: int, end: int) -> None:
        received = bytearray()
        tries = 0
        while True:
            try:
                for block in self._blocks(start + len(received), end):
                    received += block
                    self._server.report.received(len(block))
                break
            except RefusedError as error:
                raise RemoteError(f"{self._where}: {error}") from error
            except PassingError as fault:
                tries += 1
                if tries > self._server.retries:
                    raise RemoteError(
                        f"{self._where}: {fault}, at the last of {tries} tries. Try again later.", transient=True
                    ) from fault
                self._server.wait(seconds_to_wait(fault, tries, self._where))
        self._parts.append((start, bytes(received)))

    def _blocks(self, start: int, end: int) -> Iterator[bytes]:
        self._server.wait(0)
        headers = {"Range": f"bytes={start}-{end - 1}"}
        with (
            _faults(self._server.timeout_s),
            self._server.session.get(
                self._url, headers=headers, stream=True, timeout=self._server.timeout_s
            ) as response,
        ):
            expected = self._check(response, start, end)
            received = 0
            for block in response.iter_content(_BLOCK_BYTES):
                received += len(block)
                if received > expected:
                    raise RefusedError(f"the server sent more than the {expected} bytes asked for")
                yield block
                self._server.wait(0)
            if received < expected:
                raise PassingError(f"the server sent {received} of {expected} bytes")

    def _check(self, response: requests.Response, start: int, end: int) -> int:
        """Return how many bytes a good reply has."""
        status = response.status_code
        if status == 200:
            raise PassingError("the server sent the whole file when asked for a range")
        answered = f"the server answered {status} {response.reason or ''}".rstrip()
        if status in PASSING_STATUS:
            raise PassingError(answered, retry_after_s=retry_after_s(response.headers.get("Retry-After")))
        place = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
        if status != 206:
            raise RefusedError(
                f"{answered}: it wants permission that we have not" if status in (401, 403) else answered
            )
        if place is None:
            raise PassingError("the server did not say which range it sent")
        first, last, size = map(int, place.groups())
        version = response.headers.get("ETag")
        if self._size is None:
            self._size, self._version = size, version
        if (size, version) != (self._size, self._version):
            raise RefusedError("the file changed while it was read; try again")
        if (first, last) != (start, min(end, size) - 1):
            raise PassingError("the server sent another range than asked for")
        return last + 1 - first


class _Reader(io.RawIOBase):
    """A position in a remote file. Reads nothing once reading failed; the failure stands in `RemoteFile.failure`."""

    def __init__(self, file: RemoteFile) -> None:
        super().__init__()
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence)
        self._at = offset + (self._guarded(lambda: self._file.size, 0) if start is None else start)
        return self._at

    def read(self, length: int = -1) -> bytes:
        data = self._guarded(lambda: self._file.read(self._at, length if length >= 0 else self._file.size), b"")
        self._at += len(data)
        return data

    def _guarded(self, ask: Callable[[], T], otherwise: T) -> T:
        try:
            return otherwise if self._file.failure is not None else ask()
        except BaseException as error:
            self._file.failure = error
            return otherwise


@contextlib.contextmanager
def _faults(timeout_s: float) -> Iterator[None]:
    """Tell errors of requests apart as passing and final."""
    try:
        yield
    except requests.Timeout as error:
        raise PassingError(f"the server was silent for {timeout_s:g} s") from error
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        # Silence within the body comes in these classes too.
        cause, what = innermost(error)
        silent = isinstance(cause, TimeoutError) or "timed out" in str(error)
        raise PassingError(
            f"the server was silent for {timeout_s:g} s" if silent else f"the connection broke ({what})"
        ) from error
    except requests.RequestException as error:
        raise RefusedError(f"cannot be asked for ({type(error).__name__})") from error


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start - merged[-1][1] <= GAP_BYTES and end - merged[-1][0] <= LONGEST_RANGE_BYTES:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
