"""Patches for training on disk: a folder of arrays and tables, read patch by patch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darts_segmentation.training.patch_files import (
    REMEDY,
    chunk_file,
    open_arrays,
    read_form,
    read_tables,
)
from darts_segmentation.training.patch_form import BACKGROUND, IGNORE, SLUMP, DatasetForm, Patch, Sample
from darts_segmentation.training.patch_writer import PatchWriter
from darts_utils.errors import MissingBandError, StoreError
from darts_utils.quoting import first_line

if TYPE_CHECKING:
    import geopandas as gpd
    import zarr

__all__ = ["BACKGROUND", "IGNORE", "SLUMP", "DatasetForm", "Patch", "PatchDataset", "PatchWriter", "Sample"]


class PatchDataset:
    """A dataset of patches, open for reading; may be sent to other processes."""

    def __init__(
        self, folder: Path, form: DatasetForm, metadata: "gpd.GeoDataFrame", samples: "gpd.GeoDataFrame"
    ) -> None:  # fmt: skip
        self.folder = folder
        self.form = form
        self.metadata = metadata
        """A row a patch, in order, of `METADATA_COLUMNS` and geometry."""
        self.samples = samples
        """A row a sample, of `SAMPLE_COLUMNS` and geometry (the footprint)."""
        self._arrays: dict[str, zarr.Array] | None = None

    @classmethod
    def open(cls, folder: Path) -> "PatchDataset":
        """Return the dataset in a folder, as far as it is written.

        Raises:
            MissingDataError: there is none, or a part of it is missing.
            StoreError: it is damaged.
        """
        folder = Path(folder)
        form = read_form(folder)
        metadata, samples = read_tables(folder)
        dataset = cls(folder, form, metadata, samples)
        dataset._open_arrays()
        return dataset

    def __len__(self) -> int:
        return len(self.metadata)

    def __repr__(self) -> str:
        size = self.form.patch_size
        return f"<PatchDataset {self.folder}: {len(self)} patches of {size} x {size} px, {len(self.form.bands)} bands>"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": None}

    def band_indices(self, bands: Sequence[str]) -> list[int]:
        """Return where bands lie in `x`.

        Raises:
            MissingBandError: the dataset lacks one.
        """
        if missing := [name for name in bands if name not in self.form.bands]:
            raise MissingBandError(
                f"{self.folder} has no band {', '.join(missing)}; it has {', '.join(self.form.bands)}. "
                "Make a dataset with these bands, or train a model that does without them."
            )
        return [self.form.bands.index(name) for name in bands]

    def read(self, index: int, bands: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return `x` float32 (band, y, x) of all bands or of `bands`, in that order, and `y` uint8 (y, x) of a patch.

        Raises:
            MissingBandError: the dataset lacks one of `bands`.
            StoreError: the patch is damaged.
        """
        number = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= number < len(self):
            raise IndexError(f"patch {index} of {len(self)} patches in {self.folder}")
        chosen = None if bands is None else self.band_indices(bands)
        x = self._chunk("x", number)
        return (x if chosen is None else x[chosen]), self._chunk("y", number)

    def read_labels(self, index: int) -> np.ndarray:
        """Return `y` alone, uint8 (y, x), of a patch."""
        if not 0 <= index < len(self):
            raise IndexError(f"patch {index} of {len(self)} patches in {self.folder}")
        return self._chunk("y", int(index))

    def _chunk(self, name: str, number: int) -> np.ndarray:
        file = chunk_file(self.folder, name, number)
        try:
            # Zarr takes a chunk that is missing for one of fill values.
            if not file.is_file():
                raise FileNotFoundError("it is missing")
            return np.asarray(self._open_arrays()[name][number])
        except (OSError, ValueError, RuntimeError) as error:  # codecs have errors of their own
            raise StoreError(f"patch {number} is damaged: {file}: {first_line(error)}. {REMEDY}") from error

    def _open_arrays(self) -> "dict[str, zarr.Array]":
        if self._arrays is None:
            self._arrays = open_arrays(self.folder, self.form, rows=len(self.metadata))
        return self._arrays
