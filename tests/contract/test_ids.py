"""SPEC 5 and the tile's attributes: what names of scenes mean."""

import numpy as np
import pytest

from darts_acquisition import load_cdse_s2_sr_scene, load_planet_scene
from darts_utils.errors import DartsError

S2_SCENE = "S2B_MSIL2A_20230701T195909_N0509_R128_T08WNV_20230701T233012"


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("20230701_194909_12_2416", "2023-07-01T19:49:09"),
        ("20170831_172754_101c", "2017-08-31T17:27:54"),
    ],
)
def test_planet_scenes_carry_their_time_in_their_name(planet_folder, name, time):
    folder = planet_folder(np.ones((4, 2, 2)), name=name)
    next(folder.glob("*_metadata.json")).write_text('{"properties": {"sun_azimuth": 170.5, "sun_elevation": 42.25}}')
    tile = load_planet_scene(folder)
    assert tile.attrs["image_id"] == name
    assert tile.attrs["sensor"] == "PlanetScope"
    assert tile.attrs["acquisition_time"].startswith(time)


def test_planet_orthotiles_carry_tile_and_date_in_their_name(planet_folder):
    name = "5790392_4372514_2022-07-16_2459"
    folder = planet_folder(np.ones((4, 2, 2)), name=f"4372514/{name}")
    next(folder.glob("*_metadata.json")).write_text('{"properties": {"sun_azimuth": 170.5, "sun_elevation": 42.25}}')
    tile = load_planet_scene(folder)
    assert tile.attrs["image_id"] == name
    assert "4372514" in tile.attrs["tile_id"]
    assert tile.attrs["acquisition_time"].startswith("2022-07-16")


@pytest.mark.parametrize("name", ["planet", "20231301_194909_12_2416", "20230701", "2023-07-01_2459", "a_b_2022-07-16"])
def test_a_folder_of_another_name_is_refused_by_name(planet_folder, name):
    folder = planet_folder(np.ones((4, 2, 2)), name=name)
    with pytest.raises(DartsError, match=name):
        load_planet_scene(folder)


def test_sentinel2_tiles_carry_their_ids(sentinel2_store):
    bands = {name: np.full((2, 2), 2000) for name in ("B02_10m", "B03_10m", "B04_10m", "B08_10m")}
    store = sentinel2_store(S2_SCENE, **bands, SCL_20m=np.full((2, 2), 4))
    tile = load_cdse_s2_sr_scene(S2_SCENE, store=store, offline=True)
    assert tile.attrs["image_id"] == S2_SCENE
    assert tile.attrs["sensor"] == "Sentinel-2"
    assert tile.attrs["acquisition_time"].startswith("2023-07-01T19:59:09")
