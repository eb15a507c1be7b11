import numpy as np
import pyproj
import pytest
import shapely
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_export.geodesy import PixelArea, geodesic_area_m2, geodesic_measures
from darts_export.regions import find_regions

GRIDS = [
    ("EPSG:32608", (3e5, 7.6e6), 10),
    ("EPSG:32708", (3e5, 2.5e6), 10),  # south
    ("EPSG:32660", (596_500, 7.6e6), 10),  # east of zone 60 lies 180°
    ("EPSG:3413", (-1500, 1500), 10),  # around the pole
    ("EPSG:3413", (-2.2e6, 4e5), 30),
    ("EPSG:4326", (179.0, 70.0), 1e-3),
]


def grid(crs, corner, pixel, shape=(300, 260)):
    return GeoBox(shape, Affine(pixel, 0, corner[0], 0, -pixel, corner[1]), crs)


@pytest.mark.parametrize(("crs", "corner", "pixel"), GRIDS)
def test_areas_of_pixels_and_of_outlines_agree(crs, corner, pixel):
    rng = np.random.default_rng(0)
    geobox = grid(crs, corner, pixel)
    mask = rng.random(geobox.shape) < 0.6
    mask[40:250, 30:200] = True
    mask[100:130, 60:180] = False
    regions = find_regions(mask)
    total = PixelArea.on(geobox).total_m2(regions.row, regions.runs.starts, regions.runs.ends)
    (outline,) = geodesic_area_m2(np.array([regions.whole_outline(geobox.affine)]), crs, 20 * pixel)
    assert total == pytest.approx(outline, rel=1e-6)


def test_areas_of_pixels_are_right_on_a_full_tile_in_each_corner():
    geobox = grid("EPSG:32608", (399960, 7_800_000), 10, (10980, 10980))
    pixel_area = PixelArea.on(geobox)
    for row, column in ((0, 0), (0, 10880), (10880, 0), (5000, 5000), (10880, 10880)):
        rows, starts = np.arange(row, row + 100), np.full(100, column)
        x, y = 399960 + 10 * column, 7_800_000 - 10 * row
        (outline,) = geodesic_area_m2(np.array([shapely.box(x, y - 1000, x + 1000, y)]), "EPSG:32608", 100)
        assert pixel_area.total_m2(rows, starts, starts + 100) == pytest.approx(outline, rel=1e-8)


def test_no_pixels_have_no_area():
    none = np.array([], "int32")
    assert PixelArea.on(grid(*GRIDS[0])).total_m2(none, none, none) == 0


@pytest.mark.parametrize(("crs", "corner", "pixel"), GRIDS[:5])
def test_perimeters_are_geodesic_and_count_holes(crs, corner, pixel):
    geobox = grid(crs, corner, pixel)
    mask = np.zeros(geobox.shape, bool)
    mask[20:280, 30:250] = True
    mask[100:120, 90:150] = False
    (outline,) = find_regions(mask).outlines(geobox.affine)
    _, (perimeter,) = geodesic_measures(np.array([outline]), crs, 20 * pixel)
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    expected = 0.0
    for ring in (outline.exterior, *outline.interiors):
        x, y = np.array(shapely.segmentize(ring, pixel).coords).T
        longitude, latitude = to_degrees.transform(x, y)
        expected += pyproj.Geod(ellps="WGS84").line_length(longitude, latitude)
    assert perimeter == pytest.approx(expected, rel=1e-7)
