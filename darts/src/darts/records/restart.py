"""What a restart may not do: mix results of other options or models into a folder."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from darts import __version__
from darts.records.events import Ready
from darts.records.ledger import Outcome, Record, RunStart
from darts.tiles import Tile
from darts_utils.errors import ConfigError
from darts_utils.option_tags import option_of
from darts_utils.quoting import listed

logger = logging.getLogger("darts.records.restart")

LONGEST_VALUE = 40


def refuse_other_options(output: Path, tiles: Sequence[Tile], before: Sequence[Record], facts: Ready) -> None:
    """Check that the tiles which are in the folder already were made with the same options and models.

    Raises:
        ConfigError: some were not; says what differs.
    """
    options, versions = _made_with(before)
    there = [tile for tile in tiles if tile.tile_id in options and tile.output.is_dir()]
    others = [tile for tile in there if options[tile.tile_id] != {facts.fingerprint}]
    if others:
        former = min(options[others[0].tile_id] - {facts.fingerprint})
        settings = next((r.settings for r in before if isinstance(r, RunStart) and r.options == former), {})
        names = listed((tile.tile_id for tile in others), 3)
        raise ConfigError(
            f"{output} holds {len(others)} tile{'s' * (len(others) != 1)} made with other options or models "
            f"({names}): {differences(settings, facts.settings)}. Make them again with --overwrite, or choose another "
            "folder with --output-data-dir"
        )
    if older := sorted({versions.get(tile.tile_id, __version__) for tile in there} - {__version__}):
        logger.warning("%s holds tiles made by darts %s, this is %s", output, ", ".join(older), __version__)


def differences(former: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what differs between the settings of two runs, in words."""
    return ", ".join(_differences(former, now)) if former else "which ones is not written down"


def _differences(former: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> Iterator[str]:
    for name in sorted({*former, *now}):
        one, other = former.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{name} ")
        elif one != other:
            yield f"{within}{option_of(name)} was {_short(one)}, now {_short(other)}"


def _made_with(before: Sequence[Record]) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Return the options' hashes with which each tile may have been made, and its version.

    A run that was killed may have made tiles, or made them again, that it could not write down any more.
    """
    options: dict[str, set[str]] = {}
    versions: dict[str, str] = {}
    for record in before:
        if not isinstance(record, RunStart | Outcome) or not record.options:
            continue
        if isinstance(record, RunStart):
            for tile_id in record.tiles:
                if record.overwrite or tile_id not in options:
                    options.setdefault(tile_id, set()).add(record.options)
        elif record.status != "failed":
            options[record.tile_id] = {record.options}
            versions[record.tile_id] = record.version
    return options, versions


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"
