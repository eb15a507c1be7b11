"""Terrain against `gdaldem` of GDAL, on rough ground drawn here and on real DEMs where the sample data are."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_preprocessing import (
    calculate_aspect,
    calculate_hillshade,
    calculate_slope,
    calculate_topographic_position_index,
    calculate_tri,
    preprocess_v2,
)
from darts_utils.grids import crop, meridian_convergence
from darts_utils.testing import dem_on, optical_tile, rough_dem, utm_geobox

from .gdal_dem import MISSING, gdaldem

pytestmark = [
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]

SHARED_DEMS = Path(__file__).parents[3] / "shared" / "data" / "dem"
REAL = {
    "Vavilov, 79 N": "vavilov_EPSG32646_90m.tif",
    "Greenland, polar grid": "TDX_Greenland_Iceland_Mosaic_90m_Sample.tif",
    "Finse, 60 N": "ASTER_Finse.tif",
}
DRAWN = {
    "70 N": utm_geobox((80, 90)),
    "82 N": utm_geobox((80, 90), left=540_000, top=9_110_000, crs="EPSG:32633"),
    "70 S": utm_geobox((80, 90), left=600_000, top=2_200_000, crs="EPSG:32708", pixel=32),
    "polar 2 m": utm_geobox((80, 90), left=-2_000_000, top=-600_000, crs="EPSG:3413", pixel=2),
    "high pixels": GeoBox((80, 90), Affine(3, 0, 600_000, 0, -10, 7_800_000), "EPSG:32608"),
    "wide pixels": GeoBox((80, 90), Affine(10, 0, 600_000, 0, -5, 7_800_000), "EPSG:32608"),
}


@pytest.fixture(
    scope="module",
    params=[
        *DRAWN,
        *(pytest.param(name, marks=pytest.mark.skipif(not SHARED_DEMS.is_dir(),
          reason="the sample data do not stand beside the checkout")) for name in REAL),
    ],
)  # fmt: skip
def ground(request):
    """A DEM in steps of 1/64 m: sums over a stencil are exact even in the float32 that GDAL adds them in."""
    if request.param in DRAWN:
        dem = rough_dem(DRAWN[request.param], seed=11, nodata_share=0.01)
        dem["dem"][40:50, 60:75] = 300  # flat
        dem["dem"][5:9, 5:20] = np.nan
    else:
        with rasterio.open(SHARED_DEMS / REAL[request.param]) as file:
            values = file.read(1, masked=True).astype("float32").filled(np.nan)
            dem = dem_on(GeoBox(file.shape, file.transform, file.crs.to_wkt()), values)
    return dem.assign(dem=np.round(dem.dem * 64) / 64)


def turned(first, second):
    return np.abs((first - second + 180) % 360 - 180)


def grid_aspect(dem, folder):
    """Aspect from grid north. gdaldem takes pixels for squares in it, and in nothing else: stretch the direction."""
    geobox = dem.odc.geobox
    angle = np.radians(gdaldem("aspect", dem.dem.values, geobox, folder))
    return np.degrees(np.arctan2(np.sin(angle) / geobox.affine.a, np.cos(angle) / -geobox.affine.e))


def test_slope_is_gdals(ground, tmp_path):
    expected = gdaldem("slope", ground.dem.values, ground.odc.geobox, tmp_path, "-alg", "Horn")
    slope = calculate_slope(ground).slope.values
    assert np.array_equal(np.isnan(slope), np.isnan(expected))
    assert np.nanmax(expected) > 20
    assert np.nanmax(np.abs(slope - expected)) < 1e-3


def test_aspect_is_gdals_turned_from_grid_north_to_true_north(ground, tmp_path):
    expected = grid_aspect(ground, tmp_path) + meridian_convergence(ground.odc.geobox).values
    aspect = calculate_aspect(ground).aspect.values
    # Flat ground has none: -9999 there, NaN here.
    assert np.array_equal(np.isnan(aspect), np.isnan(expected))
    flat = calculate_slope(ground).slope.values == 0
    assert np.isnan(aspect[flat]).all()
    assert np.nanmax(turned(aspect, expected)) < 2e-3
    assert np.nanmin(aspect) >= 0
    assert np.nanmax(aspect) < 360


@pytest.mark.parametrize("sun", [(155.0, 35.0), (310.5, 8.0)])
def test_light_is_the_formula_of_gdals_slope_and_aspect(ground, tmp_path, sun):
    azimuth, height = np.radians(sun)
    slope = np.radians(gdaldem("slope", ground.dem.values, ground.odc.geobox, tmp_path))
    aspect = np.radians(grid_aspect(ground, tmp_path) + meridian_convergence(ground.odc.geobox).values)
    towards = np.where(slope == 0, 0, np.cos(azimuth - aspect))
    cos_i = np.sin(height) * np.cos(slope) + np.cos(height) * np.sin(slope) * towards
    hillshade = calculate_hillshade(ground, *sun).hillshade.values
    assert np.array_equal(np.isnan(hillshade), np.isnan(cos_i))
    assert np.nanmax(np.abs(hillshade - (1 + cos_i) / 2)) < 5e-5


@pytest.mark.parametrize("sun", [(155.0, 35.0), (310.5, 8.0), (10.0, 60.0)])
def test_light_is_that_of_gdals_hillshade(ground, tmp_path, sun):
    # Small, so that one turn of the sun from true to grid north does for all of it.
    part = crop(ground, ground.odc.geobox[20:80, 30:90])
    turn = meridian_convergence(part.odc.geobox).values
    azimuth = f"{sun[0] - turn.mean()}"
    stored = gdaldem("hillshade", part.dem.values, part.odc.geobox, tmp_path, "-az", azimuth, "-alt", f"{sun[1]}")
    hillshade = calculate_hillshade(part, *sun).hillshade.values
    assert np.array_equal(np.isnan(hillshade), np.isnan(stored))
    # gdaldem stores 1 + 254 cos i in whole numbers, and 1 where the sun does not reach.
    expected = np.clip((stored - 1) / 254, 0, 1)
    error = np.abs(np.maximum(2 * hillshade - 1, 0) - expected)
    drift = np.radians(np.ptp(turn)) / 2 * np.cos(np.radians(sun[1]))
    assert np.nanmax(error) < 0.51 / 254 + drift
    assert np.nanmax(expected) - np.nanmin(expected) > 0.1


def test_topographic_position_of_a_square_is_gdals(ground, tmp_path):
    expected = gdaldem("TPI", ground.dem.values, ground.odc.geobox, tmp_path)
    # Radii of half and of one and a half pixels hold the centre, and the square of nine.
    without_centre = calculate_topographic_position_index(ground, "1.5px", "0.5px").tpi.values
    with_centre = calculate_topographic_position_index(ground, "1.5px").tpi.values
    # gdaldem wants all nine valid, we those that are there: the frame and the rims of holes are ours alone.
    assert np.array_equal(np.isnan(with_centre), np.isnan(ground.dem.values))
    known = np.isfinite(expected)
    assert np.isfinite(without_centre[known]).all()
    assert np.abs(without_centre - expected)[known].max() < 1e-3
    assert np.abs(with_centre * 9 / 8 - expected)[known].max() < 1e-3


@pytest.mark.parametrize("method", ["riley", "wilson"])
def test_ruggedness_is_gdals(ground, tmp_path, method):
    expected = gdaldem("TRI", ground.dem.values, ground.odc.geobox, tmp_path, "-alg", method.title())
    tri = calculate_tri(ground, method=method).tri.values
    assert np.array_equal(np.isnan(tri), np.isnan(expected))
    assert np.nanmax(expected) > 3
    assert np.nanmax(np.abs(tri - expected)) < 1e-3


def test_a_tile_has_the_slope_that_gdal_finds_in_the_wider_dem(ground, tmp_path):
    # The DEM lies on the tile's own grid and reaches beyond it, so that there is no frame.
    geobox = ground.odc.geobox[20:70, 10:60]
    expected = gdaldem("slope", ground.dem.values, ground.odc.geobox, tmp_path)[20:70, 10:60]
    slope = preprocess_v2(optical_tile(geobox), ground, None, features=["slope"]).slope.values
    assert np.array_equal(np.isnan(slope), np.isnan(expected))
    assert np.nanmax(np.abs(slope - expected)) < 1e-3
