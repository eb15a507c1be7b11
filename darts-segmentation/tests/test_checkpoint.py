"""Checkpoints: what is saved is loaded, older forms are read, and a network gets what its file holds."""

import io
import logging
import socket
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

from darts_segmentation import SMPSegmenter, build_model, load_checkpoint, save_checkpoint
from darts_utils.bands import BANDS
from darts_utils.errors import CheckpointError, ConfigError

from .checkpoint_forms import BANDS_OF_MODEL, MODEL, raw, weights, written

__all__ = ["raw", "weights"]


def test_the_documented_form_is_read_in_full(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["config"] |= {"normalization": {"slope": [0, 45]}, "terrain_convention": "legacy", "name": "RTS v7"}
    raw["card"] = {"license": "CC-BY-4.0"}
    checkpoint = load_checkpoint(written(raw, tmp_path))
    assert checkpoint.bands == ("red", "slope")
    assert checkpoint.architecture == "unet"
    assert checkpoint.name == "model"
    assert checkpoint.patch_size == 1024
    assert checkpoint.terrain_convention == "legacy"
    assert checkpoint.limits("slope") == (0, 45)
    assert checkpoint.limits("red") == BANDS["red"].valid
    assert checkpoint.card == {"license": "CC-BY-4.0", "name": "RTS v7"}
    assert len(checkpoint.checksum) == 64


def test_a_network_gets_exactly_the_weights_of_the_file(raw: dict[str, Any], tmp_path: Path) -> None:
    network = build_model(load_checkpoint(written(raw, tmp_path)))
    assert not network.training
    assert all(torch.equal(value, raw["statedict"][name]) for name, value in network.state_dict().items())


def test_what_is_saved_is_loaded_and_the_same_content_gives_the_same_bytes(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "model": MODEL, "bands": BANDS_OF_MODEL, "state_dict": weights, "patch_size": 512,
        "normalization": {"red": (0, 0.4)}, "terrain_convention": "legacy",
        "card": {"scores": {"f1": 0.7}, "seeds": [1, 2], "trained_on": None},
    }  # fmt: skip
    saved = save_checkpoint(tmp_path / "a.pt", **options)
    save_checkpoint(tmp_path / "b.pt", **options)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded.checksum == saved.checksum
    for name in ("model", "bands", "patch_size", "normalization", "terrain_convention", "card"):
        assert getattr(loaded, name) == getattr(saved, name), name
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_saving_a_view_does_not_write_the_storage_behind_it(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    name = "segmentation_head.0.bias"
    views = weights | {name: torch.zeros(1_000_000)[: len(weights[name])]}
    save_checkpoint(tmp_path / "model.pt", model=MODEL, bands=BANDS_OF_MODEL, state_dict=views)
    assert (tmp_path / "model.pt").stat().st_size < 1_000_000


def test_a_failed_save_leaves_the_old_file(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"old")
    with pytest.raises(CheckpointError, match="scores"):
        save_checkpoint(path, model=MODEL, bands=BANDS_OF_MODEL, state_dict=weights, card={"scores": np.float64(0.7)})
    assert path.read_bytes() == b"old"


def test_key_bands_is_read_in_place_of_input_combination(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["config"]["bands"] = raw["config"].pop("input_combination")
    del raw["config"]["patch_size"], raw["config"]["model_framework"]
    checkpoint = load_checkpoint(written(raw, tmp_path))
    assert checkpoint.bands == ("red", "slope")
    assert checkpoint.patch_size == 1024


def test_the_lightning_layout_is_read(raw: dict[str, Any], tmp_path: Path) -> None:
    weights = OrderedDict((f"model.{name}", value) for name, value in raw["statedict"].items())
    weights["val_metrics.confusion"] = torch.zeros(2, 2)
    lightning = {
        "epoch": 3, "pytorch-lightning_version": "2.5", "hyper_parameters": {"config": raw["config"], "lr": 1e-3},
        "state_dict": weights,
    }  # fmt: skip
    checkpoint = load_checkpoint(written(lightning, tmp_path))
    assert checkpoint.state_dict.keys() == raw["statedict"].keys()


def test_norm_factors_are_dropped_with_one_warning(
    raw: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw["config"]["norm_factors"] = {"red": 1 / 3000}
    with caplog.at_level(logging.WARNING, "darts.segmentation"):
        checkpoint = load_checkpoint(written(raw, tmp_path))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "norm_factors" in caplog.text
    assert checkpoint.limits("red") == BANDS["red"].valid
    assert "norm_factors" not in checkpoint.card


def test_the_one_form_has_nothing_to_change(raw: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = load_checkpoint(written(raw, tmp_path))
    assert (checkpoint.layout, checkpoint.changes) == ("darts", ())


def test_an_older_file_tells_what_the_one_form_says_otherwise(raw: dict[str, Any], tmp_path: Path) -> None:
    config = raw["config"]
    config["bands"] = config.pop("input_combination")
    del config["patch_size"]
    config |= {"norm_factors": {"red": 1}, "name": "RTS v5", "trained": torch.zeros(1)}
    config["model"]["encoder_weights"] = "imagenet"
    checkpoint = load_checkpoint(written({"config": config, "state_dict": raw["statedict"], "epoch": 7}, tmp_path))
    assert checkpoint.layout == "older darts"
    for expected in ("'state_dict'", "'bands'", "1024", "'norm_factors'", "'imagenet'", "'name'", "'trained', 'epoch'"):
        assert sum(expected in change for change in checkpoint.changes) == 1, expected
    assert len(checkpoint.changes) == 7


def test_a_lightning_file_tells_what_the_one_form_leaves_out(raw: dict[str, Any], tmp_path: Path) -> None:
    weights = {f"model.{name}": value for name, value in raw["statedict"].items()} | {"loss.weight": torch.ones(1)}
    lightning = {"hyper_parameters": {"config": raw["config"], "lr": 1e-3}, "state_dict": weights, "epoch": 3}
    checkpoint = load_checkpoint(written(lightning, tmp_path))
    assert checkpoint.layout == "Lightning"
    told = "; ".join(checkpoint.changes)
    for expected in ("hyper_parameters", f"{len(raw['statedict'])} weights", "'loss.weight'", "'lr', 'epoch'"):
        assert expected in told


def test_what_was_saved_from_an_older_file_is_in_the_one_form(raw: dict[str, Any], tmp_path: Path) -> None:
    model = raw["config"]["model"] | {"encoder_weights": "imagenet"}
    saved = save_checkpoint(tmp_path / "a.pt", model=model, bands=BANDS_OF_MODEL, state_dict=raw["statedict"])
    assert (saved.layout, saved.changes) == ("darts", ())
    assert load_checkpoint(tmp_path / "a.pt").changes == ()


def test_bands_can_be_given_to_a_file_that_names_none_and_to_no_other(raw: dict[str, Any], tmp_path: Path) -> None:
    named = written(raw, tmp_path)
    assert load_checkpoint(named, bands=["red", "slope"]).bands == ("red", "slope")
    with pytest.raises(ConfigError, match=r"red, slope.*not those given \(slope, red\)"):
        load_checkpoint(named, bands=["slope", "red"])
    del raw["config"]["input_combination"]
    assert load_checkpoint(written(raw, tmp_path), bands=["slope", "red"]).bands == ("slope", "red")
    with pytest.raises(CheckpointError, match="nobody knows: 'blau' is"):
        load_checkpoint(named, bands=["blau", "red"])


def test_loading_asks_no_network_for_encoder_weights(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError(f"network access: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    raw["config"]["model"]["encoder_weights"] = "imagenet"
    assert SMPSegmenter(written(raw, tmp_path), "cpu").checkpoint.model["encoder_weights"] is None


def test_loading_leaves_the_random_numbers_of_the_caller_alone(raw: dict[str, Any], tmp_path: Path) -> None:
    path = written(raw, tmp_path)
    before = torch.get_rng_state()
    load_checkpoint(path)
    assert torch.equal(before, torch.get_rng_state())


def test_the_old_torch_format_without_an_archive_is_read_too(raw: dict[str, Any], tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save(raw, stream, _use_new_zipfile_serialization=False)
    (tmp_path / "old.pt").write_bytes(stream.getvalue())
    assert load_checkpoint(tmp_path / "old.pt").bands == ("red", "slope")


def test_equal_content_gives_equal_bytes_whatever_objects_it_is_made_of(tmp_path: Path) -> None:
    model = {"arch": "unet", "encoder_name": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8]}
    weights = smp.create_model(**model, encoder_weights=None, in_channels=2, classes=1).state_dict()

    def anew(text: str) -> str:
        return "".join(list(text))

    text = anew("twice")
    one = {"a": text, "b": text, "deep": {"c": [text, 1.5]}}
    other = {"a": anew(text), "b": anew(text), "deep": {"c": [anew(text), 1.5]}}
    files = [
        save_checkpoint(tmp_path / f"{name}.pt", model=model, bands=["red", "nir"], state_dict=weights, card=card)
        for name, card in (("one", one), ("other", other))
    ]
    assert files[0].checksum == files[1].checksum
    assert load_checkpoint(files[0].path).card == one
