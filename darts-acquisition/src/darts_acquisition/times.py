"""Times of acquisition: UTC everywhere, ISO 8601 in attributes."""

import re
from datetime import UTC, datetime

from darts_utils.errors import ConfigError
from darts_utils.quoting import shown


def parse_utc(value: str | datetime, what: str = "acquisition_time") -> datetime:
    """Return a time in UTC; a time without a zone is taken as UTC.

    Raises:
        ConfigError: not ISO 8601, or a date without the time of day (the sun's place depends on it).
    """
    if isinstance(value, str):
        if not re.search(r"\d[T ]\d", value):
            raise ConfigError(f"{what} {shown(value)} has no time of day; give ISO 8601 such as 2021-08-21T21:00:00Z")
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise ConfigError(
                f"{what} {shown(value)} is not a time; give ISO 8601 such as 2021-08-21T21:00:00Z"
            ) from error
    if not isinstance(value, datetime):
        raise ConfigError(f"{what} must be a datetime or ISO 8601 text, got {shown(value)}")
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError as error:
        raise ConfigError(f"{what} {value} lies outside the years 1 to 9999 in UTC; correct it") from error


def parse_stamp(text: str, where: str) -> datetime:
    """Return the UTC time that a name holds as `20210821T210029`.

    Raises:
        ConfigError: there is no such time; says `where` it stands.
    """
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise ConfigError(f"{where} holds {shown(text)}, which is not a time") from error


def iso_utc(time: datetime) -> str:
    """Return a UTC time as ISO 8601 with `Z`, milliseconds only where it has them."""
    digits = "milliseconds" if time.microsecond else "seconds"
    return time.astimezone(UTC).isoformat(timespec=digits).replace("+00:00", "Z")
