"""What a checkpoint's config asks for takes no more memory than its weights justify."""

from pathlib import Path

import pytest
import torch

from darts_segmentation import load_checkpoint
from darts_utils.errors import CheckpointError


@pytest.mark.parametrize(
    ("model", "words"),
    [
        # Sizes whose product no computer can count.
        ({"encoder_name": "resnet18", "decoder_channels": [10**9] * 5}, "cannot be built"),
        # Built in outline first, which shows that the weights do not fit.
        ({"encoder_name": "resnet18", "decoder_channels": [30_000] * 5}, "do not fit"),
        # This encoder can only be built for good.
        ({"encoder_name": "mit_b0", "decoder_channels": [30_000] * 5}, "far more weights than the file holds"),
    ],
)
def test_a_network_far_larger_than_its_weights_is_refused(tmp_path: Path, model: dict, words: str) -> None:
    config = {"model": {"arch": "unet", **model}, "input_combination": ["red", "green", "blue"]}
    torch.save({"config": config, "statedict": {"x": torch.zeros(3)}}, tmp_path / "greedy.pt")
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(tmp_path / "greedy.pt")
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300


def test_weights_of_another_encoder_are_told_briefly(tmp_path: Path) -> None:
    given = {f"encoder.model.{'x' * 200}.{number}": torch.zeros(2) for number in range(50)}
    given["segmentation_head.0.weight"] = torch.zeros(1, 1, 3, 3)
    config = {"model": {"arch": "unet", "encoder_name": "resnet18"}, "input_combination": ["red", "green", "blue"]}
    torch.save({"config": config, "statedict": given}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"missing \(.* and \d+ more\), 50 unexpected, 1 of the wrong") as caught:
        load_checkpoint(tmp_path / "other.pt")
    assert len(str(caught.value).replace(str(tmp_path), "")) < 290
