"""Draw the terrain features of the demo and of a real DEM side by side, for docs/terrain.md.

    python tools/terrain_pictures.py --data FOLDER [--out docs/images]

FOLDER holds the sample DEMs; without it the demo alone is drawn. Both pictures are the same each time. An arrow shows
which way the sunlight travels over the hillshade, a wheel what the colours of the aspect mean.
"""

import argparse
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox

from darts.demo import generate_landscape, load_demo_tile, write_demo_data
from darts_preprocessing import (
    calculate_aspect,
    calculate_curvature,
    calculate_hillshade,
    calculate_slope,
    calculate_topographic_position_index,
)
from darts_utils.grids import crop, meridian_convergence, on_grid

SEED, SIZE_PX = 7, 320
DEM_FILE, DEM_WINDOW, DEM_SUN, DEM_RADIUS_M = "ASTER_Finse.tif", np.s_[20:110, 120:210], (310.0, 25.0), 500
"""The real DEM, what is drawn of it, a sun for it (azimuth and elevation, degrees), radius of relative elevation."""

SMALLEST_PANEL_PX = 300
GAP_PX, LABEL_PX = 6, 24
PAPER, INK, NOTHING = (255, 255, 255), (40, 40, 40), (205, 205, 205)
JPEG_QUALITY = 78

LAND = [(34, 68, 96), (70, 126, 104), (174, 176, 110), (200, 160, 110), (150, 110, 90), (250, 250, 250)]
HEAT = [(255, 250, 225), (250, 200, 110), (225, 110, 60), (150, 35, 70), (50, 10, 60)]
BALANCE = [(30, 70, 150), (120, 170, 220), (247, 247, 247), (230, 150, 110), (160, 30, 40)]
GREEN = [(120, 80, 50), (220, 200, 150), (130, 180, 90), (10, 90, 30)]
GRAY = [(0, 0, 0), (255, 255, 255)]
COMPASS = [(215, 50, 50), (235, 205, 60), (70, 165, 80), (60, 95, 200), (215, 50, 50)]
"""North red, east yellow, south green, west blue, and red again."""


@dataclass(frozen=True)
class Style:
    """How a feature is drawn."""

    label: str
    colours: Sequence[tuple[int, int, int]]
    low: float | None = None
    """Value of the first colour; None: taken from the data."""
    high: float | None = None
    unit: str = ""
    around_zero: bool = False
    """Whether the colours lie evenly around 0."""


STYLES = {
    "dem": Style("elevation", LAND, unit=" m"),
    "ndvi": Style("ndvi", GREEN, -0.2, 0.8),
    "relative_elevation": Style("relative_elevation", BALANCE, unit=" m", around_zero=True),
    "slope": Style("slope", HEAT, 0, unit=" deg"),
    "aspect": Style("aspect", COMPASS, 0, 360, " deg"),
    "hillshade": Style("hillshade", GRAY),
    "curvature": Style("curvature", BALANCE, unit=" / 100 m", around_zero=True),
}


def main() -> None:
    """Draw what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of the sample data, with dem/ in it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "images")
    options = parser.parse_args()
    write_picture(options.out / "terrain-demo.jpg", draw_demo())
    if options.data is not None:
        write_picture(options.out / "terrain-real.jpg", draw_dem(options.data / "dem" / DEM_FILE))


def draw_demo() -> np.ndarray:
    """Return the demo's tile as the pipeline sees it: the scene, its NDVI and its terrain, uint8 (y, x, RGB)."""
    landscape = generate_landscape(SEED, SIZE_PX, cloud_cover=0, nodata=False)
    with tempfile.TemporaryDirectory() as folder:
        tile = load_demo_tile(write_demo_data(landscape, folder)).load()
    scene = np.stack([tile[name].values for name in ("red", "green", "blue")], axis=-1)
    # A root brings out what is dark, as most of the tundra is.
    colours = np.sqrt(np.clip(np.nan_to_num(scene) / 0.25, 0, 1))
    names = ["ndvi", "dem", "relative_elevation", "slope", "aspect", "hillshade", "curvature"]
    sun = landscape.sun_azimuth, landscape.sun_elevation
    pictures = [labelled(enlarged((255 * colours).astype("uint8")), "scene"), *panels(tile, names, sun[0])]
    return arranged(pictures, columns=4)


def draw_dem(path: Path) -> np.ndarray:
    """Return the terrain of a DEM in a file, uint8 (y, x, RGB)."""
    with rasterio.open(path) as file:
        values = file.read(1, masked=True).astype("float32").filled(np.nan)
        geobox = GeoBox(file.shape, file.transform, file.crs.to_wkt())
    tile = xr.Dataset({"dem": on_grid(values, geobox)})
    tile = calculate_topographic_position_index(tile, DEM_RADIUS_M).rename(tpi="relative_elevation")
    tile = calculate_hillshade(calculate_aspect(calculate_slope(tile)), *DEM_SUN)
    tile = crop(calculate_curvature(tile), geobox[DEM_WINDOW])
    names = ["dem", "relative_elevation", "curvature", "slope", "aspect", "hillshade"]
    return arranged(panels(tile, names, DEM_SUN[0]), columns=3)


def panels(tile: xr.Dataset, names: Sequence[str], sun_azimuth: float) -> list[np.ndarray]:
    """Return a picture of each feature; the sun's azimuth in degrees from true north."""
    pictures = []
    for name in names:
        style, values = STYLES[name], tile[name].values
        low, high = limits(style, values)
        picture = enlarged(coloured(values, style.colours, low, high))
        if name == "hillshade":
            convergence = float(meridian_convergence(tile.odc.geobox).mean())
            draw_sun(picture, sun_azimuth - convergence)
        if name == "aspect":
            draw_wheel(picture)
        text = f"{style.label}, {_number(low)} to {_number(high)}{style.unit}"
        pictures.append(labelled(picture, text))
    return pictures


def limits(style: Style, values: np.ndarray) -> tuple[float, float]:
    """Return the values of the first and the last colour; where the style leaves them open, nearly all values fit."""
    low, high = np.nanpercentile(values, [2, 98])
    if style.around_zero:
        high = max(abs(low), abs(high))
        low = -high
    return (float(low) if style.low is None else style.low), (float(high) if style.high is None else style.high)


def coloured(values: np.ndarray, colours: Sequence[tuple[int, int, int]], low: float, high: float) -> np.ndarray:
    """Return values (y, x) in colours, uint8 (y, x, RGB); what is missing is light grey."""
    place = np.clip((values - low) / (high - low), 0, 1) * (len(colours) - 1)
    steps = np.arange(len(colours))
    picture = np.stack([np.interp(place, steps, channel) for channel in zip(*colours, strict=True)], axis=-1)
    picture[~np.isfinite(values)] = NOTHING
    return np.rint(picture).astype("uint8")


def enlarged(picture: np.ndarray) -> np.ndarray:
    """Return a picture large enough to be seen, its pixels sharp."""
    factor = math.ceil(SMALLEST_PANEL_PX / max(picture.shape[:2]))
    return np.ascontiguousarray(picture.repeat(factor, axis=0).repeat(factor, axis=1))


def draw_sun(picture: np.ndarray, grid_azimuth: float) -> None:
    """Draw a sun where it stands, seen from above, and an arrow the way its light travels."""
    towards = np.array([math.sin(math.radians(grid_azimuth)), -math.cos(math.radians(grid_azimuth))])
    middle = np.array(picture.shape[1::-1]) / 2
    sun, tip = (tuple(np.rint(middle + towards * share * middle.min()).astype(int).tolist()) for share in (0.92, 0.62))
    for colour, width in ((INK, 5), ((255, 200, 40), 2)):
        cv2.arrowedLine(picture, sun, tip, colour, width, cv2.LINE_AA, tipLength=0.3)
        cv2.circle(picture, sun, 7 + width // 2, colour, -1, cv2.LINE_AA)


def draw_wheel(picture: np.ndarray) -> None:
    """Draw into the lower right corner which colour looks which way."""
    radius = 26
    rows, cols = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    angle = np.degrees(np.arctan2(cols, -rows)) % 360
    angle[np.hypot(rows, cols) > radius] = np.nan
    wheel = coloured(angle, COMPASS, 0, 360)
    inside = np.isfinite(angle)
    centre = (picture.shape[1] - radius - 5, picture.shape[0] - radius - 5)
    cv2.circle(picture, centre, radius + 4, PAPER, -1, cv2.LINE_AA)
    corner = picture[-2 * radius - 5 : -4, -2 * radius - 5 : -4]
    corner[inside] = wheel[inside]
    cv2.circle(picture, centre, radius, INK, 1, cv2.LINE_AA)
    _write(picture, "N", (centre[0] - 5, centre[1] - radius + 13), PAPER)


def labelled(picture: np.ndarray, text: str) -> np.ndarray:
    """Return a picture with a line of text above it."""
    label = np.full((LABEL_PX, picture.shape[1], 3), PAPER, "uint8")
    _write(label, text, (2, LABEL_PX - 8), INK)
    return np.concatenate([label, picture])


def arranged(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Return pictures of one size in rows, with gaps of paper."""
    framed = [
        cv2.copyMakeBorder(picture, 0, GAP_PX, 0, GAP_PX, cv2.BORDER_CONSTANT, value=PAPER) for picture in pictures
    ]
    rows = [np.concatenate(framed[start : start + columns], axis=1) for start in range(0, len(framed), columns)]
    return np.concatenate(rows)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture (y, x, RGB) as JPEG and say how large it has become."""
    _, encoded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    path.write_bytes(encoded.tobytes())
    print(f"{path}: {picture.shape[1]} × {picture.shape[0]} pixels, {len(encoded) / 1000:.0f} kB")


def _write(picture: np.ndarray, text: str, place: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.2g}"


if __name__ == "__main__":
    main()
