"""Labels on the grid of a scene: 0 background, 1 slump, 2 ignore."""

import math
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from darts_acquisition.antimeridian import surface_of
from darts_acquisition.areas import project_areas, read_areas
from darts_utils.errors import GridMismatchError

BACKGROUND, SLUMP, IGNORE = 0, 1, 2
SPARE_DEG = 0.01
"""Labels this close to a scene are looked at: its outline in degrees is a polygon of many points."""
EDGE_PX = 0.01


@dataclass(frozen=True)
class Agreement:
    """What several annotators together say of a pixel."""

    min_agreeing: int = 1
    """At least so many votes make a slump."""
    disputed_from: int | None = None
    """Fewer votes than that, but at least so many, are ignored; None: background."""


def make_target(
    geobox: GeoBox,
    labels: gpd.GeoDataFrame,
    footprint: BaseGeometry | None,
    quality: Any,
    *,
    quality_level: int = 2,
    label_buffer_m: float = 0.0,
    all_touched: bool = False,
    agreement: Agreement | None = None,
) -> np.ndarray:
    """Return the target of a scene, uint8 (y, x): 0 background, 1 slump, 2 ignore.

    Args:
        geobox: grid of the scene.
        labels: polygons in EPSG:4326, within ±180°, with `label`: 1 slump, 2 area to ignore, 0 background (which
            changes nothing); with `annotator` (whole numbers) where several people labelled.
        footprint: what was looked at, EPSG:4326; outside is ignored. None: all of the scene.
        quality: 0, 1, 2 of each pixel (y, x), as in `quality_data_mask`.
        quality_level: pixels below are ignored.
        label_buffer_m: a ring of so many metres around slumps is ignored.
        all_touched: a pixel belongs to a polygon that touches it, else to one that holds its centre.
        agreement: how votes of annotators count; None: one is enough.

    Raises:
        GridMismatchError: `quality` has another shape than the grid.
        ConfigError: a polygon near the scene has no place in its CRS.
    """
    quality = np.asarray(quality)
    if quality.shape != tuple(geobox.shape):
        raise GridMismatchError(f"quality has {quality.shape} pixels, the grid {tuple(geobox.shape)}")
    grid = _Grid(geobox, all_touched)
    agreement = agreement or Agreement()
    near = labels[labels.intersects(_surroundings(geobox))]
    slumps = near[near["label"] == SLUMP]
    annotators = slumps["annotator"] if "annotator" in slumps else np.zeros(len(slumps), int)
    by_annotator = [grid.project(rows.geometry) for _, rows in slumps.groupby(np.asarray(annotators))]

    votes = np.zeros(quality.shape, "uint16")
    votes_around = np.zeros(quality.shape, "uint16")
    for shapes in by_annotator:
        votes += grid.burn(shapes)
        if label_buffer_m:
            votes_around += grid.burn([shapely.buffer(shape, label_buffer_m) for shape in shapes])
    target = np.full(quality.shape, BACKGROUND, "uint8")
    target[votes_around >= agreement.min_agreeing] = IGNORE
    if agreement.disputed_from is not None:
        target[votes >= agreement.disputed_from] = IGNORE
    target[votes >= agreement.min_agreeing] = SLUMP
    target[grid.burn(grid.project(near.geometry[near["label"] == IGNORE]))] = IGNORE
    if footprint is not None:
        target[~burn_area(geobox, footprint)] = IGNORE
    target[quality < quality_level] = IGNORE
    return target


def burn_area(geobox: GeoBox, area: BaseGeometry) -> np.ndarray:
    """Return which pixels (bool) of a grid have their centre in an area, EPSG:4326."""
    grid = _Grid(geobox, all_touched=False)
    return grid.burn(grid.project(_row(area)))


def area_window(geobox: GeoBox, area: BaseGeometry) -> tuple[slice, slice] | None:
    """Return the rows and columns of a grid that an area (EPSG:4326) lies in; None where it does not touch the grid."""
    near = shapely.intersection(shapely.make_valid(area), _surroundings(geobox))
    shapes = [] if near.is_empty else _Grid(geobox, all_touched=False).project(_row(surface_of(near)))
    if not shapes or shapes[0].is_empty:
        return None
    left, bottom, right, top = shapes[0].bounds
    corners = [~geobox.affine * corner for corner in ((left, top), (right, top), (left, bottom), (right, bottom))]
    cols, rows = (np.array(values) for values in zip(*corners, strict=True))
    window = []
    for places, side in ((rows, geobox.shape.y), (cols, geobox.shape.x)):
        # What falls on the edge of a pixel but for rounding does not take the next one.
        first = max(math.floor(places.min() + EDGE_PX), 0)
        stop = min(math.ceil(places.max() - EDGE_PX), side)
        if first >= stop:
            return None
        window.append(slice(first, stop))
    return window[0], window[1]


@dataclass(frozen=True)
class _Grid:
    """Burns polygons into a grid."""

    geobox: GeoBox
    all_touched: bool

    def project(self, areas: gpd.GeoSeries) -> list[BaseGeometry]:
        """Return areas of EPSG:4326 in the grid's CRS, edges bent as they run."""
        if not len(areas):
            return []
        return [*project_areas(read_areas(areas), self.geobox.crs)]

    def burn(self, shapes: list[BaseGeometry]) -> np.ndarray:
        """Return where (bool) polygons of the grid's CRS are."""
        shapes = [shape for shape in shapes if not shape.is_empty]
        if not shapes:
            return np.zeros(tuple(self.geobox.shape), bool)
        burnt = rasterize(
            shapes, tuple(self.geobox.shape), transform=self.geobox.affine, all_touched=self.all_touched, dtype="uint8"
        )
        return np.asarray(burnt, bool)


def _surroundings(geobox: GeoBox) -> BaseGeometry:
    """Return a scene's area and a little more, EPSG:4326; polygons far away may have no place in its CRS."""
    return shapely.buffer(shapely.union_all(list(read_areas(geobox))), SPARE_DEG)


def _row(area: BaseGeometry) -> gpd.GeoSeries:
    return gpd.GeoSeries([area], crs="EPSG:4326")
