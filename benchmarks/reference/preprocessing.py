"""All features of a tile with the obvious calls of xarray-spatial, odc-geo and xarray.

Meant to be plain and fair, not right everywhere. Known to differ from SPEC 6, by what the libraries do:

- `hillshade` takes the pixel size as 1, so that a slope of 10° on pixels of 10 m is lit like one of 60°.
- `aspect` and `hillshade` count from grid north; flat ground has aspect -1.
- A missing DEM pixel spoils the mean of every pixel whose kernel's square holds it.
- The kernel of the mean has a radius of whole pixels.
- GDAL's default approximation moves samples by up to some hundredths of a pixel, and odc-geo keeps the kernel of cubic
  resampling as narrow as source pixels where those of the tile are larger.
"""

import math

import xarray as xr
from odc.geo.geobox import GeoBox
from xrspatial import aspect, curvature, hillshade, slope
from xrspatial.convolution import annulus_kernel, calc_cellsize, circle_kernel, convolution_2d

TRENDS = ["tc_brightness", "tc_greenness", "tc_wetness"]


def preprocess(
    tile: xr.Dataset, arcticdem: xr.Dataset, tcvis: xr.Dataset, outer_radius_m: float = 100, inner_radius_m: float = 0
) -> xr.Dataset:
    """Return the tile with all features that `preprocess_v2` adds, float32 (the mask: uint8)."""
    geobox = tile.odc.geobox
    # The DEM needs a margin, since a kernel leaves NaN where it reaches over the edge.
    margin = math.ceil(outer_radius_m / geobox.resolution.x) + 2
    terrain = align_dem(arcticdem, geobox.pad(margin))
    dem = terrain.dem
    terrain["relative_elevation"] = relative_elevation(dem, outer_radius_m, inner_radius_m)
    terrain["slope"] = slope(dem)
    terrain["aspect"] = aspect(dem)
    terrain["hillshade"] = shade(dem, tile.azimuth, tile.elevation)
    terrain["curvature"] = curvature(dem)
    terrain = terrain.isel(x=slice(margin, -margin), y=slice(margin, -margin)).assign_coords(x=tile.x, y=tile.y)
    return tile.assign(ndvi=ndvi(tile), **align_trends(tcvis, geobox).data_vars, **terrain.data_vars)


def ndvi(tile: xr.Dataset) -> xr.DataArray:
    """Return (nir - red) / (nir + red), clipped to ±1."""
    return ((tile.nir - tile.red) / (tile.nir + tile.red)).clip(-1, 1)


def align_trends(tcvis: xr.Dataset, geobox: GeoBox) -> xr.Dataset:
    """Return the Landsat trends on a grid."""
    return tcvis[TRENDS].odc.reproject(geobox, resampling="cubic")


def align_dem(arcticdem: xr.Dataset, geobox: GeoBox) -> xr.Dataset:
    """Return the DEM and its mask on a grid."""
    return xr.Dataset({
        "dem": arcticdem.dem.odc.reproject(geobox, resampling="cubic"),
        "arcticdem_data_mask": arcticdem.arcticdem_data_mask.odc.reproject(geobox, resampling="nearest"),
    })  # fmt: skip


def relative_elevation(dem: xr.DataArray, outer_radius_m: float, inner_radius_m: float = 0) -> xr.DataArray:
    """Return the elevation above the mean over the disk or ring around; NaN within the radius of the edge."""
    size = calc_cellsize(dem)
    kernel = annulus_kernel(*size, outer_radius_m, inner_radius_m) if inner_radius_m else circle_kernel(
        *size, outer_radius_m
    )  # fmt: skip
    return dem - convolution_2d(dem, kernel / kernel.sum())


def shade(dem: xr.DataArray, azimuth: float, elevation: float) -> xr.DataArray:
    """Return the hillshade as float32; xarray-spatial computes it in float64."""
    return hillshade(dem, azimuth=azimuth, angle_altitude=elevation).astype("float32")
