from collections import deque

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_postprocessing import binarize, find_objects
from darts_utils.errors import ConfigError, GridMismatchError

NAN = np.float32(np.nan)


def objects_by_hand(probs, threshold, min_size, extent):
    """Flood fill in plain Python: the kept and the cut objects."""
    height, width = probs.shape
    kept, cut, seen = (np.zeros(probs.shape, bool) for _ in range(3))
    for start in np.ndindex(*probs.shape):
        if seen[start] or not probs[start] > threshold:
            continue
        seen[start] = True
        queue, pixels = deque([start]), []
        while queue:
            y, x = queue.popleft()
            pixels.append((y, x))
            for row in range(max(0, y - 1), min(height, y + 2)):
                for column in range(max(0, x - 1), min(width, x + 2)):
                    if not seen[row, column] and probs[row, column] > threshold:
                        seen[row, column] = True
                        queue.append((row, column))
        if not all(extent[pixel] for pixel in pixels):
            for pixel in pixels:
                cut[pixel] = True
        elif len(pixels) >= min_size:
            for pixel in pixels:
                kept[pixel] = True
    return kept, cut


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    share=st.floats(0, 1),
    min_size=st.integers(0, 12),
    lost=st.floats(0, 0.2),
)
def test_objects_are_those_of_a_flood_fill(seed, shape, share, min_size, lost):
    rng = np.random.default_rng(seed)
    probs = rng.random(shape, dtype="float32")
    probs[rng.random(shape) < lost] = NAN
    extent = rng.random(shape) > lost / 4
    kept, cut = find_objects(probs, 1 - share, min_size, extent)
    expected_kept, expected_cut = objects_by_hand(probs, 1 - share, min_size, extent)
    np.testing.assert_array_equal(kept, expected_kept)
    np.testing.assert_array_equal(cut, expected_cut)


def test_objects_of_a_tall_array_are_counted_over_all_row_blocks():
    rng = np.random.default_rng(5)
    probs = rng.random((1300, 40), dtype="float32")
    probs[:, 7] = 1  # one object runs through all blocks
    extent = np.ones(probs.shape, bool)
    extent[1299, 30:] = False
    kept, cut = find_objects(probs, 0.72, 5, extent)
    expected_kept, expected_cut = objects_by_hand(probs, 0.72, 5, extent)
    np.testing.assert_array_equal(kept, expected_kept)
    np.testing.assert_array_equal(cut, expected_cut)


def test_squares_joined_at_a_corner_are_one_object():  # O4
    probs = np.zeros((20, 20), "float32")
    probs[2:7, 2:7] = probs[7:12, 7:12] = 0.9
    assert binarize(probs, 0.5, 32, np.ones(probs.shape, bool)).sum() == 50


@pytest.mark.parametrize(("min_size", "pixels"), [(31, 32), (32, 32), (33, 0)])
def test_an_object_of_just_the_minimum_size_stays(min_size, pixels):  # O5
    probs = np.zeros((20, 20), "float32")
    probs[4:8, 4:12] = 0.9
    assert binarize(probs, 0.5, min_size, np.ones(probs.shape, bool)).sum() == pixels


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32"])
def test_any_kind_of_mask_is_understood(dtype):  # O3
    probs = np.zeros((40, 40), "float32")
    probs[5:25, 5:25] = 0.9
    assert binarize(probs, 0.5, 32, np.ones(probs.shape, dtype)).sum() == 400


def test_an_object_with_one_pixel_outside_the_mask_goes_whole():  # O1
    probs = np.zeros((40, 40), "float32")
    probs[5:25, 5:25] = 0.9
    mask = np.ones(probs.shape, bool)
    mask[24, 24] = False
    kept, cut = find_objects(probs, 0.5, 32, mask)
    assert not kept.any()
    np.testing.assert_array_equal(cut, probs > 0.5)


def test_a_probability_equal_to_the_threshold_is_no_object():
    probs = np.full((8, 8), np.float32(0.4))
    assert not binarize(probs, 0.4, 1, np.ones(probs.shape, bool)).any()
    assert binarize(np.nextafter(probs, np.float32(1)), 0.4, 1, np.ones(probs.shape, bool)).all()


def test_nan_is_never_part_of_an_object_and_does_not_join_two():
    probs = np.full((5, 11), np.float32(0.9))
    probs[:, 5] = NAN
    kept = binarize(probs, 0, 26, np.ones(probs.shape, bool))
    assert not kept.any()
    assert binarize(probs, 0, 25, np.ones(probs.shape, bool)).sum() == 50


def test_an_all_nan_and_a_one_pixel_tile_work():
    assert not binarize(np.full((7, 5), NAN), 0.5, 1, np.ones((7, 5), bool)).any()
    assert binarize(np.full((1, 1), np.float32(1)), 0.5, 1, np.ones((1, 1), bool)).all()


def test_a_dataarray_comes_back_as_one_and_nothing_is_changed():
    probs = xr.DataArray(np.full((6, 6), 0.9, "float32"), dims=("y", "x"), coords={"y": np.arange(6.0)})
    mask = xr.DataArray(np.ones((6, 6), "uint8"), dims=("y", "x"))
    before = probs.copy(deep=True), mask.copy(deep=True)
    found = binarize(probs, 0.5, 4, mask, device="cpu")
    assert found.y.equals(probs.y)
    assert found.dtype == bool
    xr.testing.assert_identical(probs, before[0])
    xr.testing.assert_identical(mask, before[1])


def test_fortran_ordered_probabilities_give_the_same_objects():
    probs = np.random.default_rng(3).random((30, 50), dtype="float32")
    mask = np.ones(probs.shape, bool)
    np.testing.assert_array_equal(binarize(np.asfortranarray(probs), 0.6, 4, mask), binarize(probs, 0.6, 4, mask))


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan"), 50])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        binarize(np.zeros((3, 3), "float32"), threshold, 1, np.ones((3, 3), bool))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(GridMismatchError, match=r"\(3, 4\)"):
        binarize(np.zeros((3, 3), "float32"), 0.5, 1, np.ones((3, 4), bool))


@pytest.mark.gpu
def test_objects_on_the_gpu_are_the_same_bits():
    import cupy

    rng = np.random.default_rng(4)
    probs = rng.random((700, 900), dtype="float32")
    probs[rng.random(probs.shape) < 0.05] = NAN
    extent = rng.random(probs.shape) > 0.001
    for here, there in zip(
        find_objects(probs, 0.7, 6, extent),
        find_objects(cupy.asarray(probs), 0.7, 6, cupy.asarray(extent)),
        strict=True,
    ):
        np.testing.assert_array_equal(there.get(), here)
