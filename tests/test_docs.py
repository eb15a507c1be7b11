"""README and docs say what is so: their examples run, their commands exist, their tables are those of the code."""

import importlib.util
import io
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine
from rich.console import Console

from darts.cli import app, run_command_line
from darts.commands.demo import DEMO_FOLDER
from darts.pipelines import PlanetPipeline, Sentinel2Pipeline
from darts.pipelines.stac_options import StacOptions
from darts_export.products import PRODUCTS
from darts_utils.bands import BANDS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEW_SOURCE = ROOT / "docs/contributing/new-source.md"
JOURNEYS = sorted((ROOT / "docs/journeys").glob("*.md"))  # tests/test_journeys.py follows them
GLOBAL_OPTIONS = {"--help", "--config-file", "--log-dir", "--log-plain", "--log-json", "--verbose"}
FENCE = re.compile(
    r"(?P<fragment><!-- fragment: [^>]+ -->\n)?"
    r"```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+(?:\.[a-z][a-z0-9-]+)*")
LINK = re.compile(r"\]\((?![a-z]+:)(?P<file>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")


def blocks(page: Path, language: str) -> list[str]:
    """Return the examples of a page in one language that are not marked as fragments."""
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [match["code"] for match in found if match["language"] == language and not match["fragment"]]


def run_python(page: Path) -> None:
    """Run the Python examples of a page, one after the other, as one script."""
    # A module of its own, so that dataclasses find the module of the classes that an example defines.
    module = ModuleType("example")
    sys.modules["example"] = module
    try:
        for number, code in enumerate(blocks(page, "python"), 1):
            exec(compile(code, f"{page_id(page)}, example {number}", "exec"), module.__dict__)
    finally:
        del sys.modules["example"]


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def with_python() -> list[Path]:
    return [page for page in PAGES if blocks(page, "python") and page != NEW_SOURCE and page not in JOURNEYS]


def darts_commands() -> Iterator[tuple[Path, list[str]]]:
    """Yield the arguments of every `darts` command line in README and docs."""
    for page in PAGES:
        for block in blocks(page, "bash"):
            for part in re.split(r"\n|&&", block.replace("\\\n", " ")):
                words = [word for word in shlex.split(part, comments=True) if word != "&"]
                if "darts" in words:
                    yield page, words[words.index("darts") + 1 :]


def commands_of(page: Path) -> list[list[str]]:
    return [arguments for where, arguments in darts_commands() if where == page]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it: the demo was run there, and there are an image of one's own, Planet's and a DEM."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _forget_folders(patch)
        assert run_command_line(["demo", "--size", "256", "--device", "cpu", "--log-plain"]) == 0
    with rasterio.open(next(folder.glob("darts-demo/output/*/optical.tif"))) as file:
        red, green, blue, nir = np.maximum(file.read(), 1001) - 1000  # without the offset of Level-2A
        profile = {"crs": file.crs, "transform": file.transform}
    own = np.stack([blue, green, red, nir]).astype("uint16")[:, 96:192, 96:192]  # small, so that the tests are fast
    _write_raster(folder / "my.tif", own, **profile)
    _write_raster(folder / "peel.tif", np.stack([*own[:3], *own[:3], own[3]]), **profile)
    _write_planet(folder / "planet", own, **profile)
    elevation = np.full((1, 64, 64), 250, "float32")
    corner = Affine(10, 0, -2_300_000, 0, -10, -100_000)
    _write_raster(folder / "41_16_10m_v4.1_dem.tif", elevation, crs="EPSG:3413", transform=corner, nodata=-9999)
    return folder


@pytest.fixture
def in_workplace(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workplace)
    _forget_folders(monkeypatch)
    return workplace


@pytest.mark.parametrize("page", with_python(), ids=page_id)
def test_python_examples_of_a_page_run_in_their_order(page: Path, in_workplace: Path) -> None:
    run_python(page)


def test_the_example_of_a_new_source_makes_its_tile(in_workplace: Path) -> None:
    run_python(NEW_SOURCE)
    scene = next(in_workplace.glob("darts-demo/output/*/optical.tif")).parent.name
    assert (in_workplace / "orthophoto-results" / scene / "prediction_segments.parquet").is_file()


@pytest.mark.parametrize("page", ["README.md", "docs/real-clips.md"])
def test_commands_for_ones_own_data_do_what_the_page_says(page: str, in_workplace: Path) -> None:
    commands = commands_of(ROOT / page)
    assert len(commands) >= 2
    for arguments in commands:
        if arguments[0] in ("import-scene", "run"):
            assert run_command_line([*arguments, "--log-plain"]) == 0, arguments
    scene = "peel" if "real-clips" in page else "my-scene"
    assert (in_workplace / "output/sentinel2-import" / scene / "prediction_segments.parquet").is_file()


def test_guides_show_the_commands_of_the_readme() -> None:
    shown = commands_of(ROOT / "README.md")
    guides = commands_of(ROOT / "docs/guides/own-scene.md") + commands_of(ROOT / "docs/guides/planet.md")
    assert len(guides) == 3
    assert all(arguments in shown for arguments in guides)


def test_the_demo_is_run_again_with_the_command_that_its_configuration_names(in_workplace: Path) -> None:
    heading = (in_workplace / "darts-demo/config.toml").read_text(encoding="utf-8").partition("[darts")[0]
    shown = [arguments for arguments in commands_of(ROOT / "docs/demo.md") if arguments[0] == "run"]
    assert shown == [["run", "sentinel2", "--config-file", "darts-demo/config.toml", "--overwrite"]]
    assert " ".join(shown[0]).replace("darts-demo", str(in_workplace / "darts-demo")) in heading


def test_the_demo_folder_in_the_checkout_is_not_taken_for_a_package() -> None:
    # uv refuses to run anything where a folder that matches the members has no pyproject.toml.
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]["workspace"]
    is_member = any(DEMO_FOLDER.match(glob) for glob in workspace["members"])
    assert not is_member or any(DEMO_FOLDER.match(glob) for glob in workspace.get("exclude", ()))


def test_every_darts_command_in_the_docs_has_only_options_that_exist() -> None:
    commands = list(darts_commands())
    assert len(commands) > 8
    for page, arguments in commands:
        _, rest, *_ = app.meta.parse_args(arguments, exit_on_error=False, print_error=False)
        tokens = rest.arguments["tokens"]
        _, bound, *_ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        assert bound is not None, (page, arguments)


def test_every_option_named_in_the_docs_exists() -> None:
    commands = (
        ("run", "sentinel2"), ("run", "planet"), ("prepare-data", "sentinel2"), ("prepare-data", "planet"),
        ("import-scene",), ("demo",), ("model", "info"), ("model", "convert"), ("merge",),
        ("status",), ("verify",), ("train", "create-dataset", "sentinel2"), ("train", "create-dataset", "planet"),
        ("train", "validate-dataset"), ("train", "fit"), ("train", "test"), ("train", "crossval"), ("train", "tune"),
        ("train", "demo-models"),
    )  # fmt: skip
    known = GLOBAL_OPTIONS.union(*(_options_of(*command) for command in commands))
    of_other_tools = {
        "--torch-backend", "--reinstall-package", "--no-sync", "--check", "--extra", "--strict", "--locked", "--frozen",
        "--upgrade-package", "--cache", "--case", "--ways", "--tiles", "--plain",
        "--data", "--full", "--address", "--array", "--block", "--cpus-per-task", "--exclude",
        "--gpus",
        "--all-packages", "--bind", "--build-arg", "--cleanenv", "--constraint", "--dest", "--env", "--file",
        "--find-links", "--no-default-groups", "--no-dev", "--no-emit-workspace", "--no-hashes", "--no-index", "--nv",
        "--output", "--output-file", "--package", "--pwd", "--python", "--quiet", "--rm", "--shm-size", "--tag",
        "--user", "--volume", "--hypothesis-profile",
        "--gpus-per-node", "--head", "--mem", "--nodes", "--ntasks", "--ntasks-per-node", "--port", "--requeue",
        "--signal", "--time",
    }  # fmt: skip
    for page in PAGES:
        if page.parent.name != "decisions" and page.name != "demo-models.md":
            named = set(OPTION.findall(page.read_text(encoding="utf-8")))
            # The part behind the dot may be a key of a table: the name of a model, of a loss, of a band.
            named = {name if name in known else name.partition(".")[0] for name in named}
            assert named - of_other_tools <= known, page


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for match in LINK.finditer(page.read_text(encoding="utf-8")):
        target = page.parent / match["file"] if match["file"] else page
        assert target.exists(), match[0]
        if match["anchor"]:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w]+", "-", heading.lower()).strip("-") for heading in headings}
            assert match["anchor"] in slugs, match[0]


def test_links_that_lead_nowhere_are_found_in_a_built_site(tmp_path: Path) -> None:
    site_links = _module(ROOT / "docs/site_links.py")
    (tmp_path / "guide").mkdir()
    (tmp_path / "index.html").write_text("""
        <h1 id="top">A</h1><a href="guide/">1</a><a href="guide/#there">2</a><a href="#top">3</a><a href="?q=1">4</a>
        <a href="https://example.org/x">5</a><img src="a%20b.png"><a href="guide/#gone">6</a><a href="gone.html">7</a>
    """)
    (tmp_path / "a b.png").write_bytes(b"")
    (tmp_path / "guide/index.html").write_text('<h2 id="there"></h2><a href=".."></a><img src="../gone.png">')
    assert site_links.broken_links(tmp_path) == [
        "guide/index.html: ../gone.png", "index.html: guide/#gone", "index.html: gone.html",
    ]  # fmt: skip


def test_the_picture_of_how_darts_fits_together_is_what_its_script_draws() -> None:
    assert _module(ROOT / "tools/draw_flow.py").main(["--check"]) == 0


def test_band_table_has_a_row_for_every_band(hooks: ModuleType) -> None:
    rows = first_cells(hooks.fill_markers("<!-- table: bands -->", "reference/bands.md"))
    assert rows == [f"`{name}`" for name in BANDS]
    assert "| `relative_elevation` | " in hooks.bands()
    assert "| float32 | int16 | -50 … 50 | 1/300 | -50 | -1 |" in hooks.bands()


def test_table_of_indices_has_a_row_for_every_index(hooks: ModuleType) -> None:
    from darts_preprocessing import INDICES, known_indices

    assert first_cells(hooks.indices()) == [f"`{name}`" for name in INDICES]
    others = [name for name in known_indices() if name not in INDICES]
    assert first_cells(hooks.indices("spyndex")) == [f"`{name}`" for name in others]


def test_product_table_has_a_row_for_every_export_band_with_all_its_files(hooks: ModuleType) -> None:
    table = hooks.fill_markers("<!-- table: products -->", "reference/products.md")
    assert first_cells(table)[: len(PRODUCTS)] == [f"`{token}`" for token in PRODUCTS]
    for product in PRODUCTS.values():
        for model in ("", "-<model>") if product.per_model else ("",):
            assert all(f"`{file.replace('{model}', model)}`" in table for file in product.files)
        for file in product.files if product.per_threshold else ():
            assert f"`{file.replace('{model}', '-t<percent>')}`" in table


@pytest.mark.parametrize(("pipeline", "cls"), [("planet", PlanetPipeline), ("sentinel2", Sentinel2Pipeline)])
def test_option_tables_have_a_row_for_every_parameter_with_its_meaning(
    hooks: ModuleType, pipeline: str, cls: type
) -> None:
    names = [field.name for field in fields(cls) if field.init and field.name not in ("default_dirs", "stac")]
    names += ["darts_dir", "fast_dir", "large_dir"]
    if pipeline == "sentinel2":
        names += [f"stac.{field.name}" for field in fields(StacOptions)]
    table = "\n".join([hooks.options("base"), hooks.options(pipeline)])
    rows = {row.split(" | ")[0].strip("| `"): row for row in table.splitlines()}
    assert set(names) <= set(rows)
    assert all(rows[name].rstrip("| ").split(" | ")[-1].strip() for name in names)
    assert "| `overlap` | whole number | `256` | Margin that neighbouring patches share, in pixels. |" in table


def test_tables_of_options_name_exactly_what_help_names(hooks: ModuleType) -> None:
    for pipeline in ("planet", "sentinel2"):
        table = "\n".join([hooks.options("base"), hooks.options(pipeline)])
        in_table = {"--" + cell.strip("`").replace("_", "-") for cell in first_cells(table) if cell.startswith("`")}
        in_help = _options_of("run", pipeline) - GLOBAL_OPTIONS
        assert in_table == {name for name in in_help if not re.match(r"--(\w+\.)?no-", name) or name in in_table}


def test_tables_of_options_say_what_tables_hold(hooks: ModuleType) -> None:
    assert "| `model_weights` | numbers by name |" in hooks.options("base")
    assert "| `stac.assets` | names by band |" in hooks.options("sentinel2")


def test_help_names_other_options_as_they_are_typed() -> None:
    commands = [("run", "sentinel2"), ("run", "planet"), ("merge",), ("train", "fit"), ("train", "tune")]
    commands += [("train", "create-dataset", "sentinel2"), ("train", "create-dataset", "planet")]
    for command in commands:
        in_python = {name.removeprefix("--").replace("-", "_") for name in _options_of(*command) if "-" in name[2:]}
        in_python -= {"image_id"}  # a column of labels
        assert not in_python & set(re.findall(r"\w+", _help_of(*command))), command


def test_help_shows_how_weights_of_models_are_typed() -> None:
    assert "--model-weights.NAME 2" in _help_of("run", "planet")
    words = ["run", "planet", "--model-weights.demo-optical", "2", "--model-weights.demo_full", "1"]
    _, bound, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert bound.arguments["pipeline"].model_weights == {"demo-optical": 2, "demo_full": 1}


def test_every_test_that_the_table_of_faults_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/guides/faults.md").read_text(encoding="utf-8")))
    files = [*(ROOT / "tests").glob("test_*.py"), *(ROOT / "darts-acquisition/tests").rglob("test_*.py")]
    there = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)}
    assert len(named) > 40
    assert named <= there, named - there


def test_an_unknown_marker_stops_the_build(hooks: ModuleType) -> None:
    with pytest.raises(KeyError):
        hooks.fill_markers("<!-- table: bandz -->", "index.md")


def test_pages_that_promise_a_table_have_its_marker() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert ("This page is made from the code." in text) <= ("<!-- table: " in text), page


def test_links_of_the_readme_become_links_of_the_site(hooks: ModuleType) -> None:
    index = hooks.fill_markers("<!-- file: README.md -->", "index.md")
    assert "](images/demo.jpg)" in index
    assert "](reference/darts-export.md)" in index
    assert "](docs/" not in index
    assert "](LICENSE)" not in index


def test_every_page_of_the_docs_is_in_the_navigation_once() -> None:
    # The decisions are put there by the hooks.
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {page_id(page).removeprefix("docs/") for page in PAGES if page_id(page).startswith("docs/")}
    named = re.findall(r": (\S+\.md)\b", navigation)
    assert sorted(page for page in pages if not page.startswith("decisions/0")) == sorted(named)


def test_every_decision_is_listed_and_put_into_the_navigation(hooks: ModuleType) -> None:
    files = sorted(page.name for page in (ROOT / "docs/decisions").glob("0*.md"))
    listed = hooks.fill_markers("<!-- table: decisions -->", "decisions/index.md")
    assert all(f"]({file})" in listed for file in files)
    config = SimpleNamespace(nav=[{"Home": "index.md"}, {"Decisions": "decisions/index.md"}])
    assert hooks.on_config(config).nav[1]["Decisions"] == ["decisions/index.md", *(f"decisions/{f}" for f in files)]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    return _module(ROOT / "docs/hooks.py")


def first_cells(table: str) -> list[str]:
    """Return the first cell of each row, without head and rule."""
    return [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]


def _module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"of_the_docs_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def _forget_folders(patch: pytest.MonkeyPatch) -> None:
    for name in ("DARTS_DATA_DIR", "DARTS_FAST_DATA_DIR", "DARTS_LARGE_DATA_DIR"):
        patch.delenv(name, raising=False)


def _options_of(*command: str) -> set[str]:
    """Return the options that a command's `--help` names."""
    return set(OPTION.findall(_help_of(*command)))


def _help_of(*command: str) -> str:
    text = io.StringIO()
    app.help_print(command, console=Console(file=text, width=1000))
    return text.getvalue()


def _write_raster(path: Path, values: np.ndarray, **profile: object) -> None:
    count, height, width = values.shape
    options = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype, **profile}
    with rasterio.open(path, "w", **options) as file:
        file.write(values)


def _write_planet(folder: Path, bands: np.ndarray, **profile: object) -> None:
    udm2 = np.zeros((8, *bands.shape[1:]), "uint8")
    udm2[0] = 1
    for place in ("scenes/20230701_194909_12_24a1", "tiles/4372514/5790392_4372514_2022-07-16_2459"):
        image = folder / place
        image.mkdir(parents=True)
        _write_raster(image / f"{image.name}_3B_AnalyticMS_SR.tif", bands, **profile)
        _write_raster(image / f"{image.name}_3B_udm2.tif", udm2, **profile)
        (image / f"{image.name}_metadata.json").write_text(json.dumps({"sun_azimuth": 170.0, "sun_elevation": 41.0}))
