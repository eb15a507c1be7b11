import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from darts_utils.errors import ConfigError
from darts_utils.sun import sun_position

DATA = Path(__file__).parents[3] / "shared" / "data"


def test_the_worked_example_of_nrel():
    # Reda and Andreas 2004, Solar position algorithm, NREL/TP-560-34302, table A5.1; zenith 50.11162 includes
    # 0.0163 degrees of refraction (82 kPa, 11 °C).
    azimuth, elevation = sun_position(-105.1786, 39.742476, datetime(2003, 10, 17, 12, 30, 30, tzinfo=timezone(-timedelta(hours=7))))  # fmt: skip  # noqa: E501
    assert azimuth == pytest.approx(194.34024, abs=0.01)
    assert elevation == pytest.approx(90 - 50.11162 - 0.0163, abs=0.01)


@pytest.mark.parametrize(
    ("time", "longitude", "latitude", "azimuth", "elevation"),
    [
        # Noon on the equator nine hours after the equinox of 2024 (03:06 UTC): 0.15 degrees north of overhead.
        ("2024-03-20T12:07:25Z", 0, 0, None, 89.85),
        # June solstice: the sun stands 23.44 degrees high all day at the pole, and in the north at midnight at 70° N.
        ("2024-06-20T20:51:00Z", 10, 90, None, 23.44),
        ("2024-06-21T00:02:00Z", 0, 70, 0, 3.44),
        # December solstice: polar night.
        ("2024-12-21T12:00:00Z", 0, 70, 180.4, -3.44),
    ],
)
def test_known_places_of_the_sun(time, longitude, latitude, azimuth, elevation):
    found_azimuth, found_elevation = sun_position(longitude, latitude, time)
    assert found_elevation == pytest.approx(elevation, abs=0.05)
    if azimuth is not None:
        assert (found_azimuth - azimuth + 180) % 360 - 180 == pytest.approx(0, abs=0.3)


def test_azimuth_runs_from_north_over_east():
    morning, _ = sun_position(-132, 70, "2023-07-01T15:00:00Z")
    noon, high = sun_position(-132, 70, "2023-07-01T20:52:00Z")
    evening, low = sun_position(-132, 70, "2023-07-02T03:00:00Z")
    assert 60 < morning < 120
    assert noon == pytest.approx(180, abs=1)
    assert 240 < evening < 300
    assert high > low


def test_it_agrees_with_the_metadata_of_a_real_scene():
    item = DATA / "stac" / "earth-search" / "S2A_33TWM_20230818_0_L2A.json"
    if not item.is_file():
        pytest.skip("the folder shared/data with sample data is not beside the checkout")
    scene = json.loads(item.read_text())
    west, south, east, north = scene["bbox"]
    known = scene["properties"]
    azimuth, elevation = sun_position((west + east) / 2, (south + north) / 2, known["datetime"])
    assert azimuth == pytest.approx(known["view:sun_azimuth"], abs=0.1)
    assert elevation == pytest.approx(known["view:sun_elevation"], abs=0.05)


def test_times_without_a_zone_are_utc_and_longitudes_may_run_past_180():
    expected = sun_position(181, 68, datetime(2023, 7, 1, 20, tzinfo=UTC))
    assert sun_position(181, 68, datetime(2023, 7, 1, 20)) == expected
    assert sun_position(181, 68, "2023-07-01T22:00:00+02:00") == expected
    assert sun_position(-179, 68, "2023-07-01T20:00:00") == pytest.approx(expected)


def test_unreadable_times_and_places_are_refused():
    with pytest.raises(ConfigError, match="last summer"):
        sun_position(0, 70, "last summer")
    with pytest.raises(ConfigError, match="latitude 91"):
        sun_position(0, 91, "2023-07-01T20:00:00Z")
    with pytest.raises(ConfigError, match="nan"):
        sun_position(float("nan"), 70, "2023-07-01T20:00:00Z")


@pytest.mark.parametrize("day", ["2022-07-30", "20220730"])
def test_a_day_without_a_time_is_refused(day: str) -> None:
    with pytest.raises(ConfigError, match="no time of day"):
        sun_position(-135.0, 69.0, day)
