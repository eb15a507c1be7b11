"""The search against stac-fastapi with pgstac, which implements CQL2."""

import dataclasses

import pytest
from shapely.geometry import MultiPolygon, box, shape

from darts_acquisition import CDSE_SOURCE
from darts_acquisition.stac_search import get_items, search_s2_sr
from darts_acquisition.testing import fault_proxy, make_collection, pgstac_server
from darts_acquisition.testing.s2_items import make_search_item
from darts_utils.errors import ConfigError, MissingDataError

pytestmark = pytest.mark.servers

PEEL = box(-135.2, 68.0, -135.0, 68.1)
YEAR = {"start_date": "2021-01-01", "end_date": "2021-12-31"}


@pytest.fixture(scope="module")
def items():
    values = ((3, 0.0, 0.0), (13, 10.0, 4.0), (23, 10.01, 30.0))
    return [
        make_search_item(tile, f"2021{month:02d}{day:02d}T210029", eo__cloud_cover=cloud, eo__snow_cover=snow)
        for tile in ("08WMA", "08WNA", "52WEE", "01WCQ", "60WXV")
        for month in range(6, 10)
        for day, cloud, snow in values
    ]


@pytest.fixture(scope="module")
def url(items):
    try:
        with pgstac_server(make_collection(), items) as url:
            yield url
    except MissingDataError as error:
        pytest.skip(str(error))


def _source(url, **changes):
    settings = {"requests_per_second": None, "page_size": 7, **changes}
    return dataclasses.replace(CDSE_SOURCE, endpoint=url, **settings)


@pytest.mark.parametrize("cloud", [0, 10, 10.005, None])
@pytest.mark.parametrize("snow", [0, 4, None])
@pytest.mark.parametrize("tiles", [None, ["08WMA", "T52WEE", "1WCQ"]])
def test_filters_find_the_same_as_a_plain_loop(url, items, cloud, snow, tiles):
    found = search_s2_sr(_source(url), None, tiles, **YEAR, max_cloud_cover=cloud, max_snow_cover=snow)
    assert set(found) == {
        item["id"]
        for item in items
        if (cloud is None or item["properties"]["eo:cloud_cover"] <= cloud)
        and (snow is None or item["properties"]["eo:snow_cover"] <= snow)
        and (tiles is None or item["properties"]["grid:code"] in ("MGRS-08WMA", "MGRS-52WEE", "MGRS-01WCQ"))
    }


def test_the_server_filters_by_itself(url):
    with fault_proxy(url) as proxy:
        found = search_s2_sr(_source(proxy.url, page_size=100), tiles="08WMA", **YEAR, max_cloud_cover=0)
        assert len(found) == 4
        assert [method for method, _ in proxy.requests] == ["GET", "POST"]


@pytest.mark.parametrize(
    ("area", "meant"),
    [
        (PEEL, PEEL),
        (
            box(179.5, 67.0, 180.5, 67.3),
            MultiPolygon([box(179.5, 67.0, 180, 67.3), box(-180, 67.0, -179.5, 67.3)]),
        ),
        (PEEL.centroid.buffer(0.8, quad_segs=400), PEEL.centroid.buffer(0.8, quad_segs=400)),
    ],
    ids=["small", "antimeridian", "many corners"],
)
def test_areas_find_the_same_as_a_plain_loop(url, items, area, meant):
    found = search_s2_sr(_source(url), area, **YEAR, max_cloud_cover=None, max_snow_cover=None)
    assert set(found) == {item["id"] for item in items if shape(item["geometry"]).intersects(meant)}
    assert found


def test_months_and_ids_are_found(url, items):
    found = search_s2_sr(_source(url), tiles="08WMA", months=[6, 8], years=[2021])
    assert {item.datetime.month for item in found.values()} == {6, 8}
    ids = [item["id"] for item in items]
    assert list(get_items(_source(url), ids)) == ids
    with pytest.raises(MissingDataError, match="S2A_ONE"):
        get_items(_source(url), [*ids[:3], "S2A_ONE"])


def test_a_property_that_no_item_has_is_an_error_and_not_an_empty_list(url):
    with pytest.raises(ConfigError, match=r"s2:snow_ice_percentage.*snow_property"):
        search_s2_sr(_source(url, snow_property="s2:snow_ice_percentage"), PEEL, **YEAR)
