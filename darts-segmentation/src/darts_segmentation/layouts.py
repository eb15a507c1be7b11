"""What a checkpoint file holds: the one form that darts writes, and the older layouts turned into it.

The one form is a dict of plain values and tensors:

    {"config": {"model_framework": "smp",
                "model": {arguments of segmentation_models_pytorch.create_model},
                "input_combination": [bands in the order of the network's channels],
                "patch_size": 1024,
                "normalization": {band: [lo, hi]},            # only where it differs from the band table
                "terrain_convention": "true-north"},
     "card": {plain values: training data, scores, licence, …},
     "statedict": {name: tensor}}
"""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from darts_utils.bands import BANDS, not_in_the_table
from darts_utils.errors import CheckpointError, ConfigError
from darts_utils.quoting import listed, shown

logger = logging.getLogger("darts.segmentation")

TERRAIN_CONVENTIONS = ("true-north", "legacy")
"""How the terrain features that a model was trained on are oriented; the first is the default."""

DEFAULT_PATCH_SIZE = 1024
"""Patch size of older files that do not tell theirs."""

LIGHTNING_PREFIX = "model."

HUB_FOLDER = "Hub folder"
"""Layout of a Hugging Face Hub folder on disk; those of files are "darts", "older darts" and "Lightning"."""

MOST_NESTED, MOST_VALUES = 32, 1_000_000
"""How deep and how many plain values may be; a file of a few bytes can hold values within themselves without end."""

_CONFIG_KEYS = {
    "model_framework", "model", "input_combination", "bands", "patch_size", "normalization", "terrain_convention",
    "norm_factors",
}  # fmt: skip

_FOREIGN_WEIGHTS = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")
"""Arguments by which an encoder of timm would read other files."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """What a checkpoint file says, checked value by value."""

    model: dict[str, Any]
    bands: tuple[str, ...]
    patch_size: int
    normalization: dict[str, tuple[float, float]]
    terrain_convention: str
    state_dict: dict[str, torch.Tensor]
    card: dict[str, Any]
    layout: str
    changes: tuple[str, ...]
    """What the one form says otherwise than the file, a sentence each."""


def read_content(raw: Any, path: Path, *, bands: Sequence[str] | None = None, layout: str | None = None) -> Content:
    """Return what the unpickled file `raw` says, whichever layout it has.

    Args:
        raw: what the file holds.
        path: only serves the messages.
        bands: the input bands, for a file that names none.
        layout: where `raw` comes from, if that is not a file of its own.

    Raises:
        CheckpointError: a key is missing or has a value that cannot work.
        ConfigError: `bands` are given, and the file names others.
    """
    if not isinstance(raw, Mapping):
        raise CheckpointError(f"{path} is no model checkpoint: it holds a {type(raw).__name__}, not a dict of config")
    config = _config(raw, path)
    inputs = _bands(config, path, bands, layout)
    model, weights = _model(config, inputs, path), _weights(raw, path)
    changes = _changes(raw, config)
    return Content(
        model=model,
        bands=inputs,
        patch_size=_patch_size(config, path),
        normalization=_normalization(config, inputs, path),
        terrain_convention=_terrain_convention(config, path),
        state_dict=weights,
        card=_card(raw, config, path),
        layout=layout or ("Lightning" if _is_lightning(raw) else "older darts" if changes else "darts"),
        changes=changes,
    )


def plain_content(content: Content) -> dict[str, Any]:
    """Return the one form that darts writes, ready for torch.save."""
    config = {
        "model_framework": "smp",
        "model": content.model,
        "input_combination": list(content.bands),
        "patch_size": content.patch_size,
        "normalization": {name: list(limits) for name, limits in content.normalization.items()},
        "terrain_convention": content.terrain_convention,
    }
    # A view would drag the whole storage it looks at into the file.
    weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in content.state_dict.items()}
    # Pickle tells apart whether equal texts are one object; as JSON reads them, that follows from the content alone.
    config, card = (json.loads(json.dumps(values)) for values in (config, content.card))
    return {"config": config, "card": card, "statedict": weights}


def _config(raw: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    config = raw["hyper_parameters"].get("config") if _is_lightning(raw) else raw.get("config")
    if not isinstance(config, Mapping):
        raise CheckpointError(
            f"{path} has no 'config' (nor 'hyper_parameters' with one); it holds {_names(raw) or 'nothing'}. "
            "A checkpoint tells its architecture and bands there; export it again from training."
        )
    if config.get("model_framework", "smp") != "smp":
        told = shown(config["model_framework"])
        raise CheckpointError(f"{path} asks for model_framework {told}; only 'smp' can be run")
    if "norm_factors" in config:
        logger.warning("%s: 'norm_factors' is dropped, bands are normalised by their ranges", path)
    return config


def _is_lightning(raw: Mapping[str, Any]) -> bool:
    return raw.get("config") is None and isinstance(raw.get("hyper_parameters"), Mapping)


def _bands(config: Mapping[str, Any], path: Path, given: Sequence[str] | None, layout: str | None) -> tuple[str, ...]:
    named = config.get("input_combination", config.get("bands"))
    bands = given if named is None else named
    if bands is None:
        raise CheckpointError(_how_to_name_bands(config, path, layout))
    if not isinstance(bands, list | tuple) or not bands or not all(isinstance(name, str) for name in bands):
        raise CheckpointError(f"{path}: the input bands must be a list of names, got {shown(bands)}")
    if unknown := [name for name in bands if name not in BANDS]:
        raise CheckpointError(f"{path} needs bands that nobody knows: {not_in_the_table(unknown)}")
    if len(set(bands)) < len(bands):
        raise CheckpointError(f"{path} names an input band twice: {shown(bands)}")
    if given is not None and list(given) != list(bands):
        raise ConfigError(
            f"{path} names its bands itself ({', '.join(bands)}), which are not those given ({', '.join(given)}); "
            "give none"
        )
    return tuple(bands)


def _how_to_name_bands(config: Mapping[str, Any], path: Path, layout: str | None) -> str:
    convert = "`darts model convert` with --bands red nir …"
    if layout != HUB_FOLDER:
        return (
            f"{path} names no input bands: its config lacks 'input_combination' (or 'bands'). Give them to {convert}."
        )
    model = config.get("model")
    channels = model.get("in_channels", "some") if isinstance(model, Mapping) else "some"
    return (
        f"{path} names no input bands, and the network takes {channels}. Write them, in the order of its channels, "
        f'into {path / "darts.json"}: {{"input_combination": ["red", "nir", …]}}; or give them to {convert}.'
    )


def _model(config: Mapping[str, Any], bands: tuple[str, ...], path: Path) -> dict[str, Any]:
    model = config.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("arch"), str):
        raise CheckpointError(f"{path}: config 'model' must hold the arguments of smp.create_model, at least 'arch'")
    # Weights come from the file alone: nothing is ever fetched.
    model = {**model, "encoder_weights": None}
    if any(sign in str(model.get("encoder_name", "")) for sign in ":/\\"):
        raise CheckpointError(
            f"{path}: encoder {shown(model['encoder_name'])} lies elsewhere; only built-in encoders can be run"
        )
    if foreign := [name for name in _FOREIGN_WEIGHTS if model.get(name)]:
        raise CheckpointError(
            f"{path}: model option {foreign[0]!r} takes weights from elsewhere; a model's file holds all of them"
        )
    if model.setdefault("in_channels", len(bands)) != len(bands):
        raise CheckpointError(
            f"{path}: the network takes {shown(model['in_channels'])} channels, but {len(bands)} bands are named"
        )
    if model.setdefault("classes", 1) != 1:
        raise CheckpointError(
            f"{path}: the network has {shown(model['classes'])} classes; darts runs binary models (classes=1)"
        )
    for option in ("activation", "aux_params"):
        if model.get(option) is not None:
            raise CheckpointError(f"{path}: model option {option!r} must be None: darts expects one plane of logits")
    return model


def _patch_size(config: Mapping[str, Any], path: Path) -> int:
    size = config.get("patch_size", DEFAULT_PATCH_SIZE)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise CheckpointError(f"{path}: patch_size must be a positive whole number, got {shown(size)}")
    return size


def _normalization(config: Mapping[str, Any], bands: tuple[str, ...], path: Path) -> dict[str, tuple[float, float]]:
    limits = config.get("normalization") or {}
    if not isinstance(limits, Mapping):
        raise CheckpointError(f"{path}: normalization must map bands to [lo, hi], got {shown(limits)}")
    if strangers := [str(name) for name in limits if name not in bands]:
        raise CheckpointError(f"{path}: normalization names {shown(strangers)}, which are no input bands of the model")
    return {name: _limits(name, pair, path) for name, pair in limits.items()}


def _limits(name: str, pair: Any, path: Path) -> tuple[float, float]:
    try:
        lo, hi = (float(limit) for limit in pair)
    except (TypeError, ValueError, OverflowError):
        lo = hi = math.nan
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
        raise CheckpointError(
            f"{path}: normalization of {name} must be two finite numbers [lo, hi], lo < hi, got {shown(pair)}"
        )
    return lo, hi


def _terrain_convention(config: Mapping[str, Any], path: Path) -> str:
    convention = config.get("terrain_convention", TERRAIN_CONVENTIONS[0])
    if convention not in TERRAIN_CONVENTIONS:
        raise CheckpointError(
            f"{path}: terrain_convention {shown(convention)} is unknown; known: {', '.join(TERRAIN_CONVENTIONS)}"
        )
    return str(convention)


def _weights(raw: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    weights = raw.get("statedict", raw.get("state_dict"))
    if not isinstance(weights, Mapping) or not weights:
        raise CheckpointError(f"{path} holds no weights: 'statedict' (or 'state_dict') is missing or empty")
    if any(str(name).startswith(LIGHTNING_PREFIX) for name in weights):
        # Beside the network, Lightning stores the states of losses and metrics.
        weights = {
            name.removeprefix(LIGHTNING_PREFIX): value
            for name, value in weights.items()
            if str(name).startswith(LIGHTNING_PREFIX)
        }
    for name, tensor in weights.items():
        _check_weight(name, tensor, path)
    return dict(weights)


def _check_weight(name: Any, tensor: Any, path: Path) -> None:
    if not isinstance(name, str):
        raise CheckpointError(f"{path}: the name of a weight must be text, got {shown(name)}")
    if not isinstance(tensor, torch.Tensor):
        raise CheckpointError(f"{path}: weight {shown(name)} is a {type(tensor).__name__}, not a tensor")
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
        raise CheckpointError(
            f"{path}: weight {shown(name)} is no dense tensor of real numbers ({tensor.dtype}, {tensor.layout}, "
            f"{tensor.device}); export the trained network as it is, not quantized or sparse"
        )
    # A few stored numbers can be shown as any size, and would fill the memory.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{path}: weight {shown(name)} of shape {tuple(tensor.shape)} is larger than what is stored"
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor.to(torch.float32)).all():
        raise CheckpointError(
            f"{path}: weight {shown(name)} holds NaN or infinite numbers; the file or the training broke"
        )  # fmt: skip


def _card(raw: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    card = raw.get("card") or {}
    if not isinstance(card, Mapping):
        raise CheckpointError(f"{path}: the card must be a dict, got {type(card).__name__}")
    for key, value in card.items():
        if not isinstance(key, str) or not is_plain(value):
            raise CheckpointError(
                f"{path}: card entry {shown(key)} must be of plain values (text, numbers, lists, dicts), "
                f"nested at most {MOST_NESTED} deep"
            )
    # Older files keep what else they say (name, time, …) in the config.
    rest = {key: value for key, value in config.items() if key not in _CONFIG_KEYS and is_plain(value)}
    return {**rest, **card}


def is_plain(value: Any) -> bool:
    """Whether a value is text, a number, a truth value, None, or lists and dicts of those, within bounds."""
    waiting, count = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if depth > MOST_NESTED or count > MOST_VALUES:
            return False
        if isinstance(item, Mapping):
            if not all(isinstance(key, str) for key in item):
                return False
            waiting += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list | tuple):
            waiting += [(inner, depth + 1) for inner in item]
        # The exact types: numpy's scalars subclass some of these and could not be read back weights-only.
        elif not (item is None or type(item) in (str, int, float, bool)):
            return False
    return True


def _changes(raw: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the one form says otherwise; `raw` and `config` have been found to be in order."""
    found = []
    if _is_lightning(raw):
        found.append("the config was taken out of 'hyper_parameters'")
    weights = "statedict" if "statedict" in raw else "state_dict"
    found += ["'state_dict' is called 'statedict'"] if weights == "state_dict" else []
    others = [name for name in raw[weights] if not str(name).startswith(LIGHTNING_PREFIX)]
    if n_prefixed := len(raw[weights]) - len(others):
        found.append(f"the prefix {LIGHTNING_PREFIX!r} was removed from the names of {n_prefixed} weights")
        found += [f"what is no weight of the network was dropped: {_names(others)}"] if others else []
    found += (
        ["'bands' is called 'input_combination'"] if "input_combination" not in config and "bands" in config else []
    )
    if "patch_size" not in config:
        found.append(f"'patch_size' was not told, {DEFAULT_PATCH_SIZE} is assumed")
    if "norm_factors" in config:
        found.append("'norm_factors' were dropped, bands are normalised by their ranges")
    if (encoder_weights := config["model"].get("encoder_weights")) is not None:
        found.append(f"'encoder_weights' {encoder_weights!r} is None: all weights are in the file")
    extras = [name for name in config if name not in _CONFIG_KEYS]
    if moved := [name for name in extras if is_plain(config[name])]:
        found.append(f"moved from the config to the card: {_names(moved)}")
    dropped = [name for name in extras if name not in moved]
    known = {"config", "card", weights}
    if _is_lightning(raw):
        known.add("hyper_parameters")
        dropped += [name for name in raw["hyper_parameters"] if name != "config"]
    dropped += [name for name in raw if name not in known]
    found += [f"dropped, darts has no use for it: {_names(dropped)}"] if dropped else []
    return tuple(found)


def _names(names: Iterable[Any]) -> str:
    return listed(map(shown, names), most=4)
