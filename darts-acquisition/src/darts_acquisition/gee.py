"""Sentinel-2 scenes of Earth Engine: into the raw data store, and from it to tiles."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from darts_acquisition import raw_store
from darts_acquisition.earth_engine import GEE_SOURCE, EarthEngineSource, connect
from darts_acquisition.earth_engine_pixels import fetch_strips
from darts_acquisition.gee_items import GeeItem, asset_id, get_gee_item
from darts_acquisition.raw_store import SceneUpdate
from darts_acquisition.scene_ids import baseline_has_offset
from darts_acquisition.sentinel2 import GEE_BANDS, GEE_SCENES, item_id, load_scene_tile, optical_bands
from darts_acquisition.stac_items import BASELINE_OFFSET, SCALE
from darts_acquisition.transfer_report import SILENT, TransferReport
from darts_utils.arrays import Device
from darts_utils.errors import RemoteError


def load_gee_s2_sr_scene(
    s2item: Any,
    bands_mapping: Mapping[str, str] = GEE_BANDS,
    store: Path | str | None = None,
    offline: bool = False,
    device: Device = None,
    *,
    source: EarthEngineSource = GEE_SOURCE,
) -> xr.Dataset:
    """Return a Sentinel-2 Level-2A scene of Earth Engine as a tile; see `load_cdse_s2_sr_scene`.

    Online, what the store lacks is downloaded first; a scene that the store has asks nothing of the network.

    Args:
        s2item: a `GeeItem` of `search_gee_s2_sr`, or the id of a scene.
        bands_mapping: name in Earth Engine → common name; the scene classification always comes with it.
        store: folder of the raw data store; None: the scene is downloaded and not kept.
        offline: never touch the network.
        device: where the arrays shall live; None: the best there is.
        source: how Earth Engine is asked.

    Raises:
        MissingDataError, MissingBandError: offline, and the store lacks the scene or a band.
        RemoteError: Earth Engine does not have it, cannot be reached, or refuses.
        ConfigError: there are no credentials or no project, or offline without a store.
        StoreError, GridMismatchError: the stored scene is damaged, or the store cannot be written.
    """
    if store is None and not offline:
        with tempfile.TemporaryDirectory(prefix="darts-") as folder:
            return load_gee_s2_sr_scene(s2item, bands_mapping, folder, False, device, source=source)
    if store is not None and not offline:
        download_gee_s2_sr_scene(s2item, store, bands_mapping, source=source)
    return load_scene_tile(GEE_SCENES, gee_scene_id(s2item), bands_mapping, store, device)


def download_gee_s2_sr_scene(
    s2item: Any,
    store: Path | str,
    bands_mapping: Mapping[str, str] = GEE_BANDS,
    *,
    source: EarthEngineSource = GEE_SOURCE,
    report: TransferReport = SILENT,
) -> None:
    """Bring the bands of a scene that the store lacks into it, with the scene classification.

    All bands lie on the scene's grid of 10 m; those of 20 and 60 m come with each pixel repeated. A scene that is
    absent appears with all bands or not at all. Earth Engine is not asked if nothing is missing; another process that
    fetches the same scene is waited for, and what it fetched is not fetched again.

    Args:
        s2item: a `GeeItem` of `search_gee_s2_sr`, or the id of a scene.
        store: folder of the raw data store.
        bands_mapping: name in Earth Engine → common name.
        source: how Earth Engine is asked.
        report: hears of the bytes as they come.

    Raises:
        RemoteError: Earth Engine does not have the scene or a band, cannot be reached, or refuses; the store is as it
            was.
        ConfigError: there are no credentials or no project.
        GridMismatchError: the scene in the store is on another grid.
        StoreError: the store cannot be written; it is as it was.
    """
    scene_id = gee_scene_id(s2item)
    needed = _needed(bands_mapping)
    if not raw_store.missing_bands(store, raw_store.GEE, scene_id, needed):
        return
    with raw_store.updating_scene(store, raw_store.GEE, scene_id) as update:
        missing = update.missing(needed)
        if missing:
            connect(source)
            item = s2item if isinstance(s2item, GeeItem) else get_gee_item(scene_id, source)
            _download(item, missing, update, source, report)


def gee_download_size(
    s2item: Any, store: Path | str | None, bands_mapping: Mapping[str, str] = GEE_BANDS
) -> int | None:
    """Return the bytes of pixels that `download_gee_s2_sr_scene` would fetch, before compression on the way.

    None where that takes a question to Earth Engine: for a scene named by id that the store lacks.
    """
    scene_id, needed = gee_scene_id(s2item), _needed(bands_mapping)
    missing = needed if store is None else raw_store.missing_bands(store, raw_store.GEE, scene_id, needed)
    if not missing:
        return 0
    if isinstance(s2item, GeeItem):
        geobox = s2item.geobox
    elif store is not None and raw_store.scene_exists(store, raw_store.GEE, scene_id):
        geobox = raw_store.open_scene(store, raw_store.GEE, scene_id).info.geobox
    else:
        return None
    height, width = geobox.shape.yx
    return sum(height * width * np.dtype(_dtype(band)).itemsize for band in missing)


def gee_scene_id(s2item: Any) -> str:
    """Return the id of a scene without the collection in front.

    Raises:
        ConfigError: neither an item nor an id.
    """
    return item_id(s2item).rpartition("/")[2]


def _needed(bands_mapping: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys([*optical_bands(bands_mapping), GEE_SCENES.scl]))


def _dtype(band: str) -> str:
    return "uint8" if band == GEE_SCENES.scl else "uint16"


def _download(
    item: GeeItem, bands: tuple[str, ...], update: SceneUpdate, source: EarthEngineSource, report: TransferReport
) -> None:
    import ee

    image = ee.Image(asset_id(item.id, source))
    info = item.scene_info()
    scale, offset = _scaling(item, source)
    with update.writing(info) as writer:
        for band in bands:
            strips = fetch_strips(
                image,
                {band: _dtype(band)},
                item.geobox,
                what=f"scene {item.id}, band {band}",
                source=source,
                report=report,
                rows=raw_store.CHUNK_PX,
            )
            classes = band == GEE_SCENES.scl
            writer.add_band(
                band,
                ((rows, values[band]) for rows, values in strips),
                dtype=_dtype(band),
                scale=None if classes else scale,
                offset=None if classes else offset,
            )


def _scaling(item: GeeItem, source: EarthEngineSource) -> tuple[float, float]:
    """Return scale and offset: the harmonised collection has the offset of newer baselines taken off already."""
    if source.collection.endswith("_HARMONIZED"):
        return SCALE, 0.0
    if item.baseline is None:
        raise RemoteError(
            f"Earth Engine, scene {item.id}: {source.collection} does not tell its processing baseline, on which the "
            "offset of reflectance depends. Take COPERNICUS/S2_SR_HARMONIZED."
        )
    return SCALE, BASELINE_OFFSET if baseline_has_offset(item.baseline) else 0.0
