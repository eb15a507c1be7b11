"""Sentinel-2 scenes from the raw data store to tiles: reflectance, scene classification, quality."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.xr import xr_coords

from darts_acquisition import raw_store
from darts_acquisition.quality import quality_from_scl, quality_from_valid
from darts_acquisition.raw_scene import RawScene
from darts_acquisition.scene_ids import SceneId, baseline_has_offset, parse_gee_id
from darts_acquisition.stac_items import BASELINE_OFFSET, SCALE, stored_id
from darts_acquisition.times import iso_utc
from darts_utils import bands as band_table
from darts_utils.arrays import Device, resolve_array_device, to_device
from darts_utils.errors import ConfigError, MissingBandError, MissingDataError, StoreError

GEE_BANDS: Mapping[str, str] = MappingProxyType({"B2": "blue", "B3": "green", "B4": "red", "B8": "nir"})
"""Band name → common name, as Earth Engine names them."""
IMPORT_BANDS: Mapping[str, str] = MappingProxyType({name: name for name in ("blue", "green", "red", "nir")})


@dataclass(frozen=True, kw_only=True)
class SceneKind:
    """How the scenes under one prefix of the raw data store are to be read."""

    prefix: str
    scl: str
    """Asset name of the scene classification."""
    data_source: str
    """Stands in the attributes of every band."""
    advice: str
    """What to do where the store lacks something; ends a sentence."""
    needs_scl: bool = True
    """A scene without its classification is not complete."""
    offset_by_baseline: bool = True
    """Where the store has no scale and offset, the processing baseline decides; else there is no offset."""
    parse_id: Callable[[str], SceneId] | None = None
    """Reads time and baseline off the id, where the store has them not."""


GEE_SCENES = SceneKind(
    prefix=raw_store.GEE,
    scl="SCL",
    data_source="Sentinel-2 Level-2A, Google Earth Engine",
    advice="`darts prepare-data sentinel2 --raw-data-source gee --optical`, with internet, fetches it",
    # Digital numbers of the harmonised collection carry no offset at any processing baseline.
    offset_by_baseline=False,
    parse_id=parse_gee_id,
)
IMPORTED_SCENES = SceneKind(
    prefix=raw_store.IMPORT,
    scl="scl",
    data_source="imported scene",
    advice="`darts import-scene` puts a GeoTIFF of yours there",
    needs_scl=False,
)


def load_scene_tile(
    kind: SceneKind, scene_id: str, bands_mapping: Mapping[str, str], store: Path | str | None, device: Device = None
) -> xr.Dataset:
    """Return a scene of the raw data store as a tile.

    The bands of `bands_mapping` (asset name → common name) are float32 reflectance, NaN where the digital number is 0;
    `s2_scl` (where there is one) and `quality_data_mask` (0, 1, 2) are uint8. Reflectance goes by the stored scale and
    offset, else by the processing baseline. Attributes: see the data contract (`azimuth`, `elevation`, `tile_id`, …).

    Raises:
        MissingDataError, MissingBandError: the store lacks the scene or a band; says how to get it.
        ConfigError: `bands_mapping` cannot work, or there is no store.
        StoreError, GridMismatchError: the stored scene is damaged.
    """
    if store is None:
        raise ConfigError("offline, scenes come from the raw data store: pass its folder as `store`")
    optical = optical_bands(bands_mapping)
    scene = _open(kind, scene_id, [*optical, *([kind.scl] if kind.needs_scl else [])], store)
    target = resolve_array_device(device)

    tile: dict[str, xr.DataArray] = {}
    with _on(target) as xp:
        valid = xp.ones(scene.info.geobox.shape.yx, bool)
        for asset, name in optical.items():
            tile[name] = _variable(_read_reflectance(scene, asset, kind, valid, target, xp), name, kind)
        if kind.scl in scene.bands:
            classes = to_device(_read_classes(scene, kind.scl), target)
            tile["s2_scl"] = _variable(classes, "s2_scl", kind)
            quality = quality_from_scl(classes, valid)
        else:
            quality = quality_from_valid(valid)
        tile["quality_data_mask"] = _variable(quality, "quality_data_mask", kind)
    return xr.Dataset(
        tile,
        coords=xr_coords(scene.info.geobox, dims=("y", "x")),
        attrs=_attrs(scene, kind) | {"quality_source": "SCL" if "s2_scl" in tile else "valid pixels"},
    )


def load_imported_scene(
    scene_id: str,
    store: Path | str,
    bands_mapping: Mapping[str, str] = IMPORT_BANDS,
    device: Device = None,
) -> xr.Dataset:
    """Return a scene that `import_scene` put into the store as a tile; see `load_scene_tile`.

    Without a scene classification there is no `s2_scl`, and quality is 2 where all bands are valid
    (`quality_source`: valid pixels).
    """
    return load_scene_tile(IMPORTED_SCENES, scene_id, bands_mapping, store, device)


def item_id(s2item: Any) -> str:
    """Return the id of a STAC item, or the id itself.

    Raises:
        ConfigError: neither.
    """
    scene_id = s2item if isinstance(s2item, str) else getattr(s2item, "id", None)
    if not isinstance(scene_id, str) or not scene_id:
        raise ConfigError(f"expected a STAC item or its id, got {s2item!r}")
    return stored_id(scene_id)


def optical_bands(bands_mapping: Mapping[str, str]) -> dict[str, str]:
    """Return a mapping from asset name to common name without the scene classification.

    Raises:
        ConfigError: it is no mapping, names no band or one twice, or one that is no optical band.
    """
    if not isinstance(bands_mapping, Mapping):
        raise ConfigError(f"bands_mapping must map asset names to common names, got {bands_mapping!r}")
    optical = {asset: name for asset, name in bands_mapping.items() if name != "s2_scl"}
    for name in optical.values():
        if band_table.band(name).disk != "uint16":
            raise ConfigError(f"bands_mapping names {name!r}, which is not an optical band")
    if not optical or len(set(optical.values())) < len(optical):
        raise ConfigError(f"bands_mapping must name at least one band, and each once, got {dict(bands_mapping)}")
    return optical


def _open(kind: SceneKind, scene_id: str, needed: list[str], store: Path | str) -> RawScene:
    """Return the scene if the store has all of `needed`; else say what is missing and what to do."""
    try:
        scene = raw_store.open_scene(store, kind.prefix, scene_id)
        scene.require(*needed)
    except (MissingDataError, MissingBandError) as error:
        raise type(error)(f"{error}; {kind.advice}") from error
    return scene


def _read_reflectance(scene: RawScene, asset: str, kind: SceneKind, valid: Any, device: str, xp: ModuleType) -> Any:
    """Return a band as float32 reflectance with NaN for DN 0, and clear `valid` there."""
    if scene.dtype(asset) != np.uint16:
        raise StoreError(
            f"scene {scene.info.scene_id}: {scene.path / asset} is {scene.dtype(asset)}, no digital numbers"
        )
    scale, offset = _scaling(scene, asset, kind)
    reflectance = xp.empty(valid.shape, "float32")
    for rows, host_dn in scene.strips(asset):
        dn = to_device(host_dn, device)
        part = reflectance[rows]
        xp.multiply(dn, np.float32(scale), out=part)
        part += np.float32(offset)
        missing = dn == 0
        part[missing] = xp.nan
        valid[rows] &= ~missing
    return reflectance


def _read_classes(scene: RawScene, asset: str) -> np.ndarray:
    if scene.dtype(asset) != np.uint8:
        raise StoreError(f"scene {scene.info.scene_id}: {scene.path / asset} is {scene.dtype(asset)}, no classes")
    return np.concatenate([classes for _, classes in scene.strips(asset)])


def _scaling(scene: RawScene, asset: str, kind: SceneKind) -> tuple[float, float]:
    """Return scale and offset: the stored ones, else those of the processing baseline."""
    stored = scene.scaling(asset)
    if stored is not None:
        return stored
    if not kind.offset_by_baseline:
        return SCALE, 0.0
    baseline = scene.info.processing_baseline
    if baseline is None and kind.parse_id is not None:
        with contextlib.suppress(ConfigError):
            baseline = kind.parse_id(scene.info.scene_id).processing_baseline
    if baseline is None:
        raise StoreError(
            f"scene {scene.info.scene_id}, band {asset}: {scene.path} gives neither scale and offset nor a processing "
            "baseline; import the scene again"
        )
    return SCALE, BASELINE_OFFSET if baseline_has_offset(baseline) else 0.0


def _attrs(scene: RawScene, kind: SceneKind) -> dict[str, Any]:
    info = scene.info
    acquired = info.acquired
    if acquired is None and kind.parse_id is not None:
        with contextlib.suppress(ConfigError):
            acquired = kind.parse_id(info.scene_id).acquired
    attrs = {
        "azimuth": info.sun_azimuth,
        "elevation": info.sun_elevation,
        "tile_id": info.scene_id,
        "image_id": info.scene_id,
        "sensor": info.sensor,
        "acquisition_time": None if acquired is None else iso_utc(acquired),
    }
    return {name: value for name, value in attrs.items() if value is not None}


def _variable(values: Any, name: str, kind: SceneKind) -> xr.DataArray:
    return band_table.describe(xr.DataArray(values, dims=("y", "x")), name, kind.data_source)


@contextlib.contextmanager
def _on(device: str) -> Iterator[ModuleType]:
    """Give the array module of a device, and make that device the current one."""
    if device == "cpu":
        yield np
        return
    import cupy

    with cupy.cuda.Device(int(device.partition(":")[2] or 0)):
        yield cupy
