"""What lies on the ground, painted layer by layer: reflectance, trend, elevation, water, snow."""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from darts.demo.types import Field, Mask

Window = tuple[slice, slice]

SPECTRA = {
    "tussock": (0.026, 0.046, 0.046, 0.235),
    "heath": (0.034, 0.051, 0.062, 0.205),
    "lichen": (0.055, 0.075, 0.092, 0.215),
    "sedge": (0.024, 0.047, 0.042, 0.205),
    "shrub": (0.020, 0.046, 0.030, 0.320),
    "mud_wet": (0.038, 0.050, 0.058, 0.079),
    "mud_dry": (0.066, 0.084, 0.100, 0.138),
    "rock_light": (0.086, 0.105, 0.120, 0.158),
    "rock_dark": (0.042, 0.053, 0.064, 0.088),
    "bluff": (0.070, 0.094, 0.118, 0.158),
    "gravel": (0.108, 0.130, 0.150, 0.188),
    "lakebed": (0.058, 0.078, 0.094, 0.124),
    "char": (0.028, 0.034, 0.042, 0.076),
    "water_clear": (0.024, 0.027, 0.014, 0.007),
    "water_turbid": (0.066, 0.088, 0.086, 0.034),
    "snow": (0.720, 0.740, 0.750, 0.700),
}
"""Surface reflectance in blue, green, red, near infrared, of the order that Sentinel-2 Level-2A shows on tundra."""


@dataclass
class Canvas:
    """The ground of a scene; `paint` lays a cover on it."""

    elevation: Field
    reflectance: Field
    """(4, y, x): blue, green, red, nir."""
    trend: Field
    """(3, y, x): change of brightness, greenness, wetness in steps of the TCVIS code, 0 is none."""
    water: Mask = field(init=False)
    snow: Mask = field(init=False)

    def __post_init__(self) -> None:
        self.water = np.zeros(self.elevation.shape, bool)
        self.snow = np.zeros(self.elevation.shape, bool)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.elevation.shape
        return height, width

    def paint(
        self, share: Field, spectrum: Field, change: tuple[float, ...] | None = None, window: Window | None = None
    ) -> None:
        """Cover `share` (0 … 1) of each pixel with `spectrum` (4 numbers or rasters); `change` replaces the trend."""
        where = window or (slice(None), slice(None))
        spectrum = np.asarray(spectrum, "float32")
        spectrum = spectrum.reshape(4, 1, 1) if spectrum.ndim == 1 else spectrum
        part = self.reflectance[:, *where]
        part += share * (spectrum - part)
        if change is not None:
            self.change(share, change, window)

    def change(self, share: Field, change: tuple[float, ...], window: Window | None = None) -> None:
        """Let `change` in brightness, greenness and wetness replace the trend on `share` of each pixel."""
        trend = self.trend[:, *(window or (slice(None), slice(None)))]
        trend += share * (np.asarray(change, "float32").reshape(3, 1, 1) - trend)


def mix(first: str, second: str, share: float | Field) -> Field:
    """Return the spectrum between two covers: `share` 0 is the first, 1 the second."""
    a, b = (np.asarray(SPECTRA[name], "float32") for name in (first, second))
    if np.ndim(share) == 0:
        return a + np.float32(share) * (b - a)
    share = np.asarray(share, "float32")
    return a[:, None, None] + share * (b - a)[:, None, None]


def shade(elevation: Field, azimuth_deg: float, elevation_deg: float, diffuse: float = 0.28) -> Field:
    """Return the light on a slope relative to flat ground; `azimuth_deg` is the sun's, clockwise from grid north.

    Direct light goes with cos(incidence)/cos(zenith) (Teillet et al. 1982); the `diffuse` share falls everywhere.
    """
    smooth = ndimage.gaussian_filter(elevation, 0.5, truncate=3)
    south, east = np.gradient(smooth, 10.0)
    azimuth, height = np.radians(azimuth_deg), np.radians(elevation_deg)
    toward_east, toward_north = np.sin(azimuth) * np.cos(height), np.cos(azimuth) * np.cos(height)
    cosine = (np.sin(height) - east * toward_east + south * toward_north) / np.sqrt(1 + south**2 + east**2)
    return (diffuse + (1 - diffuse) * np.maximum(cosine, 0) / np.sin(height)).astype("float32")
