"""A loaded segmentation model that gives tiles their probabilities."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import xarray as xr

from darts_segmentation.checkpoint import Checkpoint, build_model, read_checkpoint
from darts_segmentation.inference import DatasetRows, Reader, Tally, predict_planes
from darts_segmentation.network import Network
from darts_segmentation.patches import PatchOptions
from darts_segmentation.runtimes import check_choices
from darts_segmentation.turns import turns_for
from darts_utils.arrays import Device, resolve_device
from darts_utils.bands import describe
from darts_utils.errors import CheckpointError

logger = logging.getLogger("darts.segmentation")


class SMPSegmenter:
    """A network of segmentation_models_pytorch from a checkpoint; it pickles by the checkpoint's path.

    Args:
        model_checkpoint: the checkpoint file.
        device: where the network computes; None takes the best there is ("openvino": the CPU).
        precision: numbers it computes with, "fp32", "bf16" or "fp16" (GPU only); None takes fp32 on a CPU and bf16 on a
            GPU.
        runtime: what computes it, "torch", "compile" (torch.compile) or "openvino" (CPU only, the extra `openvino`).

    Where the checkpoint's card has a `temperature`, probabilities are calibrated: sigmoid(logit / temperature).

    Raises:
        MissingDataError, CheckpointError: the file is not there, or is refused.
        ConfigError: precision or runtime is unknown, does not work on the device, or is not installed.
        DeviceError: a GPU was asked for by name and is not there.
    """

    def __init__(
        self,
        model_checkpoint: Path | str,
        device: Device = None,
        *,
        precision: str | None = None,
        runtime: str = "torch",
    ) -> None:
        self._asked_device, self._asked_precision = device, precision
        check_choices(precision, runtime, device)
        resolved = "cpu" if runtime == "openvino" else resolve_device(device)
        check_choices(precision, runtime, resolved)
        checkpoint = read_checkpoint(model_checkpoint)
        self._network = Network(
            build_model(checkpoint),
            resolved,
            precision,
            runtime,
            temperature=_temperature(checkpoint),
            bands=len(checkpoint.bands),
            checkpoint=checkpoint.path,
            checksum=checkpoint.checksum,
        )
        self.checkpoint: Checkpoint = replace(checkpoint, state_dict=MappingProxyType({}))
        """What the file says; its weights live in the network alone."""

    def __reduce__(self) -> tuple[Callable[..., "SMPSegmenter"], tuple[Path, Device]]:
        again = partial(SMPSegmenter, precision=self._asked_precision, runtime=self.runtime)
        return again, (self.checkpoint.path.absolute(), self._asked_device)

    @property
    def name(self) -> str:
        """The checkpoint's file name without its suffix."""
        return self.checkpoint.name

    @property
    def device(self) -> str:
        """Where the network computes, "cpu" or "cuda:<index>"."""
        return str(self._network.device)

    @property
    def precision(self) -> str:
        """Numbers that the network computes with, "fp32", "bf16" or "fp16"."""
        return self._network.precision

    @property
    def runtime(self) -> str:
        """What was asked to compute the network, "torch", "compile" or "openvino"."""
        return self._network.runtime

    @property
    def required_bands(self) -> tuple[str, ...]:
        """Bands that a tile must have: the network's inputs in order, and `slope` last where `aspect` needs it."""
        bands = self.checkpoint.bands
        return (*bands, "slope") if "aspect" in bands and "slope" not in bands else bands

    @property
    def terrain_convention(self) -> str:
        """How the terrain features must be oriented, "true-north" or "legacy"."""
        return self.checkpoint.terrain_convention

    def segment_tile(
        self,
        tile: xr.Dataset,
        patch_size: int = 1024,
        overlap: int = 256,
        batch_size: int = 8,
        reflection: int = 0,
        *,
        augment: bool = False,
    ) -> xr.Dataset:
        """Return the tile with `probabilities` added (float32, 0 to 1), which live where the tile lives.

        A pixel is valid when all bands that the model needs are finite there; the probability of others is NaN. Bands
        of whole numbers are always valid. `aspect`, which flat ground has not, is not asked: `slope` is in its place.

        Args:
            tile: dims ("y", "x"), at least one pixel, bands in memory form.
            patch_size: side of the square patches that the network sees, in pixels.
            overlap: pixels that neighbouring patches share, less than `patch_size`; blended linearly.
            batch_size: patches computed at once, or fewer where memory asks for it.
            reflection: pixels of extra reflect padding around the tile.
            augment: take the mean over the eight flips and quarter turns of each patch. Directions (`aspect`) are
                turned with it; the light of `hillshade` cannot be.

        Raises:
            MissingBandError: the tile lacks bands.
            ConfigError: an option cannot work, the tile is no plane of ("y", "x"), or the aspect that shall be turned
                is of the legacy convention.
            DeviceError: the bands live on different devices, or one patch does not fit the device's memory.
        """
        return self.segment_tile_batched([tile], patch_size, overlap, batch_size, reflection, augment=augment)[0]

    def segment_tile_batched(
        self,
        tiles: Iterable[xr.Dataset],
        patch_size: int = 1024,
        overlap: int = 256,
        batch_size: int = 8,
        reflection: int = 0,
        *,
        augment: bool = False,
    ) -> list[xr.Dataset]:
        """Return what `segment_tile` returns for each of the tiles, which need not share a grid.

        Batches are filled across tiles.
        """
        options = PatchOptions(patch_size=patch_size, overlap=overlap, batch_size=batch_size, reflection=reflection)
        tiles = list(tiles)
        rows = [DatasetRows(tile, self.required_bands, purpose=f"model {self.name!r}") for tile in tiles]
        tally = Tally()
        planes = predict_planes(
            rows, [self.reader()], options, [tally],
            turns=turns_for(augment, self.checkpoint.bands, self.terrain_convention),
        )  # fmt: skip
        logger.log(
            logging.INFO if tally.skipped else logging.DEBUG,
            "%s on %s: %d of %d patches (%.0f %%) hold no valid pixel and were skipped",
            self.name, _named(tiles), tally.planned - tally.predicted, tally.planned, 100 * tally.skipped,
        )  # fmt: skip
        return [
            tile.assign(probabilities=self.described(layers[0])) for tile, layers in zip(tiles, planes, strict=True)
        ]  # fmt: skip

    def reader(self) -> Reader:
        """Return the network as inference takes it, for one call."""
        bands = self.checkpoint.bands
        # A GPU has time to spare for normalising, and the host that feeds it has none.
        raw = self._network.device.type == "cuda"
        return Reader(
            bands=bands,
            # Flat ground has no aspect; its slope tells whether the DEM is there.
            asked=tuple(name for name in self.required_bands if name != "aspect"),
            predict=self._network.predictor(list(map(self.checkpoint.limits, bands)) if raw else None),
            raw=raw,
            limits=self.checkpoint.normalization,
            stride=self._network.stride,
            least=self._network.least,
            most=self._network.most,
        )

    def described(self, plane: Any, name: str = "probabilities") -> xr.DataArray:
        """Return a plane of probabilities as a band."""
        return describe(xr.DataArray(plane, dims=("y", "x")), name, f"model {self.name}")


def _temperature(checkpoint: Checkpoint) -> float:
    """Return by what the logits are divided.

    Raises:
        CheckpointError: the card says something that is no positive number.
    """
    value = checkpoint.card.get("temperature", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise CheckpointError(
            f"{checkpoint.path}: temperature in its card must be a positive number, got {value!r}; "
            "correct it, or leave it out for probabilities as the network gives them"
        )
    return float(value)


def _named(tiles: Sequence[xr.Dataset]) -> str:
    return f"tile {tiles[0].attrs.get('tile_id', 'without an id')}" if len(tiles) == 1 else f"{len(tiles)} tiles"
