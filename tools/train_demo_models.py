"""Train and score the bundled demo models on synthetic landscapes, with the very components of the pipeline.

    python tools/train_demo_models.py --scratch FOLDER [prepare] [rule] [train] [evaluate]

`prepare` renders the landscapes, writes them as the demo does, reads them back with the pipeline's loaders and
preprocessing, and keeps the features in the scratch folder (seeds that are there are not made again); `rule` tunes the
plain rule on the training seeds; `train` trains both models from where an interrupted training left off; `evaluate`
scores single models, ensemble and rule on seeds that nothing was trained on, prints the table of docs/demo-models.md,
and writes the scores into the models' cards. Without a step, all four run. On the CPU the same seeds, steps and number
of threads give the same weights on one kind of machine.
"""

import argparse
import json
import logging
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import geopandas as gpd
import numpy as np
import segmentation_models_pytorch as smp
import torch
import xarray as xr
from torch.nn import functional

from darts.demo import (
    RULE,
    Rule,
    RuleScene,
    Score,
    apply_rule,
    edge_zone,
    generate_landscape,
    load_demo_tile,
    rasterize_truth,
    score_objects,
    score_pixels,
    tune_rule,
    write_demo_data,
)
from darts.demo.score import CLOUD_CLASSES
from darts.demo.write import TRUTH_FILE
from darts_ensemble import EnsembleV1
from darts_postprocessing import prepare_export
from darts_segmentation import load_checkpoint, save_checkpoint
from darts_segmentation.checkpoint import save_again
from darts_utils.bands import normalize
from darts_utils.store import replacing

logger = logging.getLogger("train_demo_models")

OPTICAL = ("blue", "green", "red", "nir")
MODELS = {
    "demo-full": (
        *OPTICAL, "ndvi", "tc_brightness", "tc_greenness", "tc_wetness",
        "relative_elevation", "slope", "hillshade", "curvature",
    ),
    "demo-optical": (*OPTICAL, "ndvi"),
}  # fmt: skip
ENCODERS = {"demo-full": "tu-mobilenetv3_small_050", "demo-optical": "tu-mobilenetv3_small_100"}
"""Without terrain and trends form and texture must tell more, so the optical model is the larger one."""
NORMALIZATION = {"relative_elevation": (-12.0, 12.0), "slope": (0.0, 40.0), "curvature": (-6.0, 6.0)}
"""Ranges that a slump fills; those of the band table serve all of the Arctic's relief."""
ARCHITECTURE = {
    "arch": "unet",
    "encoder_depth": 5,
    "decoder_channels": [64, 48, 32, 16, 8],
    "encoder_weights": None,
    "classes": 1,
}
PATH_RADIANCE = (0.075, 0.040, 0.022, 0.008)
"""Reflectance that a clear sky adds at the top of the atmosphere, as in Level-1C scenes of the Arctic."""


@dataclass(frozen=True)
class Sample:
    """A landscape as training sees it."""

    features: np.ndarray
    """float16 (band, y, x): optical as reflectance, the others normalised to 0 … 1; NaN as 0."""
    target: np.ndarray
    """uint8 (y, x): 1 slump, 0 none, 2 not seen."""


def main() -> None:
    """Run the steps that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("steps", nargs="*", choices=["prepare", "rule", "train", "evaluate", []], default=[])
    parser.add_argument("--scratch", type=Path, required=True, help="folder for features and states of training")
    parser.add_argument("--out", type=Path, help="folder of the checkpoints (default: that of the package)")
    parser.add_argument("--seeds", type=_seeds, default=_seeds("1000-1039"), help="training seeds, such as 1000-1039")
    parser.add_argument("--test-seeds", type=_seeds, default=_seeds("5000-5009"), help="seeds for scoring")
    parser.add_argument("--size", type=int, default=1024, help="side of a landscape in pixels")
    parser.add_argument("--steps-per-model", type=int, default=900, help="optimiser steps")
    parser.add_argument(
        "--minutes",
        type=float,
        help="shorten each model's schedule to this time (the weights then depend on the machine's speed)",
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=160)
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    out = options.out or Path(__file__).parents[1] / "darts" / "src" / "darts" / "demo" / "models"
    steps = options.steps or ["prepare", "rule", "train", "evaluate"]
    options.scratch.mkdir(parents=True, exist_ok=True)
    if "prepare" in steps:
        prepare(options.seeds, options.scratch, options.size, options.threads)
    if "rule" in steps:
        find_rule(options.seeds, options.scratch, options.size)
    if "train" in steps:
        for name in options.models:
            train(name, options, out)
    if "evaluate" in steps:
        evaluate(options.test_seeds, options.scratch, out, options.size)


def prepare(seeds: list[int], scratch: Path, size: int, workers: int) -> None:
    """Render the landscapes of all seeds that the scratch folder lacks, and keep the tiles that the pipeline sees."""
    missing = [seed for seed in seeds if not _tile_file(scratch, seed, size).exists()]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for seed in pool.map(_prepare_one, missing, [scratch] * len(missing), [size] * len(missing)):
            logger.info("seed %d is there", seed)


def load_tile(seed: int, scratch: Path, size: int) -> xr.Dataset:
    """Return a landscape's tile as the pipeline sees it, with `truth`; made if the scratch folder lacks it."""
    file = _tile_file(scratch, seed, size)
    if not file.exists():
        _prepare_one(seed, scratch, size)
    return xr.open_zarr(file, decode_coords="all", consolidated=False, mask_and_scale=False).load()


def find_rule(seeds: list[int], scratch: Path, size: int, scenes: int = 6) -> None:
    """Tune the plain rule on training seeds and print it."""
    rule, score = tune_rule([_rule_scene(load_tile(seed, scratch, size)) for seed in seeds[:scenes]])
    logger.info("best rule over %d training seeds: %s, object F1 %.3f", min(scenes, len(seeds)), rule, score.f1)
    (scratch / "rule.json").write_text(json.dumps(vars(rule)))


def train(name: str, options: argparse.Namespace, out: Path) -> None:
    """Train one model, from its last state if there is one, and write its checkpoint."""
    bands = MODELS[name]
    samples = [_sample(load_tile(seed, options.scratch, options.size), bands) for seed in options.seeds]
    torch.manual_seed(17)
    model = ARCHITECTURE | {"encoder_name": ENCODERS[name], "in_channels": len(bands)}
    network = smp.create_model(**model).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=1e-2)
    state_file = options.scratch / f"{name}.state.pt"
    step, spent = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
        logger.info("%s goes on from step %d", name, step)
    network.train()
    began, mean_loss = time.monotonic() - spent, None
    while (done := _progress(step, time.monotonic() - began, options)) < 1:
        # Each step has random numbers of its own, so that a resumed training draws what an unbroken one would.
        rng = np.random.default_rng([17, step])
        for group in optimizer.param_groups:
            group["lr"] = options.rate * _rate(done)
        inputs, target = _batch(rng, samples, options.batch, options.crop)
        loss = _loss(network(inputs.to(memory_format=torch.channels_last))[:, 0], target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        mean_loss = loss.item() if mean_loss is None else mean_loss + 0.03 * (loss.item() - mean_loss)
        if step % 50 == 0:
            spent = time.monotonic() - began
            logger.info(
                "%s step %d, %.0f %%, loss %.4f, %.2f s a step", name, step, 100 * done, mean_loss, spent / step
            )
            _save_state(state_file, network, optimizer, step, spent)
    card = {
        "task": "retrogressive thaw slumps, Sentinel-2, 10 m",
        "training_data": "synthetic landscapes only (darts.demo.generate_landscape)",
        "training_seeds": [min(options.seeds), max(options.seeds)],
        "steps": step,
        "licence": "MIT",
        "made_by": "tools/train_demo_models.py",
    }
    normalization = {band: limits for band, limits in NORMALIZATION.items() if band in bands}
    checkpoint = save_checkpoint(
        out / f"{name}.pt", model=model, bands=bands,
        state_dict=network.state_dict(), normalization=normalization or None, terrain_convention="true-north",
        card=card,
    )  # fmt: skip
    logger.info("wrote %s (%.2f MB)", checkpoint.path, checkpoint.path.stat().st_size / 1e6)


def evaluate(seeds: list[int], scratch: Path, out: Path, size: int) -> None:
    """Score ensemble, single models and rule on seeds, print the table, and put scores into cards."""
    ensemble = EnsembleV1({name: out / f"{name}.pt" for name in MODELS}, device="cpu")
    rule = Rule(**json.loads((scratch / "rule.json").read_text())) if (scratch / "rule.json").exists() else RULE
    totals: dict[str, tuple[Score, Score]] = {}
    print("| seed | slumps that count | ensemble | full | optical | rule | ensemble, pixels | rule, pixels |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in seeds:
        tile = load_tile(seed, scratch, size)
        truth, scene = tile["truth"].to_numpy(), tile.drop_vars("truth")
        result = prepare_export(
            ensemble.segment_tile(scene, keep_inputs=True), ensemble_subsets=list(MODELS), device="cpu"
        )
        extent = result["extent"].to_numpy()
        scl = tile["s2_scl"].to_numpy()
        found = {"ensemble": result["binarized_segmentation"].to_numpy()}
        found |= {name: result[f"binarized_segmentation-{name}"].to_numpy() for name in MODELS}
        found["rule"] = apply_rule(tile["ndvi"].to_numpy(), tile["slope"].to_numpy(), scl, extent, rule)
        cloud, edge = np.isin(scl, CLOUD_CLASSES), edge_zone(scl != 0)
        scores = {
            key: (
                score_objects(mask, truth, extent, cloud=cloud, edge=edge),
                score_pixels(mask, truth, extent, cloud=cloud, edge=edge),
            )
            for key, mask in found.items()
        }
        for key, (objects, pixels) in scores.items():
            before = totals.get(key, (Score(), Score()))
            totals[key] = (before[0] + objects, before[1] + pixels)
        _print_row(str(seed), scores)
    _print_row("all", totals)
    for name in MODELS:
        _write_scores(out / f"{name}.pt", seeds, *totals[name])
    objects = totals["ensemble"][0]
    print(f"\nEnsemble: precision {objects.precision:.3f}, recall {objects.recall:.3f}; rule: {rule}")


def _write_scores(file: Path, seeds: list[int], objects: Score, pixels: Score) -> None:
    """Put a model's scores into its card."""
    model = load_checkpoint(file)
    scores = {
        "test_seeds": [min(seeds), max(seeds)],
        "object_f1": round(objects.f1, 3),
        "pixel_f1": round(pixels.f1, 3),
    }
    save_again(model, file, card={**model.card, **scores})


def _prepare_one(seed: int, scratch: Path, size: int) -> int:
    # One thread a process: the processes share the cores already.
    os.environ["OMP_NUM_THREADS"] = "1"
    data = scratch / f"landscape-{seed}-{size}"
    if not data.exists():
        with replacing(data) as temporary:
            write_demo_data(generate_landscape(seed, size), temporary)
    tile = load_demo_tile(data)
    outlines = gpd.read_file(data / TRUTH_FILE)
    truth = rasterize_truth(outlines, tile.odc.geobox.shape, tile.odc.geobox.transform)
    tile = tile[[*MODELS["demo-full"], "s2_scl", "quality_data_mask"]].assign(truth=(("y", "x"), truth))
    for variable in tile.variables.values():
        variable.encoding = {}
    with replacing(_tile_file(scratch, seed, size)) as temporary:
        tile.to_zarr(temporary, consolidated=False)
    return seed


def _tile_file(scratch: Path, seed: int, size: int) -> Path:
    return scratch / f"tile-{seed}-{size}.zarr"


def _rule_scene(tile: xr.Dataset) -> RuleScene:
    scl = tile["s2_scl"].to_numpy()
    edge = edge_zone(scl != 0)
    return RuleScene(
        ndvi=tile["ndvi"].to_numpy(), slope=tile["slope"].to_numpy(), scl=scl, extent=~edge,
        truth=tile["truth"].to_numpy(), cloud=np.isin(scl, CLOUD_CLASSES), edge=edge,
    )  # fmt: skip


def _sample(tile: xr.Dataset, bands: tuple[str, ...]) -> Sample:
    layers = [
        tile[band].to_numpy() if band in OPTICAL else normalize(tile[band].to_numpy(), band, NORMALIZATION.get(band))
        for band in bands
    ]
    unseen = np.isin(tile["s2_scl"].to_numpy(), (0, *CLOUD_CLASSES)) | ~np.isfinite(np.sum(layers, axis=0))
    target = np.where(unseen, 2, tile["truth"].to_numpy() > 0).astype("uint8")
    return Sample(np.nan_to_num(np.stack(layers)).astype("float16"), target)


def _batch(rng: np.random.Generator, samples: list[Sample], batch: int, crop: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return network inputs (batch, band, y, x) and targets (batch, y, x) of augmented crops."""
    inputs, targets = [], []
    for index in range(batch):
        sample = samples[int(rng.integers(len(samples)))]
        height, width = sample.target.shape
        row, col = int(rng.integers(height)), int(rng.integers(width))
        # Three crops of four hold a slump, the fourth is anywhere.
        slumps = np.flatnonzero(sample.target == 1) if index % 4 else np.empty(0, int)
        if slumps.size:
            row, col = divmod(int(slumps[rng.integers(slumps.size)]), width)
            row, col = row + int(rng.integers(-crop // 3, crop // 3)), col + int(rng.integers(-crop // 3, crop // 3))
        top, left = (int(np.clip(at - crop // 2, 0, side - crop)) for at, side in ((row, height), (col, width)))
        window = (slice(top, top + crop), slice(left, left + crop))
        layers, target = sample.features[:, *window].astype("float32"), sample.target[window]
        layers[:4] = _other_atmosphere(rng, layers[:4])
        layers = _as_network_sees(layers)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        layers, target = np.rot90(layers, turns, (1, 2)), np.rot90(target, turns)
        if flip:
            layers, target = layers[..., ::-1], target[..., ::-1]
        inputs.append(torch.from_numpy(np.ascontiguousarray(layers)))
        targets.append(torch.from_numpy(np.ascontiguousarray(target)))
    return torch.stack(inputs), torch.stack(targets)


def _other_atmosphere(rng: np.random.Generator, optical: np.ndarray) -> np.ndarray:
    """Return reflectance (4, y, x) as another day, sensor or processing level would have it."""
    missing = optical.sum(axis=0) == 0
    gain = np.exp(rng.normal(0, 0.10) + rng.normal(0, 0.04, 4))
    sky = np.array(PATH_RADIANCE) * rng.uniform(0, 1.25) * (rng.random() < 0.5) * rng.normal(1, 0.08, 4)
    changed = optical * gain[:, None, None].astype("float32") + sky[:, None, None].astype("float32")
    if rng.random() < 0.25:
        changed = functional.avg_pool2d(torch.from_numpy(changed), 3, 1, 1, count_include_pad=False).numpy()
    changed += rng.normal(0, rng.uniform(0, 0.003), changed.shape).astype("float32")
    changed[:, missing] = 0
    return changed


def _as_network_sees(layers: np.ndarray) -> np.ndarray:
    """Return layers with optical bands normalised and NDVI (the fifth) made anew from them."""
    total = layers[3] + layers[2]
    ndvi = np.clip(np.where(total > 1e-3, (layers[3] - layers[2]) / np.maximum(total, 1e-3), 0), -1, 1)
    layers[4] = normalize(np.where(total == 0, np.nan, ndvi), "ndvi")
    for index, band in enumerate(OPTICAL):
        layers[index] = normalize(np.where(total == 0, np.nan, layers[index]), band)
    return layers


def _loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy plus Dice, both over pixels that are seen."""
    seen = (target != 2).float()
    truth = (target == 1).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = torch.sigmoid(logits) * seen
    dice = 1 - (2 * (probability * truth).sum() + 1) / (probability.sum() + (truth * seen).sum() + 1)
    return (entropy * seen).sum() / seen.sum().clamp(min=1) * 2 + dice


def _progress(step: int, seconds: float, options: argparse.Namespace) -> float:
    """Return how much of the training is done, 0 to 1, by steps or by time, whichever is further."""
    by_time = seconds / 60 / options.minutes if options.minutes else 0.0
    return float(max(step / options.steps_per_model, by_time))


def _rate(done: float) -> float:
    """Return the learning rate's share of its highest: up for 10 % of the training, then down along a cosine."""
    return done / 0.1 + 0.02 if done < 0.1 else 0.5 + 0.5 * float(np.cos(np.pi * (done - 0.1) / 0.9))


def _save_state(
    file: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, spent: float
) -> None:
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent}
    torch.save(state, file.with_suffix(".tmp"))
    file.with_suffix(".tmp").replace(file)


def _print_row(name: str, scores: dict[str, tuple[Score, Score]]) -> None:
    objects = [f"{scores[key][0].f1:.2f}" for key in ("ensemble", *MODELS, "rule")]
    pixels = [f"{scores[key][1].f1:.2f}" for key in ("ensemble", "rule")]
    print(f"| {name} | {scores['ensemble'][0].planted} | {' | '.join(objects + pixels)} |", flush=True)


def _seeds(text: str) -> list[int]:
    """Return seeds from text such as `1000-1039,2000`."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


if __name__ == "__main__":
    main()
