"""Server programs that run beside us for as long as a block lasts."""

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from darts_utils.errors import ConfigError, MissingDataError, RemoteError

_TRIES = 3


def program(name: str, package: str) -> Path:
    """Return the program that a Python package installed beside this interpreter.

    Raises:
        MissingDataError: it is not there; names the package to install.
    """
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise MissingDataError(f"the test server {name} is not at {path}; install it with `uv pip install {package!r}`")
    return path


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Callable[[int], list[str]],
    ready_path: str,
    *,
    timeout_s: float = 60,
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run a server program until the block ends; gives the port it listens on.

    Args:
        command: the program and its arguments, given the port.
        ready_path: path that answers 200 when the server is ready.
        timeout_s: how long it may take to start.
        environment: its environment variables; None: ours.

    Raises:
        RemoteError: it did not start; holds what it printed.
    """
    with tempfile.TemporaryFile() as output:
        process, port = _start(command, ready_path, timeout_s, environment, output)
        try:
            with ending_with_us(process.pid):
                yield port
        finally:
            _stop(process)


def _start(
    command: Callable[[int], list[str]],
    ready_path: str,
    timeout_s: float,
    environment: Mapping[str, str] | None,
    output: IO[bytes],
) -> tuple["subprocess.Popen[bytes]", int]:
    for _ in range(_TRIES):  # somebody else may take the free port before the program does
        port = free_port()
        arguments = command(port)
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
        )  # fmt: skip
        try:
            if _wait_until_ready(process, f"http://127.0.0.1:{port}{ready_path}", timeout_s):
                return process, port
        except BaseException:
            _stop(process)
            raise
        _stop(process)
    output.seek(0)
    raise RemoteError(f"{arguments[0]} did not start; it printed: {output.read().decode(errors='replace')[-4000:]!r}")


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError), opener.open(url, timeout=5) as response:
            if response.status == 200:
                return process.poll() is None
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def ending_with_us(pid: int) -> Iterator[None]:
    """Have a process killed should ours be, which leaves us no time to do it."""
    watch = subprocess.Popen(["sh", "-c", f"cat; kill -9 {pid}"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        watch.kill()
        watch.wait()
        assert watch.stdin is not None
        watch.stdin.close()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def check_items(collection: Mapping[str, object], items: list[dict]) -> None:
    """Check that every item says it is in the collection; a server would hide it silently.

    Raises:
        ConfigError: one is not; names it.
    """
    for item in items:
        if item.get("collection") != collection["id"]:
            raise ConfigError(f"item {item.get('id')!r} is not in collection {collection['id']!r}")
