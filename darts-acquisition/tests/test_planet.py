import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine

import darts_acquisition as da
from darts_acquisition.planet import planet_geobox
from darts_utils.errors import ConfigError, GridMismatchError, MissingDataError, StoreError

TRANSFORM = Affine(3, 0, 500_001.5, 0, -3, 7_700_000)
SCENE = "20220125_075650_17_1061"
ORTHOTILE = "4372514_5937412_2021-07-19_2414"
SHAPE = (17, 29)


def _tif(path: Path, values: np.ndarray, transform=TRANSFORM, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype}
    with rasterio.open(path, "w", crs="EPSG:32608", transform=transform, **profile, **options) as target:
        target.write(values)
    return path


def _dn(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    dn = rng.integers(1, 7000, (count, *SHAPE)).astype("uint16")
    dn[:, :3] = 0
    dn[0, 5, 5] = dn[-1, 6, 6] = 0
    return dn


def _udm2() -> np.ndarray:
    rng = np.random.default_rng(5)
    udm2 = (rng.random((8, *SHAPE)) < 0.15).astype("uint8")
    udm2[6] = rng.integers(0, 101, SHAPE)
    udm2[7] = np.where(rng.random(SHAPE) < 0.3, rng.integers(0, 64, SHAPE), 0)
    return udm2


def _folder(
    root: Path, name=SCENE, sr="_3B_AnalyticMS_SR_clip.tif", bands=4, udm2="_3B_udm2_clip.tif", metadata=None
) -> Path:
    folder = root / name
    _tif(folder / f"{name}{sr}", _dn(bands))
    if udm2:
        _tif(folder / f"{name}{udm2}", _udm2())
    if metadata is not None:
        (folder / f"{name}_metadata.json").write_text(json.dumps(metadata))
    return folder


@pytest.mark.parametrize("name", [SCENE, "20170831_172754_101c", ORTHOTILE])
@pytest.mark.parametrize(
    ("sr", "bands", "udm2"),
    [
        ("_3B_AnalyticMS_SR.tif", 4, "_3B_udm2.tif"),
        ("_3B_AnalyticMS_SR_clip.tif", 4, "_3B_udm2_clip.tif"),
        ("_3B_AnalyticMS_SR_harmonized_clip.tif", 4, "_3B_udm2_clip.tif"),
        ("_3B_AnalyticMS_SR_8b.tif", 8, "_3B_udm2.tif"),
        ("_3B_AnalyticMS_SR_8b_clip.tif", 8, "_3B_udm2_clip.tif"),
        ("_3B_AnalyticMS_SR_8b_harmonized.tif", 8, "_3B_udm2.tif"),
        ("_3B_AnalyticMS_SR_8b_harmonized_clip.tif", 8, "_3B_udm2_clip.tif"),
        ("_BGRN_SR.tif", 4, "_udm2.tif"),
        ("_BGRN_SR_clip.tif", 4, "_BGRN_udm2_clip.tif"),
    ],
)
def test_every_variant_of_names_loads_blue_green_red_nir(tmp_path, name, sr, bands, udm2):
    folder = _folder(tmp_path, name, sr, bands, udm2, {"sun_azimuth": 123.4, "sun_elevation": 23})
    tile = da.load_planet_scene(folder)
    dn = _dn(bands)[[0, 1, 2, 3] if bands == 4 else [1, 3, 5, 7]]
    missing = (dn == 0).all(axis=0)
    for index, band in enumerate(("blue", "green", "red", "nir")):
        assert tile[band].dtype == np.float32
        np.testing.assert_allclose(tile[band], np.where(missing, np.nan, dn[index] / 1e4), atol=1e-7)
    assert tile.odc.geobox.affine == TRANSFORM
    assert tile.odc.geobox.crs.epsg == 32608
    assert (tile.attrs["azimuth"], tile.attrs["elevation"]) == (123.4, 23)
    assert tile.attrs["tile_id"] == tile.attrs["image_id"] == name
    assert tile.attrs["sensor"] == "PlanetScope"


def test_masks_follow_udm2_and_are_invalid_where_reflectance_is_missing(tmp_path):
    masks = da.load_planet_masks(_folder(tmp_path))
    udm2, missing = _udm2(), (_dn(4) == 0).all(axis=0)
    for y, x in np.ndindex(*SHAPE):
        bands = [int(value) for value in udm2[:, y, x]]
        unusable = any(bands[7] >> bit & 1 for bit in (0, 2, 3, 4, 5))
        low = any(bands[1:6])
        assert masks["quality_data_mask"].values[y, x] == (0 if unusable or missing[y, x] else 1 if low else 2)
        packed = sum((bands[k - 1] != 0) << (k - 1) for k in range(1, 7)) + 128 * unusable
        assert masks["planet_udm"].values[y, x] == packed
    assert masks["quality_data_mask"].dtype == masks["planet_udm"].dtype == np.uint8
    assert masks.attrs["quality_source"] == "UDM2"


def test_without_udm2_quality_comes_from_valid_pixels_and_says_so(tmp_path):
    folder = _folder(tmp_path, udm2=None)
    masks = da.load_planet_masks(folder)
    assert list(masks.data_vars) == ["quality_data_mask"]
    np.testing.assert_array_equal(masks["quality_data_mask"], np.where((_dn(4) == 0).all(axis=0), 0, 2))
    assert masks.attrs["quality_source"] == da.load_planet_scene(folder).attrs["quality_source"] == "valid pixels"


def test_scene_and_masks_share_their_grid(tmp_path):
    folder = _folder(tmp_path)
    assert da.load_planet_scene(folder).odc.geobox == da.load_planet_masks(folder).odc.geobox


def test_the_time_comes_from_the_metadata_else_from_the_name(tmp_path):
    nested = {"properties": {"acquired": "2021-07-19T20:01:02.5Z", "sun_azimuth": 1, "sun_elevation": 2}}
    with_time = da.load_planet_scene(_folder(tmp_path / "a", ORTHOTILE, metadata=nested))
    assert with_time.attrs["acquisition_time"] == "2021-07-19T20:01:02.500Z"
    assert with_time.attrs["azimuth"] == 1
    bare = da.load_planet_scene(_folder(tmp_path / "b", ORTHOTILE))
    assert bare.attrs["acquisition_time"] == "2021-07-19"
    assert not {"azimuth", "elevation"} & set(bare.attrs)
    assert da.load_planet_scene(_folder(tmp_path)).attrs["acquisition_time"] == "2022-01-25T07:56:50Z"


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"sun_azimuth": "south"}', '{"sun_azimuth": 400}', '{"acquired": "?"}']
)
def test_damaged_metadata_are_an_error_that_names_the_file(tmp_path, content):
    folder = _folder(tmp_path)
    (folder / "x_metadata.json").write_text(content)
    with pytest.raises(StoreError, match=r"x_metadata\.json"):
        da.load_planet_scene(folder)


def test_metadata_without_sun_angles_leave_them_unknown(tmp_path):
    folder = _folder(tmp_path)
    (folder / "x_metadata.json").write_text('{"sun_azimuth": null, "sun_elevation": NaN}')
    assert not {"azimuth", "elevation"} & set(da.load_planet_scene(folder).attrs)


def test_two_metadata_files_must_agree(tmp_path):
    folder = _folder(tmp_path, metadata={"sun_azimuth": 10.0})
    (folder / "x_metadata.json").write_text('{"sun_azimuth": 11.0}')
    with pytest.raises(StoreError, match="azimuth"):
        da.load_planet_scene(folder)


def test_two_reflectance_files_are_an_error_that_names_both(tmp_path):
    folder = _folder(tmp_path)
    _tif(folder / f"{SCENE}_3B_AnalyticMS_SR_8b.tif", _dn(8))
    for load in (da.load_planet_scene, da.load_planet_masks):
        with pytest.raises(StoreError, match=r"AnalyticMS_SR_8b\.tif and .*AnalyticMS_SR_clip\.tif"):
            load(folder)


def test_the_mask_that_is_clipped_like_the_reflectance_is_taken(tmp_path):
    folder = _folder(tmp_path)
    _tif(folder / f"{SCENE}_3B_udm2.tif", np.zeros((8, 40, 40), "uint8"))
    assert da.load_planet_masks(folder)["quality_data_mask"].shape == SHAPE


def test_a_mask_on_another_grid_is_an_error_that_names_both(tmp_path):
    folder = _folder(tmp_path, udm2=None)
    _tif(folder / f"{SCENE}_udm2_clip.tif", np.zeros((8, 40, 40), "uint8"))
    with pytest.raises(GridMismatchError, match=r"(?s)SR_clip\.tif.*udm2_clip\.tif"):
        da.load_planet_masks(folder)


def test_bands_that_are_not_planets_are_refused(tmp_path):
    with pytest.raises(StoreError, match="5 bands"):
        da.load_planet_scene(_folder(tmp_path / "five", bands=5))
    with pytest.raises(StoreError, match="4 bands; expected 8"):
        da.load_planet_scene(_folder(tmp_path / "four", sr="_SR_8b.tif", bands=4))
    folder = tmp_path / SCENE
    _tif(folder / "x_SR.tif", _dn(4).astype("float32"))
    with pytest.raises(StoreError, match="float32"):
        da.load_planet_scene(folder)
    (folder / "x_SR.tif").unlink()
    _tif(folder / "x_SR.tif", _dn(4))
    _tif(folder / "x_udm2.tif", np.zeros((1, *SHAPE), "uint8"))
    with pytest.raises(StoreError, match=r"x_udm2\.tif"):
        da.load_planet_masks(folder)


def test_a_truncated_file_is_an_error_that_names_it(tmp_path):
    folder = tmp_path / SCENE
    values = np.random.default_rng(0).integers(1, 9999, (4, 200, 200)).astype("uint16")
    path = _tif(folder / "x_SR.tif", values, compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    with pytest.raises(StoreError, match=r"x_SR\.tif"):
        da.load_planet_scene(folder)


def test_a_folder_without_reflectance_says_what_to_order(tmp_path):
    (tmp_path / SCENE).mkdir()
    with pytest.raises(MissingDataError, match="surface reflectance"):
        da.load_planet_scene(tmp_path / SCENE)
    with pytest.raises(MissingDataError, match="20220125_075651_1061"):
        da.load_planet_scene(tmp_path / "20220125_075651_1061")


def test_the_grid_is_told_without_pixels(tmp_path):
    folder = _folder(tmp_path)
    assert planet_geobox(folder) == da.load_planet_scene(folder).odc.geobox
    with pytest.raises(MissingDataError, match="20220125_075651_1061"):
        planet_geobox(tmp_path / "20220125_075651_1061")


def test_a_grid_without_crs_names_the_file(tmp_path):
    folder = tmp_path / SCENE
    folder.mkdir()
    with rasterio.open(folder / "x_SR.tif", "w", driver="GTiff", count=4, height=5, width=5, dtype="uint16") as file:
        file.write(np.ones((4, 5, 5), "uint16"))
    with pytest.raises(ConfigError, match=r"x_SR\.tif has no CRS"):
        planet_geobox(folder)


ITEM = Path(__file__).parents[3] / "shared/data/planet/metadata/data_item_20220125_075650_17_1061.json"


@pytest.mark.skipif(not ITEM.is_file(), reason="the shared sample data do not lie beside the checkout")
def test_the_metadata_of_a_real_item_give_sun_and_time(tmp_path):
    folder = _folder(tmp_path)
    shutil.copy(ITEM, folder / f"{SCENE}_metadata.json")
    attrs = da.load_planet_scene(folder).attrs
    assert (attrs["azimuth"], attrs["elevation"]) == (140.2, 62.5)
    assert attrs["acquisition_time"] == "2022-01-25T07:56:50.176Z"


@pytest.mark.parametrize(
    "metadata",
    [
        {"id": "b0cb3448", "state": "success", "products": [{"item_ids": [SCENE], "item_type": "PSScene"}]},
        {"type": "Feature", "properties": None},
        {"properties": {"sun_azimuth": None}},
    ],
)
def test_metadata_that_say_nothing_of_the_sun_leave_it_unknown(tmp_path, metadata):
    attrs = da.load_planet_scene(_folder(tmp_path, ORTHOTILE, "_BGRN_SR.tif", 4, "_udm2.tif", metadata)).attrs
    assert not {"azimuth", "elevation"} & set(attrs)
    assert attrs["acquisition_time"] == "2021-07-19"


def test_what_macos_leaves_beside_files_is_not_taken_for_them(tmp_path):
    folder = _folder(tmp_path, metadata={"sun_azimuth": 10.0, "sun_elevation": 20})
    for file in list(folder.iterdir()):
        (folder / f"._{file.name}").write_bytes(b"\0\5\x16\7 no raster, no JSON")
    assert da.load_planet_scene(folder).attrs["azimuth"] == 10
    assert da.load_planet_masks(folder).attrs["quality_source"] == "UDM2"
