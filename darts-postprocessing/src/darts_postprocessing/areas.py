"""Areas of pixels on the ellipsoid."""

import numpy as np
from odc.geo.geobox import GeoBox

from darts_utils.arrays import ndimage_of
from darts_utils.coarse import sample_coarsely
from darts_utils.errors import GridMismatchError
from darts_utils.grids import centre_of, pixel_centres

POLAR_EQUAL_AREA = {"north": "EPSG:6931", "south": "EPSG:6932"}
"""Lambert's azimuthal projections of either hemisphere: areas are right everywhere, poles and antimeridian included."""
HALF_WINDOW_PX = 32
"""Areas are taken of a window around a pixel: near a pole, rounding would be seen in those of single pixels."""
TOLERANCE = 1e-6
"""Largest error of interpolation, as a share of the area."""


def pixel_areas(geobox: GeoBox, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the areas in m² on the WGS 84 ellipsoid of pixels at places of a grid, centres on whole numbers.

    Raises:
        GridMismatchError: the grid has no CRS.
    """
    if geobox.crs is None:
        raise GridMismatchError("areas in m² need a grid with a CRS; write it with tile.odc.assign_crs")
    hemisphere = "south" if centre_of(geobox)[1] < 0 else "north"
    to_plane = geobox.crs.transformer_to_crs(POLAR_EQUAL_AREA[hemisphere])

    def areas(cols: np.ndarray, lines: np.ndarray) -> np.ndarray:
        half = HALF_WINDOW_PX
        corners = ((-half, -half), (half, -half), (half, half), (-half, half))
        places = (to_plane(*pixel_centres(geobox, cols + i, lines + j)) for i, j in corners)
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = places
        diagonals = np.abs((x2 - x0) * (y3 - y1) - (x3 - x1) * (y2 - y0))
        return np.asarray(diagonals / 2 / (2 * half) ** 2)[None]

    middle = areas(np.array([geobox.shape.x / 2]), np.array([geobox.shape.y / 2]))
    field = sample_coarsely(areas, geobox.shape.yx, tolerance=TOLERANCE * float(middle[0, 0]))
    places = [rows / field.cell_rows, columns / field.cell_cols]
    return np.asarray(ndimage_of(np).map_coordinates(field.nodes[0], places, order=1, mode="nearest"))
