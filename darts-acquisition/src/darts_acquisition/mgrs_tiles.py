"""Tiles of the Military Grid Reference System, as Sentinel-2 scenes are cut: their names and where they lie."""

import re

import geopandas as gpd
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_utils.errors import ConfigError

_NAME = re.compile(r"(?:MGRS-)?T?(?P<zone>\d{1,2})(?P<band>[C-HJ-NP-X])(?P<column>[A-HJ-NP-Z])(?P<row>[A-HJ-NP-V])")
_COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_ROWS = "ABCDEFGHJKLMNPQRSTUV"
_BANDS = "CDEFGHJKLMNPQRSTUVWX"
SHAPE = (10980, 10980)
SQUARE_M = 100_000
CYCLE_M = 2_000_000
"""Row letters repeat after 2000 km."""
METRES_PER_DEG = 110_600
"""Of latitude, near enough to tell one cycle from the next."""


def parse_mgrs_tile(name: str) -> str:
    """Return a tile's name in its full form, `08WMA`, from that, `T08WMA`, `8WMA` or `MGRS-8WMA`.

    Raises:
        ConfigError: there is no such tile.
    """
    match = _NAME.fullmatch(name.strip().upper()) if isinstance(name, str) else None
    zone = 0 if match is None else int(match["zone"])
    if match is None or not 1 <= zone <= 60 or match["column"] not in _COLUMNS[(zone - 1) % 3]:
        raise ConfigError(f"{name!r} is no MGRS tile; expected one such as 08WMA or T08WMA")
    return f"{zone:02d}{match['band']}{match['column']}{match['row']}"


def tile_geobox(tile: str) -> GeoBox:
    """Return the grid of a tile's 10 m bands.

    Raises:
        ConfigError: there is no such tile.
    """
    tile = parse_mgrs_tile(tile)
    zone, band, column, row = int(tile[:2]), tile[2], tile[3], tile[4]
    north = band >= "N"
    left = SQUARE_M * (_COLUMNS[(zone - 1) % 3].index(column) + 1)
    bottom = SQUARE_M * ((_ROWS.index(row) - (5 if zone % 2 == 0 else 0)) % 20)
    # Of the squares of this letter, 2000 km apart, the one nearest to the middle of the latitude band.
    middle_deg = 8 * _BANDS.index(band) - 80 + (6 if band == "X" else 4)
    middle = METRES_PER_DEG * middle_deg + (0 if north else 10_000_000)
    bottom += round((middle - bottom) / CYCLE_M) * CYCLE_M
    # The grids of all bands, 60 m ones too, begin at multiples of 60 m.
    left, top = left // 60 * 60, -(-(bottom + SQUARE_M) // 60) * 60
    return GeoBox(SHAPE, Affine(10, 0, left, 0, -10, top), f"EPSG:{(32600 if north else 32700) + zone}")


def tile_area(tile: str) -> gpd.GeoSeries:
    """Return the square of a tile in its UTM zone, for `read_areas`.

    Raises:
        ConfigError: there is no such tile.
    """
    geobox = tile_geobox(tile)
    return gpd.GeoSeries([geobox.extent.geom], crs=str(geobox.crs))
