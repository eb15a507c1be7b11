"""Networks in training: the rate of each step, averages, what decays, and weights of encoders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

from darts_segmentation.training.losses import TotalLoss
from darts_segmentation.training.network_task import SegmentationTask, rate_at
from darts_segmentation.training.networks import load_encoder
from darts_utils.errors import CheckpointError


def test_the_learning_rate_rises_and_falls() -> None:
    cosine = [rate_at(step, 100, 10, "cosine") for step in range(100)]
    assert cosine[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert max(cosine) == cosine[10] == 1
    assert cosine[55] == pytest.approx(0.5)
    assert 0 < cosine[-1] < 0.001
    assert (np.diff(cosine[10:]) < 0).all()
    exponential = [rate_at(step, 100, 0, "exponential") for step in range(101)]
    assert exponential[50] == pytest.approx(0.1)
    assert exponential[100] == pytest.approx(0.01)
    assert {rate_at(step, 100, 10, "constant") for step in range(10, 100)} == {1.0}


def tiny_task(**options: Any) -> SegmentationTask:
    torch.manual_seed(0)
    network = smp.create_model("unet", "tu-test_resnet", encoder_depth=2, decoder_channels=[8, 4], encoder_weights=None)
    return SegmentationTask(network, TotalLoss({"bce": 1.0}), total_steps=10, **options)


def test_averages_follow_weights_and_statistics_of_normalisation() -> None:
    task = tiny_task(ema=0.9)
    expected = {name: value.clone().double() for name, value in task.averaged.state_dict().items()}
    for step in range(1, 31):
        with torch.no_grad():
            for value in task.network.state_dict().values():
                value += 1 if not value.is_floating_point() else torch.randn_like(value)
        task.on_train_batch_end(None, {}, 0)
        keep = min(0.9, step / (step + 9))
        for name, value in task.network.state_dict().items():
            mixed = keep * expected[name] + (1 - keep) * value.double()
            expected[name] = mixed if value.is_floating_point() else value.double()
    assert task.step == 30
    for name, value in task.averaged.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], atol=1e-4, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in task.averaged.parameters())


def test_biases_and_normalisation_do_not_decay() -> None:
    task = tiny_task(weight_decay=0.1)
    (decaying, kept) = task.configure_optimizers().param_groups
    assert (decaying["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in task.network.named_parameters()}
    assert all("conv" in names[id(each)] or names[id(each)].endswith("weight") for each in decaying["params"])
    assert all(names[id(each)].endswith("bias") or each.ndim == 1 for each in kept["params"])
    assert len(decaying["params"]) + len(kept["params"]) == len(names)


@pytest.mark.parametrize("form", ["plain", "classifier", "prefixed", "safetensors"])
def test_weights_of_an_encoder_of_photographs_are_fitted_to_bands(tmp_path: Path, form: str) -> None:
    torch.manual_seed(1)
    photographs = smp.create_model("unet", "resnet18", encoder_weights=None, in_channels=3).encoder
    weights = {name: value.clone() for name, value in photographs.state_dict().items()}
    file = tmp_path / ("encoder.safetensors" if form == "safetensors" else "encoder.pt")
    if form == "classifier":
        weights |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    if form == "prefixed":
        weights = {"state_dict": {f"encoder.{name}": value for name, value in weights.items()}}
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(weights, file)
    else:
        torch.save(weights, file)
    bands = ("nir", "blue", "red", "slope", "green")
    network = smp.create_model("unet", "resnet18", encoder_weights=None, in_channels=5)
    load_encoder(network, file, bands)
    given, loaded = photographs.state_dict(), network.encoder.state_dict()
    for name in given:
        if name != "conv1.weight":
            assert torch.equal(loaded[name], given[name]), name
    first = given["conv1.weight"] * 3 / 5
    for place, expected in enumerate([first.mean(1), first[:, 2], first[:, 0], first.mean(1), first[:, 1]]):
        torch.testing.assert_close(loaded["conv1.weight"][:, place], expected)


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    network = smp.create_model("unet", "resnet18", encoder_weights=None, in_channels=2)
    torch.save(smp.create_model("unet", "resnet34", encoder_weights=None).encoder.state_dict(), tmp_path / "34.pt")
    torch.save({"conv1.weight": torch.zeros(64, 2, 7, 7)}, tmp_path / "part.pt")
    torch.save(network, tmp_path / "code.pt")
    (tmp_path / "damaged.pt").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(CheckpointError, match="weights of the encoder are missing or of other shapes"):
        load_encoder(network, tmp_path / "part.pt", ("red", "nir"))
    for name in ("code.pt", "damaged.pt"):
        with pytest.raises(CheckpointError, match="no file of weights alone"):
            load_encoder(network, tmp_path / name, ("red", "nir"))
