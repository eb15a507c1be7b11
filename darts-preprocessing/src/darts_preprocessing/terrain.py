"""Terrain features of a DEM on a projected grid: slope, aspect, hillshade, curvature, topographic position."""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from darts_preprocessing.disk_means import Disk, above_disk_mean
from darts_utils.arrays import array_namespace, on_device_of
from darts_utils.bands import describe, require_bands
from darts_utils.coarse import CoarseField, sample_coarsely
from darts_utils.errors import ConfigError, GridMismatchError
from darts_utils.grids import CONVERGENCE_TOLERANCE, offset_px, pixel_centres, pixel_size_m, sample_convergence

TerrainConvention = Literal["true-north", "legacy"]

_RADIUS = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(px|m)\s*")


def calculate_slope(ds: xr.Dataset) -> xr.Dataset:
    """Return `ds` with `slope` of its `dem`, float32 (y, x), degrees from the horizontal, 0 … 90 (Horn 1981).

    NaN where a pixel of the 3×3 stencil is missing, and so at the frame.

    Raises:
        MissingBandError, GridMismatchError, ConfigError: no `dem`, no grid, or a grid that is not in metres.
    """
    return _with_derivative(ds, "slope")


def calculate_aspect(ds: xr.Dataset, *, terrain_convention: TerrainConvention = "true-north") -> xr.Dataset:
    """Return `ds` with `aspect` of its `dem`: where the slope faces, float32 (y, x), degrees clockwise from true north.

    Grid aspect (Horn 1981) plus the meridian convergence at the pixel. NaN on flat ground, where a pixel of the 3×3
    stencil is missing, and so at the frame. "legacy": see `preprocess_v2`.

    Raises:
        MissingBandError, GridMismatchError, ConfigError: no `dem`, no grid, or a grid that is not in metres.
    """
    return _with_derivative(ds, "aspect", convention=terrain_convention)


def calculate_hillshade(
    ds: xr.Dataset,
    azimuth: float,
    angle_altitude: float,
    *,
    terrain_convention: TerrainConvention = "true-north",
) -> xr.Dataset:
    """Return `ds` with `hillshade` of its `dem`, float32 (y, x), 0 … 1.

    (1 + cos i) / 2 with the angle of incidence i: cos i = cos z cos s + sin z sin s cos(azimuth - aspect), z the sun's
    zenith angle, s the slope. Flat ground under a sun 30 degrees high is 0.75. NaN where a pixel of the 3×3 stencil is
    missing, and so at the frame. "legacy": see `preprocess_v2`.

    Args:
        ds: a dataset with `dem`.
        azimuth: the sun's, degrees clockwise from true north.
        angle_altitude: the sun's elevation, degrees.
        terrain_convention: "true-north" or "legacy".

    Raises:
        MissingBandError, GridMismatchError, ConfigError: no `dem`, no grid, a grid that is not in metres, or angles
            that are no numbers.
    """
    return _with_derivative(ds, "hillshade", sun=(azimuth, angle_altitude), convention=terrain_convention)


def calculate_curvature(ds: xr.Dataset) -> xr.Dataset:
    """Return `ds` with `curvature` of its `dem`, float32 (y, x), in 1/100 m, positive on ridges, not clipped.

    -100 (z_xx + z_yy) by second differences. NaN where a pixel of the 3×3 stencil is missing, and so at the frame.

    Raises:
        MissingBandError, GridMismatchError, ConfigError: no `dem`, no grid, or a grid that is not in metres.
    """
    return _with_derivative(ds, "curvature")


def calculate_topographic_position_index(
    ds: xr.Dataset, outer_radius: float | str, inner_radius: float | str = 0
) -> xr.Dataset:
    """Return `ds` with `tpi`: elevation of its `dem` minus the mean around, float32 (y, x), metres.

    The mean is over the valid pixels with centres at most `outer_radius` away, the pixel itself included; with an
    `inner_radius`, those at most that far away are left out. NaN where the DEM is, or nothing around is valid.

    Args:
        ds: a dataset with `dem`.
        outer_radius: metres (a number or "100m"), or pixels ("10px").
        inner_radius: likewise; 0 for a disk.

    Raises:
        MissingBandError, GridMismatchError, ConfigError: no `dem`, no grid, a grid that is not in metres, or radii
            that enclose no pixel around the centre.
    """
    dem, grid = _dem_and_grid(ds)
    values = relative_elevation(dem, grid, grid, disk_of(grid, outer_radius, inner_radius))
    return _with(ds, "tpi", "relative_elevation", values)


def relative_elevation(
    dem: Any, grid: GeoBox, target: GeoBox, disk: Disk, *, rows: tuple[int, int] | None = None
) -> Any:  # fmt: skip
    """Return the topographic position index, float32, where the DEM lives.

    Args:
        dem: elevation on `grid`.
        grid: the DEM's grid.
        target: where the results are wanted, in whole pixels of `grid`.
        disk: what elevation is compared with, in pixels.
        rows: first and stop of the target's rows that are wanted, with the same numbers as in the whole if the DEM
            holds what `disk_means.rows_needed` says; None: all.
    """
    first, stop = rows or (0, target.shape.y)
    top, left, _ = offset_px(grid, target)
    with on_device_of(dem):
        out = array_namespace(dem).empty((stop - first, target.shape.x), "float32")
        above_disk_mean(dem, top + first, left, disk, out, shape=target.shape.yx, first_row=first)
    return out


def derivatives(
    dem: Any,
    grid: GeoBox,
    target: GeoBox,
    names: Collection[str],
    *,
    sun: tuple[float, float] = (0.0, 90.0),
    convention: TerrainConvention = "true-north",
    rows: tuple[int, int] | None = None,
    whole: GeoBox | None = None,
) -> dict[str, Any]:
    """Return slope, aspect, hillshade or curvature (those in `names`) in one pass, float32, where the DEM lives.

    Args:
        dem: elevation on `grid`.
        grid: the DEM's grid; in metres, its axes along those of the CRS.
        target: where the results are wanted, in whole pixels of `grid`.
        names: what to compute.
        sun: azimuth and elevation in degrees, for the hillshade.
        convention: "true-north" or "legacy".
        rows: first and stop of the target's rows that are wanted, with the same numbers as in the whole; None: all.
        whole: the grid of which `grid` holds some rows, None if all; "legacy" takes its middle.
    """
    north = _north(target, convention, names)
    azimuth, elevation = (math.radians(angle) for angle in _sun_of_convention(whole or grid, sun, convention))
    flat = math.cos(elevation)
    first, stop = rows or (0, target.shape.y)
    top, left, _ = offset_px(grid, target)
    xp = array_namespace(dem)
    with on_device_of(dem):
        outputs = {
            name: xp.empty((stop - first, target.shape.x) if name in names else (0, 0), "float32")
            for name in ("slope", "aspect", "hillshade", "curvature")
        }
    _derive(
        xp, dem, top + first, left, float(grid.affine.a), float(grid.affine.e),
        *north.nodes, north.cell_rows, north.cell_cols, first,
        flat * math.sin(azimuth), flat * math.cos(azimuth), math.sin(elevation), convention == "legacy",
        *outputs.values(),
    )  # fmt: skip
    return {name: values for name, values in outputs.items() if name in names}


def _derive(xp: Any, dem: Any, *args: Any) -> None:
    if xp is not np:
        from darts_preprocessing.array_derivatives import derive as derive_there

        derive_there(dem, *args)
        return
    from darts_preprocessing.derivative_kernels import BLOCK_ROWS, derive  # loads numba

    rows = max(output.shape[0] for output in args[-4:])
    derive(math.ceil(rows / BLOCK_ROWS), dem, *args)


def disk_of(grid: GeoBox, outer_radius: float | str, inner_radius: float | str = 0) -> Disk:
    """Return the pixels whose centres lie within the outer and beyond the inner radius.

    Raises:
        ConfigError: a radius cannot be read, or the disk has no pixel around its centre, or the annulus none at all.
    """
    dx, dy = pixel_size_m(grid)
    outer, inner = Radius.of(outer_radius, "outer radius"), Radius.of(inner_radius, "inner radius")
    spans = _spans(*outer.in_pixels(dx, dy))
    left_out = np.full(spans.size, -1)
    if inner.length > 0:
        inside = _spans(*inner.in_pixels(dx, dy))[: spans.size]
        left_out[: inside.size] = inside
    pixels = 2 * (spans - left_out)
    if (spans.size == 1 and spans[0] == 0) or pixels.sum() == 0 or (pixels < 0).any():
        raise ConfigError(
            f"topographic position: no pixel of {dx:g} m × {dy:g} m lies between the inner radius {inner_radius!r} "
            f"and the outer radius {outer_radius!r}; use a larger outer radius"
        )
    return Disk(spans, left_out)


@dataclass(frozen=True)
class Radius:
    """A distance in metres or in pixels."""

    length: float
    unit: Literal["m", "px"]

    @classmethod
    def of(cls, radius: float | str, what: str) -> "Radius":
        """Return a radius from a number of metres, "100m" or "10px"."""
        if isinstance(radius, str) and (match := _RADIUS.fullmatch(radius)):
            return cls(float(match[1]), "px" if match[2] == "px" else "m")
        if isinstance(radius, int | float | np.number) and math.isfinite(radius) and radius >= 0:
            return cls(float(radius), "m")
        raise ConfigError(f"{what} must be metres (100 or '100m') or pixels ('10px'), 0 or more; got {radius!r}")

    def in_pixels(self, dx: float, dy: float) -> tuple[float, float]:
        """Return the radius in pixels of dx × dy metres, across and down."""
        return (self.length, self.length) if self.unit == "px" else (self.length / dx, self.length / dy)


def _spans(across: float, down: float) -> np.ndarray:
    """Return the columns that an ellipse with these half-axes in pixels reaches to each side, by row offset."""
    slack = 1e-9  # a pixel exactly on the radius belongs to the disk
    offsets = np.arange(math.floor(down + slack) + 1)
    share = np.sqrt(np.clip(1 - (offsets / max(down, slack)) ** 2, 0, None))
    return np.floor(across * share + slack * max(across, 1)).astype("int64")


def _with_derivative(
    ds: xr.Dataset, name: str, *, sun: tuple[float, float] = (0.0, 90.0), convention: TerrainConvention = "true-north"
) -> xr.Dataset:
    dem, grid = _dem_and_grid(ds)
    values = derivatives(dem, grid, grid, {name}, sun=sun, convention=convention)[name]
    return _with(ds, name, name, values)


def _with(ds: xr.Dataset, name: str, band: str, values: Any) -> xr.Dataset:
    """Return `ds` with a variable added, described as a band of the table."""
    described = describe(xr.DataArray(values, dims=ds.odc.spatial_dims), band, source_of(ds))
    # Without coordinates of its own: computed anew they may differ in the last bit, and xarray would align on them.
    return ds.assign({name: described.variable})


def _dem_and_grid(ds: xr.Dataset) -> tuple[Any, GeoBox]:
    grid = dem_grid(ds, "terrain")
    pixel_size_m(grid)
    return elevation_of(ds), grid


def dem_grid(ds: xr.Dataset, purpose: str) -> GeoBox:
    """Return the grid of `dem`.

    Raises:
        MissingBandError, GridMismatchError: there is no `dem`, or it has no grid along the axes of a CRS.
    """
    require_bands(ds, "dem", purpose=purpose)
    grid = ds.odc.geobox
    if ds["dem"].ndim != 2:
        raise GridMismatchError(
            f"{purpose} needs `dem` with two dimensions, it has {ds['dem'].dims}; choose one of each"
        )
    if not isinstance(grid, GeoBox) or not grid.axis_aligned:
        raise GridMismatchError(
            f"{purpose} needs `dem` on a grid along the axes of its CRS, with coordinates and CRS; got {grid!r}"
        )
    return grid


def elevation_of(ds: xr.Dataset) -> Any:
    """Return `dem` (y, x) where it lives, as the kernels take it: float32, contiguous."""
    dem = ds["dem"].transpose(..., *ds.odc.spatial_dims)
    xp = array_namespace(dem.data)
    return xp.ascontiguousarray(dem.data if xp is not np else dem.values, dtype="float32")


def source_of(ds: xr.Dataset) -> str:
    """Return where the DEM comes from."""
    return str(ds["dem"].attrs.get("data_source", "dem"))


def _north(target: GeoBox, convention: TerrainConvention, names: Collection[str]) -> CoarseField:
    """Return cosine and sine of the angle that is added to grid azimuths, over `target`."""
    if convention not in ("true-north", "legacy"):
        raise ConfigError(f"terrain_convention must be 'true-north' or 'legacy', got {convention!r}")
    if convention == "true-north" and {"aspect", "hillshade"} & set(names):
        return sample_convergence(target)

    def turn(cols: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if "aspect" not in names:  # nothing else is turned by it; the legacy hillshade turns the sun
            return np.stack([np.ones(cols.shape), np.zeros(cols.shape)])
        x, y = pixel_centres(target, cols, rows)
        # cos and sin of atan2(x, y) + 90 degrees
        return np.stack([-x, y]) / np.hypot(x, y)

    return sample_coarsely(turn, target.shape.yx, tolerance=CONVERGENCE_TOLERANCE)


def _sun_of_convention(grid: GeoBox, sun: tuple[float, float], convention: TerrainConvention) -> tuple[float, float]:
    try:
        azimuth, elevation = (float(angle) for angle in sun)
    except (TypeError, ValueError):
        azimuth = elevation = math.nan
    if not (math.isfinite(azimuth) and abs(elevation) <= 90):
        raise ConfigError(f"sun azimuth and elevation must be degrees, elevation -90 … 90; got {sun[0]!r}, {sun[1]!r}")
    if convention == "true-north":
        return azimuth, elevation
    # Older DARTS rounded both angles, and turned the sun by the polar angle of the mean coordinates.
    x, y = pixel_centres(grid, (grid.shape.x - 1) / 2, (grid.shape.y - 1) / 2)
    return round(azimuth) - math.degrees(math.atan2(x, y)) - 90, round(elevation)
