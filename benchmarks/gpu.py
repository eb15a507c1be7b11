"""Segmentation on a GPU: pixels a second, share of the card's matmul rate, share of time the GPU is busy.

    python benchmarks/gpu.py [--size 4096] [--patch-size 1024] [--batch-size 8] [--encoder resnet34] [--json FILE]

One network of ten bands segments a tile of noise that lies on the host, in each precision, compiled, with and without
cutting patches while the GPU works; where cupy is installed also a tile that lies on the GPU. Floating-point operations
are those that torch counts for the network on one patch, a multiplication and an addition being two. The matmul rate is
that of square matrices in the same precision, measured in the same run. Busy is the time in which at least one kernel
runs (copies do not count) over the time of `segment_tile`, in a run of its own under torch's profiler.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from measuring import machine
from torch.utils.flop_counter import FlopCounterMode

from darts_segmentation import SMPSegmenter, build_model, load_checkpoint, save_checkpoint
from darts_segmentation.inference import PredictsAhead, Reader
from darts_segmentation.patches import patch_starts
from darts_segmentation.runtimes import PRECISIONS
from darts_utils.arrays import to_device
from darts_utils.bands import band

BANDS = ("blue", "green", "red", "nir", "ndvi", "relative_elevation", "slope", "tc_brightness", "tc_greenness",
         "tc_wetness")  # fmt: skip
WAYS = {"fp32": ("fp32", "torch"), "bf16": ("bf16", "torch"), "fp16": ("fp16", "torch"),
        "bf16, compiled": ("bf16", "compile")}  # fmt: skip
OVERLAP_SHARE = 4
LEAST_BUSY = 0.8
NO_KERNELS = ("Memcpy", "Memset")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one way to run the network was measured to do."""

    way: str
    tile: str
    """Where the tile lives, "host" or "GPU"."""
    ahead: bool
    """Whether patches were cut while the GPU worked."""
    seconds: float
    megapixels_per_second: float
    share_of_matmul: float
    busy: float


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096, help="pixels along each side of the tile")
    parser.add_argument("--patch-size", type=int, default=1024, help="pixels along each side of a patch")
    parser.add_argument("--batch-size", type=int, default=8, help="patches at once")
    parser.add_argument("--encoder", default="resnet34", help="encoder of the network")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, of which the fastest counts")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS), help="precisions and runtimes")
    parser.add_argument("--json", type=Path, help="file that keeps the figures")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA device, and torch finds none here")
    rates = {precision: matmul_rate(precision) for precision in dict.fromkeys(WAYS[way][0] for way in options.ways)}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = write_model(Path(folder) / "ten.pt", options.encoder)
        tile = make_tile(options.size)
        tiles = {"host": tile} | ({"GPU": to_device(tile, "cuda")} if importlib.util.find_spec("cupy") else {})
        for way in options.ways:
            for where, here in tiles.items():
                for ahead in (True, False) if where == "host" else (False,):
                    print(f"measuring {way}, tile on the {where} …", file=sys.stderr, flush=True)
                    rows.append(measure(way, file, here, where, ahead, rates[WAYS[way][0]], options))
    if options.json:
        figures = {"rows": [asdict(row) for row in rows], "matmul": rates, "card": torch.cuda.get_device_name()}
        options.json.write_text(json.dumps(figures | machine("torch", "segmentation-models-pytorch"), indent=1))
    print(table(rows, rates))
    print(f"\n{options.size} × {options.size} pixels, batches of {options.batch_size}, {torch.cuda.get_device_name()}")
    best = max(row.busy for row in rows)
    print(f"busy: {best:.0%} at best, goal {LEAST_BUSY:.0%}{'' if best >= LEAST_BUSY else ', missed'}")


def measure(
    way: str, file: Path, tile: xr.Dataset, where: str, ahead: bool, rate: float, options: argparse.Namespace
) -> Figures:
    """Return the figures of one way to run the network in the file."""
    precision, runtime = WAYS[way]
    kind = SMPSegmenter if ahead or where == "GPU" else WaitingSegmenter
    segmenter = kind(file, "cuda", precision=precision, runtime=runtime)
    patches = {"patch_size": options.patch_size, "overlap": options.patch_size // OVERLAP_SHARE}

    def segment() -> None:
        segmenter.segment_tile(tile, **patches, batch_size=options.batch_size)
        torch.cuda.synchronize()

    segment()  # loads and compiles what is used
    seconds = min(seconds_of(segment) for _ in range(options.repeat))
    flops = flops_of(file, options.patch_size) * patches_of(options.size, options.patch_size)
    return Figures(
        way=way, tile=where, ahead=ahead, seconds=seconds, megapixels_per_second=options.size**2 / 1e6 / seconds,
        share_of_matmul=flops / seconds / rate, busy=busy_share(segment),
    )  # fmt: skip


class WaitingSegmenter(SMPSegmenter):
    """A segmenter that cuts no patch while the GPU works; all else is the same."""

    def reader(self) -> Reader:
        """Return the network, which waits for each answer."""
        reader = super().reader()
        assert isinstance(reader.predict, PredictsAhead)
        return replace(reader, predict=_AtOnce(reader.predict))


class _AtOnce:
    buffers = 2  # in the same memory as where it works ahead

    def __init__(self, predict: PredictsAhead) -> None:
        self.predict, self.empty = predict, predict.empty

    def start(self, patches: Any) -> Callable[[], Any]:
        answer = self.predict(patches)
        return lambda: answer

    def __call__(self, patches: Any) -> Any:
        return self.predict(patches)


def seconds_of(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def matmul_rate(precision: str, side: int = 8192, repeat: int = 10) -> float:
    """Return the floating-point operations a second of products of square matrices on the GPU."""
    left, right = (torch.rand(side, side, device="cuda").to(PRECISIONS[precision]) for _ in range(2))
    best = float("inf")
    for _ in range(repeat + 2):  # the first ones choose and load the kernel
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        torch.matmul(left, right)
        end.record()
        torch.cuda.synchronize()
        best = min(best, start.elapsed_time(end) / 1000)
    return 2 * side**3 / best


def flops_of(file: Path, patch_size: int) -> int:
    """Return the floating-point operations of a checkpoint's network on one patch; nothing is computed."""
    network = build_model(load_checkpoint(file)).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, len(BANDS), patch_size, patch_size, device="meta"))
    return int(counter.get_total_flops())


def patches_of(size: int, patch_size: int) -> int:
    return len(patch_starts(size, patch_size, patch_size // OVERLAP_SHARE)) ** 2


def busy_share(call: Callable[[], None]) -> float:
    """Return in which share of a call's time at least one kernel runs on the GPU."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        seconds = seconds_of(call)
    kernels = [
        (event.time_range.start, event.time_range.end)
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith(NO_KERNELS)
    ]
    return covered(kernels) / 1e6 / seconds


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of spans (start, end)."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(end - max(start, reached), 0)
        reached = max(reached, end)
    return total


def table(rows: Sequence[Figures], rates: dict[str, float]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| network | tile | cuts ahead | s | Mpx/s | of the matmul rate | GPU busy |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ahead = ("yes" if row.ahead else "no") if row.tile == "host" else "–"
        lines.append(
            f"| {row.way} | {row.tile} | {ahead} | {row.seconds:.2f} | {row.megapixels_per_second:.0f} "
            f"| {row.share_of_matmul:.0%} | {row.busy:.0%} |"
        )
    measured = ", ".join(f"{precision} {rate / 1e12:.0f} TFLOP/s" for precision, rate in rates.items())
    return "\n".join([*lines, "", f"matmul: {measured}"])


def write_model(path: Path, encoder: str) -> Path:
    """Write a checkpoint of random weights, the same ones each time."""
    import segmentation_models_pytorch as smp

    config = {"arch": "unet", "encoder_name": encoder, "in_channels": len(BANDS), "classes": 1}
    torch.manual_seed(0)
    network = smp.create_model(**config, encoder_weights=None)
    save_checkpoint(path, model=config, bands=BANDS, state_dict=network.state_dict())
    return path


def make_tile(size: int) -> xr.Dataset:
    """Return a tile of noise in all bands, each over its range."""
    random = np.random.default_rng(0)
    planes = {}
    for name in BANDS:
        lo, hi = band(name).valid
        planes[name] = (("y", "x"), lo + (hi - lo) * random.random((size, size), np.float32))
    return xr.Dataset(planes, attrs={"tile_id": "noise"})


if __name__ == "__main__":
    main()
