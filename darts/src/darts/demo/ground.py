"""The ground without slumps: vegetation and everything bare, wet, burnt or white that a slump could be taken for."""

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from darts.demo.canvas import SPECTRA, Canvas, mix
from darts.demo.noise import smooth_noise, smoothstep, soften, stream
from darts.demo.relief import Relief, slope_degrees
from darts.demo.types import Field, Mask

ROCKS_PER_PX = 46 / 1024**2
BURNS_PER_PX = 2 / 1024**2
SNOW_PER_PX = 9 / 1024**2


def grow_vegetation(seed: int, relief: Relief) -> Canvas:
    """Return the canvas with tundra on it: heath and lichen on crests, sedge in hollows, shrub along the water."""
    rng = stream(seed, "vegetation")
    shape = (relief.elevation.shape[0], relief.elevation.shape[1])
    crest = relief.elevation - ndimage.uniform_filter(relief.elevation, 41)
    crest = np.clip(crest / 8, -1.5, 1.5)
    damp = smoothstep(relief.flow, 0.3, 0.85)
    lean = {
        "tussock": 0.7,
        "heath": 0.1 + 0.9 * crest + 0.5 * relief.upland,
        "lichen": -1.5 + 1.3 * crest + 0.6 * relief.upland,
        "sedge": -0.1 - 0.6 * crest - 0.9 * relief.upland + 1.4 * damp,
        "shrub": -1.3 - 0.9 * crest + 3.2 * damp + 1.2 * smoothstep(-relief.river_px, -60, -10),
    }
    weights = {}
    for name, value in lean.items():
        weights[name] = np.exp(1.3 * (value + 0.75 * smooth_noise(rng, shape, 70, octaves=5, gain=0.62)))
    total = sum(weights.values())
    reflectance = np.zeros((4, *shape), "float32")
    for name, weight in weights.items():
        share = (weight / total).astype("float32")
        for band, value in enumerate(SPECTRA[name]):
            reflectance[band] += np.float32(value) * share
    season = rng.uniform(0.9, 1.08)
    reflectance[3] *= np.float32(season)
    reflectance *= 1 + 0.05 * smooth_noise(rng, shape, 2.2) + 0.03 * smooth_noise(rng, shape, 9)
    reflectance[3] *= 1 + 0.04 * smooth_noise(rng, shape, 2.5)
    _polygons(rng, relief, reflectance)
    trend = np.stack([value + 3.5 * smooth_noise(rng, shape, 60, octaves=3) for value in (-1.0, 3.0, 0.5)])
    return Canvas(relief.elevation.copy(), reflectance, trend)


def add_burns(seed: int, canvas: Canvas) -> None:
    """Burn ragged areas, some of them recent enough to show in the trend, with islands left."""
    rng = stream(seed, "burns")
    for _ in range(rng.poisson(BURNS_PER_PX * canvas.elevation.size)):
        radius = rng.uniform(14, 60)
        row, col = (rng.uniform(0, length) for length in canvas.shape)
        inside = _blob(rng, canvas.shape, (row, col), radius, roughness=0.55)
        patchy = np.clip(0.8 + 0.35 * smooth_noise(rng, canvas.shape, 14, octaves=3), 0.1, 1)
        share = soften(inside, 1.0) * patchy * np.float32(rng.uniform(0.6, 1.0))
        change = np.array([-22.0, -34.0, -26.0]) * rng.uniform(0.0, 1.1)
        canvas.paint(share, mix("char", "heath", float(rng.uniform(0, 0.35))), tuple(change))


def add_bluffs(seed: int, canvas: Canvas, relief: Relief, free: Mask) -> None:
    """Lay bare the undercut sides of the valley and some lake shores in long ribbons."""
    rng = stream(seed, "bluffs")
    slope = slope_degrees(canvas.elevation, 2.0)
    outside = relief.river_px - relief.floodplain_px
    along = smooth_noise(rng, canvas.shape, 34, octaves=4, gain=0.6)
    reach = relief.wall_px * rng.uniform(0.6, 1.0) * (along - 0.2)
    bare = (outside > 1) & (outside < reach) & (slope > 5) & free
    share = soften(ndimage.binary_opening(bare, iterations=1), 0.7)
    tone = np.clip(0.5 + 0.5 * smooth_noise(rng, canvas.shape, 60), 0, 1)
    spectrum = mix("bluff", "mud_wet", 0.75 * tone) * (1 + 0.07 * smooth_noise(rng, canvas.shape, 4, octaves=2))
    canvas.elevation -= 2.2 * share * smoothstep(-outside, -6, 0)
    canvas.paint(share * 0.92, spectrum)
    retreat = smoothstep(smooth_noise(rng, canvas.shape, 60, octaves=2), 0.2, 1.2)
    canvas.trend += share * retreat * np.array((34.0, -38.0, -18.0), "float32").reshape(3, 1, 1)


def add_rocks(seed: int, canvas: Canvas, relief: Relief, free: Mask) -> None:
    """Scatter scree, outcrops and wind-swept soil over slopes and crests: bare, but bulging, ragged and unchanging."""
    rng = stream(seed, "rocks")
    slope = slope_degrees(canvas.elevation, 4.0)
    places = rng.permutation(np.flatnonzero((slope > 3) & (slope < 24) & free & (relief.upland > 0.1)))
    for place in places[: round(ROCKS_PER_PX * canvas.elevation.size)]:
        row, col = divmod(int(place), canvas.shape[1])
        radius = float(np.exp(rng.uniform(np.log(3.4), np.log(12))))
        reach = int(2.4 * radius) + 4
        window = (slice(max(row - reach, 0), row + reach + 1), slice(max(col - reach, 0), col + reach + 1))
        size = canvas.elevation[window].shape
        centre = (row - window[0].start, col - window[1].start)
        inside = _blob(rng, size, centre, radius, roughness=0.5, cell_px=max(radius * 0.9, 4)) & free[window]
        share = soften(inside, 0.7) * np.float32(rng.uniform(0.75, 0.98))
        rough = smooth_noise(rng, size, 2.6, octaves=2)
        canvas.elevation[window] += soften(inside, radius * 0.3) * rng.uniform(0.3, 3.0) + 0.45 * share * rough
        spectrum = mix("rock_dark", "rock_light", float(rng.beta(0.9, 0.9)))[:, None, None] * (1 + 0.11 * rough)
        # Some of it was laid bare within the years of the trends, as a slump would have been.
        recent = rng.uniform(0.3, 1.0) * (rng.random() < 0.3)
        change = rng.normal(0, 3, 3) + recent * np.array((40.0, -42.0, -26.0))
        canvas.paint(share, spectrum, tuple(change), window)


def add_river(seed: int, canvas: Canvas, relief: Relief) -> None:
    """Fill the valley floor: gravel bars, a turbid river that braids around them, and small streams in gullies."""
    rng = stream(seed, "river")
    level = smooth_noise(rng, canvas.shape, 22, octaves=3)
    near = smoothstep(-relief.river_px, -relief.floodplain_px * 0.9, -2)
    bars = soften((near > 0.12) & (level + 1.6 * near > 1.05), 0.7)
    canvas.paint(bars * 0.95, mix("gravel", "lakebed", np.clip(0.35 + 0.3 * level, 0, 1)), (4, -6, -3))
    moved = 22 * smooth_noise(rng, canvas.shape, 16, octaves=2)
    canvas.trend += np.stack([moved, -0.8 * moved, -moved]) * bars
    channel = relief.river_px + 1.6 * smooth_noise(rng, canvas.shape, 18) < relief.river_width_px
    braid = (np.abs(relief.river_px - 0.45 * relief.floodplain_px - 2 * level) < 1.0) & (near > 0.2) & (level > 0)
    _flood(canvas, channel | braid, mix("water_clear", "water_turbid", float(rng.uniform(0.15, 0.9))))


def add_lakes(seed: int, canvas: Canvas, relief: Relief, free: Mask) -> Mask:
    """Fill the lakes: clear, turbid, drained to mud, drained and overgrown; some gnaw at their shores.

    Returns where there is water now.
    """
    rng = stream(seed, "lakes")
    texture = smooth_noise(rng, canvas.shape, 7, octaves=2)
    bites = smooth_noise(rng, canvas.shape, 22)
    for number, window in enumerate(ndimage.find_objects(relief.lakes), start=1):
        if window is None:
            continue
        wide = tuple(slice(max(part.start - 5, 0), part.stop + 5) for part in window)
        inside = relief.lakes[wide] == number
        kind = rng.choice(["clear", "turbid", "mud", "lush"], p=[0.5, 0.16, 0.2, 0.14])
        if kind in ("clear", "turbid"):
            share = rng.uniform(0, 0.25) if kind == "clear" else rng.uniform(0.35, 1)
            _flood(canvas, inside, mix("water_clear", "water_turbid", float(share)), (wide[0], wide[1]))
            if rng.random() < 0.45:
                shore = (relief.shore_px[wide] > 0) & (relief.shore_px[wide] < 2.6) & (bites[wide] > 0.2) & free[wide]
                canvas.paint(
                    soften(shore, 0.6), mix("mud_wet", "bluff", float(rng.random())), (-28, -40, 45), (wide[0], wide[1])
                )
            continue
        rim = soften(inside, 1.0)
        if kind == "lush":
            canvas.paint(rim * 0.8, mix("shrub", "sedge", 0.4), (4, 34, -16), (wide[0], wide[1]))
        else:
            spectrum = mix("lakebed", "mud_wet", np.clip(0.4 + 0.3 * texture[wide], 0, 1))
            canvas.paint(rim * 0.93, spectrum, (38, 4, -55), (wide[0], wide[1]))
            _flood(
                canvas,
                inside & (relief.shore_px[wide] < -5) & (texture[wide] > 0.8),
                mix("water_clear", "water_turbid", 0.6),
                (wide[0], wide[1]),
            )
    return canvas.water


def add_snow(seed: int, canvas: Canvas, relief: Relief, free: Mask) -> None:
    """Leave snow patches in gullies and under steep slopes."""
    rng = stream(seed, "snow")
    places = rng.permutation(np.flatnonzero((slope_degrees(canvas.elevation, 2.0) > 7) & (relief.flow > 0.35) & free))
    for place in places[: rng.poisson(SNOW_PER_PX * canvas.elevation.size)]:
        row, col = divmod(int(place), canvas.shape[1])
        window = (slice(max(row - 14, 0), row + 15), slice(max(col - 14, 0), col + 15))
        size = canvas.elevation[window].shape
        centre = (row - window[0].start, col - window[1].start)
        inside = _blob(rng, size, centre, rng.uniform(1.6, 4.5), roughness=0.5, cell_px=5) & free[window]
        share = soften(inside, 0.5) * np.float32(rng.uniform(0.6, 0.95))
        canvas.paint(share, np.array(SPECTRA["snow"]), tuple(rng.normal(0, 10, 3)), window)
        canvas.snow[window] |= share > 0.45


def _polygons(rng: Generator, relief: Relief, reflectance: Field) -> None:
    """Draw ice-wedge polygons on flat lowland: a net of damp, dark troughs around drier centres, some with ponds."""
    shape = (relief.upland.shape[0], relief.upland.shape[1])
    zone = smoothstep(smooth_noise(rng, shape, 90, octaves=2), 0.1, 0.7) * (1 - relief.upland)
    zone *= smoothstep(-slope_degrees(relief.elevation, 6.0), -3.0, -1.0)
    net = np.minimum(np.abs(smooth_noise(rng, shape, 6)), np.abs(smooth_noise(rng, shape, 6)))
    trough = smoothstep(-net, -0.3, -0.05) * zone
    centre = smoothstep(net, 0.35, 0.8) * zone
    ponds = smoothstep(smooth_noise(rng, shape, 5) + zone, 2.3, 2.8) * zone
    for band, (wet, dry) in enumerate(zip(SPECTRA["sedge"], SPECTRA["lichen"], strict=True)):
        part = reflectance[band]
        part += 0.5 * trough * (0.85 * wet - part) + 0.35 * centre * (dry - part)
        part += 0.6 * ponds * (SPECTRA["water_clear"][band] - part)


def _flood(canvas: Canvas, water: Mask, spectrum: Field, window: tuple[slice, slice] | None = None) -> None:
    canvas.paint(soften(water, 0.5), spectrum, (0, 0, 3), window)
    canvas.water[window or (slice(None), slice(None))] |= water


def _blob(
    rng: Generator, shape: tuple[int, ...], centre: tuple[float, float], radius: float, *, roughness: float,
    cell_px: float | None = None,
) -> Mask:  # fmt: skip
    """Return a ragged, stretched patch around a centre."""
    row, col = np.ogrid[: shape[0], : shape[1]]
    stretch, turn = rng.uniform(0.45, 1.0), rng.uniform(0, np.pi)
    y, x = row - centre[0], col - centre[1]
    along, across = y * np.cos(turn) + x * np.sin(turn), x * np.cos(turn) - y * np.sin(turn)
    noise = smooth_noise(rng, (shape[0], shape[1]), cell_px or radius * 0.8, octaves=3, gain=0.6)
    mask: Mask = np.hypot(along, across / stretch) * np.maximum(1 + roughness * noise, 0.45) < radius
    return mask
