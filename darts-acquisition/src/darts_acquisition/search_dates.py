"""When to search: a range of dates, or months and years, as the fewest intervals of time."""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from darts_utils.errors import ConfigError

logger = logging.getLogger("darts.acquisition")

FIRST_YEAR = 2015
"""Sentinel-2 began."""


@dataclass(frozen=True)
class Interval:
    """A time from `start` to before `end`, UTC; None: open."""

    start: datetime | None
    end: datetime | None

    def __contains__(self, time: datetime) -> bool:
        return (self.start is None or self.start <= time) and (self.end is None or time < self.end)

    def __str__(self) -> str:
        """Return it as STAC wants it, both ends included."""
        last = None if self.end is None else self.end - timedelta(milliseconds=1)
        return f"{_rfc3339(self.start)}/{_rfc3339(last)}"


def search_intervals(
    start_date: str | date | None = None,
    end_date: str | date | None = None,
    months: Iterable[int] | None = None,
    years: Iterable[int] | None = None,
) -> list[Interval]:
    """Return when to search, in order of time; nothing given: an empty list, and a warning.

    Dates are YYYY-MM-DD, the last day included; they beat months and years. Months that follow each other are one
    interval. Without months all of them, without years 2015 to this year.

    Raises:
        ConfigError: names the parameter that cannot be.
    """
    first, last = _day(start_date, "start_date"), _day(end_date, "end_date")
    if first is not None or last is not None:
        if first is not None and last is not None and last < first:
            raise ConfigError(f"end_date {last:%Y-%m-%d} lies before start_date {first:%Y-%m-%d}")
        if months is not None or years is not None:
            logger.warning("A range of dates is given: months and years are ignored.")
        return [Interval(first, None if last is None else last + timedelta(days=1))]
    if months is None and years is None:
        logger.warning("The search has no limit in time: give start_date and end_date, or months and years.")
        return []
    this_year = datetime.now(UTC).year
    wanted_months = _whole_numbers(months, "months", 1, 12) or list(range(1, 13))
    wanted_years = _whole_numbers(years, "years", FIRST_YEAR, this_year) or list(range(FIRST_YEAR, this_year + 1))
    return _merged([12 * year + month - 1 for year in wanted_years for month in wanted_months])


def _merged(months: list[int]) -> list[Interval]:
    """Return intervals for months counted from the year 0."""
    intervals: list[Interval] = []
    for month in months:
        this = Interval(_first_of(month), _first_of(month + 1))
        if intervals and intervals[-1].end == this.start:
            this = Interval(intervals.pop().start, this.end)
        intervals.append(this)
    return intervals


def _first_of(month: int) -> datetime:
    return datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)


def _day(value: str | date | None, name: str) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            raise ValueError
        return datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be a date such as 2023-07-01, got {value!r}") from error


def _whole_numbers(values: Iterable[int] | None, name: str, low: int, high: int) -> list[int]:
    if values is None:
        return []
    values = [values] if isinstance(values, int) else list(values)
    if not values:
        raise ConfigError(f"{name} is an empty list; leave it out to take all")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"{name} must be whole numbers from {low} to {high}, got {value!r}")
    return sorted(set(values))


def _rfc3339(time: datetime | None) -> str:
    if time is None:
        return ".."
    return time.strftime("%Y-%m-%dT%H:%M:%S") + (f".{time.microsecond // 1000:03d}Z" if time.microsecond else "Z")
