"""The product table: which files an export band gives. Writing, the completeness check and the docs all read it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import geopandas as gpd
import numpy as np
import xarray as xr

from darts_export import preview, vectors
from darts_export.metadata import as_text, write_metadata
from darts_export.rasters import tile_geobox, write_raster
from darts_utils.arrays import to_host
from darts_utils.bands import BANDS, band
from darts_utils.errors import ConfigError, MissingBandError

DEFAULT_BANDS = ("probabilities", "binarized", "polygonized", "extent", "thumbnail")

DEBUG_FILE = "darts_inference_debug.nc"

ENSEMBLE = "ensemble"
"""`model` of the objects found on the mean of all models."""

_OPTICAL = ("red", "green", "blue", "nir")
_TERRAIN = ("slope", "relative_elevation", "dem", "aspect", "hillshade", "curvature")
_TRENDS = ("tc_brightness", "tc_greenness", "tc_wetness")


@dataclass(frozen=True)
class Export:
    """One tile on its way to files, and what several products share."""

    tile: xr.Dataset
    folder: Path
    models: tuple[str, ...]
    tags: Mapping[str, Any]
    ids: Mapping[str, Any]

    @cached_property
    def segments(self) -> gpd.GeoDataFrame:
        """Objects of the mean of all models."""
        return self.objects_of("")

    def objects_of(self, model: str) -> gpd.GeoDataFrame:
        """Objects of a model (empty: of the mean), with statistics of its own probabilities."""
        suffix = f"-{model}" if model else ""
        found = to_host(self.tile[f"binarized_segmentation{suffix}"].data).astype(bool)
        probabilities = to_host(self.tile[f"probabilities{suffix}"].data)
        return vectors.segments(self.tile, found, probabilities, model or ENSEMBLE, self.ids)

    def cut_objects_of(self, model: str) -> gpd.GeoDataFrame:
        """Objects that postprocessing removed because they reach outside the extent."""
        name = f"cut_probabilities-{model}" if model else "cut_probabilities"
        if name in self.tile:
            probabilities = to_host(self.tile[name].data)
        else:
            probabilities = np.full(tile_geobox(self.tile).shape, np.float32(np.nan))
        return vectors.segments(self.tile, np.isfinite(probabilities), probabilities, model or ENSEMBLE, self.ids)

    def raster(self, file: str, *names: str) -> None:
        """Write one raster of the bands `names`."""
        write_raster(self.folder / file, self.tile, names, as_text(self.tags))


@dataclass(frozen=True, kw_only=True)
class Product:
    """One row of the product table."""

    token: str
    contents: str
    files: tuple[str, ...]
    """Names; `{model}` stands for "" and, where `per_model`, for "-<model>" of each ensemble subset."""
    write: Callable[[Export], None]
    needs: tuple[str, ...] = ()
    """Variables of the tile; `{model}` as in `files`."""
    any_of: tuple[tuple[str, ...], ...] = ()
    """Groups of variables of which the tile must have at least one, whole."""
    per_model: bool = False

    def filled(self, names: tuple[str, ...], models: Sequence[str]) -> list[str]:
        """Return names with the models put in."""
        suffixes = ["", *(f"-{model}" for model in models if self.per_model)]
        return [name.replace("{model}", suffix) for suffix in suffixes for name in names]


def expected_files(
    bands: Sequence[str] = DEFAULT_BANDS, ensemble_subsets: Sequence[str] = (), *, debug: bool = False
) -> tuple[str, ...]:
    """Return the names of the files that an export of `bands` writes."""
    tokens, models = check_names("bands", bands), check_names("ensemble_subsets", ensemble_subsets)
    files: list[str] = []
    for token in tokens:
        product = PRODUCTS.get(token)
        files += product.filled(product.files, models) if product else [f"{token}.tif"]
    return tuple(dict.fromkeys([*files, *([DEBUG_FILE] if debug else [])]))


def validate_export_bands(bands: Sequence[str]) -> None:
    """Check, before any tile is there, that all names are export bands or in the band table.

    Raises:
        ConfigError: lists what is possible.
    """
    unknown = [name for name in check_names("export_bands", bands) if name not in PRODUCTS and not _in_band_table(name)]
    if unknown:
        raise ConfigError(
            f"unknown export band {', '.join(map(repr, unknown))}; possible are {', '.join(PRODUCTS)} "
            f"and the names of variables: {', '.join(BANDS)}"
        )


def check_names(parameter: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return names without duplicates.

    Raises:
        ConfigError: they are no list of names, or cannot be part of file names.
    """
    if isinstance(names, str):
        raise ConfigError(f"{parameter} is a list of names; got the text {names!r}")
    if parameter != "ensemble_subsets" and not names:
        raise ConfigError(f"{parameter} is empty: nothing would be written. Possible are {', '.join(PRODUCTS)}.")
    bad = [name for name in names if not isinstance(name, str) or not name or "/" in name or "\\" in name]
    if bad:
        raise ConfigError(f"{parameter} are names that become part of file names; got {bad[0]!r}")
    return tuple(dict.fromkeys(names))


def _in_band_table(name: str) -> bool:
    try:
        band(name)
    except MissingBandError:
        return False
    return True


def _write_probabilities(export: Export) -> None:
    for suffix in _suffixes(export):
        export.raster(f"probabilities{suffix}.tif", f"probabilities{suffix}")


def _write_binarized(export: Export) -> None:
    for suffix in _suffixes(export):
        export.raster(f"binarized{suffix}.tif", f"binarized_segmentation{suffix}")


def _write_polygonized(export: Export) -> None:
    for model in ("", *export.models):
        found = export.objects_of(model) if model else export.segments
        suffix = f"-{model}" if model else ""
        vectors.write_parquet(export.folder / f"prediction_segments{suffix}.parquet", found)
        vectors.write_geopackage(export.folder / f"prediction_segments{suffix}.gpkg", found)
        cut = export.cut_objects_of(model)
        vectors.write_parquet(export.folder / f"prediction_cut_segments{suffix}.parquet", cut)


def _write_extent(export: Export) -> None:
    polygons = vectors.extent(export.tile, export.ids)
    vectors.write_parquet(export.folder / "prediction_extent.parquet", polygons)
    vectors.write_geopackage(export.folder / "prediction_extent.gpkg", polygons)


def _write_thumbnail(export: Export) -> None:
    found = {"binarized_segmentation", "probabilities"} <= set(export.tile.data_vars)
    preview.write_thumbnail(export.folder / "thumbnail.jpg", export.tile, export.segments if found else None)


def _suffixes(export: Export) -> list[str]:
    return ["", *(f"-{model}" for model in export.models)]


_ROWS = (
    Product(
        token="probabilities",
        contents="probability in percent, nodata 255 outside the extent",
        files=("probabilities{model}.tif",),
        needs=("probabilities{model}",),
        per_model=True,
        write=_write_probabilities,
    ),
    Product(
        token="binarized",
        contents="1 on objects, else 0 (outside the extent too)",
        files=("binarized{model}.tif",),
        needs=("binarized_segmentation{model}",),
        per_model=True,
        write=_write_binarized,
    ),
    Product(
        token="polygonized",
        contents="a polygon an object with its statistics; apart, those that were cut by the extent",
        files=(
            "prediction_segments{model}.parquet",
            "prediction_segments{model}.gpkg",
            "prediction_cut_segments{model}.parquet",
        ),
        needs=("binarized_segmentation{model}", "probabilities{model}"),
        per_model=True,
        write=_write_polygonized,
    ),
    Product(
        token="extent",
        contents="what was seen, and what was seen clear (quality 2, neither cloud nor cirrus)",
        files=("prediction_extent.parquet", "prediction_extent.gpkg"),
        needs=("extent", "quality_data_mask"),
        write=_write_extent,
    ),
    Product(
        token="thumbnail",
        contents="picture in natural colours with the objects outlined by probability",
        files=("thumbnail.jpg",),
        any_of=(_OPTICAL[:3], ("probabilities",)),
        write=_write_thumbnail,
    ),
    Product(
        token="optical",
        contents="red, green, blue, near infrared reflectance",
        files=("optical.tif",),
        needs=_OPTICAL,
        write=lambda export: export.raster("optical.tif", *_OPTICAL),
    ),
    Product(
        token="dem",
        contents="those of slope, relative elevation, elevation, aspect, hillshade, curvature that the tile has",
        files=("dem.tif",),
        any_of=tuple((name,) for name in _TERRAIN),
        write=lambda export: export.raster("dem.tif", *(name for name in _TERRAIN if name in export.tile)),
    ),
    Product(
        token="tcvis",
        contents="Landsat trends of brightness, greenness, wetness",
        files=("tcvis.tif",),
        needs=_TRENDS,
        write=lambda export: export.raster("tcvis.tif", *_TRENDS),
    ),
    Product(
        token="metadata",
        contents="ids, models, parameters and software version as JSON, as in the tags of the rasters",
        files=("darts_inference.json",),
        write=lambda export: write_metadata(export.folder / "darts_inference.json", export.tags),
    ),
)

PRODUCTS: Mapping[str, Product] = MappingProxyType({row.token: row for row in _ROWS})
"""The product table by export band, read-only."""
