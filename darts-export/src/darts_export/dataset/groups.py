"""A part of the Earth from pieces to rows of all levels; what hangs together with another part is put off."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely

from darts_export.dataset.columns import TABLES
from darts_export.dataset.extents import BOX
from darts_export.dataset.level1 import Dropped, join_pieces
from darts_export.dataset.level2 import dissolve_years, identify
from darts_export.dataset.looks import Looks
from darts_export.dataset.outlines import measured, projected
from darts_export.dataset.planes import NORTH, SOUTH, to_lonlat
from darts_export.dataset.slumps import Matching, match_years
from darts_export.dataset.spill import Counts, SpillFile, read_range, write_spill
from darts_export.dataset.tracks import describe_slumps
from darts_export.dataset.writing import write_part

LEVELS = ("level1", "level2", "slumps")


@dataclass(frozen=True)
class Work:
    """What all groups share."""

    tiles: pd.DataFrame
    matching: Matching
    layer: str
    folder: Path


@dataclass(frozen=True)
class Group:
    """Cells to work on."""

    number: int
    first: int
    last: int
    files: Sequence[SpillFile]
    final: bool
    """Nothing outside is left: nothing is put off."""


@dataclass(frozen=True)
class Done:
    """What a group gave."""

    parts: dict[str, list[Path]] = field(default_factory=lambda: {level: [] for level in LEVELS})
    put_off: tuple[SpillFile, ...] = ()
    put_off_counts: Counts = field(default_factory=lambda: Counts.total([]))
    dropped: Dropped = field(default_factory=Dropped)


def work_on(work: Work, group: Group) -> Done:
    """Write the rows of all levels of a group's slumps.

    Pieces within reach of each other, of any day, belong together. Those that belong together with one that touches
    cells of another group are put off, which that group does too.
    """
    rows = _rows_of(work, group)
    pieces = rows.drop_duplicates("uid").sort_values("uid").reset_index(drop=True)
    done = Done()
    if not group.final:
        here = rows["uid"].value_counts()
        outside = here.loc[pieces["uid"]].to_numpy() < pieces["cells"].to_numpy()
        waits = _reached(pieces[list(BOX)].to_numpy(), outside, pieces["plane"].to_numpy())
        put_off = rows[rows["uid"].isin(pieces["uid"][waits])]
        pieces = pieces[~waits]
        if len(put_off):
            table = pa.Table.from_pandas(put_off.drop(columns="plane"), preserve_index=False)
            file = write_spill(work.folder / f"put-off-{group.number:06}.arrow", table)
            done = replace(done, put_off=(file,), put_off_counts=Counts.of(put_off["cell"].to_numpy()))
    for plane in (NORTH, SOUTH):
        part = pieces[pieces["plane"] == plane].reset_index(drop=True)
        if len(part):
            done = _finish(work, group, part, plane, done)
    return done


def _rows_of(work: Work, group: Group) -> pd.DataFrame:
    batches = list(read_range(group.files, group.first, group.last))
    rows = pa.Table.from_batches(batches).to_pandas()
    rows = rows[rows["tile"].isin(work.tiles.index)]  # tiles that were there twice are not
    rows["plane"] = work.tiles["plane"].reindex(rows["tile"]).to_numpy()
    return rows


def _reached(boxes: np.ndarray, start: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Return which boxes hang together with those of `start`, over any number of others."""
    reached = start.copy()
    for name in set(plane[start]):
        here = np.flatnonzero(plane == name)
        outlines = shapely.box(*boxes[here].T)
        tree = shapely.STRtree(outlines)
        fresh = np.flatnonzero(reached[here])
        while len(fresh):
            touched = here[np.unique(tree.query(outlines[fresh])[1])]
            new = touched[~reached[touched]]
            reached[new] = True
            fresh = np.searchsorted(here, new)
    return reached


def _finish(work: Work, group: Group, pieces: pd.DataFrame, plane: str, done: Done) -> Done:
    looks = Looks(work.tiles)
    geometry = shapely.from_wkb(pieces.pop("geometry").to_numpy())
    crs = work.tiles["crs"].reindex(pieces["tile"]).to_numpy()
    pieces["geometry"], pieces["flat"] = geometry, projected(geometry, crs, plane)
    level1, dropped = join_pieces(pieces.drop(columns="plane"), work.tiles, looks)
    done = replace(done, dropped=done.dropped + dropped)
    if level1.empty:
        return done
    missing = level1["perimeter_m"].isna().to_numpy()
    if missing.any():
        geometry, crs, pixel = (level1[name].to_numpy()[missing] for name in ("geometry", "crs", "pixel"))
        level1.loc[missing, "perimeter_m"] = measured(geometry, crs, pixel)[1]
    level1["id"] = identify(f"level1|{work.layer}", level1, plane, "sensor", "date", "npixel")
    level2, of_level1 = dissolve_years(level1, plane)
    level2["id"] = identify(f"level2|{work.layer}", level2, plane, "year")
    tracks = match_years(level2, work.matching)
    level2, slumps = describe_slumps(level2, tracks, plane, work.tiles, looks)
    level1["level2_id"] = level2["id"].to_numpy()[of_level1]
    level1["slump_id"] = level2["slump_id"].to_numpy()[of_level1]
    for level, rows in zip(LEVELS, (level1, level2, slumps), strict=True):
        path = work.folder / f"{level}-{group.number:06}-{plane[-4:]}.arrow"
        _write_part(path, level, rows, plane)
        done.parts[level].append(path)
    return done


def _write_part(path: Path, level: str, rows: pd.DataFrame, plane: str) -> None:
    geometry, crs = rows["geometry"].to_numpy(), rows["crs"].to_numpy()
    lonlat = geometry.copy()
    for name in set(crs):
        lonlat[crs == name] = to_lonlat(geometry[crs == name], name, plane)
    write_part(path, level, {column.name: rows[column.name] for column in TABLES[level]}, lonlat)
