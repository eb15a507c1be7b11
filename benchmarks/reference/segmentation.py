"""Segmentation as one would plainly write it with PyTorch: all patches of the tile stacked, then batch by batch."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch


def segment(
    bands: Mapping[str, np.ndarray],
    limits: Mapping[str, tuple[float, float]],
    models: Sequence[torch.nn.Module],
    names: Sequence[Sequence[str]],
    *,
    patch_size: int = 1024,
    overlap: int = 256,
    batch_size: int = 8,
) -> np.ndarray:
    """Return the mean over models of the probabilities (y, x) of a tile, float32.

    Args:
        bands: planes (y, x) by name.
        limits: (lo, hi) of the bands, which become 0 … 1.
        models: networks that give logits (batch, 1, y, x).
        names: for each model its bands in order.
        patch_size, overlap: sides of patches and what neighbours share.
        batch_size: patches at a time.
    """
    means = []
    for model, wanted in zip(models, names, strict=True):
        tile = np.stack([np.clip((bands[name] - limits[name][0]) / np.ptp(limits[name]), 0, 1) for name in wanted])
        image = torch.from_numpy(np.nan_to_num(tile).astype(np.float32))
        starts = [places(size, patch_size, overlap) for size in image.shape[1:]]
        corners = [(y, x) for y in starts[0] for x in starts[1]]
        patches = torch.stack([image[:, y : y + patch_size, x : x + patch_size] for y, x in corners])
        with torch.no_grad():
            answers = torch.cat([torch.sigmoid(model(batch)[:, 0]) for batch in patches.split(batch_size)])
        ramp = torch.arange(patch_size)
        ramp = torch.minimum(torch.minimum(ramp + 1, patch_size - ramp) / (overlap + 1), torch.tensor(1.0))
        weight = ramp[:, None] * ramp[None, :]
        total, weights = torch.zeros(image.shape[1:]), torch.zeros(image.shape[1:])
        for (y, x), answer in zip(corners, answers, strict=True):
            total[y : y + patch_size, x : x + patch_size] += answer * weight
            weights[y : y + patch_size, x : x + patch_size] += weight
        means.append(total / weights)
    return torch.stack(means).mean(dim=0).numpy()


def places(size: int, patch_size: int, overlap: int) -> list[int]:
    """Return where patches begin along an axis that is at least as long as a patch."""
    return [*range(0, size - patch_size, patch_size - overlap), size - patch_size]
