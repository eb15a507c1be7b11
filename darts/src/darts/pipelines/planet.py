"""The pipeline for PlanetScope."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from cyclopts import Parameter

from darts.pipelines.base import _BasePipeline
from darts_utils.errors import ConfigError
from darts_utils.paths import DefaultPaths
from darts_utils.quoting import listed, shown

if TYPE_CHECKING:
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from darts.pipelines.preparation import Preparation


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
        *,
        pipeline: Annotated["PlanetPipeline | None", Parameter(name="*")] = None,
        aux: Annotated[bool, Parameter(negative="")] = False,
    ) -> int:
        """Download the auxiliary data that an offline run of PlanetScope tiles needs.

        Returns the exit code: 0 all is there, 1 some could not be had.

        Parameters
        ----------
        aux
            Fetch the ArcticDEM and TCVIS of the tiles' areas into their cubes, as far as the models need them.
        """
        return (pipeline or PlanetPipeline()).prepare_data(aux=aux).exit_code

    def prepare_data(self, optical: bool = False, aux: bool = False) -> "Preparation":
        """Download the auxiliary data that a later offline run needs; see the base."""
        if optical:
            raise ConfigError("Planet images are ordered from Planet; prepare their auxiliary data alone (aux)")
        return super().prepare_data(aux=aux)

    def _check(self) -> None:
        super()._check()
        if self.max_water_share is not None:
            raise ConfigError("max_water_share needs a scene classification, which Planet images lack; leave it out")

    def _tileinfos(self) -> list[tuple[Path, Path]]:
        from darts_acquisition import find_planet_orthotiles, find_planet_scenes

        dirs = self.default_dirs.resolve()
        output = self._output(dirs)
        orthotiles, scenes = self._folders(dirs)
        named = [name for name in ("orthotiles_dir", "scenes_dir") if getattr(self, name) is not None]
        for name in named:
            if not getattr(self, name).is_dir():
                raise ConfigError(f"{name} {getattr(self, name)} is not a folder; name the one that holds the images")
        found: list[tuple[Path, Path]] = []
        if orthotiles.is_dir():
            found += [(e.path, output / e.path.parent.name / e.path.name) for e in find_planet_orthotiles(orthotiles)]
        if scenes.is_dir():
            found += [(e.path, output / e.path.name) for e in find_planet_scenes(scenes)]
        if self.image_ids is None:
            if not found:
                loose = next((file for folder in (orthotiles, scenes) for file in folder.glob("*_SR*.tif")), None)
                raise ConfigError(
                    f"no Planet images were found in {orthotiles} or {scenes}: expected a folder for each, such as "
                    "20210821_210019_24a1/…_SR.tif" + (f"; {loose.name} lies there without one" if loose else "")
                )
            return found
        there = {path.name for path, _ in found}
        if missing := sorted(set(self.image_ids) - there):
            some = listed(map(shown, missing), 3)
            raise ConfigError(f"image_ids: {some} not found in {orthotiles} or {scenes}; --dry-run lists what is there")
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

    def _tile_geobox(self, tilekey: Path) -> "GeoBox":
        from darts_acquisition import planet_geobox

        return planet_geobox(tilekey)

    def _tile_year(self, tilekey: Path) -> int:
        from darts_acquisition import planet_year

        return planet_year(tilekey)

    def _missing_optical(self, tilekey: Path) -> tuple[tuple[str, ...], int | None]:
        self._tile_geobox(tilekey)  # raises where the files cannot be used
        return (), 0

    def _remarks(self) -> list[tuple[str, str]]:
        from darts_acquisition import scan_planet_orthotiles, scan_planet_scenes

        orthotiles, scenes = self._folders(self.default_dirs.resolve())
        scans = [scan_planet_orthotiles(orthotiles)] if orthotiles.is_dir() else []
        scans += [scan_planet_scenes(scenes)] if scenes.is_dir() else []
        return [(str(folder.path), "; ".join(folder.reasons)) for scan in scans for folder in scan.incomplete]

    def _arcticdem_resolution(self) -> Literal[2]:
        return 2

    def _default_output_name(self) -> str:
        return "planet"
