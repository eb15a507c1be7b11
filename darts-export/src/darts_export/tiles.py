"""A tile to its folder of files, whole or not at all; and whether a folder holds them."""

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from darts_export.completeness import is_complete
from darts_export.debug import write_debug
from darts_export.export import Export
from darts_export.metadata import darts_tags, identity
from darts_export.products import DEBUG_FILE, DEFAULT_BANDS, PRODUCTS, check_names, check_thresholds, expected_files
from darts_export.rasters import tile_geobox
from darts_utils.bands import require_bands
from darts_utils.errors import ConfigError, MissingBandError, StoreError
from darts_utils.paths import is_folder
from darts_utils.store import remove_leftovers, replacing
from darts_utils.threads import on_all_cores

_WRITE_ERRORS = (OSError, RasterioError, CPLE_BaseError, DataSourceError, DataLayerError, sqlite3.Error)
"""What comes of a full disk, by what was being written."""


def export_tile(
    tile: xr.Dataset,
    out_dir: Path | str,
    bands: Sequence[str] = DEFAULT_BANDS,
    ensemble_subsets: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    debug: bool = False,
    *,
    thresholds: Sequence[float] = (),
) -> Path:
    """Write the products `bands` of a tile into the folder `out_dir` and return it.

    The folder appears whole or not at all; one that is there already is replaced with all files in it. The tile is not
    changed, and the same tile gives the same bytes.

    Args:
        tile: as `prepare_export` returns it, with a geobox.
        out_dir: the tile's folder, of its own; it has one writer at a time.
        bands: export bands (see `PRODUCTS`) or names of variables.
        ensemble_subsets: models whose own layers are written too.
        metadata: what the files' `DARTS_*` tags say besides the tile's ids, such as models and parameters. What
            changes from run to run does not belong here.
        debug: also write the whole tile as NetCDF.
        thresholds: further thresholds of `prepare_export`, whose objects are written too.

    Raises:
        ConfigError: an export band is unknown, or the tile has no geobox; before anything is written.
        MissingBandError: the tile lacks what an export band needs; before anything is written.
        StoreError: a file cannot be written, or the folder holds more than a tile's files; it is as it was.
    """
    folder = Path(out_dir)
    _check_folder(folder)
    tokens, models = check_names("bands", bands), check_names("ensemble_subsets", ensemble_subsets)
    further = check_thresholds(thresholds, models)
    _check_tile(tile, tokens, models, further)
    tile = _plain(tile)
    tags = darts_tags(tile, metadata, folder.name)
    files = expected_files(tokens, models, debug=debug, thresholds=further)
    remove_leftovers(folder)
    with replacing(folder) as temporary:
        temporary.mkdir()
        export = Export(tile, temporary, models, tags, identity(tile, folder.name), further)
        try:
            _write(export, tokens, debug)
        except _WRITE_ERRORS as error:
            raise StoreError(f"cannot write {folder}: {_reason(error)}. Is the disk full?") from error
        # GDAL can fail without a word when a disk is full: nothing gets its name before it was read.
        damaged = [file for file in files if not is_complete(temporary / file)]
        if damaged:
            raise StoreError(f"cannot write {folder}: {', '.join(damaged)} came out damaged. Is the disk full?")
    return folder


def missing_outputs(
    out_dir: Path | str,
    bands: Sequence[str] = DEFAULT_BANDS,
    ensemble_subsets: Sequence[str] = (),
    *,
    debug: bool = False,
    thresholds: Sequence[float] = (),
) -> Literal["all", "some", "none"]:
    """Return how many of the files that `export_tile` would write are missing; damaged ones count as missing."""
    folder = Path(out_dir)
    files = expected_files(bands, ensemble_subsets, debug=debug, thresholds=thresholds)
    if not folder.is_dir():
        return "all"
    missing = sum(not is_complete(folder / file) for file in files)
    if missing == 0:
        return "none"
    return "all" if missing == len(files) else "some"


def _reason(error: Exception) -> BaseException:
    """Return what went wrong; a writer's own words on it name a temporary file, which the user does not know."""
    return (isinstance(error, StoreError) and error.__cause__) or error


def _check_folder(folder: Path) -> None:
    """Check that nothing goes with a folder of this name but the files of a tile."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"cannot write the tile's folder {folder}: a file has this name. Move it, or choose another.")
    try:
        what = "holds the folder you work in" if Path.cwd().is_relative_to(folder.resolve()) else ""
    except FileNotFoundError:  # that folder was removed
        what = ""
    if not what and folder.is_dir():
        inner = min(
            (entry.name for entry in os.scandir(folder) if is_folder(entry) and entry.name[0] != "."), default=""
        )
        what = f"holds the folder {inner}" if inner else ""
    if what:
        raise StoreError(
            f"cannot replace {folder} by a tile's files: it {what}. Choose a folder for this tile alone, which need "
            "not be there yet."
        )


def _plain(tile: xr.Dataset) -> xr.Dataset:
    """Return the tile with its bands as files and compiled loops take them.

    That is in memory (not lazy), rows before columns, in the machine's byte order, and not in half precision.
    """
    dims = tile.odc.spatial_dims
    changed = {}
    for name, band in tile.data_vars.items():
        plain = band if band.chunks is None else band.compute()
        if set(band.dims) == set(dims) and band.dims != dims:
            plain = plain.transpose(*dims)
        if band.dtype == np.float16 or not band.dtype.isnative:
            plain = plain.astype("float32" if band.dtype == np.float16 else band.dtype.newbyteorder("="))
        if plain is not band:
            changed[name] = plain
    return tile.assign(changed)


def _check_tile(tile: xr.Dataset, tokens: Sequence[str], models: Sequence[str], thresholds: Sequence[float]) -> None:
    tile_geobox(tile)
    variables = [str(name) for name in tile.data_vars]
    unknown = [name for name in tokens if name not in PRODUCTS and name not in variables]
    if unknown:
        raise ConfigError(
            f"cannot export {', '.join(map(repr, unknown))}; possible are {', '.join(PRODUCTS)} "
            f"and the variables of this tile: {', '.join(variables)}"
        )
    needed = [name for name in tokens if name not in PRODUCTS]
    for product in (PRODUCTS[token] for token in tokens if token in PRODUCTS):
        purpose = f"export band {product.token!r}"
        needs = product.filled(product.needs, models, thresholds)
        require_bands(tile, *needs, purpose=purpose)
        needed += needs
        if product.any_of and not any(set(group) <= set(variables) for group in product.any_of):
            possible = ", ".join(" with ".join(group) for group in product.any_of)
            raise MissingBandError(f"{purpose} needs at least one of {possible}; the tile has {', '.join(variables)}")
    dims = tile.odc.spatial_dims
    for name in needed:
        if set(tile[name].dims) != set(dims):
            raise ConfigError(f"variable {name!r} cannot be exported: its dimensions are {tile[name].dims}, not {dims}")


def _write(export: Export, tokens: Sequence[str], debug: bool) -> None:
    # In the table's order: those that describe the others list what was written before them.
    products = [product for token, product in PRODUCTS.items() if token in tokens]
    files = {file for product in products for file in product.filled(product.files, export.models, export.thresholds)}
    # A variable such as probabilities-<model> may be part of a product.
    variables = [name for name in tokens if name not in PRODUCTS and f"{name}.tif" not in files]
    jobs: list[Callable[[], object]] = [
        *(partial(product.write, export) for product in products if not product.reads_files),
        *(partial(export.raster, f"{name}.tif", name) for name in variables),
        *([partial(write_debug, export.folder / DEBUG_FILE, export.tile)] if debug else []),
    ]
    on_all_cores(lambda job: job(), jobs)
    for product in products:
        if product.reads_files:
            product.write(export)
