"""Training: what is learned, what is written, what is refused."""

import dataclasses
import logging
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import xarray as xr

from darts_segmentation import SMPSegmenter, load_checkpoint, read_checkpoint, save_checkpoint
from darts_segmentation.training.fit_options import FitOptions, differences
from darts_segmentation.training.fitting import fit
from darts_segmentation.training.networks import design_network
from darts_segmentation.training.patch_dataset import PatchDataset
from darts_segmentation.training.predicting import predict_patches
from darts_segmentation.training.run_folder import to_toml
from darts_segmentation.training.scores.pixels import PixelCounts, count_pixels
from darts_utils.errors import ConfigError, MissingDataError

from .training_data import BANDS, options_for, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "the dataset")


@pytest.fixture(scope="module")
def options(dataset: Path) -> FitOptions:
    return options_for(
        dataset, epochs=5, steps_per_epoch=8, bands=["nir", "red", "slope", "aspect"],
        normalization={"slope": (0.0, 40.0)}, loggers=["csv", "tensorboard"], card={"licence": "CC0"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(options: FitOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Lightning's chatter is kept back, and there is nothing else to say
        for known in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("default", known)
        best = fit(options, tmp_path_factory.mktemp("runs") / "run")
    assert best == best.parent / "best.pt"
    return best.parent


def split(run: Path, name: str, dataset: Path) -> list[int]:
    import json

    samples = json.loads((run / "splits.json").read_text())[name]["samples"]
    metadata = PatchDataset.open(dataset).metadata
    return [int(number) for number in metadata.loc[metadata["sample_id"].isin(samples), "patch"]]


def test_the_network_learns_and_runs_on_tiles_unchanged(run: Path, dataset: Path) -> None:
    segmenter = SMPSegmenter(run / "best.pt", "cpu")
    assert segmenter.checkpoint.changes == ()
    assert read_checkpoint(run / "best.pt").card["scores"]["val_iou"] > 0.5
    x, y = PatchDataset.open(dataset).read(0, segmenter.required_bands)
    tile = xr.Dataset(
        {name: (("y", "x"), plane) for name, plane in zip(segmenter.required_bands, x, strict=True)}
    )  # fmt: skip
    found = segmenter.segment_tile(tile, 64, 0)["probabilities"].values
    assert np.isnan(found[:8, :8]).all()
    assert ((found > 0.5) == (y == 1))[8:].mean() > 0.9


def test_the_scores_of_the_card_are_those_of_inference(run: Path, dataset: Path) -> None:
    """What training counted on its way is counted anew, patch by patch, by the code that segments tiles."""
    card = read_checkpoint(run / "best.pt").card
    total = PixelCounts()
    histogram = None
    patches = PatchDataset.open(dataset)
    validation = split(run, "val", dataset)
    assert len(validation) == card["splits"]["val"]["patches"] > 0
    for _, probabilities, y in predict_patches(run / "best.pt", patches, validation, device="cpu"):
        known = y != 2
        found, truth = probabilities[known] > 0.5, y[known] == 1
        total += PixelCounts(
            int((found & truth).sum()), int((found & ~truth).sum()), int((~found & truth).sum()),
            int((~found & ~truth).sum()),
        )  # fmt: skip
        each = count_pixels(probabilities, y)
        histogram = each if histogram is None else histogram + each
    for name in ("iou", "f1", "precision", "recall"):
        assert card["scores"][f"val_{name}"] == pytest.approx(getattr(total, name), abs=2e-3), name
    assert histogram is not None
    assert card["scores"]["val_ap"] == pytest.approx(histogram.average_precision, abs=2e-3)


def test_patches_are_predicted_as_tiles_are_in_any_batches(run: Path, dataset: Path) -> None:
    patches, segmenter = PatchDataset.open(dataset), SMPSegmenter(run / "best.pt", "cpu")
    found = list(predict_patches(segmenter, patches, [5, 0, 7], batch_size=2))
    assert [number for number, _, _ in found] == [5, 0, 7]
    for number, probabilities, y in found:
        x, labels = patches.read(number, segmenter.required_bands)
        tile = xr.Dataset(
            {name: (("y", "x"), plane) for name, plane in zip(segmenter.required_bands, x, strict=True)}
        )  # fmt: skip
        expected = segmenter.segment_tile(tile, 64, 0, 1)["probabilities"].values
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
        assert np.array_equal(y, labels)
        assert probabilities.dtype == np.float32


def test_patches_of_another_convention_are_not_predicted(run: Path, tmp_path: Path) -> None:
    legacy = PatchDataset.open(write_dataset(tmp_path / "legacy", samples=1, terrain_convention="legacy"))
    with pytest.raises(ConfigError, match="terrain convention 'true-north', the patches are of 'legacy'"):
        next(predict_patches(run / "best.pt", legacy, [0], device="cpu"))


def test_the_best_checkpoint_is_that_of_the_best_epoch(run: Path) -> None:
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    column = rows[0].index("val_iou")
    ious = [float(row[column]) for row in rows[1:]]
    card = read_checkpoint(run / "best.pt").card
    assert len(ious) == 5
    assert card["epoch"] == 1 + int(np.argmax(ious))
    assert card["scores"]["val_iou"] == pytest.approx(max(ious), abs=1e-6)
    assert read_checkpoint(run / "last.pt").card["epoch"] == 5
    losses = [float(row[rows[0].index("train_loss")]) for row in rows[1:]]
    assert losses[-1] < losses[0]


def test_a_checkpoint_says_what_it_is_and_neither_where_nor_when(run: Path, options: FitOptions) -> None:
    checkpoint = load_checkpoint(run / "best.pt")
    assert checkpoint.bands == ("nir", "red", "slope", "aspect")
    assert checkpoint.normalization == {"slope": (0.0, 40.0)}
    assert checkpoint.patch_size == 32
    assert checkpoint.layout == "darts"
    card = checkpoint.card
    assert card["licence"] == "CC0"
    assert card["training_data"] == [{"name": "the dataset", "patches": 24, "sensor": ""}]
    assert card["splits"]["train"]["samples"] + card["splits"]["val"]["samples"] == 8
    assert set(card["splits"]["train"]["regions"]) <= {"region 0", "region 1", "region 2"}
    assert card["training"]["seed"] == options.seed
    assert card["training"]["losses"] == {"bce": 1.0, "dice": 1.0}
    assert {"torch", "lightning", "segmentation-models-pytorch"} < set(card["versions"])
    content = (run / "best.pt").read_bytes()
    assert str(run.parent).encode() not in content
    assert b"seconds" not in content


def test_the_options_are_written_down(run: Path, options: FitOptions) -> None:
    written = tomllib.loads((run / "fit.toml").read_text())
    resolved = written.pop("resolved")
    assert written == tomllib.loads(to_toml(options.as_table()))
    again = FitOptions(**{**written, "normalization": {"slope": (0.0, 40.0)}})
    assert again.as_table() == options.as_table()
    assert resolved["bands"] == ["nir", "red", "slope", "aspect"]
    assert resolved["steps_per_epoch"] == 8
    assert resolved["precision"] == "fp32"


def test_scores_reach_tensorboard(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {"train_loss", "val_iou", "learning_rate"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("val_iou")] == [8, 16, 24, 32, 40]


def test_a_missing_logger_is_named(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("darts_segmentation.training.trainers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="'wandb' is not installed"):
        fit(options_for(dataset, loggers=["wandb"]), tmp_path / "run")


def test_a_training_goes_on_from_a_checkpoint(run: Path, dataset: Path, tmp_path: Path) -> None:
    """With a learning rate of nearly 0 what comes out is what went in, and it scores alike."""
    given = options_for(
        dataset, start_from=run / "best.pt", epochs=1, steps_per_epoch=1, learning_rate=1e-12, weight_decay=0.0,
        ema=0.0, encoder="resnet18", model_arguments={},
    )  # fmt: skip
    tuned = load_checkpoint(fit(given, tmp_path / "run"))
    start = load_checkpoint(run / "best.pt")
    assert (tuned.bands, tuned.model, tuned.normalization) == (start.bands, start.model, start.normalization)
    assert tuned.card["started_from"] == {"name": "best", "sha256": start.checksum}
    for name, weight in start.state_dict.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(tuned.state_dict[name], weight, atol=1e-6, rtol=1e-5)
    with pytest.raises(ConfigError, match="architecture is that of the checkpoint"):
        options_for(dataset, start_from=run / "best.pt", architecture="fpn", encoder="resnet18", model_arguments={})
    other = write_dataset(tmp_path / "other", samples=1, bands=("red", "slope"))
    with pytest.raises(ConfigError, match="the datasets lack nir, aspect"):
        fit(dataclasses.replace(given, datasets=[other]), tmp_path / "third")


def test_steps_may_be_computed_in_bf16(dataset: Path, tmp_path: Path) -> None:
    best = load_checkpoint(fit(options_for(dataset, precision="bf16", epochs=1), tmp_path / "run"))
    assert {weight.dtype for weight in best.state_dict.values() if weight.is_floating_point()} == {torch.float32}
    with pytest.raises(ConfigError, match="'fp16' needs a GPU"):
        fit(options_for(dataset, precision="fp16"), tmp_path / "other")


def test_a_loss_that_is_no_number_ends_the_training(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the loss of epoch 1 is nan.*lower learning_rate"):
        fit(options_for(dataset, learning_rate=1e30, clip=0.0, schedule="constant", warmup=0.0), tmp_path / "run")
    assert not (tmp_path / "run" / "state.ckpt").exists()


def test_without_validation_the_last_epoch_is_the_best(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = options_for(dataset, epochs=2, steps_per_epoch=1)
    with caplog.at_level(logging.WARNING):
        best = fit(given, tmp_path / "run", splits={"train": range(6)})
    assert "no patches to validate on" in caplog.text
    card = read_checkpoint(best).card
    assert card["epoch"] == 2
    assert set(card["scores"]) == {"train_loss"}
    assert card["splits"] == {"train": {"patches": 6, "samples": 2, "regions": ["region 0", "region 1"]},
                              "val": {"patches": 0, "samples": 0, "regions": []}}  # fmt: skip
    with pytest.raises(ConfigError, match="patience needs a validation"):
        fit(dataclasses.replace(given, patience=1), tmp_path / "other", splits={"train": range(6)})


def test_splits_may_be_chosen_by_region(dataset: Path, tmp_path: Path) -> None:
    given = options_for(
        dataset, epochs=1, steps_per_epoch=1, split_by="region", split_named={"val": ["region 1"]},
        split_shares={"train": 1.0, "val": 0.0},
    )  # fmt: skip
    card = read_checkpoint(fit(given, tmp_path / "run")).card
    assert card["splits"]["val"]["regions"] == ["region 1"]
    assert card["splits"]["train"]["regions"] == ["region 0", "region 2"]


def test_patches_of_one_kind_only_are_told(dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(options_for(dataset, epochs=1, steps_per_epoch=1), tmp_path / "run", splits={"train": [0, 1, 3]})
    assert "all patches to train on are with slumps: positive_share is left out" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": 33}, "crop_size 33 is no multiple of the network's stride of 8 px"),
        ({"crop_size": 128}, "larger than the datasets' patches of 64 px"),
        ({"bands": ["red", "blue"]}, "bands: the datasets lack blue; all of them have red, nir"),
        ({"architecture": "unett"}, "architecture 'unett' is unknown; did you mean 'unet'"),
        ({"encoder": "resnet1"}, "encoder 'resnet1' cannot be built"),
        ({"model_arguments": {"depth": 1}}, "cannot be built"),
        (
            {"encoder": "resnet18", "model_arguments": {"decoder_chanels": [8, 8]}},
            "model_arguments: unet with encoder resnet18 takes no 'decoder_chanels'; did you mean 'decoder_channels'",
        ),
        ({"normalization": {"blue": (0, 1)}}, "'blue' is not among the bands"),
        ({"losses": {"cross": 1.0}}, "'cross' is unknown"),
        ({"binarization_threshold": 0.12345}, "threshold"),
        ({"card": {"made": Path()}}, "card must be of plain values"),
        ({"encoder_weights": Path("nowhere.pt")}, "nowhere.pt is not there; nothing is downloaded"),
        ({"datasets": [Path("nowhere")]}, "nowhere"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_folder_is_touched(
    dataset: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, MissingDataError), match=message):
        fit(options_for(dataset, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": []}, "at least one folder"),
        ({"epochs": 0}, "epochs must be a whole number from 1"),
        ({"loaders": 100_000}, "loaders must be a whole number from 0 to 256"),
        ({"epochs": 10**400}, "epochs must be a whole number from 1 to 1000000"),
        ({"batch_size": True}, "batch_size"),
        ({"steps_per_epoch": 0}, "steps_per_epoch"),
        ({"patience": 0}, "patience"),
        ({"seed": -1}, "seed"),
        ({"learning_rate": 0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"warmup": 1.5}, "warmup must be a number of at least 0 and at most 1"),
        ({"ema": 1.0}, "ema must be below 1"),
        ({"positive_share": 1.2}, "positive_share"),
        ({"schedule": "linear"}, "schedule must be one of cosine, exponential, constant"),
        ({"monitor": "iou"}, "monitor must be one of val_iou"),
        ({"precision": "int8"}, "precision must be one of fp32, bf16, fp16"),
        ({"loggers": ["mlflow"]}, "'mlflow' is unknown"),
        ({"augmentations": ["rotate"]}, "'rotate' is unknown"),
        ({"bands": ["red", "red"]}, "each once"),
        ({"bands": ["infrared"]}, "'infrared' is not in the band table"),
        ({"normalization": {"red": (1, 0)}}, "normalization of 'red'"),
        ({"model_arguments": {"in_channels": 3}}, "'in_channels' follows from other options"),
    ],
)
def test_options_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options_for(Path("data"), **changes)


@pytest.mark.parametrize(
    ("encoder", "told"),
    [
        ("resnet19", "did you mean resnet18, .* listed at https://smp"),
        ("tu-resnet19", "there is no such encoder. Those with tu- are listed at https://smp"),
        ("xyz", "there is no such encoder. They are listed at https://smp"),
    ],
)
def test_of_an_unknown_encoder_the_nearest_ones_are_told_in_three_lines(encoder: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refusal:
        design_network(options_for(Path("data"), encoder=encoder), BANDS, "true-north")
    assert len(str(refusal.value)) < 290


def test_names_of_arguments_and_bands_may_have_dashes_as_on_the_command_line() -> None:
    given = options_for(
        Path("data"), loss_arguments={"bce": {"positive-weight": 3.0}}, model_arguments={"encoder-depth": "3"},
        normalization={"relative-elevation": (-20.0, 20.0)},
    )  # fmt: skip
    assert given.loss_arguments == {"bce": {"positive_weight": 3.0}}
    assert given.model_arguments == {"encoder_depth": 3}
    assert given.normalization == {"relative_elevation": (-20.0, 20.0)}


def test_a_negative_share_means_as_the_patches_come() -> None:
    assert options_for(Path("data"), positive_share=-1).positive_share is None


def test_tables_read_back_as_they_were_written() -> None:
    table = {
        "text": 'a "quoted" \\ path\n\u007f ü', "whole": 3, "real": 1e-05, "flag": True, "list": [1.5, "x", []],
        "inner": {"two words": {"ü": 1.0}, "": "empty"},
    }  # fmt: skip
    assert tomllib.loads(to_toml(table)) == table


def test_differences_name_what_matters() -> None:
    before = {"epochs": 3, "loaders": 1, "seed": 1}
    assert differences(before, {"epochs": 3, "loaders": 2, "seed": 1}) == []
    assert differences(before, {"epochs": 4, "device": "cpu", "seed": 1}) == ["epochs was 3 and is 4"]
    assert differences(before, {"epochs": 3}) == ["seed was 1 and is 'not set'"]


def test_random_weights_come_from_the_seed_alone(dataset: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    networks = [design_network(options_for(dataset, seed=seed), BANDS, "true-north")[1] for seed in (1, 1, 2)]
    weights = [network.state_dict()["segmentation_head.0.weight"] for network in networks]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_start_of_another_convention_is_refused(dataset: Path, tmp_path: Path) -> None:
    model = {"arch": "unet", "encoder_name": "tu-test_resnet", "encoder_depth": 2, "decoder_channels": [8, 4],
             "in_channels": 1, "classes": 1}  # fmt: skip
    weights = smp.create_model(**model, encoder_weights=None).state_dict()
    file = tmp_path / "old.pt"
    save_checkpoint(file, model=model, bands=["red"], state_dict=weights, terrain_convention="legacy")
    given = options_for(dataset, start_from=file, encoder="resnet18", model_arguments={})
    with pytest.raises(ConfigError, match="of terrain convention 'legacy', the datasets are of 'true-north'"):
        fit(given, tmp_path / "run")
