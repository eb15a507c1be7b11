"""`darts model info`, `darts model convert`, and folders where models are looked for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch

from darts.cli import run_command_line
from darts.needs import model_names, models_in
from darts_ensemble import EnsembleV1
from darts_segmentation import build_model, load_checkpoint, save_checkpoint
from darts_utils.bands import BANDS
from darts_utils.errors import ConfigError

ARGUMENTS: dict[str, Any] = {
    "arch": "unet", "encoder_name": "tu-test_resnet", "encoder_depth": 2, "decoder_channels": [8, 4],
    "in_channels": 2, "classes": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.set_num_threads(1)
    return smp.create_model(encoder_weights=None, **ARGUMENTS).eval()


@pytest.fixture
def model(network: torch.nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "rts.pt"
    save_checkpoint(
        path, model=ARGUMENTS, bands=["red", "slope"], state_dict=network.state_dict(), patch_size=512,
        normalization={"slope": (0, 45)}, terrain_convention="legacy",
        card={
            "training_data": "Herschel\x1b[31m\nisland", "temperature": 1.5,
            "scores": {"f1": 0.7, "loss": float("nan")},
        },
    )  # fmt: skip
    return path


@pytest.fixture
def folder(network: torch.nn.Module, tmp_path: Path) -> Path:
    network.save_pretrained(tmp_path / "hub-v1.0")
    return tmp_path / "hub-v1.0"


@pytest.fixture
def darts(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that gives exit code, output and errors of `darts model …`."""

    def run(*tokens: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command_line(["model", *map(str, tokens)])
        return code, *capsys.readouterr()

    return run


def same_network(first: Path, second: Path) -> bool:
    patches = torch.rand(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, other = (torch.sigmoid(build_model(load_checkpoint(path))(patches)) for path in (first, second))
    return torch.equal(one, other)


def test_info_tells_all_of_a_model(darts: Any, model: Path, network: torch.nn.Module) -> None:
    code, out, _ = darts("info", "--json", model)
    (card,) = json.loads(out)
    assert code == 0
    assert card["checksum"] == load_checkpoint(model).checksum
    assert card["parameters"] == sum(p.numel() for p in network.parameters())
    assert (card["name"], card["layout"], card["changes"]) == ("rts", "darts", [])
    assert (card["architecture"], card["encoder"]) == ("unet", "tu-test_resnet")
    assert card["bands"] == [
        {"name": "red", "range": list(BANDS["red"].valid), "range_from": "band table"},
        {"name": "slope", "range": [0, 45], "range_from": "model"},
    ]
    assert (card["patch_size"], card["terrain_convention"]) == (512, "legacy")
    assert card["card"]["temperature"] == 1.5
    assert card["card"]["scores"] == {"f1": 0.7, "loss": "nan"}


def test_info_prints_whole_lines_that_leave_the_terminal_alone(darts: Any, model: Path) -> None:
    code, out, _ = darts("info", model)
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for expected in (
        "rts", f"checksum {load_checkpoint(model).checksum} (SHA-256)", "architecture unet", "encoder tu-test_resnet",
        "patch size 512 px", "terrain legacy", "bands 1 red -0.1 … 0.5", "2 slope 0 … 45 (of the model)",
        r"training_data Herschel\x1b[31m island", "scores f1 0.7, loss nan", "temperature 1.5",
    ):  # fmt: skip
        assert expected in lines, expected
    assert "\x1b" not in out


def test_info_of_several_names_each_that_is_refused(darts: Any, model: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.pt").write_text("notes")
    code, out, errors = darts("info", model, folder, tmp_path / "notes.pt", tmp_path / "none.pt")
    assert code == 2
    assert out.startswith("rts\n")
    assert "hub-v1.0" not in out
    assert errors.count("error:") == 1
    for expected in ("hub-v1.0 names no input bands", "notes.pt is no torch checkpoint", "none.pt is not there"):
        assert errors.count(expected) == 1
    (folder / "darts.json").write_text('{"input_combination": ["red", "nir"]}')
    code, out, _ = darts("info", "--json", model, folder)
    assert (code, [card["name"] for card in json.loads(out)]) == (0, ["rts", "hub-v1.0"])


def test_info_notices_weights_that_do_not_fit(darts: Any, model: Path) -> None:
    content = torch.load(model, weights_only=True)
    content["config"]["model"]["decoder_channels"] = [16, 4]
    torch.save(content, model)
    code, out, errors = darts("info", model)
    assert (code, out) == (2, "")
    assert "do not fit the architecture" in errors


def test_an_older_file_is_converted_and_says_what_changed(darts: Any, model: Path, tmp_path: Path) -> None:
    new = torch.load(model, weights_only=True)
    config = new["config"] | {"norm_factors": {"red": 1}, "name": "RTS v5"}
    config["bands"] = config.pop("input_combination")
    weights = {f"model.{name}": value for name, value in new["statedict"].items()}
    old = tmp_path / "old.ckpt"
    torch.save({"hyper_parameters": {"config": config}, "state_dict": weights, "epoch": 3}, old)
    code, out, _ = darts("convert", old, tmp_path / "made" / "new.pt")
    assert code == 0
    for expected in ("(Lightning)", "'norm_factors' were dropped", "prefix 'model.' was removed", "'bands'", "'name'"):
        assert expected in out
    converted = load_checkpoint(tmp_path / "made" / "new.pt")
    assert (converted.layout, converted.changes) == ("darts", ())
    assert converted.card == {"name": "RTS v5"}
    assert load_checkpoint(old).checksum in out
    assert converted.checksum in out
    assert same_network(old, converted.path)
    assert converted.limits("slope") == (0, 45)
    assert [file.name for file in (tmp_path / "made").iterdir()] == ["new.pt"]


def test_converting_twice_gives_the_same_bytes(darts: Any, model: Path, tmp_path: Path) -> None:
    code, out, _ = darts("convert", model, tmp_path / "again.pt")
    assert code == 0
    assert "nothing changed" in out
    assert (tmp_path / "again.pt").read_bytes() == model.read_bytes()


def test_a_folder_is_converted_with_its_bands_given(darts: Any, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "hub.pt"
    code, _, errors = darts("convert", folder, target)
    assert code == 2
    assert "--bands" in errors
    assert not target.exists()
    assert darts("convert", folder, target, "--bands", "red", "blau")[0] == 2
    code, out, _ = darts("convert", folder, target, "--bands", "red", "nir")
    assert code == 0
    assert "the bands were given: red, nir" in out
    (folder / "darts.json").write_text('{"input_combination": ["red", "nir"]}')
    assert same_network(folder, target)
    code, _, errors = darts("convert", folder, target, "--bands", "nir", "red", "--overwrite")
    assert code == 2
    assert "not those given" in errors


def test_a_target_is_only_replaced_when_asked_and_only_by_a_good_model(darts: Any, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.pt"
    target.write_bytes(b"old")
    code, _, errors = darts("convert", model, target)
    assert code == 2
    assert "--overwrite" in errors
    (tmp_path / "bad.pt").write_text("bad")
    assert darts("convert", tmp_path / "bad.pt", target, "--overwrite")[0] == 2
    assert target.read_bytes() == b"old"
    assert darts("convert", model, target, "--overwrite")[0] == 0
    assert target.read_bytes() == model.read_bytes()
    code, _, errors = darts("convert", model, tmp_path)
    assert code == 2
    assert "is a folder; name the file" in errors


@pytest.mark.parametrize("name", ['"' + "x" * 130, "é" * 100])
def test_an_error_tells_a_path_in_full_however_long_it_is_and_whatever_it_holds(
    darts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    path = Path(name) / name
    (tmp_path / path).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    code, _, errors = darts("info", path)
    assert code == 2
    assert f"{path} is an empty folder" in " ".join(errors.split())


def test_the_models_of_a_folder_are_its_checkpoints_and_its_model_folders(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("notes")
    found = models_in(tmp_path)
    assert found == [folder, model]
    assert model_names(found) == {"hub-v1.0": folder, "rts": model}
    assert models_in(tmp_path / "none") == []


def test_an_ensemble_takes_folders_and_files_alike(folder: Path, model: Path) -> None:
    (folder / "darts.json").write_text('{"input_combination": ["red", "nir"], "terrain_convention": "legacy"}')
    ensemble = EnsembleV1(model_names(models_in(model.parent)), "cpu")
    assert ensemble.model_names == ("hub-v1.0", "rts")
    assert ensemble.required_bands == ("red", "nir", "slope")
    assert ensemble.checksums == {"hub-v1.0": load_checkpoint(folder).checksum, "rts": load_checkpoint(model).checksum}


def test_two_models_of_one_name_and_missing_ones_are_refused(folder: Path, model: Path) -> None:
    twin = model.rename(folder.with_name("hub-v1.0.pt"))
    with pytest.raises(ConfigError, match=r"two models are called 'hub-v1\.0'.*rename one"):
        model_names([folder, twin])
    with pytest.raises(ConfigError, match=r"none\.pt does not exist"):
        model_names([folder.with_name("none.pt")])
