import json
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from darts_export.metadata import as_text, darts_tags, identity, write_metadata


def test_tags_name_the_tile_the_software_and_what_the_caller_says(tile):
    tags = darts_tags(tile, {"models": {"b": "22", "a": "11"}, "DARTS_patch_size": 1024}, "folder")
    assert tags["DARTS_tile_id"] == "a-tile"
    assert tags["DARTS_image_id"] == "an-image"
    assert tags["DARTS_azimuth"] == 170.5
    assert "DARTS_elevation" not in tags  # unknown
    assert tags["DARTS_patch_size"] == 1024
    assert tags["DARTS_software"].startswith("darts-export ")
    assert list(tags) == sorted(tags)
    assert as_text(tags)["DARTS_models"] == '{"a": "11", "b": "22"}'
    assert as_text(tags)["DARTS_patch_size"] == "1024"


def test_the_callers_word_counts_more(tile):
    assert darts_tags(tile, {"tile_id": "other"}, "folder")["DARTS_tile_id"] == "other"


def test_the_order_in_which_metadata_is_given_changes_nothing(tile):
    one = darts_tags(tile, {"a": {1, 2, 3}, "b": {"x": 1, "y": 2}}, "f")
    two = darts_tags(tile, {"b": {"y": 2, "x": 1}, "a": {3, 2, 1}}, "f")
    assert list(one.items()) == list(two.items())


def test_any_value_becomes_valid_json(tmp_path):
    awkward = {
        "path": Path("models") / "a.pt", "nan": float("nan"), "number": np.float32(0.5), "array": np.arange(3),
        "time": pd.Timestamp("2021-01-01"), "lost": pd.NaT, "coordinate": np.array("2021-01-01T05", "M8[ns]"),
        7: "seven", "none": None, "flag": True, "µ": "é", "nested": [{"a": np.inf}],
    }  # fmt: skip
    tags = darts_tags(xr.Dataset(), awkward, "folder")
    write_metadata(tmp_path / "m.json", tags)
    read = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"), parse_constant=lambda name: 1 / 0)
    assert read == tags
    assert read["DARTS_nan"] is None
    assert read["DARTS_array"] == [0, 1, 2]
    assert read["DARTS_flag"] is True
    assert read["DARTS_time"] == "2021-01-01T00:00:00"
    assert read["DARTS_coordinate"].startswith("2021-01-01T05:00:00")
    assert read["DARTS_lost"] is None
    assert read["DARTS_7"] == "seven"
    assert read["DARTS_tile_id"] == "folder"


def test_what_a_tile_does_not_carry_is_null():
    ids = identity(xr.Dataset(attrs={"sensor": ""}), "folder")
    assert ids["tile_id"] == "folder"
    assert ids["image_id"] is None
    assert ids["sensor"] is None
    assert ids["acquisition_time"] is pd.NaT


def test_times_are_utc_and_a_bad_one_does_not_stop_the_export(caplog):
    def time_of(text):
        return identity(xr.Dataset(attrs={"acquisition_time": text}), "f")["acquisition_time"]

    assert time_of("2021-08-21T23:00:00+02:00") == pd.Timestamp("2021-08-21T21:00:00Z")
    assert time_of("2021-08-21T21:00:00.123Z").microsecond == 123000
    for coordinate in (np.datetime64("2021-08-21T21:00"), np.array("2021-08-21T21:00", "M8[ns]")):
        assert time_of(coordinate) == pd.Timestamp("2021-08-21T21:00:00Z")
    for bad in ("last summer", 20210821, np.float64(2021.6)):  # a number would be taken for nanoseconds since 1970
        assert time_of(bad) is pd.NaT
        assert str(bad) in caplog.text
    assert time_of(pd.NaT) is pd.NaT
    assert "acquisition_time" not in "".join(darts_tags(xr.Dataset(attrs={"acquisition_time": pd.NaT}), None, "f"))
