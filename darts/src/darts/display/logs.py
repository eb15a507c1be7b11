"""Where the log goes: coloured lines on a terminal, plain lines or JSON elsewhere, and files."""

import errno
import json
import logging
import math
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

from darts_utils.errors import StoreError

logger = logging.getLogger("darts")

THIRD_PARTY = ("rasterio", "torch", "xarray", "zarr", "icechunk", "pyogrio")
"""Libraries whose debug messages show from -vv on."""

_EVENT = "darts_event"
"""Attribute of a log record that holds what an event says in JSON."""

_flags: list[str] = []
"""Global options of the command line that ask for the set-up of now."""
_shown: list[logging.Handler] = []
"""What writes to stderr now; other loggers have it too."""
_hooks_before: list[tuple[Any, Any]] = []
"""What told of errors that nobody caught, before JSON lines did."""


def configure_logging(
    command: str, *, verbosity: int = 0, log_dir: Path | None = None, plain: bool = False, as_json: bool = False
) -> None:
    """Send the log of darts to the terminal, and with `log_dir` to a file there too.

    On a terminal lines are coloured and share the screen with the progress display; elsewhere, or with `plain`, they
    are plain; with `as_json` every line on stderr is a JSON object. `verbosity` 0 shows information, 1 debug messages
    of darts, 2 those of the libraries, 3 everything.

    Raises:
        StoreError: the folder of the log file cannot be made.
    """
    _start_anew()
    _flags[:] = ["--log-json"] * as_json + ["--log-plain"] * plain + ["-v"] * verbosity
    if log_dir is not None:
        _flags.extend(["--log-dir", str(log_dir)])
    level = logging.DEBUG if verbosity else logging.INFO
    console = Console(stderr=True)
    handler: logging.Handler
    if as_json:
        handler = _JsonLines(sys.stderr)
        _catch_what_else_goes_to_stderr(handler)
    elif plain or not console.is_terminal:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    else:
        handler = RichHandler(console=console, show_path=verbosity > 0, markup=False, log_time_format="%H:%M:%S")
    handler.addFilter(lambda record: record.levelno >= level or (as_json and hasattr(record, _EVENT)))
    logger.addHandler(handler)
    _shown.append(handler)
    if log_dir is not None:
        log_to_file(log_dir / f"darts_{command}_{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}.log")
    for name in THIRD_PARTY if verbosity >= 2 else ():
        other = logging.getLogger(name)
        other.setLevel(logging.DEBUG)
        if not as_json:  # then all libraries have the handler
            other.addHandler(handler)


def log_to_file(path: Path) -> logging.Handler:
    """Also write the log, debug messages included, to a file; a full disk later on stops nothing.

    Raises:
        StoreError: its folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # which the command line tells in short
            raise
        raise StoreError(f"cannot write the log {path}: {error.strerror or error}; choose another folder") from error
    handler = _LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
    return handler


def log_event(source: logging.Logger, level: int, event: Mapping[str, Any], message: str, *args: object) -> None:
    """Log a message that, as JSON, also has the fields of `event`; those lines show as JSON whatever their level."""
    source.log(level, message, *args, extra={_EVENT: dict(event)}, stacklevel=2)


def live_console() -> Console | None:
    """Return the terminal that the log goes to, None where it goes elsewhere or shall be plain."""
    return next((handler.console for handler in logger.handlers if isinstance(handler, RichHandler)), None)


def log_flags() -> list[str]:
    """Return global options that make a further command line of this process log as this one does."""
    return list(_flags)


def logs_json() -> bool:
    """Return whether stderr takes JSON alone."""
    return any(isinstance(handler, _JsonLines) for handler in logger.handlers)


def json_line(record: logging.LogRecord) -> str:
    """Return a log record as one line of JSON in ASCII, whatever the record holds."""
    fields = {
        **getattr(record, _EVENT, {}),
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "message": _message(record),
    }
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return json.dumps(_plain(fields), allow_nan=False)


class _JsonLines(logging.StreamHandler[Any]):
    def format(self, record: logging.LogRecord) -> str:
        return json_line(record)


class _LogFile(logging.FileHandler):
    """A log file that stops nothing: what cannot be written is left out, which is said once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace", delay=True)
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # it cannot be opened
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # a name of logging's
        if not self._told:
            self._told = True
            logger.warning("cannot write the log file %s: %s", self.baseFilename, sys.exc_info()[1])

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _start_anew() -> None:
    """Undo an earlier set-up of this process."""
    while _shown:
        handler = _shown.pop()
        for name in (None, *THIRD_PARTY):
            logging.getLogger(name).removeHandler(handler)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logging.captureWarnings(False)
    if sys.excepthook is _log_uncaught:
        sys.excepthook, threading.excepthook = _hooks_before.pop()


def _catch_what_else_goes_to_stderr(handler: logging.Handler) -> None:
    """Let libraries' messages, warnings and errors that nobody caught be lines of the log too."""
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    _hooks_before.append((sys.excepthook, threading.excepthook))
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    logger.critical("%s: %s", kind.__name__, error, exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that do not fit: a mistake in a message must not hide what it says
        return f"{record.msg!s} {_text(record.args)}"


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it; what has no form there becomes text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _text(value)


def _text(value: Any) -> str:
    """Return a value as text; halves of surrogate pairs, which many readers of JSON refuse, are spelled out."""
    try:
        return str(value).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return f"<{type(value).__name__}>"
