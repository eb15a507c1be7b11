"""The default files of a tile with the obvious calls of rasterio, SciPy, geopandas and Pillow.

Meant to be plain and fair, not right everywhere. Known to differ from SPEC 8:

- Rasters are striped GeoTIFFs with LZW compression, without overviews.
- Regions that touch themselves at a corner become invalid polygons.
- Of the surroundings of an object nothing is told, nor the spread between models.
- Polygons carry no style, and their GeoPackages the time of writing.
"""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import rasterio.features
import shapely
import xarray as xr
from PIL import Image, ImageDraw
from pyproj import Geod
from scipy import ndimage

CLOUDS = (8, 9, 10)
PICTURE_PX = 1024
STATISTICS = ("min", "max", "mean", "median", "std", "npixel")


def write_probabilities(tile: xr.Dataset, folder: Path) -> None:
    """Write percent, 255 where there is none."""
    percent = np.rint(tile.probabilities.values * 100)
    write_tiff(folder / "probabilities.tif", tile, np.where(np.isnan(percent), 255, percent).astype("uint8"), 255)


def write_binarized(tile: xr.Dataset, folder: Path) -> None:
    """Write 1 on objects, else 0."""
    write_tiff(folder / "binarized.tif", tile, tile.binarized_segmentation.values.astype("uint8"), None)


def write_tiff(path: Path, tile: xr.Dataset, values: np.ndarray, nodata: int | None) -> None:
    """Write one band."""
    geobox = tile.odc.geobox
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1, dtype="uint8",
        crs=str(geobox.crs), transform=geobox.affine, nodata=nodata, compress="LZW",
    ) as target:  # fmt: skip
        target.write(values, 1)


def write_polygons(tile: xr.Dataset, folder: Path) -> None:
    """Write objects and cut objects with their statistics."""
    found = segments(tile, tile.binarized_segmentation.values, tile.probabilities.values)
    found.to_parquet(folder / "prediction_segments.parquet")
    found.to_file(folder / "prediction_segments.gpkg")
    cut = tile.cut_probabilities.values
    segments(tile, np.isfinite(cut), cut).to_parquet(folder / "prediction_cut_segments.parquet")


def segments(tile: xr.Dataset, objects: np.ndarray, probabilities: np.ndarray) -> gpd.GeoDataFrame:
    """Return 8-connected regions as polygons with statistics of their probability."""
    labels, _ = ndimage.label(objects, structure=np.ones((3, 3)))
    rows = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        values = probabilities[window][labels[window] == number]
        rows.append(
            {
                "Region_ID": number, "min": values.min(), "max": values.max(), "mean": values.mean(),
                "median": np.median(values), "std": values.std(), "npixel": len(values),
            }
        )  # fmt: skip
    statistics = pd.DataFrame(rows, columns=["Region_ID", *STATISTICS]).astype({"Region_ID": "int64"})
    frame = polygons(tile, labels, objects).merge(statistics, on="Region_ID")
    geod = Geod(ellps="WGS84")
    measures = [geod.geometry_area_perimeter(outline) for outline in frame.geometry.to_crs("EPSG:4326")]
    return frame.assign(
        area_m2=[abs(area) for area, _ in measures], perimeter_m=[length for _, length in measures],
        tile_id=tile.tile_id, image_id=tile.image_id, sensor=tile.sensor, acquisition_time=tile.acquisition_time,
        model="ensemble",
    )  # fmt: skip


def polygons(tile: xr.Dataset, labels: np.ndarray, mask: np.ndarray) -> gpd.GeoDataFrame:
    """Return the outlines of labelled regions."""
    shapes = rasterio.features.shapes(labels, mask=mask, connectivity=8, transform=tile.odc.geobox.affine)
    outlines = [(shapely.geometry.shape(outline), int(label)) for outline, label in shapes]
    return gpd.GeoDataFrame(
        {"Region_ID": np.array([label for _, label in outlines], "int64")},
        geometry=[outline for outline, _ in outlines],
        crs=str(tile.odc.geobox.crs),
    )


def write_extent(tile: xr.Dataset, folder: Path) -> None:
    """Write what was seen, and what was seen clear."""
    seen = tile.extent.values
    clear = seen & (tile.quality_data_mask.values == 2) & ~np.isin(tile.s2_scl.values, CLOUDS)
    rows = []
    for kind, mask in (("seen", seen), ("clear", clear)):
        parts = polygons(tile, mask.astype("uint8"), mask).geometry
        rows.append({"kind": kind, "geometry": shapely.MultiPolygon(list(parts))})
    frame = gpd.GeoDataFrame(rows, crs=str(tile.odc.geobox.crs))
    geod = Geod(ellps="WGS84")
    frame["area_m2"] = [abs(geod.geometry_area_perimeter(outline)[0]) for outline in frame.geometry.to_crs("EPSG:4326")]
    frame.to_parquet(folder / "prediction_extent.parquet")
    frame.to_file(folder / "prediction_extent.gpkg")


def write_thumbnail(tile: xr.Dataset, folder: Path) -> None:
    """Write the picture with outlines; the objects are found again, as nothing is shared."""
    planes = []
    for name in ("red", "green", "blue"):
        light = np.nan_to_num(np.clip(tile[name].values / 0.2, 0, 1) * 255).astype("uint8")
        planes.append(Image.fromarray(light).resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BOX))
    picture = Image.merge("RGB", planes)
    draw = ImageDraw.Draw(picture)
    mask = tile.binarized_segmentation.values
    scale = np.array([PICTURE_PX / side for side in mask.shape[::-1]])
    for outline, _ in rasterio.features.shapes(mask.astype("uint8"), mask=mask, connectivity=8):
        for ring in outline["coordinates"]:
            draw.line([tuple(point) for point in np.array(ring) * scale], fill=(255, 130, 20), width=2)
    picture.save(folder / "thumbnail.jpg", quality=80)


PRODUCTS = {
    "probabilities": write_probabilities, "binarized": write_binarized, "polygonized": write_polygons,
    "extent": write_extent, "thumbnail": write_thumbnail,
}  # fmt: skip
