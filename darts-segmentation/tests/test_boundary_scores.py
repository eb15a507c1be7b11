import math

import numpy as np
import pytest
from scipy import ndimage

from darts_segmentation.training.scores import BoundaryCounts, boundary_overlap
from darts_segmentation.training.scores.boundaries import boundary_width
from darts_utils.errors import ConfigError, GridMismatchError


def boundary(mask: np.ndarray, ignore: np.ndarray, distance: int, frame_is_outside: bool) -> np.ndarray:
    """Pixels of the mask with a known pixel outside it no further than `distance`, pixel by pixel."""
    height, width = mask.shape
    result = np.zeros(mask.shape, bool)
    for y in range(height):
        for x in range(width):
            if not mask[y, x] or ignore[y, x]:
                continue
            for dy in range(-distance, distance + 1):
                for dx in range(-distance, distance + 1):
                    if dy * dy + dx * dx > distance * distance:
                        continue
                    beyond = not (0 <= y + dy < height and 0 <= x + dx < width)
                    if beyond:
                        result[y, x] |= frame_is_outside
                    else:
                        result[y, x] |= not mask[y + dy, x + dx] and not ignore[y + dy, x + dx]
    return result


@pytest.mark.parametrize("frame_is_outside", [False, True])
@pytest.mark.parametrize("distance", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_boundaries_are_those_of_a_plain_loop(seed: int, distance: int, frame_is_outside: bool) -> None:
    random = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(random.normal(size=(19, 26)), 2) > 0
    found = np.roll(truth, 2, 1) ^ (random.random(truth.shape) < 0.03)
    ignore = ndimage.gaussian_filter(random.normal(size=truth.shape), 1) > 0.4
    one = boundary(found, ignore, distance, frame_is_outside)
    other = boundary(truth, ignore, distance, frame_is_outside)
    counts = boundary_overlap(found, truth, ignore=ignore, distance_px=distance, frame_is_outside=frame_is_outside)
    assert counts == BoundaryCounts(int((one & other).sum()), int((one | other).sum()))
    assert 0 < counts.intersection < counts.union


def test_a_boundary_is_the_mask_without_its_erosion_by_a_disk() -> None:
    mask = np.zeros((40, 40), bool)
    mask[5:35, 8:30] = True
    y, x = np.mgrid[-4:5, -4:5]
    inner = ndimage.binary_erosion(mask, y**2 + x**2 <= 16)
    assert boundary_overlap(mask, mask, distance_px=4) == BoundaryCounts(
        int((mask & ~inner).sum()), int((mask & ~inner).sum())
    )


def test_large_objects_are_judged_by_their_outline() -> None:
    truth = np.zeros((100, 100), bool)
    truth[10:90, 10:90] = True
    found = ndimage.binary_dilation(truth, iterations=2)
    area_iou = (found & truth).sum() / (found | truth).sum()
    assert area_iou > 0.9
    assert boundary_overlap(found, truth, distance_px=3).iou < 0.3
    assert boundary_overlap(truth, truth, distance_px=3).iou == 1


@pytest.mark.parametrize(("shape", "expected"), [((1024, 1024), 29), ((256, 256), 7), ((10, 10), 1), ((1, 1), 1)])
def test_a_boundary_is_two_percent_of_the_diagonal_wide(shape: tuple[int, int], expected: int) -> None:
    assert boundary_width(shape) == expected
    half = np.indices(shape)[1] < shape[1] / 2
    assert boundary_overlap(half, half) == boundary_overlap(half, half, distance_px=expected)


def test_the_frame_of_a_patch_is_no_outline_unless_asked() -> None:
    whole = np.ones((12, 12), bool)
    counts = boundary_overlap(whole, whole, distance_px=2)
    assert counts == BoundaryCounts(0, 0)
    assert math.isnan(counts.iou)
    assert boundary_overlap(whole, whole, distance_px=2, frame_is_outside=True) == BoundaryCounts(80, 80)


def test_a_perfect_prediction_is_perfect_whatever_it_says_under_ignore() -> None:
    random = np.random.default_rng(0)
    truth = ndimage.gaussian_filter(random.normal(size=(40, 40)), 3) > 0
    ignore = ndimage.gaussian_filter(random.normal(size=(40, 40)), 2) > 0.1
    found = truth ^ (ignore & (random.random(truth.shape) < 0.5))
    assert boundary_overlap(found, truth & ~ignore, ignore=ignore, distance_px=3).iou == 1


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (1, 7), (30, 30)])
def test_empty_truth_and_empty_prediction(shape: tuple[int, int]) -> None:
    nothing = np.zeros(shape, bool)
    assert math.isnan(boundary_overlap(nothing, nothing).iou)
    if nothing.size > 1:
        something = nothing.copy()
        something[0, 0] = True
        assert boundary_overlap(something, nothing) == BoundaryCounts(0, 1)
        assert boundary_overlap(nothing, something).iou == 0
        assert boundary_overlap(something, something).iou == 1


def test_everything_ignored_has_no_boundary() -> None:
    mask = np.eye(9, dtype=bool)
    assert boundary_overlap(mask, mask, ignore=np.ones((9, 9), bool)) == BoundaryCounts(0, 0)


def test_counts_add_up() -> None:
    assert BoundaryCounts(1, 4) + BoundaryCounts(2, 2) == BoundaryCounts(3, 6)
    assert (BoundaryCounts(1, 4) + BoundaryCounts(0, 0)).iou == 0.25


def test_what_cannot_be_is_refused() -> None:
    mask = np.ones((3, 3), bool)
    with pytest.raises(ConfigError, match="at least 1; got 0"):
        boundary_overlap(mask, mask, distance_px=0)
    with pytest.raises(GridMismatchError, match=r"truth \(3, 2\)"):
        boundary_overlap(mask, mask[:, :2])
