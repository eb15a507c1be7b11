"""Connecting to Earth Engine and fetching pixels, with the unmodified client against a server on 127.0.0.1."""

import numpy as np
import pytest
from google.auth.credentials import AnonymousCredentials
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition import earth_engine as connection
from darts_acquisition import earth_engine_pixels as pixels
from darts_acquisition.earth_engine import EarthEngineSource, compute_value, connect, get_asset, init_ee
from darts_acquisition.testing import EarthEngineImage, earth_engine_server
from darts_utils.errors import ConfigError, RemoteError

GEOBOX = GeoBox((70, 90), Affine(10, 0, 500_000, 0, -10, 7_900_020), "EPSG:32608")
ASSET = "projects/some-project/assets/somewhere"


@pytest.fixture(scope="module")
def bands():
    rng = np.random.default_rng(1)
    return {
        "a": rng.integers(1, 65536, GEOBOX.shape.yx).astype("uint16"),
        "b": rng.integers(1, 256, GEOBOX.shape.yx).astype("uint8"),
        "height": rng.normal(size=GEOBOX.shape.yx).astype("float32"),
    }


@pytest.fixture(scope="module")
def valid():
    return np.random.default_rng(2).random(GEOBOX.shape.yx) < 0.8


@pytest.fixture(scope="module")
def server(bands, valid):
    image = EarthEngineImage(bands, GEOBOX.affine, str(GEOBOX.crs), valid={"b": valid})
    with earth_engine_server({ASSET: image}) as running:
        yield running


@pytest.fixture
def source(server):
    server.clear()
    return EarthEngineSource(
        project="test-project", endpoint=server.url, retries=1, retry_wait_s=0, requests_per_second=None
    )


@pytest.fixture
def image(source):
    import ee

    connect(source)
    return ee.Image(ASSET)


@pytest.fixture
def disconnected(monkeypatch):
    import ee

    monkeypatch.setattr(connection, "_connected", None)
    ee.Reset()


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(pixels, "TILE_PX", 32)


def _fetch(image, bands, geobox, source):
    return pixels.fetch_pixels(image, bands, geobox, what="image somewhere", source=source)


def test_connecting_twice_asks_once(server, source, disconnected):
    connect(source)
    asked = len(server.requests)
    assert asked > 0
    connect(source)
    init_ee("test-project", endpoint=server.url)
    asked_with_other_settings = len(server.requests)
    connect(EarthEngineSource())
    assert len(server.requests) == asked_with_other_settings


def test_init_ee_connects_for_all_that_follows(server, disconnected):
    init_ee("test-project", endpoint=server.url)
    assert compute_value(EarthEngineSource(), "a number", _ee().Number(7)) == 7
    assert all("/projects/test-project/" in path for _, path in server.requests if path.endswith("value:compute"))


def test_another_project_connects_anew(server, source, disconnected):
    connect(source)
    server.clear()
    connect(EarthEngineSource(project="other-project", endpoint=server.url))
    assert ("GET", "/v1alpha/projects/other-project/algorithms") in [
        (method, path.replace("/v1/", "/v1alpha/")) for method, path in server.requests
    ]


def test_a_connection_that_the_user_made_is_used(server, source, disconnected):
    ee = _ee()
    ee.Initialize(AnonymousCredentials(), url=server.url, project="test-project")
    assert compute_value(EarthEngineSource(retries=0), "a number", ee.Number(3)) == 3


def test_without_a_project_the_error_names_the_option(server, disconnected):
    with pytest.raises(ConfigError, match="give ee_project"):
        init_ee(None, endpoint=server.url)


def test_without_credentials_the_error_says_how_to_get_them(monkeypatch, tmp_path, disconnected):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(ConfigError, match=r"earthengine authenticate.*service account"):
        init_ee("test-project")


def test_a_server_that_is_not_there_is_one_clear_error(disconnected):
    source = EarthEngineSource(project="test-project", endpoint="http://127.0.0.1:9", retries=1, retry_wait_s=0)
    with pytest.raises(RemoteError, match=r"connecting.*2 tries"):
        connect(source)
    with pytest.raises(RemoteError, match=r"connecting.*2 tries"):
        connect(source)


@pytest.mark.parametrize(
    "wrong",
    [{"endpoint": "127.0.0.1"}, {"connections": 0}, {"timeout_s": 0}, {"retries": -1}, {"collection": ""},
     {"requests_per_second": 0}, {"retry_wait_s": -1}],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        EarthEngineSource(**wrong)


def test_the_high_volume_endpoint_is_the_default():
    assert EarthEngineSource().address == "https://earthengine-highvolume.googleapis.com"
    assert EarthEngineSource(use_highvolume=False).address is None
    assert EarthEngineSource(endpoint="http://127.0.0.1:1/").address == "http://127.0.0.1:1"


def test_pixels_come_as_they_are_and_masked_ones_are_zero(image, bands, valid, source):
    got = _fetch(image, {"a": "uint16", "b": "uint8"}, GEOBOX, source)
    np.testing.assert_array_equal(got["a"], bands["a"])
    np.testing.assert_array_equal(got["b"], np.where(valid, bands["b"], 0))
    assert (got["a"].dtype, got["b"].dtype) == (np.uint16, np.uint8)


@pytest.mark.usefixtures("small_tiles")
def test_tiles_put_together_are_the_whole(image, bands, valid, source, server):
    got = _fetch(image, {"a": "uint16", "b": "uint8"}, GEOBOX, source)
    np.testing.assert_array_equal(got["a"], bands["a"])
    np.testing.assert_array_equal(got["b"], np.where(valid, bands["b"], 0))
    assert len(server.pixel_requests) == 3 * 3


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("rows", [20, 32, 50, 70, 100])
def test_strips_put_together_are_the_whole(image, bands, source, rows):
    strips = list(pixels.fetch_strips(image, {"a": "uint16"}, GEOBOX, what="image", source=source, rows=rows))
    assert [strip.start for strip, _ in strips] == list(range(0, 70, rows))
    np.testing.assert_array_equal(np.concatenate([values["a"] for _, values in strips]), bands["a"])


def test_beyond_the_image_pixels_are_zero(image, bands, source):
    wider = GeoBox((75, 96), Affine(10, 0, 499_960, 0, -10, 7_900_050), GEOBOX.crs)
    got = _fetch(image, {"a": "uint16"}, wider, source)["a"]
    np.testing.assert_array_equal(got[3:73, 4:94], bands["a"])
    assert got.sum(dtype=int) == bands["a"].sum(dtype=int)


def test_pixels_that_the_type_cannot_hold_are_an_error(image, source):
    with pytest.raises(RemoteError, match=r"band height came as float32.*uint8 cannot hold"):
        _fetch(image, {"height": "uint8"}, GEOBOX, source)


def test_wider_types_are_narrowed_where_no_value_is_lost(image, bands, source):
    got = _fetch(image.toInt32(), {"a": "uint16"}, GEOBOX, source)["a"]
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, bands["a"])


def test_what_the_service_refuses_is_told_with_its_own_words(image, source, server):
    with pytest.raises(RemoteError, match=r"image somewhere, rows 0 to 70.*Band pattern 'c' did not match.*HTTP 400"):
        _fetch(image, {"c": "uint8"}, GEOBOX, source)
    assert len(server.pixel_requests) == 1
    with pytest.raises(RemoteError, match=r"asset users/nobody/nothing.*HTTP 404"):
        get_asset(source, "users/nobody/nothing")


@pytest.mark.parametrize("bands", [{"a": "uint16"}, {"a": "uint8", "b": "uint8", "c": "uint8"}, {"a": "float32"}])
@pytest.mark.parametrize("shape", [(10980, 10980), (3600, 3600), (1, 10980), (2049, 7)])
def test_no_tile_is_larger_than_a_request_may_be(bands, shape):
    geobox = GeoBox(shape, GEOBOX.affine, GEOBOX.crs)
    seen = np.zeros(shape, "uint8")
    for tile in pixels._tiles(geobox, bands, 2048):
        height, width = tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start
        assert height * width * sum(np.dtype(dtype).itemsize + 1 for dtype in bands.values()) <= 48 * 2**20 / 2
        assert tile.rows.start // 2048 == (tile.rows.stop - 1) // 2048
        seen[tile.rows, tile.columns] += 1
    assert (seen == 1).all()


def test_the_grid_is_sent_as_it_is(image, source, server):
    _fetch(image, {"a": "uint16"}, GEOBOX[10:30, 5:45], source)
    assert server.pixel_requests[-1]["grid"] == {
        "dimensions": {"width": 40, "height": 20},
        "affineTransform": {
            "scaleX": 10, "shearX": 0, "translateX": 500_050, "shearY": 0, "scaleY": -10, "translateY": 7_899_920
        },
        "crsCode": "EPSG:32608",
    }  # fmt: skip


def _ee():
    import ee

    return ee
