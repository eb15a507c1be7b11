import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_preprocessing import calculate_dissection_index, calculate_tri, calculate_vrm, roughness_kernels
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError
from darts_utils.testing import dem_on, namespaces, plane_dem, rough_dem, utm_geobox

from .gdal_dem import MISSING, gdaldem

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

GRIDS = {
    "70 N": utm_geobox((23, 31)),
    "70 S": utm_geobox((23, 31), left=600_000, top=2_200_000, crs="EPSG:32708"),
    "polar": utm_geobox((23, 31), left=-2_000_000, top=-600_000, crs="EPSG:3413", pixel=2),
    "oblong": GeoBox((23, 31), Affine(10, 0, 600_000, 0, -5, 7_800_000), "EPSG:32608"),
    "north below": GeoBox((23, 31), Affine(10, 0, 600_000, 0, 10, 7_800_000), "EPSG:32608"),
}
EVERY_GRID = pytest.mark.parametrize("geobox", GRIDS.values(), ids=GRIDS.keys())
UTM = GRIDS["70 N"]
DEGREES = GeoBox((23, 31), Affine(0.001, 0, -132, 0, -0.001, 70), "EPSG:4326")
SHARED_DEMS = Path(__file__).parents[3] / "shared" / "data" / "dem"

ALL = {
    "tri": calculate_tri,
    "vrm": lambda ds: calculate_vrm(ds, "2px"),
    "dissection_index": lambda ds: calculate_dissection_index(ds, "2px"),
}


def around(dem, r, c, rows, cols):
    """Yield the pixels of a square that lie within the grid."""
    for y in range(max(r - rows, 0), min(r + rows + 1, dem.shape[0])):
        for x in range(max(c - cols, 0), min(c + cols + 1, dem.shape[1])):
            yield y, x


def brute_tri(dem, method="riley"):
    z = dem.astype("float64")
    out = np.full(z.shape, np.nan)
    for r in range(1, z.shape[0] - 1):
        for c in range(1, z.shape[1] - 1):
            differences = [z[p] - z[r, c] for p in around(z, r, c, 1, 1) if p != (r, c)]
            if np.isfinite(differences).all():
                squares, sizes = sum(d**2 for d in differences), sum(abs(d) for d in differences)
                out[r, c] = math.sqrt(squares) if method == "riley" else sizes / 8
    return out


def brute_normals(dem, dx, dy):
    """Unit normals by slope and aspect as Sappington et al. write them; NaN where the stencil is not complete."""
    z = dem.astype("float64")
    out = np.full((*z.shape, 3), np.nan)
    for r in range(1, z.shape[0] - 1):
        for c in range(1, z.shape[1] - 1):
            (nw, n, ne), (w, _, e), (sw, s, se) = z[r - 1 : r + 2, c - 1 : c + 2]
            if np.isfinite(z[r - 1 : r + 2, c - 1 : c + 2]).all():
                p = ((ne + 2 * e + se) - (nw + 2 * w + sw)) / (8 * dx)
                q = ((nw + 2 * n + ne) - (sw + 2 * s + se)) / (8 * dy)
                slope, aspect = math.atan(math.hypot(p, q)), math.atan2(-p, -q)
                horizontal = math.sin(slope)
                out[r, c] = horizontal * math.sin(aspect), horizontal * math.cos(aspect), math.cos(slope)
    return out


def brute_vrm(dem, dx, dy, rows, cols):
    normals = brute_normals(dem, dx, dy)
    out = np.full(dem.shape, np.nan)
    for r, c in np.argwhere(np.isfinite(dem)):
        valid = [normals[p] for p in around(dem, r, c, rows, cols) if np.isfinite(normals[p]).all()]
        if valid:
            out[r, c] = 1 - np.linalg.norm(np.sum(valid, axis=0)) / len(valid)
    return out


def brute_dissection(dem, rows, cols):
    z = dem.astype("float64")
    out = np.full(dem.shape, np.nan)
    for r, c in np.argwhere(np.isfinite(dem)):
        valid = [z[p] for p in around(z, r, c, rows, cols) if np.isfinite(z[p])]
        lowest, highest = min(valid), max(valid)
        out[r, c] = (z[r, c] - lowest) / (highest - lowest) if highest > lowest else 0
    return out


def size(geobox):
    return abs(geobox.affine.a), abs(geobox.affine.e)


@EVERY_GRID
@pytest.mark.parametrize("share", [0, 0.1])
def test_roughness_agrees_with_a_loop_over_pixels(geobox, share):
    dem = rough_dem(geobox, seed=1, nodata_share=share)
    z = dem.dem.values
    for method in ("riley", "wilson"):
        tri = calculate_tri(dem, method=method).tri
        assert np.allclose(tri, brute_tri(z, method), rtol=1e-6, equal_nan=True)
        assert tri.odc.geobox == geobox
        assert tri.dtype == np.float32
    vrm = calculate_vrm(dem, "2px").vrm
    assert np.allclose(vrm, brute_vrm(z, *size(geobox), 2, 2), rtol=1e-6, atol=1e-9, equal_nan=True)
    assert vrm.dtype == np.float32
    dissection = calculate_dissection_index(dem, "2px").dissection_index
    assert np.allclose(dissection, brute_dissection(z, 2, 2), rtol=1e-6, atol=1e-7, equal_nan=True)
    assert dissection.dtype == np.float32


@pytest.mark.parametrize(
    ("geobox", "radius", "rows", "cols"),
    [
        (UTM, 10, 1, 1), (UTM, 19.99, 1, 1), (UTM, "40 m", 4, 4), (UTM, "1.9px", 1, 1),
        (utm_geobox((9, 13)), 1000, 9, 13), (utm_geobox((13, 9)), "1000px", 13, 9), (GRIDS["polar"], 5, 2, 2),
        (GRIDS["oblong"], 20, 4, 2), (GRIDS["oblong"], "3px", 3, 3), (GRIDS["oblong"], 5, 1, 0),
    ],
)  # fmt: skip
def test_a_square_reaches_as_far_as_the_radius(geobox, radius, rows, cols):
    dem = rough_dem(geobox, seed=2, nodata_share=0.05)
    vrm = calculate_vrm(dem, radius).vrm
    assert np.allclose(vrm, brute_vrm(dem.dem.values, *size(geobox), rows, cols), rtol=1e-6, atol=1e-9, equal_nan=True)
    dissection = calculate_dissection_index(dem, radius).dissection_index
    assert np.allclose(dissection, brute_dissection(dem.dem.values, rows, cols), rtol=1e-6, atol=1e-7, equal_nan=True)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), share=st.sampled_from([0, 0.1, 0.5, 0.9, 1]),
    reach=st.integers(1, 12), pixel=st.sampled_from([2.0, 10.0]), levels=st.sampled_from([1, 2, 1000]),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_roughness_of_any_shape_and_any_holes(shape, share, reach, pixel, levels, seed):
    rng = np.random.default_rng(seed)
    geobox = utm_geobox(shape, pixel=pixel)
    z = rng.integers(0, levels, shape) / np.float32(16)  # of one level: flat
    z[rng.random(shape) < share] = rng.choice([np.nan, np.inf, -np.inf])
    dem = dem_on(geobox, z)
    assert np.allclose(calculate_tri(dem).tri, brute_tri(z), rtol=1e-6, equal_nan=True)
    vrm = calculate_vrm(dem, f"{reach}px").vrm
    assert np.allclose(vrm, brute_vrm(z, pixel, pixel, reach, reach), rtol=1e-6, atol=1e-9, equal_nan=True)
    dissection = calculate_dissection_index(dem, f"{reach}px").dissection_index
    assert np.allclose(dissection, brute_dissection(z, reach, reach), rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize("reach", [1, 3, 9])
def test_values_do_not_depend_on_the_blocks(reach, monkeypatch):
    # Wider and higher than a block (256 rows, 1024 columns), and cut at other places than the whole.
    geobox = utm_geobox((530, 1100))
    dem = rough_dem(geobox, seed=3, nodata_share=0.001)
    whole = {name: f(dem)[name].values for name, f in each(f"{reach}px").items()}
    margin = reach + 1
    for top, left in [(0, 0), (101, 77), (211, 640)]:
        rows, cols = slice(top, top + 310), slice(left, left + 450)
        part = dem.isel(y=slice(max(top - margin, 0), top + 310 + margin),
                        x=slice(max(left - margin, 0), left + 450 + margin))  # fmt: skip
        for name, f in each(f"{reach}px").items():
            found = f(part)[name].values[min(top, margin) :, min(left, margin) :][:310, :450]
            assert np.array_equal(found, whole[name][rows, cols], equal_nan=True)
    monkeypatch.setattr(roughness_kernels, "WINDOW_ROWS", 7)
    monkeypatch.setattr(roughness_kernels, "WINDOW_COLS", 50)
    for name, f in each(f"{reach}px").items():
        assert np.array_equal(f(dem)[name].values, whole[name], equal_nan=True)


def each(radius):
    return {
        "tri": calculate_tri,
        "vrm": lambda ds: calculate_vrm(ds, radius),
        "dissection_index": lambda ds: calculate_dissection_index(ds, radius),
    }


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
@pytest.mark.parametrize(
    "name",
    [
        None,
        *(pytest.param(name, marks=pytest.mark.skipif(not SHARED_DEMS.is_dir(),
          reason="the sample data do not stand beside the checkout"))
          for name in ("vavilov_EPSG32646_90m.tif", "ASTER_Finse.tif")),
    ],
)  # fmt: skip
def test_ruggedness_is_that_of_gdal(name, tmp_path):
    if name is None:
        geobox = utm_geobox((80, 90))
        dem = rough_dem(geobox, seed=4, nodata_share=0.01)
    else:
        with rasterio.open(SHARED_DEMS / name) as file:
            values = file.read(1, masked=True).astype("float32").filled(np.nan)[:400, :500]
            geobox = GeoBox(values.shape, file.transform, file.crs.to_wkt())
        dem = dem_on(geobox, values)
    dem["dem"] = (np.round(dem.dem * 16) / 16).astype("float32")  # what GDAL adds up in float32 is then exact enough
    for method, option in [("riley", "Riley"), ("wilson", "Wilson")]:
        expected = gdaldem("TRI", dem.dem.values, geobox, tmp_path, "-alg", option)
        found = calculate_tri(dem, method=method).tri.values
        assert np.isfinite(found).sum() > 1000
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_ruggedness_by_hand():
    z = np.float32([[0, 0, 3], [0, 0, 4], [0, 0, 0]])
    dem = dem_on(utm_geobox((3, 3)), z)
    assert calculate_tri(dem).tri.values[1, 1] == 5
    assert calculate_tri(dem, method="wilson").tri.values[1, 1] == 7 / 8
    assert np.isfinite(calculate_tri(dem).tri).sum() == 1


def test_a_plane_is_not_rough_however_steep():
    for slope in (0, 5, 60):
        assert calculate_vrm(plane_dem(UTM, slope, 33), "3px").vrm.max() < 1e-8
    assert (calculate_vrm(dem_on(UTM, np.full(UTM.shape, 7)), "3px").vrm == 0).all()
    assert calculate_tri(plane_dem(UTM, 60, 33)).tri.min() > 10


def test_a_roof_has_the_ruggedness_of_its_two_sides():
    # Far from the ridge normals are ±s, c: over equally many of both only c is left.
    x = np.abs(np.arange(31) - 15.5) * 10
    roof = dem_on(utm_geobox((9, 31)), np.tile(-x * math.tan(math.radians(30)), (9, 1)))
    normals = np.full(8, math.cos(math.radians(30)))
    normals[3:5] = math.cos(math.atan(math.tan(math.radians(30)) / 2))  # beside the ridge Horn sees half the slope
    vrm = calculate_vrm(roof, "4px").vrm.values
    assert vrm[4, 2] == pytest.approx(0, abs=1e-8)
    assert 0.05 < vrm[4, 15] < 1 - math.cos(math.radians(30))
    assert vrm[4, 15] == pytest.approx(brute_vrm(roof.dem.values, 10, 10, 4, 4)[4, 15], rel=1e-5)


def test_dissection_is_0_in_valleys_and_on_flat_ground_and_1_on_tops():
    z = np.float32([[1, 1, 1, 1, 1], [1, 5, 1, 3, 1], [1, 1, 1, 1, 1]])
    values = calculate_dissection_index(dem_on(utm_geobox((3, 5)), z), "1px").dissection_index.values
    assert values[1].tolist() == [0, 1, 0, 1, 0]
    assert calculate_dissection_index(dem_on(utm_geobox((3, 5)), z), "2px").dissection_index.values[1, 3] == 0.5
    flat = calculate_dissection_index(dem_on(UTM, np.full(UTM.shape, 250)), 50).dissection_index
    assert (flat == 0).all()


def test_a_hole_spoils_its_stencil_of_tri_and_itself_of_the_others():
    dem = rough_dem(UTM)
    dem["dem"][10, 20] = np.nan
    stencil = np.zeros(UTM.shape, bool)
    stencil[9:12, 19:22] = True
    stencil[[0, -1]] = stencil[:, [0, -1]] = True
    assert np.array_equal(np.isnan(calculate_tri(dem).tri), stencil)
    for name in ("vrm", "dissection_index"):
        assert np.argwhere(np.isnan(ALL[name](dem)[name].values)).tolist() == [[10, 20]]


def test_infinite_heights_count_as_missing():
    dem = rough_dem(UTM)
    holed = dem.copy(deep=True)
    holed["dem"][5, 5] = np.nan
    for infinite in (np.inf, -np.inf):
        dem["dem"][5, 5] = infinite
        for name, calculate in ALL.items():
            assert np.array_equal(calculate(dem)[name], calculate(holed)[name], equal_nan=True)


def test_far_neighbours_without_a_normal_give_nothing():
    dem = dem_on(utm_geobox((2, 40)), np.ones((2, 40)))  # no stencil fits in
    assert np.isnan(calculate_vrm(dem, 50).vrm).all()
    assert (calculate_dissection_index(dem, 50).dissection_index == 0).all()


@settings(max_examples=10, deadline=None)
@given(constant=st.integers(-100, 2000), seed=st.integers(0, 5))
def test_adding_a_constant_to_the_dem_changes_nothing(constant, seed):
    dem = rough_dem(UTM, seed, nodata_share=0.02)
    dem["dem"] = (np.round(dem.dem * 64) / 64).astype("float32")  # so that the sum is exact
    raised = dem.assign(dem=dem.dem + np.float32(constant))
    for name, calculate in ALL.items():
        assert np.array_equal(calculate(dem)[name], calculate(raised)[name], equal_nan=True)


def test_the_input_is_left_alone_and_the_output_described():
    dem = rough_dem(UTM, nodata_share=0.1)
    before = dem.copy(deep=True)
    result = calculate_dissection_index(calculate_vrm(calculate_tri(dem), 30), "4px")
    assert dem.identical(before)
    assert set(result.data_vars) == {*dem.data_vars, *ALL}
    assert result.attrs == dem.attrs
    for name, units in {"tri": "m", "vrm": "1", "dissection_index": "1"}.items():
        assert {"long_name", "references"} <= set(result[name].attrs)
        assert result[name].attrs["units"] == units
        assert result[name].attrs["data_source"] == "synthetic"
    assert result.vrm.attrs["comment"] == "over 7 rows and 7 columns"
    assert "Wilson" in calculate_tri(dem, method="wilson").tri.attrs["references"]


def test_dimensions_keep_their_names_and_any_order_will_do():
    dem = rough_dem(UTM, nodata_share=0.1)
    turned = dem.assign(dem=dem.dem.T.astype("float64"))
    for name, calculate in ALL.items():
        assert np.array_equal(calculate(turned)[name], calculate(dem)[name], equal_nan=True)
    geographic = rough_dem(DEGREES)
    assert calculate_tri(geographic).tri.dims == geographic.odc.spatial_dims
    assert np.isfinite(calculate_dissection_index(geographic, "2px").dissection_index).all()


@pytest.mark.parametrize("calculate", ALL.values(), ids=ALL.keys())
def test_what_cannot_work_is_refused(calculate):
    with pytest.raises(MissingBandError, match="lacks dem"):
        calculate(rough_dem(UTM).drop_vars("dem"))
    with pytest.raises(GridMismatchError, match="grid"):
        calculate(xr.Dataset({"dem": (("y", "x"), np.zeros((4, 4), "float32"))}))
    skew = GeoBox((5, 5), Affine(10, 1, 600_000, 1, -10, 7_800_000), "EPSG:32608")
    with pytest.raises(GridMismatchError, match="axes"):
        calculate(dem_on(skew, np.zeros((5, 5))))


def test_metres_need_a_grid_in_metres():
    with pytest.raises(ConfigError, match="degree"):
        calculate_vrm(rough_dem(DEGREES), "2px")
    with pytest.raises(ConfigError, match="degree"):
        calculate_dissection_index(rough_dem(DEGREES), 100)


@pytest.mark.parametrize(
    ("radius", "problem"),
    [
        (9.9, "no other pixel lies within the radius 9.9"), ("0.5px", "no other pixel"), (0, "no other pixel"),
        ("ten", "got 'ten'"), (-10, "got -10"), (float("nan"), "got nan"), ("3km", "radius must be metres"),
    ],
)  # fmt: skip
def test_a_radius_that_reaches_nothing_or_says_nothing_is_refused(radius, problem):
    for calculate in (calculate_vrm, calculate_dissection_index):
        with pytest.raises(ConfigError, match=problem):
            calculate(rough_dem(UTM), radius)


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match=r"method must be 'riley' or 'wilson', got 'Riley'"):
        calculate_tri(rough_dem(UTM), method="Riley")


@pytest.mark.skipif(len(namespaces()) == 1, reason="needs a GPU")
def test_on_a_gpu_it_is_the_same_and_stays_there():
    cupy = namespaces()[1]
    dem = rough_dem(UTM, nodata_share=0.1)
    moved = dem.assign(dem=dem.dem.copy(data=cupy.asarray(dem.dem.values)))
    for name, calculate in ALL.items():
        found = calculate(moved)[name].data
        assert isinstance(found, cupy.ndarray)
        assert np.array_equal(found.get(), calculate(dem)[name], equal_nan=True)
