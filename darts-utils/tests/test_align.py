"""`align` beside GDAL and a cubic convolution in float64: any source under any target, around the Earth too."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyproj
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from darts_utils.errors import ConfigError, GridMismatchError
from darts_utils.grids import align, on_grid, pixel_centres

from .test_grids import NORTH, grid, waves

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


def around(target, crs, resolution, margin=8, snap=True):
    """Return a grid in another CRS that covers the target with a margin in pixels."""
    rows, cols = np.mgrid[0 : target.shape.y : 9j, 0 : target.shape.x : 9j]
    project = pyproj.Transformer.from_crs(target.crs.proj, crs, always_xy=True)
    x, y = project.transform(*pixel_centres(target, cols - 0.5, rows - 0.5))
    left, top = math.floor(x.min() / resolution) - margin, math.ceil(y.max() / resolution) + margin
    right, bottom = math.ceil(x.max() / resolution) + margin, math.floor(y.min() / resolution) - margin
    return grid((top - bottom, right - left), crs, left * resolution, top * resolution, resolution)


def gdal(values, source, target, resampling=Resampling.cubic, **options):
    """Warp with GDAL's transformer within 1e-5 pixels of the exact one."""
    profile = {
        "driver": "GTiff", "height": source.shape.y, "width": source.shape.x, "count": 1, "dtype": values.dtype,
        "crs": source.crs.to_wkt(), "transform": Affine(*source.affine[:6]), "nodata": math.nan,
    }  # fmt: skip
    with MemoryFile() as file:
        with file.open(**profile) as out:
            out.write(values, 1)
        with (
            file.open() as opened,
            WarpedVRT(
                opened, crs=target.crs.to_wkt(), transform=Affine(*target.affine[:6]), height=target.shape.y,
                width=target.shape.x, resampling=resampling, tolerance=1e-5, **options,
            ) as vrt,
        ):  # fmt: skip
            return vrt.read(1)


def keys(x):
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def brute_force(values, source, target):
    """Cubic convolution in float64 at exact positions, weights renormalised over finite pixels; no widening."""
    project = pyproj.Transformer.from_crs(target.crs.proj, source.crs.proj, always_xy=True)
    out = np.full(target.shape, np.nan)
    weight = np.full(target.shape, np.nan)
    for r, c in np.ndindex(*target.shape):
        x, y = project.transform(*pixel_centres(target, c, r))
        u, v = (x - source.affine.c) / source.affine.a, (y - source.affine.f) / source.affine.e
        j, i = math.floor(u), math.floor(v)
        if not (0 <= j < source.shape.x and 0 <= i < source.shape.y) or not np.isfinite(values[i, j]):
            continue
        taps = [
            (keys(m + 0.5 - v) * keys(n + 0.5 - u), float(values[m, n]))
            for m in range(max(i - 3, 0), min(i + 4, source.shape.y))
            for n in range(max(j - 3, 0), min(j + 4, source.shape.x))
            if np.isfinite(values[m, n])
        ]
        weight[r, c] = sum(w for w, _ in taps)
        out[r, c] = sum(w * value for w, value in taps) / weight[r, c]
    return out, weight


SOUTH = grid((60, 80), "EPSG:32708", 600_000, 2_200_000, 10)
HIGH = grid((60, 60), "EPSG:32633", 420_000, 9_100_000, 10)


@pytest.mark.parametrize(
    ("target", "crs", "resolution"),
    [
        (NORTH, "EPSG:3413", 10), (NORTH, "EPSG:3413", 32), (NORTH, "EPSG:4326", 0.0002695), (HIGH, "EPSG:3413", 10),
        (SOUTH, "EPSG:3031", 10), (NORTH, "EPSG:32608", 12), (NORTH, "EPSG:32607", 10), (NORTH, "EPSG:3571", 10),
    ],
)  # fmt: skip
def test_cubic_agrees_with_gdal_away_from_edges(target, crs, resolution):
    source = around(target, crs, resolution)
    values = waves(source)
    result = align(on_grid(values, source), target)
    assert result.odc.geobox == target
    assert result.dtype == np.float32
    # GDAL draws its scale from the bounding boxes of small windows and would widen; tell it that it shall not.
    assert np.allclose(result, gdal(values, source, target, XSCALE=1, YSCALE=1), atol=2e-3)


def test_a_real_dem_grid_far_larger_than_a_pixel_has_exact_positions():
    # P13: GDAL's approximate transformer drifts by up to 0.08 px here. A plane in source coordinates tells positions.
    target = grid((6144, 6144), "EPSG:32608", 399_960, 7_800_000, 10)
    source = around(target, "EPSG:3413", 1000)
    cols, rows = np.meshgrid(np.arange(source.shape.x), np.arange(source.shape.y))
    planes = xr.Dataset({"col": on_grid(cols * 1.0, source), "row": on_grid(rows * 1.0, source)})
    result = align(planes, target)
    project = pyproj.Transformer.from_crs("EPSG:32608", "EPSG:3413", always_xy=True)
    r, c = np.meshgrid(np.arange(0, 6144, 61), np.arange(0, 6144, 61))
    x, y = project.transform(*pixel_centres(target, c, r))
    # One source pixel is 100 target pixels: 1e-4 here is 0.01 pixels of a 10 m source.
    assert np.abs(result.col.values[r, c] - ((x - source.affine.c) / 1000 - 0.5)).max() < 1e-4
    assert np.abs(result.row.values[r, c] - ((source.affine.f - y) / 1000 - 0.5)).max() < 1e-4


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_the_kernel_widens_when_downsampling_as_gdals(factor):
    source = grid((200, 240), "EPSG:32608", 600_000, 7_800_000, 2)
    target = grid((200 // factor - 8, 240 // factor - 8), "EPSG:32608", 600_011, 7_799_987, 2 * factor)
    values = waves(source)
    expected = gdal(values, source, target, XSCALE=1 / factor, YSCALE=1 / factor)
    assert np.allclose(align(on_grid(values, source), target), expected, atol=2e-3)


def test_the_kernel_widens_along_the_axis_that_is_downsampled():
    # At 80° N a degree of longitude is short: TCVIS pixels are 5 m wide and 30 m high.
    target = grid((40, 50), "EPSG:32633", 500_000, 8_880_000, 10)
    source = around(target, "EPSG:4326", 0.0002695)
    values = waves(source)
    wide = 10 / (math.cos(math.radians(80)) * 111_700 * 0.0002695)
    assert wide > 1.8
    expected = gdal(values, source, target, XSCALE=1 / wide, YSCALE=1)
    assert np.allclose(align(on_grid(values, source), target), expected, atol=0.05)


@pytest.mark.parametrize(("share", "seed"), [(0.02, 0), (0.3, 1), (0.7, 2)])
@pytest.mark.parametrize(("target", "crs", "resolution"), [(NORTH, "EPSG:3413", 11), (SOUTH, "EPSG:3031", 12)])
def test_weights_are_renormalised_over_valid_pixels(target, crs, resolution, share, seed):
    target = target[:24, :30]
    source = around(target, crs, resolution, margin=-3)  # smaller than the target, so that edges count too
    values = waves(source, seed)
    values[np.random.default_rng(seed).random(values.shape) < share] = np.nan
    result = align(on_grid(values, source), target).values
    expected, weight = brute_force(values, source, target)
    assert np.array_equal(np.isnan(result), np.isnan(expected))
    clear = weight > 0.1  # where the weights nearly cancel the nearest pixel stands for them
    assert np.allclose(result[clear], expected[clear], atol=2e-3)
    assert np.nanmax(np.abs(result)) < 1000


def test_missing_data_never_ring_into_valid_pixels():
    source = around(NORTH, "EPSG:3413", 10, margin=-10)
    values = np.full(source.shape, 437.25, "float32")
    values[np.random.default_rng(3).random(values.shape) < 0.4] = np.nan
    values[:30] = np.inf
    result = align(on_grid(values, source), NORTH).values
    assert 0 < np.isfinite(result).mean() < 0.6
    assert np.all((np.abs(result - 437.25) < 1e-4) | np.isnan(result))


def test_masks_and_classes_take_the_nearest_pixel_and_are_0_outside():
    source = around(NORTH, "EPSG:3413", 30, margin=-6)
    codes = np.random.default_rng(0).integers(1, 200, source.shape)
    ds = xr.Dataset(
        {
            "dem": on_grid(codes.astype("float32"), source),
            "mask": on_grid(codes.astype("uint8"), source),
            "signed": on_grid(-codes.astype("int16"), source),
            "flag": on_grid(codes > 100, source),
        }
    )
    result = align(ds, NORTH)
    assert {name: str(values.dtype) for name, values in result.items()} == {
        "dem": "float32", "mask": "uint8", "signed": "int16", "flag": "bool",
    }  # fmt: skip
    expected = gdal(codes.astype("float32"), source, NORTH, Resampling.nearest)
    outside = np.isnan(expected)
    assert 0.1 < outside.mean() < 0.9
    assert np.array_equal(result["mask"], np.where(outside, 0, expected))
    assert np.array_equal(result.signed, np.where(outside, 0, -expected))
    assert np.array_equal(result.flag, ~outside & (expected > 100))
    assert np.array_equal(np.isnan(result.dem), outside)
    nearest = align(ds.dem, NORTH, resampling="nearest")
    assert np.array_equal(nearest, expected, equal_nan=True)


@pytest.mark.parametrize("lon_west", [-181, 179])
def test_a_source_across_the_antimeridian_in_either_count_of_longitudes(lon_west):
    target = grid((40, 40), "EPSG:32601", 373_600, 7_546_900, 50)  # 180 degrees runs through it
    lons = pyproj.Transformer.from_crs("EPSG:32601", 4326, always_xy=True).transform(*pixel_centres(target, 20, 20))
    assert abs(abs(lons[0]) - 180) < 0.1
    source = grid((200, 1000), "EPSG:4326", lon_west, 68.2, 0.002)
    lon, lat = pixel_centres(source, *np.meshgrid(np.arange(1000), np.arange(200)))
    result = align(xr.Dataset({"lon": on_grid(lon % 360, source), "lat": on_grid(lat, source)}), target)
    project = pyproj.Transformer.from_crs("EPSG:32601", 4326, always_xy=True)
    x, y = project.transform(*pixel_centres(target, *np.meshgrid(np.arange(40), np.arange(40))))
    assert np.abs(result.lon - x % 360).max() < 1e-5
    assert np.abs(result.lat - y).max() < 1e-5


@pytest.mark.parametrize("lon_west", [-180, 0])
def test_a_source_around_the_earth_has_no_seam(lon_west):
    target = grid((30, 30), "EPSG:32601", 374_000, 7_546_000, 500)
    source = grid((100, 7200), "EPSG:4326", lon_west, 70, 0.05)
    lon, _ = pixel_centres(source, *np.meshgrid(np.arange(7200), np.arange(100)))
    result = align(on_grid(np.cos(np.radians(lon)), source), target)
    project = pyproj.Transformer.from_crs("EPSG:32601", 4326, always_xy=True)
    x, _ = project.transform(*pixel_centres(target, *np.meshgrid(np.arange(30), np.arange(30))))
    assert np.ptp(np.sign(x)) == 2
    assert np.abs(result - np.cos(np.radians(x))).max() < 1e-5


def test_a_target_in_degrees_across_the_antimeridian():
    target = grid((30, 60), "EPSG:4326", 179.9, 68, 0.003)
    source = around(grid((30, 30), "EPSG:4326", 179.9, 68, 0.003), "EPSG:3413", 200, margin=200)
    cols, _ = np.meshgrid(np.arange(source.shape.x), np.arange(source.shape.y))
    result = align(on_grid(cols.astype("float64"), source), target)
    project = pyproj.Transformer.from_crs(4326, "EPSG:3413", always_xy=True)
    x, _ = project.transform(*pixel_centres(target, *np.meshgrid(np.arange(60), np.arange(30))))
    assert np.abs(result - ((x - source.affine.c) / 200 - 0.5)).max() < 0.01


@pytest.mark.parametrize("turn", ["flipped", "mirrored", "transposed"])
def test_the_orientation_of_the_source_does_not_matter(turn):
    source = around(NORTH, "EPSG:3413", 10)
    values = waves(source)
    expected = align(on_grid(values, source), NORTH)
    a, _, c, _, e, f, *_ = source.affine
    height, width = source.shape
    if turn == "flipped":
        other, turned = GeoBox(source.shape, Affine(a, 0, c, 0, -e, f + height * e), source.crs), values[::-1]
    elif turn == "mirrored":
        other, turned = GeoBox(source.shape, Affine(-a, 0, c + width * a, 0, e, f), source.crs), values[:, ::-1]
    else:
        other, turned = GeoBox((width, height), Affine(0, a, c, e, 0, f), source.crs), values.T
    result = align(on_grid(turned, other), NORTH)
    assert result.odc.geobox == NORTH
    assert np.allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("origin", [(399_960.123456, 7_800_000.654321), (0.1 + 0.2, 7e6 / 3), (600_000, 7_800_000)])
@pytest.mark.parametrize("pixel", [10, 3.125, 3, 1 / 3])
def test_the_result_lies_on_the_target_exactly(origin, pixel):
    target = grid((7, 5), "EPSG:32608", *origin, pixel)
    source = around(target, "EPSG:3413", 10)
    result = align(xr.Dataset({"dem": on_grid(waves(source), source)}), target)
    assert result.odc.geobox == target
    assert result.dem.odc.geobox == target
    assert dict(result.sizes) == {"y": 7, "x": 5}
    # What is on the same grid already is not changed by a bit.
    assert np.array_equal(align(result, target).dem, result.dem)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (2, 2)])
def test_tiny_sources_and_targets_work(shape):
    target = grid(shape, "EPSG:32608", 600_000, 7_800_000, 10)
    source = around(target, "EPSG:3413", 10)
    values = waves(source)
    assert np.allclose(
        align(on_grid(values, source), target), gdal(values, source, target, XSCALE=1, YSCALE=1), atol=2e-3
    )
    one = grid((1, 1), "EPSG:32608", 600_000, 7_800_000, 10)
    result = align(on_grid(np.float32([[5]]), one), target).values
    assert result[0, 0] == 5
    assert np.isnan(result).sum() == result.size - 1


def test_what_is_missing_everywhere_stays_missing():
    source = around(NORTH, "EPSG:3413", 10)
    assert np.isnan(align(on_grid(np.full(source.shape, np.nan, "float32"), source), NORTH)).all()


def test_a_source_elsewhere_gives_nothing():
    source = grid((50, 50), "EPSG:4326", 20, 60, 0.01)
    result = align(xr.Dataset({"v": on_grid(waves(source), source), "m": on_grid(waves(source) > 0, source)}), NORTH)
    assert np.isnan(result.v).all()
    assert not result.m.any()


def test_several_threads_may_align_at_once():
    source = around(NORTH, "EPSG:3413", 10)
    dem = on_grid(waves(source), source)
    expected = align(dem, NORTH)
    with ThreadPoolExecutor(4) as pool:
        assert all(result.equals(expected) for result in pool.map(lambda _: align(dem, NORTH), range(8)))


def test_names_attributes_and_other_variables_are_kept_and_the_source_is_left_alone():
    source = around(NORTH, "EPSG:3413", 50)
    cube = xr.DataArray(
        np.stack([waves(source), waves(source, 1)]), dims=("time", "y", "x"),
        coords={"time": [2020, 2021], **xr_coords(source)}, attrs={"units": "m", "grid_mapping": "spatial_ref"},
    )  # fmt: skip
    ds = xr.Dataset({"cube": cube, "note": 7}, attrs={"title": "a"})
    before = ds.copy(deep=True)
    result = align(ds, NORTH)
    assert ds.identical(before)
    assert result.attrs == {"title": "a"}
    assert result.note == 7
    assert result.cube.attrs == {"units": "m"}
    assert result.cube.dims == ("time", "y", "x")
    assert result.time.values.tolist() == [2020, 2021]
    assert np.array_equal(result.cube[1], align(cube[1], NORTH))
    assert align(cube[0].rename("dem"), NORTH).name == "dem"


@pytest.mark.parametrize("dtype", [">f4", "float16", "float64", ">i2"])
def test_other_number_formats_are_read(dtype):
    source = around(NORTH, "EPSG:3413", 50)
    values = np.rint(waves(source))
    expected = align(on_grid(values if "f" in dtype else values.astype("int16"), source), NORTH)
    result = align(on_grid(values.astype(dtype), source), NORTH)
    assert result.dtype == {">f4": "float32", "float16": "float32", "float64": "float64", ">i2": "int16"}[dtype]
    assert np.allclose(result, expected, atol=1e-3)


def test_bad_input_is_refused():
    array = on_grid(np.zeros(NORTH.shape), NORTH)
    with pytest.raises(ConfigError, match="'cubic' or 'nearest', got 'bilinear'"):
        align(array, NORTH, resampling="bilinear")
    with pytest.raises(GridMismatchError, match="no grid"):
        align(xr.DataArray(np.zeros((3, 3)), dims=("a", "b")), NORTH)
    no_crs = GeoBox(NORTH.shape, NORTH.affine, None)
    with pytest.raises(GridMismatchError, match="the target has a grid but no CRS"):
        align(array, no_crs)
    with pytest.raises(GridMismatchError, match="does not fit"):
        on_grid(np.zeros((2, 2)), NORTH)


@pytest.mark.parametrize("off_m", [0, 40_000, 150_000])
def test_a_source_around_the_earth_covers_the_pole(off_m):
    source_grid = GeoBox((40, 3600), Affine(0.1, 0, -180, 0, -0.1, 90), "EPSG:4326")
    rows, cols = np.indices(source_grid.shape)
    latitude, longitude = 90 - 0.1 * (rows + 0.5), np.radians(-180 + 0.1 * (cols + 0.5))
    # A plane over the pole: smooth in longitude and latitude everywhere.
    height = 100 + (90 - latitude) * (3 * np.cos(longitude) + 2 * np.sin(longitude))
    source = xr.Dataset({"dem": on_grid(height.astype("float32"), source_grid),
                         "mask": on_grid(np.ones(source_grid.shape, "uint8"), source_grid)})  # fmt: skip
    target = GeoBox((110, 120), Affine(1000, 0, off_m - 60_000, 0, -1000, 55_000), "EPSG:3413")
    found = align(source, target)
    assert (found.mask == 1).all()
    x, y = np.meshgrid(found.x, found.y)
    to_degrees = pyproj.Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True)
    at, up = to_degrees.transform(x, y)
    expected = 100 + (90 - up) * (3 * np.cos(np.radians(at)) + 2 * np.sin(np.radians(at)))
    assert np.abs(found.dem.values - expected).max() < 0.2
