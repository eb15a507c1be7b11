"""Label files, the published layout with all that is wrong in it, and any other vector file."""

from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest
import shapely

from darts.training.labels import LabelSet, read_labels
from darts.training.options import LabelOptions
from darts_utils.errors import ConfigError

SHARED_LABELS = Path(__file__).parents[3] / "shared" / "data" / "labels"
SCENE, ORTHOTILE = "20200722_081437_1032", "4688749_0470419_2021-07-12_105c"


def write(file: Path, rows: list[dict], geometry: list, crs: str | None = "EPSG:4326") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    gpd.GeoDataFrame(rows, geometry=geometry, crs=crs).to_file(file)
    return file


def square(lon: float, lat: float, side: float = 0.01) -> shapely.Polygon:
    return shapely.box(lon, lat, lon + side, lat + side)


def row(image_id: str, date: str, label: object = 1, region: str = "Peel Plateau") -> dict:
    return {"image_id": image_id, "image_date": date, "label": label, "region": region}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as published: dates that are none, ids that lack their end, labels without footprints."""
    labels = [
        (row(SCENE, "2020-07-22", region="Banks_Island"), square(-120, 72)),
        (row(SCENE, "2020-07-22", region="Banks Island"), square(-119.9, 72)),
        (row(ORTHOTILE[:-1], "2021-07-12", region=" Brooks  Range "), square(-150, 68)),
    ]
    write(tmp_path / "TrainingLabel_X_iteration002.gpkg", *map(list, zip(*labels, strict=True)))
    footprints = [
        ({"image_id": SCENE, "image_date": "202-00-722"}, shapely.box(-121, 71, -119, 73)),
        ({"image_id": ORTHOTILE, "image_date": "2021-07-12"}, shapely.box(-151, 67, -149, 69)),
        ({"image_id": "5_7_2021-07-12_2241", "image_date": "2021-07-12"}, shapely.box(-141, 67, -139, 69)),
    ]
    write(tmp_path / "ImageFootprints_X_iteration002.gpkg", *map(list, zip(*footprints, strict=True)))
    write(
        tmp_path / "TrainingLabel_X_iteration001.gpkg",
        [row("20180703_192559_1006", "2018-07-03"), row("20180703_192600_1006", "2018-07-03")],
        [square(-130, 70), square(-130, 70)],
    )
    return tmp_path


def problem(labels: LabelSet, words: str) -> int:
    """Return the number of the one problem that holds some words; 0 where there is none."""
    found = [line for line in labels.problems if words in line]
    assert len(found) <= 1
    return int(found[0].split()[0]) if found else 0


def test_the_published_layout_is_read_with_all_that_is_wrong_in_it(published: Path) -> None:
    labels = read_labels(LabelOptions(labels=[published]))
    assert labels.labels.crs.to_epsg() == labels.footprints.crs.to_epsg() == 4326
    by_image = labels.footprints.set_index("image_id")
    assert set(by_image.index) == {SCENE, ORTHOTILE, "5_7_2021-07-12_2241"}
    assert by_image.time[SCENE] == pd.Timestamp("2020-07-22T08:14:37Z")  # from the id, as the date is none
    assert by_image.time[ORTHOTILE] == pd.Timestamp("2021-07-12T00:00:00Z")
    assert by_image.region[SCENE] == "Banks Island"
    assert by_image.region[ORTHOTILE] == "Brooks Range"
    assert len(labels.of(SCENE)) == 2
    assert len(labels.of(ORTHOTILE)) == 1  # its id lacked the last character
    assert problem(labels, "lacks its end") == 1
    assert problem(labels, "images without a footprint") == 2
    assert problem(labels, "date that can be read") == 1
    assert problem(labels, "without any label") == 1


def test_an_id_that_lacks_its_end_is_not_guessed(tmp_path: Path) -> None:
    write(tmp_path / "labels.gpkg", [row("7_1_2021-07-12_10", "2021-07-12")] * 2, [square(0, 70), square(1, 70)])
    areas = [shapely.box(-1, 69, 3, 72)] * 2
    twins = [row("7_1_2021-07-12_105c", "2021-07-12"), row("7_1_2021-07-12_1077", "2021-07-12")]
    other_day = [row("7_1_2021-07-12_105c", "2021-07-13"), row("8_1_2021-07-12_105c", "2021-07-12")]
    for footprints in (twins, other_day):
        write(tmp_path / "footprints.gpkg", footprints, areas)
        options = LabelOptions(labels=[tmp_path / "labels.gpkg"], footprints=tmp_path / "footprints.gpkg")
        labels = read_labels(options)
        assert len(labels.labels) == 0
        assert problem(labels, "images without a footprint") == 2


def test_labels_without_footprints_count_for_the_whole_scene_only_where_one_says_so(published: Path) -> None:
    old = published / "TrainingLabel_X_iteration001.gpkg"
    with pytest.raises(ConfigError, match=r"2 labels of 2 images without a footprint.*--whole-scene"):
        read_labels(LabelOptions(labels=[old]))
    labels = read_labels(LabelOptions(labels=[old], whole_scene=True))
    assert labels.footprints.geometry.isna().all()
    assert set(labels.footprints.image_id) == {"20180703_192559_1006", "20180703_192600_1006"}
    assert set(labels.footprints.time) == {pd.Timestamp("2018-07-03", tz="UTC")}
    assert set(labels.footprints.region) == {"Peel Plateau"}


def test_footprints_without_labels_can_be_left_out(published: Path) -> None:
    labels = read_labels(LabelOptions(labels=[published], keep_unlabelled=False))
    assert set(labels.footprints.image_id) == {SCENE, ORTHOTILE}


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 0, 2], [1, 0, 2]), ([1.0, None, 2.0], [1, 2, 2]), (["1", "2", "x"], [1, 2, 2]), ([1, 3, -1], [1, 2, 2])],
)
def test_the_value_of_a_label_is_read_in_any_type(tmp_path: Path, values: list, expected: list) -> None:
    file = write(tmp_path / "a.gpkg", [row("a", "2021-01-01", v) for v in values], [square(k, 70) for k in range(3)])
    labels = read_labels(LabelOptions(labels=[file], whole_scene=True))
    assert labels.labels.label.tolist() == expected
    assert labels.labels.label.dtype == "uint8"
    odd = sum(value not in (0, 1, 2, "0", "1", "2") for value in values)
    assert problem(labels, "a value other than") == odd


def test_invalid_outlines_are_repaired_and_what_has_no_area_goes(tmp_path: Path) -> None:
    bow = shapely.Polygon([(0, 70), (1, 71), (1, 70), (0, 71)])
    shapes = [bow, shapely.Point(0, 70), shapely.Polygon([(0, 70), (1, 70), (2, 70)]), square(3, 70)]
    file = write(tmp_path / "a.geojson", [{"name": k} for k in range(4)], shapes)
    labels = read_labels(LabelOptions(labels=[file], whole_scene=True))
    assert labels.labels.is_valid.all()
    assert labels.labels.area.tolist() == pytest.approx([0.5, 1e-4])
    assert problem(labels, "invalid outlines") == 2
    assert problem(labels, "no polygons") == 1
    assert problem(labels, "enclose no area") == 1


def test_any_vector_file_in_any_crs_with_footprints(tmp_path: Path) -> None:
    places = gpd.GeoSeries([shapely.box(500_000, 7_700_000, 500_100, 7_700_100)], crs="EPSG:32608")
    (inside,) = places
    outside = shapely.box(600_000, 7_700_000, 600_100, 7_700_100)
    file = write(tmp_path / "mine.shp", [{"who": "me"}, {"who": "me"}], [inside, outside], "EPSG:32608")
    area = shapely.box(490_000, 7_690_000, 510_000, 7_710_000)
    footprints = write(tmp_path / "areas.fgb", [{"taken": "2021-08-21", "place": "Peel"}], [area], "EPSG:32608")
    labels = read_labels(LabelOptions(labels=[file], footprints=footprints, date_column="taken", region_column="place"))
    assert labels.footprints.image_id.tolist() == ["areas-1"]
    assert labels.footprints.time.tolist() == [pd.Timestamp("2021-08-21", tz="UTC")]
    assert labels.footprints.region.tolist() == ["Peel"]
    assert len(labels.labels) == 1
    assert problem(labels, "lie in no footprint") == 1
    there = labels.labels.geometry.to_crs("EPSG:32608").iloc[0]
    assert there.symmetric_difference(inside).area < 1e-2
    # The long edges of a footprint are bent as they run: straight in UTM, not in degrees.
    outline = labels.footprints.geometry.to_crs("EPSG:32608").iloc[0]
    assert shapely.hausdorff_distance(outline, area, densify=0.05) < 0.5


def test_footprints_across_the_antimeridian_are_split(tmp_path: Path) -> None:
    across = shapely.Polygon([(179.5, 67), (-179.5, 67), (-179.5, 68), (179.5, 68)])
    footprints = write(tmp_path / "f.geojson", [{"image_id": "a", "image_date": "2021-07-01"}], [across])
    file = write(tmp_path / "l.geojson", [{}] * 2, [square(179.7, 67.2), square(-179.7, 67.2)])
    labels = read_labels(LabelOptions(labels=[file], footprints=footprints))
    assert labels.footprints.geometry.iloc[0].area == pytest.approx(1)
    assert len(labels.of("a")) == 2


def test_annotators_are_told_apart(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{k}" / "site.gpkg", [{"id": k}] * (k + 1), [square(0, 70)] * (k + 1)) for k in range(3)]
    options = LabelOptions(
        annotators=files, min_agreeing=2, disputed_from=1, whole_scene=True, date="2021-08-21", region="Peel"
    )
    labels = read_labels(options)
    assert labels.footprints.image_id.tolist() == ["site"]
    assert labels.footprints.time.tolist() == [pd.Timestamp("2021-08-21", tz="UTC")]
    assert labels.labels.annotator.value_counts().to_dict() == {0: 1, 1: 2, 2: 3}
    assert labels.agreement.min_agreeing == 2
    assert labels.agreement.disputed_from == 1


def test_an_image_on_which_nobody_drew_anything_is_background(tmp_path: Path) -> None:
    nothing = gpd.GeoDataFrame({"image_id": [], "image_date": [], "label": []}, geometry=[], crs="EPSG:4326")
    nothing.to_file(tmp_path / "TrainingLabel_X.gpkg", geometry_type="MultiPolygon")
    write(tmp_path / "ImageFootprints_X.gpkg", [row("a", "2021-07-01")], [square(0, 70)])
    labels = read_labels(LabelOptions(labels=[tmp_path]))
    assert labels.footprints.image_id.tolist() == ["a"]
    assert labels.footprints.region.tolist() == ["Peel Plateau"]
    assert len(labels.of("a")) == 0


def test_the_same_image_in_two_files_is_one_footprint(tmp_path: Path) -> None:
    for k in range(2):
        write(tmp_path / f"TrainingLabel_{k}.gpkg", [row("a_b", "2021-07-01")], [square(k, 70)])
        area = shapely.box(k, 69, k + 1, 71)
        write(tmp_path / f"ImageFootprints_{k}.gpkg", [{"image_id": "a_b", "image_date": "2021-07-01"}], [area])
    labels = read_labels(LabelOptions(labels=[tmp_path]))
    assert labels.footprints.geometry.area.tolist() == pytest.approx([4])
    assert len(labels.of("a_b")) == 2


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no .*nothing\.gpkg"):
        read_labels(LabelOptions(labels=[tmp_path / "nothing.gpkg"]))
    with pytest.raises(ConfigError, match=r"^annotators: there is no .*nothing\.gpkg; check --annotators"):
        read_labels(LabelOptions(annotators=[tmp_path / "nothing.gpkg"]))
    with pytest.raises(ConfigError, match=r"holds no TrainingLabel"):
        read_labels(LabelOptions(labels=[tmp_path]))
    (tmp_path / "text.gpkg").write_text("no vectors")
    with pytest.raises(ConfigError, match=r"text\.gpkg cannot be read"):
        read_labels(LabelOptions(labels=[tmp_path / "text.gpkg"]))
    bare = write(tmp_path / "bare.shp", [{"id": 1}], [square(0, 70)], crs=None)
    with pytest.raises(ConfigError, match=r"bare\.shp has no CRS"):
        read_labels(LabelOptions(labels=[bare]))
    good = write(tmp_path / "good.gpkg", [{"id": 1}], [square(0, 70)])
    two = write(tmp_path / "two.gpkg", [{"id": 1}], [square(0, 70)])
    gpd.read_file(two).to_file(two, layer="another")
    with pytest.raises(ConfigError, match=r"two\.gpkg has 2 layers"):
        read_labels(LabelOptions(labels=[two], whole_scene=True))
    with pytest.raises(ConfigError, match=r"there is no .*gone\.gpkg"):
        read_labels(LabelOptions(labels=[good], footprints=tmp_path / "gone.gpkg"))
    with pytest.raises(ConfigError, match="date must be a day"):
        read_labels(LabelOptions(labels=[good], whole_scene=True, date="yesterday-ish"))


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="exactly one of labels and annotators"):
        LabelOptions()
    with pytest.raises(ConfigError, match=r"min_agreeing must be 1 … 2"):
        LabelOptions(annotators=[Path("a"), Path("b")], min_agreeing=3)
    with pytest.raises(ConfigError, match="disputed_from"):
        LabelOptions(annotators=[Path("a"), Path("b")], min_agreeing=1, disputed_from=2)


@pytest.mark.skipif(not SHARED_LABELS.is_dir(), reason="the sample data do not stand beside the checkout")
def test_the_labels_that_were_published() -> None:
    labels = read_labels(LabelOptions(labels=[SHARED_LABELS]))
    assert len(labels.footprints) == 28
    assert len(labels.labels) == 3613 - 2182  # iteration 1 has no footprints
    assert labels.footprints.time.notna().all()
    assert set(labels.footprints.time.dt.year) == {2020, 2021, 2022}
    assert problem(labels, "images without a footprint") == 2182
    assert problem(labels, "lacks its end") == 141
    assert problem(labels, "invalid outlines") == 9
    assert labels.labels.is_valid.all()
    joined = labels.labels.merge(labels.footprints[["image_id", "geometry"]], on="image_id")
    areas = gpd.GeoSeries(joined.geometry_y)
    assert gpd.GeoSeries(joined.geometry_x).intersects(areas).all()
