from datetime import UTC, datetime

import pytest

from darts_acquisition import parse_cdse_id, parse_gee_id, scene_year
from darts_acquisition.scene_ids import baseline_has_offset
from darts_utils.errors import ConfigError


def test_a_cdse_id_tells_time_tile_and_baseline():
    parts = parse_cdse_id("S2A_MSIL2A_20241107T113311_N0511_R080_T32VKR_20241107T123948")
    assert parts.acquired == datetime(2024, 11, 7, 11, 33, 11, tzinfo=UTC)
    assert (parts.mgrs_tile, parts.platform, parts.processing_baseline) == ("32VKR", "S2A", "05.11")


def test_a_gee_id_tells_time_and_tile():
    parts = parse_gee_id("20230701T194909_20230701T195350_T11XNA")
    assert parts.acquired == datetime(2023, 7, 1, 19, 49, 9, tzinfo=UTC)
    assert parts.mgrs_tile == "11XNA"


def test_the_year_is_that_of_the_acquisition_not_of_the_processing():
    # Collection 1: acquired in 2020, processed in 2023.
    assert scene_year("S2A_MSIL2A_20200301T090901_N0500_R050_T35UPU_20230630T033416") == 2020
    assert scene_year("20230701T194909_20230701T195350_T11XNA") == 2023


@pytest.mark.parametrize("name", ["", "S2A", "S2A_MSIL2A_20241107T113311_N0511_R080_T32VKR", "20230701T194909_T11XNA"])
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError):
        scene_year(name)


def test_an_id_with_an_impossible_date_is_refused():
    with pytest.raises(ConfigError, match="20241307T113311"):
        parse_cdse_id("S2A_MSIL2A_20241307T113311_N0511_R080_T32VKR_20241107T123948")


@pytest.mark.parametrize(
    ("baseline", "has_offset"),
    [("02.14", False), ("03.01", False), ("04.00", True), ("0400", True), ("05.00", True), ("05.11", True)],
)
def test_the_offset_begins_with_baseline_four(baseline, has_offset):
    assert baseline_has_offset(baseline) is has_offset


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ConfigError, match="new"):
        baseline_has_offset("new")
