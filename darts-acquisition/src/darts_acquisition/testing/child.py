"""Servers in a process of their own, steered over its standard input and output.

GDAL asks servers while it holds Python's lock (rasterio 1.4 looks for side files so): a server in a thread of the same
process could never answer.
"""

import contextlib
import importlib
import json
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from darts_utils.errors import RemoteError


class Child:
    """A server in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lock = threading.Lock()

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the server with values that JSON can hold, and return what it returns.

        Raises:
            RemoteError: the process ended.
        """
        with self._lock, contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            print(json.dumps([name, *arguments]), file=self._process.stdin, flush=True)
            if line := self._process.stdout.readline():
                return json.loads(line)
        raise RemoteError(f"the test server's process {self._process.pid} has ended")

    def end(self) -> None:
        """End the process."""
        with self._lock:
            _end(self._process)


@contextlib.contextmanager
def child_server(module: str, **arguments: Any) -> Iterator[Child]:
    """Run the server that `module.make_server(**arguments)` returns, in a process that ends with the block, or with us.

    Args:
        module: a module of this package that, with all that it imports, starts quickly.
        arguments: values that JSON can hold.

    Raises:
        RemoteError: it did not start; holds what it printed.
    """
    # The path of this file, not -m: that would import all of darts_acquisition, which takes seconds.
    command = [sys.executable, "-P", str(Path(__file__)), module, json.dumps(arguments)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        try:
            child = Child(process)
            try:
                child.call("ready")
            except RemoteError as error:
                process.wait(10)
                errors.seek(0)
                printed = errors.read().decode(errors="replace")[-4000:]
                raise RemoteError(f"the test server {module} did not start; it printed: {printed!r}") from error
            yield child
        finally:
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(BrokenPipeError):
        assert process.stdin is not None
        process.stdin.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _serve(module: str, arguments: dict[str, Any]) -> None:
    """Serve, and obey one call a line, until standard input closes, which it also does when our parent is killed."""
    folder = Path(__file__).parent
    for package, path in (("darts_acquisition", folder.parent), ("darts_acquisition.testing", folder)):
        sys.modules[package] = types.ModuleType(package)  # the packages without their __init__.py
        sys.modules[package].__path__ = [str(path)]
    loopback = importlib.import_module("darts_acquisition.testing.loopback")
    server = importlib.import_module(f"darts_acquisition.testing.{module}").make_server(**arguments)
    with loopback.serving(server):
        for line in sys.stdin:
            name, *values = json.loads(line)
            print(json.dumps(None if name == "ready" else getattr(server, name)(*values)), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], json.loads(sys.argv[2]))
