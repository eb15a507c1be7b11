"""The table of slumps, from outlines of Level 2 that were followed across years."""

from typing import Any

import numpy as np
import pandas as pd
import shapely

from darts_export.dataset.clusters import members
from darts_export.dataset.level2 import dissolved
from darts_export.dataset.looks import Looks
from darts_export.dataset.slumps import NONE, Tracks


def describe_slumps(
    level2: pd.DataFrame, tracks: Tracks, plane: str, tiles: pd.DataFrame, looks: Looks
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return Level 2 with what is known of slumps, and the slumps: one row each, with its largest extent."""
    ids, area = level2["id"].to_numpy(), level2["area_m2"].to_numpy()
    before = tracks.previous
    level2 = level2.assign(
        slump_id=ids[tracks.slump],
        area_change_m2=np.where(before == NONE, np.nan, area - area[np.maximum(before, 0)]),
    )
    first, of_row = np.unique(tracks.slump, return_inverse=True)
    years = level2["year"].to_numpy()
    order = np.lexsort([years, of_row])
    starts = np.flatnonzero(np.diff(of_row[order], prepend=-1))
    stops = np.append(starts[1:], len(order))
    begin, end = order[starts], order[stops - 1]
    slumps = pd.DataFrame(
        {
            "id": ids[first],
            "parent_id": _named(tracks.parent[first], ids),
            "merged_into_id": _named(tracks.merged_into[first], ids),
            "first_year": years[begin],
            "last_year": years[end],
            "n_years": stops - starts,
            "first_date": level2["first_date"].to_numpy()[begin],
            "last_date": level2["last_date"].to_numpy()[end],
            "first_area_m2": area[begin],
            "last_area_m2": area[end],
            "area_change_m2": area[end] - area[begin],
            "years": [_listed(years[order[a:b]]) for a, b in zip(starts, stops, strict=True)],
            "areas_m2": [_listed(np.rint(area[order[a:b]])) for a, b in zip(starts, stops, strict=True)],
            **_largest_extents(level2, tracks.slump, first, plane),
        }
    )
    slump, day = _looks(slumps, plane, tiles, looks)
    last = np.full(len(slumps), np.datetime64("NaT", "D"))
    np.fmax.at(last, slump, day)
    slumps["last_look"] = last
    looked_year = 1970 + day.astype("datetime64[Y]").astype("int64")
    pairs, number = np.unique(np.stack([slump, looked_year]), axis=1, return_counts=True)
    slumps["n_years_looked"] = np.bincount(pairs[0], minlength=len(slumps))
    number_of = dict(zip(zip(*pairs.tolist(), strict=True), number.tolist(), strict=True))
    level2["n_looks"] = [number_of.get(key, 0) for key in zip(of_row.tolist(), years.tolist(), strict=True)]
    return level2, slumps


def _largest_extents(level2: pd.DataFrame, slump: np.ndarray, first: np.ndarray, plane: str) -> dict[str, Any]:
    columns = {name: level2[name].to_numpy() for name in ("geometry", "flat", "crs", "pixel", "area_m2", "npixel")}
    rows = {name: columns[name][first].copy() for name in ("geometry", "flat", "crs", "area_m2")}
    groups = list(members(slump))
    several = np.searchsorted(first, [slump[group[0]] for group in groups])
    for name, values in dissolved(columns, groups, plane).items():
        if name in rows:
            rows[name][several] = values
    return rows


def _looks(slumps: pd.DataFrame, plane: str, tiles: pd.DataFrame, looks: Looks) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of a slump and a day on which it was seen at least in part, each once."""
    outlines = slumps["flat"].to_numpy()
    tree = shapely.STRtree(outlines)
    dates = tiles["date"].to_numpy("datetime64[D]")
    of_tile = dict(zip(tiles.index.tolist(), dates, strict=True))
    slump, day = [np.empty(0, "int64")], [np.empty(0, "datetime64[D]")]
    around = shapely.total_bounds(outlines)
    for tile in looks.near(around, plane):
        extent = shapely.intersection(looks.flat_extent(tile), shapely.box(*around))
        found = tree.query(extent, predicate="intersects")
        slump.append(found)
        day.append(np.full(len(found), of_tile[tile]))
    pairs = np.stack([np.concatenate(slump), np.concatenate(day).astype("int64")])
    slump_of, day_of = np.unique(pairs, axis=1)
    return slump_of, day_of.astype("datetime64[D]")


def _named(rows: np.ndarray, ids: np.ndarray) -> pd.Series:
    return pd.Series(ids[np.maximum(rows, 0)], dtype="Int64").mask(rows == NONE)


def _listed(values: np.ndarray) -> str:
    return ";".join(f"{value:.0f}" for value in values)
