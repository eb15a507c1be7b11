"""Array types of the demo's modules."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]
"""A float32 raster, or several stacked as (band, y, x)."""
Mask = NDArray[np.bool_]
"""A boolean raster."""
Labels = NDArray[np.integer[Any]]
"""An integer raster; 0 is background."""
