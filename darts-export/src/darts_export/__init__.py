"""Tiles to files: rasters, polygons, thumbnails, metadata."""
