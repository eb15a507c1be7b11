"""How good a trained model is on patches that it was not trained on, and whether its probabilities are shares."""

import json
import logging
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from darts_utils.errors import ConfigError, MissingDataError
from darts_utils.store import replacing

if TYPE_CHECKING:
    from darts_segmentation.training.scores import Scores

logger = logging.getLogger("darts.training")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What a model is tested on, and how."""

    datasets: list[Path] = field(default_factory=list)
    """Other datasets, all of whose patches count; default: the split of those it was trained with."""
    split: Literal["test", "val", "train"] = "test"
    """Which patches of the training's own datasets count."""
    calibrate: bool = False
    """Write the temperature that makes probabilities of the validation patches shares into the model's card."""
    thresholds: list[float] = field(default_factory=lambda: [0.5])
    """A probability above is a slump; multiples of 0.001."""
    ious: list[float] = field(default_factory=lambda: [0.3, 0.5, 0.75])
    """Intersection over union from which a found object is a true one."""
    min_object_size: int = 32
    """Smaller objects do not count, in pixels."""
    bootstrap: int = 1000
    """Draws of samples for the 95 % intervals; 0: none."""
    batch_size: int = 8
    """Patches a forward pass."""
    augment: bool = False
    """Take the mean over the eight flips and quarter turns of each patch, as `darts run --augment` does of tiles."""
    device: Literal["cuda", "cpu", "auto"] | int | None = None
    """cuda, cpu, auto (a free GPU, else the CPU), or the number of a GPU; default: auto."""


def evaluate_run(run_dir: Path, options: EvaluationOptions, *, model: Path | None = None) -> "tuple[Scores, Path]":
    """Return the scores of a trained model, and the folder where they are written, with pictures.

    The folder, `scores-<split>` in that of the training, or `scores-<dataset>` for other datasets, gets `scores.json`,
    `reliability.png`, `precision-recall.png` and `thresholds.png`.

    Args:
        run_dir: folder of a training.
        options: what is tested.
        model: default: `best.pt` of the training.

    Raises:
        MissingDataError: there is no training, or no dataset.
        ConfigError: the split has no patches, or an option cannot be.
    """
    from darts_segmentation.training.batches import JoinedPatches
    from darts_segmentation.training.predicting import predict_patches
    from darts_segmentation.training.scores import score_patches
    from darts_segmentation.training.scores.pictures import write_pictures

    run = TrainedRun(Path(run_dir), model)
    patches = JoinedPatches(options.datasets or run.datasets)
    names = patches.metadata["sample_id"].to_numpy(dtype=str)
    numbers = np.arange(len(patches)) if options.datasets else run.patches_of(options.split, names)
    settings: dict[str, Any] = {
        "batch_size": options.batch_size, "device": options.device, "augment": options.augment
    }  # fmt: skip
    if options.calibrate:
        run.calibrate(JoinedPatches(run.datasets) if options.datasets else patches, settings)
    logger.info("%s on %d patches", run.model, len(numbers))
    scores = score_patches(
        (
            (names[number], found, truth)
            for number, found, truth in predict_patches(run.model, patches, numbers, **settings)
        ),
        thresholds=options.thresholds,
        ious=options.ious,
        min_object_size=options.min_object_size,
        bootstrap=options.bootstrap,
    )
    where = "-".join(folder.absolute().name for folder in options.datasets) or options.split
    folder = run.folder / f"scores-{where}"
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(scores.to_dict(), indent=1) + "\n", encoding="utf-8")
    write_pictures(scores.total.pixels, folder)
    return scores, folder


class TrainedRun:
    """What a training left."""

    def __init__(self, folder: Path, model: Path | None = None) -> None:
        from darts_segmentation.training.run_folder import RunFolder

        self.folder = folder
        files = RunFolder(folder)
        self.model = model or files.best
        for file in (files.options, files.splits, self.model):
            if not file.is_file():
                raise MissingDataError(f"{file} is not there; name the folder of a training that made one")
        self.datasets = [Path(name) for name in tomllib.loads(files.options.read_text(encoding="utf-8"))["datasets"]]
        self._splits = json.loads(files.splits.read_text(encoding="utf-8"))

    def patches_of(self, split: str, names: np.ndarray) -> np.ndarray:
        """Return the patches of a split, given the samples of all patches.

        Raises:
            ConfigError: it has none.
        """
        numbers = self.patches_by_split(names).get(split)
        if numbers is None or not numbers.size:
            raise ConfigError(
                f"the training in {self.folder} kept no patches for {split!r}; train with a share for it "
                "(--split-shares), or name a dataset it has not seen with --datasets"
            )
        return numbers

    def patches_by_split(self, names: np.ndarray) -> dict[str, np.ndarray]:
        """Return the patches of each split, given the samples of all patches; a split without any is empty."""
        return {split: np.flatnonzero(np.isin(names, told["samples"])) for split, told in self._splits.items()}

    def calibrate(self, patches: Any, settings: Mapping[str, Any]) -> None:
        """Write the temperature that fits the validation patches best into the model."""
        from darts_segmentation.checkpoint import read_checkpoint
        from darts_segmentation.training.predicting import predict_patches
        from darts_segmentation.training.scores import LogitHistogram, count_logits, fit_temperature, with_temperature
        from darts_segmentation.training.scores.calibration import logits_of

        numbers = self.patches_of("val", patches.metadata["sample_id"].to_numpy(dtype=str))
        before = float(read_checkpoint(self.model).card.get("temperature", 1.0))
        histogram = LogitHistogram.empty()
        for _, found, truth in predict_patches(self.model, patches, numbers, **settings):
            histogram = histogram + count_logits(before * logits_of(found), truth)
        temperature = fit_temperature(histogram)
        note = {
            "patches": len(numbers), "split": "val",
            "nll_before": round(histogram.nll(1.0), 6), "nll_after": round(histogram.nll(temperature), 6),
        }  # fmt: skip
        with_temperature(self.model, self.model, temperature, note)
        logger.info("temperature %.3f is written into %s", temperature, self.model)
