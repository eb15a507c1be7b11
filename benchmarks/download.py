"""How fast scenes come into the raw data store, beside fetching one asset at a time, and how much memory that takes.

    uv run benchmarks/download.py [--scenes 12] [--latency-ms 50] [--mbit 40]
    uv run benchmarks/download.py --full --cache FOLDER

The first form serves small scenes of five JPEG 2000 assets on this machine, behind a proxy that adds latency to each
response and limits the rate of each connection as servers do, and fetches them twice: all assets of a scene (and two
scenes) at once, as darts does, and one at a time. The transfer alone and the whole download, with decoding and writing,
are both told: decoding needs the processor, however the bytes came.

The second form fetches one scene of full size (10980 × 10980 pixels, five JPEG 2000 assets) and prints the peak memory
of the process. Making the files takes some minutes; they are kept in FOLDER.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pystac
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition.asset_servers import AssetServers
from darts_acquisition.stac_items import item_assets
from darts_acquisition.stac_scenes import download_scene
from darts_acquisition.stac_sources import CDSE_SOURCE, StacSource
from darts_acquisition.testing import fault_proxy, file_server
from darts_acquisition.testing.sentinel2 import make_cdse_scene
from darts_acquisition.transfers import fetch

SCENE = "S2A_MSIL2A_202407{:02d}T204021_N0511_R014_T08WMA_20240720T003015"
BANDS = CDSE_SOURCE.bands("blue", "green", "red", "nir")
LEAST_RATIO = 3.0
MOST_MEMORY_GB = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--side", type=int, default=384, help="pixels along each side of a small scene")
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--mbit", type=float, default=20, help="rate of one connection, megabits a second; 0: no limit")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="one scene of full size, for its memory")
    parser.add_argument("--cache", type=Path, help="folder that keeps the files of --full")
    parser.add_argument("--fetch-full", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fetch_full:
        fetch_full(options.fetch_full)
    elif options.full:
        if options.cache is None:
            parser.error("--full needs --cache FOLDER")
        full(options.cache)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Print how long darts and one asset at a time take for the same small scenes."""
    with tempfile.TemporaryDirectory() as folder, file_server(Path(folder, "served")) as server:
        rate = options.mbit * 1e6 / 8 or None
        with fault_proxy(server, latency_s=options.latency_ms / 1000, bytes_per_second=rate) as proxy:
            geobox = GeoBox((options.side, options.side), Affine(10, 0, 399960, 0, -10, 7600020), "EPSG:32608")
            items = [make(Path(folder, "served"), proxy.url, geobox, n) for n in range(options.scenes)]
            source = replace(CDSE_SOURCE, requests_per_second=None)
            one = replace(source, connections=1)
            size = sum(asset.size or 0 for item in items for asset in _assets(item, source))
            print(
                f"{options.scenes} scenes of 5 assets, {size / 1e6:.1f} MB; {options.latency_ms:g} ms latency, "
                f"{options.mbit:g} Mbit/s a connection; best of {options.repeats}, alternating"
            )
            ratios = []
            for what, measure in (("transfer alone", transfer), ("whole download", whole)):
                times: dict[str, list[float]] = {"darts": [], "one": []}
                for n in range(options.repeats):
                    proxy.clear()
                    times["darts"].append(measure(items, source, Path(folder, f"{what}-{n}")))
                    in_flight = proxy.max_in_flight
                    times["one"].append(measure(items, one, Path(folder, f"{what}-one-{n}")))
                darts, alone = min(times["darts"]), min(times["one"])
                ratios.append(alone / darts)
                print(
                    f"{what:>15}: darts {darts:6.2f} s, one at a time {alone:6.2f} s, ratio {alone / darts:4.1f}; "
                    f"{in_flight} assets in flight at most; scatter of darts {statistics.pstdev(times['darts']):.2f} s"
                )
    sys.exit(0 if ratios[0] >= LEAST_RATIO and in_flight >= 4 else 1)


def transfer(items: list[pystac.Item], source: StacSource, folder: Path) -> float:
    """Return the seconds that fetching and verifying all assets takes, scene by scene."""
    folder.mkdir()
    servers = AssetServers(source)
    start = time.perf_counter()
    for item in items:
        with ThreadPoolExecutor(source.connections) as pool:
            jobs = [
                pool.submit(
                    fetch, asset.href, folder / asset.name, source=source, size=asset.size, checksum=asset.checksum,
                    servers=servers,
                )
                for asset in _assets(item, source)
            ]  # fmt: skip
        for job in jobs:
            job.result()
    return time.perf_counter() - start


def whole(items: list[pystac.Item], source: StacSource, store: Path) -> float:
    """Return the seconds that downloading all scenes takes: two at once as in `darts prepare-data`, or one by one."""
    start = time.perf_counter()
    with ThreadPoolExecutor(min(2, source.connections)) as pool:
        jobs = [pool.submit(download_scene, item, store, source, BANDS) for item in items]
    for job in jobs:
        job.result()
    return time.perf_counter() - start


def make(folder: Path, address: str, geobox: GeoBox, number: int, block: int = 128) -> pystac.Item:
    """Write a scene's files below a folder and return its item with their addresses."""
    item, files = make_cdse_scene(SCENE.format(number + 1), geobox, number, block=block)
    for asset in item["assets"].values():
        key = asset["href"].removeprefix("s3://eodata/")
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(files[key])
        asset["href"] = f"{address}/{key}"
    return pystac.Item.from_dict(item)


def full(cache: Path) -> None:
    """Print time and peak memory of one scene of full size, fetched by a process of its own."""
    item_file = cache / "item.json"
    if not item_file.exists():
        print("making the files …", flush=True)
        geobox = GeoBox((10980, 10980), Affine(10, 0, 399960, 0, -10, 7600020), "EPSG:32608")
        item = make(cache, cache.resolve().as_uri(), geobox, 0, block=1024)
        item_file.write_text(json.dumps(item.to_dict(include_self_link=False)))
    # Making the files took memory too, so another process is measured.
    run = subprocess.run([sys.executable, __file__, "--fetch-full", str(cache)], check=False)
    sys.exit(run.returncode)


def fetch_full(cache: Path) -> None:
    """Fetch the scene of full size from its folder through a server, and print what that took."""
    item = json.loads((cache / "item.json").read_text())
    before = _peak_gb()
    with file_server(cache) as server, tempfile.TemporaryDirectory(dir=cache) as store:
        for asset in item["assets"].values():
            asset["href"] = asset["href"].replace(cache.resolve().as_uri(), server)
        start = time.perf_counter()
        download_scene(pystac.Item.from_dict(item), store, replace(CDSE_SOURCE, requests_per_second=None), BANDS)
        seconds = time.perf_counter() - start
        stored = sum(path.stat().st_size for path in Path(store).rglob("*") if path.is_file())
    fetched = sum(asset["file:size"] for asset in item["assets"].values())
    peak = _peak_gb()
    print(
        f"10980 × 10980 pixels, 5 assets, {fetched / 1e6:.0f} MB fetched, {stored / 1e6:.0f} MB stored: "
        f"{seconds:.0f} s on {os.cpu_count()} cores, peak memory {peak:.2f} GB ({before:.2f} GB before the download)"
    )
    sys.exit(0 if peak < MOST_MEMORY_GB else 1)


def _assets(item: pystac.Item, source: StacSource) -> list:
    return list(item_assets(item, source, item.assets).values())


def _peak_gb() -> float:
    # getrusage would tell the peak of the process that started this one, where that is higher.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9


if __name__ == "__main__":
    main()
