"""The process of the file server."""

import mimetypes
import re
import urllib.parse
from pathlib import Path

from darts_acquisition.testing.loopback import LoopbackHandler, LoopbackServer


def make_server(folder: str) -> "FolderServer":
    """Return the server of a folder, not yet serving."""
    return FolderServer(Path(folder))


class FolderServer(LoopbackServer):
    """Knows the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(_Handler)
        self.folder = folder


class _Handler(LoopbackHandler):
    server: FolderServer

    def answer(self) -> None:
        if self.command not in ("GET", "HEAD"):
            self.close_connection = True  # a body may follow that nobody reads
            self.reply(405, b"only GET and HEAD\n", "text/plain")
            return
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).lstrip("/")
        path = (self.server.folder / name).resolve()
        if not path.is_relative_to(self.server.folder) or not path.is_file():
            self.reply(404, b"not found\n", "text/plain")
            return
        size = path.stat().st_size
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{path.stat().st_mtime_ns:x}-{size:x}"'}
        content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        part = byte_range(self.headers.get("Range"), size)
        if self.headers.get("If-None-Match") == headers["ETag"]:
            self.reply(304, b"", content_type, headers)
        elif part is None:
            self.reply(200, path.read_bytes(), content_type, headers)
        elif not part:
            self.reply(416, b"", content_type, headers | {"Content-Range": f"bytes */{size}"})
        else:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
            with path.open("rb") as file:
                file.seek(part.start)
                self.reply(206, file.read(len(part)), content_type, headers)


def byte_range(header: str | None, size: int) -> range | None:
    """Return the bytes a Range header asks for, empty if there are none; None: no header, or not one single range."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").replace(" ", ""))
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    return range(int(first), min(size, int(last) + 1) if last else size)
