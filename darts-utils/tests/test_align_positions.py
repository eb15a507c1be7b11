"""Where `align` samples: sources that hold their own coordinates say to which place each target pixel looked."""

import math

import numpy as np
import pyproj
import pytest
import rasterio.warp
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_utils.grids import align, meridian_convergence, on_grid, pixel_centres

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

TOLERANCE_PX = 0.02


def around(target, crs, margin=6):
    """Return a north-up grid in another CRS around a target; its pixels are as large as the target's, or larger."""
    project = pyproj.Transformer.from_crs(target.crs.proj, crs, always_xy=True)
    cols, rows = np.meshgrid(np.linspace(0, target.shape.x, 33), np.linspace(0, target.shape.y, 33))
    x, y = project.transform(*pixel_centres(target, cols - 0.5, rows - 0.5))
    if pyproj.CRS(crs).is_geographic:
        x = x[0, 0] + (x - x[0, 0] + 180) % 360 - 180  # counted on past 180 degrees
        step_x = target.affine.a / (111_320 * math.cos(math.radians(np.abs(y).max())))
        step_y = target.affine.a / 111_000
    else:
        step_x = step_y = target.affine.a * 1.05
    left, top = x.min() - margin * step_x, y.max() + margin * step_y
    width, height = ((x.max() - left) / step_x + margin, (top - y.min()) / step_y + margin)
    return GeoBox((round(height), round(width)), Affine(step_x, 0, left, 0, -step_y, top), crs)


def spots(target, every=13):
    """Return rows and columns, as an index, of some pixels all over a grid, its last ones among them."""
    rows, cols = (np.unique(np.append(np.arange(0, size, every), size - 1)) for size in target.shape)
    return np.ix_(rows, cols)


def exact_positions(source, target, places):
    """Return columns and rows of the source, counted from its corner, under some target pixels, by PROJ alone."""
    project = pyproj.Transformer.from_crs(target.crs.proj, source.crs.proj, always_xy=True)
    rows, cols = np.broadcast_arrays(*places)
    x, y = project.transform(*pixel_centres(target, cols, rows))
    if source.crs.proj.is_geographic:
        middle = source.affine.c + source.shape.x / 2 * source.affine.a
        x = middle + (x - middle + 180) % 360 - 180
    return (x - source.affine.c) / source.affine.a, (y - source.affine.f) / source.affine.e


def coordinates(source, dtype="float32"):
    """Return the columns and rows of pixels' centres, counted from the middle so that float32 holds them to 1e-4."""
    u, v = np.meshgrid(*(np.arange(size) + 0.5 - size // 2 for size in source.shape.xy))
    return xr.Dataset({"u": on_grid(u.astype(dtype), source), "v": on_grid(v.astype(dtype), source)})


def drift(found, source, target, places):
    """Return the distance in source pixels between the places looked at and the exact ones, NaN where none was."""
    u, v = exact_positions(source, target, places)
    found_u, found_v = (
        found[name].values[places] + size // 2 for name, size in zip("uv", source.shape.xy, strict=True)
    )
    return np.hypot(found_u - u, found_v - v)


def tile(crs, longitude, latitude, size_px, pixel):
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(longitude, latitude)
    half = size_px * pixel / 2
    return GeoBox((size_px, size_px), Affine(pixel, 0, round(x - half), 0, -pixel, round(y + half)), crs)


# 1098 pixels of 100 m cover a whole Sentinel-2 tile of 110 km.
TARGETS = {
    "60 N": tile("EPSG:32608", -132.8, 60, 1000, 10),
    "70 N, whole tile": tile("EPSG:32608", -137.2, 70, 1098, 100),
    "72 N, whole tile": tile("EPSG:32652", 131.2, 72, 1098, 100),
    "78 N": tile("EPSG:32633", 12.2, 78, 1200, 10),
    "83 N, whole tile": tile("EPSG:32624", -36.8, 83, 1098, 100),
    "over 180 degrees, whole tile": tile("EPSG:32601", -180, 68, 1098, 100),
    "over 180 degrees from the west": tile("EPSG:32660", 179.99, 75, 1000, 10),
    "south": tile("EPSG:32719", -71.4, -47, 1000, 10),
}
EVERY_TARGET = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())


@EVERY_TARGET
@pytest.mark.parametrize("crs", ["EPSG:3413", "EPSG:4326"])
def test_every_pixel_looks_where_proj_says(target, crs):
    if crs == "EPSG:3413" and target is TARGETS["south"]:
        crs = "EPSG:32718"  # polar grids of the north do not reach here; the neighbouring zone does
    source = around(target, crs)
    farthest = drift(align(coordinates(source), target), source, target, spots(target)).max()
    print(f"{farthest:.5f} pixels")  # for docs/benchmarks.md, with `pytest -s`
    assert farthest < TOLERANCE_PX


@pytest.mark.parametrize(("name", "crs"), [("78 N", "EPSG:3413"), ("72 N, whole tile", "EPSG:4326")])
def test_gdals_default_approximation_would_fail_here(name, crs):
    # That the test above can fail: what `rasterio.warp.reproject` does when it is not told otherwise.
    target = TARGETS[name]
    source = around(target, crs)
    planes = coordinates(source)
    stack = np.stack([planes[band].values for band in "uv"])
    looked = np.full((2, *target.shape), np.nan, "float32")
    rasterio.warp.reproject(
        stack, looked, src_transform=Affine(*source.affine[:6]), src_crs=source.crs.to_wkt(),
        dst_transform=Affine(*target.affine[:6]), dst_crs=target.crs.to_wkt(),
        resampling=rasterio.warp.Resampling.bilinear,
    )  # fmt: skip
    gdals = xr.Dataset({band: on_grid(values, target) for band, values in zip("uv", looked, strict=True)})
    ours = drift(align(planes, target), source, target, spots(target)).max()
    theirs = drift(gdals, source, target, spots(target)).max()
    print(f"GDAL {theirs:.2f} pixels, darts {ours:.5f}")
    assert ours < TOLERANCE_PX < 2 * TOLERANCE_PX < theirs


@pytest.mark.parametrize("target", [TARGETS["70 N, whole tile"], TARGETS["78 N"], TARGETS["south"]])
def test_masks_take_the_pixel_that_holds_the_position(target):
    source = around(target, "EPSG:4326")
    cols, rows = np.meshgrid(*(np.arange(size, dtype="int16") for size in source.shape.xy))
    result = align(xr.Dataset({"col": on_grid(cols, source), "row": on_grid(rows, source)}), target)
    places = spots(target, 7)
    for name, place in zip(("col", "row"), exact_positions(source, target, places), strict=True):
        assert np.abs(result[name].values[places] + 0.5 - place).max() < 0.5 + TOLERANCE_PX


@pytest.mark.parametrize("cut", [(-0.3, 0, 0, 0), (0, -0.3, 0, -0.1), (0, 0, -0.3, 0), (-0.2,) * 4])
@pytest.mark.parametrize("crs", ["EPSG:3413", "EPSG:4326"])
def test_the_target_is_valid_up_to_the_sources_edge_and_not_beyond(crs, cut):
    target = tile("EPSG:32608", -132.8, 74, 200, 10)
    whole = around(target, crs)
    height, width = whole.shape
    west, east, north, south = (round(-share * size) for share, size in zip(cut, (width, width, height, height), strict=True))  # fmt: skip  # noqa: E501
    source = whole[north : height - south, west : width - east]
    everywhere = spots(target, 1)
    u, v = exact_positions(source, target, everywhere)
    to_edge = np.minimum(np.minimum(u, source.shape.x - u), np.minimum(v, source.shape.y - v))
    assert 0.2 < (to_edge > 0).mean() < 0.8
    bands = coordinates(source)
    bands["same"] = on_grid(np.full(source.shape, 1234.5, "float32"), source)
    bands["mask"] = on_grid(np.ones(source.shape, "uint8"), source)
    result = align(bands, target)
    for name in ("u", "v", "same"):
        assert np.isfinite(result[name].values[to_edge > TOLERANCE_PX]).all()
        assert np.isnan(result[name].values[to_edge < -TOLERANCE_PX]).all()
    assert np.array_equal(result["mask"] == 1, np.isfinite(result.same))
    # What lies beyond the edge does not ring into the last pixels, and two pixels in nothing is felt of it.
    assert np.nanmax(np.abs(result.same.values - 1234.5)) < 1e-3
    off = drift(result, source, target, everywhere)
    assert off[to_edge > 2].max() < TOLERANCE_PX
    assert np.nanmax(off) < 0.6


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_hole_is_felt_within_two_pixels_and_no_further(value):
    target = tile("EPSG:32652", 127.4, 71, 250, 10)
    source = around(target, "EPSG:3413")
    bands = coordinates(source)
    hole = (slice(100, 140), slice(150, 153))
    holed = bands.copy(deep=True)
    for band in ("u", "v"):
        holed[band][hole] = value
    whole, result = align(bands, target), align(holed, target)
    everywhere = spots(target, 1)
    u, v = exact_positions(source, target, everywhere)
    beyond_u, beyond_v = np.maximum(150 - u, u - 153), np.maximum(100 - v, v - 140)
    to_hole = np.maximum(beyond_u, beyond_v)
    assert np.isnan(result.u.values[to_hole < -TOLERANCE_PX]).all()
    assert np.isfinite(result.u.values[to_hole > TOLERANCE_PX]).all()
    far = to_hole > 2 + TOLERANCE_PX
    assert np.array_equal(result.u.values[far], whole.u.values[far])
    assert not np.array_equal(result.u.values[~far], whole.u.values[~far], equal_nan=True)
    assert np.nanmax(drift(result, source, target, everywhere)) < 1


@pytest.mark.parametrize("name", ["60 N", "over 180 degrees, whole tile", "83 N, whole tile"])
def test_parts_of_a_target_look_where_the_whole_does(name):
    target = TARGETS[name]
    source = around(target, "EPSG:3413")
    bands = coordinates(source)
    whole = align(bands, target)
    for part in (np.s_[:1, :], np.s_[517:530, 3:700], np.s_[-64:, -1:], np.s_[300:301, 400:401]):
        piece = align(bands, target[part])
        for band in ("u", "v"):
            assert np.abs(piece[band].values - whole[band].values[part]).max() < TOLERANCE_PX / 10


@pytest.mark.parametrize(
    "target",
    [TARGETS["83 N, whole tile"], TARGETS["over 180 degrees, whole tile"], TARGETS["south"],
     GeoBox((500, 500), Affine(500, 0, -400_000, 0, -500, 350_000), "EPSG:3413")],
)  # fmt: skip
def test_true_north_is_where_longitudes_say(target):
    # A second way to the angle: the meridian's own direction, a small step north along it, in grid coordinates.
    cols, rows = np.meshgrid(*(np.arange(3, size, 41) for size in target.shape.xy))
    x, y = pixel_centres(target, cols, rows)
    project = pyproj.Transformer.from_crs(target.crs.proj, target.crs.proj.geodetic_crs, always_xy=True)
    longitude, latitude = project.transform(x, y)
    east, north = project.transform(longitude, latitude + 1e-5, direction="INVERSE")
    clear = np.hypot(x, y) > 5_000  # not at the pole itself, which the last grid holds
    expected = -np.degrees(np.arctan2(east - x, north - y))
    found = meridian_convergence(target).values[rows, cols]
    assert np.abs((found - expected + 180) % 360 - 180)[clear].max() < 2e-3
