import gc
import itertools
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from darts_segmentation import SMPSegmenter
from darts_segmentation.network import Network
from darts_segmentation.patches import PatchOptions
from darts_utils.bands import normalize
from darts_utils.errors import ConfigError, DeviceError, MissingBandError

from .patchwise import predict_in_patches

REACH_PX = 16
"""The tiny U-Net sees 14 pixels far (measured by perturbing one); rounded up to its stride of 4."""

MakeTile = Callable[..., xr.Dataset]
WriteTiny = Callable[..., Path]


def test_probabilities_are_added_and_the_input_is_never_changed(tiny: SMPSegmenter, make_tile: MakeTile) -> None:
    tile = make_tile(40, 56)
    tile.red[3, 4] = np.nan
    before = tile.copy(deep=True)
    result = tiny.segment_tile(tile)
    xr.testing.assert_identical(tile, before)
    xr.testing.assert_identical(result.drop_vars("probabilities"), before)
    assert list(result.data_vars) == ["red", "nir", "slope", "quality_data_mask", "probabilities"]
    probabilities = result.probabilities
    assert probabilities.dtype == np.float32
    assert probabilities.dims == ("y", "x")
    assert float(probabilities.min()) >= 0
    assert float(probabilities.max()) <= 1
    assert float(probabilities.std()) > 1e-3  # the network does answer
    assert probabilities.attrs == {
        "long_name": "Probability of thaw features", "units": "1", "data_source": "model tiny",
    }  # fmt: skip
    assert result.attrs == tile.attrs
    assert result.odc.geobox == tile.odc.geobox == probabilities.odc.geobox


def test_one_patch_equals_the_bare_network(tiny: SMPSegmenter, make_tile: MakeTile) -> None:
    tile = make_tile(64, 48)
    stack = np.stack([normalize(tile[name].data, name) for name in ("red", "nir", "slope")])
    with torch.inference_mode():
        wanted = torch.sigmoid(tiny._network.module(torch.from_numpy(stack)[None]))[0, 0].numpy()
    np.testing.assert_allclose(tiny.segment_tile(tile).probabilities, wanted, atol=1e-6)


def test_a_unet_in_patches_equals_the_whole_tile_where_it_sees_no_patch_edge(
    tiny: SMPSegmenter, make_tile: MakeTile
) -> None:
    tile = make_tile(224, 320)
    whole = tiny.segment_tile(tile).probabilities.data
    # Steps of 96 keep the patches on the network's stride.
    patched = tiny.segment_tile(tile, patch_size=128, overlap=32).probabilities.data
    clear = np.ones((224, 320), bool)
    for axis, size in enumerate((224, 320)):
        for start in range(0, size - 128 + 1, 96):
            near = [line for edge in (start, start + 128) if 0 < edge < size
                    for line in range(edge - REACH_PX, edge + REACH_PX)]  # fmt: skip
            clear[tuple(near if a == axis else slice(None) for a in (0, 1))] = False
    assert clear.mean() > 0.25
    np.testing.assert_allclose(patched[clear], whole[clear], atol=1e-5)
    assert np.abs(patched - whole).max() > 1e-4  # elsewhere it does see the edge


def test_a_model_of_one_pixel_reach_equals_its_formula(make_tile: MakeTile) -> None:
    tile = make_tile(61, 83, seed=3)
    tile.nir[10:20, 5:60] = np.nan
    convolution = torch.nn.Conv2d(2, 1, 1)
    bands = {name: tile[name].data for name in ("red", "nir")}
    valid = np.isfinite(bands["red"]) & np.isfinite(bands["nir"])
    for patch_size, overlap, reflection in ((16, 5, 0), (33, 20, 7), (1024, 256, 90)):
        options = PatchOptions(patch_size=patch_size, overlap=overlap, reflection=reflection)
        predictor = Network(convolution, "cpu").predictor()
        found = predict_in_patches(bands, valid, predictor, options, stride=32)[0]
        weights = convolution.weight.detach().double().numpy().ravel()
        inputs = [(np.clip(bands[name].astype(float), -0.1, 0.5) + 0.1) / 0.6 for name in ("red", "nir")]
        logits = weights[0] * inputs[0] + weights[1] * inputs[1] + convolution.bias.item()
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (37, 53), (4, 4), (65, 3)])
def test_tiles_of_any_size_work(tiny: SMPSegmenter, make_tile: MakeTile, shape: tuple[int, int]) -> None:
    for options in ({}, {"patch_size": 32, "overlap": 31}, {"patch_size": 30, "overlap": 7, "reflection": 70}):
        probabilities = tiny.segment_tile(make_tile(*shape), **options).probabilities
        assert probabilities.shape == shape
        assert bool(np.isfinite(probabilities).all())


def test_a_tile_of_one_patch_takes_one_network_call_of_its_own_size(
    tiny: SMPSegmenter, make_tile: MakeTile, calls: list[tuple[int, ...]]
) -> None:
    tiny.segment_tile(make_tile(1024, 1024))
    tiny.segment_tile(make_tile(37, 53))
    assert calls == [(1, 3, 1024, 1024), (1, 3, 40, 56)]


def test_a_cpu_takes_a_batch_in_parts_of_bounded_size(
    tiny: SMPSegmenter, make_tile: MakeTile, calls: list[tuple[int, ...]]
) -> None:
    tiny.segment_tile(make_tile(100, 1100), patch_size=96, overlap=0, batch_size=1000)
    tiny.segment_tile(make_tile(1024, 1030), batch_size=8)
    assert sum(shape[0] for shape in calls) == 24 + 2
    assert max(shape[0] * shape[2] * shape[3] for shape in calls) <= 1024 * 1024


def test_tensors_alive_while_a_network_computes_are_those_of_a_few_batches(
    tiny: SMPSegmenter, make_tile: MakeTile
) -> None:
    """The planes are numpy's (see test_patches); no tensor of all patches is held beside them."""
    tile = make_tile(400, 400)
    elsewhere = tensors_alive()  # of the network and of other tests; held, so that no memory of theirs is used again
    known = {id(held) for held in elsewhere}
    calls, alive = itertools.count(1), []

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if next(calls) not in (1, 36, 72):
            return
        tensors = [held for held in tensors_alive() if id(held) not in known]
        alive.append(sum({held.data_ptr(): held.untyped_storage().nbytes() for held in tensors}.values()))

    hook = tiny._network.module.register_forward_pre_hook(count)
    try:
        tiny.segment_tile(tile, patch_size=64, overlap=32, batch_size=2)
    finally:
        hook.remove()  # other tests have the same network
    batch = 2 * 3 * 64 * 64 * 4
    assert len(alive) == 3  # of 12 × 12 / 2 calls
    assert batch <= max(alive) <= 4 * batch


def test_a_tile_without_a_valid_pixel_never_reaches_the_network(
    tiny: SMPSegmenter, make_tile: MakeTile, calls: list[tuple[int, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    tile = make_tile(140, 140)
    tile.slope[:] = np.nan
    with caplog.at_level(logging.INFO, "darts.segmentation"):
        result = tiny.segment_tile(tile, patch_size=64, overlap=26)
    assert calls == []
    assert bool(np.isnan(result.probabilities).all())
    assert "T08WNB: 9 of 9 patches (100 %)" in caplog.text


def test_only_patches_that_touch_valid_pixels_are_computed(
    tiny: SMPSegmenter, make_tile: MakeTile, calls: list[tuple[int, ...]]
) -> None:
    tile = make_tile(128, 128)
    tile.red[:, 64:] = np.nan
    tile.red[127, 127] = 0.2
    result = tiny.segment_tile(tile, patch_size=32, overlap=0, batch_size=3)
    assert sum(shape[0] for shape in calls) == 9
    np.testing.assert_array_equal(np.isnan(result.probabilities), np.isnan(tile.red))


def test_a_pixel_is_valid_where_every_band_of_the_model_is_finite(tiny: SMPSegmenter, make_tile: MakeTile) -> None:
    tile = make_tile(30, 30)
    tile.red[1, 1] = np.nan
    tile.nir[2, 2] = np.inf
    tile.slope[3, 3] = -np.inf
    tile["tc_wetness"] = tile.red * np.nan  # no business of this model
    tile.quality_data_mask[:] = 0  # quality plays no part before postprocessing
    invalid = np.argwhere(np.isnan(tiny.segment_tile(tile).probabilities.data))
    np.testing.assert_array_equal(invalid, [[1, 1], [2, 2], [3, 3]])


def test_a_gap_changes_no_pixel_beyond_the_reach_of_the_network(tiny: SMPSegmenter, make_tile: MakeTile) -> None:
    for batch_size in (1, 4, 9):
        options = {"patch_size": 64, "overlap": 16, "batch_size": batch_size}
        tile = make_tile(120, 120)
        whole = tiny.segment_tile(tile, **options).probabilities.data
        tile.nir[50, 60] = np.nan
        holed = tiny.segment_tile(tile, **options).probabilities.data
        assert np.isnan(holed[50, 60])
        assert np.isnan(holed).sum() == 1
        rows, columns = np.nonzero(np.abs(np.nan_to_num(holed) - whole) > 1e-6)
        assert np.abs(rows - 50).max() <= REACH_PX
        assert np.abs(columns - 60).max() <= REACH_PX


def test_aspect_of_flat_ground_is_no_gap_for_slope_decides(
    write_tiny: WriteTiny, make_tile: MakeTile, tmp_path: Path
) -> None:
    segmenter = SMPSegmenter(write_tiny(tmp_path / "facing.pt", bands=("red", "aspect")), "cpu")
    assert segmenter.required_bands == ("red", "aspect", "slope")
    tile = make_tile(20, 20)
    tile["aspect"] = tile.slope * 4
    tile.aspect[5:9, 5:9] = np.nan
    tile.slope[0, 0] = np.nan
    np.testing.assert_array_equal(np.isnan(segmenter.segment_tile(tile).probabilities), np.isnan(tile.slope))
    with pytest.raises(MissingBandError, match="slope"):
        segmenter.segment_tile(tile.drop_vars("slope"))


def test_bands_of_whole_numbers_are_always_valid(write_tiny: WriteTiny, make_tile: MakeTile, tmp_path: Path) -> None:
    segmenter = SMPSegmenter(write_tiny(tmp_path / "classes.pt", bands=("red", "s2_scl")), "cpu")
    tile = make_tile(20, 20)
    tile["s2_scl"] = (("y", "x"), np.zeros((20, 20), np.uint8))
    assert bool(np.isfinite(segmenter.segment_tile(tile).probabilities).all())


def test_the_range_in_the_checkpoint_replaces_the_band_table(
    write_tiny: WriteTiny, make_tile: MakeTile, tmp_path: Path
) -> None:
    plain = SMPSegmenter(write_tiny(tmp_path / "plain.pt"), "cpu")
    scaled = SMPSegmenter(write_tiny(tmp_path / "scaled.pt", normalization={"slope": (0, 45)}), "cpu")
    tile = make_tile(32, 32)
    tile["slope"] /= 2
    doubled = tile.assign(slope=tile.slope * 2)
    found = scaled.segment_tile(tile).probabilities
    np.testing.assert_allclose(found, plain.segment_tile(doubled).probabilities, atol=1e-5)
    assert float(np.abs(found - plain.segment_tile(tile).probabilities).max()) > 1e-3


def test_batch_size_and_order_of_patches_do_not_matter(tiny: SMPSegmenter, make_tile: MakeTile) -> None:
    tile = make_tile(150, 130)
    options = {"patch_size": 48, "overlap": 20}
    wanted = tiny.segment_tile(tile, batch_size=1, **options).probabilities.data
    for batch_size in (2, 3, 7, 100):
        found = tiny.segment_tile(tile, batch_size=batch_size, **options).probabilities.data
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    # Mirrored data is asked in another order; only the network itself may not be mirrored, so it is one of no reach.
    convolution = Network(torch.nn.Conv2d(1, 1, 1), "cpu")
    red = tile.red.data
    both = [
        predict_in_patches({"red": image}, np.isfinite(image), convolution.predictor(), PatchOptions(**options))[0]
        for image in (red, np.ascontiguousarray(red[::-1, ::-1]))
    ]
    np.testing.assert_allclose(both[0], both[1][::-1, ::-1], rtol=0, atol=1e-6)


def test_tiles_that_are_transposed_or_lazy_give_the_same(tiny: SMPSegmenter, make_tile: MakeTile) -> None:
    tile = make_tile(40, 64)
    wanted = tiny.segment_tile(tile).probabilities
    turned = tiny.segment_tile(tile.transpose("x", "y")).probabilities
    xr.testing.assert_equal(turned.transpose("y", "x"), wanted)
    dask = pytest.importorskip("dask")
    assert dask
    xr.testing.assert_equal(tiny.segment_tile(tile.chunk(y=16)).probabilities, wanted)


def test_a_list_of_tiles_gives_the_same_numbers_as_one_by_one(tiny: SMPSegmenter, make_tile: MakeTile) -> None:
    tiles = [make_tile(40, 64, seed=1), make_tile(33, 20, seed=2)]
    results = tiny.segment_tile_batched(tiles, patch_size=32, overlap=8)
    for tile, result in zip(tiles, results, strict=True):
        xr.testing.assert_allclose(result, tiny.segment_tile(tile, patch_size=32, overlap=8), atol=1e-6)
    assert tiny.segment_tile_batched([]) == []


def test_options_and_tiles_that_cannot_work_are_refused(tiny: SMPSegmenter, make_tile: MakeTile) -> None:
    tile = make_tile(8, 8)
    with pytest.raises(ConfigError, match="overlap must be smaller"):
        tiny.segment_tile(tile, patch_size=128, overlap=128)
    with pytest.raises(MissingBandError, match=r"T08WNB lacks nir.*model 'tiny'"):
        tiny.segment_tile(tile.drop_vars("nir"))
    with pytest.raises(ConfigError, match=r"dimensions \(y, x\)"):
        tiny.segment_tile(tile.rename(y="lat"))
    with pytest.raises(ConfigError, match=r"dimensions \(y, x\)"):
        tiny.segment_tile(tile.expand_dims(time=1))
    with pytest.raises(ConfigError, match="at least one pixel"):
        tiny.segment_tile(tile.isel(x=slice(0)))
    for segment in (tiny.segment_tile, tiny.segment_tile_batched):
        with pytest.raises(ConfigError, match=r"model 'tiny' takes a tile.*segment_tile_batched"):
            segment([[tile]])


def test_a_segmenter_pickles_by_path(tiny: SMPSegmenter, make_tile: MakeTile) -> None:
    stored = pickle.dumps(tiny)
    assert len(stored) < 1000
    again = pickle.loads(stored)
    tile = make_tile(20, 20)
    xr.testing.assert_identical(again.segment_tile(tile), tiny.segment_tile(tile))


def test_a_segmenter_tells_what_it_is(tiny: SMPSegmenter) -> None:
    assert tiny.name == "tiny"
    assert tiny.device == "cpu"
    assert (tiny.precision, tiny.runtime) == ("fp32", "torch")
    assert tiny.required_bands == ("red", "nir", "slope")
    assert tiny.terrain_convention == "true-north"
    assert len(tiny.checkpoint.checksum) == 64
    assert not tiny.checkpoint.state_dict  # the weights are held once, by the network


class Greedy(torch.nn.Module):
    """A network that needs more memory than there is for more than `limit` patches."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.sizes: list[int] = []

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(patches))
        if len(patches) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.logit(patches[:, :1])


def test_a_batch_that_does_not_fit_is_halved_and_the_result_is_whole(caplog: pytest.LogCaptureFixture) -> None:
    image = np.random.default_rng(0).uniform(0.01, 0.99, (64, 64)).astype(np.float32)
    greedy = Greedy(2)
    options = PatchOptions(patch_size=16, overlap=0, batch_size=8)
    predictor = Network(greedy, "cpu").predictor()
    found = predict_in_patches({"hillshade": image}, np.ones((64, 64), bool), predictor, options)[0]
    np.testing.assert_allclose(found, image, atol=1e-6)
    assert greedy.sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]  # what did not fit once is not tried again
    assert "going on with 2" in caplog.text


def test_a_single_patch_that_does_not_fit_is_one_clear_error() -> None:
    predictor = Network(Greedy(0), "cpu").predictor()
    image = np.ones((8, 8), np.float32)
    with pytest.raises(DeviceError, match="smaller patch_size"):
        predict_in_patches({"hillshade": image}, image > 0, predictor, PatchOptions())


def test_pan_which_pools_more_gets_inputs_it_can_take() -> None:
    import segmentation_models_pytorch as smp

    pan = smp.create_model("pan", "tu-test_resnet", encoder_weights=None, in_channels=1)
    network = Network(pan, "cpu")
    image = np.random.default_rng(0).random((9, 70), np.float32)
    found = predict_in_patches(
        {"hillshade": image},
        image >= 0,
        network.predictor(),
        PatchOptions(),
        stride=network.stride,
        least=network.least,
    )[0]
    assert found.shape == (9, 70)
    assert np.isfinite(found).all()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", None])
def test_a_gpu_takes_batches_ahead_and_answers_in_order(precision: str | None) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    network = Network(torch.nn.Conv2d(3, 1, 3, padding=1), "cuda", precision)
    assert network.precision == (precision or "bf16")
    predictor = network.predictor([(-1.0, 2.0)] * 3)
    batches = np.random.default_rng(0).uniform(-2, 3, (6, 4, 96, 64, 3)).astype(np.float32)
    buffers = [predictor.empty(batches[0].shape) for _ in range(predictor.buffers)]
    assert all(torch.from_numpy(buffer).is_pinned() for buffer in buffers)
    waiting: list[Any] = []
    answers = []
    for number, batch in enumerate(batches):
        if len(waiting) == len(buffers):
            answers.append(waiting.pop(0)().copy())
        buffers[number % 2][:] = batch
        waiting.append(predictor.start(buffers[number % 2]))
    answers += [wait().copy() for wait in waiting]
    alone = network.predictor()
    for batch, answer in zip(batches, answers, strict=True):
        wanted = alone(np.clip((batch + 1) / 3, 0, 1).astype(np.float32))
        np.testing.assert_allclose(answer, wanted, atol=1e-5 if precision else 2e-2)


@pytest.mark.gpu
def test_a_gpu_gives_the_probabilities_of_the_cpu_where_the_tile_lives(
    write_tiny: WriteTiny, make_tile: MakeTile, tmp_path: Path
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    path = write_tiny(tmp_path / "tiny.pt")
    tile = make_tile(150, 130)
    options: dict[str, Any] = {"patch_size": 64, "overlap": 16, "batch_size": 4}
    wanted = SMPSegmenter(path, "cpu").segment_tile(tile, **options).probabilities.data
    on_gpu = SMPSegmenter(path, "cuda", precision="fp32")
    assert isinstance(on_gpu.segment_tile(tile, **options).probabilities.data, np.ndarray)
    np.testing.assert_allclose(on_gpu.segment_tile(tile, **options).probabilities.data, wanted, atol=1e-4)
    cupy = pytest.importorskip("cupy")
    from darts_utils.arrays import to_device

    resident = on_gpu.segment_tile(to_device(tile, "cuda:0"), **options).probabilities.data
    assert isinstance(resident, cupy.ndarray)
    np.testing.assert_allclose(resident.get(), wanted, atol=1e-4)


def tensors_alive() -> list[torch.Tensor]:
    return [held for held in gc.get_objects() if issubclass(type(held), torch.Tensor)]
