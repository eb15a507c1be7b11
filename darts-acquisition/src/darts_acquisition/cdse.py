"""Sentinel-2 scenes of the Copernicus Data Space, or any other STAC source: searched, downloaded, loaded."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pystac
import xarray as xr

from darts_acquisition import raw_store
from darts_acquisition.scene_ids import parse_cdse_id
from darts_acquisition.sentinel2 import SceneKind, item_id, load_scene_tile, optical_bands
from darts_acquisition.stac_scenes import download_scene, needed_assets
from darts_acquisition.stac_search import get_items, search_s2_sr
from darts_acquisition.stac_sources import CDSE_SOURCE, SCL, StacSource
from darts_acquisition.transfer_report import SILENT, TransferReport
from darts_utils.arrays import Device

CDSE_BANDS: Mapping[str, str] = MappingProxyType(CDSE_SOURCE.bands("blue", "green", "red", "nir"))
"""Asset name → common name, as the Copernicus Data Space names them."""


def load_cdse_s2_sr_scene(
    s2item: Any,
    bands_mapping: Mapping[str, str] = CDSE_BANDS,
    store: Path | str | None = None,
    aws_profile_name: str = "default",
    offline: bool = False,
    device: Device = None,
    *,
    source: StacSource = CDSE_SOURCE,
) -> xr.Dataset:
    """Return a Sentinel-2 Level-2A scene of the Copernicus Data Space as a tile; what the store lacks is downloaded.

    The bands of `bands_mapping` (asset name → common name) are float32 reflectance, NaN where the digital number is 0;
    `s2_scl` and `quality_data_mask` (0, 1, 2) are uint8. Reflectance goes by the stored scale and offset, else by the
    processing baseline. Attributes: see the data contract (`azimuth`, `elevation`, `tile_id`, …).

    Args:
        s2item: a STAC item or its id.
        bands_mapping: what to load; the scene classification always comes with it.
        store: folder of the raw data store; None: nothing is kept.
        aws_profile_name: AWS profile with the keys for downloads.
        offline: never touch the network. Nor is it touched where the store has all that is needed.
        device: where the arrays shall live; None: the best there is.
        source: another STAC API than that of the Copernicus Data Space.

    Raises:
        MissingDataError, MissingBandError: offline, and the store lacks the scene or a band; or the source lacks it.
        RemoteError: a server cannot be reached, refuses, or sends something damaged.
        StoreError, GridMismatchError: the stored scene is damaged, or the store cannot be written.
    """
    scene_id = item_id(s2item)
    if store is None and not offline:
        with tempfile.TemporaryDirectory(prefix="darts-") as folder:
            return load_cdse_s2_sr_scene(s2item, bands_mapping, folder, aws_profile_name, False, device, source=source)
    if store is not None and not offline:
        download_cdse_s2_sr_scene(s2item, store, bands_mapping, aws_profile_name, source=source)
    return load_scene_tile(stac_scene_kind(source), scene_id, bands_mapping, store, device)


def download_cdse_s2_sr_scene(
    s2item: Any,
    store: Path | str,
    bands_mapping: Mapping[str, str] = CDSE_BANDS,
    aws_profile_name: str = "default",
    *,
    source: StacSource = CDSE_SOURCE,
    report: TransferReport = SILENT,
) -> None:
    """Download what the store lacks of a scene; nothing goes over the network where it lacks nothing.

    Args:
        s2item: a STAC item or its id; an id is looked up at the source.
        store: folder of the raw data store.
        bands_mapping: asset name → common name; the scene classification always comes with it.
        aws_profile_name: AWS profile with the keys.
        source: another STAC API than that of the Copernicus Data Space.
        report: hears of the bytes as they come.

    Raises:
        MissingDataError, MissingBandError: the source has no such scene, or the scene no such band.
        RemoteError: a server cannot be reached, refuses, or sends something damaged.
        StoreError, GridMismatchError: the stored scene is damaged, or the store cannot be written.
    """
    bands = optical_bands(bands_mapping)
    scene_id = item_id(s2item)
    if not raw_store.missing_bands(store, source.prefix, scene_id, needed_assets(source, bands)):
        return
    item = s2item if isinstance(s2item, pystac.Item) else get_items(source, [scene_id])[scene_id]
    download_scene(item, store, source, bands, aws_profile_name, report)


def search_cdse_s2_sr(
    intersects: Any = None,
    tiles: list[str] | None = None,
    start_date: str | None = None,
    end_date: str | None = None,
    max_cloud_cover: int | None = 10,
    max_snow_cover: int | None = 10,
    months: list[int] | None = None,
    years: list[int] | None = None,
    *,
    source: StacSource = CDSE_SOURCE,
) -> dict[str, pystac.Item]:
    """Return the scenes of the Copernicus Data Space that fit, id → item; see `stac_search.search_s2_sr`."""
    return search_s2_sr(source, intersects, tiles, start_date, end_date, max_cloud_cover, max_snow_cover, months, years)


def stac_scene_kind(source: StacSource) -> SceneKind:
    """Return how the scenes of a STAC source are to be read from the raw data store."""
    is_cdse = source.name == CDSE_SOURCE.name
    option = "" if is_cdse else f"--raw-data-source {source.name} "
    return SceneKind(
        prefix=source.prefix,
        scl=source.assets[SCL],
        data_source=f"Sentinel-2 Level-2A, {'Copernicus Data Space' if is_cdse else source.name}",
        advice=f"`darts prepare-data sentinel2 {option}--optical`, with internet, fetches it",
        parse_id=parse_cdse_id,
    )
