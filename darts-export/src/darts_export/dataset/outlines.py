"""What follows from outlines: their place in the plane, area and perimeter, for many at once."""

import numpy as np

from darts_export.dataset.planes import project
from darts_export.geodesy import LONGEST_EDGE_PX, geodesic_measures


def projected(geometry: np.ndarray, crs: np.ndarray, plane: str) -> np.ndarray:
    """Return outlines of several CRSs in the plane."""
    flat = geometry.copy()
    for name in sorted(set(crs)):
        flat[crs == name] = project(geometry[crs == name], name, plane)
    return flat


def measured(geometry: np.ndarray, crs: np.ndarray, pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return geodesic areas in m² and perimeters (holes included) in m; `pixel` is in units of each CRS."""
    area, perimeter = np.zeros((2, len(geometry)))
    for name in sorted(set(crs)):
        here = crs == name
        edge = LONGEST_EDGE_PX * float(pixel[here].max())
        area[here], perimeter[here] = geodesic_measures(geometry[here], name, edge)
    return area, perimeter
