"""All features of a tile on the grid of its optical bands."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox

from darts_preprocessing.indices import calculate_ndvi
from darts_preprocessing.terrain import (
    Radius,
    TerrainConvention,
    derivatives,
    disk_spans,
    elevation_of,
    relative_elevation,
)
from darts_utils.arrays import Device, array_namespace, resolve_device, to_device, to_host
from darts_utils.bands import BANDS, decode, describe, require_bands
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError
from darts_utils.grids import align, centre_of, crop, on_grid, pixel_size_m
from darts_utils.sun import sun_position

TREND_FEATURES = ("tc_brightness", "tc_greenness", "tc_wetness")
DERIVATIVES = ("slope", "aspect", "hillshade", "curvature")
DEM_FEATURES = ("dem", "arcticdem_data_mask", "relative_elevation", *DERIVATIVES)
FEATURES = ("ndvi", *TREND_FEATURES, *DEM_FEATURES)
"""What `preprocess_v2` builds, in this order."""

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
) -> xr.Dataset:
    """Return the optical tile with features added, all float32 on its grid (`arcticdem_data_mask`: uint8).

    `ndvi` from the optical bands; `tc_brightness`, `tc_greenness`, `tc_wetness` resampled from the Landsat trends;
    from the ArcticDEM `dem`, `arcticdem_data_mask`, `relative_elevation`, `slope`, `aspect`, `hillshade` and
    `curvature`. The DEM is resampled with a margin for the radius and the stencil, so that features reach the tile's
    edge where the DEM does. Missing data are NaN. The inputs are left as they are.

    Args:
        ds_optical: a tile with `red` and `nir`; for the hillshade also attributes `azimuth` and `elevation` of the
            sun, or else `acquisition_time`, from which they are computed.
        ds_arcticdem: `dem` (metres) and `arcticdem_data_mask` on any grid; None leaves out what needs it.
        ds_tcvis: the three trends on any grid; None leaves them out.
        tpi_outer_radius: radius of the disk for `relative_elevation` in metres, or as "10px".
        tpi_inner_radius: likewise of the disk left out of it.
        device: where the result shall be ("cpu", "cuda", …); None: where the optical tile is. Reprojection and terrain
            are computed on the host for now; inputs on a GPU are brought over here and results returned.
        features: names of `FEATURES` to build, and nothing else; None: all that the inputs allow. `aspect` brings
            `slope`, which decides where it is valid. Bands that the tile has already may be named too.
        terrain_convention: "true-north", or "legacy" for checkpoints trained on the older DARTS features: with
            c = atan2(x, y) in degrees + 90 of the grid coordinates, aspect = (grid aspect + c) mod 360 with c per
            pixel (flat is -1 before turning); hillshade takes the whole-degree sun azimuth - c, c at the buffered
            DEM's mean x, y, and a pixel size of 1.

    Raises:
        ConfigError: an unknown feature, radius or convention; a feature whose input is None; a grid that is not in
            metres; no sun angles and no time to compute them from.
        MissingBandError: an input lacks a band.
        GridMismatchError: an input has no grid.
    """
    geobox = _geobox_of(ds_optical)
    wanted = _wanted(ds_optical, ds_arcticdem, ds_tcvis, features)
    built: dict[str, xr.DataArray] = {}
    if "ndvi" in wanted:
        ndvi = calculate_ndvi(ds_optical)
        built["ndvi"] = describe(ndvi, "ndvi", ndvi.attrs["data_source"])
    trends = [name for name in TREND_FEATURES if name in wanted]
    if trends and ds_tcvis is not None:
        built |= _trends(ds_tcvis, trends, geobox)
    terrain = [name for name in DEM_FEATURES if name in wanted]
    if terrain and ds_arcticdem is not None:
        sun = _sun_angles(ds_optical, geobox) if "hillshade" in terrain else (0.0, 90.0)
        built |= _terrain(ds_arcticdem, terrain, geobox, (tpi_outer_radius, tpi_inner_radius), sun, terrain_convention)
    home = _home(ds_optical) if device is None else resolve_device(device)
    tile = ds_optical if device is None else to_device(ds_optical, home)
    dims = ds_optical.odc.spatial_dims
    # Values without coordinates take over the tile's own, so that nothing is aligned, or lost by rounding.
    return tile.assign({name: (dims, to_device(built[name].data, home), built[name].attrs)
                        for name in FEATURES if name in built})  # fmt: skip


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
    wanted = {name for name in features if name in FEATURES or name not in ds_optical}
    if unknown := sorted(wanted - set(FEATURES)):
        near = difflib.get_close_matches(unknown[0], FEATURES, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"features: {unknown[0]!r} is unknown; {hint}Known features: {', '.join(FEATURES)}")
    for parameter, (given, names) in inputs.items():
        if given is None and (needed := [name for name in names if name in wanted]):
            raise ConfigError(
                f"features: {', '.join(needed)} need {parameter}, which is None; load it, or leave the features out"
            )
    return wanted | {"slope"} if "aspect" in wanted else wanted


def _trends(ds_tcvis: xr.Dataset, names: list[str], geobox: GeoBox) -> dict[str, xr.DataArray]:
    require_bands(ds_tcvis, *names, purpose="preprocessing the Landsat trends")
    # Whole numbers are the form on disk, whose nodata would be resampled as a strong trend.
    bands = {name: decode(ds_tcvis[name], name) if ds_tcvis[name].dtype.kind in "iu" else ds_tcvis[name]
             for name in names}  # fmt: skip
    aligned = align(to_host(ds_tcvis[names].assign(bands)), geobox)
    return {
        name: describe(aligned[name].astype("float32", copy=False), name, _source(ds_tcvis[name], "TCVIS"))
        for name in names
    }


def _terrain(
    ds_arcticdem: xr.Dataset,
    names: list[str],
    geobox: GeoBox,
    radii: tuple[float | str, float | str],
    sun: tuple[float, float],
    convention: TerrainConvention,
) -> dict[str, xr.DataArray]:
    used = [name for name in ("dem", "arcticdem_data_mask") if name in names or (name == "dem" and len(names) > 1)]
    if names != ["arcticdem_data_mask"] and "dem" not in used:
        used.insert(0, "dem")
    require_bands(ds_arcticdem, *used, purpose="preprocessing the terrain")
    padded = _padded(geobox, names, radii)
    inputs = ds_arcticdem[used]
    if "dem" in used:
        inputs = inputs.assign(dem=inputs["dem"].astype("float32", copy=False))
    ground = align(to_host(inputs), padded)
    source = _source(ds_arcticdem[used[0]], "ArcticDEM")

    arrays: dict[str, Any] = {}
    slopes = [name for name in DERIVATIVES if name in names]
    if slopes or "relative_elevation" in names:
        elevation = elevation_of(ground)
        if slopes:
            arrays |= derivatives(elevation, padded, geobox, slopes, sun=sun, convention=convention)
        if "relative_elevation" in names:
            arrays["relative_elevation"] = relative_elevation(elevation, padded, geobox, *radii)
    built = {name: on_grid(values, geobox) for name, values in arrays.items()}
    kept = [name for name in used if name in names]
    if kept:
        cropped = crop(ground[kept], geobox)
        built |= {name: cropped[name] for name in kept}
    built = {name: values.astype(BANDS[name].memory, copy=False) for name, values in built.items()}
    return {name: describe(values, name, source) for name, values in built.items()}


def _padded(geobox: GeoBox, names: list[str], radii: tuple[float | str, float | str]) -> GeoBox:
    """Return the tile's grid with a margin that covers what its features reach for."""
    if not set(names) - {"dem", "arcticdem_data_mask"}:
        return geobox
    dx, dy = pixel_size_m(geobox)
    if not geobox.axis_aligned:
        raise GridMismatchError(f"terrain needs a tile whose grid lies along the axes of its CRS, got {geobox!r}")
    across = down = 0.0
    if "relative_elevation" in names:
        disk_spans(geobox, *radii)  # refuses radii that enclose nothing before the DEM is resampled
        across, down = Radius.of(radii[0], "tpi_outer_radius").in_pixels(dx, dy)
    return geobox.pad(math.ceil(across) + STENCIL_PX, math.ceil(down) + STENCIL_PX)


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
