from typing import Any

import numpy as np
import pytest

from darts_utils.errors import ConfigError
from darts_utils.numbers import whole_number


@pytest.mark.parametrize("value", [1, 3, 10**30, np.int64(2)])
def test_a_whole_number_is_given_back_as_one_of_python(value: Any) -> None:
    assert whole_number("size", value, 1) == value
    assert type(whole_number("size", value, 1)) is int


@pytest.mark.parametrize("value", [0, -1, True, 2.0, np.float32(2), "2", None, float("nan")])
def test_what_is_none_or_too_small_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigError, match="size must be a whole number of at least 1, got"):
        whole_number("size", value, 1)


def test_both_ends_are_allowed_and_no_more() -> None:
    assert [whole_number("size", value, 3, 5) for value in (3, 5)] == [3, 5]
    for value in (2, 6, 10**400):
        with pytest.raises(ConfigError, match="size must be a whole number from 3 to 5, got"):
            whole_number("size", value, 3, 5)
