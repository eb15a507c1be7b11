"""Parameters that say where the scenes of a dataset come from; read without torch."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from darts.pipelines.stac_options import StacOptions
from darts_utils.paths import DefaultPaths

if TYPE_CHECKING:
    from darts.training.scenes import SceneSource

Flag = Annotated[bool, Parameter(negative="")]


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """Where scenes and the data beneath them lie; as in `darts run`."""

    default_dirs: Annotated[DefaultPaths, Parameter(name="*")] = field(default_factory=DefaultPaths)
    """Root folders; what is left out is taken from the environment."""
    arcticdem_dir: Path | None = None
    """ArcticDEM cube; default: aux/arcticdem_<resolution>m.icechunk under the large folder."""
    tcvis_dir: Path | None = None
    """Folder of the TCVIS cubes; default: aux under the large folder."""
    tpi_outer_radius: int = 100
    """Outer radius of the relative elevation, in metres."""
    tpi_inner_radius: int = 0
    """Inner radius of the relative elevation, in metres; 0: a disk."""
    ee_project: str | None = None
    """Earth Engine project."""
    offline: Flag = False
    """Never touch the network: what is missing is an error."""

    def _settings(self) -> dict[str, Any]:
        """Return the parameters of a pipeline."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Sentinel2Scenes(SceneOptions):
    """Which Sentinel-2 scenes labels are laid over."""

    raw_data_source: Literal["cdse", "earth-search", "gee", "import"] = "cdse"
    """Copernicus Data Space, public archive on AWS, Earth Engine, or what `darts import-scene` put into the store."""
    raw_data_store: Path | None = None
    """Raw data store; default: input/sentinel2/<source>-scenes under the large folder."""
    scene_ids: list[str] | None = None
    """Scenes to choose from; default: offline and of imported ones all in the store, else what a search finds."""
    scene_id_file: Path | None = None
    """JSON file with a list of such scenes."""
    aws_profile: str = "default"
    """AWS profile with the keys of the S3 service."""
    stac: StacOptions = field(default_factory=StacOptions)
    """What differs from the archive's own STAC settings: another address, other names."""
    ee_collection: str = "COPERNICUS/S2_SR_HARMONIZED"
    """Earth Engine's collection: the harmonised one, or COPERNICUS/S2_SR."""

    def source(self) -> "SceneSource":
        """Return the scenes."""
        from darts.pipelines import Sentinel2Pipeline
        from darts.training.scenes import sentinel2_scenes

        return sentinel2_scenes(Sentinel2Pipeline(**self._settings()))


@dataclass(frozen=True, kw_only=True)
class PlanetScenes(SceneOptions):
    """Which Planet images labels are laid over: those that they were drawn on."""

    orthotiles_dir: Path | None = None
    """Folder of orthotiles, <tile>/<scene>; default: input/planet/tiles under the large folder."""
    scenes_dir: Path | None = None
    """Folder of scenes; default: input/planet/scenes under the large folder."""
    image_ids: list[str] | None = None
    """Images to choose from; default: all in the folders."""

    def source(self) -> "SceneSource":
        """Return the images."""
        from darts.pipelines import PlanetPipeline
        from darts.training.scenes import planet_scenes

        return planet_scenes(PlanetPipeline(**self._settings()))
