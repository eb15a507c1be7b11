"""Batches for networks: patches read, cropped, augmented and normalised as inference normalises them."""

import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from darts_segmentation.patches import PatchOptions, as_index, plan_spans
from darts_segmentation.training.augmentation import Augmentation, crop_patch
from darts_segmentation.training.patch_dataset import PatchDataset
from darts_segmentation.training.patch_form import IGNORE, DatasetForm
from darts_segmentation.training.sampling import Draw
from darts_utils.bands import normalize
from darts_utils.errors import ConfigError

if TYPE_CHECKING:
    import geopandas as gpd

Batch = dict[str, torch.Tensor]
"""`x` float32 (batch, band, y, x) with bands last in memory, `y` uint8 (batch, y, x)."""

Limits = Mapping[str, tuple[float, float]]
"""(lo, hi) of bands that are not normalised by the band table."""


class Patches(Protocol):
    """What patches are read from: a PatchDataset, or several joined."""

    form: DatasetForm

    def read(self, index: int, bands: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return `x` float32 (band, y, x) and `y` uint8 (y, x) of a patch."""


class JoinedPatches:
    """Several datasets as one: the patches of the first, then those of the next.

    Raises:
        ConfigError: they do not fit together.
        MissingDataError, StoreError: one is not there, or damaged.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        # Imported where it is used: what only reads options needs no tables.
        import pandas as pd

        self.datasets = [PatchDataset.open(folder) for folder in folders]
        self.form: DatasetForm = self.datasets[0].form
        for folder, dataset in zip(folders, self.datasets, strict=True):
            for name in ("terrain_convention", "pixel_m", "patch_size"):
                mine, first = getattr(dataset.form, name), getattr(self.form, name)
                if mine != first:
                    raise ConfigError(
                        f"datasets cannot be joined: {name} is {mine} in {folder} and {first} in {folders[0]}"
                    )
        self.bands = tuple(
            name for name in self.form.bands if all(name in dataset.form.bands for dataset in self.datasets)
        )
        """Bands that all of them have."""
        joined: gpd.GeoDataFrame = pd.concat([dataset.metadata for dataset in self.datasets], ignore_index=True)
        self.metadata = joined.assign(patch=range(len(joined)))
        self._firsts = np.cumsum([0, *map(len, self.datasets)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def read(self, index: int, bands: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return `x` float32 (band, y, x) and `y` uint8 (y, x) of a patch."""
        number = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return self.datasets[number].read(index - int(self._firsts[number]), bands)


class PatchBatches(Dataset[Batch]):
    """Batches for training, each from its list of draws; the same draws give the same batch, wherever it is made.

    Args:
        patches: where patches are read.
        bands: the network's inputs in order.
        limits: (lo, hi) of bands that are not normalised by the band table.
        augmentation: what changes the patches; it may know further bands after these, which indices are made anew from.
        crop_size: side of what the network sees; None: whole patches.
        seed: with epoch and position, what each draw's random numbers come from.
    """

    def __init__(
        self,
        patches: Patches,
        bands: Sequence[str],
        *,
        limits: Limits | None = None,
        augmentation: Augmentation | None = None,
        crop_size: int | None = None,
        seed: int = 0,
    ) -> None:
        self.patches, self.bands, self.limits = patches, tuple(bands), dict(limits or {})
        self.augmentation, self.crop_size, self.seed = augmentation, crop_size, seed

    def __getitem__(self, draws: Sequence[Draw]) -> Batch:
        """Return the batch of a list of draws."""
        return _batch([self._patch(draw) for draw in draws], self.bands, self.limits)

    def _patch(self, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, draw.epoch, draw.position])
        x, y = self.patches.read(draw.patch, self.augmentation.bands if self.augmentation else self.bands)
        if self.crop_size is not None:
            x, y = crop_patch(x, y, self.crop_size, rng, on_slump=draw.on_slump)
        if self.augmentation:
            x, y = self.augmentation(x, y, rng)
        return x[: len(self.bands)], y


class WholeBatches(Dataset[Batch]):
    """Batches of whole patches as they are, for validation; each is asked for by a list of patches.

    Args:
        patches, bands, limits: as of PatchBatches.
        stride: what the sides of the network's input must be a multiple of; what is added shows the patch mirrored, as
            in inference, and is ignored.
        least: the smallest side that the network takes.
    """

    def __init__(
        self, patches: Patches, bands: Sequence[str], *, limits: Limits | None = None, stride: int = 1, least: int = 1
    ) -> None:
        self.patches, self.bands, self.limits = patches, tuple(bands), dict(limits or {})
        self.stride, self.least = stride, least

    def __getitem__(self, numbers: Sequence[int]) -> Batch:
        """Return the batch of a list of patches."""
        return _batch([self._patch(number) for number in numbers], self.bands, self.limits)

    def _patch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = self.patches.read(number, self.bands)
        rows, columns = (
            plan_spans(side, PatchOptions(patch_size=side, overlap=0), stride=self.stride, least=self.least)[0]
            for side in y.shape
        )
        if (rows.size, columns.size) == y.shape:
            return x, y
        seen = x[:, as_index(rows.source)[:, None], as_index(columns.source)]
        known = np.full(seen.shape[1:], IGNORE, y.dtype)
        known[rows.inside, columns.inside] = y
        return seen, known


def make_loader(
    batches: Dataset[Batch], keys: Iterable[Any], *, loaders: int = 0, on_gpu: bool = False
) -> DataLoader[Batch]:
    """Return what loads a batch for each key, with `loaders` processes ahead of the network, or none.

    Memory for a GPU is pinned.
    """
    return DataLoader(
        batches,
        batch_size=None,
        sampler=keys,
        num_workers=loaders,
        pin_memory=on_gpu,
        persistent_workers=loaders > 0,
        worker_init_fn=_start_loader if loaders else None,
    )


def in_lists(numbers: Sequence[int], size: int) -> list[list[int]]:
    """Return numbers in lists of `size`, of which the last may be shorter."""
    whole = [int(number) for number in numbers]
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def _start_loader(number: int) -> None:
    # The parent decides what an interrupt means, and ends its loaders by SIGTERM, for which it may have a handler.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _batch(patches: Sequence[tuple[np.ndarray, np.ndarray]], bands: Sequence[str], limits: Limits) -> Batch:
    height, width = patches[0][1].shape
    # Bands last, as the network will read them.
    x = np.empty((len(patches), height, width, len(bands)), np.float32)
    y = np.empty((len(patches), height, width), patches[0][1].dtype)
    for slot, (values, labels) in enumerate(patches):
        for place, name in enumerate(bands):
            x[slot, ..., place] = normalize(values[place], name, limits.get(name))
        y[slot] = labels
    return {"x": torch.from_numpy(x).permute(0, 3, 1, 2), "y": torch.from_numpy(y)}
