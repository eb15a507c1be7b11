import pytest

from darts_utils.errors import ConfigError
from darts_utils.quality import quality_number


@pytest.mark.parametrize(
    ("level", "number"), [(0, 0), (1, 1), (2, 2), ("none", 0), ("low_quality", 1), ("high_quality", 2)]
)
def test_a_level_goes_by_its_number_or_its_name(level, number):
    assert quality_number(level) == number


@pytest.mark.parametrize("level", [3, -1, True, None, "high", "2", 1.5])
def test_other_levels_are_refused_by_what_there_is(level):
    with pytest.raises(ConfigError, match="0, 1, 2 or one of none, low_quality, high_quality"):
        quality_number(level)
