import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_preprocessing import disk_means
from darts_preprocessing.disk_counts import count_valid
from darts_preprocessing.disk_means import Blocks, Disk, above_disk_mean, rows_needed


def disk_of(radius: float, inner: float = -1) -> Disk:
    """Round, or hollow where `inner` is 0 or more."""
    rows = np.arange(int(radius) + 1)
    outer = np.floor(np.sqrt(radius**2 - rows**2)).astype("int64")
    left_out = np.full(rows.size, -1)
    near = rows[rows <= inner]
    left_out[near] = np.floor(np.sqrt(inner**2 - near**2)) if inner >= 0 else -1
    return Disk(outer, left_out)


def by_loops(dem: np.ndarray, disk: Disk) -> np.ndarray:
    rows, cols = np.nonzero(disk.pixels())
    rows, cols = rows - disk.reach[0], cols - disk.reach[1]
    out = np.full(dem.shape, np.nan)
    for y, x in np.argwhere(np.isfinite(dem)):
        r, c = rows + y, cols + x
        inside = (r >= 0) & (c >= 0) & (r < dem.shape[0]) & (c < dem.shape[1])
        around = dem[r[inside], c[inside]].astype("float64")
        around = around[np.isfinite(around)]
        out[y, x] = dem[y, x] - around.mean() if around.size else np.nan
    return out


def fill(dem: np.ndarray, disk: Disk) -> np.ndarray:
    out = np.empty(dem.shape, "float32")
    above_disk_mean(dem, 0, 0, disk, out, shape=dem.shape)
    return out


@pytest.mark.parametrize("disk", [disk_of(1), disk_of(4.5), disk_of(6, 0), disk_of(9, 5), disk_of(40)])
@pytest.mark.parametrize("missing", [0, 0.001, 0.3, 0.97, 1])
def test_means_are_those_of_loops_in_blocks_of_any_kind(disk, missing, monkeypatch):
    monkeypatch.setattr(disk_means, "LEAST_SIDE", 20)
    monkeypatch.setattr(disk_means, "SIDE_OF_REACH", 3)
    rng = np.random.default_rng(3)
    dem = (1500 * rng.random((61, 47)) + np.linspace(0, 1500, 47)).astype("float32")
    dem[rng.random(dem.shape) < missing] = np.nan
    expected = by_loops(dem, disk)
    np.testing.assert_allclose(fill(dem, disk), expected, rtol=0, atol=1e-3)


def test_an_island_in_a_hole_amid_mountains_is_exact():
    # What rounds to a centimetre in the sum of a whole disk would be felt in the mean of three pixels.
    rng = np.random.default_rng(0)
    dem = (3000 * rng.random((500, 500))).astype("float32")
    dem[100:300, 100:300] = np.nan
    dem[200, 198:201] = 12.5
    found = fill(dem, disk_of(60))
    np.testing.assert_allclose(found[200, 198:201], 0, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 30), width=st.integers(1, 30), radius=st.floats(1, 12), inner=st.floats(-1, 6),
    missing=st.floats(0, 1), seed=st.integers(0, 9),
)  # fmt: skip
def test_valid_pixels_are_counted_exactly(height, width, radius, inner, missing, seed):
    disk = disk_of(radius, min(inner, radius - 1))
    down, across = disk.reach
    valid = np.random.default_rng(seed).random((height + 2 * down, width + 2 * across)) >= missing
    out = np.empty((height, width), np.float32)
    count_valid(1, valid, disk.outer, disk.inner, int(disk.pixels().sum()), out)
    pixels = disk.pixels()
    windows = np.lib.stride_tricks.sliding_window_view(valid, pixels.shape)
    np.testing.assert_array_equal(out, (windows & pixels).sum(axis=(2, 3)))


@pytest.mark.parametrize("limit", [0, 1e9])
def test_both_ways_of_counting_give_the_same(limit, monkeypatch):
    monkeypatch.setattr(disk_means, "NOTES_OF_PIXEL", limit)
    rng = np.random.default_rng(1)
    dem = (500 * rng.random((90, 70))).astype("float32")
    dem[rng.random(dem.shape) < 0.05] = np.nan
    np.testing.assert_allclose(fill(dem, disk_of(12, 3)), by_loops(dem, disk_of(12, 3)), rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_way_of_gpus_gives_what_opencv_gives(dtype):
    class Namespace:
        """Numpy under another name, as cupy would be."""

        def __getattr__(self, name):
            return getattr(np, name)

    disk, values = disk_of(7, 2), np.random.default_rng(0).random((48, 60)).astype(dtype)
    here, there = (disk_means._Convolution(xp, values.shape, disk.pixels()) for xp in (np, Namespace()))
    np.testing.assert_allclose(there.of(values.copy()), here.of(values.copy()), atol=1e-4)
    assert there.of(values).dtype == dtype


@given(size=st.integers(1, 20_000), reach=st.integers(0, 3000))
def test_blocks_cover_the_axis_in_equal_steps(size, reach):
    blocks = Blocks.of(size, reach)
    starts = blocks.within(0, size)
    assert starts[0] == 0
    assert starts[-1] < size <= starts[-1] + blocks.step
    assert blocks.side >= blocks.step + 2 * reach


@given(rows=st.integers(1, 3000), reach=st.integers(0, 300), data=st.data())
def test_needed_rows_hold_the_blocks_of_the_part(rows, reach, data):
    first = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(first + 1, rows))
    disk = Disk(np.full(reach + 1, 1), np.full(reach + 1, -1))
    top, bottom = rows_needed(disk, rows, first, stop)
    assert -reach <= top <= first - reach
    assert stop + reach <= bottom <= rows + reach
