"""Ground whose slope, aspect and light are known, through the whole of `preprocess_v2`.

The shapes are drawn in the tile's grid and sampled by PROJ where the pixels of a DEM in another CRS lie.
"""

import numpy as np
import pyproj
import pytest
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_preprocessing import preprocess_v2
from darts_utils.grids import pad_metres, pixel_centres
from darts_utils.testing import dem_on, optical_tile, utm_geobox

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

POLAR, DEGREES = "EPSG:3413", "EPSG:4326"
PLACES = {
    "60 N, zone 8 west": ("EPSG:32608", -137.6, 60),
    "70 N, zone 8 east": ("EPSG:32608", -132.3, 70),
    "78 N, zone 52": ("EPSG:32652", 126.3, 78),
    "82 N, zone 52": ("EPSG:32652", 131.8, 82),
    "33 S, zone 19": ("EPSG:32719", -70.9, -33),
}
# CRS of the DEM and its pixel in the units of that CRS, by place.
DEMS = {
    "60 N, zone 8 west": [(POLAR, 10), (POLAR, 2), (DEGREES, 3e-4)],
    "70 N, zone 8 east": [(POLAR, 10), (POLAR, 32), (DEGREES, 1e-4)],
    "78 N, zone 52": [(POLAR, 10), (POLAR, 2), (DEGREES, 1e-4)],
    "82 N, zone 52": [(POLAR, 10), (POLAR, 32), (DEGREES, 3e-4)],
    "33 S, zone 19": [(DEGREES, 3e-4)],
}
CASES = {
    f"{name} from {crs} at {pixel}": (*PLACES[name], crs, pixel) for name, dems in DEMS.items() for crs, pixel in dems
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
RADIUS_M = 100


def tile_at(crs, longitude, latitude, shape=(30, 40), pixel=10):
    """Return a tile around a place, on odd metres."""
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(longitude, latitude)
    left, top = round(x) - pixel * shape[1] // 2 + 3, round(y) + pixel * shape[0] // 2 + 7
    return utm_geobox(shape, left=left, top=top, pixel=pixel, crs=crs)


def dem_of(tile, crs, pixel, elevation):
    """Return a DEM in another CRS around the tile, of a function of metres east and north of the tile's middle."""
    wide = pad_metres(tile, RADIUS_M + 250).to_crs(crs, resolution=pixel)
    left, top = np.floor(wide.affine.c / pixel), np.ceil(wide.affine.f / pixel)
    grid = GeoBox(wide.shape, Affine(pixel, 0, left * pixel, 0, -pixel, top * pixel), crs)
    project = pyproj.Transformer.from_crs(crs, tile.crs.proj, always_xy=True)
    east, north = project.transform(*pixel_centres(grid, *np.meshgrid(*(np.arange(n) for n in grid.shape.xy))))
    middle = pixel_centres(tile, (tile.shape.x - 1) / 2, (tile.shape.y - 1) / 2)
    return dem_on(grid, elevation(east - middle[0], north - middle[1]))


def from_the_middle(tile):
    cols, rows = np.meshgrid(*(np.arange(n) for n in tile.shape.xy))
    return tile.affine.a * (cols - (tile.shape.x - 1) / 2), tile.affine.e * (rows - (tile.shape.y - 1) / 2)


def north_of(tile):
    """Return the azimuth of grid north at each pixel, measured by a geodesic of 20 m."""
    cols, rows = np.meshgrid(*(np.arange(n) for n in tile.shape.xy))
    x, y = pixel_centres(tile, cols, rows)
    to_degrees = pyproj.Transformer.from_crs(tile.crs.proj, "EPSG:4326", always_xy=True)
    return pyproj.Geod(ellps="WGS84").inv(*to_degrees.transform(x, y - 10), *to_degrees.transform(x, y + 10))[0]


def light(slope_deg, aspect_deg, azimuth_deg, height_deg):
    slope, height = np.radians(slope_deg), np.radians(height_deg)
    towards = np.cos(np.radians(azimuth_deg - aspect_deg))
    return (1 + np.sin(height) * np.cos(slope) + np.cos(height) * np.sin(slope) * towards) / 2


def turned(first, second):
    return np.abs((first - second + 180) % 360 - 180)


@EVERY_CASE
@pytest.mark.parametrize(("slope", "faces"), [(12, 135), (35, 290)])
def test_a_plane_keeps_slope_aspect_and_light(case, slope, faces):
    *place, crs, pixel = case
    tile = tile_at(*place)
    fall = np.tan(np.radians(slope))
    east, north = np.sin(np.radians(faces)), np.cos(np.radians(faces))
    dem = dem_of(tile, crs, pixel, lambda x, y: 700 - fall * (x * east + y * north))
    optical = optical_tile(tile).assign_attrs(azimuth=163.0, elevation=24.0)
    result = preprocess_v2(optical, dem, None, RADIUS_M)

    x, y = from_the_middle(tile)
    aspect = faces + north_of(tile)
    assert np.abs(result.dem - (700 - fall * (x * east + y * north))).max() < 0.02
    assert np.abs(result.slope - slope).max() < 0.05
    assert turned(result.aspect, aspect).max() < 0.2
    assert np.abs(result.hillshade - light(slope, aspect, 163, 24)).max() < 1e-3
    assert np.abs(result.curvature).max() < 0.05
    # A plane lies neither above nor below what is around it, up to the tile's edge.
    assert np.abs(result.relative_elevation).max() < 0.02


@pytest.mark.parametrize("name", ["60 N, zone 8 west", "82 N, zone 52"])
@pytest.mark.parametrize(("pixel", "of_dem"), [(3, 2), (3.125, 2), (10, 8)])
def test_a_plane_of_a_somewhat_finer_dem_stays_within_a_thirtieth_of_a_pixel(name, pixel, of_dem):
    # The kernel widens by a factor between whole numbers here. Keys' weights then no longer reproduce a plane to the
    # last digit, nor do GDAL's.
    tile = tile_at(*PLACES[name], pixel=pixel)
    fall = np.tan(np.radians(12))

    def plane(x, y):
        return 700 - fall * (x - y) / np.sqrt(2)

    dem = dem_of(tile, POLAR, of_dem, plane)
    result = preprocess_v2(optical_tile(tile), dem, None, features=["dem", "slope", "aspect"])
    assert np.abs(result.dem - plane(*from_the_middle(tile))).max() < pixel / 30 * fall
    assert np.abs(result.slope - 12).max() < 0.1
    assert turned(result.aspect, 135 + north_of(tile)).max() < 0.5


@EVERY_CASE
def test_a_cone_faces_away_from_its_tip_on_all_sides(case):
    *place, crs, pixel = case
    tile = tile_at(*place)
    dem = dem_of(tile, crs, pixel, lambda x, y: 900 - np.tan(np.radians(15)) * np.hypot(x, y))
    optical = optical_tile(tile).assign_attrs(azimuth=230.0, elevation=40.0)
    result = preprocess_v2(optical, dem, None, RADIUS_M)
    x, y = from_the_middle(tile)
    # Stencils and pixels of 32 m round the tip off.
    far = np.hypot(x, y) > 120
    away = np.degrees(np.arctan2(x, y)) + north_of(tile)
    assert np.abs(result.slope.values - 15)[far].max() < 0.15
    assert turned(result.aspect.values, away)[far].max() < 0.5
    assert np.abs(result.hillshade.values - light(15, away, 230, 40))[far].max() < 2e-3
    # A cone is bent across its lines of fall only, by 1/distance.
    bend = 100 * np.tan(np.radians(15)) / np.hypot(x, y)
    assert np.abs(result.curvature.values - bend)[far].max() < 0.08
    tip = np.unravel_index(np.argmax(result.relative_elevation.values), tile.shape)
    assert np.hypot(x, y)[tip] < 10


@pytest.mark.parametrize("name", ["60 N, zone 8 west", "78 N, zone 52", "33 S, zone 19"])
@pytest.mark.parametrize("crs", [POLAR, DEGREES])
def test_the_facet_that_looks_at_the_sun_is_the_brightest_and_the_one_behind_the_darkest(name, crs):
    place = PLACES[name]
    if crs == POLAR and place[2] < 0:
        crs = "EPSG:32720"  # polar grids of the north do not reach here; the neighbouring zone does
    tile = tile_at(*place, shape=(48, 48))
    compass = np.arange(0, 360, 45)
    # A pyramid with eight sides that look at true directions.
    towards = np.radians(compass - north_of(tile).mean())

    def pyramid(x, y):
        return 900 - np.tan(np.radians(10)) * np.max([x * np.sin(a) + y * np.cos(a) for a in towards], axis=0)

    dem = dem_of(tile, crs, 10 if crs != DEGREES else 1e-4, pyramid)
    x, y = from_the_middle(tile)
    along = np.stack([x * np.sin(a) + y * np.cos(a) for a in towards])
    side = compass[np.argmax(along, axis=0)]
    second, first = np.sort(along, axis=0)[-2:]
    within = (first - second > 35) & (first > 60)  # well away from edges and tip
    assert all((side[within] == faces).sum() > 10 for faces in compass)
    for azimuth in compass:
        optical = optical_tile(tile).assign_attrs(azimuth=float(azimuth), elevation=25.0)
        shade = preprocess_v2(optical, dem, None, features=["hillshade"]).hillshade.values
        bright = {int(faces): shade[within & (side == faces)] for faces in compass}
        assert max(bright, key=lambda faces: bright[faces].mean()) == azimuth
        assert min(bright, key=lambda faces: bright[faces].mean()) == (azimuth + 180) % 360
        for faces, values in bright.items():
            assert np.abs(values - light(10, faces, azimuth, 25)).max() < 2e-3
