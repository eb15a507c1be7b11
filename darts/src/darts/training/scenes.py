"""Where the scenes of a dataset come from: the stores, archives and loaders of the pipelines."""

import functools
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from darts.pipelines.archives import Archive, EarthEngineArchive, ImportedScenes, StacArchive
from darts.pipelines.base import _BasePipeline
from darts.pipelines.planet import PlanetPipeline
from darts.pipelines.scene_selection import SceneQuery
from darts.pipelines.sentinel2 import Sentinel2Pipeline
from darts.training.matching import Candidate, Look
from darts.training.options import MatchOptions
from darts.training.targets import area_window, burn_area
from darts_acquisition import (
    GEE,
    IMPORT,
    GeeItem,
    item_time,
    list_scenes,
    load_planet_masks,
    open_scene,
    parse_cdse_id,
    parse_gee_id,
    parse_planet_name,
    planet_geobox,
    scene_exists,
)
from darts_acquisition.areas import read_areas
from darts_acquisition.scene_choice import footprint as item_footprint
from darts_utils.errors import ConfigError, DartsError, MissingBandError, MissingDataError
from darts_utils.quoting import likely, listed, shown

if TYPE_CHECKING:
    import xarray as xr

logger = logging.getLogger("darts.training")

SCL_CLOUD = (3, 8, 9)
"""Scene classes that hide the ground: cloud shadow, clouds of medium and of high probability."""
UDM_CLOUD = 0b0011_0100
"""Bits of `planet_udm` that do: shadow, heavy haze, cloud."""

Find = Callable[[gpd.GeoDataFrame, MatchOptions], list[Candidate]]


@dataclass(frozen=True)
class SceneSource:
    """Scenes that labels can be laid over; made by `sentinel2_scenes` and `planet_scenes`."""

    pipeline: _BasePipeline
    sensor: str
    pixel_m: float
    """What its pixels measure, about."""
    find: Find
    """Areas with their times (EPSG:4326, `time`, `image_id`) → the scenes that may fit them."""
    look: Callable[[str, BaseGeometry | None], Look | None]
    key: Callable[[str], Any]
    """Scene id → what the pipeline's hooks know it by."""

    def use_bands(self, bands: Sequence[str]) -> None:
        """Check that the scenes can give all bands, and tell the loader.

        Raises:
            MissingBandError: they cannot.
        """
        from darts.needs import possible_bands

        optical = self.pipeline._optical_bands()
        possible = possible_bands(optical)
        if impossible := [name for name in bands if name not in possible]:
            raise MissingBandError(
                f"bands: {listed(map(shown, impossible))} cannot be made from these scenes"
                f"{likely(impossible[0], possible, '.')} Choose --bands of {', '.join(optical)}, and of "
                "what is computed from them, ArcticDEM and TCVIS, such as ndvi and slope"
            )
        self.pipeline._use_bands(tuple(bands))

    def load(self, scene_id: str) -> "xr.Dataset":
        """Return a scene's optical tile; where the pipeline may, it is fetched first."""
        return self.pipeline._load_tile(self.key(scene_id))


def sentinel2_scenes(pipeline: Sentinel2Pipeline) -> SceneSource:
    """Return the scenes of a Sentinel-2 pipeline.

    Those that it names (scene_ids, scene_id_file); else all in its raw data store, where it is offline or imported
    scenes are meant; else those that a search of its archive finds for each footprint.
    """
    archive = pipeline._archive()

    def find(areas: gpd.GeoDataFrame, options: MatchOptions) -> list[Candidate]:
        if pipeline.scene_ids is not None or pipeline.scene_id_file is not None:
            return _named_scenes(pipeline, archive, pipeline._scene_ids())
        if pipeline.offline or pipeline.raw_data_source == "import":
            store = _store_of(archive)
            found = [] if store is None else list_scenes(store, _prefix(archive))
            if not found:
                raise MissingDataError(f"no scenes in {store}; import or prepare some, or name the store")
            return _named_scenes(pipeline, archive, found)
        return _searched_scenes(pipeline, archive, areas, options)

    @functools.lru_cache(maxsize=1)  # many footprints ask for one scene after the other
    def masks(scene_id: str) -> tuple[GeoBox, np.ndarray, np.ndarray | None] | None:
        return _stored_masks(archive, scene_id)

    def look(scene_id: str, footprint: BaseGeometry | None) -> Look | None:
        seen = masks(scene_id)
        return None if seen is None else _look(*seen, footprint)

    return SceneSource(pipeline, "Sentinel-2", 10.0, find, look, key=lambda scene_id: scene_id)


def planet_scenes(pipeline: PlanetPipeline) -> SceneSource:
    """Return the scenes and orthotiles in the folders of a Planet pipeline."""
    paths = {path.name: path for path, _ in pipeline._tileinfos()}

    def find(areas: gpd.GeoDataFrame, options: MatchOptions) -> list[Candidate]:
        return list(_usable(paths, lambda name: _planet_candidate(paths[name])))

    @functools.lru_cache(maxsize=1)
    def masks(scene_id: str) -> tuple[GeoBox, np.ndarray, np.ndarray | None]:
        found = load_planet_masks(paths[scene_id])
        udm = found.get("planet_udm")
        cloud = None if udm is None else (udm.to_numpy() & UDM_CLOUD) != 0
        return planet_geobox(paths[scene_id]), found["quality_data_mask"].to_numpy() > 0, cloud

    def look(scene_id: str, footprint: BaseGeometry | None) -> Look:
        return _look(*masks(scene_id), footprint)

    return SceneSource(pipeline, "PlanetScope", 3.0, find, look, key=paths.__getitem__)


def _named_scenes(pipeline: Sentinel2Pipeline, archive: Archive, scene_ids: Sequence[str]) -> list[Candidate]:
    """Return scenes by id, from the store where it has them, else from the archive."""
    store = _store_of(archive)
    stored = [name for name in scene_ids if store is not None and scene_exists(store, _prefix(archive), name)]
    others = [name for name in scene_ids if name not in stored]
    if others and (pipeline.offline or isinstance(archive, ImportedScenes)):
        raise MissingDataError(f"scenes that are not in {store}: {listed(others)}; import or prepare them")
    pipeline._items |= archive.find(others) if others else {}
    found = list(_usable(stored, lambda name: _stored_candidate(archive, name)))
    return found + [_item_candidate(archive, name, pipeline._items[name]) for name in others]


def _searched_scenes(
    pipeline: Sentinel2Pipeline, archive: Archive, areas: gpd.GeoDataFrame, options: MatchOptions
) -> list[Candidate]:
    """Return what the archive has for each area within the days allowed."""
    items: dict[str, Any] = {}
    reach = pd.Timedelta(days=options.max_days)
    for area in areas.itertuples():
        if _is_scene_id(area.image_id):
            with suppress(MissingDataError):
                items |= archive.find([area.image_id])
        if pd.isna(area.time):
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "area.geojson"
            file.write_text(shapely.to_geojson(area.geometry), encoding="utf-8")
            query = SceneQuery(
                tile_ids=None, aoi_file=file, months=None, years=None,
                start_date=f"{area.time - reach:%Y-%m-%d}", end_date=f"{area.time + reach:%Y-%m-%d}",
                max_cloud_cover=options.max_cloud_cover, max_snow_cover=pipeline.max_snow_cover,
            )  # fmt: skip
            items |= archive.search(query)
    pipeline._items |= items
    return [_item_candidate(archive, name, item) for name, item in items.items()]


def _is_scene_id(name: str) -> bool:
    for parse in (parse_cdse_id, parse_gee_id):
        with suppress(ConfigError):
            parse(name)
            return True
    return False


def _usable(names: Iterable[str], make: Callable[[str], Candidate]) -> Iterator[Candidate]:
    """Yield the candidates that can be made; a damaged scene must not stop the others."""
    for name in names:
        try:
            yield make(name)
        except DartsError as error:
            logger.warning("scene %s cannot be used: %s", name, error)


def _stored_candidate(archive: Archive, scene_id: str) -> Candidate:
    store = _store_of(archive)
    assert store is not None  # it was found there
    info = open_scene(store, _prefix(archive), scene_id).info
    if info.acquired is None:
        raise MissingDataError(f"scene {scene_id} has no time of acquisition; import it again")
    return Candidate(scene_id=scene_id, time=pd.Timestamp(info.acquired), footprint=_outline(info.geobox))


def _item_candidate(archive: Archive, scene_id: str, item: Any) -> Candidate:
    if isinstance(item, GeeItem):
        area, time, percent = read_areas(item.geometry).iloc[0], item.acquired, item.cloud
    else:
        assert isinstance(archive, StacArchive)
        area, time = item_footprint(item), item_time(item)
        percent = item.properties.get(archive.source.cloud_property)
    cloud = None if percent is None else float(percent) / 100
    return Candidate(scene_id=scene_id, time=pd.Timestamp(time), footprint=area, cloud=cloud)


def _planet_candidate(path: Path) -> Candidate:
    name = parse_planet_name(path.name)
    time = pd.Timestamp(name.day, tz="UTC") if name.time is None else pd.Timestamp(name.time)
    return Candidate(scene_id=path.name, time=time, footprint=_outline(planet_geobox(path)))


def _stored_masks(archive: Archive, scene_id: str) -> tuple[GeoBox, np.ndarray, np.ndarray | None] | None:
    """Return grid, pixels with data, and clouds (None: it has no classes) of a scene; None if it is not stored."""
    store, prefix = _store_of(archive), _prefix(archive)
    if store is None or not scene_exists(store, prefix, scene_id):
        return None
    scene = open_scene(store, prefix, scene_id)
    if (scl := _scl_asset(archive)) in scene.bands:
        values = np.concatenate([rows for _, rows in scene.strips(scl)])
        return scene.info.geobox, values > 1, np.isin(values, SCL_CLOUD)
    if not scene.bands:
        return None
    numbers = np.concatenate([rows for _, rows in scene.strips(scene.bands[0])])
    return scene.info.geobox, numbers != 0, None


def _look(geobox: GeoBox, data: np.ndarray, cloud: np.ndarray | None, footprint: BaseGeometry | None) -> Look:
    """Return what a scene shows of a footprint, or of all its grid where there is none."""
    if footprint is None:
        filled, seen = 1.0, data
    else:
        window = area_window(geobox, footprint)
        if window is None:
            return Look(0.0, None)
        inside = burn_area(geobox[window], footprint)
        data, cloud = data[window], None if cloud is None else cloud[window]
        seen = inside & data
        filled = float(seen.sum() / inside.sum()) if inside.any() else 0.0
    share = None if cloud is None or not seen.any() else float((cloud & seen).sum() / seen.sum())
    return Look(filled, share)


def _outline(geobox: GeoBox) -> BaseGeometry:
    return shapely.union_all(list(read_areas(geobox)))


def _store_of(archive: Archive) -> Path | None:
    return archive.store if isinstance(archive, StacArchive | EarthEngineArchive | ImportedScenes) else None


def _prefix(archive: Archive) -> str:
    if isinstance(archive, ImportedScenes):
        return IMPORT
    return archive.source.prefix if isinstance(archive, StacArchive) else GEE


def _scl_asset(archive: Archive) -> str:
    if isinstance(archive, ImportedScenes):
        return "scl"
    return archive.source.assets["s2_scl"] if isinstance(archive, StacArchive) else "SCL"
