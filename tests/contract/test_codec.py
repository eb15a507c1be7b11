"""SPEC 3: the band table, and what encoding and decoding do."""

import numpy as np
import pytest

from darts_utils.bands import BANDS, band, decode, encode, normalize

# Typed from SPEC, not from the code: memory, disk, valid range, scale, offset, nodata on disk.
TABLE = {
    **dict.fromkeys(("blue", "green", "red", "nir"), ("float32", "uint16", (-0.1, 0.5), 0.0001, -0.1, 0)),
    "s2_scl": ("uint8", "uint8", (0, 11), None, None, None),
    "planet_udm": ("uint8", "uint8", (0, 255), None, None, None),
    "quality_data_mask": ("uint8", "uint8", (0, 2), None, None, None),
    "dem": ("float32", "int16", (-100, 3000), 0.1, -100, -1),
    "arcticdem_data_mask": ("uint8", "bool", (0, 1), None, None, None),
    **{f"tc_{name}": ("float32", "uint8", (0, 255), 1, 0, 0) for name in ("brightness", "greenness", "wetness")},
    "ndvi": ("float32", "int16", (-1, 1), 1e-4, -1, -1),
    "relative_elevation": ("float32", "int16", (-50, 50), 1 / 300, -50, -1),
    "slope": ("float32", "int16", (0, 90), 0.01, 0, -1),
    "aspect": ("float32", "int16", (0, 360), 0.1, 0, -1),
    "hillshade": ("float32", "int16", (0, 1), 1e-4, 0, -1),
    "curvature": ("float32", "int16", (-1, 1), 1e-4, -1, -1),
    **dict.fromkeys(
        ("probabilities", "probabilities-demo-full", "probability_std"),
        ("float32", "uint8", (0, 1), 0.01, 0, 255),
    ),
    **dict.fromkeys(
        ("binarized_segmentation", "binarized_segmentation-demo-full", "extent"),
        ("bool", "uint8", (0, 1), None, None, None),
    ),
}
FLOATS = [name for name, row in TABLE.items() if row[0] == "float32"]

# Value in memory, code on disk, value read back.
NAN = float("nan")
EXAMPLES = {
    "red": [
        (0.0, 1000, 0.0), (0.1, 2000, 0.1), (0.5, 6000, 0.5), (0.9, 6000, 0.5), (-0.05, 500, -0.05),
        (-0.1, 1, -0.0999), (-0.3, 1, -0.0999), (-0.0999, 1, -0.0999), (0.12344, 2234, 0.1234), (0.12346, 2235, 0.1235),
    ],
    "dem": [(-100, 0, -100), (0, 1000, 0), (123.44, 2234, 123.4), (3000, 31000, 3000), (4000, 31000, 3000),
            (-101, 0, -100)],
    "tc_wetness": [(0, 1, 1), (0.4, 1, 1), (1, 1, 1), (1.6, 2, 2), (255, 255, 255), (300, 255, 255), (-5, 1, 1)],
    "ndvi": [(-1, 0, -1), (0, 10000, 0), (1, 20000, 1), (1.5, 20000, 1), (0.12346, 11235, 0.1235)],
    "relative_elevation": [(-50, 0, -50), (0, 15000, 0), (0.9968, 15299, 299 / 300), (50, 30000, 50), (80, 30000, 50)],
    "slope": [(0, 0, 0), (12.346, 1235, 12.35), (90, 9000, 90)],
    "aspect": [(0, 0, 0), (92.82, 928, 92.8), (359.98, 3600, 360), (360, 3600, 360)],
    "hillshade": [(0, 0, 0), (0.75, 7500, 0.75), (1, 10000, 1)],
    "curvature": [(-1, 0, -1), (0.1, 11000, 0.1), (1, 20000, 1), (24.5, 20000, 1), (-24.5, 0, -1)],
    "probabilities": [(0, 0, 0), (0.004, 0, 0), (0.006, 1, 0.01), (0.999, 100, 1), (1, 100, 1), (0.73, 73, 0.73)],
    "probability_std": [(0.25, 25, 0.25), (0.5, 50, 0.5)],
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_the_table_is_the_one_of_the_specification(name):
    memory, disk, valid, scale, offset, nodata = TABLE[name]
    row = band(name)
    assert (row.memory, row.disk, row.nodata) == (memory, disk, nodata)
    assert tuple(row.valid) == valid
    if scale is not None:
        assert (row.scale, row.offset) == pytest.approx((scale, offset))


@pytest.mark.parametrize("name", EXAMPLES)
def test_values_get_the_codes_worked_out_by_hand(name):
    values, codes, back = (np.array(column) for column in zip(*EXAMPLES[name], strict=True))
    stored = encode(values.astype("float32"), name)
    assert stored.dtype == TABLE[name][1]
    assert stored.tolist() == codes.tolist()
    assert np.allclose(decode(stored, name), back, rtol=1e-6, atol=5e-6)


@pytest.mark.parametrize("name", FLOATS)
def test_nan_survives_and_nothing_else_becomes_nan(name):
    _, _disk, (lo, hi), scale, offset, nodata = TABLE[name]
    on_the_nodata_code = scale * nodata + offset
    values = np.float32([NAN, lo, hi, on_the_nodata_code, lo - 1, hi + 1, -np.inf, np.inf])
    stored = encode(values, name)
    assert stored[0] == nodata
    assert np.isnan(decode(stored, name)).tolist() == [True] + 7 * [False]


@pytest.mark.parametrize("name", FLOATS)
def test_reading_back_differs_by_half_a_step_or_one_step_next_to_the_nodata_code(name):
    _, _, (lo, hi), scale, _offset, nodata = TABLE[name]
    values = np.random.default_rng(3).uniform(lo - 0.1 * (hi - lo), hi + 0.1 * (hi - lo), 20_000).astype("float32")
    clipped = np.clip(values.astype("float64"), lo, hi)
    error = np.abs(decode(encode(values, name), name) - clipped)
    beside_nodata = (nodata == 0) & (clipped < lo + scale / 2)
    rounding = 3e-7 * max(abs(lo), abs(hi))
    assert error[~beside_nodata].max() <= scale / 2 + rounding
    if beside_nodata.any():
        assert error[beside_nodata].max() <= scale + rounding


@pytest.mark.parametrize(
    ("name", "value", "model"),
    [
        ("red", -0.1, 0), ("red", 0.2, 0.5), ("red", 0.5, 1), ("red", 2, 1), ("red", -1, 0), ("red", NAN, 0),
        ("dem", 1450, 0.5), ("dem", NAN, 0), ("tc_wetness", 51, 0.2), ("ndvi", 0, 0.5),
        ("relative_elevation", -25, 0.25), ("slope", 45, 0.5), ("aspect", 90, 0.25), ("hillshade", 0.75, 0.75),
        ("curvature", 0.1, 0.55), ("curvature", 24.5, 1),
    ],
)  # fmt: skip
def test_models_see_the_share_of_the_valid_range(name, value, model):
    seen = normalize(np.float32([value]), name)
    assert seen.dtype == np.float32
    assert seen[0] == pytest.approx(model, abs=1e-6)


def test_bands_beyond_the_specification_are_of_the_same_kinds():
    for name in set(BANDS) - set(TABLE):
        row = BANDS[name]
        assert (row.memory, row.disk, row.valid, row.scale, row.offset, row.nodata) in {
            ("float32", "uint16", (-0.1, 0.5), 1e-4, -0.1, 0),
            ("float32", "uint8", (0, 1), 0.01, 0.0, 255),
            ("float32", "int16", (-1, 1), 1e-4, -1, -1),  # indices, as ndvi
        }, name
