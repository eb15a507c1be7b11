import io
import logging
import os
import pickle
import socket
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

from darts_segmentation import SMPSegmenter, build_model, load_checkpoint, save_checkpoint
from darts_utils.bands import BANDS
from darts_utils.errors import CheckpointError, ConfigError, MissingDataError

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


class Payload:
    """An object whose unpickling writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def test_the_documented_form_is_read_in_full(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["config"] |= {"normalization": {"slope": [0, 45]}, "terrain_convention": "legacy", "name": "RTS v7"}
    raw["card"] = {"license": "CC-BY-4.0"}
    checkpoint = load_checkpoint(written(raw, tmp_path))
    assert checkpoint.bands == ("red", "slope")
    assert checkpoint.architecture == "unet"
    assert checkpoint.name == "model"
    assert checkpoint.patch_size == 1024
    assert checkpoint.terrain_convention == "legacy"
    assert checkpoint.limits("slope") == (0, 45)
    assert checkpoint.limits("red") == BANDS["red"].valid
    assert checkpoint.card == {"license": "CC-BY-4.0", "name": "RTS v7"}
    assert len(checkpoint.checksum) == 64


def test_a_network_gets_exactly_the_weights_of_the_file(raw: dict[str, Any], tmp_path: Path) -> None:
    network = build_model(load_checkpoint(written(raw, tmp_path)))
    assert not network.training
    assert all(torch.equal(value, raw["statedict"][name]) for name, value in network.state_dict().items())


def test_what_is_saved_is_loaded_and_the_same_content_gives_the_same_bytes(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "model": MODEL, "bands": BANDS_OF_MODEL, "state_dict": weights, "patch_size": 512,
        "normalization": {"red": (0, 0.4)}, "terrain_convention": "legacy",
        "card": {"scores": {"f1": 0.7}, "seeds": [1, 2], "trained_on": None},
    }  # fmt: skip
    saved = save_checkpoint(tmp_path / "a.pt", **options)
    save_checkpoint(tmp_path / "b.pt", **options)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded.checksum == saved.checksum
    for name in ("model", "bands", "patch_size", "normalization", "terrain_convention", "card"):
        assert getattr(loaded, name) == getattr(saved, name), name
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_saving_a_view_does_not_write_the_storage_behind_it(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    name = "segmentation_head.0.bias"
    views = weights | {name: torch.zeros(1_000_000)[: len(weights[name])]}
    save_checkpoint(tmp_path / "model.pt", model=MODEL, bands=BANDS_OF_MODEL, state_dict=views)
    assert (tmp_path / "model.pt").stat().st_size < 1_000_000


def test_a_failed_save_leaves_the_old_file(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"old")
    with pytest.raises(CheckpointError, match="scores"):
        save_checkpoint(path, model=MODEL, bands=BANDS_OF_MODEL, state_dict=weights, card={"scores": np.float64(0.7)})
    assert path.read_bytes() == b"old"


def test_key_bands_is_read_in_place_of_input_combination(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["config"]["bands"] = raw["config"].pop("input_combination")
    del raw["config"]["patch_size"], raw["config"]["model_framework"]
    checkpoint = load_checkpoint(written(raw, tmp_path))
    assert checkpoint.bands == ("red", "slope")
    assert checkpoint.patch_size == 1024


def test_the_lightning_layout_is_read(raw: dict[str, Any], tmp_path: Path) -> None:
    weights = OrderedDict((f"model.{name}", value) for name, value in raw["statedict"].items())
    weights["val_metrics.confusion"] = torch.zeros(2, 2)
    lightning = {
        "epoch": 3, "pytorch-lightning_version": "2.5", "hyper_parameters": {"config": raw["config"], "lr": 1e-3},
        "state_dict": weights,
    }  # fmt: skip
    checkpoint = load_checkpoint(written(lightning, tmp_path))
    assert checkpoint.state_dict.keys() == raw["statedict"].keys()


def test_norm_factors_are_dropped_with_one_warning(
    raw: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw["config"]["norm_factors"] = {"red": 1 / 3000}
    with caplog.at_level(logging.WARNING, "darts.segmentation"):
        checkpoint = load_checkpoint(written(raw, tmp_path))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "norm_factors" in caplog.text
    assert checkpoint.limits("red") == BANDS["red"].valid
    assert "norm_factors" not in checkpoint.card


def test_the_one_form_has_nothing_to_change(raw: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = load_checkpoint(written(raw, tmp_path))
    assert (checkpoint.layout, checkpoint.changes) == ("darts", ())


def test_an_older_file_tells_what_the_one_form_says_otherwise(raw: dict[str, Any], tmp_path: Path) -> None:
    config = raw["config"]
    config["bands"] = config.pop("input_combination")
    del config["patch_size"]
    config |= {"norm_factors": {"red": 1}, "name": "RTS v5", "trained": torch.zeros(1)}
    config["model"]["encoder_weights"] = "imagenet"
    checkpoint = load_checkpoint(written({"config": config, "state_dict": raw["statedict"], "epoch": 7}, tmp_path))
    assert checkpoint.layout == "older darts"
    for expected in ("'state_dict'", "'bands'", "1024", "'norm_factors'", "'imagenet'", "'name'", "'trained', 'epoch'"):
        assert sum(expected in change for change in checkpoint.changes) == 1, expected
    assert len(checkpoint.changes) == 7


def test_a_lightning_file_tells_what_the_one_form_leaves_out(raw: dict[str, Any], tmp_path: Path) -> None:
    weights = {f"model.{name}": value for name, value in raw["statedict"].items()} | {"loss.weight": torch.ones(1)}
    lightning = {"hyper_parameters": {"config": raw["config"], "lr": 1e-3}, "state_dict": weights, "epoch": 3}
    checkpoint = load_checkpoint(written(lightning, tmp_path))
    assert checkpoint.layout == "Lightning"
    told = "; ".join(checkpoint.changes)
    for expected in ("hyper_parameters", f"{len(raw['statedict'])} weights", "'loss.weight'", "'lr', 'epoch'"):
        assert expected in told


def test_what_was_saved_from_an_older_file_is_in_the_one_form(raw: dict[str, Any], tmp_path: Path) -> None:
    model = raw["config"]["model"] | {"encoder_weights": "imagenet"}
    saved = save_checkpoint(tmp_path / "a.pt", model=model, bands=BANDS_OF_MODEL, state_dict=raw["statedict"])
    assert (saved.layout, saved.changes) == ("darts", ())
    assert load_checkpoint(tmp_path / "a.pt").changes == ()


def test_bands_can_be_given_to_a_file_that_names_none_and_to_no_other(raw: dict[str, Any], tmp_path: Path) -> None:
    named = written(raw, tmp_path)
    assert load_checkpoint(named, bands=["red", "slope"]).bands == ("red", "slope")
    with pytest.raises(ConfigError, match=r"red, slope.*not those given \(slope, red\)"):
        load_checkpoint(named, bands=["slope", "red"])
    del raw["config"]["input_combination"]
    assert load_checkpoint(written(raw, tmp_path), bands=["slope", "red"]).bands == ("slope", "red")
    with pytest.raises(CheckpointError, match="nobody knows: 'blau' is"):
        load_checkpoint(named, bands=["blau", "red"])


def test_loading_asks_no_network_for_encoder_weights(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError(f"network access: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    raw["config"]["model"]["encoder_weights"] = "imagenet"
    assert SMPSegmenter(written(raw, tmp_path), "cpu").checkpoint.model["encoder_weights"] is None


def test_loading_leaves_the_random_numbers_of_the_caller_alone(raw: dict[str, Any], tmp_path: Path) -> None:
    path = written(raw, tmp_path)
    before = torch.get_rng_state()
    load_checkpoint(path)
    assert torch.equal(before, torch.get_rng_state())


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


def test_the_old_torch_format_without_an_archive_is_read_too(raw: dict[str, Any], tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save(raw, stream, _use_new_zipfile_serialization=False)
    (tmp_path / "old.pt").write_bytes(stream.getvalue())
    assert load_checkpoint(tmp_path / "old.pt").bands == ("red", "slope")


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


def test_equal_content_gives_equal_bytes_whatever_objects_it_is_made_of(tmp_path: Path) -> None:
    model = {"arch": "unet", "encoder_name": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8]}
    weights = smp.create_model(**model, encoder_weights=None, in_channels=2, classes=1).state_dict()

    def anew(text: str) -> str:
        return "".join(list(text))

    text = anew("twice")
    one = {"a": text, "b": text, "deep": {"c": [text, 1.5]}}
    other = {"a": anew(text), "b": anew(text), "deep": {"c": [anew(text), 1.5]}}
    files = [
        save_checkpoint(tmp_path / f"{name}.pt", model=model, bands=["red", "nir"], state_dict=weights, card=card)
        for name, card in (("one", one), ("other", other))
    ]
    assert files[0].checksum == files[1].checksum
    assert load_checkpoint(files[0].path).card == one
