"""The files of a dataset of patches, and how they are read.

`dataset.json` says what the patches are; `data.zarr` holds `x` float32 (n, band, y, x) in the units of memory, NaN
where missing, and `y` uint8 (n, y, x), a chunk a patch; row i of `metadata.parquet` tells of patch i; `samples.parquet`
has a row a sample, with what became of it, and is what counts: patches of samples that it does not name are not there.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darts_segmentation.training.patch_form import DatasetForm
from darts_utils.errors import MissingDataError, StoreError
from darts_utils.json_text import parse_json
from darts_utils.quoting import first_line, shown

if TYPE_CHECKING:
    import geopandas as gpd
    import zarr

FORM_FILE, ARRAYS, METADATA_FILE, SAMPLES_FILE = "dataset.json", "data.zarr", "metadata.parquet", "samples.parquet"

METADATA_COLUMNS = {
    "patch": "int64", "sample_id": "str", "region": "str", "image_id": "str", "scene_id": "str",
    "acquisition_time": "str", "label_time": "str", "row": "int64", "col": "int64",
    "positive_share": "float64", "labelled_share": "float64",
}  # fmt: skip
"""Columns of the metadata by type, besides `geometry` (EPSG:4326)."""
SAMPLE_COLUMNS = {
    "sample_id": "str", "region": "str", "image_id": "str", "scene_id": "str", "label_time": "str",
    "acquisition_time": "str", "days": "float64", "cover": "float64", "cloud": "float64", "score": "float64",
    "state": "str", "reason": "str", "n_patches": "int64",
}  # fmt: skip
"""Columns of the samples by type, besides `geometry` (EPSG:4326): the footprint."""


REMEDY = "Make the dataset anew in another folder, or restore this one from a copy."


def read_form(folder: Path) -> DatasetForm:
    """Return what the patches in a folder are.

    Raises:
        MissingDataError: the folder holds no dataset.
        StoreError: its `dataset.json` is damaged, of a later version, or cannot be read.
    """
    file = Path(folder) / FORM_FILE
    try:
        told = parse_json(file.read_text())
        if told["version"] != 1 or told["kind"] != "darts patch dataset":
            kind, version = shown(told["kind"]), shown(told["version"])
            raise StoreError(f"{file} is of kind {kind}, version {version}, which is not known here")
        return DatasetForm(**{item.name: told[item.name] for item in fields(DatasetForm)})
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingDataError(
            f"{folder} holds no patch dataset: there is no {FORM_FILE}; `darts train create-dataset` makes one"
        ) from error
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}; check the path and its rights") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file} is damaged: {first_line(error)}. {REMEDY}") from error


def read_tables(folder: Path) -> "tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]":
    """Return metadata and samples of a folder; patches of samples that the samples do not name are left out.

    Raises:
        MissingDataError: one of them is missing.
        StoreError: they are damaged, or do not fit each other.
    """
    # A writer replaces the metadata first, so in this order the metadata are never the older ones.
    samples = _read_table(folder / SAMPLES_FILE, SAMPLE_COLUMNS)
    metadata = _read_table(folder / METADATA_FILE, METADATA_COLUMNS)
    metadata = metadata.iloc[: int(samples["n_patches"].sum())]
    named = samples.loc[samples["n_patches"] != 0].set_index("sample_id")["n_patches"]
    counted = metadata["sample_id"].value_counts()
    in_order = (metadata["patch"].to_numpy() == np.arange(len(metadata))).all()
    if samples["sample_id"].duplicated().any() or named.to_dict() != counted.to_dict() or not in_order:
        raise StoreError(f"{METADATA_FILE} and {SAMPLES_FILE} in {folder} do not fit each other. {REMEDY}")
    return metadata, samples


def open_arrays(folder: Path, form: DatasetForm, *, rows: int, mode: Any = "r") -> "dict[str, zarr.Array]":
    """Return the arrays of a folder by name, of at least `rows` patches.

    Raises:
        MissingDataError: there are none.
        StoreError: they are damaged or too short.
    """
    import zarr

    path = folder / ARRAYS
    if not path.is_dir():
        raise MissingDataError(f"{path} is missing. {REMEDY}")
    arrays = {}
    for name, (shape, dtype) in array_types(form).items():
        try:
            array = zarr.open_array(path / name, mode=mode, zarr_format=3)
        # Metadata that are not as Zarr writes them make it fail in any way.
        except Exception as error:
            raise StoreError(f"{path / name} is damaged: {first_line(error)}. {REMEDY}") from error
        if array.shape[1:] != shape or array.dtype != dtype or array.shape[0] < rows or array.chunks != (1, *shape):
            raise StoreError(
                f"{path / name} is {array.dtype} {array.shape}, not {dtype} {(rows, *shape)} as the tables say. "
                f"{REMEDY}"
            )
        # A patch of fill values is written too: then a file that is missing is damage.
        arrays[name] = array.with_config({"write_empty_chunks": True})
    return arrays


def array_types(form: DatasetForm) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and type of a patch in each array."""
    size = form.patch_size
    return {"x": ((len(form.bands), size, size), "float32"), "y": ((size, size), "uint8")}


def chunk_file(folder: Path, name: str, number: int) -> Path:
    """Return the file of a patch in one of the arrays."""
    return folder / ARRAYS / name / "c" / str(number) / ("0/0/0" if name == "x" else "0/0")


def _read_table(file: Path, columns: Mapping[str, str]) -> "gpd.GeoDataFrame":
    import geopandas as gpd
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    if not file.is_file():
        raise MissingDataError(f"{file} is missing. {REMEDY}")
    try:
        # Not by geopandas, which takes 50 ms to make anew what it read of the CRS.
        table = pq.read_table(file)
        crs = parse_json(table.schema.metadata[b"geo"])["columns"]["geometry"]["crs"]
        if crs["id"] != {"authority": "EPSG", "code": 4326}:
            raise ValueError(f"its geometry is in {shown(crs['id'])}, not in EPSG:4326")
        frame = table.to_pandas().astype(dict(columns))
        geometry = shapely.from_wkb(frame["geometry"])
        return gpd.GeoDataFrame(frame[[*columns]], geometry=geometry, crs="EPSG:4326")
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, shapely.errors.ShapelyError) as error:
        raise StoreError(f"{file} is damaged: {first_line(error)}. {REMEDY}") from error
