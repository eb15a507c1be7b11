import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from darts_postprocessing import erode_mask
from darts_utils.errors import ConfigError

masks = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


def eroded_by_hand(mask: np.ndarray, size: int, edge: int) -> np.ndarray:
    """Brute force: look at every invalid pixel from every pixel."""
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    keep = mask.copy()
    for row, column in zip(*np.nonzero(~mask), strict=True):
        keep &= (y - row) ** 2 + (x - column) ** 2 > size**2
    height, width = mask.shape
    return keep & (y >= edge) & (y < height - edge) & (x >= edge) & (x < width - edge)


@settings(max_examples=50, deadline=None)
@given(mask=masks, size=st.integers(0, 30), edge=st.integers(0, 14))
def test_erosion_is_the_brute_force_disk_and_frame(mask, size, edge):
    before = mask.copy()
    np.testing.assert_array_equal(erode_mask(mask, size, edge_size=edge), eroded_by_hand(mask, size, edge))
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("size", [1, 5, 25, 65, 85, 130, 200, 253, 254, 400])
def test_erosion_is_exact_for_large_disks_and_on_ties(size):
    # 5, 25, 65, 85 have several ways to be a sum of two squares, so pixels lie exactly on the circle.
    mask = np.ones((601, 1183), bool)
    rng = np.random.default_rng(size)
    for _ in range(6):
        mask[rng.integers(601), rng.integers(1183)] = False
    np.testing.assert_array_equal(erode_mask(mask, size, edge_size=0), eroded_by_hand(mask, size, 0))


def test_what_lies_beyond_the_edge_does_not_count():
    assert erode_mask(np.ones((30, 20), bool), 8, edge_size=0).all()


def test_the_frame_is_as_wide_as_the_disk_unless_told():
    eroded = erode_mask(np.ones((20, 30), bool), 3)
    assert eroded.sum() == 14 * 24
    assert eroded[3, 3]
    assert not eroded[2].any()
    assert not eroded[:, -3:].any()


def test_zero_pixels_of_erosion_and_frame_change_nothing():  # O2
    mask = np.random.default_rng(1).random((60, 60)) > 0.3
    np.testing.assert_array_equal(erode_mask(mask, 0), mask)
    np.testing.assert_array_equal(erode_mask(mask, 0, edge_size=0), mask)
    assert erode_mask(mask, 0) is not mask


def test_a_frame_wider_than_the_tile_leaves_nothing():
    assert not erode_mask(np.ones((5, 9), bool), 0, edge_size=20).any()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
@pytest.mark.parametrize("truth", [1, 2])
def test_integer_masks_mean_the_same_as_bool(dtype, truth):  # O3
    mask = np.ones((30, 30), bool)
    mask[14, 3] = False
    eroded = erode_mask((mask * truth).astype(dtype), 4)
    assert eroded.dtype == bool
    np.testing.assert_array_equal(eroded, erode_mask(mask, 4))


def test_arrays_of_any_memory_layout_are_taken():
    mask = np.random.default_rng(2).random((50, 80)) > 0.02
    for size in (3, 20):
        expected = eroded_by_hand(mask, size, 0)
        np.testing.assert_array_equal(erode_mask(np.asfortranarray(mask), size, edge_size=0), expected)
        np.testing.assert_array_equal(erode_mask(mask.repeat(2, 1)[:, ::2], size, edge_size=0), expected)


def test_a_dataarray_keeps_its_coordinates():
    mask = xr.DataArray(np.ones((5, 6), "uint8"), dims=("y", "x"), coords={"x": np.arange(6.0)})
    eroded = erode_mask(mask, 1)
    assert eroded.dims == ("y", "x")
    assert eroded.dtype == bool
    assert eroded.x.equals(mask.x)


def test_the_device_can_be_named():
    assert isinstance(erode_mask(np.ones((9, 9), bool), 2, device="cpu"), np.ndarray)


@pytest.mark.parametrize("size", [-1, 1.5, True, None, "3"])
def test_a_size_that_is_no_number_of_pixels_is_refused(size):
    with pytest.raises(ConfigError, match="size must be a whole number of pixels"):
        erode_mask(np.ones((5, 5), bool), size)


def test_a_negative_frame_is_refused_by_name():
    with pytest.raises(ConfigError, match="edge_size"):
        erode_mask(np.ones((5, 5), bool), 1, edge_size=-2)


def test_a_stack_of_masks_is_refused():
    with pytest.raises(ConfigError, match=r"\(y, x\)"):
        erode_mask(np.ones((2, 5, 5), bool), 1)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [0, 1, 10, 65, 200])
def test_erosion_on_the_gpu_gives_the_same_bits(size):
    import cupy

    mask = np.random.default_rng(size).random((701, 503)) > 1e-5
    np.testing.assert_array_equal(erode_mask(cupy.asarray(mask), size).get(), erode_mask(mask, size))
    assert bool(erode_mask(cupy.ones((50, 50), bool), size, edge_size=0).all())
