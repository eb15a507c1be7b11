"""SPEC 7: where a model answers, and what an ensemble makes of its models."""

import math

import numpy as np
import pytest

from darts_ensemble import EnsembleV1
from darts_segmentation import SMPSegmenter

BANDS = ("red", "slope", "aspect")


@pytest.fixture(scope="module")
def save_model(tmp_path_factory):
    """Save a checkpoint of a tiny network in the form of SPEC 7, whose probability is the same for every pixel.

    Without `probability` the weights stay random, so that the answer depends on the input.
    """
    import segmentation_models_pytorch as smp
    import torch

    def save(bands=BANDS, probability=None, **config):
        arguments = {
            "arch": "unet",
            "encoder_name": "tu-test_resnet",  # a third of a megabyte
            "encoder_depth": 3,
            "decoder_channels": (8, 8, 4),
            "in_channels": len(bands),
            "classes": 1,
        }
        torch.manual_seed(4)
        network = smp.create_model(**arguments, encoder_weights=None)
        if probability is not None:
            with torch.no_grad():
                network.segmentation_head[0].weight.zero_()
                network.segmentation_head[0].bias.fill_(math.log(probability / (1 - probability)))
        path = tmp_path_factory.mktemp("models") / "tiny.pt"
        config = {
            "model_framework": "smp", "model": {**arguments, "encoder_weights": "imagenet"},
            "input_combination": list(bands), "patch_size": 64, **config,
        }  # fmt: skip
        torch.save({"config": config, "statedict": network.state_dict()}, path)
        return path

    return save


@pytest.fixture
def tile(on_grid):
    rng = np.random.default_rng(8)
    shape = (70, 90)
    return on_grid(
        attrs={"tile_id": "T", "azimuth": 180.0},
        red=rng.uniform(0, 0.4, shape).astype("float32"),
        slope=rng.uniform(0, 30, shape).astype("float32"),
        aspect=rng.uniform(0, 360, shape).astype("float32"),
        quality_data_mask=rng.integers(0, 3, shape).astype("uint8"),
    )


def with_gap(tile, band, where):
    values = tile[band].values.copy()
    values[where] = np.nan
    return tile.assign({band: (("y", "x"), values)})


def segment(path, tile, patch_size=64, overlap=16, **options):
    return SMPSegmenter(path, device="cpu").segment_tile(tile, patch_size, overlap, **options)


def test_a_known_answer_comes_back_at_every_pixel(save_model, tile):
    before = tile.copy(deep=True)
    result = segment(save_model(probability=0.7), tile)
    assert result.probabilities.dtype == np.float32
    assert np.allclose(result.probabilities.values, 0.7, atol=1e-5)
    assert result.odc.geobox == tile.odc.geobox
    assert result.attrs == tile.attrs
    assert tile.identical(before), "the input tile is left alone"
    assert result.drop_vars("probabilities").identical(before), "everything it had is still there"


def test_the_model_says_which_bands_it_needs(save_model):
    assert set(SMPSegmenter(save_model(), device="cpu").required_bands) == set(BANDS)


def test_a_gap_in_any_band_but_aspect_is_a_gap_in_the_answer(save_model, tile):
    path = save_model(probability=0.7)
    for band in ("red", "slope"):
        probabilities = segment(path, with_gap(tile, band, np.s_[20:30, 40:45])).probabilities.values
        expected = np.zeros(probabilities.shape, bool)
        expected[20:30, 40:45] = True
        assert np.array_equal(np.isnan(probabilities), expected), band
        assert np.allclose(probabilities[~expected], 0.7, atol=1e-5)


def test_flat_ground_without_an_aspect_has_an_answer(save_model, tile):
    probabilities = segment(save_model(probability=0.7), with_gap(tile, "aspect", np.s_[:, :])).probabilities.values
    assert np.allclose(probabilities, 0.7, atol=1e-5)


def test_quality_plays_no_part(save_model, tile):
    path = save_model()
    a, b = (segment(path, tile.assign(quality_data_mask=tile.quality_data_mask * f)).probabilities for f in (0, 1))
    assert np.array_equal(a.values, b.values)


def test_a_gap_changes_nothing_outside_the_reach_of_the_network(save_model, tile):
    # Whole patches away: columns below 26 belong to the first patch alone, the gap to the second.
    path = save_model()
    whole = segment(path, tile).probabilities.values
    gap = segment(path, with_gap(tile, "red", np.s_[:, 80:])).probabilities.values
    assert np.allclose(gap[:, :26], whole[:, :26], atol=1e-6)
    assert np.isnan(gap[:, 80:]).all()
    assert not np.isnan(gap[:, :80]).any()


@pytest.fixture
def inputs_of_the_network():
    """Count what reaches any smp network: a list that fills with the shapes of its inputs."""
    import torch
    from segmentation_models_pytorch.base import SegmentationModel

    shapes = []

    def note(module, arguments):
        if isinstance(module, SegmentationModel):
            shapes.append(tuple(arguments[0].shape))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(note)
    yield shapes
    handle.remove()


def test_patches_without_any_valid_pixel_never_reach_the_network(save_model, on_grid, inputs_of_the_network):
    path = save_model(bands=("red",), probability=0.7)
    red = np.full((64, 160), 0.2, "float32")
    patches = lambda: sum(shape[0] for shape in inputs_of_the_network)  # noqa: E731

    segment(path, on_grid(red=red), overlap=16)  # patches start at 0, 48, 96
    assert patches() == 3
    inputs_of_the_network.clear()
    red[:, :113] = np.nan
    result = segment(path, on_grid(red=red), overlap=16).probabilities.values
    assert patches() == 1
    assert np.isnan(result[:, :113]).all()
    assert np.allclose(result[:, 113:], 0.7, atol=1e-5)
    inputs_of_the_network.clear()
    red[:] = np.nan
    assert np.isnan(segment(path, on_grid(red=red)).probabilities.values).all()
    assert patches() == 0


def test_a_tile_smaller_than_a_patch_is_padded_to_the_stride_only(save_model, on_grid, inputs_of_the_network):
    tile = on_grid(red=np.full((37, 53), 0.2, "float32"))
    result = segment(save_model(bands=("red",), probability=0.7), tile, patch_size=1024, overlap=256)
    ((_, _, height, width),) = inputs_of_the_network
    assert (height, width) == (40, 56), "a network of depth 3 has a stride of 8"
    assert np.allclose(result.probabilities.values, 0.7, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (37, 53), (64, 64), (63, 65)])
def test_tiles_of_any_size_have_an_answer(save_model, on_grid, shape):
    tile = on_grid(red=np.full(shape, 0.2, "float32"))
    result = segment(save_model(bands=("red",), probability=0.3), tile).probabilities
    assert result.shape == shape
    assert np.allclose(result.values, 0.3, atol=1e-5)


def test_the_batch_size_changes_nothing(save_model, tile):
    path = save_model()
    one, four, many = (segment(path, tile, batch_size=size).probabilities.values for size in (1, 4, 100))
    assert np.abs(one - four).max() < 1e-4
    assert np.abs(one - many).max() < 1e-4
    assert np.ptp(one) > 1e-3, "random weights answer differently from place to place"


def test_a_range_in_the_checkpoint_replaces_the_one_of_the_table(save_model, on_grid):
    # 0.2 of -0.1 … 0.5 and 0.5 of 0 … 1 are the same to the model.
    plain = segment(save_model(bands=("red",)), on_grid(red=np.full((16, 16), 0.2, "float32")))
    other = segment(
        save_model(bands=("red",), normalization={"red": [0, 1]}), on_grid(red=np.full((16, 16), 0.5, "float32"))
    )
    assert np.allclose(plain.probabilities, other.probabilities, atol=1e-6)


class Answer:
    """A model that gives what it is told: all an ensemble asks of one."""

    def __init__(self, probabilities, *bands):
        self.probabilities = np.float32(probabilities)
        self.required_bands = bands

    def segment_tile(self, tile, patch_size=1024, overlap=256, batch_size=8, reflection=0):
        return tile.assign(probabilities=(("y", "x"), self.probabilities.copy()))


NAN = np.nan
FIRST = [[0.2, 0.2, NAN, NAN, 1.0]]
SECOND = [[0.6, NAN, 0.9, NAN, 0.0]]


@pytest.fixture
def five(on_grid):
    return on_grid(red=np.float32([[0.1, 0.2, 0.3, 0.4, 0.5]]))


@pytest.fixture
def ensemble():
    return EnsembleV1({"first": Answer(FIRST, "red", "ndvi"), "second": Answer(SECOND, "red", "slope")}, device="cpu")


def test_the_ensemble_is_the_mean_over_the_models_valid_at_the_pixel(ensemble, five):
    before = five.copy(deep=True)
    result = ensemble.segment_tile(five)
    assert result.probabilities.dtype == np.float32
    assert np.allclose(result.probabilities, [[0.4, 0.2, 0.9, NAN, 0.5]], atol=1e-6, equal_nan=True)
    assert "probabilities-first" not in result
    assert five.identical(before)


def test_two_models_or_more_tell_their_spread(ensemble, five):
    spread = ensemble.segment_tile(five).probability_std
    assert spread.dtype == np.float32
    assert np.allclose(spread.values[0, [0, 4]], [0.2, 0.5], atol=1e-6)
    assert np.isnan(spread.values[0, 3])
    alone = EnsembleV1({"first": Answer(FIRST, "red")}, device="cpu").segment_tile(five)
    assert "probability_std" not in alone
    assert np.allclose(alone.probabilities, FIRST, equal_nan=True)


def test_three_models_by_hand(five):
    third = Answer([[0.1, 0.5, 0.3, 0.7, 0.5]])
    models = {"a": Answer(FIRST), "b": Answer(SECOND), "c": third}
    result = EnsembleV1(models, device="cpu").segment_tile(five)
    assert np.allclose(result.probabilities, [[0.3, 0.35, 0.6, 0.7, 0.5]], atol=1e-6)
    # Deviations of the first pixel: -0.1, 0.3, -0.2; sqrt(0.14 / 3). Of the last: 0.5, -0.5, 0; sqrt(0.5 / 3).
    assert np.allclose(result.probability_std.values[0, [0, 4]], [0.216025, 0.408248], atol=1e-5)


def test_on_demand_the_models_are_kept(ensemble, five):
    result = ensemble.segment_tile(five, keep_inputs=True)
    assert np.allclose(result["probabilities-first"], FIRST, equal_nan=True)
    assert np.allclose(result["probabilities-second"], SECOND, equal_nan=True)


def test_an_ensemble_needs_what_any_of_its_models_needs(ensemble):
    assert set(ensemble.required_bands) == {"red", "ndvi", "slope"}
    assert tuple(ensemble.model_names) == ("first", "second")


def test_an_ensemble_of_checkpoints_is_the_mean_of_their_answers(save_model, tile):
    paths = {"low": save_model(probability=0.3), "high": save_model(bands=("red",), probability=0.7)}
    result = EnsembleV1(paths, device="cpu").segment_tile(with_gap(tile, "slope", np.s_[:, :10]), 64, 16)
    assert np.allclose(result.probabilities.values[:, 10:], 0.5, atol=1e-5)
    assert np.allclose(result.probabilities.values[:, :10], 0.7, atol=1e-5)
    assert np.allclose(result.probability_std.values[:, 10:], 0.2, atol=1e-5)


def test_several_tiles_are_segmented_as_each_alone(save_model, tile, five):
    ensemble = EnsembleV1({"a": save_model(bands=("red",)), "b": save_model(bands=("red",), probability=0.7)}, "cpu")
    tiles = [tile, five]
    together = ensemble.segment_tile_batched(tiles, 64, 16)
    for result, one in zip(together, tiles, strict=True):
        alone = ensemble.segment_tile(one, 64, 16)
        assert np.allclose(result.probabilities, alone.probabilities, atol=1e-4)
        assert result.odc.geobox == one.odc.geobox


def test_terrain_of_two_conventions_cannot_be_mixed(save_model):
    paths = {"true": save_model(), "legacy": save_model(terrain_convention="legacy")}
    with pytest.raises(ValueError, match="convention"):
        EnsembleV1(paths, device="cpu")
