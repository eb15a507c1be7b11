import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from darts_ensemble.spread import RunningSpread
from darts_utils.errors import ConfigError, GridMismatchError

pytestmark = pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:Degrees of freedom")


@settings(max_examples=40, deadline=None)
@given(planes=st.integers(1, 6), height=st.integers(1, 600), gaps=st.floats(0, 1), seed=st.integers(0, 99))
def test_mean_and_spread_are_those_of_numpy(planes: int, height: int, gaps: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    stack = random.random((planes, height, 3), np.float32)
    stack[random.random(stack.shape) < gaps] = np.nan
    spread = RunningSpread()
    for plane in stack:
        spread.add(plane)
    wide = stack.astype(np.float64)
    np.testing.assert_allclose(spread.mean, np.nanmean(wide, axis=0), atol=1e-6)
    np.testing.assert_allclose(spread.std(), np.nanstd(wide, axis=0), atol=1e-6)
    assert spread.mean.dtype == spread.std().dtype == np.float32


@settings(max_examples=40, deadline=None)
@given(
    weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
    height=st.integers(1, 150),
    gaps=st.floats(0, 1),
    seed=st.integers(0, 99),
)
@example(weights=[0.001, 128.0], height=3, gaps=0.0, seed=0)
def test_weights_count_as_often(weights: list[float], height: int, gaps: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    stack = random.random((len(weights), height, 3), np.float32)
    stack[random.random(stack.shape) < gaps] = np.nan
    spread = RunningSpread()
    for plane, weight in zip(stack, weights, strict=True):
        spread.add(plane, weight)
    spreads = spread.std()
    for y, x in np.ndindex(height, 3):
        values = stack[:, y, x].astype(np.float64)
        valid = np.isfinite(values)
        if not valid.any():
            assert np.isnan(spread.mean[y, x])
            assert np.isnan(spreads[y, x])
            continue
        counted = np.array(weights)[valid]
        mean = np.average(values[valid], weights=counted)
        std = np.sqrt(np.average((values[valid] - mean) ** 2, weights=counted))
        assert abs(spread.mean[y, x] - mean) <= 1e-6
        assert abs(spreads[y, x] - std) <= 2e-6


def test_a_plane_of_weight_two_is_two_planes() -> None:
    planes = np.random.default_rng(0).random((3, 4, 5), np.float32)
    once, twice = RunningSpread(), RunningSpread()
    for plane in planes:
        once.add(plane, 2)
        twice.add(plane)
        twice.add(plane)
    np.testing.assert_allclose(once.mean, twice.mean, atol=1e-6)
    np.testing.assert_allclose(once.std(), twice.std(), atol=1e-6)


@pytest.mark.parametrize("weight", [0, -1, np.nan, np.inf])
def test_weights_that_cannot_be_are_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match="weight must be a positive finite number"):
        RunningSpread().add(np.zeros((2, 2), np.float32), weight)


@pytest.mark.parametrize("weight", [1, 0.3])
def test_planes_that_agree_have_no_spread_at_all(weight: float) -> None:
    spread = RunningSpread()
    for _ in range(5):
        spread.add(np.full((2, 2), 0.1, np.float32), weight)
    np.testing.assert_array_equal(spread.std(), 0)
    np.testing.assert_array_equal(spread.mean, np.float32(0.1))


def test_planes_taken_in_are_neither_changed_nor_kept() -> None:
    plane = np.full((2, 2), 0.1, np.float32)
    spread = RunningSpread()
    spread.add(plane)
    spread.add(np.ones((2, 2), np.float32))
    np.testing.assert_array_equal(plane, np.float32(0.1))


def test_memory_does_not_grow_with_the_number_of_planes() -> None:
    plane = np.ones((2000, 500), np.float32)
    tracemalloc.start()
    spread = RunningSpread()
    for _ in range(8):
        spread.add(plane.copy())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Mean, squares, weights, the plane at hand, and rows at work.
    assert peak < 4.5 * plane.nbytes


def test_planes_of_different_shape_are_refused() -> None:
    spread = RunningSpread()
    spread.add(np.zeros((2, 3), np.float32))
    with pytest.raises(GridMismatchError, match=r"\(3, 2\).*\(2, 3\)"):
        spread.add(np.zeros((3, 2), np.float32))
