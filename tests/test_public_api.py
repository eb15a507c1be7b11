"""What members offer: `__all__` names it, it is described, and the reference pages show it."""

import ast
import importlib
import inspect
import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARIES = (
    "darts_acquisition", "darts_preprocessing", "darts_segmentation", "darts_ensemble", "darts_postprocessing",
    "darts_export",
)  # fmt: skip
REFERENCE = ROOT / "docs" / "reference"


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package.replace("_", "-") / "src" / package).rglob("*.py"))


@pytest.mark.parametrize("package", LIBRARIES)
def test_all_names_what_the_package_imports_and_nothing_else(package):
    tree = ast.parse(sources(package)[0].read_text(encoding="utf-8"))
    imported = [alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom)
                for alias in node.names]  # fmt: skip
    assert sources(package)[0].name == "__init__.py"
    assert sorted(imported) == sorted(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", [*LIBRARIES, "darts.pipelines", "darts.demo", "darts_export.dataset"])
def test_everything_public_is_described(package):
    module = importlib.import_module(package)
    silent = []
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            described = bool(thing.__doc__) and not thing.__doc__.startswith(f"{name}(")  # which dataclasses give
            silent += [] if described else [name]
            if inspect.isclass(thing):
                silent += [f"{name}.{inner}" for inner, value in vars(thing).items() if _is_silent(inner, value)]
        elif name not in _described_constants(package.partition(".")[0]):
            silent.append(name)
    assert silent == []


@pytest.mark.parametrize("package", LIBRARIES)
def test_the_reference_page_shows_all_of_a_package(package):
    page = (REFERENCE / f"{package.replace('_', '-')}.md").read_text(encoding="utf-8")
    options = re.search(rf"^::: {package}\n((?:    .*\n)*)", page, re.MULTILINE)
    assert options is not None
    assert "members" not in options[1]  # then the page shows what `__all__` names
    # But for a name that a module has too: the page would take it for the module.
    names = importlib.import_module(package).__all__
    hidden = [name for name in names if (sources(package)[0].parent / f"{name}.py").exists()]
    assert [name for name in hidden if f"\n::: {package}.{name}.{name}\n" not in page] == []


@pytest.mark.parametrize("page", sorted(REFERENCE.glob("darts*.md")), ids=lambda page: page.stem)
def test_reference_pages_name_only_what_there_is(page):
    named = re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert named
    for path in named:
        _find(path)


def test_the_reference_page_of_pipelines_shows_the_hooks_of_a_new_one():
    from darts.pipelines.hooks import Hooks

    page = (REFERENCE / "darts.md").read_text(encoding="utf-8")
    shown = re.findall(r"^        - (_\w+)$", page, re.MULTILINE)
    tree = ast.parse(Path(inspect.getfile(Hooks)).read_text(encoding="utf-8"))
    cls = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    methods = [node.name for node in cls.body if isinstance(node, ast.FunctionDef)]
    hooks = methods[: methods.index("plan")]
    assert sorted(shown) == sorted(hooks)
    assert set(Hooks.__abstractmethods__) <= set(shown)


def _is_silent(name: str, value: object) -> bool:
    value = getattr(value, "__func__", value)
    if name.startswith("_") or not (inspect.isfunction(value) or isinstance(value, property)):
        return False
    return not (value.fget if isinstance(value, property) else value).__doc__


def _described_constants(package: str) -> set[str]:
    """Return the names of a member that are assigned a value and have a text below them."""
    found = set()
    for path in sources(package):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for statement, text in pairwise(body):
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                targets = getattr(statement, "targets", [getattr(statement, "target", None)])
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def _find(path: str) -> object:
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            thing = getattr(thing, name)
        return thing
    raise AssertionError(f"there is no {path}")
