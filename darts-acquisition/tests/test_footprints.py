import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio import Affine

from darts_acquisition import arcticdem_geobox, tcvis_geobox
from darts_acquisition.footprints import full_circle_px, window_of
from darts_utils.errors import ConfigError

DEM = arcticdem_geobox(10)
TCVIS = tcvis_geobox()


def _utm(easting, northing, zone, size=200, pixel=10.0) -> GeoBox:
    return GeoBox((size, size), Affine(pixel, 0, easting, 0, -pixel, northing), f"EPSG:{zone}")


def _pixels(target: GeoBox, grid: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    """Where every pixel corner of the target lies on the grid, by pyproj alone."""
    columns, rows = np.meshgrid(np.arange(target.shape.x + 1.0), np.arange(target.shape.y + 1.0))
    t, g = target.affine, grid.affine
    project = Transformer.from_crs(target.crs.to_wkt(), grid.crs.to_wkt(), always_xy=True)
    x, y = project.transform(t.c + t.a * columns, t.f + t.e * rows)
    return (y - g.f) / g.e, (x - g.c) / g.a


def _covers(window, rows, columns) -> bool:
    return (
        window.rows[0] <= rows.min()
        and rows.max() <= window.rows[1]
        and window.columns[0] <= columns.min()
        and columns.max() <= window.columns[1]
    )


@given(
    st.sampled_from([32601, 32608, 32633, 32652, 32660]),
    st.floats(250_000, 750_000),
    st.floats(6_700_000, 9_200_000),
    st.sampled_from([3.0, 10.0, 500.0]),
)
@settings(max_examples=40, deadline=None)
def test_the_window_covers_every_pixel_and_little_more(zone, easting, northing, pixel):
    target = _utm(easting, northing, zone, size=50, pixel=pixel)
    rows, columns = _pixels(target, DEM)
    window = window_of(target, DEM)
    assert _covers(window, rows, columns)
    assert window.shape[0] <= np.ptp(rows) + 8 + np.ptp(rows) / 100
    assert window.shape[1] <= np.ptp(columns) + 8 + np.ptp(columns) / 100


def test_a_target_all_around_the_pole_is_covered():
    target = GeoBox((40, 720), Affine(0.5, 0, -180, 0, -0.25, 90), "EPSG:4326")
    assert _covers(window_of(target, DEM), *_pixels(target, DEM))


def test_the_pole_inside_a_polar_target_takes_all_longitudes():
    target = GeoBox((100, 100), Affine(1000, 0, -30_000, 0, -1000, 40_000), "EPSG:3413")
    window = window_of(target, TCVIS)
    assert window.columns == (0, full_circle_px(TCVIS))
    assert window.rows[0] <= 0


@pytest.mark.parametrize("easting", [210_000.0, 240_000.0, 270_000.0])
def test_longitudes_run_on_across_the_antimeridian(easting):
    # UTM zone 1 at 70 N begins at 180°; its west edge reaches over.
    target = _utm(easting, 7_780_000, 32601, size=100, pixel=400)
    window = window_of(target, TCVIS)
    rows, columns = _pixels(target, TCVIS)
    columns = np.where(columns > TCVIS.shape.x / 2, columns - 360 / TCVIS.affine.a, columns)
    columns += full_circle_px(TCVIS) * (window.columns[0] > TCVIS.shape.x / 2)
    assert _covers(window, rows, columns)
    assert window.shape[1] < np.ptp(columns) + 10


def test_the_buffer_is_in_pixels_of_the_grid():
    target = _utm(500_000, 7_600_000, 32608)
    bare, buffered = window_of(target, DEM), window_of(target, DEM, 25)
    assert buffered.rows == (bare.rows[0] - 25, bare.rows[1] + 25)
    assert buffered.columns == (bare.columns[0] - 25, bare.columns[1] + 25)


def test_a_target_on_the_grid_itself_takes_exactly_its_pixels():
    target = GeoBox((30, 40), DEM.affine * Affine.translation(1000, 2000), DEM.crs)
    window = window_of(target, DEM)
    assert (window.rows, window.columns) == ((2000, 2030), (1000, 1040))
    between = GeoBox((30, 40), DEM.affine * Affine.translation(1000.5, 2000.5), DEM.crs)
    assert (window_of(between, DEM).rows, window_of(between, DEM).columns) == ((2000, 2031), (1000, 1041))


def test_a_target_without_a_crs_is_refused():
    with pytest.raises(ConfigError, match="CRS"):
        window_of(GeoBox((3, 3), Affine.scale(10, -10), None), DEM)
