"""Sentinel-2 scenes of Earth Engine: searched, downloaded and loaded from a server on 127.0.0.1."""

from datetime import UTC, datetime

import numpy as np
import pytest
from odc.geo.geobox import GeoBox
from rasterio import Affine
from shapely.geometry import box

from darts_acquisition import gee_search, raw_store
from darts_acquisition.earth_engine import GEE_SOURCE, EarthEngineSource
from darts_acquisition.gee import download_gee_s2_sr_scene, gee_download_size, load_gee_s2_sr_scene
from darts_acquisition.gee_items import GeeItem, get_gee_item, item_of
from darts_acquisition.gee_search import search_gee_s2_sr
from darts_acquisition.testing import EarthEngineImage, earth_engine_server
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError, MissingDataError, RemoteError

HARMONIZED, SUPERSEDED = "COPERNICUS/S2_SR_HARMONIZED", "COPERNICUS/S2_SR"
SCENE = "20230701T194909_20230701T195350_T08WMA"
OLD_SCENE = "20190701T194909_20190701T195350_T08WMA"
SHAPE = (64, 48)
GRID = Affine(10, 0, 399_960, 0, -10, 7_900_020)
ANTIMERIDIAN_GRID = Affine(10, 0, 300_000, 0, -10, 7_900_020)
"""In zone 1, a few degrees west of its middle (177° W) and so across the antimeridian, at 177.5° E."""
RING = {
    "type": "LinearRing",
    "coordinates": [[12.2275, 71.1], [12.3, 71.1], [12.3, 71.3], [12.2275, 71.3], [12.2275, 71.1]],
}
OPTICAL = ("B2", "B3", "B4", "B8")
NAMES = {"B2": "blue", "B3": "green", "B4": "red", "B8": "nir"}


def _image(scene_id, *, seed=0, crs="EPSG:32608", grid=GRID, cloud=5.0, snow=0.5, baseline="05.09", **properties):
    rng = np.random.default_rng(seed)
    bands = {name: rng.integers(1, 12_000, SHAPE).astype("uint16") for name in OPTICAL}
    bands["B11"] = rng.integers(1, 12_000, (SHAPE[0] // 2, SHAPE[1] // 2)).astype("uint16")
    bands["SCL"] = rng.integers(1, 12, (SHAPE[0] // 2, SHAPE[1] // 2)).astype("uint8")
    acquired = datetime.strptime(scene_id[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    known = {
        "system:time_start": int(acquired.timestamp() * 1000) + 123,
        "MGRS_TILE": scene_id[-5:],
        "CLOUDY_PIXEL_PERCENTAGE": cloud,
        "SNOW_ICE_PERCENTAGE": snow,
        "PROCESSING_BASELINE": baseline,
        "MEAN_SOLAR_AZIMUTH_ANGLE": 171.25,
        "MEAN_SOLAR_ZENITH_ANGLE": 48.5,
    } | properties
    valid = {name: rng.random(values.shape) < 0.9 for name, values in bands.items()}
    return EarthEngineImage(bands, grid, crs, {k: v for k, v in known.items() if v is not None}, valid)


def _scene_id(day, tile="08WMA", year=2023, month=7):
    return f"{year}{month:02d}{day:02d}T194909_{year}{month:02d}{day:02d}T195350_T{tile}"


IMAGES = {
    f"{HARMONIZED}/{SCENE}": _image(SCENE),
    f"{HARMONIZED}/{_scene_id(2)}": _image(_scene_id(2), cloud=10, snow=10),
    f"{HARMONIZED}/{_scene_id(3)}": _image(_scene_id(3), cloud=10.5, snow=0),
    f"{HARMONIZED}/{_scene_id(4)}": _image(_scene_id(4), cloud=0, snow=30),
    f"{HARMONIZED}/{_scene_id(5, month=8)}": _image(_scene_id(5, month=8), cloud=0, snow=0),
    f"{HARMONIZED}/{_scene_id(6, year=2022)}": _image(_scene_id(6, year=2022), cloud=100, snow=100),
    # The footprint is a ring, as Earth Engine gives it, and smaller than the grid that the server filters by.
    f"{HARMONIZED}/{_scene_id(7, '33XVG', 2021)}": _image(
        _scene_id(7, "33XVG", 2021),
        crs="EPSG:32633",
        **{"system:footprint": RING},
    ),
    f"{HARMONIZED}/{_scene_id(8, '01WCU', 2021)}": _image(
        _scene_id(8, "01WCU", 2021), crs="EPSG:32601", grid=ANTIMERIDIAN_GRID
    ),
    f"{SUPERSEDED}/{SCENE}": _image(SCENE, seed=1),
    f"{SUPERSEDED}/{OLD_SCENE}": _image(OLD_SCENE, seed=2, baseline="02.12"),
}


@pytest.fixture(scope="module")
def server():
    with earth_engine_server(IMAGES) as running:
        yield running


@pytest.fixture
def source(server):
    server.clear()
    return EarthEngineSource(project="test-project", endpoint=server.url, retries=0, requests_per_second=None)


@pytest.fixture
def superseded(server):
    return EarthEngineSource(
        project="test-project", endpoint=server.url, collection=SUPERSEDED, retries=0, requests_per_second=None
    )


def _expected_dn(image, band):
    """What the store must hold: each pixel of 20 m four times, 0 where masked."""
    values = np.where(image.valid[band], image.bands[band], 0)
    factor = SHAPE[0] // values.shape[0]
    return values.repeat(factor, 0).repeat(factor, 1)


def _ids(**search):
    return sorted(search_gee_s2_sr(**search))


def test_a_scene_is_loaded_pixel_by_pixel_with_its_attributes(tmp_path, source):
    tile = load_gee_s2_sr_scene(SCENE, store=tmp_path, device="cpu", source=source)
    image = IMAGES[f"{HARMONIZED}/{SCENE}"]
    for band, name in NAMES.items():
        dn = _expected_dn(image, band)
        expected = np.where(dn == 0, np.nan, dn / 10_000).astype("float32")
        np.testing.assert_allclose(tile[name], expected, rtol=1e-6)
    np.testing.assert_array_equal(tile["s2_scl"], _expected_dn(image, "SCL"))
    assert tile.odc.geobox == GeoBox(SHAPE, GRID, "EPSG:32608")
    assert tile.attrs["azimuth"] == 171.25
    assert tile.attrs["elevation"] == 41.5
    assert tile.attrs["acquisition_time"] == "2023-07-01T19:49:09.123Z"
    assert tile.attrs["tile_id"] == SCENE


def test_a_missing_optical_pixel_has_quality_zero(tmp_path, source):
    tile = load_gee_s2_sr_scene(SCENE, store=tmp_path, device="cpu", source=source)
    missing = np.isnan(tile[list(NAMES.values())].to_dataarray()).any("variable")
    assert missing.any()
    assert (tile["quality_data_mask"].values[missing] == 0).all()


def test_what_the_store_has_asks_nothing_of_the_network(tmp_path, source, server):
    first = load_gee_s2_sr_scene(SCENE, store=tmp_path, device="cpu", source=source)
    server.clear()
    nowhere = EarthEngineSource(project="x", endpoint="http://127.0.0.1:9", retries=0)
    for again in (source, nowhere):
        assert load_gee_s2_sr_scene(SCENE, store=tmp_path, device="cpu", source=again).identical(first)
        download_gee_s2_sr_scene(SCENE, tmp_path, source=again)
    assert load_gee_s2_sr_scene(SCENE, store=tmp_path, offline=True, device="cpu", source=source).identical(first)
    assert server.requests == []


def test_offline_nothing_is_asked_even_where_the_scene_is_missing(tmp_path, source, server):
    with pytest.raises(MissingDataError, match="darts prepare-data"):
        load_gee_s2_sr_scene(SCENE, store=tmp_path, offline=True, source=source)
    with pytest.raises(ConfigError, match="store"):
        load_gee_s2_sr_scene(SCENE, offline=True, source=source)
    download_gee_s2_sr_scene(SCENE, tmp_path, source=source)
    server.clear()
    with pytest.raises(MissingBandError, match="B11"):
        load_gee_s2_sr_scene(SCENE, {"B11": "swir16"}, tmp_path, offline=True, source=source)
    assert server.requests == []


def test_missing_bands_are_fetched_alone(tmp_path, source, server):
    download_gee_s2_sr_scene(SCENE, tmp_path, {"B2": "blue"}, source=source)
    server.clear()
    download_gee_s2_sr_scene(SCENE, tmp_path, {"B2": "blue", "B11": "swir16"}, source=source)
    assert len(server.pixel_requests) == 1
    assert "B11" in str(server.pixel_requests[0])
    scene = raw_store.open_scene(tmp_path, raw_store.GEE, SCENE)
    assert scene.bands == ("B2", "SCL", "B11")
    [(_, b11)] = scene.strips("B11")
    np.testing.assert_array_equal(b11, _expected_dn(IMAGES[f"{HARMONIZED}/{SCENE}"], "B11"))


def test_without_a_store_the_scene_is_downloaded_and_not_kept(tmp_path, source, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tile = load_gee_s2_sr_scene(SCENE, device="cpu", source=source)
    assert set(NAMES.values()) < set(tile.data_vars)
    assert list(tmp_path.iterdir()) == []


def test_an_item_needs_no_question_about_the_scene(tmp_path, source, server):
    item = get_gee_item(SCENE, source)
    server.clear()
    download_gee_s2_sr_scene(item, tmp_path, source=source)
    assert server.value_requests == []
    assert len(server.pixel_requests) == 5


def test_the_harmonised_collection_has_no_offset_and_the_superseded_one_by_baseline(tmp_path, source, superseded):
    for store, origin, scene, offset in (
        ("harmonised", source, SCENE, 0.0),
        ("new", superseded, SCENE, -0.1),
        ("old", superseded, OLD_SCENE, 0.0),
    ):
        tile = load_gee_s2_sr_scene(scene, store=tmp_path / store, device="cpu", source=origin)
        dn = _expected_dn(IMAGES[f"{origin.collection}/{scene}"], "B3")
        np.testing.assert_allclose(tile["green"], np.where(dn == 0, np.nan, dn * 1e-4 + offset), rtol=0, atol=1e-6)
        assert raw_store.open_scene(tmp_path / store, raw_store.GEE, scene).scaling("B3") == (1e-4, offset)


def test_the_size_of_a_download_is_known_where_the_grid_is(tmp_path, source):
    pixels = SHAPE[0] * SHAPE[1]
    item = get_gee_item(SCENE, source)
    assert gee_download_size(item, tmp_path) == gee_download_size(item, None) == pixels * (4 * 2 + 1)
    assert gee_download_size(SCENE, tmp_path) is None
    download_gee_s2_sr_scene(item, tmp_path, source=source)
    assert gee_download_size(SCENE, tmp_path) == 0
    assert gee_download_size(SCENE, tmp_path, {"B2": "blue", "B11": "swir16"}) == pixels * 2


def test_bytes_are_reported(tmp_path, source):
    received = []

    class Report:
        def received(self, n_bytes):
            received.append(n_bytes)

    download_gee_s2_sr_scene(SCENE, tmp_path, source=source, report=Report())
    pixels = SHAPE[0] * SHAPE[1] * (4 * 2 + 1)
    assert pixels < sum(received) < pixels + 5 * 200


def test_a_scene_that_is_not_there_is_named(tmp_path, source):
    absent = _scene_id(31)
    with pytest.raises(RemoteError, match=rf"{absent}.*not found"):
        load_gee_s2_sr_scene(absent, store=tmp_path, source=source)
    with pytest.raises(ConfigError, match="not a Sentinel-2 id of Earth Engine"):
        load_gee_s2_sr_scene("S2A_something", store=tmp_path, source=source)
    assert raw_store.list_scenes(tmp_path, raw_store.GEE) == []


def test_a_band_that_is_not_there_leaves_no_scene(tmp_path, source):
    with pytest.raises(RemoteError, match=rf"{SCENE}, band B12.*did not match"):
        download_gee_s2_sr_scene(SCENE, tmp_path, {"B2": "blue", "B12": "swir22"}, source=source)
    assert raw_store.list_scenes(tmp_path, raw_store.GEE) == []
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_stored_scene_on_another_grid_is_refused(tmp_path, source, make_dataset):
    other = GeoBox(SHAPE, Affine(10, 0, 0, 0, -10, 0), "EPSG:32608")
    dn = make_dataset(other, B2=np.ones(SHAPE, "uint16"))
    raw_store.write_scene(tmp_path, raw_store.GEE, SCENE, dn, datetime=None)
    with pytest.raises(GridMismatchError, match="another grid"):
        download_gee_s2_sr_scene(SCENE, tmp_path, source=source)
    assert raw_store.open_scene(tmp_path, raw_store.GEE, SCENE).bands == ("B2",)


def test_items_say_what_earth_engine_knows(source):
    item = search_gee_s2_sr(tiles=["T08WMA"], start_date="2023-07-01", end_date="2023-07-01", source=source)[SCENE]
    assert isinstance(item, GeeItem)
    assert item.geobox == GeoBox(SHAPE, GRID, "EPSG:32608")
    assert item.acquired == datetime(2023, 7, 1, 19, 49, 9, 123_000, tzinfo=UTC)
    assert (item.cloud, item.snow, item.baseline) == (5.0, 0.5, "05.09")
    assert (item.sun_azimuth, item.sun_elevation) == (171.25, 41.5)
    assert item == get_gee_item(SCENE, source)


@pytest.mark.parametrize("tile", ["T08WMA", "08WMA", "8wma"])
def test_limits_of_cloud_and_snow_include_the_limit(source, tile):
    july = {"tiles": [tile], "months": [7], "years": [2023], "source": source}
    assert _ids(**july) == [SCENE, _scene_id(2)]
    assert _ids(**july, max_cloud_cover=11) == [SCENE, _scene_id(2), _scene_id(3)]


@pytest.mark.parametrize("off", [None, 100])
def test_zero_is_a_limit_and_none_and_hundred_are_none(source, off):
    search = {"tiles": ["08WMA"], "start_date": "2022-01-01", "source": source}
    assert _ids(**search, max_cloud_cover=0, max_snow_cover=0) == [_scene_id(5, month=8)]
    assert _ids(**search, max_cloud_cover=0, max_snow_cover=off) == [_scene_id(4), _scene_id(5, month=8)]
    assert len(_ids(**search, max_cloud_cover=off, max_snow_cover=off)) == 6


def test_dates_include_both_days_and_beat_months_and_years(source):
    search = {"tiles": ["08WMA"], "max_cloud_cover": None, "max_snow_cover": None, "source": source}
    assert _ids(**search, start_date="2023-07-02", end_date="2023-07-03") == [_scene_id(2), _scene_id(3)]
    assert _ids(**search, end_date="2022-12-31") == [_scene_id(6, year=2022)]
    assert _ids(**search, start_date="2023-08-05", months=[1], years=[2016]) == [_scene_id(5, month=8)]


def test_months_and_years_select(source):
    search = {"tiles": ["08WMA"], "max_cloud_cover": None, "max_snow_cover": None, "source": source}
    assert _ids(**search, months=[8]) == [_scene_id(5, month=8)]
    assert _ids(**search, years=[2022]) == [_scene_id(6, year=2022)]
    assert _ids(**search, months=[7], years=[2021, 2022]) == [_scene_id(6, year=2022)]


def test_an_area_finds_what_it_touches_and_nothing_else(source):
    search = {"max_cloud_cover": None, "max_snow_cover": None, "source": source}
    near, far = box(12, 70, 13, 72), box(20, 70, 21, 72)
    assert _ids(intersects=near, **search) == [_scene_id(7, "33XVG", 2021)]
    assert _ids(intersects=far, **search) == []
    beside_the_footprint = box(12.0, 70, 12.227, 72)
    assert _ids(intersects=beside_the_footprint, **search) == []
    assert _ids(intersects=GeoBox((3, 3), GRID, "EPSG:32608"), tiles=["08WMA"], years=[2022], **search) == [
        _scene_id(6, year=2022)
    ]


def test_an_area_across_the_antimeridian_finds_scenes_on_both_sides(source):
    search = {"max_cloud_cover": None, "max_snow_cover": None, "source": source}
    scene = _scene_id(8, "01WCU", 2021)
    [(longitude, latitude)] = [get_gee_item(scene, source).geometry.centroid.coords[0]]
    longitude = (longitude + 180) % 360 - 180
    # The scene lies a few degrees from the antimeridian; the area begins on the other side of it.
    assert 170 < abs(longitude) < 180
    across = box(174, latitude - 1, 186, latitude + 1)
    other_side = box(174, latitude - 1, 177, latitude + 1) if longitude < 0 else box(-177, latitude - 1, -174, latitude)
    assert _ids(intersects=across, **search) == [scene]
    assert _ids(intersects=other_side, **search) == []


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_every_page_is_followed_and_every_scene_found_once(source, server, monkeypatch, size):
    monkeypatch.setattr(gee_search, "PAGE", size)
    found = search_gee_s2_sr(max_cloud_cover=None, max_snow_cover=None, years=range(2015, 2024), source=source)
    assert list(found) == sorted(found, key=lambda name: name[:15])
    assert {f"{HARMONIZED}/{name}" for name in found} == {name for name in IMAGES if name.startswith(HARMONIZED + "/")}
    assert len(server.value_requests) == len(found) // size + 1


def test_of_two_baselines_of_one_acquisition_the_newer_stays():
    old, new = "20230701T194909_20230701T195350_T08WMA", "20230701T194909_20240101T000000_T08WMA"
    other = "20230701T203909_20230701T204000_T08WMA"
    product = "S2A_MSIL2A_20230701T194909_N{}_R085_T08WMA_20230701T235959"
    images = {
        f"{HARMONIZED}/{old}": _image(old, baseline="04.00", PRODUCT_ID=product.format("0400")),
        f"{HARMONIZED}/{new}": _image(new, baseline="05.10", PRODUCT_ID=product.format("0510")),
        f"{HARMONIZED}/{other}": _image(other, PRODUCT_ID=product.replace("T194909", "T203909").format("0509")),
    }
    with earth_engine_server(images) as server:
        source = EarthEngineSource(project="test-project", endpoint=server.url, retries=0)
        assert _ids(tiles=["08WMA"], years=[2023], source=source) == [new, other]


def test_a_description_without_time_or_grid_is_an_error_that_names_the_scene():
    images = {f"{HARMONIZED}/{SCENE}": _image(SCENE, **{"system:time_start": None})}
    with earth_engine_server(images) as server:
        source = EarthEngineSource(project="test-project", endpoint=server.url, retries=0)
        with pytest.raises(RemoteError, match=rf"{SCENE}.*system:time_start"):
            search_gee_s2_sr(tiles=["08WMA"], source=source)


def test_the_grid_of_a_clipped_asset_begins_at_its_origin():
    band = {"id": "B2", "dimensions": [48, 64], "crs": "EPSG:32608", "crs_transform": list(GRID[:6])}
    info = {"properties": {"system:index": SCENE, "system:time_start": 1_688_240_949_000}}
    whole, clipped = (item_of({**info, "bands": [b]}, GEE_SOURCE) for b in (band, {**band, "origin": [20, 7]}))
    assert whole.geobox.affine == GRID
    assert clipped.geobox.affine == Affine(10, 0, 399_960 + 200, 0, -10, 7_900_020 - 70)
    assert clipped.geobox.shape == (64, 48)


@pytest.mark.parametrize(
    "wrong",
    [{"max_cloud_cover": 101}, {"max_snow_cover": -1}, {"months": [13]}, {"years": [1999]}, {"start_date": "1 July"},
     {"tiles": ["nowhere"]}, {"tiles": []}],
)  # fmt: skip
def test_parameters_that_cannot_be_are_refused_before_anything_is_asked(source, server, wrong):
    with pytest.raises(ConfigError):
        search_gee_s2_sr(**wrong, source=source)
    assert server.requests == []
