"""One clear error for each kind of bad input, and exit code 2 where nothing could start."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio import Affine

from tests.conftest import OPTICAL, Result, Sample, save_tiny_model
from tests.fuzzing import check_message


@pytest.fixture
def fails(darts: Callable, sample: Sample, tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs a command that cannot start, and gives back its one message."""

    def run(*tokens: object, selection: tuple[object, ...] = ("--scene-ids", sample.scene_id)) -> str:
        result: Result = darts("run", "sentinel2", "--offline", *selection, *tokens)
        assert result.code == 2, result.text
        assert "Traceback" not in result.text
        assert result.text.count("error:") == 1
        check_message(result.text.partition("error: ")[2], sample.folder, tmp_path)
        return result.flat

    return run


def test_no_models(fails: Callable, tmp_path: Path) -> None:
    message = fails("--fast-dir", tmp_path / "empty")
    assert "no models" in message
    assert "--model-files" in message


def test_a_model_file_that_is_not_there(fails: Callable, tmp_path: Path) -> None:
    assert f"{tmp_path}/none.pt does not exist" in fails("--model-files", tmp_path / "none.pt")


class Payload:
    """What a poisoned pickle runs when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.target,))


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(fails: Callable, tmp_path: Path) -> None:
    torch.save({"config": Payload(tmp_path / "ran"), "statedict": {}}, tmp_path / "poison.pt")
    message = fails("--model-files", tmp_path / "poison.pt")
    assert "poison.pt" in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("lacking", ["config", "statedict", "model", "input_combination"])
def test_a_checkpoint_that_lacks_a_key(fails: Callable, sample: Sample, tmp_path: Path, lacking: str) -> None:
    content = torch.load(sample.optical_model, weights_only=True)
    del (content if lacking in content else content["config"])[lacking]
    torch.save(content, tmp_path / "short.pt")
    message = fails("--model-files", tmp_path / "short.pt")
    assert "short.pt" in message
    assert lacking in message


def test_a_model_that_needs_a_band_nobody_makes(fails: Callable, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "thermal.pt", (*OPTICAL, "planet_udm"))
    message = fails("--model-files", model)
    assert "planet_udm" in message
    assert "cannot be made" in message


def test_models_of_two_terrain_conventions(fails: Callable, tmp_path: Path, sample: Sample) -> None:
    legacy = save_tiny_model(tmp_path / "legacy.pt", (*OPTICAL, "aspect"), terrain_convention="legacy")
    message = fails("--model-files", legacy, sample.full_model)
    assert "legacy" in message
    assert "true-north" in message


def test_two_models_of_one_name(fails: Callable, tmp_path: Path, sample: Sample) -> None:
    other = save_tiny_model(tmp_path / "optical.pt", OPTICAL)
    assert "two models are called 'optical'" in fails("--model-files", other, sample.optical_model)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (("--overlap", 1024), ("overlap", "less than patch_size (1024)", "1024")),
        (("--patch-size", 0), ("patch_size", "at least 1")),
        (("--batch-size", -1), ("batch_size", "at least 1")),
        (("--patch-size", "many"), ("patch-size", "many")),
        (("--binarization-threshold", 1.5), ("binarization_threshold", "1.5")),
        (("--tpi-inner-radius", 100), ("tpi_inner_radius", "tpi_outer_radius")),
        (("--edge-erosion-size", -1), ("edge_erosion_size", "0 or more")),
        (("--quality-level", "best"), ("quality-level", "best")),
        (("--export-bands", "probabilites"), ("probabilites", "probabilities")),
        (("--device", 7), ("GPU 7", "darts env-info")),
        (("--device", "gpu"), ("device", "gpu")),
        (("--executor", "magic"), ("--executor", '"overlapped"')),
        (("--shard", "17/16"), ("shard must be like 3/16", "17/16")),
        (("--devices", "cpu", "gpu"), ("'gpu' is unknown",)),
        (("--devices", "cpu", "cpu", "--device", "cpu"), ("device must be left out",)),
        (("--max-failures", "-1"), ("max_failures must be a number, 0 or more",)),
        (("--bathc-size", 3), ("--bathc-size", "--batch-size")),
        (("--no-raw-data-store",), ("no_raw_data_store", "offline")),
        (("--stac.endpoint", "stac.example.org"), ("endpoint", "http")),
        (("--stac.s3-endpoint", "127.0.0.1:99"), ("s3_endpoint", "http")),
        (("--stac.retries", -1), ("retries", "0 or more")),
        (("--stac.assets.bleu", "B02"), ("bleu",)),
    ],
)
def test_parameters_that_cannot_work(fails: Callable, tokens: tuple, words: tuple[str, ...], tmp_path: Path) -> None:
    message = fails(*tokens, "--output-data-dir", tmp_path / "out")
    for word in words:
        assert word in message
    assert not list((tmp_path / "out").glob("*"))


def test_scene_selections(fails: Callable, sample: Sample, tmp_path: Path) -> None:
    assert "got none of them" in fails(selection=())
    assert "got scene_ids and tile_ids" in fails("--tile-ids", "08WMA")
    message = fails(selection=("--tile-ids", "08WMA"))
    assert "was not prepared" in message
    assert "run `darts prepare-data" in message
    assert "does not exist" in fails(selection=("--scene-id-file", tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text('{"a": 1}')
    assert "JSON list" in fails(selection=("--scene-id-file", tmp_path / "bad.json"))
    (tmp_path / "bad.json").write_text("S2A\nS2B\n")
    assert "cannot be read as JSON" in fails(selection=("--scene-id-file", tmp_path / "bad.json"))


@pytest.mark.parametrize("scene_id", ["../escape", "/absolute", "", "..", "a\nb", "x" * 300])
def test_scene_ids_that_would_leave_the_output_folder(fails: Callable, scene_id: str) -> None:
    assert "scene_ids: scene id " in fails(selection=("--scene-ids", scene_id))


@pytest.mark.parametrize("token", ["a\0b", "\ud800"])
def test_what_no_shell_gives_is_refused_wherever_it_stands(fails: Callable, token: str) -> None:
    assert "is no text that a system can take" in fails("--output-data-dir", token)
    assert "is no text that a system can take" in fails(selection=("--scene-ids", token))


def test_a_path_in_a_message_never_steers_the_terminal(fails: Callable) -> None:
    message = fails("--model-files", "\x1b[31m\x1e\r\u202emodel\n.pt")
    assert r"\x1b[31m\x1e\r\u202emodel\n.pt" in message


def test_an_output_folder_that_cannot_be_written(fails: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = fails("--output-data-dir", tmp_path / "file" / "out")
    assert "cannot create the output folder" in message


def test_an_unknown_key_in_the_configuration(fails: Callable, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[darts.run.sentinel2]\nexport-band = ['extent']\n")
    message = fails("--config-file", config)
    assert "unknown key 'export-band' in [darts.run.sentinel2]; did you mean 'export-bands'?" in message


def test_a_scene_that_is_imported_or_nearly_named_so_is_told(darts: Callable, sample: Sample, tmp_path: Path) -> None:
    profile = {"driver": "GTiff", "width": 9, "height": 9, "count": 4, "dtype": "uint16", "crs": "EPSG:32608"}
    with rasterio.open(tmp_path / "my.tif", "w", transform=Affine(10, 0, 5e5, 0, -10, 7.7e6), **profile) as file:
        file.write(np.full((4, 9, 9), 1500, "uint16"))
    here = ("--darts-dir", tmp_path)
    taken = ("--acquisition-time", "2021-07-21T21:00:19Z", "--scene-id", "my-scene")
    assert darts("import-scene", tmp_path / "my.tif", *taken, *here).code == 0
    run = ("run", "sentinel2", "--offline", "--model-files", sample.optical_model, *here, "--scene-ids")
    for more in ((), ("--dry-run",)):
        assert "but among the imported scenes: add --raw-data-source import" in darts(*run, "my-scene", *more).flat
        near = darts(*run, "my-scen", "--raw-data-source", "import", *more)
        assert "there is no scene my-scen in" in near.flat
        assert "did you mean my-scene?" in near.flat


def test_shared_keys_that_another_command_knows_are_no_error_and_no_warning(darts: Callable, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[darts]\ndrift = 5.0\noptical = true\ndatasets = ['x']\nseed = 1\nlog-dir = 'logs'\n")
    result: Result = darts("status", tmp_path / "nowhere", "--config-file", config)
    assert "no command knows" not in result.flat
    assert "'log-dir' in [darts] does nothing; give --log-dir" in result.flat
    config.write_text("[darts]\ndrifd = 5.0\n")
    result = darts("status", tmp_path / "nowhere", "--config-file", config)
    assert "no command knows the key 'drifd' in [darts]; did you mean 'drift'?" in result.flat


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (("sentinel2", "--scene-ids", "x"), ("nothing to prepare", "optical", "auxiliary")),
        (("sentinel2", "--optical"), ("got none of them",)),
        (("sentinel2", "--scene-ids", "x", "--optical", "--raw-data-source", "import"), ("on disk already", "--aux")),
        (("sentinel2", "--scene-ids", "x", "--optical", "--no-raw-data-store"), ("no_raw_data_store",)),
        (("planet", "--optical"), ("--optical",)),
        (("planet",), ("nothing to prepare",)),
    ],
)
def test_preparations_that_cannot_work(darts: Callable, tokens: tuple[str, ...], words: tuple[str, ...]) -> None:
    result: Result = darts("prepare-data", *tokens)
    assert result.code == 2, result.text
    assert result.text.count("error:") == 1
    check_message(result.text.partition("error: ")[2])
    for word in words:
        assert word in result.flat


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ("merge x", "darts merge needs --out; `darts merge --help` tells of it"),
        ("merge x --out", "parameter --out requires an argument"),
        ("model info", "darts model info needs FILES"),
        ("run sentinel2 --model-weights demo=2", "each key as an option of its own: --model-weights.KEY VALUE"),
        ("run planet --device cpu --max-water-share 0.5", "max_water_share needs a scene classification"),
    ],
)
def test_arguments_that_are_missing_or_do_not_fit_the_command(darts: Callable, tokens: str, says: str) -> None:
    result: Result = darts(*tokens.split())
    assert result.code == 2
    assert says in result.flat


@pytest.mark.parametrize("command", ["status", "verify"])
def test_folders_that_no_run_made(darts: Callable, command: str, tmp_path: Path) -> None:
    assert "is not a folder" in darts(command, tmp_path / "nowhere").flat
    result = darts(command, tmp_path)
    assert result.code == 2
    assert str(tmp_path) in result.flat.replace(" ", "")
    assert "ledger" in result.flat


def test_an_unknown_command(darts: Callable) -> None:
    result = darts("rum")
    assert result.code == 2
    assert "rum" in result.flat
