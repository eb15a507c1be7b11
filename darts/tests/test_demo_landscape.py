import hashlib
from functools import cache

import numpy as np
import pytest
from pyproj import Transformer
from scipy import ndimage

from darts.demo import Landscape, generate_landscape, rasterize_truth
from darts.demo.noise import smooth_noise, smoothstep, stream
from darts_utils.errors import ConfigError
from darts_utils.sun import sun_position

SIZE = 288


@cache
def landscape(seed: int = 3) -> Landscape:
    return generate_landscape(seed, SIZE)


@cache
def large() -> Landscape:
    return generate_landscape(3, 416)


@cache
def clear() -> Landscape:
    return generate_landscape(3, 416, cloud_cover=0.0, nodata=False)


def reflectance(scene: Landscape) -> np.ndarray:
    return np.where(scene.digital_numbers == 0, np.nan, scene.digital_numbers * 1e-4 - 0.1)


def digest(scene: Landscape) -> str:
    parts = (scene.digital_numbers, scene.scl, scene.dem, scene.trend, scene.elevation, scene.truth)
    text = f"{scene.scene_id}{scene.geobox}{scene.sun_azimuth}{scene.polygons.to_wkt().to_csv()}"
    return hashlib.sha256(b"".join(part.tobytes() for part in parts) + text.encode()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    again = generate_landscape(3, SIZE)
    assert digest(again) == digest(landscape())
    assert digest(generate_landscape(4, SIZE)) != digest(again)


def test_grids_have_the_resolutions_and_systems_of_their_sources() -> None:
    scene = landscape()
    assert scene.geobox.crs.to_epsg() == 32608
    assert scene.geobox.resolution.x == 10
    assert (scene.geobox.transform.c - 399_960) % 20 == 0
    assert (7_700_040 - scene.geobox.transform.f) % 20 == 0
    assert scene.dem_geobox.crs.to_epsg() == 3413
    assert scene.dem_geobox.transform.c % 10 == 0
    assert scene.trend_geobox.crs.to_epsg() == 4326
    assert scene.trend_geobox.resolution.x == pytest.approx(0.0002695)
    assert (scene.trend_geobox.transform.c + 180) / 0.0002695 == pytest.approx(
        round((scene.trend_geobox.transform.c + 180) / 0.0002695), abs=1e-6
    )
    assert scene.digital_numbers.shape == (4, SIZE, SIZE)
    assert scene.scl.shape == scene.truth.shape == scene.elevation.shape == (SIZE, SIZE)
    assert scene.dem.shape == tuple(scene.dem_geobox.shape)
    assert scene.trend.shape[1:] == tuple(scene.trend_geobox.shape)


def test_dtypes_are_those_of_the_sources() -> None:
    scene = landscape()
    assert (scene.digital_numbers.dtype, scene.scl.dtype, scene.dem.dtype, scene.trend.dtype, scene.truth.dtype) == (
        "uint16", "uint8", "float32", "uint8", "int32",
    )  # fmt: skip


def test_digital_numbers_are_zero_exactly_where_the_class_is_no_data() -> None:
    scene = landscape()
    nothing = scene.scl == 0
    assert 0.01 < nothing.mean() < 0.3
    assert (scene.digital_numbers[:, nothing] == 0).all()
    assert (scene.digital_numbers[:, ~nothing] > 0).all()


def test_reflectance_carries_the_offset_of_baseline_05_11() -> None:
    scene = landscape()
    green_land = scene.scl == 4
    red, nir = np.nanmedian(reflectance(scene)[2:, green_land], axis=1)
    assert 0.02 < red < 0.09
    assert 0.12 < nir < 0.35


def test_scene_classes_say_what_is_there() -> None:
    scene = large()
    seen = reflectance(scene)
    assert {0, 3, 4, 5, 6, 8, 9} <= set(np.unique(scene.scl)) <= {0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
    blue, ndvi = seen[0], (seen[3] - seen[2]) / (seen[3] + seen[2])
    assert np.nanmedian(blue[scene.scl == 9]) > 0.4
    assert np.nanmedian(seen[3][scene.scl == 3]) < 0.6 * np.nanmedian(seen[3][scene.scl == 4])
    assert np.nanmedian(ndvi[scene.scl == 6]) < 0 < np.nanmedian(ndvi[scene.scl == 4])


def test_scene_classes_come_in_blocks_of_20_m() -> None:
    blocks = landscape().scl.reshape(SIZE // 2, 2, SIZE // 2, 2)
    inside = (blocks != 0).all(axis=(1, 3))
    assert (blocks.max(axis=(1, 3)) == blocks.min(axis=(1, 3)))[inside].all()


def test_a_clear_sky_has_no_clouds_and_no_swath_edge_no_gap() -> None:
    scene = clear()
    assert not np.isin(scene.scl, (0, 3, 8, 9)).any()


def test_dem_and_scene_show_the_same_relief() -> None:
    scene = landscape()
    rows, columns = np.mgrid[20 : SIZE - 20 : 7, 20 : SIZE - 20 : 7]
    x, y = scene.geobox.transform * (columns + 0.5, rows + 0.5)
    x, y = Transformer.from_crs(32608, 3413, always_xy=True).transform(x, y)
    column, row = ~scene.dem_geobox.transform * (x, y)
    dem = ndimage.map_coordinates(np.nan_to_num(scene.dem, nan=-999), (row - 0.5, column - 0.5), order=1)
    error = (dem - scene.elevation[rows, columns])[dem > -50]
    assert error.size > 0.9 * dem.size
    assert np.abs(np.median(error)) < 0.05
    assert np.percentile(np.abs(error), 95) < 0.6


def test_light_on_the_scene_follows_the_relief() -> None:
    scene = clear()
    south, east = np.gradient(ndimage.gaussian_filter(scene.elevation, 1), 10.0)
    azimuth, height = np.radians(scene.sun_azimuth), np.radians(scene.sun_elevation)
    facing = -east * np.sin(azimuth) * np.cos(height) + south * np.cos(azimuth) * np.cos(height)
    land = (scene.scl == 4) & (np.hypot(south, east) > 0.05)
    near_infrared = reflectance(scene)[3]
    assert np.corrcoef(facing[land], near_infrared[land])[0, 1] > 0.3
    away = -facing
    assert near_infrared[land & (facing > 0.08)].mean() > near_infrared[land & (away > 0.08)].mean()


def test_slumps_are_bare_hollows_whose_ground_changed() -> None:
    scene = clear()
    seen = reflectance(scene)
    ndvi = (seen[3] - seen[2]) / (seen[3] + seen[2])
    disk = np.hypot(*np.mgrid[-10:11, -10:11]) <= 10
    relative = scene.elevation - ndimage.convolve(scene.elevation, disk / disk.sum())
    slumps = scene.truth > 0
    assert np.median(ndvi[slumps]) < 0.3 < 0.5 < np.median(ndvi[~slumps])
    assert relative[slumps].mean() < -0.5
    rows, columns = np.nonzero(slumps)
    lon, lat = Transformer.from_crs(32608, 4326, always_xy=True).transform(
        *(scene.geobox.transform * (columns + 0.5, rows + 0.5))
    )
    column, row = ~scene.trend_geobox.transform * (lon, lat)
    brightness, greenness, wetness = scene.trend[:, row.astype(int), column.astype(int)].mean(axis=1)
    assert brightness > 140
    assert greenness < 116
    assert wetness < 122
    assert np.abs(np.median(scene.trend[0][scene.trend[0] > 0]) - 128) < 6


def test_outlines_and_raster_are_the_same_truth() -> None:
    scene = landscape()
    assert np.array_equal(rasterize_truth(scene.polygons, scene.truth.shape, scene.geobox.transform), scene.truth)
    assert set(scene.polygons["kind"]) <= {"slump", "stabilised"}
    assert (scene.polygons.area_m2 == scene.polygons.area).all()
    targets = scene.polygons[scene.polygons.kind == "slump"]
    assert np.allclose(targets.area_m2, [(scene.truth == number).sum() * 100 for number in targets.id])


def test_slumps_differ_in_size_and_lie_apart() -> None:
    scene = large()
    _, pieces = ndimage.label(ndimage.binary_dilation(scene.truth > 0, np.ones((3, 3))), np.ones((3, 3)))
    numbers, sizes = np.unique(scene.truth[scene.truth > 0], return_counts=True)
    assert numbers.size >= 2
    assert pieces >= numbers.size
    assert sizes.max() > 1.5 * sizes.min()


def test_id_time_and_sun_belong_together() -> None:
    scene = landscape()
    assert scene.scene_id.startswith(f"S2{scene.scene_id[2]}_MSIL2A_{scene.acquisition_time:%Y%m%dT%H%M%S}_N0511_")
    assert scene.scene_id.split("_")[5] == "T08WMB"
    lon, lat = Transformer.from_crs(32608, 4326, always_xy=True).transform(
        *(scene.geobox.transform * (SIZE / 2, SIZE / 2))
    )
    assert sun_position(lon, lat, scene.acquisition_time) == pytest.approx((scene.sun_azimuth, scene.sun_elevation))


@pytest.mark.parametrize("arguments", [{"size": 64}, {"size": 20_000}, {"cloud_cover": 1.5}])
def test_impossible_arguments_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        generate_landscape(1, **arguments)


def test_the_smallest_landscape_works() -> None:
    scene = generate_landscape(11, 128)
    assert scene.truth.shape == (128, 128)


def test_noise_has_mean_zero_and_deviation_one_at_any_scale() -> None:
    for cell in (4, 20):
        noise = smooth_noise(stream(1, "test"), (400, 500), cell, octaves=3)
        assert noise.dtype == np.float32
        assert abs(noise.mean()) < 0.2
        assert 0.8 < noise.std() < 1.2


def test_smoothstep_runs_from_zero_to_one() -> None:
    assert smoothstep(np.array([-1.0, 0.0, 0.5, 1.0, 2.0]), 0.0, 1.0).tolist() == [0, 0, 0.5, 1, 1]
