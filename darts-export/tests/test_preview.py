import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from darts_export.preview import CAPTION_PX, MAX_BYTES, NODATA_GREY, draw_thumbnail, write_thumbnail
from darts_export.vectors import segments

IDS = {"tile_id": "t", "image_id": None, "sensor": None, "acquisition_time": pd.NaT}


def objects_of(tile):
    return segments(tile, tile.binarized_segmentation.values, tile.probabilities.values, "ensemble", IDS)


def picture_of(tile, objects=None):
    return np.asarray(draw_thumbnail(tile, objects)).astype(int)


def test_outlines_lie_on_the_edges_of_objects_in_the_colour_of_their_probability(make_tile):
    shape = (128, 128)
    bands = {name: np.full(shape, np.float32(0.05)) for name in ("red", "green", "blue")}
    found = np.zeros(shape, bool)
    found[20:60, 30:80] = found[90:110, 90:110] = True
    probabilities = np.where(np.arange(128) < 80, np.float32(0.99), np.float32(0.51)) * np.ones((128, 1), "float32")
    tile = make_tile({**bands, "binarized_segmentation": found, "probabilities": probabilities})
    picture = picture_of(tile, objects_of(tile))
    plain = picture_of(tile)
    scale = 4
    for x, y, strongest in ((30 * scale, 40 * scale, "red"), (90 * scale, 100 * scale, "yellow")):
        spot = picture[y - 2 : y + 3, x - 4 : x + 5].reshape(-1, 3)
        red, green, blue = spot[spot.max(axis=1).argmax()]
        assert red > 200
        assert (green < 60) if strongest == "red" else (green > 180 and blue < 120)
    changed = np.abs(picture - plain).max(axis=2)[: shape[0] * scale] > 0
    assert not changed[30 * scale : 50 * scale, 45 * scale : 70 * scale].any()
    assert not changed[:70, :100].any()


def test_an_object_smaller_than_a_pixel_of_the_picture_is_still_seen(make_tile):
    shape = (2600, 1300)
    bands = {name: np.full(shape, np.float32(0.05)) for name in ("red", "green", "blue")}
    found = np.zeros(shape, bool)
    found[1000:1002, 600:602] = True
    tile = make_tile({**bands, "binarized_segmentation": found, "probabilities": found.astype("float32")})
    assert (picture_of(tile, objects_of(tile))[:1024] - picture_of(tile)[:1024] > 60).any(axis=2).sum() > 20


def test_brighter_ground_is_brighter_and_the_stretch_is_fixed(make_tile):
    def of(level):
        bands = {name: np.full((20, 20), np.float32(level)) for name in ("red", "green", "blue")}
        return picture_of(make_tile(bands))[5, 5, 0]

    levels = [of(level) for level in (-0.05, 0.0, 0.05, 0.1, 0.15, 0.25, 0.5)]
    assert levels == sorted(levels)
    assert levels[0] == 0
    assert levels[-1] == 255
    assert 60 < levels[2] < 150


def test_pixels_without_data_are_light_grey(tile):
    tile["red"][:35] = np.nan
    picture = picture_of(tile)
    height = picture.shape[0] - CAPTION_PX
    assert (picture[: height // 2 - 5] == NODATA_GREY).all()
    assert not (picture[height // 2 + 5 : height] == NODATA_GREY).all(axis=2).any()


def test_missing_pixels_do_not_darken_their_neighbours(make_tile):
    bands = {name: np.full((4096, 64), np.float32(0.15)) for name in ("red", "green", "blue")}
    bands["red"][::7, ::3] = np.nan
    picture = picture_of(make_tile(bands))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 1


def test_without_optical_bands_probabilities_are_shown_in_grey(make_tile):
    probabilities = np.tile(np.linspace(0, 1, 60, dtype="float32"), (60, 1))
    picture = picture_of(make_tile({"probabilities": probabilities}))[:400]
    assert (picture[..., 0] == picture[..., 1]).all()
    assert picture[100, 5, 0] < picture[100, 400, 0]


def test_date_sensor_and_scale_bar_stand_below_the_picture(tile, make_tile):
    with_words = picture_of(tile)[-CAPTION_PX:]
    without = picture_of(tile.assign_attrs(acquisition_time=None, sensor=None))[-CAPTION_PX:]
    assert (with_words[:, :80] < 100).any()
    assert not (without[:, :80] < 100).any()
    assert (without[:, -20:] < 100).any()
    degrees = make_tile({"probabilities": np.zeros((60, 60), "float32")}, "EPSG:4326", (10, 60), 1e-4)
    assert not (picture_of(degrees)[-CAPTION_PX:, -20:] < 100).any()


def test_the_date_is_that_of_utc_and_odd_ids_are_drawn_on_one_line(tile):
    west = picture_of(tile.assign_attrs(acquisition_time="2021-08-21T23:00:00-08:00"))
    np.testing.assert_array_equal(west, picture_of(tile.assign_attrs(acquisition_time="2021-08-22T07:00:00Z")))
    broken = picture_of(tile.assign_attrs(sensor="Sentinel-2\nMSI"))
    np.testing.assert_array_equal(broken, picture_of(tile.assign_attrs(sensor="Sentinel-2 MSI")))


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (37, 53), (700, 20), (1500, 1600)])
def test_pictures_of_any_size_stay_small(make_tile, tmp_path, shape):
    rng = np.random.default_rng(0)
    bands = {name: rng.random(shape, dtype="float32") * np.float32(0.2) for name in ("red", "green", "blue")}
    write_thumbnail(tmp_path / "t.jpg", make_tile(bands), None)
    data = (tmp_path / "t.jpg").read_bytes()
    assert len(data) <= MAX_BYTES
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert max(image.size) <= 1024 + CAPTION_PX
        assert image.format == "JPEG"


def test_a_tile_of_nan_gives_a_picture(make_tile):
    bands = {name: np.full((37, 53), np.float32(np.nan)) for name in ("red", "green", "blue")}
    assert (picture_of(make_tile(bands))[:300] == NODATA_GREY).all()
