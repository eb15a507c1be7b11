"""How well detections match the planted slumps: by object, one to one, and by pixel."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import geopandas as gpd
import numpy as np
import rasterio
from rasterio import features
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from darts.demo.types import Labels, Mask
from darts_utils.errors import GridMismatchError, MissingDataError

MIN_IOU = 0.3
"""A detection is a slump's when their intersection is at least this share of their union."""
CLOUD_CLASSES = (8, 9)
"""Scene classes under which the ground cannot be seen."""


@dataclass(frozen=True)
class Score:
    """Counts of hits and errors, of objects or of pixels; scores of several scenes add up."""

    found: int = 0
    """Of what is there, how much was found (true positives)."""
    missed: int = 0
    """Of what is there, how much was not (false negatives)."""
    false: int = 0
    """Found where nothing is (false positives)."""
    ignored: int = 0
    """Planted slumps that do not count."""

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.found + other.found, self.missed + other.missed, self.false + other.false, self.ignored + other.ignored
        )

    @property
    def planted(self) -> int:
        """What there is to find."""
        return self.found + self.missed

    @property
    def precision(self) -> float:
        """Share of what was found that is right; 1 where nothing was found."""
        return self.found / (self.found + self.false) if self.found + self.false else 1.0

    @property
    def recall(self) -> float:
        """Share of what is there that was found; 1 where nothing is there."""
        return self.found / self.planted if self.planted else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = 2 * self.found + self.missed + self.false
        return 2 * self.found / total if total else 1.0


@dataclass(frozen=True)
class DemoScore:
    """Scores of one run of the demo."""

    objects: Score
    pixels: Score
    rule: Score
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
    min_object_size: int = 32, min_iou: float = MIN_IOU,
) -> Score:  # fmt: skip
    """Return how many planted slumps were found, matched one to one at an IoU of at least `min_iou`.

    Args:
        predicted: detections, as a mask (labelled here, 8-connected) or labelled.
        truth: number of the slump at each pixel, 0 elsewhere.
        extent: where a detection could be made.
        cloud: where the ground cannot be seen.
        edge: where the scene's edge cuts objects off (`edge_zone`).
        min_object_size: smaller slumps do not count.
        min_iou: see above.

    A slump does not count, neither as found nor as missed, when more than half of it is outside `extent` or under
    `cloud`, when it touches `edge`, or when it is smaller than `min_object_size`; a detection that matches such a
    slump, or has more than half of its pixels on such slumps, is no error.

    Raises:
        GridMismatchError: the arrays differ in shape.
    """
    _check_shapes(predicted, truth, extent)
    if predicted.dtype == bool:
        predicted = np.asarray(cv2.connectedComponents(predicted.astype("uint8"), connectivity=8)[1], "int32")
    ignored = _ignored(truth, extent, cloud, edge, min_object_size)
    sizes = np.bincount(predicted.ravel())
    truth_sizes = np.bincount(truth.ravel(), minlength=ignored.size)
    both = (predicted > 0) & (truth > 0)
    pairs, shared = np.unique(np.stack([predicted[both], truth[both]]), axis=1, return_counts=True)
    iou = shared / (sizes[pairs[0]] + truth_sizes[pairs[1]] - shared)
    match = iou >= min_iou
    candidates, rows = np.unique(pairs[0][match], return_inverse=True)
    # Slumps that count choose first, so a match with one that does not is worth less.
    table = np.zeros((candidates.size, ignored.size))
    table[rows, pairs[1][match]] = iou[match] + np.where(ignored[pairs[1][match]], 0, 10)
    rows, columns = linear_sum_assignment(table, maximize=True)
    chosen = table[rows, columns] > 0
    rows, columns = candidates[rows[chosen]], columns[chosen]
    on_ignored = np.bincount(pairs[0], weights=shared * ignored[pairs[1]], minlength=sizes.size) * 2 > sizes
    excused = np.zeros(sizes.size, bool)
    excused[rows] = True
    excused |= on_ignored
    excused[0] = True
    found = int((~ignored[columns]).sum())
    counted = int((~ignored[1:] & (truth_sizes[1:] > 0)).sum())
    return Score(
        found=found,
        missed=counted - found,
        false=int(((sizes > 0) & ~excused).sum()),
        ignored=int((ignored[1:] & (truth_sizes[1:] > 0)).sum()),
    )


def score_pixels(
    predicted: Labels | Mask, truth: Labels, extent: Mask, *, cloud: Mask | None = None, edge: Mask | None = None,
    min_object_size: int = 32,
) -> Score:  # fmt: skip
    """Return hits and errors by pixel within `extent`, outside `cloud` and outside slumps that do not count.

    Raises:
        GridMismatchError: the arrays differ in shape.
    """
    _check_shapes(predicted, truth, extent)
    ignored = _ignored(truth, extent, cloud, edge, min_object_size)
    seen = extent & ~ignored[truth]
    if cloud is not None:
        seen &= ~cloud
    hit, there = (predicted > 0) & seen, (truth > 0) & seen
    found = int((hit & there).sum())
    return Score(found=found, missed=int(there.sum()) - found, false=int(hit.sum()) - found)


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


def _ignored(truth: Labels, extent: Mask, cloud: Mask | None, edge: Mask | None, min_object_size: int) -> Mask:
    """Whether each number of `truth` does not count; 0 (background) does."""
    sizes = np.bincount(truth.ravel())
    hidden = ~extent if cloud is None else ~extent | cloud
    ignored = np.bincount(truth.ravel(), weights=hidden.ravel()) * 2 > sizes
    ignored |= sizes < min_object_size
    if edge is not None:
        ignored |= np.bincount(truth.ravel(), weights=edge.ravel()) > 0
    ignored[0] = False
    return np.asarray(ignored)


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
