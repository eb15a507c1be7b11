"""Areas and lengths of polygons, and areas of pixels, on the WGS 84 ellipsoid."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.polynomial import chebyshev
from pyproj import Geod, Transformer

from darts_export.rasters import transformed

LONGEST_EDGE_PX = 20
"""Longer edges are divided before they go to longitude and latitude, so that they stay straight in the tile's CRS."""

DEGREE = 6
"""Of the polynomials, along rows and columns, for the area of pixels: exact to 10⁻⁹ on tiles of 110 km, and better on
smaller ones."""

PROBE_PX = 4
"""Side of the squares whose areas tell that of pixels."""


def geodesic_area_m2(geometry: np.ndarray, crs: str, longest_edge: float) -> np.ndarray:
    """Return the areas of polygons in m²; `longest_edge` is in units of the CRS."""
    return geodesic_measures(geometry, crs, longest_edge)[0]


def geodesic_measures(geometry: np.ndarray, crs: str, longest_edge: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the areas of polygons in m² and the lengths of their outlines, holes included, in m.

    Karney's method (J. Geodesy 87, 2013), which crosses the antimeridian and encloses poles. `longest_edge` is in units
    of the CRS.
    """
    area, perimeter = np.zeros((2, len(geometry)))
    parts, part_owner = shapely.get_parts(geometry, return_index=True)
    rings, part_of_ring = shapely.get_rings(parts, return_index=True)
    if not len(rings):
        return area, perimeter
    owner = part_owner[part_of_ring]
    exterior = np.diff(part_of_ring, prepend=-1) > 0  # the first ring of each part; the others are holes

    dense = shapely.segmentize(rings, longest_edge)
    points, ring_of_point = shapely.get_coordinates(dense, return_index=True)
    longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*points.T)
    stops = np.searchsorted(ring_of_point, np.arange(len(rings) + 1))
    geod = Geod(ellps="WGS84")
    for ring, (start, stop) in enumerate(pairwise(stops)):
        signed, length = geod.polygon_area_perimeter(longitude[start:stop], latitude[start:stop])
        area[owner[ring]] += abs(signed) if exterior[ring] else -abs(signed)
        perimeter[owner[ring]] += length
    return area, perimeter


@dataclass(frozen=True)
class PixelArea:
    """The area of a tile's pixels in m², which changes so slowly that a polynomial of row and column tells it."""

    shape: tuple[int, int]
    coefficients: np.ndarray
    """Of Chebyshev polynomials of column and row, which go from -1 to 1 over the tile; (column, row)."""

    @classmethod
    def on(cls, geobox: Any) -> "PixelArea":
        """Return the area of the pixels of a grid."""
        height, width = (int(side) for side in geobox.shape)
        nodes = chebyshev.chebpts1(DEGREE + 1)
        x, y = np.meshgrid((nodes + 1) / 2 * width, (nodes + 1) / 2 * height, indexing="ij")
        half = PROBE_PX / 2
        corners = np.array([(-half, half), (half, half), (half, -half), (-half, -half)])
        points = np.stack([x.ravel(), y.ravel()], axis=1)[:, None] + corners
        squares = transformed(geobox.affine, points[..., 0].ravel(), points[..., 1].ravel())
        probes: Any = shapely.polygons(squares.reshape(-1, 4, 2))
        edge = max(abs(geobox.resolution.x), abs(geobox.resolution.y))
        area = geodesic_area_m2(probes, str(geobox.crs), edge).reshape(x.shape) / PROBE_PX**2
        basis = np.linalg.inv(chebyshev.chebvander(nodes, DEGREE))
        return cls((height, width), basis @ area @ basis.T)

    def total_m2(self, row: np.ndarray, start: np.ndarray, stop: np.ndarray) -> float:
        """Return the area of runs of pixels, from `start` to before `stop` on their rows."""
        if not len(row):
            return 0.0
        height, width = self.shape
        # Summed along a row: the integral, in units of half the width.
        integral = chebyshev.chebint(self.coefficients, axis=0)
        on_row = integral @ chebyshev.chebvander(2 * (np.arange(height) + 0.5) / height - 1, DEGREE).T
        total = 0.0
        for ends, sign in ((stop, 1), (start, -1)):
            total += sign * float(chebyshev.chebval(2 * ends / width - 1, on_row[:, row], tensor=False).sum())
        return total * width / 2
