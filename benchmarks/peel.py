"""What the bundled optical model finds at a real slump site, beside plain rules and human experts.

    uv run benchmarks/peel.py [--data ../shared/data]

Pixel F1 against the consensus of twelve experts who each outlined the slumps in the Peel Plateau clip alone
(Nitze et al. 2024, 10.1002/ppp.2249); a pixel belongs to the consensus when at least six of them agree. The model runs
through the real commands, `darts import-scene` and `darts run sentinel2`.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import rasterio.features

from darts.demo import bundled_models

CLIP = "s2/rts_sites/S2_20210821T210019_20210821T210020_T08WMA.tif"
EXPERTS = "labels/rts_sites_experts"
AGREEING = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parent.parent.parent / "shared" / "data")
    data = parser.parse_args().data
    if not (data / CLIP).exists():
        sys.exit(f"{data / CLIP} is not there; name the folder of the sample data with --data")

    with rasterio.open(data / CLIP) as clip:
        red, nir = (clip.read(band).astype("float64") for band in (3, 7))
        transform, shape = clip.transform, clip.shape
    experts = [_burn(file, transform, shape) for file in sorted((data / EXPERTS).glob("*/*.shp"))]
    votes = np.sum(experts, axis=0)
    consensus = votes >= AGREEING
    ndvi = (nir - red) / (nir + red)

    among = [f1(a, b) for a, b in itertools.combinations(experts, 2)]
    # An expert against the consensus of the other eleven, which again takes more than half of them.
    alone = [f1(e, votes - e >= AGREEING) for e in experts]
    threshold = max((f1(ndvi < t, consensus), t) for t in np.arange(0, 0.8, 0.005))
    print(f"Peel Plateau, {shape[1]} × {shape[0]} pixels, {consensus.sum()} in the consensus of {len(experts)} experts")
    print(f"{'pixel F1':>8}")
    _row(np.median(among), "two experts against each other, median")
    _row(np.median(alone), "one expert against the consensus of the others, median")
    _row(threshold[0], f"best plain NDVI threshold (NDVI < {threshold[1]:.3f}, chosen on this clip)")
    with tempfile.TemporaryDirectory() as folder:
        for note, options in (
            ("whole clip (--quality-level none)", ["--quality-level", "none"]),
            ("as darts run does by default: objects that touch the frame of 10 pixels go whole", []),
        ):
            found = run_darts(data / CLIP, Path(folder), options)
            _row(f1(found, consensus), f"bundled model demo-optical, {note}")


def run_darts(clip: Path, folder: Path, options: list[str]) -> np.ndarray:
    """Return the objects (bool) that the optical model finds in the clip through the real commands."""
    run = [sys.executable, "-m", "darts", "--log-plain"]
    store = folder / "store"
    scene = ["--store", str(store), "--scene-id", "peel", "--acquisition-time", "2021-08-21T21:00:19Z", "--overwrite"]
    bands = ["--bands", "blue=1", "green=2", "red=3", "nir=7"]
    subprocess.run([*run, "import-scene", str(clip), *scene, *bands], check=True, capture_output=True)
    where = ["--raw-data-source", "import", "--raw-data-store", str(store), "--output-data-dir", str(folder / "out")]
    model = ["--model-files", str(bundled_models()["demo-optical"])]
    command = [*run, "run", "sentinel2", "--scene-ids", "peel", "--offline", "--overwrite", *where, *model, *options]
    subprocess.run(command, check=True, capture_output=True)
    with rasterio.open(folder / "out" / "peel" / "binarized.tif") as file:
        return file.read(1) == 1


def f1(found: np.ndarray, truth: np.ndarray) -> float:
    """Return 2·TP / (2·TP + FP + FN) over all pixels."""
    return float(2 * np.sum(found & truth) / max(np.sum(found) + np.sum(truth), 1))


def _burn(file: Path, transform: rasterio.Affine, shape: tuple[int, int]) -> np.ndarray:
    outlines = gpd.read_file(file).geometry
    return rasterio.features.rasterize(outlines, shape, transform=transform, dtype="uint8").astype(bool)


def _row(value: float, what: str) -> None:
    print(f"{value:8.2f}  {what}")


if __name__ == "__main__":
    main()
