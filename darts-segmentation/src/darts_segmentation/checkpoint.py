"""Checkpoints: files that hold a network's weights and what it takes to run it, and never code."""

import hashlib
import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from darts_segmentation.building import build_network
from darts_segmentation.hub import read_hub_folder
from darts_segmentation.layouts import (
    DEFAULT_PATCH_SIZE,
    HUB_FOLDER,
    TERRAIN_CONVENTIONS,
    plain_content,
    read_content,
)
from darts_utils.bands import band
from darts_utils.errors import CheckpointError, MissingDataError
from darts_utils.quoting import first_line
from darts_utils.store import replacing

LARGEST_PICKLE = 1 << 26
"""Bytes of a pickle that is looked through for what it names; those of checkpoints have a thousandth of that."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A trained model as its file tells it."""

    path: Path
    """The file, or the folder of a model of the Hugging Face Hub."""
    checksum: str
    """SHA-256 of the file, or of the list of the folder's files; hexadecimal."""
    model: Mapping[str, Any]
    """Arguments of smp.create_model; `encoder_weights` is None, whatever the file said."""
    bands: tuple[str, ...]
    """Input bands in the order of the network's channels."""
    patch_size: int
    """Side of the patches it was trained on, in pixels."""
    normalization: Mapping[str, tuple[float, float]]
    """(lo, hi) of the bands whose range differs from the band table's."""
    terrain_convention: str
    """How the terrain features of its training were oriented: "true-north" or "legacy"."""
    card: Mapping[str, Any]
    """What else the file says in plain values: training data, scores, licence."""
    state_dict: Mapping[str, torch.Tensor] = field(repr=False)
    layout: str = "darts"
    """What it was read from: "darts", "older darts", "Lightning" or "Hub folder"."""
    changes: tuple[str, ...] = ()
    """What the one form of darts says otherwise than the file, a sentence each."""

    @property
    def name(self) -> str:
        """The file's name without its suffix, or the folder's name."""
        return _name(self.path, is_folder=self.layout == HUB_FOLDER)

    @property
    def architecture(self) -> str:
        """Name of the network's architecture, such as `unet`."""
        return str(self.model["arch"])

    def limits(self, name: str) -> tuple[float, float]:
        """Return the range (lo, hi) of a band that the network sees as 0 … 1."""
        return self.normalization.get(name) or band(name).valid


def load_checkpoint(path: Path | str, *, bands: Sequence[str] | None = None) -> Checkpoint:
    """Return the checkpoint in a file, of the current or an older layout, or in a folder of the Hugging Face Hub.

    Code in the file is never run, and nothing is fetched.

    Args:
        path: the file, or the folder with config.json and model.safetensors.
        bands: the input bands in the order of the network's channels, for a model that does not name them.

    Raises:
        MissingDataError: the file is not there, or the folder lacks one.
        CheckpointError: the file is refused: it holds code, is damaged, lacks keys, or its weights do not fit.
        ConfigError: `bands` are given, and the model names others.
    """
    checkpoint = read_checkpoint(path, bands=bands)
    build_model(checkpoint)
    return checkpoint


def read_checkpoint(path: Path | str, *, bands: Sequence[str] | None = None) -> Checkpoint:
    """Return what `load_checkpoint` returns without building the network, so misfit weights stay unnoticed."""
    path = Path(path)
    layout = HUB_FOLDER if path.is_dir() else None
    raw, checksum = read_hub_folder(path) if layout else _read(path)
    content = read_content(raw, path, bands=bands, layout=layout)
    return Checkpoint(path=path, checksum=checksum, **vars(content))


def model_name(path: Path) -> str:
    """Return the name of the model in a file or folder, which is also that of its layers."""
    return _name(path, is_folder=path.is_dir())


def save_checkpoint(
    path: Path | str,
    *,
    model: Mapping[str, Any],
    bands: Sequence[str],
    state_dict: Mapping[str, torch.Tensor],
    patch_size: int = DEFAULT_PATCH_SIZE,
    normalization: Mapping[str, Sequence[float]] | None = None,
    terrain_convention: str = TERRAIN_CONVENTIONS[0],
    card: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Write a checkpoint in the one form of darts, and return it; the same content gives the same bytes.

    Args:
        path: the file; it appears whole or not at all.
        model: arguments of smp.create_model.
        bands: input bands in the order of the network's channels.
        state_dict: the network's weights.
        patch_size: side of the training patches in pixels.
        normalization: (lo, hi) of the bands that the network does not see in the range of the band table.
        terrain_convention: "true-north" or "legacy".
        card: what else the file should say, in plain values.

    Raises:
        CheckpointError: the file could not be loaded again.
        StoreError: the folder cannot be written.
    """
    path = Path(path)
    config = {
        "model": model,
        "input_combination": list(bands),
        "patch_size": patch_size,
        "normalization": normalization,
        "terrain_convention": terrain_convention,
    }
    content = read_content({"config": config, "card": card, "statedict": state_dict}, path)
    content = replace(content, layout="darts", changes=())
    build_network(content, path)
    with replacing(path) as temporary:
        # Given a path, torch would write the temporary name into the archive, and no two files would be the same.
        with temporary.open("wb") as file:
            torch.save(plain_content(content), file)
        checksum = _checksum(temporary)
    return Checkpoint(path=path, checksum=checksum, **vars(content))


def save_again(checkpoint: Checkpoint, path: Path | str, *, card: Mapping[str, Any] | None = None) -> Checkpoint:
    """Write a checkpoint in the one form of darts, and return it; with another card where one is given.

    Raises:
        CheckpointError, StoreError: as for `save_checkpoint`.
    """
    return save_checkpoint(
        path,
        model=checkpoint.model,
        bands=checkpoint.bands,
        state_dict=checkpoint.state_dict,
        patch_size=checkpoint.patch_size,
        normalization=checkpoint.normalization or None,
        terrain_convention=checkpoint.terrain_convention,
        card=checkpoint.card if card is None else card,
    )


def build_model(checkpoint: Checkpoint) -> torch.nn.Module:
    """Return the network with the checkpoint's weights, float32, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: the architecture is unknown, or the weights do not fit it.
    """
    return build_network(checkpoint, checkpoint.path)


def _name(path: Path, *, is_folder: bool) -> str:
    # "." and "…/.." have no name of their own, and a folder called "rts-v1.2" has no suffix.
    return os.path.basename(os.path.abspath(path)) if is_folder else path.stem  # noqa: PTH100, PTH119


def _read(path: Path) -> tuple[Any, str]:
    if not path.is_file():
        raise MissingDataError(f"checkpoint {path} is not there, or is no file; check the path")
    if path.suffix in (".safetensors", ".json"):
        raise CheckpointError(
            f"{path} is one file of a model's folder, and cannot be run alone; name the folder: {path.parent}"
        )
    try:
        checksum = _checksum(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True), checksum
    # Damaged bytes make the unpickler fail in any way: KeyError, EOFError, UnicodeDecodeError, …
    except Exception as error:
        raise CheckpointError(_reason(path, error)) from error


def _reason(path: Path, error: Exception) -> str:
    if "TorchScript" in str(error):
        return f"{path} is refused: it is a TorchScript program, not weights. Export the state dict instead."
    found = re.search(r"GLOBAL (\S+)", str(error))
    name = found.group(1) if found else _foreign_global(path)
    if name:
        return (
            f"{path} is refused: it wants to load the Python object {name}, and a file that may do so can run code. "
            "Nothing of it was run. A checkpoint holds tensors and plain values only; export it again from training."
        )
    cause = first_line(error).partition(". ")[0]
    return f"{path} is no torch checkpoint, or is damaged or cut short ({cause}). Copy or download it again."


def _foreign_global(path: Path) -> str | None:
    """Return the first object outside torch that a pickle names, found without running it."""
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(_pickle_of(path)):
            if isinstance(argument, str):
                strings.append(argument)
            module, _, name = (argument or "").partition(" ") if opcode.name == "GLOBAL" else ("", "", "")
            if opcode.name == "STACK_GLOBAL":
                module, name = strings[-2:]
            if name and not module.startswith(("torch", "collections")):
                return f"{module}.{name}"
    # Whatever is no pickle ends here.
    except Exception:
        return None
    return None


def _pickle_of(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        pickled = next(entry for entry in archive.infolist() if entry.filename.endswith("data.pkl"))
        with archive.open(pickled) as file:
            return file.read(LARGEST_PICKLE)  # packed, a few bytes can be any number of them


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
