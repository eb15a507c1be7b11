"""A Hugging Face Hub folder on disk: what `save_pretrained` of segmentation_models_pytorch writes, and a darts.json.

    config.json        arguments of the network, and its class under "_model_class"
    model.safetensors  its weights
    darts.json         what darts needs beside them, as in the `config` of a checkpoint:
                       {"input_combination": [bands in the order of the network's channels],
                        "patch_size": …, "normalization": …, "terrain_convention": …, "card": {…}}

Nothing else of the folder is read, and nothing is fetched. What darts needs has a file of its own because
segmentation_models_pytorch writes config.json anew with each `save_pretrained`, and takes all it says as arguments.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from darts_utils.errors import CheckpointError, MissingDataError
from darts_utils.quoting import first_line, listed, shown

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FACTS = "darts.json"
FACTS_KEYS = ("input_combination", "bands", "patch_size", "normalization", "terrain_convention", "card")

HOW_TO_MAKE = f"A model's folder holds {CONFIG} and {WEIGHTS}, as save_pretrained of segmentation_models_pytorch writes"


def is_hub_folder(path: Path) -> bool:
    """Whether a path is a folder that holds a model's config.json and model.safetensors."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def read_hub_folder(folder: Path) -> tuple[dict[str, Any], str]:
    """Return what a folder says in the one form of a checkpoint, and the SHA-256 of the list of its files.

    The config lacks the bands where the folder has no darts.json. The checksum is that of the lines `<SHA-256>  <name>`
    of config.json, darts.json (where there is one) and model.safetensors, which is what `sha256sum` prints.

    Raises:
        MissingDataError: config.json or model.safetensors is not there.
        CheckpointError: a file is damaged, or does not say what it should.
    """
    _check_files(folder)
    facts = _read_json(folder / FACTS) if (folder / FACTS).exists() else {}
    if strangers := [name for name in facts if name not in FACTS_KEYS]:
        raise CheckpointError(
            f"{folder / FACTS} has unknown keys {', '.join(strangers)}; it may hold {', '.join(FACTS_KEYS)}. "
            "What else there is to say about the model belongs under 'card'."
        )
    config = {name: value for name, value in facts.items() if name != "card"}
    config |= {"model_framework": "smp", "model": _arguments(folder / CONFIG)}
    raw = {"config": config, "card": facts.get("card"), "statedict": _read_weights(folder / WEIGHTS)}
    return raw, _checksum(folder)


def _check_files(folder: Path) -> None:
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if not missing:
        return
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        raise MissingDataError(f"{folder} is an empty folder. {HOW_TO_MAKE}.")
    if checkpoints := [name for name in names if name.endswith((".pt", ".pth", ".ckpt"))]:
        raise MissingDataError(
            f"{folder} is a folder without {' and '.join(missing)}, but with checkpoints; "
            f"name a file in it, such as {shown(checkpoints[0])}"
        )
    remedy = f"{HOW_TO_MAKE}."
    if pickles := [name for name in names if name.endswith(".bin")]:
        pickle = shown(pickles[0])
        remedy = f"Its {pickle} is a pickle, which can run code and is not read: save the weights as safetensors."
    elif f"{WEIGHTS}.index.json" in names:
        remedy = f"Its weights are split into several files: save them as one ({WEIGHTS})."
    raise MissingDataError(f"{folder} lacks {' and '.join(missing)}. {remedy}")


def _arguments(file: Path) -> dict[str, Any]:
    """Return the arguments of smp.create_model that config.json tells."""
    config = _read_json(file)
    name = config.get("_model_class")
    if not isinstance(name, str):
        raise CheckpointError(
            f"{file} does not name the network's class ('_model_class'); it holds "
            f"{listed((key[:30] for key in config), 3) or 'nothing'}. It must come from save_pretrained of "
            "segmentation_models_pytorch; no other library's models can be run."
        )
    # Its own reader takes keys with an underscore for notes, too.
    return {"arch": name.lower(), **{key: value for key, value in config.items() if not key.startswith("_")}}


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    # Nested a thousand times over, JSON ends in a RecursionError.
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON ({error}); correct it, or copy it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} must hold a table of names and values, not a {type(content).__name__}")
    return content


def _read_weights(file: Path) -> dict[str, Any]:
    try:
        return load_file(file)
    # Damaged bytes make the reader fail in several ways: SafetensorError, KeyError for a type it does not know, …
    except Exception as error:
        cause = first_line(error)
        raise CheckpointError(
            f"{file} is no safetensors file, or is damaged or cut short ({cause}). Copy or download it again."
        ) from error


def _checksum(folder: Path) -> str:
    listed = hashlib.sha256()
    for name in sorted((CONFIG, FACTS, WEIGHTS)):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                listed.update(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n".encode())
    return listed.hexdigest()
