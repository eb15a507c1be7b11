import dataclasses
import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from odc.geo.geobox import GeoBox
from rasterio import Affine

import darts_acquisition as da
from darts_acquisition.cdse import load_cdse_s2_sr_scene
from darts_utils.errors import ConfigError, MissingBandError, MissingDataError, StoreError

QUALITY = {0: 0, 1: 0, 2: 2, 3: 1, 4: 2, 5: 2, 6: 2, 7: 2, 8: 1, 9: 1, 10: 2, 11: 1, 12: 0, 13: 0}
GEE_ID = "20230701T194909_20230701T195350_T11XNA"


def test_a_scene_becomes_the_tile_of_the_contract(store, cdse_id, scene_dn, geobox):
    tile = da.load_cdse_s2_sr_scene(cdse_id, store=store, offline=True, device="cpu")
    assert tile.odc.geobox == geobox
    assert dict(tile.sizes) == {"y": 37, "x": 53}
    assert tile.attrs == {
        "azimuth": 181.5,
        "elevation": 10.0,
        "tile_id": cdse_id,
        "image_id": cdse_id,
        "sensor": "Sentinel-2",
        "acquisition_time": "2024-11-07T11:33:11.024Z",
        "quality_source": "SCL",
    }
    assert list(tile.data_vars) == ["blue", "green", "red", "nir", "s2_scl", "quality_data_mask"]
    for asset, name in da.CDSE_BANDS.items():
        dn = scene_dn[asset].to_numpy().astype("float64")
        expected = np.where(dn == 0, np.nan, dn * 1e-4 - 0.1)
        assert tile[name].dtype == np.float32
        np.testing.assert_allclose(tile[name], expected, atol=1e-7)
        assert {"long_name", "units", "data_source"} <= set(tile[name].attrs)


def test_quality_follows_the_class_and_is_zero_where_a_band_is_missing(store, cdse_id, scene_dn):
    tile = da.load_cdse_s2_sr_scene(cdse_id, store=store, device="cpu")
    for y, x in np.ndindex(37, 53):
        missing = any(scene_dn[asset].values[y, x] == 0 for asset in da.CDSE_BANDS)
        expected = 0 if missing else QUALITY[int(scene_dn["SCL_20m"].values[y, x])]
        assert tile["quality_data_mask"].values[y, x] == expected
    np.testing.assert_array_equal(tile["s2_scl"], scene_dn["SCL_20m"])


def test_data_on_disk_load_online_and_offline_alike_and_an_item_serves_as_its_id(store, cdse_id):
    offline = da.load_cdse_s2_sr_scene(cdse_id, store=store, offline=True, device="cpu")
    online = da.load_cdse_s2_sr_scene(SimpleNamespace(id=cdse_id), store=store, offline=False, device="cpu")
    assert online.identical(offline)


@pytest.mark.parametrize(
    ("scene_id", "baseline", "offset"),
    [
        ("S2A_MSIL2A_20241107T113311_N0511_R080_T32VKR_20241107T123948", None, -0.1),
        ("S2A_MSIL2A_20200301T090901_N0500_R050_T35UPU_20230630T033416", None, -0.1),
        ("S2A_MSIL2A_20200301T090901_N0214_R050_T35UPU_20200301T123416", None, 0.0),
        ("S2A_MSIL2A_20220124T090901_N0400_R050_T35UPU_20220124T123416", None, -0.1),
        ("S2A_MSIL2A_20230301T090901_N0301_R050_T35UPU_20230301T123416", None, 0.0),
        ("a-name-without-baseline", "03.01", 0.0),
        ("a-name-without-baseline", "05.10", -0.1),
    ],
)
def test_without_stored_scale_the_baseline_decides_not_the_date(tmp_path, scene_dn, scene_id, baseline, offset):
    da.write_scene(tmp_path, da.CDSE, scene_id, scene_dn, datetime=None, processing_baseline=baseline)
    tile = da.load_cdse_s2_sr_scene(scene_id, store=tmp_path, offline=True, device="cpu")
    dn = scene_dn["B02_10m"].to_numpy().astype("float64")
    np.testing.assert_allclose(tile["blue"], np.where(dn == 0, np.nan, dn * 1e-4 + offset), atol=1e-7)


def test_stored_scale_and_offset_win_over_the_baseline(tmp_path, scene_dn, cdse_id):
    da.write_scene(tmp_path, da.CDSE, cdse_id, scene_dn, datetime=None, scale=2e-4, offset=0.05)
    tile = da.load_cdse_s2_sr_scene(cdse_id, store=tmp_path, offline=True, device="cpu")
    dn = scene_dn["B08_10m"].to_numpy().astype("float64")
    np.testing.assert_allclose(tile["nir"], np.where(dn == 0, np.nan, dn * 2e-4 + 0.05), atol=2e-7)


def test_a_store_with_neither_scale_nor_baseline_is_refused(tmp_path, scene_dn):
    da.write_scene(tmp_path, da.CDSE, "some-scene", scene_dn, datetime=None)
    with pytest.raises(StoreError, match="baseline"):
        da.load_cdse_s2_sr_scene("some-scene", store=tmp_path, device="cpu")


def test_half_a_scaling_in_the_store_is_refused(store, cdse_id):
    array = zarr.open_array(store / f"cdse-s2-sr-scene-{cdse_id}.zarr" / "B02_10m", mode="r+")
    array.update_attributes({"offset": None})
    with pytest.raises(StoreError, match="B02_10m"):
        da.load_cdse_s2_sr_scene(cdse_id, store=store, device="cpu")


def test_what_the_store_does_not_know_is_absent_or_read_off_the_id(tmp_path, cdse_id, scene_dn):
    da.write_scene(tmp_path, da.CDSE, cdse_id, scene_dn, datetime=None)
    attrs = da.load_cdse_s2_sr_scene(cdse_id, store=tmp_path, device="cpu").attrs
    assert "azimuth" not in attrs
    assert "elevation" not in attrs
    assert attrs["acquisition_time"] == "2024-11-07T11:33:11Z"


@pytest.mark.parametrize("name", [GEE_ID, f"COPERNICUS/S2_SR_HARMONIZED/{GEE_ID}"])
def test_a_harmonised_scene_of_earth_engine_has_no_offset(tmp_path, scene_dn, name):
    names = dict(zip(scene_dn.data_vars, ["B2", "B3", "B4", "B8", "SCL"], strict=True))
    da.write_scene(tmp_path, da.GEE, GEE_ID, scene_dn.rename(names), datetime=None, processing_baseline="05.09")
    tile = da.load_gee_s2_sr_scene(name, store=tmp_path, offline=True, device="cpu")
    dn = scene_dn["B04_10m"].to_numpy().astype("float64")
    np.testing.assert_allclose(tile["red"], np.where(dn == 0, np.nan, dn * 1e-4), atol=1e-7)
    assert tile.attrs["acquisition_time"] == "2023-07-01T19:49:09Z"


def test_other_bands_load_by_their_common_names(store, cdse_id, scene_dn):
    da.add_bands(store, da.CDSE, cdse_id, scene_dn[["B02_10m"]].rename(B02_10m="B11_20m"), scale=1e-4, offset=0.0)
    mapping = {"B11_20m": "swir16", "SCL_20m": "s2_scl"}
    tile = da.load_cdse_s2_sr_scene(cdse_id, mapping, store, device="cpu")
    assert list(tile.data_vars) == ["swir16", "s2_scl", "quality_data_mask"]


@pytest.mark.parametrize(
    "mapping", [{}, {"B02_10m": "blue", "B03_10m": "blue"}, {"B02_10m": "slope"}, {"B02_10m": "azure"}, "all"]
)
def test_a_mapping_that_cannot_work_is_refused(store, cdse_id, mapping):
    with pytest.raises((ConfigError, MissingBandError)):
        da.load_cdse_s2_sr_scene(cdse_id, mapping, store, device="cpu")


def test_an_absent_scene_names_the_command_offline(store, cdse_id):
    other = cdse_id.replace("20241107T113311", "20241108T113311")
    with pytest.raises(MissingDataError, match=rf"{other}.*darts prepare-data sentinel2 --optical"):
        da.load_cdse_s2_sr_scene(other, store=store, offline=True)


def test_an_absent_band_names_it_and_the_command(store, cdse_id):
    with pytest.raises(MissingBandError, match=r"B11_20m.*prepare-data sentinel2 --optical"):
        da.load_cdse_s2_sr_scene(cdse_id, {"B11_20m": "swir16"}, store, offline=True)


def test_an_absent_scene_of_another_source_names_it_in_the_command(store, cdse_id):
    source = dataclasses.replace(da.EARTH_SEARCH_SOURCE, name="mirror")
    with pytest.raises(MissingDataError, match=r"prepare-data sentinel2 --raw-data-source mirror --optical"):
        load_cdse_s2_sr_scene(cdse_id, {"red": "red"}, store, offline=True, source=source)


def test_a_scene_of_a_server_without_its_classification_is_not_complete(tmp_path, cdse_id, scene_dn):
    da.write_scene(tmp_path, da.CDSE, cdse_id, scene_dn.drop_vars("SCL_20m"), datetime=None)
    with pytest.raises(MissingBandError, match="SCL_20m"):
        da.load_cdse_s2_sr_scene(cdse_id, store=tmp_path, offline=True)


def test_without_a_store_there_is_nothing_offline():
    with pytest.raises(ConfigError, match="store"):
        da.load_cdse_s2_sr_scene("x", offline=True)


def test_what_is_no_item_is_refused(store):
    with pytest.raises(ConfigError, match="STAC item"):
        da.load_cdse_s2_sr_scene(5, store=store)


def test_a_scene_without_any_valid_pixel_loads_as_nan(tmp_path, cdse_id, scene_dn):
    da.write_scene(tmp_path, da.CDSE, cdse_id, scene_dn * 0, datetime=None)
    tile = da.load_cdse_s2_sr_scene(cdse_id, store=tmp_path, offline=True, device="cpu")
    assert np.isnan(tile["blue"]).all()
    assert not tile["quality_data_mask"].any()


def test_one_pixel_of_the_southern_hemisphere_loads(tmp_path, cdse_id, make_dataset):
    geobox = GeoBox((1, 1), Affine(10, 0, 399960.123456, 0, -10, 1_600_020), "EPSG:32720")
    bands = {name: np.array([[5000]], "uint16") for name in da.CDSE_BANDS}
    dn = make_dataset(geobox, **bands, SCL_20m=np.array([[8]], "uint8"))
    da.write_scene(tmp_path, da.CDSE, cdse_id, dn, datetime=None)
    tile = da.load_cdse_s2_sr_scene(cdse_id, store=tmp_path, offline=True, device="cpu")
    assert tile.odc.geobox == geobox
    assert tile["blue"].item() == pytest.approx(0.4)
    assert tile["quality_data_mask"].item() == 1


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (da.load_cdse_s2_sr_scene, "s2item bands_mapping store aws_profile_name offline device"),
        (da.download_cdse_s2_sr_scene, "s2item store bands_mapping aws_profile_name"),
        (da.load_gee_s2_sr_scene, "s2item bands_mapping store offline device"),
        (
            da.search_cdse_s2_sr,
            "intersects tiles start_date end_date max_cloud_cover max_snow_cover months years",
        ),
        (da.search_gee_s2_sr, "intersects tiles start_date end_date max_cloud_cover max_snow_cover months years"),
        (da.load_planet_scene, "fpath"),
        (da.load_planet_masks, "fpath"),
        (da.load_arcticdem, "geobox data_dir resolution buffer offline"),
        (da.download_arcticdem, "aoi data_dir resolution"),
        (da.load_tcvis, "geobox data_dir year buffer offline"),
        (da.download_tcvis, "aoi data_dir year"),
    ],
)
def test_signatures_are_those_that_scripts_rely_on(function, parameters):
    found = inspect.signature(function).parameters.values()
    # More may follow by keyword only.
    assert [p.name for p in found if p.kind is not inspect.Parameter.KEYWORD_ONLY] == parameters.split()
