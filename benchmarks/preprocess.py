"""How fast features are made and how much memory that takes, beside a plain reference on the same inputs.

    uv run benchmarks/preprocess.py [--case sentinel2|planet] [--size 10980] [--repeat 1] [--skip-reference]

The reference (`benchmarks/reference/preprocessing.py`) is what a user would write with xarray-spatial and odc-geo. A
plain copy of a feature's inputs and outputs (np.copyto, memory already there) tells how far its time is from the least
that is possible. Inputs are synthetic and always the same. The whole of `preprocess_v2` and of the reference run in a
process of their own each, whose peak memory above inputs and outputs is told.

The TPI of the wide radius would take the reference hours: it computes some rows, and its time is scaled up.
In a full case the reference needs 10 GB of memory and some minutes. The exit status is 1 where a goal is missed at full
size.
"""

import argparse
import gc
import importlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from feature_inputs import CASES, WIDE_RADIUS_M, Inputs, arrays_of, make_inputs
from measuring import GIB, Goal, in_own_process, machine, peak_memory, print_goals, print_machine, timed
from odc.geo.geobox import GeoBox

import darts_preprocessing as ours
from darts_utils.grids import align

RADIUS_M = 100
DERIVATIVES = ("slope", "aspect", "hillshade", "curvature")
WARM_UP_PX = 48
WIDE_MULTIPLICATIONS = 1e9
"""How many the reference does for the wide radius before its time is scaled up; about a second."""
PACKAGES = ("numpy", "numba", "xarray", "odc-geo", "xarray-spatial", "rasterio", "opencv-python-headless")

LEAST_RATIO = 6.0
LEAST_TPI_RATIO = 10.0
MOST_WIDE_RATIO = 1.5
MOST_MEMORY_GIB = 1.5


@dataclass(frozen=True)
class Feature:
    """Two ways to the same result."""

    name: str
    inputs: list[np.ndarray]
    ours: Callable[[], xr.Dataset | xr.DataArray]
    reference: Callable[[], xr.Dataset | xr.DataArray]
    share: float = 1
    """How much of the tile the reference computes."""
    compared: Callable[[], xr.Dataset | xr.DataArray] | None = None
    """Ours again where the reference is, if that is elsewhere."""
    frame_px: int = 0
    """Margin that is not compared, where the reference has nothing."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, default="sentinel2")
    parser.add_argument("--size", type=int, help="pixels along each side of the tile; default: the case's full size")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, of which the fastest counts")
    parser.add_argument("--skip-reference", action="store_true", help="ours alone")
    parser.add_argument("--one-process", action="store_true", help="start no others: quicker, but memory is not right")
    parser.add_argument("--json", type=Path, help="file that keeps the figures")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.size = options.size or CASES[options.case].size
    if options.size < 1 or options.repeat < 1:
        parser.error("--size and --repeat must be at least 1")
    if options.part:
        options.json.write_text(json.dumps(PARTS[options.part](options)))
        return

    figures: dict[str, Any] = {"case": options.case, "size": options.size, "repeat": options.repeat} | machine(
        *PACKAGES
    )
    parts = [part for part in PARTS if not (options.skip_reference and part == "reference")]
    given = sys.argv[1:] if arguments is None else arguments
    for part in parts:
        print(f"measuring {part} …", file=sys.stderr, flush=True)
        figures[part] = PARTS[part](options) if options.one_process else in_own_process(__file__, part, given)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    goals = goals_of(figures)
    print_figures(figures, goals)
    missed = any(not met for *_, met in goals)
    if missed and options.size >= CASES[options.case].size:
        sys.exit(1)


# What is measured


def measure_features(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return seconds, CPU seconds, seconds of a plain copy and differences, feature by feature."""
    for feature in features_of(make_inputs(options.case, WARM_UP_PX), options.skip_reference):
        run_both(feature, options.skip_reference)  # compiles and loads what is used
    inputs = make_inputs(options.case, options.size)
    rows = []
    for feature in features_of(inputs, options.skip_reference):
        runs, result = [], None
        for _ in range(options.repeat):
            result = None  # not to be there twice
            gc.collect()
            run, result = run_both(feature, options.skip_reference)
            runs.append(run)
        row: dict[str, Any] = {"name": feature.name} | {name: min(run[name] for run in runs) for name in runs[0]}
        if result is not None:
            row |= {name: row[name] / feature.share for name in ("reference_s", "reference_cpu_s")}
            row |= {"reference_share": feature.share, "ratio": row["reference_s"] / row["seconds"]}
            row |= {"differences": differences((feature.compared or feature.ours)(), result, feature.frame_px)}
        rows.append(row)
    return rows


def run_both(feature: Feature, skip_reference: bool) -> tuple[dict[str, float], Any]:
    """Return the seconds of one run of ours, of a plain copy and of the reference, and the reference's result."""
    seconds, cpu_seconds, result = timed(feature.ours)
    run = {"seconds": seconds, "cpu_s": cpu_seconds, "copy_s": copy_seconds(feature.inputs + arrays_of(result))}
    del result
    if skip_reference:
        return run, None
    reference_s, reference_cpu_s, result = timed(feature.reference)
    return run | {"reference_s": reference_s, "reference_cpu_s": reference_cpu_s}, result


def measure_whole(options: argparse.Namespace, preprocess: Callable[[Inputs], xr.Dataset]) -> dict[str, float]:
    """Return seconds of all features together, and the peak of memory above inputs and outputs."""
    preprocess(make_inputs(options.case, WARM_UP_PX))
    inputs = make_inputs(options.case, options.size)
    runs = []
    for _ in range(options.repeat):
        with peak_memory() as memory:
            seconds, cpu_seconds, result = timed(lambda: preprocess(inputs))
        outputs = [result[name].data for name in set(result.data_vars) - set(inputs.tile.data_vars)]
        kept = sum(values.nbytes for values in outputs)
        copying = copy_seconds(inputs.arrays() + outputs)
        runs.append({
            "seconds": seconds, "cpu_s": cpu_seconds, "copy_s": copying, "inputs_gib": memory["before"] / GIB,
            "outputs_gib": kept / GIB, "above_gib": max(memory["peak"] - memory["before"] - kept, 0) / GIB,
            "peak_gib": memory["peak"] / GIB,
        })  # fmt: skip
        del result, outputs
    most = ("above_gib", "peak_gib", "inputs_gib", "outputs_gib")
    return {name: (max if name in most else min)(run[name] for run in runs) for name in runs[0]}


def whole_ours(options: argparse.Namespace) -> dict[str, float]:
    return measure_whole(
        options, lambda inputs: ours.preprocess_v2(inputs.tile, inputs.arcticdem, inputs.tcvis, RADIUS_M, 0)
    )


def whole_reference(options: argparse.Namespace) -> dict[str, float]:
    plain = importlib.import_module("reference.preprocessing")  # with xarray-spatial, not wanted in the other process
    return measure_whole(
        options, lambda inputs: plain.preprocess(inputs.tile, inputs.arcticdem, inputs.tcvis, RADIUS_M)
    )


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "features": measure_features, "ours": whole_ours, "reference": whole_reference,
}  # fmt: skip


def features_of(inputs: Inputs, skip_reference: bool) -> Iterator[Feature]:
    """Give each feature alone. Terrain is computed on the DEM with the margin for `RADIUS_M`, brought there by ours."""
    plain: Any = None if skip_reference else importlib.import_module("reference.preprocessing")

    def reference(name: str, *args: Any) -> Callable[[], Any]:
        return lambda: getattr(plain, name)(*args)

    tile, arcticdem, tcvis = inputs.tile, inputs.arcticdem, inputs.tcvis
    geobox = tile.odc.geobox
    yield Feature("NDVI", arrays_of(tile[["nir", "red"]]), lambda: ours.calculate_ndvi(tile), reference("ndvi", tile))
    yield Feature(
        "TCVIS alignment, 3 bands", arrays_of(tcvis), lambda: align(tcvis, geobox),
        reference("align_trends", tcvis, geobox),
    )  # fmt: skip
    padded = geobox.pad(math.ceil(RADIUS_M / geobox.resolution.x) + 2)
    yield Feature(
        "DEM alignment, with mask", arrays_of(arcticdem), lambda: align(arcticdem, padded),
        reference("align_dem", arcticdem, padded),
    )  # fmt: skip

    ground = align(arcticdem, padded)
    elevation = [ground.dem.data]
    strip, share = wide_strip(arcticdem, geobox)
    for radius, of, part in ((RADIUS_M, ground, 1.0), (WIDE_RADIUS_M, strip, share)):
        yield Feature(
            f"TPI, {radius} m", elevation, partial(above_mean, ground, radius),
            reference("relative_elevation", of.dem, radius), part, partial(above_mean, of, radius),
            int(radius / geobox.resolution.x),
        )  # fmt: skip
    sun = (tile.azimuth, tile.elevation)
    yield Feature("slope", elevation, lambda: ours.calculate_slope(ground)["slope"], reference("slope", ground.dem))
    yield Feature("aspect", elevation, lambda: ours.calculate_aspect(ground)["aspect"], reference("aspect", ground.dem))
    yield Feature(
        "hillshade", elevation, lambda: ours.calculate_hillshade(ground, *sun)["hillshade"],
        reference("shade", ground.dem, *sun),
    )  # fmt: skip
    yield Feature(
        "curvature", elevation, lambda: ours.calculate_curvature(ground)["curvature"],
        reference("curvature", ground.dem),
    )  # fmt: skip

    def four() -> xr.Dataset:
        return ours.preprocess_v2(tile, arcticdem, None, features=DERIVATIVES)[list(DERIVATIVES)]

    def four_plainly() -> xr.Dataset:
        dem = plain.align_dem(arcticdem, geobox.pad(1)).dem
        results = {"slope": plain.slope(dem), "aspect": plain.aspect(dem), "hillshade": plain.shade(dem, *sun)}
        return xr.Dataset(results | {"curvature": plain.curvature(dem)}).isel(x=slice(1, -1), y=slice(1, -1))

    yield Feature("DEM alignment and all four", arrays_of(arcticdem), four, four_plainly)


def above_mean(ground: xr.Dataset, radius_m: float) -> xr.DataArray:
    return ours.calculate_topographic_position_index(ground, radius_m)["tpi"]


def wide_strip(arcticdem: xr.Dataset, geobox: GeoBox) -> tuple[xr.Dataset, float]:
    """Return the DEM around the tile's first rows, and the share of the tile that they are."""
    radius = int(WIDE_RADIUS_M / geobox.resolution.x)
    rows = round(WIDE_MULTIPLICATIONS / (2 * radius + 1) ** 2 / geobox.shape.x)
    rows = min(max(rows, 2), geobox.shape.y)
    return align(arcticdem[["dem"]], geobox[:rows, :].pad(radius)), rows / geobox.shape.y


def differences(
    mine: xr.Dataset | xr.DataArray, other: xr.Dataset | xr.DataArray, frame_px: int
) -> dict[str, dict[str, float]]:
    """Return by band how two results differ where both have values, and where only one has."""
    inside = slice(frame_px, -frame_px or None)
    pairs = zip(*([band[inside, inside] for band in arrays_of(data)] for data in (mine, other)), strict=True)
    names = list(mine.data_vars) if isinstance(mine, xr.Dataset) else [mine.name]
    return {str(name): difference(*pair, turns=name == "aspect") for name, pair in zip(names, pairs, strict=True)}


def difference(mine: np.ndarray, other: np.ndarray, *, turns: bool, rows_at_once: int = 512) -> dict[str, float]:
    """Return largest and mean difference, of angles if `turns`, and the shares of values that only one side has."""
    most = total = 0.0
    both = only_ours = only_reference = 0
    for start in range(0, len(mine), rows_at_once):
        a, b = (values[start : start + rows_at_once].astype("float64") for values in (mine, other))
        apart = np.abs((a - b + 180) % 360 - 180) if turns else np.abs(a - b)
        most = max(most, float(np.nanmax(apart, initial=0)))
        total += float(np.nansum(apart))
        both += int(np.isfinite(apart).sum())
        only_ours += int((np.isfinite(a) & np.isnan(b)).sum())
        only_reference += int((np.isnan(a) & np.isfinite(b)).sum())
    return {
        "most": most, "mean": total / max(both, 1), "only_ours": only_ours / mine.size,
        "only_reference": only_reference / mine.size,
    }  # fmt: skip


# How it is measured


def copy_seconds(arrays: list[np.ndarray]) -> float:
    """Return the seconds that np.copyto takes for arrays, into memory that is there."""
    buffer = np.ones(max(values.nbytes for values in arrays), "uint8")
    seconds = 0.0
    for values in arrays:
        target = buffer[: values.nbytes].view(values.dtype).reshape(values.shape)
        seconds += min(timed(partial(np.copyto, target, values))[0] for _ in range(2))
    return seconds


# What is printed


def goals_of(figures: dict[str, Any]) -> list[Goal]:
    """Return what is measured, its goal, what was reached, and whether that is enough."""
    rows = {row["name"]: row for row in figures["features"]}
    near, wide = rows[f"TPI, {RADIUS_M} m"], rows[f"TPI, {WIDE_RADIUS_M} m"]
    memory, spread = figures["ours"]["above_gib"], wide["seconds"] / near["seconds"]
    plain = figures.get("reference")
    goals = []
    if plain:
        ratio = plain["seconds"] / figures["ours"]["seconds"]
        goals += [
            ("all features, beside the plain reference", f"{LEAST_RATIO:g} ×", f"{ratio:.1f} ×", ratio >= LEAST_RATIO),
            (f"TPI of {RADIUS_M} m, beside the plain reference", f"{LEAST_TPI_RATIO:g} ×", f"{near['ratio']:.1f} ×",
             near["ratio"] >= LEAST_TPI_RATIO),
        ]  # fmt: skip
    beside = f" (reference {plain['above_gib']:.2f} GiB)" if plain else ""
    return [
        *goals,
        (f"time of the TPI of {WIDE_RADIUS_M} m, beside {RADIUS_M} m", f"at most {MOST_WIDE_RATIO:g} ×",
         f"{spread:.2f} ×", spread <= MOST_WIDE_RATIO),
        ("peak memory above inputs and outputs", f"at most {MOST_MEMORY_GIB:g} GiB", f"{memory:.2f} GiB{beside}",
         memory <= MOST_MEMORY_GIB),
    ]  # fmt: skip


def print_figures(figures: dict[str, Any], goals: list[Goal]) -> None:
    """Print all figures as Markdown tables."""
    case, size = CASES[figures["case"]], figures["size"]
    repeats = f", best of {figures['repeat']}" if figures["repeat"] > 1 else ""
    print(f"\n{figures['case']}, {size} × {size} pixels of {case.pixel_m} m, DEM of {case.dem_pixel_m} m{repeats}\n")
    print(
        "| feature | darts, s | CPU, s | plain copy, s | reference, s | CPU, s | ratio |\n|---|---|---|---|---|---|---|"
    )
    whole = {"name": "**all features, whole `preprocess_v2`**"} | figures["ours"]
    if plain := figures.get("reference"):
        whole |= {"reference_s": plain["seconds"], "reference_cpu_s": plain["cpu_s"]}
        whole |= {"ratio": plain["seconds"] / whole["seconds"]}
    for row in [*figures["features"], whole]:
        about = "≈ " if row.get("reference_share", 1) < 1 else ""
        beside = " |  | "
        if "ratio" in row:
            beside = f"{about}{in_seconds(row['reference_s'], row['reference_cpu_s'])} | {row['ratio']:.1f}"
        print(f"| {row['name']} | {in_seconds(row['seconds'], row['cpu_s'], row['copy_s'])} | {beside} |")
    print("\n≈: computed for some rows and scaled up\n" if plain else "")

    print("| memory, GiB | before, with inputs | outputs | peak above both | peak |\n|---|---|---|---|---|")
    for part in ("ours", "reference"):
        if memory := figures.get(part):
            values = (f"{memory[name]:.2f}" for name in ("inputs_gib", "outputs_gib", "above_gib", "peak_gib"))
            print(f"| {part} | {' | '.join(values)} |")

    if plain:
        print("\n| differs from the reference | at most | on average | only darts has a value | only the reference |")
        print("|---|---|---|---|---|")
        for row in figures["features"]:
            for band, by in row["differences"].items():
                shares = f"{by['only_ours']:.2%} | {by['only_reference']:.2%}"
                print(f"| {row['name']}: {band} | {by['most']:.2g} | {by['mean']:.2g} | {shares} |")

    print_goals(f"{figures['case']}, {size} × {size}", goals)
    print_machine(figures)


def in_seconds(*values: float) -> str:
    return " | ".join(f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values)


if __name__ == "__main__":
    main()
