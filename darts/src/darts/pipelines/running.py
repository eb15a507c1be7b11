"""The course of a run: who holds the folder, what works on the tiles, and what is written down of it."""

import dataclasses
import logging
import os
import platform
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from darts.display.console import print_summary
from darts.display.logs import log_to_file
from darts.display.progress import reporting
from darts.executors.executor import Executor, Policy
from darts.executors.workers import Workers, start_workers
from darts.pipelines.hooks import Hooks
from darts.pipelines.summary import RunSummary
from darts.records.ledger import Ledger, Outcome, Record, RunEnd, RunStart, last_outcomes, made, now, read_ledgers
from darts.records.restart import refuse_other_options
from darts.records.run_lock import check_free, hold_output
from darts.records.run_records import RunRecords
from darts.records.sharding import Shard
from darts.report.run_report import write_run_report
from darts.tiles import Tile
from darts.timings import Timings
from darts_utils.errors import DartsError, StoreError
from darts_utils.paths import DefaultPaths
from darts_utils.quoting import counted
from darts_utils.stopping import Stop, stopping_on_signals

logger = logging.getLogger("darts.pipelines")

RECORDS_EVERY_S = 30.0
"""How often the tables of results are written while tiles are worked on; the ledger has each at once."""

STOPPING = "stopping: tiles that are being computed get finished; once more stops now"

_LIBRARIES = ("numpy", "rasterio", "torch", "xarray")


def run_tiles(pipeline: Hooks, tiles: list[Tile], shard: Shard | None, dirs: DefaultPaths) -> RunSummary:
    """Work on tiles, and write records of the run into the output folder.

    Raises:
        DartsError: nothing could start, or nothing can be written any more.
    """
    started = time.perf_counter()
    output = pipeline._output(dirs)
    check_free(output, shard)  # before models are loaded
    # The folder is held from when models are loaded until workers have let go of it.
    with ExitStack() as held, start_workers(pipeline, len(tiles)) as workers:
        held.enter_context(hold_output(_made_folder(output), shard))
        before = read_ledgers(output)
        if pipeline.skip_failed:
            tiles = _without_failed(tiles, before)
        if not pipeline.overwrite:
            refuse_other_options(output, tiles, before, workers.facts)
        run = _Run(pipeline, tiles, shard, output, before, workers)
        with stopping_on_signals(STOPPING) as stop, run.recorded(dirs):
            summary = run.work(stop)
    print_summary(summary.outcomes, time.perf_counter() - started, left=len(summary.left), reason=run.reason)
    return summary


class _Run:
    """One run, and what it writes down."""

    def __init__(
        self,
        pipeline: Hooks,
        tiles: list[Tile],
        shard: Shard | None,
        output: Path,
        before: list[Record],
        workers: Workers,
    ) -> None:
        self._pipeline, self._tiles, self._shard, self._output = pipeline, tiles, shard, output
        self._before, self._workers = before, workers
        self._records = RunRecords(output, label="" if shard is None else shard.file_name)
        self._ledger = Ledger(output, shard)
        self._timings = Timings()
        self._outcomes: dict[str, Outcome] = {}
        self.reason = "failed"
        """Why the run ended."""

    @contextmanager
    def recorded(self, dirs: DefaultPaths) -> Iterator[None]:
        """Write the run's start, its log, and at the end, whatever ends it, its tables and overviews."""
        options = self._pipeline._resolved_options(self._output, dirs)
        self._records.write_config(self._pipeline.command, options)
        self._ledger.append(self._start())
        handler = log_to_file(self._output / f"{self._records.stem}.log")
        logger.info("%s, results go to %s", counted(len(self._tiles), "tile"), self._output)
        try:
            yield
        except BaseException as error:
            self.reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            try:
                self._close(options)
            except DartsError as another:  # the first one is what the user shall see last
                logger.warning("%s", another)
            raise
        else:
            self._close(options)
        finally:
            logging.getLogger("darts").removeHandler(handler)
            handler.close()

    def work(self, stop: Stop) -> RunSummary:
        """Take all tiles through the workers."""
        policy = Policy(
            overwrite=self._pipeline.overwrite,
            max_failures=0 if self._pipeline.fail_fast else self._pipeline.max_failures,
            sizes={name: {f: size for f, (size, _) in o.files.items()} for name, o in made(self._before).items()},
        )
        written = time.monotonic()
        with reporting(len(self._tiles), workers=self._workers.names) as reporter:
            executor = Executor(self._workers, policy, reporter, stop, self._pipeline.batch_size)
            for outcome, finished in executor.run(self._tiles):
                self._conclude(outcome)
                self._timings.add(outcome.tile_id, outcome.seconds, finished.calls)
                if time.monotonic() - written > RECORDS_EVERY_S:
                    self._records.write_results(self._outcomes.values(), self._timings)
                    written = time.monotonic()
        interrupted = stop.asked and bool(executor.left)
        self.reason = executor.given_up or ("interrupted" if interrupted else "finished")
        if executor.given_up:
            logger.error("%s; %d tiles are left", executor.given_up, len(executor.left))
        return RunSummary(tuple(self._outcomes.values()), tuple(executor.left), interrupted)

    def _conclude(self, outcome: Outcome) -> None:
        """Write an outcome down; a skip only where it tells of files that nobody wrote down."""
        outcome = dataclasses.replace(outcome, run=self._records.stem)
        if outcome.status != "skipped" or outcome.files:
            self._ledger.append(outcome)
        self._outcomes[outcome.tile_id] = outcome

    def _start(self) -> RunStart:
        return RunStart(
            run=self._records.stem,
            started=now(),
            command=self._pipeline.command,
            tiles=tuple(tile.tile_id for tile in self._tiles),
            shard=str(self._shard or ""),
            options=self._workers.facts.fingerprint,
            settings=self._workers.facts.settings,
            versions={
                "darts": version("darts-permafrost"),
                "python": platform.python_version(),
                **{name: version(name) for name in _LIBRARIES},
            },
            overwrite=self._pipeline.overwrite,
            workers=self._workers.names,
            host=socket.gethostname(),
            pid=os.getpid(),
        )

    def _close(self, options: Mapping[str, Any]) -> None:
        self._records.write_results(self._outcomes.values(), self._timings)
        self._ledger.append(RunEnd(run=self._records.stem, finished=now(), reason=self.reason))
        self._write_overviews(options)

    def _write_overviews(self, options: Mapping[str, Any]) -> None:
        """Write what sums the run up: the report, and the collection where it was asked for."""
        path = self._output / f"{self._records.stem}.report.html"
        try:
            write_run_report(path, read_ledgers(self._output), stem=self._records.stem, options=options)
        except (OSError, DartsError) as error:
            logger.warning("the report %s could not be written: %s", path, error)
        except Exception:  # nobody shall lose a run over a picture of it
            logger.warning("the report %s could not be written", path, exc_info=True)
        if "stac" in self._pipeline.export_bands:
            from darts_export.stac_collection import write_collection

            write_collection(self._output)


def _made_folder(output: Path) -> Path:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot create the output folder {output}: {error.strerror or error}") from error
    return output


def _without_failed(tiles: list[Tile], before: list[Record]) -> list[Tile]:
    failed = {tile_id for tile_id, outcome in last_outcomes(before).items() if outcome.status == "failed"}
    kept = [tile for tile in tiles if tile.tile_id not in failed]
    if len(kept) < len(tiles):
        logger.info("%d tiles that failed before are left out", len(tiles) - len(kept))
    return kept
