import json
import re
import sqlite3
from contextlib import closing
from itertools import pairwise

import geopandas as gpd
import pyarrow.parquet as pq
import pyogrio
import pytest

from darts_export.preview import RAMP
from darts_export.styles import extent_style, probability_style
from darts_export.vector_files import write_geopackage, write_parquet
from darts_export.vectors import segments

IDS = {"tile_id": "t", "image_id": "i", "sensor": "s", "acquisition_time": None}


@pytest.fixture
def frame(tile):
    return segments(tile, tile.binarized_segmentation.values, tile.probabilities.values, "ensemble", IDS)


def test_the_schema_of_geoparquet_holds_the_tags_as_json(frame, tmp_path):
    tags = {"DARTS_mmu": 32, "DARTS_modelchecksums": "ä:12", "DARTS_x": None}
    for rows in (frame, frame.iloc[:0]):
        write_parquet(tmp_path / "s.parquet", rows, tags)
        metadata = pq.read_schema(tmp_path / "s.parquet").metadata
        assert json.loads(metadata[b"darts"]) == tags
        geo = json.loads(metadata[b"geo"])
        assert geo["version"] == "1.1.0"
        assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
        assert gpd.read_parquet(tmp_path / "s.parquet").crs == "EPSG:32608"


def test_a_geopackage_carries_the_default_style_of_its_layer(frame, tmp_path):
    for rows in (frame, frame.iloc[:0]):
        path = tmp_path / f"s{len(rows)}.gpkg"
        write_geopackage(path, rows, probability_style("mean"))
        assert len(pyogrio.read_dataframe(path, layer=path.stem)) == len(rows)
        with closing(sqlite3.connect(path)) as database:
            query = "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles"
            assert database.execute(query).fetchall() == [(path.stem, "geom", 1, probability_style("mean"))]


def test_segments_are_coloured_as_in_the_thumbnail():
    style = probability_style("mean")
    limits = re.findall(r'<range lower="([\d.]+)" upper="([\d.]+)"', style)
    assert limits[0][0] == "0.0"
    assert limits[-1] == ("0.9", "1.0")
    assert all(one[1] == two[0] for one, two in pairwise(limits))
    for _, colour in RAMP[:2]:
        assert ",".join(map(str, colour)) in style
    assert 'attr="mean"' in style


def test_the_extent_has_a_category_for_each_kind():
    assert re.findall(r'category value="(\w+)"', extent_style()) == ["seen", "clear"]
