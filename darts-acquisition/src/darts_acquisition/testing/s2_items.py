"""Small items of Sentinel-2 scenes for searches, named by their tile and time."""

from typing import Any

from shapely.geometry.base import BaseGeometry

from darts_acquisition.mgrs_tiles import tile_geobox
from darts_acquisition.testing.sentinel2 import make_cdse_item


def make_search_item(
    tile: str,
    acquired: str,
    *,
    platform: str = "S2A",
    baseline: str = "05.11",
    made: str = "20241107T123948",
    footprint: BaseGeometry | None = None,
    **properties: Any,
) -> dict[str, Any]:
    """Return an item of a tile with one asset, 1.5 % of cloud and no snow.

    Args:
        tile: MGRS tile, such as `08WMA`.
        acquired: start of the datatake as in ids, `20210821T210029`.
        platform: `S2A`, `S2B` or `S2C`.
        baseline: processing baseline.
        made: product discriminator, as in ids.
        footprint: polygon in longitude and latitude; None: the tile.
        properties: others than the usual ones, `__` for the colon (`eo__cloud_cover=3`); None takes one away.
    """
    return make_cdse_item(
        f"{platform}_MSIL2A_{acquired}_N{baseline.replace('.', '')}_R080_T{tile}_{made}",
        geobox_10m=tile_geobox(tile),
        bands=("B04_10m",),
        cloud_cover=1.5,
        snow_cover=0.0,
        properties={name.replace("__", ":"): value for name, value in properties.items()},
        footprint=footprint,
    )
