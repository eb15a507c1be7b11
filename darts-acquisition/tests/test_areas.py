import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.geom import polygon as odc_polygon
from pyproj import Geod, Transformer
from rasterio import Affine
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box, mapping

from darts_acquisition.areas import project_areas, read_areas
from darts_utils.errors import ConfigError

POLAR, EQUAL_AREA = "EPSG:3413", "EPSG:6931"
PEEL = box(-135.2, 68.0, -135.0, 68.1)


def _in(crs, *geometries) -> gpd.GeoSeries:
    return gpd.GeoSeries(list(geometries), crs=crs)


def _equal_area(series: gpd.GeoSeries) -> float:
    """Area in m², edges cut into many pieces on the way."""
    return sum(area.area for area in project_areas(series, EQUAL_AREA))


def _holds(areas: gpd.GeoSeries, x, y, crs) -> np.ndarray:
    """Whether points of a CRS lie within areas, by pyproj and point-in-polygon alone."""
    longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    return shapely.contains_xy(areas.union_all(), longitude, latitude)


# Formats and objects


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.geojson", "a.parquet", "a.fgb", "a.kml"])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32608", POLAR])
def test_every_vector_format_gives_the_same_area(tmp_path, name, crs):
    frame = gpd.GeoDataFrame({"name": ["peel"]}, geometry=_in("EPSG:4326", PEEL).to_crs(crs))
    path = tmp_path / name
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    elif name.endswith(".kml"):
        frame.to_crs("EPSG:4326").to_file(path, driver="KML")
    else:
        frame.to_file(path)
    (area,) = read_areas(path)
    assert area.symmetric_difference(PEEL).area < 0.02 * PEEL.area
    assert read_areas(str(path)).crs == "EPSG:4326"


def test_all_layers_of_a_file_count(tmp_path):
    for layer, shift in (("a", 0), ("b", 1)):
        moved = shapely.affinity.translate(PEEL, shift)
        gpd.GeoDataFrame(geometry=_in("EPSG:4326", moved)).to_file(tmp_path / "two.gpkg", layer=layer)
    assert len(read_areas(tmp_path / "two.gpkg")) == 2


def test_objects_and_geojson_are_taken_as_longitude_and_latitude():
    feature = {"type": "Feature", "properties": {}, "geometry": mapping(PEEL)}
    for aoi in (PEEL, mapping(PEEL), feature, {"type": "FeatureCollection", "features": [feature]}):
        assert read_areas(aoi).iloc[0].equals(PEEL)


def test_a_geobox_is_the_area_of_its_pixels():
    geobox = GeoBox((100, 200), Affine(10, 0, 500_000, 0, -10, 7_600_000), "EPSG:32608")
    (area,) = read_areas(geobox)
    (back,) = project_areas(read_areas(geobox), geobox.crs)
    assert back.symmetric_difference(geobox.extent.geom).area < 1000 * 0.5
    assert read_areas(odc_polygon([(0, 0), (0, 9), (9, 9), (0, 0)], "EPSG:4326")).iloc[0].area == pytest.approx(40.5)
    assert area.is_valid


def test_rows_stay_rows_and_keep_their_labels():
    rows = gpd.GeoSeries([PEEL, box(170, 60, 190, 61)], index=["a", "b"], crs="EPSG:4326")
    areas = read_areas(rows)
    assert list(areas.index) == ["a", "b"]
    assert list(areas.geom_type) == ["Polygon", "MultiPolygon"]


def test_coordinates_with_heights_are_taken_without_them():
    assert not read_areas(shapely.force_3d(PEEL, 12.0)).iloc[0].has_z


# What cannot be an area


def _raises(aoi, *words):
    with pytest.raises(ConfigError) as caught:
        read_areas(aoi)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.filterwarnings("ignore:.crs. was not provided")
def test_a_file_without_a_crs_is_an_error_that_says_so(tmp_path):
    path = tmp_path / "bare.shp"
    gpd.GeoDataFrame({"a": [1]}, geometry=gpd.GeoSeries([PEEL])).to_file(path)
    _raises(path, "bare.shp", "no CRS", "set_crs")
    _raises(gpd.GeoSeries([PEEL]), "no CRS")


def test_an_empty_file_is_an_error(tmp_path):
    path = tmp_path / "none.gpkg"
    gpd.GeoDataFrame({"a": []}, geometry=gpd.GeoSeries([], crs="EPSG:4326")).to_file(path)
    _raises(path, "none.gpkg", "empty")


def test_rows_without_geometry_are_named():
    _raises(_in("EPSG:4326", PEEL, None, Polygon()), "row 1, 2", "remove")


def test_points_and_lines_are_told_to_be_buffered():
    _raises(_in("EPSG:4326", PEEL, Point(1, 2)), "Point", "row 1", "buffer")
    _raises(LineString([(0, 0), (1, 1)]), "LineString", "buffer")


def test_files_that_are_no_vectors_are_named(tmp_path):
    _raises(tmp_path / "gone.gpkg", "gone.gpkg", "no such file")
    (tmp_path / "text.gpkg").write_text("no vectors")
    _raises(tmp_path / "text.gpkg", "text.gpkg", "cannot be read")
    (tmp_path / "text.parquet").write_text("no vectors")
    _raises(tmp_path / "text.parquet", "text.parquet", "cannot be read")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    _raises(tmp_path / "table.csv", "table.csv", "no layer")


def test_other_things_are_no_areas():
    _raises({"type": "Feature"}, "without geometry")
    _raises({"coordinates": 3}, "not GeoJSON")
    _raises(42, "int")


def test_metres_that_claim_to_be_degrees_are_refused(tmp_path):
    path = tmp_path / "metres.geojson"
    path.write_text(json.dumps(mapping(box(500_000, 7_500_000, 510_000, 7_510_000))))
    _raises(path, "metres.geojson", "row 0", "not longitude and latitude")
    _raises(box(68, -136, 69, -135), "not longitude and latitude")


def test_a_polygon_without_area_is_refused():
    _raises(Polygon([(1, 1), (2, 2), (3, 3)]), "row 0", "no area")


def test_an_invalid_polygon_is_repaired():
    bow_tie = Polygon([(0, 60), (2, 62), (2, 60), (0, 62)])
    (area,) = read_areas(bow_tie)
    assert area.is_valid
    assert area.area == pytest.approx(2)


def test_points_outside_a_projection_are_an_error():
    _raises(_in("EPSG:3035", box(1e8, 1e8, 2e8, 2e8)), "row 0", "no place")


# The antimeridian and the pole, in degrees


@pytest.mark.parametrize(
    "drawn",
    [
        box(170, 60, 190, 70),
        box(-190, 60, -170, 70),
        Polygon([(170, 60), (-170, 60), (-170, 70), (170, 70)]),
        Polygon([(-170, 60), (-170, 70), (170, 70), (170, 60)]),
        MultiPolygon([box(170, 60, 180, 70), box(-180, 60, -170, 70)]),
    ],
)
def test_however_it_is_drawn_an_area_across_the_antimeridian_is_two_halves(drawn):
    (area,) = read_areas(drawn)
    assert area.equals(MultiPolygon([box(170, 60, 180, 70), box(-180, 60, -170, 70)]))
    (joined,) = project_areas(read_areas(drawn), "EPSG:4326")
    assert joined.equals(box(170, 60, 190, 70))


def test_a_box_all_around_stays_all_around():
    (area,) = read_areas(box(-180, 60, 180, 90))
    assert area.equals(box(-180, 60, 180, 90))
    (circle,) = project_areas(read_areas(box(-180, 60, 180, 90)), POLAR)
    assert circle.contains(Point(0, 0))
    assert circle.is_valid
    assert circle.geom_type == "Polygon"


def test_longitudes_beyond_180_are_taken_as_drawn_however_wide():
    (area,) = read_areas(box(10, 60, 205, 61))
    assert area.equals(MultiPolygon([box(10, 60, 180, 61), box(-180, 60, -155, 61)]))


def test_a_ring_around_the_pole_holds_it():
    (area,) = read_areas(Polygon([(0, 80), (90, 80), (180, 80), (-90, 80)]))
    assert area.equals(box(-180, 80, 180, 90))


def test_a_hole_across_the_antimeridian_stays_a_hole():
    outer = box(170, 60, 190, 70)
    hole = [(179, 64), (181, 64), (181, 66), (179, 66)]
    (area,) = read_areas(Polygon(outer.exterior, [hole]))
    assert area.area == pytest.approx(200 - 4)
    assert not area.intersects(Point(180, 65))


# Projected areas


def test_a_long_edge_bends_as_it_runs():
    square = box(-1_500_000, -1_500_000, -500_000, -500_000)
    areas = read_areas(_in(POLAR, square))
    x = np.linspace(-1_499_999, -500_001, 501)
    for just_inside, just_outside in ((-500_001, -499_999), (-1_499_999, -1_500_001)):
        assert _holds(areas, x, np.full(x.shape, just_inside), POLAR).all()
        assert not _holds(areas, x, np.full(x.shape, just_outside), POLAR).any()


@pytest.mark.parametrize(
    "polygon",
    [
        box(-1e6, -1e6, 1e6, 1e6),
        box(-1e6, -1e6, 1e6, 1e6).difference(box(-1e5, -1e5, 2e5, 1e5)),
        box(0, 0, 1e6, 1e6),
        box(-1e6, -5e5, 0, 5e5),
        Polygon([(0, 0), (1e6, 0), (1e6, 1e6), (-1e6, 1e6), (-1e6, -1e6), (0, -1e6)]),
        box(-1e5, 1e-4, 1e5, 1e5),
        box(-1e5, -1, 1e5, 1e5),
    ],
    ids=["pole inside", "pole in a hole", "pole at a corner", "pole on an edge", "three quarters", "beside", "just in"],
)
@pytest.mark.parametrize("crs", [POLAR, "EPSG:3031"])
def test_an_area_at_the_pole_comes_back_as_it_was(polygon, crs):
    areas = read_areas(_in(crs, polygon))
    (back,) = project_areas(areas, crs)
    assert areas.is_valid.all()
    assert back.is_valid
    assert back.symmetric_difference(polygon).area < 1e-6 * polygon.area
    west, south, east, north = areas.total_bounds
    assert -180 <= west < east <= 180
    assert -90 <= south < north <= 90


def test_halves_in_utm_are_joined():
    square = box(300_000, 7_300_000, 500_000, 7_400_000)
    areas = read_areas(_in("EPSG:32601", square))
    assert areas.geom_type.iloc[0] == "MultiPolygon"
    (back,) = project_areas(areas, "EPSG:32601")
    assert back.geom_type == "Polygon"
    assert back.symmetric_difference(square).area < 1e-6 * square.area


def test_another_datum_keeps_longitudes_that_run_on():
    (area,) = read_areas(_in("EPSG:4267", box(170, 60, 190, 61)))
    assert area.bounds[0] == -180
    assert area.bounds[2] == 180
    assert area.area == pytest.approx(20, rel=1e-3)


@st.composite
def _stars(draw):
    """Polygons around a centre near the antimeridian or the pole, in metres of EPSG:3413."""
    x, y = draw(st.floats(-1.5e6, 3e5)), draw(st.floats(-3e5, 2.5e6))
    radii = draw(st.lists(st.floats(2e3, 6e5), min_size=3, max_size=9))
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False) + draw(st.floats(0, 1))
    points = [(x + r * np.cos(a), y + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]
    return Polygon(points)


TURNS_BACK = Polygon(
    [(4888, 1993), (1414, 3407), (0, 3993), (-1414, 3407), (-2000, 1993), (-1414, 579), (0, -2213), (1414, 579)]
)
"""Its last edge turns back across the meridian of its first corner."""


@given(_stars(), st.integers(0, 2**31))
@example(TURNS_BACK, 0)
@settings(max_examples=40, deadline=None)
def test_any_polar_polygon_keeps_its_area_and_what_lies_in_it(polygon, seed):
    assume(polygon.exterior.distance(Point(0, 0)) > 1)
    areas = read_areas(_in(POLAR, polygon))
    assert areas.is_valid.all()
    dense = polygon.segmentize(200)
    to_equal_area = Transformer.from_crs(POLAR, EQUAL_AREA, always_xy=True)
    true_area = shapely.transform(dense, lambda xy: np.column_stack(to_equal_area.transform(*xy.T))).area
    strip = 0.2 * polygon.length  # edges keep to 0.1 m on the way there, and again on the way back
    assert _equal_area(areas) == pytest.approx(true_area, abs=strip, rel=0)

    rng = np.random.default_rng(seed)
    west, south, east, north = polygon.buffer(1e4).bounds
    x, y = rng.uniform(west, east, 300), rng.uniform(south, north, 300)
    clear = shapely.distance(shapely.points(x, y), polygon.exterior) > 5
    np.testing.assert_array_equal(_holds(areas, x, y, POLAR)[clear], shapely.contains_xy(polygon, x, y)[clear])
    (back,) = project_areas(areas, POLAR)
    assert back.symmetric_difference(polygon).area < strip


def test_the_geodesic_area_of_a_polar_square_agrees():
    square = box(-2.1e6, 1.0e6, -2.0e6, 1.1e6)
    geodesic = sum(
        abs(Geod(ellps="WGS84").geometry_area_perimeter(part)[0])
        for area in read_areas(_in(POLAR, square))
        for part in shapely.get_parts(area)
    )
    assert geodesic == pytest.approx(_equal_area(read_areas(_in(POLAR, square))), rel=1e-4)


# Real tiles

MGRS = Path(__file__).parents[3] / "shared/data/mgrs/s2_with_overlap_north58.parquet"


@pytest.mark.skipif(not MGRS.exists(), reason="the sample data does not lie beside this checkout")
def test_real_tiles_are_no_wider_than_tiles():
    tiles = gpd.read_parquet(MGRS)
    areas = project_areas(read_areas(tiles[tiles["id"].str[:2].isin(["01", "60"])]), "EPSG:4326")
    assert len(areas) > 50
    for area in areas:
        west, south, east, north = area.bounds
        assert (east - west) * np.cos(np.radians((south + north) / 2)) < 2.2
