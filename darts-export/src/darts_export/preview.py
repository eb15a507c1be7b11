"""The thumbnail: natural colours, objects outlined by probability, date and scale bar."""

from pathlib import Path
from typing import Any

import cv2
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from PIL import Image, ImageDraw, ImageFont

from darts_export.metadata import identity
from darts_export.rasters import tile_geobox, transformed
from darts_utils.arrays import to_host

LONGEST_SIDE_PX = 1024
SMALL_TILE_PX = 512
"""Tiles smaller than half of this are enlarged by a whole number, so that one sees something."""

MAX_BYTES = 200_000

BRIGHTEST = 0.2
"""Reflectance shown as white; bare ground in the tundra lies at 0.1 to 0.2, vegetation below."""
GAMMA = 1.5

NODATA_GREY = 216
RAMP = ((0.5, (255, 225, 60)), (0.75, (255, 130, 20)), (1.0, (235, 0, 90)))
"""Colour of an outline by mean probability: yellow, orange, crimson; none of them occurs in the landscape."""

SMALLEST_OUTLINE_PX = 10
"""An object that is smaller on the picture gets a ring around it."""

CAPTION_PX = 30
NARROWEST_CAPTION_PX = 240
_SUBPIXEL_BITS = 4

ROWS_AT_ONCE = 16
"""Rows of the picture that a core makes at a time."""


def write_thumbnail(path: Path, tile: xr.Dataset, objects: gpd.GeoDataFrame | None) -> None:
    """Write the picture of a tile as a JPEG of at most 200 KB; `objects` are its segments, None if it has none."""
    path.write_bytes(_as_jpeg(draw_thumbnail(tile, objects)))


def draw_thumbnail(tile: xr.Dataset, objects: gpd.GeoDataFrame | None) -> Image.Image:
    """Return the picture of a tile.

    The stretch is fixed, so that pictures of different dates compare; without red, green and blue, probabilities are
    shown in grey. Pixels without data are light grey.
    """
    geobox = tile_geobox(tile)
    scale = _picture_scale(geobox.shape)
    size = tuple(max(1, round(side * scale)) for side in geobox.shape)
    picture = _background(tile, size)
    if objects is not None and len(objects):
        to_picture = np.array([size[1] / geobox.shape[1], size[0] / geobox.shape[0]])
        _draw_outlines(picture, objects, ~geobox.affine, to_picture)
    return _with_caption(Image.fromarray(picture), tile, geobox, scale)


def _picture_scale(shape: tuple[int, int]) -> float:
    longest = max(shape)
    if longest > LONGEST_SIDE_PX:
        return LONGEST_SIDE_PX / longest
    return max(1, SMALL_TILE_PX // longest)


def _background(tile: xr.Dataset, size: tuple[int, int]) -> np.ndarray:
    colours = [name for name in ("red", "green", "blue") if name in tile]
    if len(colours) == 3:
        planes = [resized(tile[name], size) for name in colours]
        light = np.stack([np.clip(plane / BRIGHTEST, 0, 1) ** (1 / GAMMA) for plane in planes], axis=-1)
    else:
        light = np.repeat(resized(tile["probabilities"], size)[..., None] * 0.7, 3, axis=-1)
    missing = np.isnan(light).any(axis=-1)
    picture = np.rint(np.nan_to_num(light) * 255).astype("uint8")
    picture[missing] = NODATA_GREY
    return picture


def resized(band: xr.DataArray, size: tuple[int, int]) -> np.ndarray:
    """Return the mean of the valid pixels under each pixel of the picture; NaN where less than half is valid."""
    from darts_export.raster_kernels import mean_boxes

    values = to_host(band.data)
    mean = np.empty(size, "float32")
    # Every few rows are enough for a mean.
    step = max(1, values.shape[0] // (4 * size[0]))
    mean_boxes(-(-size[0] // ROWS_AT_ONCE), ROWS_AT_ONCE, np.asarray(values), step, mean)
    return mean


def _draw_outlines(picture: np.ndarray, objects: gpd.GeoDataFrame, to_pixel: Any, to_picture: np.ndarray) -> None:
    parts, owner = shapely.get_parts(objects.geometry.to_numpy(), return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    points, ring_of_point = shapely.get_coordinates(rings, return_index=True)
    places = transformed(to_pixel, *points.T) * to_picture
    fine = np.rint((places - 0.5) * (1 << _SUBPIXEL_BITS)).astype("int32")
    first = np.searchsorted(ring_of_point, np.arange(len(rings)))
    ring_of_object = np.searchsorted(owner[part], np.arange(len(objects) + 1))
    first_of_object = first[ring_of_object[:-1]]
    low, high = np.minimum.reduceat(fine, first_of_object), np.maximum.reduceat(fine, first_of_object)
    ring_shapes = np.split(fine, first[1:])
    # Dark first, all of them, so that no halo hides a neighbour's outline.
    for halo in (True, False):
        for number, probability in enumerate(objects["mean"]):
            colour = (20, 20, 20) if halo else colour_of(probability)
            thickness = 4 if halo else 2
            if (high[number] - low[number]).max() < SMALLEST_OUTLINE_PX << _SUBPIXEL_BITS:
                centre = ((low[number] + high[number]) // 2).tolist()
                radius = round(0.7 * SMALLEST_OUTLINE_PX * (1 << _SUBPIXEL_BITS))
                cv2.circle(picture, centre, radius, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
            else:
                shapes = ring_shapes[ring_of_object[number] : ring_of_object[number + 1]]
                cv2.polylines(picture, shapes, True, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def colour_of(probability: float) -> tuple[int, int, int]:
    """Return the colour of an outline; without a probability, that of the lowest."""
    stops = [stop for stop, _ in RAMP]
    at = stops[0] if np.isnan(probability) else probability
    red, green, blue = (round(float(np.interp(at, stops, [c[i] for _, c in RAMP]))) for i in range(3))
    return red, green, blue


def _with_caption(picture: Image.Image, tile: xr.Dataset, geobox: Any, scale: float) -> Image.Image:
    """Return the picture above a strip with date, sensor, colours and scale bar, as far as there is room."""
    width, height = picture.size
    if width < NARROWEST_CAPTION_PX:
        return picture
    canvas = Image.new("RGB", (width, height + CAPTION_PX), (250, 250, 250))
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=14)
    middle = height + CAPTION_PX / 2
    ink = (40, 40, 40)
    ids = identity(tile, "")
    date = "" if pd.isna(ids["acquisition_time"]) else f"{ids['acquisition_time']:%Y-%m-%d}"
    label = " ".join(f"{date}  {ids['sensor'] or ''}".strip().splitlines())
    draw.text((10, middle), label, fill=ink, font=font, anchor="lm")
    right = width - 10.0
    if geobox.crs.projected:
        right = _draw_scale_bar(draw, font, right, middle, ink, abs(geobox.resolution.x) / scale, width)
    legend = 150
    if right - legend - 30 > 10 + draw.textlength(label, font=font):
        _draw_legend(draw, font, right - legend - 30, middle, ink)
    return canvas


def _draw_scale_bar(
    draw: ImageDraw.ImageDraw, font: Any, right: float, middle: float, ink: Any, metres_a_px: float, width: int
) -> float:
    longest = metres_a_px * width / 4
    power = 10.0 ** np.floor(np.log10(longest))
    metres = max(step * power for step in (1, 2, 5) if step * power <= longest)
    length = metres / metres_a_px
    text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    left = right - length
    draw.line([(left, middle - 4), (left, middle + 4), (right, middle + 4), (right, middle - 4)], fill=ink, width=2)
    draw.text((left - 8, middle), text, fill=ink, font=font, anchor="rm")
    return float(left - 8 - draw.textlength(text, font=font))


def _draw_legend(draw: ImageDraw.ImageDraw, font: Any, left: float, middle: float, ink: Any) -> None:
    draw.text((left + 26, middle), "50 %", fill=ink, font=font, anchor="rm")
    for step in range(70):
        x = left + 34 + step
        draw.line([(x, middle - 4), (x, middle + 4)], fill=colour_of(0.5 + step / 140))
    draw.text((left + 112, middle), "100 %", fill=ink, font=font, anchor="lm")


def _as_jpeg(picture: Image.Image) -> bytes:
    # OpenCV writes it: Pillow's encoder fails on some noisy pictures when asked to optimize.
    while True:
        for quality in (90, 80, 70, 60, 45):
            options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
            _, encoded = cv2.imencode(".jpg", cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR), options)
            if encoded.size <= MAX_BYTES:
                return encoded.tobytes()
        picture = picture.resize((max(1, picture.width * 3 // 4), max(1, picture.height * 3 // 4)))
