"""All tiles read once: their polygons in spill files, what else is known of them in a table."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from pyproj.exceptions import ProjError

from darts_export.dataset.extents import BOX, put_extents_down
from darts_export.dataset.planes import NORTH, SOUTH, project, project_points
from darts_export.dataset.spill import Counts, SpillFile, cells_of_boxes, write_spill
from darts_export.dataset.tile_folders import TileFolder
from darts_export.dataset.tile_reading import DEFAULT_MIN_OBJECT_PX, NUMBERS, TilePolygons, read_tile
from darts_utils.errors import StoreError
from darts_utils.option_tags import TAGS

TILES_AT_ONCE = 128
ROWS_AT_ONCE = 50_000
LONGEST_EXTENT_EDGE_PX = 100

MAIN_THRESHOLD = TAGS["binarization_threshold"]
_OPTIONS = ("binarization_threshold", "grow_threshold", "min_object_size", "min_object_area", "max_water_share")
SETTINGS = ("modelchecksums", *(TAGS[option] for option in _OPTIONS))
"""What a run's files say of how objects were found, and tiles of one dataset should have in common."""

Map = Callable[..., Iterator[Any]]
"""As the built-in `map`, on one or several processes."""

_logger = logging.getLogger("darts.export")


@dataclass(frozen=True)
class Intake:
    """What was read."""

    tiles: pd.DataFrame
    """A row for each tile that is used, by its number."""
    files: list[SpillFile]
    counts: Counts
    damaged: list[str]
    """Why tiles were left out, sorted."""
    duplicates: int
    """Tiles that were there twice."""


@dataclass(frozen=True)
class _Chunk:
    tiles: list[dict[str, Any]]
    files: list[SpillFile]
    counts: Counts
    damaged: list[str]


def read_all(folders: Sequence[TileFolder], suffix: str, reach_m: float, spill: Path, run: Map) -> Intake:
    """Read tiles into spill files; one that is damaged is named in a warning and left out.

    Of tiles with the same sensor, image, tile id and time (a run that was done again) the first counts, in the order
    in which the output folders were named.
    """
    starts = range(0, len(folders), TILES_AT_ONCE)
    read = partial(_read_chunk, list(folders), suffix, reach_m, spill)
    chunks: list[_Chunk] = list(run(read, starts))
    damaged = sorted(reason for chunk in chunks for reason in chunk.damaged)
    for reason in damaged:
        _logger.warning("left out: %s", reason)
    tiles = pd.DataFrame([tile for chunk in chunks for tile in chunk.tiles])
    if tiles.empty:
        return Intake(tiles, [], Counts.total([]), damaged, 0)
    # Tiles are numbered in an order of their own, so that only `place` tells which was named first.
    kept = tiles.sort_values(["place", "tile"]).drop_duplicates(["sensor", "image_id", "tile_id", "time"])
    return Intake(
        tiles=kept.set_index("tile").sort_index(),
        files=[file for chunk in chunks for file in chunk.files],
        counts=Counts.total([chunk.counts for chunk in chunks]),
        damaged=damaged,
        duplicates=len(tiles) - len(kept),
    )


def _read_chunk(folders: list[TileFolder], suffix: str, reach_m: float, spill: Path, start: int) -> _Chunk:
    tiles: list[dict[str, Any]] = []
    damaged: list[str] = []
    files: list[SpillFile] = []
    counts: list[Counts] = []
    held: list[pa.Table] = []

    def put_down() -> None:
        table = pa.concat_tables(held)
        held.clear()
        if len(table):
            files.append(write_spill(spill / f"polygons-{start:07}-{len(files):03}.arrow", table))
            counts.append(Counts.of(table["cell"].to_numpy()))

    extent_file = spill / f"extents-{start:07}.wkb"
    extents = extent_file.open("wb")
    for number, folder in enumerate(folders[start : start + TILES_AT_ONCE], start):
        try:
            polygons = read_tile(folder.path, suffix)
            row, table = _describe(polygons, number, reach_m, folder.path)
        except (StoreError, shapely.GEOSException, ProjError) as error:
            reason = str(error) if isinstance(error, StoreError) else f"{folder.path}: {error}"
            # Names of folders may hold bytes that are no text, which could not be printed.
            damaged.append(reason.encode("utf-8", "backslashreplace").decode())
            continue
        row |= {"place": folder.place, "extents": str(extent_file)}
        tiles.append(row | put_extents_down(extents, {"seen": polygons.seen, "clear": polygons.clear}))
        held.append(table)
        if sum(map(len, held)) > ROWS_AT_ONCE:
            put_down()
    if held:
        put_down()
    extents.close()
    return _Chunk(tiles, files, Counts.total(counts), damaged)


def _describe(polygons: TilePolygons, number: int, reach_m: float, folder: Path) -> tuple[dict[str, Any], pa.Table]:
    """Return a tile's row and its polygons, once for each cell they touch."""
    plane = _plane_of(polygons)
    south = plane == SOUTH
    pixels = polygons.numbers["npixel"]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixel = np.sqrt(shapely.area(polygons.geometry) / pixels)
        pixel_m = np.sqrt(polygons.numbers["area_m2"] / pixels)
    seen = _bounds_in_plane(polygons.seen, polygons.crs, plane)
    if not (polygons.seen.is_empty or np.isfinite(seen).all()):
        raise StoreError(f"{folder}: the tile's extent has no place on Earth in {polygons.crs}")
    bounds = shapely.bounds(project(polygons.geometry, polygons.crs, plane)).reshape(-1, 4)
    if not (np.isfinite(bounds).all() and np.isfinite(pixel_m).all()):
        raise StoreError(f"{folder}: polygons without a place, or without area_m2 and npixel")
    bounds += np.array([-1, -1, 1, 1]) * (reach_m + pixel_m)[:, None]
    row, cell = cells_of_boxes(bounds, np.full(len(bounds), south))
    columns: dict[str, Any] = {
        "uid": (np.int64(number) << 32) + np.arange(len(bounds)),
        "tile": np.full(len(bounds), number, "int32"),
        "cut": polygons.cut,
        "pixel": pixel,
        "pixel_m": pixel_m,
        "cells": np.bincount(row, minlength=len(bounds)).astype("int32"),
        **dict(zip(BOX, bounds.T, strict=True)),
        **{name: polygons.numbers[name] for name in NUMBERS},
    }
    table = pa.table(
        {name: values[row] for name, values in columns.items()}
        | {"geometry": pa.array(shapely.to_wkb(polygons.geometry), pa.binary()).take(pa.array(row)), "cell": cell}
    )
    min_px, min_area = polygons.tag(TAGS["min_object_size"]), polygons.tag(TAGS["min_object_area"])
    return {
        "tile": number,
        "tile_id": polygons.tile_id,
        "image_id": polygons.image_id,
        "sensor": polygons.sensor,
        "model": polygons.model,
        "time": polygons.time,
        "crs": polygons.crs,
        "plane": plane,
        "min_px": DEFAULT_MIN_OBJECT_PX if min_px is None else min_px,
        "min_area": min_area or 0.0,
        "seeded": polygons.tag(TAGS["grow_threshold"]) is not None,
        "whole": int((~polygons.cut).sum()),
        "cut": int(polygons.cut.sum()),
        "made_by": _made_by(polygons),
        **{name: str(polygons.tags.get(f"DARTS_{name}", "")) for name in SETTINGS},
        **dict(zip(BOX, seen, strict=True)),
    }, table


def _plane_of(polygons: TilePolygons) -> str:
    corners = shapely.bounds([polygons.seen, *polygons.geometry])
    if not np.isfinite(corners).any():
        return NORTH
    (left, bottom), (right, top) = np.nanmin(corners[:, :2], axis=0), np.nanmax(corners[:, 2:], axis=0)
    _, latitude = project_points((left + right) / 2, (bottom + top) / 2, polygons.crs, "EPSG:4326")
    return NORTH if float(latitude) >= 0 else SOUTH


def _bounds_in_plane(geometry: Any, crs: str, plane: str) -> np.ndarray:
    """Return bounds, of all there is between long edges too; NaN of nothing."""
    if geometry.is_empty:
        return np.full(4, np.nan)
    left, bottom, right, top = geometry.bounds
    box = np.array([shapely.box(left, bottom, right, top)], dtype=object)
    flat = project(box, crs, plane, longest_edge=max(right - left, top - bottom) / LONGEST_EXTENT_EDGE_PX)
    # Between two points of an edge the curve may bulge: by less than the share below of the whole.
    bounds = shapely.bounds(flat)[0]
    if not np.isfinite(bounds).all():
        return np.full(4, np.nan)
    margin = 1e-3 * max(bounds[2] - bounds[0], bounds[3] - bounds[1])
    return np.asarray(bounds + np.array([-1, -1, 1, 1]) * margin)


def _made_by(polygons: TilePolygons) -> str:
    names = ("modelfiles", "modelchecksums", "version")
    return "; ".join(f"{name} {polygons.tags[f'DARTS_{name}']}" for name in names if f"DARTS_{name}" in polygons.tags)
