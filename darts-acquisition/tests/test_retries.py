import email.utils
import time

import pytest

from darts_acquisition.retries import backoff_s, retry_after_s


@pytest.mark.parametrize(("failures", "most"), [(1, 0.5), (2, 1), (3, 2), (7, 30), (5000, 30)])
def test_waits_double_up_to_the_longest(failures, most):
    waits = [backoff_s(failures, 0.5, 30) for _ in range(100)]
    assert all(most / 2 <= wait <= most for wait in waits)
    assert len(set(waits)) > 1


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), (" 0.5 ", 0.5), ("-3", 0), ("0", 0)])
def test_seconds_are_waited_for(header, seconds):
    assert retry_after_s(header) == seconds


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000"])
def test_dates_are_those_of_greenwich(zone):
    header = time.strftime("%a, %d %b %Y %H:%M:%S ", time.gmtime(time.time() + 90)) + zone
    assert 80 < retry_after_s(header) <= 90
    assert retry_after_s(email.utils.formatdate(time.time() - 90, usegmt=True)) == 0


@pytest.mark.parametrize("header", [None, "", "soon", "nan", "inf", "-inf", "Wed, 99 Foo 2026"])
def test_what_is_no_time_is_not_waited_for(header):
    assert retry_after_s(header) is None
