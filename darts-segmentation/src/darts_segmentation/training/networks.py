"""The network that a training begins with: random, with the weights of an encoder, or those of a checkpoint."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from darts_segmentation.checkpoint import build_model, load_checkpoint
from darts_segmentation.network import STRIDE
from darts_segmentation.training.fit_options import FitOptions
from darts_utils.errors import CheckpointError, ConfigError, MissingDataError
from darts_utils.quoting import FIRST, likely, listed, shown

RGB = ("red", "green", "blue")
"""Channels of networks trained on photographs."""
PREFIXES = ("", "encoder.", "module.", "model.", "backbone.", "model.encoder.")
"""What files put before the names of an encoder's weights."""
ENCODERS = "https://smp.readthedocs.io/en/latest/encoders.html"
TIMM_ENCODERS = "https://smp.readthedocs.io/en/latest/encoders_timm.html"
"""Where the names of encoders are listed."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a checkpoint says about a network besides its weights."""

    model: dict[str, Any]
    """Arguments of smp.create_model."""
    bands: tuple[str, ...]
    normalization: dict[str, tuple[float, float]]
    terrain_convention: str
    card: dict[str, Any]
    """What the card says about where it comes from."""


def design_network(
    options: FitOptions, bands: Sequence[str], terrain_convention: str
) -> tuple[Design, torch.nn.Module]:
    """Return the network that a training begins with, on the CPU; its random weights come from the seed alone.

    Args:
        options: what it shall be.
        bands: bands that the data have.
        terrain_convention: that of the data.

    Raises:
        ConfigError: it cannot be built, or does not fit the data.
        MissingDataError, CheckpointError: weights are not there, or are refused.
    """
    if options.start_from is not None:
        return _continued(options.start_from, bands, terrain_convention)
    chosen = tuple(options.bands or bands)
    _check_there(chosen, bands, "bands")
    if strangers := [name for name in options.normalization if name not in chosen]:
        raise ConfigError(f"normalization: {strangers[0]!r} is not among the bands ({', '.join(chosen)})")
    model = {
        "arch": options.architecture, "encoder_name": options.encoder, "encoder_weights": None,
        "in_channels": len(chosen), "classes": 1, **options.model_arguments,
    }  # fmt: skip
    network = _random_network(model, options.seed)
    card: dict[str, Any] = {}
    if options.encoder_weights is not None:
        load_encoder(network, options.encoder_weights, chosen)
        card["encoder_weights"] = options.encoder_weights.name
    normalization = {name: (float(lo), float(hi)) for name, (lo, hi) in options.normalization.items()}
    return Design(
        model=model, bands=chosen, normalization=normalization, terrain_convention=terrain_convention, card=card
    ), network


def stride_of(network: torch.nn.Module) -> int:
    """Return what the sides of a network's input must be a multiple of."""
    return int(getattr(getattr(network, "encoder", None), "output_stride", STRIDE))


def load_encoder(network: torch.nn.Module, file: Path, bands: Sequence[str]) -> None:
    """Give an encoder the weights in a file; those of photographs (red, green, blue) are fitted to the bands.

    A first layer for three channels gives red, green and blue their own weights and other bands the mean of the three,
    all scaled so that sums over the channels keep their size. What belongs to a classifier is left out.

    Raises:
        MissingDataError: the file is not there.
        CheckpointError: it holds no weights, or others.
    """
    encoder = network.encoder
    assert isinstance(encoder, torch.nn.Module)
    wanted = encoder.state_dict()
    given = _best_named(_read_weights(file), wanted)
    fitted, misfits = {}, []
    for name, tensor in wanted.items():
        found = given.get(_flat(name))
        if found is not None and found.shape != tensor.shape:
            found = _for_bands(found, tensor, bands)
        if found is not None:
            fitted[name] = found
        elif not name.endswith("num_batches_tracked"):  # counts batches, and is no weight
            misfits.append(name)
    if misfits:
        raise CheckpointError(
            f"{file}: {len(misfits)} of {len(wanted)} weights of the encoder are missing or of other shapes "
            f"({listed(misfits, 3)}); choose the encoder that the file was made for"
        )
    encoder.load_state_dict(fitted, strict=False)


def _continued(file: Path, bands: Sequence[str], terrain_convention: str) -> tuple[Design, torch.nn.Module]:
    checkpoint = load_checkpoint(file)
    _check_there(checkpoint.bands, bands, f"start_from: {file}")
    if checkpoint.terrain_convention != terrain_convention:
        raise ConfigError(
            f"start_from: {file} is of terrain convention {checkpoint.terrain_convention!r}, the datasets are of "
            f"{terrain_convention!r}; make datasets of the checkpoint's convention"
        )
    design = Design(
        model=dict(checkpoint.model), bands=checkpoint.bands, normalization=dict(checkpoint.normalization),
        terrain_convention=terrain_convention,
        card={"started_from": {"name": checkpoint.name, "sha256": checkpoint.checksum}},
    )  # fmt: skip
    return design, build_model(checkpoint).train()


def _check_there(wanted: Sequence[str], there: Sequence[str], who: str) -> None:
    if missing := [name for name in wanted if name not in there]:
        raise ConfigError(f"{who}: the datasets lack {', '.join(missing)}; all of them have {', '.join(there)}")


def _random_network(model: Mapping[str, Any], seed: int) -> torch.nn.Module:
    import segmentation_models_pytorch as smp

    _check_arguments(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network: torch.nn.Module = smp.create_model(**model)
        # Each architecture and encoder refuses its arguments in its own way.
        except Exception as error:
            raise ConfigError(
                f"architecture {model['arch']!r} with encoder {model['encoder_name']!r} cannot be built: "
                f"{_reason(error, model['encoder_name'])}"
            ) from error
    return network


def _check_arguments(model: Mapping[str, Any]) -> None:
    """Check the architecture, and the names of arguments where smp takes any: it loses those that it does not know.

    Encoders of timm refuse by themselves what they do not know.
    """
    from segmentation_models_pytorch import MODEL_ARCHITECTURES_MAPPING as ARCHITECTURES

    name, encoder = model["arch"].lower(), model["encoder_name"]
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ConfigError(f"architecture {shown(name)} is unknown{likely(name, ARCHITECTURES, ';')} there are {known}")
    if encoder.startswith(("tu-", "timm-")):
        return
    set_elsewhere = {"arch", "encoder_name", "encoder_weights", "in_channels", "classes"}
    names = sorted({*inspect.signature(ARCHITECTURES[name]).parameters} - {"kwargs"} - set_elsewhere)
    if unknown := sorted(set(model).difference(names, set_elsewhere)):
        raise ConfigError(
            f"model_arguments: {model['arch']} with encoder {encoder} takes no {shown(unknown[0])}"
            f"{likely(unknown[0], names) or f'; it takes {listed(names)}'}"
        )


def _reason(error: Exception, encoder: str) -> str:
    """Return why a network cannot be built, in a line; instead of all encoders there are it has the nearest ones."""
    import segmentation_models_pytorch as smp

    cause = str(error.args[0] if error.args else type(error).__name__)
    if cause.startswith("Unknown model"):  # of timm
        return f"there is no such encoder. Those with tu- are listed at {TIMM_ENCODERS}"
    if cause.startswith("Wrong encoder name"):
        near = difflib.get_close_matches(encoder, smp.encoders.get_encoder_names())
        meant = f"; did you mean {listed(near)}?" if near else "."
        return f"there is no such encoder{meant} They are listed at {ENCODERS}"
    return cause.partition("\n")[0][:FIRST]


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise MissingDataError(f"encoder_weights {file} is not there; nothing is downloaded")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    # Damaged bytes make readers fail in any way.
    except Exception as error:
        raise CheckpointError(
            f"encoder_weights {file} is no file of weights alone: {str(error).partition(chr(10))[0]}"
        ) from error
    for key in ("state_dict", "statedict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    weights = dict(content) if isinstance(content, Mapping) else {}
    return {str(name): tensor for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)}


def _best_named(given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the file's weights under the encoder's names, by the prefix that fits most of them."""
    names = {_flat(name) for name in wanted}
    best: dict[str, torch.Tensor] = {}
    for theirs in PREFIXES:
        # timm's encoders hold the network in `model`, files of timm do not.
        for ours in ("", "model."):
            renamed = {
                _flat(ours + name.removeprefix(theirs)): tensor
                for name, tensor in given.items()
                if name.startswith(theirs)
            }
            found = {name: tensor for name, tensor in renamed.items() if name in names}
            best = max(best, found, key=len)
    return best


def _flat(name: str) -> str:
    # timm writes stages_0 where it takes features, stages.0 elsewhere.
    return name.replace("_", ".")


def _for_bands(given: torch.Tensor, wanted: torch.Tensor, bands: Sequence[str]) -> torch.Tensor | None:
    """Return the weights of a first layer for red, green and blue as those of one for bands; None: it is no such."""
    if given.ndim != 4 or given.shape[1] != len(RGB) or wanted.shape != (len(given), len(bands), *given.shape[2:]):
        return None
    each = {name: given[:, place] for place, name in enumerate(RGB)}
    mean = given.mean(dim=1)
    return torch.stack([each.get(name, mean) for name in bands], dim=1) * (len(RGB) / len(bands))
