"""Which scene fits a footprint: the score, its direction, its limits."""

import geopandas as gpd
import pandas as pd
import pyproj
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from darts.training.matching import Candidate, Look, cover_of, days_between, match_scenes, score_of
from darts.training.options import MatchOptions
from darts_utils.errors import ConfigError, StoreError

DAY = pd.Timestamp("2021-07-12", tz="UTC")
AREA = shapely.box(-136, 68, -135, 69)
OPTIONS = MatchOptions(max_days=7, min_cover=0.5, max_cloud_cover=30)
shares = st.floats(0, 1)


def footprints(image_id: str = "labels", time: object = DAY, area: object = AREA) -> gpd.GeoDataFrame:
    times = pd.to_datetime(pd.Series([time]), utc=True)
    return gpd.GeoDataFrame({"image_id": [image_id], "time": times, "region": [""]}, geometry=[area], crs="EPSG:4326")


def scene(name: str, *, days: float = 0, cover: float = 1, cloud: float | None = 0) -> Candidate:
    """Return a scene at noon some days after the footprint's, which covers a share of it."""
    time = DAY + pd.Timedelta(days=days, hours=12)
    area = shapely.box(-137, 67, -136 + cover, 70)
    return Candidate(scene_id=name, time=time, footprint=area, cloud=cloud)


def chosen(table: pd.DataFrame) -> list[str]:
    return table[table.chosen].scene_id.tolist()


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (scene("z", days=1), scene("a", days=5)),
        (scene("z", days=-1), scene("a", days=5)),
        (scene("z", days=1), scene("a", days=-5)),
        (scene("z", cover=1), scene("a", cover=0.6)),
        (scene("z", cloud=0.05), scene("a", cloud=0.25)),
        (scene("z", cloud=0.2), scene("a", cloud=None)),  # nobody knows: as cloudy as is allowed
    ],
)
def test_the_better_scene_wins_in_each_respect(better: Candidate, worse: Candidate) -> None:
    for order in ([better, worse], [worse, better]):
        table = match_scenes(footprints(), order, OPTIONS).set_index("scene_id")
        assert table.score["z"] > table.score["a"] > 0
        assert table.chosen["z"]
        assert not table.chosen["a"]


def test_the_score_is_the_product_of_the_three_shares() -> None:
    table = match_scenes(footprints(), [scene("s", days=3, cover=0.8, cloud=0.25)], OPTIONS)
    row = table.iloc[0]
    assert row.days == pytest.approx(2.5)  # from the end of the day of the labels to noon
    assert row.cover == pytest.approx(0.8, abs=1e-3)
    assert row.score == pytest.approx(row.cover * 0.75 * (1 - 2.5 / 8))


@given(cover=shares, cloud=shares, days=st.floats(0, 30), more=shares, limit=st.floats(0, 30))
def test_the_score_falls_with_cloud_and_days_and_rises_with_cover(
    cover: float, cloud: float, days: float, more: float, limit: float
) -> None:
    options = MatchOptions(max_days=limit)
    score = score_of(cover, cloud, days, options)
    assert 0 <= score <= 1
    assert score_of(min(cover + more, 1), cloud, days, options) >= score
    assert score_of(cover, min(cloud + more, 1), days, options) <= score
    assert score_of(cover, cloud, days + more, options) <= score


def test_within_the_limits_no_scene_scores_zero() -> None:
    assert score_of(0.7, 0.1, 7, MatchOptions(max_days=7)) > 0
    assert score_of(1, 0, 0, MatchOptions(max_days=0)) == 1


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (scene("s", days=9), "8.5 days apart, more than 7"),
        (scene("s", days=-9), "8.5 days apart, more than 7"),
        (scene("s", cover=0.3), "covers 30% of the footprint, less than 50%"),
        (scene("s", cloud=0.4), "40% cloud, more than 30%"),
    ],
)
def test_what_lies_beyond_a_limit_is_refused_with_the_reason(candidate: Candidate, reason: str) -> None:
    row = match_scenes(footprints(), [candidate], OPTIONS).iloc[0]
    assert row.reason == reason
    assert row.score == 0
    assert not row.chosen


def test_all_reasons_are_told() -> None:
    row = match_scenes(footprints(), [scene("s", days=20, cover=0.1, cloud=1)], OPTIONS).iloc[0]
    assert row.reason.count(";") == 2


def test_the_limits_themselves_are_allowed() -> None:
    at = Candidate(scene_id="s", time=DAY - pd.Timedelta(days=7), footprint=AREA, cloud=0.3)
    assert chosen(match_scenes(footprints(), [at], OPTIONS)) == ["s"]


def test_among_equals_the_first_by_name_is_chosen() -> None:
    assert chosen(match_scenes(footprints(), [scene("b"), scene("a"), scene("c")], OPTIONS)) == ["a"]


def test_each_footprint_has_one_scene_and_all_pairs_are_in_the_table() -> None:
    both = pd.concat([footprints("a"), footprints("b", DAY + pd.Timedelta(days=6))], ignore_index=True)
    table = match_scenes(both, [scene("early", days=0), scene("late", days=6)], OPTIONS)
    assert len(table) == 4
    best = table[table.chosen].set_index("image_id").scene_id
    assert best.to_dict() == {"a": "early", "b": "late"}


def test_scenes_elsewhere_are_not_compared() -> None:
    far = Candidate(scene_id="far", time=DAY, footprint=shapely.box(0, 0, 1, 1))
    assert match_scenes(footprints(), [far], OPTIONS).empty
    assert match_scenes(footprints(), [], OPTIONS).empty


def test_the_image_that_was_labelled_goes_before_better_scenes() -> None:
    own = scene("a", days=30, cloud=0.9)
    table = match_scenes(footprints("a"), [own, scene("0", cloud=0)], OPTIONS)
    assert chosen(table) == ["a"]
    undated = match_scenes(footprints("a", None), [own, scene("0")], OPTIONS).set_index("scene_id")
    assert undated.chosen["a"]
    assert undated.reason["0"] == "the labels have no date"


def test_the_pixels_are_asked_only_of_pairs_that_fit_and_beat_what_the_scene_tells() -> None:
    asked = []

    def look(scene_id: str, area: object) -> Look | None:
        asked.append(scene_id)
        return {"cloudy": Look(1.0, 0.5), "half": Look(0.4, 0.0), "clear": Look(0.9, 0.1)}.get(scene_id)

    scenes = [scene("cloudy", cloud=0), scene("half"), scene("clear", cloud=0.9), scene("late", days=30), scene("net")]
    table = match_scenes(footprints(), scenes, OPTIONS, look=look).set_index("scene_id")
    assert sorted(asked) == ["clear", "cloudy", "half", "net"]
    assert table.reason["cloudy"] == "50% cloud, more than 30%"
    assert table.reason["half"] == "covers 40% of the footprint, less than 50%"
    assert table.cloud["clear"] == 0.1
    assert table.cover["clear"] == pytest.approx(0.9)
    assert table.score["net"] == pytest.approx(1)


def test_a_scene_that_cannot_be_looked_at_is_refused_and_stops_nobody() -> None:
    def look(scene_id: str, area: object) -> Look:
        if scene_id == "broken":
            raise StoreError("a chunk is missing")
        return Look(1.0, 0.0)

    table = match_scenes(footprints(), [scene("broken"), scene("whole", days=3)], OPTIONS, look=look)
    assert chosen(table) == ["whole"]
    assert table.reason[0] == "cannot be read: a chunk is missing"


def test_a_footprint_without_an_outline_needs_its_labels_covered() -> None:
    labels = gpd.GeoDataFrame({"image_id": ["a", "a", "b"]}, geometry=[AREA, AREA, AREA.buffer(5)], crs="EPSG:4326")
    table = match_scenes(footprints("a", area=None), [scene("s", cover=0.7)], OPTIONS, labels=labels)
    assert table.cover[0] == pytest.approx(0.7, abs=1e-3)
    assert match_scenes(footprints("a", area=None), [scene("s")], OPTIONS).empty


def test_cover_is_a_share_of_the_ground() -> None:
    # Half of the degrees of latitude, but more than half of the ground: parallels shorten to the north.
    whole, south = shapely.box(0, 60, 10, 80), shapely.box(0, 60, 10, 70)
    geod = pyproj.Geod(ellps="WGS84")
    expected = [abs(geod.geometry_area_perimeter(shapely.segmentize(area, 0.01))[0]) for area in (south, whole)]
    assert cover_of(whole, south) == pytest.approx(expected[0] / expected[1], rel=1e-4)
    assert cover_of(whole, south) > 0.6


def test_cover_across_the_antimeridian() -> None:
    east, west = shapely.box(179, 67, 180, 68), shapely.box(-180, 67, -179, 68)
    both = shapely.MultiPolygon([east, west])
    assert cover_of(both, east) == pytest.approx(0.5, abs=1e-6)
    assert cover_of(both, both) == pytest.approx(1)
    assert cover_of(both, shapely.box(0, 60, 1, 61)) == 0


def test_a_label_of_a_day_is_as_long_as_the_day() -> None:
    assert days_between(DAY, DAY + pd.Timedelta(hours=23)) == 0
    assert days_between(DAY, DAY + pd.Timedelta(hours=36)) == pytest.approx(0.5)
    assert days_between(DAY, DAY - pd.Timedelta(hours=12)) == pytest.approx(0.5)
    noon = DAY + pd.Timedelta(hours=12)
    assert days_between(noon, noon + pd.Timedelta(hours=6)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "wrong", [{"max_days": -1}, {"min_cover": 1.1}, {"max_cloud_cover": -1}, {"max_days": float("nan")}]
)
def test_limits_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MatchOptions(**wrong)
