"""SPEC 8: objects are whole or gone; probability > threshold, 8-connected, at least the minimum size."""

import numpy as np
import pytest

from darts_postprocessing import binarize, prepare_export

NAN = np.nan


def binary(on_grid, probs, threshold=0.5, min_object_size=1, mask=None):
    ds = on_grid(probs=np.asarray(probs, "float32"), mask=np.ones(np.shape(probs), bool) if mask is None else mask)
    before = ds.copy(deep=True)
    result = binarize(ds.probs, threshold, min_object_size, ds.mask, "cpu")
    assert result.dtype == bool
    assert ds.identical(before)
    return result.values


def with_square(side, shape=(40, 40), at=(10, 10), value=0.9, probs=None):
    probs = np.full(shape, 0.1, "float32") if probs is None else probs.copy()
    probs[at[0] : at[0] + side, at[1] : at[1] + side] = value
    return probs


def test_the_threshold_itself_is_no_object(on_grid):
    row = [[0.49, 0.5, 0.50001, 1.0, NAN, 0.0]]
    assert binary(on_grid, row).tolist() == [[False, False, True, True, False, False]]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.6, 0.7, 0.9])
def test_the_threshold_is_no_object_in_float32_either(on_grid, threshold):
    # float32(0.6) is a little more than 0.6.
    assert not binary(on_grid, [[threshold]], threshold).any()


def test_an_object_of_just_the_minimum_size_stays(on_grid):
    probs = with_square(5)
    probs[15, 10:17] = 0.9  # 25 + 7 = 32 pixels
    assert binary(on_grid, probs, min_object_size=32).sum() == 32
    assert binary(on_grid, probs, min_object_size=33).sum() == 0
    probs[15, 16] = 0.1
    assert binary(on_grid, probs, min_object_size=32).sum() == 0


def test_two_squares_that_touch_at_a_corner_are_one_object(on_grid):
    probs = with_square(5, at=(15, 15), probs=with_square(5))
    assert binary(on_grid, probs, min_object_size=32).sum() == 50
    apart = with_square(5, at=(16, 15), probs=with_square(5))
    assert binary(on_grid, apart, min_object_size=32).sum() == 0


def test_an_object_with_a_pixel_outside_the_mask_goes_whole(on_grid):
    mask = np.ones((40, 40), bool)
    mask[:, 20] = False
    assert binary(on_grid, with_square(20), mask=mask).sum() == 0
    beside = with_square(5, at=(10, 22), probs=with_square(5))
    assert binary(on_grid, beside, mask=mask).sum() == 50
    corner = with_square(5, at=(15, 15))
    mask[:] = True
    mask[19, 19] = False
    assert binary(on_grid, corner, mask=mask).sum() == 0
    mask[19, 19], mask[20, 20] = True, False  # next to it, but not of it
    assert binary(on_grid, corner, mask=mask).sum() == 25


def test_the_tile_edge_alone_takes_nothing(on_grid):
    assert binary(on_grid, with_square(5, at=(0, 0))).sum() == 25


def test_a_mask_of_whole_numbers_is_a_mask(on_grid):
    mask = np.ones((40, 40), "uint8")
    assert binary(on_grid, with_square(20), mask=mask).sum() == 400


@pytest.fixture
def prepared(on_grid):
    """Export a tile of 40 by 40 pixels prepared with small sizes: disk 2, frame 2, objects of 4 pixels."""

    def make(probs, quality=None, bands=None, **options):
        shape = np.shape(probs)
        tile = on_grid(
            attrs={"tile_id": "T"},
            probabilities=np.asarray(probs, "float32"),
            quality_data_mask=np.full(shape, 2, "uint8") if quality is None else quality,
            **(bands or {}),
        )
        before = tile.copy(deep=True)
        options = {"mask_erosion_size": 2, "min_object_size": 4, "device": "cpu"} | options
        result = prepare_export(tile, **options)
        assert tile.identical(before)
        assert result.odc.geobox == tile.odc.geobox
        assert result.attrs["tile_id"] == "T"
        assert result.extent.dtype == result.binarized_segmentation.dtype == bool
        return result

    return make


def frame(width, shape=(40, 40)):
    inner = np.zeros(shape, bool)
    inner[width : shape[0] - width, width : shape[1] - width] = True
    return inner


def test_valid_is_quality_and_an_answer_eroded_and_framed(prepared):
    quality = np.full((40, 40), 2, "uint8")
    quality[20, 20], quality[20, 30] = 0, 1
    probs = np.full((40, 40), 0.1, "float32")
    probs[10, 10] = NAN
    expected = frame(2)
    y, x = np.mgrid[:40, :40]
    expected &= ((y - 20) ** 2 + (x - 20) ** 2 > 4) & ((y - 10) ** 2 + (x - 10) ** 2 > 4)
    low = prepared(probs, quality).extent.values
    assert np.array_equal(low, expected)
    high = prepared(probs, quality, quality_level=2).extent.values
    assert np.array_equal(high, expected & ((y - 20) ** 2 + (x - 30) ** 2 > 4))


def test_level_0_asks_for_an_answer_alone(prepared):
    quality = np.zeros((40, 40), "uint8")
    probs = with_square(5, at=(0, 0))
    probs[10, 10] = NAN
    result = prepared(probs, quality, quality_level=0)
    assert np.array_equal(result.extent.values, np.isfinite(probs))
    assert result.binarized_segmentation.values.sum() == 25


@pytest.mark.parametrize(
    ("sizes", "width"),
    [({"mask_erosion_size": 0}, 0), ({"edge_erosion_size": 0}, 0), ({"edge_erosion_size": 5}, 5), ({}, 2)],
)
def test_a_0_is_a_real_0(prepared, sizes, width):
    assert np.array_equal(prepared(np.full((40, 40), 0.1), **sizes).extent.values, frame(width))


def test_nothing_outside_the_extent_has_a_probability(prepared):
    result = prepared(with_square(5), bands={"probability_std": np.full((40, 40), 0.1, "float32")})
    for name in ("probabilities", "probability_std"):
        assert result[name].dtype == np.float32
        assert np.array_equal(np.isnan(result[name].values), ~result.extent.values)
    assert np.nanmax(result.probabilities) == np.float32(0.9)


def test_an_object_across_an_invalid_column_goes_whole_and_is_kept_apart(prepared):
    quality = np.full((40, 40), 2, "uint8")
    quality[:, 20] = 0
    result = prepared(with_square(20), quality)
    assert not result.binarized_segmentation.values.any()
    cut = result.cut_probabilities.values
    assert np.sum(np.isfinite(cut)) == 400, "all of it, on invalid pixels too"
    assert np.unique(cut[np.isfinite(cut)]).tolist() == [np.float32(0.9)]


def test_an_object_that_reaches_into_the_frame_goes_whole(prepared):
    probs = with_square(6, at=(1, 10), probs=with_square(6, at=(20, 20)))
    result = prepared(probs)
    assert result.binarized_segmentation.values.sum() == 36
    assert result.binarized_segmentation.values[20:26, 20:26].all()
    assert np.array_equal(np.isfinite(result.cut_probabilities.values), with_square(6, at=(1, 10)) > 0.5)


def test_a_small_object_inside_is_gone_and_not_kept_apart(prepared):
    result = prepared(with_square(1))
    assert not result.binarized_segmentation.values.any()
    assert np.isnan(result.cut_probabilities.values).all()


def test_each_model_has_objects_of_its_own(prepared):
    other = with_square(5, at=(25, 25))
    result = prepared(with_square(5), bands={"probabilities-a": other}, ensemble_subsets=("a",))
    assert np.array_equal(result["binarized_segmentation-a"].values, other > 0.5)
    assert np.array_equal(result["binarized_segmentation"].values, with_square(5) > 0.5)
    assert np.array_equal(np.isnan(result["probabilities-a"].values), ~result.extent.values)
    assert "cut_probabilities-a" in result


@pytest.mark.parametrize("probs", [np.full((40, 40), NAN), np.full((1, 1), 0.9), np.zeros((3, 3))])
def test_a_tile_without_anything_is_prepared_all_the_same(prepared, probs):
    result = prepared(probs)
    assert not result.binarized_segmentation.values.any()
    assert not result.extent.values.any()
