"""MkDocs hooks: tables that are made from the code, so that docs and code cannot drift apart.

A page holds a marker on a line of its own, and the site shows the table in its place:

    <!-- table: bands -->                 the band table
    <!-- table: products -->              files of each export band
    <!-- table: indices -->               our table of indices; `indices spyndex` gives those of spyndex besides
    <!-- table: options planet -->        parameters of a pipeline: base, planet or sentinel2
    <!-- table: commands -->              what `darts --help` lists
    <!-- table: decisions -->             the pages of docs/decisions
    <!-- file: CHANGELOG.md -->           a file of the repository, its links turned into links of the site
"""

import ast
import dataclasses
import inspect
import itertools
import posixpath
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MARKER = re.compile(r"^<!-- (table|file): (.+?) -->$", re.MULTILINE)
TYPES = {"assets": "names by band"}
"""Types of fields of which more is known than their annotation says."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


def on_config(config: Any) -> Any:
    """Put every decision into the navigation (called by MkDocs)."""
    for section in config.nav:
        if "Decisions" in section:
            section["Decisions"] = ["decisions/index.md", *(f"decisions/{page.name}" for page in _decisions())]
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replace the markers of a page (called by MkDocs)."""
    return fill_markers(markdown, page.file.src_uri)


def fill_markers(markdown: str, page: str) -> str:
    """Return a page with its markers replaced; `page` is its path below `docs/`.

    Raises:
        KeyError: a marker names an unknown table.
    """
    return MARKER.sub(lambda match: _content(match[1], match[2], page), markdown)


def bands() -> str:
    """Return the band table."""
    from darts_utils.bands import BANDS

    rows = (
        (
            f"`{band.name}`",
            band.long_name,
            band.units,
            band.memory,
            band.disk,
            f"{band.valid[0]:g} … {band.valid[1]:g}",
            _number(band.scale),
            _number(band.offset),
            "" if band.nodata is None else band.nodata,
        )
        for band in BANDS.values()
    )
    head = ("band", "meaning", "units", "memory", "disk", "valid range", "scale", "offset", "nodata")
    return _table(head, rows)


def products() -> str:
    """Return the product table."""
    from darts_export.products import DEBUG_FILE, PRODUCTS

    rows = [(f"`{product.token}`", ", ".join(_file_names(product)), product.contents) for product in PRODUCTS.values()]
    rows.append(("any variable", "`<name>.tif`", "the variable of this name, as the band table says"))
    rows.append(("(`--debug-data`)", f"`{DEBUG_FILE}`", "the whole tile as NetCDF"))
    return _table(("export band", "files", "contents"), rows)


def indices(source: str = "") -> str:
    """Return the table of indices; with "spyndex" that of the others, which spyndex knows."""
    from darts_preprocessing import INDICES, Index, known_indices

    def constants(index: Index) -> str:
        return ", ".join(
            f"{name} = {'…' if value is None else f'{value:g}'}" for name, value in index.constants.items()
        )

    others = [index for name, index in known_indices().items() if name not in INDICES]
    rows = (
        (f"`{index.name}`", index.long_name, f"`{index.formula}`", constants(index), _linked(index.source))
        for index in (others if source == "spyndex" else INDICES.values())
    )
    return _table(("index", "meaning", "formula", "constants", "source"), rows)


def options(pipeline: str) -> str:
    """Return the parameters that a pipeline adds to those of its base; `base` gives those of all pipelines."""
    from darts.pipelines.base import _BasePipeline
    from darts.pipelines.sequential_v2 import PlanetPipeline, Sentinel2Pipeline

    cls = {"base": _BasePipeline, "planet": PlanetPipeline, "sentinel2": Sentinel2Pipeline}[pipeline]
    shared = set() if cls is _BasePipeline else {name for name, *_ in parameters(_BasePipeline)}
    rows = [
        (f"`{name}`", type_, default, _escaped(text))
        for name, type_, default, text in parameters(cls)
        if name not in shared
    ]
    return _table(("name", "type", "default", "meaning"), rows)


def parameters(cls: type) -> Iterator[tuple[str, ...]]:
    """Yield name, type, default and docstring of the fields of an options dataclass; groups give their own fields."""
    docs = _field_docs(cls)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        group = _inner(field.type)
        if dataclasses.is_dataclass(group):
            # Groups keep their name in front, but for those that the command line spreads out (name="*").
            prefix = "" if hasattr(field.type, "__metadata__") else f"{field.name}."
            for name, *rest in parameters(typing.cast(type, group)):
                yield prefix + name, *rest
        else:
            yield field.name, TYPES.get(field.name) or _type(field.type), _default(field), docs[field.name]


def commands() -> str:
    """Return the commands and their first help line."""
    from darts.cli import app

    def rows(app_: Any, path: str) -> Iterator[tuple[str, str]]:
        for name in sorted(name for name in app_ if not name.startswith("-")):
            command = app_[name]
            if any(not sub.startswith("-") for sub in command):
                yield from rows(command, f"{path} {name}")
            else:
                yield f"`{path} {name}`", command.help.strip().splitlines()[0]

    return _table(("command", "what it does"), rows(app, "darts"))


def decisions() -> str:
    """Return the decisions by number."""
    titles = ((page, page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")) for page in _decisions())
    return _table(("number", "title"), ((title[:4], f"[{title[5:]}]({page.name})") for page, title in titles))


TABLES: dict[str, Callable[..., str]] = {
    "bands": bands,
    "products": products,
    "indices": indices,
    "options": options,
    "commands": commands,
    "decisions": decisions,
}


def _content(kind: str, name: str, page: str) -> str:
    if kind == "file":
        return _file(name, page)
    table, *arguments = name.split()
    return TABLES[table](*arguments)


def _file(name: str, page: str) -> str:
    folder = posixpath.dirname(page) or "."

    def link(match: re.Match[str]) -> str:
        target = _page(posixpath.normpath(posixpath.join(posixpath.dirname(name), match[3])))
        # What the site does not hold (the licence, for one) keeps its text and loses its link.
        return f"{match[1]}[{match[2]}]({posixpath.relpath(target, folder)})" if target else match[2]

    return LINK.sub(link, (ROOT / name).read_text(encoding="utf-8"))


def _page(target: str) -> str | None:
    """Return the page of the site, below `docs/`, that shows a file or folder of the repository."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    if re.fullmatch(r"darts(-[a-z]+)?", target):
        return f"reference/{target}.md"
    return {"CONTRIBUTING.md": "contributing/setup.md", "CHANGELOG.md": "changelog.md"}.get(target)


def _file_names(product: Any) -> list[str]:
    suffixes = ["", *(["-<model>"] * product.per_model), *(["-t<percent>"] * product.per_threshold)]
    return [f"`{file.replace('{model}', suffix)}`" for suffix in suffixes for file in product.files]


def _decisions() -> list[Path]:
    return sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _linked(source: str) -> str:
    """Return a source with its address, or its DOI, as a link."""
    if source.startswith("http"):
        return f"[{source.removeprefix('https://').removeprefix('http://').partition('/')[0]}]({source})"
    return re.sub(r"doi:(\S+)", r"[doi](https://doi.org/\1)", source)


def _number(value: float) -> str:
    return f"1/{round(1 / value)}" if 0 < value < 1 and f"{value:g}" != repr(value) else f"{value:g}"


def _escaped(text: str) -> str:
    return re.sub(r"([<>|*])", r"\\\1", text)


def _field_docs(cls: type) -> dict[str, str]:
    """Return the string below each field of a dataclass and of its bases."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]).body
        for field, below in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                docs[ast.unparse(field.target)] = " ".join(ast.literal_eval(below.value).split())
    return docs


def _inner(annotation: Any) -> Any:
    return annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation


def _type(annotation: Any) -> str:
    annotation = _inner(annotation)
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return " or ".join(_type(part) for part in typing.get_args(annotation) if part is not types.NoneType)
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    if typing.get_origin(annotation) is dict:
        return f"{_type(typing.get_args(annotation)[1])}s by name"
    if typing.get_origin(annotation) is list:
        return f"list of {_type(typing.get_args(annotation)[0])}"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "yes or no"}.get(
        annotation.__name__, annotation.__name__.lower()
    )


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
