"""Sampling in array code beside the compiled kernels, and beside sums over all source pixels in float64."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_utils import array_sampling, resampling
from darts_utils.arrays import to_host
from darts_utils.coarse import CoarseField
from darts_utils.testing import namespaces

from .sampling_cases import PLACES, assert_close, by_arrays, by_kernel, hills, nearest_by_kernel, positions, turned


@pytest.fixture(params=namespaces(), ids=lambda module: module.__name__)
def xp(request):
    return request.param


def by_sums(source, nodes, shape, every=1):
    """Return the cubic convolution by its definition, over all finite pixels of the source in float64.

    NaN but for one in `every` pixels along a row.
    """
    u_nodes, v_nodes, cell_rows, cell_cols = nodes
    field = CoarseField(np.stack([u_nodes, v_nodes]), cell_rows, cell_cols)
    with np.errstate(invalid="ignore"):
        us, vs = field.at(np.arange(shape[0]), np.arange(shape[1]))
    height, width = source.shape
    valid = np.isfinite(source)
    z = np.where(valid, source, 0).astype("float64")
    out = np.full(shape, np.nan)
    for r, c in np.ndindex(*shape):
        u, v = us[r, c], vs[r, c]
        x, y = u + 1e-6, v + 1e-6  # what lies on the side of a pixel belongs to the next
        if c % every or not (0 <= x < width and 0 <= y < height) or not valid[int(y), int(x)]:
            continue
        # A kernel is as wide as the least of its run of columns asks for.
        run = c // resampling.RUN * resampling.RUN
        last = min(run + resampling.RUN, shape[1]) - 1
        i = min(int(r / cell_rows), len(u_nodes) - 2)
        first_cell, last_cell = (min(int(at / cell_cols), u_nodes.shape[1] - 2) for at in (run, last))
        share = r / cell_rows - i
        wide, high = (
            min(
                math.hypot(
                    ((n[i, j + 1] - n[i, j]) * (1 - share) + (n[i + 1, j + 1] - n[i + 1, j]) * share) / cell_cols,
                    (n[i + 1, j] - n[i, j]) / cell_rows,
                )
                for j in range(first_cell, last_cell + 1)
            )
            for n in (u_nodes, v_nodes)
        )
        wide, high = (span if span > 1 / 0.95 else 1 for span in (wide, high))
        weights = np.outer(centred(height, v, high), centred(width, u, wide))
        total = weights[valid].sum()
        out[r, c] = z[int(y), int(x)] if total <= 0.1 else (weights * z)[valid].sum() / total
    return out


def centred(size, at, wide):
    """Return the weights along an axis: of sum 1 over all pixels there could be, with their centre at the position."""
    reach = math.ceil(2 * wide)
    before = math.floor(at - 0.5)
    pixels = np.arange(before + 1 - reach, before + reach + 1)
    weights = cubic((pixels + 0.5 - at) / wide)
    weights /= weights.sum()
    beside = (weights * (pixels + 0.5 - at)).sum()
    weights[reach - 1] += beside
    weights[reach] -= beside
    inside = (pixels >= 0) & (pixels < size)
    found = np.zeros(size)
    found[pixels[inside]] = weights[inside]
    return found


def cubic(x):
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


def framed(shape):
    source = hills(shape)
    source[:3] = source[-2:] = source[:, :2] = source[:, -3:] = np.nan
    return source


def speckled(shape):
    source = hills(shape)
    source[1::3, ::2] = np.inf
    source[::5, 1::4] = -np.inf
    source[3::7] = np.nan
    return source


SOURCES = {
    "whole": hills((60, 70)),
    "heights of 3000 m": hills((60, 70), base=3000),
    "half missing": hills((60, 70), missing=0.5),
    "frame missing": framed((60, 70)),
    "infinities": speckled((60, 70)),
    "all missing": np.full((60, 70), np.nan, "float32"),
    "one row": hills((1, 70)),
    "one column": hills((60, 1)),
    "one pixel": hills((1, 1)),
    "three by four": hills((3, 4)),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("source", SOURCES)
def test_cubic_is_the_compiled_kernel(xp, source, place):
    source, shape = SOURCES[source], (41, 45)
    nodes = positions(shape, PLACES[place])
    (found,) = by_arrays(xp, (source,), nodes, shape)
    assert found.dtype == np.float32
    assert_close(found, by_kernel(source, nodes, shape), source)


@pytest.mark.parametrize(
    ("source", "place"),
    [(source, place) for source in ("heights of 3000 m", "half missing", "infinities")
     for place in ("same pixels", "turned", "downsampled", "downsampled along x", "ever coarser")]
    + [(source, "many to a source pixel") for source in ("one row", "one column", "one pixel", "three by four")],
)  # fmt: skip
def test_cubic_is_the_mean_weighted_by_keys_over_the_pixels_that_are_there(xp, source, place):
    source, shape = SOURCES[source], (25, 22)
    nodes = positions(shape, PLACES[place])
    (found,) = by_arrays(xp, (source,), nodes, shape)
    expected = by_sums(source, nodes, shape)
    assert np.isfinite(expected).any()
    assert_close(found, expected, source)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (2, 2)])
@pytest.mark.parametrize("place", ["same pixels", "turned", "downsampled along y"])
def test_targets_of_one_row_column_or_pixel(xp, shape, place):
    source = hills((60, 70), missing=0.1)
    nodes = positions(shape, PLACES[place])
    (found,) = by_arrays(xp, (source,), nodes, shape)
    assert_close(found, by_kernel(source, nodes, shape), source)


def test_positions_that_are_nowhere_are_outside(xp):
    # What PROJ says of places that a projection does not reach, in fields that are exact at every pixel.
    shape = (20, 24)
    u, v, *cells = positions(shape, turned(0.9, 1.1, 12, u0=9, v0=4), cell=1)
    u[3, 5] = np.nan
    u[7:9] = np.inf
    v[:, 11] = -np.inf
    v[15, 15] = 1e300
    source = hills((30, 40), missing=0.05)
    (found,) = by_arrays(xp, (source,), (u, v, *cells), shape)
    assert np.isfinite(found).sum() > 100
    assert_close(found, by_kernel(source, (u, v, *cells), shape), source)


def test_kernels_may_differ_in_width_along_a_row(xp):
    source, shape = hills((90, 400), missing=0.02), (21, 300)
    nodes = positions(shape, lambda c, r: (c + 0.0015 * c**2 + 2.4, 1.1 * r + 0.1 * c + 0.0007 * c**2), cell=30)
    (found,) = by_arrays(xp, (source,), nodes, shape)
    assert_close(found, by_kernel(source, nodes, shape), source)
    expected = by_sums(source, nodes, shape, every=29)
    assert_close(np.where(np.arange(300) % 29, np.nan, found), expected, source)


@pytest.mark.parametrize("jump", [15, 128, 129])
def test_where_positions_jump_kernels_may_be_larger_than_the_source(xp, jump):
    # As where longitudes begin anew: from one column of the target to the next is the whole source.
    shape = (10, 140)
    nodes = positions(shape, lambda c, r: (np.where(c < jump, c + 62.2, c - jump + 2.4), r + 0.01 * c), cell=1)
    source = hills((15, 210), missing=0.02)
    (found,) = by_arrays(xp, (source,), nodes, shape)
    assert_close(found, by_kernel(source, nodes, shape), source)


def test_bands_have_holes_of_their_own(xp):
    bands = tuple(hills((50, 60), missing=share, seed=k) for k, share in enumerate([0, 0.2, 0.7]))
    shape = (40, 44)
    nodes = positions(shape, turned(0.9, 1.3, 15, u0=10, v0=-3))
    for found, band in zip(by_arrays(xp, bands, nodes, shape), bands, strict=True):
        np.testing.assert_array_equal(found, by_arrays(xp, (band,), nodes, shape)[0])
        assert_close(found, by_kernel(band, nodes, shape), band)


def test_float64_stays_float64_and_keeps_its_digits(xp):
    source = hills((40, 40), missing=0.1).astype("float64") + 1e7
    shape = (25, 22)
    nodes = positions(shape, turned(0.9, 1.2, 25, u0=12, v0=2))
    (found,) = by_arrays(xp, (source,), nodes, shape)
    assert found.dtype == np.float64
    expected = by_sums(source, nodes, shape)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    assert np.nanmax(np.abs(found - expected)) < 1e-7


@pytest.mark.parametrize("place", ["turned", "downsampled", "ever coarser"])
@pytest.mark.parametrize("sampling", ["cubic", "nearest"])
def test_rows_of_a_target_are_those_of_the_whole(xp, place, sampling):
    source = xp.asarray(hills((60, 70), missing=0.1))
    shape = (60, 33)
    nodes = positions(shape, PLACES[place])

    def sample(first, stop):
        out = xp.empty((stop - first, shape[1]), "float32")
        if sampling == "cubic":
            array_sampling.sample_cubic((source,), *nodes, first, (out,))
        else:
            array_sampling.sample_nearest(source, *nodes, first, np.float32(np.nan), out)
        return to_host(out)

    whole = sample(0, 60)
    for first, stop in [(0, 1), (7, 30), (59, 60)]:
        # The order in which a wide kernel is summed follows the widest of a block.
        np.testing.assert_allclose(sample(first, stop), whole[first:stop], rtol=2e-7)


@pytest.mark.parametrize(
    ("name", "value"),
    [("BLOCK_ROWS", 7), ("WEIGHTS_AT_ONCE", 1), ("LINE_ELEMENTS", 60), ("SHORT_INDEX", 0), ("MOST_REACH", 0),
     ("MOST_REACH", 100)],
)  # fmt: skip
@pytest.mark.parametrize("place", ["turned", "downsampled strongly", "ever coarser"])
def test_how_the_work_is_divided_makes_no_difference(name, value, place, xp, monkeypatch):
    source, shape = hills((60, 70), missing=0.1), (37, 33)
    nodes = positions(shape, PLACES[place])
    (expected,) = by_arrays(xp, (source,), nodes, shape)
    nearest = xp.empty(shape, "float32")
    monkeypatch.setattr(array_sampling, name, value)
    (found,) = by_arrays(xp, (source,), nodes, shape)
    assert_close(found, expected, source)
    array_sampling.sample_nearest(xp.asarray(source), *nodes, 0, np.float32(np.nan), nearest)
    np.testing.assert_array_equal(to_host(nearest), nearest_by_kernel(source, nodes, shape, np.float32(np.nan)))


def test_scratch_memory_does_not_grow_with_the_target(monkeypatch):
    monkeypatch.setattr(array_sampling, "BLOCK_ROWS", 32)
    source = hills((200, 200))

    def scratch(rows, scale):
        nodes = positions((rows, 300), turned(scale, scale, 30, u0=90, v0=10))
        outs = (np.empty((rows, 300), "float32"),)
        tracemalloc.start()
        array_sampling.sample_cubic((source,), *nodes, 0, outs)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / (32 * 300)

    small, large = scratch(32, 0.5), scratch(320, 0.5)
    assert large < 1.1 * small + 10
    assert large < 200  # bytes per pixel of a block
    assert scratch(64, 4) < 400  # more taps


def test_inputs_are_not_written_to(xp):
    source = hills((30, 30), missing=0.1)
    there = xp.asarray(source.copy())
    nodes = positions((20, 20), turned(0.9, 1.4, 20, u0=8))
    before = [np.copy(part) for part in nodes]
    array_sampling.sample_cubic((there,), *nodes, 0, (xp.empty((20, 20), "float32"),))
    array_sampling.sample_nearest(there, *nodes, 0, np.float32(0), xp.empty((20, 20), "float32"))
    np.testing.assert_array_equal(to_host(there), source)
    for part, as_it_was in zip(nodes, before, strict=True):
        np.testing.assert_array_equal(part, as_it_was)


def test_windows_of_larger_arrays_can_be_sampled_and_filled(xp):
    whole = xp.asarray(hills((50, 60)))
    window = whole[5:40, 7:50]
    nodes = positions((20, 20), turned(1.2, 0.9, 20, u0=8))
    room = xp.zeros((30, 40), "float32")
    array_sampling.sample_cubic((window,), *nodes, 0, (room[3:23, 5:25],))
    np.testing.assert_array_equal(to_host(room)[3:23, 5:25], by_arrays(xp, (window,), nodes, (20, 20))[0])
    room[3:23, 5:25] = 0
    assert not to_host(room).any()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shape", [(41, 45), (1, 1), (1, 40)])
@pytest.mark.parametrize("size", [(60, 70), (1, 1), (2, 30)])
def test_nearest_is_the_compiled_kernel(xp, place, shape, size):
    nodes = positions(shape, PLACES[place])
    heights = hills(size, missing=0.2)
    classes = np.random.default_rng(1).integers(0, 256, size).astype("uint8")
    for source, outside in ((heights, np.float32(np.nan)), (classes, np.uint8(3))):
        out = xp.empty(shape, source.dtype)
        array_sampling.sample_nearest(xp.asarray(source), *nodes, 0, outside, out)
        np.testing.assert_array_equal(to_host(out), nearest_by_kernel(source, nodes, shape, outside))


def test_nearest_takes_the_pixel_that_holds_the_position_even_of_masks(xp):
    mask = np.random.default_rng(2).random((30, 40)) < 0.5
    shape = (35, 50)
    nodes = positions(shape, turned(0.83, 0.91, 7, u0=0.4, v0=-1.3))
    out = xp.empty(shape, bool)
    array_sampling.sample_nearest(xp.asarray(mask), *nodes, 0, False, out)
    u, v = CoarseField(np.stack(nodes[:2]), *nodes[2:]).at(np.arange(35), np.arange(50))
    held = (u >= 0) & (u < 40) & (v >= 0) & (v < 30)
    expected = np.where(held, mask[np.clip(v, 0, 29).astype(int), np.clip(u, 0, 39).astype(int)], False)
    np.testing.assert_array_equal(to_host(out), expected)
    assert 0.2 < held.mean() < 1


SIZES = st.tuples(st.integers(1, 25), st.integers(1, 25))
SCALES = st.floats(0.1, 7).map(lambda scale: round(scale, 3))


@st.composite
def cases(draw):
    size, shape = draw(SIZES), draw(SIZES)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    source = (draw(st.sampled_from([0, 300, 3000])) + 30 * rng.random(size)).astype("float32")
    share = draw(st.one_of(st.sampled_from([0, 1]), st.floats(0, 1)))
    source[rng.random(size) < share] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    place = turned(
        draw(SCALES), draw(SCALES) * draw(st.sampled_from([-1, 1])), draw(st.integers(0, 359)),
        rng.uniform(-10, 30), rng.uniform(-10, 30), draw(st.sampled_from([0, 0, 0.003, 0.03])),
    )  # fmt: skip
    return source, shape, positions(shape, place, draw(st.integers(1, 30)))


@settings(max_examples=80, deadline=None)
@given(case=cases())
def test_any_source_under_any_target_is_sampled_as_by_the_kernels(case):
    source, shape, nodes = case
    (found,) = by_arrays(np, (source,), nodes, shape)
    assert_close(found, by_kernel(source, nodes, shape), source)
    out = np.empty(shape, "float32")
    array_sampling.sample_nearest(source, *nodes, 0, np.float32(np.nan), out)
    np.testing.assert_array_equal(out, nearest_by_kernel(source, nodes, shape, np.float32(np.nan)))
