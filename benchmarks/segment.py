"""How long segmentation takes beside the bare networks and a plain implementation, and how much memory.

    uv run benchmarks/segment.py [--size 4096] [--patch-size 1024] [--repeat 1] [--skip-plain] [--ways fp32 bf16 …]

Two networks, Unet with resnet34, read 10 and 7 bands of a synthetic tile. Measured are, each in a process of its own:

- for each way (precision and runtime) `EnsembleV1.segment_tile`, and the bare networks on as many ready patches;
- the plain implementation (`benchmarks/reference/segmentation.py`) in single precision;
- `segment_tile` where half of the tile holds no data.

The exit status is 1 where a goal is missed at full size.
"""

import argparse
import importlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from measuring import GIB, in_own_process, machine, peak_memory, timed

from darts_ensemble import EnsembleV1
from darts_segmentation import SMPSegmenter, save_checkpoint
from darts_segmentation.patches import patch_starts
from darts_utils.bands import band
from darts_utils.testing import tile_on, utm_geobox

BANDS = ("blue", "green", "red", "nir", "ndvi", "relative_elevation", "slope", "tc_brightness", "tc_greenness",
         "tc_wetness")  # fmt: skip
MODELS = {"ten": BANDS, "seven": BANDS[:7]}
OVERLAP_SHARE = 4
FULL_SIZE = 4096
WAYS = {"fp32": ("fp32", "torch"), "bf16": ("bf16", "torch"),
        "OpenVINO fp32": ("fp32", "openvino"), "OpenVINO bf16": ("bf16", "openvino")}  # fmt: skip
LEAST_RATIO = {"fp32": 1.4, "bf16": 2.5, "OpenVINO fp32": 1.8, "OpenVINO bf16": 4.0}
"""Goals: how many times faster than the plain implementation."""
MOST_OVER_BARE = 1.05
MOST_MEMORY_SHARE = 0.15
MOST_MEAN_CHANGE = 0.005
MOST_GAP_ERROR = 0.05


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=FULL_SIZE, help="pixels along each side of the tile")
    parser.add_argument("--patch-size", type=int, default=1024, help="pixels along each side of a patch")
    parser.add_argument("--encoder", default="resnet34", help="encoder of the networks")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, of which the fastest counts")
    parser.add_argument("--skip-plain", action="store_true", help="without the plain implementation")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS), help="precisions and runtimes")
    parser.add_argument("--one-process", action="store_true", help="start no others: quicker, but memory is not right")
    parser.add_argument("--json", type=Path, help="file that keeps the figures")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        options.json.write_text(json.dumps(measure(options.part, options)))
        return

    ways = [way for way in options.ways if WAYS[way][1] != "openvino" or importlib.util.find_spec("openvino")]
    parts = [f"{what}/{way}" for way in ways for what in ("bare", "ours")] + ["gaps/fp32"] * ("fp32" in ways)
    parts += [] if options.skip_plain else ["plain/fp32"]
    figures: dict[str, Any] = {"size": options.size} | machine("torch", "segmentation-models-pytorch", "numpy")
    given = sys.argv[1:] if arguments is None else arguments
    for part in parts:
        print(f"measuring {part} …", file=sys.stderr, flush=True)
        figures[part] = measure(part, options) if options.one_process else in_own_process(__file__, part, given)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    goals = goals_of(figures)
    print_figures(figures, goals)
    if options.size >= FULL_SIZE and not all(met for *_, met in goals):
        sys.exit(1)


def measure(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what one part measures."""
    what, way = part.split("/")
    with tempfile.TemporaryDirectory() as folder, models(Path(folder), options.encoder) as files:
        tile = make_tile(options.size)
        if what == "gaps":
            tile = tile.where(np.arange(options.size) < options.size // 2)
        if what == "bare":
            return measure_bare(files, way, tile, options)
        if what == "plain":
            return measure_plain(files, tile, options)
        return measure_ours(files, way, tile, options)


def measure_ours(files: dict[str, Path], way: str, tile: xr.Dataset, options: argparse.Namespace) -> dict[str, Any]:
    ensemble = EnsembleV1(load(files, way), "cpu")
    patches = {"patch_size": options.patch_size, "overlap": options.patch_size // OVERLAP_SHARE}
    corner = tile.isel(y=slice(options.patch_size), x=slice(options.patch_size))
    ensemble.segment_tile(corner.fillna(0), **patches)  # loads and compiles what is used
    best = np.inf
    for _ in range(options.repeat):
        with peak_memory() as memory:
            seconds, _, segmented = timed(lambda: ensemble.segment_tile(tile, **patches))
        best = min(best, seconds)
    outputs = sum(segmented[name].nbytes for name in ("probabilities", "probability_std"))
    inputs = sum(values.nbytes for values in tile.data_vars.values())
    above = memory["peak"] - memory["before"] - outputs
    probabilities = segmented["probabilities"].values
    if way != "fp32":
        exact = EnsembleV1(load(files, "fp32"), "cpu").segment_tile(corner, **patches)["probabilities"].values
        again = ensemble.segment_tile(corner, **patches)["probabilities"].values
        change = np.abs(again - exact)
        figures = {"mean_change": float(change.mean()), "most_change": float(change.max())}
    else:
        figures = {}
    return figures | {
        "seconds": best, "above_gib": above / GIB, "held_gib": (inputs + outputs) / GIB,
        "valid_share": float(np.isfinite(probabilities).mean()), "patches": patches_of(tile, options),
    }  # fmt: skip


def measure_bare(files: dict[str, Path], way: str, tile: xr.Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of the networks alone, one patch after the other, and what one patch takes."""
    seconds, above = 0.0, 0.0
    count = len(patch_starts(options.size, options.patch_size, options.patch_size // OVERLAP_SHARE)) ** 2
    for segmenter in load(files, way).values():
        predict = segmenter.reader().predict
        shape = (1, options.patch_size, options.patch_size, len(segmenter.checkpoint.bands))
        patch = np.random.default_rng(0).random(shape, np.float32)
        predict(patch)
        with peak_memory() as memory:
            predict(patch)
        above = max(above, memory["peak"] - memory["before"])
        best = np.inf
        for _ in range(options.repeat):
            best = min(best, timed(lambda: [predict(patch) for _ in range(count)])[0])  # noqa: B023
        seconds += best
    return {"seconds": seconds, "above_gib": above / GIB}


def measure_plain(files: dict[str, Path], tile: xr.Dataset, options: argparse.Namespace) -> dict[str, Any]:
    from darts_segmentation import build_model, load_checkpoint

    plain = importlib.import_module("reference.segmentation")
    checkpoints = [load_checkpoint(file) for file in files.values()]
    networks = [build_model(checkpoint) for checkpoint in checkpoints]
    bands = {str(name): values.data for name, values in tile.data_vars.items()}
    limits = {name: band(name).valid for name in BANDS}
    with peak_memory() as memory:
        seconds, _, probabilities = timed(
            lambda: plain.segment(
                bands, limits, networks, list(MODELS.values()), patch_size=options.patch_size,
                overlap=options.patch_size // OVERLAP_SHARE, batch_size=min(8, max(1, 2**21 // options.patch_size**2)),
            )
        )  # fmt: skip
    return {"seconds": seconds, "above_gib": (memory["peak"] - memory["before"] - probabilities.nbytes) / GIB}


def patches_of(tile: xr.Dataset, options: argparse.Namespace) -> float:
    """Return the share of the patches that hold a valid pixel."""
    starts = patch_starts(options.size, options.patch_size, options.patch_size // OVERLAP_SHARE)
    valid = np.isfinite(tile["red"].values).any(axis=0)
    return float(np.mean([valid[start : start + options.patch_size].any() for start in starts]))


def load(files: dict[str, Path], way: str) -> dict[str, SMPSegmenter]:
    precision, runtime = WAYS[way]
    return {name: SMPSegmenter(file, "cpu", precision=precision, runtime=runtime) for name, file in files.items()}


@contextmanager
def models(folder: Path, encoder: str) -> Iterator[dict[str, Path]]:
    """Give checkpoints of random weights, the same ones each time."""
    import segmentation_models_pytorch as smp

    files = {}
    for seed, (name, bands) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        config = {"arch": "unet", "encoder_name": encoder, "in_channels": len(bands), "classes": 1}
        network = smp.create_model(**config, encoder_weights=None)
        files[name] = folder / f"{name}.pt"
        save_checkpoint(files[name], model=config, bands=bands, state_dict=network.state_dict())
    yield files


def make_tile(size: int) -> xr.Dataset:
    """Return a tile of smooth noise in all bands, each over its range."""
    rng = np.random.default_rng(0)
    coarse = rng.random((len(BANDS), size // 16 + 2, size // 16 + 2), np.float32)
    fine = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :size, :size]
    planes = {}
    for name, values in zip(BANDS, fine, strict=True):
        lo, hi = band(name).valid
        planes[name] = (lo + (hi - lo) * values).astype(np.float32)
    return tile_on(utm_geobox((size, size)), planes)


def goals_of(figures: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Return what is to be reached, what was, and whether it is."""
    goals = []
    for way in WAYS:
        if f"ours/{way}" not in figures:
            continue
        mine, bare = figures[f"ours/{way}"], figures[f"bare/{way}"]
        over = mine["seconds"] / bare["seconds"]
        goals.append(
            (f"{way}: beside the bare networks", f"at most {MOST_OVER_BARE}", f"{over:.3f}", over <= MOST_OVER_BARE)
        )
        if "plain/fp32" in figures:
            ratio = figures["plain/fp32"]["seconds"] / mine["seconds"]
            goals.append(
                (
                    f"{way}: beside the plain implementation",
                    f"{LEAST_RATIO[way]} ×",
                    f"{ratio:.2f} ×",
                    ratio >= LEAST_RATIO[way],
                )
            )
        most = MOST_MEMORY_SHARE * mine["held_gib"] + bare["above_gib"]
        goals.append(
            (
                f"{way}: memory above inputs and outputs",
                f"at most {most:.2f} GiB",
                f"{mine['above_gib']:.2f} GiB",
                mine["above_gib"] <= most,
            )
        )
        if "mean_change" in mine:
            change = mine["mean_change"]
            goals.append(
                (
                    f"{way}: mean change of probability",
                    f"at most {MOST_MEAN_CHANGE}",
                    f"{change:.4f} (largest {mine['most_change']:.3f})",
                    change <= MOST_MEAN_CHANGE,
                )
            )
    if "gaps/fp32" in figures:
        gaps, whole = figures["gaps/fp32"], figures["ours/fp32"]
        error = gaps["seconds"] / whole["seconds"] / gaps["patches"] - 1
        goals.append(
            (
                "half without data: time beside the share of patches",
                f"within {MOST_GAP_ERROR:.0%}",
                f"{error:+.1%}",
                abs(error) <= MOST_GAP_ERROR,
            )
        )
    return goals  # fmt: skip


def print_figures(figures: dict[str, Any], goals: list[tuple[str, str, str, bool]]) -> None:
    print("| part | seconds | GiB above inputs and outputs |\n|---|---|---|")
    for name, part in figures.items():
        if "/" in name:
            print(f"| {name} | {part['seconds']:.2f} | {part['above_gib']:.2f} |")
    print("\n| figure | goal | reached | |\n|---|---|---|---|")
    for name, goal, reached, met in goals:
        print(f"| {name} | {goal} | {reached} | {'' if met else 'missed'} |")
    versions = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    print(f"\n{figures['size']} × {figures['size']} pixels, {figures['cpu']}, {figures['cores']} cores, {versions}")


if __name__ == "__main__":
    main()
