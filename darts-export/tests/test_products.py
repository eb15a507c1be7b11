from pathlib import Path

import pytest

from darts_export import DEFAULT_BANDS, PRODUCTS, expected_files, validate_export_bands
from darts_utils.errors import ConfigError


def test_the_default_files_are_those_of_the_specification():
    assert set(expected_files()) == {
        "probabilities.tif",
        "binarized.tif",
        "prediction_segments.parquet",
        "prediction_segments.gpkg",
        "prediction_cut_segments.parquet",
        "prediction_extent.parquet",
        "prediction_extent.gpkg",
        "thumbnail.jpg",
    }


def test_subsets_add_their_own_files_and_the_rest_stays_single():
    added = set(expected_files(DEFAULT_BANDS, ["a", "b"])) - set(expected_files())
    assert added == {
        f"{stem}-{model}.{ending}"
        for model in "ab"
        for stem, ending in (
            ("probabilities", "tif"),
            ("binarized", "tif"),
            ("prediction_segments", "parquet"),
            ("prediction_segments", "gpkg"),
            ("prediction_cut_segments", "parquet"),
        )
    }


def test_thresholds_add_files_of_objects_for_the_mean_and_each_model():
    added = set(expected_files(DEFAULT_BANDS, ["a"], thresholds=[0.4])) - set(expected_files(DEFAULT_BANDS, ["a"]))
    assert added == {
        f"{stem}{model}-t40.{ending}"
        for model in ("", "-a")
        for stem, ending in (
            ("binarized", "tif"),
            ("prediction_segments", "parquet"),
            ("prediction_segments", "gpkg"),
            ("prediction_cut_segments", "parquet"),
        )
    }


def test_tokens_win_over_variables_and_variables_have_their_own_raster():
    assert expected_files(["dem", "metadata", "slope"]) == ("dem.tif", "darts_inference.json", "slope.tif")
    assert expected_files(["slope", "slope"], debug=True) == ("slope.tif", "darts_inference_debug.nc")
    assert expected_files(["probabilities", "probabilities-a"], ["a"]) == ("probabilities.tif", "probabilities-a.tif")


def test_each_product_says_what_it_holds():
    for token, product in PRODUCTS.items():
        assert product.token == token
        assert product.contents
        assert product.files


def test_export_bands_can_be_checked_before_any_tile_is_there():
    validate_export_bands([*PRODUCTS, "slope", "probability_std", "probabilities-some-model", "binarized_segmentation"])
    with pytest.raises(ConfigError, match=r"'polygons', did you mean 'polygonized'.* are probabilities, .*slope"):
        validate_export_bands(["slope", "polygons", "nonsense"])


@pytest.mark.parametrize(
    ("bands", "match"),
    [
        ("probabilities", "list of names"),
        ([], "nothing would be written"),
        (["../x"], "file names"),
        ([3], "file names"),
    ],
)
def test_lists_of_bands_that_cannot_be_are_refused(bands, match):
    with pytest.raises(ConfigError, match=match):
        validate_export_bands(bands)
    with pytest.raises(ConfigError, match=match):
        expected_files(bands)


def test_the_readme_lists_the_products_as_the_table_has_them():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for product in PRODUCTS.values():
        files = ", ".join(f"`{file}`" for file in product.files)
        assert f"| `{product.token}` | {files} | {product.contents} |\n" in readme
