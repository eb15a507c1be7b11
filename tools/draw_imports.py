"""Draw the imports between the modules of this repository as they are, beside the order that is meant.

    uv run --no-sync tools/draw_imports.py

`docs/images/imports.svg` shows groups of modules and what imports what, `docs/images/imports-modules.svg` every module;
a test compares them with the code. Circles, and imports against the order, are told of besides.
"""

import ast
import html
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("darts_utils",),
    ("darts_acquisition", "darts_preprocessing", "darts_segmentation", "darts_postprocessing", "darts_export"),
    ("darts_acquisition.testing", "darts_segmentation.training.scores", "darts_export.dataset"),
    ("darts_segmentation.training",),
    ("darts_ensemble",),
    ("darts",),
    ("darts.records",),
    ("darts.plan", "darts.display"),
    ("darts.executors", "darts.report"),
    ("darts.pipelines", "darts.demo"),
    ("darts.training",),
    ("darts.cli",),
    ("darts.commands",),
)
"""The order that is meant, lowest first: a group imports from layers below its own, never beside or above.

A group is a package without those below it that are groups too; `WITH` adds modules that lie beside it.
"""
WITH = {
    "darts.plan": ("darts.needs", "darts.auxiliary", "darts.inputs", "darts.strips"),
    "darts.cli": ("darts.config", "darts.__main__"),
}

AT_START, IN_FUNCTION, FOR_TYPES = "at start", "in a function", "for types"
"""When an import takes place; the first of them counts where a module imports another in several ways."""
WHEN = (AT_START, IN_FUNCTION, FOR_TYPES)
COLOURS = {AT_START: "#3b6ea5", IN_FUNCTION: "#7fa8d1", FOR_TYPES: "#c3cfdb"}
DASHES = {AT_START: "", IN_FUNCTION: "6 3", FOR_TYPES: "1.5 3"}
AGAINST = "#d62828"


@dataclass(frozen=True, order=True)
class Import:
    """One module that imports another."""

    source: str
    target: str
    when: str


def find_modules(root: Path = ROOT) -> dict[str, Path]:
    """Return the modules of all members by their dotted name."""
    found = {}
    for package in sorted(root.glob("darts*/src/darts*")):
        for file in sorted(package.rglob("*.py")):
            name = ".".join(file.relative_to(package.parent).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = file
    return found


def read_imports(modules: Mapping[str, Path]) -> list[Import]:
    """Return which of the modules import which; those of a package itself count for its `__init__`."""
    found: dict[tuple[str, str], str] = {}
    for source, file in modules.items():
        for name, when in _imported(ast.parse(file.read_text(encoding="utf-8")), AT_START):
            target = name
            while target and target not in modules:
                target = target.rpartition(".")[0]
            if target and target != source:
                found[source, target] = min(when, found.get((source, target), when), key=WHEN.index)
    return sorted(Import(source, target, when) for (source, target), when in found.items())


def _imported(tree: ast.AST, when: str) -> Iterator[tuple[str, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, when) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((f"{node.module}.{alias.name}", when) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imported(node, FOR_TYPES)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and when == AT_START:
            yield from _imported(node, IN_FUNCTION)
        else:
            yield from _imported(node, when)


def find_circles(imports: Iterable[Import]) -> list[list[str]]:
    """Return modules that import each other in a circle, each imported by the next; of a knot, enough to see it."""
    below: dict[str, list[str]] = defaultdict(list)
    for one in imports:
        below[one.source].append(one.target)
    circles = []
    while True:
        try:
            TopologicalSorter(below).prepare()
        except CycleError as error:
            circle = error.args[1]
            circles.append(circle)
            below[circle[1]].remove(circle[0])  # and look for another one
        else:
            return circles


def group_of(module: str) -> str:
    """Return the group that a module belongs to: the nearest one above it.

    Raises:
        KeyError: it lies in a package that `LAYERS` does not know.
    """
    for group, modules in WITH.items():
        if module in modules:
            return group
    name = module
    while name not in _LAYER:
        name = name.rpartition(".")[0]
        if not name:
            raise KeyError(f"{module} is in no group of LAYERS in tools/draw_imports.py; give it a place there")
    return name


_LAYER = {group: number for number, layer in enumerate(LAYERS) for group in layer}


def against_the_order(imports: Iterable[Import]) -> list[Import]:
    """Return the imports from a group to another one that does not lie below it."""
    groups = ((one, group_of(one.source), group_of(one.target)) for one in imports)
    return [one for one, above, below in groups if above != below and _LAYER[above] <= _LAYER[below]]


def ordered(modules: Iterable[str], imports: Sequence[Import]) -> list[str]:
    """Return modules as the order goes, highest first; within a group each before those that it imports."""
    inside: dict[str, list[str]] = defaultdict(list)
    for one in sorted(imports, key=lambda one: WHEN.index(one.when)):
        if group_of(one.source) == group_of(one.target):
            inside[one.source].append(one.target)
    done: dict[str, None] = {}
    begun: set[str] = set()

    def visit(module: str) -> None:
        if module not in begun:
            begun.add(module)
            for target in inside[module]:
                visit(target)
            done[module] = None

    places = {group: place for place, group in enumerate(group for layer in LAYERS for group in layer[::-1])}
    for module in sorted(modules, key=lambda module: (places[group_of(module)], module)):
        visit(module)
    return list(done)[::-1]


@dataclass(frozen=True)
class _Box:
    group: str
    x: float
    y: float
    width: float
    height: float
    modules: tuple[str, ...]

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


WIDTH, COLUMN, LINE, ROWS, HEAD, GAP, SPACE = 1360, 104, 12, 12, 18, 14, 40


def draw_groups(modules: Iterable[str], imports: Sequence[Import]) -> str:
    """Return a picture of the groups in their layers, with what imports what."""
    boxes = _place_boxes(modules)
    between: dict[tuple[str, str], list[Import]] = defaultdict(list)
    for one in imports:
        between[group_of(one.source), group_of(one.target)].append(one)
    parts = [_arrow(boxes[a], boxes[b], found) for (a, b), found in sorted(between.items()) if a != b]
    parts += [part for box in boxes.values() for part in _drawn(box)]
    right, bottom = max(box.x + box.width for box in boxes.values()), max(box.y + box.height for box in boxes.values())
    parts += _legend(20, bottom + 24)
    return _picture(max(WIDTH, right + 20), bottom + 44, parts)


def _place_boxes(modules: Iterable[str]) -> dict[str, _Box]:
    members: dict[str, list[str]] = defaultdict(list)
    for module in sorted(modules):
        members[group_of(module)].append(module)
    boxes: dict[str, _Box] = {}
    y = 20.0
    for layer in LAYERS[::-1]:
        columns = {group: math.ceil(len(members[group]) / ROWS) or 1 for group in layer}
        widths = {group: max(columns[group] * COLUMN, 7 * len(group)) + 2 * 8 for group in layer}
        free = WIDTH - sum(widths.values()) - GAP * (len(layer) - 1)
        aside = 0.0 if free < WIDTH / 2 else (0.15 if len(boxes) % 2 else -0.15)  # so that lines pass beside boxes
        x = max(free * (0.5 + aside), 20)
        rows = max(math.ceil(len(members[group]) / columns[group]) for group in layer)
        for group in layer:
            own = math.ceil(len(members[group]) / columns[group])
            boxes[group] = _Box(group, x, y, widths[group], HEAD + own * LINE + 8, tuple(members[group]))
            x += widths[group] + GAP
        y += HEAD + rows * LINE + 8 + SPACE
    return boxes


def _drawn(box: _Box) -> Iterator[str]:
    yield f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="5" class="box"/>'
    yield f'<text x="{box.x + 8:g}" y="{box.y + 14:g}" class="name">{box.group}</text>'
    columns = round((box.width - 16) / COLUMN) or 1
    rows = math.ceil(len(box.modules) / columns)
    for place, module in enumerate(box.modules):
        x, y = box.x + 8 + place // rows * COLUMN, box.y + HEAD + 9 + place % rows * LINE
        short = module.removeprefix(f"{box.group}.") if module != box.group else "(itself)"
        yield f'<text x="{x:g}" y="{y:g}">{html.escape(short.removeprefix("darts."))}</text>'


def _arrow(above: _Box, below: _Box, found: Sequence[Import]) -> str:
    """Return a line from the bottom of a box to the top of another; one that goes up is red."""
    wrong = bool(against_the_order(found))
    start, end = (above.y + above.height, below.y) if above.y <= below.y else (above.y, below.y + below.height)
    lean = max(-1.0, min(1.0, (below.middle - above.middle) / (WIDTH / 2)))
    x, to = above.middle + lean * above.width * 0.45, below.middle - lean * below.width * 0.45
    bend = (end - start) * 0.4
    when = min((one.when for one in found), key=WHEN.index)
    title = "; ".join(f"{one.source} imports {one.target} ({one.when})" for one in found[:1])
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f'<path d="M{x:.0f} {start:.0f}C{x:.0f} {start + bend:.0f} {to:.0f} {end - bend:.0f} {to:.0f} {end:.0f}" '
        f'fill="none" stroke="{AGAINST if wrong else COLOURS[when]}" '
        f'stroke-width="{0.7 + 0.3 * len(found) ** 0.5:.2f}" '
        f'stroke-dasharray="{DASHES[when]}" opacity="{1 if wrong else 0.75}"><title>{title}{more}</title></path>'
    )


CELL, LEFT, TOP = 4, 240, 20


def draw_modules(modules: Iterable[str], imports: Sequence[Import]) -> str:
    """Return a picture with a row and a column a module: a mark where the row's module imports the column's."""
    names = ordered(modules, imports)
    place = {name: number for number, name in enumerate(names)}
    marks: dict[str, list[str]] = defaultdict(list)
    wrong = set(against_the_order(imports))
    for one in imports:
        row, column = place[one.source], place[one.target]
        kind = AGAINST if one in wrong or column < row else COLOURS[one.when]
        marks[kind].append(f"M{LEFT + column * CELL} {TOP + row * CELL}h{CELL}v{CELL}h-{CELL}z")
    side = len(names) * CELL
    starts = [0, *(n for n, (a, b) in enumerate(pairwise(names), 1) if group_of(a) != group_of(b)), len(names)]
    parts = []
    for first, stop in pairwise(starts):
        at, size = first * CELL, (stop - first) * CELL
        parts.append(f'<rect x="{LEFT + at}" y="{TOP + at}" width="{size}" height="{size}" class="own"/>')
        parts.append(f'<path d="M0 {TOP + at}H{LEFT + side}M{LEFT + at} {TOP}V{TOP + side}" class="line"/>')
        parts.append(f'<text x="4" y="{TOP + at + size / 2 + 3:g}" class="name">{group_of(names[first])}</text>')
    for number, name in enumerate(names):
        parts.append(
            f'<text x="{LEFT - 2}" y="{TOP + (number + 0.8) * CELL:g}" class="tiny">{name.split(".")[-1]}</text>'
        )
    parts += [f'<path d="{"".join(paths)}" fill="{colour}"/>' for colour, paths in sorted(marks.items())]
    parts += _legend(LEFT, TOP + side + 22)
    return _picture(LEFT + side + 20, TOP + side + 44, parts)


def _legend(x: float, y: float) -> Iterator[str]:
    for number, (text, colour) in enumerate([*COLOURS.items(), ("against the order", AGAINST)]):
        at = x + number * 150
        dashes = DASHES.get(text, "")
        yield f'<path d="M{at:g} {y:g}h26" stroke="{colour}" stroke-width="3" stroke-dasharray="{dashes}"/>'
        yield f'<text x="{at + 32:g}" y="{y + 3:g}">{text}</text>'


def _picture(width: float, height: float, parts: Iterable[str]) -> str:
    style = (
        "text{font:9px sans-serif;fill:#222}.name{font-weight:bold;font-size:11px}"
        ".tiny{font-size:3.4px;text-anchor:end}"
        ".box{fill:#fff;stroke:#667}.own{fill:#eef2f6}.line{stroke:#d5dbe2;stroke-width:.5;fill:none}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}">'
    return "\n".join(
        [head, f"<style>{style}</style>", '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>\n"]
    )


def pictures() -> dict[Path, str]:
    """Return the pictures of the code as it is, by their files."""
    modules = find_modules()
    imports = read_imports(modules)
    return {
        IMAGES / "imports.svg": draw_groups(modules, imports),
        IMAGES / "imports-modules.svg": draw_modules(modules, imports),
    }


def main() -> None:
    """Write the pictures, and tell what is against the order."""
    modules = find_modules()
    imports = read_imports(modules)
    print(f"{len(modules)} modules, {len(imports)} imports between them")
    for circle in find_circles(one for one in imports if one.when != FOR_TYPES):
        print("circle:", " <- ".join(circle))
    for one in against_the_order(imports):
        print(f"against the order: {one.source} imports {one.target} ({one.when})")
    for path, text in pictures().items():
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
