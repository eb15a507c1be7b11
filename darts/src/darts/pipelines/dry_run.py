"""`--dry-run`: what a run or a preparation would do, told without doing it."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from darts.display.transfers import size_text
from darts.needs import Needs

RESULTS = {"all": "to make", "some": "to complete", "none": "done"}


@dataclass(frozen=True, kw_only=True)
class TilePreview:
    """What is known of a tile beforehand."""

    tile_id: str
    results: str = ""
    """Which of its files are missing: "all", "some" or "none"; empty where results are not asked about."""
    optical: bool = True
    """Whether the optical data was looked at."""
    missing: tuple[str, ...] = ()
    """Bands that would be fetched."""
    n_bytes: int | None = None
    """How much that is; None if unknown."""
    chunks: dict[str, int] = field(default_factory=dict)
    """Cube → chunks that it lacks for this tile."""
    problem: str = ""
    """Why the tile would fail."""


def print_dry_run(
    tiles: Sequence[TilePreview],
    needs: Needs,
    chunks: dict[str, int],
    remarks: Iterable[tuple[str, str]],
) -> None:
    """Print the models with what they need, one line a tile, remarks on inputs, and the sums.

    `chunks`: cube → chunks that it lacks for all tiles together; neighbours share some.
    """
    lines = [f"model {name} needs {needs.auxiliary_of(name)}" for name in needs.by_model]
    width = max((len(tile.tile_id) for tile in tiles), default=0)
    lines += [f"{tile.tile_id:<{width}}  {_describe(tile)}" for tile in tiles]
    lines += [f"incomplete: {name}: {reason}" for name, reason in remarks]
    lines.append(_sums(tiles, chunks))
    sys.stdout.write("\n".join(lines) + "\n")


def _describe(tile: TilePreview) -> str:
    parts = [f"results {RESULTS[tile.results]}"] if tile.results else []
    if tile.problem:
        return "; ".join([*parts, f"would fail: {tile.problem}"])
    if tile.missing:
        parts.append(f"optical {', '.join(tile.missing)} to fetch ({_size(tile.n_bytes)})")
    elif tile.optical:
        parts.append("optical on disk")
    parts += [f"{cube} {_chunks(count)}" for cube, count in tile.chunks.items()]
    return "; ".join(parts) or "nothing to fetch"


def _sums(tiles: Sequence[TilePreview], chunks: dict[str, int]) -> str:
    to_fetch = [tile for tile in tiles if tile.missing and not tile.problem]
    sizes = [tile.n_bytes for tile in to_fetch]
    known = sum(size for size in sizes if size is not None)
    amount = size_text(known) if None not in sizes else (f"at least {size_text(known)}" if known else "unknown size")
    done = sum(tile.results == "none" for tile in tiles)
    failing = sum(bool(tile.problem) for tile in tiles)
    parts = [f"{len(tiles)} tile{'s' * (len(tiles) != 1)}"]
    if any(tile.results for tile in tiles):
        parts[0] += f": {done} done, {len(tiles) - done} to make"
    if failing:
        parts.append(f"{failing} would fail")
    if to_fetch:
        parts.append(f"optical data of {len(to_fetch)} to fetch ({amount})")
    elif any(tile.optical for tile in tiles):
        parts.append("all other optical data on disk" if failing else "all optical data on disk")
    parts += [f"{cube} {_chunks(count)}" for cube, count in chunks.items()]
    return "; ".join(parts)


def _size(n_bytes: int | None) -> str:
    return "size unknown" if n_bytes is None else size_text(n_bytes)


def _chunks(count: int) -> str:
    return f"{count} chunk{'s' * (count != 1)} to fetch" if count else "on disk"
