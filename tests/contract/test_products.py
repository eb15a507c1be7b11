"""SPEC 8: which files a token of `export_bands` stands for, and what counts as finished."""

import numpy as np
import pytest

from darts_export import export_tile, missing_outputs

FIVE = ("probabilities", "binarized", "polygonized", "extent", "thumbnail")
FILES = {
    "probabilities": {"probabilities.tif"},
    "binarized": {"binarized.tif"},
    "polygonized": {
        "prediction_segments.parquet",
        "prediction_segments.gpkg",
        "prediction_cut_segments.parquet",
    },
    "extent": {"prediction_extent.parquet", "prediction_extent.gpkg"},
    "thumbnail": {"thumbnail.jpg"},
    "optical": {"optical.tif"},
    "dem": {"dem.tif"},
    "tcvis": {"tcvis.tif"},
    "metadata": {"darts_inference.json"},
    "ndvi": {"ndvi.tif"},
    "probability_std": {"probability_std.tif"},
}


@pytest.fixture
def tile(on_grid):
    shape = (48, 64)
    rng = np.random.default_rng(2)
    probs = np.full(shape, 0.1, "float32")
    probs[20:30, 20:35] = 0.876
    probs[20, 20] = 0.505
    extent = np.zeros(shape, bool)
    extent[4:-4, 4:-4] = True
    floats = {
        name: rng.uniform(0.05, 0.2, shape).astype("float32")
        for name in (
            "blue", "green", "red", "nir", "ndvi", "dem", "slope", "relative_elevation", "aspect", "hillshade",
            "curvature", "probability_std",
        )
    }  # fmt: skip
    trends = {f"tc_{name}": np.full(shape, 100, "float32") for name in ("brightness", "greenness", "wetness")}
    bands = {}
    for model in ("", "-a"):
        bands |= {
            f"probabilities{model}": np.where(extent, probs, np.nan).astype("float32"),
            f"binarized_segmentation{model}": probs > 0.5,
            f"cut_probabilities{model}": np.full(shape, np.nan, "float32"),
        }
    return on_grid(
        attrs={"tile_id": "T", "image_id": "I", "sensor": "Sentinel-2", "acquisition_time": "2023-07-01T19:59:09Z"},
        **floats, **trends, **bands, extent=extent, quality_data_mask=np.full(shape, 2, "uint8"),
    )  # fmt: skip


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("token", FILES)
def test_every_token_stands_for_its_files(tile, tmp_path, token):
    before = tile.copy(deep=True)
    export_tile(tile, tmp_path / "T", bands=(token,))
    assert names(tmp_path / "T") == FILES[token]
    assert all(path.stat().st_size > 0 for path in (tmp_path / "T").iterdir())
    assert names(tmp_path) == {"T"}, "nothing temporary is left"
    assert tile.identical(before)
    assert missing_outputs(tmp_path / "T", bands=(token,)) == "none"


def test_a_plain_call_writes_the_five(tile, tmp_path):
    export_tile(tile, tmp_path / "T")
    assert names(tmp_path / "T") == set().union(*(FILES[token] for token in FIVE))
    assert missing_outputs(tmp_path / "T") == "none"


def test_models_get_files_of_their_own(tile, tmp_path):
    export_tile(tile, tmp_path / "T", bands=("probabilities", "binarized", "polygonized"), ensemble_subsets=("a",))
    own = {
        "probabilities-a.tif",
        "binarized-a.tif",
        "prediction_segments-a.parquet",
        "prediction_segments-a.gpkg",
    }
    assert own <= names(tmp_path / "T")
    assert missing_outputs(tmp_path / "T", ("probabilities", "binarized", "polygonized"), ("a",)) == "none"
    (tmp_path / "T" / "binarized-a.tif").unlink()
    assert missing_outputs(tmp_path / "T", ("probabilities", "binarized", "polygonized"), ("a",)) == "some"
    assert missing_outputs(tmp_path / "T", ("probabilities", "binarized", "polygonized")) == "none"


def test_a_folder_that_is_not_there_misses_all(tmp_path):
    assert missing_outputs(tmp_path / "T") == "all"
    (tmp_path / "T").mkdir()
    assert missing_outputs(tmp_path / "T") == "all"
    (tmp_path / "T" / "unrelated.txt").write_text("x")
    assert missing_outputs(tmp_path / "T") == "all"


@pytest.mark.parametrize("name", sorted(set().union(*(FILES[token] for token in FIVE))))
def test_one_missing_or_empty_file_is_some(tile, tmp_path, name):
    export_tile(tile, tmp_path / "T")
    (tmp_path / "T" / name).write_bytes(b"")
    assert missing_outputs(tmp_path / "T") == "some"
    (tmp_path / "T" / name).unlink()
    assert missing_outputs(tmp_path / "T") == "some"


def test_a_finished_tile_of_fewer_tokens_is_some_for_more(tile, tmp_path):
    export_tile(tile, tmp_path / "T", bands=("probabilities",))
    assert missing_outputs(tmp_path / "T", bands=("probabilities", "extent")) == "some"
    assert missing_outputs(tmp_path / "T", bands=("extent",)) == "all"


def test_an_unknown_token_is_refused(tile, tmp_path):
    with pytest.raises((ValueError, LookupError), match="probabillities"):
        export_tile(tile, tmp_path / "T", bands=("probabillities",))
    assert not (tmp_path / "T").exists()


def test_probabilities_are_whole_percent_rounded_and_255_where_there_are_none(tile, tmp_path):
    import rasterio

    export_tile(tile, tmp_path / "T", bands=("probabilities", "binarized"))
    with rasterio.open(tmp_path / "T" / "probabilities.tif") as file:
        stored = file.read(1)
        assert (file.dtypes, file.nodata) == (("uint8",), 255)
        assert file.scales[0] == pytest.approx(0.01)
        assert tuple(file.transform)[:6] == (10, 0, 500_000, 0, -10, 7_760_000)
        assert file.crs.to_epsg() == 32608
    assert stored[25, 25] == 88
    assert stored[10, 10] == 10
    assert stored[0, 0] == 255
    with rasterio.open(tmp_path / "T" / "binarized.tif") as file:
        assert file.dtypes == ("uint8",)
        assert np.unique(file.read(1)).tolist() == [0, 1]
        assert file.read(1).sum() == 150


def test_segments_tell_probability_in_0_to_1_and_size(tile, tmp_path):
    import geopandas

    export_tile(tile, tmp_path / "T", bands=("polygonized",))
    (segment,) = geopandas.read_parquet(tmp_path / "T" / "prediction_segments.parquet").to_dict("records")
    assert segment["npixel"] == 150
    assert segment["area_m2"] == pytest.approx(15_000, rel=0.01)
    assert (segment["min"], segment["max"]) == pytest.approx((0.505, 0.876), abs=1e-6)
    assert segment["mean"] == pytest.approx((149 * 0.876 + 0.505) / 150, abs=1e-6)
    assert segment["median"] == pytest.approx(0.876, abs=1e-6)
    assert (segment["tile_id"], segment["image_id"], segment["sensor"]) == ("T", "I", "Sentinel-2")


def test_order_and_repetition_of_tokens_change_nothing(tile, tmp_path):
    export_tile(tile, tmp_path / "a", bands=("probabilities", "polygonized", "extent"))
    export_tile(tile, tmp_path / "b", bands=("extent", "polygonized", "probabilities"))
    export_tile(tile, tmp_path / "b", bands=("extent", "polygonized", "probabilities"))
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
