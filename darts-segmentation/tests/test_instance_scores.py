import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from sklearn.metrics import average_precision_score

from darts_segmentation.training.scores import ObjectCounts, ObjectRanking, Overlaps, match_objects, overlap_objects
from darts_utils.errors import ConfigError, GridMismatchError

IOUS = (0.1, 0.2, 1 / 3, 0.5, 0.75, 1.0)


def strip(text: str) -> np.ndarray:
    """A mask of one row; "#" is True."""
    return np.array([[letter == "#" for letter in text]])


def blobs(seed: int, size: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Found and true masks, and probabilities with ties; even seeds give lines that are cut in different places."""
    random = np.random.default_rng(seed)
    if seed % 2 == 0:
        found, truth = random.random((2, size // 4, size)) < 0.8
        found[1::2] = truth[1::2] = False
        return found, truth, random.integers(1, 9, truth.shape).astype("float32") / 8
    truth = ndimage.gaussian_filter(random.normal(size=(size, size + 3)), 1) > 0.25
    shift = np.roll(truth, random.integers(-1, 2, 2), (0, 1))
    found = shift ^ (random.random(truth.shape) < 0.15)
    return found, truth, random.integers(1, 9, truth.shape).astype("float32") / 8


def components(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    return [set(zip(*(axis.tolist() for axis in np.nonzero(labels == k)), strict=True)) for k in range(1, count + 1)]


def iou_table(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    rows, columns = components(found), components(truth)
    table = [[len(one & other) / len(one | other) for other in columns] for one in rows]
    return np.array(table).reshape(len(rows), len(columns))


def best_match(table: np.ndarray, iou: float) -> tuple[int, float]:
    """The greatest number of pairs, and then of total IoU, by trying all ways to choose."""

    def search(row: int, free: frozenset[int]) -> tuple[int, float]:
        if row == len(table):
            return 0, 0.0
        best = search(row + 1, free)
        for column in free:
            if table[row, column] >= iou:
                count, total = search(row + 1, free - {column})
                best = max(best, (count + 1, total + table[row, column]))
        return best

    used = np.flatnonzero((table >= iou).any(axis=0))
    return search(0, frozenset(used.tolist()))


def test_what_is_found_once_and_fits_is_a_hit() -> None:
    counts = match_objects(strip("##..###...#"), strip("##..##..#.."))
    assert counts == ObjectCounts(tp=2, fp=1, fn=1, iou_sum=1 + 2 / 3)
    assert counts.precision == counts.recall == counts.f1 == pytest.approx(2 / 3)
    assert counts.mean_iou == pytest.approx(5 / 6)


def test_a_slump_found_twice_is_found_once_and_wrong_once() -> None:
    assert match_objects(strip("####.#####"), strip("##########"), iou=0.4) == ObjectCounts(1, 1, 0, iou_sum=0.5)


def test_two_slumps_found_as_one_are_one_hit_and_one_miss() -> None:
    assert match_objects(strip("##########"), strip("####.#####"), iou=0.4) == ObjectCounts(1, 0, 1, iou_sum=0.5)


def test_the_best_pair_gives_way_where_two_pairs_can_be() -> None:
    # The second found object fits the first slump best, but it is the only one that the second slump has.
    found, truth = strip("###.#########..."), strip("##########.###..")
    table = iou_table(found, truth)
    assert table[1, 0] > table[0, 0] > table[1, 1] >= 0.2
    counts = match_objects(found, truth, iou=0.2)
    assert (counts.tp, counts.fp, counts.fn) == (2, 0, 0)
    assert counts.iou_sum == pytest.approx(table[0, 0] + table[1, 1])


def test_regions_that_touch_at_a_corner_are_one() -> None:
    assert match_objects(np.eye(5, dtype=bool), np.eye(5, dtype=bool)) == ObjectCounts(1, 0, 0, iou_sum=1)


@pytest.mark.parametrize("iou", IOUS)
@pytest.mark.parametrize("seed", range(12))
def test_matches_are_those_of_trying_all(seed: int, iou: float) -> None:
    found, truth, _ = blobs(seed, 16)
    table = iou_table(found, truth)
    number, total = best_match(table, iou)
    counts = match_objects(found, truth, iou=iou)
    assert (counts.tp, counts.fp, counts.fn) == (number, len(table) - number, table.shape[1] - number)
    assert counts.iou_sum == pytest.approx(total)
    assert counts.ignored == 0


def test_the_drawn_scenes_hold_conflicts() -> None:
    # Else the test above would say little: some object must have two candidates.
    tables = [iou_table(*blobs(seed, 16)[:2]) >= 0.1 for seed in range(12)]
    assert sum(bool((table.sum(axis=1) > 1).any() and (table.sum(axis=0) > 1).any()) for table in tables) >= 5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(1, 9)), max_size=14, unique_by=lambda e: e[:2]
    ),
    st.permutations(range(6)),
)
def test_any_web_of_overlaps_is_matched_as_well_as_can_be(
    edges: list[tuple[int, int, int]], order: list[int]
) -> None:  # fmt: skip
    # Webs that no picture would hold, so that long chains of conflicts come up.
    rows, columns, tenths = np.array(edges, "int64").reshape(-1, 3).T
    overlaps = Overlaps(
        found=6, true=6, ignored=0, scores=np.array(order) / 6, rows=rows, columns=columns, iou=tenths / 10,
        iou_ignored=np.zeros(6),
    )  # fmt: skip
    table = np.zeros((6, 6))
    table[rows, columns] = tenths / 10
    number, total = best_match(table, 0.1)
    counts = overlaps.counts(0.1)
    assert (counts.tp, counts.iou_sum) == (number, pytest.approx(total))
    assert_every_cut_is_matched_best(overlaps.ranking(0.1), overlaps.scores, table >= 0.1)


def assert_every_cut_is_matched_best(ranking: ObjectRanking, scores: np.ndarray, near: np.ndarray) -> None:
    """Check that whatever score one cuts at, no matching has more pairs; `near` is of the objects in scores' order."""
    for score in np.unique(scores):
        above = near[scores >= score]
        most = (maximum_bipartite_matching(csr_array(above), perm_type="column") >= 0).sum() if above.size else 0
        assert ranking.matched[ranking.scores >= score].sum() == most


def average_precision(scores: np.ndarray, near: np.ndarray) -> float:
    """Staircase over the scores, matched anew at each."""
    area = recall = 0.0
    for score in np.unique(scores)[::-1]:
        above = near[scores >= score]
        right = (maximum_bipartite_matching(csr_array(above), perm_type="column") >= 0).sum()
        area += (right / near.shape[1] - recall) * right / len(above)
        recall = right / near.shape[1]
    return area


@pytest.mark.parametrize("iou", IOUS)
@pytest.mark.parametrize("seed", range(8))
def test_average_precision_is_that_of_matching_anew_at_each_score(seed: int, iou: float) -> None:
    found, truth, probabilities = blobs(seed)
    scores = np.array([sum(float(probabilities[at]) for at in one) / len(one) for one in components(found)])
    overlaps = overlap_objects(found, truth, probabilities=probabilities)
    assert sorted(overlaps.scores) == sorted(scores)
    assert len(set(scores)) < len(scores)  # ties
    near = iou_table(found, truth) >= iou
    ranking = overlaps.ranking(iou)
    assert_every_cut_is_matched_best(ranking, scores, near)
    assert ranking.average_precision == pytest.approx(average_precision(scores, near), abs=1e-12)
    assert ranking.matched.sum() == overlaps.counts(iou).tp
    if ranking.matched.any():
        share = ranking.matched.sum() / ranking.true
        reference = average_precision_score(ranking.matched, ranking.scores) * share
        assert ranking.average_precision == pytest.approx(reference, abs=1e-12)


@pytest.mark.parametrize("iou", [0.51, 0.75])
def test_above_half_the_union_coco_matches_the_same(iou: float) -> None:
    for seed in range(8):
        found, truth, probabilities = blobs(seed)
        overlaps = overlap_objects(found, truth, probabilities=probabilities)
        table = np.zeros((overlaps.found, overlaps.true))
        table[overlaps.rows, overlaps.columns] = overlaps.iou
        taken: set[int] = set()
        matched = np.zeros(len(table), bool)
        for row in np.argsort(-overlaps.scores, kind="stable"):
            free = [column for column in range(table.shape[1]) if column not in taken and table[row, column] >= iou]
            if free:
                taken.add(max(free, key=lambda column: table[row, column]))
                matched[row] = True
        np.testing.assert_array_equal(overlaps.ranking(iou).matched, matched)


def test_the_score_is_the_mean_probability_inside() -> None:
    probabilities = np.array([[0.6, 0.8, np.nan, 0.9, 0.1]], "float32")
    overlaps = overlap_objects(probabilities > 0.5, strip("##..."), probabilities=probabilities)
    np.testing.assert_allclose(overlaps.scores, [0.7, 0.9], rtol=1e-6)
    # The false one comes first.
    assert overlaps.ranking().average_precision == pytest.approx(0.5)


def test_without_probabilities_there_is_no_ranking() -> None:
    with pytest.raises(ConfigError, match="give the probabilities"):
        overlap_objects(strip("##"), strip("##")).ranking()


def test_average_precision_without_truth_and_without_detection() -> None:
    nothing, something = strip("....."), strip("..##.")
    values = np.full((1, 5), 0.9)
    assert math.isnan(overlap_objects(something, nothing, probabilities=values).ranking().average_precision)
    assert math.isnan(overlap_objects(nothing, nothing, probabilities=values).ranking().average_precision)
    assert overlap_objects(nothing, something, probabilities=values).ranking().average_precision == 0


@pytest.mark.parametrize(
    ("found", "truth", "expected", "unanswered"),
    [
        ("....", "....", ObjectCounts(), {"precision", "recall", "f1", "mean_iou"}),
        ("....", ".##.", ObjectCounts(fn=1), {"precision", "mean_iou"}),
        (".##.", "....", ObjectCounts(fp=1), {"recall", "mean_iou"}),
        ("####", "####", ObjectCounts(tp=1, iou_sum=1), set()),
    ],
)
def test_empty_truth_and_empty_prediction(found: str, truth: str, expected: ObjectCounts, unanswered: set[str]) -> None:
    counts = match_objects(strip(found), strip(truth))
    assert counts == expected
    assert {n for n in ("precision", "recall", "f1", "mean_iou") if math.isnan(getattr(counts, n))} == unanswered


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (1, 1), (1, 9), (9, 1)])
def test_pictures_of_any_size_work(shape: tuple[int, int]) -> None:
    whole = np.ones(shape, bool)
    assert match_objects(whole, whole).tp == (whole.size > 0)


def test_ninety_thousand_objects_are_told_apart() -> None:
    truth = np.zeros((600, 600), bool)
    truth[::2, ::2] = True
    found = truth.copy()
    found[0, 0] = truth[598, 598] = False
    counts = match_objects(found, truth)
    assert (counts.tp, counts.fp, counts.fn) == (89_998, 1, 1)


def test_three_hundred_objects_in_conflict_by_pairs() -> None:
    truth = np.tile(strip("##########.###.."), (600, 1))
    found = np.tile(strip("###.#########..."), (600, 1))
    truth[1::2] = found[1::2] = False
    counts = match_objects(found, truth, iou=0.2)
    assert (counts.tp, counts.fp, counts.fn) == (600, 0, 0)


def test_numbered_objects_that_touch_stay_apart() -> None:
    truth = np.array([[0, 5, 5, 5, 2, 2, 2, 0]], "int32")
    found = np.array([[0, 7, 7, 7, 7, 7, 0, 0]])
    counts = match_objects(found, truth, iou=0.5)
    assert counts == ObjectCounts(tp=1, fn=1, iou_sum=3 / 5)
    assert match_objects(found > 0, truth > 0) == ObjectCounts(tp=1, iou_sum=5 / 6)


@pytest.mark.parametrize("seed", range(3))
def test_numbered_regions_score_as_their_mask_does_whatever_their_numbers(seed: int) -> None:
    found, truth, _ = blobs(seed)
    ignore = np.random.default_rng(seed).random(truth.shape) < 0.2
    numbered, count = ndimage.label(truth, np.ones((3, 3)))
    numbers = np.r_[0, np.random.default_rng(seed).permutation(3 * count)[:count] + 1]
    for iou in (0.2, 0.5):
        expected = match_objects(found, truth, ignore=ignore, iou=iou, min_object_size=2)
        assert match_objects(found, numbers[numbered], ignore=ignore, iou=iou, min_object_size=2) == expected


def test_a_mask_of_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"truth is bool, or int32 or int64 .* got uint8"):
        match_objects(strip("##"), strip("##").astype("uint8"))


class TestIgnore:
    def test_overlap_is_measured_where_truth_is_known(self) -> None:
        found, truth, ignore = strip("######...."), strip("####......"), strip("....##....")
        assert match_objects(found, truth, ignore=ignore) == ObjectCounts(tp=1, iou_sum=1)

    def test_what_is_mostly_ignored_counts_neither_way(self) -> None:
        found, truth, ignore = strip("###.###..."), strip(".......###"), strip(".##.##..##")
        assert match_objects(found, truth, ignore=ignore) == ObjectCounts(ignored=1)

    def test_what_is_ignored_by_half_still_counts(self) -> None:
        found, truth, ignore = strip("##........"), strip("......##.."), strip(".#.....#..")
        assert match_objects(found, truth, ignore=ignore) == ObjectCounts(fp=1, fn=1)

    def test_a_detection_on_a_slump_that_does_not_count_is_no_error(self) -> None:
        # The slump is hidden by more than half, what was found by less than half.
        found, truth, ignore = strip("#####....."), strip("#########."), strip("...######.")
        assert match_objects(found, truth, ignore=ignore) == ObjectCounts(ignored=1)

    def test_small_objects_do_not_count(self) -> None:
        found, truth = (
            strip("##..###.##"),
            strip("##..###..."),
        )
        assert match_objects(found, truth, min_object_size=3) == ObjectCounts(tp=1, ignored=1, iou_sum=1)

    def test_a_detection_that_fits_a_small_slump_is_no_error_but_beside_it_is(self) -> None:
        truth = strip("##........")
        # IoU 2/5, most of it beside the slump.
        found = strip("#####.....")
        assert match_objects(found, truth, min_object_size=3, iou=0.3) == ObjectCounts(ignored=1)
        assert match_objects(found, truth, min_object_size=3, iou=0.5) == ObjectCounts(fp=1, ignored=1)

    def test_a_detection_that_matches_a_slump_needs_no_excuse(self) -> None:
        found, truth = strip("######"), strip("##.###")
        assert match_objects(found, truth, min_object_size=3, iou=0.3) == ObjectCounts(tp=1, ignored=1, iou_sum=0.5)

    def test_ranking_leaves_out_what_does_not_count(self) -> None:
        values = np.full((1, 10), 0.9)
        overlaps = overlap_objects(strip("#####..###"), strip("##.....###"), min_object_size=3, probabilities=values)
        ranking = overlaps.ranking(0.3)
        assert (ranking.matched.tolist(), ranking.true) == ([True], 1)
        assert sorted(overlaps.ranking(0.5).matched.tolist()) == [False, True]

    def test_everything_ignored_is_nothing(self) -> None:
        found, truth, _ = blobs(0)
        counts = match_objects(found, truth, ignore=np.ones(found.shape, bool))
        assert counts == ObjectCounts(ignored=len(components(truth)))

    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("iou", [0.2, 0.5])
    def test_the_rules_hold_in_drawn_scenes(self, seed: int, iou: float) -> None:
        found, truth, _ = blobs(seed)
        ignore = ndimage.gaussian_filter(np.random.default_rng(seed + 99).normal(size=found.shape), 2) > 0.1
        hidden = {(int(y), int(x)) for y, x in np.argwhere(ignore)}
        true = components(truth)
        real = [one for one in true if len(one) >= 4 and len(one & hidden) <= len(one) / 2]
        odd = [one for one in true if one not in real]
        away = hidden.union(*odd)
        there = [one for one in components(found) if len(one) >= 4 and len(one & away) <= len(one) / 2]

        def fit(one: set[tuple[int, int]], other: set[tuple[int, int]]) -> float:
            return len((one & other) - hidden) / max(len((one | other) - hidden), 1)

        table = np.array([[fit(one, other) for other in real] for one in there]).reshape(len(there), len(real))
        number, total = best_match(table, iou)
        counts = match_objects(found, truth, ignore=ignore, iou=iou, min_object_size=4)
        assert (counts.tp, counts.fn, counts.ignored) == (number, len(real) - number, len(odd))
        assert counts.iou_sum == pytest.approx(total)
        excusable = sum(any(len(one & other) / len(one | other) >= iou for other in odd) for one in there)
        assert len(there) - number - excusable <= counts.fp <= len(there) - number


def test_inputs_stay_as_they_are_and_may_be_views() -> None:
    found, truth, probabilities = blobs(1)
    before = found.copy(), truth.copy()
    there = overlap_objects(found, truth, probabilities=probabilities).counts()
    turned = overlap_objects(found.T[::-1], truth.T[::-1], probabilities=probabilities.T[::-1]).counts()
    assert (there.tp, there.fp, there.fn) == (turned.tp, turned.fp, turned.fn)
    np.testing.assert_array_equal(found, before[0])
    np.testing.assert_array_equal(truth, before[1])


def test_rankings_add_up_in_any_order_and_weights_repeat_them() -> None:
    parts = []
    for seed in range(3):
        found, truth, probabilities = blobs(seed)
        parts.append(overlap_objects(found, truth, probabilities=probabilities).ranking(0.3))
    one, two, three = (part.average_precision for part in parts)
    for order in itertools.permutations(parts):
        total = ObjectRanking.total(order)
        assert total.average_precision == pytest.approx((order[0] + order[1] + order[2]).average_precision, abs=1e-12)
        assert total.true == sum(part.true for part in parts)
        assert min(one, two, three) < total.average_precision < max(one, two, three)
    weighted = list(ObjectRanking.weighted_sums(parts, np.array([[2, 0, 1], [0, 0, 0]])))
    expected = ObjectRanking.total([parts[0], parts[0], parts[2]])
    assert weighted[0].average_precision == pytest.approx(expected.average_precision, abs=1e-12)
    assert weighted[0].true == expected.true
    assert math.isnan(weighted[1].average_precision)


@pytest.mark.parametrize("iou", [0, -0.5, 1.01, float("nan")])
def test_an_iou_that_cannot_be_is_refused(iou: float) -> None:
    with pytest.raises(ConfigError, match="iou lies above 0"):
        match_objects(strip("##"), strip("##"), iou=iou)


def test_shapes_must_be_equal() -> None:
    with pytest.raises(GridMismatchError, match=r"found \(1, 2\), truth \(1, 3\)"):
        match_objects(strip("##"), strip("###"))
