"""How fast the tiles of many runs become the dataset, and how much memory that takes, beside plain geopandas.

    uv run benchmarks/merge.py [--tiles 5000 10000 20000] [--processes 2] [--plain 200]

Tiles are simulated and always the same: 50 days in five years over a growing number of places in four UTM zones, each
tile with some 100 polygons, those at its edges cut and those in the overlap there twice, as neighbours on one day see
them. The plain version is what a user would write with geopandas, on a small number of tiles. Memory is that of all
processes together. The exit status is 1 where a goal is missed at full size.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from measuring import GIB, Goal, in_own_process, machine, print_goals, print_machine
from pyproj import CRS

from darts_export.dataset import merge_outputs

FULL_SIZE = 20_000
MOST_MINUTES = 15.0
MOST_MEMORY_GIB = 2.0
MOST_GROWTH = 1.25
"""Seconds a tile at the largest size, beside the smallest."""

PIXEL_M = 10
TILE_PX = 2400
STEP_PX = 2200
FRAME_PX = 10
ZONES = ("EPSG:32608", "EPSG:32609", "EPSG:32650", "EPSG:32601")
YEARS = range(2019, 2024)
DAYS_A_YEAR = 10
DETECTED = 0.75
OBJECTS_A_TILE = 130
SHAPES, VARIANTS = 128, 6
PACKAGES = ("numpy", "pandas", "pyarrow", "shapely", "pyproj", "geopandas", "pyogrio")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, nargs="+", default=[5000, 10_000, FULL_SIZE], help="numbers of tiles")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--plain", type=int, default=200, help="tiles of the plain version; 0 skips it")
    parser.add_argument("--folder", type=Path, help="where tiles are put for the while; default: the temporary folder")
    parser.add_argument("--json", type=Path, help="file that keeps the figures")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if min(options.tiles) < 1 or options.plain < 0 or options.processes < 1:
        parser.error("--tiles and --processes must be at least 1, --plain not negative")
    if options.part:
        options.json.write_text(json.dumps(PARTS[options.part](options)))
        return

    figures: dict[str, Any] = {"processes": options.processes, "runs": []} | machine(*PACKAGES)
    for tiles in sorted(options.tiles):
        figures["runs"].append(on_tiles(options, tiles, ["ours"])["ours"])
        keep(options, figures)  # a later part may fail, and an hour would be lost
    if options.plain:
        figures["compared"] = on_tiles(options, options.plain, ["ours", "plain"])
        keep(options, figures)
    goals = goals_of(figures)
    print_figures(figures, goals)
    if max(options.tiles) >= FULL_SIZE and any(not met for *_, met in goals):
        sys.exit(1)


# What is measured


def keep(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Write what was measured so far into the file that was asked for."""
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def on_tiles(options: argparse.Namespace, tiles: int, parts: list[str]) -> dict[str, Any]:
    """Return the figures of parts on simulated tiles, which are made before and removed afterwards."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        start = time.perf_counter()
        made, polygons = simulate(Path(folder, "tiles"), tiles, options.processes)
        written = time.perf_counter() - start
        figures = {}
        for part in parts:
            print(f"measuring {part} on {made} tiles with {polygons} polygons …", file=sys.stderr, flush=True)
            given = ["--folder", folder, "--processes", str(options.processes)]
            figures[part] = in_own_process(__file__, part, given) | {
                "tiles": made, "polygons": polygons, "simulated_in_s": written,
            }  # fmt: skip
        return figures


def measure_ours(options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds, CPU seconds and memory of the merge of the tiles in the folder, and the rows it gave."""
    with memory_of_all() as memory:
        start = time.perf_counter()
        summary = merge_outputs([options.folder / "tiles"], options.folder / "dataset", processes=options.processes)
        seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in summary.folder.iterdir())
    shutil.rmtree(summary.folder)
    return {
        "seconds": seconds, "cpu_s": cpu_seconds(), "peak_gib": memory["peak"] / GIB, "rows": dict(summary.rows),
        "output_gib": size / GIB,
    }  # fmt: skip


def measure_plain(options: argparse.Namespace) -> dict[str, Any]:
    """Return the same of the plain version, which makes only Level 1 and 2, as GeoPackages."""
    with memory_of_all() as memory:
        start = time.perf_counter()
        rows = merge_plainly(options.folder / "tiles", options.folder)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "cpu_s": cpu_seconds(), "peak_gib": memory["peak"] / GIB, "rows": rows}


PARTS = {"ours": measure_ours, "plain": measure_plain}


def merge_plainly(tiles: Path, out: Path) -> dict[str, int]:
    """Write what overlaps on a day, and in a year, as one polygon each; cut segments that were joined with others."""
    frames = []
    for path in sorted(tiles.glob("*/*/prediction_*segments.parquet")):
        frame = gpd.read_parquet(path).to_crs("EPSG:6931")
        frames.append(frame.assign(cut="cut" in path.name))
    pieces = pd.concat(frames, ignore_index=True)
    pieces["date"] = pieces.acquisition_time.dt.date
    level1 = joined(pieces, ["sensor", "date"])
    level1["year"] = pd.to_datetime(level1.date).dt.year
    level2 = joined(level1, ["year"])
    for name, frame in (("level1", level1), ("level2", level2)):
        frame["area_m2"] = frame.area
        frame.to_crs("EPSG:4326").to_file(out / f"plain-{name}.gpkg")
    return {"level1": len(level1), "level2": len(level2)}


def joined(frame: gpd.GeoDataFrame, by: list[str]) -> gpd.GeoDataFrame:
    # A hair's breadth joins what meets at corners.
    outlines = frame[[*by, "geometry"]].assign(geometry=frame.buffer(0.5, join_style="mitre"))
    outlines = outlines.dissolve(by=by).explode().reset_index()
    outlines["geometry"] = outlines.buffer(-0.5, join_style="mitre")
    groups = gpd.sjoin(frame[[*by, "mean", "geometry"]], outlines, predicate="intersects", lsuffix="", rsuffix="of")
    same = np.all([groups[f"{name}_"].eq(groups[f"{name}_of"]) for name in by], axis=0)
    return outlines.join(groups[same].groupby("index_of")["mean"].mean())


# How it is measured


@contextmanager
def memory_of_all() -> Iterator[dict[str, float]]:
    """Give, after the block, the most memory that this process and those below it had at once, in bytes.

    Memory that processes share counts once (Pss, as Linux tells it).
    """
    memory = {"peak": 0.0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            memory["peak"] = max(memory["peak"], sum(map(own_memory, processes_below(os.getpid()))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield memory
    finally:
        done.set()
        watcher.join()


def processes_below(process: int) -> list[int]:
    """Return a process and all those that it started."""
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += [one for child in task.read_text().split() for one in processes_below(int(child))]
    return found


def own_memory(process: int) -> int:
    with suppress(OSError, ValueError):
        return int(Path(f"/proc/{process}/smaps_rollup").read_text().partition("\nPss:")[2].split()[0]) * 1024
    return 0


def cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


# Inputs


def simulate(folder: Path, tiles: int, processes: int) -> tuple[int, int]:
    """Write folders of tiles; return their number, about as many as asked, and that of their polygons."""
    days = len(YEARS) * DAYS_A_YEAR
    across = max(round((tiles / days / len(ZONES)) ** 0.5), 1)
    down = max(round(tiles / days / len(ZONES) / across), 1)
    jobs = [(zone, day) for zone in range(len(ZONES)) for day in range(days)]
    with ProcessPoolExecutor(processes) as pool:
        polygons = sum(pool.map(partial(write_day, folder, across, down), jobs, chunksize=8))
    return across * down * len(jobs), polygons


def write_day(folder: Path, across: int, down: int, job: tuple[int, int]) -> int:
    """Write the tiles of one zone and day, and return how many polygons they have."""
    zone, day = job
    metadata = geo_metadata(ZONES[zone])
    world = np.random.default_rng(zone)
    count = OBJECTS_A_TILE * across * down
    place = world.integers(0, [STEP_PX * across + TILE_PX - STEP_PX, STEP_PX * down + TILE_PX - STEP_PX], (count, 2))
    shape = world.integers(0, SHAPES, count)
    seen = np.random.default_rng([zone, day])
    detected = seen.random(count) < DETECTED
    variant = seen.integers(0, VARIANTS, count)
    outlines = templates()[shape[detected] * VARIANTS + variant[detected]]
    points, owner = shapely.get_coordinates(outlines, return_index=True)
    origin = np.array([400_000, 7_500_000])
    moved = shapely.set_coordinates(
        shapely.from_wkb(shapely.to_wkb(outlines)), origin + PIXEL_M * (points + place[detected][owner])
    )
    bounds = shapely.bounds(moved)
    time_of_day = pd.Timestamp(f"{YEARS[day // DAYS_A_YEAR]}-07-01T20:00:00Z") + pd.Timedelta(days=5 * (day % 10))
    written = 0
    for column in range(across):
        for row in range(down):
            corner = origin + PIXEL_M * STEP_PX * np.array([column, row])
            written += write_tile(folder, f"{zone}-{column}-{row}", time_of_day, metadata, corner, moved, bounds)
    return written


def write_tile(
    folder: Path, tile_id: str, when: pd.Timestamp, metadata: bytes, corner: np.ndarray, outlines: np.ndarray,
    bounds: np.ndarray,
) -> int:  # fmt: skip
    tile = np.concatenate([corner, corner + PIXEL_M * TILE_PX])
    inner = tile + PIXEL_M * FRAME_PX * np.array([1, 1, -1, -1])
    touch = (bounds[:, :2] < tile[2:]).all(axis=1) & (bounds[:, 2:] > tile[:2]).all(axis=1)
    inside = (bounds[:, :2] >= inner[:2]).all(axis=1) & (bounds[:, 2:] <= inner[2:]).all(axis=1)
    cut = shapely.get_parts(shapely.clip_by_rect(outlines[touch & ~inside], *tile))
    scene = f"{when:%Y%m%dT%H%M%S}_{tile_id}"
    target = folder / tile_id / scene
    target.mkdir(parents=True)
    ids = {"tile_id": tile_id, "image_id": scene, "sensor": "Sentinel-2", "acquisition_time": when}
    write(target / "prediction_segments.parquet", segments(outlines[inside]), ids, metadata)
    write(target / "prediction_cut_segments.parquet", segments(cut), ids, metadata)
    seen = shapely.box(*inner)
    cloud = shapely.Point(*(inner[:2] + PIXEL_M * (sum(map(ord, scene)) * 7 % 1000 + 500))).buffer(2000, quad_segs=16)
    both = {"geometry": np.array([seen, seen.difference(cloud)]), "kind": ["seen", "clear"]}
    write(target / "prediction_extent.parquet", both, ids, metadata)
    return int(inside.sum()) + len(cut)


def segments(geometry: np.ndarray) -> dict[str, Any]:
    pixels = np.rint(shapely.area(geometry) / PIXEL_M**2).astype("int64")
    mean = 0.55 + 0.4 * (pixels % 17) / 17
    return {
        "geometry": geometry, "segment_id": [f"{number:012x}" for number in range(len(geometry))],
        "min": mean - 0.05, "max": mean + 0.05, "mean": mean, "median": mean, "std": np.full(len(mean), 0.02),
        "npixel": pixels, "area_m2": shapely.area(geometry), "perimeter_m": shapely.length(geometry),
        "probability_std": np.full(len(mean), 0.1), "valid_share_around": np.ones(len(mean)),
        "threshold": np.full(len(mean), 0.5), "model": ["ensemble"] * len(mean),
    }  # fmt: skip


def write(path: Path, columns: dict[str, Any], ids: dict[str, Any], metadata: bytes) -> None:
    count = len(columns["geometry"])
    arrays = {name: pa.array(values) for name, values in columns.items() if name != "geometry"}
    arrays |= {name: pa.array([value] * count, pa.string()) for name, value in ids.items() if isinstance(value, str)}
    arrays["acquisition_time"] = pa.array([ids["acquisition_time"]] * count, pa.timestamp("ms", "UTC"))
    arrays["geometry"] = pa.array(shapely.to_wkb(columns["geometry"]), pa.binary())
    tags = json.dumps({"DARTS_mmu": 32, "DARTS_version": "0.1.0"}).encode()
    table = pa.table(arrays).replace_schema_metadata({b"geo": metadata, b"darts": tags})
    pq.write_table(table, path, compression="zstd")


def geo_metadata(crs: str) -> bytes:
    column = {"encoding": "WKB", "geometry_types": [], "crs": CRS(crs).to_json_dict()}
    return json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}).encode()


@cache
def templates() -> np.ndarray:
    """Return outlines of slumps in pixels: SHAPES blobs in VARIANTS each, some 30 vertices and 50 to 400 pixels."""
    rng = np.random.default_rng(7)
    outlines = []
    for _ in range(SHAPES):
        blocks = shapely.box(*np.concatenate([c := rng.integers(0, 14, (5, 2)), c + rng.integers(4, 12, (5, 2))], 1).T)
        base = shapely.union_all([block for block in blocks if block.intersects(blocks[0])])
        for _ in range(VARIANTS):
            left, bottom = np.array(base.centroid.coords[0]).round() + rng.integers(-6, 2, 2)
            outlines.append(base.union(shapely.box(left, bottom, left + 8, bottom + 7)))
    whole = [shapely.get_parts(outline)[0] for outline in outlines]
    return np.array(whole, dtype=object)


# What is printed


def goals_of(figures: dict[str, Any]) -> list[Goal]:
    """Return what is measured, its goal, what was reached, and whether that is enough."""
    runs = figures["runs"]
    minutes, memory = runs[-1]["seconds"] / 60, runs[-1]["peak_gib"]
    goals = [
        (f"time of {runs[-1]['tiles']} tiles", f"at most {MOST_MINUTES:g} min", f"{minutes:.1f} min",
         minutes <= MOST_MINUTES),
        ("peak memory of all processes", f"at most {MOST_MEMORY_GIB:g} GiB", f"{memory:.2f} GiB",
         memory <= MOST_MEMORY_GIB),
    ]  # fmt: skip
    if len(runs) > 1:
        growth = runs[-1]["cpu_s"] / runs[-1]["tiles"] * runs[0]["tiles"] / runs[0]["cpu_s"]
        what = f"CPU time a tile, {runs[-1]['tiles']} beside {runs[0]['tiles']}"
        goals.append((what, f"at most {MOST_GROWTH:g} ×", f"{growth:.2f} ×", growth <= MOST_GROWTH))
    return goals


def print_figures(figures: dict[str, Any], goals: list[Goal]) -> None:
    """Print all figures as Markdown tables."""
    print(f"\n{figures['processes']} processes\n")
    print("| tiles | polygons | s | CPU, s | peak, GiB | output, GiB | Level 1 | Level 2 | slumps |")
    print("|---|---|---|---|---|---|---|---|---|")
    for run in figures["runs"]:
        rows = run["rows"]
        print(
            f"| {run['tiles']} | {run['polygons']} | {run['seconds']:.0f} | {run['cpu_s']:.0f} | "
            f"{run['peak_gib']:.2f} | {run['output_gib']:.2f} | "
            f"{rows['level1']} | {rows['level2']} | {rows['slumps']} |"
        )
    if compared := figures.get("compared"):
        print("\n| version | tiles | s | CPU, s | peak, GiB | Level 1 | Level 2 |\n|---|---|---|---|---|---|---|")
        for part, run in compared.items():
            rows = run["rows"]
            print(
                f"| {part} | {run['tiles']} | {run['seconds']:.1f} | {run['cpu_s']:.1f} | {run['peak_gib']:.2f} | "
                f"{rows['level1']} | {rows['level2']} |"
            )
    print_goals("merge", goals)
    print_machine(figures)


if __name__ == "__main__":
    main()
