"""Running a network on patches: where it computes, how much at once, what its input sides must be."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from darts_utils.arrays import array_namespace
from darts_utils.errors import DeviceError

logger = logging.getLogger("darts.segmentation")

PIXELS_AT_ONCE_ON_CPU = 1024 * 1024
"""A CPU is busy with this many pixels already; a larger batch would only take more memory."""

STRIDE = 32
"""Stride of networks that do not tell theirs."""


class Network:
    """A network on its device, which turns patches into probabilities."""

    def __init__(self, module: torch.nn.Module, device: str) -> None:
        self.device = torch.device(device)
        self.module = module.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def stride(self) -> int:
        """What the sides of the input must be a multiple of."""
        return int(getattr(getattr(self.module, "encoder", None), "output_stride", STRIDE))

    @property
    def least(self) -> int:
        """Smallest side of the input that the network takes."""
        # PAN pools what its encoder gives three times more.
        return self.stride * (8 if self.module.__class__.__name__ == "PAN" else 1)

    def most(self, side_y: int, side_x: int) -> int | None:
        """Return how many patches are worth computing at once; None where only memory decides."""
        return max(1, PIXELS_AT_ONCE_ON_CPU // (side_y * side_x)) if self.device.type == "cpu" else None

    def predictor(self) -> "Predictor":
        """Return a function for one tile: patches (batch, y, x, band) in, probabilities (batch, y, x) out."""
        return Predictor(self)

    def probabilities(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the probabilities (batch, y, x), float32, of patches (batch, band, y, x)."""
        with torch.inference_mode(), self._full_precision():
            logits = self.module(patches.to(self.device))
            return torch.sigmoid(logits[:, 0].float())

    def _full_precision(self) -> AbstractContextManager[Any]:
        # By default cuDNN shortens the mantissa to 10 bits (TF32), and results would depend on the batch size.
        if self.device.type == "cpu":
            return nullcontext()
        return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


class Predictor:
    """A network at work on one tile; it remembers how many patches fit the device's memory."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.fitting: int | None = None

    def __call__(self, patches: Any) -> Any:
        """Return probabilities (batch, y, x) of patches (batch, y, x, band), where the patches live."""
        xp = array_namespace(patches)
        results = xp.empty(patches.shape[:3], xp.float32)
        start = 0
        while start < len(patches):
            part = patches[start : start + (self.fitting or len(patches))]
            try:
                # Bands last in memory is what torch calls channels_last: nothing is copied here.
                found = self.network.probabilities(torch.from_dlpack(part).permute(0, 3, 1, 2))
            except torch.OutOfMemoryError as error:
                self._shrink(len(part), error)
                continue
            results[start : start + len(part)] = xp.from_dlpack(found.to(_device_of(patches)))
            start += len(part)
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
        if self.network.device.type == "cuda":
            torch.cuda.empty_cache()


def _device_of(array: Any) -> torch.device:
    return torch.from_dlpack(array).device
