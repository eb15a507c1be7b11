"""Scores of a training are those of its model on the patches it did not see."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from darts_segmentation import SMPSegmenter, read_checkpoint
from darts_segmentation.training.cross_validation import CrossOptions, cross_validate
from darts_segmentation.training.evaluation import EvaluationOptions, evaluate_run
from darts_segmentation.training.fitting import fit
from darts_segmentation.training.patch_dataset import PatchDataset
from darts_segmentation.training.predicting import predict_patches
from darts_utils.errors import ConfigError, MissingDataError

from .training_data import options_for, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "dataset")


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = options_for(dataset, split_shares={"train": 0.5, "val": 0.25, "test": 0.25}, epochs=4)
    return fit(options, tmp_path_factory.mktemp("fit") / "run").parent


def f1(found: np.ndarray, truth: np.ndarray) -> float:
    both = np.sum(found & truth)
    return float(2 * both / (found.sum() + truth.sum()))


def test_scores_are_those_of_the_patches_of_the_split(run: Path, dataset: Path) -> None:
    scores, folder = evaluate_run(run, EvaluationOptions(bootstrap=0, min_object_size=4))
    samples = json.loads((run / "splits.json").read_text())["test"]["samples"]
    patches = PatchDataset.open(dataset)
    numbers = np.flatnonzero(patches.metadata["sample_id"].isin(samples))
    found, truth = [], []
    for _, probabilities, y in predict_patches(run / "best.pt", patches, numbers):
        known = (y != 2) & np.isfinite(probabilities)
        found.append(probabilities[known] > 0.5)
        truth.append(y[known] == 1)
    assert 0 < len(numbers) < len(patches)
    expected = f1(np.concatenate(found), np.concatenate(truth))
    assert expected > 0
    written = json.loads((folder / "scores.json").read_text())
    assert folder == run / "scores-test"
    assert scores.total.patches == written["patches"] == len(numbers)
    assert written["thresholds"]["0.5"]["pixels"]["f1"]["value"] == pytest.approx(expected)
    assert {file.name for file in folder.iterdir()} == {
        "scores.json", "reliability.png", "precision-recall.png", "thresholds.png",
    }  # fmt: skip


def test_all_patches_of_another_dataset_count(run: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "elsewhere", samples=2, seed=5)
    scores, folder = evaluate_run(run, EvaluationOptions(datasets=[other], bootstrap=20))
    assert scores.total.patches == 6
    assert folder == run / "scores-elsewhere"


def test_calibration_writes_a_temperature_that_fits_the_validation(run: Path, dataset: Path, tmp_path: Path) -> None:
    again = shutil.copytree(run, tmp_path / "run")
    before = read_checkpoint(again / "best.pt")
    evaluate_run(again, EvaluationOptions(bootstrap=0, calibrate=True))
    after = read_checkpoint(again / "best.pt")
    assert "temperature" not in before.card
    temperature = after.card["temperature"]
    assert temperature != 1
    patches = PatchDataset.open(dataset)
    samples = json.loads((run / "splits.json").read_text())["val"]["samples"]
    numbers = np.flatnonzero(patches.metadata["sample_id"].isin(samples))

    def loss(model: Path) -> float:
        total, count = 0.0, 0
        for _, p, y in predict_patches(model, patches, numbers):
            known = (y != 2) & np.isfinite(p)
            chance = np.where(y[known] == 1, p[known], 1 - p[known]).astype("float64")
            total, count = total - np.log(np.maximum(chance, 1e-30)).sum(), count + known.sum()
        return total / count

    assert loss(again / "best.pt") < loss(run / "best.pt")
    # Once more, it is the same: what the card has is not multiplied again.
    evaluate_run(again, EvaluationOptions(bootstrap=0, calibrate=True))
    assert read_checkpoint(again / "best.pt").card["temperature"] == pytest.approx(temperature, rel=1e-3)
    assert SMPSegmenter(again / "best.pt", "cpu").required_bands == before.bands


def test_what_is_not_there_is_named(run: Path, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="name the folder of a training"):
        evaluate_run(tmp_path, EvaluationOptions())
    whole = fit(options_for(dataset, split_shares={"train": 1.0}, epochs=1, steps_per_epoch=1), tmp_path / "whole")
    with pytest.raises(ConfigError, match="kept no patches for 'test'"):
        evaluate_run(whole.parent, EvaluationOptions())


@pytest.mark.slow
def test_each_sample_is_tested_once_in_a_cross_validation(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pictures of twelve tests take half of the time, and are looked at elsewhere.
    monkeypatch.setattr("darts_segmentation.training.scores.pictures.write_pictures", lambda pixels, folder: [])
    options = options_for(dataset, epochs=1, steps_per_epoch=2)
    scores = cross_validate(tmp_path / "cv", options, CrossOptions(folds=3, seeds=[1, 2]))
    assert sorted(scores.runs) == [f"seed-{seed}-fold-{fold}" for seed in (1, 2) for fold in (1, 2, 3)]
    tested: list[str] = []
    for fold in (1, 2, 3):
        one, other = (
            json.loads((tmp_path / "cv" / f"seed-{seed}-fold-{fold}" / "splits.json").read_text()) for seed in (1, 2)
        )
        assert one == other  # seeds differ in what is drawn, not in what is divided
        names = {split: set(content["samples"]) for split, content in one.items()}
        assert not names["train"] & names["test"]
        assert not names["val"] & (names["test"] | names["train"])
        tested += sorted(names["test"])
    assert sorted(tested) == sorted(f"sample-0-{number}" for number in range(8))
    values = [run["thresholds 0.5 pixels f1"] for run in scores.runs.values()]
    mean, deviation, count = scores.spread("thresholds 0.5 pixels f1")
    assert (mean, count) == (pytest.approx(np.mean(values)), 6)
    assert deviation == pytest.approx(np.std(values, ddof=1))
    summary = json.loads((tmp_path / "cv" / "summary.json").read_text())
    assert summary["thresholds 0.5 pixels f1"]["mean"] == pytest.approx(mean)
    # Calling again trains nothing: the files stay as they are.
    before = (tmp_path / "cv" / "seed-1-fold-1" / "state.ckpt").stat().st_mtime_ns
    again = cross_validate(tmp_path / "cv", options, CrossOptions(folds=3, seeds=[1, 2]))
    assert again.lines() == scores.lines()
    assert (tmp_path / "cv" / "seed-1-fold-1" / "state.ckpt").stat().st_mtime_ns == before


@pytest.mark.parametrize("size", [0, -1, 2.0])
def test_patches_computed_at_once_are_at_least_one(run: Path, dataset: Path, size: float) -> None:
    with pytest.raises(ConfigError, match="batch_size must be a whole number of at least 1"):
        list(predict_patches(run / "best.pt", PatchDataset.open(dataset), [0], batch_size=size))  # type: ignore[arg-type]


def test_folds_are_checked(dataset: Path, tmp_path: Path) -> None:
    for folds in (2, 1001):
        with pytest.raises(ConfigError, match="folds must be a whole number from 3 to 1000"):
            CrossOptions(folds=folds)
    with pytest.raises(ConfigError, match="each once"):
        CrossOptions(seeds=[1, 1])
    with pytest.raises(ConfigError, match="split_named"):
        cross_validate(tmp_path, options_for(dataset, split_named={"val": ["region 1"]}), CrossOptions())
