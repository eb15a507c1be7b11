import hashlib
import json
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import xarray as xr

from darts_segmentation import SMPSegmenter, build_model, load_checkpoint, read_checkpoint, save_checkpoint
from darts_segmentation.hub import is_hub_folder
from darts_utils.bands import BANDS
from darts_utils.errors import CheckpointError, MissingDataError

MODEL = {
    "arch": "unet", "encoder_name": "tu-test_resnet", "encoder_depth": 2, "decoder_channels": [8, 4],
    "in_channels": 3, "classes": 1,
}  # fmt: skip
INPUTS = ["red", "nir", "slope"]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = smp.create_model(encoder_weights=None, **MODEL)
    with torch.no_grad():
        made.segmentation_head[0].weight *= 20  # so that probabilities differ from pixel to pixel
    return made.eval()


@pytest.fixture(scope="module")
def as_saved(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder exactly as segmentation_models_pytorch writes it."""
    folder = tmp_path_factory.mktemp("hub") / "rts-v1.2"
    network.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(as_saved: Path, tmp_path: Path) -> Path:
    """The same with a darts.json."""
    copy = shutil.copytree(as_saved, tmp_path / as_saved.name)
    write_facts(copy, input_combination=INPUTS)
    return copy


def write_facts(folder: Path, **facts: Any) -> None:
    (folder / "darts.json").write_text(json.dumps(facts))


def change_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def cut(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])


def test_a_saved_folder_gives_the_network_that_was_saved(folder: Path, network: torch.nn.Module) -> None:
    rebuilt = build_model(load_checkpoint(folder))
    patches = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(rebuilt(patches), network(patches))


@pytest.mark.parametrize("arch", ["fpn", "deeplabv3plus", "segformer"])
def test_other_architectures_with_their_own_defaults_come_back(arch: str, tmp_path: Path) -> None:
    made = smp.create_model(arch, encoder_name="mobilenet_v2", encoder_weights=None, in_channels=1)
    made.save_pretrained(tmp_path)
    rebuilt = build_model(read_checkpoint(tmp_path, bands=["red"]))
    assert type(rebuilt) is type(made)
    weights = made.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in rebuilt.state_dict().items())


def test_the_folder_says_the_same_as_a_file(folder: Path, network: torch.nn.Module, tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "patch_size": 512, "normalization": {"slope": [0, 45]}, "terrain_convention": "legacy",
        "card": {"licence": "CC-BY-4.0", "scores": {"f1": 0.7}},
    }  # fmt: skip
    write_facts(folder, input_combination=INPUTS, **facts)
    found = load_checkpoint(folder)
    written = save_checkpoint(tmp_path / "file.pt", model=MODEL, bands=INPUTS, state_dict=network.state_dict(), **facts)
    for name in ("bands", "patch_size", "normalization", "terrain_convention", "card", "architecture"):
        assert getattr(found, name) == getattr(written, name), name
    assert found.limits("slope") == (0, 45)
    assert found.limits("red") == BANDS["red"].valid
    assert (found.name, found.layout, found.path) == ("rts-v1.2", "Hub folder", folder)
    assert found.changes == ()


def test_the_checksum_covers_all_three_files_and_can_be_made_with_sha256sum(folder: Path) -> None:
    names = ("config.json", "darts.json", "model.safetensors")
    lines = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    first = read_checkpoint(folder).checksum
    assert first == hashlib.sha256(lines.encode()).hexdigest()
    (folder / "README.md").write_text("not read")
    assert read_checkpoint(folder).checksum == first
    seen = {first}
    write_facts(folder, input_combination=INPUTS, patch_size=256)
    seen.add(read_checkpoint(folder).checksum)
    change_config(folder, decoder_interpolation="bilinear")
    seen.add(read_checkpoint(folder).checksum)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-4] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(content))
    seen.add(read_checkpoint(folder).checksum)
    assert len(seen) == 4


def test_a_segmenter_of_a_folder_answers_as_one_of_the_converted_file(
    folder: Path, tmp_path: Path, make_tile: Callable[..., xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    change_config(folder, encoder_weights="imagenet")

    def refuse(*arguments: Any) -> None:
        raise AssertionError(f"network access: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    segmenter = SMPSegmenter(folder, "cpu")
    read = read_checkpoint(folder)
    save_checkpoint(tmp_path / "file.pt", model=read.model, bands=read.bands, state_dict=read.state_dict)
    tile = make_tile(40, 50)
    options = {"patch_size": 32, "overlap": 8}
    answers = [
        model.segment_tile(tile, **options).probabilities.values
        for model in (segmenter, SMPSegmenter(tmp_path / "file.pt", "cpu"), pickle.loads(pickle.dumps(segmenter)))
    ]
    assert segmenter.name == "rts-v1.2"
    assert np.ptp(answers[0]) > 0.1
    np.testing.assert_array_equal(answers[1], answers[0])
    np.testing.assert_array_equal(answers[2], answers[0])


def test_a_folder_without_bands_says_what_to_write_and_takes_given_ones(as_saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"takes 3\..*darts\.json.*input_combination.*--bands"):
        load_checkpoint(as_saved)
    assert load_checkpoint(as_saved, bands=INPUTS).bands == tuple(INPUTS)
    with pytest.raises(CheckpointError, match="3 channels, but 2 bands"):
        load_checkpoint(as_saved, bands=INPUTS[:2])


def test_a_pickle_beside_the_weights_is_not_touched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x05cos\nsystem\n.")
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("a pickle was opened"))
    assert load_checkpoint(folder).bands == tuple(INPUTS)


def name_a_foreign_type(file: Path) -> None:
    """Spoil a file so that its reader lists all types that it knows."""
    header = json.dumps({"a": {"dtype": "F128", "shape": [], "data_offsets": [0, 0]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "config.json").write_text("{'a': 1}"),
            r"config\.json cannot be read as JSON.*line 1",
        ),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), r"config\.json cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe{}"), r"config\.json cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text("[1]"), r"config\.json must hold a table.*list"),
        (lambda folder: (folder / "config.json").write_text("{}"), r"_model_class.*holds nothing"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
            r"_model_class.*holds model_type",
        ),
        (lambda folder: change_config(folder, _model_class="WNet"), r"wnet.*unetplusplus"),
        (lambda folder: change_config(folder, encoder_name="resnet35"), "cannot be built.*resnet35"),
        (lambda folder: change_config(folder, encoder_name="tu-hf_hub:some/one"), "lies elsewhere"),
        (lambda folder: change_config(folder, colour=3), "cannot be built.*colour"),
        (lambda folder: change_config(folder, classes=2), "2 classes"),
        (lambda folder: change_config(folder, activation="sigmoid"), "activation"),
        (lambda folder: change_config(folder, decoder_channels=[16, 4]), "do not fit.*of the wrong shape"),
        (lambda folder: change_config(folder, encoder_depth=3, decoder_channels=[8, 4, 4]), "do not fit.*missing"),
        (lambda folder: (folder / "darts.json").write_text("{"), r"darts\.json cannot be read as JSON"),
        (lambda folder: (folder / "darts.json").write_text("null"), r"darts\.json must hold a table.*NoneType"),
        (lambda folder: write_facts(folder), "names no input bands"),
        (lambda folder: write_facts(folder, input_combination=["red", "rde", "nir"]), "'rde' is not in the band table"),
        (lambda folder: write_facts(folder, input_combination=["red"]), "3 channels, but 1 bands"),
        (
            lambda folder: write_facts(folder, input_combination=INPUTS, patchsize=4),
            r"unknown keys patchsize.*patch_size",
        ),
        (lambda folder: write_facts(folder, input_combination=INPUTS, patch_size=0), "patch_size must be"),
        (lambda folder: write_facts(folder, input_combination=INPUTS, card=[1]), "card must be a dict"),
        (lambda folder: write_facts(folder, input_combination=INPUTS, normalization={"red": [1, 0]}), "of red"),
        (lambda folder: cut(folder / "model.safetensors", 0), r"model\.safetensors is no safetensors file.*cut short"),
        (lambda folder: cut(folder / "model.safetensors", 0.01), r"model\.safetensors is no safetensors file"),
        (lambda folder: cut(folder / "model.safetensors", 0.9999), r"model\.safetensors is no safetensors file"),
        (lambda folder: torch.save({}, folder / "model.safetensors"), r"model\.safetensors is no safetensors file"),
        (lambda folder: name_a_foreign_type(folder / "model.safetensors"), r"damaged or cut short .{,130}\. Copy"),
    ],
)
def test_each_defect_is_one_clear_error_that_names_the_folder(folder: Path, change: Any, message: str) -> None:
    change(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"is an empty folder.*save_pretrained"),
        (["model.safetensors"], r"lacks config\.json"),
        (["config.json"], r"lacks model\.safetensors"),
        (["config.json", "pytorch_model.bin"], r"lacks model\.safetensors.*'pytorch_model\.bin' is a pickle"),
        (["config.json", "model.safetensors.index.json"], r"lacks model\.safetensors.*split"),
        (["b.pt", "a.ckpt"], r"with checkpoints; name a file in it, such as 'a\.ckpt'"),
        (["notes.txt"], r"lacks config\.json and model\.safetensors"),
    ],
)
def test_a_folder_without_a_model_says_what_it_lacks(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    assert not is_hub_folder(tmp_path)
    with pytest.raises(MissingDataError, match=message):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_of_the_folder_given_alone_leads_to_the_folder(folder: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"{name} is one file of a model's folder.*name the folder: {folder}"):
        load_checkpoint(folder / name)


def test_flipped_bytes_of_the_weights_never_end_in_another_error(folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    random = np.random.default_rng(0)
    refusals = []
    for _ in range(30):
        broken = bytearray(whole)
        broken[random.integers(header)] ^= 1 << random.integers(8)
        file.write_bytes(bytes(broken))
        try:
            load_checkpoint(folder)
        except CheckpointError as error:
            refusals.append(str(error))
    assert len(refusals) > 20  # a few flips only touch what the header says beside the weights
    assert all(str(folder) in refusal for refusal in refusals)


def test_the_folder_in_use_is_named_by_its_own_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert read_checkpoint(".").name == "rts-v1.2"
