"""Level 1: one row a slump and observation, joined from the pieces that tiles hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import shapely

from darts_export.dataset.clusters import close_pairs, connected, members
from darts_export.dataset.joining import join, lies_within
from darts_export.dataset.looks import Looks
from darts_export.dataset.outlines import measured, projected
from darts_export.dataset.statistics import PROBABILITY, pooled, weighted_mean

TOUCH_PX = 0.1
"""Pieces that are closer than this share of a pixel touch. On one grid they touch, or are a whole pixel apart."""

OTHER_GRID_PX = 1.0
"""How far an object may reach out of what was seen where grids differ, so that borders of pixels do not agree."""

ADDED_PX = 0.01
"""A piece that adds less than this to the others counts for nothing in their statistics."""

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Dropped:
    """Objects with cut pieces that are not kept."""

    unseen: int = 0
    """A part of them lies in no tile's extent, and no tile saw another part whole."""
    small: int = 0
    """They are smaller than the smallest object, or without a seed."""

    def __add__(self, other: "Dropped") -> "Dropped":
        return Dropped(self.unseen + other.unseen, self.small + other.small)


def join_pieces(pieces: pd.DataFrame, tiles: pd.DataFrame, looks: Looks) -> tuple[pd.DataFrame, Dropped]:
    """Return the slumps of each observation, and how many were dropped.

    Pieces of one observation that overlap or touch are one slump. One with cut pieces is kept when it lies within what
    the tiles of its observation saw together, as it would be if they were one tile, and when it is large enough. Of
    one that reaches out of that, what some tile saw whole is kept without the cut pieces.

    Args:
        pieces: of one plane, with `geometry` in the CRS of their tile and `flat` in the plane, sorted by `uid`.
        tiles: what is known of each tile, by its number.
        looks: their extents.

    Returns:
        One row a slump: its geometry in `crs`, and `flat` in the plane; the values of Level 1 but ids.
    """
    columns = _columns(pieces, tiles)
    several = _with_several_tiles(columns["observation"], columns["tile"])
    alone = np.arange(len(pieces)) + 1 + columns["observation"].max(initial=0)
    group = np.where(several, columns["observation"], alone)
    first, second = close_pairs(columns["flat"], group, TOUCH_PX * columns["pixel_m"])
    label = connected(len(pieces), first, second)
    found = _joined(columns, label)
    seen, large = _are_seen(found, looks), _are_large(found)
    keep = seen & large

    whole = ~columns["cut"].astype(bool)
    again = whole & np.isin(label, found["first"][~seen])  # the first piece of an object is its label
    both = again[first] & again[second]
    apart = connected(len(pieces), first[both], second[both])
    parts = [
        {name: values[keep] for name, values in found.items()},
        _joined({name: values[again] for name, values in columns.items()}, apart[again]),
    ]
    rows = pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in found})
    dropped = Dropped(
        unseen=int((~seen & ~np.isin(found["first"], label[again])).sum()), small=int((seen & ~large).sum())
    )
    return rows.sort_values("first").reset_index(drop=True), dropped


def _columns(pieces: pd.DataFrame, tiles: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return all that is known of pieces, under the names of Level 1."""
    of_tile = tiles.loc[pieces["tile"]]
    renamed = pieces.rename(columns={source: name for name, source in PROBABILITY.items()})
    return {
        **{str(name): renamed[name].to_numpy() for name in renamed},
        **{
            name: of_tile[name].to_numpy()
            for name in (
                "observation", "sensor", "date", "year", "model", "crs", "plane", "min_px", "min_area", "seeded",
            )
        },
        "image_ids": of_tile["image_id"].to_numpy(),
        "tile_ids": of_tile["tile_id"].to_numpy(),
        "first": np.arange(len(pieces)),
        "n_pieces": np.ones(len(pieces), "int64"),
        "on_grid": np.ones(len(pieces), bool),
    }  # fmt: skip


def _with_several_tiles(observation: np.ndarray, tile: np.ndarray) -> np.ndarray:
    """Return which pieces have pieces of other tiles in their observation; those of one tile never touch."""
    _, code = np.unique(observation, return_inverse=True)
    count = code.max(initial=-1) + 1
    lowest, highest = np.full(count, np.iinfo("int64").max), np.full(count, -1)
    np.minimum.at(lowest, code, tile)
    np.maximum.at(highest, code, tile)
    several: np.ndarray = (lowest < highest)[code]
    return several


def _joined(columns: Columns, label: np.ndarray) -> dict[str, np.ndarray]:
    """Return a row for each label."""
    single = np.bincount(label)[label] == 1
    several = _join_groups(columns, list(members(label)))
    return {name: np.concatenate([columns[name][single], several[name]]) for name in several}


def _join_groups(columns: Columns, groups: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Return a row for each group of pieces; what is not set here is that of its largest piece."""
    # The largest first: what it holds is whole, and the others count for what they add.
    order = [np.lexsort([columns["uid"][group], -columns["area_m2"][group]]) for group in groups]
    groups = [group[largest_first] for group, largest_first in zip(groups, order, strict=True)]
    main = np.array([group[0] for group in groups], "int64")
    rows = {name: columns[name][main] for name in columns}
    if not groups:
        return rows
    one_crs = np.array([len(set(columns["crs"][group])) == 1 for group in groups])
    rows["crs"] = np.where(one_crs, rows["crs"], rows["plane"])
    rows["pixel"] = np.where(one_crs, rows["pixel"], rows["pixel_m"])
    outlines = [columns["geometry" if one else "flat"][group] for one, group in zip(one_crs, groups, strict=True)]
    whole = join(outlines, rows["pixel"], added=True)
    rows["geometry"], rows["on_grid"] = whole.geometry, whole.on_grid & one_crs
    rows["flat"] = projected(rows["geometry"], rows["crs"], str(rows["plane"][0]))
    rows["area_m2"], rows["perimeter_m"] = measured(rows["geometry"], rows["crs"], rows["pixel"])
    rows["npixel"] = np.rint(shapely.area(whole.geometry) / rows["pixel"] ** 2)
    rows["pixel_m"] = np.sqrt(rows["area_m2"] / rows["npixel"])
    for at, (group, added) in enumerate(zip(groups, whole.added, strict=True)):
        weight = np.where(added > ADDED_PX * rows["pixel"][at] ** 2, added, 0)
        for name, value in _values(columns, group, weight).items():
            rows[name][at] = value
    return rows


def _values(columns: Columns, group: np.ndarray, weight: np.ndarray) -> dict[str, Any]:
    around = columns["valid_share_around"][group]
    return {
        "first": columns["first"][group].min(),
        "model": _listed(columns["model"][group]),
        "threshold": _common(columns["threshold"][group]),
        "image_ids": _listed(columns["image_ids"][group]),
        "tile_ids": _listed(columns["tile_ids"][group]),
        **pooled({name: columns[name][group] for name in PROBABILITY}, weight),
        "probability_std": weighted_mean(columns["probability_std"][group], weight),
        "valid_share_around": np.nan if np.isnan(around).all() else np.nanmax(around),
        "cut": columns["cut"][group].any(),
        "min_px": columns["min_px"][group].min(),
        "min_area": columns["min_area"][group].min(),
        "seeded": columns["seeded"][group].any(),
        "n_pieces": len(group),
    }


def _are_large(found: Columns) -> np.ndarray:
    """Return which objects are whole, or as large as the run asks for, with a seed where it wants one."""
    with np.errstate(invalid="ignore"):
        small = (found["npixel"] < found["min_px"]) | (found["area_m2"] < found["min_area"])
        # Grown objects have a seed: a pixel above the threshold proper, which may lie in another piece.
        small |= found["seeded"].astype(bool) & (found["pval_max"] <= found["threshold"])
    large: np.ndarray = ~(found["cut"].astype(bool) & small)
    return large


def _are_seen(found: Columns, looks: Looks) -> np.ndarray:
    """Return which objects are whole, or lie within what was seen."""
    seen = np.ones(len(found["cut"]), bool)
    for row in np.flatnonzero(found["cut"]):
        seen[row] = _is_seen({name: found[name][row] for name in _OF_SEEN}, looks)
    return seen


_OF_SEEN = ("observation", "plane", "crs", "pixel", "pixel_m", "on_grid", "geometry", "flat")


def _is_seen(row: Mapping[str, Any], looks: Looks) -> bool:
    """Return whether an object lies within what the tiles of its observation saw together."""
    near = looks.near(row["flat"].bounds, row["plane"], int(row["observation"]))
    same_crs = [tile for tile in near if looks.crs(tile) == row["crs"]]
    tolerance = 0 if row["on_grid"] else OTHER_GRID_PX
    seen = [looks.extent(tile) for tile in same_crs]
    if seen and lies_within(row["geometry"], seen, row["pixel"], tolerance_px=tolerance):
        return True
    if len(same_crs) == len(near):
        return False
    seen = [looks.flat_extent(tile) for tile in near]
    return lies_within(row["flat"], seen, row["pixel_m"], tolerance_px=OTHER_GRID_PX)


def _common(values: np.ndarray) -> float:
    return float(values[0]) if (values == values[0]).all() else np.nan


def _listed(names: np.ndarray) -> str:
    return ";".join(sorted({str(name) for name in names if name}))
