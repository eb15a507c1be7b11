"""Samples of a dataset: a label footprint in one scene; and what becomes of them."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import shapely

from darts_acquisition.antimeridian import surface_of
from darts_acquisition.areas import read_areas

if TYPE_CHECKING:
    import xarray as xr

    from darts_segmentation.training.patch_dataset import Sample

NAME_LENGTH = 180


@dataclass(frozen=True, kw_only=True)
class CreateSummary:
    """What became of the samples of one call."""

    made: int = 0
    """Samples that were added with patches."""
    empty: int = 0
    """Samples of which no patch was kept."""
    there: int = 0
    """Samples that were in the dataset already."""
    failed: tuple[tuple[str, str], ...] = ()
    """Samples that failed, each with the reason."""
    unmatched: tuple[str, ...] = ()
    """Images for whose footprint no scene was found."""
    n_patches: int = 0
    """Patches that were added."""

    def __add__(self, other: "CreateSummary") -> "CreateSummary":
        mine, theirs = vars(self), vars(other)
        return CreateSummary(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def exit_code(self) -> int:
        """0: all samples are in the dataset; 1: some failed."""
        return 1 if self.failed else 0


def sample_of(footprint: Any, match: Mapping[Any, Any]) -> "Sample":
    """Return the sample of a footprint (a row of `LabelSet.footprints`) and the scene it was matched with."""
    from darts_segmentation.training.patch_dataset import Sample

    image_id, scene_id = match["image_id"], match["scene_id"]
    return Sample(
        sample_id=sample_name(image_id, scene_id),
        region=footprint["region"],
        image_id=image_id,
        scene_id=scene_id,
        label_time="" if pd.isna(footprint["time"]) else footprint["time"].isoformat(),
        days=_number(match["days"]),
        cover=_number(match["cover"]),
        cloud=_number(match["cloud"]),
        score=_number(match["score"]),
        footprint=footprint["geometry"],
    )


def with_scene(sample: "Sample", optical: "xr.Dataset") -> "Sample":
    """Return a sample with what its scene tells: its time, and its outline where labels cover all of it."""
    outline = sample.footprint
    if outline is None:
        outline = surface_of(shapely.union_all(list(read_areas(optical.odc.geobox))))
    return dataclasses.replace(
        sample, acquisition_time=str(optical.attrs.get("acquisition_time", "")), footprint=outline
    )


def sample_name(image_id: str, scene_id: str) -> str:
    """Return the name of a footprint in a scene, which can also be that of a file."""
    plain = re.sub(r"[^0-9A-Za-z._-]+", "-", image_id), re.sub(r"[^0-9A-Za-z._-]+", "-", scene_id)
    name = "@".join(plain)
    if plain == (image_id, scene_id) and len(name) <= NAME_LENGTH:
        return name
    # Different ids must not become one name.
    digest = hashlib.sha256(f"{image_id}@{scene_id}".encode()).hexdigest()[:8]
    return f"{name[:NAME_LENGTH]}-{digest}"


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
