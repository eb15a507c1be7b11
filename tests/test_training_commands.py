"""`darts train` on the command line: from the synthetic generator to models that `darts run` takes as they are."""

import dataclasses
import io
import json
import shlex
import shutil
from pathlib import Path

import geopandas as gpd
import pytest
import torch
from rich.console import Console

from darts.cli import app, run_command_line
from darts.demo.bundled import bundled_models
from darts.training.demo_models import bundled_recipe, read_recipe
from darts.training.synthetic import SyntheticSite
from darts_export import missing_outputs
from darts_segmentation import load_checkpoint
from darts_segmentation.training.fit_options import FitOptions

RECIPE = """
[landscapes]
seeds = [1000, 1002]
validated = [1002, 1002]
size = 256
[dataset]
bands = ["blue", "green", "red", "nir", "ndvi", "slope", "aspect"]
patch_size = 64
[all]
encoder = "tu-test_resnet"
model_arguments = { encoder_depth = 3, decoder_channels = [16, 12, 8] }
epochs = 2
steps_per_epoch = 3
batch_size = 4
ema = 0.8
loggers = ["csv"]
device = "cpu"
[models.all-bands]
[models.optical]
bands = ["blue", "green", "red", "nir", "ndvi"]
[test]
seeds = [5000, 5000]
"""
"""Two networks that learn next to nothing, in seconds."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "recipe.toml").write_text(RECIPE)
    words = ["train", "demo-models", str(folder / "demo"), "--recipe", str(folder / "recipe.toml"), "--workers", "1"]
    assert run_command_line(words) == 0
    return folder / "demo"


def test_the_synthetic_generator_ends_in_models_that_a_run_takes_as_they_are(trained: Path, tmp_path: Path) -> None:
    models = sorted((trained / "models").glob("*.pt"))
    assert [model.stem for model in models] == ["all-bands", "optical"]
    assert load_checkpoint(models[0]).bands == ("blue", "green", "red", "nir", "ndvi", "slope", "aspect")
    for model in models:
        card = load_checkpoint(model).card
        assert card["test_seeds"] == [5000, 5000]
        assert 0 <= card["object_f1"] <= 1
        assert card["splits"]["val"]["regions"] == ["synthetic-1002"]
        assert card["splits"]["train"]["regions"] == ["synthetic-1000", "synthetic-1001"]
    site = SyntheticSite(trained / "landscapes" / "site-5000-256", 5000)
    scene = gpd.read_file(site.footprints)["image_id"][0]
    words = f"run sentinel2 --scene-ids {scene} --offline --device cpu --output-data-dir {tmp_path}".split()
    words += [f"--{root}-dir={site.folder}" for root in ("darts", "fast", "large")]
    assert run_command_line([*words, "--model-files", *map(str, models)]) == 0
    assert missing_outputs(tmp_path / scene) == "none"


def test_calling_again_makes_nothing_again(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.stat().st_mtime_ns for file in trained.rglob("state.ckpt")}
    models = {file: torch.load(file, weights_only=True)["statedict"] for file in (trained / "models").glob("*.pt")}
    assert len(before) == len(models) == 2
    words = ["train", "demo-models", str(trained), "--recipe", str(trained.parent / "recipe.toml"), "--workers", "1"]
    assert run_command_line(words) == 0
    assert {file: file.stat().st_mtime_ns for file in trained.rglob("state.ckpt")} == before
    for file, weights in models.items():
        again = torch.load(file, weights_only=True)["statedict"]
        assert all(torch.equal(again[name], weights[name]) for name in weights)
    shown = capsys.readouterr().out
    assert "| 5000 |" in shown
    assert "| all |" in shown


def test_a_dataset_is_checked_and_drawn(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = trained / "dataset"
    code = run_command_line(["train", "validate-dataset", str(dataset), "--training", str(trained / "optical")])
    report = json.loads((dataset / "validation" / "report.json").read_text())
    assert code == (1 if report["problems"] else 0)
    assert report["total"]["samples"] == 3
    assert report["splits"]["val"]["samples"] == 1
    assert "synthetic-1001" in capsys.readouterr().out
    for name in ("patches.png", "bands.png"):
        assert (dataset / "validation" / name).stat().st_size > 10_000


def test_label_files_become_a_dataset_and_a_training_is_tested(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = SyntheticSite(trained / "landscapes" / "site-1001-256", 1001)
    shutil.copytree(site.folder, tmp_path / "site")
    dataset, run, site_folder = tmp_path / "dataset", tmp_path / "run", tmp_path / "site"
    words = f"train create-dataset sentinel2 {dataset} --labels {site_folder} --offline --bands red nir ndvi".split()
    words += f"--large-dir {site_folder} --fast-dir {site_folder}".split()
    words += ["--patch-size", "64", "--max-cloud-cover", "100", "--min-cover", "0"]
    assert run_command_line(words) == 0
    assert "16 patches of 1 samples are added" in capsys.readouterr().out
    assert run_command_line(words) == 0
    assert "0 patches of 0 samples are added, 1 were there" in capsys.readouterr().out

    fit = f"train fit {run} --datasets {dataset} --encoder tu-test_resnet --model-arguments.encoder-depth 3".split()
    fit += ["--model-arguments.decoder-channels", "[16,12,8]", "--split-shares.train", "1", "--epochs", "1"]
    fit += ["--steps-per-epoch", "2", "--device", "cpu", "--loggers", "csv", "--loaders", "0"]
    assert run_command_line(fit) == 0
    assert load_checkpoint(run / "best.pt").bands == ("red", "nir", "ndvi")
    words = f"train test {run} --datasets {dataset} --device cpu".split()
    assert run_command_line(words) == 0
    scores = json.loads((run / "scores-dataset" / "scores.json").read_text())
    assert scores["patches"] == 16
    assert "AUROC" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "typed", "value"),
    [
        (
            "model_arguments", "--model-arguments.encoder-depth 4 --model-arguments.decoder-channels [64,32,16,8]",
            {"encoder_depth": 4, "decoder_channels": [64, 32, 16, 8]},
        ),
        ("normalization", "--normalization.slope 0 45", {"slope": (0.0, 45.0)}),
        ("losses", "--losses.bce 1 --losses.dice 2", {"bce": 1.0, "dice": 2.0}),
        (
            "loss_arguments", "--loss-arguments.tversky.alpha 0.2 --loss-arguments.tversky.beta 0.8",
            {"tversky": {"alpha": 0.2, "beta": 0.8}},
        ),
        ("split_shares", "--split-shares.train 0.8 --split-shares.val 0.2", {"train": 0.8, "val": 0.2}),
        ("split_named", '--split-named.val "Banks Island"', {"val": ["Banks Island"]}),
        ("card", "--card.licence CC-BY-4.0", {"licence": "CC-BY-4.0"}),
    ],
)  # fmt: skip
def test_what_help_shows_of_options_by_name_can_be_typed_so(option: str, typed: str, value: object) -> None:
    text = io.StringIO()
    app.help_print(("train", "fit"), console=Console(file=text, width=1000))
    assert f"such as {typed}" in text.getvalue()
    words = ["train", "fit", "run", "--datasets", "d", *shlex.split(typed)]
    _, bound, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert getattr(bound.arguments["options"], option) == value


def test_help_shows_how_every_option_by_name_is_typed() -> None:
    text = io.StringIO()
    app.help_print(("train", "fit"), console=Console(file=text, width=1000))
    tables = [field.name for field in dataclasses.fields(FitOptions) if str(field.type).startswith("dict")]
    assert len(tables) == 7
    assert [name for name in tables if f"such as --{name.replace('_', '-')}." not in text.getvalue()] == []


def test_the_recipe_of_the_bundled_models_has_options_that_there_are() -> None:
    recipe = read_recipe(bundled_recipe())
    assert set(recipe.fits) == set(bundled_models())
    for options in recipe.fits.values():
        bands = FitOptions(datasets=[Path("d")], **options).bands
        assert bands is None or set(bands) <= set(recipe.dataset.bands)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("ema = 0.8", "emma = 0.8", "recipe.toml, table models.all-bands or all: no option emma"),
        ("[dataset]", "[dataset]\nmin_quality = 1", "recipe.toml, table dataset: no option min_quality"),
        ("[landscapes]", "[scenes]", "recipe.toml is no recipe"),
    ],
)
def test_a_recipe_is_checked_before_anything_is_made(
    old: str, new: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert old in RECIPE
    Path("recipe.toml").write_text(RECIPE.replace(old, new))
    assert run_command_line(["train", "demo-models", "demo", "--recipe", "recipe.toml"]) == 2
    assert "".join(told.split()) in "".join(capsys.readouterr().err.split())
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.toml"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["create-dataset", "sentinel2", "d"], "exactly one of labels and annotators"),
        (["create-dataset", "sentinel2", "d", "--labels", "no-such-folder"], "no-such-folder"),
        (["fit", "r", "--datasets", "no-dataset"], "no-dataset holds no patch dataset"),
        (["fit", "r"], "datasets"),
        (["fit", "r", "--datasets", "d", "--epochs", "0"], "epochs must be a whole number"),
        (["test", "no-run"], "name the folder of a training"),
        (["validate-dataset", "x" * 300], "/dataset.json cannot be read: File name too long; check the path"),
        (["validate-dataset", "no-dataset"], "no-dataset holds no patch dataset"),
        (["crossval", "c", "--datasets", "d", "--folds", "2"], "folds must be a whole number from 3"),
        (["tune", "t", "--datasets", "d", "--hyperparameters", "none.toml"], "none.toml cannot be read"),
        (["demo-models", "m", "--recipe", "none.toml"], "none.toml cannot be read"),
        (["demo-models", "m", "--workers", "-1"], "workers must be a whole number of at least 1, got -1"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command_line(["train", *words]) == 2
    shown = "".join(capsys.readouterr().err.split())
    assert "".join(told.split()) in shown
    assert "Traceback" not in shown
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
