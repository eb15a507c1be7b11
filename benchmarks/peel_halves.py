"""How well models trained on one half of a real clip find the slumps in the other half, beside experts and a threshold.

    uv run benchmarks/peel_halves.py [--data ../shared/data] [--seeds 0 1 2] [--folder FOLDER] [--model FILE]

The clip of the Peel Plateau and its twelve experts are those of `benchmarks/peel.py`. Each half (west, east, north,
south) is tested with networks that saw labels of the other half only, trained, as all of this, by commands of darts:
`import-scene`, `train create-dataset`, `train fit` for each seed, and `run` with their mean over the eight turns.
Nothing is chosen on the test half: threshold 0.5, the last epoch. With `--folder`, what is there is not made again.
`--model` writes a model that saw the whole clip, by the same recipe and the first seed: so `peel-optical.pt` was made,
which comes with darts.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from peel import AGREEING, CLIP, EXPERTS, _burn, f1
from shapely.geometry import box

from darts.cli import run_command_line
from darts_segmentation.checkpoint import load_checkpoint, save_again

HALVES = {
    "west": (slice(None), slice(0, 125)), "east": (slice(None), slice(125, None)),
    "north": (slice(0, 125), slice(None)), "south": (slice(125, None), slice(None)),
}  # fmt: skip
"""Rows and columns."""
OTHER = {"west": "east", "east": "west", "north": "south", "south": "north"}
DATE = "2021-08-21"

DATASET = "--bands blue green red nir ndvi gndvi ikaw --patch-size 96 --overlap 88 --min-labelled 0.5"
FIT = """
    --bands ndvi gndvi ikaw --normalization.ndvi -0.1 0.9 --normalization.gndvi -0.15 0.75
    --normalization.ikaw -0.5 0.1
    --encoder tu-regnety_002 --model-arguments.encoder-depth 3 --model-arguments.decoder-channels [48,32,16]
    --learning-rate 3e-3 --warmup 0.1 --ema 0.98 --batch-size 4 --epochs 5 --steps-per-epoch 50
    --augmentations turns noise blur --positive-share -1 --split-shares.train 1 --loaders 0 --loggers csv
"""
"""Ratios of bands, which shade changes less than the bands; a shallow network, since there is little to learn from; no
validation, since there is nothing to spare for it."""
CARD = {
    "task": "retrogressive thaw slumps, Sentinel-2, 10 m, top-of-atmosphere reflectance",
    "training_data": "Peel Plateau clip of 2021-08-21, consensus of twelve experts (Nitze et al. 2024, "
    "10.1002/ppp.2249); nothing else",
    "licence": "MIT",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parent.parent.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, help="where datasets, trainings and results stay")
    parser.add_argument("--halves", nargs="*", choices=list(HALVES), default=list(HALVES))
    parser.add_argument("--model", type=Path, help="where to write a model that is trained on the whole clip")
    parser.add_argument("--dataset", default=DATASET, help="options of darts train create-dataset")
    parser.add_argument("--fit", default=FIT, help="options of darts train fit")
    options = parser.parse_args(arguments)
    if not (options.data / CLIP).exists():
        sys.exit(f"{options.data / CLIP} is not there; name the folder of the sample data with --data")
    with tempfile.TemporaryDirectory() as temporary:
        tell(options, options.folder or Path(temporary))


def tell(options: argparse.Namespace, folder: Path) -> None:
    """Print the scores of all halves."""
    with rasterio.open(options.data / CLIP) as clip:
        transform, shape, crs = clip.transform, clip.shape, clip.crs
        red, nir = (clip.read(band).astype("float64") for band in (3, 7))
    files = sorted((options.data / EXPERTS).glob("*/*.shp"))
    experts = np.array([_burn(file, transform, shape) for file in files])
    votes = experts.sum(axis=0)
    consensus, ndvi = votes >= AGREEING, (nir - red) / (nir + red)
    store = folder / "store"
    if not store.exists():
        darts(f"import-scene {options.data / CLIP} --store {store} --scene-id peel --acquisition-time {DATE}T21:00:19Z "
              "--bands blue=1 green=2 red=3 nir=7")  # fmt: skip
    scene = f"--raw-data-source import --raw-data-store {store} --scene-ids peel --offline"

    def trained(name: str, seen: tuple[slice, slice], seeds: list[int]) -> list[Path]:
        """Return models that saw a part of the clip."""
        footprint, dataset = folder / f"{name}.gpkg", folder / f"dataset-{name}"
        outline = gpd.GeoDataFrame(
            {"image_id": ["peel"], "image_date": [DATE]}, geometry=[area(transform, seen)], crs=crs
        )
        outline.to_file(footprint)
        darts(f"train create-dataset sentinel2 {dataset} {scene} --footprints {footprint} --min-agreeing {AGREEING} "
              f"--annotators {' '.join(map(str, files))} {options.dataset}")  # fmt: skip
        runs = [folder / f"fit-{name}-{seed}" for seed in seeds]
        for run, seed in zip(runs, seeds, strict=True):
            darts(f"train fit {run} --datasets {dataset} --seed {seed} {options.fit}")
        return [rename(run / "best.pt", folder / f"{run.name}.pt") for run in runs]

    if options.model is not None:
        (whole,) = trained("whole", (slice(None), slice(None)), options.seeds[:1])
        model = load_checkpoint(whole)
        save_again(model, options.model, card={**model.card, **CARD})
    rows = []
    for half in options.halves:
        begin = time.perf_counter()
        seen, unseen = HALVES[OTHER[half]], HALVES[half]
        models = trained(OTHER[half], seen, options.seeds)
        output = folder / f"found-{half}"
        darts(f"run sentinel2 {scene} --output-data-dir {output} --quality-level none --augment --overwrite "
              f"--export-bands probabilities --device cpu --model-files {' '.join(map(str, models))} "
              "--write-model-outputs")  # fmt: skip
        found = read(output / "peel" / "probabilities.tif")[unseen] > 0.5
        layers = [f"probabilities-{model.stem}" for model in models] if len(models) > 1 else ["probabilities"]
        alone = [read(output / "peel" / f"{layer}.tif")[unseen] > 0.5 for layer in layers]
        truth = consensus[unseen]
        limits = np.arange(0, 0.8, 0.005)
        limit = max(limits, key=lambda limit: f1(ndvi[seen] < limit, consensus[seen]))
        rows.append([
            f1(found, truth),
            float(np.mean([f1(one, truth) for one in alone])),
            f1(ndvi[unseen] < limit, truth),
            float(np.median([f1(e[unseen], (votes - e)[unseen] >= AGREEING) for e in experts])),
        ])  # fmt: skip
        print(f"{half:>6}  {'  '.join(f'{value:.3f}' for value in rows[-1])}  {time.perf_counter() - begin:.0f} s")
    if not rows:
        return
    print(f"{'mean':>6}  {'  '.join(f'{value:.3f}' for value in np.mean(rows, axis=0))}")
    print("        mean of the networks, one network, NDVI threshold of the other half, an expert")


def darts(line: str) -> None:
    """Run a command of darts, and end with it if it fails."""
    if run_command_line(["--log-plain", *line.split()]):
        sys.exit(f"failed: darts {line}")


def area(transform: rasterio.Affine, window: tuple[slice, slice]) -> object:
    """Return the outline of rows and columns of the clip, in its CRS."""
    rows, columns = (part.indices(251) for part in window)
    return box(*(transform * (columns[0], rows[1])), *(transform * (columns[1], rows[0])))


def rename(model: Path, name: Path) -> Path:
    """Return a link to a model under a name of its own, which its layers get."""
    name.unlink(missing_ok=True)
    name.hardlink_to(model)
    return name


def read(file: Path) -> np.ndarray:
    """Return probabilities, NaN where there are none."""
    with rasterio.open(file) as raster:
        values = raster.read(1).astype("float32") / 100
        values[raster.read_masks(1) == 0] = np.nan
    return values


if __name__ == "__main__":
    main()
