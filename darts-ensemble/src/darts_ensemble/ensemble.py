"""Several segmentation models that answer as one."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import xarray as xr

from darts_ensemble.spread import RunningSpread
from darts_segmentation import SMPSegmenter
from darts_utils.arrays import Device
from darts_utils.bands import describe
from darts_utils.errors import CheckpointError, ConfigError


@runtime_checkable
class Segmenter(Protocol):
    """Whatever can stand in for a model: it says which bands it needs, and adds `probabilities` to a tile.

    It may also have `terrain_convention` and `checkpoint`, and take the patch options of `SMPSegmenter.segment_tile`.
    """

    @property
    def required_bands(self) -> Iterable[str]:
        """Bands that a tile must have."""

    @property
    def segment_tile(self) -> Any:
        """Function of a tile that returns it with `probabilities` added, NaN where the model cannot tell."""


class EnsembleV1:
    """The mean of several models; itself usable wherever a segmenter is.

    Args:
        model_dict: the models by name; a checkpoint file each, or a ready segmenter.
        device: where the models of files compute; None takes the best there is.

    Raises:
        ConfigError: there is no model, or a name or a value that cannot be one.
        CheckpointError: a file is refused, or the models disagree about the terrain convention.
    """

    def __init__(self, model_dict: Mapping[str, Path | str | Segmenter], device: Device = None) -> None:
        if not model_dict:
            raise ConfigError("an ensemble needs at least one model; give the path of a checkpoint")
        for name in model_dict:
            if not isinstance(name, str) or not name or set(name) & set("/\\"):
                raise ConfigError(f"model name {name!r} cannot name layers and files; use a short text without slashes")
        self._models = {name: _segmenter(name, model, device) for name, model in model_dict.items()}
        self.terrain_convention: str = _common_convention(self._models)
        """How the terrain features must be oriented, "true-north" or "legacy"."""

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models' names in order."""
        return tuple(self._models)

    @property
    def required_bands(self) -> tuple[str, ...]:
        """Bands that any of the models needs, in the order in which they are first named."""
        return tuple(dict.fromkeys(band for model in self._models.values() for band in _ordered(model.required_bands)))

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of the checkpoint of each model from a file; `<name>/<inner name>` where ensembles are nested."""
        found: dict[str, str] = {}
        for name, model in self._models.items():
            if (checkpoint := getattr(model, "checkpoint", None)) is not None:
                found[name] = checkpoint.checksum
            found |= {f"{name}/{inner}": checksum for inner, checksum in getattr(model, "checksums", {}).items()}
        return found

    def segment_tile(
        self,
        tile: xr.Dataset,
        patch_size: int = 1024,
        overlap: int = 256,
        batch_size: int = 8,
        reflection: int = 0,
        keep_inputs: bool = False,
    ) -> xr.Dataset:
        """Return the tile with `probabilities` added: the mean over the models valid at a pixel, NaN where none is.

        Two models or more also give `probability_std`, the standard deviation over the models valid at the pixel (0
        where only one is). With `keep_inputs` each model's own layer is kept as `probabilities-<model>`.

        Args:
            tile: dims ("y", "x"), with all `required_bands`.
            patch_size, overlap, batch_size, reflection: as `SMPSegmenter.segment_tile` takes them.
            keep_inputs: also return each model's probabilities.

        Raises:
            MissingBandError: the tile lacks bands.
            ConfigError: an option cannot work.
        """
        options = {"patch_size": patch_size, "overlap": overlap, "batch_size": batch_size, "reflection": reflection}
        spread = RunningSpread()
        kept = {}
        for name, model in self._models.items():
            layer = model.segment_tile(tile, **_understood(options, model))["probabilities"].transpose("y", "x").data
            spread.add(layer)
            if keep_inputs:
                kept[f"probabilities-{name}"] = _layer(layer, f"probabilities-{name}", f"model {name}")
        source = f"mean of models {', '.join(self._models)}"
        added = {"probabilities": _layer(spread.mean, "probabilities", source)}
        if len(self._models) > 1:
            added["probability_std"] = _layer(spread.std(), "probability_std", f"models {', '.join(self._models)}")
        return tile.assign(added | kept)

    def segment_tile_batched(
        self,
        tiles: Iterable[xr.Dataset],
        patch_size: int = 1024,
        overlap: int = 256,
        batch_size: int = 8,
        reflection: int = 0,
        keep_inputs: bool = False,
    ) -> list[xr.Dataset]:
        """Return what `segment_tile` returns for each of the tiles, which need not share a grid."""
        return [self.segment_tile(tile, patch_size, overlap, batch_size, reflection, keep_inputs) for tile in tiles]


def _segmenter(name: str, model: Path | str | Segmenter, device: Device) -> Segmenter:
    if isinstance(model, Path | str):
        return SMPSegmenter(model, device)
    if isinstance(model, Segmenter):
        return model
    raise ConfigError(
        f"model {name!r} must be the path of a checkpoint, or have required_bands and segment_tile; got {model!r}"
    )


def _common_convention(models: Mapping[str, Segmenter]) -> str:
    stated = {name: getattr(model, "terrain_convention", None) for name, model in models.items()}
    conventions = {convention for convention in stated.values() if convention is not None}
    if len(conventions) > 1:
        listed = ", ".join(f"{name}: {convention}" for name, convention in stated.items() if convention is not None)
        raise CheckpointError(
            f"the models want terrain features of different conventions ({listed}); run them as separate ensembles"
        )
    return conventions.pop() if conventions else "true-north"


def _ordered(bands: Iterable[str]) -> Iterable[str]:
    # The order of a set of texts differs from one process to the next.
    return sorted(bands) if isinstance(bands, set | frozenset) else bands


def _understood(options: dict[str, int], model: Segmenter) -> dict[str, int]:
    """Return the options that a model takes: a stand-in that knows no patches has no use for them."""
    parameters = inspect.signature(model.segment_tile).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return options
    return {name: value for name, value in options.items() if name in parameters}


def _layer(plane: Any, name: str, data_source: str) -> xr.DataArray:
    return describe(xr.DataArray(plane, dims=("y", "x")), name, data_source)
