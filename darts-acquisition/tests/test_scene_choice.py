import json
from pathlib import Path

import pystac
import pytest
from shapely.geometry import box

from darts_acquisition import CDSE_SOURCE
from darts_acquisition.scene_choice import choose_items, drop_older, footprint, item_tile
from darts_acquisition.search_criteria import Criteria
from darts_acquisition.search_dates import search_intervals
from darts_acquisition.stac_sources import EARTH_SEARCH_SOURCE
from darts_acquisition.testing.s2_items import make_search_item
from darts_utils.errors import RemoteError

EARTH_SEARCH = Path(__file__).parents[3] / "shared/data/stac/earth-search"
TIME = "20210803T210029"


def _items(*features):
    return [pystac.Item.from_dict(feature) for feature in features]


def _kept(*features, source=CDSE_SOURCE):
    return [item.id for item in drop_older(_items(*features), source)]


def test_the_newer_of_two_baselines_wins_wherever_it_stands():
    old = make_search_item("08WMA", TIME, baseline="03.01", made="20210804T000000")
    new = make_search_item("08WMA", TIME, baseline="05.00", made="20230101T000000")
    assert _kept(old, new) == [new["id"]]
    assert _kept(new, old) == [new["id"]]


def test_the_newer_baseline_wins_though_the_older_was_processed_later():
    old = make_search_item("08WMA", TIME, baseline="04.00", made="20250101T000000")
    new = make_search_item("08WMA", TIME, baseline="05.10", made="20240101T000000")
    assert _kept(old, new) == [new["id"]]


def test_of_one_baseline_the_later_processing_wins():
    old, new = (make_search_item("08WMA", TIME, made=made) for made in ("20210804T000000", "20210805T000000"))
    assert _kept(new, old) == [new["id"]]


def test_other_tiles_times_and_platforms_are_no_duplicates():
    features = [
        make_search_item("08WMA", TIME),
        make_search_item("08WMB", TIME),
        make_search_item("08WMA", "20210803T210030"),
        make_search_item("08WMA", TIME, platform="S2B"),
    ]
    assert _kept(*features) == [feature["id"] for feature in features]


def test_two_halves_of_one_datatake_are_no_duplicates():
    north = make_search_item("08WMA", TIME, made="20210804T000000", footprint=box(-136, 67.9, -134, 68.5))
    south = make_search_item("08WMA", TIME, made="20210804T010000", footprint=box(-136, 67.5, -134, 68.0))
    assert _kept(north, south) == [north["id"], south["id"]]


def _public_item(number, baseline, generated, **changes):
    feature = make_search_item(
        "08WMA",
        TIME,
        baseline=baseline,
        s2__processing_baseline=baseline,
        s2__generation_time=generated,
        s2__datatake_id=f"GS2A_{TIME}_031000_N{baseline}",
        eopf__datatake_id=None,
        processing__version=None,
        created=None,
        processing__datetime=None,
        **changes,
    )
    return {**feature, "id": f"S2A_T08WMA_{TIME}_{number}_L2A"}


def test_items_of_the_public_archive_are_told_apart_by_what_they_say():
    old = _public_item(0, "03.01", "2021-08-03T23:00:00.000000Z")
    new = _public_item(1, "05.00", "2023-02-03T23:00:00.000000Z")
    again = _public_item(2, "05.00", "2023-03-03T23:00:00.000000Z")
    assert _kept(again, old, new, source=EARTH_SEARCH_SOURCE) == [again["id"]]


def test_the_product_name_tells_too():
    uri = f"S2A_MSIL2A_{TIME}_N{{}}_R100_T08WMA_20230203T000000.SAFE"
    features = []
    for number, baseline in enumerate(("0301", "0500")):
        feature = _public_item(number, "05.00", "2021-08-03T23:00:00Z", s2__product_uri=uri.format(baseline))
        for name in ("s2:datatake_id", "s2:processing_baseline", "s2:generation_time", "grid:code"):
            del feature["properties"][name]
        features.append(feature)
    assert _kept(*features, source=EARTH_SEARCH_SOURCE) == [features[1]["id"]]
    assert item_tile(_items(features[0])[0], EARTH_SEARCH_SOURCE) == "08WMA"


def test_items_that_say_nothing_of_their_datatake_all_stay():
    features = []
    for number in range(2):
        feature = make_search_item("08WMA", TIME, eopf__datatake_id=None, grid__code=None)
        features.append({**feature, "id": f"scene-{number}"})
    assert _kept(*features) == ["scene-0", "scene-1"]


@pytest.mark.skipif(not EARTH_SEARCH.exists(), reason="the sample data does not lie beside this checkout")
def test_real_scenes_on_the_antimeridian_are_read_and_kept():
    features = [json.loads(path.read_text()) for path in sorted(EARTH_SEARCH.glob("*.json"))]
    for feature in features:
        feature["links"] = []
    items = _items(*features)
    assert len(drop_older(items, EARTH_SEARCH_SOURCE)) == len(items)
    for item in items:
        # A tile is some 110 km wide; drawn the long way around it would be thousands.
        assert footprint(item).area < 110 * 110 / 111**2 / 0.35
        assert item_tile(item, EARTH_SEARCH_SOURCE) is not None


def test_times_are_checked_again():
    items = _items(make_search_item("08WMA", "20210630T235959"), make_search_item("08WMA", "20210701T000000"))
    chosen = choose_items(items, Criteria(intervals=search_intervals(None, "2021-06-30")), CDSE_SOURCE)
    assert chosen == items[:1]


def test_a_footprint_beside_the_area_is_not_chosen():
    items = _items(make_search_item("08WMA", TIME), make_search_item("52WEE", TIME))
    assert choose_items(items, Criteria(area=box(-135.2, 68, -135, 68.1)), CDSE_SOURCE) == items[:1]


def test_values_that_are_no_numbers_do_not_pass():
    items = _items(
        make_search_item("08WMA", TIME, eo__cloud_cover="5"),
        make_search_item("08WMB", TIME, eo__cloud_cover=float("nan")),
    )
    passing = _items(make_search_item("08WMA", TIME))
    assert choose_items(items + passing, Criteria(max_cloud_cover=10), CDSE_SOURCE) == passing


@pytest.mark.parametrize(
    "geometry",
    [None, {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}, {"type": "Point", "coordinates": [0, 0]}],
)
def test_an_item_without_a_footprint_is_named(geometry):
    (item,) = _items({**make_search_item("08WMA", TIME), "geometry": geometry})
    with pytest.raises(RemoteError, match=item.id):
        footprint(item)
