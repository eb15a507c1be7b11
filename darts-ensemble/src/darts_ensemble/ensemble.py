"""Several segmentation models that answer as one."""

import inspect
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import xarray as xr

from darts_ensemble.layers import EnsembleLayers
from darts_segmentation import PatchOptions, SMPSegmenter
from darts_segmentation.inference import DatasetRows, Tally, TileRows, predict_tiles
from darts_segmentation.turns import turns_for
from darts_utils.arrays import Device
from darts_utils.errors import CheckpointError, ConfigError, GridMismatchError

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
        weights: for each model a positive finite number, how much it counts in the mean and in the spread; None: all
            count the same. Only their ratios matter.
        precision, runtime: of the models of files, as `SMPSegmenter` takes them.

    Raises:
        ConfigError: there is no model, a name or a value that cannot be one, or weights that cannot be.
        CheckpointError: a file is refused, or the models disagree about the terrain convention.
    """

    def __init__(
        self,
        model_dict: Mapping[str, Path | str | Segmenter],
        device: Device = None,
        *,
        weights: Mapping[str, float] | None = None,
        precision: str | None = None,
        runtime: str = "torch",
    ) -> None:
        if not model_dict:
            raise ConfigError("an ensemble needs at least one model; give the path of a checkpoint")
        for name in model_dict:
            if not isinstance(name, str) or not name or set(name) & set("/\\"):
                raise ConfigError(f"model name {name!r} cannot name layers and files; use a short text without slashes")
        self._weights = _weights(weights, list(model_dict))
        self._models = {name: _segmenter(name, model, device, precision, runtime) for name, model in model_dict.items()}
        self.terrain_convention: str = _common_convention(self._models)
        """How the terrain features must be oriented, "true-north" or "legacy"."""

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models' names in order."""
        return tuple(self._models)

    @property
    def weights(self) -> dict[str, float] | None:
        """How much each model counts, None where all count the same."""
        return None if self._weights is None else dict(self._weights)

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

    @property
    def pixel_sizes(self) -> dict[str, float]:
        """Metres of the pixels that models were trained on, of those whose cards tell it (`pixel_m`)."""
        sizes = {name: model.checkpoint.card.get("pixel_m") for name, model in self._networks.items()}
        return {name: float(size) for name, size in sizes.items() if isinstance(size, int | float) and size > 0}

    @property
    def precisions(self) -> dict[str, str]:
        """Numbers that each network computes with: "fp32", "bf16" or "fp16"."""
        return {name: model.precision for name, model in self._networks.items()}

    def segment_tile(
        self,
        tile: xr.Dataset,
        patch_size: int = 1024,
        overlap: int = 256,
        batch_size: int = 8,
        reflection: int = 0,
        keep_inputs: bool = False,
        *,
        augment: bool = False,
    ) -> xr.Dataset:
        """Return the tile with `probabilities` added: the mean over the models valid at a pixel, NaN where none is.

        Two models or more also give `probability_std`, the standard deviation over the models valid at the pixel (0
        where only one is). With `keep_inputs` each model's own layer is kept as `probabilities-<model>`. Both mean and
        standard deviation are weighted where the models have weights.

        With `augment` each network sees each patch in eight ways, as it is, mirrored, and both turned by 90, 180 and
        270 degrees, for eight times the time. What it says is turned back: a model's probability is the mean over the
        eight, and the standard deviation is that over all models and turns, so one model has a spread as well. The
        values of `aspect` are turned with the image. The light is not: `hillshade` and the shadows in the optical bands
        look as if the sun stood elsewhere, also where it never stands. A network that goes by where shadows fall, or by
        where objects look on the compass without being told the aspect, loses by it; check on labelled tiles.
        A model that is no network of a checkpoint is turned if it takes `augment`; else it answers once and counts in
        the spread as if all turns agreed.

        Args:
            tile: dims ("y", "x"), with all `required_bands`.
            patch_size, overlap, batch_size, reflection: as `SMPSegmenter.segment_tile` takes them.
            keep_inputs: also return each model's probabilities.
            augment: average over flips and quarter turns. Rows at work are held once for each network and turn.

        Raises:
            MissingBandError: the tile lacks bands.
            ConfigError: an option cannot work; `augment` with a model that reads `aspect` of the legacy convention.
        """
        return self.segment_tile_batched(
            [tile], patch_size, overlap, batch_size, reflection, keep_inputs, augment=augment
        )[0]

    def segment_tile_batched(
        self,
        tiles: Iterable[xr.Dataset],
        patch_size: int = 1024,
        overlap: int = 256,
        batch_size: int = 8,
        reflection: int = 0,
        keep_inputs: bool = False,
        *,
        augment: bool = False,
    ) -> list[xr.Dataset]:
        """Return what `segment_tile` returns for each of the tiles, which need not share a grid.

        Batches are filled across tiles.
        """
        options = PatchOptions(patch_size=patch_size, overlap=overlap, batch_size=batch_size, reflection=reflection)
        tiles = list(tiles)
        needed = [band for model in self._networks.values() for band in model.required_bands]
        rows = [DatasetRows(tile, list(dict.fromkeys(needed)), purpose="the ensemble") for tile in tiles]
        layers = self._layers(rows, tiles, options, keep_inputs, augment)
        return [tile.assign(added) for tile, added in zip(tiles, layers, strict=True)]

    def segment_rows(
        self,
        tile: TileRows,
        patch_size: int = 1024,
        overlap: int = 256,
        batch_size: int = 8,
        reflection: int = 0,
        keep_inputs: bool = False,
        *,
        augment: bool = False,
    ) -> dict[str, xr.DataArray]:
        """Return the layers that `segment_tile` would add to a tile, whose bands are asked for some rows at a time.

        So the bands never need to be there as a whole, unless for a model that is no network of a checkpoint.
        """
        options = PatchOptions(patch_size=patch_size, overlap=overlap, batch_size=batch_size, reflection=reflection)
        whole = None
        if len(self._networks) < len(self._models):
            planes = tile.rows(self.required_bands, 0, tile.shape[0])
            whole = xr.Dataset({name: (("y", "x"), plane) for name, plane in planes.items()})
        return self._layers([tile], [whole], options, keep_inputs, augment)[0]

    @property
    def _networks(self) -> dict[str, SMPSegmenter]:
        """The models that read patches, and so can share them."""
        return {name: model for name, model in self._models.items() if isinstance(model, SMPSegmenter)}

    def _layers(
        self,
        rows: Sequence[TileRows],
        tiles: Sequence[xr.Dataset | None],
        options: PatchOptions,
        keep_inputs: bool,
        augment: bool,
    ) -> list[dict[str, xr.DataArray]]:
        """Return the layers of each tile; `tiles` are asked for by models that are no networks."""
        networks = self._networks
        bands = [band for model in networks.values() for band in model.required_bands]
        turns = turns_for(augment, bands, self.terrain_convention)
        tallies = {name: Tally() for name in networks}
        others = [
            {
                name: _answer(name, model, tile, options, augment)
                for name, model in self._models.items()
                if name not in networks
            }
            for tile in tiles
        ]
        results = [EnsembleLayers(self.model_names, self._weights, tile.shape, keep_inputs, augment) for tile in rows]
        readers = [model.reader() for model in networks.values()]
        found = predict_tiles(rows, readers, options, list(tallies.values()), turns=turns) if networks else ()
        for finished in found:
            part = slice(finished.first, finished.first + len(finished.layers[0]))
            answers = {
                name: finished.layers[number * len(turns) : (number + 1) * len(turns)]
                for number, name in enumerate(networks)
            }
            answers |= {name: [plane[part]] for name, plane in others[finished.tile].items()}
            results[finished.tile].add(finished.first, answers)
        if not networks:
            for result, planes in zip(results, others, strict=True):
                result.add(0, {name: [plane] for name, plane in planes.items()})
        for name, tally in tallies.items():
            logger.log(
                logging.INFO if tally.skipped else logging.DEBUG,
                "%s: %d of %d patches (%.0f %%) hold no valid pixel and were skipped",
                name, tally.planned - tally.predicted, tally.planned, 100 * tally.skipped,
            )  # fmt: skip
        return [result.described() for result in results]


def _weights(weights: Mapping[str, float] | None, names: Sequence[str]) -> dict[str, float] | None:
    """Return the weights in the order of the models' names."""
    if weights is None:
        return None
    if not isinstance(weights, Mapping):
        raise ConfigError(f"weights must give each model's name a number, got {weights!r}")
    if set(weights) != set(names):
        raise ConfigError(
            f"weights must name the models, each of them: {', '.join(names)}; got {', '.join(map(str, weights))}"
        )
    for name, weight in weights.items():
        number = isinstance(weight, Real) and not isinstance(weight, bool)
        if not (number and weight > 0 and _is_finite(weight)):
            raise ConfigError(f"the weight of model {name!r} must be a positive finite number, got {weight!r}")
    return {name: float(weights[name]) for name in names}


def _is_finite(number: float) -> bool:
    try:
        return 0 < float(number) < math.inf
    except OverflowError:  # a whole number may be too large
        return False


def _answer(name: str, model: Segmenter, tile: xr.Dataset | None, options: PatchOptions, augment: bool) -> Any:
    asked: dict[str, Any] = asdict(options) | ({"augment": True} if augment else {})
    assert tile is not None
    layer = model.segment_tile(tile, **_understood(asked, model))["probabilities"]
    if (found := dict(layer.sizes)) != (wanted := {axis: tile.sizes[axis] for axis in ("y", "x")}):
        raise GridMismatchError(f"model {name!r} returned probabilities of {found} pixels for a tile of {wanted}")
    return layer.transpose("y", "x").compute().data


def _segmenter(
    name: str, model: Path | str | Segmenter, device: Device, precision: str | None, runtime: str
) -> Segmenter:
    if isinstance(model, Path | str):
        return SMPSegmenter(model, device, precision=precision, runtime=runtime)
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


def _understood(options: dict[str, Any], model: Segmenter) -> dict[str, Any]:
    """Return the options that a model takes: a stand-in that knows no patches has no use for them."""
    parameters = inspect.signature(model.segment_tile).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return options
    return {name: value for name, value in options.items() if name in parameters}
