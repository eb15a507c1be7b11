"""`darts train`: datasets from labels and scenes, models from datasets, and what they are worth."""

import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from darts.training.options import CreateOptions, LabelOptions, MatchOptions
from darts.training.scene_options import PlanetScenes, Sentinel2Scenes
from darts_segmentation.training.cross_validation import CrossOptions
from darts_segmentation.training.evaluation import EvaluationOptions
from darts_segmentation.training.fit_options import FitOptions
from darts_segmentation.training.tuning import TuneOptions
from darts_utils.errors import ConfigError
from darts_utils.quoting import listed
from darts_utils.store import replacing

if TYPE_CHECKING:
    from darts.training.scenes import SceneSource
    from darts_segmentation.training.checks import DatasetReport

Together = Parameter(name="*")


def create_sentinel2(
    dataset: Path,
    /,
    *,
    labels: Annotated[LabelOptions | None, Together] = None,
    scenes: Annotated[Sentinel2Scenes | None, Together] = None,
    match: Annotated[MatchOptions | None, Together] = None,
    options: Annotated[CreateOptions | None, Together] = None,
) -> int:
    """Make patches from labels and the Sentinel-2 scenes that fit them best, or add some to a dataset.

    Calling again goes on where it was interrupted. Samples that fail are named, and the exit code is 1.

    Parameters
    ----------
    dataset
        Folder of the dataset, new or of the same form.
    """
    return _create(dataset, labels or LabelOptions(), (scenes or Sentinel2Scenes()).source(), match, options)


def create_planet(
    dataset: Path,
    /,
    *,
    labels: Annotated[LabelOptions | None, Together] = None,
    scenes: Annotated[PlanetScenes | None, Together] = None,
    match: Annotated[MatchOptions | None, Together] = None,
    options: Annotated[CreateOptions | None, Together] = None,
) -> int:
    """Make patches from labels and the Planet images that they were drawn on, or add some to a dataset.

    Calling again goes on where it was interrupted. Samples that fail are named, and the exit code is 1.

    Parameters
    ----------
    dataset
        Folder of the dataset, new or of the same form.
    """
    return _create(dataset, labels or LabelOptions(), (scenes or PlanetScenes()).source(), match, options)


def validate_dataset(dataset: Path, /, *, training: Path | None = None, patches: int = 16) -> int:
    """Tell what a dataset holds and what is wrong with it; pictures go to the folder validation in it.

    The exit code is 1 if anything is wrong.

    Parameters
    ----------
    dataset
        Folder of the dataset.
    training
        Folder of a training on this dataset alone: samples of different splits must not overlap.
    patches
        How many patches are drawn.
    """
    require_training()
    from darts_segmentation.training.check_pictures import draw_bands, draw_patches
    from darts_segmentation.training.checks import check_dataset
    from darts_segmentation.training.evaluation import TrainedRun
    from darts_segmentation.training.patch_dataset import PatchDataset

    found = PatchDataset.open(dataset)
    names = found.metadata["sample_id"].to_numpy(dtype=str)
    report = check_dataset(dataset, None if training is None else TrainedRun(training).patches_by_split(names))
    folder = dataset / "validation"
    with replacing(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")
    draw_bands(report, folder / "bands.png")
    if len(found):
        draw_patches(found, folder / "patches.png", count=patches)
    _say([*_report_lines(report), f"{folder} holds this, with pictures"])
    return 1 if report.problems else 0


def fit(run: Path, /, *, options: Annotated[FitOptions, Together]) -> int:
    """Train a network on datasets of patches; the best one is best.pt in the folder of the training.

    Calling again with the same options goes on from the last whole epoch.

    Parameters
    ----------
    run
        Folder of the training.
    """
    require_training()
    from darts_segmentation.training.fitting import fit as train

    best = train(options, run)
    _say([f"{best} is the best model; test it with: darts train test {run}"])
    return 0


def evaluate(
    run: Path,
    /,
    *,
    model: Path | None = None,
    options: Annotated[EvaluationOptions | None, Together] = None,
) -> int:
    """Tell how good a trained model is on patches that it was not trained on.

    Scores with their intervals, curves and the reliability of probabilities go to the folder scores-<split> in that of
    the training.

    Parameters
    ----------
    run
        Folder of a training.
    model
        Model to test; default: best.pt of the training.
    """
    require_training()
    from darts_segmentation.training.evaluation import evaluate_run

    scores, folder = evaluate_run(run, options or EvaluationOptions(), model=model)
    _say([*scores.lines(), f"{folder} holds them, with pictures"])
    return 0


def crossval(
    folder: Path,
    /,
    *,
    cross: Annotated[CrossOptions | None, Together] = None,
    options: Annotated[FitOptions, Together],
) -> int:
    """Train and test on each of several folds and seeds, and tell mean and spread of the scores.

    Calling again goes on where it was interrupted.

    Parameters
    ----------
    folder
        Folder of all trainings.
    """
    require_training()
    from darts_segmentation.training.cross_validation import cross_validate

    _say(cross_validate(folder, options, cross or CrossOptions()).lines())
    return 0


def tune(
    folder: Path,
    /,
    *,
    search: Annotated[TuneOptions, Together],
    options: Annotated[FitOptions, Together],
) -> int:
    """Search for good hyperparameters; each trial is a training, and none is lost by a kill.

    Parameters
    ----------
    folder
        Folder of the search.
    """
    require_training()
    from darts_segmentation.training.tuning import tune as search_for

    trials = search_for(folder, options, search)
    counts = {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "failed")}
    _say([
        f"{len(trials)} trials: {', '.join(f'{count} {state}' for state, count in counts.items())}",
        f"best {options.monitor} {trials[0].score:.4g}, in {trials[0].folder}:",
        *(f"  {name} = {value}" for name, value in trials[0].values.items()),
    ])  # fmt: skip
    return 0


def demo_models(
    folder: Path,
    /,
    *,
    recipe: Path | None = None,
    workers: int | None = None,
) -> int:
    """Train models on synthetic landscapes alone, as those that come with darts, and tell their scores on unseen ones.

    Calling again goes on where it was interrupted. The models are in the folder models.

    Parameters
    ----------
    folder
        Folder for landscapes, dataset, trainings and models.
    recipe
        TOML file that says what is trained on what; default: that of the models that come with darts.
    workers
        Landscapes and models made at once, each with one thread; default: one a core.
    """
    require_training()
    from darts.training.demo_models import bundled_recipe, read_recipe, table_row, train_demo_models

    chosen = read_recipe(recipe or bundled_recipe())
    names = list(chosen.fits)
    columns = ["seed", "slumps that count", "ensemble", *names, "rule", "ensemble, by pixel", "rule, by pixel"]
    for number, (name, scores) in enumerate(train_demo_models(folder, chosen, workers=workers)):
        if not number:
            _say([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"])
        _say([table_row(name, scores, names)])
    _say([f"{folder / 'models'} holds the models, with their scores in their cards"])
    return 0


def require_training() -> None:
    """Check that what training takes is installed.

    Raises:
        ConfigError: it is not.
    """
    if missing := [name for name in ("lightning", "optuna", "matplotlib") if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"training needs {', '.join(missing)}: install the extra, with: uv pip install 'darts-permafrost[training]'"
        )


def _create(
    dataset: Path,
    labels: LabelOptions,
    source: "SceneSource",
    match: MatchOptions | None,
    options: CreateOptions | None,
) -> int:
    require_training()
    from darts.training.creating import create_dataset
    from darts.training.labels import read_labels

    summary = create_dataset(dataset, read_labels(labels), source, options, match)
    _say([
        f"{dataset}: {summary.n_patches} patches of {summary.made} samples are added, {summary.there} were there, "
        f"{summary.empty} gave none",
        *([f"without a scene: {listed(summary.unmatched)}"] if summary.unmatched else []),
        *(f"failed: {sample}: {reason}" for sample, reason in summary.failed),
    ])  # fmt: skip
    return summary.exit_code


def _report_lines(report: "DatasetReport") -> Iterator[str]:
    groups = {"all": report.total, **report.regions, **report.splits}
    width = max(map(len, groups))
    for name, counts in groups.items():
        labelled = counts.background + counts.slump
        share = counts.slump / labelled if labelled else 0
        yield (
            f"{name or 'no region':<{width}}  {counts.samples} samples, {counts.patches} patches, "
            f"{counts.positive_patches} of them with slumps; {share:.2%} of {labelled:,} labelled pixels are slump"
        )
    for told in report.without_patches:
        yield f"{told['state']}: {told['sample_id']}: {told['reason']}"
    yield from (f"problem: {problem}" for problem in report.problems) if report.problems else ("no problems",)


def _say(lines: Iterable[str]) -> None:
    Console().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True, emoji=False)
