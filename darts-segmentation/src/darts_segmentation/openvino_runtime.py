"""Networks computed by OpenVINO, converted once and kept beside their checkpoint."""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
import torch

from darts_segmentation.runtimes import RUNTIMES
from darts_utils.errors import ConfigError, StoreError
from darts_utils.quoting import first_line
from darts_utils.store import replacing

logger = logging.getLogger("darts.segmentation")

CONVERSION = 1
"""Raised when converting changes, so that older conversions are not used any more."""

TOLERANCE = 1e-3
"""How far a converted network's probabilities may be off; a wrongly traced size is off by far more."""

PRECISION_NAMES = {"fp32": "f32", "bf16": "bf16"}


def import_openvino() -> ModuleType:
    """Return the module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with _unreported():
            import openvino
    except ImportError as error:
        others = ", ".join(repr(name) for name in RUNTIMES if name != "openvino")
        raise ConfigError(
            f"runtime 'openvino' needs the package openvino; install the extra 'openvino', or choose one of {others}"
        ) from error
    return openvino


@contextmanager
def _unreported() -> Iterator[None]:
    """Give a context in which openvino finds its package for usage reports missing, and does without.

    Otherwise its import alone reports to a server, and leaves an identifier in the home folder, without asking.
    """
    name = "openvino_telemetry"
    if name in sys.modules or "openvino" in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


class OpenVINORuntime:
    """A network on the CPU; neither its inputs nor its outputs are copied.

    Args:
        module: the network, in evaluation mode on the CPU; not needed any more afterwards.
        bands: channels that it takes.
        side: a side that its inputs may have, and so any multiple of it.
        precision: "fp32" or "bf16".
        checkpoint: the file or folder it came from; None keeps nothing on disk.
        checksum: what that file held.

    Raises:
        ConfigError: OpenVINO is not installed, or cannot convert the network.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        bands: int,
        side: int,
        precision: str,
        checkpoint: Path | None = None,
        checksum: str = "",
    ) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            logger.warning("this processor has no bf16 arithmetic: precision 'bf16' will be slow, 'fp32' faster")
        model = _kept(core, module, bands, side, checkpoint, checksum)
        settings = {
            # Unless told, OpenVINO computes in bf16 where the processor can.
            "INFERENCE_PRECISION_HINT": PRECISION_NAMES[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        self._in_use = Lock()

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, 1, y, x) of patches (batch, band, y, x), float32."""
        bands_last = patches.permute(0, 2, 3, 1).contiguous().numpy()
        # One request keeps memory for one batch; threads that share the network take turns.
        with self._in_use:
            self._request.infer([bands_last], share_inputs=True)
            return torch.from_numpy(self._request.get_output_tensor(0).data.copy())


def conversion_folder(checkpoint: Path, checksum: str) -> Path:
    """Return where the conversion of a checkpoint is kept: it depends on what is in the file, and on what converts."""
    versions = "-".join(f"{name}{version(package)}" for name, package in (
        ("openvino", "openvino"), ("torch", "torch"), ("smp", "segmentation-models-pytorch"),
    ))  # fmt: skip
    checkpoint = Path(os.path.abspath(checkpoint))  # noqa: PTH100  "." has no name of its own
    return checkpoint.with_name(f"{checkpoint.name}.openvino") / f"{checksum[:16]}-{versions}-{CONVERSION}"


def _kept(
    core: Any, module: torch.nn.Module, bands: int, side: int, checkpoint: Path | None, checksum: str
) -> Any:  # fmt: skip
    """Return the converted network: the one on disk if it fits, else a new one, written there if possible."""
    if checkpoint is None:
        return _converted(core, module, bands, side)
    folder = conversion_folder(checkpoint, checksum)
    found = _read(core, folder, checksum)
    if found is not None:
        return found
    logger.info("converting %s for OpenVINO, once", checkpoint.name)
    model = _converted(core, module, bands, side)
    try:
        _write(model, folder, checksum)
    # Another process may have been faster, which is as good.
    except (StoreError, OSError) as error:
        logger.info("the converted network of %s is kept in memory only: %s", checkpoint.name, error)
    # What is read from disk is mapped into memory, and several processes share it.
    written = _read(core, folder, checksum)
    return model if written is None else written


def _read(core: Any, folder: Path, checksum: str) -> Any:
    """Return the network kept in a folder; None where there is none, or another's, or a damaged one."""
    try:
        note = json.loads((folder / "note.json").read_text(encoding="utf-8"))
        if note == _note(folder, checksum):
            return core.read_model(folder / "network.xml")
    # Whatever cannot be read is written anew.
    except (OSError, ValueError, RuntimeError) as error:
        if folder.exists():
            logger.info("the converted network in %s cannot be used (%s)", folder, error)
    return None


def _write(model: Any, folder: Path, checksum: str) -> None:
    with replacing(folder) as temporary:
        temporary.mkdir()
        import_openvino().save_model(model, temporary / "network.xml", compress_to_fp16=False)
        (temporary / "note.json").write_text(json.dumps(_note(temporary, checksum)), encoding="utf-8")


def _note(folder: Path, checksum: str) -> dict[str, str]:
    """Return what tells whether a conversion is whole and of this checkpoint."""
    note = {"checkpoint": checksum}
    for name in ("network.xml", "network.bin"):
        with (folder / name).open("rb") as file:
            note[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return note


def _converted(core: Any, module: torch.nn.Module, bands: int, side: int) -> Any:
    """Return the network as OpenVINO's, which takes (batch, y, x, band) of any size.

    Raises:
        ConfigError: it cannot be converted, or answers differently.
    """
    openvino = import_openvino()
    # Not openvino.convert_model: that can report each use to a server.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    try:
        with torch.inference_mode(False), torch.no_grad():
            decoder = TorchScriptPythonDecoder(module, example_input=torch.zeros(1, bands, side, side))
            frontend = FrontEndManager().load_by_framework("pytorch")
            model = frontend.convert(frontend.load(decoder))
        model.reshape(openvino.PartialShape([-1, bands, -1, -1]))
        steps = openvino.preprocess.PrePostProcessor(model)
        steps.input().tensor().set_element_type(openvino.Type.f32).set_layout(openvino.Layout("NHWC"))
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        model = steps.build()
        off = _difference(core, model, module, bands, side)
    # Tracing and converting fail in their own ways.
    except Exception as error:
        cause = first_line(error)
        raise ConfigError(f"OpenVINO cannot convert this network ({cause}); choose runtime 'torch'") from error
    if not off <= TOLERANCE:
        raise ConfigError(
            f"OpenVINO gives other probabilities for this network (by {off:.2g}); choose runtime 'torch'"
        )  # fmt: skip
    return model


def _difference(core: Any, model: Any, module: torch.nn.Module, bands: int, side: int) -> float:
    """Return by how much the probabilities of the converted network are off, on an input of other sides than traced."""
    patches = np.random.default_rng(0).random((2, 2 * side, 3 * side, bands), np.float32)
    with torch.inference_mode():
        wanted = torch.sigmoid(module(torch.from_numpy(patches).permute(0, 3, 1, 2))).numpy()
    found = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(patches)[0]
    return float(np.abs(1 / (1 + np.exp(-found.astype(np.float64))) - wanted).max())
