"""The relief: rolling uplands, a lowland, one river valley, gullies that flow into it, and lakes."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from darts.demo.noise import smooth_noise, smoothstep, soften, stream
from darts.demo.types import Field, Labels, Mask

PIXEL_M = 10.0
DROP_STEPS = 130
PIXELS_A_DROP = 150


@dataclass
class Relief:
    """Elevation and what shaped it, on the scene's grid with a margin."""

    elevation: Field
    """Metres."""
    river_px: Field
    """Distance to the river's centre line in pixels."""
    river_width_px: float
    floodplain_px: Field
    """Half-width of the valley floor around each pixel, in pixels."""
    wall_px: Field
    """Width of the valley's side, in pixels."""
    gully_px: Field
    """Distance to the nearest gully in pixels."""
    flow: Field
    """Water that gathers here, 0 on crests to 1 in the largest gullies (logarithmic)."""
    upland: Field
    """0 in the lowland to 1 in the hills."""
    lakes: Labels
    """Lake number, 0 elsewhere."""
    shore_px: Field
    """Distance to the nearest lake in pixels; negative inside."""


def build_relief(seed: int, shape: tuple[int, int]) -> Relief:
    """Return the relief of a seed before anything moved on its slopes."""
    rng = stream(seed, "relief")
    upland = smoothstep(smooth_noise(rng, shape, 340, octaves=2), -1.0, 0.3)
    river_px = _river(rng, shape)
    hills = 32 + 9 * smooth_noise(rng, shape, 150, octaves=4) + 0.2 * soften(np.minimum(river_px, 350), 12)
    folds = smooth_noise(rng, shape, 150, octaves=6, gain=0.45)
    hills += upland * (85 + 50 * folds - 18 * np.abs(smooth_noise(rng, shape, 90, octaves=3)))
    floodplain_px = np.clip(17 + 8 * smooth_noise(rng, shape, 130), 8, None)
    wall_px = np.clip(34 + 12 * smooth_noise(rng, shape, 110), 14, None)
    floor = 12 + 4 * smooth_noise(rng, shape, 600)
    side = smoothstep(river_px, floodplain_px, floodplain_px + wall_px)
    elevation = floor + np.maximum(hills - floor, 3) * side
    flow = _flow(rng, elevation, river_px, floodplain_px)
    incised = soften(smoothstep(flow, 0.42, 1.0), 2.2)
    elevation -= (3 + 20 * upland) * incised * side
    gully_px = _distance_to(flow > 0.55)
    elevation += 0.8 * smooth_noise(rng, shape, 26, octaves=3) * (0.25 + 0.75 * upland) * side
    elevation += 0.10 * smooth_noise(rng, shape, 3)
    lakes, shore_px = _lakes(rng, elevation, river_px, floodplain_px + wall_px, gully_px)
    elevation = _flatten_lakes(elevation, lakes, shore_px)
    return Relief(
        elevation=elevation.astype("float32"), river_px=river_px, river_width_px=float(rng.uniform(2.0, 4.5)),
        floodplain_px=floodplain_px, wall_px=wall_px, gully_px=gully_px, flow=soften(flow, 0.6), upland=upland,
        lakes=lakes, shore_px=shore_px,
    )  # fmt: skip


def gradient(elevation: Field, sigma_px: float = 0.0) -> tuple[Field, Field]:
    """Return the rise in metres per metre towards the south (down the rows) and the east, smoothed by `sigma_px`."""
    if sigma_px:
        elevation = ndimage.gaussian_filter(elevation, sigma_px, truncate=3)
    south, east = np.gradient(elevation, PIXEL_M)
    return south.astype("float32"), east.astype("float32")


def slope_degrees(elevation: Field, sigma_px: float = 0.0) -> Field:
    """Return the slope in degrees, smoothed by `sigma_px`."""
    return np.degrees(np.arctan(np.hypot(*gradient(elevation, sigma_px)))).astype("float32")


def _river(rng: Generator, shape: tuple[int, int]) -> Field:
    """Distance to one winding line that crosses the scene: the zero line of a tilted plane with noise on it."""
    bearing = rng.uniform(0, np.pi)
    row, col = np.ogrid[: shape[0], : shape[1]]
    across = (row - shape[0] * rng.uniform(0.35, 0.65)) * np.cos(bearing)
    across = across + (col - shape[1] * rng.uniform(0.35, 0.65)) * np.sin(bearing)
    across = across + 70 * smooth_noise(rng, shape, 200) + 26 * smooth_noise(rng, shape, 70, octaves=2)
    line = _sign_change(across > 0)
    # Noise also draws closed loops; the river is the longest piece.
    pieces, _ = ndimage.label(line, np.ones((3, 3)))
    lengths = np.bincount(pieces.ravel())
    lengths[0] = 0
    return _distance_to(pieces == int(lengths.argmax()) if lengths.any() else line)


def _sign_change(side: Mask) -> Mask:
    line = np.zeros(side.shape, bool)
    line[:-1] |= side[:-1] != side[1:]
    line[:, :-1] |= side[:, :-1] != side[:, 1:]
    return line


def _distance_to(mask: Mask) -> Field:
    if not mask.any():
        return np.full(mask.shape, 1e4, "float32")
    return ndimage.distance_transform_edt(~mask).astype("float32")


def _flow(rng: Generator, elevation: Field, river_px: Field, floodplain_px: Field) -> Field:
    """Let drops run down the slope to the valley floor; return the logarithm of how many passed, scaled to 0 … 1."""
    coarse = slice(None, None, 2)
    south, east = (part[coarse, coarse] for part in gradient(elevation, 4.0))
    on_slope = (river_px > floodplain_px * 0.6)[coarse, coarse]
    height, width = south.shape
    count = elevation.size // PIXELS_A_DROP
    row, col = rng.uniform(0, height - 1, count), rng.uniform(0, width - 1, count)
    heading = np.zeros((2, count))
    passed = np.zeros(south.size, "int64")
    before = np.stack([row, col])
    for step in range(DROP_STEPS):
        r, c = row.astype(int), col.astype(int)
        downhill = -np.stack([south[r, c], east[r, c]])
        steepness = np.maximum(np.hypot(*downhill), 1e-6)
        heading = 0.6 * heading + 0.4 * downhill / steepness
        heading /= np.maximum(np.hypot(*heading), 1e-6)
        row, col = row + heading[0], col + heading[1]
        runs = (row >= 0) & (row <= height - 1) & (col >= 0) & (col <= width - 1) & (steepness > 0.003)
        runs[runs] = on_slope[row[runs].astype(int), col[runs].astype(int)]
        row, col, heading = row[runs], col[runs], heading[:, runs]
        if step % 8 == 7:
            # Drops that circle in a hollow would draw a dot, not a gully.
            moves = np.hypot(row - before[0][runs], col - before[1][runs]) > 4.5
            row, col, heading = row[moves], col[moves], heading[:, moves]
            before = np.stack([row, col])
        else:
            before = before[:, runs]
        if not row.size:
            break
        passed += np.bincount(row.astype(int) * width + col.astype(int), minlength=passed.size)
    flow = np.clip(np.log1p(passed.reshape(south.shape)) / np.log(80), 0, 1).astype("float32")
    pieces, number = ndimage.label(flow > 0.4, np.ones((3, 3)))
    dots = np.bincount(pieces.ravel(), minlength=number + 1) < 24
    flow[dots[pieces] & (pieces > 0)] = 0.3
    return flow.repeat(2, axis=0).repeat(2, axis=1)[: elevation.shape[0], : elevation.shape[1]]


def _lakes(
    rng: Generator, elevation: Field, river_px: Field, valley_px: Field, gully_px: Field
) -> tuple[Labels, Field]:
    """Number lakes on flat ground away from river and gullies, and give the distance to the nearest shore."""
    shape = elevation.shape
    flat = slope_degrees(elevation, 8.0) < 2.4
    suited = flat & (river_px > valley_px + 8) & (gully_px > 9)
    wobble = smooth_noise(rng, shape, 26, octaves=2)
    lakes = np.zeros(shape, "int32")
    row, col = np.ogrid[: shape[0], : shape[1]]
    places = np.flatnonzero(suited)
    wanted = max(2, round(elevation.size / 75_000))
    for place in rng.permutation(places)[: wanted * 12]:
        r, c = divmod(int(place), shape[1])
        radius = float(np.exp(rng.uniform(np.log(6), np.log(34))))
        window = _window(r, c, round(radius * 2.2) + 4, shape)
        if lakes[window].any():
            continue
        stretch, turn = rng.uniform(0.65, 1.0), rng.uniform(0, np.pi)
        y, x = row[window[0]] - r, col[:, window[1]] - c
        along, across = y * np.cos(turn) + x * np.sin(turn), x * np.cos(turn) - y * np.sin(turn)
        shape_px = np.hypot(along, across / stretch) * (1 + 0.16 * wobble[window])
        lake = (shape_px < radius) & (gully_px[window] > 5) & (river_px[window] > valley_px[window])
        lakes[window][lake] = lakes.max() + 1
        if lakes.max() >= wanted:
            break
    inside = ndimage.distance_transform_edt(lakes > 0)
    return lakes, _distance_to(lakes > 0) - inside.astype("float32")


def _flatten_lakes(elevation: Field, lakes: Labels, shore_px: Field) -> Field:
    """Lay each lake level at the lowest tenth of its ground and blend its shore into the slope around."""
    if not lakes.any():
        return elevation
    levels = np.zeros(int(lakes.max()) + 1, "float32")
    for number, window in enumerate(ndimage.find_objects(lakes), start=1):
        if window is not None:
            ground = elevation[window][lakes[window] == number]
            levels[number] = np.sort(ground)[ground.size // 10] - 0.8
    nearest = ndimage.distance_transform_edt(lakes == 0, return_distances=False, return_indices=True)
    level = levels[lakes[tuple(nearest)]]
    share = smoothstep(shore_px, 0.0, 7.0)
    return np.where(lakes > 0, level, level + (elevation - level) * share).astype("float32")


def _window(row: int, col: int, reach: int, shape: tuple[int, int]) -> tuple[slice, slice]:
    return (
        slice(max(row - reach, 0), min(row + reach + 1, shape[0])),
        slice(max(col - reach, 0), min(col + reach + 1, shape[1])),
    )
