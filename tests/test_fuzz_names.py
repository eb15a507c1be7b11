"""Scene ids and names of Planet folders of any form, through the commands that take them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import assume, example, given
from hypothesis import strategies as st
from rasterio import Affine

from darts.cli import run_command_line
from tests.conftest import OPTICAL, save_tiny_model
from tests.fuzzing import NASTY_NAMES, Sandbox, check_told, fuzzed, names, run_watched, sandbox

__all__ = ["sandbox"]

SIDE = 12
IDS = [
    "S2A_MSIL2A_20230719T204021_N0509_R014_T08WMA_20230720T012345",
    "20230719T204021_20230719T204255_T08WMA",
    "my-scene",
]
PLANET = ["20220730_205851_17_2459", "20220730_205853_2459", "5790392_4372514_2022-07-30_2459"]


def changed(name: str, place: int, put: str) -> str:
    place %= len(name)
    return name[:place] + put + name[place + 1 :]


def near(good: list[str]) -> st.SearchStrategy[str]:
    """Names that differ from a good one in a place."""
    return st.builds(
        changed, st.sampled_from(good), st.integers(0, 80), st.text(max_size=3) | st.sampled_from(NASTY_NAMES)
    )


ids = st.one_of(names(), near(IDS))
selections = st.sampled_from([
    ("run", "sentinel2", "--dry-run", "--offline"),
    ("run", "sentinel2", "--dry-run", "--offline", "--raw-data-source", "import"),
    ("run", "sentinel2", "--dry-run", "--offline", "--raw-data-source", "gee"),
    ("prepare-data", "sentinel2", "--dry-run", "--aux", "--raw-data-source", "import"),
])  # fmt: skip


def write_tif(path: Path, *, count: int = 4, dtype: str = "uint16") -> Path:
    profile = {
        "driver": "GTiff", "width": SIDE, "height": SIDE, "crs": "EPSG:32608", "count": count, "dtype": dtype,
        "transform": Affine(10, 0, 500_000, 0, -10, 7_700_000),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.full((count, SIDE, SIDE), 1500, dtype))
    return path


def save_model(box: Sandbox) -> Path:
    path = box.home / "optical.pt"
    return path if path.exists() else save_tiny_model(path, OPTICAL)


@fuzzed(short=10, share=0.1)
@given(scene_id=ids, command=selections, in_a_file=st.booleans())
def test_a_scene_id(sandbox: Sandbox, scene_id: str, command: tuple[str, ...], in_a_file: bool) -> None:
    sandbox.clear()
    file = sandbox.home / "ids.json"
    file.write_text(json.dumps([scene_id, IDS[0]]))
    chosen = ("--scene-id-file", file) if in_a_file else (f"--scene-ids={scene_id}",)
    sandbox.run(*command, *chosen, "--output-data-dir", sandbox.out)


@fuzzed(short=4, share=0.02)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=40).map(lambda text: json.dumps(text).encode())))
@example(b"[" * 100_000)
@example(b"[" + b"9" * 5_000 + b"]")
@example(b'["a", 3]')
@example(b'["\\ud800"]')
@example(b"[]")
def test_a_file_of_scene_ids(sandbox: Sandbox, content: bytes) -> None:
    file = sandbox.home / "ids.json"
    file.write_bytes(content)
    sandbox.run("run", "sentinel2", "--dry-run", "--offline", "--scene-id-file", file)


@fuzzed(short=3, share=0.03)
@given(scene_id=names() | near(IDS))
def test_a_scene_that_is_imported_under_a_name_and_run(sandbox: Sandbox, scene_id: str) -> None:
    sandbox.clear()
    tif = write_tif(sandbox.home / "scene.tif")
    put = ("import-scene", tif, "--acquisition-time", "2023-07-30T20:58:51Z", f"--scene-id={scene_id}")
    if sandbox.run(*put).code:
        return
    store = sandbox.data / "input" / "sentinel2" / "import-scenes"
    assert [path.name for path in store.glob("*.zarr")] == [f"import-s2-scene-{scene_id}.zarr"]
    run = ("run", "sentinel2", "--offline", "--raw-data-source", "import", f"--scene-ids={scene_id}", "--device", "cpu")
    seen = sandbox.run(*run, "--output-data-dir", sandbox.out, "--model-files", save_model(sandbox))
    if seen.code == 0:
        assert [path.name for path in sandbox.out.iterdir() if path.is_dir()] == [scene_id]


PATHS = [
    ("run", "sentinel2", "--offline", "--scene-ids", "x", "--output-data-dir"),
    ("run", "sentinel2", "--offline", "--scene-ids", "x", "--model-files"),
    ("run", "sentinel2", "--offline", "--dry-run", "--scene-ids", "x", "--raw-data-store"),
    ("run", "sentinel2", "--offline", "--scene-id-file"),
    ("run", "sentinel2", "--offline", "--aoi-file"),
    ("run", "sentinel2", "--offline", "--scene-ids", "x", "--darts-dir"),
    ("run", "planet", "--offline", "--scenes-dir"),
    ("run", "planet", "--offline", "--config-file"),
    ("status", "nowhere", "--log-dir"),
    ("status",), ("verify",), ("merge", "nowhere", "--out"), ("merge", "--out", "x"), ("model", "info"),
    ("model", "convert", "nowhere"), ("import-scene",), ("train", "validate-dataset"),
    ("import-scene", "scene.tif", "--acquisition-time", "2023-07-30T20:58:51Z", "--store"),
    ("import-scene", "scene.tif", "--acquisition-time", "2023-07-30T20:58:51Z", "--scl"),
    ("train", "fit", "run", "--datasets"), ("train", "test"), ("train", "demo-models", "x", "--recipe"),
    ("train", "create-dataset", "sentinel2", "set", "--offline", "--labels"),
]  # fmt: skip


@fuzzed(short=10, share=0.04)
@given(command=st.sampled_from(PATHS), path=names(), as_option=st.booleans())
@example(command=PATHS[1], path="[bold]x[/bold]", as_option=False)  # was taken for a list in JSON
@example(command=("status", "nowhere", "--log-dir"), path="\0", as_option=False)
@example(command=("import-scene",), path="\ud800", as_option=False)
@example(command=("status",), path="--log-json", as_option=False)
@example(
    command=("run", "sentinel2", "--offline", "--scene-ids", "x", "--darts-dir"),
    path="\x1e" + "0" * 90 + "\n",
    as_option=False,
)
@example(command=("run", "sentinel2", "--offline", "--scene-ids", "x", "--darts-dir"), path="0" * 47, as_option=True)
@example(command=("run", "sentinel2", "--offline", "--scene-id-file"), path="x" * 300, as_option=True)
@example(command=("status", "nowhere", "--log-dir"), path="x" * 300, as_option=False)
def test_a_path(sandbox: Sandbox, command: tuple[str, ...], path: str, as_option: bool) -> None:
    """Folders that a user names are the user's own, so what is written there is not looked at."""
    sandbox.clear()
    write_tif(sandbox.work / "scene.tif")
    path = os.path.join(sandbox.work / "deep" / "down", path.lstrip("/")) if as_option else path.lstrip("/")  # noqa: PTH118
    tokens = (*command, path)
    if command[-1].startswith("--"):
        tokens = (*command[:-1], f"{command[-1]}={path}")
    check_told(run_watched(lambda: run_command_line(list(tokens))), sandbox.home)


@pytest.mark.parametrize("option", ["output-data-dir", "model-files", "arcticdem-dir", "darts-dir", "raw-data-store"])
@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "x/" * 3_000])
def test_a_path_in_the_configuration_that_can_be_none(sandbox: Sandbox, option: str, path: str) -> None:
    (sandbox.home / "fuzz.toml").write_text(f"[darts]\n{option} = {json.dumps(path)}\n")
    command = ("run", "sentinel2", "--offline", "--scene-ids", "x", "--config-file", sandbox.home / "fuzz.toml")
    models = () if option == "model-files" else ("--model-files", save_model(sandbox))
    assert sandbox.run(*command, *models).code in (1, 2)


folder_names = st.one_of(
    near(PLANET),
    st.sampled_from(PLANET),
    names(),
    st.binary(min_size=1, max_size=60).map(os.fsdecode),
    st.from_regex(r"\d{8}_\d{6}_\d{2}_[0-9A-Za-z]{4}", fullmatch=True),
    st.from_regex(r"[0-9]{1,9}_[0-9]{1,9}_[0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9A-Za-z]{4}", fullmatch=True),
)


@pytest.mark.parametrize("dry", [True, False])
@fuzzed(short=3, share=0.03)
@given(name=folder_names, tile=folder_names, as_orthotile=st.booleans())
@example(os.fsdecode(b"\xcb_SR"), PLANET[2], False)
@example(PLANET[2], os.fsdecode(b"\xcb"), True)
def test_a_planet_folder(sandbox: Sandbox, dry: bool, name: str, tile: str, as_orthotile: bool) -> None:
    sandbox.clear()
    for part in (name, tile):
        assume("/" not in part and "\0" not in part and part not in ("", ".", ".."))
        try:
            assume(len(os.fsencode(part)) < 250)
        except UnicodeEncodeError:
            assume(False)
    root = sandbox.data / "input" / "planet"
    folder = root / "tiles" / tile / name if as_orthotile else root / "scenes" / name
    folder.mkdir(parents=True)
    shutil.copyfile(write_tif(sandbox.home / "scene.tif"), folder / "x_SR.tif")
    mode = ("--dry-run",) if dry else ("--device", "cpu", "--model-files", save_model(sandbox))
    seen = sandbox.run("run", "planet", "--offline", *mode, "--output-data-dir", sandbox.out)
    if not any(part.startswith(".") for part in (name, *([tile] if as_orthotile else []))):
        legible = all(part.isprintable() for part in (name, *([tile] if as_orthotile else [])))
        assert seen.code in ((0, 1) if legible else (2,)), seen.text
    if dry:
        sandbox.run("run", "planet", "--offline", "--dry-run", f"--image-ids={name}")
