"""The journeys of the docs can be gone: their commands and scripts run in the order in which the pages have them."""

import contextlib
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest
import rasterio

import darts_export.products
import darts_export.tiles
from darts.cli import run_command_line
from darts_export import Product, missing_outputs
from tests.loopback import make_cubes
from tests.test_docs import FENCE, JOURNEYS, NEW_SOURCE, ROOT, blocks, commands_of, page_id

LAPTOP, OPERATOR, DEVELOPER = (ROOT / f"docs/journeys/{name}.md" for name in ("laptop", "operator", "developer"))
BENCHMARKS = ROOT / "docs/benchmarks.md"


def command_lines(page: Path) -> list[str]:
    """Return what a reader types, fragments too."""
    found = [match["code"] for match in FENCE.finditer(page.read_text("utf-8")) if match["language"] == "bash"]
    return "".join(found).replace("\\\n", " ").splitlines()


def scripts(page: Path) -> dict[str, str]:
    """Return the examples that a reader saves, by file name."""
    found = {match["title"]: match["code"] for match in FENCE.finditer(page.read_text("utf-8")) if match["title"]}
    return {**found, "orthophotos.py": blocks(NEW_SOURCE, "python")[0]} if page == DEVELOPER else found


def tags_of(file: Path) -> dict[str, str]:
    with rasterio.open(file) as raster:
        return raster.tags()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo was run."""
    folder = tmp_path_factory.mktemp("journey")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("DARTS_DATA_DIR", "DARTS_FAST_DATA_DIR", "DARTS_LARGE_DATA_DIR"):
            patch.delenv(name, raising=False)
        assert run_command_line(["demo", "--size", "256", "--device", "cpu", "--log-plain"]) == 0
    return folder


@pytest.fixture
def in_demo(demo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(demo)
    return demo


@pytest.mark.parametrize("page", JOURNEYS, ids=page_id)
def test_the_number_of_commands_is_told_on_the_page_and_beside_its_time(page: Path) -> None:
    number = len(command_lines(page))
    assert re.search(rf"^\*{number} commands;", page.read_text("utf-8"), re.MULTILINE), number
    row = rf"\]\(journeys/{page.name}\) \| {number} \|"
    assert re.search(row, BENCHMARKS.read_text("utf-8")), number


def test_a_scientist_gets_results_of_a_geotiff_and_other_ones_in_a_folder_of_their_own(in_demo: Path) -> None:
    copy = next(line for line in command_lines(LAPTOP) if line.startswith("cp "))
    subprocess.run(["bash", "-c", copy], check=True)
    for arguments in commands_of(LAPTOP):
        if arguments != ["demo"]:
            assert run_command_line([*arguments, "--log-plain"]) == 0, arguments
    results = in_demo / "output/sentinel2-import/my-scene"
    page = LAPTOP.read_text("utf-8")
    for name in ("preview.html", "prediction_segments.gpkg", "prediction_extent.gpkg", "probabilities.tif"):
        assert name in page
        assert (results / name).is_file()
    assert list(results.parent.glob("*.report.html"))
    thresholds = {
        folder: tags_of(folder / "my-scene/binarized.tif")["DARTS_binarizethreshold"]
        for folder in (results.parent, in_demo / "output/threshold-70")
    }
    assert set(thresholds.values()) == {"0.5", "0.7"}


def test_an_operator_fetches_computes_in_shares_checks_and_merges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "tools")
    practice = import_module("practice_archive")
    make_cubes(tmp_path / "practice/aux")  # empty ones of small chunks, so that little is fetched
    commands = commands_of(OPERATOR)
    assert ["status", "practice/output/sentinel2-cdse"] in commands
    with contextlib.ExitStack() as archive:
        archive.enter_context(practice.practice_archive(Path("practice"), 256, [2023]))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "practice/keys")
        for arguments in commands:
            if arguments[0] == "run":
                archive.close()  # the page ends it before the first run
            plain = [] if "--log-plain" in arguments else ["--log-plain"]
            assert run_command_line([*arguments, *plain]) == 0, arguments
    tiles = sorted(tmp_path.glob("practice/output/sentinel2-cdse/S2A*"))
    assert len(tiles) == 4
    assert all(missing_outputs(tile) == "none" for tile in tiles)
    assert len(gpd.read_parquet("practice/dataset/slumps.parquet")) > 0


def test_a_developer_writes_a_script_of_components(in_demo: Path) -> None:
    exec(compile(scripts(DEVELOPER)["bare_slopes.py"], "bare_slopes.py", "exec"), {})
    assert missing_outputs(in_demo / "bare-slopes", bands=("polygonized", "extent", "thumbnail")) == "none"


def test_a_developer_adds_a_product_by_a_row(in_demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example: dict[str, Product] = {}
    exec(blocks(DEVELOPER, "python")[1], {}, example)
    table = {**darts_export.products.PRODUCTS, "table": example["row"]}
    for module in (darts_export.products, darts_export.tiles):
        monkeypatch.setattr(module, "PRODUCTS", table)
    line = next(line for line in command_lines(DEVELOPER) if "table-results" in line)
    assert run_command_line([*line.split()[3:], "--log-plain"]) == 0
    tile = next((in_demo / "table-results").glob("S2*"))
    objects = pd.read_csv(tile / "prediction_segments.csv")
    assert objects.segment_id.tolist() == gpd.read_parquet(tile / "prediction_segments.parquet").segment_id.tolist()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that looks like a clone, in which everything is installed already."""
    programs = tmp_path / "programs"
    programs.mkdir()
    uv = f'[ "$1" = run ] || exit 0; shift\n[ "$1" != pytest ] || {{ shift; cd {ROOT}; exec pytest -p no:xdist -o addopts="--import-mode=importlib" "$@"; }}\nexec "$@"'  # noqa: E501
    for name, text in (("uv", uv), ("pip", "exit 0")):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    folder = tmp_path / "darts"
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()
    (folder / "tools").symlink_to(ROOT / "tools")
    monkeypatch.chdir(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("page", JOURNEYS, ids=page_id)
def test_a_journey_can_be_gone_word_for_word(page: Path, clone: Path) -> None:
    for name, text in scripts(page).items():
        (clone / name).write_text(text)
    script = "set -e\n" + "\n".join(blocks(page, "bash"))
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    said = re.sub(r"\s+", " ", done.stdout + done.stderr)
    text = page.read_text("utf-8")
    for promise in {
        LAPTOP: ("Planted slumps found:", "1 done, 0 skipped, 0 failed"),
        OPERATOR: (
            "8 tiles; optical data of 8 to fetch (10.3 MB)", "10 fetched", "killed", "done 8 100.0 %", "0 findings",
            "is written from 8 tiles",
        ),
        DEVELOPER: ("1 done, 0 failed", "95 patches of 6 landscapes", "no problems"),
    }[page]:  # fmt: skip
        assert promise in text
        assert promise in said, said[-4000:]
