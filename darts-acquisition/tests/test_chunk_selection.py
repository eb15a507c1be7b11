import geopandas as gpd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio import Affine
from shapely.geometry import Polygon

from darts_acquisition import arcticdem_geobox, tcvis_geobox
from darts_acquisition.areas import read_areas
from darts_acquisition.chunk_selection import chunk_geobox, chunks_of
from darts_acquisition.footprints import full_circle_px, window_of
from darts_utils.errors import ConfigError

DEM = arcticdem_geobox(10)
TCVIS = tcvis_geobox()


def _geobox(epsg, x, y, side_m, pixels=100) -> GeoBox:
    return GeoBox((pixels, pixels), Affine(side_m / pixels, 0, x, 0, -side_m / pixels, y), f"EPSG:{epsg}")


def _points_on_grid(target: GeoBox, grid: GeoBox, points: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of points all over a footprint, its edges included, by pyproj alone."""
    across, down = np.meshgrid(np.linspace(0, target.shape.x, points), np.linspace(0, target.shape.y, points))
    t, g = target.affine, grid.affine
    x, y = t.a * across + t.b * down + t.c, t.d * across + t.e * down + t.f
    if target.crs != grid.crs:
        x, y = Transformer.from_crs(target.crs.to_wkt(), grid.crs.to_wkt(), always_xy=True).transform(x, y)
    return ((y - g.f) / g.e).ravel(), ((x - g.c) / g.a).ravel()


def _chunks_around(target: GeoBox, grid: GeoBox, chunk: int, buffer: int) -> set[tuple[int, int]]:
    """Chunks with a pixel within `buffer` rows and columns of a point of the footprint."""
    rows, columns = _points_on_grid(target, grid)
    circle = full_circle_px(grid)
    found = set()
    steps = np.unique(np.linspace(-buffer, buffer, 2 * (-(-buffer // chunk)) + 3))
    for down in steps:
        for right in steps:
            r, c = np.floor(rows + down).astype(int), np.floor(columns + right).astype(int)
            if circle is not None:
                c %= circle
            inside = (r >= 0) & (r < grid.shape.y) & (c >= 0) & (c < grid.shape.x)
            found |= set(np.unique(r[inside] // chunk * 1_000_000 + c[inside] // chunk).tolist())
    return {divmod(number, 1_000_000) for number in found}


@st.composite
def _tiles(draw) -> GeoBox:
    """A tile of 3 m to 110 km in any UTM zone, 60 to 84° N."""
    zone, latitude = draw(st.integers(1, 60)), draw(st.floats(60, 84))
    longitude = 6 * zone - 183 + draw(st.floats(-3.5, 3.5))
    side_m = draw(st.sampled_from([3.0, 800.0, 25_000.0, 110_000.0]))
    epsg = 32600 + zone
    x, y = Transformer.from_crs("EPSG:4326", epsg, always_xy=True).transform(longitude, latitude)
    return _geobox(epsg, x - side_m / 2, y + side_m / 2, side_m, pixels=draw(st.sampled_from([1, 100])))


@given(_tiles(), st.sampled_from([(DEM, 3600), (DEM, 400), (TCVIS, 3600), (TCVIS, 500)]), st.sampled_from([0, 7, 60]))
@settings(max_examples=40, deadline=None)
def test_no_chunk_around_a_tile_is_left_out_and_few_are_too_many(target, grid_and_chunk, buffer):
    grid, chunk = grid_and_chunk
    chosen = set(chunks_of(target, grid, chunk, buffer))
    assert chosen >= _chunks_around(target, grid, chunk, buffer)
    # What lies between the points, the margin for resampling, and a pixel.
    rows, columns = (np.reshape(axis, (90, 90)) for axis in _points_on_grid(target, grid))
    steps = [np.abs(np.diff(axis, axis=k)) for axis in (rows, columns) for k in (0, 1)]
    spacing = max(step[step < chunk].max(initial=0) for step in steps)
    assert chosen <= _chunks_around(target, grid, chunk, buffer + 4 + int(np.ceil(spacing)))


def test_a_tile_turned_by_45_degrees_needs_hardly_more_than_half_of_its_window():
    # At 0° E the grid of EPSG:3413 is turned by 45° against UTM.
    target = _geobox(32631, 333_000, 7_800_000, 109_800)
    window = window_of(target, DEM)
    in_window = np.prod([-(-end // 512) - start // 512 for start, end in (window.rows, window.columns)])
    assert len(chunks_of(target, DEM, 512)) < 0.62 * in_window


@pytest.mark.parametrize("grid", [DEM, TCVIS])
@pytest.mark.parametrize("corner", [(-30_000, 40_000), (0, 0), (-1, 100_000), (-100_000, 1), (100, 100_000)])
def test_around_the_pole_no_chunk_is_left_out(grid, corner):
    target = _geobox(3413, *corner, 100_000)
    assert set(chunks_of(target, grid, 3600, 5)) >= _chunks_around(target, grid, 3600, 5)


def test_a_target_all_around_the_pole_takes_every_chunk_there():
    target = GeoBox((40, 720), Affine(0.5, 0, -180, 0, -0.25, 90), "EPSG:4326")
    assert set(chunks_of(target, DEM, 3600)) >= _chunks_around(target, DEM, 3600, 0)


@pytest.mark.parametrize("left", [179.9, -180.05, 180.1, -360.2, 359.9])
def test_longitudes_count_the_same_wherever_they_run_on(left):
    target = GeoBox((10, 10), Affine(0.01, 0, left, 0, -0.01, 70), "EPSG:4326")
    chosen = chunks_of(target, TCVIS, 100, 3)
    assert set(chosen) >= _chunks_around(target, TCVIS, 100, 3)
    again = GeoBox((10, 10), Affine(0.01, 0, (left + 180) % 360 - 180, 0, -0.01, 70), "EPSG:4326")
    assert abs(len(chunks_of(again, TCVIS, 100, 3)) - len(chosen)) <= 5


@pytest.mark.parametrize("epsg", [32701, 32733, 32760])
@pytest.mark.parametrize("northing", [9_900_000, 3_000_000, 1_200_000])
def test_southern_tiles_need_nothing(epsg, northing):
    assert chunks_of(_geobox(epsg, 500_000, northing, 100_000), DEM, 3600) == []
    assert chunks_of(_geobox(epsg, 500_000, northing, 100_000), TCVIS, 3600) == []


def test_a_target_on_the_pixels_of_the_grid_takes_exactly_its_chunks():
    target = GeoBox((3600, 7200), DEM.affine * Affine.translation(3600, 7200), DEM.crs)
    assert chunks_of(target, DEM, 3600) == [(2, 1), (2, 2)]
    assert chunks_of(target, DEM, 3600, 1) == [(i, j) for i in (1, 2, 3) for j in (0, 1, 2, 3)]
    assert chunk_geobox((2, 1), DEM, 3600) == GeoBox((3600, 3600), target.affine, DEM.crs)


def test_the_last_chunks_end_with_the_grid():
    last = chunk_geobox((DEM.shape.y // 3600, DEM.shape.x // 3600), DEM, 3600)
    assert last.shape.yx == (DEM.shape.y % 3600, DEM.shape.x % 3600)
    assert last.boundingbox[1:3] == DEM.boundingbox[1:3]


@given(_tiles(), st.sampled_from([(DEM, 400), (TCVIS, 500)]), st.sampled_from([0, 40]))
@settings(max_examples=20, deadline=None)
def test_a_tile_needs_no_chunk_that_its_outline_as_an_area_does_not(target, grid_and_chunk, buffer):
    grid, chunk = grid_and_chunk
    outline = gpd.GeoDataFrame(geometry=read_areas(target))
    assert set(chunks_of(target, grid, chunk, buffer)) <= set(chunks_of(outline, grid, chunk, buffer))


def test_several_tiles_need_what_each_needs():
    tiles = [_geobox(32601, 300_000, 7_800_000, 50_000), _geobox(32660, 700_000, 7_800_000, 50_000)]
    each = [set(chunks_of(tile, DEM, 400)) for tile in tiles]
    assert set(chunks_of(tiles, DEM, 400)) == each[0] | each[1]


def test_an_area_across_the_antimeridian_takes_the_chunks_on_both_sides():
    box = {"type": "Polygon", "coordinates": [[[179, 70], [181, 70], [181, 71], [179, 71], [179, 70]]]}
    chosen = chunks_of(box, TCVIS, 3600)
    target = GeoBox((10, 20), Affine(0.1, 0, 179, 0, -0.1, 71), "EPSG:4326")
    assert set(chosen) >= _chunks_around(target, TCVIS, 3600, 0)
    # 1° has 3711 columns, so that each side touches two columns of chunks, and the rest of the last one.
    last = TCVIS.shape.x // 3600
    assert {j for _, j in chosen} == {0, 1, last - 1, last}


def test_an_area_with_a_hole_takes_no_chunk_in_it():
    outer = [[-1e6, -1e6], [-8e5, -1e6], [-8e5, -8e5], [-1e6, -8e5], [-1e6, -1e6]]
    inner = [[-9.8e5, -9.8e5], [-8.2e5, -9.8e5], [-8.2e5, -8.2e5], [-9.8e5, -8.2e5], [-9.8e5, -9.8e5]]
    ring = gpd.GeoSeries([Polygon(outer, [inner])], crs=3413)
    whole = gpd.GeoSeries([Polygon(outer)], crs=3413)
    inside = _geobox(3413, -9.3e5, -8.7e5, 50_000)
    assert set(chunks_of(whole, DEM, 400)) - set(chunks_of(ring, DEM, 400)) >= set(chunks_of(inside, DEM, 400))


def test_a_target_without_a_crs_is_refused():
    with pytest.raises(ConfigError, match="CRS"):
        chunks_of(GeoBox((3, 3), Affine.scale(10, -10), None), DEM, 3600)
