"""A small exported-ready tile, made without the other packages."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

NAN = np.float32(np.nan)


@pytest.fixture(scope="session")
def make_tile() -> Callable[..., xr.Dataset]:
    """Return a maker of tiles: bands by name, on a grid of 10 m from `corner` in `crs`."""

    def make(bands, crs="EPSG:32608", corner=(5e5, 7.6e6), resolution=10.0, **attrs):
        shape = next(iter(bands.values())).shape
        transform = Affine(resolution, 0, corner[0], 0, -resolution, corner[1])
        coords = xr_coords(GeoBox(shape, transform, crs))
        return xr.Dataset({name: (("y", "x"), values) for name, values in bands.items()}, coords=coords, attrs=attrs)

    return make


@pytest.fixture
def tile(shared_tile) -> xr.Dataset:
    """The shared tile, to be changed at will."""
    return shared_tile.copy(deep=True)


@pytest.fixture(scope="session")
def shared_tile(make_tile) -> xr.Dataset:
    """70 × 90 pixels: two objects (one with a hole, and joined at a corner), one cut object, clouds, one subset."""
    rng = np.random.default_rng(7)
    shape = (70, 90)
    probabilities = (rng.random(shape) * 0.4).astype("float32")
    extent = np.zeros(shape, bool)
    extent[5:-5, 5:-5] = True
    found = np.zeros(shape, bool)
    found[10:22, 12:26] = found[22:30, 26:34] = True  # meet at a corner
    found[14:16, 15:18] = False
    found[40:50, 60:75] = True
    probabilities[found] = rng.uniform(0.5001, 1, found.sum())
    cut = np.full(shape, NAN)
    cut[55:70, 30:45] = 0.8
    subset = np.full(shape, np.float32(0.05))
    subset[50:58, 10:20] = 0.95
    quality = np.full(shape, 2, "uint8")
    quality[:, 80:] = 1
    scl = np.full(shape, 4, "uint8")
    scl[30:36, 10:40] = 10
    scl[:, 80:] = 9
    optical = {
        name: (level + 0.02 * rng.standard_normal(shape)).astype("float32")
        for name, level in (("blue", 0.03), ("green", 0.06), ("red", 0.07), ("nir", 0.2))
    }
    optical["red"][:3] = NAN
    terrain = {
        "slope": rng.uniform(0, 40, shape).astype("float32"),
        "aspect": rng.uniform(0, 360, shape).astype("float32"),
        "dem": rng.uniform(100, 300, shape).astype("float32"),
        "curvature": rng.normal(0, 3, shape).astype("float32"),
    }
    trends = {
        f"tc_{name}": rng.uniform(0, 255, shape).astype("float32") for name in ("brightness", "greenness", "wetness")
    }
    return make_tile(
        {
            **optical,
            **terrain,
            **trends,
            "s2_scl": scl,
            "quality_data_mask": quality,
            "extent": extent,
            "probabilities": np.where(extent, probabilities, NAN),
            "probabilities-small": np.where(extent, subset, NAN),
            "binarized_segmentation": found,
            "binarized_segmentation-small": extent & (subset > 0.5),
            "cut_probabilities": cut,
            "cut_probabilities-small": np.full(shape, NAN),
        },
        tile_id="a-tile",
        image_id="an-image",
        sensor="Sentinel-2",
        acquisition_time="2021-08-21T21:00:00Z",
        azimuth=170.5,
        elevation=None,
    )
