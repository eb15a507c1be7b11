"""SPEC 7: the fewest patches; weights min(1, (i + 1)/(overlap + 1), (n - i)/(overlap + 1)), divided by their sum."""

import numpy as np
import pytest
import xarray as xr

from darts_segmentation import PatchOptions
from darts_segmentation.inference import DatasetRows, Reader, Tally, predict_planes
from darts_segmentation.patches import blend_weights, patch_starts
from darts_utils.errors import ConfigError


@pytest.mark.parametrize(
    ("size", "overlap", "weights"),
    [
        (8, 3, [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]),
        (8, 0, [1, 1, 1, 1, 1, 1, 1, 1]),
        (4, 3, [0.25, 0.5, 0.5, 0.25]),
        (5, 4, [0.2, 0.4, 0.6, 0.4, 0.2]),
        (1, 0, [1]),
    ],
)
def test_weights_fall_linearly_over_the_overlap(size, overlap, weights):
    assert np.allclose(blend_weights(size, overlap), weights)


@pytest.mark.parametrize(
    ("size", "patch_size", "overlap", "starts"),
    [
        (1, 1024, 256, [0]),
        (37, 1024, 256, [0]),
        (1023, 1024, 256, [0]),
        (1024, 1024, 256, [0]),
        (1025, 1024, 256, [0, 1]),
        (1792, 1024, 256, [0, 768]),
        (1793, 1024, 256, [0, 768, 769]),
        (2048, 1024, 256, [0, 768, 1024]),
        (2560, 1024, 256, [0, 768, 1536]),
        (4096, 1024, 256, [0, 768, 1536, 2304, 3072]),
        (64, 32, 0, [0, 32]),
        (64, 32, 31, list(range(33))),
    ],
)
def test_patches_are_the_fewest_that_cover_the_tile_and_the_last_ends_with_it(size, patch_size, overlap, starts):
    assert list(patch_starts(size, patch_size, overlap)) == starts


def test_a_whole_sentinel2_scene_takes_14_patches_a_side():
    starts = patch_starts(10_980, 1024, 256)
    assert len(starts) == 14
    assert starts[-1] == 10_980 - 1024


def predict_in_patches(values, predict, options, stride=1):
    """Return the blended plane, and how many patches were planned and predicted."""
    tile = DatasetRows(xr.Dataset({"probabilities": (("y", "x"), values)}), ["probabilities"], purpose="the test")
    reader, tally = Reader(bands=("probabilities",), asked=("probabilities",), predict=predict, stride=stride), Tally()
    ((plane,),) = predict_planes([tile], [reader], options, [tally])
    return plane, tally.planned, tally.predicted


def blend_of_two(width, second):
    """Blend two patches of eight pixels, overlap four: the first answers 0 everywhere, the second 1."""
    values = np.zeros((8, width), "float32")
    values[:, second] = 1
    plane, planned, predicted = predict_in_patches(
        values,
        lambda patches: np.broadcast_to(patches[:, :1, :1, 0], patches.shape[:3]),  # a patch answers its first pixel
        PatchOptions(patch_size=8, overlap=4, batch_size=8),
    )
    assert (planned, predicted) == (2, 2)
    assert np.allclose(plane, plane[:1])
    return plane[0].tolist()


def test_neighbours_fade_into_each_other():
    # Columns 4 to 7: the first weighs 0.8 0.6 0.4 0.2, the second 0.2 0.4 0.6 0.8.
    assert blend_of_two(12, second=4) == pytest.approx([0, 0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1], abs=1e-6)


def test_where_patches_share_more_than_the_overlap_the_sum_of_weights_divides():
    # Columns 3 to 7: the first weighs 0.8 0.8 0.6 0.4 0.2, the second 0.2 0.4 0.6 0.8 0.8.
    expected = [0, 0, 0, 0.2 / 1.0, 0.4 / 1.2, 0.6 / 1.2, 0.8 / 1.2, 0.8 / 1.0, 1, 1, 1]
    assert blend_of_two(11, second=3) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (37, 53), (64, 64), (65, 100), (130, 31)])
@pytest.mark.parametrize(("patch_size", "overlap", "reflection"), [(64, 16, 0), (64, 32, 0), (32, 17, 0), (64, 0, 0),
                                                                  (100, 33, 0), (32, 31, 0), (64, 16, 40)])  # fmt: skip
def test_an_identity_model_rebuilds_its_input(shape, patch_size, overlap, reflection):
    values = np.random.default_rng(5).random(shape, "float32")
    plane, _, _ = predict_in_patches(
        values,
        lambda patches: patches[..., 0],
        PatchOptions(patch_size=patch_size, overlap=overlap, batch_size=3, reflection=reflection),
        stride=8,
    )
    assert np.allclose(plane, values, atol=1e-6)


@pytest.mark.parametrize("options", [{"patch_size": 64, "overlap": 64}, {"overlap": -1}, {"patch_size": 0},
                                     {"batch_size": 0}, {"reflection": -1}])  # fmt: skip
def test_patches_that_cannot_be_cut_are_refused(options):
    with pytest.raises(ConfigError):
        PatchOptions(**options)
