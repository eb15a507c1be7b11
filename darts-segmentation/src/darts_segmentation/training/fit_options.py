"""Options of a training, checked; read without torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from darts_utils.bands import BANDS, not_in_the_table
from darts_utils.errors import ConfigError
from darts_utils.numbers import whole_number

Schedule = Literal["cosine", "exponential", "constant"]
Monitor = Literal["val_iou", "val_f1", "val_ap", "val_loss"]
Logger = Literal["csv", "tensorboard", "wandb"]
AugmentationName = Literal["turns", "gain", "haze", "noise", "blur", "dropout"]

MAY_CHANGE = ("device", "threads", "loaders", "loggers")
"""Options that a training may go on with otherwise: they do not change what is learned, but for its last digits."""

WHOLE_NUMBERS = {
    "epochs": (1, 10**6), "steps_per_epoch": (1, 10**6), "patience": (1, 10**6), "batch_size": (1, 1 << 16),
    "crop_size": (1, 1 << 16), "threads": (1, 1024), "loaders": (0, 256), "seed": (0, (1 << 32) - 1),
}  # fmt: skip
"""Least and most; far above those, libraries overflow, or start as many processes as they are told."""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How a network is trained."""

    datasets: list[Path]
    """Folders of patch datasets of the same patch size, pixel size and terrain convention."""
    start_from: Path | None = None
    """Checkpoint to go on from; its architecture, bands and normalisation are taken over."""
    architecture: str = "unet"
    """Architecture of segmentation_models_pytorch."""
    encoder: str = "resnet18"
    """Encoder of segmentation_models_pytorch, or of timm with tu- before its name."""
    encoder_weights: Path | None = None
    """File with the encoder's weights (.pt, .pth or .safetensors); default: random. Nothing is ever downloaded."""
    model_arguments: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the architecture, such as --model-arguments.encoder-depth 4 \
--model-arguments.decoder-channels [64,32,16,8]."""
    bands: list[str] | None = None
    """The network's inputs in order; default: all bands of the datasets."""
    normalization: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Range of a band that the network sees as 0 … 1, where it is not that of the band table, such as \
--normalization.slope 0 45."""
    losses: dict[str, float] = field(default_factory=lambda: {"bce": 1.0, "dice": 1.0})
    """Losses (bce, focal, dice, tversky, lovasz) and how much each counts, such as --losses.bce 1 --losses.dice 2."""
    loss_arguments: dict[str, dict[str, float]] = field(default_factory=dict)
    """What a loss is told besides, such as --loss-arguments.tversky.alpha 0.2 --loss-arguments.tversky.beta 0.8."""
    learning_rate: float = 1e-3
    """Highest learning rate of AdamW."""
    weight_decay: float = 1e-2
    """Weight decay of AdamW; biases and normalisation layers have none."""
    schedule: Schedule = "cosine"
    """How the learning rate falls after the warm-up: along a cosine to 0, exponentially to a hundredth, or not."""
    warmup: float = 0.05
    """Share of all steps in which the learning rate rises to its highest."""
    clip: float = 1.0
    """Largest norm of the gradient of a step; 0: any."""
    ema: float = 0.999
    """Share that the moving average of the weights keeps at each step, less at the start; it is the average that is \
validated and written. 0: the weights themselves."""
    epochs: int = 50
    """How many epochs at most."""
    steps_per_epoch: int | None = None
    """Steps between validations; default: as many as show each patch about once, at most 300."""
    batch_size: int = 8
    """Patches a step."""
    crop_size: int | None = None
    """Side of the squares cut from patches, in pixels, a multiple of the network's stride; default: whole patches."""
    positive_share: float | None = 0.5
    """Share of each batch's patches that show slumps; a negative number: as the patches come."""
    augmentations: list[AugmentationName] = field(default_factory=lambda: ["turns", "gain", "haze", "noise", "blur"])
    """Random changes: turns (directions are turned too), gain, haze, noise and blur (of optical bands), dropout."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Numbers that the network computes with; default: bf16 on a GPU that has it, else fp32."""
    monitor: Monitor = "val_iou"
    """Score of the validation that chooses the best epoch."""
    patience: int | None = None
    """Stop after this many epochs without a better score; default: never."""
    binarization_threshold: float = 0.5
    """A pixel with a probability above this is a slump where val_iou and val_f1 are counted; a multiple of 0.001."""
    split_by: Literal["region", "sample"] = "sample"
    """What is never divided among training, validation and test: regions, or samples whose footprints overlap."""
    split_shares: dict[str, float] = field(default_factory=lambda: {"train": 0.7, "val": 0.15, "test": 0.15})
    """Share of the patches in each split, such as --split-shares.train 0.8 --split-shares.val 0.2."""
    split_named: dict[str, list[str]] = field(default_factory=dict)
    """Regions or samples whose split is chosen by hand, such as --split-named.val "Banks Island"; the shares divide \
the others."""
    seed: int = 42
    """What all random numbers come from."""
    threads: int | None = None
    """Threads that compute on a CPU; default: torch's choice. Another number changes the last digits."""
    loaders: int = 1
    """Processes that make batches ahead of the network; 0: none."""
    device: Literal["cuda", "cpu", "auto"] | int | None = None
    """cuda, cpu, auto (a free GPU, else the CPU), or the number of a GPU; default: auto."""
    loggers: list[Logger] = field(default_factory=lambda: ["csv", "tensorboard"])
    """Where scores are written: csv, tensorboard, wandb (must be installed, and set up by its own means)."""
    card: dict[str, Any] = field(default_factory=dict)
    """What the checkpoints' card says besides, plain values, such as --card.licence CC-BY-4.0."""

    def __post_init__(self) -> None:
        for name in ("datasets", "start_from", "encoder_weights"):
            object.__setattr__(self, name, _as_paths(getattr(self, name)))
        # On the command line names have dashes, and values are text.
        arguments = {name: _from_text(value) for name, value in _underscored(self.model_arguments).items()}
        object.__setattr__(self, "model_arguments", arguments)
        object.__setattr__(self, "normalization", _underscored(self.normalization))
        told = {name: _underscored(arguments) for name, arguments in self.loss_arguments.items()}
        object.__setattr__(self, "loss_arguments", told)
        if not self.datasets:
            raise ConfigError("datasets: name at least one folder with a patch dataset")
        if self.positive_share is not None and self.positive_share < 0:
            object.__setattr__(self, "positive_share", None)
        self._check_numbers()
        self._check_choices()
        if self.start_from is not None:
            self._check_start()
        _check_bands(self.bands, self.normalization)
        # What torch is needed for is checked where the training is set up: losses, augmentations, precision, network.

    def _check_numbers(self) -> None:
        for name, limits in WHOLE_NUMBERS.items():
            if (value := getattr(self, name)) is not None or name in ("epochs", "batch_size", "loaders", "seed"):
                object.__setattr__(self, name, whole_number(name, value, *limits))  # the others may be left to darts
        for name in ("warmup", "binarization_threshold", "positive_share", "weight_decay", "clip"):
            value = getattr(self, name)
            if value is not None:
                _check_number(name, value, None if name == "clip" else 1)
        _check_number("learning_rate", self.learning_rate)
        if self.learning_rate == 0:
            raise ConfigError("learning_rate must be above 0")
        _check_number("ema", self.ema, 1)
        if self.ema == 1:
            raise ConfigError("ema must be below 1: an average that keeps all of itself learns nothing")

    def _check_choices(self) -> None:
        choices: dict[str, tuple[Any, ...]] = {
            "schedule": get_args(Schedule), "monitor": get_args(Monitor), "split_by": ("region", "sample"),
            "precision": ("fp32", "bf16", "fp16", None),
        }  # fmt: skip
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(filter(None, known))}, got {value!r}")
        for name, known in (("loggers", get_args(Logger)), ("augmentations", get_args(AugmentationName))):
            if unknown := [each for each in getattr(self, name) if each not in known]:
                raise ConfigError(f"{name}: {unknown[0]!r} is unknown; known: {', '.join(known)}")
        if taken := [name for name in ("in_channels", "classes", "encoder_weights") if name in self.model_arguments]:
            raise ConfigError(f"model_arguments: {taken[0]!r} follows from other options; leave it out")

    def _check_start(self) -> None:
        defaults = {each.name: each for each in fields(self)}
        for name in ("architecture", "encoder"):
            if getattr(self, name) != defaults[name].default:
                raise ConfigError(f"{name} is that of the checkpoint in start_from; leave it out")
        for name in ("encoder_weights", "model_arguments", "bands", "normalization"):
            if getattr(self, name):
                raise ConfigError(f"{name} is that of the checkpoint in start_from; leave it out")

    def as_table(self) -> dict[str, Any]:
        """Return the options as plain values, None left out; folders and files absolute."""
        table = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: _plain(value) for name, value in table.items() if value is not None}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return which options of two tables differ and matter, a line each."""
    names = [name for name in dict.fromkeys([*before, *now]) if name not in MAY_CHANGE]
    return [
        f"{name} was {before.get(name, 'not set')!r} and is {now.get(name, 'not set')!r}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _underscored(table: Any) -> Any:
    return {name.replace("-", "_"): value for name, value in table.items()} if isinstance(table, Mapping) else table


def _from_text(value: Any) -> Any:
    """Return what a text means in JSON: a number, a list; else the text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _as_paths(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [Path(each) for each in value]
    return value if value is None else Path(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items() if each is not None}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _check_number(name: str, value: Any, most: float | None = None) -> None:
    number = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    if not (number and value >= 0 and (most is None or value <= most)):
        raise ConfigError(
            f"{name} must be a number of at least 0{f' and at most {most}' if most else ''}, got {value!r}"
        )


def _check_bands(bands: list[str] | None, normalization: Mapping[str, tuple[float, float]]) -> None:
    for name in (*(bands or ()), *normalization):
        if name not in BANDS:
            raise ConfigError(f"bands or normalization: {not_in_the_table([name])}")
    if bands is not None and (not bands or len(set(bands)) < len(bands)):
        raise ConfigError(f"bands must name at least one band, and each once, got {bands}")
    for name, limits in normalization.items():
        if bands is not None and name not in bands:
            raise ConfigError(f"normalization: {name!r} is not among the bands ({', '.join(bands)})")
        if len(limits) != 2 or not all(map(math.isfinite, limits)) or not limits[0] < limits[1]:
            raise ConfigError(f"normalization of {name!r} must be two finite numbers [lo, hi], lo < hi, got {limits}")
