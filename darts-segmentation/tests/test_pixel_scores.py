import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn import metrics

from darts_segmentation.training.scores import PixelCounts, ScoreHistogram, count_pixels
from darts_utils.errors import ConfigError, GridMismatchError

COUNTS = st.builds(PixelCounts, *(st.integers(0, 50) for _ in range(4)))


def scene(seed: int, n: int = 4000, sharp: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities as a network gives them, most of them near 0 or 1, and the truth."""
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.1
    logits = random.normal(np.where(truth, 2, -3), 2) * sharp / 2
    return (1 / (1 + np.exp(-logits))).astype("float32"), truth


def labels(counts: PixelCounts) -> tuple[np.ndarray, np.ndarray]:
    truth = np.repeat([1, 0, 1, 0], [counts.tp, counts.fp, counts.fn, counts.tn])
    found = np.repeat([1, 1, 0, 0], [counts.tp, counts.fp, counts.fn, counts.tn])
    return truth, found


@settings(max_examples=12, deadline=None)  # scikit-learn takes long for little
@given(COUNTS)
def test_ratios_are_those_of_scikit_learn_where_they_have_an_answer(counts: PixelCounts) -> None:
    truth, found = labels(counts)
    if not truth.size:
        return
    assert counts.accuracy == pytest.approx(metrics.accuracy_score(truth, found))
    for name, reference in {
        "precision": metrics.precision_score, "recall": metrics.recall_score, "f1": metrics.f1_score,
    }.items():  # fmt: skip
        expected = reference(truth, found, zero_division=np.nan)
        assert getattr(counts, name) == pytest.approx(expected, nan_ok=True), name
    if counts.tp + counts.fp + counts.fn:
        assert counts.iou == pytest.approx(metrics.jaccard_score(truth, found))
    if counts.tn + counts.fp:
        assert counts.specificity == pytest.approx(metrics.recall_score(truth, found, pos_label=0))
    if len({*truth, *found}) > 1:
        assert counts.kappa == pytest.approx(metrics.cohen_kappa_score(truth, found))


@pytest.mark.parametrize(
    ("counts", "unanswered"),
    [
        (PixelCounts(), {"accuracy", "precision", "recall", "specificity", "f1", "iou", "kappa"}),
        (PixelCounts(tn=9), {"precision", "recall", "f1", "iou", "kappa"}),
        (PixelCounts(fn=9), {"precision", "specificity"}),
        (PixelCounts(fp=9), {"recall"}),
        (PixelCounts(tp=9), {"specificity", "kappa"}),
        (PixelCounts(fn=4, tn=5), {"precision"}),
        (PixelCounts(1, 1, 1, 1), set()),
    ],
)
def test_a_ratio_without_denominator_is_nan_and_no_other(counts: PixelCounts, unanswered: set[str]) -> None:
    names = ("accuracy", "precision", "recall", "specificity", "f1", "iou", "kappa")
    assert {name for name in names if math.isnan(getattr(counts, name))} == unanswered


def test_missing_everything_and_finding_only_errors_score_zero() -> None:
    assert PixelCounts(fn=9, tn=1).f1 == 0
    assert PixelCounts(fp=9, tn=1).iou == 0


def test_kappa_of_very_many_pixels_keeps_its_digits() -> None:
    counts = PixelCounts(tp=10**12, fp=3, fn=5, tn=10**12)
    assert 1 - counts.kappa == pytest.approx(8e-12, rel=0.01)


@given(st.lists(COUNTS, min_size=1), st.randoms(use_true_random=False))
def test_counts_add_up_in_any_order(parts: list[PixelCounts], order: random.Random) -> None:
    shuffled = order.sample(parts, len(parts))
    total = PixelCounts.total(parts)
    assert total == PixelCounts.total(shuffled) == sum(shuffled, PixelCounts())
    assert total.tp == sum(part.tp for part in parts)
    assert isinstance(total.tp, int)


def test_counts_of_another_kind_are_neither_added_nor_equal() -> None:
    assert PixelCounts() != 0
    with pytest.raises(TypeError):
        PixelCounts() + 1


@given(npst.arrays("float32", 60, elements=st.floats(0, 1, width=32)), st.integers(0, 2**60 - 1))
def test_counts_are_exact_at_every_edge(probabilities: np.ndarray, truth_bits: int) -> None:
    truth = np.array([truth_bits >> i & 1 for i in range(60)], bool)
    edges = (np.arange(21) / 20).astype("float32")
    near = [edges, np.nextafter(edges, np.float32(2)).clip(0, 1), np.nextafter(edges, np.float32(-1)).clip(0, 1)]
    probabilities[: 3 * 20 : 1] = np.where(truth_bits % 2, probabilities, np.concatenate(near)[:60])
    histogram = count_pixels(probabilities, truth, bins=20)
    for k in range(1, 21):
        found = probabilities > k / 20  # a float32 array and a plain number compare as float32, as in a run
        counts = histogram.counts(k / 20)
        assert counts.tp == (found & truth).sum()
        assert counts.fp == (found & ~truth).sum()
        assert counts.fn == (~found & truth).sum()
        assert counts.tn == (~found & ~truth).sum()


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.1, 0.001, 0.999, 1.0])
def test_thousand_bins_know_the_usual_thresholds_exactly(threshold: float) -> None:
    edge = np.float32(threshold)
    values = np.array([np.nextafter(edge, np.float32(-1)), edge, np.nextafter(edge, np.float32(2))])
    values = values[(values >= 0) & (values <= 1)]
    assert count_pixels(values, np.ones(values.size, bool)).counts(threshold).tp == (values > edge).sum()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bins", [1000, 10])
def test_areas_are_those_of_scikit_learn_on_binned_scores(seed: int, bins: int) -> None:
    probabilities, truth = scene(seed)
    histogram = count_pixels(probabilities, truth, bins)
    binned = np.maximum(np.ceil(probabilities.astype("float64") * bins), 1)
    assert histogram.average_precision == pytest.approx(metrics.average_precision_score(truth, binned), abs=1e-9)
    assert histogram.auroc == pytest.approx(metrics.roc_auc_score(truth, binned), abs=1e-9)


@pytest.mark.parametrize("sharp", [0.5, 4.0, 30.0])
@pytest.mark.parametrize("bins", [1000, 20])
def test_areas_of_raw_scores_lie_within_what_ties_in_bins_can_hide(sharp: float, bins: int) -> None:
    probabilities, truth = scene(7, sharp=sharp)
    histogram = count_pixels(probabilities, truth, bins)
    pairs = (histogram.positives * histogram.negatives).sum() / (truth.sum() * (~truth).sum())
    assert abs(histogram.auroc - metrics.roc_auc_score(truth, probabilities)) <= pairs / 2 + 1e-12

    # Within a bin the best order is all slumps first, the worst all slumps last.
    best = worst = tp = fp = 0.0
    for positives, negatives in zip(histogram.positives[::-1], histogram.negatives[::-1], strict=True):
        for _ in range(positives):
            tp += 1
            best += tp / (tp + fp)
            worst += tp / (tp + fp + negatives)
        fp += negatives
    raw = metrics.average_precision_score(truth, probabilities)
    assert worst / tp - 1e-12 <= raw <= best / tp + 1e-12
    assert worst / tp - 1e-12 <= histogram.average_precision <= best / tp + 1e-12


def test_areas_of_ordinary_scores_are_those_of_scikit_learn_to_a_thousandth() -> None:
    probabilities, truth = scene(1, n=100_000, sharp=2)
    histogram = count_pixels(probabilities, truth)
    assert histogram.average_precision == pytest.approx(metrics.average_precision_score(truth, probabilities), abs=1e-3)
    assert histogram.auroc == pytest.approx(metrics.roc_auc_score(truth, probabilities), abs=1e-3)
    assert histogram.brier == pytest.approx(metrics.brier_score_loss(truth, probabilities), rel=1e-6)


def test_the_curve_is_what_brute_force_finds_at_each_threshold() -> None:
    probabilities, truth = scene(3, n=300)
    curve = count_pixels(probabilities, truth, bins=50).curve()
    assert len(curve.thresholds) == 51
    for k, threshold in enumerate(curve.thresholds):
        found = probabilities > np.float32(threshold)
        tp, fp, fn = (found & truth).sum(), (found & ~truth).sum(), (~found & truth).sum()
        counts = PixelCounts(int(tp), int(fp), int(fn), 0)
        for name in ("precision", "recall", "f1", "iou"):
            assert getattr(curve, name)[k] == pytest.approx(getattr(counts, name), nan_ok=True)
    assert curve.thresholds[0] == 0
    assert math.isnan(curve.precision[-1])
    assert curve.recall[-1] == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("score", ["f1", "iou"])
def test_no_threshold_beats_the_best(seed: int, score: str) -> None:
    histogram = count_pixels(*scene(seed, n=200))
    best = getattr(histogram.counts(histogram.best_threshold(score)), score)
    others = [getattr(histogram.counts(k / 1000), score) for k in range(1, 1001)]
    assert best == max(others)


def test_of_thresholds_that_score_alike_the_middle_is_taken() -> None:
    probabilities = np.array([0.2, 0.2, 0.8, 0.8], "float32")
    histogram = count_pixels(probabilities, np.array([0, 0, 1, 1], "uint8"), bins=10)
    assert histogram.best_threshold() == pytest.approx(0.4)  # of 0.2 … 0.7


def test_of_two_runs_that_score_alike_the_longer_is_taken() -> None:
    # All found with six errors, or half found without: F1 is 2/3 up to 0.1 and from 0.5 to 0.7.
    histogram = ScoreHistogram(
        positives=np.array([0, 3, 0, 0, 0, 0, 0, 0, 3, 0]), negatives=np.array([0, 0, 0, 0, 6, 0, 0, 0, 0, 0]),
        confidence=np.zeros(10), squared_error=0.0,
    )  # fmt: skip
    values = histogram.curve().f1
    assert values[1] == values[5] == values[7] == values.max() == pytest.approx(2 / 3)
    assert values[2] < 2 / 3
    assert histogram.best_threshold() == pytest.approx(0.6)  # of 0.5, 0.6, 0.7


@pytest.mark.parametrize("target", [np.zeros(50, "uint8"), np.full(50, 2, "uint8"), np.zeros(50, bool)])
def test_without_slump_there_is_no_recall_no_area_and_no_best_threshold(target: np.ndarray) -> None:
    histogram = count_pixels(scene(0, 50)[0], target)
    for value in (
        histogram.counts(0.5).recall, histogram.average_precision, histogram.auroc, histogram.best_threshold(),
    ):  # fmt: skip
        assert math.isnan(value)


def test_slump_alone_has_an_average_precision_and_no_auroc() -> None:
    histogram = count_pixels(scene(0, 50)[0], np.ones(50, "uint8"))
    assert histogram.average_precision == 1
    assert math.isnan(histogram.auroc)


def test_a_prediction_of_zero_everywhere_finds_nothing() -> None:
    histogram = count_pixels(np.zeros((4, 5), "float32"), np.eye(4, 5, dtype="uint8"))
    assert histogram.counts(0.001) == PixelCounts(0, 0, 4, 16)
    assert histogram.average_precision == pytest.approx(0.2)
    assert histogram.auroc == 0.5


def test_no_pixel_at_all_gives_an_empty_histogram() -> None:
    histogram = count_pixels(np.zeros((0, 7), "float32"), np.zeros((0, 7), "uint8"), bins=30)
    assert histogram == ScoreHistogram.empty(30)
    assert math.isnan(histogram.brier)


def test_ignored_and_unseen_pixels_never_count() -> None:
    probabilities, truth = scene(5, 600)
    target = truth.astype("uint8")
    random = np.random.default_rng(0)
    ignored, unseen, hidden = (random.random(600) < 0.3 for _ in range(3))
    kept = ~(ignored | unseen | hidden)
    expected = count_pixels(probabilities[kept], target[kept])
    probabilities[unseen] = np.nan
    target[ignored] = 2
    before = probabilities.copy(), target.copy()
    assert count_pixels(probabilities, target, ignore=hidden) == expected
    assert count_pixels(probabilities, truth, ignore=hidden | ignored) == expected
    np.testing.assert_array_equal(probabilities, before[0])
    np.testing.assert_array_equal(target, before[1])


@settings(max_examples=30)
@given(st.lists(st.integers(0, 599), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_histograms_of_parts_add_up_to_that_of_the_whole(cuts: list[int], order: random.Random) -> None:
    probabilities, truth = scene(2, 600)
    whole = count_pixels(probabilities, truth)
    parts = [
        count_pixels(p, t)
        for p, t in zip(np.split(probabilities, sorted(cuts)), np.split(truth, sorted(cuts)), strict=True)
    ]
    order.shuffle(parts)
    total = ScoreHistogram.total(parts)
    np.testing.assert_array_equal(total.positives, whole.positives)
    np.testing.assert_array_equal(total.negatives, whole.negatives)
    assert total.positives.dtype == whole.positives.dtype == np.int64
    np.testing.assert_allclose(total.confidence, whole.confidence, rtol=1e-12)
    assert total.squared_error == pytest.approx(whole.squared_error)


@pytest.mark.parametrize(
    ("probabilities", "target", "error", "match"),
    [
        ([0.5, 2.0], [0, 1], ConfigError, "between 0 and 1, got 0.5 … 2; are these logits"),
        ([-0.1, 0.5], [0, 1], ConfigError, "logits"),
        ([np.inf, 0.5], [0, 1], ConfigError, "logits"),
        ([0.5, 0.5], [0, 3], ConfigError, "got 0 … 3"),
        ([0.5, 0.5], [0, 255], ConfigError, "got 0 … 255"),
        ([0.5, 0.5], [0, 1, 1], GridMismatchError, r"probabilities \(2,\), target \(3,\)"),
    ],
)
def test_what_cannot_be_is_refused(probabilities: Any, target: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        count_pixels(np.array(probabilities, "float32"), np.array(target, "uint8"))


def test_logits_under_ignore_do_no_harm() -> None:
    assert count_pixels(np.array([7, 0.5], "float32"), np.array([2, 1], "uint8")).counts(0.4).tp == 1


@pytest.mark.parametrize("threshold", [0.0005, 0.0, 1.001, -0.001, float("nan")])
def test_a_threshold_within_a_bin_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="multiple of 1/1000"):
        ScoreHistogram.empty().counts(threshold)
