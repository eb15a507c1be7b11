import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from darts_segmentation.training.scores import (
    BoundaryCounts,
    Counts,
    ObjectRanking,
    PixelCounts,
    ScoreHistogram,
    bootstrap,
    count_pixels,
    interval,
    intervals,
)
from darts_utils.errors import ConfigError


def drawn(seed: int, n: int) -> list[PixelCounts]:
    random = np.random.default_rng(seed)
    return [PixelCounts(*map(int, row)) for row in random.integers(0, 100, (n, 4))]


def f1(counts: PixelCounts) -> float:
    return counts.f1


def plain_loop(values: list[PixelCounts], n: int, level: float, seed: int) -> tuple[float, float]:
    """The percentile interval of F1, draw by draw."""
    statistics = []
    for draw in np.random.default_rng(seed).integers(len(values), size=(n, len(values))):
        tp = sum(values[i].tp for i in draw)
        fp = sum(values[i].fp for i in draw)
        fn = sum(values[i].fn for i in draw)
        statistics.append(2 * tp / (2 * tp + fp + fn))
    return float(np.quantile(statistics, (1 - level) / 2)), float(np.quantile(statistics, (1 + level) / 2))


@pytest.mark.parametrize(("n", "level", "seed"), [(200, 0.95, 0), (101, 0.8, 7)])
def test_an_interval_is_that_of_a_plain_loop(n: int, level: float, seed: int) -> None:
    values = drawn(1, 17)
    found = interval(values, f1, n=n, level=level, seed=seed)
    assert found.value == sum(values, PixelCounts()).f1
    assert (found.low, found.high) == pytest.approx(plain_loop(values, n, level, seed), abs=1e-12)
    assert found.low < found.value < found.high
    assert found.undefined == 0


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    values = drawn(2, 9)
    assert interval(values, f1, seed=3) == interval(values, f1, seed=3)
    assert interval(values, f1, seed=3) != interval(values, f1, seed=4)


def test_drawing_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = drawn(2, 9)
    whole = interval(values, f1, n=100)
    monkeypatch.setattr(bootstrap, "WEIGHTS_AT_ONCE", 9 * 7)
    assert interval(values, f1, n=100) == whole


def test_several_statistics_share_their_draws() -> None:
    values = drawn(3, 12)
    both = intervals(values, {"f1": f1, "errors": lambda counts: 1 - counts.f1}, n=300)
    assert both["f1"] == interval(values, f1, n=300)
    assert both["f1"].low == pytest.approx(1 - both["errors"].high)


def test_intervals_of_samples_from_a_known_share_hold_it_nearly_as_often_as_they_say() -> None:
    # 40 samples of 25 pixels, a recall of 0.7 that differs a little from sample to sample.
    random = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        recall = np.clip(random.normal(0.7, 0.1, 40), 0, 1)
        tp = random.binomial(25, recall)
        values = [PixelCounts(tp=int(hits), fn=25 - int(hits)) for hits in tp]
        found = interval(values, lambda counts: counts.recall, n=200, level=0.9)
        held += found.low <= 0.7 <= found.high
    # 0.9 of 200 is 180, its standard deviation 4.2; percentile intervals of few samples are a little short.
    assert 163 <= held <= 193


def test_intervals_over_samples_are_wider_than_pixels_alone_would_say() -> None:
    # Pixels of a sample are alike: half of the samples are found, half missed.
    values = [PixelCounts(tp=100), PixelCounts(fn=100)] * 10
    found = interval(values, lambda counts: counts.recall)
    assert found.high - found.low > 3 * 2 * 1.96 * math.sqrt(0.25 / 2000)


def test_draws_without_an_answer_are_left_out_and_told() -> None:
    # Recall has no answer where only the first sample is drawn: a quarter of the draws of two samples.
    values = [PixelCounts(tn=5), PixelCounts(tp=3, fn=1)]
    found = interval(values, lambda counts: counts.recall, n=2000)
    assert (found.value, found.low, found.high) == (0.75, 0.75, 0.75)
    assert found.undefined == pytest.approx(0.25, abs=0.04)


def test_no_answer_at_all_is_nan() -> None:
    found = interval([PixelCounts(tn=5)] * 3, f1, n=50)
    assert math.isnan(found.value)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.undefined == 1


@pytest.mark.parametrize(("count", "n"), [(1, 100), (5, 0)])
def test_one_sample_or_no_draw_tells_no_range(count: int, n: int) -> None:
    found = interval([PixelCounts(3, 1, 1, 1)] * count, f1, n=n)
    assert found.value == 0.75
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@dataclass(frozen=True, eq=False)
class Bundle(Counts):
    """Every kind of field that counts may have."""

    number: int
    amount: float
    histogram: ScoreHistogram
    parts: Mapping[str, BoundaryCounts]
    ranking: ObjectRanking


def bundle(seed: int) -> Bundle:
    random = np.random.default_rng(seed)
    scores = random.random(4)
    return Bundle(
        number=int(random.integers(2**52, 2**53) // 10),
        amount=float(random.random()),
        histogram=count_pixels(random.random(30, "float32"), random.random(30) < 0.5, bins=5),
        parts={"a": BoundaryCounts(seed, 10), "b": BoundaryCounts(0, seed)},
        ranking=ObjectRanking(scores, scores > 0.4, np.ones(4, "int64"), 5),
    )


def test_weighted_sums_are_repeated_additions_for_every_kind_of_field() -> None:
    values = [bundle(seed) for seed in range(4)]
    (found,) = Bundle.weighted_sums(values, np.array([[2, 0, 3, 1]]))
    expected = values[0]
    for place in (0, 2, 2, 2, 3):
        expected = expected + values[place]
    assert found.number == expected.number
    assert isinstance(found.number, int)
    assert found.amount == pytest.approx(expected.amount)
    np.testing.assert_array_equal(found.histogram.positives, expected.histogram.positives)
    assert found.parts == expected.parts
    assert found.ranking.true == expected.ranking.true
    assert found.ranking.average_precision == pytest.approx(expected.ranking.average_precision)


def test_counts_are_equal_when_all_their_fields_are() -> None:
    assert bundle(1) == bundle(1)
    assert bundle(1) != bundle(2)
    with pytest.raises(TypeError):
        hash(bundle(1))


def test_a_thousand_draws_of_a_thousand_histograms_agree_with_the_loop_on_their_counts() -> None:
    random = np.random.default_rng(5)
    values = [count_pixels(random.random(40, "float32"), random.random(40) < 0.5, bins=100) for _ in range(1000)]
    counts = [value.counts(0.5) for value in values]
    found = interval(values, lambda histogram: histogram.counts(0.5).f1)
    assert found == interval(counts, f1)
    assert (found.low, found.high) == pytest.approx(plain_loop(counts, 50, 0.95, 0), abs=0.006)


@pytest.mark.parametrize("options", [{"level": 0}, {"level": 1.0}, {"n": -1}])
def test_options_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="level lies between 0 and 1"):
        interval(drawn(0, 3), f1, **options)


def test_no_sample_is_refused() -> None:
    with pytest.raises(ConfigError, match="no sample"):
        interval([], f1)
