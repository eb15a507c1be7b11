"""Synthetic tiles and terrain for tests: small, deterministic, on any grid."""

import importlib.util
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_utils.bands import describe
from darts_utils.grids import on_grid, pixel_centres

SOURCE = "synthetic"


def namespaces() -> list[ModuleType]:
    """Return numpy and, where a GPU can be used, cupy: the parameters of a fixture `xp`.

    ```python
    @pytest.fixture(params=namespaces(), ids=lambda module: module.__name__)
    def xp(request):
        return request.param
    ```
    """
    if importlib.util.find_spec("cupy") is None:
        return [np]
    import cupy

    return [np, cupy] if cupy.is_available() else [np]


def utm_geobox(
    shape: tuple[int, int] = (64, 64), *, left: float = 600_000, top: float = 7_800_000, pixel: float = 10.0,
    crs: str = "EPSG:32608",
) -> GeoBox:  # fmt: skip
    """Return a north-up grid with square pixels, by default at 132° W, 70° N."""
    return GeoBox(shape, Affine(pixel, 0, left, 0, -pixel, top), crs)


def tile_on(geobox: GeoBox, bands: dict[str, Any], **attrs: Any) -> xr.Dataset:
    """Return arrays (y, x) as a tile on `geobox`, described by the band table."""
    described = {name: describe(on_grid(values, geobox), name, SOURCE) for name, values in bands.items()}
    return xr.Dataset(described, attrs={"tile_id": "synthetic", **attrs})


def optical_tile(geobox: GeoBox, seed: int = 0, *, nodata_share: float = 0.0) -> xr.Dataset:
    """Return an optical tile: smooth reflectance with noise, a quality mask, sun angles and an acquisition time.

    About `nodata_share` of the pixels, along the left edge, have NaN in all bands and quality 0.
    """
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(geobox.shape, dtype="float32")
    valid = cols >= nodata_share * geobox.shape.x
    bands: dict[str, Any] = {}
    for name, level in {"blue": 0.04, "green": 0.07, "red": 0.06, "nir": 0.25}.items():
        waves = np.sin(rows / 7 + level * 40) * np.cos(cols / 11)
        values = level * (1 + 0.3 * waves + 0.05 * rng.standard_normal(geobox.shape, dtype="float32"))
        bands[name] = np.where(valid, values, np.nan).astype("float32")
    bands["s2_scl"] = np.where(valid, 4, 0).astype("uint8")
    bands["quality_data_mask"] = np.where(valid, 2, 0).astype("uint8")
    return tile_on(
        geobox, bands, azimuth=180.0, elevation=30.0, sensor="Sentinel-2", image_id="synthetic",
        acquisition_time="2023-07-01T20:00:00Z", quality_source="SCL",
    )  # fmt: skip


def dem_on(geobox: GeoBox, elevation: Any) -> xr.Dataset:
    """Return elevations (y, x) in metres as a DEM dataset with its mask."""
    dem = np.asarray(elevation, "float32")
    return tile_on(geobox, {"dem": dem, "arcticdem_data_mask": np.isfinite(dem).astype("uint8")})


def plane_dem(geobox: GeoBox, slope_deg: float, aspect_deg: float, *, base: float = 500.0) -> xr.Dataset:
    """Return a plane that falls by `slope_deg` towards `aspect_deg`, clockwise from grid north."""
    x, y = _from_the_middle(geobox)
    towards = np.radians(aspect_deg)
    fall = np.tan(np.radians(slope_deg))
    return dem_on(geobox, base - fall * (x * np.sin(towards) + y * np.cos(towards)))


def cone_dem(geobox: GeoBox, slope_deg: float, *, top: float = 1000.0) -> xr.Dataset:
    """Return a cone with its tip in the middle: everywhere the same slope, facing away from the tip."""
    return dem_on(geobox, top - np.tan(np.radians(slope_deg)) * np.hypot(*_from_the_middle(geobox)))


def rough_dem(geobox: GeoBox, seed: int = 0, *, nodata_share: float = 0.0) -> xr.Dataset:
    """Return hills with noise; a random share of the pixels is missing."""
    rng = np.random.default_rng(seed)
    x, y = _from_the_middle(geobox)
    wave = np.ptp(x) / 3 + 1
    elevation = 300 + 40 * np.sin(x / wave * 2 * np.pi) * np.cos(y / wave * 2 * np.pi) + rng.normal(0, 1, geobox.shape)
    elevation[rng.random(geobox.shape) < nodata_share] = np.nan
    return dem_on(geobox, elevation)


def trend_tile(geobox: GeoBox, seed: int = 0) -> xr.Dataset:
    """Return Landsat trends on a grid: whole numbers 1 … 255 as float32."""
    rng = np.random.default_rng(seed)
    names = ("tc_brightness", "tc_greenness", "tc_wetness")
    return tile_on(geobox, {name: rng.integers(1, 256, geobox.shape).astype("float32") for name in names})


def _from_the_middle(geobox: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance east and north of each pixel from the grid's middle, in units of the CRS."""
    rows, cols = np.indices(geobox.shape)
    x, y = pixel_centres(geobox, cols, rows)
    middle_x, middle_y = pixel_centres(geobox, (geobox.shape.x - 1) / 2, (geobox.shape.y - 1) / 2)
    return x - middle_x, y - middle_y
