import pytest

from darts_utils.errors import ConfigError
from darts_utils.layers import check_model_names, object_suffixes, threshold_suffix


@pytest.mark.parametrize(("threshold", "suffix"), [(0.4, "-t40"), (0.07, "-t07"), (0.29, "-t29"), (0.99, "-t99")])
def test_a_threshold_is_named_in_percent(threshold: float, suffix: str) -> None:
    assert threshold_suffix(threshold) == suffix


@pytest.mark.parametrize("threshold", [0, 1, 0.405, -0.4, 40, float("nan")])
def test_other_thresholds_have_no_name(threshold: float) -> None:
    with pytest.raises(ConfigError, match="whole numbers of percent"):
        threshold_suffix(threshold)


def test_suffixes_are_those_of_models_and_of_thresholds() -> None:
    assert object_suffixes() == [""]
    assert object_suffixes(["a"], [0.4]) == ["", "-a", "-t40", "-a-t40"]


@pytest.mark.parametrize("name", ["t40", "unet-t40"])
def test_no_model_is_named_like_a_threshold(name: str) -> None:
    with pytest.raises(ConfigError, match="give its file another name"):
        check_model_names(["unet", name])
    check_model_names(["unet-t400", "t4", "at40"])
