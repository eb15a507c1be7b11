"""Connected regions of a mask as runs of pixels, their outlines, and what lies on and around them.

Once the runs are found, work grows with their number, not with the size of the tile: no label image is made. Import
where used: the compiled loops take a second to import.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import shapely

from darts_export import outline_kernels, region_kernels
from darts_export.rasters import transformed
from darts_utils.runs import Runs, find_runs

REGIONS_AT_ONCE = 64

STATISTICS = ("min", "max", "mean", "median", "std")


@dataclass(frozen=True)
class Regions:
    """The 8-connected regions of a mask, numbered from 0 in raster order of their first pixels."""

    runs: Runs
    region: np.ndarray
    """Number of each run's region."""
    count: int

    @cached_property
    def row(self) -> np.ndarray:
        """Row of each run, int32."""
        return self.runs.rows

    @cached_property
    def length(self) -> np.ndarray:
        """Pixels of each run, int32."""
        return self.runs.ends - self.runs.starts

    @cached_property
    def npixel(self) -> np.ndarray:
        """Pixels of each region."""
        return np.bincount(self.region, weights=self.length, minlength=self.count).astype("int64")

    @cached_property
    def by_region(self) -> np.ndarray:
        """Order of runs by region, and in a region by row and column."""
        return np.argsort(self.region, kind="stable")

    @cached_property
    def first_run(self) -> np.ndarray:
        """Where each region's runs begin in that order, and last where they end."""
        return np.concatenate([[0], np.cumsum(np.bincount(self.region, minlength=self.count))])

    def runs_of_each(self) -> Iterator[np.ndarray]:
        """Give row, start and stop of the runs of each region, int32 (runs, 3)."""
        runs = np.stack([self.row, self.runs.starts, self.runs.ends], axis=1)[self.by_region]
        for begin, end in pairwise(self.first_run):
            yield runs[begin:end]

    def statistics(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Return min, max, mean, median and (population) std of the finite `values` (y, x) on each region, float64."""
        length = self.length[self.by_region]
        target = np.empty(len(length), "int64")
        target[self.by_region] = np.cumsum(length) - length
        taken = np.empty(int(length.sum()), values.dtype)
        region_kernels.take_pixels(1, self.row, self.runs.starts, self.runs.ends, target, values, taken)
        figures = np.empty((len(STATISTICS), self.count))
        begin = np.concatenate([[0], np.cumsum(self.npixel)])
        region_kernels.sum_up(_blocks(self.count, REGIONS_AT_ONCE), REGIONS_AT_ONCE, begin, taken, figures)
        return dict(zip(STATISTICS, figures, strict=True))

    def share_around(self, valid: np.ndarray, radius_px: int) -> np.ndarray:
        """Return the share of `valid` (bool) pixels among those around each region.

        Around are pixels outside the region with a pixel of it at a centre distance of at most `radius_px`. Those
        beyond the tile's edge count too, as not valid.
        """
        offsets = np.arange(radius_px + 1)
        half_width = np.sqrt(radius_px**2 - offsets**2).astype("int64")
        around, seen = np.zeros((2, self.count), "int64")
        runs = (values[self.by_region] for values in (self.row, self.runs.starts, self.runs.ends))
        region_kernels.look_around(
            _blocks(self.count, REGIONS_AT_ONCE), REGIONS_AT_ONCE, self.first_run, *runs, half_width,
            np.ascontiguousarray(valid).view("uint8"), around, seen,
        )  # fmt: skip
        return seen / np.maximum(around, 1)

    def outlines(self, transform: Any) -> np.ndarray:
        """Return the (multi)polygon of each region: valid, following the pixels, with corners only and all holes.

        The 4-connected parts of a region that meet at corners alone are parts of a multipolygon. `transform` takes
        pixel corners to coordinates.
        """
        polygons, part_region = self._polygons(transform)
        order = np.argsort(part_region, kind="stable")
        outlines: Any = shapely.multipolygons(polygons[order], indices=part_region[order])
        single = np.bincount(part_region, minlength=self.count) == 1
        outlines[single] = polygons[order][single[part_region[order]]]
        return np.asarray(outlines)

    def whole_outline(self, transform: Any) -> shapely.MultiPolygon:
        """Return all regions as one multipolygon, as `outlines` draws them."""
        return shapely.MultiPolygon(list(self._polygons(transform)[0]))

    def _polygons(self, transform: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the 4-connected parts as polygons, and the region of each."""
        if not self.count:
            return np.array([], dtype=object), np.array([], "int32")
        part, parts = self.runs.connect(corners=False)
        part_region = np.empty(parts, "int32")
        part_region[part] = self.region
        corners, ring_end, ring_part, hole = _rings(self, part)
        points = transformed(transform, *corners.T.astype("float64"))
        # The outer ring of each part first, then its holes.
        order = np.lexsort((hole, ring_part))
        begin = np.concatenate([[0], ring_end[:-1]])
        length = (ring_end - begin)[order]
        end = np.cumsum(length)
        source = np.repeat(begin[order] - (end - length), length) + np.arange(len(corners))
        rings: Any = shapely.linearrings(points[source], indices=np.repeat(np.arange(len(order)), length))
        return shapely.polygons(rings, indices=ring_part[order]), part_region


def find_regions(mask: np.ndarray) -> Regions:
    """Return the 8-connected regions of a mask (bool, y and x)."""
    runs = find_runs(mask)
    region, count = runs.connect()
    return Regions(runs, region, count)


def _rings(regions: Regions, part: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return corners (column, row) ring by ring, where each ring ends, its part, and whether it is a hole's."""
    runs = regions.runs
    most = 4 * len(runs.starts)
    x, y, after, twin, part_of = np.empty((5, most), "int32")
    count = np.zeros(1, "int64")
    outline_kernels.find_corners(1, runs.first, runs.starts, runs.ends, part, x, y, after, twin, part_of, count)
    number = int(count[0])
    x, y, after, twin = (values[:number] for values in (x, y, after, twin))
    ring_corner, ring_end = np.empty(number, "int32"), np.empty(number, "int64")
    twice_area = np.empty(number, "int64")
    outline_kernels.trace_rings(1, x, y, after, twin, ring_corner, ring_end, twice_area, count)
    ring_end, twice_area = ring_end[: count[0]], twice_area[: count[0]]
    corners = np.stack([x[ring_corner], y[ring_corner]], axis=1)
    return corners, ring_end, part_of[ring_corner[ring_end - 1]], twice_area < 0


def _blocks(length: int, at_once: int) -> int:
    return -(-length // at_once)
