"""All that is decided about a training before its first step."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from darts_segmentation.layouts import is_plain
from darts_segmentation.runtimes import check_choices, chosen_precision
from darts_segmentation.training.augmentation import Augmentation, with_origins
from darts_segmentation.training.batches import JoinedPatches, PatchBatches, WholeBatches, in_lists, make_loader
from darts_segmentation.training.fit_options import FitOptions
from darts_segmentation.training.losses import TotalLoss
from darts_segmentation.training.networks import Design, design_network, stride_of
from darts_segmentation.training.sampling import EpochSampler
from darts_segmentation.training.scores.pixels import BINS, edge_of
from darts_segmentation.training.splits import split_samples
from darts_utils.arrays import resolve_device
from darts_utils.errors import ConfigError

logger = logging.getLogger("darts.training")

CARD_OPTIONS = (
    "losses", "loss_arguments", "learning_rate", "weight_decay", "schedule", "warmup", "clip", "ema", "batch_size",
    "augmentations", "monitor", "patience", "split_by", "seed", "epochs",
)  # fmt: skip
"""Options that the checkpoints' card tells as they were given."""


@dataclass(kw_only=True, eq=False)
class FitPlan:
    """All that is decided before the first step."""

    options: FitOptions
    patches: JoinedPatches
    splits: dict[str, np.ndarray]
    design: Design
    network: torch.nn.Module
    sampler: EpochSampler
    augmentation: Augmentation
    loss: TotalLoss
    device: str
    precision: str
    crop_size: int | None

    def table(self) -> dict[str, Any]:
        """Return the options, and what follows from them and the data."""
        resolved = {
            "bands": list(self.design.bands), "model": {k: v for k, v in self.design.model.items() if v is not None},
            "normalization": {name: list(pair) for name, pair in self.design.normalization.items()},
            "steps_per_epoch": self.sampler.steps, "precision": self.precision,
        }  # fmt: skip
        return {**self.options.as_table(), "resolved": resolved}

    def samples_by_split(self) -> dict[str, Any]:
        """Return which samples are in which split, and how many patches."""
        return {name: {"patches": len(numbers), "samples": self._names(numbers, "sample_id")}
                for name, numbers in self.splits.items()}  # fmt: skip

    def card(self) -> dict[str, Any]:
        """Return what the checkpoints tell about the training: no times and no paths, so that bytes can be the same."""
        options, form = self.options, self.patches.form
        training = {name: value for name, value in options.as_table().items() if name in CARD_OPTIONS}
        training |= {
            "steps_per_epoch": self.sampler.steps, "crop_size": self.crop_size,
            "positive_share": options.positive_share, "precision": self.precision,
        }  # fmt: skip
        return {
            "task": "thaw slumps",
            "training_data": [
                {"name": each.folder.absolute().name, "patches": len(each), "sensor": each.form.sensor}
                for each in self.patches.datasets
            ],
            "pixel_m": form.pixel_m,
            "splits": {
                name: {"patches": len(numbers), "samples": len(self._names(numbers, "sample_id")),
                       "regions": self._names(numbers, "region")}
                for name, numbers in self.splits.items()
            },
            "training": training,
            "threshold": options.binarization_threshold,
            **self.design.card,
        } | options.card  # fmt: skip

    def loaders(self, first_epoch: int) -> tuple[Any, Any]:
        """Return what loads batches for training and, if there are patches for it, for validation."""
        bands, limits, on_gpu = self.design.bands, self.design.normalization, self.device != "cpu"
        self.sampler.set_epoch(first_epoch)
        batches = PatchBatches(
            self.patches, bands, limits=limits, augmentation=self.augmentation, crop_size=self.crop_size,
            seed=self.options.seed,
        )  # fmt: skip
        training = make_loader(batches, self.sampler, loaders=self.options.loaders, on_gpu=on_gpu)
        if not len(self.splits["val"]):
            return training, None
        side = self.patches.form.patch_size
        # As many pixels at once as in training.
        at_once = max(1, self.options.batch_size * (self.crop_size or side) ** 2 // side**2)
        whole = WholeBatches(self.patches, bands, limits=limits, stride=stride_of(self.network))
        keys = in_lists(self.splits["val"].tolist(), at_once)
        return training, make_loader(whole, keys, loaders=self.options.loaders, on_gpu=on_gpu)

    def _names(self, numbers: np.ndarray, column: str) -> list[str]:
        found = self.patches.metadata[column].to_numpy()[numbers]
        return sorted({str(name) for name in found if name})


def plan_fit(options: FitOptions, splits: Mapping[str, Sequence[int]] | None = None) -> FitPlan:
    """Return what options and data make of a training; `splits` take the place of those that the options make.

    Raises:
        ConfigError: an option cannot work, or does not fit the data.
        MissingDataError, StoreError, CheckpointError: data or weights are not there, or are damaged.
    """
    loss = TotalLoss(options.losses, options.loss_arguments)
    edge_of(options.binarization_threshold, BINS)
    if not is_plain(options.card):
        raise ConfigError("card must be of plain values: text, numbers, lists, tables")
    check_choices(options.precision, "torch", options.device)
    device = resolve_device(options.device)
    precision = chosen_precision(options.precision, torch.device(device))
    patches = JoinedPatches(options.datasets)
    form = patches.form
    design, network = design_network(options, patches.bands, form.terrain_convention)
    divided = _divide(options, patches) if splits is None else splits
    chosen = {name: np.sort(np.asarray(numbers, int)) for name, numbers in divided.items()}
    chosen.setdefault("val", np.empty(0, int))
    if options.patience is not None and not len(chosen["val"]):
        raise ConfigError("patience needs a validation: give the split 'val' a share, or leave patience out")
    if not len(chosen["val"]):
        logger.warning("there are no patches to validate on: the last epoch counts as the best")
    return FitPlan(
        options=options, patches=patches, splits=chosen, design=design, network=network,
        sampler=_sampler(options, patches, chosen.get("train", np.empty(0, int))),
        augmentation=Augmentation(
            options.augmentations, with_origins(design.bands, patches.bands), terrain_convention=form.terrain_convention
        ),
        loss=loss, device=device, precision=precision,
        crop_size=_crop_size(options.crop_size, form.patch_size, stride_of(network)),
    )  # fmt: skip


def _divide(options: FitOptions, patches: JoinedPatches) -> dict[str, np.ndarray]:
    return split_samples(
        patches.metadata, by=options.split_by, shares=options.split_shares, named=options.split_named or None,
        seed=options.seed,
    )  # fmt: skip


def _sampler(options: FitOptions, patches: JoinedPatches, train: np.ndarray) -> EpochSampler:
    positive = patches.metadata["positive_share"].to_numpy()[train] > 0
    share = options.positive_share
    if share is not None and 0 < share < 1 and len(train) and positive.all() | (~positive).all():
        logger.warning("all patches to train on are %s slumps: positive_share is left out",
                       "with" if positive.all() else "without")  # fmt: skip
        share = None
    return EpochSampler(
        train, positive, options.batch_size, steps=options.steps_per_epoch, positive_share=share, seed=options.seed
    )


def _crop_size(crop: int | None, patch: int, stride: int) -> int | None:
    if (crop or patch) % stride:
        what = f"crop_size {crop}" if crop else f"the datasets' patch size of {patch} px"
        raise ConfigError(f"{what} is no multiple of the network's stride of {stride} px; choose a crop_size that is")
    if crop and crop > patch:
        raise ConfigError(f"crop_size {crop} is larger than the datasets' patches of {patch} px")
    return None if crop == patch else crop
