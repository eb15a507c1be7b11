"""The product table: which files an export band gives. Writing, the completeness check and the docs all read it."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from darts_export import preview, vectors
from darts_export.export import Export
from darts_export.metadata import write_metadata
from darts_export.styles import extent_style, probability_style
from darts_export.vector_files import write_geopackage, write_parquet
from darts_utils.bands import BANDS, band
from darts_utils.errors import ConfigError, MissingBandError
from darts_utils.layers import check_model_names, object_suffix, object_suffixes, threshold_suffix
from darts_utils.quoting import shown

DEFAULT_BANDS = ("probabilities", "binarized", "polygonized", "extent", "thumbnail")
"""What is written unless something else is asked for."""

DEBUG_FILE = "darts_inference_debug.nc"

_OPTICAL = ("red", "green", "blue", "nir")
_TERRAIN = ("slope", "relative_elevation", "dem", "aspect", "hillshade", "curvature")
_TRENDS = ("tc_brightness", "tc_greenness", "tc_wetness")


@dataclass(frozen=True, kw_only=True)
class Product:
    """One row of the product table."""

    token: str
    contents: str
    files: tuple[str, ...]
    """Names; `{model}` stands for "" and, where `per_model`, for "-<model>" of each ensemble subset; where
    `per_threshold`, also for each of these with "-t40" after it."""
    write: Callable[[Export], None]
    needs: tuple[str, ...] = ()
    """Variables of the tile; `{model}` as in `files`, `{probability}` without thresholds."""
    any_of: tuple[tuple[str, ...], ...] = ()
    """Groups of variables of which the tile must have at least one, whole."""
    per_model: bool = False
    per_threshold: bool = False
    reads_files: bool = False
    """Whether it describes the files of the others, and so comes after them."""

    @property
    def variables(self) -> tuple[str, ...]:
        """All variables that it can use, as in `needs`."""
        return (*self.needs, *(name for group in self.any_of for name in group))

    def filled(self, names: tuple[str, ...], models: Sequence[str], thresholds: Sequence[float] = ()) -> list[str]:
        """Return names with the models and thresholds put in."""
        models = models if self.per_model else ()
        found = []
        for name in names:
            further = thresholds if self.per_threshold and "{probability}" not in name else ()
            suffixes = object_suffixes(models, further)
            found += [name.replace("{model}", suffix).replace("{probability}", suffix) for suffix in suffixes]
        return found


def expected_files(
    bands: Sequence[str] = DEFAULT_BANDS,
    ensemble_subsets: Sequence[str] = (),
    *,
    debug: bool = False,
    thresholds: Sequence[float] = (),
) -> tuple[str, ...]:
    """Return the names of the files that an export of `bands` writes."""
    tokens, models = check_names("bands", bands), check_names("ensemble_subsets", ensemble_subsets)
    further = check_thresholds(thresholds, models)
    files: list[str] = []
    for token in tokens:
        product = PRODUCTS.get(token)
        files += product.filled(product.files, models, further) if product else [f"{token}.tif"]
    return tuple(dict.fromkeys([*files, *([DEBUG_FILE] if debug else [])]))


def validate_export_bands(bands: Sequence[str]) -> None:
    """Check, before any tile is there, that all names are export bands or in the band table.

    Raises:
        ConfigError: names the first that is not, and what is possible.
    """
    unknown = [name for name in check_names("export_bands", bands) if name not in PRODUCTS and not _in_band_table(name)]
    if unknown:
        near = difflib.get_close_matches(unknown[0], [*PRODUCTS, *BANDS], n=1)
        raise ConfigError(
            f"export_bands: unknown {shown(unknown[0])}{f', did you mean {near[0]!r}?' if near else ''}; possible are "
            f"{', '.join(PRODUCTS)} and bands such as ndvi or slope"
        )


def check_names(parameter: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return names without duplicates.

    Raises:
        ConfigError: they are no list of names, or cannot be part of file names.
    """
    if isinstance(names, str):
        raise ConfigError(f"{parameter} is a list of names; got the text {shown(names)}")
    if parameter != "ensemble_subsets" and not names:
        raise ConfigError(f"{parameter} is empty: nothing would be written. Possible are {', '.join(PRODUCTS)}.")
    bad = [name for name in names if not isinstance(name, str) or not name or "/" in name or "\\" in name]
    if bad:
        raise ConfigError(f"{parameter} are names that become part of file names; got {shown(bad[0])}")
    return tuple(dict.fromkeys(names))


def check_thresholds(thresholds: Sequence[float], models: Sequence[str]) -> tuple[float, ...]:
    """Return further thresholds without duplicates.

    Raises:
        ConfigError: one is no whole number of percent, or a model's name could be taken for one.
    """
    if isinstance(thresholds, str | float | int):
        raise ConfigError(f"thresholds is a list of probabilities; got {shown(thresholds)}")
    if thresholds:
        check_model_names(models)
    return tuple({threshold_suffix(threshold): float(threshold) for threshold in thresholds}.values())


def _in_band_table(name: str) -> bool:
    try:
        band(name)
    except MissingBandError:
        return False
    return True


def _write_probabilities(export: Export) -> None:
    for suffix in object_suffixes(export.models):
        export.raster(f"probabilities{suffix}.tif", f"probabilities{suffix}")


def _write_binarized(export: Export) -> None:
    for suffix in object_suffixes(export.models, export.thresholds):
        export.raster(f"binarized{suffix}.tif", f"binarized_segmentation{suffix}")


def _write_polygonized(export: Export) -> None:
    for threshold in (None, *export.thresholds):
        for model in ("", *export.models):
            suffix = object_suffix(model, threshold)
            found = export.objects_of(model, threshold)
            write_parquet(export.folder / f"prediction_segments{suffix}.parquet", found, export.tags)
            write_geopackage(export.folder / f"prediction_segments{suffix}.gpkg", found, probability_style("mean"))
            cut = export.cut_objects_of(model, threshold)
            write_parquet(export.folder / f"prediction_cut_segments{suffix}.parquet", cut, export.tags)


def _write_extent(export: Export) -> None:
    polygons = vectors.extent(export.tile, export.ids)
    write_parquet(export.folder / "prediction_extent.parquet", polygons, export.tags)
    write_geopackage(export.folder / "prediction_extent.gpkg", polygons, extent_style())


def _write_thumbnail(export: Export) -> None:
    found = {"binarized_segmentation", "probabilities"} <= set(export.tile.data_vars)
    preview.write_thumbnail(export.folder / "thumbnail.jpg", export.tile, export.segments if found else None)


def _write_report(export: Export) -> None:
    from darts_export.report import write_report

    write_report(export.folder / "preview.html", export)


def _write_item(export: Export) -> None:
    from darts_export.stac import write_item

    write_item(export.folder / "item.json", export)


_ROWS = (
    Product(
        token="probabilities",
        contents="probability in percent, nodata 255 outside the extent",
        files=("probabilities{model}.tif",),
        needs=("probabilities{probability}",),
        per_model=True,
        write=_write_probabilities,
    ),
    Product(
        token="binarized",
        contents="1 on objects, else 0 (outside the extent too)",
        files=("binarized{model}.tif",),
        needs=("binarized_segmentation{model}",),
        per_model=True,
        per_threshold=True,
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
        needs=("binarized_segmentation{model}", "probabilities{probability}"),
        per_model=True,
        per_threshold=True,
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
    Product(
        token="report",
        contents="a page that needs no network: picture, layers, polygons with their attributes, metadata",
        files=("preview.html",),
        any_of=(_OPTICAL[:3], ("probabilities",)),
        write=_write_report,
        reads_files=True,
    ),
    Product(
        token="stac",
        contents="STAC item of the tile: place, time, model, and the files beside it",
        files=("item.json",),
        write=_write_item,
        reads_files=True,
    ),
)

PRODUCTS: Mapping[str, Product] = MappingProxyType({row.token: row for row in _ROWS})
"""The product table by export band, read-only."""
