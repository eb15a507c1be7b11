"""Level 2, slumps across years, coverage: from tile folders written by hand."""

import json
from datetime import date
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
from shapely import affinity, box

from darts_export.dataset import Matching, merge_outputs
from darts_utils.errors import ConfigError

UTM = "EPSG:32608"
ORIGIN = (500_000, 7_600_000)
GEOD = pyproj.Geod(ellps="WGS84")


def square(left, bottom, width, height=None):
    """A box in pixels of 10 m from the origin."""
    x, y = ORIGIN[0] + 10 * left, ORIGIN[1] + 10 * bottom
    return box(x, y, x + 10 * width, y + 10 * (width if height is None else height))


def write_tile(
    out, name, day, whole=(), cut=(), *, seen=None, clear=None, crs=UTM, sensor="Sentinel-2", image=None, tags=None,
    mean=0.8, suffix="", threshold=np.nan, model="ensemble",
):  # fmt: skip
    folder = Path(out) / name / f"{day}-{sensor}"
    folder.mkdir(parents=True, exist_ok=True)
    ids = {"tile_id": name, "image_id": image or f"{day}-{sensor}", "sensor": sensor}
    time = pd.Timestamp(f"{day}T20:00:00Z") if day else pd.NaT
    for file, shapes in (("prediction_segments", whole), ("prediction_cut_segments", cut)):
        shapes = np.array(list(shapes), dtype=object)
        area = [abs(GEOD.geometry_area_perimeter(shape)[0]) for shape in gpd.GeoSeries(shapes, crs=crs).to_crs(4326)]
        frame = gpd.GeoDataFrame(
            {
                "npixel": np.rint(shapely.area(shapes) / 100).astype("int64"), "area_m2": np.array(area, "float64"),
                "mean": np.full(len(shapes), mean), "min": np.full(len(shapes), mean - 0.1),
                "max": np.full(len(shapes), mean + 0.1), "median": np.full(len(shapes), mean),
                "std": np.full(len(shapes), 0.05), "model": pd.Series([model] * len(shapes), dtype="string"),
                "threshold": np.full(len(shapes), threshold),
            },
            geometry=list(shapes), crs=crs,
        )  # fmt: skip
        frame.to_parquet(folder / f"{file}{suffix}.parquet")
        if tags:
            table = pq.read_table(folder / f"{file}{suffix}.parquet")
            metadata = table.schema.metadata | {b"darts": json.dumps(tags).encode()}
            pq.write_table(table.replace_schema_metadata(metadata), folder / f"{file}{suffix}.parquet")
    seen = square(-100, -100, 300) if seen is None else seen
    extents = gpd.GeoDataFrame(
        {"kind": ["seen", "clear"], **{key: pd.Series([value] * 2, dtype="string") for key, value in ids.items()}},
        geometry=[seen, seen if clear is None else clear], crs=crs,
    )  # fmt: skip
    extents["acquisition_time"] = pd.Series([time] * 2, dtype="datetime64[ms, UTC]")
    extents.to_parquet(folder / "prediction_extent.parquet")
    return folder


def merge(tmp_path, *outputs, **options):
    summary = merge_outputs(outputs or [tmp_path / "run"], tmp_path / "out", **options)
    tables = {name: gpd.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("level1", "level2", "slumps")}
    return summary, *tables.values()


def test_days_of_a_year_become_one_footprint(tmp_path):
    run = tmp_path / "run"
    write_tile(run, "a", "2021-07-01", [square(0, 0, 10)], mean=0.6)
    write_tile(run, "a", "2021-07-11", [square(5, 0, 10)], mean=0.8)
    write_tile(run, "a", "2021-08-01")
    write_tile(run, "a", "2022-07-01", [square(50, 50, 7)])
    _, level1, level2, slumps = merge(tmp_path)
    assert len(level1) == 3
    assert len(level2) == len(slumps) == 2
    first = level2[level2.year == 2021].iloc[0]
    assert (first.n_observations, first.n_looks) == (2, 3)
    assert (first.first_date, first.last_date) == (date(2021, 7, 1), date(2021, 7, 11))
    assert first.area_m2 == pytest.approx(abs(GEOD.geometry_area_perimeter(first.geometry)[0]), rel=1e-6)
    assert first.area_m2 == pytest.approx(150 * 100, rel=2e-3)
    assert (first.pval_mean, first.pval_min, first.pval_max) == pytest.approx((0.7, 0.5, 0.9))
    assert set(level1.level2_id) == set(level2.id)
    assert level1.crs.to_epsg() == 4326


def test_two_images_of_a_day_are_one_observation_and_two_sensors_are_not(tmp_path):
    run = tmp_path / "run"
    write_tile(run, "a", "2021-07-01", [square(0, 0, 10)], image="first")
    write_tile(run, "b", "2021-07-01", [square(2, 0, 10)], image="second")
    write_tile(run, "c", "2021-07-01", [square(0, 0, 9)], sensor="PlanetScope")
    _, level1, level2, _ = merge(tmp_path)
    assert sorted(level1.sensor) == ["PlanetScope", "Sentinel-2"]
    both = level1[level1.sensor == "Sentinel-2"].iloc[0]
    assert (both.npixel, both.image_ids, both.n_pieces) == (120, "first;second", 2)
    assert (len(level2), level2.n_observations[0], level2.sensors[0]) == (1, 1, "PlanetScope;Sentinel-2")


def test_pieces_that_meet_at_a_corner_are_one_and_a_pixel_apart_two(tmp_path):
    run = tmp_path / "run"
    write_tile(run, "a", "2021-07-01", [square(0, 0, 10), square(30, 0, 10)])
    write_tile(run, "b", "2021-07-01", [square(10, 10, 10), square(41, 0, 10)])
    _, level1, *_ = merge(tmp_path)
    assert sorted(level1.npixel) == [100, 100, 200]
    assert level1[level1.npixel == 200].geometry.iloc[0].geom_type == "MultiPolygon"


def test_a_scene_in_two_output_folders_counts_once_and_the_first_named_wins(tmp_path):
    write_tile(tmp_path / "old", "a", "2021-07-01", [square(0, 0, 10)], mean=0.5)
    write_tile(tmp_path / "new", "a", "2021-07-01", [square(0, 0, 12)], mean=0.7)
    summary, level1, *_ = merge(tmp_path, tmp_path / "new", tmp_path / "old")
    assert (summary.tiles, summary.duplicates, len(level1)) == (1, 1, 1)
    assert level1.npixel[0] == 144
    summary, level1, *_ = merge(tmp_path, tmp_path / "old", tmp_path / "new", tmp_path / "old")
    assert (summary.tiles, level1.npixel[0]) == (1, 100)


def test_empty_tiles_and_tiles_with_cut_segments_alone(tmp_path):
    run = tmp_path / "run"
    seen = square(0, 0, 100)
    write_tile(run, "a", "2021-07-01", seen=seen)
    write_tile(run, "b", "2021-07-01", cut=[square(95, 10, 9)], seen=seen)  # the other half is in c, which saw less
    write_tile(run, "c", "2021-07-01", cut=[square(95, 10, 15)], seen=square(100, 0, 100))
    write_tile(run, "d", "2021-07-01", cut=[square(195, 50, 10)], seen=square(100, 0, 100))  # reaches out
    write_tile(run, "e", "2021-07-01", cut=[square(150, 50, 3)], seen=square(100, 0, 100))  # too small
    summary, level1, *_ = merge(tmp_path)
    assert summary.tiles == 5
    assert (len(level1), level1.npixel[0], bool(level1.cut[0])) == (1, 225, True)
    assert (summary.dropped.unseen, summary.dropped.small) == (1, 1)


def test_what_one_image_saw_whole_survives_what_another_saw_cut(tmp_path):
    run = tmp_path / "run"
    seen = square(-100, -100, 130)
    write_tile(run, "a", "2021-07-01", [square(0, 0, 10), square(12, 0, 5)], image="clear", seen=seen)
    # Under the edge of a cloud both are one, which goes on to where nobody saw.
    write_tile(run, "b", "2021-07-01", cut=[square(5, 5, 60, 3)], image="cloudy", seen=seen)
    write_tile(run, "c", "2021-07-01", [square(13, 3, 5)], image="third", seen=seen)
    summary, level1, *_ = merge(tmp_path)
    assert (summary.dropped.unseen, summary.dropped.small) == (0, 0)
    assert sorted(zip(level1.npixel, level1.image_ids, level1.cut, strict=True)) == [
        (42, "clear;third", False), (100, "clear", False),
    ]  # fmt: skip
    assert sorted(level1.n_pieces) == [1, 2]


def test_the_least_and_largest_probability_are_those_of_all_images(tmp_path):
    run = tmp_path / "run"
    write_tile(run, "a", "2021-07-01", [square(0, 0, 10)], image="first", mean=0.6)
    write_tile(run, "b", "2021-07-01", [square(2, 2, 4)], image="second", mean=0.85)
    _, level1, *_ = merge(tmp_path)
    assert tuple(level1[["pval_min", "pval_mean", "pval_max"]].iloc[0]) == pytest.approx((0.5, 0.6, 0.95))


def test_tiles_of_different_models_and_thresholds_are_told(tmp_path, caplog):
    run = tmp_path / "run"
    for name, left, threshold, model in (("a", 0, 0.5, "unet"), ("b", 5, 0.3, "ensemble"), ("c", 50, 0.3, "ensemble")):
        tags = {"DARTS_binarizethreshold": threshold, "DARTS_mmu": 32, "DARTS_growthreshold": None}
        write_tile(run, name, "2021-07-01", [square(left, 0, 10)], tags=tags, threshold=threshold, model=model)
    summary, level1, *_ = merge(tmp_path)
    assert summary.mixed == ("binarization_threshold: 0.3, 0.5",)
    assert "binarization_threshold: 0.3, 0.5" in caplog.text
    rows = level1.set_index("tile_ids")
    assert rows.model.to_dict() == {"a;b": "ensemble;unet", "c": "ensemble"}
    assert np.isnan(rows.threshold["a;b"])
    assert rows.threshold["c"] == 0.3
    assert merge(tmp_path, tmp_path / "run" / "b")[0].mixed == ()


def test_the_smallest_object_is_that_of_the_run(tmp_path):
    tags = {"DARTS_mmu": 9}
    write_tile(tmp_path / "run", "a", "2021-07-01", cut=[square(10, 10, 3), square(20, 10, 2, 4)], tags=tags)
    _, level1, *_ = merge(tmp_path)
    assert list(level1.npixel) == [9]
    _, level1, *_ = merge(tmp_path, min_object_size=8)
    assert sorted(level1.npixel) == [8, 9]


def test_the_same_tiles_give_the_same_bytes_whatever_the_batches(tmp_path):
    run = tmp_path / "run"
    rng = np.random.default_rng(5)
    for day in ("2020-07-01", "2020-07-09", "2021-07-01"):
        for name, left in (("a", 0), ("b", 1400)):
            whole = [square(left + x, y, rng.integers(6, 12)) for x, y in rng.integers(0, 1500, (14, 2))]
            write_tile(run, name, day, shapely.get_parts(shapely.union_all(whole)), seen=square(left, 0, 1520))
    merge_outputs([run], tmp_path / "once" / "dataset")
    merge_outputs([run], tmp_path / "twice" / "dataset")
    merge_outputs([run], tmp_path / "small" / "dataset", pieces_at_once=5)
    for file in sorted(path.name for path in (tmp_path / "once" / "dataset").iterdir()):
        once, twice = ((tmp_path / name / "dataset" / file).read_bytes() for name in ("once", "twice"))
        assert once == twice, file
    for table in ("level1", "level2", "slumps"):
        frames = [gpd.read_parquet(tmp_path / name / "dataset" / f"{table}.parquet") for name in ("once", "small")]
        one, other = (frame.sort_values("id").reset_index(drop=True) for frame in frames)
        pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other))


@pytest.mark.parametrize("wrong", [{"drift_m": -1}, {"drift_m": 1e9}, {"min_share": 0}, {"min_share": np.nan}])
def test_a_rule_that_cannot_match_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong)).removesuffix("_m")):
        Matching(**wrong)


def follow(tmp_path, *years, **options):
    """Merge outlines of years from 2018 on; return slumps, and the slump id of each Level 2 footprint by its place."""
    for year, outlines in enumerate(years, 2018):
        write_tile(tmp_path / "run", "a", f"{year}-07-01", outlines)
    return tracked(tmp_path, **options)


def tracked(tmp_path, **options):
    _, _, level2, slumps = merge(tmp_path, **options)
    middle = level2.geometry.to_crs(UTM).centroid
    level2["at"] = ((middle.x - ORIGIN[0]) / 10).round().astype(int)
    return slumps.set_index("id"), level2.set_index(["year", "at"]).slump_id


def test_a_slump_that_drifts_and_grows_keeps_its_id(tmp_path):
    shifted = [affinity.translate(square(0, 0, 9, 3), 8, -8)]
    slumps, _ = follow(tmp_path, [square(0, 0, 9, 3)], shifted, [], [square(0, 0, 12, 4)])
    assert len(slumps) == 1
    (slump,) = slumps.itertuples()
    assert (slump.years, slump.n_years, slump.n_years_looked) == ("2018;2019;2021", 3, 4)
    assert (slump.first_year, slump.last_year, slump.last_look) == (2018, 2021, date(2021, 7, 1))
    assert slump.area_change_m2 == pytest.approx(2100, rel=2e-3)


def test_neighbours_that_hardly_overlap_are_two_slumps(tmp_path):
    slumps, _ = follow(tmp_path, [square(0, 0, 10)], [square(9, 0, 10)], matching=Matching(drift_m=2))
    assert len(slumps) == 2
    assert slumps.parent_id.isna().all()


def test_of_a_split_the_larger_part_keeps_the_id(tmp_path):
    slumps, ids = follow(tmp_path, [square(0, 0, 20, 10)], [square(0, 0, 12, 10), square(14, 0, 6, 10)])
    assert ids[2019, 6] == ids[2018, 10]
    assert ids[2019, 17] != ids[2018, 10]
    assert slumps.parent_id[ids[2019, 17]] == ids[2018, 10]


def test_of_a_merge_the_larger_slump_goes_on_and_the_other_comes_back(tmp_path):
    apart = [square(0, 0, 12, 10), square(14, 0, 6, 10)]
    slumps, ids = follow(tmp_path, apart, [square(0, 0, 20, 10)])
    large, small = ids[2018, 6], ids[2018, 17]
    assert ids[2019, 10] == large
    assert slumps.merged_into_id[small] == large
    slumps, ids = follow(tmp_path, apart, [square(0, 0, 20, 10)], apart)
    assert (ids[2020, 6], ids[2020, 17]) == (large, small)
    assert slumps.merged_into_id.isna().all()


def test_of_two_that_merged_the_smaller_comes_back_though_it_is_the_larger_one_then(tmp_path):
    apart = [square(0, 0, 12, 10), square(14, 0, 6, 10)]
    # What comes back shares all of itself with what it was, and with all that it merged into.
    for turn in range(8):
        left = 1000 * turn
        first, merged, last = (
            [affinity.translate(shape, left) for shape in shapes]
            for shapes in (apart, [square(0, 0, 20, 10)], [square(0, 0, 2, 10), square(15, 2, 4, 6)])
        )
        for year, outlines in enumerate((first, merged, last), 2018):
            write_tile(tmp_path / "run", f"a{turn}", f"{year}-07-01", outlines)
    slumps, ids = tracked(tmp_path)
    for left in range(0, 800, 100):
        assert (ids[2020, left + 1], ids[2020, left + 17]) == (ids[2018, left + 6], ids[2018, left + 17])
    assert slumps.parent_id.isna().all()
    assert slumps.merged_into_id.isna().all()


def test_a_later_year_and_another_region_change_no_id(tmp_path):
    rng = np.random.default_rng(8)
    years = []
    for _ in range(3):
        outlines = [square(x, y, *rng.integers(6, 12, 2)) for x, y in rng.integers(-80, 180, (40, 2))]
        years.append(list(shapely.get_parts(shapely.union_all(outlines))))
    follow(tmp_path, *years[:2])
    before = gpd.read_parquet(tmp_path / "out" / "level2.parquet").set_index("id")
    follow(tmp_path, *years)
    write_tile(tmp_path / "run", "far", "2018-07-01", [square(5000, 0, 10)], seen=square(4900, -50, 300))
    _, _, level2, _ = merge(tmp_path)
    after = level2.set_index("id")
    assert len(after) > len(before)
    assert after.loc[before.index, "slump_id"].equals(before["slump_id"])
    assert after.loc[before.index].geometry.geom_equals(before.geometry).all()
