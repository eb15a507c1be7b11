"""The plan: the one place that knows the order of steps, and what each of them needs."""

import hashlib
import importlib.util
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from darts import __version__
from darts.auxiliary import AuxiliaryOptions
from darts.inputs import load_inputs
from darts.needs import needed_features
from darts.records.events import Ready
from darts.strips import WORKING_BYTES_PX, FeatureRows, bytes_as_a_whole
from darts.tiles import Inputs, Source, Tile
from darts.timings import TileClock
from darts_ensemble import EnsembleV1
from darts_export import expected_files, export_tile, missing_outputs
from darts_postprocessing import prepare_export
from darts_preprocessing import preprocess_v2
from darts_utils.arrays import to_host
from darts_utils.option_tags import TAGS

logger = logging.getLogger("darts.plan")

OTHER_PIXELS = 0.1
"""By what share pixels may differ in size from those that a model was trained on, before a user hears of it."""
REPORTED = ("relative_elevation", "hillshade", "slope")
"""Features that the report of a tile shows where models need them anyway."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """How tiles are turned into results; the pipelines check and document these fields."""

    auxiliary: AuxiliaryOptions
    tpi_outer_radius: int
    tpi_inner_radius: int
    patch_size: int
    overlap: int
    batch_size: int
    reflection: int
    binarization_threshold: float
    mask_erosion_size: int
    edge_erosion_size: int | None
    min_object_size: int
    quality_level: int
    export_bands: tuple[str, ...]
    write_model_outputs: bool
    offline: bool
    debug_data: bool
    precision: str | None = None
    runtime: str = "torch"
    augment: bool = False
    model_weights: Mapping[str, float] | None = None
    more_thresholds: tuple[float, ...] = ()
    grow_threshold: float | None = None
    min_object_area: float | None = None
    max_water_share: float | None = None
    memory_budget: int | None = None
    """Bytes; a tile that would take more is worked on in strips. It does not shape results."""


class Plan:
    """Turns one tile after the other into files, with models that are loaded once."""

    def __init__(self, source: Source, models: Mapping[str, Path], options: PlanOptions, *, device: str) -> None:
        self.source = source
        self.options = options
        self.device = device
        self.ensemble = EnsembleV1(
            dict(models), device, weights=options.model_weights, precision=options.precision, runtime=options.runtime
        )
        self.subsets = tuple(self.ensemble.model_names) if options.write_model_outputs and len(models) > 1 else ()
        self.home = device if device == "cpu" or importlib.util.find_spec("cupy") else "cpu"
        """Where features are made; with a GPU and cupy, the tile goes up once and stays until it is segmented."""
        self.features = needed_features(self.ensemble.required_bands, options.export_bands)
        shown = REPORTED if "report" in options.export_bands else ()
        self.exported = needed_features([name for name in self.features if name in shown], options.export_bands)
        """Features that the files need; those that only models need are let go of before."""
        self._pixels_told: set[tuple[float, float, str]] = set()
        logger.info(
            "models %s on %s need %s", ", ".join(self.ensemble.model_names), device, ", ".join(self.required_bands)
        )

    @property
    def required_bands(self) -> tuple[str, ...]:
        """Bands that the models need."""
        return tuple(self.ensemble.required_bands)

    @property
    def fingerprint(self) -> str:
        """Hash of all that shapes results: options and model checksums."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """Options and model checksums that shape results, by name.

        Not the export bands: a tile that lacks files is made again anyway.
        """
        told_otherwise = ("batchsize", "version", "modelfiles", "modelchecksums")
        shaping = {key: value for key, value in self._metadata_options().items() if key not in told_otherwise}
        shaping["models"] = self.ensemble.checksums
        return dict(json.loads(json.dumps(shaping, default=str)))

    def ready(self, worker: str) -> Ready:
        """Return what a worker that has loaded this plan computes with."""
        return Ready(worker=worker, settings=self.settings, fingerprint=self.fingerprint)

    def missing(self, tile: Tile) -> str:
        """Return "all", "some" or "none": which of a tile's files are still to be made."""
        o = self.options
        return missing_outputs(
            tile.output, o.export_bands, self.subsets, debug=o.debug_data, thresholds=o.more_thresholds
        )

    def process(self, tile: Tile, clock: TileClock) -> None:
        """Load, preprocess, segment, postprocess and export one tile."""
        self.finish(tile, self.compute(tile, self.load(tile, clock), clock), clock)

    def load(self, tile: Tile, clock: TileClock) -> Inputs:
        """Read what a tile is made from: from disk, or over the network where the source may."""
        o = self.options
        inputs = load_inputs(
            self.source, tile.key, self.features, o.auxiliary,
            tpi_outer_radius=o.tpi_outer_radius, offline=o.offline, clock=clock,
        )  # fmt: skip
        self._compare_pixels(tile, inputs.datasets[0])
        return inputs

    def _compare_pixels(self, tile: Tile, optical: xr.Dataset) -> None:
        """Warn, once for each size of pixels, where models were trained on another one."""
        geobox = optical.odc.geobox
        if geobox is None or geobox.crs is None or not geobox.crs.projected:
            return  # which the step that cares tells of
        width, height = abs(geobox.affine.a), abs(geobox.affine.e)
        for name, trained in self.ensemble.pixel_sizes.items():
            differs = max(abs(side / trained - 1) for side in (width, height)) > OTHER_PIXELS
            if differs and (width, height, name) not in self._pixels_told:
                self._pixels_told.add((width, height, name))
                logger.warning(
                    "%s has pixels of %g × %g m; the model %s was trained on %g m and may find nothing, or anything",
                    tile.tile_id, width, height, name, trained,
                )  # fmt: skip

    def compute(self, tile: Tile, inputs: Inputs, clock: TileClock, batch_size: int | None = None) -> xr.Dataset:
        """Return the tile with features and probabilities, in host memory; what was loaded is let go of.

        Args:
            tile: the tile.
            inputs: what `load` read; it is empty afterwards.
            clock: measures the steps.
            batch_size: patches per forward pass where it shall be less than the options say.
        """
        o = self.options
        preprocessing = {
            "tpi_outer_radius": o.tpi_outer_radius,
            "tpi_inner_radius": o.tpi_inner_radius,
            "terrain_convention": self.ensemble.terrain_convention,
            "device": self.home,
        }
        patches = {
            "patch_size": o.patch_size,
            "overlap": o.overlap,
            "batch_size": batch_size or o.batch_size,
            "reflection": o.reflection,
            "keep_inputs": bool(self.subsets),
            "augment": o.augment,
        }
        strips = self._in_strips(tile, inputs)
        loaded = inputs.take()
        if strips:
            # The features that only models need are made row by row, and never held as a whole.
            rows = FeatureRows(*loaded, preprocessing)
            layers = clock.run("Segmenting", self.ensemble.segment_rows, rows, **patches)
            features = clock.run("Preprocessing", preprocess_v2, *loaded, **preprocessing, features=self.exported)
            segmented = features.assign(layers)
            del rows, layers, loaded
        else:
            features = clock.run("Preprocessing", preprocess_v2, *loaded, **preprocessing, features=self.features)
            del loaded
            segmented = clock.run("Segmenting", self.ensemble.segment_tile, features, **patches)
            if not o.debug_data:
                segmented = segmented.drop_vars([name for name in self.features if name not in self.exported])
        return to_host(segmented)

    def finish(self, tile: Tile, segmented: xr.Dataset, clock: TileClock) -> None:
        """Find objects and write the tile's files."""
        o = self.options
        ready = clock.run(
            "Postprocessing",
            prepare_export,
            segmented,
            bin_threshold=o.binarization_threshold,
            mask_erosion_size=o.mask_erosion_size,
            min_object_size=o.min_object_size,
            quality_level=o.quality_level,
            ensemble_subsets=self.subsets,
            device="cpu",
            edge_erosion_size=o.edge_erosion_size,
            more_thresholds=o.more_thresholds,
            grow_threshold=o.grow_threshold,
            min_object_area=o.min_object_area,
            max_water_share=o.max_water_share,
        )
        del segmented
        clock.run(
            "Exporting",
            export_tile,
            ready,
            tile.output,
            bands=o.export_bands,
            ensemble_subsets=self.subsets,
            metadata=self.metadata(tile),
            debug=o.debug_data,
            thresholds=o.more_thresholds,
        )

    def files(self) -> tuple[str, ...]:
        """Return the names of the files that every tile gets."""
        o = self.options
        return tuple(expected_files(o.export_bands, self.subsets, debug=o.debug_data, thresholds=o.more_thresholds))

    def bytes_needed(self, inputs: Inputs) -> int:
        """Return about how many bytes a loaded tile takes until it is computed, as a whole."""
        return bytes_as_a_whole(inputs.datasets, inputs.shape, self.features, len(self.subsets))

    def bytes_to_finish(self, segmented: xr.Dataset) -> int:
        """Return about how many bytes a computed tile takes until its files are written."""
        return int(segmented.nbytes) + segmented.sizes["y"] * segmented.sizes["x"] * WORKING_BYTES_PX

    def _in_strips(self, tile: Tile, inputs: Inputs) -> bool:
        """Return whether a tile would take more memory than the run may."""
        o = self.options
        if o.memory_budget is None or o.debug_data:  # which writes all features
            return False
        needed = self.bytes_needed(inputs)
        if needed <= o.memory_budget:
            return False
        logger.info(
            "tile %s would take some %.1f GB and may take %.1f GB: its features are made in strips",
            tile.tile_id, needed / 1e9, o.memory_budget / 1e9,
        )  # fmt: skip
        return True

    def metadata(self, tile: Tile) -> dict[str, Any]:
        """Return what a tile's results say of their making; no time of processing, so that files are reproducible."""
        return {"tileid": tile.tile_id, **self._metadata_options(), **self.source.result_metadata(tile.key)}

    def _metadata_options(self) -> dict[str, Any]:
        o = self.options
        told = {tag: getattr(o, option) for option, tag in TAGS.items()}
        if o.edge_erosion_size is None:
            told[TAGS["edge_erosion_size"]] = o.mask_erosion_size
        return told | {
            "modelfiles": ",".join(self.ensemble.model_names),
            "modelchecksums": ",".join(f"{name}:{sha}" for name, sha in self.ensemble.checksums.items()),
            "terrainconvention": self.ensemble.terrain_convention,
            "precision": ",".join(sorted(set(self.ensemble.precisions.values()))),
            "version": __version__,
        }
