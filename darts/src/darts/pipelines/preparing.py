"""Preparation of an offline run, and the plans that `--dry-run` tells, for any pipeline."""

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

from darts.auxiliary import CubeNeed, cubes_needed
from darts.needs import Needs, everything, model_names, models_in, read_needs
from darts.pipelines.dry_run import TilePreview, print_dry_run
from darts.pipelines.hooks import Hooks
from darts.pipelines.preparation import Download, Preparation, fetch_all, print_preparation, receiving, total_bytes
from darts.tiles import Tile
from darts_export import missing_outputs
from darts_utils.errors import DartsError
from darts_utils.paths import DefaultPaths

logger = logging.getLogger("darts.pipelines")


def prepare(pipeline: Hooks, tiles: list[Tile], dirs: DefaultPaths, *, optical: bool, aux: bool) -> Preparation:
    """Fetch what a later offline run of `tiles` needs."""
    needs = _needs(pipeline, dirs)
    pipeline._use_bands(needs.bands)
    result = Preparation()
    if optical:
        _prepare_optical(pipeline, tiles, result)
    if aux and (needs.dem or needs.tcvis):
        areas = pipeline._tile_aoi()
        for tile_id, error in pipeline._areas_unknown.items():
            if tile_id not in result.failed:
                logger.error("%s failed: %s", tile_id, error)
                result.failed[tile_id] = error
        for cube in cubes_needed(areas, needs, pipeline._auxiliary(dirs), pipeline.tpi_outer_radius):
            _prepare_cube(cube, result)
    print_preparation(result)
    return result


def print_plans(
    pipeline: Hooks, tiles: list[Tile], dirs: DefaultPaths, *, optical: bool, aux: bool, results: bool
) -> None:
    """Tell what would be done with `tiles`, and change nothing; `results`: whether they would be made too."""
    needs = _needs(pipeline, dirs)
    pipeline._use_bands(needs.bands)
    cubes: list[CubeNeed] = []
    if aux and (needs.dem or needs.tcvis):
        cubes = list(cubes_needed(pipeline._tile_aoi(), needs, pipeline._auxiliary(dirs), pipeline.tpi_outer_radius))
    models = tuple(needs.by_model)
    subsets = models if pipeline.write_model_outputs and len(models) > 1 else ()

    def missing_results(tile: Tile) -> str:
        return missing_outputs(
            tile.output,
            pipeline.export_bands,
            subsets,
            debug=pipeline.debug_data,
            thresholds=pipeline.more_thresholds,
        )

    previews = [
        _preview(pipeline, tile, cubes, optical=optical, results=missing_results(tile) if results else "")
        for tile in tiles
    ]
    print_dry_run(previews, needs, {cube.name: len(cube.missing(cube.areas)) for cube in cubes}, pipeline._remarks())


def _preview(pipeline: Hooks, tile: Tile, cubes: list[CubeNeed], *, optical: bool, results: str) -> TilePreview:
    missing: tuple[str, ...] = ()
    n_bytes: int | None = 0
    problem = pipeline._areas_unknown.get(tile.tile_id, "") if cubes else ""
    if optical:
        try:
            missing, n_bytes = pipeline._missing_optical(tile.key)
        except DartsError as error:
            problem = str(error)
    chunks = {cube.name: len(cube.missing(areas)) for cube, areas in _of_tile(cubes, tile)}
    return TilePreview(
        tile_id=tile.tile_id,
        results=results,
        optical=optical,
        missing=missing,
        n_bytes=n_bytes,
        chunks=chunks,
        problem=problem,
    )


def _of_tile(cubes: list[CubeNeed], tile: Tile) -> Iterator[tuple[CubeNeed, Any]]:
    for cube in cubes:
        if "tile_id" in cube.areas:
            areas = cube.areas[cube.areas["tile_id"] == tile.tile_id]
            if len(areas):
                yield cube, areas


def _needs(pipeline: Hooks, dirs: DefaultPaths) -> Needs:
    """Return what the models and exports need; of everything, where this machine has no models yet."""
    if pipeline.model_files is None and not models_in(dirs.models):
        logger.warning(
            "no models in %s: the auxiliary data of all features counts as needed, and of the optical bands blue, "
            "green, red and nir alone",
            dirs.models,
        )
        return everything()
    return read_needs(model_names(pipeline._models(dirs)), pipeline.export_bands)


def _prepare_optical(pipeline: Hooks, tiles: list[Tile], result: Preparation) -> None:
    downloads = []
    for tile in tiles:
        try:
            missing, n_bytes = pipeline._missing_optical(tile.key)
        except DartsError as error:
            result.failed[tile.tile_id] = f"{type(error).__name__}: {error}"
            logger.error("%s failed: %s", tile.tile_id, error)
            continue
        if missing:
            downloads.append(Download(tile.tile_id, n_bytes, partial(pipeline._download_tile, tile.key)))
        else:
            result.present.append(tile.tile_id)
    if not downloads:
        return
    with receiving("scenes", len(downloads), total_bytes(downloads), result) as display:
        pipeline._report = display  # type: ignore[misc]  # an instance's own, over the class default
        fetch_all(downloads, display, result)


def _prepare_cube(cube: CubeNeed, result: Preparation) -> None:
    """Fetch what a cube lacks; what was fetched before an error stays."""
    try:
        missing = cube.missing(cube.areas)
        if not missing:
            result.present.append(cube.name)
            return
        with receiving(f"chunks of {cube.name}", len(missing), None, result) as display:
            cube.fetch(cube.areas, display, lambda chunk: display.done(f"a chunk of {cube.name}"))
    except DartsError as error:
        logger.error("%s failed: %s", cube.name, error)
        result.failed[cube.name] = f"{type(error).__name__}: {error}"
    else:
        result.fetched.append(cube.name)
