"""Roughness of a DEM: terrain ruggedness, vector ruggedness, dissection.

Neighbourhoods are squares, as in the papers, and cost about the same whatever their size: sums and extremes
run along columns, then along rows. What lives on a GPU is computed on the host, and the result returned.
"""

import math
from typing import Any, Literal

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from darts_preprocessing.terrain import Radius, dem_grid, elevation_of, source_of
from darts_utils.arrays import array_namespace, to_device, to_host
from darts_utils.errors import ConfigError
from darts_utils.grids import pixel_size_m

TriMethod = Literal["riley", "wilson"]

_TRI_SOURCES = {
    "riley": "Riley et al. 1999, Intermountain Journal of Sciences 5, 23-27",
    "wilson": "Wilson et al. 2007, doi:10.1080/01490410701295962",
}


def calculate_tri(ds: xr.Dataset, *, method: TriMethod = "riley") -> xr.Dataset:
    """Return `ds` with `tri` of its `dem`, the Terrain Ruggedness Index, float32 (y, x), metres.

    NaN where a pixel of the 3×3 stencil is missing, and so at the frame. The index knows heights only: it grows with
    the slope, and with the size of the pixels, which may be in any CRS.

    Args:
        ds: a dataset with `dem`.
        method: "riley", the root of the sum of squared differences to the eight neighbours (Riley et al. 1999,
            `gdaldem TRI -alg Riley`); "wilson", the mean absolute difference to them (Wilson et al. 2007,
            `gdaldem TRI -alg Wilson`), at most 0.36 of the former.

    Raises:
        MissingBandError, GridMismatchError, ConfigError: no `dem`, no grid, or another method.
    """
    from darts_preprocessing.roughness_kernels import ROWS, ruggedness  # loads numba

    if method not in _TRI_SOURCES:
        raise ConfigError(f"method must be 'riley' or 'wilson', got {method!r}")
    grid = dem_grid(ds, "roughness")
    out = np.empty(grid.shape.yx, "float32")
    ruggedness(math.ceil(grid.shape.y / ROWS), to_host(elevation_of(ds)), method == "riley", out)
    return _with(ds, "tri", out, long_name="Terrain ruggedness index", units="m", references=_TRI_SOURCES[method])


def calculate_vrm(ds: xr.Dataset, radius: float | str) -> xr.Dataset:
    """Return `ds` with `vrm` of its `dem`, the Vector Ruggedness Measure, float32 (y, x), 0 (plane) … 1.

    1 - |sum of the normals| / n over the n pixels of a square around the pixel that have a normal: a unit vector
    upright on the ground, from the slopes after Horn (1981), so not where a pixel of the 3×3 stencil is missing.
    Unlike `tri` it does not take a steep plane for rough. NaN where the DEM is, or nothing around has a normal.

    Args:
        ds: a dataset with `dem` on a grid in metres.
        radius: how far the square reaches from the pixel's centre to each side, over centres of pixels: metres (a
            number or "100m"), or pixels ("1px" is the usual 3×3).

    Raises:
        MissingBandError, GridMismatchError, ConfigError: no `dem`, no grid, a grid that is not in metres, or a radius
            that reaches no other pixel.
    """
    from darts_preprocessing.roughness_kernels import vector_ruggedness  # loads numba

    grid = dem_grid(ds, "roughness")
    dx, dy = pixel_size_m(grid)
    rows, cols = _reach(grid, radius, "vector ruggedness")
    out = np.empty(grid.shape.yx, "float32")
    vector_ruggedness(to_host(elevation_of(ds)), dx, dy, rows, cols, out)
    return _with(
        ds, "vrm", out, long_name="Vector ruggedness measure", units="1", comment=_window(rows, cols),
        references="Sappington et al. 2007, doi:10.2193/2005-723",
    )  # fmt: skip


def calculate_dissection_index(ds: xr.Dataset, radius: float | str) -> xr.Dataset:
    """Return `ds` with `dissection_index` of its `dem`, float32 (y, x), 0 (lowest around) … 1 (highest around).

    (z - min) / (max - min) over the valid pixels of a square around the pixel; 0 where all are equally high, so that
    lakes and plains have a value. NaN where the DEM is.

    Args:
        ds: a dataset with `dem`.
        radius: how far the square reaches from the pixel's centre to each side, over centres of pixels: metres (a
            number or "100m"; the grid must be in metres), or pixels ("10px").

    Raises:
        MissingBandError, GridMismatchError, ConfigError: no `dem`, no grid, a radius in metres on a grid that is not,
            or one that reaches no other pixel.
    """
    from darts_preprocessing.roughness_kernels import dissection  # loads numba

    grid = dem_grid(ds, "roughness")
    rows, cols = _reach(grid, radius, "dissection index")
    out = np.empty(grid.shape.yx, "float32")
    dissection(to_host(elevation_of(ds)), rows, cols, out)
    return _with(
        ds, "dissection_index", out, long_name="Dissection index", units="1", comment=_window(rows, cols),
        references="Evans 1972, in Chorley (ed.), Spatial Analysis in Geomorphology, 17-90",
    )  # fmt: skip


def _reach(grid: GeoBox, radius: float | str, what: str) -> tuple[int, int]:
    """Return how many rows and columns a square reaches to each side."""
    distance = Radius.of(radius, "radius")
    dx, dy = pixel_size_m(grid) if distance.unit == "m" else (1.0, 1.0)
    cols, rows = (math.floor(length + 1e-9) for length in distance.in_pixels(dx, dy))  # on the edge belongs to it
    if rows == cols == 0:
        raise ConfigError(f"{what}: no other pixel lies within the radius {radius!r}; use a larger one")
    return rows, cols


def _window(rows: int, cols: int) -> str:
    return f"over {2 * rows + 1} rows and {2 * cols + 1} columns"


def _with(ds: xr.Dataset, name: str, values: np.ndarray, **attrs: str) -> xr.Dataset:
    """Return `ds` with a variable added where the DEM lives."""
    dem: Any = ds["dem"].data
    data = values if array_namespace(dem) is np else to_device(values, f"cuda:{dem.device.id}")
    return ds.assign({name: (ds.odc.spatial_dims, data, {**attrs, "data_source": source_of(ds)})})
