import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics

from darts_segmentation.training.scores import (
    ScoreHistogram,
    boundary_overlap,
    count_pixels,
    overlap_objects,
    pictures,
    score_patches,
)
from darts_utils.errors import ConfigError, GridMismatchError

Item = tuple[str, np.ndarray, np.ndarray]


def patch(seed: int, size: int = 40, name: str | None = None) -> Item:
    """Slumps, a model that finds them more or less, a frame without data and some ignored pixels."""
    random = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(random.normal(size=(size, size + 5)), 3) > 0.12
    logits = 6 * ndimage.gaussian_filter(truth + 0.8 * random.normal(size=truth.shape), 1.5) - 3
    target = truth.astype("uint8")
    target[ndimage.gaussian_filter(random.normal(size=truth.shape), 2) > 0.2] = 2
    probabilities = (1 / (1 + np.exp(-logits))).astype("float32")
    probabilities[:3] = np.nan
    return name or f"sample-{seed % 4}", probabilities, target


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return [patch(seed) for seed in range(10)]


OPTIONS: dict[str, Any] = {"min_object_size": 5, "bootstrap": 50}


def test_figures_are_those_of_the_parts_put_together(items: list[Item]) -> None:
    scores = score_patches(items, thresholds=(0.5, 0.3), **OPTIONS)
    values = np.concatenate([p[(t != 2) & ~np.isnan(p)] for _, p, t in items])
    truth = np.concatenate([t[(t != 2) & ~np.isnan(p)] for _, p, t in items])
    for threshold in (0.5, 0.3):
        found = values > np.float32(threshold)
        for name, reference in {
            "accuracy": metrics.accuracy_score, "precision": metrics.precision_score, "recall": metrics.recall_score,
            "f1": metrics.f1_score, "iou": metrics.jaccard_score, "kappa": metrics.cohen_kappa_score,
        }.items():  # fmt: skip
            figure = scores.figures["thresholds", f"{threshold:g}", "pixels", name]
            assert figure.value == pytest.approx(reference(truth, found))
    figures = {name: scores.figures["probabilities", name].value for name in ("average_precision", "auroc", "brier")}
    assert figures["average_precision"] == pytest.approx(metrics.average_precision_score(truth, values), abs=2e-3)
    assert figures["auroc"] == pytest.approx(metrics.roc_auc_score(truth, values), abs=2e-3)
    assert figures["brier"] == pytest.approx(metrics.brier_score_loss(truth, values), rel=1e-5)

    hits = there = inner = outer = 0
    for _, p, t in items:
        ignore = (t == 2) | np.isnan(p)
        objects = overlap_objects(p > np.float32(0.3), t == 1, ignore=ignore, min_object_size=5).counts(0.5)
        boundary = boundary_overlap(p > np.float32(0.3), t == 1, ignore=ignore)
        hits, there = hits + objects.tp, there + objects.tp + objects.fn
        inner, outer = inner + boundary.intersection, outer + boundary.union
    assert scores.figures["thresholds", "0.3", "objects", "0.5", "recall"].value == hits / there
    assert scores.figures["thresholds", "0.3", "boundaries", "iou"].value == inner / outer
    for path, figure in scores.figures.items():
        assert figure.low <= figure.value <= figure.high or path[-1] == "best_threshold", path


def test_the_order_of_patches_does_not_matter(items: list[Item]) -> None:
    one = score_patches(iter(items), **OPTIONS).to_dict()
    mixed = random.Random(1).sample(items, len(items))
    other = score_patches(iter(mixed), **OPTIONS).to_dict()
    assert one.keys() == other.keys()
    assert one["thresholds"]["0.5"]["pixels"]["f1"]["value"] == other["thresholds"]["0.5"]["pixels"]["f1"]["value"]
    for key, figure in one["thresholds"]["0.5"]["objects"]["0.5"].items():
        value = figure["value"] if isinstance(figure, dict) else figure
        again = other["thresholds"]["0.5"]["objects"]["0.5"][key]
        assert value == pytest.approx(again["value"] if isinstance(again, dict) else again), key
    for name, counts in one["by_sample"].items():
        assert counts["thresholds"]["0.5"]["pixels"] == other["by_sample"][name]["thresholds"]["0.5"]["pixels"]


def test_the_report_is_plain_json_and_goes_through_unchanged(items: list[Item]) -> None:
    report = score_patches(items, seed=3, **OPTIONS).to_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["samples"], report["patches"]) == (4, 10)
    assert report["options"]["seed"] == 3
    assert report["options"]["distance_px"] == 1
    assert sum(one["labelled"] for one in report["by_sample"].values()) == report["labelled"]
    totals = report["thresholds"]["0.5"]["pixels"]
    for name in ("tp", "fp", "fn", "tn"):
        assert totals[name] == sum(one["thresholds"]["0.5"]["pixels"][name] for one in report["by_sample"].values())
    assert sum(totals[name] for name in ("tp", "fp", "fn", "tn")) == report["labelled"]
    objects = report["thresholds"]["0.5"]["objects"]["0.5"]
    assert objects["precision"]["value"] == pytest.approx(objects["tp"] / (objects["tp"] + objects["fp"]))
    assert len(report["curve"]["f1"]) == 101
    half = report["curve"]["thresholds"].index(0.5)
    assert report["curve"]["f1"][half] == pytest.approx(totals["f1"]["value"])
    best = report["probabilities"]["best_f1"]["value"]
    assert best >= max(report["curve"]["f1"])


def test_the_seed_moves_ranges_and_nothing_else(items: list[Item]) -> None:
    one, other = (score_patches(items, seed=seed, **OPTIONS).figures for seed in (1, 2))
    assert one == score_patches(items, seed=1, **OPTIONS).figures
    assert {path: figure.value for path, figure in one.items()} == {path: f.value for path, f in other.items()}
    assert any(one[path].low != other[path].low for path in one)


@pytest.mark.parametrize(
    ("probability", "label", "expected"),
    [
        (0.1, 0, {"precision": None, "recall": None, "f1": None}),
        (0.9, 0, {"precision": 0, "recall": None, "f1": 0}),
        (0.1, 1, {"precision": None, "recall": 0, "f1": 0}),
        (0.9, 1, {"precision": 1, "recall": 1, "f1": 1}),
        (0.9, 2, {"precision": None, "recall": None, "f1": None}),
        (np.nan, 1, {"precision": None, "recall": None, "f1": None}),
    ],
)
def test_empty_truth_and_empty_prediction(probability: float, label: int, expected: dict[str, Any]) -> None:
    items = [(name, np.full((9, 8), probability, "float32"), np.full((9, 8), label, "uint8")) for name in "ab"]
    scores = score_patches(items, **OPTIONS)
    report = scores.to_dict()
    json.dumps(report, allow_nan=False)
    for kind in (report["thresholds"]["0.5"]["pixels"], report["thresholds"]["0.5"]["objects"]["0.5"]):
        assert {name: kind[name]["value"] for name in expected} == expected
    assert any("–" in line for line in scores.lines())


def test_one_sample_has_no_ranges(items: list[Item]) -> None:
    report = score_patches(items[:1], **OPTIONS).to_dict()
    figure = report["thresholds"]["0.5"]["pixels"]["f1"]
    assert figure["value"] > 0
    assert figure["low"] is None


def test_the_table_tells_every_figure(items: list[Item]) -> None:
    scores = score_patches(items, **OPTIONS)
    lines = scores.lines()
    labelled = scores.to_dict()["labelled"]
    assert lines[0].startswith(f"4 samples, 10 patches, {labelled:,} pixels of known truth, ")
    assert len([line for line in lines if line.startswith("  ")]) == len(scores.figures)
    figure = scores.figures["thresholds", "0.5", "pixels", "f1"]
    line = lines[lines.index("pixels at probability > 0.5:") + 4]
    assert line.split() == ["F1", f"{figure.value:.3f}", f"{figure.low:.3f}", "…", f"{figure.high:.3f}"]
    assert "objects at probability > 0.5, matched at IoU ≥ 0.75:" in lines
    assert all(len(line) <= 120 for line in lines)


def test_inputs_stay_as_they_are(items: list[Item]) -> None:
    before = [(p.copy(), t.copy()) for _, p, t in items]
    score_patches(items, **OPTIONS)
    for (_, p, t), (old_p, old_t) in zip(items, before, strict=True):
        np.testing.assert_array_equal(p, old_p)
        np.testing.assert_array_equal(t, old_t)


def test_what_cannot_be_is_refused_and_the_sample_named(items: list[Item]) -> None:
    _, probabilities, target = items[0]
    with pytest.raises(ConfigError, match=r"sample 'odd': .*logits"):
        score_patches([items[0], ("odd", probabilities * 9, target)])
    with pytest.raises(GridMismatchError, match="sample 'odd': "):
        score_patches([("odd", probabilities, target[1:])])
    with pytest.raises(GridMismatchError, match="'odd' has the shape"):
        score_patches([("odd", probabilities[None], target[None])])
    with pytest.raises(ConfigError, match="no sample"):
        score_patches([])
    with pytest.raises(ConfigError, match="multiple of 1/1000"):
        score_patches(items, thresholds=(0.12345,))
    with pytest.raises(ConfigError, match="distance_px is at least 1"):
        score_patches(items, distance_px=0)
    with pytest.raises(ConfigError, match="level lies between 0 and 1"):
        score_patches(iter([("late", probabilities * 9, target)]), level=95)
    with pytest.raises(ConfigError, match="iou lies above 0"):
        score_patches(items, ious=(0,))


class TestPictures:
    @pytest.fixture
    def pixels(self, items: list[Item]) -> ScoreHistogram:
        return ScoreHistogram.total([count_pixels(p, t) for _, p, t in items])

    def test_they_are_pngs_that_tell_models_apart(self, pixels: ScoreHistogram, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        other = count_pixels(random.random(5000, "float32"), random.random(5000) < 0.2)
        ones, others = (pictures.write_pictures(p, tmp_path / f"{k}") for k, p in enumerate((pixels, other)))
        assert [path.name for path in ones] == ["reliability.png", "precision-recall.png", "thresholds.png"]
        for path, twin in zip(ones, others, strict=True):
            image, its_twin = cv2.imread(str(path)), cv2.imread(str(twin))
            assert min(image.shape[:2]) > 300
            assert image.shape == its_twin.shape
            assert (image != its_twin).any()

    def test_nothing_is_left_in_pyplot(self, pixels: ScoreHistogram, tmp_path: Path) -> None:
        pictures.draw_thresholds(pixels, tmp_path / "thresholds.png")
        pyplot = sys.modules.get("matplotlib.pyplot")
        assert pyplot is None or not pyplot.get_fignums()

    @pytest.mark.parametrize(
        "draw", [pictures.draw_reliability, pictures.draw_precision_recall, pictures.draw_thresholds]
    )
    def test_no_pixel_and_no_slump_give_a_picture_too(self, draw: Callable[..., Path], tmp_path: Path) -> None:
        for pixels in (ScoreHistogram.empty(), count_pixels(np.full(9, 0.7, "float32"), np.zeros(9, bool))):
            assert cv2.imread(str(draw(pixels, tmp_path / "picture.png"))) is not None


def test_best_threshold_has_no_answer_without_slumps() -> None:
    items = [(name, np.full((4, 4), 0.7, "float32"), np.zeros((4, 4), "uint8")) for name in "ab"]
    figure = score_patches(items, **OPTIONS).figures["probabilities", "best_threshold"]
    assert math.isnan(figure.value)
    assert figure.undefined == 1
