import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from darts_segmentation import SMPSegmenter, load_checkpoint
from darts_segmentation.training.scores import (
    LogitHistogram,
    ScoreHistogram,
    count_logits,
    count_pixels,
    expected_calibration_error,
    fit_temperature,
    logits_of,
    reliability,
    with_temperature,
)
from darts_utils.errors import ConfigError, GridMismatchError, MissingDataError


def drawn(seed: int, n: int = 20_000, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and a truth that is drawn from their probabilities at a temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(-2, 4, n)
    truth = random.random(n) < 1 / (1 + np.exp(-logits / temperature))
    return logits.astype("float32"), truth


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-logits.astype("float64")))).astype("float32")


def mean_loss(temperature: float, logits: np.ndarray, truth: np.ndarray) -> float:
    """The mean negative log likelihood of raw logits, in float64."""
    values = np.where(truth, -1, 1) * logits.astype("float64") / temperature
    return float(np.logaddexp(0, values).mean())


def error_by_loop(probabilities: np.ndarray, truth: np.ndarray, groups: int) -> float:
    total = 0.0
    for k in range(groups):
        low, high = np.float32(k / groups), np.float32((k + 1) / groups)
        inside = (probabilities > low) & (probabilities <= high) | ((k == 0) & (probabilities == 0))
        if inside.any():
            total += inside.sum() * abs(probabilities[inside].mean(dtype="float64") - truth[inside].mean())
    return total / truth.size


@pytest.mark.parametrize("groups", [1, 10, 20, 1000])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_error_is_that_of_a_loop_over_raw_probabilities(groups: int, temperature: float) -> None:
    logits, truth = drawn(0, 3000, temperature)
    probabilities = sigmoid(logits)
    error = expected_calibration_error(count_pixels(probabilities, truth), groups)
    assert error == pytest.approx(error_by_loop(probabilities, truth, groups), abs=1e-9)


def test_probabilities_that_mean_what_they_say_have_hardly_an_error() -> None:
    logits, truth = drawn(1, 200_000)
    assert expected_calibration_error(count_pixels(sigmoid(logits), truth)) < 0.005
    assert expected_calibration_error(count_pixels(sigmoid(3 * logits), truth)) > 0.03


def test_the_table_by_hand() -> None:
    probabilities = np.array([0, 0.05, 0.1, 0.55, 0.6, 0.9], "float32")
    table = reliability(count_pixels(probabilities, np.array([0, 0, 1, 1, 0, 1], "uint8"), bins=20), groups=10)
    np.testing.assert_allclose(table.low, [0, 0.5, 0.8])
    np.testing.assert_allclose(table.high, [0.1, 0.6, 0.9])
    np.testing.assert_array_equal(table.pixels, [3, 2, 1])
    np.testing.assert_allclose(table.confidence, [0.05, 0.575, 0.9], rtol=1e-6)
    np.testing.assert_allclose(table.share, [1 / 3, 0.5, 1])


def test_groups_of_equal_mass_are_those_of_sorting_where_bins_allow_it() -> None:
    # One pixel a bin.
    random = np.random.default_rng(2)
    probabilities = ((np.arange(200) + random.random(200)) / 200).astype("float32")
    truth = random.random(200) < probabilities**2
    table = reliability(count_pixels(probabilities, truth, bins=200), groups=8, by="mass")
    chunks = np.array_split(np.arange(200), 8)
    np.testing.assert_array_equal(table.pixels, [25] * 8)
    np.testing.assert_allclose(table.confidence, [probabilities[chunk].mean() for chunk in chunks], rtol=1e-5)
    np.testing.assert_allclose(table.share, [truth[chunk].mean() for chunk in chunks])
    error = expected_calibration_error(count_pixels(probabilities, truth, bins=200), 8, "mass")
    reference = np.mean([abs(probabilities[chunk].mean() - truth[chunk].mean()) for chunk in chunks])
    assert error == pytest.approx(reference, abs=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=20, max_size=20), st.integers(1, 12),
    st.sampled_from(["width", "mass"]),
)  # fmt: skip
def test_every_pixel_is_in_one_group(counts: list[tuple[int, int]], groups: int, by: Any) -> None:
    positives, negatives = np.array(counts).T
    middles = (np.arange(20) + 0.5) / 20
    histogram = ScoreHistogram(positives, negatives, middles * (positives + negatives), 0.0)
    if by == "width" and 20 % groups:
        with pytest.raises(ConfigError, match="divides 20"):
            reliability(histogram, groups, by)
        return
    table = reliability(histogram, groups, by)
    assert table.pixels.sum() == positives.sum() + negatives.sum()
    assert (table.share * table.pixels).sum() == pytest.approx(positives.sum())
    assert (table.pixels > 0).all()
    assert len(table.pixels) <= groups
    assert (table.low < table.confidence).all()
    assert (table.confidence < table.high).all()
    assert (table.high[:-1] <= table.low[1:] + 1e-12).all()
    if table.pixels.size:
        biggest = (positives + negatives).max()
        assert by == "width" or table.pixels.max() <= table.pixels.sum() / groups + biggest


@pytest.mark.parametrize("by", ["width", "mass"])
def test_without_pixels_there_is_no_error(by: Any) -> None:
    assert math.isnan(expected_calibration_error(ScoreHistogram.empty(), by=by))
    assert len(reliability(ScoreHistogram.empty(), by=by).pixels) == 0


@pytest.mark.parametrize(("groups", "by"), [(0, "width"), (-1, "mass"), (7, "width"), (10, "mode")])
def test_groups_that_cannot_be_are_refused(groups: int, by: Any) -> None:
    with pytest.raises(ConfigError, match="reliability has groups"):
        reliability(ScoreHistogram.empty(), groups, by)


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0, 2.5, 8.0])
def test_the_temperature_is_that_of_fitting_raw_logits(temperature: float) -> None:
    logits, truth = drawn(3, 20_000, temperature)
    fitted = fit_temperature(count_logits(logits, truth))
    reference = minimize_scalar(
        mean_loss, bounds=(0.05, 20), args=(logits, truth), method="bounded", options={"xatol": 1e-7}
    )
    assert fitted == pytest.approx(reference.x, rel=1e-3)
    assert fitted == pytest.approx(temperature, rel=0.1)
    assert mean_loss(fitted, logits, truth) <= reference.fun + 1e-7


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-40, 40, width=32), st.booleans()), min_size=1, max_size=30))
def test_fitting_never_makes_the_likelihood_worse(pixels: list[tuple[float, bool]]) -> None:
    logits, truth = (np.array(column) for column in zip(*pixels, strict=True))
    histogram = count_logits(logits.astype("float32"), truth)
    temperature = fit_temperature(histogram)
    assert 0.05 <= temperature <= 20
    # Nor does any other temperature do better, by the loss of the histogram itself.
    for other in (1.0, 0.05, 20.0, temperature * 1.01, temperature / 1.01):
        if 0.05 <= other <= 20 and len(set(truth.tolist())) == 2:
            assert histogram.nll(temperature) <= histogram.nll(other) * (1 + 1e-9) + 1e-12
    assert histogram.nll(temperature) <= histogram.nll() * (1 + 1e-12)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_the_loss_of_the_histogram_is_below_that_of_the_logits_by_no_more_than_it_says(temperature: float) -> None:
    logits, truth = drawn(4, 5000)
    exact = mean_loss(temperature, logits, truth)
    assert 0 <= exact - count_logits(logits, truth).nll(temperature) <= 1 / (32 * 1024 * temperature**2)


def test_one_class_fits_nothing(caplog: pytest.LogCaptureFixture) -> None:
    logits, _ = drawn(5, 100)
    for truth in (np.zeros(100, bool), np.ones(100, bool)):
        with caplog.at_level(logging.WARNING):
            assert fit_temperature(count_logits(logits, truth)) == 1
        assert "takes slumps and background" in caplog.text
        caplog.clear()
    assert fit_temperature(LogitHistogram.empty()) == 1
    assert math.isnan(LogitHistogram.empty().nll())


def test_logits_that_part_the_classes_stop_at_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    logits = np.array([-3, -1, 2, 5], "float32")
    with caplog.at_level(logging.WARNING):
        assert fit_temperature(count_logits(logits, logits > 0)) == 0.05
        assert fit_temperature(count_logits(logits, logits > 0), limits=(0.5, 2)) == 0.5
    assert "lies beyond 0.05" in caplog.text


def test_logits_that_are_all_wrong_stop_at_the_other_limit(caplog: pytest.LogCaptureFixture) -> None:
    logits = np.array([-3, -1, 2, 5], "float32")
    with caplog.at_level(logging.WARNING):
        assert fit_temperature(count_logits(logits, logits < 0)) == 20
    assert "lies beyond 20" in caplog.text


def test_logits_of_zero_alone_ask_for_nothing_odd() -> None:
    histogram = count_logits(np.zeros(4, "float32"), np.array([1, 0, 1, 0], "uint8"))
    assert 0.05 <= fit_temperature(histogram) <= 20
    assert histogram.nll(3) == pytest.approx(math.log(2))


def test_infinite_and_very_large_logits_are_borne() -> None:
    logits = np.array([np.inf, -np.inf, 1e30, -50, 60, 0.5, -0.5], "float32")
    histogram = count_logits(logits, np.array([1, 0, 1, 0, 0, 0, 1], "uint8"))
    assert histogram.counts.sum() == 7
    assert np.isfinite(histogram.nll())
    assert 0.05 <= fit_temperature(histogram) <= 20


def test_logits_stream_and_ignored_ones_do_not_count() -> None:
    logits, truth = drawn(6, 3000)
    target = truth.astype("uint8")
    random = np.random.default_rng(0)
    ignored, unseen, hidden = (random.random(3000) < 0.2 for _ in range(3))
    kept = ~(ignored | unseen | hidden)
    whole = count_logits(logits[kept], truth[kept])
    logits[unseen] = np.nan
    target[ignored] = 2
    parts = [count_logits(logits[k::4], target[k::4], ignore=hidden[k::4]) for k in range(4)]
    total = LogitHistogram.empty()
    for part in parts:
        total = part + total
    np.testing.assert_array_equal(total.counts, whole.counts)
    assert whole.counts.sum() == kept.sum()
    assert fit_temperature(total) == pytest.approx(fit_temperature(whole), rel=1e-9)


def test_shapes_of_logits_and_target_must_be_equal() -> None:
    with pytest.raises(GridMismatchError, match="logits"):
        count_logits(np.zeros(3), np.zeros(4, "uint8"))


@pytest.mark.parametrize("limits", [(0, 20), (2, 20), (0.05, 0.9), (0.05, math.inf)])
def test_limits_without_one_between_are_refused(limits: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="have 1 between them"):
        fit_temperature(LogitHistogram.empty(), limits=limits)


def test_probabilities_give_their_logits_back() -> None:
    logits = np.linspace(-60, 12, 100)
    np.testing.assert_allclose(logits_of(sigmoid(logits)), logits, rtol=1e-6, atol=0.02)
    ends = logits_of(np.array([0, 1, np.nan], "float32"))
    assert np.isfinite(ends[:2]).all()
    assert ends[0] < -80
    assert ends[1] > 16
    assert np.isnan(ends[2])


def test_a_temperature_fitted_to_probabilities_is_that_of_the_logits() -> None:
    logits, truth = drawn(8, 20_000, 2.0)
    by_probability = fit_temperature(count_logits(logits_of(sigmoid(logits)), truth))
    assert by_probability == pytest.approx(fit_temperature(count_logits(logits, truth)), rel=1e-4)


class TestCheckpoint:
    def test_inference_divides_by_what_was_written(self, write_tiny: Callable[..., Path], tmp_path: Path) -> None:
        plain = write_tiny(tmp_path / "plain.pt", card={"license": "MIT"}, normalization={"slope": (0, 45)})
        warm = with_temperature(plain, tmp_path / "warm.pt", np.float64(2.5), {"pixels": 10, "split": "val"})
        assert warm.card == {"license": "MIT", "temperature": 2.5, "calibration": {"pixels": 10, "split": "val"}}
        again = load_checkpoint(tmp_path / "warm.pt")
        assert again.card == warm.card
        assert again.normalization == load_checkpoint(plain).normalization == {"slope": (0, 45)}
        assert again.bands == load_checkpoint(plain).bands
        for name, weights in load_checkpoint(plain).state_dict.items():
            assert torch.equal(again.state_dict[name], weights)
        assert SMPSegmenter(again.path, "cpu")._network.temperature == 2.5
        assert load_checkpoint(plain).card == {"license": "MIT"}

    def test_fitting_again_replaces_the_temperature_and_its_note(
        self, write_tiny: Callable[..., Path], tmp_path: Path
    ) -> None:
        path = write_tiny(tmp_path / "model.pt")
        with_temperature(path, path, 2.0, {"split": "val"})
        assert with_temperature(path, path, 3.0).card == {"temperature": 3.0}

    @pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
    def test_no_positive_number_is_refused(
        self, temperature: float, write_tiny: Callable[..., Path], tmp_path: Path
    ) -> None:
        path = write_tiny(tmp_path / "model.pt")
        with pytest.raises(ConfigError, match="positive number"):
            with_temperature(path, tmp_path / "out.pt", temperature)
        assert not (tmp_path / "out.pt").exists()

    def test_a_missing_checkpoint_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError, match=r"none\.pt"):
            with_temperature(tmp_path / "none.pt", tmp_path / "out.pt", 2.0)
