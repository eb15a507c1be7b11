"""A labelled tile is cut into patches as inference cuts it."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import shapely
import xarray as xr
from shapely.geometry import MultiPolygon, Polygon

import darts_utils.grids  # noqa: F401  (gives tiles their `odc.geobox`)
from darts_segmentation.patches import patch_starts
from darts_segmentation.training.patch_form import BACKGROUND, IGNORE, SLUMP, DatasetForm, Patch
from darts_utils.arrays import to_host
from darts_utils.bands import require_bands
from darts_utils.errors import ConfigError, GridMismatchError

NOT_ASKED = frozenset({"aspect"})
"""Bands that may be missing at a valid pixel: flat ground has no aspect."""
POINTS_PER_EDGE = 8
"""An edge of a patch is bent in longitude and latitude; with so many pieces, 10 km of it stray by some 0.1 m."""


def cut_patches(
    tile: xr.Dataset,
    target: np.ndarray,
    form: DatasetForm,
    *,
    keep_negative: bool = True,
    keep_nan: bool = True,
    min_labelled: float = 0.1,
) -> Iterator[Patch]:
    """Yield the patches of a tile, row by row, that have labels enough.

    Windows lie as in inference: they cover the tile, share `form.overlap` pixels, and the last one is shifted back to
    end with the tile. A tile smaller than a patch is padded at its far sides, with NaN and ignore. A pixel at which a
    band is missing (`aspect` is not asked) is ignored in `y`, whatever the target says; infinite numbers are missing.

    Args:
        tile: has the bands of `form`, and a geobox.
        target: integer or boolean (y, x): 0 background, 1 slump, 2 ignore.
        form: bands, size and overlap of patches.
        keep_negative: also patches without any slump pixel.
        keep_nan: also patches in which a labelled pixel lacks a band.
        min_labelled: smallest share of pixels that are not ignored; patches without any never come.

    Raises:
        MissingBandError: the tile lacks a band.
        GridMismatchError: it has no geobox, or the target another shape.
        ConfigError: the target holds other classes, or `min_labelled` is no share.
    """
    if not 0 <= min_labelled <= 1:
        raise ConfigError(f"min_labelled must be within 0 … 1, got {min_labelled!r}")
    require_bands(tile, *form.bands, purpose="the patch dataset")
    geobox = tile.odc.geobox
    if geobox is None or geobox.crs is None:
        raise GridMismatchError("a tile to be cut into patches needs a grid with a CRS, so that patches have a place")
    target = np.asarray(target)
    if target.shape != geobox.shape.yx:
        raise GridMismatchError(f"the target is {target.shape} pixels, but the tile {geobox.shape.yx}")
    if target.dtype.kind not in "biu" or not np.isin(target, (BACKGROUND, SLUMP, IGNORE)).all():
        raise ConfigError(f"the target must hold 0 (background), 1 (slump) and 2 (ignore), got {np.unique(target)[:9]}")
    return _windows(tile, target, form, geobox, keep_negative, keep_nan, min_labelled)


def _windows(
    tile: xr.Dataset,
    target: np.ndarray,
    form: DatasetForm,
    geobox: Any,
    keep_negative: bool,
    keep_nan: bool,
    min_labelled: float,
) -> Iterator[Patch]:
    size = form.patch_size
    bands = [np.asarray(to_host(tile[name].transpose("y", "x").data)) for name in form.bands]
    asked = [name not in NOT_ASKED for name in form.bands]
    starts = (patch_starts(length, size, form.overlap) for length in target.shape)
    for row, col in product(*starts):
        window = np.s_[row : row + size, col : col + size]
        labels = target[window]
        height, width = labels.shape
        x = np.full((len(bands), size, size), np.nan, "float32")
        for plane, band in zip(x, bands, strict=True):
            plane[:height, :width] = band[window]
        x[~np.isfinite(x)] = np.nan
        missing = np.isnan(x[asked]).any(axis=0)
        y = np.full((size, size), IGNORE, "uint8")
        y[:height, :width] = labels
        if not keep_nan and (missing & (y != IGNORE)).any():
            continue
        y[missing] = IGNORE
        share = np.count_nonzero(y != IGNORE) / y.size
        if share == 0 or share < min_labelled or not (keep_negative or (y == SLUMP).any()):
            continue
        # The outline is that of the pixels which the tile has.
        yield Patch(x=x, y=y, row=row, col=col, geometry=outline(geobox[row : row + height, col : col + width]))


def outline(geobox: Any) -> Polygon | MultiPolygon:
    """Return the outline of a geobox in EPSG:4326, within −180…180: split where it crosses the antimeridian.

    It must be smaller than half the Earth and must not hold a pole.
    """
    import geopandas as gpd

    extent = geobox.extent.geom
    bent = shapely.segmentize(extent, extent.length / 4 / POINTS_PER_EDGE)
    lonlat = gpd.GeoSeries([bent], crs=geobox.crs.to_wkt()).to_crs("EPSG:4326").iloc[0]
    points = shapely.get_coordinates(lonlat)
    points[:, 0] = np.unwrap(points[:, 0], period=360)
    west, east = points[:, 0].min(), points[:, 0].max()
    if not np.isfinite(points).all() or not np.isclose(points[0, 0], points[-1, 0]):
        raise ConfigError(f"a patch at {extent.bounds} in {geobox.crs} holds a pole, or has no longitude and latitude")
    if west >= -180 and east <= 180:
        return Polygon(points)
    parts = []
    for turn in (-360, 0, 360):
        inside = shapely.intersection(Polygon(points + np.array([turn, 0])), shapely.box(-180, -90, 180, 90))
        parts += [part for part in getattr(inside, "geoms", [inside]) if part.area > 0]
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)
