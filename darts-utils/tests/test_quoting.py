from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darts_utils.errors import ConfigError
from darts_utils.json_text import parse_json
from darts_utils.names import NAME_BYTES, plain_name
from darts_utils.numbers import is_number
from darts_utils.quoting import FIRST, SHOWN, counted, first_line, listed, shown


def test_a_short_value_is_shown_as_python_writes_it():
    assert shown("a b") == "'a b'"
    assert shown([1, None]) == "[1, None]"


@given(st.text(max_size=500))
def test_whatever_is_shown_is_one_short_line(text):
    line = shown(text)
    assert len(line) <= SHOWN + 3
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("value", [10**5000, [-(10**5000)]], ids=["bare", "within"])
def test_a_number_that_python_does_not_write_has_its_kind_shown(value):
    assert shown(value) == f"<{type(value).__name__}, too long to show>"


def test_the_ends_of_a_long_value_are_shown():
    assert shown("a" * 300 + "z").startswith("'aaa")
    assert shown("a" * 300 + "z").endswith("aaz'")


def test_of_many_names_the_first_are_listed_and_the_rest_counted():
    assert listed([]) == ""
    assert listed(["a", 2, "c"], 3) == "a, 2, c"
    assert listed(iter("abcde"), 3) == "a, b, c and 2 more"


def test_one_thing_is_not_told_in_the_plural():
    assert [counted(number, "tile") for number in (0, 1, 2)] == ["0 tiles", "1 tile", "2 tiles"]


def test_the_first_line_of_an_error_is_quoted():
    assert first_line(ValueError("not a number.\nsee there")) == "not a number"
    assert first_line(ValueError()) == "ValueError"
    for text in (
        "'/a/b.tif' not recognized",
        "/a/b.tif: not recognized",
        "b.tif: not recognized",
        "/a/b.tif:not recognized",
    ):
        assert first_line(ValueError(text), Path("/a/b.tif")) == "not recognized"
    assert first_line(ValueError("not recognized"), most=3) == "not …"
    assert first_line(KeyError("crs")) == "'crs' is missing"
    assert len(first_line(ValueError("x" * 1000))) == FIRST + 2


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a\\b", "a:b", "a\0b", "a\nb", "\ud800", "é" * 80, None])
def test_what_cannot_be_the_name_of_a_file_everywhere_is_refused(name):
    with pytest.raises(ConfigError, match="scene id"):
        plain_name(name, "scene id")


@pytest.mark.parametrize("name", ["a", "S2A_X", "a b", "日本", "x" * NAME_BYTES])
def test_what_can_be_a_name_is_given_back(name):
    assert plain_name(name, "scene id") == name


@pytest.mark.parametrize("text", [b"[" * 100_000, "{", b"\xff", b"9" * 5_000])
def test_whatever_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(text)


def test_json_is_read():
    assert parse_json('{"a": [1, null]}') == {"a": [1, None]}


@pytest.mark.parametrize("value", [0, -3, 1.5, np.float32(2), np.int64(4), 1.7e308])
def test_numbers_that_a_float_holds_are_numbers(value):
    assert is_number(value)


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf"), True, "1", None, [1], 1j])
def test_all_else_is_no_number(value):
    assert not is_number(value)
