"""What a checkpoint says about the patches of a dataset: the numbers that inference gives."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from darts_segmentation.segmenter import SMPSegmenter
from darts_segmentation.training.batches import Patches, in_lists
from darts_utils.arrays import Device, to_host
from darts_utils.errors import ConfigError
from darts_utils.numbers import whole_number


def predict_patches(
    model: SMPSegmenter | Path | str,
    patches: Patches,
    indices: Iterable[int],
    *,
    batch_size: int = 8,
    device: Device = None,
    precision: str | None = None,
    augment: bool = False,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield the number, the probabilities (y, x), float32, and the labels `y` of patches, in the order asked for.

    Each patch is segmented as a tile of its own, by the very code that segments tiles: probabilities are calibrated as
    the checkpoint says, and NaN where a band that the model needs is missing.

    Args:
        model: a checkpoint, or one that is loaded.
        patches: a PatchDataset, or several joined.
        indices: numbers of patches.
        batch_size: patches computed at once, or fewer where memory asks for it.
        device, precision: as of SMPSegmenter, where a checkpoint is given.
        augment: take the mean over the eight flips and quarter turns of each patch.

    Raises:
        MissingBandError: the dataset lacks a band that the model needs.
        ConfigError: an option cannot work, or the datasets are of another terrain convention.
        MissingDataError, CheckpointError, StoreError: model or data are not there, or are damaged.
    """
    batch_size = whole_number("batch_size", batch_size, 1)
    segmenter = model if isinstance(model, SMPSegmenter) else SMPSegmenter(model, device, precision=precision)
    if segmenter.terrain_convention != patches.form.terrain_convention:
        raise ConfigError(
            f"model {segmenter.name!r} is of terrain convention {segmenter.terrain_convention!r}, the patches are of "
            f"{patches.form.terrain_convention!r}; make a dataset of the model's convention"
        )
    bands = segmenter.required_bands
    side = patches.form.patch_size
    for numbers in in_lists(list(indices), batch_size):
        read = [patches.read(number, bands) for number in numbers]
        tiles = [_tile(x, bands, number) for number, (x, _) in zip(numbers, read, strict=True)]
        segmented = segmenter.segment_tile_batched(tiles, side, 0, batch_size, augment=augment)
        for number, (_, y), tile in zip(numbers, read, segmented, strict=True):
            yield number, to_host(tile["probabilities"].data), y


def _tile(x: np.ndarray, bands: tuple[str, ...], number: int) -> xr.Dataset:
    planes = {name: (("y", "x"), plane) for name, plane in zip(bands, x, strict=True)}
    return xr.Dataset(planes, attrs={"tile_id": f"patch {number}"})
