"""Seeded random streams and smooth noise: plain array arithmetic, so that a seed gives the same field everywhere."""

import zlib

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from scipy import ndimage

from darts.demo.types import Field, Mask

BSPLINE_STD = 0.479
"""Standard deviation of white noise of variance 1 after interpolation with cubic B-splines along two axes."""


def stream(seed: int, topic: str) -> Generator:
    """Return the random generator of one topic of one seed, so that a change to one topic leaves the others alone."""
    return Generator(PCG64(SeedSequence([seed, zlib.crc32(topic.encode())])))


def smooth_noise(
    rng: Generator, shape: tuple[int, int], cell_px: float, *, octaves: int = 1, gain: float = 0.5
) -> Field:
    """Return fractal noise (float32, mean about 0, deviation about 1) whose largest forms measure `cell_px` pixels."""
    total = np.zeros(shape, "float32")
    for octave in range(octaves):
        cell = max(cell_px / 2**octave, 1.0)
        lattice = rng.standard_normal([int(length / cell) + 5 for length in shape]).astype("float32")
        lattice *= np.float32(gain**octave)
        wide = np.ascontiguousarray(_interpolate(lattice.T, shape[1], cell, rng.random()).T)
        total += _interpolate(wide, shape[0], cell, rng.random())
    norm = BSPLINE_STD * np.sqrt(sum(gain ** (2 * octave) for octave in range(octaves)))
    total /= np.float32(norm)
    return total


def smoothstep(values: Field, low: float | Field, high: float | Field) -> Field:
    """Return 0 below `low`, 1 above `high`, and a smooth S between."""
    t = np.clip((values - low) / (high - low), 0, 1).astype("float32")
    return t * t * (3 - 2 * t)


def soften(mask: Mask | Field, sigma_px: float) -> Field:
    """Return a mask with soft edges (float32, 0 … 1)."""
    return ndimage.gaussian_filter(np.asarray(mask, "float32"), sigma_px, truncate=3)


def _interpolate(lattice: Field, length: int, cell: float, phase: float) -> Field:
    """Return the lattice's rows interpolated with cubic B-splines to `length` rows."""
    position = np.arange(length) / cell + phase
    index = position.astype(int)
    t = (position - index)[:, None]
    weights = ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6)
    out = np.zeros((length, lattice.shape[1]), "float32")
    for step, weight in enumerate(weights):
        out += weight.astype("float32") * lattice[index + step]
    return out
