from datetime import UTC, datetime

import pytest

from darts_acquisition.times import iso_utc, parse_utc
from darts_utils.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2021-08-21T21:00:00Z", "2021-08-21T21:00:00Z"),
        ("2021-08-21 21:00", "2021-08-21T21:00:00Z"),
        ("2021-08-21T23:00:00+02:00", "2021-08-21T21:00:00Z"),
        ("2021-08-21T14:00:00-07:00", "2021-08-21T21:00:00Z"),
        ("2024-11-07T11:33:11.024Z", "2024-11-07T11:33:11.024Z"),
    ],
)
def test_times_become_utc(text, iso):
    assert iso_utc(parse_utc(text)) == iso


def test_a_datetime_without_a_zone_is_utc():
    assert parse_utc(datetime(2021, 8, 21, 21)) == datetime(2021, 8, 21, 21, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2021-08-21", "yesterday", "", "2021-13-01T00:00:00Z", 20210821, None])
def test_what_is_no_time_of_day_is_refused(text):
    with pytest.raises(ConfigError, match="acquisition_time"):
        parse_utc(text)
