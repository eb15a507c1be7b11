import pytest

from darts.needs import needed_features
from darts_export import PRODUCTS, Product
from darts_preprocessing import FEATURES
from darts_preprocessing.features import DEM_FEATURES, TREND_FEATURES


@pytest.mark.parametrize(
    ("token", "features"),
    [("dem", set(DEM_FEATURES) - {"arcticdem_data_mask"}), ("tcvis", set(TREND_FEATURES)), ("ndvi", {"ndvi"}),
     ("slope", {"slope"}), ("optical", set()), ("probabilities", set()), ("s2_scl", set())],
)  # fmt: skip
def test_an_export_asks_for_the_features_that_it_writes(token, features):
    assert set(needed_features([], [token])) == features


def test_models_and_exports_ask_together_in_one_order():
    asked = needed_features(["slope", "red", "tc_wetness"], ["ndvi", "extent"])
    assert set(asked) == {"ndvi", "tc_wetness", "slope"}
    assert asked == tuple(name for name in FEATURES if name in asked)


def test_one_row_of_the_product_table_is_all_that_a_new_product_takes(monkeypatch):
    relief = Product(
        token="relief", contents="", files=("relief.tif",), write=lambda export: None, needs=("slope", "red"),
        any_of=(("hillshade",), ("ndvi", "nir")),
    )  # fmt: skip
    monkeypatch.setattr("darts.needs.PRODUCTS", {**PRODUCTS, "relief": relief})
    assert set(needed_features([], ["relief"])) == {"slope", "hillshade", "ndvi"}
