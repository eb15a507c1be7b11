"""The archives of Sentinel-2 scenes: each searches, sizes, fetches and loads scenes through one set of methods."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from darts.pipelines.scene_selection import SceneQuery
from darts_utils.errors import ConfigError, MissingDataError

if TYPE_CHECKING:
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from darts_acquisition import EarthEngineSource, StacSource
    from darts_acquisition.transfer_report import TransferReport

BASIC_BANDS = ("blue", "green", "red", "nir")
_GEE_NAMES = {
    "blue": "B2", "green": "B3", "red": "B4", "nir": "B8", "coastal": "B1", "rededge071": "B5", "rededge075": "B6",
    "rededge078": "B7", "nir08": "B8A", "nir09": "B9", "swir16": "B11", "swir22": "B12",
}  # fmt: skip


class Archive(Protocol):
    """Where Sentinel-2 scenes come from. Importing it is light; its methods load what they need."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Common names of the optical bands it can give."""

    @property
    def settings(self) -> dict[str, Any]:
        """What names it: a search in another archive is another search."""

    def search(self, query: SceneQuery) -> dict[str, Any]:
        """Return the scenes that fit, id → item."""

    def find(self, scene_ids: Sequence[str]) -> dict[str, Any]:
        """Return the items of some scenes by id.

        Raises:
            MissingDataError: names the ids that the archive does not have.
        """

    def missing(self, scene_id: str, bands: Sequence[str]) -> tuple[str, ...]:
        """Return what the store lacks of a scene, as names of the archive."""

    def size(self, item: Any, bands: Sequence[str]) -> int | None:
        """Return the bytes still to fetch for a scene; None if the archive does not say."""

    def grid_and_year(self, scene_id: str, find_item: Callable[[], Any]) -> tuple["GeoBox", int]:
        """Return a scene's grid, and the year in which it was acquired: those of the store, else those of its item."""

    def download(self, item: Any, bands: Sequence[str], report: "TransferReport") -> None:
        """Fetch what the store lacks of a scene."""

    def load(self, scene: Any, bands: Sequence[str], *, offline: bool) -> "xr.Dataset":
        """Load a scene (its id or its item) as a tile."""


@dataclass(frozen=True)
class StacArchive:
    """Scenes of a STAC API."""

    source: "StacSource"
    store: Path | None
    """Raw data store; None: scenes are not kept."""
    aws_profile: str

    @property
    def bands(self) -> tuple[str, ...]:
        return tuple(name for name in self.source.assets if name != "s2_scl")

    @property
    def settings(self) -> dict[str, Any]:
        source = self.source
        properties = (source.tile_property, source.cloud_property, source.snow_property)
        return {
            "archive": source.name,
            "endpoint": source.endpoint.rstrip("/"),
            "collection": source.collection,
            "properties": properties,
        }

    def search(self, query: SceneQuery) -> dict[str, Any]:
        from darts_acquisition import search_cdse_s2_sr

        return search_cdse_s2_sr(**query.parameters(), source=self.source)

    def find(self, scene_ids: Sequence[str]) -> dict[str, Any]:
        from darts_acquisition import get_items

        return get_items(self.source, scene_ids)

    def missing(self, scene_id: str, bands: Sequence[str]) -> tuple[str, ...]:
        from darts_acquisition import missing_bands

        names = [*self.source.bands(*bands), self.source.assets["s2_scl"]]
        return tuple(names) if self.store is None else missing_bands(self.store, self.source.prefix, scene_id, names)

    def size(self, item: Any, bands: Sequence[str]) -> int | None:
        from darts_acquisition import download_size

        if self.store is None:
            return None
        return download_size(item, self.store, self.source, self.source.bands(*bands))

    def grid_and_year(self, scene_id: str, find_item: Callable[[], Any]) -> tuple["GeoBox", int]:
        from darts_acquisition import item_grid, item_time

        stored = _stored(self.store, self.source.prefix, scene_id)
        if stored is not None and stored.acquired is not None:
            return stored.geobox, stored.acquired.year
        item = find_item()
        grid = item_grid(item, self.source)
        if grid is None:
            raise MissingDataError(f"scene {scene_id}: its item does not tell its grid; fetch its optical data first")
        return grid, item_time(item).year

    def download(self, item: Any, bands: Sequence[str], report: "TransferReport") -> None:
        from darts_acquisition import download_cdse_s2_sr_scene

        assert self.store is not None  # see Sentinel2Pipeline.prepare_data
        download_cdse_s2_sr_scene(
            item, self.store, self.source.bands(*bands), self.aws_profile, source=self.source, report=report
        )

    def load(self, scene: Any, bands: Sequence[str], *, offline: bool) -> "xr.Dataset":
        from darts_acquisition import load_cdse_s2_sr_scene

        return load_cdse_s2_sr_scene(
            scene, self.source.bands(*bands), store=self.store, aws_profile_name=self.aws_profile,
            offline=offline, device="cpu", source=self.source,
        )  # fmt: skip


@dataclass(frozen=True)
class EarthEngineArchive:
    """Scenes of Earth Engine."""

    source: "EarthEngineSource"
    store: Path | None

    bands: ClassVar[tuple[str, ...]] = tuple(_GEE_NAMES)

    @property
    def settings(self) -> dict[str, Any]:
        return {"archive": "gee", "collection": self.source.collection}

    def search(self, query: SceneQuery) -> dict[str, Any]:
        from darts_acquisition import search_gee_s2_sr

        return search_gee_s2_sr(**query.parameters(), source=self.source)

    def find(self, scene_ids: Sequence[str]) -> dict[str, Any]:
        from darts_acquisition import get_gee_item

        return {scene_id: get_gee_item(scene_id, self.source) for scene_id in scene_ids}

    def missing(self, scene_id: str, bands: Sequence[str]) -> tuple[str, ...]:
        from darts_acquisition import GEE, missing_bands

        names = [*self._mapping(bands), "SCL"]
        return tuple(names) if self.store is None else missing_bands(self.store, GEE, scene_id, names)

    def size(self, item: Any, bands: Sequence[str]) -> int | None:
        from darts_acquisition import gee_download_size

        return gee_download_size(item, self.store, self._mapping(bands))

    def grid_and_year(self, scene_id: str, find_item: Callable[[], Any]) -> tuple["GeoBox", int]:
        from darts_acquisition import GEE

        stored = _stored(self.store, GEE, scene_id)
        known = stored if stored is not None and stored.acquired is not None else find_item()
        return known.geobox, known.acquired.year

    def download(self, item: Any, bands: Sequence[str], report: "TransferReport") -> None:
        from darts_acquisition import download_gee_s2_sr_scene

        assert self.store is not None  # see Sentinel2Pipeline.prepare_data
        download_gee_s2_sr_scene(item, self.store, self._mapping(bands), source=self.source, report=report)

    def load(self, scene: Any, bands: Sequence[str], *, offline: bool) -> "xr.Dataset":
        from darts_acquisition import load_gee_s2_sr_scene

        return load_gee_s2_sr_scene(
            scene, self._mapping(bands), store=self.store, offline=offline, device="cpu", source=self.source
        )

    @staticmethod
    def _mapping(bands: Sequence[str]) -> dict[str, str]:
        return {_GEE_NAMES[common_name]: common_name for common_name in bands}


@dataclass(frozen=True)
class ImportedScenes:
    """Scenes that `darts import-scene` put into the store: nothing to search or fetch."""

    store: Path

    bands: ClassVar[tuple[str, ...]] = tuple(_GEE_NAMES)
    settings: ClassVar[dict[str, Any]] = {"archive": "import"}

    def search(self, query: SceneQuery) -> dict[str, Any]:
        raise ConfigError("imported scenes cannot be searched; name them with scene_ids or scene_id_file")

    def find(self, scene_ids: Sequence[str]) -> dict[str, Any]:
        return dict.fromkeys(scene_ids)

    def missing(self, scene_id: str, bands: Sequence[str]) -> tuple[str, ...]:
        from darts_acquisition import IMPORT, missing_bands

        return missing_bands(self.store, IMPORT, scene_id, bands)

    def size(self, item: Any, bands: Sequence[str]) -> int | None:
        return None

    def grid_and_year(self, scene_id: str, find_item: Callable[[], Any]) -> tuple["GeoBox", int]:
        from darts_acquisition import IMPORT, open_scene

        info = open_scene(self.store, IMPORT, scene_id).info
        if info.acquired is None:
            raise MissingDataError(f"scene {scene_id} has no time of acquisition; import it again")
        return info.geobox, info.acquired.year

    def download(self, item: Any, bands: Sequence[str], report: "TransferReport") -> None:
        raise ConfigError("imported scenes cannot be downloaded; `darts import-scene` puts them into the store")

    def load(self, scene: Any, bands: Sequence[str], *, offline: bool) -> "xr.Dataset":
        from darts_acquisition import load_imported_scene

        return load_imported_scene(scene, self.store, {name: name for name in bands})


def _stored(store: Path | None, prefix: str, scene_id: str) -> Any:
    """Return what the store knows of a scene, None if it has none."""
    from darts_acquisition import open_scene, scene_exists

    if store is None or not scene_exists(store, prefix, scene_id):
        return None
    return open_scene(store, prefix, scene_id).info
