"""Where the sun stands, from place and time."""

from datetime import datetime

import numpy as np


def sun_position(time: datetime, longitude: float, latitude: float) -> tuple[float, float]:
    """Return the sun's azimuth (degrees clockwise from true north) and elevation (degrees), good to some 0.05°.

    `time` is UTC. After Meeus, Astronomical Algorithms (1998), chapters 12 and 25, low accuracy, without refraction.
    """
    days = (time - datetime(2000, 1, 1, 12, tzinfo=time.tzinfo)).total_seconds() / 86400
    anomaly = np.radians(357.529 + 0.98560028 * days)
    mean_longitude = 280.459 + 0.98564736 * days
    ecliptic = np.radians(mean_longitude + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    tilt = np.radians(23.439 - 0.00000036 * days)
    right_ascension = np.arctan2(np.cos(tilt) * np.sin(ecliptic), np.cos(ecliptic))
    declination = np.arcsin(np.sin(tilt) * np.sin(ecliptic))
    sidereal = np.radians(280.46062 + 360.98564737 * days + longitude)
    hour_angle = sidereal - right_ascension
    phi = np.radians(latitude)
    sine = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour_angle)
    azimuth = np.arctan2(
        -np.cos(declination) * np.sin(hour_angle),
        np.sin(declination) * np.cos(phi) - np.cos(declination) * np.cos(hour_angle) * np.sin(phi),
    )
    return float(np.degrees(azimuth) % 360), float(np.degrees(np.arcsin(sine)))
