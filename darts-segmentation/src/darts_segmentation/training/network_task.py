"""A network in training, as Lightning runs it: steps, moving average, learning rate, validation."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from lightning.pytorch import LightningModule

from darts_segmentation.training.batches import Batch
from darts_segmentation.training.fit_options import Schedule
from darts_segmentation.training.losses import Loss
from darts_segmentation.training.patch_form import IGNORE, SLUMP
from darts_segmentation.training.scores.pixels import ScoreHistogram, count_pixels

LAST_EXPONENTIAL_RATE = 0.01
"""Share of its highest that an exponential learning rate ends with."""


class SegmentationTask(LightningModule):
    """A network with one plane of logits, its loss, and the moving average of its weights.

    Each step has random numbers of its own (dropout, drop path), from (seed, step), and a learning rate that only the
    step decides: so what a resumed training needs are weights, averages and the optimiser's state alone.

    Args:
        network: of segmentation_models_pytorch.
        loss: what is made small.
        learning_rate, weight_decay, schedule, warmup, ema, seed: as of FitOptions.
        total_steps: steps of the whole training.
        is_stopped: asked after each batch whether to stop there.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        loss: Loss,
        *,
        total_steps: int,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        schedule: Schedule = "cosine",
        warmup: float = 0.05,
        ema: float = 0.999,
        seed: int = 0,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        # For convolutions the faster order in memory, on CPUs too.
        self.network = network.to(memory_format=torch.channels_last)
        self.averaged = deepcopy(self.network).eval().requires_grad_(False) if ema else self.network
        """The network that is validated and written: of averaged weights, where there are averages."""
        self.loss, self.total_steps, self.seed = loss, total_steps, seed
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.schedule, self.warmup_steps, self.ema = schedule, round(warmup * total_steps), ema
        self.is_stopped = is_stopped
        self.step = 0
        """Steps done."""
        self.losses: list[torch.Tensor] = []
        """Loss of each step of the epoch."""
        self.histogram = ScoreHistogram.empty()
        """Probabilities of the validation."""
        self._validation: list[tuple[torch.Tensor, int]] = []
        self._pairs = self._pair_up() if ema else ([], [], [])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (batch, y, x) of the network in training."""
        logits: torch.Tensor = self.network(x)[:, 0]
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW; weights of one dimension do not decay.

        Those are biases and normalisation layers: they set a level, and smaller ones make no simpler function.
        """
        parameters = [each for each in self.network.parameters() if each.requires_grad]
        groups = [
            {"params": [each for each in parameters if each.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.learning_rate)

    def on_train_epoch_start(self) -> None:
        """Forget the losses of the epoch before."""
        self.losses = []

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the step's learning rate and random numbers."""
        rate = self.learning_rate * rate_at(self.step, self.total_steps, self.warmup_steps, self.schedule)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
        torch.manual_seed(_mixed(self.seed, self.step))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        loss = self._loss(self(batch["x"]), batch["y"])
        self.losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Let the averages follow.

        Raises:
            StoppedError: the training was asked to stop.
        """
        self.step += 1
        if self.ema:
            self._average()
        if self.is_stopped():
            raise StoppedError

    def on_validation_epoch_start(self) -> None:
        """Forget the scores of the epoch before."""
        self.histogram, self._validation = ScoreHistogram.empty(), []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the probabilities of a batch.

        Raises:
            StoppedError: the training was asked to stop.
        """
        logits = self.averaged(batch["x"])[:, 0].float()
        labelled = int((batch["y"] != IGNORE).sum())
        if labelled:
            self._validation.append((self._loss(logits, batch["y"]), labelled))
        self.histogram += count_pixels(torch.sigmoid(logits).cpu().numpy(), batch["y"].cpu().numpy())
        if self.is_stopped():
            raise StoppedError

    def epoch_scores(self, threshold: float) -> dict[str, float]:
        """Return loss and scores of the epoch; those of the validation are NaN where they have no answer.

        `val_loss` is the mean over batches, each by its number of labelled pixels.
        """
        scores = {"train_loss": float(torch.stack(self.losses).double().mean())}
        if self.trainer.val_dataloaders is None:
            return scores
        pixels = sum(count for _, count in self._validation)
        losses = sum(float(loss) * count for loss, count in self._validation)
        counts = self.histogram.counts(threshold)
        return scores | {
            "val_loss": losses / pixels if pixels else math.nan,
            "val_iou": counts.iou, "val_f1": counts.f1, "val_precision": counts.precision, "val_recall": counts.recall,
            "val_ap": self.histogram.average_precision,
        }  # fmt: skip

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.loss(logits, labels == SLUMP, labels != IGNORE)

    @torch.no_grad()
    def _average(self) -> None:
        averages, weights, whole = self._pairs
        # A young average would hold on to the random weights that it began with.
        keep = min(self.ema, self.step / (self.step + 9))
        torch._foreach_lerp_(averages, weights, 1 - keep)
        for average, count in whole:
            average.copy_(count)

    def _pair_up(self) -> tuple[list[torch.Tensor], list[torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]:
        """Return averages and what they follow, the statistics of batch normalisation too, and pairs of counters."""
        theirs = self.network.state_dict()
        both = [(average, theirs[name]) for name, average in self.averaged.state_dict().items()]
        real = [pair for pair in both if pair[0].is_floating_point()]
        counters = [pair for pair in both if not pair[0].is_floating_point()]
        return [average for average, _ in real], [weight for _, weight in real], counters

    def on_train_start(self) -> None:
        """Take the weights where they are now: moving to a device may have made new ones."""
        if self.ema:
            self._pairs = self._pair_up()


class StoppedError(Exception):
    """The training was asked to stop, and did after a step."""


def rate_at(step: int, total: int, warmup: int, schedule: Schedule) -> float:
    """Return the share of the highest learning rate at a step, above 0 and at most 1."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    if schedule == "cosine":
        return 0.5 + 0.5 * math.cos(math.pi * done)
    return LAST_EXPONENTIAL_RATE**done if schedule == "exponential" else 1.0


def _mixed(seed: int, step: int) -> int:
    # Odd factors, so that neither neighbouring steps nor neighbouring seeds share their numbers.
    return (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 1) % 2**63
