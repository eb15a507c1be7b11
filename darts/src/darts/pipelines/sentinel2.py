"""The pipeline for Sentinel-2."""

import difflib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from cyclopts import Parameter

from darts.pipelines.archives import BASIC_BANDS, Archive, EarthEngineArchive, ImportedScenes, StacArchive
from darts.pipelines.base import _BasePipeline
from darts.pipelines.scene_selection import SceneQuery, checked_id, read_scene_ids, write_scene_ids
from darts.pipelines.stac_options import StacOptions
from darts_utils.errors import ConfigError, DartsError, MissingBandError, MissingDataError
from darts_utils.paths import DefaultPaths

if TYPE_CHECKING:
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from darts.pipelines.preparation import Preparation

logger = logging.getLogger("darts.pipelines")


@dataclass(kw_only=True)
class Sentinel2Pipeline(_BasePipeline):
    """Sentinel-2 Level-2A scenes.

    Exactly one of scene_ids, scene_id_file, tile_ids and aoi_file selects the scenes.
    """

    scene_ids: list[str] | None = None
    """Scenes by id."""
    scene_id_file: Path | None = None
    """JSON file with a list of scene ids."""
    tile_ids: list[str] | None = None
    """Search these MGRS tiles, with or without leading T."""
    aoi_file: Path | None = None
    """Search the area of interest in this vector file, of any format and CRS."""
    start_date: str | None = None
    """First day of a search, YYYY-MM-DD."""
    end_date: str | None = None
    """Last day of a search, YYYY-MM-DD."""
    max_cloud_cover: float | None = 10
    """Highest cloud cover in percent; 100: any."""
    max_snow_cover: float | None = 10
    """Highest snow cover in percent; 100: any."""
    months: list[int] | None = None
    """Months to search; a date range beats them."""
    years: list[int] | None = None
    """Years to search; a date range beats them."""
    prep_data_scene_id_file: Path | None = None
    """Scene ids that prepare-data found, for an offline run; default: a file in the raw data store, by selection."""
    sentinel2_grid_dir: Path | None = None
    """Not needed: where MGRS tiles lie is computed. Taken so that configurations that name it go on working."""
    raw_data_store: Path | None = None
    """Raw data store; default: input/sentinel2/<source>-scenes under the large folder."""
    no_raw_data_store: Annotated[bool, Parameter(negative="")] = False
    """Do not keep raw data on disk."""
    raw_data_source: Literal["cdse", "earth-search", "gee", "import"] = "cdse"
    """Copernicus Data Space, public archive on AWS, Earth Engine, or what `darts import-scene` put into the store."""
    aws_profile: str = "default"
    """AWS profile with the keys of the S3 service."""
    stac: StacOptions = field(default_factory=StacOptions)
    """What differs from the archive's own STAC settings: another address, other names."""
    ee_collection: str = "COPERNICUS/S2_SR_HARMONIZED"
    """Earth Engine's collection: the harmonised one, or COPERNICUS/S2_SR."""

    command: ClassVar[tuple[str, ...]] = ("run", "sentinel2")
    _required: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def cli(*, pipeline: Annotated["Sentinel2Pipeline | None", Parameter(name="*")] = None) -> int:
        """Find thaw features in Sentinel-2 scenes.

        Returns the exit code: 0 all tiles done or skipped, 1 some failed.
        """
        return (pipeline or Sentinel2Pipeline()).run().exit_code

    @staticmethod
    def cli_prepare_data(
        *,
        pipeline: Annotated["Sentinel2Pipeline | None", Parameter(name="*")] = None,
        optical: Annotated[bool, Parameter(negative="")] = False,
        aux: Annotated[bool, Parameter(negative="")] = False,
    ) -> int:
        """Download what an offline run of Sentinel-2 scenes needs.

        Returns the exit code: 0 all is there, 1 some could not be had.

        Parameters
        ----------
        optical
            Fetch the optical bands that the models need into the raw data store.
        aux
            Fetch the ArcticDEM and TCVIS of the scenes' areas into their cubes, as far as the models need them.
        """
        return (pipeline or Sentinel2Pipeline()).prepare_data(optical=optical, aux=aux).exit_code

    def __post_init__(self) -> None:
        self._items: dict[str, Any] = {}
        self._lookup_errors: dict[str, DartsError] = {}
        for name in ("scene_ids", "tile_ids"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} must be a list of texts, got the text {getattr(self, name)!r}")
        for name in ("months", "years"):
            if isinstance(getattr(self, name), int):
                raise ConfigError(f"{name} must be a list of whole numbers, got {getattr(self, name)}")

    def prepare_data(self, optical: bool = False, aux: bool = False) -> "Preparation":
        """Download everything a later offline run needs; see the base."""
        if self.no_raw_data_store:
            raise ConfigError("no_raw_data_store: data is prepared in the raw data store; leave it out")
        if optical and self.raw_data_source == "import":
            raise ConfigError("imported scenes are on disk already; prepare their auxiliary data alone (--aux)")
        return super().prepare_data(optical=optical, aux=aux)

    def _tileinfos(self) -> list[tuple[str, Path]]:
        output = self._output(self.default_dirs.resolve())
        return [(scene_id, output / scene_id) for scene_id in self._scene_ids()]

    def _scene_ids(self) -> list[str]:
        selections = ("scene_ids", "scene_id_file", "tile_ids", "aoi_file")
        given = [name for name in selections if getattr(self, name) is not None]
        if len(given) != 1:
            got = f"got {' and '.join(given)}" if given else "got none of them"
            raise ConfigError(f"exactly one of {', '.join(selections)} must be given, {got}")
        if self.scene_ids is not None:
            return [checked_id(scene_id, "scene_ids") for scene_id in self.scene_ids]
        if self.scene_id_file is not None:
            return read_scene_ids(self.scene_id_file, "scene_id_file")
        return self._prepared_ids(given[0]) if self.offline and not self._preparing else self._searched_ids(given[0])

    def _resolved_options(self, output: Path, dirs: DefaultPaths) -> dict[str, Any]:
        options = super()._resolved_options(output, dirs)
        # TOML knows no None, and where nothing is written the default holds again.
        return options | {name: 100 for name in ("max_cloud_cover", "max_snow_cover") if options[name] is None}

    def _searched_ids(self, selection: str) -> list[str]:
        file = self._selection_file()
        self._items = self._archive().search(self._query())
        if not self._items:
            raise ConfigError(
                f"no scenes were found for {selection} with max_cloud_cover {self.max_cloud_cover}, max_snow_cover "
                f"{self.max_snow_cover} and the dates given; widen them (100: any cover), or check the area, and the "
                "collection where it is a setting"
            )
        ids = [checked_id(scene_id, "search") for scene_id in self._items]
        logger.info("scenes found for %s: %d", selection, len(ids))
        if self._preparing and not self.dry_run and file is not None:
            write_scene_ids(file, ids)
            logger.info("their ids are in %s", file)
        return ids

    def _prepared_ids(self, selection: str) -> list[str]:
        file = self._selection_file()
        if file is None or (self.prep_data_scene_id_file is None and not file.is_file()):
            raise ConfigError(
                f"{selection}: offline nothing can be searched, and this was not prepared (no {file}); "
                "run `darts prepare-data sentinel2 --optical --aux` with the same selection where there is internet, "
                "or name scene_ids"
            )
        return read_scene_ids(file, "prep_data_scene_id_file")

    def _query(self) -> SceneQuery:
        return SceneQuery(
            tile_ids=None if self.tile_ids is None else tuple(self.tile_ids),
            aoi_file=self.aoi_file,
            start_date=self.start_date,
            end_date=self.end_date,
            max_cloud_cover=self.max_cloud_cover,
            max_snow_cover=self.max_snow_cover,
            months=None if self.months is None else tuple(self.months),
            years=None if self.years is None else tuple(self.years),
        )

    def _selection_file(self) -> Path | None:
        """Return the file of the ids that a search found: the user's, else one of this very search in the store."""
        if self.prep_data_scene_id_file is not None:
            return self.prep_data_scene_id_file
        store = self._store()
        if store is None:
            return None
        return store / f"selection-{self._query().digest(self._archive().settings)}.json"

    def _get_tile_id(self, tilekey: str) -> str:
        return tilekey

    def _load_tile(self, tilekey: str) -> "xr.Dataset":
        with self._hinting(tilekey):
            return self._archive().load(self._items.get(tilekey, tilekey), self._bands(), offline=self.offline)

    @contextmanager
    def _hinting(self, scene_id: str) -> Iterator[None]:
        """Where a scene is missing, tell instead what somebody may have meant by it, if that can be told."""
        try:
            yield
        except MissingDataError as error:
            if hint := self._likely_meant(scene_id):
                raise MissingDataError(hint) from error
            raise

    def _likely_meant(self, scene_id: str) -> str:
        """Return what somebody may have meant by a scene that is not there; empty if nobody can tell."""
        from darts_acquisition import IMPORT, list_scenes, scene_exists

        if self.raw_data_source != "import":
            imported = self.default_dirs.resolve().sentinel2_scenes("import")
            told = f"scene {scene_id} is not in {self._store()}, but among the imported scenes: "
            return f"{told}add --raw-data-source import" if scene_exists(imported, IMPORT, scene_id) else ""
        store = self._store()
        assert store is not None  # see _archive
        close = difflib.get_close_matches(scene_id, list_scenes(store, IMPORT), n=1)
        return f"there is no scene {scene_id} in {store}; did you mean {close[0]}?" if close else ""

    def _missing_optical(self, tilekey: str) -> tuple[tuple[str, ...], int | None]:
        archive = self._archive()
        missing = archive.missing(tilekey, self._bands())
        if not missing:
            return (), 0
        if self.raw_data_source == "import":
            self._tile_geobox(tilekey)  # says that the scene is absent, if it is
            raise MissingBandError(f"imported scene {tilekey} lacks {', '.join(missing)}; import it again with them")
        if self.offline and not self._preparing:
            lacks = f"lacks {', '.join(missing)} in {self._store()}; `darts prepare-data` fetches it"
            raise MissingDataError(self._likely_meant(tilekey) or lacks)
        return missing, archive.size(self._item(tilekey), self._bands())

    def _download_tile(self, tilekey: str) -> None:
        self._archive().download(self._item(tilekey), self._bands(), self._report)

    def _item(self, tilekey: str) -> Any:
        if tilekey not in self._items:
            if self.offline and not self._preparing:
                raise MissingDataError(f"scene {tilekey} is not in {self._store()}; `darts prepare-data` fetches it")
            self._look_up([tile.key for tile in self._tiles_found] or [tilekey])
        if tilekey in self._lookup_errors:
            raise self._lookup_errors[tilekey]
        return self._items[tilekey]

    def _look_up(self, scene_ids: list[str]) -> None:
        """Find the items of all scenes at once; failures are kept: a dead server is not asked for each scene."""
        archive = self._archive()
        wanted = [name for name in scene_ids if name not in self._items and name not in self._lookup_errors]
        try:
            self._items |= archive.find(wanted)
        except MissingDataError as error:
            if len(wanted) == 1:
                self._lookup_errors[wanted[0]] = error
                return
            for name in wanted:
                self._look_up([name])
        except DartsError as error:
            self._lookup_errors |= dict.fromkeys(wanted, error)

    def _tile_geobox(self, tilekey: str) -> "GeoBox":
        return self._grid_and_year(tilekey)[0]

    def _tile_year(self, tilekey: str) -> int:
        return self._grid_and_year(tilekey)[1]

    def _grid_and_year(self, tilekey: str) -> tuple["GeoBox", int]:
        with self._hinting(tilekey):
            return self._archive().grid_and_year(tilekey, partial(self._item, tilekey))

    def _bands(self) -> tuple[str, ...]:
        archive = self._archive()
        return (*BASIC_BANDS, *(b for b in self._required if b in archive.bands and b not in BASIC_BANDS))

    def _archive(self) -> Archive:
        from darts_acquisition import STAC_SOURCES

        store = self._store()
        if self.raw_data_source == "import":
            if store is None:
                raise ConfigError("no_raw_data_store: imported scenes lie in the raw data store; leave it out")
            return ImportedScenes(store)
        if self.raw_data_source == "gee":
            return EarthEngineArchive(self._earth_engine(collection=self.ee_collection), store)
        source = self.stac.applied_to(STAC_SOURCES[self.raw_data_source])
        return StacArchive(source, store, self.aws_profile)

    def _store(self) -> Path | None:
        if self.no_raw_data_store:
            if self.offline:
                raise ConfigError("no_raw_data_store: offline, scenes come from the raw data store; leave one out")
            return None
        return self.raw_data_store or self.default_dirs.resolve().sentinel2_scenes(self.raw_data_source)

    def _optical_bands(self) -> tuple[str, ...]:
        return self._archive().bands

    def _use_bands(self, required: tuple[str, ...]) -> None:
        self._required = required  # type: ignore[misc]  # an instance's own, over the class default

    def _arcticdem_resolution(self) -> Literal[10]:
        return 10

    def _default_output_name(self) -> str:
        return f"sentinel2-{self.raw_data_source}"

    def _result_metadata(self, tilekey: str) -> Mapping[str, Any]:
        return {"rawdatasource": self.raw_data_source}
