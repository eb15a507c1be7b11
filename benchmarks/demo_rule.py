"""The plain rule on NDVI and slope that the demo is compared with: the best of a grid search over training landscapes.

    uv run benchmarks/demo_rule.py [--seeds 1000 1005] [--size 1024] [--folder FOLDER]

With `--folder`, landscapes stay there, and those that are there (such as those of `darts train demo-models`) are not
made again.
"""

import argparse
import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np

from darts.demo import RULE, RuleScene, edge_zone, load_demo_tile, rasterize_truth, tune_rule
from darts.demo.score import CLOUD_CLASSES
from darts.demo.write import TRUTH_FILE
from darts.training.synthetic import write_synthetic_site


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs=2, default=[1000, 1005], help="first and last")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    seeds = range(options.seeds[0], options.seeds[1] + 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        scenes = [rule_scene(folder / f"site-{seed}-{options.size}", seed, options.size) for seed in seeds]
    best, score = tune_rule(scenes)
    print(f"{len(scenes)} landscapes, {score.there} slumps that count")
    print(f"best: {best}, object F1 {score.f1:.2f}")
    print(f"used: {RULE}")


def rule_scene(place: Path, seed: int, size: int) -> RuleScene:
    """Return what tuning needs of a landscape."""
    site = write_synthetic_site(place, seed, size)
    tile = load_demo_tile(site.folder, features=("ndvi", "slope"))
    scl = tile["s2_scl"].to_numpy()
    edge = edge_zone(scl != 0)
    outlines = gpd.read_file(site.folder / TRUTH_FILE)
    return RuleScene(
        ndvi=tile["ndvi"].to_numpy(), slope=tile["slope"].to_numpy(), scl=scl, extent=~edge,
        truth=rasterize_truth(outlines, tile.odc.geobox.shape, tile.odc.geobox.transform),
        cloud=np.isin(scl, CLOUD_CLASSES), edge=edge,
    )  # fmt: skip


if __name__ == "__main__":
    main()
