"""Sources, places where they are sampled, and what array code and the compiled kernels make of them."""

import math

import numpy as np

from darts_utils import array_sampling, resampling
from darts_utils.arrays import to_host


def positions(shape, function, cell=8):
    """Return the nodes of a field over a target, at most `cell` pixels apart, as the sampling functions take them."""
    last = [max(size - 1, 1) for size in shape]
    cells = [math.ceil(size / cell) for size in last]
    steps = [size / count for size, count in zip(last, cells, strict=True)]
    rows, cols = (np.arange(count + 1) * step for count, step in zip(cells, steps, strict=True))
    u, v = function(*np.meshgrid(cols, rows))
    return np.array(u, "float64"), np.array(v, "float64"), *steps


def turned(scale_x, scale_y, angle=0.0, u0=0.0, v0=0.0, bend=0.0):
    """Return a function from target columns and rows to source columns and rows."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    def place(c, r):
        return (
            u0 + scale_x * (cosine * c - sine * r) + bend * r**2,
            v0 + scale_y * (sine * c + cosine * r) - bend * c**2,
        )

    return place


def by_arrays(xp, sources, nodes, shape, first_row=0):
    outs = tuple(xp.full(shape, 7, source.dtype) for source in sources)
    array_sampling.sample_cubic(tuple(xp.asarray(source) for source in sources), *nodes, first_row, outs)
    return [to_host(out) for out in outs]


def by_kernel(source, nodes, shape, first_row=0):
    out = np.empty(shape, source.dtype)
    blocks = math.ceil(shape[0] / resampling.BLOCK_ROWS)
    resampling.sample_cubic(
        blocks, (np.ascontiguousarray(source).reshape(-1),), *source.shape, *nodes, first_row, (out,)
    )
    return out


def nearest_by_kernel(source, nodes, shape, outside):
    out = np.empty(shape, source.dtype)
    resampling.sample_nearest(math.ceil(shape[0] / resampling.BLOCK_ROWS), source, *nodes, 0, outside, out)
    return out


def assert_close(found, expected, source):
    """Check that the same pixels are NaN and values agree to 1e-5 of the relief, or the last digit that is kept."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    there = source[np.isfinite(source)]
    if there.size and np.isfinite(expected).any():
        digit = np.spacing(np.abs(there).max().astype("float32"))
        assert np.nanmax(np.abs(found - expected)) <= 1e-5 * np.ptp(there.astype("float64")) + digit


def hills(shape, *, base=300.0, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(shape)
    heights = base + 20 * np.sin(rows / 5) * np.cos(cols / 7) + rng.normal(0, 3, shape)
    heights[rng.random(shape) < missing] = np.nan
    return heights.astype("float32")


PLACES = {
    "north-up to north-up": turned(0.7, 0.7, u0=4.3, v0=2.1),
    "same pixels": turned(1, 1, u0=0.5, v0=0.5),
    "on the pixels' corners": turned(1, 1, u0=3, v0=4),
    "south-up": turned(1.02, -0.9, u0=1.2, v0=51.3),
    "turned": turned(0.9, 0.9, 33, u0=20, v0=-3),
    "turned right": turned(1, 1, 90, u0=55.25, v0=0.5),
    "downsampled": turned(3.4, 2.9, 10, u0=8, v0=-4),
    "downsampled strongly": turned(11, 9.5, -20, u0=-30, v0=20),
    "downsampled along x": turned(2.6, 0.8, u0=-20.2, v0=3),
    "downsampled along y": turned(0.8, 2.6, u0=3, v0=-20.2),
    "ever coarser": turned(0.8, 0.7, 5, u0=5, v0=30, bend=0.025),
    "beyond on all sides": turned(2, 2, u0=-8.3, v0=-9.1),
    "nowhere": turned(1, 1, u0=500, v0=-900),
    "many to a source pixel": turned(0.13, 0.11, 20, u0=0.6, v0=-0.4),
}
