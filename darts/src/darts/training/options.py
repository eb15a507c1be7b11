"""Parameters of making datasets, and what they may be; read without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from darts_utils.errors import ConfigError
from darts_utils.numbers import whole_number
from darts_utils.quality import quality_number

BANDS = (
    "blue", "green", "red", "nir", "ndvi", "tc_brightness", "tc_greenness", "tc_wetness",
    "relative_elevation", "slope", "aspect", "hillshade", "curvature",
)  # fmt: skip
"""What models of thaw slumps are made from."""


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Which labels are read."""

    labels: list[Path] = field(default_factory=list)
    """Vector files of labels, or folders with TrainingLabel*.gpkg and the ImageFootprints*.gpkg that go with them."""
    footprints: Path | None = None
    """Vector file of the areas that were looked at, all of them; default: the ImageFootprints*.gpkg beside a \
TrainingLabel*.gpkg."""
    whole_scene: bool = False
    """Labels without a footprint are complete for the whole of their scene: the rest of it is background. Otherwise \
they are left out."""
    annotators: list[Path] = field(default_factory=list)
    """Instead of labels: one vector file for each of several people who labelled the same images."""
    min_agreeing: int = 1
    """A pixel is a slump where at least so many annotators say so."""
    disputed_from: int | None = None
    """A pixel that fewer annotators than that call a slump, but at least so many, is ignored; default: background."""
    keep_unlabelled: bool = True
    """Footprints without any label are used too: all of their area is background."""
    image_column: str = "image_id"
    """Column with the image that a label was drawn on; without it, labels belong to the footprints they touch."""
    date_column: str = "image_date"
    """Column with the date of that image."""
    region_column: str = "region"
    """Column with the region."""
    label_column: str = "label"
    """Column with 1 (slump), 0 (background) or 2 (ignore); without it, all are slumps."""
    image_id: str | None = None
    """Name of the image of labels that have no such column; default: the name of the file."""
    date: str | None = None
    """Date or time of labels that have none, such as 2021-08-21."""
    region: str | None = None
    """Region of labels that have none."""

    def __post_init__(self) -> None:
        if bool(self.labels) == bool(self.annotators):
            raise ConfigError("exactly one of labels and annotators must be given")
        if not 1 <= self.min_agreeing <= max(len(self.annotators), 1):
            of = f"1 … {len(self.annotators)}, the number of annotators" if self.annotators else "1 without annotators"
            raise ConfigError(f"min_agreeing must be {of}, got {self.min_agreeing}")
        if self.disputed_from is not None and not 1 <= self.disputed_from <= self.min_agreeing:
            raise ConfigError(
                f"disputed_from must be in 1 … min_agreeing ({self.min_agreeing}), got {self.disputed_from}"
            )


@dataclass(frozen=True, kw_only=True)
class MatchOptions:
    """Which scenes fit a label footprint."""

    max_days: float = 7.0
    """Most days between the label's image and the scene."""
    min_cover: float = 0.7
    """Smallest share of the footprint that the scene must cover, in 0 … 1."""
    max_cloud_cover: float = 10.0
    """Most cloud and cloud shadow in what it covers, in percent; before a download, in the whole scene."""

    def __post_init__(self) -> None:
        if not self.max_days >= 0:
            raise ConfigError(f"max_days must be 0 or more, got {self.max_days}")
        if not 0 <= self.min_cover <= 1:
            raise ConfigError(f"min_cover must be a share in 0 … 1, got {self.min_cover}")
        if not 0 <= self.max_cloud_cover <= 100:
            raise ConfigError(f"max_cloud_cover must be in 0 … 100 percent, got {self.max_cloud_cover}")


@dataclass(frozen=True, kw_only=True)
class CreateOptions:
    """How scenes and labels become patches."""

    bands: list[str] = field(default_factory=lambda: list(BANDS))
    """Bands of the patches, in this order: optical bands of the source, and features."""
    patch_size: int = 256
    """Side of a patch, in pixels."""
    overlap: int = 0
    """Pixels that neighbouring patches share."""
    keep_negative: bool = True
    """Keep patches without any slump."""
    keep_nan: bool = True
    """Keep patches in which values are missing; the pixels are ignored."""
    min_labelled: float = 0.1
    """Drop patches of which a smaller share is labelled, that is not ignored."""
    quality_level: Literal[0, 1, 2, "none", "low_quality", "high_quality"] = 2
    """Pixels below this quality are ignored: 2 (high_quality) leaves clouds, shadows and snow out, 1 only what is \
invalid."""
    label_buffer_m: float = 0.0
    """Width of a ring around slumps that is ignored, in metres."""
    all_touched: bool = False
    """A pixel belongs to a label that touches it; default: to one that holds its centre."""
    terrain_convention: Literal["true-north", "legacy"] = "true-north"
    """Which way aspect and hillshade are computed; legacy: as for older DARTS models."""

    def __post_init__(self) -> None:
        if not self.bands or len(set(self.bands)) < len(self.bands):
            raise ConfigError(
                f"bands must name at least one band, and each once, got {', '.join(self.bands) or 'none'}"
            )
        whole_number("patch_size", self.patch_size, 1)
        if not 0 <= self.overlap < self.patch_size:
            raise ConfigError(f"overlap must be in 0 … patch_size - 1 ({self.patch_size - 1}), got {self.overlap}")
        if not 0 <= self.min_labelled <= 1:
            raise ConfigError(f"min_labelled must be a share in 0 … 1, got {self.min_labelled}")
        quality_number(self.quality_level)
        if not self.label_buffer_m >= 0:
            raise ConfigError(f"label_buffer_m must be 0 or more, got {self.label_buffer_m}")

    @property
    def as_told(self) -> dict[str, Any]:
        """What a dataset tells of its making besides bands, patch size, overlap and terrain convention."""
        names = ("keep_negative", "keep_nan", "min_labelled", "quality_level", "label_buffer_m", "all_touched")
        told = {name: getattr(self, name) for name in names}
        return told | {"quality_level": quality_number(self.quality_level)}  # the same by its number and its name
