"""Arrays and devices: a function works where its input lives and asks the array, never the machine."""

import importlib.util
import subprocess
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np
import scipy.ndimage
import xarray as xr

from darts_utils.errors import DeviceError

Device = str | int | None
"""How a user names a device: "cuda", "cuda:<index>", "cpu", "auto", the number of a GPU, None; see `resolve_device`."""

AUTO_FREE_SHARE = 0.5
"""A GPU counts as free for "auto" when at most this share of its memory is in use."""


def array_namespace(*arrays: Any) -> ModuleType:
    """Return numpy or cupy, the one that all `arrays` belong to; mixing the two raises DeviceError."""
    on_gpu = {type(array).__module__.partition(".")[0] == "cupy" for array in arrays}
    if on_gpu == {True, False}:
        raise DeviceError("arrays live on different devices; move them with to_device or to_host first")
    if True in on_gpu:
        if len({str(array.device) for array in arrays}) > 1:
            raise DeviceError("arrays live on different GPUs; move them with to_device first")
        import cupy

        return cupy
    return np


def ndimage_of(xp: ModuleType) -> ModuleType:
    """Return the ndimage module that belongs to an array namespace (scipy's or cupyx')."""
    if xp is np:
        return scipy.ndimage
    import cupyx.scipy.ndimage

    return cupyx.scipy.ndimage


def on_device_of(array: Any) -> AbstractContextManager[Any]:
    """Return a context in which new arrays are made, and kernels run, on the GPU that holds `array`, if one does."""
    return nullcontext() if array_namespace(array) is np else array.device


def to_host(data: xr.Dataset | xr.DataArray | Any) -> Any:
    """Return the same data in host memory; what is there already is not copied."""
    if isinstance(data, xr.Dataset):
        return data.map(to_host, keep_attrs=True).assign_coords(data.coords)
    if isinstance(data, xr.DataArray):
        return data.copy(deep=False, data=to_host(data.data))
    return data.get() if array_namespace(data) is not np else data


def to_device(data: xr.Dataset | xr.DataArray | Any, device: str) -> Any:
    """Return the same data on `device` ("cpu", "cuda" or "cuda:1"); what is there already is not copied."""
    if device == "cpu":
        return to_host(data)
    if isinstance(data, xr.Dataset):
        return data.map(to_device, keep_attrs=True, args=(device,)).assign_coords(data.coords)
    if isinstance(data, xr.DataArray):
        return data.copy(deep=False, data=to_device(data.data, device))
    cupy = _cupy(device)
    with cupy.cuda.Device(_gpu_index(device)):
        return cupy.asarray(data)


def resolve_device(device: Device = None) -> str:
    """Return "cpu" or "cuda:<index>" for what a user asked for.

    "cuda" is GPU 0, a number that GPU; "auto" and None take a GPU whose memory is at most half in use, else the CPU.

    Raises:
        DeviceError: a GPU was asked for by name and is not there.
    """
    if device in ("auto", None):
        return next((f"cuda:{i}" for i, used in enumerate(_gpu_memory_use()) if used <= AUTO_FREE_SHARE), "cpu")
    if device == "cpu":
        return "cpu"
    if isinstance(device, str):
        if device != "cuda" and not (device.startswith("cuda:") and device[5:].isdigit()):
            raise DeviceError(f"device {device!r} is unknown; use 'cuda', 'cpu', 'auto' or the number of a GPU")
        index = _gpu_index(device)
    else:
        index = int(device)
    count = len(_gpu_memory_use())
    if not 0 <= index < count:
        raise DeviceError(
            f"GPU {index} was asked for, but this machine shows {count} CUDA device(s). "
            "Use device 'auto' or 'cpu', or check the driver with `darts env-info`."
        )
    return f"cuda:{index}"


def resolve_array_device(device: Device = None) -> str:
    """Return where arrays shall live, as `resolve_device`; "auto" and None take the CPU where cupy is not installed."""
    if device in ("auto", None) and importlib.util.find_spec("cupy") is None:
        return "cpu"
    return resolve_device(device)


def _gpu_index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def _cupy(device: str) -> ModuleType:
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            f"device {device!r} needs cupy; install the extra 'cuda' (CUDA 13) or 'cuda12', or use device 'cpu'"
        ) from error
    return cupy


def _gpu_memory_use() -> list[float]:
    """Return the share of memory in use of each visible GPU; an empty list where there is none."""
    # The driver's own tool answers without loading a CUDA runtime; torch is asked only where it found something,
    # so that CUDA_VISIBLE_DEVICES counts.
    try:
        subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=20, check=True)
        import torch
    except (OSError, subprocess.SubprocessError, ImportError):
        return []
    use = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        use.append(1 - free / total)
    return use
