"""The models that come with darts, made from the synthetic generator alone, and their scores on unseen landscapes."""

import logging
import shutil
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.resources import files
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import xarray as xr

from darts.demo.rule import RULE, apply_rule
from darts.demo.score import CLOUD_CLASSES, edge_zone, rasterize_truth, score_objects, score_pixels
from darts.demo.write import TRUTH_FILE, load_demo_tile
from darts.training.options import CreateOptions
from darts.training.synthetic import SyntheticSite, create_synthetic_dataset, process_pool, write_synthetic_site
from darts_postprocessing import prepare_export
from darts_utils.errors import ConfigError
from darts_utils.numbers import whole_number
from darts_utils.quoting import listed
from darts_utils.store import replacing
from darts_utils.threads import available_cores

if TYPE_CHECKING:
    from darts_segmentation.training.scores import Hits, ObjectCounts

logger = logging.getLogger("darts.training")

ENSEMBLE, BY_RULE = "ensemble", "rule"


@dataclass(frozen=True)
class Recipe:
    """What is trained on what; the content of a file like `darts/demo/models.toml`."""

    seeds: tuple[int, ...]
    validated: tuple[int, ...]
    """Of these, those that are not trained on."""
    size: int
    dataset: CreateOptions
    fits: Mapping[str, Mapping[str, Any]]
    """Options of `fit` by model."""
    test_seeds: tuple[int, ...]


@dataclass(frozen=True)
class SeedScores:
    """Scores on one landscape, or on several together, by model, `ensemble` and `rule`."""

    objects: "Mapping[str, ObjectCounts]"
    pixels: "Mapping[str, Hits]"

    def __add__(self, other: "SeedScores") -> "SeedScores":
        return SeedScores(
            {name: score + other.objects[name] for name, score in self.objects.items()},
            {name: score + other.pixels[name] for name, score in self.pixels.items()},
        )


def bundled_recipe() -> Path:
    """Return the recipe of the models that come with darts."""
    return Path(str(files("darts.demo"))) / "models.toml"


def read_recipe(file: Path) -> Recipe:
    """Return what a recipe says.

    Raises:
        ConfigError: it is not there, or no recipe, or has options that there are not.
    """
    from darts_segmentation.training.fit_options import FitOptions

    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        landscapes, test = content["landscapes"], content["test"]
        fits = {name: {**content.get("all", {}), **options} for name, options in content["models"].items()}
        _check_names(content["dataset"], CreateOptions, f"{file}, table dataset", "create-dataset sentinel2")
        for name, options in fits.items():
            _check_names(options, FitOptions, f"{file}, table models.{name} or all", "fit")
        return Recipe(
            seeds=_range(landscapes["seeds"]),
            validated=_range(landscapes["validated"]),
            size=int(landscapes["size"]),
            dataset=CreateOptions(**content["dataset"]),
            fits=fits,
            test_seeds=_range(test["seeds"]),
        )
    except OSError as error:
        raise ConfigError(f"recipe {file} cannot be read: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{file} is no recipe: {type(error).__name__}: {error}; see {bundled_recipe()}") from error


def _check_names(options: Mapping[str, Any], kind: type, where: str, command: str) -> None:
    if unknown := set(options) - {field.name for field in fields(kind)}:
        raise ConfigError(f"{where}: no option {listed(sorted(unknown))}; `darts train {command} --help` lists them")


def train_demo_models(folder: Path, recipe: Recipe, *, workers: int | None = None) -> Iterator[tuple[str, SeedScores]]:
    """Train the models of a recipe, then yield their scores on each landscape of its test, and last on "all".

    The models end up in `folder/models`, their scores in their cards; calling again goes on where it was interrupted.

    Args:
        folder: for landscapes (some 12 MB each), the dataset (some 2 GB) and the trainings.
        recipe: what is trained on what.
        workers: how many landscapes and models are made at once, each with one thread; default: one a core.

    Raises:
        DartsError: something cannot be made; the message says what.
    """
    workers = available_cores() if workers is None else whole_number("workers", workers, 1)
    dataset, sites = folder / "dataset", folder / "landscapes"
    create_synthetic_dataset(
        dataset, recipe.seeds, sites, size=recipe.size, options=recipe.dataset, workers=workers
    )  # fmt: skip
    with _mapping(min(workers, len(recipe.fits))) as each_of:
        options = [{"threads": 1, "loaders": 0, **each, "datasets": [dataset]} for each in recipe.fits.values()]
        splits = _splits(dataset, recipe.validated)
        made = list(each_of(_fit, options, [folder / name for name in recipe.fits], repeat(splits)))
    models = {name: folder / "models" / f"{name}.pt" for name in recipe.fits}
    for best, file in zip(made, models.values(), strict=True):
        with replacing(file) as temporary:
            shutil.copyfile(best, temporary)
    total: SeedScores | None = None
    with _mapping(min(workers, len(recipe.test_seeds))) as each_of:
        places = [sites / f"site-{seed}-{recipe.size}" for seed in recipe.test_seeds]
        tested = each_of(_tested, recipe.test_seeds, places, repeat(recipe.size), repeat(models))
        for seed, scores in zip(recipe.test_seeds, tested, strict=True):
            total = scores if total is None else total + scores
            yield str(seed), scores
    if total is not None:
        for name, file in models.items():
            _note_scores(file, recipe.test_seeds, total.objects[name], total.pixels[name])
        yield "all", total


def table_row(name: str, scores: SeedScores, models: Sequence[str]) -> str:
    """Return a row of the table in docs/demo-models.md."""
    columns = [ENSEMBLE, *models, BY_RULE]
    objects = [f"{scores.objects[column].f1:.2f}" for column in columns]
    pixels = [f"{scores.pixels[column].f1:.2f}" for column in (ENSEMBLE, BY_RULE)]
    return f"| {name} | {scores.objects[ENSEMBLE].there} | {' | '.join(objects + pixels)} |"


def _range(ends: Any) -> tuple[int, ...]:
    first, last = ends
    return tuple(range(int(first), int(last) + 1))


@contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Give a `map` that works in so many processes; one is this one."""
    if workers == 1:
        yield map
        return
    with process_pool(workers, _use_one_thread) as pool:
        yield pool.map


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _splits(dataset: Path, validated: Sequence[int]) -> dict[str, list[int]]:
    """Return the patches to train and to validate on.

    Landscapes of different seeds may lie at the same place and yet have nothing in common, so that it is not footprints
    that count here.
    """
    from darts_segmentation.training.patch_dataset import PatchDataset

    regions = PatchDataset.open(dataset).metadata["region"].to_numpy(dtype=str)
    held_out = np.isin(regions, [SyntheticSite(dataset, seed).region for seed in validated])
    return {"train": np.flatnonzero(~held_out).tolist(), "val": np.flatnonzero(held_out).tolist()}


def _fit(options: dict[str, Any], folder: Path, splits: dict[str, list[int]]) -> Path:
    from darts_segmentation.training.fitting import FitOptions, fit

    return fit(FitOptions(**options), folder, splits=splits)


def _tested(seed: int, place: Path, size: int, models: Mapping[str, Path]) -> SeedScores:
    """Return the scores on one landscape."""
    from darts_ensemble import EnsembleV1

    site = write_synthetic_site(place, seed, size)
    tile = load_demo_tile(site.folder)
    outlines = gpd.read_file(site.folder / TRUTH_FILE)
    truth = rasterize_truth(outlines, tile.odc.geobox.shape, tile.odc.geobox.transform)
    ensemble = EnsembleV1(dict(models), device="cpu")
    return _score(tile, truth, ensemble.segment_tile(tile, keep_inputs=len(models) > 1), list(models))


def _score(tile: xr.Dataset, truth: np.ndarray, segmented: xr.Dataset, models: list[str]) -> SeedScores:
    subsets = models if len(models) > 1 else []
    result = prepare_export(segmented, ensemble_subsets=subsets, device="cpu")
    extent, scl = result["extent"].to_numpy(), tile["s2_scl"].to_numpy()
    together = result["binarized_segmentation"].to_numpy()
    found: dict[str, np.ndarray] = {ENSEMBLE: together}
    found |= {name: result[f"binarized_segmentation-{name}"].to_numpy() for name in subsets} or {models[0]: together}
    found[BY_RULE] = apply_rule(tile["ndvi"].to_numpy(), tile["slope"].to_numpy(), scl, extent, RULE)
    hidden: dict[str, Any] = {"cloud": np.isin(scl, CLOUD_CLASSES), "edge": edge_zone(scl != 0)}
    return SeedScores(
        {name: score_objects(mask, truth, extent, **hidden) for name, mask in found.items()},
        {name: score_pixels(mask, truth, extent, **hidden) for name, mask in found.items()},
    )


def _note_scores(file: Path, seeds: Sequence[int], objects: "Hits", pixels: "Hits") -> None:
    """Put a model's scores into its card."""
    from darts_segmentation.checkpoint import load_checkpoint, save_again

    model = load_checkpoint(file)
    scores = {
        "test_seeds": [min(seeds), max(seeds)],
        "object_f1": round(objects.f1, 3),
        "pixel_f1": round(pixels.f1, 3),
    }
    save_again(model, file, card={**model.card, **scores})
