"""Precisions and runtimes: which there are, what they compute, and what they do with batches."""

import logging
import os
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darts_segmentation import SMPSegmenter
from darts_segmentation.network import Network
from darts_segmentation.runtimes import chosen_precision, is_out_of_memory
from darts_utils.bands import normalize
from darts_utils.errors import CheckpointError, ConfigError

from .runtime_samples import MakeTile, WriteTiny, drawn, model, needs_openvino

__all__ = ["model"]


class Formula(torch.nn.Module):
    """A network whose logit is that of its first band."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return torch.logit(patches[:, :1])


# Choices


def test_unknown_choices_are_refused_with_those_there_are(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"precision must be one of fp32, bf16, fp16 or None, got 'int8'"):
        SMPSegmenter(model, "cpu", precision="int8")
    with pytest.raises(ConfigError, match=r"runtime must be one of torch, compile, openvino, got 'onnx'"):
        SMPSegmenter(model, "cpu", runtime="onnx")


@pytest.mark.parametrize("runtime", ["torch", "compile", "openvino"])
def test_fp16_is_refused_on_a_cpu_before_the_file_is_read(runtime: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'fp16' needs a GPU; choose 'fp32' or 'bf16'"):
        SMPSegmenter(tmp_path / "none.pt", "cpu", precision="fp16", runtime=runtime)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", 0])
def test_openvino_is_refused_with_a_gpu(device: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="on the CPU only"):
        SMPSegmenter(tmp_path / "none.pt", device, runtime="openvino")


def test_openvino_that_is_not_installed_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match="install the extra 'openvino'"):
        SMPSegmenter(model, "cpu", runtime="openvino")


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for torch.compile, which takes seconds to be imported alone."""
    monkeypatch.setattr(torch, "compile", lambda module, **options: lambda patches: module(patches))


def test_choices_survive_pickling(model: Path, quick_compiler: None) -> None:
    asked = SMPSegmenter(model, "cpu", precision="bf16", runtime="compile")
    again = pickle.loads(pickle.dumps(asked))
    assert (again.precision, again.runtime, again.device) == ("bf16", "compile", "cpu")


@pytest.mark.parametrize(("native", "said"), [(True, False), (False, True)])
def test_a_processor_without_bf16_is_said_to_be_slow(
    native: bool, said: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native}, raising=False)
    assert chosen_precision("bf16", torch.device("cpu")) == "bf16"
    assert ("will be slow" in caplog.text) == said
    caplog.clear()
    assert chosen_precision(None, torch.device("cpu")) == "fp32"
    assert not caplog.text


# What they compute


def test_bf16_changes_probabilities_a_little(model: Path, make_tile: MakeTile) -> None:
    tile = make_tile(96, 80)
    wanted = SMPSegmenter(model, "cpu").segment_tile(tile).probabilities
    found = SMPSegmenter(model, "cpu", precision="bf16").segment_tile(tile).probabilities
    assert found.dtype == np.float32
    assert 0 < float(np.abs(found - wanted).mean()) <= 0.005


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_batch_size_does_not_matter_in_fp32(runtime: str, model: Path, make_tile: MakeTile) -> None:
    if runtime == "openvino":
        needs_openvino()
    segmenter = SMPSegmenter(model, "cpu", precision="fp32", runtime=runtime)
    tile = make_tile(110, 90)
    one, many = (
        segmenter.segment_tile(tile, patch_size=32, overlap=8, batch_size=size).probabilities for size in (1, 7)
    )
    np.testing.assert_allclose(one, many, atol=1e-4)


def test_probabilities_are_calibrated_by_the_temperature_of_the_card(
    write_tiny: WriteTiny, model: Path, make_tile: MakeTile, tmp_path: Path
) -> None:
    tile = make_tile(24, 40)
    plain = SMPSegmenter(model, "cpu").segment_tile(tile).probabilities.astype(float)
    calibrated = SMPSegmenter(write_tiny(tmp_path / "warm.pt", card={"temperature": 2.5}), "cpu")
    wanted = 1 / (1 + np.exp(-np.log(plain / (1 - plain)) / 2.5))
    np.testing.assert_allclose(calibrated.segment_tile(tile).probabilities, wanted, atol=1e-5)
    image = drawn(1, 8, 9, 1)
    found = Network(Formula(), "cpu", temperature=0.5).predictor()(image)
    odds = (image[..., 0] / (1 - image[..., 0])).astype(float) ** 2
    np.testing.assert_allclose(found, odds / (1 + odds), atol=1e-5)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "2", True, None, [1.0]])
def test_a_temperature_that_is_no_positive_number_is_refused(
    temperature: Any, write_tiny: WriteTiny, tmp_path: Path
) -> None:
    path = write_tiny(tmp_path / "odd.pt", card={"temperature": temperature})
    with pytest.raises(CheckpointError, match=r"odd\.pt: temperature .* positive number"):
        SMPSegmenter(path, "cpu")


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_threads_may_share_a_network(runtime: str, model: Path, make_tile: MakeTile) -> None:
    if runtime == "openvino":
        needs_openvino()
    segmenter = SMPSegmenter(model, "cpu", runtime=runtime)
    tiles = [make_tile(40 + 9 * number, 60, seed=number) for number in range(4)]
    options: dict[str, Any] = {"patch_size": 32, "overlap": 8, "batch_size": 3}

    def segment(number: int) -> np.ndarray:
        return segmenter.segment_tile(tiles[number % 4], **options).probabilities.values

    wanted = [segment(number) for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        for number, found in enumerate(threads.map(segment, range(16))):
            np.testing.assert_array_equal(found, wanted[number % 4])


# Batches on their way


def test_a_batch_can_be_started_and_waited_for() -> None:
    predictor = Network(Formula(), "cpu").predictor()
    assert predictor.buffers == 1
    buffer = predictor.empty((3, 8, 8, 1))
    assert (buffer.dtype, buffer.shape) == (np.float32, (3, 8, 8, 1))
    buffer[:] = drawn(3, 8, 8, 1)
    wait = predictor.start(buffer)
    np.testing.assert_allclose(wait(), buffer[..., 0], atol=1e-6)
    assert predictor(buffer[:0]).shape == (0, 8, 8)


def test_patches_may_be_turned_views() -> None:
    image = drawn(2, 8, 12, 2)
    for turned in (image[:, ::-1], image[:, :, ::-1].transpose(0, 2, 1, 3), image[..., ::-1]):
        np.testing.assert_allclose(Network(Formula(), "cpu").predictor()(turned), turned[..., 0], atol=1e-6)


def test_patches_are_normalised_on_the_device_as_on_the_host() -> None:
    values = np.random.default_rng(0).uniform(-0.5, 1, (2, 8, 8, 2)).astype(np.float32)
    values[0, 0, :4, 0] = np.nan, np.inf, -np.inf, -0.1
    limits = [(-0.1, 0.5), (-0.25, 0.75)]
    seen: list[np.ndarray] = []

    class Watching(torch.nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            seen.append(patches.permute(0, 2, 3, 1).clone().numpy())
            return patches[:, :1]

    before = values.copy()
    Network(Watching(), "cpu").predictor(limits)(values)
    np.testing.assert_array_equal(values, before)
    wanted = np.stack([normalize(values[..., band], "red", limits[band]) for band in (0, 1)], axis=-1)
    np.testing.assert_array_equal(seen[0], wanted)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:224:\nstd::bad_alloc"),
    ],
)
def test_whatever_runs_out_of_memory_gets_fewer_patches(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_out_of_memory(error)
    network = Network(Formula(), "cpu")
    compute, sizes = network._compute, []

    def limited(patches: torch.Tensor) -> torch.Tensor:
        sizes.append(len(patches))
        if len(patches) > 2:
            raise error
        return compute(patches)

    monkeypatch.setattr(network, "_compute", limited)
    image = drawn(5, 8, 8, 1)
    np.testing.assert_allclose(network.predictor()(image), image[..., 0], atol=1e-6)
    assert sizes == [5, 2, 2, 1]


def test_other_errors_are_not_taken_for_full_memory(quick_compiler: None) -> None:
    class Broken(torch.nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    for runtime in ("torch", "compile"):
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            Network(Broken(), "cpu", runtime=runtime).predictor()(drawn(2, 8, 8, 1))


# torch.compile


def test_a_compiler_that_fails_costs_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(*arguments: Any, **options: Any) -> Any:
        def compiled(patches: torch.Tensor) -> torch.Tensor:
            raise LookupError("no C++ compiler\nlong story")

        return compiled

    def refusing(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    image = drawn(2, 8, 8, 1)
    for compiler in (no_compiler, refusing):
        monkeypatch.setattr(torch, "compile", compiler)
        caplog.clear()
        predictor = Network(Formula(), "cpu", runtime="compile").predictor()
        for _ in range(3):
            np.testing.assert_allclose(predictor(image), image[..., 0], atol=1e-6)
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert warnings == ["torch.compile failed (no C++ compiler); the network runs uncompiled"]


def test_a_smaller_batch_is_filled_up_and_compiled_no_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def compiled(module: Any, **options: Any) -> Any:
        def forward(patches: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(patches.shape))
            assert patches.is_contiguous(memory_format=torch.channels_last)
            if len(patches) > 6:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return module(patches)

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    network = Network(Formula(), "cpu", runtime="compile")
    assert network.most(16, 16) == 1  # what computes on a CPU gains nothing from batches
    predictor = network.predictor()
    for count, sides in (
        (4, (8, 16)),
        (1, (8, 16)),
        (2, (16, 8)),
        (3, (8, 16)),
        (5, (8, 16)),
        (8, (8, 16)),
        (2, (8, 16)),
    ):
        image = drawn(count, *sides, 3)
        found = predictor(image)
        assert found.shape == image.shape[:3]
        np.testing.assert_allclose(found, image[..., 0], atol=1e-6)
    assert [shape[0] for shape in seen] == [4, 4, 2, 4, 5, 8, 4, 4, 4]


def has_compiler() -> bool:
    return any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++")))


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_network_gives_the_same(
    precision: str, model: Path, make_tile: MakeTile, caplog: pytest.LogCaptureFixture
) -> None:
    tile = make_tile(64, 64)
    wanted = SMPSegmenter(model, "cpu").segment_tile(tile).probabilities
    compiled = SMPSegmenter(model, "cpu", precision=precision, runtime="compile")
    difference = np.abs(compiled.segment_tile(tile).probabilities - wanted)
    assert "uncompiled" not in caplog.text
    assert float(difference.mean()) <= (1e-4 if precision == "fp32" else 0.005)
