"""Tiles to files: rasters, polygons, thumbnails, metadata."""

from darts_export.products import DEFAULT_BANDS, PRODUCTS, Product, expected_files, validate_export_bands
from darts_export.tiles import export_tile, missing_outputs

__all__ = [
    "DEFAULT_BANDS",
    "PRODUCTS",
    "Product",
    "expected_files",
    "export_tile",
    "missing_outputs",
    "validate_export_bands",
]
