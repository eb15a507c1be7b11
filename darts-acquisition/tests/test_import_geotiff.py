from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine

import darts_acquisition as da
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError, MissingDataError, StoreError

TRANSFORM = Affine(10, 0, 470890.0, 0, -10, 7_550_020.0)
TIME = "2021-08-21T21:00:19Z"
CLIPS = Path(__file__).parents[3] / "shared" / "data" / "s2" / "rts_sites"
PEEL = CLIPS / "S2_20210821T210019_20210821T210020_T08WMA.tif"


def _write(path: Path, values: np.ndarray, transform=TRANSFORM, crs="EPSG:32608", nodata=None, **options) -> Path:
    values = values if values.ndim == 3 else values[None]
    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype, **options}
    with rasterio.open(path, "w", crs=crs, transform=transform, nodata=nodata, **profile) as target:
        target.write(values)
    return path


@pytest.fixture
def dn() -> np.ndarray:
    rng = np.random.default_rng(3)
    values = rng.integers(1, 10000, (4, 19, 23)).astype("uint16")
    values[:, :2] = 0
    return values


@pytest.fixture
def clip(tmp_path, dn) -> Path:
    return _write(tmp_path / "clip.tif", dn)


def _stored(store, scene_id="clip", band="blue") -> np.ndarray:
    return np.concatenate([values for _, values in da.open_scene(store, da.IMPORT, scene_id).strips(band)])


@pytest.mark.parametrize(
    ("time", "options", "told"),
    [
        ("2023-07-21T21:00:19Z", {}, True),
        ("2023-07-21T21:00:19Z", {"offset": -0.1}, False),
        ("2023-07-21T21:00:19Z", {"offset": 0}, False),
        ("2023-07-21T21:00:19Z", {"sensor": "drone"}, False),
        ("2022-01-24T23:59:59Z", {}, False),
    ],
)
def test_an_offset_that_is_likely_and_not_given_is_told(tmp_path, clip, dn, caplog, time, options, told):
    da.import_scene(clip, tmp_path / "store", acquisition_time=time, **options)
    assert ("clip: Level-2A of 2023 is stored as reflectance + 0.1" in caplog.text) == told
    tile = da.load_imported_scene("clip", tmp_path / "store", device="cpu")
    np.testing.assert_allclose(tile["red"][5], dn[2, 5] * 1e-4 + options.get("offset", 0), atol=1e-6)


def test_bytes_are_refused_unless_their_scale_is_given(tmp_path):
    picture = _write(tmp_path / "picture.tif", np.full((4, 5, 6), 200, "uint8"))
    with pytest.raises(ConfigError, match=r"picture\.tif, band 1 holds bytes.*give the scale"):
        da.import_scene(picture, tmp_path / "store", acquisition_time=TIME)
    da.import_scene(picture, tmp_path / "store", acquisition_time=TIME, scale=0.004)
    tile = da.load_imported_scene("picture", tmp_path / "store", device="cpu")
    np.testing.assert_allclose(tile["red"], 0.8, atol=1e-6)


def test_a_crs_whose_metres_are_none_is_refused(tmp_path, dn):
    x, y = -15_250_000, 10_760_000  # Peel, 67 N
    mercator = _write(tmp_path / "web.tif", dn, Affine(26, 0, x, 0, -26, y), "EPSG:3857")
    with pytest.raises(ConfigError, match=r"web\.tif: 2\.\d m of its CRS \(EPSG:3857\) are 1 m on the ground.*UTM"):
        da.import_scene(mercator, tmp_path / "store", acquisition_time=TIME)
    polar = _write(tmp_path / "polar.tif", dn, Affine(10, 0, -2_000_000, 0, -10, -3_500_000), "EPSG:3413")  # 54 N
    da.import_scene(polar, tmp_path / "store", acquisition_time=TIME)


def test_digital_numbers_are_stored_as_delivered(tmp_path, clip, dn):
    path = da.import_scene(clip, tmp_path / "store", acquisition_time=TIME, sun_azimuth=170.0, sun_elevation=33.5)
    assert path == da.scene_path(tmp_path / "store", da.IMPORT, "clip")
    for index, band in enumerate(("blue", "green", "red", "nir")):
        np.testing.assert_array_equal(_stored(tmp_path / "store", band=band), dn[index])
    tile = da.load_imported_scene("clip", tmp_path / "store", device="cpu")
    np.testing.assert_allclose(tile["nir"], np.where(dn[3] == 0, np.nan, dn[3] * 1e-4), atol=1e-7)
    assert tile.odc.geobox.affine == TRANSFORM
    assert tile.attrs == {
        "azimuth": 170.0,
        "elevation": 33.5,
        "tile_id": "clip",
        "image_id": "clip",
        "sensor": "Sentinel-2",
        "acquisition_time": TIME,
        "quality_source": "valid pixels",
    }
    assert "s2_scl" not in tile
    np.testing.assert_array_equal(tile["quality_data_mask"], np.where((dn == 0).any(axis=0), 0, 2))


def test_unknown_sun_angles_stay_unknown(tmp_path, clip):
    da.import_scene(clip, tmp_path / "store", acquisition_time=TIME)
    attrs = da.load_imported_scene("clip", tmp_path / "store", device="cpu").attrs
    assert not {"azimuth", "elevation"} & set(attrs)


def test_bands_are_named_by_number_or_in_order_over_all_files(tmp_path, dn):
    files = [_write(tmp_path / "a.tif", dn[:3]), _write(tmp_path / "b.tif", dn[3:])]
    wanted = {"by-number": {"red": 1, "blue": 4}, "in-order": ["red", "green", "nir", "blue"]}
    for scene_id, bands in wanted.items():
        da.import_scene(files, tmp_path / "store", scene_id, bands=bands, acquisition_time=TIME)
        np.testing.assert_array_equal(_stored(tmp_path / "store", scene_id, "red"), dn[0])
        np.testing.assert_array_equal(_stored(tmp_path / "store", scene_id, "blue"), dn[3])
        assert sorted(da.open_scene(tmp_path / "store", da.IMPORT, scene_id).bands) == sorted(bands)


def test_another_nodata_becomes_zero_and_a_zero_that_is_a_value_becomes_one(tmp_path):
    values = np.array([[[0, 1, 65535, 9, 7]]], "uint16")
    _write(tmp_path / "clip.tif", values, nodata=65535)
    da.import_scene(tmp_path / "clip.tif", tmp_path / "store", bands=["blue"], nodata=7, acquisition_time=TIME)
    assert _stored(tmp_path / "store").tolist() == [[1, 1, 0, 9, 0]]


def test_by_default_zero_is_nodata_beside_what_the_file_declares(tmp_path):
    _write(tmp_path / "clip.tif", np.array([[[0, 1, 65535]]], "uint16"), nodata=65535)
    da.import_scene(tmp_path / "clip.tif", tmp_path / "store", bands=["blue"], acquisition_time=TIME)
    assert _stored(tmp_path / "store").tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("declared", [None, np.nan, -3.4028234663852886e38, -9999.0, -np.inf])
def test_float_reflectance_is_stored_in_steps_of_a_ten_thousandth(tmp_path, declared):
    gap = np.nan if declared is None else declared
    values = np.array([[0.1234, -0.05, 0.5, -0.3, 9.0, gap, np.inf]], "float32")
    _write(tmp_path / "clip.tif", values, nodata=declared)
    da.import_scene(tmp_path / "clip.tif", tmp_path / "store", bands=["blue"], nodata=None, acquisition_time=TIME)
    assert _stored(tmp_path / "store").tolist() == [[2234, 500, 6000, 1, 65535, 0, 0]]
    tile = da.load_imported_scene("clip", tmp_path / "store", {"blue": "blue"}, device="cpu")
    expected = [0.1234, -0.05, 0.5, -0.0999, 6.4535, np.nan, np.nan]
    np.testing.assert_allclose(tile["blue"].values[0], expected, atol=1e-6)


def test_signed_digital_numbers_keep_their_negative_values(tmp_path):
    _write(tmp_path / "clip.tif", np.array([[-200, 0, 1500, -9999]], "int16"), nodata=-9999)
    da.import_scene(tmp_path / "clip.tif", tmp_path / "store", bands=["blue"], nodata=None, acquisition_time=TIME)
    tile = da.load_imported_scene("clip", tmp_path / "store", {"blue": "blue"}, device="cpu")
    np.testing.assert_allclose(tile["blue"].values[0], [-0.02, 0, 0.15, np.nan], atol=1e-6)


def test_floats_that_are_digital_numbers_are_refused_until_the_scale_is_given(tmp_path, dn):
    clip = _write(tmp_path / "clip.tif", dn.astype("float32"))
    with pytest.raises(ConfigError, match=r"clip\.tif.*scale"):
        da.import_scene(clip, tmp_path / "store", acquisition_time=TIME)
    assert not da.scene_exists(tmp_path / "store", da.IMPORT, "clip")
    da.import_scene(clip, tmp_path / "store", acquisition_time=TIME, scale=1e-4)
    tile = da.load_imported_scene("clip", tmp_path / "store", device="cpu")
    np.testing.assert_allclose(tile["red"], np.where(dn[2] == 0, np.nan, dn[2] * 1e-4), atol=1e-6)


@pytest.mark.parametrize("as_band", [True, False])
def test_the_scene_classification_comes_from_a_band_or_a_file(tmp_path, dn, as_band):
    scl = np.random.default_rng(1).integers(0, 12, dn.shape[1:]).astype("uint8")
    if as_band:
        clip = _write(tmp_path / "clip.tif", np.concatenate([dn, scl[None].astype("uint16")]))
        source, bands = 5, {"blue": 1, "green": 2, "red": 3, "nir": 4}
    else:
        clip, source = _write(tmp_path / "clip.tif", dn), _write(tmp_path / "scl.tif", scl)
        bands = ["blue", "green", "red", "nir"]
    da.import_scene(clip, tmp_path / "store", bands=bands, scl=source, acquisition_time=TIME)
    tile = da.load_imported_scene("clip", tmp_path / "store", device="cpu")
    np.testing.assert_array_equal(tile["s2_scl"], scl)
    assert tile.attrs["quality_source"] == "SCL"


def test_a_coarser_scene_classification_is_repeated(tmp_path, clip):
    coarse = np.random.default_rng(1).integers(0, 12, (10, 12)).astype("uint8")
    scl = _write(tmp_path / "scl.tif", coarse, transform=TRANSFORM * Affine.scale(2))
    da.import_scene(clip, tmp_path / "store", scl=scl, acquisition_time=TIME)
    expected = np.kron(coarse, np.ones((2, 2), "uint8"))[:19, :23]
    np.testing.assert_array_equal(_stored(tmp_path / "store", band="scl"), expected)


@pytest.mark.parametrize(
    ("shape", "transform"),
    [
        ((9, 12), TRANSFORM * Affine.scale(2)),
        ((10, 12), TRANSFORM * Affine.scale(2) * Affine.translation(1, 0)),
        ((20, 24), TRANSFORM * Affine.scale(1.5)),
    ],
)
def test_a_scene_classification_that_does_not_fit_is_refused(tmp_path, clip, shape, transform):
    scl = _write(tmp_path / "scl.tif", np.ones(shape, "uint8"), transform=transform)
    with pytest.raises(GridMismatchError, match=r"scl\.tif"):
        da.import_scene(clip, tmp_path / "store", scl=scl, acquisition_time=TIME)


def test_what_is_no_scene_classification_is_refused(tmp_path, clip):
    with pytest.raises(ConfigError, match="4 bands"):
        da.import_scene(clip, tmp_path / "store", scl=clip, acquisition_time=TIME)
    with pytest.raises(ConfigError, match="classification"):
        da.import_scene(clip, tmp_path / "store", scl=1, acquisition_time=TIME)
    assert not da.scene_exists(tmp_path / "store", da.IMPORT, "clip")


@pytest.mark.parametrize(
    "other",
    [
        {"transform": TRANSFORM * Affine.translation(1, 0)},
        {"crs": "EPSG:32609"},
        {"values": np.ones((1, 19, 24), "uint16")},
    ],
    ids=["shifted", "another zone", "larger"],
)
def test_files_on_two_grids_are_refused_and_both_are_named(tmp_path, dn, other):
    files = [_write(tmp_path / "first.tif", dn[:1])]
    files.append(_write(tmp_path / "second.tif", **({"values": dn[1:2]} | other)))
    with pytest.raises(GridMismatchError, match=r"(?s)first\.tif.*second\.tif"):
        da.import_scene(files, tmp_path / "store", "both", bands=["blue", "green"], acquisition_time=TIME)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"crs": None}, "no CRS"),
        ({"crs": "EPSG:4326", "transform": Affine(1e-4, 0, -132, 0, -1e-4, 69)}, "metres"),
        ({"crs": "EPSG:2277"}, "metres"),
        ({"transform": TRANSFORM * Affine.rotation(20)}, "rotated"),
        ({"transform": Affine(10, 0, 0, 0, 10, 0)}, "north-up"),
    ],
)
def test_a_grid_that_cannot_serve_is_refused(tmp_path, dn, wrong, word):
    clip = _write(tmp_path / "clip.tif", dn, **wrong)
    with pytest.raises(ConfigError, match=rf"clip\.tif.*{word}"):
        da.import_scene(clip, tmp_path / "store", acquisition_time=TIME)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bands": ["blue", "green", "red"]},
        {"bands": "bgrn"},
        {"bands": ["-", "-", "-", None]},
        {"bands": ["blue", "blue", "red", "nir"]},
        {"bands": {"blue": 0}},
        {"bands": {"blue": 5}},
        {"bands": {"blue": True}},
        {"bands": {"slope": 1}},
        {"bands": {"azure": 1}},
        {"scene_id": "../up"},
        {"scene_id": ""},
        {"scale": 0},
        {"scale": float("nan")},
        {"offset": float("inf")},
        {"sun_azimuth": 400},
        {"sun_elevation": "high"},
        {"acquisition_time": "2021-08-21"},
        {"acquisition_time": "today"},
        {"scl": 5},
    ],
)
def test_parameters_that_cannot_work_are_refused_and_nothing_is_written(tmp_path, clip, wrong):
    with pytest.raises((ConfigError, MissingBandError)):
        da.import_scene(clip, tmp_path / "store", **({"acquisition_time": TIME} | wrong))
    assert not (tmp_path / "store").exists()


def test_several_files_need_an_id_and_no_file_is_no_scene(tmp_path, clip):
    with pytest.raises(ConfigError, match="scene_id"):
        da.import_scene([clip, clip], tmp_path / "store", acquisition_time=TIME)
    with pytest.raises(ConfigError, match="no files"):
        da.import_scene([], tmp_path / "store", acquisition_time=TIME)
    with pytest.raises(MissingDataError, match="none"):
        da.import_scene(tmp_path / "none.tif", tmp_path / "store", acquisition_time=TIME)


def test_a_file_that_is_no_raster_or_is_cut_short_is_refused(tmp_path, clip):
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(StoreError, match=r"text\.tif"):
        da.import_scene(tmp_path / "text.tif", tmp_path / "store", acquisition_time=TIME)
    big = np.random.default_rng(0).integers(1, 9999, (4, 300, 300)).astype("uint16")
    cut = _write(tmp_path / "cut.tif", big, compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    cut.write_bytes(cut.read_bytes()[: int(cut.stat().st_size * 0.6)])
    with pytest.raises(StoreError, match=r"cut\.tif"):
        da.import_scene(cut, tmp_path / "store", acquisition_time=TIME)
    assert not da.scene_exists(tmp_path / "store", da.IMPORT, "cut")


def test_a_truncated_jpeg_2000_is_an_error_and_no_zeros(tmp_path):
    values = np.random.default_rng(0).integers(1, 9999, (1, 600, 600)).astype("uint16")
    options = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", "blockxsize": 128, "blockysize": 128}
    path = _write(tmp_path / "whole.jp2", values, **options)
    da.import_scene(path, tmp_path / "store", bands=["blue"], acquisition_time=TIME)
    np.testing.assert_array_equal(_stored(tmp_path / "store", "whole"), values[0])
    cut = tmp_path / "cut.jp2"
    cut.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    with pytest.raises(StoreError, match=r"cut\.jp2"):
        da.import_scene(cut, tmp_path / "store", bands=["blue"], acquisition_time=TIME)


def test_a_scene_is_replaced_only_when_asked(tmp_path, clip):
    da.import_scene(clip, tmp_path / "store", acquisition_time=TIME)
    with pytest.raises(ConfigError, match="overwrite"):
        da.import_scene(clip, tmp_path / "store", acquisition_time=TIME)
    da.import_scene(clip, tmp_path / "store", acquisition_time=TIME, overwrite=True)


@pytest.mark.skipif(not PEEL.is_file(), reason=f"the real Sentinel-2 clips are not at {CLIPS}")
def test_the_real_peel_clip_becomes_a_tile(tmp_path):
    da.import_scene(
        PEEL, tmp_path, "peel", bands={"blue": 1, "green": 2, "red": 3, "nir": 7}, acquisition_time="2021-08-21T21:00Z"
    )
    tile = da.load_imported_scene("peel", tmp_path, device="cpu")
    with rasterio.open(PEEL) as source:
        assert tile.odc.geobox.affine == source.transform
        assert tile.odc.geobox.crs.epsg == source.crs.to_epsg()
        for number, band in ((1, "blue"), (2, "green"), (3, "red"), (7, "nir")):
            raw = source.read(number)
            np.testing.assert_allclose(tile[band], np.where(raw == 0, np.nan, raw * 1e-4), atol=1e-6)
    ndvi = ((tile.nir - tile.red) / (tile.nir + tile.red)).median()
    assert 0.4 < ndvi < 0.7, "tundra in August"
    with pytest.raises(ConfigError, match="7 bands"):
        da.import_scene(PEEL, tmp_path, "guess", acquisition_time=TIME)
