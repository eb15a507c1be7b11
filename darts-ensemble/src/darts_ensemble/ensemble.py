"""Several segmentation models that answer as one."""

import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from darts_ensemble.spread import RunningSpread
from darts_segmentation import PatchOptions, SMPSegmenter
from darts_segmentation.inference import DatasetRows, Tally, TileRows, predict_tiles
from darts_utils.arrays import Device, array_namespace
from darts_utils.bands import describe
from darts_utils.errors import CheckpointError, ConfigError

logger = logging.getLogger("darts.ensemble")


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
        return self.segment_tile_batched([tile], patch_size, overlap, batch_size, reflection, keep_inputs)[0]

    def segment_tile_batched(
        self,
        tiles: Iterable[xr.Dataset],
        patch_size: int = 1024,
        overlap: int = 256,
        batch_size: int = 8,
        reflection: int = 0,
        keep_inputs: bool = False,
    ) -> list[xr.Dataset]:
        """Return what `segment_tile` returns for each of the tiles, which need not share a grid.

        Batches are filled across tiles.
        """
        options = PatchOptions(patch_size=patch_size, overlap=overlap, batch_size=batch_size, reflection=reflection)
        tiles = list(tiles)
        needed = [band for model in self._networks.values() for band in model.required_bands]
        rows = [DatasetRows(tile, list(dict.fromkeys(needed)), purpose="the ensemble") for tile in tiles]
        layers = self._layers(rows, tiles, options, keep_inputs)
        return [tile.assign(added) for tile, added in zip(tiles, layers, strict=True)]

    def segment_rows(
        self,
        tile: TileRows,
        patch_size: int = 1024,
        overlap: int = 256,
        batch_size: int = 8,
        reflection: int = 0,
        keep_inputs: bool = False,
    ) -> dict[str, xr.DataArray]:
        """Return the layers that `segment_tile` would add to a tile, whose bands are asked for some rows at a time.

        So the bands never need to be there as a whole, unless for a model that is no network of a checkpoint.
        """
        options = PatchOptions(patch_size=patch_size, overlap=overlap, batch_size=batch_size, reflection=reflection)
        whole = None
        if len(self._networks) < len(self._models):
            planes = tile.rows(self.required_bands, 0, tile.shape[0])
            whole = xr.Dataset({name: (("y", "x"), plane) for name, plane in planes.items()})
        return self._layers([tile], [whole], options, keep_inputs)[0]

    @property
    def _networks(self) -> dict[str, SMPSegmenter]:
        """The models that read patches, and so can share them."""
        return {name: model for name, model in self._models.items() if isinstance(model, SMPSegmenter)}

    def _layers(
        self, rows: Sequence[TileRows], tiles: Sequence[xr.Dataset | None], options: PatchOptions, keep_inputs: bool
    ) -> list[dict[str, xr.DataArray]]:
        """Return the layers of each tile; `tiles` are asked for by models that are no networks."""
        networks = self._networks
        tallies = {name: Tally() for name in networks}
        others = [
            {name: _answer(model, tile, options) for name, model in self._models.items() if name not in networks}
            for tile in tiles
        ]
        results = [_Layers(self.model_names, tile.shape, keep_inputs) for tile in rows]
        readers = [model.reader() for model in networks.values()]
        for finished in predict_tiles(rows, readers, options, list(tallies.values())) if networks else ():
            part = slice(finished.first, finished.first + len(finished.layers[0]))
            answers = dict(zip(networks, finished.layers, strict=True))
            answers |= {name: plane[part] for name, plane in others[finished.tile].items()}
            results[finished.tile].add(part, answers)
        if not networks:
            for result, answers in zip(results, others, strict=True):
                result.add(slice(None), answers)
        for name, tally in tallies.items():
            logger.info(
                "%s: %d of %d patches (%.0f %%) hold no valid pixel and were skipped",
                name, tally.planned - tally.predicted, tally.planned, 100 * tally.skipped,
            )  # fmt: skip
        return [result.described() for result in results]


class _Layers:
    """The planes that an ensemble adds to a tile, filled some rows at a time."""

    def __init__(self, models: Sequence[str], shape: tuple[int, int], keep_inputs: bool) -> None:
        self.models, self.shape = models, shape
        self.kept = tuple(models) if keep_inputs else ()
        self.planes: dict[str, Any] = {}

    def add(self, rows: slice, answers: Mapping[str, Any]) -> None:
        spread = RunningSpread()
        for name in self.models:
            spread.add(answers[name])
        layers = {"probabilities": spread.mean}
        if len(self.models) > 1:
            layers["probability_std"] = spread.std()
        for name, layer in {**layers, **{f"probabilities-{name}": answers[name] for name in self.kept}}.items():
            if name not in self.planes:
                self.planes[name] = array_namespace(layer).empty(self.shape, np.float32)
            self.planes[name][rows] = layer

    def described(self) -> dict[str, xr.DataArray]:
        models = ", ".join(self.models)
        sources = {"probabilities": f"mean of models {models}", "probability_std": f"models {models}"}
        return {
            name: describe(
                xr.DataArray(plane, dims=("y", "x")),
                name,
                sources.get(name) or f"model {name.removeprefix('probabilities-')}",
            )
            for name, plane in self.planes.items()
        }


def _answer(model: Segmenter, tile: xr.Dataset | None, options: PatchOptions) -> Any:
    layer = model.segment_tile(tile, **_understood(asdict(options), model))["probabilities"]
    return layer.transpose("y", "x").data


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
