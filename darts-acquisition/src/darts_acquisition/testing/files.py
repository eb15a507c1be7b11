"""A plain HTTP server of a folder, with range requests."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from darts_acquisition.testing.child import child_server


@contextlib.contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serve a folder's files until the block ends, in a process of its own; gives the address without trailing slash.

    GET and HEAD; one range (206, or 416 outside the file); ETag and If-None-Match; folders are not listed (404).
    """
    with child_server("folder", folder=str(Path(folder).resolve())) as child:
        yield child.call("address")
