import copy
import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import pystac
import pytest
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition.stac_items import item_assets, item_baseline, item_grid, scene_info
from darts_acquisition.stac_sources import CDSE_SOURCE, EARTH_SEARCH_SOURCE
from darts_acquisition.testing.sentinel2 import make_cdse_item, make_earth_search_item
from darts_utils.errors import MissingBandError, RemoteError
from darts_utils.sun import sun_position

SHARED = Path(__file__).parents[3] / "shared" / "data" / "stac"
CDSE_ID = "S2A_MSIL2A_20240719T204021_N0511_R014_T08WMA_20240720T003015"
COG_ID = "S2A_T08WMA_20240719T204021_L2A"
GEOBOX = GeoBox((180, 240), Affine(10, 0, 399960, 0, -10, 7600020), "EPSG:32608")


@pytest.fixture
def cdse():
    bands = ("B02_10m", "B03_10m", "B11_20m", "SCL_20m")
    files = {name: name.encode() for name in bands}
    return pystac.Item.from_dict(
        make_cdse_item(CDSE_ID, geobox_10m=GEOBOX, bands=bands, files=files, sun_elevation=42.5)
    )


@pytest.fixture
def cog():
    return pystac.Item.from_dict(make_earth_search_item(COG_ID, geobox_10m=GEOBOX, base_url="https://server"))


def changed(item, asset=None, drop=(), **fields):
    """A copy of an item with other properties, or other fields of an asset ("all": of all assets)."""
    item = copy.deepcopy(item.to_dict(include_self_link=False))
    for name in item["assets"] if asset == "all" else [asset]:
        where = item["properties"] if name is None else item["assets"][name]
        for key in drop:
            where.pop(key, None)
        where.update(fields)
    return pystac.Item.from_dict(item)


def scaling(item, source, name):
    return item_assets(item, source, [name])[name].scaling


def test_an_asset_says_where_it_lies_how_large_it_is_and_its_checksum(cdse):
    asset = item_assets(cdse, CDSE_SOURCE, ["B11_20m"])["B11_20m"]
    assert asset.href.startswith(f"s3://eodata/Sentinel-2/MSI/L2A/2024/07/19/{CDSE_ID}.SAFE/GRANULE/")
    assert asset.href.endswith("R20m/T08WMA_20240719T204021_B11_20m.jp2")
    assert asset.size == len("B11_20m")
    assert asset.checksum == "1620" + hashlib.sha3_256(b"B11_20m").hexdigest()
    assert asset.grid == GeoBox((90, 120), Affine(20, 0, 399960, 0, -20, 7600020), "EPSG:32608")


def test_a_relative_address_lies_beside_the_item(cdse, tmp_path):
    item = changed(cdse, "B02_10m", href="./B02.jp2")
    item.set_self_href(str(tmp_path / "items" / "item.json"))
    assert item_assets(item, CDSE_SOURCE, ["B02_10m"])["B02_10m"].href == str(tmp_path / "items" / "B02.jp2")


def test_an_asset_without_size_and_checksum_is_fine(cog):
    asset = item_assets(cog, EARTH_SEARCH_SOURCE, ["blue"])["blue"]
    assert (asset.size, asset.checksum) == (None, None)


def test_an_item_without_the_asset_names_it_and_what_there_is(cdse):
    with pytest.raises(MissingBandError, match=rf"{CDSE_ID}.*B12_20m.*it has B02_10m"):
        item_assets(cdse, CDSE_SOURCE, ["B02_10m", "B12_20m"])


def test_an_item_without_assets_says_so(cdse):
    item = cdse.clone()
    item.assets = {}
    with pytest.raises(MissingBandError, match=rf"{CDSE_ID}.*none at all"):
        item_assets(item, CDSE_SOURCE, ["B02_10m"])


def test_scale_and_offset_are_those_of_the_asset(cdse, cog):
    item = changed(cdse, "B02_10m", **{"raster:scale": 0.0002, "raster:offset": -0.05})
    assert scaling(item, CDSE_SOURCE, "B02_10m") == (0.0002, -0.05)
    assert scaling(item, CDSE_SOURCE, "B03_10m") == (0.0001, -0.1)
    item = changed(cog, "blue", **{"raster:bands": [{"scale": 0.0003, "offset": 0.01}]})
    assert scaling(item, EARTH_SEARCH_SOURCE, "blue") == (0.0003, 0.01)


def test_the_scene_classification_has_no_scaling(cdse):
    assert scaling(cdse, CDSE_SOURCE, "SCL_20m") is None


@pytest.mark.parametrize(
    ("baseline", "offset"), [("02.14", 0.0), ("03.01", 0.0), ("04.00", -0.1), ("05.00", -0.1), ("05.12", -0.1)]
)
def test_without_scaling_the_baseline_decides_not_the_date(cdse, baseline, offset):
    item = changed(cdse, "B02_10m", drop=["raster:scale", "raster:offset"])
    item.properties["processing:version"] = baseline
    assert scaling(item, CDSE_SOURCE, "B02_10m") == (1e-4, offset)


def test_where_the_offset_was_taken_off_already_there_is_none(cog):
    item = changed(cog, **{"earthsearch:boa_offset_applied": True})
    assert scaling(item, EARTH_SEARCH_SOURCE, "blue") == (1e-4, 0.0)
    assert scaling(cog, EARTH_SEARCH_SOURCE, "blue") == (1e-4, -0.1)


def test_neither_scaling_nor_baseline_is_an_error_that_names_the_setting(cog):
    item = changed(cog, "blue", drop=["raster:bands"])
    item.properties.pop("s2:processing_baseline")
    with pytest.raises(RemoteError, match=rf"{COG_ID}.*blue.*baseline_property"):
        item_assets(item, EARTH_SEARCH_SOURCE, ["blue"])


@pytest.mark.parametrize("value", ["0.0001", True, float("nan"), 0, -1e-4])
def test_a_scale_that_is_no_number_is_an_error(cdse, value):
    with pytest.raises(RemoteError, match="B02_10m: scale"):
        item_assets(changed(cdse, "B02_10m", **{"raster:scale": value}), CDSE_SOURCE, ["B02_10m"])


@pytest.mark.parametrize(
    ("properties", "scene_id", "baseline"),
    [
        ({"processing:version": "05.11"}, "x", "05.11"),
        ({"processing:version": "0511"}, "x", "05.11"),
        ({"processing:version": 5.1}, "x", "05.10"),
        ({"processing:version": "sen2cor 2.11", "s2:processing_baseline": "05.00"}, "x", "05.00"),
        ({}, "S2A_MSIL2A_20200301T090901_N0214_R050_T35UPU_20200301T123416", "02.14"),
        ({"s2:product_uri": "S2A_MSIL2A_20230818T100031_N0509_R122_T33TWM_20230818T143300.SAFE"}, "x", "05.09"),
        ({}, "x", None),
    ],
)
def test_the_baseline_is_in_the_properties_or_in_the_id(cdse, properties, scene_id, baseline):
    item = changed(cdse, drop=["processing:version"], **properties)
    item.id = scene_id
    assert item_baseline(item, CDSE_SOURCE) == baseline


def test_the_grid_is_the_finest_of_the_bands_whichever_are_asked_for(cdse, cog):
    assert item_grid(cdse, CDSE_SOURCE) == GEOBOX
    assert item_grid(cog, EARTH_SEARCH_SOURCE) == GEOBOX


def test_an_item_that_describes_no_grid_has_none(cdse):
    item = changed(cdse, "all", drop=["proj:shape"])
    assert item_grid(item, CDSE_SOURCE) is None


@pytest.mark.parametrize("code", ["EPSG:4326", "EPSG:3413", "IAU_2015:30100", "EPSG:32661"])
def test_an_item_that_is_not_in_utm_is_an_error_that_names_the_crs(cdse, code):
    item = changed(cdse, "all", **{"proj:code": code})
    with pytest.raises(RemoteError, match=rf"{CDSE_ID}.*{code}.*UTM"):
        item_assets(item, CDSE_SOURCE, ["B02_10m"])
    with pytest.raises(RemoteError, match=code):
        item_grid(item, CDSE_SOURCE)


@pytest.mark.parametrize(
    "fields",
    [
        {"proj:transform": [10, 1, 0, 1, -10, 0]},
        {"proj:transform": [10, 0, 0]},
        {"proj:transform": [0, 0, 0, 0, 0, 0]},
        {"proj:transform": "10"},
        {"proj:shape": [0, 5]},
        {"proj:shape": [5]},
    ],
)
def test_a_grid_that_cannot_be_is_an_error(cdse, fields):
    with pytest.raises(RemoteError, match=r"B02_10m.*proj:transform"):
        item_assets(changed(cdse, "B02_10m", **fields), CDSE_SOURCE, ["B02_10m"])


def test_time_sun_and_baseline_are_kept(cdse):
    info = scene_info(cdse, CDSE_SOURCE, GEOBOX)
    assert info.acquired.isoformat() == "2024-07-19T20:40:21+00:00"
    assert (info.sun_azimuth, info.sun_elevation) == (178.25, 42.5)
    assert (info.processing_baseline, info.sensor, info.scene_id) == ("05.11", "Sentinel-2", CDSE_ID)


def test_an_item_without_sun_angles_has_none(cdse):
    info = scene_info(changed(cdse, drop=["view:sun_azimuth", "view:sun_elevation"]), CDSE_SOURCE, GEOBOX)
    assert (info.sun_azimuth, info.sun_elevation) == (None, None)


def test_a_mean_zenith_is_turned_into_the_elevation(cdse):
    item = changed(
        cdse,
        drop=["view:sun_azimuth", "view:sun_elevation"],
        **{"s2:mean_solar_zenith": 47.5, "s2:mean_solar_azimuth": 178.25},
    )
    info = scene_info(item, CDSE_SOURCE, GEOBOX)
    assert (info.sun_azimuth, info.sun_elevation) == (178.25, 42.5)


def test_a_zenith_angle_in_the_place_of_the_elevation_is_not_believed(cdse, caplog):
    item = changed(cdse, datetime="2024-09-20T20:40:21Z", **{"view:sun_elevation": 67.4})
    real = sun_position(-137.44, 68.49, item.datetime)[1]
    assert abs(real - (90 - 67.4)) < 1
    with caplog.at_level(logging.WARNING):
        info = scene_info(item, CDSE_SOURCE, GEOBOX)
    assert (info.sun_azimuth, info.sun_elevation) == (None, None)
    assert CDSE_ID in caplog.text


def test_an_item_without_a_time_takes_the_range_or_the_id_else_is_an_error(cdse):
    item = cdse.clone()
    item.datetime = None
    assert scene_info(item, CDSE_SOURCE, GEOBOX).acquired.isoformat() == "2024-07-19T20:40:21+00:00"
    item.properties["start_datetime"] = "2024-07-19T20:40:25Z"
    assert scene_info(item, CDSE_SOURCE, GEOBOX).acquired.isoformat() == "2024-07-19T20:40:25+00:00"
    item.properties.pop("start_datetime")
    item.id = "x"
    with pytest.raises(RemoteError, match="time of acquisition"):
        scene_info(item, CDSE_SOURCE, GEOBOX)


def _shared(pattern):
    files = sorted(SHARED.glob(pattern))
    if not files:
        pytest.skip(f"the sample data are not at {SHARED}")
    items = []
    for file in files:
        content = json.loads(file.read_text())
        features = content.get("features", [content])
        items += [pystac.Item.from_dict(feature) for feature in features if feature.get("type") == "Feature"]
    return items


def test_real_items_of_the_copernicus_data_space_are_understood():
    for item in _shared("cdse/S2*.item.json") + _shared("cdse/openeo_issue1547*.json"):
        assets = item_assets(item, CDSE_SOURCE, CDSE_SOURCE.assets.values())
        grid = item_grid(item, CDSE_SOURCE)
        assert grid.shape == (10980, 10980)
        assert grid.affine.a == 10
        assert {asset.grid.affine.a for asset in assets.values()} == {10, 20, 60}
        assert all(asset.size and asset.checksum.startswith("1620") for asset in assets.values())
        assert assets["B02_10m"].scaling == (1e-4, -0.1)
        info = scene_info(item, CDSE_SOURCE, grid)
        longitude, latitude = grid.extent.centroid.to_crs("EPSG:4326").coords[0]
        azimuth, elevation = sun_position(longitude, latitude, info.acquired)
        # The time in an item is that of the datatake, up to some minutes before the scene itself.
        assert abs(info.sun_elevation - elevation) < 3
        assert abs(info.sun_azimuth - azimuth) < 6


def test_real_items_of_the_cog_archives_are_understood():
    source = replace(EARTH_SEARCH_SOURCE, snow_property="")
    for item in _shared("earth-search/*.json"):
        assert item_grid(item, source).shape == (10980, 10980)
        asset = item_assets(item, source, ["red"])["red"]
        assert asset.scaling == (1e-4, 0.0 if item.properties.get("earthsearch:boa_offset_applied") else -0.1)
        info = scene_info(item, source, asset.grid)
        assert info.processing_baseline == "05.09"
        assert (info.sun_azimuth, info.sun_elevation) == (
            item.properties["view:sun_azimuth"],
            item.properties["view:sun_elevation"],
        )


IN_BANDS = {"name": "B02", "raster:scale": 0.0002, "raster:offset": 0.0}


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_scale_and_offset_may_stand_in_the_one_band_of_the_asset(cdse, version):
    item = changed(cdse, "B02_10m", drop=("raster:scale", "raster:offset", "raster:bands"), bands=[IN_BANDS])
    item = pystac.Item.from_dict(item.to_dict(include_self_link=False) | {"stac_version": version})
    assert scaling(item, CDSE_SOURCE, "B02_10m") == (0.0002, 0.0)


def test_several_places_that_say_the_same_are_fine(cdse):
    fields = {"raster:scale": 0.0002, "raster:offset": 0, "raster:bands": [{"scale": 0.0002}], "bands": [IN_BANDS]}
    assert scaling(changed(cdse, "B02_10m", **fields), CDSE_SOURCE, "B02_10m") == (0.0002, 0.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"bands": [IN_BANDS, IN_BANDS]},
        {"raster:bands": [{"scale": 0.0002, "offset": 0}] * 2},
        {"bands": [IN_BANDS], "raster:scale": 0.0002, "raster:offset": -0.1},
        {"bands": [IN_BANDS], "raster:bands": [{"scale": 0.0001, "offset": 0}]},
    ],
)
def test_several_bands_or_places_that_differ_are_an_error_that_names_the_asset(cdse, fields):
    item = changed(cdse, "B02_10m", drop=("raster:scale", "raster:offset", "raster:bands"), **fields)
    with pytest.raises(RemoteError, match=rf"{CDSE_ID}, asset B02_10m.*(bands|contradict)"):
        scaling(item, CDSE_SOURCE, "B02_10m")
