"""What models and exports ask for: bands, features, and the auxiliary data behind them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from darts_export import PRODUCTS
from darts_preprocessing import ALL_FEATURES, FEATURES
from darts_preprocessing.features import DEM_FEATURES, TREND_FEATURES
from darts_segmentation import read_checkpoint
from darts_segmentation.checkpoint import model_name
from darts_segmentation.hub import is_hub_folder
from darts_utils.errors import ConfigError, MissingBandError

TCVIS_BUFFER_PX = 4
"""The cubic kernel reaches two pixels, rotation and rounding the rest."""


@dataclass(frozen=True)
class Needs:
    """What a run asks for."""

    by_model: Mapping[str, tuple[str, ...]]
    """Model → its bands."""
    features: tuple[str, ...]
    """What models and exports need of `darts_preprocessing.ALL_FEATURES`, in that order."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands that any model needs."""
        return tuple(dict.fromkeys(band for bands in self.by_model.values() for band in bands))

    @property
    def dem(self) -> bool:
        """Whether elevation is needed."""
        return any(name in DEM_FEATURES for name in self.features)

    @property
    def tcvis(self) -> bool:
        """Whether Landsat trends are needed."""
        return any(name in TREND_FEATURES for name in self.features)

    def auxiliary_of(self, model: str) -> str:
        """Return in words which auxiliary data a model needs."""
        bands = self.by_model[model]
        dem, tcvis = (any(name in names for name in bands) for names in (DEM_FEATURES, TREND_FEATURES))
        return " and ".join([*["ArcticDEM"] * dem, *["TCVIS"] * tcvis]) or "no auxiliary data"


def read_needs(models: Mapping[str, Path], export_bands: Iterable[str]) -> Needs:
    """Return what checkpoints and exports ask for, without building the networks."""
    by_model = {name: tuple(read_checkpoint(file).bands) for name, file in models.items()}
    return Needs(by_model, needed_features((band for bands in by_model.values() for band in bands), export_bands))


def everything() -> Needs:
    """Return the needs of models that nobody knows yet: all features."""
    return Needs({}, tuple(FEATURES))


def needed_features(required_bands: Iterable[str], export_bands: Iterable[str]) -> tuple[str, ...]:
    """Return the features that the models or the export ask for, in the order of `ALL_FEATURES`."""
    asked = set(required_bands)
    for token in export_bands:
        asked.update(PRODUCTS[token].variables if token in PRODUCTS else (token,))
    return tuple(name for name in ALL_FEATURES if name in asked)


def dem_buffer_px(pixel_m: float, tpi_outer_radius: float, resolution: int) -> int:
    """Return the margin, in pixels of the DEM, that covers the TPI radius, the stencils and the cubic kernel.

    `pixel_m` is the pixel size of the optical tile.
    """
    margin_m = tpi_outer_radius + 3 * pixel_m
    # The DEM's grid is turned against the tile's: a corner's margin is longer along the DEM's axes.
    return math.ceil(math.sqrt(2) * margin_m / resolution) + 4


def possible_bands(optical_bands: Sequence[str]) -> tuple[str, ...]:
    """Return what a source gives, and what preprocessing makes."""
    return (*optical_bands, *ALL_FEATURES)


def check_bands(required_bands: Iterable[str], optical_bands: Sequence[str]) -> None:
    """Check that every band the models need can be made.

    Raises:
        MissingBandError: names the bands that neither the source nor preprocessing gives.
    """
    if impossible := sorted(set(required_bands).difference(possible_bands(optical_bands))):
        raise MissingBandError(
            f"the models need {', '.join(impossible)}, which cannot be made from this source; it gives "
            f"{', '.join(optical_bands)}, and what is computed from them, ArcticDEM and TCVIS. Choose other models "
            "with --model-files."
        )


def models_in(folder: Path) -> list[Path]:
    """Return the models of a folder: its files *.pt, and the folders with config.json and model.safetensors."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.match("*.pt") or is_hub_folder(entry))


def model_names(files: Iterable[Path]) -> dict[str, Path]:
    """Return the models by name, which is that of the file without its suffix, or of the folder.

    Raises:
        ConfigError: a model is missing, or two have the same name.
    """
    models: dict[str, Path] = {}
    for file in files:
        if not file.exists():
            raise ConfigError(f"model file {file} does not exist; check --model-files")
        name = model_name(file)
        if name in models:
            raise ConfigError(f"two models are called {name!r}: {models[name]} and {file}; rename one")
        models[name] = file
    return models
