"""How much faster two workers on a Ray cluster are than one, and what the death of one costs.

    uv run benchmarks/ray_scaling.py [--size 768] [--tiles 12] [--repeats 1]

Tiles are drawn, and their network keeps a core busy. They go through one worker of one core, through two, and through
two of which one is killed when half of the tiles are done; the cluster is one on this machine. Beside that stand one
and two processes of darts with a core each, without Ray: what this machine lets two workers gain. Workers have made a
tile each before time counts; their start is told apart. With `--repeats`, all ways take turns and the fastest counts.

The exit status is 1 where a goal is missed at full size.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import segmentation_models_pytorch as smp
import torch
import xarray as xr
from measuring import machine

from darts.display.line_display import LineReporter
from darts.executors.executor import Executor, Policy
from darts.executors.processes import Processes
from darts.executors.ray_cluster import join_cluster
from darts.executors.ray_workers import RayWorkers
from darts.executors.workers import Workers
from darts.pipelines.base import _BasePipeline
from darts.records.events import Ready
from darts.tiles import Tile
from darts_segmentation import save_checkpoint
from darts_utils.stopping import Stop
from darts_utils.testing import optical_tile, utm_geobox

FULL_SIZE = 768
LEAST_SPEEDUP = 1.5
MOST_TILES_LOST = 1.0
BANDS = ("blue", "green", "red", "nir")


@dataclass(kw_only=True)
class Drawn(_BasePipeline):
    """Tiles that are drawn, each as large as the others."""

    size: int

    def _tileinfos(self) -> list[tuple[Any, Path]]:
        return []

    def _get_tile_id(self, tilekey: int) -> str:
        return str(tilekey)

    def _load_tile(self, tilekey: int) -> xr.Dataset:
        tile = optical_tile(utm_geobox((self.size, self.size)), seed=tilekey)
        return tile.assign_attrs(tile_id=str(tilekey), sensor="drawn", quality_source="valid pixels")

    def _arcticdem_resolution(self) -> Any:
        return 10

    def _default_output_name(self) -> str:
        return "drawn"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=FULL_SIZE, help="pixels along each side of a tile")
    parser.add_argument("--tiles", type=int, default=12, help="number of tiles")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file that keeps the figures")
    options = parser.parse_args(arguments)
    if options.size < 32 or options.tiles < 2 or options.repeats < 1:
        parser.error("--size must be at least 32, --tiles at least 2, --repeats at least 1")
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two workers need two cores")
    figures = machine("ray", "torch") | {"size": options.size, "tiles": options.tiles, "ways": {}}
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options, figures["ways"])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    if not tell(figures) and options.size >= FULL_SIZE:
        sys.exit(1)


def measure(folder: Path, options: argparse.Namespace, ways: dict[str, dict[str, float]]) -> None:
    """Put the figures of every way into `ways`."""
    pipeline = Drawn(
        size=options.size, model_files=save_model(folder / "model.pt"), output_data_dir=folder, device="cpu",
        patch_size=256, overlap=32, batch_size=4, offline=True,
    )  # fmt: skip
    pipeline._check()
    cluster = join_cluster("local", gpus=False)
    try:
        for repeat in range(options.repeats):
            for way, start in starts(pipeline, options.tiles).items():
                kills = way == "ray, 2 workers, one killed"
                figures = run(start, folder / f"{way} {repeat}", options.tiles, 1 if "1" in way else 2, kill=kills)
                if way not in ways or figures["seconds"] < ways[way]["seconds"]:
                    ways[way] = figures
    finally:
        cluster.leave()


def starts(pipeline: Drawn, tiles: int) -> dict[str, Callable[[], Workers]]:
    """Return what starts the workers of each way."""

    def on_ray(count: int) -> Workers:
        pipeline.ray_workers, pipeline.ray_cpus = count, 1
        return RayWorkers(pipeline, tiles + count)

    def in_processes(count: int) -> Workers:
        with some_cores(count):
            return Processes(pipeline, ["cpu"] * count, memory=None, n_tiles=tiles + count)

    return {
        "ray, 1 worker": lambda: on_ray(1),
        "ray, 2 workers": lambda: on_ray(2),
        "ray, 2 workers, one killed": lambda: on_ray(2),
        "processes, 1 worker": lambda: in_processes(1),
        "processes, 2 workers": lambda: in_processes(2),
    }


def run(start: Callable[[], Workers], output: Path, count: int, workers: int, *, kill: bool) -> dict[str, float]:
    """Return seconds of so many tiles, of the start of the workers before, and the cores that were busy meanwhile."""
    began = time.perf_counter()
    crew = start()
    try:
        ready = 1
        while ready < workers:
            ready += isinstance(crew.next_event(1.0), Ready)
        started = time.perf_counter() - began
        finish(crew, [Tile(f"warm{n}", n, output / f"warm{n}") for n in range(workers)])
        todo = [Tile(f"tile{n}", n, output / f"tile{n}") for n in range(count)]
        cpu, began = cpu_of_children(), time.perf_counter()
        finish(crew, todo, kill_after=count // 2 if kill else None)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "start_s": started, "cores": (cpu_of_children() - cpu) / seconds}
    finally:
        crew.close()


def finish(crew: Workers, tiles: list[Tile], *, kill_after: int | None = None) -> None:
    """Work on tiles; kill a worker once when so many are done."""
    executor = Executor(crew, Policy(), LineReporter(len(tiles), quiet=True), Stop(), batch_size=4)
    done = 0
    for outcome, _ in executor.run(tiles):
        if outcome.status == "failed" and not outcome.again:
            raise SystemExit(f"a tile failed: {outcome.error}")
        done += outcome.status == "success"
        if done == kill_after:
            actors()[0].kill()
            kill_after = None


def actors() -> list[psutil.Process]:
    """Return the processes of workers on Ray."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.cmdline() and child.cmdline()[0].startswith("ray::TileWorker")]


def cpu_of_children() -> float:
    """Return the CPU seconds that all processes below this one have used."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(of.user + of.system for of in times)


@contextmanager
def some_cores(count: int) -> Iterator[None]:
    """Let processes that are started meanwhile have so many cores together."""
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_of_them)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


def save_model(path: Path) -> Path:
    """Save a network of random weights."""
    torch.manual_seed(0)
    made = {"arch": "unet", "encoder_name": "resnet18", "classes": 1, "in_channels": len(BANDS)}
    network = smp.create_model(**made, encoder_weights=None)
    save_checkpoint(path, model=made, bands=BANDS, state_dict=network.state_dict(), patch_size=256)
    return path


def tell(figures: dict[str, Any]) -> bool:
    """Print the figures, and return whether they meet the goals."""
    ways, tiles = figures["ways"], figures["tiles"]
    print(
        f"{tiles} tiles of {figures['size']}², {figures['cpu']}, {figures['cores']} cores, load {figures['load']:.1f}\n"
    )
    print("| way | tiles a minute | s | start, s | cores busy | CPU s a tile |\n|---|---|---|---|---|---|")
    for way, of in ways.items():
        row = (60 * tiles / of["seconds"], of["seconds"], of["start_s"])
        used = f"{of['cores']:.2f} | {of['cores'] * of['seconds'] / tiles:.2f}"
        used = "– | –" if "killed" in way else used  # what the dead one used is not known
        print(f"| {way} | " + " | ".join(f"{figure:.1f}" for figure in row) + f" | {used} |")
    speedup = ways["ray, 1 worker"]["seconds"] / ways["ray, 2 workers"]["seconds"]
    plain = ways["processes, 1 worker"]["seconds"] / ways["processes, 2 workers"]["seconds"]
    beside = ways["processes, 2 workers"]["seconds"] / ways["ray, 2 workers"]["seconds"]
    a_tile = ways["ray, 1 worker"]["seconds"] / tiles
    lost = ways["ray, 2 workers, one killed"]["seconds"] - ways["ray, 2 workers"]["seconds"]
    allowed = MOST_TILES_LOST * a_tile + ways["ray, 2 workers"]["start_s"]
    print(f"\ntwo workers on Ray beside one:   {speedup:.2f} ×   (goal {LEAST_SPEEDUP}; two processes {plain:.2f} ×)")
    print(f"Ray beside processes, two each:  {beside:.2f} ×")
    print(f"a worker killed costs:           {lost:.1f} s   (a tile takes {a_tile:.1f} s on a worker; "
          f"goal: a tile and a worker's start, {allowed:.1f} s)")  # fmt: skip
    return speedup >= LEAST_SPEEDUP and lost <= allowed


if __name__ == "__main__":
    main()
