"""`darts merge`: output folders to the dataset."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from darts_export.dataset.catalogue import write_catalogue
from darts_export.dataset.columns import TABLES
from darts_export.dataset.coverage import cover
from darts_export.dataset.groups import LEVELS, Done, Group, Work, work_on
from darts_export.dataset.intake import MAIN_THRESHOLD, SETTINGS, Intake, Map, read_all
from darts_export.dataset.level1 import Dropped
from darts_export.dataset.polar_map import draw_map
from darts_export.dataset.slumps import Matching
from darts_export.dataset.spill import Counts, SpillFile
from darts_export.dataset.summary import read_regions, summarize, write_summary
from darts_export.dataset.target import check_target, new_dataset
from darts_export.dataset.tile_folders import TileFolder, find_tiles, layers_in
from darts_export.dataset.writing import write_geopackage, write_geoparquet
from darts_utils.errors import ConfigError, MissingDataError
from darts_utils.layers import check_model_names, object_suffix
from darts_utils.numbers import whole_number
from darts_utils.option_tags import option_of
from darts_utils.quoting import listed, shown

LAYER = re.compile(r"(?:-(?P<model>.+?))??(?:-t(?P<percent>\d\d))?")
"""A suffix of `object_suffix`."""
PIECES_AT_ONCE = 40_000
MOST_ROUNDS = 4

_logger = logging.getLogger("darts.export")


@dataclass(frozen=True, kw_only=True)
class MergeSummary:
    """What a merge took in and gave."""

    folder: Path
    tiles: int
    """Tiles that were used."""
    duplicates: int
    """Tiles that were left out because they were there twice."""
    damaged: tuple[str, ...]
    """Why other tiles were left out."""
    mixed: tuple[str, ...]
    """Models and settings in which tiles differ, with their values."""
    whole: int
    """Segments of tiles."""
    cut: int
    """Cut segments of tiles."""
    dropped: Dropped
    """Objects with cut segments that were not kept."""
    rows: dict[str, int]
    """Rows of each table."""


def merge_outputs(
    outputs: Sequence[Path | str],
    out: Path | str,
    *,
    model: str | None = None,
    threshold: float | None = None,
    min_object_size: int | None = None,
    regions: Path | str | None = None,
    region_column: str | None = None,
    matching: Matching | None = None,
    processes: int = 1,
    pieces_at_once: int = PIECES_AT_ONCE,
) -> MergeSummary:
    """Merge the tiles of output folders into the dataset, and write it into the folder `out`.

    The folder appears whole or not at all; a dataset that is there already is replaced. The same tiles give the same
    bytes. A damaged tile is left out, with a warning; there is one too where tiles are of different models, thresholds
    or rules for objects.

    Args:
        outputs: output folders of `darts run`; tiles lie one or two folders below.
        out: folder of the dataset.
        model: whose own objects are taken; None takes those of the mean of all models.
        threshold: a further threshold of the run whose objects are taken; None takes those of the main one.
        min_object_size: in pixels, asked of objects with cut pieces; None: that of the run as the tiles' files tell it,
            else 32.
        regions: vector file of polygons by which the summary counts too, besides cells of 100 km.
        region_column: whose text names them; None: the first one with text.
        matching: when footprints of different years are one slump.
        processes: how many work at once. Above 1 the calling script must be importable (`if __name__ == "__main__"`).
        pieces_at_once: polygons that each process holds in memory, as a rule.

    Raises:
        MissingDataError: there is no tile, none with the layer that is asked for, or none that can be read.
        ConfigError: `out` holds other files, another merge writes it, or a parameter cannot be.
        StoreError: the dataset cannot be written.
    """
    # A link to the dataset's folder stays one, and "." gets a name.
    folders, target = [Path(output) for output in outputs], Path(os.path.realpath(out))
    _check_numbers(min_object_size, processes, pieces_at_once)
    matching = matching or Matching()
    areas = None if regions is None else read_regions(Path(regions), region_column)
    suffix = _layer(model, threshold)
    check_target(target, folders)
    found = find_tiles(folders, suffix)
    _check_layer(found, model, threshold)
    with new_dataset(target) as temporary, _mapping(processes) as run:
        spill = temporary / "spill"
        spill.mkdir()
        intake = read_all(found, suffix, matching.drift_m / 2, spill, run)
        if intake.tiles.empty:
            raise MissingDataError(f"no tile could be read; the first of {len(intake.damaged)}: {intake.damaged[0]}")
        intake = _with_observations(intake, min_object_size)
        mixed = _settings_that_differ(intake.tiles, threshold)
        work = Work(intake.tiles, matching, suffix, spill)
        done = _all_groups(work, intake, pieces_at_once, run)
        parts = done.parts | {"coverage": cover(intake.tiles, spill, run)}
        tables = list(TABLES)
        counts = run(partial(_write_table, temporary), tables, [parts[table] for table in tables])
        rows = dict(zip(tables, counts, strict=True))
        write_summary(temporary, summarize(temporary, areas))
        draw_map(temporary).save(temporary / "map.png")
        write_catalogue(temporary, target.name, intake.tiles, rows)
        _remove(spill)
    return MergeSummary(
        folder=Path(out),
        tiles=len(intake.tiles),
        duplicates=intake.duplicates,
        damaged=tuple(intake.damaged),
        mixed=mixed,
        whole=int(intake.tiles["whole"].sum()),
        cut=int(intake.tiles["cut"].sum()),
        dropped=done.dropped,
        rows=rows,
    )


def _write_table(folder: Path, table: str, parts: Sequence[Path]) -> int:
    parquet = folder / f"{table}.parquet"
    rows = write_geoparquet(parquet, table, parts)
    if table in LEVELS:
        ids = pq.read_table(parquet, columns=["id"])["id"].to_numpy()
        if len(np.unique(ids)) < rows:
            _logger.warning("%s: %d rows have an id that is another's too", table, rows - len(np.unique(ids)))
    write_geopackage(folder / f"{table}.gpkg", table, parquet, rows)
    return rows


def _layer(model: str | None, threshold: float | None) -> str:
    if model is not None:
        check_model_names([model])
    try:
        return object_suffix(model or "", threshold)
    except ConfigError as error:
        raise ConfigError(
            f"threshold must be one of the run's more_thresholds, such as 0.4, of whole percents in 0.01 … 0.99; got "
            f"{threshold!r}"
        ) from error


def _check_layer(found: Sequence[TileFolder], model: str | None, threshold: float | None) -> None:
    """Check that any tile has the layer of a model or a further threshold.

    Raises:
        MissingDataError: none has; tells what there is.
    """
    suffix = _layer(model, threshold)
    if not suffix or any(suffix in layers_in(tile.path) for tile in found):
        return
    first = next(filter(None, (layers_in(tile.path) for tile in found)), [])
    layers = [(layer["model"], layer["percent"]) for name in first if (layer := LAYER.fullmatch(name))]
    if not layers:
        return  # why, reading them tells
    models = sorted({name for name, _ in layers if name is not None})
    if model is not None and model not in models:
        there = f"there are those of {listed(models)}" if models else "only those of all models together are there"
        raise MissingDataError(
            f"no tile has objects of model {shown(model)}: {there}. Runs write those of each model with "
            "--write-model-outputs, where there are several; else leave --model out"
        )
    percents = sorted(percent for name, percent in layers if name == model and percent is not None)
    there = ", ".join(f"{int(percent) / 100:g}" for percent in percents)
    there = f"there are those at {there}" if there else "only those of the main one are there"
    raise MissingDataError(
        f"no tile has objects at the further threshold {threshold}: {there}. Runs write those of further ones with "
        f"--more-thresholds {threshold}; for those of the main one leave --threshold out"
    )


def _check_numbers(min_object_size: int | None, processes: int, pieces_at_once: int) -> None:
    for name, value in (
        ("min_object_size", min_object_size), ("processes", processes), ("pieces_at_once", pieces_at_once),
    ):  # fmt: skip
        if value is not None:
            whole_number(name, value, 1)


def _settings_that_differ(tiles: pd.DataFrame, threshold: float | None) -> tuple[str, ...]:
    """Return in which settings tiles differ, and warn of them."""
    mixed = []
    for name in SETTINGS:
        if name == MAIN_THRESHOLD and threshold is not None:
            continue  # of other layers
        values = sorted(set(tiles[name]) - {""})
        if len(values) > 1:
            mixed.append(f"{option_of(name)}: {listed(values, 3)}")
            _logger.warning("tiles of different settings are merged: %s", mixed[-1])
    return tuple(mixed)


def _with_observations(intake: Intake, min_object_size: int | None) -> Intake:
    """Add year, day and observation (a number for each sensor and day); set the smallest object if asked."""
    tiles = intake.tiles
    time = pd.to_datetime(tiles["time"], utc=True)
    date = time.dt.tz_localize(None).to_numpy("datetime64[D]")
    days = pd.Series(date.astype("int64"), index=tiles.index)
    observation = pd.DataFrame({"sensor": tiles["sensor"], "day": days}).groupby(["sensor", "day"]).ngroup()
    tiles = tiles.assign(year=time.dt.year.astype("int64"), observation=observation.astype("int64"))
    tiles["date"] = pd.Series(date.astype(object), index=tiles.index)
    if min_object_size is not None:
        tiles["min_px"] = min_object_size
    return replace(intake, tiles=tiles)


def _all_groups(work: Work, intake: Intake, most: int, run: Map) -> Done:
    """Work on all groups of cells; then, in other groups, on what was put off."""
    total = Done()
    files: Sequence[SpillFile] = intake.files
    counts, number = intake.counts, 0
    for turn in range(MOST_ROUNDS):
        if not len(counts.cells):
            break
        # What is put off again and again hangs together: it is worked on as one.
        final = int(counts.number.sum()) <= most or turn == MOST_ROUNDS - 1
        ranges = [(int(counts.cells[0]), int(counts.cells[-1]))] if final else counts.divided(most)
        groups = [Group(number + at, *cells, files, final or len(ranges) == 1) for at, cells in enumerate(ranges)]
        number += len(groups)
        results: list[Done] = list(run(partial(work_on, work), groups))
        for level in LEVELS:
            total.parts[level].extend(path for done in results for path in done.parts[level])
        total = Done(total.parts, dropped=sum((done.dropped for done in results), total.dropped))
        for file in files:
            file.path.unlink()
        files = [file for done in results for file in done.put_off]
        counts = Counts.total([done.put_off_counts for done in results])
    return total


@contextmanager
def _mapping(processes: int) -> Iterator[Map]:
    """Give `map`, on several processes if asked."""
    if processes == 1:
        yield map
        return
    with ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
    ) as pool:
        yield pool.map


def _end_with_parent() -> None:
    """End this process when its parent is gone; a pool's workers would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _remove(spill: Path) -> None:
    for path in spill.iterdir():
        path.unlink()
    spill.rmdir()
