"""Text from files, or from a user, that can be printed."""

import re
from collections.abc import Mapping
from typing import Any


def one_line(value: Any) -> str:
    """Return a value as text that neither breaks the line nor steers the terminal, whatever a file says."""
    if isinstance(value, Mapping):
        return ", ".join(f"{one_line(name)} {one_line(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(one_line, value))}]"
    return printable(re.sub(r"\s+", " ", str(value)).strip())


def printable(text: str) -> str:
    """Return text that neither breaks the line nor steers the terminal: control characters are written as in Python."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
