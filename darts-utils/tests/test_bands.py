import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from darts_utils.bands import (
    BANDS,
    band,
    decode,
    decode_tile,
    describe,
    encode,
    encode_tile,
    normalize,
    require_bands,
)
from darts_utils.errors import ConfigError, MissingBandError

FLOATS = [name for name, row in BANDS.items() if row.memory == "float32"]
CLASSES = [name for name, row in BANDS.items() if row.memory != "float32"]

values_of_any_kind = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7),
    elements=st.one_of(
        st.floats(-5, 5, width=32), st.floats(width=32, allow_nan=True, allow_infinity=True),
        st.floats(-200, 3500, width=32),
    ),
)  # fmt: skip


@pytest.fixture
def tile():
    geobox = GeoBox.from_bbox((500_000, 7_700_000, 500_030, 7_700_020), crs="EPSG:32608", resolution=10)
    dims = ("y", "x")
    return xr.Dataset(
        {
            "red": (dims, np.float32([[0.1, 0.2, np.nan], [0.4, 0.5, 0.6]])),
            "slope": (dims, np.float32([[0, 12.345, np.nan], [90, 45, 1]])),
            "probabilities-demo-full": (dims, np.float32([[0, 1, np.nan], [0.5, 0.999, 0.004]])),
            "quality_data_mask": (dims, np.uint8([[0, 1, 2], [2, 2, 2]])),
            "arcticdem_data_mask": (dims, np.uint8([[0, 1, 1], [0, 1, 1]])),
            "extent": (dims, np.array([[True, False, True], [True, True, False]])),
        },
        coords=xr_coords(geobox),
        attrs={"tile_id": "T1"},
    )


@pytest.mark.parametrize("name", FLOATS)
@settings(max_examples=40, deadline=None)
@given(values=values_of_any_kind)
@example(values=np.float32([[np.nan, np.inf, -np.inf]]))
def test_decoding_what_was_encoded_differs_by_at_most_half_a_step(name, values):
    row = BANDS[name]
    stored = encode(values, name)
    decoded = decode(stored, name)
    assert stored.dtype == row.disk
    assert decoded.dtype == np.float32
    assert np.array_equal(np.isnan(decoded), np.isnan(values)), "NaN survives, and nothing else becomes NaN"
    known = ~np.isnan(values)
    lo, hi = row.valid
    clipped = np.clip(values[known].astype("float64"), lo, hi)
    next_code = row.nodata_is_in_range & (decoded[known] <= lo + 1.5 * row.scale)
    allowed = np.where(next_code, row.scale, row.scale / 2) + 2e-7 * max(abs(lo), abs(hi), 1)
    assert np.all(np.abs(decoded[known] - clipped) <= allowed)


@pytest.mark.parametrize("name", FLOATS)
def test_every_code_of_the_valid_range_comes_back_as_itself(name):
    row = BANDS[name]
    lo, hi = (round((limit - row.offset) / row.scale) for limit in row.valid)
    codes = np.arange(lo, hi + 1)
    codes = codes[codes != row.nodata].astype(row.disk)
    assert np.array_equal(encode(decode(codes, name), name), codes)


@pytest.mark.parametrize("name", FLOATS)
def test_disk_type_holds_the_range_and_the_nodata_code(name):
    row = BANDS[name]
    info = np.iinfo(row.disk)
    lo, hi = (round((limit - row.offset) / row.scale) for limit in row.valid)
    assert info.min <= min(lo, row.nodata)
    assert max(hi, row.nodata) <= info.max
    assert row.nodata_is_in_range == (lo <= row.nodata <= hi)


@pytest.mark.parametrize("name", FLOATS)
def test_infinities_are_clipped(name):
    lo, hi = BANDS[name].valid
    decoded = decode(encode(np.float32([-np.inf, np.inf]), name), name)
    assert np.allclose(decoded, [lo + BANDS[name].scale * BANDS[name].nodata_is_in_range, hi], rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 4), (4, 0), (1, 1), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_arrays_of_any_shape_and_float_type_are_coded(shape, dtype):
    values = np.full(shape, 0.25, dtype)
    stored = encode(values, "red")
    assert stored.shape == shape
    assert np.all(stored == 3500)
    assert decode(stored, "red").shape == shape
    assert np.allclose(decode(stored, "red"), 0.25)


def test_arrays_longer_than_one_block_are_coded_whole():
    values = np.linspace(0, 90, 2500, dtype="float32")[:, None].repeat(2, axis=1)
    assert np.array_equal(encode(values, "slope"), np.rint(values.astype("float64") / 0.01).astype("int16"))


def test_float64_is_rounded_from_its_own_value():
    # In float32 both would be 45.005 and round the same way.
    assert encode(np.array([45.00499999, 45.00500001]), "slope").tolist() == [4500, 4501]


def test_whole_numbers_can_be_encoded_as_a_float_band():
    assert encode(np.uint8([0, 1, 200, 255]), "tc_wetness").tolist() == [1, 1, 200, 255]
    assert encode(np.int32([-200, 0, 4000]), "dem").tolist() == [0, 1000, 31000]


@pytest.mark.parametrize("name", FLOATS)
def test_coding_leaves_its_input_alone(name):
    values = np.float32([[np.nan, -1e9, 0.3, 1e9]])
    before = values.copy()
    stored = encode(values, name)
    codes = stored.copy()
    decode(stored, name)
    normalize(values, name)
    assert np.array_equal(values, before, equal_nan=True)
    assert np.array_equal(stored, codes)


@pytest.mark.parametrize("name", CLASSES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_classes_come_back_as_they_were(name, data):
    row = BANDS[name]
    dtype = np.dtype(row.memory)
    elements = st.booleans() if dtype.kind == "b" else st.integers(0, row.valid[1])
    values = data.draw(hnp.arrays(dtype, (3, 4), elements=elements))
    stored = encode(values, name)
    assert stored.dtype == row.disk
    decoded = decode(stored, name)
    assert decoded.dtype == row.memory
    assert np.array_equal(decoded, values)


def test_classes_beyond_the_range_are_clipped_to_it():
    assert encode(np.uint8([0, 2, 3, 255]), "quality_data_mask").tolist() == [0, 2, 2, 2]
    assert encode(np.int16([-1, 5, 300]), "s2_scl").tolist() == [0, 5, 11]
    assert encode(np.float32([0, 1, 2]), "quality_data_mask").tolist() == [0, 1, 2]


def test_nan_in_a_band_of_classes_is_refused():
    with pytest.raises(ConfigError, match="quality_data_mask"):
        encode(np.float32([1, np.nan]), "quality_data_mask")


def test_arrays_keep_coordinates_and_gain_the_codec_on_disk(tile):
    stored = encode(tile.red, "red")
    assert stored.dtype == np.uint16
    assert stored.attrs == {"_FillValue": 0, "scale_factor": 1e-4, "add_offset": -0.1}
    assert isinstance(stored.attrs["_FillValue"], np.uint16), "netCDF wants the fill value in the array's own type"
    assert stored.odc.geobox == tile.odc.geobox
    assert decode(stored, "red").attrs == {}
    assert "_FillValue" not in tile.red.attrs


def test_a_band_without_nodata_code_gets_no_fill_value(tile):
    assert "_FillValue" not in encode(tile.extent, "extent").attrs
    assert encode(tile.slope, "slope").attrs["_FillValue"] == -1


def test_a_tile_comes_back_from_disk_form(tile):
    stored = encode_tile(tile)
    assert {name: str(stored[name].dtype) for name in stored.data_vars} == {
        "red": "uint16", "slope": "int16", "probabilities-demo-full": "uint8", "quality_data_mask": "uint8",
        "arcticdem_data_mask": "bool", "extent": "uint8",
    }  # fmt: skip
    decoded = decode_tile(stored)
    assert decoded.attrs == tile.attrs
    assert decoded.odc.geobox == tile.odc.geobox
    for name in tile.data_vars:
        assert decoded[name].dtype == tile[name].dtype
        step = band(name).scale
        assert np.allclose(decoded[name], tile[name].clip(*band(name).valid), atol=0.51 * step, equal_nan=True)


def test_encoding_some_bands_leaves_the_others_out(tile):
    assert list(encode_tile(tile, ["slope"]).data_vars) == ["slope"]


def test_other_software_decodes_what_was_encoded(tile, tmp_path):
    encode_tile(tile, ["red", "slope", "extent"]).to_zarr(tmp_path / "tile.zarr", zarr_format=3, consolidated=False)
    with xr.open_zarr(tmp_path / "tile.zarr", consolidated=False, mask_and_scale=True) as decoded:
        assert np.allclose(decoded.red, tile.red.clip(-0.1, 0.5), atol=5.1e-5, equal_nan=True)
        assert np.allclose(decoded.slope, tile.slope, atol=5.1e-3, equal_nan=True)


@pytest.mark.parametrize("name", list(BANDS))
def test_normalized_bands_lie_between_0_and_1_in_float32(name):
    lo, hi = BANDS[name].valid
    values = np.array([lo, hi, (lo + hi) / 2], "float64" if BANDS[name].memory == "float32" else BANDS[name].memory)
    expected = [0, 1, 0.5] if BANDS[name].memory == "float32" else (values.astype(float) - lo) / (hi - lo)
    model = normalize(values, name)
    assert model.dtype == np.float32
    assert np.allclose(model, expected, atol=1e-6)


def test_normalizing_clips_and_fills_nan_with_0():
    assert normalize(np.float32([-200, np.nan, 0, 20, 1e9, np.inf, -np.inf]), "dem").tolist() == pytest.approx(
        [0, 0, 100 / 3100, 120 / 3100, 1, 1, 0]
    )


def test_limits_of_a_checkpoint_replace_the_range():
    assert normalize(np.float32([0.0, 0.1, 0.2, 0.4]), "red", (0, 0.2)).tolist() == pytest.approx([0, 0.5, 1, 1])
    assert normalize(np.array([True, False]), "extent", (0, 2)).tolist() == [0.5, 0]


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (2, 3, 4)])
def test_arrays_of_any_shape_are_normalized(shape):
    assert normalize(np.full(shape, 45.0, "float32"), "slope").shape == shape


def test_a_normalized_data_array_keeps_its_grid(tile):
    assert normalize(tile.slope, "slope").odc.geobox == tile.odc.geobox


def test_rows_of_a_model_follow_their_stem():
    row = band("probabilities-demo-full")
    assert (row.name, row.disk, row.scale, row.nodata) == ("probabilities-demo-full", "uint8", 0.01, 255)
    assert "demo-full" in row.long_name
    assert band("binarized_segmentation-x").memory == "bool"


@pytest.mark.parametrize("name", ["purple", "", "slope-demo", "extent-a", "Red", "-probabilities"])
def test_an_unknown_band_is_refused_with_names_that_there_are(name):
    with pytest.raises(MissingBandError, match=f"{name!r} is not in the band table.* such as blue, nir"):
        band(name)


def test_the_table_is_read_only():
    with pytest.raises(TypeError):
        BANDS["red"] = BANDS["blue"]


def test_required_bands_name_the_tile_and_what_is_missing(tile):
    require_bands(tile, "red", "slope")
    require_bands(tile)
    with pytest.raises(MissingBandError, match="T1 lacks blue, nir, which NDVI needs; it has red"):
        require_bands(tile, "blue", "red", "nir", purpose="NDVI")
    with pytest.raises(MissingBandError, match="x"):
        require_bands(tile, "x")  # a coordinate is no band


def test_described_arrays_say_what_they_are(tile):
    described = describe(tile["red"].rename("B04_10m"), "red", "CDSE")
    assert described.name == "red"
    assert described.attrs == {"long_name": "Red reflectance", "units": "1", "data_source": "CDSE"}
