"""A checkpoint in the documented form, to be written as it is or with a defect."""

from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch

BANDS_OF_MODEL = ["red", "slope"]
MODEL = {
    "arch": "unet", "encoder_name": "tu-test_resnet", "encoder_depth": 2, "decoder_channels": [8, 4],
    "in_channels": 2, "classes": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return smp.create_model(encoder_weights=None, **MODEL).state_dict()


@pytest.fixture
def raw(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The documented form, as another program would write it."""
    config = {
        "model_framework": "smp", "model": dict(MODEL), "input_combination": list(BANDS_OF_MODEL), "patch_size": 1024,
    }  # fmt: skip
    return {"config": config, "statedict": dict(weights)}


def written(content: Any, folder: Path) -> Path:
    path = folder / "model.pt"
    torch.save(content, path)
    return path
