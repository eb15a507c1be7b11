"""Regions, outlines and surroundings against SciPy, GDAL and brute force."""

import numpy as np
import pytest
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from darts_export.regions import find_regions

TO_MAP = Affine(10, 0, 5e5, 0, -10, 7.6e6)
masks = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))
EIGHT = np.ones((3, 3))


def pixels_of(regions, shape):
    """Each region's mask, painted run by run."""
    found = []
    for runs in regions.runs_of_each():
        mask = np.zeros(shape, bool)
        for row, start, stop in runs:
            mask[row, start:stop] = True
        found.append(mask)
    return found


def noisy(seed, shape, share):
    return np.random.default_rng(seed).random(shape) < share


@settings(max_examples=150, deadline=None)
@given(masks)
def test_regions_are_those_of_scipy_in_raster_order(mask):
    regions = find_regions(mask)
    labels, count = ndimage.label(mask, EIGHT)
    assert regions.count == count
    first_pixels = []
    for found in pixels_of(regions, mask.shape):
        assert len(np.unique(labels[found])) == 1
        assert found.sum() == (labels == labels[found][0]).sum()
        first_pixels.append(np.flatnonzero(found)[0])
    assert first_pixels == sorted(first_pixels)
    assert sum(regions.npixel) == mask.sum()


@settings(max_examples=150, deadline=None)
@given(masks)
def test_outlines_are_valid_hold_the_same_pixels_and_have_corners_only(mask):
    regions = find_regions(mask)
    for outline, found in zip(regions.outlines(TO_MAP), pixels_of(regions, mask.shape), strict=True):
        assert shapely.is_valid(outline)
        burnt = rasterio.features.rasterize([outline], out_shape=mask.shape, transform=TO_MAP)
        np.testing.assert_array_equal(burnt.astype(bool), found)
        assert outline.area == 100 * found.sum()
        for part in shapely.get_parts(outline):
            assert part.exterior.is_ccw
            assert not any(hole.is_ccw for hole in part.interiors)
        for ring in shapely.get_rings(shapely.get_parts(outline)):
            steps = np.diff(shapely.get_coordinates(ring), axis=0)
            assert ((steps != 0).sum(axis=1) == 1).all()
            across = steps[:, 0] != 0
            assert (across != np.roll(across, 1)).all()  # it turns at each point


@settings(max_examples=100, deadline=None)
@given(masks)
def test_outlines_are_those_of_gdal(mask):
    shapes = rasterio.features.shapes(mask.view("uint8"), mask=mask, connectivity=4, transform=TO_MAP)
    expected = shapely.MultiPolygon([shapely.geometry.shape(shape) for shape, _ in shapes])
    found = find_regions(mask).whole_outline(TO_MAP)
    assert found.is_valid
    assert shapely.normalize(found).equals_exact(shapely.normalize(expected), 0)


@pytest.mark.parametrize("shape", [(200, 333), (130, 64), (65, 65), (1, 700), (700, 1)])
@pytest.mark.parametrize("share", [0.02, 0.4, 0.6, 0.97, 1.0])
def test_large_and_full_masks_are_traced_too(shape, share):
    mask = noisy(1, shape, share)
    regions = find_regions(mask)
    assert regions.count == ndimage.label(mask, EIGHT)[1]
    whole = regions.whole_outline(TO_MAP)
    assert whole.area == 100 * mask.sum()
    burnt = rasterio.features.rasterize([whole], out_shape=shape, transform=TO_MAP)
    np.testing.assert_array_equal(burnt.astype(bool), mask)


def test_a_mask_of_any_layout_in_memory_is_read_right():
    mask = noisy(2, (40, 60), 0.5)
    for layout in (np.asfortranarray(mask), np.repeat(mask, 2, axis=1)[:, ::2], mask[::-1][::-1]):
        np.testing.assert_array_equal(find_regions(layout).runs.starts, find_regions(mask).runs.starts)


def test_nothing_set_and_nothing_there_give_no_regions():
    for mask in (np.zeros((5, 7), bool), np.zeros((0, 4), bool), np.zeros((4, 0), bool)):
        regions = find_regions(mask)
        assert regions.count == 0
        assert len(regions.outlines(TO_MAP)) == 0
        assert regions.whole_outline(TO_MAP).is_empty
        assert len(regions.share_around(mask, 10)) == 0


@settings(max_examples=60, deadline=None)
@given(masks, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.2, 1.0]))
def test_statistics_are_those_of_the_finite_values(mask, seed, missing):
    rng = np.random.default_rng(seed)
    values = rng.random(mask.shape, dtype="float32")
    values[rng.random(mask.shape) < missing] = np.nan
    regions = find_regions(mask)
    found = regions.statistics(values)
    for number, pixels in enumerate(pixels_of(regions, mask.shape)):
        finite = values[pixels & np.isfinite(values)].astype("float64")
        row = [found[name][number] for name in ("min", "max", "mean", "median", "std")]
        if not len(finite):
            assert np.isnan(row).all()
            continue
        expected = [finite.min(), finite.max(), finite.mean(), np.median(finite), finite.std()]
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-12)


def brute_share(pixels, valid, radius):
    rows, columns = (slice(place.min(), place.max() + 1) for place in np.nonzero(pixels))
    pad = radius + 1
    offsets = np.arange(-radius, radius + 1)
    disk = offsets[:, None] ** 2 + offsets**2 <= radius**2
    wide = np.pad(pixels[rows, columns], pad)
    ring = ndimage.binary_dilation(wide, disk) & ~wide
    around = np.pad(valid, pad)[rows.start : rows.stop + 2 * pad, columns.start : columns.stop + 2 * pad]
    return (around & ring).sum() / ring.sum()


@settings(max_examples=60, deadline=None)
@given(masks, st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 5, 10]))
def test_the_share_around_is_that_of_a_disk_moved_over_each_pixel(mask, seed, radius):
    valid = noisy(seed, mask.shape, 0.7)
    regions = find_regions(mask)
    expected = [brute_share(pixels, valid, radius) for pixels in pixels_of(regions, mask.shape)]
    np.testing.assert_allclose(regions.share_around(valid, radius), expected, rtol=1e-14)


def test_the_share_around_is_right_for_large_and_crowded_regions():
    mask = noisy(3, (60, 80), 0.25)
    mask[10:50, 15:60] = True
    mask[20:30, 20:55:3] = False
    valid = noisy(4, mask.shape, 0.8)
    regions = find_regions(mask)
    expected = [brute_share(pixels, valid, 10) for pixels in pixels_of(regions, mask.shape)]
    np.testing.assert_allclose(regions.share_around(valid, 10), expected, rtol=1e-14)


def test_what_lies_beyond_the_edge_counts_as_not_valid():
    mask = np.zeros((30, 30), bool)
    mask[0, 0] = True
    disk = sum(x * x + y * y <= 100 for x in range(-10, 11) for y in range(-10, 11))
    quarter = sum(x * x + y * y <= 100 for x in range(11) for y in range(11))
    assert find_regions(mask).share_around(np.ones_like(mask), 10)[0] == (quarter - 1) / (disk - 1)
