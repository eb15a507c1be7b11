"""SPEC 8: a pixel stays when no invalid pixel lies at a centre distance of at most `size`; the frame is cut apart."""

import numpy as np
import pytest

from darts_postprocessing import erode_mask


def eroded(on_grid, mask, size, edge_size=None):
    ds = on_grid(mask=np.asarray(mask, bool))
    before = ds.copy(deep=True)
    result = erode_mask(ds.mask, size, "cpu", edge_size)
    assert result.dtype == bool
    assert ds.identical(before)
    return result.values


def one_hole(size=15):
    mask = np.ones((size, size), bool)
    mask[size // 2, size // 2] = False
    return mask


@pytest.mark.parametrize(("size", "pixels"), [(0, 1), (1, 5), (2, 13), (3, 29), (5, 81)])
def test_around_one_invalid_pixel_a_disk_goes(on_grid, size, pixels):
    result = eroded(on_grid, one_hole(), size, edge_size=0)
    assert np.sum(~result) == pixels
    y, x = np.mgrid[-7:8, -7:8]
    assert np.array_equal(~result, x**2 + y**2 <= size**2)


def test_the_disk_of_10_pixels_has_317(on_grid):
    assert np.sum(~eroded(on_grid, one_hole(31), 10, edge_size=0)) == 317


def test_erosion_of_zero_pixels_changes_nothing(on_grid):
    mask = one_hole()
    mask[0, :3] = False
    assert np.array_equal(eroded(on_grid, mask, 0), mask)
    assert np.array_equal(eroded(on_grid, mask, 0, 0), mask)


def test_what_lies_beyond_the_edge_does_not_count(on_grid):
    assert eroded(on_grid, np.ones((9, 9)), 4, edge_size=0).all()


@pytest.mark.parametrize(("size", "edge_size", "frame"), [(3, None, 3), (3, 1, 1), (0, 2, 2), (1, 3, 3), (2, 0, 0)])
def test_the_frame_is_cut_by_its_own_size_or_by_that_of_the_disk(on_grid, size, edge_size, frame):
    result = eroded(on_grid, np.ones((12, 15)), size, edge_size)
    expected = np.zeros((12, 15), bool)
    expected[frame : 12 - frame, frame : 15 - frame] = True
    assert np.array_equal(result, expected)


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (20, 20)])
def test_a_frame_as_wide_as_the_tile_leaves_nothing(on_grid, shape):
    assert not eroded(on_grid, np.ones(shape), 10).any()


def test_whole_numbers_are_a_mask_too(on_grid):
    mask = on_grid(mask=one_hole().astype("uint8")).mask
    assert np.array_equal(erode_mask(mask, 2, "cpu", 0).values.astype(bool), eroded(on_grid, one_hole(), 2, 0))
