"""Thaw slumps: where they lie, what form they have, how they change the relief."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from darts.demo.canvas import Canvas, mix
from darts.demo.noise import smooth_noise, smoothstep, soften, stream
from darts.demo.relief import PIXEL_M, Relief, gradient
from darts.demo.types import Field, Labels, Mask

SLUMPS_PER_PX = 17 / 1024**2
STABLE_PER_PX = 9 / 1024**2
AREA_PX = (55, 900)
"""Smallest and largest area that is drawn for a slump, in pixels."""
MAX_TRIES = 3000


@dataclass(frozen=True)
class Slump:
    """One slump in its window of the scene."""

    number: int
    active: bool
    """False: stabilised and overgrown, no target."""
    age_years: float
    wetness: float
    """0 dry and bright to 1 wet and dark mud."""
    window: tuple[slice, slice]
    along: Field
    """Pixels downslope from the bowl's centre."""
    bowl: Field
    """Distance inside the bowl's rim in pixels, negative outside."""
    tongue: Field
    """Distance inside the debris tongue in pixels, negative outside."""
    length_px: float
    """Half-length of the bowl along the slope."""
    fall_m: float
    """How far the slope falls over the bowl's length."""

    @property
    def mask(self) -> Mask:
        """Pixels of bowl and tongue."""
        return (self.bowl > 0) | (self.tongue > 0)


def plant_slumps(seed: int, relief: Relief, taken: Mask) -> tuple[list[Slump], Field]:
    """Return slumps, active and stabilised, on slopes outside `taken`, and the elevation they leave behind.

    `taken` is filled with the ground that the slumps and their surroundings occupy.
    """
    rng = stream(seed, "slumps")
    elevation = relief.elevation.copy()
    south, east = gradient(relief.elevation, 4.0)
    steepness = np.hypot(south, east)
    suited = (steepness > np.tan(np.radians(3.5))) & (steepness < np.tan(np.radians(17))) & ~taken
    places = rng.permutation(np.flatnonzero(suited))
    wanted = [True] * max(3, round(SLUMPS_PER_PX * taken.size)) + [False] * max(1, round(STABLE_PER_PX * taken.size))
    slumps: list[Slump] = []
    for place in places[:MAX_TRIES]:
        if len(slumps) == len(wanted):
            break
        row, col = divmod(int(place), taken.shape[1])
        slope = (float(south[row, col]), float(east[row, col]))
        slump = _draw(rng, len(slumps) + 1, wanted[len(slumps)], (row, col), slope, taken.shape)
        if slump is None or (taken[slump.window] & ndimage.binary_dilation(slump.mask, iterations=4)).any():
            continue
        # A slump lies on one slope: where its own ground turns away, there is no room for it.
        downhill = (south[slump.window] * slope[0] + east[slump.window] * slope[1])[slump.bowl > 0]
        if np.mean(downhill > 0) < 0.97 or not slump.mask.any():
            continue
        taken[slump.window] |= ndimage.binary_dilation(slump.mask, iterations=7)
        elevation[slump.window] += _carving(slump)
        slumps.append(slump)
    return slumps, elevation


def label_slumps(slumps: list[Slump], shape: tuple[int, int], *, active: bool) -> Labels:
    """Return the number of the active (or of the stabilised) slump at each pixel, 0 elsewhere."""
    labels = np.zeros(shape, "int32")
    for slump in slumps:
        if slump.active == active:
            labels[slump.window][slump.mask] = slump.number
    return labels


def paint_slumps(seed: int, canvas: Canvas, slumps: list[Slump]) -> None:
    """Paint wet and dry mud with what still grows on it; stabilised slumps are lusher than the tundra around them."""
    rng = stream(seed, "mud")
    for slump in slumps:
        size = slump.along.shape
        coarse, fine = smooth_noise(rng, size, 8, octaves=3, gain=0.6), smooth_noise(rng, size, 2.2)
        share = soften(slump.mask, 0.5)
        if not slump.active:
            lush = mix("shrub", "sedge", np.clip(0.4 + 0.3 * coarse, 0, 1))
            canvas.paint(share * np.float32(rng.uniform(0.55, 0.85)), lush, (-2.0, 12.0, 3.0), slump.window)
            continue
        # Melt water keeps the ground under the headwall wet and dark; the tongue dries.
        dry = 1 - slump.wetness + 0.22 * slump.along / slump.length_px + 0.30 * coarse
        mud = mix("mud_wet", "mud_dry", np.clip(dry, 0, 1)) * (1 + 0.09 * fine)
        rafts = smoothstep(smooth_noise(rng, size, 5, octaves=2), 0.7, 1.5)
        regrown = np.clip(0.04 + (0.15 + 0.5 * slump.age_years / 15) * rafts, 0, 0.8)
        canvas.paint(share * (1 - regrown), mud, None, slump.window)
        recent = (1.0 - 0.5 * slump.age_years / 15) * rng.uniform(0.35, 1.0)
        change = np.array((rng.uniform(32, 62), -rng.uniform(36, 66), -rng.uniform(16, 48))) * recent
        canvas.change(share, tuple(change), slump.window)


def _draw(
    rng: Generator,
    number: int,
    active: bool,
    place: tuple[int, int],
    slope: tuple[float, float],
    shape: tuple[int, int],
) -> Slump | None:
    """Draw a slump's form at a place, or None where it would reach over the edge."""
    area = float(np.exp(rng.uniform(*np.log(AREA_PX))))
    stretch = rng.uniform(0.75, 1.4)
    reach_tongue = float(rng.gamma(1.6, 0.45))
    width = np.sqrt(area / (np.pi * stretch + 0.75 * stretch * reach_tongue))
    length = stretch * width
    tongue_px = reach_tongue * length
    lobes = rng.normal(0, (0.10, 0.08, 0.06, 0.05, 0.04)), rng.uniform(0, 2 * np.pi, 5)
    spread = rng.uniform(0.0, 0.3)
    bend, bend_phase = rng.uniform(0, 0.18) * width, rng.uniform(0, 2 * np.pi)
    reach = int(length + tongue_px + width) + 8
    row, col = place
    if min(row, col) < reach or row + reach >= shape[0] or col + reach >= shape[1]:
        return None
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype("float32")
    steepness = float(np.hypot(*slope))
    down = -np.array(slope) / steepness
    along, across = y * down[0] + x * down[1], x * down[0] - y * down[1]
    angle = np.arctan2(across / width, along / length)
    rim = 1 + sum(a * np.cos((k + 2) * angle + p) for k, (a, p) in enumerate(zip(*lobes, strict=True)))
    ragged = smooth_noise(rng, along.shape, max(0.55 * width, 3.0), octaves=2)
    rim = np.maximum(rim + 0.13 * ragged, 0.4)
    # The headwall is a wide arc, the outlet narrower.
    rim = rim * (1 - 0.18 * smoothstep(along / length, 0.2, 1.0))
    bowl = (1 - np.hypot(along / length, across / width) / rim) * min(length, width)
    run = np.clip((along - 0.5 * length) / (0.5 * length + tongue_px), 0, 1)
    half = width * (0.62 - 0.34 * smoothstep(run, 0.0, 0.7) + spread * smoothstep(run, 0.6, 0.95))
    half = half * np.sqrt(1 - np.clip((run - 0.8) / 0.2, 0, 1) ** 2) + 0.6 * ragged
    centre = bend * np.sin(run * 4 + bend_phase) - bend * np.sin(bend_phase)
    end = length + tongue_px - along
    tongue = np.minimum(half - np.abs(across - centre), np.minimum(end, along - 0.4 * length))
    return Slump(
        number=number, active=active, age_years=float(rng.uniform(1, 15) if active else rng.uniform(40, 200)),
        wetness=float(rng.beta(1.6, 1.6)),
        window=(slice(row - reach, row + reach + 1), slice(col - reach, col + reach + 1)),
        along=along, bowl=bowl, tongue=tongue, length_px=float(length), fall_m=float(2 * length * PIXEL_M * steepness),
    )  # fmt: skip


def _carving(slump: Slump) -> Field:
    """Metres that a slump took away (below 0) or laid down."""
    depth = np.clip(0.5 * slump.fall_m, 3.0, 16.0) * (1.0 if slump.active else 0.6)
    headwall = smoothstep(slump.bowl, 0.0, 1.8 if slump.active else 4.5)
    wedge = 1 - 0.85 * smoothstep(slump.along / slump.length_px, -0.8, 1.0)
    debris = 0.08 * depth * smoothstep(slump.tongue, 0.0, 2.0) * (slump.bowl < 0)
    carved = debris - depth * headwall * wedge
    return ndimage.gaussian_filter(carved, 0.6 if slump.active else 1.6, truncate=3).astype("float32")
