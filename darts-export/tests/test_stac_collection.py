import json
import logging
from datetime import UTC, datetime, timedelta, timezone

import pystac
import pytest
import rustac
from pystac.extensions.file import FileExtension
from pystac.extensions.table import TableExtension
from pystac.stac_object import STACObjectType
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from darts_export.export import Export
from darts_export.metadata import darts_tags, identity
from darts_export.stac import write_item
from darts_export.stac_collection import DatasetAsset, write_collection, write_dataset_collection
from darts_utils.errors import ConfigError, StoreError

DATASET = {"id": "darts", "title": "DARTS", "description": "Thaw features.", "bbox": (170.0, 60.0, -170.0, 75.0)}


def read(path):
    collection = json.loads(path.read_text(encoding="utf-8"))
    JsonSchemaSTACValidator().validate_core(collection, STACObjectType.COLLECTION, "1.1.0")
    return collection


def add_tile(tile, folder, time="2021-08-21T21:00:00Z", **attrs):
    folder.mkdir(parents=True)
    tile = tile.assign_attrs(tile_id=folder.name, acquisition_time=time, **attrs)
    write_item(
        folder / "item.json", Export(tile, folder, (), darts_tags(tile, {}, folder.name), identity(tile, folder.name))
    )


@pytest.fixture
def run_folder(tile, tmp_path):
    """A run of three tiles, one of them nested, as orthotiles are."""
    folder = tmp_path / "my run"
    add_tile(tile, folder / "b_tile")
    add_tile(tile, folder / "a", "2019-07-01T10:00:00.5Z", sensor="PlanetScope")
    add_tile(tile, folder / "4372514" / "4372514_2020-08-01_1040", None)
    (folder / "logs").mkdir()
    (folder / "results.parquet").write_bytes(b"")
    return folder


def test_a_collection_links_all_tiles_of_a_run(run_folder):
    path = write_collection(run_folder)
    assert path == run_folder / "collection.json"
    read(path)
    collection = pystac.Collection.from_file(str(path))
    items = list(collection.get_items())
    assert [item.id for item in items] == ["4372514_2020-08-01_1040", "a", "b_tile"]
    assert collection.id == "my run"
    assert rustac.read_sync(str(path))["id"] == "my run"


def test_links_spell_out_what_has_a_meaning_in_links(tile, tmp_path):
    add_tile(tile, tmp_path / "ä b#c")
    assert read(write_collection(tmp_path))["links"][-1]["href"] == "./ä%20b%23c/item.json"


def test_a_collection_spans_its_tiles(run_folder):
    collection = read(write_collection(run_folder, title="A run", description="Of mine", license="CC-BY-4.0"))
    assert collection["extent"]["temporal"]["interval"] == [["2019-07-01T10:00:00.500000Z", "2021-08-21T21:00:00Z"]]
    item = json.loads((run_folder / "a" / "item.json").read_text())
    assert collection["extent"]["spatial"]["bbox"] == [item["bbox"]]
    assert collection["summaries"]["constellation"] == ["planetscope", "sentinel-2"]
    assert collection["summaries"]["darts:objects"] == {"minimum": 2, "maximum": 2}
    assert (collection["title"], collection["description"], collection["license"]) == ("A run", "Of mine", "CC-BY-4.0")


def test_across_the_antimeridian_the_box_stays_small(make_tile, shared_tile, tmp_path):
    bands = {"probabilities": shared_tile.probabilities.values}
    for crs, corner in (("EPSG:32601", (320000, 7500000)), ("EPSG:32660", (600000, 7500000))):
        add_tile(make_tile(bands, crs, corner, 1000.0), tmp_path / crs[-2:])
    west, _, east, _ = read(write_collection(tmp_path))["extent"]["spatial"]["bbox"][0]
    assert 170 < west < 180
    assert -180 < east < -170


def test_unknown_times_leave_the_interval_open(tile, tmp_path):
    add_tile(tile, tmp_path / "a", None)
    assert read(write_collection(tmp_path))["extent"]["temporal"]["interval"] == [[None, None]]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"type": "Feature"}', '{"type": "Feature", "id": "x", "geometry": {}, "bbox": [1]}'],
)
def test_a_broken_item_is_left_out_with_a_warning(run_folder, caplog, content):
    (run_folder / "a" / "item.json").write_text(content)
    with caplog.at_level(logging.WARNING):
        collection = read(write_collection(run_folder))
    assert len([link for link in collection["links"] if link["rel"] == "item"]) == 2
    assert "item.json is left out" in caplog.text


def test_half_written_folders_are_no_tiles(run_folder):
    (run_folder / "a").rename(run_folder / ".a.01234567.tmp")
    collection = read(write_collection(run_folder))
    assert len([link for link in collection["links"] if link["rel"] == "item"]) == 2


def test_the_same_items_give_the_same_bytes_and_stay_as_they_are(run_folder):
    before = {path: path.read_bytes() for path in run_folder.rglob("item.json")}
    first = write_collection(run_folder).read_bytes()
    assert write_collection(run_folder).read_bytes() == first
    assert {path: path.read_bytes() for path in run_folder.rglob("item.json")} == before


def test_a_folder_without_tiles_gets_none(tmp_path):
    assert write_collection(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match="no such folder"):
        write_collection(tmp_path / "nowhere")


def test_a_merged_dataset_is_described_with_its_columns(tmp_path):
    (tmp_path / "footprints.parquet").write_bytes(b"abc")
    (tmp_path / "summary.csv").write_bytes(b"a\n")
    columns = (("id", "string", "Stable id"), ("geometry", "binary", "Outline"))
    path = write_dataset_collection(
        tmp_path,
        {
            "footprints": DatasetAsset(
                file="footprints.parquet", title="Footprints", description="All", columns=columns, rows=3
            ),
            "summary": DatasetAsset(file="summary.csv", title="Summary", description="By year", roles=("metadata",)),
        },
        **DATASET,
        start=datetime(2018, 7, 1, tzinfo=timezone(timedelta(hours=2))),
        end=datetime(2023, 9, 1, 12),
        keywords=("permafrost",),
        providers=[{"name": "Somebody", "roles": ["producer"]}],
        summaries={"year": {"minimum": 2018, "maximum": 2023}},
    )
    entry = read(path)
    collection = pystac.Collection.from_dict(entry)
    assert collection.extent.spatial.bboxes == [[170, 60, -170, 75]]
    assert collection.extent.temporal.intervals == [
        [datetime(2018, 6, 30, 22, tzinfo=UTC), datetime(2023, 9, 1, 12, tzinfo=UTC)]
    ]
    asset = collection.assets["footprints"]
    assert asset.media_type == "application/vnd.apache.parquet"
    assert [column.name for column in TableExtension.ext(asset).columns] == ["id", "geometry"]
    assert FileExtension.ext(asset).size == 3
    assert entry["assets"]["footprints"]["table:row_count"] == 3
    assert entry["assets"]["summary"]["type"] == "text/csv"


@pytest.mark.parametrize("bbox", [(0, 10, 5, 5), (-200, 0, 0, 1), (0, 0, 0, 91), (float("nan"), 0, 1, 1)])
def test_a_box_that_is_none_is_refused(tmp_path, bbox):
    with pytest.raises(ConfigError, match="west, south, east, north"):
        write_dataset_collection(tmp_path, {}, **DATASET | {"bbox": bbox})


@pytest.mark.parametrize("file", ["missing.parquet", "../outside.csv"])
def test_files_that_are_not_in_the_folder_are_refused(tmp_path, file):
    folder = tmp_path / "dataset"
    folder.mkdir()
    (tmp_path / "outside.csv").write_text("a")
    with pytest.raises(ConfigError, match="no file in this folder"):
        write_dataset_collection(folder, {"a": DatasetAsset(file=file, title="", description="")}, **DATASET)
