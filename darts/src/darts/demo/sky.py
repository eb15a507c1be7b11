"""The sky over a scene: clouds with their shadows, thin cirrus, haze, and the sensor's noise."""

from dataclasses import dataclass

import numpy as np

from darts.demo.noise import smooth_noise, smoothstep, stream
from darts.demo.types import Field, Mask

SHADOW_REACH_PX = 260
"""Clouds may stand this far outside the scene and still throw their shadow into it."""
PATH_RADIANCE = (0.020, 0.011, 0.006, 0.002)
"""What full haze adds in blue, green, red, nir; Level-2A removes most of it."""
NOISE = (0.0011, 0.0012, 0.0014, 0.0026)
"""Deviation of the sensor's noise in reflectance."""


@dataclass
class Sky:
    """What stands between the sensor, the sun and the ground."""

    cloud: Field
    """Opacity of clouds, 0 … 1."""
    cirrus: Field
    """Opacity of thin cirrus, 0 … 0.2."""
    shadow: Field
    """Share of direct light that clouds take away."""
    haze: Field
    """0 clear … 1 hazy."""


def build_sky(seed: int, shape: tuple[int, int], azimuth_deg: float, elevation_deg: float, cloud_cover: float) -> Sky:
    """Return the sky of a seed; `azimuth_deg` is the sun's from grid north, `cloud_cover` the share of cloud."""
    rng = stream(seed, "sky")
    margin = SHADOW_REACH_PX
    large = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    billows = smooth_noise(rng, large, 120, octaves=7, gain=0.55)
    inner = (slice(margin, margin + shape[0]), slice(margin, margin + shape[1]))
    if cloud_cover > 0:
        threshold = float(np.sort(billows[inner], axis=None)[int((1 - cloud_cover) * (billows[inner].size - 1))])
        opacity = smoothstep(billows, threshold - 0.08, threshold + 0.45)
    else:
        opacity = np.zeros(large, "float32")
    # The shadow falls away from the sun, as far as the cloud is high over tan(sun elevation).
    reach = min(rng.uniform(500, 1500) / 10 / np.tan(np.radians(elevation_deg)), margin - 1)
    down = round(reach * np.cos(np.radians(azimuth_deg)))
    left = round(reach * np.sin(np.radians(azimuth_deg)))
    thrown = opacity[
        margin - down : margin - down + shape[0],
        margin + left : margin + left + shape[1],
    ]
    veil = smoothstep(smooth_noise(rng, shape, 260, octaves=4), 1.1, 2.2) * 0.16
    haze = np.clip(rng.uniform(0.0, 0.5) + 0.22 * smooth_noise(rng, shape, 300, octaves=2), 0, 1)
    return Sky(cloud=opacity[inner], cirrus=veil, shadow=0.8 * thrown, haze=haze.astype("float32"))


def look_through(seed: int, ground: Field, sky: Sky) -> Field:
    """Return the reflectance that the sensor sees of `ground` (4, y, x), noise included."""
    rng = stream(seed, "sensor")
    height, width = ground.shape[1:]
    bright = 0.62 + 0.1 * smooth_noise(rng, (height, width), 25, octaves=3)
    seen = np.empty_like(ground)
    for band in range(4):
        clear = ground[band] * (1 - sky.shadow * (0.80 if band else 0.72)) * (1 - 0.08 * sky.haze)
        clear = clear + np.float32(PATH_RADIANCE[band]) * sky.haze + sky.cirrus * (0.5 - clear)
        light = clear + sky.cloud * (bright - clear)
        grain = rng.standard_normal((height, width), dtype="float32")
        seen[band] = light + grain * (np.float32(NOISE[band]) + np.float32(0.008) * np.abs(light))
    return seen


def classify(seen: Field, sky: Sky, light: Field, water: Mask, snow: Mask) -> Field:
    """Return the scene classification (uint8) in the 20 m blocks of Level-2A's own: 2 … 11, without nodata."""
    ndvi = (seen[3] - seen[2]) / np.maximum(seen[3] + seen[2], 1e-3)
    scl = np.where(ndvi > 0.38, 4, 5).astype("uint8")
    scl[(ndvi > 0.25) & (ndvi <= 0.30)] = 7
    scl[light < 0.38] = 2
    scl[water] = 6
    scl[snow] = 11
    scl[sky.shadow > 0.25] = 3
    scl[sky.cirrus > 0.04] = 10
    scl[sky.cloud > 0.12] = 8
    scl[sky.cloud > 0.55] = 9
    blocks = scl[::2, ::2].repeat(2, axis=0).repeat(2, axis=1)
    return blocks[: scl.shape[0], : scl.shape[1]]
