import numpy as np
import pytest

from darts.demo import edge_zone, score_objects, score_pixels
from darts_segmentation.training.scores import ObjectCounts
from darts_utils.errors import GridMismatchError


def scene(*slumps: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Truth with rectangles (row, column, height, width) numbered from 1, and a full extent."""
    truth = np.zeros((60, 80), "int32")
    for number, (row, col, height, width) in enumerate(slumps, start=1):
        truth[row : row + height, col : col + width] = number
    return truth, np.ones(truth.shape, bool)


def counts(score: ObjectCounts) -> tuple[int, int, int, int]:
    return score.tp, score.fn, score.fp, score.ignored


def test_a_perfect_detection_scores_one() -> None:
    truth, extent = scene((5, 5, 8, 8), (30, 40, 10, 10))
    score = score_objects(truth > 0, truth, extent)
    assert counts(score) == (2, 0, 0, 0)
    assert score.f1 == score.precision == score.recall == 1


def test_a_detection_elsewhere_is_a_miss_and_an_error() -> None:
    truth, extent = scene((5, 5, 8, 8))
    assert counts(score_objects(np.roll(truth > 0, 20, axis=1), truth, extent)) == (0, 1, 1, 0)


@pytest.mark.parametrize(("columns", "found"), [(3, 1), (2, 0)])
def test_iou_of_three_tenths_decides(columns: int, found: int) -> None:
    truth, extent = scene((5, 5, 20, 10))
    predicted = np.zeros(truth.shape, bool)
    predicted[5:25, 5 : 5 + columns] = True  # IoU 0.3 or 0.2
    assert counts(score_objects(predicted, truth, extent)) == (found, 1 - found, 1 - found, 0)


def test_a_slump_split_in_two_is_found_once_and_the_other_half_is_an_error() -> None:
    truth, extent = scene((5, 5, 10, 11))
    predicted = truth > 0
    predicted[:, 10] = False
    assert counts(score_objects(predicted, truth, extent)) == (1, 0, 1, 0)


def test_two_slumps_merged_into_one_detection_count_once() -> None:
    truth, extent = scene((5, 5, 10, 10), (5, 16, 10, 10))
    predicted = np.zeros(truth.shape, bool)
    predicted[5:15, 5:26] = True
    assert counts(score_objects(predicted, truth, extent)) == (1, 1, 0, 0)


def test_matching_finds_the_most_pairs() -> None:
    # The left detection overlaps both slumps; given to the second one, the first would go without.
    truth, extent = scene((5, 5, 10, 10), (5, 15, 10, 10))
    predicted = np.zeros(truth.shape, "int32")
    predicted[5:15, 9:19] = 1  # IoU 6/14 with slump 1, 4/16 with slump 2
    predicted[5:15, 19:25] = 2
    assert counts(score_objects(predicted, truth, extent)) == (2, 0, 0, 0)


def test_what_is_mostly_hidden_does_not_count() -> None:
    truth, extent = scene((5, 5, 10, 10), (30, 5, 10, 10))
    cloud = np.zeros(truth.shape, bool)
    cloud[5:15, 5:11] = True  # 60 %
    cloud[30:40, 5:10] = True  # half: still counts
    nothing = np.zeros(truth.shape, bool)
    assert counts(score_objects(nothing, truth, extent, cloud=cloud)) == (0, 1, 0, 1)
    extent[5:15, 5:11] = False
    assert counts(score_objects(nothing, truth, extent)) == (0, 1, 0, 1)


def test_what_is_too_small_or_cut_by_the_edge_does_not_count() -> None:
    truth, extent = scene((20, 20, 5, 6), (5, 5, 10, 10))
    edge = edge_zone(np.ones(truth.shape, bool), reach_px=8)
    assert counts(score_objects(np.zeros(truth.shape, bool), truth, extent, edge=edge)) == (0, 0, 0, 2)


def test_a_detection_on_an_ignored_slump_is_no_error() -> None:
    truth, extent = scene((5, 5, 10, 10))
    cloud = truth > 0
    matching, inside, mostly_beside = (np.zeros(truth.shape, bool) for _ in range(3))
    matching[5:15, 5:20] = True
    inside[6:9, 6:9] = True
    mostly_beside[5:15, 13:30] = True
    assert counts(score_objects(matching, truth, extent, cloud=cloud)) == (0, 0, 0, 1)
    assert counts(score_objects(inside, truth, extent, cloud=cloud)) == (0, 0, 0, 1)
    assert counts(score_objects(mostly_beside, truth, extent, cloud=cloud)) == (0, 0, 1, 1)


def test_a_slump_that_counts_is_matched_before_an_ignored_one() -> None:
    truth, extent = scene((5, 5, 10, 8), (5, 13, 10, 9))
    cloud = truth == 1
    predicted = truth > 0  # more on the one that counts than on the other
    assert counts(score_objects(predicted, truth, extent, cloud=cloud)) == (1, 0, 0, 1)


def test_diagonal_neighbours_are_one_detection() -> None:
    truth, extent = scene((5, 5, 6, 6))
    predicted = np.zeros(truth.shape, bool)
    predicted[30:35, 30:35] = predicted[35:40, 35:40] = True
    assert score_objects(predicted, truth, extent).fp == 1


def test_numbers_may_have_gaps() -> None:
    truth, extent = scene((5, 5, 10, 10))
    assert counts(score_objects(truth * 9, truth * 7, extent)) == (1, 0, 0, 0)


def test_pixels_count_where_they_can_be_seen() -> None:
    truth, extent = scene((5, 5, 10, 10), (30, 30, 4, 4))
    predicted = np.zeros(truth.shape, bool)
    predicted[5:15, 10:20] = True
    predicted[30:34, 30:34] = True  # on a slump below the minimum size: neither right nor wrong
    score = score_pixels(predicted, truth, extent)
    assert (score.tp, score.fn, score.fp) == (50, 50, 50)
    cloud = np.zeros(truth.shape, bool)
    cloud[:, 15:] = True
    assert score_pixels(predicted, truth, extent, cloud=cloud).fp == 0


def test_the_edge_zone_is_the_eroded_frame() -> None:
    data = np.ones((9, 9), bool)
    zone = edge_zone(data, reach_px=2)
    assert not zone[2:7, 2:7].any()
    assert zone[:2].all()
    assert zone[:, -2:].all()
    data[4, 4] = False
    assert edge_zone(data, reach_px=1)[3:6, 3:6].sum() == 5


def test_grids_that_differ_are_refused() -> None:
    truth, extent = scene((5, 5, 8, 8))
    with pytest.raises(GridMismatchError, match="one grid"):
        score_objects(truth[1:] > 0, truth, extent)
