"""Level 2: what overlaps within a calendar year, dissolved to its largest extent."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import shapely

from darts_export.dataset.clusters import close_pairs, connected, members
from darts_export.dataset.ids import ids_of
from darts_export.dataset.joining import join
from darts_export.dataset.outlines import measured, projected
from darts_export.dataset.planes import project_points
from darts_export.dataset.statistics import PROBABILITY, pooled


def dissolve_years(level1: pd.DataFrame, plane: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Return Level 2 of Level 1, and for each row of Level 1 its row there.

    Footprints of one year that overlap or touch become one, whatever sensor and day they are of.
    """
    columns = {str(name): level1[name].to_numpy() for name in level1}
    label = connected(len(level1), *close_pairs(columns["flat"], columns["year"]))
    lowest, row_of = np.unique(label, return_inverse=True)
    rows: dict[str, np.ndarray] = {name: columns[name][lowest].copy() for name in _KEPT}
    rows |= {"first_date": columns["date"][lowest].copy(), "last_date": columns["date"][lowest].copy()}
    rows |= {"n_observations": np.ones(len(lowest), "int64"), "sensors": columns["sensor"][lowest].copy()}
    groups = list(members(label))
    several = row_of[[group[0] for group in groups]] if groups else np.empty(0, "int64")
    for name, values in dissolved(columns, groups, plane).items():
        rows[name][several] = values
    for at, group in zip(several, groups, strict=True):
        for name, value in _values(columns, group).items():
            rows[name][at] = value
    return pd.DataFrame(rows), row_of


def dissolved(columns: Mapping[str, np.ndarray], groups: Sequence[np.ndarray], plane: str) -> dict[str, np.ndarray]:
    """Return the outlines of groups of rows as one each, with what is known of outlines."""
    if not len(groups):
        return {}
    first = np.array([group[0] for group in groups])
    one_crs = np.array([len(set(columns["crs"][group])) == 1 for group in groups])
    crs = np.where(one_crs, columns["crs"][first], plane)
    pixel = np.where(one_crs, columns["pixel"][first], np.sqrt(columns["area_m2"][first] / columns["npixel"][first]))
    outlines = [columns["geometry" if one else "flat"][group] for one, group in zip(one_crs, groups, strict=True)]
    geometry = join(outlines, pixel).geometry
    return {
        "geometry": geometry,
        "crs": crs,
        "pixel": pixel,
        "flat": projected(geometry, crs, plane),
        "area_m2": measured(geometry, crs, pixel)[0],
        "npixel": np.rint(shapely.area(geometry) / pixel**2),
    }


def identify(level: str, rows: pd.DataFrame, plane: str, *names: str) -> np.ndarray:
    """Return ids of rows from where their outline lies, how large it is, and what the columns `names` say."""
    centre = shapely.centroid(rows["flat"].to_numpy())
    longitude, latitude = project_points(shapely.get_x(centre), shapely.get_y(centre), plane, "EPSG:4326")
    places = zip(longitude, latitude, rows["area_m2"], *(rows[name] for name in names), strict=True)
    return ids_of([
        "|".join([level, f"{x:.6f}", f"{y:.6f}", f"{area:.0f}", *map(str, rest)]) for x, y, area, *rest in places
    ])  # fmt: skip


_KEPT = (
    "year", "crs", "pixel", "geometry", "flat", "area_m2", "npixel", *PROBABILITY,
)  # fmt: skip


def _values(columns: Mapping[str, np.ndarray], group: np.ndarray) -> dict[str, Any]:
    return {
        **pooled({name: columns[name][group] for name in PROBABILITY}, columns["area_m2"][group]),
        "first_date": columns["date"][group].min(),
        "last_date": columns["date"][group].max(),
        "n_observations": len(set(columns["date"][group])),
        "sensors": ";".join(sorted(set(columns["sensor"][group]))),
    }
