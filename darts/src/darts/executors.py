"""Executors take tiles through a plan. This one takes them one after the other."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from darts import __version__
from darts.console import Reporter
from darts.ledger import Outcome
from darts.plan import Plan
from darts.tiles import Tile

logger = logging.getLogger("darts.executors")


def run_sequentially(
    plan: Plan,
    tiles: Sequence[Tile],
    reporter: Reporter,
    *,
    overwrite: bool,
    run: str,
    last_options: Mapping[str, str],
) -> Iterator[Outcome]:
    """Yield the outcome of each tile as it is known.

    A complete tile is skipped, a partial one is made again, and a tile that fails never stops the others.
    """
    fingerprint = plan.fingerprint
    for tile in tiles:
        if not overwrite and plan.missing(tile) == "none":
            if last_options.get(tile.tile_id, fingerprint) != fingerprint:
                logger.warning(
                    "%s is complete, but was made with other options or models; use --overwrite to make it again",
                    tile.tile_id,
                )
            status, error = "skipped", ""
        else:
            status, error = _attempt(plan, tile, reporter)
        outcome = Outcome(
            tile_id=tile.tile_id,
            output_path=str(tile.output),
            status=status,  # type: ignore[arg-type]
            error=error,
            run=run,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            options=fingerprint,
            version=__version__,
            seconds=plan.timings.of_tile(tile.tile_id),
        )
        reporter.finished(outcome)
        yield outcome


def _attempt(plan: Plan, tile: Tile, reporter: Reporter) -> tuple[str, str]:
    try:
        plan.process(tile, lambda step: reporter.step(tile.tile_id, step))
    except Exception as error:  # the one place that catches broadly: a bad tile must not stop the others
        logger.debug("%s failed", tile.tile_id, exc_info=True)
        return "failed", f"{type(error).__name__}: {error}"
    return "success", ""
