"""Splits of patches: nothing is lost, nothing is divided that overlaps, and shares are about right."""

import logging
from itertools import combinations, pairwise

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_segmentation.training.splits import (
    fold_samples,
    group_samples,
    overlapping_samples,
    split_samples,
)
from darts_utils.errors import ConfigError

Cell = tuple[int, int]


def metadata_of(
    cells: dict[str, list[Cell]], regions: dict[str, str] | None = None, positive: dict[str, int] | None = None
) -> gpd.GeoDataFrame:
    """Patches of 2 x 2 km at whole kilometres of a plane far from the pole; the first ones of a sample have slumps."""
    rows, boxes = [], []
    for sample, places in cells.items():
        for number, (x, y) in enumerate(places):
            has_slumps = number < (positive or {}).get(sample, len(places))
            rows.append((sample, (regions or {}).get(sample, ""), 0.1 if has_slumps else 0.0))
            boxes.append(shapely.box(x, y, x + 2, y + 2))
    geometry = gpd.GeoSeries(boxes, crs="EPSG:6931").affine_transform([1000, 0, 0, 1000, -2.5e6, 5e5]).to_crs(4326)
    names = ("sample_id", "region", "positive_share")
    columns = {name: [row[k] for row in rows] for k, name in enumerate(names)}
    return gpd.GeoDataFrame({"patch": np.arange(len(rows)), **columns}, geometry=geometry)


def apart(count: int, patches: int = 1) -> dict[str, list[Cell]]:
    return {f"s{number:03d}": [(10 * number, 3 * k) for k in range(patches)] for number in range(count)}


def slow_groups(cells: dict[str, list[Cell]]) -> set[frozenset[str]]:
    """Groups by comparing all patches with all others, on the whole kilometres."""
    groups = [{sample} for sample in cells]
    for one, other in combinations(cells, 2):
        if any(abs(a[0] - b[0]) < 2 and abs(a[1] - b[1]) < 2 for a in cells[one] for b in cells[other]):
            joined = [group for group in groups if one in group or other in group]
            groups = [group for group in groups if group not in joined] + [set().union(*joined)]
    return {frozenset(group) for group in groups}


def as_sets(groups: dict[str, int]) -> set[frozenset[str]]:
    return {frozenset(name for name in groups if groups[name] == number) for number in set(groups.values())}


cell_lists = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=4)
many_cells = st.dictionaries(st.text("abcxyz", min_size=1, max_size=3), cell_lists, min_size=1, max_size=14)


@settings(max_examples=60, deadline=None)
@given(cells=many_cells, seed=st.integers(0, 9))
def test_groups_are_those_of_a_slow_comparison_in_any_order_of_rows(cells, seed) -> None:
    metadata = metadata_of(cells)
    groups = group_samples(metadata)
    assert as_sets(groups) == slow_groups(cells)
    assert group_samples(metadata.sample(frac=1, random_state=seed)) == groups
    firsts = [groups[name] for name in sorted(groups)]
    assert all(number <= max(firsts[:place], default=-1) + 1 for place, number in enumerate(firsts))


def test_patches_that_only_touch_are_of_two_groups() -> None:
    assert len(set(group_samples(metadata_of({"a": [(0, 0)], "b": [(2, 0)], "c": [(0, 2)]})).values())) == 3


def test_footprints_across_the_antimeridian_are_compared() -> None:
    def across(west: float, east: float) -> shapely.MultiPolygon:
        return shapely.MultiPolygon([shapely.box(west, 70, 180, 71), shapely.box(-180, 70, east, 71)])

    samples = gpd.GeoDataFrame(
        {"sample_id": ["a", "b", "c", "d", "e"]},
        geometry=[across(179, -179), across(179.5, -178.5), shapely.box(-178.6, 70, -178, 71), None,
                  shapely.box(178, 70, 178.9, 71)], crs=4326,
    )  # fmt: skip
    assert group_samples(samples) == {"a": 0, "b": 0, "c": 0, "d": 1, "e": 2}


@settings(max_examples=60, deadline=None)
@given(cells=many_cells, seed=st.integers(0, 99), by=st.sampled_from(["region", "sample"]), data=st.data())
def test_each_patch_is_in_one_split_and_no_block_is_divided(cells, seed, by, data) -> None:
    names = st.sampled_from(["", "north", "south", "east"])
    regions = {sample: data.draw(names) for sample in sorted(cells)}
    positive = {sample: data.draw(st.integers(0, 2)) for sample in sorted(cells)}
    metadata = metadata_of(cells, regions, positive)
    shares = {"train": 0.6, "val": 0.4}
    blocks = slow_groups(cells)
    if by == "region":
        for name in set(regions.values()) - {""}:
            joined = [block for block in blocks if any(regions[sample] == name for sample in block)]
            blocks = (blocks - set(joined)) | {frozenset().union(*joined)}
    if len(blocks) < 2:
        with pytest.raises(ConfigError, match="at least one each"):
            split_samples(metadata, by=by, shares=shares, seed=seed)
        return
    splits = split_samples(metadata, by=by, shares=shares, seed=seed)
    everything = np.sort(np.concatenate(list(splits.values())))
    np.testing.assert_array_equal(everything, metadata["patch"])
    assert all(len(patches) and (np.diff(patches) > 0).all() for patches in splits.values())
    split_of = {patch: name for name, patches in splits.items() for patch in patches}
    placed = metadata.assign(split=metadata["patch"].map(split_of))
    for group in blocks:
        assert placed.loc[placed["sample_id"].isin(group), "split"].nunique() == 1
    assert overlapping_samples(metadata, splits) == []
    shuffled = split_samples(metadata.sample(frac=1, random_state=1), by=by, shares=shares, seed=seed)
    assert {name: patches.tolist() for name, patches in shuffled.items()} == {
        name: patches.tolist() for name, patches in splits.items()
    }


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=60, max_size=120), seed=st.integers(0, 99)
)
def test_shares_are_met_where_blocks_are_small(sizes, seed) -> None:
    cells = {f"s{n:03d}": [(10 * n, 3 * k) for k in range(size)] for n, (size, _) in enumerate(sizes)}
    positive = {f"s{n:03d}": count for n, (_, count) in enumerate(sizes)}
    metadata = metadata_of(cells, positive=positive)
    shares = {"train": 0.7, "val": 0.15, "test": 0.15}
    splits = split_samples(metadata, shares=shares, seed=seed)
    has_slumps = metadata["positive_share"].to_numpy() > 0
    for name, share in shares.items():
        assert abs(len(splits[name]) / len(metadata) - share) < 0.04
        # Where only few have slumps, one block more or less is a large share of them.
        assert abs(has_slumps[splits[name]].sum() - share * has_slumps.sum()) <= max(5, 0.06 * has_slumps.sum())


def test_the_seed_decides() -> None:
    metadata = metadata_of(apart(40))
    first, again, other = (split_samples(metadata, seed=seed)["train"].tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("seed", range(5))
def test_each_split_has_slumps_where_that_can_be(seed: int) -> None:
    metadata = metadata_of(apart(60), positive={f"s{n:03d}": int(n in (7, 30, 31)) for n in range(60)})
    for patches in split_samples(metadata, seed=seed).values():
        assert (metadata.loc[patches, "positive_share"] > 0).sum() == 1


def test_a_split_without_slumps_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    metadata = metadata_of(apart(20), positive={f"s{n:03d}": int(n < 2) for n in range(20)})
    with caplog.at_level(logging.WARNING):
        split_samples(metadata, seed=0)
    assert sum("no patch with slumps" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("sizes", [(90, 5, 5), (1, 1, 1), (30, 30, 30, 30), (1, 50, 1)])
def test_no_split_stays_empty_while_there_are_blocks(sizes: tuple[int, ...]) -> None:
    metadata = metadata_of({f"s{n}": [(10 * n, 3 * k) for k in range(size)] for n, size in enumerate(sizes)})
    splits = split_samples(metadata)
    assert all(len(patches) for patches in splits.values())
    assert len(splits["train"]) >= max(sizes)


def test_named_regions_and_samples_go_where_they_are_told_with_what_they_overlap() -> None:
    cells = apart(20)
    cells["s001"] = [(1, 1)]  # overlaps s000
    regions = {f"s{n:03d}": "Peel Plateau" if n in (0, 5) else "Banks Island" for n in range(20)}
    metadata = metadata_of(cells, regions)
    splits = split_samples(metadata, named={"val": ["Peel Plateau"], "test": ["s009"]})
    assert {"s000", "s001", "s005"} <= set(metadata.loc[splits["val"], "sample_id"])
    assert "s009" in set(metadata.loc[splits["test"], "sample_id"])
    # Divided by region, the overlap ties both regions; only a sample without a region is left.
    cells["s999"] = [(999, 0)]
    tied = split_samples(
        metadata_of(cells, regions), shares={"train": 1, "val": 0}, by="region", named={"val": ["Peel Plateau"]}
    )
    assert tied["train"].tolist() == [20]
    assert tied["val"].tolist() == list(range(20))


def test_a_split_of_share_zero_gets_what_is_named_alone() -> None:
    metadata = metadata_of(apart(10))
    splits = split_samples(metadata, shares={"train": 1.0, "test": 0.0}, named={"test": ["s003", "s004"]})
    assert splits["test"].tolist() == [3, 4]
    assert len(splits["train"]) == 8


def test_what_cannot_be_split_is_refused_with_a_reason() -> None:
    metadata = metadata_of({"a": [(0, 0)], "b": [(1, 0)], "c": [(9, 9)]}, {"a": "north", "b": "south", "c": "north"})
    with pytest.raises(ConfigError, match="2 groups of overlapping samples cannot fill the splits train, val, test"):
        split_samples(metadata)
    with pytest.raises(ConfigError, match="1 regions cannot fill"):
        split_samples(metadata, by="region", shares={"train": 0.5, "val": 0.5})
    with pytest.raises(ConfigError, match=r"'Peel', which is no region \(north, south\) and no sample \(a, b, c\)"):
        split_samples(metadata, shares={"train": 0.5, "val": 0.5}, named={"val": ["Peel"]})
    with pytest.raises(ConfigError, match="split tset, but the splits are"):
        split_samples(metadata, named={"tset": ["north"]})
    with pytest.raises(ConfigError, match="'b' is to be in split val, but overlaps"):
        split_samples(metadata, shares={"train": 0.5, "val": 0.5}, named={"train": ["a"], "val": ["b"]})
    with pytest.raises(ConfigError, match="sum to 1"):
        split_samples(metadata, shares={"train": 0.5, "val": 0.6})
    with pytest.raises(ConfigError, match="sum to 1"):
        split_samples(metadata, shares={"train": 1.5, "val": -0.5})
    with pytest.raises(ConfigError, match="'region' or 'sample'"):
        split_samples(metadata, by="country")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no patches"):
        split_samples(metadata.iloc[:0])
    with pytest.raises(ConfigError, match="n_folds"):
        fold_samples(metadata, 1)
    with pytest.raises(ConfigError, match="cannot fill"):
        fold_samples(metadata, 3)


@pytest.mark.parametrize("n_folds", [2, 3, 5])
def test_folds_validate_each_patch_once_and_leak_nothing(n_folds: int) -> None:
    cells = {f"s{n:03d}": [(int(1.5 * n) + 3 * (n // 4), 3 * k) for k in range(n % 3 + 1)] for n in range(30)}
    metadata = metadata_of(cells)
    folds = fold_samples(metadata, n_folds, seed=3)
    assert len(folds) == n_folds
    np.testing.assert_array_equal(np.sort(np.concatenate([fold["val"] for fold in folds])), metadata["patch"])
    for fold in folds:
        np.testing.assert_array_equal(np.sort(np.concatenate([fold["train"], fold["val"]])), metadata["patch"])
        assert overlapping_samples(metadata, fold) == []


def test_leaks_are_found() -> None:
    cells: dict[str, list[Cell]] = {
        "a": [(0, 0)],
        "b": [(1, 1)],
        "c": [(9, 9), (20, 9)],
        "d": [(10, 9)],
        "e": [(11, 0)],
    }
    metadata = metadata_of(cells)  # patches: a 0, b 1, c 2 and 3, d 4, e 5
    assert overlapping_samples(metadata, {"train": [0, 1, 2, 3, 4, 5], "val": []}) == []
    assert overlapping_samples(metadata, {"train": [0, 2, 3, 5], "val": np.array([4]), "test": [1]}) == [
        ("a", "b"), ("c", "d"),
    ]  # fmt: skip
    assert overlapping_samples(metadata, {"train": [0, 1, 2], "val": [3, 4, 5]}) == [("c", "c"), ("c", "d")]
    # Of c only the patch far from d is there.
    assert overlapping_samples(metadata, {"train": [3], "val": [4]}) == []
    shuffled = metadata.sample(frac=1, random_state=0)
    assert overlapping_samples(shuffled, {"val": [0], "train": [1]}) == [("a", "b")]


def test_a_chain_of_overlaps_is_one_group() -> None:
    chain: dict[str, list[Cell]] = {f"c{n:02d}": [(n, 0)] for n in range(30)}
    assert all(abs(a[0][0] - b[0][0]) == 1 for a, b in pairwise(chain.values()))
    assert set(group_samples(metadata_of(chain)).values()) == {0}
