import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_export import rasters
from darts_export.preview import resized
from darts_utils.bands import BANDS, encode

FLOATS = [name for name, row in BANDS.items() if row.memory == "float32"]


@pytest.mark.parametrize("name", FLOATS)
def test_rasters_are_encoded_as_the_band_table_says_bit_by_bit(make_tile, name):
    row = BANDS[name]
    low, high = row.valid
    rng = np.random.default_rng(0)
    steps = row.offset + row.scale * np.arange(-3, 2000) / 2  # also halfway between codes
    values = np.concatenate([rng.uniform(low - 1, high + 1, 9000), steps, [np.nan, np.inf, -np.inf, low, high, -0.0]])
    values = np.resize(values, (100, 111)).astype("float32")
    tile = make_tile({name: values})
    stored = rasters._stored(tile, name, rasters._layer(tile, name))
    expected = encode(values, name)
    assert stored.dtype == expected.dtype
    np.testing.assert_array_equal(stored, expected)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.sampled_from(["uint8", "int16", "float32"])
)  # fmt: skip
def test_overviews_are_means_of_valid_pixels_rounded_to_nearest(seed, height, width, dtype):
    rng = np.random.default_rng(seed)
    nodata = {"uint8": 255, "int16": -1, "float32": np.nan}[dtype]
    values = rng.integers(0, 100, (height, width)).astype(dtype)
    values[rng.random(values.shape) < 0.4] = nodata
    layer = rasters._Layer(dtype, nodata, 1.0, 0.0, "", True, True)
    found = rasters._halved(values, layer, averaged=True)
    for row in range(-(-height // 2)):
        for column in range(-(-width // 2)):
            block = values[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].astype("float64").ravel()
            valid = block[~np.isnan(block)] if dtype == "float32" else block[block != nodata]
            expected = nodata if not len(valid) else valid.mean()
            if len(valid) and dtype != "float32":
                expected = np.floor(expected + 0.5)
            np.testing.assert_allclose(found[row, column], expected, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_pixels_of_a_picture_are_means_of_what_lies_under_them(seed, height, width, rows, columns):
    rng = np.random.default_rng(seed)
    values = rng.random((height, width), dtype="float32")
    values[rng.random(values.shape) < 0.4] = np.nan
    found = resized(xr.DataArray(values, dims=("y", "x")), (rows, columns))
    step = max(1, height // (4 * rows))
    for row in range(rows):
        top, bottom = row * height // rows, max((row + 1) * height // rows, row * height // rows + 1)
        for column in range(columns):
            left = column * width // columns
            right = max((column + 1) * width // columns, left + 1)
            box = values[top:bottom:step, left:right]
            expected = np.nanmean(box) if np.isfinite(box).mean() >= 0.5 else np.nan
            np.testing.assert_allclose(found[row, column], expected, rtol=1e-5)
