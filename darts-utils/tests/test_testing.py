import numpy as np
import pytest

from darts_utils.bands import BANDS
from darts_utils.testing import (
    cone_dem,
    namespaces,
    optical_tile,
    plane_dem,
    rough_dem,
    trend_tile,
    utm_geobox,
)

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

GEOBOX = utm_geobox((20, 30))


@pytest.fixture(params=namespaces(), ids=lambda module: module.__name__)
def xp(request):
    return request.param


def test_the_fixture_gives_array_modules(xp):
    assert xp.arange(3).sum() == 3


@pytest.mark.parametrize("make", [optical_tile, rough_dem, trend_tile])
def test_tiles_depend_on_the_seed_alone_and_follow_the_band_table(make):
    tile = make(GEOBOX, seed=5)
    assert tile.identical(make(GEOBOX, seed=5))
    assert not tile.equals(make(GEOBOX, seed=6))
    assert tile.odc.geobox == GEOBOX
    for name, values in tile.items():
        assert values.dtype == BANDS[name].memory
        assert values.attrs["units"] == BANDS[name].units


def test_a_share_of_an_optical_tile_is_missing_and_marked_invalid():
    tile = optical_tile(GEOBOX, nodata_share=0.3)
    missing = np.isnan(tile.red.values)
    assert missing.mean() == pytest.approx(0.3)
    assert np.array_equal(tile.quality_data_mask == 0, missing)


def test_a_plane_falls_towards_its_aspect():
    dem = plane_dem(GEOBOX, 45, 90).dem.values
    assert np.allclose(np.diff(dem, axis=1), -10)
    assert np.allclose(np.diff(dem, axis=0), 0)
    assert np.allclose(np.diff(plane_dem(GEOBOX, 45, 0).dem.values, axis=0), 10, atol=1e-4)


def test_a_cone_has_its_tip_in_the_middle():
    dem = cone_dem(utm_geobox((21, 21)), 45).dem.values
    assert dem[10, 10] == dem.max() == 1000
    assert dem[10, 0] == dem[0, 10] == 900
