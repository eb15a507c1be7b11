"""Where the sun stands, from place and time."""

import math
from datetime import UTC, datetime

from darts_utils.errors import ConfigError

_J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)


def sun_position(longitude_deg: float, latitude_deg: float, time_utc: datetime | str) -> tuple[float, float]:
    """Return the sun's azimuth (degrees clockwise from true north, 0 … 360) and elevation (degrees) at a place.

    The elevation is geometric, without refraction, and negative below the horizon. Good to about 0.02 degrees between
    1950 and 2050. After Meeus, Astronomical Algorithms, 2nd edition (1998): chapter 25 (apparent place of the sun,
    low accuracy), chapter 12 (sidereal time), chapter 13 (horizontal coordinates), as in NOAA's solar calculator.

    Args:
        longitude_deg: degrees east.
        latitude_deg: degrees north.
        time_utc: a datetime or ISO 8601 text; UTC where it names no zone.

    Raises:
        ConfigError: the time cannot be read, or the place is not on Earth.
    """
    if not (math.isfinite(longitude_deg) and abs(latitude_deg) <= 90):
        raise ConfigError(f"no place on Earth has longitude {longitude_deg} and latitude {latitude_deg}")
    days = (_as_utc(time_utc) - _J2000).total_seconds() / 86400
    right_ascension, declination, sidereal = _sun_in_the_sky(days)

    hour_angle = sidereal + math.radians(longitude_deg) - right_ascension
    latitude = math.radians(latitude_deg)
    # Towards the sun, in a frame of east, north and up.
    east = -math.cos(declination) * math.sin(hour_angle)
    north = math.cos(latitude) * math.sin(declination) - (
        math.sin(latitude) * math.cos(declination) * math.cos(hour_angle)
    )
    up = math.sin(latitude) * math.sin(declination) + (
        math.cos(latitude) * math.cos(declination) * math.cos(hour_angle)
    )
    return math.degrees(math.atan2(east, north)) % 360, math.degrees(math.atan2(up, math.hypot(east, north)))


def _sun_in_the_sky(days: float) -> tuple[float, float, float]:
    """Return right ascension, declination and apparent sidereal time at Greenwich, in radians, `days` after J2000.

    Universal time stands for dynamical time: the difference of some 70 s moves the sun by 0.0008 degrees.
    """
    t = days / 36525
    mean_longitude = math.radians(280.46646 + 36000.76983 * t + 0.0003032 * t**2)
    anomaly = math.radians(357.52911 + 35999.05029 * t - 0.0001537 * t**2)
    centre = (
        (1.914602 - 0.004817 * t) * math.sin(anomaly)
        + (0.019993 - 0.000101 * t) * math.sin(2 * anomaly)
        + 0.000289 * math.sin(3 * anomaly)
    )
    node = math.radians(125.04 - 1934.136 * t)
    nutation = -0.00478 * math.sin(node)
    aberration = -0.00569
    longitude = mean_longitude + math.radians(centre + nutation + aberration)
    obliquity = math.radians(23.4392911 - 0.0130042 * t + 0.00256 * math.cos(node))

    right_ascension = math.atan2(math.cos(obliquity) * math.sin(longitude), math.cos(longitude))
    declination = math.asin(math.sin(obliquity) * math.sin(longitude))
    sidereal = 280.46061837 + 360.98564736629 * days + 0.000387933 * t**2 + nutation * math.cos(obliquity)
    return right_ascension, declination, math.radians(sidereal % 360)


def _as_utc(time: datetime | str) -> datetime:
    if not isinstance(time, datetime):
        # Python reads a bare date as midnight, when the sun stands elsewhere.
        if ":" not in str(time):
            raise ConfigError(f"time {time!r} has no time of day, which the sun's place needs; give the sun angles")
        try:
            time = datetime.fromisoformat(str(time))
        except ValueError as error:
            raise ConfigError(f"time {time!r} cannot be read; give it as 2023-07-01T19:49:09Z") from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
