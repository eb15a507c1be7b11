"""How long a batch takes to load beside a training step, and a step of the trainer beside that of a bare loop.

    uv run benchmarks/training.py [--size 256] [--patches 32] [--batch-size 8] [--steps 12] [--device cpu]

A U-Net with resnet18 trains on ten bands of synthetic patches on disk, in crops of their whole size, with the default
augmentations. Measured are:

- a batch made in this process (read, augmented, normalised), in CPU seconds and seconds, and its parts;
- a step of a bare loop on a ready batch: forward, loss, backward, clipping, AdamW, moving average;
- a step of the trainer on ready batches, each followed by a bare one, so that both meet the same state of the machine;
- a step of the trainer with one loader process beside the network, and how long it waited for batches.

The network computes on `--threads` threads, by default one core less than there are, which is left to the loader. The
exit status is 1 where a goal is missed at full size.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, timed
from shapely.geometry import box

from darts_segmentation.training.augmentation import Augmentation
from darts_segmentation.training.batches import Batch, PatchBatches, make_loader
from darts_segmentation.training.fit_options import FitOptions
from darts_segmentation.training.losses import TotalLoss
from darts_segmentation.training.network_task import SegmentationTask
from darts_segmentation.training.networks import design_network
from darts_segmentation.training.patch_dataset import DatasetForm, Patch, PatchDataset, PatchWriter, Sample
from darts_segmentation.training.sampling import EpochSampler
from darts_segmentation.training.trainers import make_trainer, quiet
from darts_utils.bands import band
from darts_utils.threads import available_cores

BANDS = ("blue", "green", "red", "nir", "ndvi", "relative_elevation", "slope", "aspect", "tc_brightness",
         "tc_wetness")  # fmt: skip
AUGMENTATIONS = ("turns", "gain", "haze", "noise", "blur")
FULL_SIZE = 256
MOST_LOADING = 0.10
"""Goal: share of the step that loading its batch takes."""
MOST_OVER_BARE = 1.10
"""Goal: how many times the bare loop's step the trainer's may take."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=FULL_SIZE, help="pixels along each side of a patch")
    parser.add_argument("--patches", type=int, default=32, help="patches in the dataset")
    parser.add_argument("--batch-size", type=int, default=8, help="patches a step")
    parser.add_argument("--steps", type=int, default=12, help="steps of each measurement")
    parser.add_argument("--encoder", default="resnet18", help="encoder of the network")
    parser.add_argument("--device", default="cpu", help="where the network computes: cpu or cuda:0")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"], help="numbers it computes with")
    parser.add_argument("--threads", type=int, help="threads of the network on a CPU")
    parser.add_argument("--loaders", type=int, default=1, help="processes that load beside the network")
    parser.add_argument("--json", type=Path, help="file that keeps the figures")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads or max(1, available_cores() - 1))
    with tempfile.TemporaryDirectory() as folder, quiet():
        figures = machine("torch", "lightning", "zarr", "numpy") | measure(Path(folder), options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    goals = [
        ("loading a batch, share of the step", MOST_LOADING, figures["loading_share"]),
        ("waiting for batches, share of the step", MOST_LOADING, figures["waiting_share"]),
        ("step of the trainer beside the bare loop", MOST_OVER_BARE, figures["over_bare"]),
    ]
    print_figures(figures, goals, options)
    if options.size >= FULL_SIZE and any(reached > most for _, most, reached in goals):
        sys.exit(1)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    dataset = PatchDataset.open(write_dataset(folder / "dataset", options.patches, options.size))
    batches = PatchBatches(dataset, BANDS, augmentation=Augmentation(AUGMENTATIONS, BANDS))
    sampler = EpochSampler(
        np.arange(len(dataset)), np.ones(len(dataset), bool), options.batch_size, steps=options.steps
    )  # fmt: skip
    figures: dict[str, Any] = {"size": options.size, "batch_size": options.batch_size, "device": options.device}
    figures |= measure_loading(dataset, batches, sampler)
    figures |= measure_steps(folder, batches, sampler, options)
    figures["loading_share"] = figures["load_s"] / figures["trainer_s"]
    figures["waiting_share"] = figures["waited_s"] / figures["loaded_trainer_s"]
    figures["over_bare"] = figures["trainer_s"] / figures["bare_s"]
    return figures


def write_dataset(folder: Path, patches: int, size: int) -> Path:
    """Write patches of smooth noise in all bands, each over its range, with discs as slumps."""
    rng = np.random.default_rng(0)
    rows, cols = np.indices((size, size))
    outline = box(-130, 70, -129.9, 70.1)
    with PatchWriter(folder, DatasetForm(bands=BANDS, patch_size=size)) as writer:
        made = []
        for number in range(patches):
            coarse = rng.random((len(BANDS), size // 8, size // 8), np.float32).repeat(8, axis=1).repeat(8, axis=2)
            x = coarse + rng.normal(0, 0.02, coarse.shape).astype(np.float32)
            for place, name in enumerate(BANDS):
                lo, hi = band(name).valid
                x[place] = lo + (hi - lo) * x[place]
            x[:, : size // 16] = np.nan
            slump = np.hypot(rows - size / 2, cols - size / 3) < size / 8
            y = np.where(rows < size // 16, 2, slump).astype(np.uint8)
            made.append(Patch(x=x, y=y, row=0, col=number * size, geometry=outline))
        writer.add(Sample(sample_id="all", footprint=outline), made)
    return folder


def measure_loading(dataset: PatchDataset, batches: PatchBatches, sampler: EpochSampler) -> dict[str, float]:
    """Return median seconds of a batch, and of reading and augmenting its patches alone."""
    lists = list(sampler)
    batches[lists[0]]
    seconds, cpu = zip(*(timed(lambda draws=draws: batches[draws])[:2] for draws in lists), strict=True)
    read = [timed(lambda draws=draws: [dataset.read(draw.patch, BANDS) for draw in draws])[0] for draws in lists]
    patches = [dataset.read(draw.patch, BANDS) for draw in lists[0]]
    augmentation = Augmentation(AUGMENTATIONS, BANDS)

    def augment() -> None:
        for number, (x, y) in enumerate(patches):
            augmentation(x, y, np.random.default_rng(number))

    augmented = [timed(augment)[0] for _ in lists]
    return {
        "load_s": statistics.median(seconds), "load_cpu_s": statistics.median(cpu), "read_s": statistics.median(read),
        "augment_s": statistics.median(augmented),
    }  # fmt: skip


def measure_steps(
    folder: Path, batches: PatchBatches, sampler: EpochSampler, options: argparse.Namespace
) -> dict[str, float]:  # fmt: skip
    """Return median seconds of a step: bare, in the trainer, and in the trainer beside a loader."""
    fit = FitOptions(datasets=[folder], encoder=options.encoder, batch_size=options.batch_size)
    _, network = design_network(fit, BANDS, "true-north")
    ready = batches[next(iter(sampler))]
    bare = Beside(bare_loop(deepcopy(network), ready, options))
    in_trainer, _ = trainer_steps(deepcopy(network), [ready] * (options.steps + 2), options, bare)
    loader = make_loader(batches, sampler, loaders=options.loaders, on_gpu=options.device != "cpu")
    beside_loader, waits = trainer_steps(deepcopy(network), loader, options)
    return {
        "bare_s": statistics.median(bare.seconds[2:]), "trainer_s": statistics.median(in_trainer),
        "loaded_trainer_s": statistics.median(beside_loader), "waited_s": statistics.median(waits),
    }  # fmt: skip


def bare_loop(network: torch.nn.Module, batch: Batch, options: argparse.Namespace) -> Callable[[], float]:
    """Return a function that does one step by hand, and returns its seconds."""
    device = torch.device(options.device)
    network = network.to(device, memory_format=torch.channels_last).train()
    average = deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    loss = TotalLoss({"bce": 1.0, "dice": 1.0})
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16")

    def step() -> float:
        start = time.perf_counter()
        x, y = (batch[name].to(device, non_blocking=True) for name in ("x", "y"))
        with autocast:
            logits = network(x)[:, 0]
            value = loss(logits, y == 1, y != 2)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 0.01)
        finish(device)
        return time.perf_counter() - start

    return step


def trainer_steps(
    network: torch.nn.Module, loader: Any, options: argparse.Namespace, beside: "Beside | None" = None
) -> tuple[list[float], list[float]]:  # fmt: skip
    """Return the seconds of the trainer's steps, waiting included, and what each waited for its batch."""
    watch = Watched(loader, torch.device(options.device), beside)
    task = SegmentationTask(network, TotalLoss({"bce": 1.0, "dice": 1.0}), total_steps=len(loader))
    make_trainer(options.device, options.precision, epochs=1, clip=1.0).fit(task, watch)
    return watch.steps[2:], watch.waited[2:]  # the first find their memory


class Beside:
    """A step that is done after each of another loop."""

    def __init__(self, step: Callable[[], float]) -> None:
        self.step = step
        self.seconds: list[float] = []

    def __call__(self) -> None:
        """Do the step."""
        self.seconds.append(self.step())


class Watched:
    """A loader that notes how long each step takes and waits, and does another step beside it."""

    def __init__(self, loader: Any, device: torch.device, beside: Beside | None) -> None:
        self.loader, self.device, self.beside = loader, device, beside
        self.steps: list[float] = []
        self.waited: list[float] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.loader)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited.append(time.perf_counter() - asked)
            yield batch
            finish(self.device)
            self.steps.append(time.perf_counter() - asked)
            if self.beside is not None:
                self.beside()


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def print_figures(
    figures: dict[str, Any], goals: list[tuple[str, float, float]], options: argparse.Namespace
) -> None:  # fmt: skip
    size, batch, where = options.size, options.batch_size, options.device
    print(f"{batch} patches of {size} x {size} px, {len(BANDS)} bands; U-Net, {options.encoder}, on {where}")
    print("\n| median of a step's | ms |\n|---|---|")
    rows = {
        "loading of a batch": "load_s", "… CPU time": "load_cpu_s", "… reading alone": "read_s",
        "… augmenting alone": "augment_s", "bare step": "bare_s", "trainer's step": "trainer_s",
        "trainer's step beside a loader": "loaded_trainer_s", "… waiting for the batch": "waited_s",
    }  # fmt: skip
    for name, key in rows.items():
        print(f"| {name} | {figures[key] * 1000:.1f} |")
    print("\n| goal | at most | reached |\n|---|---|---|")
    for name, most, reached in goals:
        print(f"| {name} | {most:.2f} | {reached:.3f}{'' if reached <= most else ' (missed)'} |")


if __name__ == "__main__":
    main()
