"""Runs and their regions against a search pixel by pixel, and against SciPy's labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from darts_utils.runs import BLOCK_ROWS, find_runs

SHAPES = st.sampled_from([(1, 1), (1, 70), (70, 1), (7, 9), (33, 64), (2 * BLOCK_ROWS + 1, 17), (BLOCK_ROWS, 5)])
KINDS = st.sampled_from(["bool", "uint8", "float32", "float64"])
FOUR, EIGHT = ndimage.generate_binary_structure(2, 1), np.ones((3, 3))


def noise(seed, shape, kind, share):
    values = np.random.default_rng(seed).random(shape)
    if kind == "bool":
        return values < share, 0
    if kind == "uint8":
        return (values * 256).astype("uint8"), round((1 - share) * 255)
    values[values < 0.1] = np.nan
    return values.astype(kind), 1 - share


def painted(runs, shape, numbers=None):
    """Return an image of runs: the number of each from 1 on, or `numbers`."""
    image = np.zeros(shape, "int64")
    numbers = np.arange(len(runs.starts)) + 1 if numbers is None else numbers
    for row, start, end, number in zip(runs.rows, runs.starts, runs.ends, numbers, strict=True):
        assert start < end
        assert (image[row, max(start - 1, 0) : end + 1] == 0).all(), "runs of a row neither overlap nor touch"
        image[row, start:end] = number
    return image


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), SHAPES, KINDS, st.sampled_from([0, 0.1, 0.5, 0.9, 1]))
def test_runs_hold_just_the_pixels_above_the_limit_in_raster_order(seed, shape, kind, share):
    values, limit = noise(seed, shape, kind, share)
    runs = find_runs(values, limit)
    above = values > values.dtype.type(limit)
    image = painted(runs, shape)
    np.testing.assert_array_equal(image > 0, above)
    assert (np.diff(image[above]) >= 0).all()
    assert runs.first.tolist() == np.searchsorted(runs.rows, np.arange(shape[0] + 1)).tolist()
    assert (runs.starts.dtype, runs.ends.dtype, runs.rows.dtype) == ("int32",) * 3


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), SHAPES, KINDS, st.sampled_from([0.1, 0.4, 0.5, 0.6, 0.9, 1]), st.booleans())
def test_regions_are_those_of_scipy_in_the_order_of_their_first_pixels(seed, shape, kind, share, corners):
    values, limit = noise(seed, shape, kind, share)
    runs = find_runs(values, limit)
    region, count = runs.connect(corners=corners)
    # SciPy numbers regions in the same order, by their first pixels.
    labels, expected = ndimage.label(values > values.dtype.type(limit), EIGHT if corners else FOUR)
    assert count == expected
    np.testing.assert_array_equal(painted(runs, shape, region + 1), labels)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), SHAPES, st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_runs_above_a_higher_limit_are_found_within_those_above_a_lower_one(seed, shape, higher):
    values, _ = noise(seed, shape, "float32", 1)
    values[np.isnan(values)] = 0.2
    within, alone = find_runs(values, min(higher, 0.3)).above(values, higher), find_runs(values, higher)
    for name in ("first", "starts", "ends"):
        np.testing.assert_array_equal(getattr(within, name), getattr(alone, name))


@pytest.mark.parametrize("corners", [True, False])
def test_a_checkerboard_is_one_region_by_corners_and_as_many_as_pixels_without(corners):
    board = np.indices((BLOCK_ROWS + 3, 9)).sum(axis=0) % 2 == 0
    region, count = find_runs(board).connect(corners=corners)
    assert len(region) == board.sum()
    assert count == (1 if corners else board.sum())


def test_a_value_just_at_the_limit_is_outside_whatever_the_precision():
    just = np.float32(0.7)
    values = np.array([[just, np.nextafter(just, np.float32(1)), just]])
    runs = find_runs(values, 0.7)
    assert (runs.starts.tolist(), runs.ends.tolist()) == ([1], [2])


def test_nothing_there_gives_no_runs():
    for shape in ((5, 7), (0, 4), (4, 0)):
        runs = find_runs(np.zeros(shape, bool))
        assert runs.connect()[1] == len(runs.starts) == len(runs.rows) == 0
        assert runs.first.tolist() == [0] * (shape[0] + 1)


def test_a_mask_of_any_layout_in_memory_is_read_right():
    mask, _ = noise(2, (40, 60), "bool", 0.5)
    for layout in (np.asfortranarray(mask), np.repeat(mask, 2, axis=1)[:, ::2], mask[::-1][::-1]):
        np.testing.assert_array_equal(find_runs(layout).starts, find_runs(mask).starts)
