"""What a dataset of patches is made of: its form, its patches, and its samples."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from darts_utils.bands import BANDS, not_in_the_table
from darts_utils.errors import ConfigError
from darts_utils.numbers import whole_number

if TYPE_CHECKING:
    from shapely.geometry import MultiPolygon, Polygon

    Surface: TypeAlias = Polygon | MultiPolygon

BACKGROUND, SLUMP, IGNORE = 0, 1, 2
"""Classes of `y`."""
LEAST_PATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class DatasetForm:
    """What the patches of a dataset are; the content of `dataset.json`."""

    bands: tuple[str, ...]
    """Bands of `x`, in order."""
    patch_size: int
    """Side of a patch in pixels; a multiple of 32 suits the usual networks."""
    overlap: int = 0
    """Pixels that neighbouring patches of a sample share."""
    terrain_convention: str = "true-north"
    """How aspect and hillshade are counted: "true-north" or "legacy"."""
    pixel_m: float = 10.0
    """Side of a pixel in metres."""
    sensor: str = ""
    """Where the optical bands come from."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else decides about the patches: plain values, as JSON has them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", tuple(self.bands))
        if not self.bands:
            raise ConfigError("a patch dataset needs at least one band")
        if unknown := [name for name in self.bands if name not in BANDS]:
            raise ConfigError(f"bands: {not_in_the_table(unknown)}")
        if len(set(self.bands)) < len(self.bands):
            raise ConfigError(f"bands are named more than once: {', '.join(self.bands)}")
        for name, least in (("patch_size", LEAST_PATCH_SIZE), ("overlap", 0)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        if self.overlap >= self.patch_size:
            raise ConfigError(f"overlap must be smaller than patch_size ({self.patch_size}), got {self.overlap}")
        if self.terrain_convention not in ("true-north", "legacy"):
            raise ConfigError(f"terrain_convention must be 'true-north' or 'legacy', got {self.terrain_convention!r}")
        if not (np.isfinite(self.pixel_m) and self.pixel_m > 0):
            raise ConfigError(f"pixel_m must be a positive number, got {self.pixel_m!r}")
        object.__setattr__(self, "pixel_m", float(self.pixel_m))
        try:
            options = json.loads(json.dumps(dict(self.options), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"options must be plain values, as JSON has them: {error}") from error
        object.__setattr__(self, "options", options)

    def differences(self, other: "DatasetForm") -> list[str]:
        """Return what differs from another form, one line each, this one's value first."""
        mine, theirs = _flat(self), _flat(other)
        names = list(dict.fromkeys([*mine, *theirs]))
        return [
            f"{name}: {mine.get(name, 'not set')} against {theirs.get(name, 'not set')}"
            for name in names
            if mine.get(name, _NOTHING) != theirs.get(name, _NOTHING)
        ]

    def to_json(self) -> str:
        """Return the text of `dataset.json`."""
        return json.dumps({"kind": "darts patch dataset", "version": 1, **asdict(self)}, indent=2) + "\n"


@dataclass(frozen=True, kw_only=True, eq=False)
class Patch:
    """One patch on its way to disk."""

    x: np.ndarray
    """float32 (band, y, x) in the units of memory, NaN where missing."""
    y: np.ndarray
    """uint8 (y, x): 0 background, 1 slump, 2 ignore."""
    row: int
    col: int
    """Where it begins in the scene, pixels."""
    geometry: "Surface"
    """Its outline in EPSG:4326, split at the antimeridian."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A label footprint in one scene, and what became of it; a row of `samples.parquet`."""

    sample_id: str
    region: str = ""
    image_id: str = ""
    scene_id: str = ""
    label_time: str = ""
    """When the image was taken that the labels were drawn on; ISO 8601."""
    acquisition_time: str = ""
    """When this scene was taken; ISO 8601."""
    days: float | None = None
    """From the labels to the scene."""
    cover: float | None = None
    """Share of the footprint that the scene covers."""
    cloud: float | None = None
    """Share of it under clouds."""
    score: float | None = None
    """How well scene and label fit."""
    footprint: "Surface | None" = None
    """Where labels are complete, EPSG:4326."""
    state: Literal["patches", "empty", "failed"] = "patches"
    reason: str = ""
    """Why it has no patches."""
    n_patches: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.sample_id, str) or not self.sample_id:
            raise ConfigError(f"sample_id must be a text that is not empty, got {self.sample_id!r}")
        if self.state not in ("patches", "empty", "failed"):
            raise ConfigError(f"state of a sample must be 'patches', 'empty' or 'failed', got {self.state!r}")


_NOTHING = object()


def _flat(form: DatasetForm) -> dict[str, Any]:
    """Return a form's entries by name, options one by one."""
    told = asdict(form)
    options = told.pop("options")
    return told | {f"options.{name}": value for name, value in options.items()}
