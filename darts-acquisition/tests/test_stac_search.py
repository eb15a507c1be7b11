"""Searches of archives on 127.0.0.1, beside a plain loop over all their items."""

import dataclasses
import json
import logging

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely.geometry import MultiPolygon, Polygon, box, mapping, shape

from darts_acquisition import CDSE_SOURCE
from darts_acquisition.areas import read_areas
from darts_acquisition.mgrs_tiles import tile_area
from darts_acquisition.stac_search import get_items, search_s2_sr
from darts_acquisition.stac_sources import EARTH_SEARCH_SOURCE
from darts_acquisition.testing import cql2_stac_server, fault_proxy, make_collection, stac_server
from darts_acquisition.testing.s2_items import make_search_item
from darts_utils.errors import ConfigError, MissingDataError

from .test_search_terms import PEEL, SHARED

ANY = {"max_cloud_cover": None, "max_snow_cover": None}
YEAR = {"start_date": "2021-01-01", "end_date": "2021-12-31"}


def _source(url, **changes):
    return dataclasses.replace(CDSE_SOURCE, endpoint=url, requests_per_second=None, timeout_s=10, **changes)


def _archive():
    """Scenes of 2021 over tiles around the Peel Plateau, in Siberia and on the antimeridian."""
    items = []
    for tile in ("08WMA", "08WMB", "08WNA", "52WEE", "01WCQ", "60WXV"):
        for month in range(5, 10):
            for day, cloud, snow in ((3, 0.0, 0.0), (13, 10.0, 4.0), (23, 10.01, 30.0)):
                acquired = f"2021{month:02d}{day:02d}T210029"
                items.append(make_search_item(tile, acquired, eo__cloud_cover=cloud, eo__snow_cover=snow))
    return items


@pytest.fixture(scope="module")
def items():
    return _archive()


@pytest.fixture(scope="module")
def url(items):
    """A server that knows no filters."""
    with stac_server(make_collection(), items) as url:
        yield url


def _ids(items, keep):
    return {item["id"] for item in items if keep(item["properties"], shape(item["geometry"]))}


# What is found, compared with a plain loop over all items


def test_an_area_finds_the_scenes_that_meet_it(url, items):
    found = search_s2_sr(_source(url), PEEL, **YEAR, **ANY)
    assert set(found) == _ids(items, lambda p, footprint: footprint.intersects(PEEL))
    assert len({item.properties["grid:code"] for item in found.values()}) >= 1


def test_limits_of_cloud_and_snow_include_the_limit_itself(url, items):
    found = search_s2_sr(_source(url), PEEL, **YEAR)
    expected = _ids(items, lambda p, f: f.intersects(PEEL) and p["eo:cloud_cover"] <= 10 and p["eo:snow_cover"] <= 10)
    assert set(found) == expected
    assert {item.properties["eo:cloud_cover"] for item in found.values()} == {0.0, 10.0}


def test_zero_percent_is_a_real_zero(url):
    found = search_s2_sr(_source(url), PEEL, **YEAR, max_cloud_cover=0)
    assert {item.properties["eo:cloud_cover"] for item in found.values()} == {0.0}
    assert found


def test_none_and_100_turn_a_limit_off(url):
    none = search_s2_sr(_source(url), PEEL, **YEAR, **ANY)
    hundred = search_s2_sr(_source(url), PEEL, **YEAR, max_cloud_cover=100, max_snow_cover=100)
    assert set(none) == set(hundred)
    assert {item.properties["eo:cloud_cover"] for item in none.values()} == {0.0, 10.0, 10.01}


@pytest.mark.parametrize("name", ["T08WMA", "08WMA", "8WMA", "mgrs-8wma"])
def test_tiles_are_found_by_any_form_of_their_name(url, items, name):
    found = search_s2_sr(_source(url), tiles=[name, "52WEE"], **YEAR, **ANY)
    assert set(found) == _ids(items, lambda p, _: p["grid:code"] in ("MGRS-08WMA", "MGRS-52WEE"))


def test_an_area_and_tiles_must_both_be_met(url, items):
    found = search_s2_sr(_source(url), PEEL, ["08WMB"], **YEAR, **ANY)
    assert set(found) == _ids(items, lambda p, f: p["grid:code"] == "MGRS-08WMB" and f.intersects(PEEL))


def test_the_last_day_counts_whole(url, items):
    found = search_s2_sr(_source(url), tiles=["08WMA"], start_date="2021-06-03", end_date="2021-06-13", **ANY)
    assert {item.properties["datetime"][:10] for item in found.values()} == {"2021-06-03", "2021-06-13"}


def test_months_are_asked_for_in_the_fewest_intervals(items):
    with stac_server(make_collection(), items) as url, fault_proxy(url) as proxy:
        found = search_s2_sr(_source(proxy.url), tiles=["08WMA"], months=[6, 7, 9], years=[2021], **ANY)
        assert set(found) == _ids(
            items, lambda p, _: p["grid:code"] == "MGRS-08WMA" and p["datetime"][5:7] in ("06", "07", "09")
        )
        assert [method for method, _ in proxy.requests] == ["GET", "POST", "POST"]


def test_scenes_come_in_order_of_time_as_items_that_need_no_network(url):
    found = list(search_s2_sr(_source(url), tiles=["08WMA"], **YEAR, **ANY).values())
    assert [item.datetime for item in found] == sorted(item.datetime for item in found)
    # A root link would be followed by pystac on the way to JSON.
    assert found[0].get_root_link() is None
    assert found[0].to_dict()["id"] == found[0].id
    assert found[0].assets["B04_10m"].href.startswith("s3://")


def test_an_area_that_nothing_meets_finds_nothing(url):
    assert search_s2_sr(_source(url), box(10, 10, 11, 11), **YEAR) == {}


def test_without_any_limit_in_time_a_warning_says_so(url, caplog):
    search_s2_sr(_source(url), PEEL)
    assert "no limit in time" in caplog.text


# Pages


@pytest.mark.parametrize("page_size", [1000, 100, pytest.param(7, marks=pytest.mark.slow)])
def test_a_thousand_items_are_found_exactly_once_whatever_the_page_size(thousand, page_size):
    found = search_s2_sr(_source(thousand, page_size=page_size), tiles=["08WMA"], **YEAR, **ANY)
    assert len(found) == 1000


def test_ten_pages_are_ten_requests(thousand):
    with fault_proxy(thousand) as proxy:
        assert len(search_s2_sr(_source(proxy.url, page_size=100), tiles=["08WMA"], **YEAR, **ANY)) == 1000
        assert [method for method, _ in proxy.requests] == ["GET"] + ["POST"] * 10


@pytest.fixture(scope="module")
def thousand():
    square = read_areas(tile_area("08WMA")).iloc[0].simplify(0.01)
    times = np.datetime64("2021-01-01T00:00:00") + np.arange(1000) * np.timedelta64(8, "h")
    acquired = [str(time).replace("-", "").replace(":", "") for time in times]
    with stac_server(
        make_collection(), [make_search_item("08WMA", time, footprint=square) for time in acquired]
    ) as url:
        yield url


# A server that filters


@pytest.fixture(scope="module")
def filtering(items):
    with cql2_stac_server(make_collection(), items, page_size=4, max_geometry_vertices=30) as server:
        yield server


@pytest.fixture(autouse=True)
def _well_behaved(request):
    yield
    if "filtering" in request.fixturenames:
        server = request.getfixturevalue("filtering")
        server.clear()
        server.misbehave.ignore_filter = server.misbehave.duplicate_pages = False


@pytest.mark.parametrize("cloud", [0, 10, 10.005, None])
@pytest.mark.parametrize("snow", [0, 4, None])
@pytest.mark.parametrize("tiles", [None, ["08WMA", "52WEE", "01WCQ"]])
def test_filters_on_the_server_find_the_same_as_a_plain_loop(filtering, items, cloud, snow, tiles):
    found = search_s2_sr(_source(filtering.url), None, tiles, **YEAR, max_cloud_cover=cloud, max_snow_cover=snow)
    assert set(found) == _ids(
        items,
        lambda p, _: (
            (cloud is None or p["eo:cloud_cover"] <= cloud)
            and (snow is None or p["eo:snow_cover"] <= snow)
            and (tiles is None or p["grid:code"].removeprefix("MGRS-") in tiles)
        ),
    )
    assert all(
        ("filter" in search) == any((tiles, cloud is not None, snow is not None)) for search in filtering.searches
    )


@pytest.mark.parametrize("wrong", ["ignore_filter", "duplicate_pages"])
def test_a_server_that_filters_or_pages_badly_changes_nothing(filtering, items, wrong):
    setattr(filtering.misbehave, wrong, True)
    found = search_s2_sr(_source(filtering.url), PEEL, **YEAR)
    assert set(found) == set(search_s2_sr(_source(filtering.url, filters=False), PEEL, **YEAR))
    assert set(found) == _ids(
        items, lambda p, f: f.intersects(PEEL) and p["eo:cloud_cover"] <= 10 and p["eo:snow_cover"] <= 10
    )


def test_an_area_that_the_server_refuses_is_simplified_and_checked_again(filtering, items):
    area = PEEL.centroid.buffer(0.8, quad_segs=60)
    found = search_s2_sr(_source(filtering.url), area, **YEAR)
    assert set(found) == _ids(
        items, lambda p, f: f.intersects(area) and p["eo:cloud_cover"] <= 10 and p["eo:snow_cover"] <= 10
    )
    sent = [shape(search["intersects"]) for search in filtering.searches]
    assert shapely.get_num_coordinates(sent[0]) > 30 >= shapely.get_num_coordinates(sent[-1])
    assert sent[-1].covers(area)


# Areas across the antimeridian, and large ones


@pytest.mark.parametrize(
    "area",
    [
        box(179.5, 67.0, 180.5, 67.3),
        Polygon([(179.5, 67.0), (-179.5, 67.0), (-179.5, 67.3), (179.5, 67.3)]),
        gpd.GeoSeries([box(179.5, 67.0, 180.5, 67.3)], crs="EPSG:4326").to_crs("EPSG:32660"),
    ],
    ids=["beyond 180", "jump", "UTM"],
)
def test_an_area_across_the_antimeridian_finds_both_sides(url, items, area):
    found = search_s2_sr(_source(url), area, **YEAR, **ANY)
    halves = MultiPolygon([box(179.5, 67.0, 180, 67.3), box(-180, 67.0, -179.5, 67.3)])
    assert set(found) == _ids(items, lambda _, footprint: footprint.intersects(halves))
    assert {item.properties["grid:code"] for item in found.values()} >= {"MGRS-01WCQ"}


def test_an_area_in_polar_metres_finds_the_same(url):
    polar = gpd.GeoSeries([PEEL], crs="EPSG:4326").to_crs("EPSG:3413")
    assert set(search_s2_sr(_source(url), polar, **YEAR)) == set(search_s2_sr(_source(url), PEEL, **YEAR))


def test_footprints_drawn_the_long_way_around_are_found_near_the_antimeridian():
    # As older archives hold them: one ring from −179 to 179.8, whose edges run around the earth.
    ring = Polygon([(-179.28, 67.6), (-179.12, 67.6), (-179.04, 66.6), (179.76, 66.6)])
    items = [make_search_item("01WCQ", "20210703T235629", footprint=ring), make_search_item("08WMA", "20210703T210029")]
    with stac_server(make_collection(), items) as url:
        for area in (box(179.9, 66.7, 179.95, 66.8), box(-179.9, 66.8, -179.8, 66.9), box(179.9, 66.8, 180.1, 66.9)):
            assert set(search_s2_sr(_source(url), area, **YEAR, **ANY)) == {items[0]["id"]}
        assert search_s2_sr(_source(url), box(0, 66.8, 1, 66.9), **YEAR, **ANY) == {}


def test_a_scene_that_only_the_widened_area_meets_is_not_kept():
    comb = shapely.union_all([box(-135 + i * 0.01, 68, -134.999 + i * 0.01, 69) for i in range(200)])
    beside = make_search_item("08WMA", "20210803T210029", footprint=box(-135.005, 67, -135.001, 70))
    within = make_search_item("08WMB", "20210803T210029", footprint=box(-135.005, 67, -134.9995, 70))
    with stac_server(make_collection(), [beside, within]) as url:
        found = search_s2_sr(_source(url, max_vertices=20), comb, **YEAR)
    assert set(found) == {within["id"]}


# Items that do not say


def test_items_without_cloud_cover_are_left_out_and_counted(caplog):
    items = [
        make_search_item("08WMA", "20210803T210029"),
        make_search_item("08WMA", "20210804T210029", eo__cloud_cover=None),
    ]
    with stac_server(make_collection(), items) as url:
        assert set(search_s2_sr(_source(url), PEEL, **YEAR)) == {items[0]["id"]}
        assert "1 of 2 items" in caplog.text
        assert "max_cloud_cover" in caplog.text
        assert len(search_s2_sr(_source(url), PEEL, **YEAR, max_cloud_cover=100)) == 2


def test_a_source_without_snow_cover_is_an_error_that_names_the_setting():
    items = [make_search_item("08WMA", "20210803T210029", eo__snow_cover=None)]
    with stac_server(make_collection(), items) as url:
        with pytest.raises(
            ConfigError, match=r"'eo:snow_cover', so max_snow_cover .*snow_property.*max_snow_cover 100"
        ):
            search_s2_sr(_source(url), PEEL, **YEAR)
        assert len(search_s2_sr(_source(url), PEEL, **YEAR, max_snow_cover=None)) == 1


def test_another_archive_is_searched_by_its_own_names():
    item = make_search_item(
        "08WMA",
        "20210803T210029",
        eo__snow_cover=None,
        s2__snow_ice_percentage=3.0,
        grid__code="MGRS-8WMA",
    )
    item |= {"id": "S2A_T08WMA_20210803T210029_L2A", "collection": EARTH_SEARCH_SOURCE.collection}
    with stac_server(make_collection(EARTH_SEARCH_SOURCE.collection), [item]) as url:
        source = dataclasses.replace(EARTH_SEARCH_SOURCE, endpoint=url)
        assert set(search_s2_sr(source, tiles="T08WMA", **YEAR)) == {item["id"]}
        assert search_s2_sr(source, tiles="T08WMA", **YEAR, max_snow_cover=2) == {}


# Parameters


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"start_date": "2021-02-30"}, "start_date"),
        ({"end_date": "30.06.2021"}, "end_date"),
        ({"start_date": "2021-07-01", "end_date": "2021-06-30"}, "end_date"),
        ({"months": [13]}, "months"),
        ({"months": [True]}, "months"),
        ({"months": []}, "months"),
        ({"years": [2014]}, "years"),
        ({"max_cloud_cover": 101}, "max_cloud_cover"),
        ({"max_snow_cover": -1}, "max_snow_cover"),
        ({"max_snow_cover": "10"}, "max_snow_cover"),
        ({"tiles": ["08WMI"]}, "08WMI"),
        ({"tiles": ["61WMA"]}, "61WMA"),
        ({"tiles": []}, "tiles"),
        ({"intersects": "/nowhere/area.gpkg"}, "area.gpkg"),
    ],
)
def test_a_parameter_that_cannot_be_is_named_before_the_network_is_asked(wrong, word):
    with pytest.raises(ConfigError, match=word):
        search_s2_sr(_source("http://127.0.0.1:9/"), **wrong)


# Items by id


def test_items_come_by_id_in_the_order_asked_for(url, items):
    wanted = [items[40]["id"], items[3]["id"] + ".SAFE", items[40]["id"]]
    assert list(get_items(_source(url), wanted)) == [items[40]["id"], items[3]["id"]]
    assert get_items(_source(url), []) == {}


def test_more_ids_than_a_request_takes_are_all_found(thousand, monkeypatch):
    monkeypatch.setattr("darts_acquisition.stac_search.IDS_AT_A_TIME", 60)
    source = _source(thousand)
    ids = list(search_s2_sr(source, tiles="08WMA", **YEAR, **ANY))[:150]
    assert list(get_items(source, ids)) == ids


def test_missing_ids_are_all_named(url, items):
    with pytest.raises(MissingDataError) as caught:
        get_items(_source(url), [items[0]["id"], "S2A_ONE", "S2A_TWO"])
    assert "S2A_ONE, S2A_TWO" in str(caught.value)
    assert items[0]["id"] not in str(caught.value)


@pytest.mark.skipif(not SHARED.exists(), reason="the sample data does not lie beside this checkout")
def test_real_items_of_the_data_space_are_read(caplog):
    caplog.set_level(logging.INFO)
    page = json.loads((SHARED / "stac/cdse/openeo_issue1547_search_featurecollection.json").read_text())
    (item,) = page["features"]
    with stac_server(make_collection(), [item]) as url:
        area = mapping(shape(item["geometry"]).centroid.buffer(0.01))
        found = search_s2_sr(_source(url), area, max_cloud_cover=40, months=[5], years=[2026])
    assert found[item["id"]].assets["B04_10m"].extra_fields["file:size"] > 0
    assert "takes no filters" in caplog.text
