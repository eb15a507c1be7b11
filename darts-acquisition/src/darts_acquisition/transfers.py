"""Fetching one asset into a file: tried again where that helps, continued where it broke off, verified in any case."""

import contextlib
import errno
import logging
import threading
import urllib.parse
from pathlib import Path
from typing import IO, Any

from darts_acquisition.asset_servers import AssetServers, Body, PassingError, RefusedError, shown
from darts_acquisition.checksums import Checksum, parse_multihash
from darts_acquisition.rate_limit import RateLimit, shared_limit
from darts_acquisition.retries import MAX_RETRY_AFTER_S, backoff_s
from darts_acquisition.stac_sources import StacSource
from darts_acquisition.transfer_report import SILENT, TransferReport
from darts_utils.errors import DartsError, RemoteError, StoreError

logger = logging.getLogger("darts.acquisition")

BACKOFF_S = 0.5
"""Wait before the second try; doubled each time, up to MAX_BACKOFF_S."""
MAX_BACKOFF_S = 30.0
MISMATCH_RETRIES = 2
"""How often a file with a wrong size or checksum is fetched again from the start."""

_SLOTS_LOCK = threading.Lock()
_SLOTS: dict[tuple[str, int], threading.Semaphore] = {}


class StoppedError(Exception):
    """The transfer was told to stop."""


def fetch(
    href: str,
    target: Path,
    *,
    source: StacSource,
    what: str = "asset",
    size: int | None = None,
    checksum: str | None = None,
    profile: str = "default",
    servers: AssetServers | None = None,
    report: TransferReport = SILENT,
    stop: threading.Event | None = None,
) -> None:
    """Fetch an asset into the file `target`, which appears when its size and checksum are right, or not at all.

    Passing failures (429, 5xx, a broken connection, silence) are tried `source.retries` times again, after the wait the
    server asks for, else after one that doubles. No more than `source.connections` transfers run at once, and requests
    keep to `source.requests_per_second`, whatever the number of threads and scenes in this process.

    Args:
        href: `s3://`, `http(s)://`, `file://` or a path.
        target: the file; its folder must exist.
        source: whose asset it is.
        what: names scene and asset in errors.
        size: bytes that are expected; None: whatever the server sends.
        checksum: multihash in hexadecimal; None: not checked.
        profile: AWS profile with the keys for `s3://`.
        servers: connections to share between calls.
        report: hears of the bytes as they come.
        stop: ends the transfer when set.

    Raises:
        RemoteError: the asset cannot be had, or is not what was expected; names it, the address and the cause.
        StoreError: the file cannot be written, as on a full disk.
        ConfigError: the AWS profile does not exist.
        StoppedError: `stop` was set.
    """
    servers = servers or AssetServers(source, profile)
    transfer = _Transfer(
        href, f"{what}, {shown(href)}", source, size, parse_multihash(checksum), servers, report,
        stop or threading.Event(),
    )  # fmt: skip
    partial = target.with_name(f".{target.name}.part")
    try:
        with partial.open("wb") as file:
            transfer.run(file)
        partial.replace(target)
    except DartsError:
        raise
    except OSError as error:
        raise StoreError(
            f"{what}: cannot write into {target.parent}: {error.strerror or error}. Nothing was left behind. "
            + ("Free space on that disk, or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Choose")
            + " another folder."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def seconds_to_wait(fault: PassingError, tries: int, where: str) -> float:
    """Return how long to wait before the next try, after so many: as the server asks, else longer each time.

    Raises:
        RemoteError: the server asks for more than MAX_RETRY_AFTER_S; names `where`.
    """
    if fault.retry_after_s is not None and fault.retry_after_s > MAX_RETRY_AFTER_S:
        raise RemoteError(
            f"{where}: {fault} and asks to wait for {fault.retry_after_s:.0f} s. Try again then.", transient=True
        ) from fault
    wait_s = fault.retry_after_s
    if wait_s is None:
        wait_s = backoff_s(tries, BACKOFF_S, MAX_BACKOFF_S)
    logger.info("%s: %s; trying again in %.1f s", where, fault, wait_s)
    return wait_s


class _Transfer:
    """The state of one fetch."""

    def __init__(
        self,
        href: str,
        where: str,
        source: StacSource,
        size: int | None,
        checksum: Checksum | None,
        servers: AssetServers,
        report: TransferReport,
        stop: threading.Event,
    ) -> None:
        self._href, self._where, self._source = href, where, source
        self._size, self._checksum = size, checksum
        self._servers, self._report, self._stop = servers, report, stop
        self._limit, self._slots = _shared(href, source)
        self._received = 0
        self._version: str | None = None
        self._whole: int | None = None
        """Bytes of the file, by the server."""
        self._hash: Any = None if checksum is None else checksum.hasher()

    def run(self, file: IO[bytes]) -> None:
        faults = mismatches = 0
        while True:
            try:
                self._receive(file)
            except RefusedError as refusal:
                raise RemoteError(f"{self._where}: {refusal}") from refusal
            except PassingError as fault:
                faults += 1
                if faults > self._source.retries:
                    raise RemoteError(
                        f"{self._where}: {fault}, at the last of {faults} tries. Try again later.", transient=True
                    ) from fault
                if fault.restart:
                    self._restart(file)
                self._wait(fault, faults)
                continue
            mismatch = self._mismatch()
            if mismatch is None:
                return
            mismatches += 1
            if mismatches > MISMATCH_RETRIES:
                raise RemoteError(f"{self._where}: {mismatch}, {mismatches} times fetched. {_MISMATCH_REMEDY}")
            logger.info("%s: %s; fetching it again", self._where, mismatch)
            self._restart(file)

    def _receive(self, file: IO[bytes]) -> None:
        with self._slots:
            self._limit.wait()
            self._check_stop()
            with self._servers.opened(self._href, self._received, self._version) as body:
                if body.start != self._received:
                    self._restart(file)
                elif self._received and None not in (self._whole, body.size) and body.size != self._whole:
                    raise PassingError("the file has changed its size", restart=True)
                self._version, self._whole = body.version, body.size or self._whole
                self._copy(body, file)

    def _copy(self, body: Body, file: IO[bytes]) -> None:
        for chunk in body.chunks:
            self._check_stop()
            file.write(chunk)
            if self._hash is not None:
                self._hash.update(chunk)
            self._received += len(chunk)
            self._report.received(len(chunk))
            if self._size is not None and self._received > self._size:
                return
        if self._whole is not None and self._received < self._whole:
            # A server may answer a part of what was asked for.
            raise PassingError(f"the server sent {self._received} of {self._whole} bytes")

    def _mismatch(self) -> str | None:
        if self._size is not None and self._received != self._size:
            got = "more" if self._received > self._size else f"{self._received}"
            return f"expected {self._size} bytes, got {got}"
        if self._checksum is not None and self._hash.hexdigest() != self._checksum.digest:
            return f"expected {self._checksum.algorithm} {self._checksum.digest}, got {self._hash.hexdigest()}"
        return None

    def _restart(self, file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()
        self._report.received(-self._received)
        self._received, self._version, self._whole = 0, None, None
        self._hash = None if self._checksum is None else self._checksum.hasher()

    def _wait(self, fault: PassingError, faults: int) -> None:
        self._stop.wait(seconds_to_wait(fault, faults, self._where))
        self._check_stop()

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise StoppedError(self._where)


_MISMATCH_REMEDY = (
    "The file on the server is damaged, or the item describes another one; search for the scene again, or leave it out."
)


def _shared(href: str, source: StacSource) -> tuple[RateLimit, threading.Semaphore]:
    """Return the rate limit of the server and the places for transfers of the source, of this whole process."""
    parts = urllib.parse.urlsplit(href)
    local = parts.scheme in ("", "file")
    server = (source.s3_endpoint or "s3") if parts.scheme == "s3" else parts.netloc
    rate = None if local else source.requests_per_second
    with _SLOTS_LOCK:
        slots = _SLOTS.setdefault((source.name, source.connections), threading.BoundedSemaphore(source.connections))
    return shared_limit(server, rate), slots
