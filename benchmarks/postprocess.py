"""How fast probabilities become objects and how much memory that takes, beside plain scikit-image on the same inputs.

    uv run benchmarks/postprocess.py [--size 10980] [--repeat 1] [--skip-reference]

The reference (`benchmarks/reference/postprocessing.py`) is what a user would write with scikit-image; its results must
be the same bits. Inputs are synthetic and always the same: probabilities of two models with their spread, a wedge of
nodata, clouds and their fringes. The whole of `prepare_export` and of the reference run in a process of their own each,
whose peak memory is told above the inputs, and above inputs and outputs, which are the same for both.

In a full case the reference needs 5 GB of memory and a minute or two. The exit status is 1 where a goal is missed at
full size.
"""

import argparse
import gc
import importlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from measuring import GIB, Goal, in_own_process, machine, peak_memory, print_goals, print_machine, timed

from darts_postprocessing import erode_mask, prepare_export
from darts_postprocessing.masks import valid_pixels
from darts_utils.testing import tile_on, utm_geobox

FULL_SIZE = 10980
EROSION_PX = 10
RADII_PX = (10, 30, 100, 300)
WARM_UP_PX = 64
PACKAGES = ("numpy", "numba", "xarray", "scipy", "scikit-image")
OPTIONS: dict[str, dict[str, Any]] = {
    "three thresholds": {"more_thresholds": (0.4, 0.6)},
    "hysteresis": {"grow_threshold": 0.3},
    "hysteresis, three thresholds": {"grow_threshold": 0.3, "more_thresholds": (0.4, 0.6)},
    "water and area": {"max_water_share": 0.5, "min_object_area": 3200.0},
}
LAYERS = ("extent", "binarized_segmentation", "cut_probabilities", "probabilities", "probability_std")

LEAST_RATIO = 8.0
MOST_MEMORY_RATIO = 0.5


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
        options.json.write_text(json.dumps(PARTS[options.part](options)))
        return

    figures: dict[str, Any] = {"size": options.size, "repeat": options.repeat} | machine(*PACKAGES)
    given = sys.argv[1:] if arguments is None else arguments
    for part in PARTS:
        if options.skip_reference and part == "reference":
            continue
        print(f"measuring {part} …", file=sys.stderr, flush=True)
        figures[part] = PARTS[part](options) if options.one_process else in_own_process(__file__, part, given)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    goals = goals_of(figures)
    print_figures(figures, goals)
    if options.size >= FULL_SIZE and not all(met for *_, met in goals):
        sys.exit(1)


# What is measured


def measure_whole(options: argparse.Namespace, prepare: Callable[[xr.Dataset], xr.Dataset]) -> dict[str, float]:
    """Return seconds of the whole step, and its peak of memory."""
    prepare(make_tile(WARM_UP_PX))
    tile = make_tile(options.size)
    runs = []
    for _ in range(options.repeat):
        with peak_memory() as memory:
            seconds, cpu_seconds, result = timed(lambda: prepare(tile))
        outputs = sum(result[name].nbytes for name in LAYERS)
        above = memory["peak"] - memory["before"]
        runs.append({
            "seconds": seconds, "cpu_s": cpu_seconds, "inputs_gib": memory["before"] / GIB,
            "outputs_gib": outputs / GIB, "above_gib": above / GIB, "work_gib": max(above - outputs, 0) / GIB,
        })  # fmt: skip
        del result
    most = ("inputs_gib", "outputs_gib", "above_gib", "work_gib")
    return {name: (max if name in most else min)(run[name] for run in runs) for name in runs[0]}


def whole_ours(options: argparse.Namespace) -> dict[str, float]:
    return measure_whole(options, prepare_export)


def whole_reference(options: argparse.Namespace) -> dict[str, float]:
    return measure_whole(options, importlib.import_module("reference.postprocessing").prepare)


def measure_options(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return seconds of the whole step with options beyond the defaults."""
    warm, tile, rows = make_tile(WARM_UP_PX), make_tile(options.size), {}
    for name, chosen in OPTIONS.items():
        prepare_export(warm, **chosen)
        runs = [timed(lambda chosen=chosen: prepare_export(tile, **chosen))[:2] for _ in range(options.repeat)]
        seconds, cpu_seconds = (min(run[k] for run in runs) for k in (0, 1))
        rows[name] = {"seconds": seconds, "cpu_s": cpu_seconds}
    return rows


def measure_erosion(options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds of erosion alone, by disks of several sizes and by the reference."""
    tile = make_tile(options.size)[["probabilities", "quality_data_mask"]]
    valid = xr.DataArray(valid_pixels(tile.probabilities.data, tile.quality_data_mask.data, 1), dims=("y", "x"))
    del tile
    figures: dict[str, Any] = {"ours": {}}
    for radius in RADII_PX:
        erode_mask(np.eye(2 * radius, dtype=bool), radius)  # compiles and loads what is used
        runs = [timed(lambda radius=radius: erode_mask(valid, radius)) for _ in range(options.repeat)]
        figures["ours"][str(radius)] = {"seconds": min(run[0] for run in runs), "cpu_s": min(run[1] for run in runs)}
    if options.skip_reference:
        return figures
    plain = importlib.import_module("reference.postprocessing")
    runs = [timed(lambda: plain.erode(valid, EROSION_PX)) for _ in range(options.repeat)]
    differ = int((runs[0][2].values != erode_mask(valid, EROSION_PX).values).sum())
    figures["reference"] = {
        "seconds": min(run[0] for run in runs), "cpu_s": min(run[1] for run in runs), "differ_px": differ
    }  # fmt: skip
    return figures


def compare(options: argparse.Namespace) -> dict[str, int]:
    """Return by layer how many pixels of ours and of the reference are not the same bits, on a part of the tile."""
    if options.skip_reference:
        return {}
    tile = make_tile(min(options.size, FULL_SIZE // 4))
    mine, plain = prepare_export(tile), importlib.import_module("reference.postprocessing").prepare(tile)
    differ = {}
    for name in LAYERS:
        a, b = mine[name].values, plain[name].values
        if a.dtype != b.dtype:
            raise TypeError(f"{name} is {a.dtype} here and {b.dtype} there")
        differ[name] = int(((a != b) & ~((a != a) & (b != b))).sum())
    return differ


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "ours": whole_ours, "reference": whole_reference, "options": measure_options, "erosion": measure_erosion,
    "differ_px": compare,
}  # fmt: skip


# Inputs


def make_tile(size: int) -> xr.Dataset:
    """Return a tile near 70° N: some per cent are objects, 8 % a wedge of nodata, 10 % of low or no quality, lakes."""
    rng = np.random.default_rng(20240720)
    geobox = utm_geobox((size, size))
    probs = relief(geobox.shape.yx, rng, shortest_px=16, longest_px=600, noise=0.03)
    probs -= np.float32(1.75)
    probs *= np.float32(-2)
    np.exp(probs, out=probs)
    probs += 1
    np.reciprocal(probs, out=probs)  # a logistic curve
    clouds = relief(geobox.shape.yx, rng, shortest_px=20, longest_px=1500, noise=0.05)
    quality = np.full(probs.shape, 2, "uint8")
    quality[clouds > 1.4] = 1
    quality[clouds > 2] = 0
    scl = np.where(clouds < -1.2, 6, 4).astype("uint8")
    del clouds
    for row in range(size):
        missing = round(0.16 * (size - row))
        probs[row, :missing] = np.nan
        quality[row, :missing] = scl[row, :missing] = 0
    return tile_on(
        geobox,
        {
            "probabilities": probs,
            "probability_std": probs * np.float32(0.1),
            "quality_data_mask": quality,
            "s2_scl": scl,
        },
    )


def relief(
    shape: tuple[int, int], rng: np.random.Generator, *, shortest_px: float, longest_px: float, noise: float
) -> np.ndarray:
    """Return plane waves of all lengths, the longest of height 1 and shorter ones lower, with noise; float32 (y, x)."""
    waves = max(round(2 * math.log2(longest_px / shortest_px)), 1)
    lengths = np.geomspace(longest_px, shortest_px, waves)
    heights = (lengths / longest_px) ** 0.9
    headings, phases = rng.uniform(0, 2 * np.pi, (2, waves))
    down = 2 * np.pi * np.arange(shape[0])[:, None] * np.sin(headings) / lengths + phases
    across = 2 * np.pi * np.arange(shape[1])[:, None] * np.cos(headings) / lengths
    left = np.hstack([heights * np.sin(down), heights * np.cos(down)]).astype("float32")
    values = left @ np.hstack([np.cos(across), np.sin(across)]).astype("float32").T
    line = np.tile(rng.normal(0, noise, (512, 512)).astype("float32"), math.ceil(shape[1] / 512))[:, : shape[1]]
    for start in range(0, shape[0], 512):
        rows = values[start : start + 512]
        rows += line[: len(rows)]
    gc.collect()
    return values


# What is printed


def goals_of(figures: dict[str, Any]) -> list[Goal]:
    """Return what is measured, its goal, what was reached, and whether that is enough."""
    plain, ours = figures.get("reference"), figures["ours"]
    if not plain:
        return []
    ratio = plain["seconds"] / ours["seconds"]
    above, work = (ours[kind] / max(plain[kind], 1e-9) for kind in ("above_gib", "work_gib"))
    differ = figures["erosion"]["reference"]["differ_px"] + sum(figures["differ_px"].values())
    return [
        ("the whole step, beside plain scikit-image", f"{LEAST_RATIO:g} ×", f"{ratio:.1f} ×", ratio >= LEAST_RATIO),
        ("peak memory above the inputs, beside plain scikit-image", f"at most {MOST_MEMORY_RATIO:g} ×",
         f"{above:.2f} × ({ours['above_gib']:.2f} of {plain['above_gib']:.2f} GiB)", above <= MOST_MEMORY_RATIO),
        ("the same without the outputs, which are alike", f"at most {MOST_MEMORY_RATIO:g} ×",
         f"{work:.2f} × ({ours['work_gib']:.2f} of {plain['work_gib']:.2f} GiB)", work <= MOST_MEMORY_RATIO),
        ("pixels that differ from plain scikit-image", "0", str(differ), differ == 0),
    ]  # fmt: skip


def print_figures(figures: dict[str, Any], goals: list[Goal]) -> None:
    """Print all figures as Markdown tables."""
    size, plain = figures["size"], figures.get("reference")
    repeats = f", best of {figures['repeat']}" if figures["repeat"] > 1 else ""
    print(f"\n{size} × {size} pixels{repeats}\n")
    print("| step | darts, s | CPU, s | plain scikit-image, s | CPU, s | ratio |\n|---|---|---|---|---|---|")
    print_row("**`prepare_export`, defaults**", figures["ours"], plain)
    erosion = figures["erosion"]
    for radius, row in erosion["ours"].items():
        beside = erosion.get("reference") if int(radius) == EROSION_PX else None
        print_row(f"erosion alone, {radius} px", row, beside)
    for name, row in figures["options"].items():
        print_row(f"`prepare_export`, {name}", row, None)

    print("\n| memory, GiB | before, with inputs | peak above | outputs | peak above both |\n|---|---|---|---|---|")
    for part in ("ours", "reference"):
        if memory := figures.get(part):
            values = (f"{memory[name]:.2f}" for name in ("inputs_gib", "above_gib", "outputs_gib", "work_gib"))
            print(f"| {part} | {' | '.join(values)} |")

    print_goals(f"{size} × {size}", goals)
    print_machine(figures)


def print_row(name: str, ours: dict[str, float], plain: dict[str, float] | None) -> None:
    beside = " |  | "
    if plain:
        beside = f"{plain['seconds']:.3g} | {plain['cpu_s']:.3g} | {plain['seconds'] / ours['seconds']:.1f}"
    print(f"| {name} | {ours['seconds']:.3g} | {ours['cpu_s']:.3g} | {beside} |")


if __name__ == "__main__":
    main()
