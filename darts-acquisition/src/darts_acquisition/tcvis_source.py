"""Landsat trends (TCVIS) from Earth Engine, block by block."""

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from darts_acquisition.earth_engine import EarthEngineSource, connect, get_asset
from darts_acquisition.earth_engine_pixels import fetch_pixels
from darts_acquisition.transfer_report import SILENT, TransferReport
from darts_utils.errors import ConfigError, RemoteError

TCVIS_ASSETS: Mapping[int, str] = MappingProxyType(
    {
        2019: "users/ingmarnitze/TCTrend_SR_2000-2019_TCVIS",
        2020: "users/ingmarnitze/TCTrend_SR_2001-2020_TCVIS",
        2022: "users/ingmarnitze/TCTrend_SR_2003-2022_TCVIS",
        2024: "projects/ee-ingmarnitze/assets/TCTrend_SR_2005-2024_TCVIS",
    }
)
"""Year of a cube → its asset in Earth Engine."""
BANDS: Mapping[str, str] = MappingProxyType({"TCB_slope": "uint8", "TCG_slope": "uint8", "TCW_slope": "uint8"})


def tcvis_fetcher(
    year: int, source: EarthEngineSource, report: TransferReport = SILENT, stop: threading.Event | None = None
) -> Callable[[GeoBox], xr.Dataset]:
    """Connect to Earth Engine and return what fetches a block of the trends; 0 where they have none.

    Args:
        year: of the cube.
        source: how Earth Engine is asked.
        report: hears of the bytes as they come.
        stop: once set, what failed is not asked for again.

    Raises:
        ConfigError: there are no credentials or no project, or no trends for the year.
        RemoteError: the asset cannot be seen; the function raises the same where a block cannot be had.
    """
    if year not in TCVIS_ASSETS:
        raise ConfigError(f"there are trends up to {', '.join(map(str, TCVIS_ASSETS))}, not {year}")
    connect(source)
    asset = TCVIS_ASSETS[year]
    image = _image(asset, source)

    def fetch(block: GeoBox) -> xr.Dataset:
        pixels = fetch_pixels(image, BANDS, block, what=f"asset {asset}", source=source, report=report, stop=stop)
        return xr.Dataset(
            {name: (("y", "x"), values) for name, values in pixels.items()}, coords=xr_coords(block, dims=("y", "x"))
        )

    return fetch


def _image(asset: str, source: EarthEngineSource) -> Any:
    import ee

    kind = get_asset(source, asset).get("type")
    if kind == "IMAGE_COLLECTION":
        return ee.ImageCollection(asset).mosaic()
    if kind == "IMAGE":
        return ee.Image(asset)
    raise RemoteError(f"Earth Engine, asset {asset}: it is {kind}, neither an image nor a collection of images")
