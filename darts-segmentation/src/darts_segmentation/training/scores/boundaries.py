"""Boundary IoU: how well outlines agree, whatever the size of what they enclose.

Cheng et al. 2021, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
doi:10.1109/CVPR46437.2021.01508
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from darts_segmentation.training.scores.counts import Counts, share
from darts_segmentation.training.scores.pixels import check_shapes
from darts_utils.errors import ConfigError

DIAGONAL_SHARE = 0.02
"""Width of a boundary as a share of the picture's diagonal, as in the paper."""


@dataclass(frozen=True, eq=False)
class BoundaryCounts(Counts):
    """Pixels of the boundaries found and true."""

    intersection: int = 0
    """On both."""
    union: int = 0
    """On either."""

    @property
    def iou(self) -> float:
        """Boundary IoU; NaN where there is no boundary, found or true."""
        return share(self.intersection, self.union)


def boundary_overlap(
    found: np.ndarray, truth: np.ndarray, *, ignore: np.ndarray | None = None, distance_px: int | None = None,
    frame_is_outside: bool = False,
) -> BoundaryCounts:  # fmt: skip
    """Return how the boundaries of two masks overlap, outside `ignore`.

    A mask's boundary is its pixels with one outside it at a centre distance of at most `distance_px`, that is the mask
    without its erosion by a disk. Pixels in `ignore` are neither inside nor outside.

    Args:
        found: bool (y, x).
        truth: bool (y, x).
        ignore: bool (y, x), where the truth is not known.
        distance_px: at least 1; None is 2 % of the diagonal. The same for all counts that shall be added.
        frame_is_outside: whether what lies beyond the edge of the picture is outside the masks, as in the paper's code.
            A patch is cut out of the land, and its edge is no outline.

    Raises:
        ConfigError: `distance_px` is less than 1.
        GridMismatchError: shapes differ.
    """
    check_shapes(found=found, truth=truth, ignore=ignore)
    if distance_px is None:
        distance_px = boundary_width(found.shape)
    if distance_px < 1:
        raise ConfigError(f"distance_px is at least 1; got {distance_px!r}")
    labelled = np.ones(found.shape, bool) if ignore is None else ~ignore
    one = _boundary(found, labelled, distance_px, frame_is_outside)
    other = _boundary(truth, labelled, distance_px, frame_is_outside)
    return BoundaryCounts(int((one & other).sum()), int((one | other).sum()))


def boundary_width(shape: tuple[int, ...]) -> int:
    """Return 2 % of a picture's diagonal in whole pixels, at least 1."""
    return max(1, round(DIAGONAL_SHARE * math.hypot(*shape)))


def _boundary(mask: np.ndarray, labelled: np.ndarray, distance_px: int, frame_is_outside: bool) -> np.ndarray:
    if not mask.any():
        return np.zeros(mask.shape, bool)
    inside = np.pad((mask | ~labelled).astype("uint8"), 1, constant_values=not frame_is_outside)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    # Squared distances are whole numbers: halfway to the next one, rounding of the root cannot matter.
    return np.asarray((distance <= math.sqrt(distance_px**2 + 0.5)) & mask & labelled)
