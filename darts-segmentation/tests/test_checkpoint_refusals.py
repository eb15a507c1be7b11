"""Files that are no checkpoint: code that is not run, damage, defects, and what would fill the memory."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

from darts_segmentation import load_checkpoint
from darts_utils.errors import CheckpointError, MissingDataError

from .checkpoint_forms import raw, weights, written

__all__ = ["raw", "weights"]


class Payload:
    """An object whose unpickling writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_with_code_is_refused_by_name_and_not_run(raw: dict[str, Any], tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "was-here"
    content = {"config": raw["config"], "statedict": Payload(target)}
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(CheckpointError, match=r"model\.pt is refused.*system"):
        load_checkpoint(path)
    assert not target.exists()
    pickle.loads(path.read_bytes())
    assert target.exists()  # so the poison does work where it is let in


@pytest.mark.parametrize("place", ["statedict", "config", "card"])
def test_code_anywhere_in_a_torch_file_is_refused_by_name_and_not_run(
    raw: dict[str, Any], tmp_path: Path, place: str
) -> None:
    target = tmp_path / "was-here"
    with pytest.raises(CheckpointError, match=r"model\.pt is refused.*system.*Nothing of it was run"):
        load_checkpoint(written(raw | {place: Payload(target)}, tmp_path))
    assert not target.exists()


def test_a_whole_pickled_network_and_a_program_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"refused.*Linear"):
        load_checkpoint(written(torch.nn.Linear(1, 1), tmp_path))
    torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)).save(str(tmp_path / "program.pt"))
    with pytest.raises(CheckpointError, match=r"refused.*TorchScript"):
        load_checkpoint(tmp_path / "program.pt")


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a checkpoint", b"PK\x03\x04broken", b"\x80\x05.", b"<html>"])
def test_a_file_that_is_no_checkpoint_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"notes\.pt is no torch checkpoint, or is damaged"):
        load_checkpoint(path)


def test_a_cut_file_is_refused_wherever_it_ends(raw: dict[str, Any], tmp_path: Path) -> None:
    whole = written(raw, tmp_path).read_bytes()
    for share in (0.01, 0.1, 0.5, 0.9, 0.99, 0.9999):
        (tmp_path / "cut.pt").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError, match=r"cut\.pt"):
            load_checkpoint(tmp_path / "cut.pt")


def test_flipped_bytes_never_end_in_another_error(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["statedict"] = {name: raw["statedict"][name] for name in list(raw["statedict"])[:3]}
    whole = written(raw, tmp_path).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(40):
        broken = bytearray(whole)
        broken[random.integers(len(broken))] ^= 1 << random.integers(8)
        (tmp_path / "flipped.pt").write_bytes(bytes(broken))
        with pytest.raises(CheckpointError, match=r"flipped\.pt"):  # the weights are incomplete in any case
            load_checkpoint(tmp_path / "flipped.pt")


def test_a_missing_file_and_a_folder_say_so(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(MissingDataError, match=path.name):
            load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.pop("config"), "no 'config'"),
        (lambda raw: raw.pop("statedict"), "no weights"),
        (lambda raw: raw.update(statedict={}), "no weights"),
        (lambda raw: raw.update(card=[1]), "card must be a dict"),
        (lambda raw: raw["config"].pop("input_combination"), "names no input bands"),
        (lambda raw: raw["config"].update(input_combination=[]), "must be a list of names"),
        (lambda raw: raw["config"].update(input_combination="red"), "must be a list of names"),
        (lambda raw: raw["config"].update(input_combination={"red": 1, "slope": 1}), "must be a list of names"),
        (lambda raw: raw["config"].update(input_combination=["red", "rde"]), "'rde' is not in the band table"),
        (lambda raw: raw["config"].update(input_combination=["red", "red"]), "twice"),
        (lambda raw: raw["config"].update(input_combination=["red"]), "2 channels, but 1 bands"),
        (lambda raw: raw["config"].pop("model"), "config 'model'"),
        (lambda raw: raw["config"]["model"].pop("arch"), "'arch'"),
        (lambda raw: raw["config"]["model"].update(arch="wnet"), "wnet.*unetplusplus"),
        (lambda raw: raw["config"]["model"].update(encoder_name="resnet35"), "cannot be built.*resnet35"),
        (lambda raw: raw["config"]["model"].update(colour=3), "cannot be built.*colour"),
        (lambda raw: raw["config"]["model"].update(encoder_name="tu-hf_hub:some/one"), "lies elsewhere"),
        (lambda raw: raw["config"]["model"].update(encoder_name="tu-local-dir:x"), "lies elsewhere"),
        (lambda raw: raw["config"]["model"].update(checkpoint_path="other.pth"), "checkpoint_path.*from elsewhere"),
        (lambda raw: raw["config"]["model"].update(pretrained_cfg={"url": "x"}), "pretrained_cfg.*from elsewhere"),
        (lambda raw: raw["config"]["model"].update(classes=3), "3 classes"),
        (lambda raw: raw["config"]["model"].update(activation="sigmoid"), "activation"),
        (lambda raw: raw["config"]["model"].update(aux_params={"classes": 1}), "aux_params"),
        (lambda raw: raw["config"]["model"].update(decoder_channels=[16, 4]), "of the wrong shape"),
        (lambda raw: raw["config"].update(model_framework="keras"), "keras"),
        (lambda raw: raw["config"].update(patch_size=0), "patch_size"),
        (lambda raw: raw["config"].update(patch_size="1024"), "patch_size"),
        (lambda raw: raw["config"].update(terrain_convention="grid-north"), "terrain_convention.*true-north"),
        (lambda raw: raw["config"].update(normalization={"nir": [0, 1]}), "nir"),
        (lambda raw: raw["config"].update(normalization={"red": [1, 0]}), "normalization of red"),
        (lambda raw: raw["config"].update(normalization={"red": [0, float("nan")]}), "normalization of red"),
        (lambda raw: raw["config"].update(normalization={"red": 3}), "normalization of red"),
        (lambda raw: raw["config"].update(normalization=[0, 1]), "normalization must map"),
        (lambda raw: raw["statedict"].pop("segmentation_head.0.bias"), r"1 missing \(segmentation_head.0.bias\)"),
        (lambda raw: raw["statedict"].update(extra=torch.zeros(1)), r"1 unexpected \(extra\)"),
        (lambda raw: raw["statedict"].update(extra="text"), "extra.*not a tensor"),
        (
            lambda raw: raw["statedict"].update({"segmentation_head.0.bias": torch.zeros(2)}),
            r"segmentation_head.0.bias is \(2,\), not \(1,\)",
        ),
        (lambda raw: raw["statedict"].update({"segmentation_head.0.bias": torch.tensor([torch.nan])}), "NaN"),
    ],
)
def test_each_defect_is_one_clear_error_that_names_the_file(
    raw: dict[str, Any], tmp_path: Path, change: Any, message: str
) -> None:
    change(raw)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(written(raw, tmp_path))
    assert str(tmp_path / "model.pt") in str(caught.value)


def test_a_file_that_holds_no_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a Tensor"):
        load_checkpoint(written(torch.zeros(3), tmp_path))


# Files that would fill the memory, or never end


def test_plain_values_within_themselves_are_refused_and_end(raw: dict[str, Any], tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    doubled: list[Any] = [1]
    for _ in range(60):  # 2^60 values in a few bytes
        doubled = [doubled, doubled]
    wide: list[Any] = [0] * 1000
    for _ in range(3):
        wide = [wide] * 1000
    for nested in (endless, doubled, wide, {"a": {"b": doubled}}):
        raw["card"] = {"notes": nested}
        with pytest.raises(CheckpointError, match=r"card entry 'notes' must be of plain values .* nested at most 32"):
            load_checkpoint(written(raw, tmp_path))
    raw["card"] = {"notes": [[[[{"deep": [1, 2.5, None, True, "text"]}]]]]}
    assert load_checkpoint(written(raw, tmp_path)).card == raw["card"]
    del raw["card"]
    raw["config"]["history"] = endless
    assert "history" not in load_checkpoint(written(raw, tmp_path)).card


FIRST = "encoder.model.conv1.0.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda weight: torch.empty(weight.shape, device="meta"), "no dense tensor of real numbers .*meta"),
        (lambda weight: weight.to_sparse(), "no dense tensor .*sparse_coo"),
        (lambda weight: weight.flatten(1).to_sparse_csr(), "no dense tensor .*sparse_csr"),
        (lambda weight: weight.to(torch.complex64), "no dense tensor .*complex64"),
        (lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), "no dense tensor .*qint8"),
        (lambda weight: torch.zeros(1).expand(10**6, 10**6), r"\(1000000, 1000000\) is larger than what is stored"),
        (lambda weight: torch.full(weight.shape, 1e300, dtype=torch.float64), "NaN or infinite"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*[Ss]parse", "ignore:.*quantize_per_tensor")
def test_tensors_that_are_no_plain_weights_are_refused(
    raw: dict[str, Any], tmp_path: Path, damage: Any, message: str
) -> None:
    raw["statedict"][FIRST] = damage(raw["statedict"][FIRST])
    with pytest.raises(CheckpointError, match=rf"weight '{FIRST}' .*{message}"):
        load_checkpoint(written(raw, tmp_path))


def test_a_name_of_a_weight_that_is_no_text_is_said_to_be_none(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["statedict"][5] = torch.zeros(1)
    with pytest.raises(CheckpointError, match="the name of a weight must be text, got 5"):
        load_checkpoint(written(raw, tmp_path))


def test_a_network_of_any_size_costs_no_memory_where_the_weights_do_not_fit(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[torch.nn.Module] = []
    create_model = smp.create_model

    def watched(**arguments: Any) -> torch.nn.Module:
        built.append(create_model(**arguments))
        return built[-1]

    monkeypatch.setattr(smp, "create_model", watched)
    raw["config"]["model"]["decoder_channels"] = [10**7, 10**7]  # 3.6 PB
    with pytest.raises(CheckpointError, match="of the wrong shape"):
        load_checkpoint(written(raw, tmp_path))
    assert all(weight.is_meta for network in built for weight in network.parameters())
