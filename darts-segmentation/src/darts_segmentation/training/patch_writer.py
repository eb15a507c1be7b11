"""Writing patches into a dataset on disk, sample by sample; a kill at any moment costs at most one sample.

Arrays grow first, then `metadata.parquet`, then `samples.parquet`, each table replaced whole. What the samples do not
name is not there: opening the dataset for writing cuts it off.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import numpy as np

from darts_segmentation.training.patch_files import (
    ARRAYS,
    FORM_FILE,
    METADATA_COLUMNS,
    METADATA_FILE,
    SAMPLE_COLUMNS,
    SAMPLES_FILE,
    array_types,
    chunk_file,
    open_arrays,
    read_form,
    read_tables,
)
from darts_segmentation.training.patch_form import IGNORE, SLUMP, DatasetForm, Patch, Sample
from darts_utils.errors import ConfigError, DartsError, StoreError
from darts_utils.store import held, remove_leftovers, replacing

if TYPE_CHECKING:
    import geopandas as gpd
    import zarr

GROW_BY = 64
"""The arrays get room for this many patches at a time; what is left over is cut off in the end."""

P = ParamSpec("P")
R = TypeVar("R")


class PatchWriter:
    """Adds samples to the dataset in a folder, which it makes if there is none; one writer at a time.

    ```python
    with PatchWriter(folder, form) as writer:
        for sample, tile, target in labelled_tiles:
            if not writer.has(sample.sample_id):
                writer.add(sample, cut_patches(tile, target, form))
    ```
    """

    def __init__(self, folder: Path, form: DatasetForm) -> None:
        """Check that the folder is new, or holds a dataset of this form.

        Raises:
            ConfigError: it holds a dataset of another form, and in what it differs, or something else.
            StoreError: the dataset there is damaged.
        """
        self.folder = Path(folder)
        self.form = form
        self._closing = ExitStack()
        self._is_open = False
        self._metadata: gpd.GeoDataFrame
        self._samples: gpd.GeoDataFrame
        self._states: dict[str, str]
        self._arrays: dict[str, zarr.Array]
        self._check_form()

    def __enter__(self) -> Self:
        """Hold the folder, and open the dataset.

        Raises:
            ConfigError: another process writes this dataset now.
            StoreError: it is damaged, or cannot be written.
        """
        with ExitStack() as closing:
            self._saving(self.folder.mkdir, parents=True, exist_ok=True)
            if not closing.enter_context(held(self.folder / FORM_FILE)):
                raise ConfigError(
                    f"another process writes the dataset {self.folder} now; wait for it or stop it, or name another "
                    "folder"
                )
            self._check_form()  # it may have come meanwhile
            self._saving(self._open)
            self._closing = closing.pop_all()
        self._is_open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_open = False
        with self._closing:
            self._saving(self._cut_arrays)

    def has(self, sample_id: str) -> bool:
        """Return whether a sample is there, also an empty or failed one."""
        return self.state_of(sample_id) is not None

    def state_of(self, sample_id: str) -> str | None:
        """Return what became of a sample: "patches", "empty" or "failed"; None if it is not there."""
        return self._states.get(sample_id)

    def add(self, sample: Sample, patches: Iterable[Patch]) -> int:
        """Write the patches of a sample, and return how many; without any the sample is noted as empty.

        The patches may be made one by one while they are written. If that fails, nothing is added. A sample that was
        noted as empty or failed may be added.

        Raises:
            ConfigError: the sample has patches already, or a patch does not fit the dataset.
            StoreError: the dataset cannot be written.
        """
        self._check_may_take(sample)
        rows: list[dict[str, Any]] = []
        files: list[Path] = []
        for patch in patches:
            self._check_patch(patch)
            number = len(self._metadata) + len(rows)
            files += self._saving(self._write, number, patch)
            rows.append(_metadata_row(number, sample, patch))
        if rows:
            self._saving(self._flush, files)
            metadata = _extended(self._metadata, rows, METADATA_COLUMNS)
            self._saving(self._replace, METADATA_FILE, metadata)
            self._put(replace(sample, state="patches", n_patches=len(rows)))
            self._metadata = metadata
        else:
            self._put(replace(sample, state="empty", reason=sample.reason or "no patch was kept", n_patches=0))
        return len(rows)

    def note(self, sample: Sample) -> None:
        """Write down a sample without patches: one that failed, or is empty.

        Raises:
            ConfigError: its state is "patches", or it has patches already.
            StoreError: the dataset cannot be written.
        """
        self._check_may_take(sample)
        if sample.state == "patches":
            raise ConfigError(f"sample {sample.sample_id!r}: only empty and failed samples are noted; add its patches")
        self._put(replace(sample, n_patches=0))

    def _check_form(self) -> None:
        if not (self.folder / FORM_FILE).is_file():
            names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
            if others := sorted(name for name in names if not name.startswith(".")):
                raise ConfigError(
                    f"{self.folder} is no patch dataset: it has no {FORM_FILE}, but {others[0]!r}; name another folder"
                )
            if self.folder.exists() and not self.folder.is_dir():
                raise ConfigError(f"{self.folder} is a file; name a folder for the dataset")
            return
        if different := read_form(self.folder).differences(self.form):
            raise ConfigError(
                f"the dataset {self.folder} is of another form (there against here): {'; '.join(different)}. "
                "Name another folder, or make patches of the same form."
            )

    def _open(self) -> None:
        for name in (FORM_FILE, METADATA_FILE, SAMPLES_FILE, ARRAYS):
            remove_leftovers(self.folder / name)
        if not (self.folder / SAMPLES_FILE).is_file() and not _has_rows(self.folder / METADATA_FILE):
            self._create()
        self._metadata, self._samples = read_tables(self.folder)
        self._states = dict(zip(self._samples["sample_id"], self._samples["state"], strict=True))
        self._arrays = open_arrays(self.folder, self.form, rows=len(self._metadata), mode="r+")
        self._cut_arrays()

    def _create(self) -> None:
        """Make what an empty dataset consists of; a kill in between leaves a part, which is made anew."""
        with replacing(self.folder / FORM_FILE) as file:
            file.write_text(self.form.to_json())
        with replacing(self.folder / ARRAYS) as path:
            _create_arrays(path, self.form)
        self._replace(METADATA_FILE, _extended(None, [], METADATA_COLUMNS))
        self._replace(SAMPLES_FILE, _extended(None, [], SAMPLE_COLUMNS))

    def _check_may_take(self, sample: Sample) -> None:
        if not self._is_open:
            raise ConfigError("a PatchWriter writes within its with block only")
        if self.state_of(sample.sample_id) == "patches":
            raise ConfigError(
                f"sample {sample.sample_id!r} has patches in the dataset {self.folder} already; ask has() before adding"
            )

    def _check_patch(self, patch: Patch) -> None:
        for name, (shape, dtype) in array_types(self.form).items():
            values = getattr(patch, name)
            if values.shape != shape or values.dtype != dtype:
                raise ConfigError(f"{name} of a patch must be {dtype} {shape}, got {values.dtype} {values.shape}")
        if patch.y.max() > IGNORE:
            raise ConfigError(f"y of a patch must hold 0, 1 and 2 only, got {patch.y.max()}")

    def _write(self, number: int, patch: Patch) -> list[Path]:
        for name, array in self._arrays.items():
            if array.shape[0] <= number:
                array.resize((number + GROW_BY, *array.shape[1:]))
            array[number] = getattr(patch, name)
        return [chunk_file(self.folder, name, number) for name in self._arrays]

    def _put(self, sample: Sample) -> None:
        """Write the row of a sample; this is the moment from which it and its patches are there."""
        others = self._samples.loc[self._samples["sample_id"] != sample.sample_id]
        row = {**{name: getattr(sample, name) for name in SAMPLE_COLUMNS}, "geometry": sample.footprint}
        samples = _extended(others, [row], SAMPLE_COLUMNS)
        self._saving(self._replace, SAMPLES_FILE, samples)
        self._samples = samples
        self._states[sample.sample_id] = sample.state

    def _replace(self, name: str, table: "gpd.GeoDataFrame") -> None:
        with replacing(self.folder / name) as file:
            table.to_parquet(file, index=False)

    def _cut_arrays(self) -> None:
        """Cut off what the tables do not name, with what a killed writer left half written."""
        rows = len(self._metadata)
        for name, array in self._arrays.items():
            if array.shape[0] > rows:
                array.resize((rows, *array.shape[1:]))
            path = self.folder / ARRAYS / name
            for leftover in path.glob("*.partial"):
                leftover.unlink()
            for entry in (path / "c").glob("*"):
                if int(entry.name) >= rows:
                    shutil.rmtree(entry)

    def _flush(self, files: Sequence[Path]) -> None:
        """Ask the system to put patches on disk, so that the tables never name what a power cut took."""
        for file in files:
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _saving(self, write: Callable[P, R], *args: P.args, **options: P.kwargs) -> R:
        import pyarrow as pa

        try:
            return write(*args, **options)
        except DartsError:
            raise
        except (OSError, pa.ArrowException) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise StoreError(
                f"cannot write the dataset {self.folder}: {reason}. What is there stays as it was: make room or choose "
                "a folder you may write, and go on."
            ) from error


def _create_arrays(path: Path, form: DatasetForm) -> None:
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec

    zarr.create_group(path, zarr_format=3)
    for name, (shape, dtype) in array_types(form).items():
        zarr.create_array(
            path / name,
            shape=(0, *shape),
            chunks=(1, *shape),
            dtype=dtype,
            fill_value=np.nan if name == "x" else IGNORE,
            # The checksum makes a damaged patch an error instead of wrong numbers.
            compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()],
            dimension_names=("patch", "band", "y", "x") if name == "x" else ("patch", "y", "x"),
            zarr_format=3,
        )


def _metadata_row(number: int, sample: Sample, patch: Patch) -> dict[str, Any]:
    labelled = int(np.count_nonzero(patch.y != IGNORE))
    return {
        "patch": number, "sample_id": sample.sample_id, "region": sample.region, "image_id": sample.image_id,
        "scene_id": sample.scene_id, "acquisition_time": sample.acquisition_time, "label_time": sample.label_time,
        "row": patch.row, "col": patch.col,
        "positive_share": np.count_nonzero(patch.y == SLUMP) / max(labelled, 1),
        "labelled_share": labelled / patch.y.size,
        "geometry": patch.geometry,
    }  # fmt: skip


def _extended(
    table: "gpd.GeoDataFrame | None", rows: Sequence[dict[str, Any]], columns: "dict[str, str]"
) -> "gpd.GeoDataFrame":
    """Return a table with rows added, of the types of `columns`."""
    import geopandas as gpd
    import pandas as pd

    geometry = gpd.GeoSeries([row["geometry"] for row in rows], crs="EPSG:4326", dtype="geometry")
    values: dict[str, pd.Series] = {
        name: pd.Series([row[name] for row in rows], dtype=kind) for name, kind in columns.items()
    }
    added = gpd.GeoDataFrame(values, geometry=geometry)
    return added if table is None or table.empty else pd.concat([table, added], ignore_index=True)


def _has_rows(metadata: Path) -> bool:
    import pyarrow.parquet as pq

    return metadata.is_file() and pq.read_metadata(metadata).num_rows > 0
