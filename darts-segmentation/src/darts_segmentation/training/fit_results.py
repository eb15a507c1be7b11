"""What a training writes after each epoch: its state first, then scores and checkpoints, which follow from it."""

import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from darts_segmentation.checkpoint import read_checkpoint, save_checkpoint
from darts_segmentation.training.networks import Design
from darts_segmentation.training.run_folder import FitState, RunFolder
from darts_utils.errors import CheckpointError, MissingDataError

PACKAGES = ("darts-segmentation", "torch", "segmentation-models-pytorch", "timm", "lightning")
"""What the card names the versions of."""
NOT_SCORES = ("epoch", "step", "learning_rate", "seconds")


class Results:
    """The files of a training that tell how it went.

    Args:
        run: where they are.
        design: what the checkpoints say about the network.
        card: what they say about the training.
        patch_size: side of the patches that it saw.
        has_metrics: whether to write `metrics.csv`.
    """

    def __init__(
        self, run: RunFolder, design: Design, card: Mapping[str, Any], *, patch_size: int, has_metrics: bool = True
    ) -> None:
        self.run, self.design, self.card = run, design, card
        self.patch_size, self.has_metrics = patch_size, has_metrics

    def keep(self, state: FitState) -> None:
        """Write the state of a new epoch, and what follows from it."""
        self.run.write_state(state)
        self._write_metrics(state)
        if state.best_epoch == state.epoch:
            self._write_checkpoint("best", state)
        if state.is_done:
            self._write_checkpoint("last", state)

    def restore(self, state: FitState) -> None:
        """Write what a kill left missing or behind the state."""
        self._write_metrics(state)
        for name in ("best", "last") if state.is_done else ("best",):
            if self._epoch_of(name) != (state.best_epoch if name == "best" else state.epoch):
                self._write_checkpoint(name, state)

    def _write_metrics(self, state: FitState) -> None:
        if self.has_metrics:
            self.run.write_metrics(state.history)

    def _epoch_of(self, name: str) -> Any:
        """Return the epoch of a checkpoint that is there; None without one that can be read."""
        try:
            return read_checkpoint(getattr(self.run, name)).card.get("epoch")
        except (MissingDataError, CheckpointError):
            return None

    def _write_checkpoint(self, name: str, state: FitState) -> None:
        weights: Mapping[str, torch.Tensor] = state.best if name == "best" else state.averaged
        epoch = state.best_epoch if name == "best" else state.epoch
        scores = {
            key: None if math.isnan(value) else round(value, 6)
            for key, value in state.scores(epoch).items()
            if key not in NOT_SCORES
        }
        card = {
            **self.card, "epoch": epoch, "scores": scores, "versions": {each: version(each) for each in PACKAGES}
        }  # fmt: skip
        save_checkpoint(
            getattr(self.run, name), model=self.design.model, bands=self.design.bands, state_dict=dict(weights),
            patch_size=self.patch_size, normalization=self.design.normalization,
            terrain_convention=self.design.terrain_convention,
            card=card,
        )  # fmt: skip
