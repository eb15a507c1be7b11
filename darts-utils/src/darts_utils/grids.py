"""Grids: bring data onto a geobox, pad and crop by whole pixels, angles between grid north and true north.

Two grids match when their geoboxes are equal. Data on a geobox take their coordinates over from it.
"""

import math
from collections.abc import Hashable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import pyproj
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from darts_utils.arrays import array_namespace, on_device_of
from darts_utils.coarse import CoarseField, sample_coarsely
from darts_utils.errors import ConfigError, GridMismatchError

Resampling = Literal["cubic", "nearest"]
Data = TypeVar("Data", xr.Dataset, xr.DataArray)
Nodes = tuple[np.ndarray, np.ndarray, float, float]
"""Columns and rows of a source at nodes over the target, and the rows and columns from one node to the next."""

POSITION_TOLERANCE_PX = 2e-4
"""Largest error of sample positions, in source pixels, against exact PROJ coordinates. So small that results do not
visibly depend on where the nodes lie, which differs between a tile, its margin and its parts."""
CONVERGENCE_TOLERANCE = 1e-5
"""Largest error of the interpolated direction of north, as a share of its unit vector (0.0006 degrees)."""
AROUND_PX = 64
"""Columns beyond those needed of a source around the Earth; the cubic kernel reaches far where it is widened."""
WHOLE_PIXEL_TOLERANCE = 1e-3
"""Grids are aligned when they meet within this share of a pixel; rounding of far origins stays below."""


def align(
    source: Data, geobox: GeoBox, *, resampling: Resampling = "cubic", rows: tuple[int, int] | None = None
) -> Data:  # fmt: skip
    """Return `source` on the target grid: dims ("y", "x"), coordinates taken over from `geobox`.

    "cubic" is cubic convolution with a = -1/2 (Keys 1981), as GDAL's: widened where target pixels are larger than
    source pixels, with weights renormalised over valid (finite) source pixels. "nearest" takes the source pixel that
    holds the position. Integer and boolean variables are masks or classes and always take the nearest pixel.

    Floats are NaN and integers 0 where the position lies outside the source, floats also where the nearest source
    pixel is missing. Sample positions differ from exact PROJ coordinates by less than 0.001 source pixels.
    The source may be in any CRS, rotated, or run past ±180 degrees of longitude. Variables without the grid's
    dimensions are kept. Data are computed where they live.

    Args:
        source: what is to be aligned.
        geobox: the target grid.
        resampling: "cubic" or "nearest".
        rows: first and stop of the target's rows that are wanted; the numbers are the same as those of the whole.

    Raises:
        ConfigError: `resampling` is neither "cubic" nor "nearest".
        GridMismatchError: the source has no grid or no CRS, or the target no CRS.
    """
    if resampling not in ("cubic", "nearest"):
        raise ConfigError(f"resampling must be 'cubic' or 'nearest', got {resampling!r}")
    grid = _grid_of(source)
    dims = source.odc.spatial_dims
    sampler = _Sampler(grid, geobox, rows)
    if isinstance(source, xr.DataArray):
        return _align_arrays([source], dims, sampler, resampling)[0]
    spatial = {name: values for name, values in source.data_vars.items() if set(dims) <= set(values.dims)}
    aligned = dict(zip(spatial, _align_arrays(list(spatial.values()), dims, sampler, resampling), strict=True))
    bands = {name: aligned.get(name, values) for name, values in source.data_vars.items()}
    return xr.Dataset(bands, coords=_coords(sampler.part), attrs=source.attrs)


def on_grid(values: Any, geobox: GeoBox, **attrs: Any) -> xr.DataArray:
    """Return an array (y, x) as a DataArray on `geobox`.

    Raises:
        GridMismatchError: the array has another shape.
    """
    if tuple(values.shape) != tuple(geobox.shape):
        raise GridMismatchError(
            f"an array of {tuple(values.shape)} pixels does not fit a grid of {tuple(geobox.shape)}"
        )
    return xr.DataArray(values, dims=("y", "x"), coords=_coords(geobox), attrs=attrs)


def pad_metres(geobox: GeoBox, metres: float) -> GeoBox:
    """Return the grid with a margin of at least `metres` on every side, in whole pixels.

    Raises:
        ConfigError: `metres` is negative, or the CRS is not in metres.
    """
    if not metres >= 0:
        raise ConfigError(f"the margin must be 0 m or more, got {metres}")
    dx, dy = pixel_size_m(geobox)
    # A margin of exactly n pixels must not become n + 1 by rounding.
    return geobox.pad(math.ceil(metres / dx - 1e-9), math.ceil(metres / dy - 1e-9))


def pixel_size_m(geobox: GeoBox) -> tuple[float, float]:
    """Return the width and height of a pixel in metres, both positive.

    Raises:
        ConfigError: the CRS is not in metres.
    """
    crs = _crs_of(geobox, "the dataset")
    units = sorted({axis.unit_name for axis in crs.axis_info[:2]})
    if units != ["metre"]:
        raise ConfigError(
            f"a grid in metres is needed, but {crs.name} counts in {', '.join(units)}. "
            "Reproject the optical scene, for instance to its UTM zone."
        )
    a, b, _, d, e, _, *_ = geobox.affine
    return math.hypot(a, d), math.hypot(b, e)


def pixel_centres(geobox: GeoBox, cols: Any, rows: Any) -> tuple[Any, Any]:
    """Return x and y in the CRS of the centres of pixels (whole numbers) or of places between them."""
    return _apply(geobox.affine, cols + 0.5, rows + 0.5)


def centre_of(geobox: GeoBox) -> tuple[float, float]:
    """Return longitude and latitude of the middle of a grid, degrees (WGS 84)."""
    to_degrees = pyproj.Transformer.from_crs(_crs_of(geobox, "the dataset"), "EPSG:4326", always_xy=True)
    x, y = _apply(geobox.affine, geobox.shape.x / 2, geobox.shape.y / 2)
    longitude, latitude = to_degrees.transform(x, y)
    return float(longitude), float(latitude)


def crop(data: Data, geobox: GeoBox) -> Data:
    """Return the part of `data` on `geobox`, whose grid must be a part of the data's grid in whole pixels.

    Raises:
        GridMismatchError: the grids differ in CRS, pixel size or orientation, by a part of a pixel, or `geobox`
            reaches beyond the data.
    """
    grid = _grid_of(data)
    top, left, drift = offset_px(grid, geobox)
    height, width = geobox.shape
    if grid.crs != geobox.crs or not drift < WHOLE_PIXEL_TOLERANCE:
        raise GridMismatchError(f"cannot crop by whole pixels: the data lie on {_named(grid)}, not on {_named(geobox)}")
    if left < 0 or top < 0 or left + width > grid.shape[1] or top + height > grid.shape[0]:
        raise GridMismatchError(f"{_named(geobox)} reaches beyond the data on {_named(grid)}; pad the data first")
    y, x = data.odc.spatial_dims
    part = data.isel({y: slice(top, top + height), x: slice(left, left + width)})
    if not geobox.axis_aligned:
        part = part.drop_vars([name for name in (y, x) if name in part.coords])
    return part.assign_coords(_coords(geobox, (y, x)))


def offset_px(grid: GeoBox, part: GeoBox) -> tuple[int, int, float]:
    """Return the row and column of `grid` at which `part` begins, and by how much no whole pixels they are.

    The last is the largest distance, in pixels, between a corner of `part` and a corner of pixels of `grid`.
    """
    height, width = part.shape
    rows = np.array([0, 0, height, height])
    cols = np.array([0, width, 0, width])
    u, v = _apply(~grid.affine, *_apply(part.affine, cols, rows))
    left, top = round(u[0]), round(v[0])
    return top, left, float(max(np.abs(u - left - cols).max(), np.abs(v - top - rows).max()))


def meridian_convergence(geobox: GeoBox) -> xr.DataArray:
    """Return the angle from true north to grid north at each pixel, float32 (y, x) in degrees, -180 … 180.

    Positive where grid north lies east of true north (EPSG:32608 at 132° W, 70° N: +2.82), so that true azimuth =
    grid azimuth + convergence. 0 on a geographic grid.
    """
    angle = np.empty(geobox.shape, "float32")
    field = sample_convergence(geobox)
    cols = np.arange(geobox.shape[1])
    for start in range(0, geobox.shape[0], 512):
        cosine, sine = field.at(np.arange(start, min(start + 512, geobox.shape[0])), cols)
        angle[start : start + 512] = np.degrees(np.arctan2(sine, cosine))
    return on_grid(angle, geobox, long_name="Meridian convergence", units="degree")


def sample_convergence(geobox: GeoBox) -> CoarseField:
    """Return cosine and sine of the meridian convergence as a coarse field: a direction, so it may turn past 180°."""
    crs = _crs_of(geobox, "the dataset")
    if crs.is_geographic:
        return sample_coarsely(lambda cols, rows: np.stack([np.ones(cols.shape), np.zeros(cols.shape)]),
                               geobox.shape.yx, tolerance=CONVERGENCE_TOLERANCE)  # fmt: skip
    projection = pyproj.Proj(crs)

    def directions(cols: np.ndarray, rows: np.ndarray) -> np.ndarray:
        x, y = pixel_centres(geobox, cols, rows)
        longitude, latitude = projection(x, y, inverse=True)
        # PROJ counts the angle from true north to grid north clockwise, the sign we want: tests compare with geodesics.
        angle = np.radians(projection.get_factors(longitude, latitude).meridian_convergence)
        return np.stack([np.cos(angle), np.sin(angle)])

    return sample_coarsely(directions, geobox.shape.yx, tolerance=CONVERGENCE_TOLERANCE)


class _Sampler:
    """Where each pixel of some rows of a target grid lies in a source grid; computed once for all bands."""

    def __init__(self, grid: GeoBox, geobox: GeoBox, rows: tuple[int, int] | None) -> None:
        self.first_row, stop = rows or (0, geobox.shape.y)
        if not 0 <= self.first_row < stop <= geobox.shape.y:
            raise ConfigError(f"rows must lie within the {geobox.shape.y} rows of the target grid, got {rows}")
        self.part = geobox if rows is None else geobox[self.first_row : stop, :]
        """The grid of the rows that are wanted."""
        # Of the whole grid, so that a part of it has the same numbers.
        self.field = sample_coarsely(_source_positions(grid, geobox), geobox.shape.yx, tolerance=POSITION_TOLERANCE_PX)
        self.period = _pixels_around_the_earth(grid)
        self.first_col, self.columns = 0, np.arange(0)
        if self.period:
            # The columns go round the Earth: lay them out from the first one needed to the last, some of them twice
            # where a pole lies in the target.
            u = self.field.nodes[0]
            u = u[np.isfinite(u)]
            self.first_col = math.floor(u.min(initial=0)) - AROUND_PX
            self.columns = np.arange(self.first_col, math.ceil(u.max(initial=0)) + AROUND_PX) % self.period

    def sample(self, sources: Sequence[Any], resampling: Resampling) -> list[Any]:
        """Return bands (rows, columns) of the source, of one dtype, on the target grid."""
        with on_device_of(sources[0]):
            return self._sample(sources, resampling)

    def _sample(self, sources: Sequence[Any], resampling: Resampling) -> list[Any]:
        xp = array_namespace(*sources)
        u, v = self.field.nodes
        if self.period:
            columns = xp.asarray(self.columns)
            sources = [xp.take(source, columns, axis=1) for source in sources]
            u = u - self.first_col
        dtype = sources[0].dtype
        sources = [_native(source, xp) for source in sources]
        nodes = (np.ascontiguousarray(u), np.ascontiguousarray(v), self.field.cell_rows, self.field.cell_cols)
        outs = [xp.empty(self.part.shape.yx, source.dtype) for source in sources]
        if sources[0].dtype.kind == "f" and resampling == "cubic":
            _sample_cubic(xp, tuple(sources), nodes, self.first_row, tuple(outs))
        else:
            for source, out in zip(sources, outs, strict=True):
                _sample_nearest(xp, source, nodes, self.first_row, out)
        return [out.view(dtype) if dtype == np.bool_ else out for out in outs]


def _sample_cubic(xp: Any, sources: tuple[Any, ...], nodes: Nodes, first_row: int, outs: tuple[Any, ...]) -> None:
    if xp is not np:
        from darts_utils.array_sampling import sample_cubic as sample_cubic_there

        sample_cubic_there(sources, *nodes, first_row, outs)
        return
    from darts_utils.resampling import BLOCK_ROWS, sample_cubic  # loads numba

    flat = tuple(source.reshape(-1) for source in sources)
    sample_cubic(math.ceil(outs[0].shape[0] / BLOCK_ROWS), flat, *sources[0].shape, *nodes, first_row, outs)


def _sample_nearest(xp: Any, source: Any, nodes: Nodes, first_row: int, out: Any) -> None:
    outside = source.dtype.type(np.nan if source.dtype.kind == "f" else 0)
    if xp is not np:
        from darts_utils.array_sampling import sample_nearest as sample_nearest_there

        sample_nearest_there(source, *nodes, first_row, outside, out)
        return
    from darts_utils.resampling import BLOCK_ROWS, sample_nearest  # loads numba

    sample_nearest(math.ceil(out.shape[0] / BLOCK_ROWS), source, *nodes, first_row, outside, out)


def _align_arrays(
    arrays: Sequence[xr.DataArray], dims: tuple[Hashable, Hashable], sampler: _Sampler, resampling: Resampling
) -> list[xr.DataArray]:
    """Return the arrays on the target grid. Bands of one dtype share the work of finding their positions."""
    ordered = [values.transpose(..., *dims) for values in arrays]
    planes = [list(_array_of(values).reshape(-1, *values.shape[-2:])) for values in ordered]
    results: list[list[Any]] = [[] for _ in planes]
    for dtype in dict.fromkeys(values.dtype for values in ordered):
        chosen = [k for k, values in enumerate(ordered) if values.dtype == dtype]
        bands = [plane for k in chosen for plane in planes[k]]
        sampled = iter(sampler.sample(bands, resampling) if bands else [])
        for k in chosen:
            results[k] = [next(sampled) for _ in planes[k]]
    return [_labelled(values, sampled, sampler) for values, sampled in zip(ordered, results, strict=True)]


def _labelled(values: xr.DataArray, bands: list[Any], sampler: _Sampler) -> xr.DataArray:
    """Return sampled bands as an array with the dimensions, coordinates and attributes of what they come from."""
    xp = array_namespace(*bands)
    others = values.dims[:-2]
    shape = (*values.shape[:-2], *sampler.part.shape.yx)
    stacked = bands[0] if len(bands) == 1 else xp.stack(bands) if bands else xp.empty(shape, values.dtype)
    kept = {name: coord for name, coord in values.coords.items() if set(coord.dims) <= set(others) and coord.dims}
    # What a file said of its own grid no longer holds.
    attrs = {key: value for key, value in values.attrs.items() if key not in ("grid_mapping", "crs", "transform")}
    return xr.DataArray(
        stacked.reshape(shape), dims=(*others, "y", "x"), coords=kept | _coords(sampler.part), attrs=attrs,
        name=values.name,
    )  # fmt: skip


def _source_positions(grid: GeoBox, geobox: GeoBox) -> Any:
    """Return a function of target columns and rows that gives columns and rows of the source, from its corner."""
    to_grid = ~grid.affine
    source_crs, target_crs = _crs_of(grid, "the source"), _crs_of(geobox, "the target")
    if grid.crs == geobox.crs:
        return lambda cols, rows: np.stack(_apply(to_grid, *pixel_centres(geobox, cols, rows)))
    project = pyproj.Transformer.from_crs(target_crs, source_crs, always_xy=True)
    turn = _full_turn(grid)
    middle = shift = 0.0
    if turn:
        # Longitudes are counted without a jump around the target's middle, and that middle next to the source's.
        middle = project.transform(*_apply(geobox.affine, geobox.shape.x / 2, geobox.shape.y / 2))[0]
        source_middle = _apply(grid.affine, grid.shape.x / 2, grid.shape.y / 2)[0]
        shift = turn * round((source_middle - middle) / turn)

    def positions(cols: np.ndarray, rows: np.ndarray) -> np.ndarray:
        x, y = project.transform(*pixel_centres(geobox, cols, rows))
        if turn:
            x = x - turn * np.round((x - middle) / turn) + shift
        return np.stack(_apply(to_grid, x, y))

    return positions


def _apply(affine: Any, x: Any, y: Any) -> tuple[Any, Any]:
    a, b, c, d, e, f, *_ = affine
    return a * x + b * y + c, d * x + e * y + f


def _full_turn(grid: GeoBox) -> float:
    """Return 360 degrees in the units of a geographic grid, 0 for others."""
    crs = _crs_of(grid, "the source")
    return 2 * math.pi / float(crs.axis_info[0].unit_conversion_factor) if crs.is_geographic else 0.0


def _pixels_around_the_earth(grid: GeoBox) -> int:
    """Return the number of columns of a geographic grid that closes around the Earth, 0 for others."""
    turn = _full_turn(grid)
    closes = turn and grid.axis_aligned and abs(grid.shape.x * abs(grid.affine.a) / turn - 1) < 1e-6
    return grid.shape.x if closes else 0


def _array_of(values: xr.DataArray) -> Any:
    """Return the values where they live; what is not loaded yet is."""
    return values.data if array_namespace(values.data) is not np else np.asarray(values.data)


def _native(values: Any, xp: Any) -> Any:
    """Return values as kernels take them: contiguous, native byte order, no bool, no half precision."""
    if values.dtype == np.bool_:
        return xp.ascontiguousarray(values).view("uint8")
    wanted = np.dtype("float32") if values.dtype == np.float16 else values.dtype.newbyteorder("=")
    return xp.ascontiguousarray(values, dtype=wanted)


def _coords(geobox: GeoBox, dims: tuple[str, str] = ("y", "x")) -> dict[Hashable, xr.DataArray]:
    return xr_coords(geobox, dims=dims)


def _grid_of(data: xr.Dataset | xr.DataArray) -> GeoBox:
    grid = data.odc.geobox
    if not isinstance(grid, GeoBox):
        name = data.attrs.get("tile_id") or (data.name if isinstance(data, xr.DataArray) else None) or "without an id"
        raise GridMismatchError(
            f"dataset {name} has no grid; it needs dims ('y', 'x') with coordinates and a CRS in `spatial_ref` "
            "(assign one with `.odc.assign_crs(…)`)"
        )
    return grid


def _crs_of(geobox: GeoBox, what: str) -> pyproj.CRS:
    if geobox.crs is None:
        raise GridMismatchError(f"{what} has a grid but no CRS; assign one with `.odc.assign_crs(…)`")
    return geobox.crs.proj


def _named(geobox: GeoBox) -> str:
    a, b, c, d, e, f, *_ = geobox.affine
    crs = "no CRS" if geobox.crs is None else geobox.crs.proj.name
    turned = f", turned ({b}, {d})" if b or d else ""
    return f"{geobox.shape.y} × {geobox.shape.x} pixels of {a} × {e} from ({c!r}, {f!r}) in {crs}{turned}"
