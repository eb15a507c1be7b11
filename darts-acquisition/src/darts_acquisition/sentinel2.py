"""Sentinel-2 scenes from the raw data store to tiles: reflectance, scene classification, quality."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.xr import xr_coords

from darts_acquisition import raw_store
from darts_acquisition.quality import quality_from_scl, quality_from_valid
from darts_acquisition.raw_scene import RawScene
from darts_acquisition.scene_ids import baseline_has_offset, parse_cdse_id, parse_gee_id
from darts_acquisition.times import iso_utc
from darts_utils import bands as band_table
from darts_utils.arrays import Device, resolve_array_device, to_device
from darts_utils.errors import ConfigError, MissingBandError, MissingDataError, NotBuiltError, StoreError

SCALE = 1e-4
BASELINE_OFFSET = -0.1
"""Reflectance = DN × SCALE, and this added from processing baseline 04.00 on, where a store has no scale and offset."""

CDSE_BANDS: Mapping[str, str] = MappingProxyType(
    {"B02_10m": "blue", "B03_10m": "green", "B04_10m": "red", "B08_10m": "nir"}
)
"""Asset name → common name, as the Copernicus Data Space names them."""
CDSE_OTHER_BANDS: Mapping[str, str] = MappingProxyType(
    {
        "B01_20m": "coastal",
        "B05_20m": "rededge071",
        "B06_20m": "rededge075",
        "B07_20m": "rededge078",
        "B8A_20m": "nir08",
        "B09_60m": "nir09",
        "B11_20m": "swir16",
        "B12_20m": "swir22",
    }
)
GEE_BANDS: Mapping[str, str] = MappingProxyType({"B2": "blue", "B3": "green", "B4": "red", "B8": "nir"})
"""Band name → common name, as Earth Engine names them."""
IMPORT_BANDS: Mapping[str, str] = MappingProxyType({name: name for name in ("blue", "green", "red", "nir")})

_SCL = {raw_store.CDSE: "SCL_20m", raw_store.GEE: "SCL", raw_store.IMPORT: "scl"}
_SOURCE = {
    raw_store.CDSE: "Sentinel-2 Level-2A, Copernicus Data Space",
    raw_store.GEE: "Sentinel-2 Level-2A, Google Earth Engine",
    raw_store.IMPORT: "imported scene",
}
_ADVICE = {
    raw_store.CDSE: "`darts prepare-data sentinel2 --optical`, with internet, fetches it",
    raw_store.GEE: "`darts prepare-data sentinel2 --raw-data-source gee --optical`, with internet, fetches it",
    raw_store.IMPORT: "`darts import-scene` puts a GeoTIFF of yours there",
}
_NOT_BUILT = (
    "Downloads are not built yet: put the scene into the raw data store with `darts import-scene`, "
    "or work on data that is on disk already (offline)."
)
_NOT_SEARCHED = "Search is not built yet: name the scenes by id (`scene_ids`) and have them in the raw data store."


def load_cdse_s2_sr_scene(
    s2item: Any,
    bands_mapping: Mapping[str, str] = CDSE_BANDS,
    store: Path | str | None = None,
    aws_profile_name: str = "default",
    offline: bool = False,
    device: Device = None,
) -> xr.Dataset:
    """Return a Sentinel-2 Level-2A scene of the Copernicus Data Space as a tile.

    The bands of `bands_mapping` (asset name → common name) are float32 reflectance, NaN where the digital number is 0;
    `s2_scl` and `quality_data_mask` (0, 1, 2) are uint8. Reflectance goes by the stored scale and offset, else by the
    processing baseline. Attributes: see the data contract (`azimuth`, `elevation`, `tile_id`, …).

    Args:
        s2item: a STAC item or its id.
        bands_mapping: what to load; the scene classification always comes with it.
        store: folder of the raw data store.
        aws_profile_name: AWS profile with the keys for downloads.
        offline: never touch the network.
        device: where the arrays shall live; None: the best there is.

    Raises:
        MissingDataError, MissingBandError: offline, and the store lacks the scene or a band.
        NotBuiltError: not offline, and the store lacks it: downloads come later.
        StoreError, GridMismatchError: the stored scene is damaged.
    """
    scene_id = item_id(s2item)
    return _load(raw_store.CDSE, scene_id, bands_mapping, store, offline, device)


def load_gee_s2_sr_scene(
    s2item: Any,
    bands_mapping: Mapping[str, str] = GEE_BANDS,
    store: Path | str | None = None,
    offline: bool = False,
    device: Device = None,
) -> xr.Dataset:
    """Return a Sentinel-2 Level-2A scene of Earth Engine as a tile; see `load_cdse_s2_sr_scene`.

    Where the store has no scale and offset, the scene is of the harmonised collection, whose digital numbers carry no
    offset at any processing baseline.
    """
    scene_id = item_id(s2item).rpartition("/")[2]
    return _load(raw_store.GEE, scene_id, bands_mapping, store, offline, device)


def load_imported_scene(
    scene_id: str,
    store: Path | str,
    bands_mapping: Mapping[str, str] = IMPORT_BANDS,
    device: Device = None,
) -> xr.Dataset:
    """Return a scene that `import_scene` put into the store as a tile; see `load_cdse_s2_sr_scene`.

    Without a scene classification there is no `s2_scl`, and quality is 2 where all bands are valid
    (`quality_source`: valid pixels).
    """
    return _load(raw_store.IMPORT, scene_id, bands_mapping, store, True, device)


def download_cdse_s2_sr_scene(
    s2item: Any,
    store: Path | str,
    bands_mapping: Mapping[str, str] = CDSE_BANDS,
    aws_profile_name: str = "default",
) -> None:
    """Download a scene of the Copernicus Data Space into the store (not built yet)."""
    raise NotBuiltError(_NOT_BUILT)


def download_gee_s2_sr_scene(s2item: Any, store: Path | str, bands_mapping: Mapping[str, str] = GEE_BANDS) -> None:
    """Download a scene of Earth Engine into the store (not built yet)."""
    raise NotBuiltError(_NOT_BUILT)


def search_cdse_s2_sr(
    intersects: Any = None,
    tiles: list[str] | None = None,
    start_date: str | None = None,
    end_date: str | None = None,
    max_cloud_cover: int | None = 10,
    max_snow_cover: int | None = 10,
    months: list[int] | None = None,
    years: list[int] | None = None,
) -> dict[str, Any]:
    """Return the scenes of the Copernicus Data Space that fit, id → item (not built yet)."""
    raise NotBuiltError(_NOT_SEARCHED)


def search_gee_s2_sr(
    intersects: Any = None,
    tiles: list[str] | None = None,
    start_date: str | None = None,
    end_date: str | None = None,
    max_cloud_cover: int | None = 10,
    max_snow_cover: int | None = 10,
    months: list[int] | None = None,
    years: list[int] | None = None,
) -> dict[str, Any]:
    """Return the scenes of Earth Engine that fit, id → item (not built yet)."""
    raise NotBuiltError(_NOT_SEARCHED)


def item_id(s2item: Any) -> str:
    """Return the id of a STAC item, or the id itself.

    Raises:
        ConfigError: neither.
    """
    scene_id = s2item if isinstance(s2item, str) else getattr(s2item, "id", None)
    if not isinstance(scene_id, str) or not scene_id:
        raise ConfigError(f"expected a STAC item or its id, got {s2item!r}")
    return scene_id.removesuffix(".SAFE")


def _load(
    prefix: str,
    scene_id: str,
    bands_mapping: Mapping[str, str],
    store: Path | str | None,
    offline: bool,
    device: Device,
) -> xr.Dataset:
    optical = _optical_bands(bands_mapping)
    scl = _SCL[prefix]
    needed = [*optical, *([] if prefix == raw_store.IMPORT else [scl])]
    scene = _open(prefix, scene_id, needed, store, offline)
    target = resolve_array_device(device)

    tile: dict[str, xr.DataArray] = {}
    with _on(target) as xp:
        valid = xp.ones(scene.info.geobox.shape.yx, bool)
        for asset, name in optical.items():
            tile[name] = _variable(_read_reflectance(scene, asset, prefix, valid, target, xp), name, prefix)
        if scl in scene.bands:
            classes = to_device(_read_classes(scene, scl), target)
            tile["s2_scl"] = _variable(classes, "s2_scl", prefix)
            quality = quality_from_scl(classes, valid)
        else:
            quality = quality_from_valid(valid)
        tile["quality_data_mask"] = _variable(quality, "quality_data_mask", prefix)
    return xr.Dataset(
        tile,
        coords=xr_coords(scene.info.geobox, dims=("y", "x")),
        attrs=_attrs(scene, prefix) | {"quality_source": "SCL" if "s2_scl" in tile else "valid pixels"},
    )


def _open(prefix: str, scene_id: str, needed: list[str], store: Path | str | None, offline: bool) -> RawScene:
    """Return the scene if the store has all of `needed`; else say what is missing and what to do."""
    if store is None:
        if offline:
            raise ConfigError("offline, scenes come from the raw data store: pass its folder as `store`")
        raise NotBuiltError(_NOT_BUILT)
    try:
        scene = raw_store.open_scene(store, prefix, scene_id)
        scene.require(*needed)
    except (MissingDataError, MissingBandError) as error:
        if offline:
            raise type(error)(f"{error}; {_ADVICE[prefix]}") from error
        raise NotBuiltError(f"{error}. {_NOT_BUILT}") from error
    return scene


def _optical_bands(bands_mapping: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(bands_mapping, Mapping):
        raise ConfigError(f"bands_mapping must map asset names to common names, got {bands_mapping!r}")
    optical = {asset: name for asset, name in bands_mapping.items() if name != "s2_scl"}
    for name in optical.values():
        if band_table.band(name).disk != "uint16":
            raise ConfigError(f"bands_mapping names {name!r}, which is not an optical band")
    if not optical or len(set(optical.values())) < len(optical):
        raise ConfigError(f"bands_mapping must name at least one band, and each once, got {dict(bands_mapping)}")
    return optical


def _read_reflectance(scene: RawScene, asset: str, prefix: str, valid: Any, device: str, xp: ModuleType) -> Any:
    """Return a band as float32 reflectance with NaN for DN 0, and clear `valid` there."""
    if scene.dtype(asset) != np.uint16:
        raise StoreError(
            f"scene {scene.info.scene_id}: {scene.path / asset} is {scene.dtype(asset)}, no digital numbers"
        )
    scale, offset = _scaling(scene, asset, prefix)
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


def _scaling(scene: RawScene, asset: str, prefix: str) -> tuple[float, float]:
    """Return scale and offset: the stored ones, else those of the processing baseline."""
    stored = scene.scaling(asset)
    if stored is not None:
        return stored
    if prefix == raw_store.GEE:
        return SCALE, 0.0
    baseline = scene.info.processing_baseline
    if baseline is None and prefix == raw_store.CDSE:
        with contextlib.suppress(ConfigError):
            baseline = parse_cdse_id(scene.info.scene_id).processing_baseline
    if baseline is None:
        raise StoreError(
            f"scene {scene.info.scene_id}, band {asset}: {scene.path} gives neither scale and offset nor a processing "
            "baseline; import the scene again"
        )
    return SCALE, BASELINE_OFFSET if baseline_has_offset(baseline) else 0.0


def _attrs(scene: RawScene, prefix: str) -> dict[str, Any]:
    info = scene.info
    acquired = info.acquired
    if acquired is None and prefix != raw_store.IMPORT:
        parse = parse_cdse_id if prefix == raw_store.CDSE else parse_gee_id
        with contextlib.suppress(ConfigError):
            acquired = parse(info.scene_id).acquired
    attrs = {
        "azimuth": info.sun_azimuth,
        "elevation": info.sun_elevation,
        "tile_id": info.scene_id,
        "image_id": info.scene_id,
        "sensor": info.sensor,
        "acquisition_time": None if acquired is None else iso_utc(acquired),
    }
    return {name: value for name, value in attrs.items() if value is not None}


def _variable(values: Any, name: str, prefix: str) -> xr.DataArray:
    return band_table.describe(xr.DataArray(values, dims=("y", "x")), name, _SOURCE[prefix])


@contextlib.contextmanager
def _on(device: str) -> Iterator[ModuleType]:
    """Give the array module of a device, and make that device the current one."""
    if device == "cpu":
        yield np
        return
    import cupy

    with cupy.cuda.Device(int(device.partition(":")[2] or 0)):
        yield cupy
