"""How long segmentation takes beside the bare networks and a plain implementation, and how much memory.

    uv run benchmarks/segment.py [--size 4096] [--patch-size 1024] [--repeat 1] [--skip-plain] [--ways fp32 bf16 …]

Two networks, Unet with resnet34, read 10 and 7 bands of a synthetic tile. Measured are, each in a process of its own:

- for each way (precision and runtime) `EnsembleV1.segment_tile`, and the bare networks on as many ready patches, call
  by call beside it;
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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from measuring import GIB, Goal, in_own_process, machine, peak_memory, timed

from darts_ensemble import EnsembleV1
from darts_segmentation import SMPSegmenter, save_checkpoint
from darts_segmentation.inference import Reader
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
    parts = [f"ours/{way}" for way in ways] + ["gaps/fp32"] * ("fp32" in ways)
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
        if what == "plain":
            return measure_plain(files, tile, options)
        return measure_ours(files, way, tile, options)


def measure_ours(files: dict[str, Path], way: str, tile: xr.Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of the ensemble and of the bare networks, and the memory of either.

    Each call of a network is followed by one of the same network on a ready patch, so that both meet the same state of
    the machine; what those calls take is no part of the ensemble's time.
    """
    segmenters = {name: Accompanied(file, "cpu", **kind_of(way)) for name, file in files.items()}
    patches = {"patch_size": options.patch_size, "overlap": options.patch_size // OVERLAP_SHARE}
    count = len(patch_starts(options.size, options.patch_size, options.patch_size // OVERLAP_SHARE)) ** 2
    bare_memory = max(segmenter.warm_up(options.patch_size, count) for segmenter in segmenters.values())
    ensemble = EnsembleV1(segmenters, "cpu")
    best, bare, predicted = np.inf, np.inf, 0
    for _ in range(options.repeat):
        with peak_memory() as memory:
            seconds, _, segmented = timed(lambda: ensemble.segment_tile(tile, **patches))
        beside, predicted = map(sum, zip(*(segmenter.taken() for segmenter in segmenters.values()), strict=True))
        if seconds - beside < best:
            best, bare = seconds - beside, beside
    outputs = sum(segmented[name].nbytes for name in ("probabilities", "probability_std"))
    inputs = sum(values.nbytes for values in tile.data_vars.values())
    figures = {
        "seconds": best, "bare_seconds": bare, "predicted": predicted, "share": patches_of(tile, options),
        "above_gib": (memory["peak"] - memory["before"] - outputs) / GIB, "bare_above_gib": bare_memory / GIB,
        "held_gib": (inputs + outputs) / GIB,
    }  # fmt: skip
    if way != "fp32":
        figures |= change_by(files, way, tile, patches)
    return figures


class Accompanied(SMPSegmenter):
    """A segmenter that shows its network a ready patch after each patch of a tile."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seconds, self.patches = 0.0, 0

    def reader(self) -> Reader:
        """Return the network, whose calls are followed by one on ready patches."""
        reader = super().reader()

        def predict(patches: Any) -> Any:
            answer = reader.predict(patches).copy()  # a runtime may answer in memory that it uses again
            self.seconds += timed(lambda: reader.predict(self._ready[: len(patches)]))[0]
            self.patches += len(patches)
            return answer

        return replace(reader, predict=predict)

    def warm_up(self, side: int, count: int) -> int:
        """Let the network load and compile what it uses; return the bytes that one batch of at most `count` takes."""
        reader = super().reader()
        batch = min(reader.most(side, side) or 1, count)
        self._ready = np.random.default_rng(0).random((batch, side, side, len(reader.bands)), np.float32)
        reader.predict(self._ready)
        with peak_memory() as memory:
            reader.predict(self._ready)
        return int(memory["peak"] - memory["before"])

    def taken(self) -> tuple[float, int]:
        """Return the seconds of the network on ready patches since this was last asked, and how many those were."""
        taken = self.seconds, self.patches
        self.seconds, self.patches = 0.0, 0
        return taken


def change_by(files: dict[str, Path], way: str, tile: xr.Dataset, patches: dict[str, int]) -> dict[str, float]:
    """Return how far the probabilities of a corner of the tile are from those in single precision."""
    corner = tile.isel(y=slice(patches["patch_size"]), x=slice(patches["patch_size"]))
    exact, found = (
        EnsembleV1(dict(files), "cpu", **kind_of(kind)).segment_tile(corner, **patches)["probabilities"].values
        for kind in ("fp32", way)
    )
    change = np.abs(found - exact)
    return {"mean_change": float(change.mean()), "most_change": float(change.max())}


def kind_of(way: str) -> dict[str, str]:
    precision, runtime = WAYS[way]
    return {"precision": precision, "runtime": runtime}


def measure_plain(files: dict[str, Path], tile: xr.Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds and memory of the plain implementation, and how far its result is from ours on a corner."""
    from darts_segmentation import build_model, load_checkpoint

    plain = importlib.import_module("reference.segmentation")
    networks = [build_model(load_checkpoint(file)).eval() for file in files.values()]
    limits = {name: band(name).valid for name in BANDS}
    patches = {"patch_size": options.patch_size, "overlap": options.patch_size // OVERLAP_SHARE}
    batch_size = min(8, max(1, 2**21 // options.patch_size**2))

    def segment(part: xr.Dataset) -> np.ndarray:
        bands = {str(name): values.data for name, values in part.data_vars.items()}
        found: np.ndarray = plain.segment(
            bands, limits, networks, list(MODELS.values()), **patches, batch_size=batch_size
        )
        return found

    corner = tile.isel(y=slice(options.patch_size * 3 // 2), x=slice(options.patch_size * 3 // 2))
    ours = EnsembleV1(dict(files), "cpu", precision="fp32").segment_tile(corner, **patches)["probabilities"].values
    differs_by = float(np.abs(segment(corner) - ours).max())
    with peak_memory() as memory:
        seconds, _, probabilities = timed(lambda: segment(tile))
    above = memory["peak"] - memory["before"] - probabilities.nbytes
    return {"seconds": seconds, "above_gib": above / GIB, "differs_by": differs_by}


def patches_of(tile: xr.Dataset, options: argparse.Namespace) -> float:
    """Return the share of the patches that hold a valid pixel."""
    starts = patch_starts(options.size, options.patch_size, options.patch_size // OVERLAP_SHARE)
    valid = np.isfinite(tile["red"].values).any(axis=0)
    return float(np.mean([valid[start : start + options.patch_size].any() for start in starts]))


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


def goals_of(figures: dict[str, Any]) -> list[Goal]:
    """Return what is to be reached, what was, and whether it is."""
    goals = []

    def at_most(name: str, most: float, reached: float, form: str) -> None:
        goals.append((name, f"at most {most:{form}}", f"{reached:{form}}", reached <= most))

    for way, least in LEAST_RATIO.items():
        if f"ours/{way}" not in figures:
            continue
        mine = figures[f"ours/{way}"]
        at_most(f"{way}: time beside the bare networks", MOST_OVER_BARE, mine["seconds"] / mine["bare_seconds"], ".3f")
        if "plain/fp32" in figures:
            ratio = figures["plain/fp32"]["seconds"] / mine["seconds"]
            goals.append((f"{way}: faster than the plain way", f"{least} ×", f"{ratio:.2f} ×", ratio >= least))
        allowed = MOST_MEMORY_SHARE * mine["held_gib"] + mine["bare_above_gib"]
        at_most(f"{way}: GiB above inputs and outputs", allowed, mine["above_gib"], ".2f")
        if "mean_change" in mine:
            at_most(f"{way}: mean change of probability", MOST_MEAN_CHANGE, mine["mean_change"], ".5f")
    if "gaps/fp32" in figures:
        gaps, whole = figures["gaps/fp32"], figures["ours/fp32"]
        # In units of what one patch takes the bare network, which changes with the state of the machine.
        error = gaps["seconds"] / per_patch(gaps) / (whole["seconds"] / per_patch(whole)) / gaps["share"] - 1
        name, goal = "half without data: time beside the share of patches", f"within {MOST_GAP_ERROR:.0%}"
        goals.append((name, goal, f"{error:+.1%}", abs(error) <= MOST_GAP_ERROR))
    return goals


def per_patch(figures: dict[str, Any]) -> float:
    return float(figures["bare_seconds"] / figures["predicted"])


def print_figures(figures: dict[str, Any], goals: list[Goal]) -> None:
    print("| part | seconds | seconds of the bare networks | GiB above inputs and outputs |\n|---|---|---|---|")
    for name, part in figures.items():
        if "/" in name:
            bare = f"{part['bare_seconds']:.2f}" if "bare_seconds" in part else ""
            print(f"| {name} | {part['seconds']:.2f} | {bare} | {part['above_gib']:.2f} |")
    print("\n| figure | goal | reached | |\n|---|---|---|---|")
    for name, goal, reached, met in goals:
        print(f"| {name} | {goal} | {reached} | {'' if met else 'missed'} |")
    versions = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    print(f"\n{figures['size']} × {figures['size']} pixels, {figures['cpu']}, {figures['cores']} cores, {versions}")


if __name__ == "__main__":
    main()
