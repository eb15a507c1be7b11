import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer

from darts_postprocessing.areas import pixel_areas
from darts_utils.errors import GridMismatchError

GRIDS = {
    "UTM": GeoBox((10980, 10980), Affine(10, 0, 499_980, 0, -10, 7_800_000), "EPSG:32608"),
    "UTM, southern": GeoBox((900, 10980), Affine(10, 0, 300_000, 0, -10, 4_500_000), "EPSG:32719"),
    "UTM, at the antimeridian": GeoBox((5000, 5000), Affine(10, 0, 300_000, 0, -10, 7_600_000), "EPSG:32601"),
    "polar stereographic at 60° N": GeoBox((9000, 9000), Affine(10, 0, 3_200_000, 0, -10, -900_000), "EPSG:3413"),
    "polar stereographic at the pole": GeoBox((4000, 4000), Affine(10, 0, -20_000, 0, -10, 20_000), "EPSG:3413"),
    "polar stereographic at the south pole": GeoBox((400, 400), Affine(10, 0, -2000, 0, -10, 2000), "EPSG:3031"),
    "degrees": GeoBox((4000, 7000), Affine(0.0003, 0, 179.0, 0, -0.0003, 71), "EPSG:4326"),
    "turned": GeoBox((3000, 2000), Affine(8, 6, 500_000, 6, -8, 7_000_000), "EPSG:32633"),
    "one pixel": GeoBox((1, 1), Affine(10, 0, 500_000, 0, -10, 7_000_000), "EPSG:32633"),
}


@pytest.mark.parametrize("name", GRIDS)
def test_pixel_areas_are_geodesic(name):
    geobox = GRIDS[name]
    rng = np.random.default_rng(3)
    rows, columns = (np.append(rng.integers(0, size, 40), [0, size - 1]) for size in geobox.shape.yx)
    found = pixel_areas(geobox, rows.astype(float), columns.astype(float))
    to_degrees = Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True)
    for row, column, area in zip(rows, columns, found, strict=True):
        corners = [geobox.affine @ (column + i, row + j) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
        polygon = to_degrees.transform(*zip(*corners, strict=True))
        geodesic = abs(Geod(ellps="WGS84").polygon_area_perimeter(*polygon)[0])
        # Karney's method takes an area beside a pole as a difference of large ones, and knows it to 0.005 m².
        assert area == pytest.approx(geodesic, rel=1e-5, abs=0.005 if "pole" in name else 0)


def test_the_plane_of_polar_stereographic_is_wrong_by_8_percent_at_60_degrees():
    geobox = GRIDS["polar stereographic at 60° N"]
    assert pixel_areas(geobox, np.array([0.0]), np.array([0.0]))[0] == pytest.approx(100 / 1.08, rel=0.02)


def test_a_grid_without_a_crs_is_refused():
    with pytest.raises(GridMismatchError, match="CRS"):
        pixel_areas(GeoBox((3, 3), Affine(10, 0, 0, 0, -10, 0), None), np.zeros(1), np.zeros(1))
