"""What computes a network, and how precisely: choices, and the runtimes that are torch itself."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch

from darts_utils.arrays import Device
from darts_utils.errors import ConfigError
from darts_utils.quoting import first_line

logger = logging.getLogger("darts.segmentation")

PRECISIONS: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Numbers that a network may compute with."""

RUNTIMES = ("torch", "compile", "openvino")
"""What may compute a network: torch as it is, torch.compile, or OpenVINO (CPU only, the extra `openvino`)."""

SIGNS_OF_FULL_MEMORY = ("out of memory", "allocate memory", "bad_alloc", "bad allocation", "alloc_failed")
"""What messages about memory that is not there say, in small letters."""


class Runtime(Protocol):
    """A network ready to compute."""

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, 1, y, x) of patches (batch, band, y, x), float32, on the network's device."""


def check_choices(precision: str | None, runtime: str, device: Device = None) -> None:
    """Check what can be checked before a file is read.

    Raises:
        ConfigError: a choice is unknown, or two exclude each other.
    """
    if precision is not None and precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)} or None, got {precision!r}")
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}")
    on_cpu = device == "cpu" or runtime == "openvino"
    if runtime == "openvino" and device not in ("cpu", "auto", None):
        raise ConfigError(
            f"runtime 'openvino' computes on the CPU only, got device {device!r}; "
            "choose device 'cpu', or runtime 'torch' or 'compile'"
        )
    if precision == "fp16" and on_cpu:
        raise ConfigError("precision 'fp16' needs a GPU; choose 'fp32' or 'bf16' on a CPU")


def chosen_precision(precision: str | None, device: torch.device) -> str:
    """Return the precision for a device; None takes bf16 on GPUs that compute it in hardware, else fp32.

    Raises:
        ConfigError: it is unknown, or does not work there.
    """
    check_choices(precision, "torch", str(device))
    if precision is None:
        on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if on_gpu else "fp32"
    if precision == "bf16" and computes_bf16(device) is False:
        logger.warning("%s has no bf16 arithmetic: precision 'bf16' will be slow, 'fp32' faster", device)
    return precision


def computes_bf16(device: torch.device) -> bool | None:
    """Return whether the device computes bf16 in hardware; None where it cannot be asked."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    ask = getattr(torch.cpu, "get_capabilities", None)  # came after torch 2.7
    if ask is None:
        return None
    capabilities = ask()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is full; torch and OpenVINO have no common class for it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in SIGNS_OF_FULL_MEMORY)


class TorchRuntime:
    """A network computed by torch, operation by operation."""

    def __init__(self, module: torch.nn.Module, device: torch.device, precision: str) -> None:
        self.device, self.precision = device, precision
        self.module = module.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.forward: Callable[[torch.Tensor], torch.Tensor] = self.module

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, 1, y, x), float32 whatever the precision."""
        with torch.inference_mode(), self._exactness(), self._casts():
            return self.forward(patches).float()

    def _casts(self) -> AbstractContextManager[Any]:
        # Weights stay float32 and are cast where torch knows an operation to bear it; in bf16 they saved little time
        # (4 % of a Unet's), and networks that make float32 tensors of their own would fail.
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.precision])

    def _exactness(self) -> AbstractContextManager[Any]:
        # By default cuDNN shortens the mantissa to 10 bits (TF32), and results would depend on the batch size.
        if self.device.type == "cpu":
            return nullcontext()
        return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


class CompiledRuntime(TorchRuntime):
    """A network that torch.compile turns into kernels when it first sees inputs of a shape.

    That takes up to minutes, so a batch smaller than one seen before is filled up with zeros to the same shape.
    Where compiling fails (no C++ compiler, an operation it does not know), the network runs as it is, with one warning.
    """

    def __init__(self, module: torch.nn.Module, device: torch.device, precision: str) -> None:
        super().__init__(module, device, precision)
        self._largest: dict[torch.Size, int] = {}
        try:
            self.forward = torch.compile(self.module, dynamic=False)
        # It refuses Python versions and platforms in its own ways.
        except Exception as error:
            self._give_up(error)

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, 1, y, x), float32 whatever the precision."""
        if self.forward is self.module:
            return super().__call__(patches)
        sides = patches.shape[2:]
        lacking = self._largest.get(sides, 0) - len(patches)
        try:
            if lacking > 0:
                return super().__call__(_filled_up(patches, lacking))[: len(patches)]
            answer = super().__call__(patches)
            self._largest[sides] = len(patches)
            return answer
        # The compiler's errors share no class; if the network itself is at fault, its own error comes now.
        except Exception as error:
            if is_out_of_memory(error):
                self._largest.pop(sides, None)
                raise
            answer = TorchRuntime(self.module, self.device, self.precision)(patches)
            self._give_up(error)
            return answer

    def _give_up(self, error: Exception) -> None:
        self.forward = self.module
        cause = first_line(error)
        logger.warning("torch.compile failed (%s); the network runs uncompiled", cause)


def _filled_up(patches: torch.Tensor, count: int) -> torch.Tensor:
    """Return patches with as many of zeros behind them, in the same order of memory."""
    zeros = torch.zeros_like(patches[:1]).expand(count, *patches.shape[1:])
    return torch.cat([patches, zeros]).contiguous(memory_format=torch.channels_last)
