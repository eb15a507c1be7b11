"""What a pipeline is to those that work with it: parameters, hooks of a source, folders, and the plan."""

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from darts.display.transfers import SILENT, TransferDisplay
from darts.memory import memory_budget
from darts.pipelines.options import SharedOptions
from darts.tiles import Source, Tile
from darts_utils.arrays import resolve_device
from darts_utils.errors import ConfigError, DartsError, NotBuiltError
from darts_utils.paths import DefaultPaths

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr
    from odc.geo.geobox import GeoBox

    from darts.auxiliary import AuxiliaryOptions
    from darts.plan import Plan
    from darts_acquisition import EarthEngineSource


class Hooks(SharedOptions, ABC):
    """What a source gives, and what is made of it and the parameters."""

    command: ClassVar[tuple[str, ...]] = ()
    """Command line path of the pipeline, and the name of its table in a configuration file."""
    _preparing: ClassVar[bool] = False
    _tiles_found: ClassVar[list[Tile]] = []
    _areas_unknown: ClassVar[dict[str, str]] = {}
    _report: ClassVar[TransferDisplay] = SILENT
    """Hears of the bytes that `_download_tile` receives."""

    # ---- the hooks of a new pipeline -------------------------------------------------------------------------------

    @abstractmethod
    def _tileinfos(self) -> list[tuple[Any, Path]]:
        """Return key and output folder of every tile."""

    @abstractmethod
    def _get_tile_id(self, tilekey: Any) -> str:
        """Return the name of a tile."""

    @abstractmethod
    def _load_tile(self, tilekey: Any) -> "xr.Dataset":
        """Load the optical tile, with `quality_data_mask` and the sun's angles."""

    @abstractmethod
    def _arcticdem_resolution(self) -> Literal[2, 10, 32]:
        """Return the resolution of the ArcticDEM that fits the tiles, in metres."""

    def _default_output_name(self) -> str:
        """Return the name of the output folder below `output/`; by default that of the class, without "Pipeline"."""
        return type(self).__name__.removesuffix("Pipeline").lower() or "tiles"

    def _optical_bands(self) -> tuple[str, ...]:
        """Return the optical bands that the source can give."""
        return ("blue", "green", "red", "nir")

    def _use_bands(self, required: tuple[str, ...]) -> None:  # an optional hook
        """Hear which bands the models need, before the first tile is loaded."""

    def _tile_geobox(self, tilekey: Any) -> "GeoBox":
        """Return the grid of a tile without loading its pixels; `_tile_aoi` needs it."""
        raise NotBuiltError(f"{type(self).__name__} has neither _tile_geobox nor a _tile_aoi of its own")

    def _tile_year(self, tilekey: Any) -> int | None:
        """Return the year in which a tile was acquired, which decides on the TCVIS cube; None: the newest."""
        return None

    def _tile_aoi(self) -> "gpd.GeoDataFrame":
        """Return the area of all tiles, for which auxiliary data is prepared; see `tile_areas` for the columns.

        A tile whose area is not known is left out, and `_areas_unknown` tells why.
        """
        from darts.pipelines.tile_areas import tile_areas

        found = []
        self._areas_unknown = {}  # type: ignore[misc]  # an instance's own, over the class default
        for tile in self._tiles_found:
            try:
                found.append((tile.tile_id, self._tile_year(tile.key), self._tile_geobox(tile.key)))
            except DartsError as error:
                self._areas_unknown[tile.tile_id] = f"{type(error).__name__}: {error}"
        return tile_areas(found)

    def _missing_optical(self, tilekey: Any) -> tuple[tuple[str, ...], int | None]:
        """Return which bands of a tile are not on disk, and their bytes where the source tells.

        A source that does not say so but can download is asked for every tile.

        Raises:
            DartsError: they are not there and cannot be fetched.
        """
        downloads = type(self)._download_tile is not Hooks._download_tile
        return (self._optical_bands(), None) if downloads else ((), 0)

    def _download_tile(self, tilekey: Any) -> None:
        """Download what `_load_tile` needs; tell `self._report` of bytes received."""
        raise NotBuiltError(f"{type(self).__name__} cannot download tiles")

    def _remarks(self) -> list[tuple[str, str]]:
        """Return inputs that are there but incomplete, each with the reason."""
        return []

    def _result_metadata(self, tilekey: Any) -> Mapping[str, Any]:
        """Return what the source adds to the metadata of a tile's results."""
        return {}

    # ---- what a run is made of ---------------------------------------------------------------------------------------

    def plan(self) -> "Plan":
        """Return what turns tiles into files, with the models loaded onto the device."""
        # The options and their help are read without torch; it is loaded here, when work starts.
        dirs = self.default_dirs.resolve()
        from darts.needs import check_bands, model_names
        from darts.plan import Plan, PlanOptions

        options = PlanOptions(
            auxiliary=self._auxiliary(dirs),
            tpi_outer_radius=self.tpi_outer_radius,
            tpi_inner_radius=self.tpi_inner_radius,
            patch_size=self.patch_size,
            overlap=self.overlap,
            batch_size=self.batch_size,
            reflection=self.reflection,
            precision=self.precision,
            runtime=self.runtime,
            augment=self.augment,
            model_weights=self.model_weights,
            binarization_threshold=self.binarization_threshold,
            more_thresholds=tuple(self.more_thresholds),
            grow_threshold=self.grow_threshold,
            mask_erosion_size=self.mask_erosion_size,
            edge_erosion_size=self.edge_erosion_size,
            min_object_size=self.min_object_size,
            min_object_area=self.min_object_area,
            max_water_share=self.max_water_share,
            quality_level=self.lowest_quality,
            export_bands=tuple(self.export_bands),
            write_model_outputs=self.write_model_outputs,
            offline=self.offline,
            debug_data=self.debug_data,
            memory_budget=memory_budget(self.memory_budget),
        )
        source = Source(self._load_tile, self._arcticdem_resolution(), self._result_metadata)
        plan = Plan(source, model_names(self._models(dirs)), options, device=resolve_device(self.first_device))
        check_bands(plan.required_bands, self._optical_bands())
        self._use_bands(plan.required_bands)
        return plan

    def for_worker(self, device: str | int, memory: str | None) -> Self:
        """Return a copy for a worker elsewhere, where the environment may be another one."""
        worker = copy.copy(self)
        worker.device = device  # type: ignore[assignment]
        worker.memory_budget = memory
        worker.default_dirs = self.default_dirs.resolve()
        worker._tiles_found = []  # type: ignore[misc]  # it hears of its tiles one by one
        worker._report = SILENT  # type: ignore[misc]  # the display of an earlier download stays here
        return worker

    def _auxiliary(self, dirs: DefaultPaths) -> "AuxiliaryOptions":
        from darts.auxiliary import AuxiliaryOptions
        from darts_acquisition import PGC

        endpoint = self.arcticdem_endpoint
        return AuxiliaryOptions(
            arcticdem_path=self.arcticdem_dir or dirs.arcticdem(self._arcticdem_resolution()),
            arcticdem_resolution=self._arcticdem_resolution(),
            arcticdem_source=PGC if endpoint is None else dataclasses.replace(PGC, endpoint=endpoint),
            tcvis_path=self.tcvis_dir or dirs.tcvis,
            tcvis_source=self._earth_engine(),
        )

    def _earth_engine(self, **settings: Any) -> "EarthEngineSource":
        from darts_acquisition import EarthEngineSource

        return EarthEngineSource(
            project=self.ee_project, use_highvolume=self.ee_use_highvolume, endpoint=self.ee_endpoint, **settings
        )

    def _models(self, dirs: DefaultPaths) -> list[Path]:
        from darts.needs import models_in

        if self.model_files is not None:
            files = [self.model_files] if isinstance(self.model_files, Path | str) else list(self.model_files)
            files = [Path(file) for file in files]
        else:
            files = models_in(dirs.models)
        if not files:
            raise ConfigError(
                f"no models in {dirs.models}: put checkpoints there, or name them with --model-files, such as "
                "darts-demo/models/demo-optical.pt"
            )
        return files

    def _output(self, dirs: DefaultPaths) -> Path:
        return self.output_data_dir or dirs.output(self._default_output_name())

    def _resolved_options(self, output: Path, dirs: DefaultPaths) -> dict[str, Any]:
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        del options["default_dirs"]
        options |= {f.name: getattr(dirs, f.name) for f in dataclasses.fields(dirs)}
        options |= {
            "model_files": self._models(dirs),
            "output_data_dir": output,
            "arcticdem_dir": self.arcticdem_dir or dirs.arcticdem(self._arcticdem_resolution()),
            "tcvis_dir": self.tcvis_dir or dirs.tcvis,
            "device": self.device,
        }
        return options
