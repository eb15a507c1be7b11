"""SPEC 4: quality is 0 invalid, 1 low, 2 high; from SCL, UDM2, or the bands themselves."""

import numpy as np
import pytest

from darts_acquisition import load_cdse_s2_sr_scene, load_imported_scene, load_planet_masks, load_planet_scene

SCENE = "S2B_MSIL2A_20230701T195909_N0509_R128_T08WNV_20230701T233012"
BANDS_10M = ("B02_10m", "B03_10m", "B04_10m", "B08_10m")

# Scene classification 0 … 11: no data, saturated, dark or cast shadow, cloud shadow, vegetation, bare soil, water,
# unclassified, medium cloud, high cloud, thin cirrus, snow.
SCL_QUALITY = [0, 0, 2, 1, 2, 2, 2, 2, 1, 1, 2, 1]


def optical_dn(shape, value=2000):
    return {name: np.full(shape, value) for name in BANDS_10M}


def test_every_class_of_the_scene_classification_has_its_quality(sentinel2_store):
    store = sentinel2_store(SCENE, **optical_dn((2, 6)), SCL_20m=np.arange(12).reshape(2, 6))
    tile = load_cdse_s2_sr_scene(SCENE, store=store, offline=True)
    assert tile.quality_data_mask.dtype == np.uint8
    assert tile.quality_data_mask.values.ravel().tolist() == SCL_QUALITY
    assert tile.s2_scl.values.ravel().tolist() == list(range(12))
    assert tile.attrs["quality_source"] == "SCL"


@pytest.mark.parametrize("missing", BANDS_10M)
def test_a_pixel_without_one_optical_band_is_invalid_whatever_its_class(sentinel2_store, missing):
    bands = optical_dn((1, 3))
    bands[missing] = np.array([[2000, 0, 2000]])
    store = sentinel2_store(SCENE, **bands, SCL_20m=np.array([[4, 4, 8]]))
    tile = load_cdse_s2_sr_scene(SCENE, store=store, offline=True)
    assert tile.quality_data_mask.values.tolist() == [[2, 0, 1]]


def test_an_import_without_classes_is_of_high_quality_where_all_bands_are_and_says_so(sentinel2_store):
    bands = {name: np.array([[2000, 2000, 2000]]) for name in ("blue", "green", "red", "nir")}
    bands["nir"] = np.array([[2000, 0, 2000]])
    store = sentinel2_store("peel", prefix="import-s2-scene", **bands)
    tile = load_imported_scene("peel", store)
    assert tile.quality_data_mask.values.tolist() == [[2, 0, 2]]
    assert tile.attrs["quality_source"] == "valid pixels"


def test_an_import_with_classes_goes_by_them(sentinel2_store):
    bands = {name: np.array([[2000, 0, 2000]]) for name in ("blue", "green", "red", "nir")}
    store = sentinel2_store("peel", prefix="import-s2-scene", **bands, scl=np.array([[9, 4, 10]]))
    tile = load_imported_scene("peel", store)
    assert tile.quality_data_mask.values.tolist() == [[1, 0, 2]]
    assert tile.attrs["quality_source"] == "SCL"


# UDM2 bands 1 … 8 of one pixel, its quality, and its bits in `planet_udm`.
CLEAR, SNOW, SHADOW, LIGHT_HAZE, HEAVY_HAZE, CLOUD = range(6)
UDM2_EXAMPLES = {
    "clear": ([1, 0, 0, 0, 0, 0, 95, 0], 2, 0b0000_0001),
    "nothing set": ([0, 0, 0, 0, 0, 0, 50, 0], 2, 0),
    "snow": ([0, 1, 0, 0, 0, 0, 80, 0], 1, 0b0000_0010),
    "shadow": ([0, 0, 1, 0, 0, 0, 80, 0], 1, 0b0000_0100),
    "light haze": ([0, 0, 0, 1, 0, 0, 80, 0], 1, 0b0000_1000),
    "heavy haze": ([0, 0, 0, 0, 1, 0, 80, 0], 1, 0b0001_0000),
    "cloud": ([0, 0, 0, 0, 0, 1, 80, 0], 1, 0b0010_0000),
    "cloud and its old bit": ([0, 0, 0, 0, 0, 1, 80, 0b10], 1, 0b0010_0000),
    "old cloud bit alone": ([1, 0, 0, 0, 0, 0, 80, 0b10], 2, 0b0000_0001),
    "blackfill": ([0, 0, 0, 0, 0, 0, 0, 0b1], 0, 0b1000_0000),
    "blue suspect": ([1, 0, 0, 0, 0, 0, 90, 0b100], 0, 0b1000_0001),
    "green suspect": ([1, 0, 0, 0, 0, 0, 90, 0b1000], 0, 0b1000_0001),
    "red suspect": ([1, 0, 0, 0, 0, 0, 90, 0b1_0000], 0, 0b1000_0001),
    "nir suspect": ([1, 0, 0, 0, 0, 0, 90, 0b10_0000], 0, 0b1000_0001),
    "bits 6 and 7 of band 8 mean nothing here": ([1, 0, 0, 0, 0, 0, 90, 0b1100_0000], 2, 0b0000_0001),
    "snow and suspect": ([0, 1, 0, 0, 0, 0, 90, 0b1_0000], 0, 0b1000_0010),
    "confidence 0": ([1, 0, 0, 0, 0, 0, 0, 0], 2, 0b0000_0001),
    "haze and cloud": ([0, 0, 0, 1, 0, 1, 40, 0], 1, 0b0010_1000),
}


def test_every_band_of_udm2_has_its_quality_and_its_bit(planet_folder):
    udm2 = np.array([pixel for pixel, _, _ in UDM2_EXAMPLES.values()]).T[:, None, :]
    folder = planet_folder(np.full((4, 1, len(UDM2_EXAMPLES)), 1500), udm2)
    masks = load_planet_masks(folder)
    assert masks.quality_data_mask.dtype == np.uint8
    quality = dict(zip(UDM2_EXAMPLES, masks.quality_data_mask.values.ravel().tolist(), strict=True))
    assert quality == {name: expected for name, (_, expected, _) in UDM2_EXAMPLES.items()}
    assert masks.planet_udm.dtype == np.uint8
    bits = dict(zip(UDM2_EXAMPLES, masks.planet_udm.values.ravel().tolist(), strict=True))
    assert bits == {name: expected for name, (_, _, expected) in UDM2_EXAMPLES.items()}


def planet_tile(folder):
    """The optical scene with its masks, whether the scene's loader brings them or not."""
    scene = load_planet_scene(folder)
    if "quality_data_mask" in scene:
        return scene
    return scene.merge(load_planet_masks(folder), compat="override", join="exact", combine_attrs="override")


def test_a_planet_tile_carries_its_quality(planet_folder):
    udm2 = np.array([[1, 0, 0, 0, 0, 0, 90, 0], [0, 0, 0, 0, 0, 1, 90, 0], [0, 0, 0, 0, 0, 0, 0, 1]]).T[:, None, :]
    tile = planet_tile(planet_folder(np.full((4, 1, 3), 1500), udm2))
    assert tile.quality_data_mask.values.tolist() == [[2, 1, 0]]
    assert tile.attrs["quality_source"] == "UDM2"


def test_without_udm2_a_pixel_with_all_bands_is_of_high_quality(planet_folder):
    optical = np.full((4, 1, 3), 1500)
    optical[:, 0, 1] = 0
    tile = planet_tile(planet_folder(optical))
    assert tile.quality_data_mask.values.tolist() == [[2, 0, 2]]
    assert tile.attrs["quality_source"] == "valid pixels"


def test_a_planet_pixel_without_data_is_invalid_whatever_udm2_says(planet_folder):
    optical = np.full((4, 1, 2), 1500)
    optical[:, 0, 0] = 0
    udm2 = np.tile(np.array([1, 0, 0, 0, 0, 0, 90, 0])[:, None, None], (1, 1, 2))
    assert planet_tile(planet_folder(optical, udm2)).quality_data_mask.values.tolist() == [[0, 2]]
