"""A synthetic Arctic landscape as Sentinel-2, ArcticDEM and the Landsat trends would show it, with its true slumps."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import geopandas as gpd
import numpy as np
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio import Affine, features
from shapely.geometry import shape as to_geometry
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

from darts.demo.auxiliary import render_dem, render_trend
from darts.demo.canvas import Canvas, shade
from darts.demo.ground import add_bluffs, add_burns, add_lakes, add_river, add_rocks, add_snow, grow_vegetation
from darts.demo.noise import soften, stream
from darts.demo.relief import PIXEL_M, build_relief
from darts.demo.sky import build_sky, classify, look_through
from darts.demo.slumps import Slump, label_slumps, paint_slumps, plant_slumps
from darts.demo.types import Field, Labels, Mask
from darts_utils.errors import ConfigError
from darts_utils.sun import sun_position

BANDS = ("blue", "green", "red", "nir")
MARGIN_PX = 64
"""Ground rendered around the scene, so that DEM and trends reach beyond it."""
CRS = "EPSG:32608"
CENTRAL_MERIDIAN = -135.0
MGRS_TILE = "08WMB"
TILE_CORNER = (399_960, 7_700_040)
"""Upper left corner of the Sentinel-2 tile (metres east, metres north); its pixels lie on multiples of 60 m."""
TILE_PX = 10_980
SCALE, OFFSET = 1e-4, -0.1
"""Reflectance = DN × scale + offset, as in processing baseline 05.11; DN 0 is nodata."""
PROCESSING_BASELINE = "05.11"


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """One synthetic scene with its auxiliary data and the truth; all arrays are (y, x) or (band, y, x)."""

    seed: int
    scene_id: str
    """In the form of the Copernicus Data Space."""
    acquisition_time: datetime
    """UTC."""
    sun_azimuth: float
    """Degrees clockwise from true north."""
    sun_elevation: float
    """Degrees above the horizon."""
    geobox: GeoBox
    """Grid of the scene, 10 m, UTM."""
    digital_numbers: Field
    """uint16 (blue, green, red, nir), 0 is nodata; reflectance = DN × 1e-4 − 0.1."""
    scl: Field
    """uint8 scene classification at 10 m, 0 where there is no data."""
    dem_geobox: GeoBox
    """Grid of the DEM, 10 m, EPSG:3413."""
    dem: Field
    """float32 metres, NaN in holes and outside the ground that was rendered."""
    trend_geobox: GeoBox
    """Grid of the trends, 0.0002695°, EPSG:4326."""
    trend: Field
    """uint8 (brightness, greenness, wetness), 128 is no change, 0 is missing."""
    elevation: Field
    """float32 metres on the scene's grid: what the DEM shows without holes."""
    truth: Labels
    """int32: number of the active slump at each pixel, 0 elsewhere."""
    polygons: gpd.GeoDataFrame
    """Outlines of slumps, UTM: id, kind ("slump" is a target, "stabilised" is not), age_years, area_m2."""


def generate_landscape(
    seed: int, size: int = 1024, *, cloud_cover: float | None = None, nodata: bool = True
) -> Landscape:
    """Return the landscape of a seed; the same arguments give the same bytes.

    `size` is the scene's side in pixels, 128 or more; `cloud_cover` the share of cloud (None: drawn, 2 to 9 %);
    `nodata` whether the edge of the swath cuts a corner off.

    Raises:
        ConfigError: an argument is outside its range.
    """
    if not 128 <= size <= TILE_PX:
        raise ConfigError(f"size must be between 128 and {TILE_PX} pixels, got {size}")
    if cloud_cover is not None and not 0 <= cloud_cover < 1:
        raise ConfigError(f"cloud_cover must be a share in [0, 1), got {cloud_cover}")
    rng = stream(seed, "scene")
    geobox, full_geobox = _place(rng, size)
    time, scene_id = _acquisition(rng)
    longitude, latitude = _centre(geobox)
    azimuth, height = sun_position(longitude, latitude, time)
    convergence = np.degrees(
        np.arctan(np.tan(np.radians(longitude - CENTRAL_MERIDIAN)) * np.sin(np.radians(latitude)))
    )  # fmt: skip
    grid_azimuth = azimuth - float(convergence)

    canvas, slumps = _build_ground(seed, (full_geobox.shape.y, full_geobox.shape.x))
    light = shade(canvas.elevation, grid_azimuth, height)
    inner = (slice(MARGIN_PX, MARGIN_PX + size), slice(MARGIN_PX, MARGIN_PX + size))
    ground = canvas.reflectance * np.where(canvas.water, 1, light)
    for band in range(4):
        ground[band] = soften(ground[band], 0.45)
    cover = float(rng.uniform(0.02, 0.09)) if cloud_cover is None else cloud_cover
    sky = build_sky(seed, (size, size), grid_azimuth, height, cover)
    seen = look_through(seed, ground[:, *inner], sky)
    scl = classify(seen, sky, light[inner], canvas.water[inner], canvas.snow[inner])
    numbers = np.clip(np.rint((seen - OFFSET) / SCALE), 1, 65535).astype("uint16")
    if nodata:
        beyond = _beyond_swath(rng, size)
        scl[beyond] = 0
        numbers[:, beyond] = 0
    truth = label_slumps(slumps, canvas.shape, active=True)[inner]
    stable = label_slumps(slumps, canvas.shape, active=False)[inner]
    dem, dem_geobox = render_dem(seed, canvas.elevation, canvas.water, full_geobox)
    trend, trend_geobox = render_trend(seed, canvas.trend, full_geobox)
    return Landscape(
        seed=seed, scene_id=scene_id, acquisition_time=time, sun_azimuth=azimuth, sun_elevation=height, geobox=geobox,
        digital_numbers=numbers, scl=scl, dem_geobox=dem_geobox, dem=dem, trend_geobox=trend_geobox, trend=trend,
        elevation=canvas.elevation[inner].copy(), truth=truth.copy(),
        polygons=_outlines(slumps, truth + stable, geobox),
    )  # fmt: skip


def _build_ground(seed: int, shape: tuple[int, int]) -> tuple[Canvas, list[Slump]]:
    """Lay cover upon cover; later ones lie on top."""
    relief = build_relief(seed, shape)
    canvas = grow_vegetation(seed, relief)
    add_burns(seed, canvas)
    taken: Mask = (relief.shore_px < 6) | (relief.river_px < relief.floodplain_px + 3)
    slumps, canvas.elevation = plant_slumps(seed, relief, taken)
    free = label_slumps(slumps, shape, active=True) + label_slumps(slumps, shape, active=False) == 0
    free = soften(~free, 2.0) < 0.02
    add_bluffs(seed, canvas, relief, free)
    add_rocks(seed, canvas, relief, free & (relief.shore_px > 3) & (relief.river_px > relief.floodplain_px))
    add_river(seed, canvas, relief)
    add_lakes(seed, canvas, relief, free)
    paint_slumps(seed, canvas, slumps)
    add_snow(seed, canvas, relief, free & ~canvas.water)
    return canvas, slumps


def _place(rng: np.random.Generator, size: int) -> tuple[GeoBox, GeoBox]:
    """Draw where in the tile the scene lies; return its grid, and that with the margin."""
    # Even offsets keep the 20 m blocks of the scene classification on the tile's grid.
    col, row = (int(rng.integers(0, (TILE_PX - size) // 2 + 1)) * 2 for _ in range(2))
    transform = Affine.translation(TILE_CORNER[0] + col * PIXEL_M, TILE_CORNER[1] - row * PIXEL_M)
    transform *= Affine.scale(PIXEL_M, -PIXEL_M)
    geobox = GeoBox((size, size), transform, CRS)
    return geobox, geobox.pad(MARGIN_PX)


def _acquisition(rng: np.random.Generator) -> tuple[datetime, str]:
    time = datetime(2024, 7, 25, 20, 30, tzinfo=UTC)
    time += timedelta(days=int(rng.integers(0, 24)), seconds=int(rng.integers(0, 2400)))
    satellite = "AB"[int(rng.integers(0, 2))]
    processed = time + timedelta(seconds=int(rng.integers(9_000, 14_000)))
    stamp = "%Y%m%dT%H%M%S"
    return time, f"S2{satellite}_MSIL2A_{time:{stamp}}_N0511_R014_T{MGRS_TILE}_{processed:{stamp}}"


def _centre(geobox: GeoBox) -> tuple[float, float]:
    """Longitude and latitude of a grid's centre."""
    x, y = geobox.transform * (geobox.shape[1] / 2, geobox.shape[0] / 2)
    longitude, latitude = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform(x, y)
    return float(longitude), float(latitude)


def _beyond_swath(rng: np.random.Generator, size: int) -> Mask:
    """The corner that the swath's slanted edge cuts off."""
    row, col = np.ogrid[:size, :size]
    if rng.random() < 0.5:
        col = size - 1 - col
    if rng.random() < 0.5:
        row = size - 1 - row
    return np.asarray(col + row * rng.uniform(0.22, 0.4) < size * rng.uniform(0.06, 0.16))


def _outlines(slumps: list[Slump], labels: Labels, geobox: GeoBox) -> gpd.GeoDataFrame:
    """Outlines of all slumps with a pixel in the scene, in the order of their numbers."""
    parts: dict[int, list[BaseGeometry]] = {}
    for outline, number in features.shapes(labels, mask=labels > 0, connectivity=8, transform=geobox.transform):
        parts.setdefault(int(number), []).append(to_geometry(outline))
    rows = [
        {
            "id": slump.number,
            "kind": "slump" if slump.active else "stabilised",
            "age_years": round(slump.age_years, 1),
            "geometry": unary_union(parts[slump.number]),
        }
        for slump in slumps
        if slump.number in parts
    ]
    frame = gpd.GeoDataFrame(rows, columns=["id", "kind", "age_years", "geometry"], geometry="geometry", crs=CRS)
    frame.insert(3, "area_m2", frame.area)
    return frame
