"""What the fuzz tests share: how many cases there are, a sandbox that notices stray files, and what a user may see."""

import contextlib
import io
import os
import re
import resource
import shutil
import signal
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch  # noqa: F401  (see MEMORY_BYTES)
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

import darts_segmentation.training.fitting  # noqa: F401
from darts.cli import run_command_line
from darts_utils.errors import DartsError

PROFILE = "fuzz"
"""With `--hypothesis-profile=fuzz` each test runs its share of `ALL_CASES`, else a few, the same each time."""
ALL_CASES = 10_000
MESSAGE_LINES, MESSAGE_COLUMNS = 3, 100
MEMORY_BYTES = 2 << 30
"""What a case may take on top of what the process has; large libraries are loaded before, as they would not fit."""
HANG_S = 120


def fuzzed(*, short: int, share: float) -> settings:
    """Return how many cases a test runs: `short` ones, or with the profile its share of all."""
    long = settings.get_current_profile_name() == PROFILE
    return settings(
        max_examples=round(share * ALL_CASES) if long else short,
        deadline=None,
        derandomize=not long,
        database=None,
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if long else [])],
        suppress_health_check=list(HealthCheck),
        print_blob=long,
    )


@dataclass(frozen=True)
class Seen:
    """What a user sees of a command."""

    code: int
    text: str

    @property
    def message(self) -> str:
        """The error, as one text; with `--log-json` too, which may be a name that was drawn."""
        as_json = re.search(r'"level": "ERROR".*"message": "(.*)"}$', self.text, re.MULTILINE)
        return as_json[1] if as_json else self.text.partition("error: ")[2]


class Sandbox:
    """Folders of a user: darts may write into `data` and `out`, and nowhere else."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # Deep enough for a few `../` to end within what is watched.
        self.home = root / "a" / "b" / "c" / "home"
        self.data, self.out, self.work = self.home / "data", self.home / "out", self.home / "work"
        self.outside = self.home / "outside"
        for folder in (self.data, self.out, self.work, self.outside):
            folder.mkdir(parents=True, exist_ok=True)
        (self.outside / "precious.txt").write_text("a file of somebody else")

    def listing(self) -> dict[str, tuple[int, int]]:
        """Return size and time of everything that darts must leave alone."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            if Path(folder) == self.home:
                folders[:] = [name for name in folders if name not in ("data", "out")]
            for name in (*folders, *files):
                path = os.path.join(folder, name)  # noqa: PTH118  (names may be no UTF-8)
                about = os.lstat(path)
                found[path] = (about.st_size, 0 if name in folders else about.st_mtime_ns)
        return found

    def clear(self) -> None:
        """Empty the folders that darts may write into."""
        for folder in (self.data, self.out):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()

    def run(self, *tokens: object) -> Seen:
        """Run a command line as a user does, check that it behaves, and return what is seen of it."""
        before = self.listing()
        seen = run_watched(lambda: run_command_line([str(token) for token in tokens]))
        stray = {path for path, about in self.listing().items() if before.get(path) != about}
        gone = before.keys() - self.listing().keys()
        assert not stray | gone, f"written or removed outside the folders of darts: {sorted(stray | gone)}"
        check_told(seen, self.home)
        return seen


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Give a sandbox, with its working directory and data folder in place for darts."""
    box = Sandbox(tmp_path)
    monkeypatch.chdir(box.work)
    monkeypatch.setenv("DARTS_DATA_DIR", str(box.data))
    monkeypatch.setenv("COLUMNS", str(MESSAGE_COLUMNS))
    return box


def run_watched(command: Callable[[], int]) -> Seen:
    """Run a command with bounds on time and memory, and return its exit code and all it printed."""
    written = io.BytesIO()
    # As strict as those of Python: a name that is no Unicode must not break the output.
    out = io.TextIOWrapper(written, "utf-8", write_through=True)
    err = io.TextIOWrapper(written, "utf-8", "backslashreplace", write_through=True)
    with _bounded(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command()
    return Seen(code, written.getvalue().decode())


def check_told(seen: Seen, home: Path) -> None:
    """Check that a command ended as one should: a known code, no traceback, a failure told in three lines."""
    assert seen.code in (0, 1, 2), seen
    assert "Traceback" not in seen.text, seen.text
    if seen.code == 2:
        check_message(seen.message, home)


def check_message(message: str, *homes: Path) -> None:
    """Check that a message is there and fits into three lines; folders of the test count as short as a user's."""
    assert message.strip(), "an error without a message"
    message = f"error: {message}".strip()
    for home in homes:
        message = message.replace(str(home), "/data/someone")
    # A path is told in full, however long a user makes it; a very long one counts as one of usual length.
    message = re.sub(r"\S{100,}", lambda path: path[0][:60], message)
    lines = [line for part in message.splitlines() for line in textwrap.wrap(part, MESSAGE_COLUMNS) or [""]]
    assert len(lines) <= MESSAGE_LINES, f"{len(lines)} lines:\n" + "\n".join(lines)
    assert re.search(r"\w{3}", message), message


def check_error(error: BaseException, home: Path) -> None:
    """Check that what a component raises is an error that darts raises knowingly, with such a message."""
    assert isinstance(error, DartsError), "".join(traceback.format_exception(error))
    check_message(str(error), home)


def known_error(name: str) -> bool:
    """Whether a class of errors, by its name, is one of those that darts raises knowingly."""
    return name in {cls.__name__ for cls in _classes(DartsError)}


def _classes(cls: type) -> Iterator[type]:
    yield cls
    for below in cls.__subclasses__():
        yield from _classes(below)


class HangError(BaseException):
    """A case took so long that it may never end; no `except Exception` stops this."""


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    def too_long(*_: object) -> None:
        raise HangError(f"no end after {HANG_S} s")

    with Path("/proc/self/statm").open() as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(HANG_S)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ---- what may be a name --------------------------------------------------------------------------------------------

NASTY_NAMES: Sequence[str] = (
    "", ".", "..", "../escape", "../../escape", "/absolute", "a/b", "a\\b", "a\0b", "a\nb", "a\tb", "x" * 300, " ",
    " a", "a ", "-a", "--help", "~", "$HOME", "a:b", "C:\\x", "%2e%2e/x", "é" * 100, "日本", "\u202eabc", "a\u0301",
    "\U0001f9ca", "con", "nul", "a*b", "a?b", "[x]", "{x}", "a;b", "`id`", "'", '"', ".hidden", "a.zarr", "S2.SAFE",
    "\x1b[31mred", "\ud800", "[bold]x[/bold]", "[/]",
)  # fmt: skip


def names() -> st.SearchStrategy[str]:
    """Names that users or servers might give, most of them bad."""
    return st.one_of(
        st.sampled_from(NASTY_NAMES),
        st.text(max_size=40),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=400),
        st.tuples(st.sampled_from(NASTY_NAMES), st.sampled_from(NASTY_NAMES)).map("/".join),
    )


def odd_values() -> st.SearchStrategy[Any]:
    """Values as JSON and the like hold them where another one belongs."""
    plain = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.sampled_from([0, -1, 1, 2**31, 2**63, 10**18, 10**400, -(10**400), 1e308, -1e308, 1e-308]),
        st.floats(),
        st.sampled_from(NASTY_NAMES),
        st.text(max_size=20),
    )
    return st.recursive(
        plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    )
