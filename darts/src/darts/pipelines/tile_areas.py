"""The areas of tiles, for which auxiliary data is prepared."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import geopandas as gpd
import pandas as pd

from darts_acquisition import read_areas

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


def tile_areas(tiles: Iterable[tuple[str, int | None, "GeoBox"]]) -> gpd.GeoDataFrame:
    """Return the footprints of tiles (id, year of the scene, grid) in EPSG:4326, cut at the antimeridian.

    Columns: tile_id, year (nullable), pixel_m (side of the tile's pixels), geometry.
    """
    rows = list(tiles)
    footprints = [read_areas(geobox).union_all() for _, _, geobox in rows]
    return gpd.GeoDataFrame(
        {
            "tile_id": [tile_id for tile_id, _, _ in rows],
            "year": pd.array([year for _, year, _ in rows], dtype="Int64"),
            "pixel_m": [max(abs(grid.resolution.x), abs(grid.resolution.y)) for _, _, grid in rows],
        },
        geometry=footprints,
        crs="EPSG:4326",
    )
