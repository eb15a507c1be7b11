"""What was seen, and what was seen clear, by year and cell of 100 km."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely

from darts_export.dataset.columns import COVERAGE
from darts_export.dataset.extents import BOX
from darts_export.dataset.intake import Map
from darts_export.dataset.looks import EDGE_M, Looks, flat
from darts_export.dataset.planes import (
    NORTH,
    SOUTH,
    cut_at_the_antimeridian,
    polygons_of,
    project,
    project_points,
    to_lonlat,
)
from darts_export.dataset.writing import write_part

CELL_M = 100_000.0
"""Side of the cells. Corners lie on the pole and on the antimeridian, so that no cell reaches across either."""

SNAP_M = 0.001
"""Where tiles of several CRSs cross, corners are rounded to this, so that no slivers stay."""

KINDS = ("seen", "clear")


@dataclass(frozen=True)
class Cell:
    """A square of the plane of a hemisphere."""

    plane: str
    across: int
    up: int

    @property
    def name(self) -> str:
        """Hemisphere, and the lower left corner in km."""
        side = int(CELL_M // 1000)
        return f"{'N' if self.plane == NORTH else 'S'}{self.across * side:+06d}{self.up * side:+06d}"

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in m."""
        left, bottom = self.across * CELL_M, self.up * CELL_M
        return left, bottom, left + CELL_M, bottom + CELL_M

    def middle(self) -> tuple[float, float]:
        """Return the longitude and latitude of the middle."""
        left, bottom, right, top = self.bounds
        x, y = project_points((left + right) / 2, (bottom + top) / 2, self.plane, "EPSG:4326")
        return float(x), float(y)


def cell_at(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of the cells that hold points."""
    return np.floor(x / CELL_M).astype("int64"), np.floor(y / CELL_M).astype("int64")


def cover(tiles: pd.DataFrame, folder: Path, run: Map) -> list[Path]:
    """Write the coverage of all cells and years, and return the parts."""
    cells = _touched(tiles)
    chunks = [cells[start : start + 16] for start in range(0, len(cells), 16)]
    return list(run(partial(_cover_cells, tiles, folder), range(len(chunks)), chunks))


def _touched(tiles: pd.DataFrame) -> list[tuple[Cell, int, tuple[int, ...]]]:
    """Return cells, years, and the tiles of each, in order."""
    found: dict[tuple[Cell, int], list[int]] = {}
    rows = zip(tiles.index, tiles["plane"], tiles["year"], tiles[list(BOX)].to_numpy("float64"), strict=True)
    for tile, plane, year, box in rows:
        if np.isfinite(box).all():
            (left, right), (bottom, top) = (np.floor(box[[at, at + 2]] / CELL_M).astype(int) for at in (0, 1))
            for across in range(left, right + 1):
                for up in range(bottom, top + 1):
                    found.setdefault((Cell(plane, across, up), int(year)), []).append(int(tile))
    order = sorted(found, key=lambda key: (key[0].plane, key[0].across, key[0].up, key[1]))
    return [(*key, tuple(found[key])) for key in order]


def _cover_cells(
    tiles: pd.DataFrame, folder: Path, number: int, cells: Sequence[tuple[Cell, int, tuple[int, ...]]]
) -> Path:
    rows = [row for cell, year, those in cells for row in _cover_cell(tiles, cell, year, those)]
    columns = {column.name: pd.Series([row[column.name] for row in rows], dtype=object) for column in COVERAGE}
    path = folder / f"coverage-{number:06}.arrow"
    write_part(path, "coverage", columns, np.array([row["geometry"] for row in rows], dtype=object))
    return path


def _cover_cell(tiles: pd.DataFrame, cell: Cell, year: int, those: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    looks = Looks(tiles.loc[list(those)])
    square = shapely.segmentize(shapely.box(*cell.bounds), EDGE_M)
    for kind in KINDS:
        union, seen = _union_in_cell(looks, those, kind, square, cell.plane)
        if union is None:
            continue
        yield {
            "year": year,
            "kind": kind,
            "region": cell.name,
            "area_km2": union.area / 1e6,  # the plane keeps areas
            "n_dates": len({tiles.at[tile, "date"] for tile in seen}),
            "geometry": _cell_to_lonlat(union, cell),
        }


def _union_in_cell(looks: Looks, those: Sequence[int], kind: str, square: Any, plane: str) -> tuple[Any, list[int]]:
    """Return what tiles cover of a cell, None if nothing, and the tiles that do."""
    # Tiles of one CRS meet along pixels: united there, no slivers stay between them.
    by_crs: dict[str, list[Any]] = {}
    seen = []
    for tile in those:
        crs = looks.crs(tile)
        extent = looks.extent(tile, kind)
        around = _bounds_in(square, plane, crs)
        part = polygons_of(shapely.intersection(extent, around)) if around is not None else extent
        if not part.is_empty:
            by_crs.setdefault(crs, []).append(part)
            seen.append(tile)
    flats = [
        polygons_of(shapely.intersection(shapely.make_valid(flat(shapely.union_all(parts), crs, plane)), square))
        for crs, parts in by_crs.items()
    ]
    flats = [part for part in flats if not part.is_empty]
    union = polygons_of(shapely.union_all(flats, grid_size=SNAP_M if len(flats) > 1 else None))
    return (None if union.is_empty else union), seen


def _bounds_in(square: Any, plane: str, crs: str) -> Any:
    """Return a box in another CRS that holds a square; None where it has no simple bounds there."""
    moved = project(np.array([square], dtype=object), plane, crs)[0]
    left, bottom, right, top = moved.bounds
    if not np.isfinite([left, bottom, right, top]).all() or abs(right) <= 720:
        return None
    margin = 0.01 * max(right - left, top - bottom)
    return shapely.box(left - margin, bottom - margin, right + margin, top + margin)


def _cell_to_lonlat(union: Any, cell: Cell) -> Any:
    if cell.across in (-1, 0) and (cell.up >= 0) == (cell.plane != SOUTH):
        # Along the antimeridian the side decides between -180° and 180°: the way across it does that.
        return cut_at_the_antimeridian(union, cell.plane)
    return to_lonlat(np.array([union], dtype=object), cell.plane, cell.plane)[0]
