"""The network of a checkpoint, built from its config and filled with its weights; neither is trusted."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from darts_utils.errors import CheckpointError
from darts_utils.quoting import first_line, listed, shown

NAMES_SHOWN = 2
"""How many weights a message about misfits names."""
NAME_LENGTH = 90
"""Signs of such a name that it shows."""
SPARE_WEIGHTS = 100_000_000
"""So many more weights than the file holds, and as many again, a network may ask for until the misfit is told: encoders
that are cut off at some depth are built whole first."""


_FILLING = frozenset({
    "normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_",
    "orthogonal_",
})  # fmt: skip
"""Functions that fill weights with random numbers."""


class Described(Protocol):
    """What says which network it is, and holds its weights."""

    @property
    def model(self) -> Mapping[str, Any]:
        """Arguments of smp.create_model."""

    @property
    def state_dict(self) -> Mapping[str, torch.Tensor]:
        """Weights by name."""


def build_network(content: Described, path: Path) -> torch.nn.Module:
    """Return the network with its weights, float32, on the CPU, in evaluation mode.

    Args:
        content: what a checkpoint says.
        path: only serves the messages.

    Raises:
        CheckpointError: the architecture is unknown, or the weights do not fit it.
    """
    # Imported where it is used: it loads torchvision and torch's compiler, which set up a folder of their own.
    import segmentation_models_pytorch as smp

    _check_shapes(content, path)
    try:
        # What an architecture draws in other ways must not move the caller's random numbers.
        with torch.random.fork_rng(devices=[]), _WithoutFirstWeights(), _no_more_weights_than(content.state_dict):
            network = smp.create_model(**content.model)
    # Each architecture and encoder refuses its arguments in its own way.
    except Exception as error:
        cause = str(error.args[0] if error.args else type(error).__name__).partition("\n")[0]
        raise CheckpointError(
            f"{path}: the network {shown(dict(content.model))} cannot be built: {cause[:120]}. Export it again."
        ) from error
    try:
        network.load_state_dict(dict(content.state_dict))
    except RuntimeError as error:
        misfits = _misfits(network.state_dict(), content.state_dict) or first_line(error)
        raise CheckpointError(f"{path}: its weights do not fit the architecture in its config: {misfits}") from error
    return network.eval()


def _check_shapes(content: Described, path: Path) -> None:
    """Check that the weights fit before memory is taken for the network: the config can ask for any amount of it.

    Raises:
        CheckpointError: they do not.
    """
    import segmentation_models_pytorch as smp

    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _WithoutFirstWeights():
            outline = smp.create_model(**content.model)
    # What is wrong with it is told where it is built; some can only be built for good.
    except Exception:
        return
    if misfits := _misfits(outline.state_dict(), content.state_dict):
        raise CheckpointError(f"{path}: its weights do not fit the architecture in its config: {misfits}")


class _WithoutFirstWeights(TorchFunctionMode):
    """Leaves new weights as memory has them; random ones, all overwritten later, are most of the time of building."""

    def __torch_function__(
        self, func: Callable, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in _FILLING:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def _no_more_weights_than(weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Stop the building of a network that takes far more memory than its weights do."""
    left = 2 * sum(tensor.numel() for tensor in weights.values()) + SPARE_WEIGHTS
    thread = threading.get_ident()

    def count(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        nonlocal left
        if parameter is not None and threading.get_ident() == thread:
            left -= parameter.numel()
            if left < 0:
                raise ValueError("it has far more weights than the file holds")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _misfits(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> str:
    shapes = [
        f"{name} is {tuple(given[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    misfits = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "of the wrong shape": shapes,
    }
    told = [f"{len(names)} {what}" for what, names in misfits.items() if names]
    if told:
        first = next(names for names in misfits.values() if names)
        told[0] += f" ({listed((name[:NAME_LENGTH] for name in first), NAMES_SHOWN)})"
    return ", ".join(told)
