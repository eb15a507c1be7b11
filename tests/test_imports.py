"""DESIGN, import order: siblings meet only in darts; what a member imports it declares; importing does nothing else."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]

SIBLINGS = ("acquisition", "preprocessing", "segmentation", "postprocessing", "export")
MAY_IMPORT = {
    "darts_utils": set(),
    **{f"darts_{name}": {"darts_utils"} for name in SIBLINGS},
    "darts_ensemble": {"darts_utils", "darts_segmentation"},
    "darts": {"darts_utils", "darts_ensemble", *(f"darts_{name}" for name in SIBLINGS)},
}
MEMBERS = list(MAY_IMPORT)

# Distributions of import names that need not be installed, or that share a namespace.
DISTRIBUTIONS = {
    "cupy": {"cupy-cuda13x", "cupy-cuda12x"},
    "cupyx": {"cupy-cuda13x", "cupy-cuda12x"},
    "cucim": {"cucim-cu13", "cucim-cu12"},
    "odc.geo": {"odc-geo"},
    "odc.stac": {"odc-stac"},
    "ee": {"earthengine-api"},
    "openvino": {"openvino"},
    "ray": {"ray"},
}
# Array code asks darts-utils for its namespace; a member that names cupy gets it through darts-utils' extra.
COMES_WITH_UTILS = {"cupy-cuda13x", "cupy-cuda12x"}


def folder(package: str) -> Path:
    return ROOT / package.replace("_", "-")


def sources(package: str) -> list[Path]:
    return sorted((folder(package) / "src" / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Give the absolute module names that a file imports anywhere, functions and TYPE_CHECKING included."""
    yield from _imports_below(ast.parse(path.read_text(encoding="utf-8")))


def optional_imports(path: Path) -> Iterator[tuple[str, int]]:
    """Give those whose failure the file catches by name: it works without them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Try):
            caught = {name.id for handler in node.handlers if handler.type for name in ast.walk(handler.type)
                      if isinstance(name, ast.Name)}  # fmt: skip
            if "ImportError" in caught:
                yield from (found for statement in node.body for found in _imports_below(statement))


def _imports_below(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "odc":
                yield from ((f"odc.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def normalized(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def declared(package: str) -> set[str]:
    project = tomllib.loads((folder(package) / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    return {normalized(line) for line in [*project["dependencies"], *(line for extra in extras for line in extra)]}


def distributions(module: str) -> set[str]:
    for name, known in DISTRIBUTIONS.items():
        if module == name or module.startswith(name + "."):
            return known
    return {normalized(name) for name in _installed().get(module.partition(".")[0], [])}


@cache
def _installed() -> Mapping[str, list[str]]:
    return packages_distributions()


@pytest.mark.parametrize("package", MEMBERS)
def test_every_member_has_source_and_marks_its_types(package):
    assert sources(package)
    assert (folder(package) / "src" / package / "py.typed").exists()
    assert not list((folder(package) / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("package", MEMBERS)
def test_no_module_has_the_name_of_something_public(package):
    public = set(getattr(importlib.import_module(package), "__all__", ()))
    assert public.isdisjoint(path.stem for path in (folder(package) / "src" / package).iterdir())


@pytest.mark.parametrize("package", MEMBERS)
def test_members_import_only_what_lies_below_them(package):
    upward = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(package)
        for module, line in imports(path)
        if (top := module.partition(".")[0]) in MEMBERS and top != package and top not in MAY_IMPORT[package]
    ]
    assert upward == []


@pytest.mark.parametrize("package", MEMBERS)
def test_members_declare_what_they_import(package):
    known = declared(package)
    missing = set()
    for path in sources(package):
        guarded = set(optional_imports(path))
        for module, line in imports(path):
            top = module.partition(".")[0]
            if top in sys.stdlib_module_names or top == package or (module, line) in guarded:
                continue
            offered = {normalized(top)} if top in MEMBERS else distributions(module)
            by_utils = "darts-utils" in known and offered & COMES_WITH_UTILS
            if not (offered & known or by_utils):
                missing.add(f"{path.relative_to(ROOT)}:{line} imports {module} ({sorted(offered) or 'not installed'})")
    assert sorted(missing) == []


@pytest.mark.parametrize("package", MEMBERS)
def test_members_declare_of_each_other_only_what_lies_below_them(package):
    above = {name for name in declared(package) if name.startswith("darts-")} - {
        name.replace("_", "-") for name in MAY_IMPORT[package]
    }
    assert above - {folder(package).name} == set()


LOGGER = re.compile(r"getLogger\(([^)]*)\)")

# Runs in a fresh process: imports the package and tells what that did to the world around it.
WATCH = """
import json, os, sys

events = []

def watch(event, args):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "subprocess.", "os.system", "os.posix_spawn")):
        events.append([event, repr(args)[:200]])
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.symlink"):
        events.append([event, repr(args)[:200]])
    elif event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        events.append([event, repr(args)[:200]])

sys.dont_write_bytecode = True
environment = dict(os.environ)
sys.addaudithook(watch)
__import__(sys.argv[1])
changed = sorted(key for key in {*environment, *os.environ} if environment.get(key) != os.environ.get(key))
gpu = "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized()
print(json.dumps({"events": events, "modules": sorted(sys.modules), "environment": changed, "gpu": gpu}))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Import a package in a process of its own, in an empty folder that is also its home; once for each package."""
    seen = {}

    def report(package):
        if package not in seen:
            home = tmp_path_factory.mktemp("home")
            result = subprocess.run(
                [sys.executable, "-c", WATCH, package],
                capture_output=True, text=True, cwd=home, timeout=300, check=False,
                env={**_environment(), "HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_CONFIG_HOME": str(home)},
            )  # fmt: skip
            assert result.returncode == 0, result.stderr
            seen[package] = json.loads(result.stdout.splitlines()[-1]) | {"files": sorted(map(str, home.rglob("*")))}
        return seen[package]

    return report


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("DARTS_")}


@pytest.mark.parametrize("package", MEMBERS)
def test_importing_touches_no_network_no_device_and_no_file(package, imported):
    report = imported(package)
    asks_the_platform = ("ldconfig", "'uname', '-p'")  # torch and h5py do
    assert [event for event in report["events"] if not any(name in event[1] for name in asks_the_platform)] == []
    assert report["files"] == []
    assert not report["gpu"]
    assert [key for key in report["environment"] if "DARTS" in key or "CUDA" in key or "AWS" in key] == []


@pytest.mark.parametrize("package", ["darts_utils", "darts_preprocessing", "darts_postprocessing", "darts_export",
                                     "darts_acquisition", "darts"])  # fmt: skip
def test_importing_what_runs_no_networks_loads_nothing_heavy(package, imported):
    assert {"torch", "cupy", "ray", "ee", "googleapiclient", "icechunk"} & set(imported(package)["modules"]) == set()


def test_the_command_line_loads_no_torch(imported):
    heavy = {"torch", "numba", "rasterio", "geopandas", "cv2", "spyndex", "darts_segmentation", "darts_ensemble"}
    assert heavy & set(imported("darts.cli")["modules"]) == set()


@pytest.mark.parametrize("package", MEMBERS)
def test_messages_go_to_the_log_of_darts(package):
    named = [name for path in sources(package) for name in LOGGER.findall(path.read_text(encoding="utf-8"))]
    assert [name for name in named if name == "__name__" or name.startswith(('"darts_', "'"))] == []


@cache
def _drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_imports", ROOT / "tools" / "draw_imports.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def between_modules():
    return _drawing().read_imports(_drawing().find_modules())


def test_groups_of_modules_import_only_what_lies_below_them(between_modules):
    assert _drawing().against_the_order(between_modules) == []


def test_no_modules_import_each_other_in_a_circle(between_modules):
    assert _drawing().find_circles(one for one in between_modules if one.when != _drawing().FOR_TYPES) == []


def test_the_pictures_of_imports_are_those_of_the_code():
    old = [path.name for path, text in _drawing().pictures().items() if path.read_text(encoding="utf-8") != text]
    assert old == [], "run tools/draw_imports.py and commit the pictures"


def test_the_page_on_architecture_tells_of_all_groups_highest_first():
    page = (ROOT / "docs/contributing/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE)
    layers = _drawing().LAYERS
    place = {group: number for number, layer in enumerate(layers) for group in layer}
    assert sorted(named) == sorted(place)
    by_member = [[place[name] for name in named if name.partition(".")[0] == member] for member in MEMBERS]
    assert by_member == [sorted(places, reverse=True) for places in by_member]


def test_an_import_is_told_by_when_it_takes_place(tmp_path):
    found = _imports_of(tmp_path, one="import darts.two\nif TYPE_CHECKING:\n    from darts import three\n",
                        two="def f():\n    from darts.three import x\n", three="")  # fmt: skip
    told = {(one.source, one.target): one.when for one in found}
    assert told == {("darts.one", "darts.two"): "at start", ("darts.one", "darts.three"): "for types",
                    ("darts.two", "darts.three"): "in a function"}  # fmt: skip


def test_a_circle_is_found_and_drawn_against_the_order(tmp_path):
    found = _imports_of(tmp_path, one="import darts.two\n", two="import darts.three\n", three="import darts.one\n")
    assert [set(circle) for circle in _drawing().find_circles(found)] == [{"darts.one", "darts.two", "darts.three"}]
    page = _drawing().draw_modules(["darts.one", "darts.two", "darts.three"], found)
    assert page.count(f'fill="{_drawing().AGAINST}"') == 1
    assert _drawing().find_circles(found[1:]) == []


def test_an_import_of_a_higher_group_is_drawn_against_the_order():
    upward = _drawing().Import("darts_utils.bands", "darts.plan", "in a function")
    beside = _drawing().Import("darts_export.tiles", "darts_ensemble.spread", "for types")
    downward = _drawing().Import("darts.plan", "darts_utils.bands", "at start")
    assert _drawing().against_the_order([upward, beside, downward]) == [upward, beside]
    modules = ["darts.plan", "darts_utils.bands"]
    red = [_drawing().draw_groups(modules, found).count(_drawing().AGAINST) for found in ([downward], [upward])]
    assert red == [1, 2]  # the legend, and the arrow


def _imports_of(folder: Path, **modules: str):
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return _drawing().read_imports({f"darts.{name}": folder / f"{name}.py" for name in modules})
