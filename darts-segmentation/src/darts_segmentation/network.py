"""Running a network on patches: where it computes, how much at once, what its input sides must be."""

import logging
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darts_segmentation.runtimes import (
    CompiledRuntime,
    Runtime,
    TorchRuntime,
    check_choices,
    chosen_precision,
    is_out_of_memory,
)
from darts_utils.arrays import array_namespace
from darts_utils.errors import ConfigError, DeviceError

logger = logging.getLogger("darts.segmentation")

PIXELS_AT_ONCE_ON_CPU = 1024 * 1024
"""A CPU is busy with this many pixels already; a larger batch would only take more memory."""

STRIDE = 32
"""Stride of networks that do not tell theirs."""

Limits = Sequence[tuple[float, float]]
"""(lo, hi) of each channel, which the network sees as 0 … 1."""


class Network:
    """A network on its device, which turns patches into probabilities.

    Args:
        module: the network; it belongs to the runtime from now on.
        device: "cpu" or "cuda:<index>".
        precision: "fp32", "bf16", "fp16" (GPU only), or None for what fits the device.
        runtime: "torch", "compile" or "openvino".
        temperature: logits are divided by it, which calibrates probabilities.
        bands: channels that the module takes; needed by "openvino".
        checkpoint, checksum: the file it came from and what it held, beside which conversions are kept.

    Raises:
        ConfigError: a choice is unknown, does not work on the device, or its software is not installed.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        device: str,
        precision: str | None = None,
        runtime: str = "torch",
        *,
        temperature: float = 1.0,
        bands: int | None = None,
        checkpoint: Path | None = None,
        checksum: str = "",
    ) -> None:
        check_choices(precision, runtime, device)
        self.device = torch.device(device)
        self.runtime = runtime
        self.temperature = temperature
        self.stride = int(getattr(getattr(module, "encoder", None), "output_stride", STRIDE))
        """What the sides of the input must be a multiple of."""
        # PAN pools what its encoder gives three times more.
        self.least = self.stride * (8 if module.__class__.__name__ == "PAN" else 1)
        """Smallest side of the input that the network takes."""
        self.module: torch.nn.Module | None = None
        """The torch network, where torch computes it."""
        self._compute: Runtime
        if runtime == "openvino":
            from darts_segmentation.openvino_runtime import OpenVINORuntime

            if bands is None:
                raise ConfigError("runtime 'openvino' must be told how many bands the network takes")
            self.precision = precision or "fp32"
            self._compute = OpenVINORuntime(
                module.eval(), bands=bands, side=self.least, precision=self.precision,
                checkpoint=checkpoint, checksum=checksum,
            )  # fmt: skip
        else:
            self.precision = chosen_precision(precision, self.device)
            kind = CompiledRuntime if runtime == "compile" else TorchRuntime
            self._compute = kind(module, self.device, self.precision)
            self.module = module

    def most(self, side_y: int, side_x: int) -> int | None:
        """Return how many patches are worth computing at once; None where only memory decides."""
        if self.device.type == "cpu" and self.runtime == "compile":
            return 1  # each other size of a batch would be compiled for itself, or filled up
        return max(1, PIXELS_AT_ONCE_ON_CPU // (side_y * side_x)) if self.device.type == "cpu" else None

    def predictor(self, limits: Limits | None = None) -> "Predictor":
        """Return a function for one tile: patches (batch, y, x, band) in, probabilities (batch, y, x) out.

        With `limits`, one pair a band, patches are as they are in memory and are normalised on the device.
        """
        return Predictor(self, limits)

    def probabilities(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the probabilities (batch, y, x), float32, of patches (batch, band, y, x) on the network's device."""
        logits = self._compute(patches)
        with torch.inference_mode():
            return torch.sigmoid(logits[:, 0] / self.temperature)


class Predictor:
    """A network at work on one tile; it remembers how many patches fit the device's memory.

    Where patches lie on the host and the network on a GPU, `start` returns while they are still on their way, and the
    next batch can be filled: into another array of `empty`, which the GPU reads without a copy in between.
    """

    def __init__(self, network: Network, limits: Limits | None = None) -> None:
        self.network = network
        self.fitting: int | None = None
        self._scaling: tuple[torch.Tensor, torch.Tensor] | None = None
        if limits is not None:
            # The same numbers as darts_utils.bands.normalize takes.
            lows, factors = [lo for lo, _ in limits], [1 / (hi - lo) for lo, hi in limits]
            self._scaling = (
                torch.tensor(lows, dtype=torch.float32, device=network.device).view(-1, 1, 1),
                torch.tensor(factors, dtype=torch.float32, device=network.device).view(-1, 1, 1),
            )
        on_gpu = network.device.type == "cuda"
        self._copies = torch.cuda.Stream(network.device) if on_gpu else None

    @property
    def buffers(self) -> int:
        """How many arrays of patches on the host are worth filling in turn."""
        return 2 if self._copies is not None else 1

    def empty(self, shape: tuple[int, ...]) -> Any:
        """Return a float32 array on the host, of any content, from which patches reach the device fastest.

        For a GPU, bands come first in its memory, so that rows of bands are copied as they are, and are interleaved
        there.
        """
        if self._copies is None:
            return np.empty(shape, np.float32)
        count, height, width, bands = shape
        memory = torch.empty((count, bands, height, width), dtype=torch.float32, pin_memory=True)
        return memory.numpy().transpose(0, 2, 3, 1)

    def __call__(self, patches: Any) -> Any:
        """Return probabilities (batch, y, x) of patches (batch, y, x, band), where the patches live."""
        return self.start(patches)()

    def start(self, patches: Any) -> Callable[[], Any]:
        """Return a function that waits for the probabilities and returns them, where the patches live.

        Until it is called, `patches` must stay as they are.

        Raises:
            DeviceError: one patch does not fit the device's memory.
        """
        parts: list[Callable[[], Any]] = []
        start = 0
        while start < len(patches):
            part = patches[start : start + (self.fitting or len(patches))]
            try:
                parts.append(self._launch(part))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(len(part), error)
                continue
            start += len(part)
        return lambda: self._gathered(patches, parts)

    def _launch(self, part: Any) -> Callable[[], torch.Tensor]:
        device, copies = self.network.device, self._copies
        if any(stride < 0 for stride in part.strides):  # torch takes none
            part = array_namespace(part).ascontiguousarray(part)
        patches = torch.from_dlpack(part).permute(0, 3, 1, 2)
        if copies is None or patches.device.type != "cpu":
            found = self._compute(patches.to(device)).to(patches.device)
            return lambda: found
        with torch.cuda.stream(copies):
            arriving = patches.to(device, non_blocking=True)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copies)
        arriving.record_stream(computing)
        answer = self._compute(arriving)
        on_host = torch.empty(answer.shape, dtype=answer.dtype, pin_memory=True)
        on_host.copy_(answer, non_blocking=True)
        done = computing.record_event()

        def wait() -> torch.Tensor:
            done.synchronize()
            return on_host

        return wait

    def _compute(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of patches (batch, band, y, x) on the network's device."""
        # Nothing is copied where bands come last in memory, as in a batch on a CPU.
        patches = patches.contiguous(memory_format=torch.channels_last)
        if self._scaling is not None:
            lows, factors = self._scaling
            patches = torch.sub(patches, lows).mul_(factors).nan_to_num_(nan=0, posinf=1, neginf=0).clamp_(0, 1)
        return self.network.probabilities(patches)

    def _gathered(self, patches: Any, parts: Sequence[Callable[[], torch.Tensor]]) -> Any:
        xp = array_namespace(patches)
        if len(parts) == 1:
            return xp.from_dlpack(parts[0]())
        results = xp.empty(patches.shape[:3], xp.float32)
        start = 0
        for wait in parts:
            found = wait()
            results[start : start + len(found)] = xp.from_dlpack(found)
            start += len(found)
        return results

    def _shrink(self, tried: int, error: Exception) -> None:
        if tried == 1:
            raise DeviceError(
                f"one patch does not fit the memory of {self.network.device}; choose a smaller patch_size, "
                "another device, or stop what else uses it"
            ) from error
        self.fitting = tried // 2
        logger.warning(
            "%d patches do not fit the memory of %s, going on with %d", tried, self.network.device, self.fitting
        )
        # The error's frames hold on to what was computed until then.
        traceback.clear_frames(error.__traceback__)
        if self.network.device.type == "cuda":
            torch.cuda.empty_cache()
