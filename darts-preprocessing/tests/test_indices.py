import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import darts_preprocessing
from darts_preprocessing import INDICES, calculate_index, calculate_ndvi
from darts_utils.errors import ConfigError, MissingBandError
from darts_utils.testing import namespaces, optical_tile, tile_on, utm_geobox

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

GEOBOX = utm_geobox((12, 9))


@pytest.fixture(params=namespaces(), ids=lambda module: module.__name__)
def xp(request):
    return request.param


def ndvi(b):
    return np.clip((b["nir"] - b["red"]) / (b["nir"] + b["red"]), -1, 1)


# Written anew from the papers, in float64.
EXPECTED = {
    "ndvi": ndvi,
    "gndvi": lambda b: (b["nir"] - b["green"]) / (b["nir"] + b["green"]),
    "grvi": lambda b: (b["green"] - b["red"]) / (b["green"] + b["red"]),
    "ndwi": lambda b: (b["green"] - b["nir"]) / (b["green"] + b["nir"]),
    "rvi": lambda b: b["red"] / b["nir"],
    "nrvi": lambda b: (b["red"] / b["nir"] - 1) / (b["red"] / b["nir"] + 1),
    "tvi": lambda b: np.sqrt(ndvi(b) + 0.5),
    "ctvi": lambda b: (ndvi(b) + 0.5) / np.sqrt(np.abs(ndvi(b) + 0.5)),
    "ttvi": lambda b: np.sqrt(np.abs(ndvi(b) + 0.5)),
    "savi": lambda b: (b["nir"] - b["red"]) / (b["nir"] + b["red"] + 0.5) * 1.5,
    "evi": lambda b: 2.5 * (b["nir"] - b["red"]) / (b["nir"] + 6 * b["red"] - 7.5 * b["blue"] + 1),
    "vari": lambda b: (b["green"] - b["red"]) / (b["green"] + b["red"] - b["blue"]),
    "gli": lambda b: (b["green"] * 2 - b["red"] - b["blue"]) / (b["green"] * 2 + b["red"] + b["blue"]),
    "vdvi": lambda b: (b["green"] * 2 - b["red"] - b["blue"]) / (b["green"] * 2 + b["red"] + b["blue"]),
    "tgi": lambda b: -95 * (b["red"] - b["green"]) + 60 * (b["red"] - b["blue"]),
    "exg": lambda b: b["green"] * 2 - b["red"] - b["blue"],
}


def test_every_index_of_the_table_is_tested_and_has_a_function():
    assert set(EXPECTED) == set(INDICES)
    for name, index in INDICES.items():
        function = getattr(darts_preprocessing, f"calculate_{name}")
        assert index.formula in function.__doc__
        assert function(optical_tile(GEOBOX)).equals(calculate_index(optical_tile(GEOBOX), name))


@pytest.mark.parametrize("name", EXPECTED)
def test_an_index_follows_its_formula(name, xp):
    tile = optical_tile(GEOBOX, nodata_share=0.3)
    before = tile.copy(deep=True)
    moved = tile.map(lambda values: values.copy(data=xp.asarray(values.data)))
    result = calculate_index(moved, name)
    values = np.asarray(result.data if xp is np else result.data.get())
    bands = {band: tile[band].values.astype("float64") for band in ("blue", "green", "red", "nir")}
    assert values.dtype == np.float32
    assert np.allclose(values, EXPECTED[name](bands), rtol=1e-4, atol=1e-6, equal_nan=True)
    assert result.odc.geobox == GEOBOX
    assert result.name == name
    assert {"long_name", "units", "formula", "references", "data_source"} <= set(result.attrs)
    assert tile.identical(before)


@settings(max_examples=50, deadline=None)
@given(
    bands=arrays.arrays(
        "float32", (2, 3, 4), elements=st.floats(-1, 2, width=32) | st.sampled_from([0.0, -0.0, np.nan])
    )
)
def test_ndvi_lies_between_its_ends_and_is_nan_only_without_an_answer(bands):
    nir, red = bands
    values = calculate_ndvi(tile_on(utm_geobox((3, 4)), {"nir": nir, "red": red})).values
    unanswered = np.isnan(nir) | np.isnan(red) | ((nir == 0) & (red == 0))
    assert np.array_equal(np.isnan(values), unanswered)
    assert np.all(np.abs(values[~unanswered]) <= 1)


def test_a_tile_without_the_band_and_an_unknown_index_are_refused():
    tile = optical_tile(GEOBOX)
    with pytest.raises(MissingBandError, match=r"tile synthetic lacks nir.*index ndvi"):
        calculate_ndvi(tile.drop_vars("nir"))
    with pytest.raises(ConfigError, match=r"'nvdi' is unknown.*ndvi"):
        calculate_index(tile, "nvdi")
