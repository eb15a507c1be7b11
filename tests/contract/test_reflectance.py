"""SPEC 5: what a delivered digital number means."""

import numpy as np
import pytest

from darts_acquisition import load_cdse_s2_sr_scene, load_gee_s2_sr_scene, load_planet_scene

SCENE = "S2B_MSIL2A_20230701T195909_N0509_R128_T08WNV_20230701T233012"
DN = np.array([[0, 1, 1000, 2500, 6000, 20_000]])


def s2_bands(dn=DN):
    return dict.fromkeys(("B02_10m", "B03_10m", "B04_10m", "B08_10m"), dn)


@pytest.mark.parametrize(
    ("scale", "offset", "reflectance"),
    [
        (1e-4, -0.1, [np.nan, -0.0999, 0.0, 0.15, 0.5, 1.9]),
        (1e-4, 0.0, [np.nan, 0.0001, 0.1, 0.25, 0.6, 2.0]),
        (2e-5, -0.05, [np.nan, -0.04998, -0.03, 0.0, 0.07, 0.35]),
    ],
)
def test_sentinel2_numbers_become_reflectance_by_scale_and_offset(sentinel2_store, scale, offset, reflectance):
    store = sentinel2_store(SCENE, scale=scale, offset=offset, **s2_bands(), SCL_20m=np.full(DN.shape, 4))
    tile = load_cdse_s2_sr_scene(SCENE, store=store, offline=True)
    for name in ("blue", "green", "red", "nir"):
        assert tile[name].dtype == np.float32
        assert np.allclose(tile[name].values, [reflectance], atol=1e-6, equal_nan=True), "neither clipped nor rounded"


def test_sentinel2_bands_get_their_common_names(sentinel2_store):
    numbers = {"B02_10m": 2000, "B03_10m": 3000, "B04_10m": 4000, "B08_10m": 5000}
    store = sentinel2_store(
        SCENE, **{name: np.full((2, 3), dn) for name, dn in numbers.items()}, SCL_20m=np.full((2, 3), 5)
    )
    tile = load_cdse_s2_sr_scene(SCENE, store=store, offline=True)
    means = [float(tile[name].mean()) for name in ("blue", "green", "red", "nir")]
    assert means == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-6)


def test_harmonized_earth_engine_scenes_have_no_offset(sentinel2_store):
    scene = "20230701T194909_20230701T195350_T11XNA"
    bands = dict.fromkeys(("B2", "B3", "B4", "B8"), DN)
    store = sentinel2_store(scene, prefix="gee-s2-sr-scene", scale=1e-4, offset=0.0, **bands, SCL=np.full(DN.shape, 4))
    tile = load_gee_s2_sr_scene(scene, store=store, offline=True)
    assert np.allclose(tile.red.values, [[np.nan, 0.0001, 0.1, 0.25, 0.6, 2.0]], atol=1e-6, equal_nan=True)


def test_planet_numbers_are_ten_thousandths_and_0_in_all_bands_is_nodata(planet_folder):
    optical = np.array([[[0, 0, 1000]], [[0, 5000, 2000]], [[0, 2500, 3000]], [[0, 1, 4000]]])
    tile = load_planet_scene(planet_folder(optical))
    assert np.allclose(tile.blue.values, [[np.nan, 0.0, 0.1]], atol=1e-6, equal_nan=True)
    assert np.allclose(tile.green.values, [[np.nan, 0.5, 0.2]], atol=1e-6, equal_nan=True)
    assert np.allclose(tile.red.values, [[np.nan, 0.25, 0.3]], atol=1e-6, equal_nan=True)
    assert np.allclose(tile.nir.values, [[np.nan, 0.0001, 0.4]], atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("suffix", ["3B_AnalyticMS_SR_8b", "3B_AnalyticMS_SR_8b_harmonized_clip"])
def test_superdove_bands_are_picked_from_their_order(planet_folder, suffix):
    # Coastal blue, blue, green I, green, yellow, red, red edge, near infrared.
    optical = np.arange(1, 9)[:, None, None] * 1000
    tile = load_planet_scene(planet_folder(optical, suffix=suffix))
    means = [float(tile[name].mean()) for name in ("blue", "green", "red", "nir")]
    assert means == pytest.approx([0.2, 0.4, 0.6, 0.8], abs=1e-6)


def test_sun_angles_and_grid_come_with_the_tile(sentinel2_store, planet_folder):
    store = sentinel2_store(SCENE, **s2_bands(), SCL_20m=np.full(DN.shape, 4))
    tiles = [
        load_cdse_s2_sr_scene(SCENE, store=store, offline=True),
        load_planet_scene(planet_folder(np.ones((4, 2, 2)))),
    ]
    for tile, pixel in zip(tiles, (10, 3), strict=True):
        assert (tile.attrs["azimuth"], tile.attrs["elevation"]) == pytest.approx((170.5, 42.25))
        assert tile.odc.geobox.crs.to_epsg() == 32608
        assert tuple(tile.odc.geobox.transform)[:6] == (pixel, 0, 500_000, 0, -pixel, 7_760_000)
        assert tile.red.dims == ("y", "x")
