import sys

import numpy as np
import pytest
import spyndex
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import darts_preprocessing
from darts_preprocessing import INDICES, calculate_index, calculate_ndvi, find_index, indices, known_indices
from darts_utils.bands import BANDS
from darts_utils.errors import ConfigError, DeviceError, MissingBandError
from darts_utils.testing import namespaces, optical_tile, tile_on, utm_geobox

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

GEOBOX = utm_geobox((12, 9))

# Green vegetation, by the names that spyndex gives bands.
SPECTRUM = {
    "A": 0.03, "B": 0.04, "G": 0.08, "R": 0.05, "RE1": 0.12, "RE2": 0.26, "RE3": 0.32, "N": 0.36, "N2": 0.38,
    "WV": 0.37, "S1": 0.2, "S2": 0.1,
}  # fmt: skip
NAMES = {
    "A": "coastal", "B": "blue", "G": "green", "R": "red", "RE1": "rededge071", "RE2": "rededge075",
    "RE3": "rededge078", "N": "nir", "N2": "nir08", "WV": "nir09", "S1": "swir16", "S2": "swir22",
}  # fmt: skip
SENTINEL_2_NM = {"lambdaG": 560, "lambdaR": 665, "lambdaN": 833, "lambdaN2": 865, "lambdaS1": 1614, "lambdaS2": 2202}


@pytest.fixture(params=namespaces(), ids=lambda module: module.__name__)
def xp(request):
    return request.param


def difference(first, second):
    return lambda b: (b[first] - b[second]) / (b[first] + b[second])


def ndvi(b):
    return np.clip((b["nir"] - b["red"]) / (b["nir"] + b["red"]), -1, 1)


# Written anew from the papers, in float64.
EXPECTED = {
    "ndvi": ndvi,
    "gndvi": difference("nir", "green"),
    "grvi": difference("green", "red"),
    "ndre": difference("nir", "rededge071"),
    "ikaw": difference("red", "blue"),
    "ndwi": difference("green", "nir"),
    "mndwi": difference("green", "swir16"),
    "ndmi": difference("nir", "swir16"),
    "ndsi": difference("green", "swir16"),
    "nbr": difference("nir", "swir22"),
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

# Of those in the table, the names that spyndex gives to something else.
ANOTHER_INDEX_IN_SPYNDEX = {
    "grvi": "green ratio vegetation index, N/G; spyndex calls ours NGRDI",
    "rvi": "red edge over red; ours is the inverse of its SR",
    "ttvi": "transformed triangular vegetation index",
}
OTHER_NAME_IN_SPYNDEX = {"grvi": "NGRDI", "ndre": "NDREI", "vdvi": "GLI"}


def full_tile(seed=0, geobox=GEOBOX, missing=0.0):
    """All optical bands: a spectrum of vegetation with noise."""
    rng = np.random.default_rng(seed)
    bands = {}
    for letter, level in SPECTRUM.items():
        values = (level * (1 + 0.15 * rng.uniform(-1, 1, geobox.shape))).astype("float32")
        values[rng.random(geobox.shape) < missing] = np.nan
        bands[NAMES[letter]] = values
    return tile_on(geobox, bands)


def by_letter(tile):
    return {letter: tile[name].values.astype("float64") for letter, name in NAMES.items()}


def in_spyndex(name, tile):
    """The index as spyndex computes it, in float64, with its defaults."""
    constants = {part: spyndex.constants[part].default for part in spyndex.indices[name].bands if part not in NAMES}
    constants |= {part: SENTINEL_2_NM.get(part, 1500) for part, value in constants.items() if value is None}
    return spyndex.computeIndex(name, params={**by_letter(tile), **constants})


def test_every_index_of_the_table_is_tested_and_has_a_function():
    assert set(EXPECTED) == set(INDICES)
    for name, index in INDICES.items():
        function = getattr(darts_preprocessing, f"calculate_{name}")
        assert index.formula in function.__doc__
        assert function(full_tile()).equals(calculate_index(full_tile(), name))
        assert set(index.bands) <= set(BANDS)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_index_follows_its_formula(name, xp):
    tile = full_tile(missing=0.1)
    before = tile.copy(deep=True)
    moved = tile.map(lambda values: values.copy(data=xp.asarray(values.data)))
    result = calculate_index(moved, name)
    assert isinstance(result.data, xp.ndarray)
    values = np.asarray(result.data if xp is np else result.data.get())
    bands = {band: tile[band].values.astype("float64") for band in INDICES[name].bands}
    assert values.dtype == np.float32
    assert np.isnan(values).any()
    assert np.allclose(values, EXPECTED[name](bands), rtol=1e-4, atol=1e-6, equal_nan=True)
    assert result.odc.geobox == GEOBOX
    assert result.name == name
    assert {"long_name", "units", "formula", "references", "data_source"} <= set(result.attrs)
    assert result.attrs["data_source"] == "synthetic"
    assert tile.identical(before)


@pytest.mark.parametrize("name", sorted(set(INDICES) - {"nrvi", "ctvi"}))
def test_the_table_agrees_with_spyndex(name):
    tile = full_tile(1)
    names = {other.lower(): other for other in spyndex.indices}
    if name in ANOTHER_INDEX_IN_SPYNDEX:
        assert not np.allclose(calculate_index(tile, name), in_spyndex(names[name], tile), rtol=1e-2)
        if name not in OTHER_NAME_IN_SPYNDEX:
            return
    other = OTHER_NAME_IN_SPYNDEX.get(name, names.get(name))
    # spyndex has one L for all, 1; Huete's is 0.5.
    found = calculate_index(tile, name, L=1) if name == "savi" else calculate_index(tile, name)
    assert np.allclose(found, in_spyndex(other, tile), rtol=1e-4, atol=1e-6)


def test_indices_of_spyndex_are_what_spyndex_computes():
    tile = full_tile(2)
    for name in set(known_indices()) - set(INDICES):
        index = find_index(name)
        needed = {part: SENTINEL_2_NM.get(part, 1500) for part, value in index.constants.items() if value is None}
        result = calculate_index(tile, name, **needed)
        expected = in_spyndex(name, tile)
        assert result.dtype == np.float32
        assert result.name == name
        assert np.isfinite(expected).all(), name
        assert np.allclose(result, expected, rtol=2e-4, atol=1e-6), name
        assert {"long_name", "units", "formula", "references", "data_source"} <= set(result.attrs)
        # The formula in the attributes tells all: it can be computed anew from the bands.
        formula, *constants = result.attrs["formula"].split(", ")
        numbers = {part: float(value) for part, _, value in (constant.partition(" = ") for constant in constants)}
        bands = {band: tile[band].values.astype("float64") for band in index.bands}
        again = eval(formula, {"__builtins__": {}}, {**bands, **numbers})
        assert np.allclose(again, expected, rtol=1e-9), name


def test_no_index_is_computed_in_float64(monkeypatch, xp):
    seen = []
    evaluate = indices._evaluate
    monkeypatch.setattr(indices, "_evaluate", lambda *args: seen.append(evaluate(*args)) or seen[-1])
    tile = full_tile().map(lambda values: values.copy(data=xp.asarray(values.data)))
    for name, index in known_indices().items():
        calculate_index(tile, name, **{part: np.float64(500 + ord(part[-1])) for part in index.constants})
        assert seen.pop().dtype == np.float32, name
        assert not seen


def test_bands_of_other_types_and_layouts_are_taken():
    tile = full_tile(3)
    expected = calculate_ndvi(tile)
    turned = tile.assign(red=tile.red.T.astype("float64"), nir=tile.nir.astype("float64"))
    assert np.allclose(calculate_ndvi(turned), expected, atol=1e-6)
    assert calculate_ndvi(turned).dtype == np.float32
    counted = tile.assign(nir=(tile.nir * 10000).astype("uint16"), red=(tile.red * 10000).astype("uint16"))
    assert np.allclose(calculate_ndvi(counted), expected, atol=1e-3)
    assert calculate_ndvi(counted).dtype == np.float32


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (37, 23), (0, 5)])
@pytest.mark.parametrize("block_px", [1, 64, 2**17])
def test_values_do_not_depend_on_the_blocks(shape, block_px, monkeypatch):
    tile = full_tile(4, utm_geobox(shape), missing=0.2) if 0 not in shape else full_tile(4).isel(y=slice(0, 0))
    expected = {name: calculate_index(tile, name).values for name in ("ndvi", "ctvi", "MSAVI")}
    monkeypatch.setattr(indices, "BLOCK_PX", block_px)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    for name, values in expected.items():
        assert np.array_equal(calculate_index(tile, name).values, values, equal_nan=True)


def test_what_a_block_raises_is_raised(monkeypatch):
    def fails(*_):
        raise MemoryError("no more")

    monkeypatch.setattr(indices, "BLOCK_PX", 1)
    monkeypatch.setattr(indices, "_evaluate", fails)
    with pytest.raises(MemoryError, match="no more"):
        calculate_ndvi(full_tile())


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


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from([*INDICES, "MSAVI", "CVI", "SR", "ARI", "AVI", "BAI", "EVIv", "NIRv"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_value_is_a_number_or_nan(name, seed):
    rng = np.random.default_rng(seed)
    shape = (4, 5)
    values = {band: rng.choice(np.float32([0, -0.0, 0.1, 0.5, -0.05, 1, np.nan]), shape) for band in NAMES.values()}
    result = calculate_index(tile_on(utm_geobox(shape), values), name).values
    missing = np.logical_or.reduce([np.isnan(values[band]) for band in find_index(name).bands])
    assert not np.isinf(result).any()
    assert np.isnan(result[missing]).all()


def test_division_by_zero_is_nan():
    tile = tile_on(utm_geobox((1, 4)), {"red": np.float32([[0, 1, 0, 0.5]]), "nir": np.float32([[0, 0, 1, 0.5]])})
    assert np.array_equal(calculate_index(tile, "rvi").values, [[np.nan, np.nan, 0, 1]], equal_nan=True)
    assert np.array_equal(calculate_index(tile, "SR").values, [[np.nan, 0, np.nan, 1]], equal_nan=True)
    assert np.array_equal(calculate_index(tile, "nrvi").values, [[np.nan, 1, -1, 0]], equal_nan=True)


def test_tvi_has_no_answer_below_a_half_and_its_corrections_have():
    tile = tile_on(utm_geobox((1, 3)), {"red": np.float32([[0.9, 0.75, 0.1]]), "nir": np.float32([[0.1, 0.25, 0.9]])})
    root = np.float32(np.sqrt([[0.3, 0, 1.3]]))
    assert np.allclose(calculate_index(tile, "tvi"), [[np.nan, 0, root[0, 2]]], equal_nan=True)
    assert np.allclose(calculate_index(tile, "ctvi"), root * [[-1, 0, 1]])
    assert np.allclose(calculate_index(tile, "ttvi"), root)


def test_names_are_found_in_any_case():
    tile = full_tile()
    assert calculate_index(tile, "NDVI").identical(calculate_ndvi(tile))
    assert calculate_index(tile, "msavi").identical(calculate_index(tile, "MSAVI"))
    # Two of spyndex' names differ in case only.
    assert calculate_index(tile, "BAI").attrs["long_name"] != calculate_index(tile, "BaI").attrs["long_name"]
    with pytest.raises(ConfigError, match="'bai' is one of BAI and BaI"):
        calculate_index(tile, "bai")


def test_constants_have_defaults_and_can_be_given():
    tile = full_tile()
    nir, red = tile.nir.values, tile.red.values
    assert np.allclose(calculate_index(tile, "savi", L=0.25), 1.25 * (nir - red) / (nir + red + 0.25), rtol=1e-5)
    assert calculate_index(tile, "savi").attrs["formula"].endswith("(nir + red + L), L = 0.5")
    assert calculate_index(tile, "savi", L=0.25).attrs["formula"].endswith("(nir + red + L), L = 0.25")
    wide = calculate_index(tile, "WDRVI", alpha=0.2)
    assert np.allclose(wide, (0.2 * nir - red) / (0.2 * nir + red), rtol=1e-5, atol=1e-6)
    assert wide.attrs["formula"].endswith("alpha = 0.2")


@pytest.mark.parametrize(
    ("name", "constants", "problem"),
    [
        ("ndvi", {"L": 1}, "ndvi has no constant 'L'; it has none"),
        ("evi", {"C3": 1}, "evi has no constant 'C3'; its constants are g, C1, C2, L"),
        ("MSAVI", {"nir": 1}, "no constant 'nir'"),
        ("FAI", {"lambdaN": 833}, "FAI needs lambdaR, which has no default; give lambdaR="),
        ("savi", {"L": "half"}, "L of index savi must be a finite number, got 'half'"),
        ("savi", {"L": float("nan")}, "must be a finite number"),
        ("savi", {"L": [1, 2]}, "must be a finite number"),
    ],
)
def test_constants_that_cannot_be_are_refused(name, constants, problem):
    with pytest.raises(ConfigError, match=problem):
        calculate_index(full_tile(), name, **constants)


def test_an_unknown_index_is_refused_with_the_nearest_names():
    with pytest.raises(ConfigError, match=r"'nvdi' is unknown; did you mean ndvi or .*The table has ndvi, gndvi"):
        calculate_index(full_tile(), "nvdi")
    with pytest.raises(ConfigError, match=r"'msavi3' is unknown; did you mean savi or MSAVI"):
        calculate_index(full_tile(), "msavi3")
    with pytest.raises(ConfigError, match=r"'no such thing' is unknown\. The table has"):
        calculate_index(full_tile(), "no such thing")


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("DBI", r"T1 \(Thermal Infrared 1\)"), ("NDPolI", "VV, VH"), ("kNDVI", "kNN, kNR"), ("CCI", r"G1 \(Green 1\)"),
        ("NDSIWV", r"Y \(Yellow\)"),
    ],
)  # fmt: skip
def test_an_index_that_needs_what_we_do_not_have_is_refused(name, lacking):
    with pytest.raises(ConfigError, match=f"{name} needs {lacking}, which darts does not have"):
        calculate_index(full_tile(), name)
    assert name not in known_indices()


def test_a_missing_band_is_refused():
    with pytest.raises(MissingBandError, match=r"tile synthetic lacks nir.*index ndvi"):
        calculate_ndvi(optical_tile(GEOBOX).drop_vars("nir"))
    with pytest.raises(MissingBandError, match=r"lacks swir16.*index MSI"):
        calculate_index(optical_tile(GEOBOX), "MSI")


def test_bands_on_different_devices_are_refused(xp):
    if xp is np:
        pytest.skip("needs a GPU")
    tile = full_tile()
    with pytest.raises(DeviceError):
        calculate_ndvi(tile.assign(nir=tile.nir.copy(data=xp.asarray(tile.nir.data))))


def test_known_indices_hold_the_table_first_and_each_name_once():
    known = known_indices()
    assert list(known)[: len(INDICES)] == list(INDICES)
    assert len(known) > 200
    assert all(known[name] is index for name, index in INDICES.items())
    assert not {name.lower() for name in set(known) - set(INDICES)} & set(INDICES)
    assert all(set(index.bands) <= set(BANDS) for index in known.values())


def test_the_table_needs_no_spyndex(monkeypatch):
    monkeypatch.setitem(sys.modules, "spyndex", None)  # importing it fails
    for name in INDICES:
        calculate_index(full_tile(), name)
    with pytest.raises(ImportError):
        calculate_index(full_tile(), "MSAVI")


def test_a_dataset_without_a_grid_will_do():
    values = {name: (("row", "col"), np.full((2, 3), 0.25, "float32")) for name in ("red", "nir")}
    assert (calculate_ndvi(xr.Dataset(values)).values == 0).all()
