"""Grids: margins in metres, cropping, grids that are the same, and where north is."""

import numpy as np
import pyproj
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_utils.errors import ConfigError, GridMismatchError
from darts_utils.grids import (
    crop,
    meridian_convergence,
    on_grid,
    pad_metres,
    pixel_centres,
    pixel_size_m,
    sample_convergence,
)

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


def grid(shape, crs, left, top, dx, dy=None):
    return GeoBox(shape, Affine(dx, 0, left, 0, -(dx if dy is None else dy), top), crs)


def waves(geobox, seed=0):
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(geobox.shape)
    return (100 + 20 * np.sin(rows / 5) * np.cos(cols / 7) + rng.normal(0, 1, geobox.shape)).astype("float32")


NORTH = grid((70, 90), "EPSG:32608", 600_000, 7_800_000, 10)


@settings(max_examples=40, deadline=None)
@given(
    left=st.floats(3e5, 7e5), top=st.floats(5e6, 9e6), pixel=st.sampled_from([10, 3, 3.125, 2, 0.7]),
    rows=st.integers(1, 30), cols=st.integers(1, 30), metres=st.floats(0, 200),
)  # fmt: skip
def test_padding_and_cropping_gives_the_grid_back(left, top, pixel, rows, cols, metres):
    # P6: cropping by float polygons returned a row or a column too many on odd origins.
    target = grid((rows, cols), "EPSG:32608", left, top, pixel)
    padded = pad_metres(target, metres)
    margin = (padded.shape.y - rows) // 2
    assert margin * pixel >= metres - 1e-6
    assert (margin - 1) * pixel < metres
    values = np.random.default_rng(0).random(padded.shape)
    result = crop(on_grid(values, padded), target)
    assert result.odc.geobox == target
    assert np.array_equal(result, values[margin : margin + rows, margin : margin + cols])


def test_a_margin_of_whole_pixels_is_not_rounded_up():
    assert pad_metres(NORTH, 100).shape == (90, 110)
    assert pad_metres(NORTH, 101).shape == (92, 112)
    assert pad_metres(grid((5, 5), "EPSG:32608", 0, 0, 10, 5), 10).shape == (9, 7)
    assert pad_metres(NORTH, 0) == NORTH
    with pytest.raises(ConfigError, match="degree"):
        pad_metres(grid((5, 5), "EPSG:4326", 0, 60, 0.1), 10)
    with pytest.raises(ConfigError, match="-1"):
        pad_metres(NORTH, -1)
    assert pixel_size_m(grid((5, 5), "EPSG:3413", 0, 0, 10, 5)) == (10, 5)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (grid((5, 5), "EPSG:32608", 600_005, 7_799_900, 10), "whole pixels"),
        (grid((5, 5), "EPSG:32608", 600_100, 7_799_900, 10.01), "whole pixels"),
        (grid((5, 5), "EPSG:32609", 600_100, 7_799_900, 10), "whole pixels"),
        (grid((5, 5), "EPSG:32608", 599_990, 7_799_900, 10), "beyond"),
        (grid((5, 95), "EPSG:32608", 600_000, 7_799_900, 10), "beyond"),
    ],
)
def test_cropping_to_another_grid_is_refused(other, problem):
    with pytest.raises(GridMismatchError, match=problem):
        crop(on_grid(np.zeros(NORTH.shape), NORTH), other)


def test_cropping_a_dataset_keeps_all_that_is_not_on_the_grid():
    ds = xr.Dataset({"a": on_grid(waves(NORTH), NORTH), "note": 1}, attrs={"title": "b"})
    before = ds.copy(deep=True)
    result = crop(ds, NORTH[3:10, 5:30])
    assert result.odc.geobox == NORTH[3:10, 5:30]
    assert np.array_equal(result.a, ds.a[3:10, 5:30])
    assert result.note == 1
    assert result.attrs == {"title": "b"}
    assert ds.identical(before)


def azimuth_of_grid_north(geobox, cols, rows):
    """Geodesic azimuth from each pixel to a point 20 m further along grid north."""
    to_degrees = pyproj.Transformer.from_crs(geobox.crs.proj, geobox.crs.proj.geodetic_crs, always_xy=True)
    x, y = pixel_centres(geobox, cols, rows)
    return pyproj.Geod(ellps="WGS84").inv(*to_degrees.transform(x, y - 10), *to_degrees.transform(x, y + 10))[0]


@pytest.mark.parametrize(
    "geobox",
    [
        grid((400, 500), "EPSG:32608", 399_960, 7_800_000, 200),
        grid((400, 500), "EPSG:32601", 300_000, 7_600_000, 200),
        grid((300, 300), "EPSG:32633", 500_000, 9_100_000, 300),
        grid((300, 300), "EPSG:32708", 600_000, 2_200_000, 300),
        grid((300, 300), "EPSG:3413", -2_200_000, 300_000, 1000),
        grid((301, 301), "EPSG:3413", 1_400_000, 1_600_000, 1000),  # north turns past 180 degrees here
        grid((300, 300), "EPSG:3031", 1_000_000, -1_000_000, 1000),
        grid((1, 1), "EPSG:32608", 399_960, 7_800_000, 10),
    ],
)
def test_meridian_convergence_is_the_geodesic_azimuth_of_grid_north(geobox):
    convergence = meridian_convergence(geobox)
    assert convergence.dtype == np.float32
    assert convergence.odc.geobox == geobox
    rows, cols = np.indices(geobox.shape)
    expected = azimuth_of_grid_north(geobox, cols, rows)
    assert np.abs((convergence.values - expected + 180) % 360 - 180).max() < 1e-3


def test_meridian_convergence_at_132_west_70_north_is_2_82():
    geobox = grid((1, 1), "EPSG:32608", 614_468.7, 7_768_695.1, 10)
    assert float(meridian_convergence(geobox)[0, 0]) == pytest.approx(2.82, abs=0.003)


def test_a_geographic_grid_has_no_convergence():
    assert (meridian_convergence(grid((3, 4), "EPSG:4326", -132, 70, 0.1)) == 0).all()


def test_convergence_of_a_sentinel_2_tile_takes_few_projections():
    assert sample_convergence(grid((10980, 10980), "EPSG:32608", 399_960, 7_800_000, 10)).nodes.size < 100_000
