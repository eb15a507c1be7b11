"""What others gave or said, as a message of one line quotes it."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SHOWN = 60
"""Signs of a value that a message shows."""
FIRST = 120
"""Signs of another library's error that a message quotes."""


def shown(value: Any) -> str:
    """Return a value as Python writes it, its middle cut out if it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of thousands of digits
        return f"<{type(value).__name__}, too long to show>"
    half = SHOWN // 2
    return text if len(text) <= SHOWN else f"{text[:half]} … {text[-half:]}"


def listed(names: Iterable[Any], most: int = 5) -> str:
    """Return names with commas between them; of more than `most`, the first ones and how many more there are."""
    names = [str(name) for name in names]
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, what: str) -> str:
    """Return a number with the plural of what it counts, of one the singular."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def likely(name: str, names: Iterable[str], otherwise: str = "", cutoff: float = 0.6) -> str:
    """Return "; did you mean …?" with the one of `names` that is most like `name`; `otherwise` where none is."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else otherwise


def first_line(error: BaseException, path: Path | None = None, most: int = FIRST) -> str:
    """Return what another library's error, which may span many lines, says first; its class where it says nothing.

    Args:
        error: what was raised.
        path: file that the message around names already, and that libraries begin with again.
        most: characters that are told.
    """
    text = str(error)
    if path is not None:
        text = text.replace(str(path), "").replace(f"{path.name}:", "").lstrip("':, ")
    lines = text.strip().splitlines()
    line = lines[0].rstrip(".") if lines else type(error).__name__
    line += " is missing" if isinstance(error, KeyError) else ""  # which says the key alone
    return line if len(line) <= most else f"{line[:most]} …"
