"""`darts model`: what model files say of themselves, and older ones in the one form of darts."""

import json as json_format
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from darts.display.plain_text import one_line
from darts_utils.errors import CheckpointError, ConfigError, DartsError

Flag = Annotated[bool, Parameter(negative="")]


def info(files: list[Path], /, *, json: Flag = False) -> int:
    """Show what model files say of themselves, after checking that their weights fit their architecture.

    A model that is refused is named at the end, and the exit code is 2.

    Parameters
    ----------
    files
        Checkpoints, or folders with config.json and model.safetensors.
    json
        Print a JSON list with one table a model.
    """
    cards: list[dict[str, Any]] = []
    refusals: list[str] = []
    for file in files:
        try:
            cards.append(model_card(file))
        except DartsError as error:
            refusals.append(str(error))
    if json:
        _print(json_format.dumps([_without_nan(card) for card in cards], indent=2))
    else:
        _print("\n\n".join("\n".join(_lines(card)) for card in cards))
    if refusals:
        raise CheckpointError("; ".join(refusals))
    return 0


def convert(source: Path, target: Path, /, *, bands: list[str] | None = None, overwrite: Flag = False) -> int:
    """Write a model in the one form of darts, from an older checkpoint or a folder, and tell what changed.

    The probabilities stay the same. Without --model-files, `darts run` takes the *.pt of the models folder.

    Parameters
    ----------
    source
        Checkpoint, or folder with config.json and model.safetensors.
    target
        File to write, such as models/rts.pt; its folder is made if need be.
    bands
        Input bands in the order of the network's channels, such as red nir ndvi, for a model that does not name them.
    overwrite
        Replace the target if it is there.
    """
    if target.is_dir():
        raise ConfigError(f"{target} is a folder; name the file to write, such as rts.pt in it")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} is there already; name another file, or add --overwrite to replace it")
    # They load torch, which --help can do without.
    from darts_segmentation.checkpoint import load_checkpoint, save_again

    old = load_checkpoint(source, bands=bands)
    new = save_again(old, target)
    changes = [*old.changes, *([f"the bands were given: {', '.join(old.bands)}"] if bands else [])]
    _print("\n".join([
        f"{target} is written from {source} ({old.layout})",
        *(f"  {change}" for change in changes or ["nothing changed"]),
        f"  checksum {old.checksum} is now {new.checksum}",
    ]))  # fmt: skip
    return 0


def model_card(file: Path) -> dict[str, Any]:
    """Return what a model says of itself, in plain values; its weights have been found to fit.

    Raises:
        DartsError: the model is not there, or is refused.
    """
    from darts_segmentation import build_model, read_checkpoint

    checkpoint = read_checkpoint(file)
    network = build_model(checkpoint)
    arguments = dict(checkpoint.model)
    return {
        "name": checkpoint.name,
        "file": str(checkpoint.path),
        "checksum": checkpoint.checksum,
        "layout": checkpoint.layout,
        "changes": list(checkpoint.changes),
        "architecture": arguments.pop("arch"),
        "encoder": arguments.pop("encoder_name", "resnet34"),
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "arguments": {name: value for name, value in arguments.items() if value is not None},
        "bands": [
            {
                "name": name,
                "range": list(checkpoint.limits(name)),
                "range_from": "model" if name in checkpoint.normalization else "band table",
            }
            for name in checkpoint.bands
        ],
        "patch_size": checkpoint.patch_size,
        "terrain_convention": checkpoint.terrain_convention,
        "card": dict(checkpoint.card),
    }


def _lines(card: Mapping[str, Any]) -> Iterator[str]:
    yield one_line(card["name"])
    facts = {
        "file": card["file"],
        "checksum": f"{card['checksum']} (SHA-256)",
        "layout": card["layout"],
        "architecture": card["architecture"],
        "encoder": card["encoder"],
        "parameters": f"{card['parameters']:,}".replace(",", " "),
        "arguments": card["arguments"],
        "patch size": f"{card['patch_size']} px",
        "terrain": card["terrain_convention"],
    }
    width = max(map(len, [*facts, *(one_line(name) for name in card["card"])]))
    for name, value in facts.items():
        yield f"  {name:<{width}}  {one_line(value)}"
    for change in card["changes"]:
        yield f"  {'otherwise':<{width}}  {one_line(change)}"
    for place, band in enumerate(card["bands"]):
        lo, hi = band["range"]
        yield (
            f"  {'' if place else 'bands':<{width}}  {place + 1:>2} {band['name']:<20} {lo:g} … {hi:g}"
            f"{' (of the model)' if band['range_from'] == 'model' else ''}"
        )
    if not card["card"]:
        yield f"  {'card':<{width}}  empty: nothing on training data, scores or licence"
    for name, value in card["card"].items():
        yield f"  {one_line(name):<{width}}  {one_line(value)}"


def _without_nan(value: Any) -> Any:
    """Return a value with numbers that JSON has not (NaN, infinity) as text."""
    if isinstance(value, Mapping):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _print(text: str) -> None:
    if text:
        Console().print(text, markup=False, highlight=False, soft_wrap=True, emoji=False)
