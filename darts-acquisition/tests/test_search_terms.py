"""What a search asks for: dates in few intervals, areas that a server takes, tiles as squares of their grid."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely.geometry import MultiPolygon, Polygon, box

from darts_acquisition.areas import read_areas
from darts_acquisition.mgrs_tiles import parse_mgrs_tile, tile_area, tile_geobox
from darts_acquisition.search_dates import search_intervals
from darts_acquisition.search_geometry import geometries_to_send, widen_at_antimeridian

SHARED = Path(__file__).parents[3] / "shared/data"
PEEL = box(-135.2, 68.0, -135.0, 68.1)


# Dates


def test_months_that_follow_each_other_are_one_interval_across_years():
    assert [str(i) for i in search_intervals(months=[1, 12, 2], years=[2020, 2021])] == [
        "2020-01-01T00:00:00Z/2020-02-29T23:59:59.999Z",
        "2020-12-01T00:00:00Z/2021-02-28T23:59:59.999Z",
        "2021-12-01T00:00:00Z/2021-12-31T23:59:59.999Z",
    ]
    assert [str(i) for i in search_intervals(years=[2019, 2020])] == ["2019-01-01T00:00:00Z/2020-12-31T23:59:59.999Z"]
    every_july = search_intervals(months=[7])
    assert every_july[0].start.year == 2015
    assert len(every_july) >= 11


def test_a_range_of_dates_beats_months_and_may_be_open(caplog):
    assert [str(i) for i in search_intervals("2021-07-01", None, months=[1])] == ["2021-07-01T00:00:00Z/.."]
    assert "ignored" in caplog.text
    assert [str(i) for i in search_intervals(None, "2021-07-01")] == ["../2021-07-01T23:59:59.999Z"]


# Areas


def test_a_coastline_is_widened_to_what_the_server_takes():
    angles = np.linspace(0, 2 * np.pi, 6000, endpoint=False)
    radii = 2 + 0.3 * np.sin(40 * angles) + 0.01 * np.sin(2000 * angles)
    area = Polygon(np.column_stack([-130 + radii * np.cos(angles), 69 + 0.4 * radii * np.sin(angles)]))
    for limit in (500, 60, 12, 5):
        sent = geometries_to_send(area, limit)
        assert all(shapely.get_num_coordinates(geometry) <= limit for geometry in sent)
        assert shapely.union_all(sent).covers(area)
        assert all(geometry.is_valid for geometry in sent)
    assert shapely.union_all(geometries_to_send(area, 500)).area < 1.1 * area.area


def test_many_parts_are_sent_in_groups_that_hold_them_all():
    parts = [box(x, y, x + 0.05, y + 0.05) for x in range(-160, -100, 2) for y in range(60, 80, 2)]
    sent = geometries_to_send(MultiPolygon(parts), 100)
    assert all(shapely.get_num_coordinates(geometry) <= 100 for geometry in sent)
    assert shapely.union_all(sent).buffer(1e-9).covers(MultiPolygon(parts))
    assert len(sent) <= 40


def test_a_small_area_is_sent_as_it_is():
    assert geometries_to_send(PEEL, 500) == [PEEL]
    assert widen_at_antimeridian(PEEL) is PEEL


# Tiles


@pytest.mark.skipif(not SHARED.exists(), reason="the sample data does not lie beside this checkout")
def test_the_squares_of_tiles_are_those_of_the_published_grid():
    tiles = gpd.read_parquet(SHARED / "mgrs/s2_with_overlap_north58.parquet")
    tiles = tiles[~tiles["id"].str[:2].isin(["01", "60"])].sample(60, random_state=1)  # those are cut at 180°
    for name, real in zip(tiles["id"], tiles.geometry, strict=True):
        geobox = tile_geobox(name)
        corners = gpd.GeoSeries(shapely.points(real.exterior.coords), crs="EPSG:4326").to_crs(str(geobox.crs))
        assert corners.total_bounds == pytest.approx(list(geobox.boundingbox), abs=250)  # given to 0.001°
        assert read_areas(tile_area(name)).iloc[0].contains(real.centroid)


@pytest.mark.skipif(not SHARED.exists(), reason="the sample data does not lie beside this checkout")
def test_the_grid_of_a_tile_is_that_of_its_items():
    checked = 0
    for path in (SHARED / "stac/cdse").glob("*.json"):
        page = json.loads(path.read_text())
        for item in page.get("features", [page]) if page.get("type") != "Collection" else []:
            asset = item.get("assets", {}).get("B04_10m", {})
            if "proj:transform" in asset:
                geobox = tile_geobox(item["properties"]["grid:code"])
                assert list(geobox.affine)[:6] == asset["proj:transform"][:6]
                assert list(geobox.shape) == asset["proj:shape"]
                assert str(geobox.crs) == asset.get("proj:code", str(geobox.crs))
                checked += 1
    assert checked


@pytest.mark.parametrize(("tile", "left", "top"), [("32VKR", 199980, 7100040), ("08WMA", 399960, 7600020)])
def test_grids_begin_at_multiples_of_60_metres(tile, left, top):
    assert tile_geobox(tile).affine[2] == left
    assert tile_geobox(tile).affine[5] == top


def test_southern_tiles_lie_in_the_south():
    (area,) = read_areas(tile_area("33HYC"))
    assert -40 < area.bounds[1] < area.bounds[3] < -31
    assert parse_mgrs_tile("T1WCQ") == "01WCQ"
