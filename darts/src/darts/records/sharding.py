"""A stable share of the tiles, for batch schedulers: no engine, no talk between the shards."""

import hashlib
import re
from dataclasses import dataclass

from darts_utils.errors import ConfigError

_FORM = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class Shard:
    """Share `number` of `count`, counted from 1.

    Raises:
        ConfigError: there is no such share.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise _refusal(str(self))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def file_name(self) -> str:
        """The share as part of a file's name."""
        return f"shard{self.number:0{len(str(self.count))}d}of{self.count}"

    def holds(self, tile_id: str) -> bool:
        """Return whether a tile is of this share; that depends on its id alone, not on the other tiles."""
        # Ids come from file names, which need not be UTF-8: Python gives such bytes as lone surrogates.
        digest = hashlib.sha256(tile_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def parse_shard(text: str) -> Shard:
    """Read a share such as "3/16".

    Raises:
        ConfigError: it has another form, or there is no such share.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise _refusal(text)
    return Shard(int(match[1]), int(match[2]))


def _refusal(text: str) -> ConfigError:
    return ConfigError(f"shard must be like 3/16, the third of sixteen shares (counted from 1), got {text!r}")
