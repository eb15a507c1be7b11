"""Small scenes with two bare slumps, labels of these, and the patches of a dataset put together again."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer
from rasterio import Affine

from darts.pipelines.sentinel2 import Sentinel2Pipeline
from darts.training.labels import LabelSet, read_labels
from darts.training.options import CreateOptions, LabelOptions
from darts.training.scenes import SceneSource, sentinel2_scenes
from darts_acquisition import IMPORT, write_scene
from darts_segmentation.training.patch_dataset import PatchDataset

GRID = GeoBox((90, 120), Affine(10, 0, 500_000, 0, -10, 7_700_000), "EPSG:32608")
OPTICAL = ["blue", "green", "red", "nir"]
SIZE = 64
OPTIONS = CreateOptions(bands=[*OPTICAL, "ndvi"], patch_size=SIZE, overlap=16, min_labelled=0.01)
SLUMPS = [((20.2, 15.3), (40.6, 18.4), (35.1, 38.7)), ((70.5, 50.5), (90.4, 52.3), (92.2, 75.8), (68.1, 70.2))]


def to_lonlat(grid: GeoBox, corners: object) -> shapely.Polygon:
    """Return a polygon of columns and rows in degrees, with corners enough to be straight in both."""
    dense = shapely.segmentize(shapely.Polygon(corners), 2)
    transformer = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    return shapely.transform(
        dense, lambda xy: np.column_stack(transformer.transform(*(grid.affine * (xy[:, 0], xy[:, 1]))))
    )


def true_slumps(grid: GeoBox = GRID) -> np.ndarray:
    cols, rows = np.meshgrid(np.arange(grid.shape.x) + 0.5, np.arange(grid.shape.y) + 0.5)
    points = shapely.points(cols, rows)
    return np.any([shapely.contains(shapely.Polygon(corners), points) for corners in SLUMPS], axis=0)


def write_stored(
    store: Path, scene_id: str, time: str = "2021-08-21T21:00:19Z", *, grid: GeoBox = GRID, cloud: float = 0.0,
    slumps: np.ndarray | None = None, nodata_cols: int = 0,
) -> None:  # fmt: skip
    """Write a scene whose slumps are bare, with clouds on its first rows."""
    bare = true_slumps(grid) if slumps is None else slumps
    scl = np.full(grid.shape.yx, 4, "uint8")
    scl[: round(cloud * grid.shape.y)] = 9
    values = {"blue": 600, "green": 700, "red": np.where(bare, 1500, 500), "nir": np.where(bare, 1600, 3000)}
    bands = {name: np.full(grid.shape.yx, value, "uint16") for name, value in values.items()}
    for plane in (*bands.values(), scl):
        plane[:, :nodata_cols] = 0
    data = xr.Dataset({name: (("y", "x"), v) for name, v in {**bands, "scl": scl}.items()}, coords=xr_coords(grid))
    write_scene(store, IMPORT, scene_id, data, datetime=time, scale=1e-4, offset=0.0)


def label_set(
    tmp_path: Path, footprints: dict[str, object], date: str | None = "2021-08-21", shapes: list | None = None
) -> LabelSet:
    """Return the slumps as labels of each footprint (columns and rows; None: the whole scene)."""
    shapes = [to_lonlat(GRID, corners) for corners in SLUMPS] if shapes is None else shapes
    rows = [{"image_id": name, "image_date": date, "label": 1, "region": "here"} for name in footprints for _ in shapes]
    gpd.GeoDataFrame(rows, geometry=shapes * len(footprints), crs="EPSG:4326").to_file(tmp_path / "labels.gpkg")
    areas = {name: corners for name, corners in footprints.items() if corners is not None}
    if not areas:
        return read_labels(LabelOptions(labels=[tmp_path / "labels.gpkg"], whole_scene=True))
    outlines = [to_lonlat(GRID, corners) for corners in areas.values()]
    table = {"image_id": list(areas), "image_date": [date] * len(areas)}
    gpd.GeoDataFrame(table, geometry=outlines, crs="EPSG:4326").to_file(tmp_path / "footprints.gpkg")
    return read_labels(LabelOptions(labels=[tmp_path / "labels.gpkg"], footprints=tmp_path / "footprints.gpkg"))


def imported(store: Path, **options: object) -> SceneSource:
    return sentinel2_scenes(Sentinel2Pipeline(raw_data_source="import", raw_data_store=store, offline=True, **options))


def mosaic(dataset: PatchDataset, sample_id: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return x (band, y, x; NaN where no patch is) and y (9 there) of a sample, put together on the scene's grid."""
    x = np.full((len(dataset.form.bands), *shape), np.nan, "float32")
    y = np.full(shape, 9, "uint8")
    for row in dataset.metadata[dataset.metadata.sample_id == sample_id].itertuples():
        px, py = dataset.read(row.patch)
        window = np.s_[row.row : row.row + py.shape[0], row.col : row.col + py.shape[1]]
        height, width = y[window].shape
        new = py[:height, :width]
        known = y[window] != 9
        np.testing.assert_array_equal(y[window][known], new[known])  # where patches overlap they agree
        x[:, *window] = px[:, :height, :width]
        y[window] = new
    return x, y


BOX = ((4.0, 4.0), (110.0, 4.0), (110.0, 84.0), (4.0, 84.0))


def content(dataset: Path) -> list[tuple[str, int, int, bytes, bytes]]:
    opened = PatchDataset.open(dataset)
    rows = [(row, *opened.read(row.patch)) for row in opened.metadata.itertuples()]
    return sorted((row.sample_id, row.row, row.col, x.tobytes(), y.tobytes()) for row, x, y in rows)
