"""Names that users and archives give, and which of them can be that of a file."""

import os
from typing import Any

from darts_utils.errors import ConfigError
from darts_utils.quoting import shown

NAME_BYTES = 150
"""Longest name; file systems take 255 with what is put around it."""


def plain_name(name: Any, what: str) -> str:
    """Return `name` if it can be the name of a file in any folder.

    Raises:
        ConfigError: empty, too long, a path, or with control characters; says `what` it is.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{what} must be a text that is not empty, got {shown(name)}")
    if name.startswith(".") or any(sign in "/\\:" or not sign.isprintable() for sign in name):
        raise ConfigError(
            f"{what} {shown(name)} must be a plain name: no slash, colon or control character, no dot in front"
        )
    if len(os.fsencode(name)) > NAME_BYTES:
        raise ConfigError(f"{what} {shown(name)} is longer than {NAME_BYTES} bytes; give a shorter one")
    return name
