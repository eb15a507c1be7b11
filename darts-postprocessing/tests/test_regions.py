"""Runs (float32 in host memory) and labels (all else) give the same regions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_postprocessing.labels import LabelRegions
from darts_postprocessing.regions import find_regions
from darts_postprocessing.runs import RunRegions
from darts_utils.runs import BLOCK_ROWS

SHAPES = st.sampled_from([(1, 1), (1, 70), (70, 1), (7, 9), (33, 64), (BLOCK_ROWS * 2 + 1, 17), (BLOCK_ROWS, 5)])


def by_place(regions, values):
    """Return a value by region as an array over the tile, whatever the order of regions; 0 outside."""
    number = np.arange(1, regions.count + 1)
    bits = [regions.mask_of((number >> bit) % 2 == 1) * 2**bit for bit in range(regions.count.bit_length() or 1)]
    return np.append(0, values)[sum(bits)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=SHAPES, threshold=st.floats(0.5, 1), lost=st.sampled_from([0, 0.2, 1]))
def test_runs_and_labels_measure_the_same(seed, shape, threshold, lost):
    rng = np.random.default_rng(seed)
    probs = rng.random(shape, dtype="float32")
    probs[rng.random(shape) < lost] = np.nan
    extent, classes = rng.random(shape) > 0.1, rng.integers(0, 3, shape, "uint8")
    runs, labels = RunRegions(probs, threshold), LabelRegions(probs, threshold)
    for _ in range(2):
        assert runs.count == labels.count
        mine, theirs = runs.measure(extent), labels.measure(extent)
        for name in ("size", "reaches_out", "row_sum", "column_sum"):
            a, b = getattr(mine, name), getattr(theirs, name)
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(by_place(runs, a), by_place(labels, b), err_msg=name)
        np.testing.assert_array_equal(by_place(runs, runs.peaks()), by_place(labels, labels.peaks()))
        np.testing.assert_array_equal(
            by_place(runs, runs.count_class(classes, 2)), by_place(labels, labels.count_class(classes, 2))
        )
        large = (mine.size > 2), (theirs.size > 2)
        for one, other in zip((runs.mask_of, runs.values_of), (labels.mask_of, labels.values_of), strict=True):
            np.testing.assert_array_equal(one(large[0]), other(large[1]))
        assert runs.values_of(large[0]).dtype == labels.values_of(large[1]).dtype == "float32"
        threshold = (threshold + 1) / 2
        runs, labels = runs.above(threshold), labels.above(threshold)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 63, 64, 65])
def test_a_snake_through_all_rows_is_one_region(width):
    probs = np.zeros((2 * BLOCK_ROWS + 3, width), "float32")
    probs[::2] = 1
    probs[1::4, -1] = probs[3::4, 0] = 1
    regions = RunRegions(probs, 0.5)
    assert regions.count == 1
    assert regions.measure(np.ones(probs.shape, bool)).size.tolist() == [(probs > 0.5).sum()]


def test_a_chequerboard_is_one_region_and_its_corners_join_it():
    probs = (np.indices((200, 131)).sum(0) % 2).astype("float32")
    assert RunRegions(probs, 0.5).count == 1
    probs[:, ::2] = 0
    assert RunRegions(probs, 0.5).count == probs.sum()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_arrays_without_pixels_have_no_regions(shape):
    regions = RunRegions(np.zeros(shape, "float32"), 0.5)
    assert regions.count == 0
    assert regions.above(0.6).mask_of(np.zeros(0, bool)).shape == shape
    assert regions.peaks().size == regions.measure(np.ones(shape, bool)).size.size == 0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "uint8", "bool"])
def test_probabilities_of_any_kind_are_compared_as_numpy_does(dtype):
    probs = np.array([[0, 0.3, 0.4, 0.6, 0.7, 1]]).repeat(2, 0).astype(dtype)
    for threshold in (0.3, 0.4, 0.6, 0.7):
        for limit in (threshold, np.float64(threshold)):
            regions = find_regions(probs, limit)
            np.testing.assert_array_equal(regions.mask_of(np.ones(regions.count, bool)), probs > threshold)
            assert (regions.peaks() > threshold).all()


def test_arrays_of_any_memory_layout_are_taken():
    probs = np.random.default_rng(1).random((40, 60), dtype="float32")
    expected = RunRegions(probs, 0.6)
    for given_as in (np.asfortranarray(probs), probs.repeat(2, 0)[::2], probs[::-1, ::-1][::-1, ::-1]):
        regions = RunRegions(given_as, 0.6)
        everything = np.ones(regions.count, bool)
        np.testing.assert_array_equal(regions.values_of(everything), expected.values_of(everything))
