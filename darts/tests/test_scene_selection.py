import json
from pathlib import Path

import pytest

from darts.pipelines.scene_selection import SceneQuery, checked_id, read_scene_ids, write_scene_ids
from darts_utils.errors import ConfigError


def query(**changes: object) -> SceneQuery:
    values: dict = {
        "tile_ids": None, "aoi_file": None, "start_date": None, "end_date": None,
        "max_cloud_cover": 10, "max_snow_cover": 10, "months": None, "years": None,
    }  # fmt: skip
    return SceneQuery(**{**values, **changes})


def test_the_same_question_has_the_same_digest() -> None:
    archive = {"archive": "cdse"}
    digest = query(tile_ids=("08WMA", "T52WEE")).digest(archive)
    assert digest == query(tile_ids=("52WEE", "t08wma")).digest(archive)
    for other in (
        query(tile_ids=("08WMA",)).digest(archive),
        query(tile_ids=("08WMA", "T52WEE"), max_cloud_cover=0).digest(archive),
        query(tile_ids=("08WMA", "T52WEE"), months=(7,)).digest(archive),
        query(tile_ids=("08WMA", "T52WEE")).digest({"archive": "gee"}),
    ):
        assert other != digest


def test_ways_of_writing_one_question_have_one_digest() -> None:
    tiles = ("08WMA",)
    months = query(tile_ids=tiles, months=(7, 8)).digest({})
    assert months == query(tile_ids=("8WMA", "T08WMA"), months=(8, 7, 7)).digest({})
    free = query(tile_ids=tiles, max_cloud_cover=None).digest({})
    assert free == query(tile_ids=tiles, max_cloud_cover=100).digest({})
    assert query(tile_ids=tiles, max_cloud_cover=0).digest({}) != free


def test_an_area_may_be_a_folder_or_a_shapefile_of_several_files(tmp_path: Path) -> None:
    folder = tmp_path / "area.gdb"
    folder.mkdir()
    (folder / "a").write_text("one")
    first = query(aoi_file=folder).digest({})
    (folder / "a").write_text("two")
    assert query(aoi_file=folder).digest({}) != first
    shape = tmp_path / "area.shp"
    shape.write_text("same")
    (tmp_path / "area.prj").write_text("EPSG:3413")
    first = query(aoi_file=shape).digest({})
    (tmp_path / "area.prj").write_text("EPSG:4326")
    assert query(aoi_file=shape).digest({}) != first


def test_the_area_counts_by_its_content(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.geojson", "b.geojson", "c.geojson")]
    for file, text in zip(files, ("one", "one", "two"), strict=True):
        file.write_text(text)
    first, same, other = (query(aoi_file=file).digest({}) for file in files)
    assert first == same != other
    with pytest.raises(ConfigError, match=r"aoi_file .*absent"):
        query(aoi_file=tmp_path / "absent").digest({})


def test_ids_are_written_sorted_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "ids.json"
    write_scene_ids(file, ["b", "a"])
    assert json.loads(file.read_text()) == ["a", "b"]
    assert read_scene_ids(file, "scene_id_file") == ["a", "b"]


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\\b", "a\0", "x" * 151])
def test_an_id_must_be_a_plain_name(name: str) -> None:
    with pytest.raises(ConfigError, match="scene_ids"):
        checked_id(name, "scene_ids")


def test_the_suffix_of_a_product_folder_is_no_part_of_the_id() -> None:
    assert checked_id("S2A_X.SAFE", "scene_ids") == "S2A_X"
