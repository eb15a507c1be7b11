"""How fast a tile's files are written and how much memory that takes, beside a plain reference on the same tile.

    uv run benchmarks/export.py [--size 10980] [--repeat 1] [--skip-reference]

The reference (`benchmarks/reference/export.py`) is what a user would write with rasterio, SciPy and geopandas. The tile
is synthetic and always the same: some 3200 objects, a wedge of nodata, ragged clouds. Each way runs in a process of its
own: every export band alone, then all default ones in one call, whose peak memory above the tile is told.

The exit status is 1 where a goal is missed at full size.
"""

import argparse
import importlib
import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import xarray as xr
from measuring import GIB, Goal, in_own_process, machine, peak_memory, print_goals, print_machine, timed

from darts_export import DEFAULT_BANDS, export_tile
from darts_postprocessing import prepare_export
from darts_utils.testing import tile_on, utm_geobox

FULL_SIZE = 10980
WARM_UP_PX = 600
WEDGE = 0.16
PACKAGES = ("numpy", "numba", "rasterio", "shapely", "geopandas", "pyogrio", "pyarrow", "opencv-python-headless")

LEAST_RATIO = 2.0


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=FULL_SIZE, help="pixels along each side of the tile")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, of which the fastest counts")
    parser.add_argument("--skip-reference", action="store_true", help="ours alone")
    parser.add_argument("--one-process", action="store_true", help="start no others: quicker, but memory is not right")
    parser.add_argument("--json", type=Path, help="file that keeps the figures")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.size < 1 or options.repeat < 1:
        parser.error("--size and --repeat must be at least 1")
    if options.part:
        options.json.write_text(json.dumps(measure(PARTS[options.part](), options)))
        return

    figures: dict[str, Any] = {"size": options.size, "repeat": options.repeat} | machine(*PACKAGES)
    given = sys.argv[1:] if arguments is None else arguments
    for part in PARTS:
        if options.skip_reference and part == "reference":
            continue
        print(f"measuring {part} …", file=sys.stderr, flush=True)
        figures[part] = (
            measure(PARTS[part](), options) if options.one_process else in_own_process(__file__, part, given)
        )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    goals = goals_of(figures)
    print_figures(figures, goals)
    if options.size >= FULL_SIZE and not all(met for *_, met in goals):
        sys.exit(1)


# What is measured

Way = Callable[[xr.Dataset, Path, tuple[str, ...]], None]


def measure(write: Way, options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds and CPU seconds of each export band alone and of all together, memory and bytes written."""
    with tempfile.TemporaryDirectory() as folder:
        write(make_tile(WARM_UP_PX), Path(folder, "warm-up"), DEFAULT_BANDS)  # compiles and loads what is used
        tile = make_tile(options.size)
        figures: dict[str, Any] = {"objects": count_objects(tile), "bands": {}}
        for name, bands in {**{band: (band,) for band in DEFAULT_BANDS}, "all": DEFAULT_BANDS}.items():
            runs = []
            for _ in range(options.repeat):
                with peak_memory() as memory:
                    seconds, cpu_seconds, _ = timed(lambda bands=bands: write(tile, Path(folder, "tile"), bands))
                above = max(memory["peak"] - memory["before"], 0) / GIB
                runs.append({"seconds": seconds, "cpu_s": cpu_seconds, "above_gib": above})
            figures["bands"][name] = {
                figure: (max if figure == "above_gib" else min)(run[figure] for run in runs) for figure in runs[0]
            }
        figures["tile_gib"] = sum(values.nbytes for values in tile.data_vars.values()) / GIB
        figures["written_mb"] = sum(file.stat().st_size for file in Path(folder, "tile").iterdir()) / 1e6
    return figures


def ours() -> Way:
    def write(tile: xr.Dataset, folder: Path, bands: tuple[str, ...]) -> None:
        export_tile(tile, folder, bands)

    return write


def reference() -> Way:
    plain = importlib.import_module("reference.export")

    def write(tile: xr.Dataset, folder: Path, bands: tuple[str, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for band in bands:
            plain.PRODUCTS[band](tile, folder)

    return write


PARTS: dict[str, Callable[[], Way]] = {"ours": ours, "reference": reference}


# Inputs


def make_tile(size: int) -> xr.Dataset:
    """Return a tile ready for export: patches of high probability, a wedge of nodata, ragged clouds and cirrus."""
    rng = np.random.default_rng(20240720)
    shape = (size, size)
    nodata = np.arange(size) < WEDGE * (size - np.arange(size)[:, None])
    logit = field(rng, shape, cell_px=24, octaves=3) + 1.2 * field(rng, shape, cell_px=400)
    logit *= np.float32(-3.2)
    logit += np.float32(10.4)
    probabilities = 1 / (1 + np.exp(logit))
    del logit
    clouds = field(rng, shape, cell_px=300, octaves=8, fall=0.6) > 1.6
    cirrus = field(rng, shape, cell_px=200, octaves=7, fall=0.6) > 2.2
    bands: dict[str, np.ndarray] = {}
    for name, level in {"blue": 0.03, "green": 0.05, "red": 0.07}.items():
        bands[name] = np.float32(level) * (1 + np.float32(0.3) * field(rng, shape, cell_px=60, octaves=2))
    bands["probabilities"] = probabilities
    for values in bands.values():
        values[nodata] = np.nan
    bands["quality_data_mask"] = np.where(nodata | clouds, 0, 2).astype("uint8")
    bands["s2_scl"] = np.select([nodata, clouds, cirrus], [0, 9, 10], 4).astype("uint8")
    tile = tile_on(
        utm_geobox(shape), bands, sensor="Sentinel-2", image_id="synthetic", acquisition_time="2024-07-20T20:40:21Z"
    )  # fmt: skip
    return prepare_export(tile)


def field(
    rng: np.random.Generator, shape: tuple[int, int], *, cell_px: float, octaves: int = 1, fall: float = 0.5
) -> np.ndarray:
    """Return smooth noise of standard deviation about 1: cells of `cell_px`, and octaves of half the size each."""
    total = np.zeros(shape, "float32")
    for octave in range(octaves):
        cell = max(cell_px / 2**octave, 1)
        coarse = [math.ceil(side / cell) + 4 for side in shape]
        noise = rng.standard_normal(coarse, dtype="float32") * np.float32(fall**octave)
        whole = cv2.resize(noise, [math.ceil(side * cell) for side in coarse[::-1]], interpolation=cv2.INTER_CUBIC)
        total += whole[: shape[0], : shape[1]]
    return total


def count_objects(tile: xr.Dataset) -> int:
    return cv2.connectedComponents(tile.binarized_segmentation.values.view("uint8"), connectivity=8)[0] - 1


# What is printed


def goals_of(figures: dict[str, Any]) -> list[Goal]:
    """Return what is measured, its goal, what was reached, and whether that is enough."""
    if "reference" not in figures:
        return []
    ratio = figures["reference"]["bands"]["all"]["seconds"] / figures["ours"]["bands"]["all"]["seconds"]
    what = "all default files, with overviews, beside the plain reference without"
    return [(what, f"{LEAST_RATIO:g} ×", f"{ratio:.1f} ×", ratio >= LEAST_RATIO)]


def print_figures(figures: dict[str, Any], goals: list[Goal]) -> None:
    """Print all figures as Markdown tables."""
    mine, plain = figures["ours"], figures.get("reference")
    best = f", best of {figures['repeat']}" if figures["repeat"] > 1 else ""
    print(f"\n{figures['size']} × {figures['size']} pixels, {mine['objects']} objects{best}\n")
    print(
        "| export band | darts, s | CPU, s | reference, s | CPU, s | ratio | CPU ratio |\n|---|---|---|---|---|---|---|"
    )
    for name, row in mine["bands"].items():
        cells = [row["seconds"], row["cpu_s"]]
        if plain:
            other = plain["bands"][name]
            cells += [other["seconds"], other["cpu_s"], other["seconds"] / row["seconds"]]
            cells += [other["cpu_s"] / max(row["cpu_s"], 1e-9)]
        label = "**all, one call**" if name == "all" else name
        print(f"| {label} | {' | '.join([f'{cell:.3g}' for cell in cells] + [''] * (6 - len(cells)))} |")

    print("\n| | tile, GiB | peak above it, GiB | written, MB |\n|---|---|---|---|")
    for part in ("ours", "reference"):
        if row := figures.get(part):
            print(
                f"| {part} | {row['tile_gib']:.2f} | {row['bands']['all']['above_gib']:.2f} | {row['written_mb']:.1f} |"
            )

    print_goals(f"{figures['size']} × {figures['size']}", goals)
    print_machine(figures)


if __name__ == "__main__":
    main()
