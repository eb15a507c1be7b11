"""How well detections match the planted slumps: by object, one to one, and by pixel."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import rasterio
from rasterio import features
from scipy import ndimage

from darts.demo.types import Labels, Mask
from darts_utils.errors import GridMismatchError, MissingDataError

if TYPE_CHECKING:
    from darts_segmentation.training.scores import Hits, ObjectCounts

MIN_IOU = 0.3
"""A detection is a slump's when their intersection is at least this share of their union."""
MIN_OBJECT_SIZE = 32
"""Smaller slumps do not count; in pixels, the smallest object that a run keeps by default."""
CLOUD_CLASSES = (8, 9)
"""Scene classes under which the ground cannot be seen."""


@dataclass(frozen=True)
class DemoScore:
    """Scores of one run of the demo."""

    objects: "ObjectCounts"
    pixels: "Hits"
    rule: "ObjectCounts"
    """By object, of the plain rule on NDVI and slope."""


def score_demo(results: Path, truth: Path) -> DemoScore:
    """Return the scores of a demo run: `results` is the tile's output folder, `truth` the demo's `truth.gpkg`.

    The plain rule is applied to the same scene, read from the folder that `truth` lies in.

    Raises:
        MissingDataError: the run left no `binarized.tif`, or the demo's data are gone.
    """
    from darts.demo.rule import RULE, apply_rule
    from darts.demo.write import load_demo_tile

    results, truth = Path(results), Path(truth)
    raster = results / "binarized.tif"
    if not raster.is_file():
        raise MissingDataError(f"{raster} is missing; the demo needs the export bands 'binarized' and 'extent'")
    with rasterio.open(raster) as file:
        predicted = file.read(1) == 1
        transform, crs = file.transform, file.crs
    extent = _read_extent(results / "prediction_extent.parquet", predicted.shape, transform)
    planted = rasterize_truth(gpd.read_file(truth).to_crs(crs), predicted.shape, transform)
    tile = load_demo_tile(truth.parent, features=("ndvi", "slope"))
    scl = tile["s2_scl"].to_numpy()
    cloud, edge = np.isin(scl, CLOUD_CLASSES), edge_zone(scl != 0)
    by_rule = apply_rule(tile["ndvi"].to_numpy(), tile["slope"].to_numpy(), scl, extent, RULE)
    return DemoScore(
        objects=score_objects(predicted, planted, extent, cloud=cloud, edge=edge),
        pixels=score_pixels(predicted, planted, extent, cloud=cloud, edge=edge),
        rule=score_objects(by_rule, planted, extent, cloud=cloud, edge=edge),
    )


def score_objects(
    predicted: Labels | Mask, truth: Labels, extent: Mask, *, cloud: Mask | None = None, edge: Mask | None = None,
    min_object_size: int = MIN_OBJECT_SIZE, min_iou: float = MIN_IOU,
) -> "ObjectCounts":  # fmt: skip
    """Return how many planted slumps were found, matched one to one at an IoU of at least `min_iou`.

    Args:
        predicted: detections, as a mask (labelled here, 8-connected) or labelled.
        truth: number of the slump at each pixel, 0 elsewhere.
        extent: where a detection could be made.
        cloud: where the ground cannot be seen.
        edge: where the scene's edge cuts objects off (`edge_zone`).
        min_object_size: smaller slumps and detections do not count.
        min_iou: see above.

    A slump that touches `edge` does not count. What is outside `extent` or under `cloud` is ignored, with the rules of
    `darts_segmentation.training.scores.overlap_objects`.

    Raises:
        GridMismatchError: the arrays differ in shape.
    """
    # A landscape is drawn without torch, which comes with this.
    from darts_segmentation.training.scores import overlap_objects

    _check_shapes(predicted, truth, extent)
    unseen = _unseen(truth, extent, cloud, edge)
    return overlap_objects(predicted, truth, ignore=unseen, min_object_size=min_object_size).counts(min_iou)


def score_pixels(
    predicted: Labels | Mask, truth: Labels, extent: Mask, *, cloud: Mask | None = None, edge: Mask | None = None,
    min_object_size: int = MIN_OBJECT_SIZE,
) -> "Hits":  # fmt: skip
    """Return hits and errors by pixel, but for what is ignored in `score_objects`, and slumps that do not count there.

    Raises:
        GridMismatchError: the arrays differ in shape.
    """
    from darts_segmentation.training.scores import Hits

    _check_shapes(predicted, truth, extent)
    unseen = _unseen(truth, extent, cloud, edge)
    sizes = np.bincount(truth.ravel())
    hidden = np.bincount(truth.ravel(), weights=unseen.ravel()) * 2 > sizes
    ignored = hidden | (sizes < min_object_size)
    ignored[0] = False
    seen = ~unseen & ~ignored[truth]
    found, there = (predicted > 0) & seen, (truth > 0) & seen
    tp = int((found & there).sum())
    return Hits(tp=tp, fp=int(found.sum()) - tp, fn=int(there.sum()) - tp)


def edge_zone(data: Mask, reach_px: int = 10) -> Mask:
    """Return where the edge of the scene cuts objects off: within `reach_px` of the frame and of missing data."""
    framed = np.pad(data, 1)
    distance = ndimage.distance_transform_edt(framed)[1:-1, 1:-1]
    zone: Mask = distance <= reach_px
    return zone


def rasterize_truth(outlines: gpd.GeoDataFrame, shape: tuple[int, int], transform: rasterio.Affine) -> Labels:
    """Return the number of the target slump at each pixel (int32) from `truth.gpkg`; stabilised ones are no targets."""
    targets = outlines[outlines["kind"] == "slump"]
    if targets.empty:
        return np.zeros(shape, "int32")
    labels: Labels = features.rasterize(
        zip(targets.geometry, targets["id"], strict=True), shape, transform=transform, dtype="int32"
    )
    return labels


def _unseen(truth: Labels, extent: Mask, cloud: Mask | None, edge: Mask | None) -> Mask:
    """Return where nothing could be seen, with the slumps that the edge cuts."""
    unseen = ~extent if cloud is None else ~extent | cloud
    if edge is not None:
        cut = np.bincount(truth.ravel(), weights=edge.ravel()) > 0
        cut[0] = False
        unseen = unseen | cut[truth]
    return unseen


def _read_extent(file: Path, shape: tuple[int, int], transform: rasterio.Affine) -> Mask:
    if not file.is_file():
        raise MissingDataError(f"{file} is missing; the demo needs the export bands 'binarized' and 'extent'")
    rows = gpd.read_parquet(file)
    seen = rows[rows["kind"] == "seen"].geometry if "kind" in rows else rows.geometry
    seen = seen[~(seen.is_empty | seen.isna())]
    if seen.empty:
        return np.zeros(shape, bool)
    inside: Mask = features.rasterize(seen, shape, transform=transform, dtype="uint8") == 1
    return inside


def _check_shapes(*arrays: Labels | Mask) -> None:
    if len({array.shape for array in arrays}) != 1:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise GridMismatchError(f"predicted, truth and extent must lie on one grid, got shapes {shapes}")
