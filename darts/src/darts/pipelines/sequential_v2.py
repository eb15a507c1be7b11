"""The pipelines for PlanetScope and Sentinel-2."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from cyclopts import Parameter

from darts.pipelines.base import RunSummary, _BasePipeline
from darts_utils.errors import ConfigError, NotBuiltError
from darts_utils.paths import DefaultPaths

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

__all__ = ["PlanetPipeline", "RunSummary", "Sentinel2Pipeline"]

SENTINEL2_ASSETS = {
    "blue": "B02_10m",
    "green": "B03_10m",
    "red": "B04_10m",
    "nir": "B08_10m",
    "coastal": "B01_20m",
    "rededge071": "B05_20m",
    "rededge075": "B06_20m",
    "rededge078": "B07_20m",
    "nir08": "B8A_20m",
    "nir09": "B09_60m",
    "swir16": "B11_20m",
    "swir22": "B12_20m",
}
"""CDSE asset of each optical band."""
BASIC_BANDS = ("blue", "green", "red", "nir")


@dataclass(kw_only=True)
class PlanetPipeline(_BasePipeline):
    """PlanetScope orthotiles and scenes, from folders on disk."""

    orthotiles_dir: Path | None = None
    """Folder of orthotiles, <tile id>/<scene id>/; default: input/planet/tiles under the large folder."""
    scenes_dir: Path | None = None
    """Folder of scenes, <scene id>/; default: input/planet/scenes under the large folder."""
    image_ids: list[str] | None = None
    """Work on these scenes and orthotiles only; default: all that are found."""

    command: ClassVar[tuple[str, ...]] = ("run", "planet")

    @staticmethod
    def cli(*, pipeline: Annotated["PlanetPipeline | None", Parameter(name="*")] = None) -> int:
        """Find thaw features in PlanetScope scenes and orthotiles.

        Returns the exit code: 0 all tiles done or skipped, 1 some failed.
        """
        return (pipeline or PlanetPipeline()).run().exit_code

    @staticmethod
    def cli_prepare_data(
        *, pipeline: Annotated["PlanetPipeline | None", Parameter(name="*")] = None, aux: bool = False
    ) -> None:
        """Download the auxiliary data of PlanetScope tiles."""
        (pipeline or PlanetPipeline()).prepare_data(aux=aux)

    def _tileinfos(self) -> list[tuple[Path, Path]]:
        from darts_acquisition import find_planet_orthotiles, find_planet_scenes

        dirs = self.default_dirs.resolve()
        output = self._output(dirs)
        orthotiles, scenes = self._folders(dirs)
        named = [name for name in ("orthotiles_dir", "scenes_dir") if getattr(self, name) is not None]
        for name in named:
            if not getattr(self, name).is_dir():
                raise ConfigError(f"{name} {getattr(self, name)} is not a folder")
        found: list[tuple[Path, Path]] = []
        if orthotiles.is_dir():
            found += [(e.path, output / e.path.parent.name / e.path.name) for e in find_planet_orthotiles(orthotiles)]
        if scenes.is_dir():
            found += [(e.path, output / e.path.name) for e in find_planet_scenes(scenes)]
        if self.image_ids is None:
            if not found:
                raise ConfigError(f"no Planet images were found in {orthotiles} or {scenes}")
            return found
        there = {path.name for path, _ in found}
        if missing := sorted(set(self.image_ids) - there):
            raise ConfigError(f"image_ids: {', '.join(missing)} not found in {orthotiles} or {scenes}")
        return [(path, out) for path, out in found if path.name in self.image_ids]

    def _folders(self, dirs: DefaultPaths) -> tuple[Path, Path]:
        return self.orthotiles_dir or dirs.planet_orthotiles, self.scenes_dir or dirs.planet_scenes

    def _get_tile_id(self, tilekey: Path) -> str:
        orthotiles, scenes = self._folders(self.default_dirs.resolve())
        return tilekey.relative_to(scenes if tilekey.parent == scenes else orthotiles).as_posix()

    def _load_tile(self, tilekey: Path) -> "xr.Dataset":
        from darts_acquisition import load_planet_masks, load_planet_scene

        # Both are read from the same raster's grid.
        return load_planet_scene(tilekey).assign(load_planet_masks(tilekey).data_vars)

    def _tile_aoi(self) -> "gpd.GeoDataFrame":
        raise NotBuiltError("the area of Planet tiles is needed for downloads only, which are not built yet")

    def _arcticdem_resolution(self) -> Literal[2]:
        return 2

    def _default_output_name(self) -> str:
        return "planet"


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
    """MGRS tiles, with or without leading T."""
    aoi_file: Path | None = None
    """Vector file with the area of interest."""
    start_date: str | None = None
    """First day, YYYY-MM-DD."""
    end_date: str | None = None
    """Last day, YYYY-MM-DD."""
    max_cloud_cover: int | None = 10
    """Highest cloud cover in percent."""
    max_snow_cover: int | None = 10
    """Highest snow cover in percent."""
    months: list[int] | None = None
    """Months to search; a date range beats them."""
    years: list[int] | None = None
    """Years to search; a date range beats them."""
    prep_data_scene_id_file: Path | None = None
    """Scene ids that prepare-data found, for an offline run."""
    sentinel2_grid_dir: Path | None = None
    """Folder of the MGRS tile grid."""
    raw_data_store: Path | None = None
    """Raw data store; default: input/sentinel2/<source>-scenes under the large folder."""
    no_raw_data_store: Annotated[bool, Parameter(negative="")] = False
    """Do not keep raw data on disk."""
    raw_data_source: Literal["cdse", "gee", "import"] = "cdse"
    """Where scenes come from; import: what `darts import-scene` put into the store."""

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
        optical: bool = False,
        aux: bool = False,
    ) -> None:
        """Download what an offline run of Sentinel-2 scenes needs."""
        (pipeline or Sentinel2Pipeline()).prepare_data(optical=optical, aux=aux)

    def _tileinfos(self) -> list[tuple[str, Path]]:
        self._store()
        output = self._output(self.default_dirs.resolve())
        return [(scene_id, output / scene_id) for scene_id in self._scene_ids()]

    def _scene_ids(self) -> list[str]:
        selections = ("scene_ids", "scene_id_file", "tile_ids", "aoi_file")
        given = [name for name in selections if getattr(self, name) is not None]
        if len(given) != 1:
            got = f"got {' and '.join(given)}" if given else "got none of them"
            raise ConfigError(f"exactly one of {', '.join(selections)} must be given, {got}")
        if self.scene_ids is not None:
            return [_plain_name(scene_id, "scene_ids") for scene_id in self.scene_ids]
        if self.scene_id_file is not None:
            return _read_scene_ids(self.scene_id_file, "scene_id_file")
        if self.offline and self.prep_data_scene_id_file is not None:
            return _read_scene_ids(self.prep_data_scene_id_file, "prep_data_scene_id_file")
        raise NotBuiltError(
            f"{given[0]}: searching scenes is not built yet in this version. Give scene_ids or scene_id_file, "
            "or offline with prep_data_scene_id_file."
        )

    def _get_tile_id(self, tilekey: str) -> str:
        return tilekey

    def _load_tile(self, tilekey: str) -> "xr.Dataset":
        from darts_acquisition import load_cdse_s2_sr_scene, load_gee_s2_sr_scene, load_imported_scene

        store = self._store()
        if self.raw_data_source == "import":
            return load_imported_scene(tilekey, store)
        bands = (
            *BASIC_BANDS,
            *(name for name in self._required if name in SENTINEL2_ASSETS and name not in BASIC_BANDS),
        )
        if self.raw_data_source == "gee":
            mapping = {SENTINEL2_ASSETS[name].partition("_")[0].replace("B0", "B"): name for name in bands}
            return load_gee_s2_sr_scene(tilekey, mapping, store=store, offline=self.offline, device="cpu")
        mapping = {SENTINEL2_ASSETS[name]: name for name in bands}
        return load_cdse_s2_sr_scene(tilekey, mapping, store=store, offline=self.offline, device="cpu")

    def _store(self) -> Path:
        if self.no_raw_data_store:
            raise NotBuiltError(
                "no_raw_data_store: loading scenes straight from the network is not built yet in this version; "
                "leave it out and use scenes from the raw data store"
            )
        return self.raw_data_store or self.default_dirs.resolve().sentinel2_scenes(self.raw_data_source)

    def _optical_bands(self) -> tuple[str, ...]:
        return BASIC_BANDS if self.raw_data_source == "import" else tuple(SENTINEL2_ASSETS)

    def _use_bands(self, required: tuple[str, ...]) -> None:
        self._required = required  # type: ignore[misc]  # an instance's own, over the class default

    def _tile_aoi(self) -> "gpd.GeoDataFrame":
        raise NotBuiltError("the area of Sentinel-2 tiles is needed for downloads only, which are not built yet")

    def _arcticdem_resolution(self) -> Literal[10]:
        return 10

    def _default_output_name(self) -> str:
        return f"sentinel2-{self.raw_data_source}"

    def _result_metadata(self, tilekey: str) -> Mapping[str, Any]:
        return {"rawdatasource": self.raw_data_source}


def _read_scene_ids(file: Path, parameter: str) -> list[str]:
    try:
        ids = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{parameter} {file} does not exist") from error
    except (ValueError, OSError) as error:
        raise ConfigError(f"{parameter} {file} cannot be read as JSON: {error}") from error
    if not isinstance(ids, list) or not all(isinstance(scene_id, str) for scene_id in ids):
        raise ConfigError(f"{parameter} {file} must hold a JSON list of scene ids")
    return [_plain_name(scene_id, f"{parameter} {file}") for scene_id in ids]


def _plain_name(scene_id: str, where: str) -> str:
    """Check that an id can be the name of a folder: results must not land anywhere else."""
    if not scene_id or scene_id.startswith(".") or len(scene_id) > 150 or any(c in "/\\\0" for c in scene_id):
        raise ConfigError(f"{where}: {scene_id!r} is not a scene id")
    return scene_id
