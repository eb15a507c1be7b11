"""Small patch datasets to train on: bare discs in green land, which a tiny network learns in a few steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from shapely.geometry import box

from darts_segmentation.training.fit_options import FitOptions
from darts_segmentation.training.patch_dataset import IGNORE, DatasetForm, Patch, PatchWriter, Sample

BANDS = ("red", "nir", "ndvi", "slope", "aspect")


def write_dataset(
    folder: Path, *, samples: int = 8, patches: int = 3, size: int = 64, bands: Sequence[str] = BANDS, seed: int = 0,
    **form: Any,
) -> Path:  # fmt: skip
    """Write a dataset of `samples` far from each other; every third patch of a sample has no slump."""
    rng = np.random.default_rng(seed)
    with PatchWriter(folder, DatasetForm(bands=tuple(bands), patch_size=size, **form)) as writer:
        for number in range(samples):
            outline = box(-130 + number, 70, -129.9 + number, 70.1)
            sample = Sample(
                sample_id=f"sample-{seed}-{number}", region=f"region {number % 3}", scene_id=f"scene {number}",
                footprint=outline,
            )  # fmt: skip
            scenes = [scene(rng, bands, size, slump=place % 3 < 2) for place in range(patches)]
            writer.add(
                sample,
                [
                    Patch(x=x, y=y, row=0, col=place * size, geometry=outline)
                    for place, (x, y) in enumerate(scenes)
                ],
            )  # fmt: skip
    return folder


def scene(
    rng: np.random.Generator, bands: Sequence[str], size: int, *, slump: bool = True
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return a patch with one disc, or none; a corner is missing, and flat ground has no aspect."""
    rows, cols = np.indices((size, size))
    middle = rng.uniform(size / 4, size * 3 / 4, 2)
    disc = np.hypot(rows - middle[0], cols - middle[1]) < size / 6
    truth = disc if slump else np.zeros_like(disc)

    def noise(spread: float) -> np.ndarray:
        return rng.normal(0, spread, (size, size))

    red, nir = 0.05 + 0.08 * truth + noise(0.01), 0.25 - 0.08 * truth + noise(0.02)
    planes = {
        "red": red, "nir": nir, "ndvi": (nir - red) / (nir + red), "slope": np.abs(4 + noise(2)),
        "aspect": rng.uniform(0, 360, (size, size)),
    }  # fmt: skip
    x = np.stack([planes[name] for name in bands]).astype(np.float32)
    y = truth.astype(np.uint8)
    gap = (rows < size // 8) & (cols < size // 8)
    x[:, gap] = np.nan
    y[gap] = IGNORE
    if "aspect" in bands:
        x[list(bands).index("aspect"), rows > size * 3 // 4] = np.nan
    return x, y


def options_for(*datasets: Path, **changes: Any) -> FitOptions:
    """Return options of a training that takes a second."""
    given: dict[str, Any] = {
        "datasets": list(datasets), "encoder": "tu-test_resnet",
        "model_arguments": {"encoder_depth": 3, "decoder_channels": [16, 12, 8]},
        "batch_size": 4, "crop_size": 32, "epochs": 3, "steps_per_epoch": 4, "learning_rate": 5e-3, "ema": 0.8,
        "loaders": 0, "threads": 1, "device": "cpu", "loggers": ["csv"],
        "split_shares": {"train": 0.6, "val": 0.4},
    }  # fmt: skip
    return FitOptions(**given | changes)
