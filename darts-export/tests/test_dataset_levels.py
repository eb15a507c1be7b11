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
from darts_utils.errors import ConfigError, MissingDataError

UTM = "EPSG:32608"
ORIGIN = (500_000, 7_600_000)
GEOD = pyproj.Geod(ellps="WGS84")


def square(left, bottom, width, height=None):
    """A box in pixels of 10 m from the origin."""
    x, y = ORIGIN[0] + 10 * left, ORIGIN[1] + 10 * bottom
    return box(x, y, x + 10 * width, y + 10 * (width if height is None else height))


def write_tile(
    out, name, day, whole=(), cut=(), *, seen=None, clear=None, crs=UTM, sensor="Sentinel-2", image=None, tags=None,
    mean=0.8, suffix="",
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
                "std": np.full(len(shapes), 0.05), "model": pd.Series(["ensemble"] * len(shapes), dtype="string"),
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


def test_the_smallest_object_is_that_of_the_run(tmp_path):
    tags = {"DARTS_mmu": 9}
    write_tile(tmp_path / "run", "a", "2021-07-01", cut=[square(10, 10, 3), square(20, 10, 2, 4)], tags=tags)
    _, level1, *_ = merge(tmp_path)
    assert list(level1.npixel) == [9]
    _, level1, *_ = merge(tmp_path, min_object_size=8)
    assert sorted(level1.npixel) == [8, 9]


def test_damaged_tiles_are_named_and_stop_nothing(tmp_path, caplog):
    run = tmp_path / "run"
    write_tile(run, "good", "2021-07-01", [square(0, 0, 10)])
    for name, file in (("cut-short", "prediction_segments"), ("gone", "prediction_cut_segments")):
        path = write_tile(run, name, "2021-07-01", [square(50, 0, 10)]) / f"{file}.parquet"
        path.write_bytes(path.read_bytes()[:-30]) if name == "cut-short" else path.unlink()
    write_tile(run, "undated", "", [square(50, 0, 10)])
    write_tile(run, "crooked", "2021-07-01", [shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 9)])])
    hidden = run / ".half.tmp"
    write_tile(hidden, "x", "2021-07-01", [square(50, 0, 10)])
    summary, level1, *_ = merge(tmp_path)
    assert (summary.tiles, len(level1)) == (1, 1)
    assert len(summary.damaged) == 4
    for name in ("cut-short", "gone", "undated", "crooked"):
        assert any(name in reason for reason in summary.damaged)
        assert name in caplog.text
    with pytest.raises(MissingDataError, match="no tile could be read"):
        merge_outputs([run / "gone"], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_other_files_are_never_replaced(tmp_path):
    write_tile(tmp_path / "run", "a", "2021-07-01")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").touch()
    with pytest.raises(ConfigError, match=r"thesis\.docx"):
        merge(tmp_path)
    with pytest.raises(MissingDataError, match="no tile"):
        merge_outputs([tmp_path / "out"], tmp_path / "other")


def test_the_same_tiles_give_the_same_bytes_whatever_the_batches(tmp_path):
    run = tmp_path / "run"
    rng = np.random.default_rng(5)
    for day in ("2020-07-01", "2020-07-09", "2021-07-01"):
        for name, left in (("a", 0), ("b", 1400)):
            places = rng.integers(0, 1500, (40, 2))
            whole = [square(left + x, y, rng.integers(6, 12)) for x, y in places[:30] * [1, 1]]
            whole = list(shapely.get_parts(shapely.union_all(whole)))
            write_tile(run, name, day, whole, seen=square(left, 0, 1520))
    merge_outputs([run], tmp_path / "once")
    merge_outputs([run], tmp_path / "twice")
    merge_outputs([run], tmp_path / "small", pieces_at_once=5)
    for file in sorted(path.name for path in (tmp_path / "once").iterdir()):
        if file != "collection.json":  # it names the folder
            assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes(), file
    for table in ("level1", "level2", "slumps"):
        frames = [gpd.read_parquet(tmp_path / name / f"{table}.parquet") for name in ("once", "small")]
        one, other = (frame.sort_values("id").reset_index(drop=True) for frame in frames)
        pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other))


def follow(tmp_path, *years, **options):
    """Merge outlines of years from 2018 on; return slumps, and the slump id of each Level 2 footprint by its place."""
    for year, outlines in enumerate(years, 2018):
        write_tile(tmp_path / "run", "a", f"{year}-07-01", outlines)
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
