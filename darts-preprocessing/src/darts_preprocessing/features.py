"""All features of a tile on the grid of its optical bands."""

import difflib
import math
import operator
from collections.abc import Hashable, Iterable
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from darts_preprocessing.disk_means import Disk, rows_needed
from darts_preprocessing.indices import calculate_index
from darts_preprocessing.terrain import TerrainConvention, derivatives, disk_of, elevation_of, relative_elevation
from darts_utils.arrays import Device, array_namespace, resolve_array_device, to_device
from darts_utils.bands import BANDS, INDEX_BANDS, decode, describe, require_bands
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError
from darts_utils.grids import align, centre_of, crop, on_grid, pixel_size_m
from darts_utils.sun import sun_position

TREND_FEATURES = ("tc_brightness", "tc_greenness", "tc_wetness")
DERIVATIVES = ("slope", "aspect", "hillshade", "curvature")
DEM_FEATURES = ("dem", "arcticdem_data_mask", "relative_elevation", *DERIVATIVES)
FEATURES = ("ndvi", *TREND_FEATURES, *DEM_FEATURES)
"""What `preprocess_v2` builds, in this order."""
INDEX_FEATURES = tuple(INDEX_BANDS)
"""Features that are indices of the optical bands."""
ALL_FEATURES = (*INDEX_FEATURES, *TREND_FEATURES, *DEM_FEATURES)
"""What it can build, in this order; of the indices only `ndvi` if it is not asked for more."""

STENCIL_PX = 2
"""Margin of the DEM for the 3×3 stencil, and one more."""


def preprocess_v2(
    ds_optical: xr.Dataset,
    ds_arcticdem: xr.Dataset | None,
    ds_tcvis: xr.Dataset | None,
    tpi_outer_radius: float | str = 100,
    tpi_inner_radius: float | str = 0,
    device: Device = None,
    *,
    features: Iterable[str] | None = None,
    terrain_convention: TerrainConvention = "true-north",
    rows: tuple[int, int] | None = None,
) -> xr.Dataset:
    """Return the optical tile with features added, all float32 on its grid (`arcticdem_data_mask`: uint8).

    `ndvi` from the optical bands, and further `INDEX_FEATURES` where they are asked for; `tc_brightness`,
    `tc_greenness`, `tc_wetness` resampled from the Landsat trends; from the ArcticDEM `dem`, `arcticdem_data_mask`,
    `relative_elevation`, `slope`, `aspect`, `hillshade` and `curvature`. The DEM is resampled with a margin for the
    radius and the stencil, so that features reach the tile's edge where the DEM does. Missing data are NaN. The inputs
    are left as they are.

    Args:
        ds_optical: a tile with `red` and `nir`; for the hillshade also attributes `azimuth` and `elevation` of the
            sun, or else `acquisition_time`, from which they are computed.
        ds_arcticdem: `dem` (metres) and `arcticdem_data_mask` on any grid; None leaves out what needs it.
        ds_tcvis: the three trends on any grid; None leaves them out.
        tpi_outer_radius: radius of the disk for `relative_elevation` in metres, or as "10px".
        tpi_inner_radius: likewise of the disk left out of it.
        device: where to compute and where the result shall be ("cpu", "cuda", …); None: where the optical tile is.
            What is needed of the inputs is brought there first.
        features: names of `ALL_FEATURES` to build, and nothing else; None: `FEATURES`, as far as the inputs allow.
            `aspect` brings `slope`, which decides where it is valid. Bands that the tile has already may be named too.
        terrain_convention: "true-north", or "legacy" for checkpoints trained on the older DARTS features: with
            c = atan2(x, y) in degrees + 90 of the grid coordinates, aspect = (grid aspect + c) mod 360 with c per
            pixel (flat is -1 before turning); hillshade takes the whole-degree sun azimuth - c, c at the buffered
            DEM's mean x, y, and a pixel size of 1.
        rows: first and stop of the tile's rows that are wanted; the result is that part of the tile, with the very
            numbers that the whole would have. None: all rows.

    Raises:
        ConfigError: an unknown feature, radius or convention; a feature whose input is None; a grid that is not in
            metres; no sun angles and no time to compute them from.
        MissingBandError: an input lacks a band.
        GridMismatchError: an input has no grid.
        DeviceError: a GPU was asked for and is not there.
    """
    geobox = _geobox_of(ds_optical)
    part = _rows_of(rows, geobox)
    wanted = _wanted(ds_optical, ds_arcticdem, ds_tcvis, features)
    home = _home(ds_optical) if device is None else resolve_array_device(device)
    dims = ds_optical.odc.spatial_dims
    tile = to_device(_part(ds_optical, dims, geobox, part), home)
    built: dict[str, xr.DataArray] = {}
    for name in INDEX_FEATURES:
        if name in wanted:
            index = calculate_index(tile, name).transpose(*dims)
            built[name] = describe(index, name, index.attrs["data_source"])
    trends = [name for name in TREND_FEATURES if name in wanted]
    if trends and ds_tcvis is not None:
        built |= _trends(ds_tcvis, trends, geobox, part, home)
    terrain = [name for name in DEM_FEATURES if name in wanted]
    if terrain and ds_arcticdem is not None:
        sun = _sun_angles(ds_optical, geobox) if "hillshade" in terrain else (0.0, 90.0)
        radii = (tpi_outer_radius, tpi_inner_radius)
        built |= _terrain(ds_arcticdem, terrain, geobox, part, radii, sun, terrain_convention, home)
    # Values without coordinates take over the tile's own, so that nothing is aligned, or lost by rounding.
    return tile.assign({name: (dims, built[name].data, built[name].attrs) for name in ALL_FEATURES if name in built})


def _part(tile: xr.Dataset, dims: tuple[Hashable, Hashable], geobox: GeoBox, rows: tuple[int, int]) -> xr.Dataset:
    """Return some rows of a tile; what it says of its grid elsewhere than in coordinates must follow."""
    if rows == (0, geobox.shape.y):
        return tile
    part = tile.isel({dims[0]: slice(*rows)})
    names = [name for name, coord in part.coords.items() if "GeoTransform" in coord.attrs]
    grids = xr_coords(geobox[slice(*rows), :])
    return part.assign_coords(dict.fromkeys(names, grids["spatial_ref"].variable))


def _rows_of(rows: tuple[int, int] | None, geobox: GeoBox) -> tuple[int, int]:
    if rows is None:
        return 0, geobox.shape.y
    try:
        first, stop = (operator.index(row) for row in rows)
    except (TypeError, ValueError):
        first = stop = 0
    if not 0 <= first < stop <= geobox.shape.y:
        raise ConfigError(f"rows must be (first, stop) within the tile's {geobox.shape.y} rows, got {rows!r}")
    return first, stop


def _wanted(
    ds_optical: xr.Dataset, ds_arcticdem: xr.Dataset | None, ds_tcvis: xr.Dataset | None,
    features: Iterable[str] | None,
) -> set[str]:  # fmt: skip
    inputs = {"ds_arcticdem": (ds_arcticdem, DEM_FEATURES), "ds_tcvis": (ds_tcvis, TREND_FEATURES)}
    if features is None:
        wanted = set(FEATURES)
        for given, names in inputs.values():
            if given is None:
                wanted -= set(names)
        if ds_arcticdem is not None and "arcticdem_data_mask" not in ds_arcticdem:
            wanted.discard("arcticdem_data_mask")
        return wanted
    if isinstance(features, str):
        features = [features]
    wanted = {name for name in features if name in ALL_FEATURES or name not in ds_optical}
    if unknown := sorted(wanted - set(ALL_FEATURES), key=str):
        near = difflib.get_close_matches(str(unknown[0]), ALL_FEATURES, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"features: {unknown[0]!r} is unknown; {hint}Known features: {', '.join(ALL_FEATURES)}")
    for parameter, (given, names) in inputs.items():
        if given is None and (needed := [name for name in names if name in wanted]):
            raise ConfigError(
                f"features: {', '.join(needed)} need {parameter}, which is None; load it, or leave the features out"
            )
    return wanted | {"slope"} if "aspect" in wanted else wanted


def _trends(
    ds_tcvis: xr.Dataset, names: list[str], geobox: GeoBox, rows: tuple[int, int], home: str
) -> dict[str, xr.DataArray]:  # fmt: skip
    require_bands(ds_tcvis, *names, purpose="preprocessing the Landsat trends")
    moved = to_device(ds_tcvis[names], home)
    # Whole numbers are the form on disk, whose nodata would be resampled as a strong trend.
    bands = {name: decode(moved[name], name) if moved[name].dtype.kind in "iu" else moved[name] for name in names}
    floats = {name: values.astype("float32", copy=False) for name, values in bands.items()}
    aligned = align(moved.assign(floats), geobox, rows=rows)
    return {name: describe(aligned[name], name, _source(ds_tcvis[name], "TCVIS")) for name in names}


def _terrain(
    ds_arcticdem: xr.Dataset,
    names: list[str],
    geobox: GeoBox,
    rows: tuple[int, int],
    radii: tuple[float | str, float | str],
    sun: tuple[float, float],
    convention: TerrainConvention,
    home: str,
) -> dict[str, xr.DataArray]:
    # All but the mask are made from the elevation.
    used = [*["dem"] * (names != ["arcticdem_data_mask"]), *["arcticdem_data_mask"] * ("arcticdem_data_mask" in names)]
    require_bands(ds_arcticdem, *used, purpose="preprocessing the terrain")
    disk = _disk_or_none(geobox, names, radii)
    padded, ground_rows = _with_margin(geobox, names, rows, disk)
    inputs = to_device(ds_arcticdem[used], home)
    if "dem" in used:
        inputs = inputs.assign(dem=inputs["dem"].astype("float32", copy=False))
    if "arcticdem_data_mask" in used:  # of floats, NaN is 0, and there is nothing between 0 and 1
        inputs = inputs.assign(arcticdem_data_mask=(inputs["arcticdem_data_mask"] > 0).astype("uint8"))
    ground = align(inputs, padded, rows=ground_rows)
    source = _source(ds_arcticdem[used[0]], "ArcticDEM")

    arrays: dict[str, Any] = {}
    slopes = [name for name in DERIVATIVES if name in names]
    grid = ground.odc.geobox
    if slopes:
        arrays |= derivatives(
            elevation_of(ground), grid, geobox, slopes, sun=sun, convention=convention, rows=rows, whole=padded
        )
    if disk is not None and "relative_elevation" in names:
        arrays["relative_elevation"] = relative_elevation(elevation_of(ground), grid, geobox, disk, rows=rows)
    part = geobox[slice(*rows), :]
    built = {name: on_grid(values, part) for name, values in arrays.items()}
    kept = [name for name in used if name in names]
    if kept:
        cropped = crop(ground[kept], part)
        built |= {name: cropped[name] for name in kept}
    built = {name: values.astype(BANDS[name].memory, copy=False) for name, values in built.items()}
    return {name: describe(values, name, source) for name, values in built.items()}


def _disk_or_none(geobox: GeoBox, names: list[str], radii: tuple[float | str, float | str]) -> Disk | None:
    """Return the disk of the relative elevation, also where that is not asked for, if the grid can have one."""
    try:
        return disk_of(geobox, *radii)
    except ConfigError:
        if "relative_elevation" in names:
            raise
        return None


def _with_margin(
    geobox: GeoBox, names: list[str], rows: tuple[int, int], disk: Disk | None
) -> tuple[GeoBox, tuple[int, int]]:
    """Return the tile's grid with a margin that covers what its features reach for, and its rows that are needed.

    The grid does not depend on which features are asked for, so that each has the same numbers with any others.
    """
    derived = set(names) - {"dem", "arcticdem_data_mask"}
    if derived:
        pixel_size_m(geobox)
        if not geobox.axis_aligned:
            raise GridMismatchError(f"terrain needs a tile whose grid lies along the axes of its CRS, got {geobox!r}")
    down, across = disk.reach if disk else (0, 0)
    first, stop = rows_needed(disk, geobox.shape.y, *rows) if disk and "relative_elevation" in names else rows
    stencil = STENCIL_PX if derived else 0
    margin = down + STENCIL_PX
    needed = min(first, rows[0] - stencil) + margin, max(stop, rows[1] + stencil) + margin
    return geobox.pad(across + STENCIL_PX, margin), needed


def _sun_angles(tile: xr.Dataset, geobox: GeoBox) -> tuple[float, float]:
    """Return the sun's azimuth and elevation from the tile's attributes, else computed from place and time."""
    azimuth, elevation = (_number(tile.attrs.get(name)) for name in ("azimuth", "elevation"))
    if azimuth is not None and elevation is not None:
        return azimuth, elevation
    time = tile.attrs.get("acquisition_time")
    if not time:
        raise ConfigError(
            f"tile {tile.attrs.get('tile_id') or 'without an id'} has neither sun angles (attributes azimuth and "
            "elevation) nor acquisition_time, so its hillshade cannot be computed. Set them on the tile, or leave "
            "hillshade out with `features`."
        )
    return sun_position(*centre_of(geobox), time)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _geobox_of(tile: xr.Dataset) -> GeoBox:
    geobox = tile.odc.geobox
    if not isinstance(geobox, GeoBox) or geobox.crs is None:
        raise GridMismatchError(
            f"tile {tile.attrs.get('tile_id') or 'without an id'} has no grid; it needs dims ('y', 'x') with "
            "coordinates and a CRS in `spatial_ref`"
        )
    return geobox


def _home(tile: xr.Dataset) -> str:
    """Return the device on which the tile's bands live."""
    bands = [values.data for values in tile.data_vars.values()]
    if not bands:
        raise MissingBandError(f"tile {tile.attrs.get('tile_id') or 'without an id'} has no bands")
    return "cpu" if array_namespace(*bands).__name__ == "numpy" else f"cuda:{bands[0].device.id}"


def _source(values: xr.DataArray, default: str) -> str:
    return str(values.attrs.get("data_source", default))
