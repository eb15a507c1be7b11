"""Which chunks of a grid lie under a tile or an area; never too few, hardly too many.

The bounding window of a tile that is turned against the grid has up to twice the chunks that its footprint touches.
"""

from collections.abc import Sequence
from itertools import product
from typing import TypeAlias

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from shapely.affinity import affine_transform

from darts_acquisition.antimeridian import polygons_of
from darts_acquisition.areas import Aoi, project_areas, read_areas
from darts_acquisition.footprints import (
    MARGIN_PX,
    PixelWindow,
    crs_of,
    full_circle_px,
    geobox_of,
    parts_on_grid,
    window_of,
)

ChunkIndex: TypeAlias = tuple[int, int]
"""Row and column of a chunk."""
Target: TypeAlias = GeoBox | list[GeoBox] | tuple[GeoBox, ...] | Aoi
"""A tile, several, or areas as `read_areas` takes them."""

ROUNDING_PX = 1e-6
"""An edge that falls on a pixel's edge but for rounding does not touch the next pixel."""


def chunks_of(target: Target, grid: GeoBox, chunk_px: int, buffer_px: int = 0) -> list[ChunkIndex]:
    """Return the chunks of `grid` with a pixel in or within `buffer_px` (in rows and in columns) of a target.

    Row by row, each once. A geobox counts with its true footprint; it and its outline as an area need the same chunks.

    Args:
        target: a geobox, a list of them, or areas as `read_areas` takes them.
        grid: the source grid, north-up.
        chunk_px: side of a chunk.
        buffer_px: pixels of the grid.

    Raises:
        ConfigError: the target has no CRS, or no place in that of the grid.
    """
    marks = _Marks(grid, chunk_px)
    if isinstance(target, GeoBox):
        marks.add_geobox(target, buffer_px)
    elif isinstance(target, list | tuple):
        for geobox in target:
            marks.add_geobox(geobox, buffer_px)
    else:
        marks.add_areas(target, buffer_px)
    return marks.chunks()


def chunk_window(chunk: ChunkIndex, grid: GeoBox, chunk_px: int) -> PixelWindow:
    """Return the pixels of a chunk; the last ones end with the grid."""
    (top, bottom), (left, right) = (
        (k * chunk_px, min((k + 1) * chunk_px, side)) for k, side in zip(chunk, grid.shape.yx, strict=True)
    )
    return PixelWindow((top, bottom), (left, right))


def chunk_geobox(chunk: ChunkIndex, grid: GeoBox, chunk_px: int) -> GeoBox:
    """Return a chunk as a geobox."""
    return geobox_of(chunk_window(chunk, grid, chunk_px), grid)


class _Marks:
    """A mark for each chunk of a grid."""

    def __init__(self, grid: GeoBox, chunk_px: int) -> None:
        self._grid = grid
        self._chunk_px = chunk_px
        self._shape = tuple(-(-side // chunk_px) for side in grid.shape.yx)
        # Numbers row by row: a mark for each chunk of a grid of 2 m would take far longer to look through.
        self._marks: list[np.ndarray] = []

    def chunks(self) -> list[ChunkIndex]:
        """Return the marked ones row by row."""
        return [divmod(number, self._shape[1]) for number in self.numbers().tolist()]

    def numbers(self) -> np.ndarray:
        """Return the marked ones, sorted, each once."""
        return np.unique(np.concatenate(self._marks)) if self._marks else np.empty(0, int)

    def add_geobox(self, target: GeoBox, buffer_px: int) -> None:
        """Mark what lies under the footprint of a geobox."""
        under_window = _Marks(self._grid, self._chunk_px)
        for part, _ in parts_on_grid(window_of(target, self._grid, buffer_px), self._grid):
            under_window._add_window(part)
        if under_window.numbers().size < 2:
            self._marks.append(under_window.numbers())
            return
        footprint = _Marks(self._grid, self._chunk_px)
        if crs_of(target) == crs_of(self._grid):
            # No margin: edges are straight on the grid too, and pixels that coincide are not resampled.
            footprint._add_polygons(polygons_of(target.extent.geom), buffer_px)
        else:
            footprint.add_areas(target, buffer_px)
        self._marks.append(np.intersect1d(under_window.numbers(), footprint.numbers()))

    def add_areas(self, areas: Aoi, buffer_px: int) -> None:
        """Mark what lies under areas."""
        projected = project_areas(read_areas(areas), crs_of(self._grid))
        polygons = [polygon for area in projected for polygon in polygons_of(area)]
        self._add_polygons(polygons, buffer_px + MARGIN_PX)

    def _add_polygons(self, polygons: Sequence[shapely.Polygon], margin_px: int) -> None:
        """Mark what polygons in the CRS of the grid touch; longitudes may run on across the antimeridian."""
        a, _, left, _, e, top = self._grid.affine[:6]
        circle = full_circle_px(self._grid)
        turns = [0] if circle is None else [-circle, 0, circle]
        for turn, polygon in product(turns, polygons):
            self._add_polygon(affine_transform(polygon, (1 / a, 0, 0, 1 / e, turn - left / a, -top / e)), margin_px)

    def _add_polygon(self, polygon: shapely.Polygon, margin_px: int) -> None:
        """Mark what a polygon in pixels of the grid touches, `margin_px` around it included."""
        left, top, right, bottom = polygon.bounds
        margin = margin_px - ROUNDING_PX
        low = np.floor((np.array([top, left]) - margin) / self._chunk_px).astype(int).clip(0)
        high = np.ceil((np.array([bottom, right]) + margin) / self._chunk_px).astype(int).clip(None, self._shape)
        if (high <= low).any():
            return
        i, j = (index.ravel() for index in np.mgrid[low[0] : high[0], low[1] : high[1]])
        height, width = self._grid.shape.yx
        chunks = shapely.box(
            j * self._chunk_px - margin,
            i * self._chunk_px - margin,
            np.minimum((j + 1) * self._chunk_px, width) + margin,
            np.minimum((i + 1) * self._chunk_px, height) + margin,
        )
        shapely.prepare(polygon)
        hit = shapely.intersects(polygon, chunks)
        self._marks.append(i[hit] * self._shape[1] + j[hit])

    def _add_window(self, window: PixelWindow) -> None:
        chunk = self._chunk_px
        rows, columns = (np.arange(start // chunk, -(-end // chunk)) for start, end in (window.rows, window.columns))
        self._marks.append((rows[:, None] * self._shape[1] + columns).ravel())
