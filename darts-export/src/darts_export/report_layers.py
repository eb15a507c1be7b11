"""The pictures of a report: layers of a tile as small images, each with what its colours mean."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import xarray as xr
from PIL import Image

from darts_export.preview import BRIGHTEST, GAMMA, NODATA_GREY, RAMP, resized
from darts_export.vectors import seen_clear
from darts_utils.arrays import to_host

LONGEST_SIDE_PX = 1536
TERRAIN_SIDE_PX = 1024
"""Terrain is smooth, and there to be looked at through an object."""

LARGEST_PICTURE = 700_000
LARGEST_TERRAIN = 300_000
"""Bytes of a picture; JPEG quality gives way."""

BRIGHTEST_NIR = 0.45
"""Reflectance of near infrared shown as full red; tundra in summer lies at 0.2 to 0.35."""

STEEPEST = 35.0
"""Degrees; slopes from here on are white."""
HIGHEST_ABOVE = 10.0
"""Metres above (red) and below (blue) the mean around, from which on colours are full."""

PROBABILITY_STEPS = 25
"""Shades of the probability layer; finer ones cost bytes and show nothing."""
PROBABILITY_RAMP = ((0.0, (60, 40, 150)), (0.25, (30, 150, 170)), *RAMP)
"""Below the outlines' colours: violet and teal, for what is too unsure to be an object at 50 %."""

Colour = tuple[int, int, int]


_OPTICAL = (
    ("natural", "Natural colours", ("red", "green", "blue"), (BRIGHTEST,) * 3),
    (
        "false-colour",
        "False colour: near infrared, red, green",
        ("nir", "red", "green"),
        (BRIGHTEST_NIR, *(BRIGHTEST,) * 2),
    ),
)
"""Key, title, bands and the reflectance that is white in each."""


@dataclass(frozen=True)
class Layer:
    """One picture over the tile."""

    key: str
    title: str
    href: str
    """Data URI."""
    visible: bool
    opacity: float
    legend: Sequence[tuple[Colour, str]] = ()
    """Colours and their meaning; of a ramp, its stops."""
    ramp: bool = False


def picture_size(shape: Sequence[int], longest: int = LONGEST_SIDE_PX) -> tuple[int, int]:
    """Return rows and columns of a picture: those of the tile, or fewer."""
    scale = min(1.0, longest / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def draw_layers(tile: xr.Dataset) -> list[Layer]:
    """Return the layers that a tile has the bands for, the lowest first."""
    return [layer for draw in _DRAWN for layer in draw(tile)]


def _optical(tile: xr.Dataset) -> list[Layer]:
    layers = []
    for key, title, names, whites in _OPTICAL:
        if set(names) <= set(tile.data_vars):
            size = picture_size(tile[names[0]].shape)
            light = [
                np.clip(_shrunk(tile[name], size) / white, 0, 1) ** (1 / GAMMA)
                for name, white in zip(names, whites, strict=True)
            ]
            href = _jpeg(np.stack(light, axis=-1), LARGEST_PICTURE)
            layers.append(Layer(key, title, href, visible=key == "natural", opacity=1.0))
    return layers


def _terrain(tile: xr.Dataset) -> list[Layer]:
    ramps: Sequence[tuple[str, str, float, float, Sequence[tuple[Colour, str]]]] = (
        ("hillshade", "Hillshade", 0.0, 1.0, (((0, 0, 0), "shadow"), ((255, 255, 255), "sunlit"))),
        ("slope", "Slope", 0.0, STEEPEST, (((0, 0, 0), "0°"), ((255, 255, 255), f"≥ {STEEPEST:g}°"))),
        (
            "relative_elevation",
            "Relative elevation",
            -HIGHEST_ABOVE,
            HIGHEST_ABOVE,
            (
                ((40, 80, 190), f"≤ −{HIGHEST_ABOVE:g} m"),
                ((245, 245, 240), "0"),
                ((190, 50, 30), f"≥ {HIGHEST_ABOVE:g} m"),
            ),
        ),
    )
    layers = []
    for name, title, low, high, legend in ramps:
        if name in tile:
            values = _shrunk(tile[name], picture_size(tile[name].shape, TERRAIN_SIDE_PX))
            share = (values - low) / (high - low)
            stops = np.linspace(0, 1, len(legend))
            colours = np.array([colour for colour, _ in legend]) / 255
            light = np.stack([np.interp(share, stops, colours[:, i]) for i in range(3)], axis=-1)
            light[np.isnan(share)] = np.nan
            layers.append(Layer(name, title, _jpeg(light, LARGEST_TERRAIN), False, 1.0, legend, ramp=True))
    return layers


def _masks(tile: xr.Dataset) -> list[Layer]:
    layers = []
    colours: tuple[tuple[Colour, str], ...]
    if "quality_data_mask" in tile:
        colours = (((214, 40, 120), "invalid"), ((240, 200, 40), "low quality"))
        layers.append(_classes("quality", "Quality mask", tile["quality_data_mask"], colours, visible=False))
    if {"extent", "quality_data_mask"} <= set(tile.data_vars):
        seen = np.asarray(to_host(tile["extent"].data), bool)
        hidden = tile["extent"].copy(data=~(seen & ~seen_clear(tile, seen)))
        colours = (((250, 250, 250), "in the extent, but cloud or low quality"),)
        layers.append(_classes("unclear", "Not seen clear", hidden, colours, visible=False))
    if "extent" in tile:
        colours = (((25, 25, 35), "outside the extent"),)
        layers.append(_classes("extent", "Outside the extent", tile["extent"], colours, visible=True, opacity=0.35))
    return layers


def _probabilities(tile: xr.Dataset) -> list[Layer]:
    if "probabilities" not in tile:
        return []
    values = _shrunk(tile["probabilities"], picture_size(tile["probabilities"].shape))
    index = np.rint(np.nan_to_num(values) * PROBABILITY_STEPS).clip(0, PROBABILITY_STEPS).astype("uint8")
    shares = np.arange(PROBABILITY_STEPS + 1) / PROBABILITY_STEPS
    stops = [stop for stop, _ in PROBABILITY_RAMP]
    palette = np.stack([np.interp(shares, stops, [c[i] for _, c in PROBABILITY_RAMP]) for i in range(3)], axis=-1)
    alpha = np.where(shares > 0, 90 + 165 * shares, 0)
    legend = [(colour, f"{stop:.0%}".replace("%", " %")) for stop, colour in PROBABILITY_RAMP]
    alone = not {"red", "green", "blue"} <= set(tile.data_vars)
    href = _palette_png(index, palette, alpha)
    return [Layer("probabilities", "Probability", href, alone, 0.8, legend, ramp=True)]


def _shrunk(band: xr.DataArray, size: tuple[int, int]) -> np.ndarray:
    """Return the mean of valid pixels under each pixel of the picture, of every second or third where there are many.

    On a tile of 10980 pixels this takes a ninth of the time of all of them, and no copy of the band.
    """
    step = max(1, min(band.shape) // (2 * max(size)))
    return resized(band[step // 2 :: step, step // 2 :: step], size)


def _classes(
    key: str,
    title: str,
    band: xr.DataArray,
    colours: Sequence[tuple[Colour, str]],
    *,
    visible: bool,
    opacity: float = 0.6,
) -> Layer:
    """Return a layer of classes 0, 1, …; those past the last colour are transparent."""
    rows, columns = picture_size(band.shape)
    values = to_host(band.data)
    # The pixel under the middle of each pixel of the picture: classes have no mean.
    row = (np.arange(rows) * 2 + 1) * values.shape[0] // (2 * rows)
    column = (np.arange(columns) * 2 + 1) * values.shape[1] // (2 * columns)
    index = np.minimum(values[np.ix_(row, column)].astype("uint8"), len(colours))
    palette = np.array([*(colour for colour, _ in colours), (0, 0, 0)])
    alpha = np.array([255] * len(colours) + [0])
    return Layer(key, title, _palette_png(index, palette, alpha), visible, opacity, colours)


def _jpeg(light: np.ndarray, largest: int) -> str:
    """Return a picture (0 to 1, rows × columns × RGB, NaN is grey) as a data URI of at most some `largest` bytes."""
    missing = np.isnan(light).any(axis=-1)
    picture = np.rint(np.nan_to_num(light) * 255).astype("uint8")
    picture[missing] = NODATA_GREY
    for quality in (85, 75, 60, 45, 30):
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
        if encoded.size <= largest:
            break
    return _data_uri("image/jpeg", encoded.tobytes())


def _palette_png(index: np.ndarray, palette: np.ndarray, alpha: np.ndarray) -> str:
    picture = Image.fromarray(index)
    picture.putpalette(np.rint(palette).astype("uint8").tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=np.rint(alpha).astype("uint8").tobytes(), compress_level=6)
    return _data_uri("image/png", file.getvalue())


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


_DRAWN: Sequence[Callable[[Any], list[Layer]]] = (_optical, _terrain, _masks, _probabilities)
