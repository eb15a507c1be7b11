"""Tiles as folders of files: what is in them, that it depends on nothing else, and what is refused."""

import json
import sys
import time

import geopandas as gpd
import numpy as np
import pyarrow.parquet
import pytest
import rasterio
import xarray as xr
from rio_cogeo.cogeo import cog_validate

from darts_export import DEFAULT_BANDS, PRODUCTS, expected_files, export_tile, missing_outputs
from darts_utils.errors import ConfigError, MissingBandError

EVERYTHING = [*PRODUCTS, "slope", "s2_scl", "quality_data_mask"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(shared_tile, tmp_path_factory):
    """A folder with all there is; tests only read it."""
    folder = tmp_path_factory.mktemp("out") / "folder"
    return export_tile(shared_tile, folder, EVERYTHING, ["small"], {"threshold": 0.5}, debug=True)


def test_a_tile_gives_all_its_files_and_nothing_else(whole):
    assert {path.name for path in whole.iterdir()} == set(expected_files(EVERYTHING, ["small"], debug=True))
    assert [path.name for path in whole.parent.iterdir()] == ["folder"]
    assert missing_outputs(whole, EVERYTHING, ["small"], debug=True) == "none"


def test_rasters_are_valid_with_names_tags_and_the_scenes_grid(tile, whole):
    rasters = sorted(whole.glob("*.tif"))
    assert len(rasters) == 10
    for path in rasters:
        assert cog_validate(path, strict=True, quiet=True) == (True, [], []), path
        with rasterio.open(path) as source:
            assert source.crs == tile.odc.geobox.crs.to_wkt()
            assert source.transform == tile.odc.geobox.affine
            assert all(source.descriptions)
            assert source.tags()["DARTS_tile_id"] == "a-tile"
            assert source.tags()["DARTS_threshold"] == "0.5"


def test_stacks_hold_the_bands_of_their_token(whole):  # E1
    bands = {}
    for name in ("optical", "dem", "tcvis"):
        with rasterio.open(whole / f"{name}.tif") as source:
            bands[name] = source.descriptions
    assert bands == {
        "optical": ("red", "green", "blue", "nir"),
        "dem": ("slope", "dem", "aspect", "curvature"),
        "tcvis": ("tc_brightness", "tc_greenness", "tc_wetness"),
    }


def test_segments_have_the_statistics_of_their_own_model(tile, whole):  # E5
    for suffix, model in (("", "ensemble"), ("-small", "small")):
        found = gpd.read_parquet(whole / f"prediction_segments{suffix}.parquet")
        assert (found.model == model).all()
        probabilities = tile[f"probabilities{suffix}"].values[tile[f"binarized_segmentation{suffix}"].values]
        assert found["max"].max() == probabilities.max()
        assert found["min"].min() == probabilities.min()
        assert found.npixel.sum() == len(probabilities)
        assert (found.tile_id == "a-tile").all()
        assert gpd.read_file(whole / f"prediction_segments{suffix}.gpkg").shape == found.shape
    assert gpd.read_parquet(whole / "prediction_segments.parquet").npixel.tolist() == [12 * 14 - 6 + 64, 150]


def test_what_was_cut_is_kept_with_its_probability(whole):
    cut = gpd.read_parquet(whole / "prediction_cut_segments.parquet")
    assert cut.npixel.tolist() == [225]
    assert cut["mean"].tolist() == pytest.approx([0.8], abs=1e-6)
    assert gpd.read_parquet(whole / "prediction_cut_segments-small.parquet").empty


def test_clear_is_the_part_of_the_extent_without_cloud_and_cirrus(whole):
    area = gpd.read_parquet(whole / "prediction_extent.parquet").set_index("kind").geometry.area / 100
    assert area["seen"] == 60 * 80
    assert area["clear"] == 60 * 75 - 6 * 30


def test_exporting_changes_nothing_in_the_tile_and_order_does_not_matter(tile, tmp_path):  # E2, E3, E4
    before = tile.copy(deep=True)
    first = contents(export_tile(tile, tmp_path / "a" / "t", DEFAULT_BANDS))
    xr.testing.assert_identical(tile, before)
    for number, order in enumerate([DEFAULT_BANDS[::-1], DEFAULT_BANDS[2:] + DEFAULT_BANDS[:2]]):
        again = contents(export_tile(tile, tmp_path / str(number) / "t", order))
        assert again == first
    for band in ("polygonized", "thumbnail"):
        alone = contents(export_tile(tile, tmp_path / band / "t", [band]))
        assert alone == {name: first[name] for name in alone}
    xr.testing.assert_identical(tile, before)


def test_what_describes_the_files_lists_all_of_them_whatever_the_order_of_bands(tile, tmp_path):
    orders = (["report", "stac", "metadata"], ["stac", "metadata", "report"])
    one, other = (contents(export_tile(tile, tmp_path / str(order[0]) / "t", order)) for order in orders)
    assert one == other
    assert {asset["href"] for asset in json.loads(one["item.json"])["assets"].values()} == {
        "./preview.html",
        "./darts_inference.json",
    }


def test_the_layout_of_bands_in_memory_changes_nothing(tile, tmp_path):
    bands = ["probabilities", "polygonized", "thumbnail"]
    square = tile.isel(x=slice(0, 70))
    expected = contents(export_tile(square, tmp_path / "expected" / "t", bands))
    others = {
        "transposed": square.transpose("x", "y"),
        "lazy": square.chunk({"y": 20}),
        "foreign": square.assign(probabilities=square.probabilities.astype(">f4"), red=square.red.astype(">f4")),
    }
    for name, other in others.items():
        assert contents(export_tile(other, tmp_path / name / "t", bands)) == expected, name
    half = square.assign(probabilities=square.probabilities.astype("float16"))
    same = half.assign(probabilities=half.probabilities.astype("float32"))
    one, two = (contents(export_tile(t, tmp_path / n / "t", bands)) for n, t in (("half", half), ("single", same)))
    assert one == two


def test_a_variable_with_other_dimensions_is_refused_by_name(tile, tmp_path):
    with pytest.raises(ConfigError, match=r"'extent' cannot be exported: its dimensions are \('row', 'x'\)"):
        export_tile(tile.assign(extent=(("row", "x"), np.ones((3, 90), bool))), tmp_path / "t")
    assert not list(tmp_path.iterdir())


def test_the_same_tile_gives_the_same_bytes_later(tile, whole, tmp_path):
    time.sleep(1.1)  # time stamps in files have seconds
    again = export_tile(
        tile.copy(deep=True), tmp_path / "b" / "folder", EVERYTHING, ["small"], {"threshold": 0.5}, True
    )
    assert contents(again) == contents(whole)


def test_ids_the_tile_lacks_are_null_and_the_folder_names_it(tile, tmp_path):
    tile.attrs = {}
    found = gpd.read_parquet(export_tile(tile, tmp_path / "T08WMA") / "prediction_segments.parquet")
    assert (found.tile_id == "T08WMA").all()
    assert found[["image_id", "sensor", "acquisition_time"]].isna().all(axis=None)


def test_a_tile_without_detections_has_the_same_columns(tile, whole, tmp_path):  # E12
    empty = tile.assign(binarized_segmentation=xr.zeros_like(tile.binarized_segmentation))
    folder = export_tile(empty, tmp_path / "empty")
    assert missing_outputs(folder) == "none"
    for name in ("prediction_segments.parquet", "prediction_segments.gpkg"):
        nothing, something = (
            gpd.read_file(one / name) if name.endswith("gpkg") else gpd.read_parquet(one / name)
            for one in (folder, whole)
        )
        assert nothing.empty
        assert list(nothing.columns) == list(something.columns)


def test_a_tile_of_one_pixel_and_one_without_any_valid_pixel_are_exported(make_tile, tmp_path):
    for shape in ((1, 1), (37, 53)):
        bands = {name: np.full(shape, np.float32(np.nan)) for name in ("red", "green", "blue", "probabilities")}
        nothing = np.zeros(shape, bool)
        tile = make_tile(
            {
                **bands,
                "binarized_segmentation": nothing,
                "extent": nothing,
                "quality_data_mask": nothing.astype("uint8"),
            }
        )
        folder = export_tile(tile, tmp_path / str(shape[0]))
        assert missing_outputs(folder) == "none"
        with rasterio.open(folder / "probabilities.tif") as source:
            assert (source.read(1) == 255).all()


def test_grids_whose_origin_no_float_holds_exactly_are_exported(tile, make_tile, tmp_path):  # P6
    bands = {name: tile[name].values for name in ("red", "green", "blue", "quality_data_mask", "extent")}
    bands |= {name: tile[name].values for name in ("probabilities", "binarized_segmentation")}
    for number, corner in enumerate([(399960.123456, 7.6e6 + 0.1), (1 / 3, 7.6e6 - 1 / 7)]):
        odd = make_tile(bands, corner=corner)
        folder = export_tile(odd, tmp_path / str(number))
        assert missing_outputs(folder) == "none"
        with rasterio.open(folder / "binarized.tif") as source:
            np.testing.assert_array_equal(source.read(1), bands["binarized_segmentation"])
            np.testing.assert_allclose(tuple(source.transform), tuple(odd.odc.geobox.affine), rtol=1e-15)


def test_no_figures_stay_open(tile, tmp_path):  # E11
    for _ in range(2):
        export_tile(tile, tmp_path / "tile", ["thumbnail"])
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_missing_outputs_tells_all_some_and_none(tile, tmp_path):  # E9
    folder = tmp_path / "tile"
    bands = [*DEFAULT_BANDS, "metadata"]
    assert missing_outputs(folder, bands) == "all"
    export_tile(tile, folder, bands)
    assert missing_outputs(folder, bands) == "none"
    assert missing_outputs(folder, [*bands, "optical"]) == "some"
    assert missing_outputs(folder, ["optical"]) == "all"
    assert missing_outputs(folder, bands, ["small"]) == "some"
    assert missing_outputs(folder, bands, debug=True) == "some"
    (folder / "binarized.tif").write_bytes(b"")
    assert missing_outputs(folder, bands) == "some"
    for path in folder.iterdir():
        path.write_bytes(b"")
    assert missing_outputs(folder, bands) == "all"


def test_further_thresholds_have_files_of_their_own_with_statistics_of_the_probability(tile, tmp_path):
    for suffix, probabilities in (("", tile.probabilities), ("-small", tile["probabilities-small"])):
        tile[f"binarized_segmentation{suffix}-t30"] = probabilities > 0.3
        tile[f"cut_probabilities{suffix}-t30"] = tile[f"cut_probabilities{suffix}"]
    tile["probability_std"] = tile.probabilities * 0.25
    options = {"ensemble_subsets": ["small"], "thresholds": [0.3, 0.3]}
    folder = export_tile(tile, tmp_path / "tile", metadata={"binarizethreshold": 0.5}, **options)
    assert missing_outputs(folder, **options) == "none"
    assert missing_outputs(folder, thresholds=[0.3, 0.6]) == "some"
    assert {path.name for path in folder.glob("*t30*")} == {
        f"{stem}{model}-t30.{ending}"
        for model in ("", "-small")
        for stem, ending in (
            ("binarized", "tif"),
            ("prediction_segments", "parquet"),
            ("prediction_segments", "gpkg"),
            ("prediction_cut_segments", "parquet"),
        )
    }
    for suffix in ("", "-small"):
        found = gpd.read_parquet(folder / f"prediction_segments{suffix}-t30.parquet")
        mask = tile[f"binarized_segmentation{suffix}-t30"].values
        assert (found.threshold == 0.3).all()
        assert found.npixel.sum() == mask.sum()
        assert found["min"].min() == tile[f"probabilities{suffix}"].values[mask].min()
        with rasterio.open(folder / f"binarized{suffix}-t30.tif") as source:
            np.testing.assert_array_equal(source.read(1), mask)
        main = gpd.read_parquet(folder / f"prediction_segments{suffix}.parquet")
        assert (main.threshold == 0.5).all()
        assert set(main.segment_id).isdisjoint(found.segment_id)
        if suffix:
            assert found.probability_std.isna().all()
        else:
            np.testing.assert_allclose(found.probability_std, found["mean"] * 0.25, rtol=1e-6)
    assert (gpd.read_parquet(folder / "prediction_cut_segments-t30.parquet").threshold == 0.3).all()


def test_the_threshold_is_nan_where_nobody_says_it(tile, tmp_path):
    found = gpd.read_parquet(export_tile(tile, tmp_path / "tile") / "prediction_segments.parquet")
    assert found.threshold.isna().all()
    assert found.probability_std.isna().all()


def test_parquet_files_carry_the_tags(tile, tmp_path):
    metadata = {"mmu": 32, "version": "1.2"}
    folder = export_tile(tile, tmp_path / "tile", ["polygonized", "extent", "metadata"], metadata=metadata)
    expected = json.loads((folder / "darts_inference.json").read_text(encoding="utf-8"))
    assert expected["DARTS_mmu"] == 32
    for name in ("prediction_segments", "prediction_cut_segments", "prediction_extent"):
        schema = pyarrow.parquet.read_schema(folder / f"{name}.parquet")
        assert json.loads(schema.metadata[b"darts"]) == expected


def test_files_do_not_depend_on_the_number_of_threads(tile, tmp_path, monkeypatch):
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
        found.append(contents(export_tile(tile, tmp_path / threads / "tile", [*DEFAULT_BANDS, "optical"])))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"bands": ["probabilities", "polygons"]}, ConfigError, r"'polygons'; possible are probabilities.*slope"),
        ({"bands": "probabilities"}, ConfigError, "list of names"),
        ({"bands": []}, ConfigError, "nothing would be written"),
        ({"ensemble_subsets": "small"}, ConfigError, "list of names"),
        ({"ensemble_subsets": ["large"]}, MissingBandError, "probabilities-large"),
        ({"thresholds": [0.4]}, MissingBandError, "binarized_segmentation-t40"),
        ({"thresholds": [0.405]}, ConfigError, "whole numbers? of percent"),
        ({"thresholds": 0.4}, ConfigError, "list of probabilities"),
        ({"thresholds": [0.4], "ensemble_subsets": ["a-t40"]}, ConfigError, "another name"),
    ],
)
def test_bad_options_stop_before_anything_is_written(tile, tmp_path, options, error, match):
    with pytest.raises(error, match=match):
        export_tile(tile, tmp_path / "tile", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("band", "lost"),
    [
        ("optical", ["nir"]),
        ("tcvis", ["tc_wetness"]),
        ("dem", ["slope", "dem", "aspect", "curvature"]),
        ("extent", ["extent"]),
        ("polygonized", ["binarized_segmentation"]),
        ("binarized", ["binarized_segmentation"]),
        ("thumbnail", ["red", "probabilities"]),
    ],
)
def test_what_an_export_band_needs_is_said_before_anything_is_written(tile, tmp_path, band, lost):
    with pytest.raises(MissingBandError, match=lost[0]) as caught:
        export_tile(
            tile.drop_vars(lost), tmp_path / "tile", ["probabilities", band] if "probabilities" not in lost else [band]
        )
    assert band in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_thumbnail_needs_no_objects_and_no_optical_bands(tile, tmp_path):
    export_tile(tile.drop_vars(["binarized_segmentation"]), tmp_path / "a", ["thumbnail"])
    export_tile(tile.drop_vars(["red", "green"]), tmp_path / "b", ["thumbnail"])
    with pytest.raises(MissingBandError, match="green"):
        export_tile(tile.drop_vars(["green", "probabilities"]), tmp_path / "c", ["thumbnail"])
