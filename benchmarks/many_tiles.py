"""How well loading and export hide behind the computing of many tiles, and whether memory stays the same.

    uv run benchmarks/many_tiles.py [--size 2048] [--tiles 8] [--read 40] [--write 10] [--memory-tiles 5 50]

Tiles of a synthetic landscape go through the real steps with the two bundled models: one after the other, then
overlapped, in one process. Reading and writing are held back to so many MB/s, as from a network file system: after a
step as long as its bytes take less what the step took. Beside the wall times stands what overlapping can reach at
best: the longest stage of all tiles, and one load and one export that nothing hides. Then small tiles are run
overlapped, few and many, each in a process of its own, for the peak of memory.

The exit status is 1 where a goal is missed at full size.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import GIB, in_own_process, machine, resident, timed

from darts.demo import generate_landscape, write_demo_data
from darts.demo.bundled import bundled_models
from darts.demo.write import demo_paths
from darts.display.line_display import LineReporter
from darts.executors.executor import Executor, Policy
from darts.executors.workers import InTurn, Threads, Workers
from darts.pipelines import Sentinel2Pipeline
from darts.plan import Plan
from darts.tiles import Inputs, Tile
from darts.timings import STEPS, TileClock
from darts_utils.stopping import Stop

FULL_SIZE = 2048
MOST_OVER_BEST = 1.1
MOST_MEMORY_GROWTH = 0.05
SMALL = 256
STAGES = {"load": STEPS[:3], "compute": STEPS[3:5], "export": STEPS[5:]}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=FULL_SIZE, help="pixels along each side of a tile")
    parser.add_argument("--tiles", type=int, default=8, help="number of tiles")
    parser.add_argument("--read", type=float, default=40, help="MB/s at which inputs come, as they lie in memory")
    parser.add_argument("--write", type=float, default=10, help="MB/s at which files go")
    parser.add_argument("--memory-tiles", type=int, nargs=2, default=[5, 50], help="few and many small tiles")
    parser.add_argument("--json", type=Path, help="file that keeps the figures")
    parser.add_argument("--part", choices=["memory"], help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if min(options.size, options.tiles, *options.memory_tiles) < 1 or min(options.read, options.write) <= 0:
        parser.error("--size, --tiles, --memory-tiles, --read and --write must be positive")
    if options.part:
        options.json.write_text(json.dumps(peak_of(options.count)))
        return
    figures: dict[str, Any] = machine("torch", "rasterio", "xarray")
    with tempfile.TemporaryDirectory() as folder:
        figures |= compare(Path(folder), options)
    figures["memory_gib"] = {
        count: in_own_process(__file__, "memory", ["--count", str(count)]) / GIB for count in options.memory_tiles
    }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    if not tell(figures) and options.size >= FULL_SIZE:
        sys.exit(1)


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of both ways, and of the stages of the first."""
    plan = throttled(plan_of(folder, options.size), options.read * 1e6, options.write * 1e6)
    run(plan, InTurn(plan), tiles(folder / "warm", 1))
    in_turn, cpu, stages = run(plan, InTurn(plan), tiles(folder / "in-turn", options.tiles))
    overlapped, overlapped_cpu, _ = run(plan, Threads(plan), tiles(folder / "overlapped", options.tiles))
    longest = max(stages.values())
    return {
        "size": options.size, "tiles": options.tiles, "stages_s": stages, "in_turn_s": in_turn, "in_turn_cpu_s": cpu,
        "overlapped_s": overlapped, "overlapped_cpu_s": overlapped_cpu,
        "best_s": longest + (stages["load"] + stages["export"]) / options.tiles,
    }  # fmt: skip


def run(plan: Plan, workers: Workers, todo: list[Tile]) -> tuple[float, float, dict[str, float]]:
    """Return seconds, CPU seconds, and the seconds of each stage in sum."""
    executor = Executor(workers, Policy(), LineReporter(len(todo), quiet=True), Stop(), batch_size=8)
    seconds, cpu, outcomes = timed(lambda: [outcome for outcome, _ in executor.run(todo)])
    workers.close()
    failed = [outcome.error for outcome in outcomes if outcome.status != "success"]
    if failed:
        raise SystemExit(f"a tile failed: {failed[0]}")
    stages = {
        stage: sum(outcome.seconds.get(step, 0.0) for outcome in outcomes for step in steps)
        for stage, steps in STAGES.items()
    }
    return seconds, cpu, stages


def plan_of(folder: Path, size: int) -> Plan:
    """Return the plan of a landscape that is made in a folder."""
    landscape = generate_landscape(1, size=size)
    write_demo_data(landscape, folder)
    pipeline = Sentinel2Pipeline(
        scene_ids=[landscape.scene_id], model_files=list(bundled_models().values()), offline=True, device="cpu",
        default_dirs=demo_paths(folder), output_data_dir=folder / "out",
    )  # fmt: skip
    pipeline._check()
    plan = pipeline.plan()
    load = plan.source.load
    plan.source = dataclasses.replace(plan.source, load=lambda key: load(landscape.scene_id))
    return plan


def tiles(output: Path, count: int) -> list[Tile]:
    return [Tile(f"tile{n}", n, output / f"tile{n}") for n in range(count)]


def throttled(plan: Plan, read: float, write: float) -> Plan:
    """Let loading and export take as long as their bytes do at so many bytes a second."""

    class Slow(Plan):
        def load(self, tile: Tile, clock: TileClock) -> Inputs:
            start = time.perf_counter()
            inputs = super().load(tile, clock)
            rest = inputs.nbytes / read - (time.perf_counter() - start)
            clock.run("Loading Optical", time.sleep, max(rest, 0))
            return inputs

        def finish(self, tile: Tile, segmented: Any, clock: TileClock) -> None:
            start = time.perf_counter()
            super().finish(tile, segmented, clock)
            written = sum(file.stat().st_size for file in tile.output.iterdir())
            clock.run("Exporting", time.sleep, max(written / write - (time.perf_counter() - start), 0))

    plan.__class__ = Slow
    return plan


def peak_of(count: int) -> int:
    """Return the peak of memory of so many small tiles, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(Path(folder), SMALL)
        run(plan, Threads(plan), tiles(Path(folder, "out"), count))
    return resident("VmHWM")


def tell(figures: dict[str, Any]) -> bool:
    """Print the figures, and return whether they meet the goals."""
    stages = figures["stages_s"]
    over = figures["overlapped_s"] / figures["best_s"]
    few, many = figures["memory_gib"].items()
    growth = many[1] / few[1] - 1
    print(f"{figures['tiles']} tiles of {figures['size']}², {figures['cpu']}, {figures['cores']} cores")
    print("stages in sum: " + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.items()))
    print(f"one after the other      {figures['in_turn_s']:7.1f} s   (CPU {figures['in_turn_cpu_s']:.1f} s)")
    print(f"overlapped               {figures['overlapped_s']:7.1f} s   (CPU {figures['overlapped_cpu_s']:.1f} s)")
    print(f"best that can be         {figures['best_s']:7.1f} s   longest stage + one load + one export")
    print(f"overlapped beside best   {over:7.2f} ×   (goal {MOST_OVER_BEST})")
    print(f"peak of {few[0]} small tiles {few[1]:.3f} GiB, of {many[0]} {many[1]:.3f} GiB: {growth:+.1%} "
          f"(goal {MOST_MEMORY_GROWTH:.0%})")  # fmt: skip
    return over <= MOST_OVER_BEST and growth <= MOST_MEMORY_GROWTH


if __name__ == "__main__":
    main()
