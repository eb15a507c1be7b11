import numpy as np
import pytest

from darts_export import export_tile
from darts_export.completeness import is_complete
from darts_export.rasters import write_raster

FILES = (
    "probabilities.tif",
    "optical.tif",
    "prediction_segments.parquet",
    "prediction_segments.gpkg",
    "prediction_extent.gpkg",
    "thumbnail.jpg",
    "darts_inference.json",
    "preview.html",
    "darts_inference_debug.nc",
)


@pytest.fixture(scope="module")
def whole(shared_tile, tmp_path_factory):
    bands = ["probabilities", "optical", "polygonized", "extent", "thumbnail", "metadata", "report"]
    return export_tile(shared_tile, tmp_path_factory.mktemp("whole") / "tile", bands, debug=True)


@pytest.mark.parametrize("name", FILES)
def test_files_that_lack_even_a_byte_are_not_complete(whole, tmp_path, name):
    assert is_complete(whole / name)
    data = (whole / name).read_bytes()
    copy = tmp_path / name
    lost = (1, 2, 5, 100, len(data) // 2, len(data) - 10, len(data) - 1, len(data))
    # Whitespace at the end of JSON and HTML is no part of it.
    for missing in lost[1:] if name.endswith((".json", ".html")) else lost:
        copy.write_bytes(data[: max(0, len(data) - missing)])
        assert not is_complete(copy), missing
    copy.write_bytes(b"\0" * len(data))
    assert not is_complete(copy)
    copy.write_bytes(data)
    assert is_complete(copy)


def test_a_file_that_is_not_there_and_a_folder_are_not_complete(tmp_path):
    assert not is_complete(tmp_path / "a.tif")
    (tmp_path / "b.tif").mkdir()
    assert not is_complete(tmp_path / "b.tif")


def test_a_large_raster_of_several_blocks_is_checked_at_its_end(make_tile, tmp_path):
    values = np.random.default_rng(0).random((700, 600), dtype="float32")
    path = tmp_path / "p.tif"
    write_raster(path, make_tile({"red": values, "green": values}), ["red", "green"], {})
    assert is_complete(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_complete(path)
