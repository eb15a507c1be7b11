"""The raw data store: one Zarr v3 group a scene, digital numbers as delivered, complete or absent."""

import errno
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401 (registers `.odc`)
import xarray as xr
import zarr

from darts_acquisition.locks import locked
from darts_acquisition.raw_scene import RawScene, SceneInfo
from darts_acquisition.scene_writer import CHUNK_PX, SceneWriter
from darts_acquisition.times import parse_utc
from darts_utils.errors import ConfigError, DartsError, GridMismatchError, MissingBandError, StoreError
from darts_utils.names import plain_name
from darts_utils.store import remove_leftovers, replacing

CDSE = "cdse-s2-sr-scene"
"""What the folders of scenes of STAC archives begin with."""
GEE = "gee-s2-sr-scene"
"""What those of Earth Engine begin with."""
IMPORT = "import-s2-scene"
"""What those of imported scenes begin with."""


def scene_path(store: Path | str, prefix: str, scene_id: str) -> Path:
    """Return where the raw data store `store` keeps a scene.

    Raises:
        ConfigError: the id cannot be the name of a folder.
    """
    return Path(store) / f"{prefix}-{plain_name(scene_id, 'scene id')}.zarr"


def scene_exists(store: Path | str, prefix: str, scene_id: str) -> bool:
    """Whether the store has a scene; what an interrupted writer left does not count."""
    return (scene_path(store, prefix, scene_id) / "zarr.json").is_file()


def list_scenes(store: Path | str, prefix: str) -> list[str]:
    """Return the ids of the scenes in a store, sorted."""
    found = Path(store).glob(f"{prefix}-*.zarr/zarr.json")
    return sorted(file.parent.name[len(prefix) + 1 : -len(".zarr")] for file in found)


def missing_bands(store: Path | str, prefix: str, scene_id: str, bands: Iterable[str]) -> tuple[str, ...]:
    """Return those of `bands` (asset names) that the store lacks; all of them where the scene is absent."""
    have = open_scene(store, prefix, scene_id).bands if scene_exists(store, prefix, scene_id) else ()
    return tuple(band for band in bands if band not in have)


def open_scene(store: Path | str, prefix: str, scene_id: str) -> RawScene:
    """Return a scene of the store, its metadata checked and no pixel read.

    Raises:
        MissingDataError: the scene is not there.
        StoreError, GridMismatchError: it is damaged, or its bands are on different grids.
    """
    return RawScene.open(scene_path(store, prefix, scene_id), scene_id)


def write_scene(
    store: Path | str,
    prefix: str,
    scene_id: str,
    dn: xr.Dataset,
    *,
    datetime: str | datetime | None,
    scale: float | Mapping[str, float] | None = None,
    offset: float | Mapping[str, float] | None = None,
    sun_azimuth: float | None = None,
    sun_elevation: float | None = None,
    processing_baseline: str | None = None,
    sensor: str = "Sentinel-2",
    overwrite: bool = False,
) -> Path:
    """Write a scene into the store and return its folder.

    Args:
        store: folder of the raw data store.
        prefix: `CDSE`, `GEE` or `IMPORT`.
        scene_id: its id; becomes part of the folder's name.
        dn: digital numbers, uint16 (classes uint8), dims (y, x), a variable a band under its asset name, with a CRS.
        datetime: time of acquisition; UTC where it has no zone.
        scale: reflectance = DN × scale + offset; one for all uint16 bands, or one a band. None: not stored, and the
            loader goes by the processing baseline.
        offset: see `scale`; both or neither.
        sun_azimuth: degrees clockwise from true north; None if unknown.
        sun_elevation: degrees above the horizon; None if unknown.
        processing_baseline: such as `05.11`.
        sensor: name of the sensor.
        overwrite: replace a scene that is there.

    Raises:
        ConfigError: a name, type or number cannot work, or the scene exists.
        StoreError: the store cannot be written.
    """
    geobox = dn.odc.geobox
    if geobox is None or geobox.crs is None:
        raise ConfigError(f"scene {scene_id}: the bands have no CRS; assign one with `.odc.assign_crs(…)`")
    info = SceneInfo(
        scene_id=scene_id,
        geobox=geobox,
        acquired=None if datetime is None else parse_utc(datetime, "datetime"),
        sun_azimuth=sun_azimuth,
        sun_elevation=sun_elevation,
        processing_baseline=processing_baseline,
        sensor=sensor,
    )
    with new_scene(store, prefix, info, overwrite=overwrite) as writer:
        _add_dataset(writer, dn, scale, offset)
    return scene_path(store, prefix, scene_id)


def add_bands(
    store: Path | str,
    prefix: str,
    scene_id: str,
    dn: xr.Dataset,
    *,
    scale: float | Mapping[str, float] | None = None,
    offset: float | Mapping[str, float] | None = None,
) -> None:
    """Add bands to a scene that is there; each counts as there only when the scene's `bands` names it.

    Raises:
        MissingDataError: the scene is not there.
        ConfigError: it has one of the bands already, or a name, type or number cannot work; nothing was added.
        GridMismatchError: the bands are on another grid.
        StoreError: the store cannot be written; the scene is as it was.
    """
    with updating_scene(store, prefix, scene_id) as update:
        scene = RawScene.open(update.path, scene_id)
        if dn.odc.geobox != scene.info.geobox:
            raise GridMismatchError(f"scene {scene_id}: new bands are on another grid than {update.path}")
        with update.writing(scene.info) as writer:
            _add_dataset(writer, dn, scale, offset)


@contextmanager
def new_scene(store: Path | str, prefix: str, info: SceneInfo, *, overwrite: bool = False) -> Iterator[SceneWriter]:
    """Give a writer for a scene band by band; the scene appears under its name when the block ends well.

    Raises:
        ConfigError: the scene exists and `overwrite` is not set, or its metadata cannot work.
        StoreError: the store cannot be written.
    """
    info.check()
    with _held(scene_path(store, prefix, info.scene_id)) as path:
        if path.exists() and not overwrite:
            raise ConfigError(f"scene {info.scene_id} is in the store already ({path}); pass overwrite to replace it")
        with _writing_new(path, info) as writer:
            yield writer


@contextmanager
def updating_scene(store: Path | str, prefix: str, scene_id: str) -> Iterator["SceneUpdate"]:
    """Hold a scene, there or not, against other writers, among all processes that share the store; waits for its turn.

    What interrupted writers left is removed. Inside the block look at what the scene lacks, fetch that alone, and write
    it with `SceneUpdate.writing`.

    Raises:
        StoreError: the store cannot be written, or the scene in it is damaged.
    """
    with _held(scene_path(store, prefix, scene_id)) as path:
        there = (path / "zarr.json").is_file()
        yield SceneUpdate(path, scene_id, RawScene.open(path, scene_id) if there else None)


@dataclass(frozen=True)
class SceneUpdate:
    """A scene that is held against other writers; see `updating_scene`."""

    path: Path
    scene_id: str
    scene: RawScene | None
    """The scene as it is, None where it is absent."""

    def missing(self, bands: Iterable[str]) -> tuple[str, ...]:
        """Return those of `bands` that the store lacks."""
        have = () if self.scene is None else self.scene.bands
        return tuple(band for band in bands if band not in have)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give an empty folder on the file system of the store; it goes when the block ends.

        Raises:
            StoreError: the store cannot be written.
        """
        folder = _scratch(self.path)
        with _as_store_error(self.scene_id, folder):
            folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def writing(self, info: SceneInfo) -> Iterator[SceneWriter]:
        """Give a writer for bands; they count as there, all of them together, when the block ends well.

        Raises:
            GridMismatchError: the scene is there, on another grid.
            StoreError: the store cannot be written; the scene is as it was.
        """
        info.check()
        if self.scene is None:
            with _writing_new(self.path, info) as writer:
                yield writer
            return
        if info.geobox != self.scene.info.geobox:
            raise GridMismatchError(f"scene {self.scene_id}: new bands are on another grid than {self.path}")
        with _writing_more(self.path, self.scene) as writer:
            yield writer


@contextmanager
def _held(path: Path) -> Iterator[Path]:
    """Hold the lock of a scene and remove what interrupted writers left."""
    with locked(path):
        remove_leftovers(path)
        shutil.rmtree(_scratch(path), ignore_errors=True)
        yield path


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.scratch")


@contextmanager
def _writing_new(path: Path, info: SceneInfo) -> Iterator[SceneWriter]:
    with _as_store_error(info.scene_id, path), replacing(path) as temporary:
        zarr.create_group(temporary, zarr_format=3)
        writer = SceneWriter(temporary, info)
        yield writer
        if not writer.bands:
            raise ConfigError(f"scene {info.scene_id} has no bands to write")
        zarr.open_group(temporary, mode="r+").attrs.update(info.to_attrs(writer.bands))


@contextmanager
def _writing_more(path: Path, scene: RawScene) -> Iterator[SceneWriter]:
    with _as_store_error(scene.info.scene_id, path):
        remove_leftovers(path / "zarr.json")
        writer = SceneWriter(path, scene.info, listed=scene.bands)
        yield writer
        scene.write_bands([*scene.bands, *writer.bands])


@contextmanager
def _as_store_error(scene_id: str, path: Path) -> Iterator[None]:
    try:
        yield
    except DartsError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StoreError(
            f"scene {scene_id}: cannot write {path}: {error.strerror or error}. Nothing was left behind."
            + (" Free space on that disk, or choose another store." if full else "")
        ) from error


def _add_dataset(
    writer: SceneWriter,
    dn: xr.Dataset,
    scale: float | Mapping[str, float] | None,
    offset: float | Mapping[str, float] | None,
) -> None:
    # All are checked before the first is written.
    settings: dict[str, dict[str, Any]] = {}
    for name in map(str, dn.data_vars):
        band = dn[name]
        if band.dims != dn.odc.spatial_dims:
            raise ConfigError(f"scene {writer.info.scene_id}, band {name}: dims must be (y, x), got {band.dims}")
        scaling = (None, None) if band.dtype == np.uint8 else (_of_band(scale, name), _of_band(offset, name))
        settings[name] = {"dtype": str(band.dtype), "scale": scaling[0], "offset": scaling[1]}
        writer.check_band(name, **settings[name])
    for name, of_band in settings.items():
        writer.add_band(name, _strips(dn[name]), **of_band)


def _strips(band: xr.DataArray) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, len(band), CHUNK_PX):
        rows = slice(start, start + CHUNK_PX)
        yield rows, np.asarray(band.data[rows])


def _of_band(value: float | Mapping[str, float] | None, name: str) -> float | None:
    if not isinstance(value, Mapping):
        return value
    if name not in value:
        raise MissingBandError(f"scale or offset of band {name} is not given; given are {', '.join(value)}")
    return value[name]
