"""Draw how darts fits together, for the first page of the docs: what comes in, the steps and their packages, the files.

    python tools/draw_flow.py [--out docs/images/flow.svg] [--check]

The picture is plain SVG and the same each time; `--check` tells whether the file is that picture.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from darts_utils.store import replacing

PICTURE = Path(__file__).resolve().parent.parent / "docs/images/flow.svg"

WIDTH, HEIGHT = 980, 356
BOX_WIDTH, GAP = 138, 24
LINE = 15
INK, PAPER, RULE = "#22303a", "#ffffff", "#9fb0ba"
SOURCE, STEP, RESULT, AROUND = "#eef3e8", "#e2f1ef", "#fdeeda", "#f2f2f5"


@dataclass(frozen=True)
class Box:
    """A step, what it is in words, and the package it lives in."""

    title: str
    package: str
    lines: tuple[str, ...]
    fill: str = STEP


STEPS = (
    Box("load", "darts-acquisition", ("bands as reflectance,", "quality of each pixel,", "elevation, trends")),
    Box("features", "darts-preprocessing", ("all on one grid:", "NDVI, slope, aspect,", "hillshade, trends …")),
    Box("probability", "-segmentation, -ensemble", ("networks in patches,", "their mean and", "their spread")),
    Box("objects", "darts-postprocessing", ("threshold, clear of", "edges and clouds,", "large enough")),
    Box("files", "darts-export", ("rasters, polygons,", "extent, picture,", "page, STAC"), RESULT),
    Box("dataset", "darts merge", ("slumps of many tiles", "joined and followed", "over the years"), RESULT),
)
SOURCES = (
    ("Sentinel-2", "Copernicus, AWS, STAC, Earth Engine"),
    ("PlanetScope", "folders as delivered"),
    ("your own files", "GeoTIFF, SAFE"),
    ("ArcticDEM", "elevation of the ground"),
    ("Landsat trends", "two decades of change"),
)
AROUND_LINES = (
    ("darts", "one command for all of it: which tiles, one machine or a cluster, restart, reports, training"),
    ("darts-utils", "what all share: the band table, grids, arrays, safe writing, errors"),
)


def draw() -> str:
    """Return the picture as SVG."""
    shapes = [*_sources(16), *_steps(128), *_around(256)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12" role="img" aria-label="How darts fits together">'
    )
    marker = (
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>'
    )
    ground = f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{PAPER}"/>'
    return "\n".join([head, marker, ground, *shapes, "</svg>"]) + "\n"


def _sources(top: int) -> Iterator[str]:
    width = (WIDTH - 2 * 16 - 4 * 12) / 5
    for number, (name, told) in enumerate(SOURCES):
        left = 16 + number * (width + 12)
        yield _rectangle(left, top, width, 64, SOURCE)
        yield _text(left + width / 2, top + 22, name, weight="bold")
        for line, part in enumerate(_wrapped(told, 24)):
            yield _text(left + width / 2, top + 40 + line * LINE, part)
    middle = _left_of(0) + BOX_WIDTH / 2
    yield f'<path d="M{middle:g} {top + 64} V{top + 108}" stroke="{INK}" marker-end="url(#tip)"/>'
    yield _text(middle + 10, top + 90, "downloaded once, verified, kept on disk: runs need no network", anchor="start")


def _steps(top: int) -> Iterator[str]:
    for number, box in enumerate(STEPS):
        left = _left_of(number)
        yield _rectangle(left, top, BOX_WIDTH, 104, box.fill)
        yield _text(left + BOX_WIDTH / 2, top + 22, box.title, weight="bold", size=14)
        for line, part in enumerate(box.lines):
            yield _text(left + BOX_WIDTH / 2, top + 44 + line * LINE, part, size=11)
        yield _text(left + BOX_WIDTH / 2, top + 95, box.package, size=9, colour="#4b6a78")
        if number:
            yield f'<path d="M{left - GAP:g} {top + 52} H{left - 2:g}" stroke="{INK}" marker-end="url(#tip)"/>'


def _around(top: int) -> Iterator[str]:
    for number, (name, told) in enumerate(AROUND_LINES):
        y = top + number * 46
        yield _rectangle(16, y, WIDTH - 32, 36, AROUND)
        yield _text(30, y + 23, name, weight="bold", anchor="start")
        yield _text(120, y + 23, told, anchor="start")


def _left_of(number: int) -> float:
    return 16 + number * (BOX_WIDTH + GAP) + (WIDTH - 32 - 6 * BOX_WIDTH - 5 * GAP) / 2


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _rectangle(left: float, top: float, width: float, height: float, fill: str) -> str:
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="5" fill="{fill}" stroke="{RULE}"/>'
    )


def _text(
    x: float, y: float, text: str, *, weight: str = "normal", size: int = 12, anchor: str = "middle", colour: str = INK
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}" '
        f'fill="{colour}">{escape(text)}</text>'
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the picture, or check it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=PICTURE)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if options.check:
        same = options.out.is_file() and options.out.read_text(encoding="utf-8") == draw()
        print(f"{options.out} {'is' if same else 'is not'} what this script draws", file=sys.stderr)
        return 0 if same else 1
    with replacing(options.out) as temporary:
        temporary.write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
