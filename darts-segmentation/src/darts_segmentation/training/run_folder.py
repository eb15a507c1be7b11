"""The folder of a training: what was asked for, where it stands, what came out.

`state.ckpt` is the truth, and replaced whole after each epoch; scores and checkpoints follow from it and are written
again where they are missing or behind.
"""

import csv
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import torch

from darts_segmentation.training.fit_options import differences
from darts_utils.errors import ConfigError, StoreError
from darts_utils.store import remove_leftovers, replacing

STATE_VERSION = 1

COLUMNS = ("epoch", "step", "learning_rate", "seconds", "train_loss", "val_loss", "val_iou", "val_f1",
           "val_precision", "val_recall", "val_ap")  # fmt: skip
"""Columns of `metrics.csv`."""

Weights = dict[str, torch.Tensor]


@dataclass(kw_only=True)
class FitState:
    """A training after a whole epoch: all that it takes to go on as if nothing had happened."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Steps done."""
    network: Weights = field(default_factory=dict)
    """Weights in training."""
    averaged: Weights = field(default_factory=dict)
    """Moving average of the weights; the weights themselves without averaging."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=dict)
    """Scale of the loss in fp16."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Scores of each epoch."""
    best_epoch: int = 0
    """Epoch of the best score, counted from 1; 0: none yet."""
    best: Weights = field(default_factory=dict)
    """Averaged weights of that epoch."""
    is_done: bool = False

    def scores(self, epoch: int) -> dict[str, float]:
        """Return the scores of an epoch, counted from 1."""
        return self.history[epoch - 1]


class RunFolder:
    """The files of one training."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.options = self.folder / "fit.toml"
        self.splits = self.folder / "splits.json"
        self.state = self.folder / "state.ckpt"
        self.metrics = self.folder / "metrics.csv"
        self.best = self.folder / "best.pt"
        self.last = self.folder / "last.pt"

    def begin(self, table: Mapping[str, Any], splits: Mapping[str, Any]) -> None:
        """Write what was asked for; or check that it is what the training here was begun with.

        Raises:
            ConfigError: it is not; the message names what differs.
            StoreError: the folder cannot be written, or its files are damaged.
        """
        for file in (self.options, self.splits, self.state, self.metrics, self.best, self.last):
            remove_leftovers(file)
        if not self.options.exists():
            _write_text(self.splits, json.dumps(splits, indent=1) + "\n")
            # Last, so that a folder with options has its splits.
            _write_text(self.options, to_toml(table))
            return
        try:
            before = tomllib.loads(self.options.read_text(encoding="utf-8"))
            splits_before = json.loads(self.splits.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.folder} holds a training whose files are damaged: {error}") from error
        # As it would read from the file: floats that are whole, tuples.
        now = tomllib.loads(to_toml(table))
        if changed := differences(before, now):
            raise ConfigError(
                f"{self.folder} holds a training with other options: {'; '.join(changed)}. "
                "Go on with the same, or choose another folder."
            )
        if splits_before != json.loads(json.dumps(splits)):
            raise ConfigError(
                f"{self.folder} holds a training on other patches: the datasets or splits have changed since. "
                "Choose another folder."
            )

    def read_state(self) -> FitState | None:
        """Return where the training stands; None before its first epoch is done.

        Raises:
            StoreError: the state cannot be read.
        """
        if not self.state.exists():
            return None
        try:
            content = torch.load(self.state, map_location="cpu", weights_only=True)
            if content.pop("version") != STATE_VERSION:
                raise ValueError("it is of another version of darts")
            return FitState(**content)
        # Damaged bytes make the unpickler fail in any way.
        except Exception as error:
            raise StoreError(
                f"{self.state} cannot be read ({str(error).partition(chr(10))[0]}); "
                "remove the folder and begin anew, or put the file back"
            ) from error

    def write_state(self, state: FitState) -> None:
        """Keep where the training stands."""
        content = {"version": STATE_VERSION} | {each.name: getattr(state, each.name) for each in fields(state)}
        with replacing(self.state) as temporary, temporary.open("wb") as file:
            torch.save(content, file)

    def write_metrics(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write the scores of all epochs; those without an answer are empty."""
        with replacing(self.metrics) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [name for name in COLUMNS if not history or name in history[0]])
            writer.writeheader()
            for row in history:
                writer.writerow({name: "" if math.isnan(value) else value for name, value in row.items()})

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Return the folder of a training, which must be one.

        Raises:
            ConfigError: something else is there.
        """
        run = cls(folder)
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"run_dir {folder} is a file; choose a folder")
        if folder.is_dir() and not run.options.exists() and (others := _strangers(run)):
            raise ConfigError(f"run_dir {folder} holds other things ({others[0]}); choose a new folder")
        return run


def to_toml(table: Mapping[str, Any]) -> str:
    """Return plain values as TOML: a line each, tables within a line."""
    return "".join(f"{_key(name)} = {_value(value)}\n" for name, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    # JSON writes text, whole numbers and truth values as TOML does, but for one sign that it leaves as it is.
    return json.dumps(value).replace("\x7f", "\\u007f") if not isinstance(value, float) else repr(value)


def _key(name: str) -> str:
    plain = name and name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if plain else _value(name)


def _strangers(run: RunFolder) -> list[str]:
    # A kill between the two first files leaves the splits alone.
    ours = {run.splits.name}
    return [each.name for each in sorted(run.folder.iterdir()) if each.name not in ours and each.name[0] != "."]


def _write_text(file: Path, text: str) -> None:
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
