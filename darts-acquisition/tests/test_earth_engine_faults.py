"""Every fault between us and Earth Engine: the scene pixel by pixel, or one clear error and a store as it was."""

import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from http import HTTPStatus

import numpy as np
import pytest
from google.oauth2.credentials import Credentials
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition import earth_engine_pixels, raw_store
from darts_acquisition.earth_engine import EarthEngineSource, connect
from darts_acquisition.earth_engine_requests import ask
from darts_acquisition.gee import download_gee_s2_sr_scene
from darts_acquisition.gee_items import get_gee_item
from darts_acquisition.gee_search import search_gee_s2_sr
from darts_acquisition.testing import EarthEngineImage, Fault, earth_engine_server, fault_proxy
from darts_utils.errors import RemoteError

from .parameters import cases

SCENE = "20230701T194909_20230701T195350_T08WMA"
COLLECTION = "COPERNICUS/S2_SR_HARMONIZED"
GRID = GeoBox((96, 80), Affine(10, 0, 399_960, 0, -10, 7_900_020), "EPSG:32608")
BANDS = {"B2": "uint16", "B4": "uint16", "SCL": "uint8"}
MAPPING = {"B2": "blue", "B4": "red"}
PIXELS, VALUES = "image:computePixels", "value:compute"
FOR_EVER = None


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(3)
    values = {name: rng.integers(1, np.iinfo(dtype).max, GRID.shape.yx).astype(dtype) for name, dtype in BANDS.items()}
    properties = {
        "system:time_start": 1_688_240_949_000, "CLOUDY_PIXEL_PERCENTAGE": 1, "SNOW_ICE_PERCENTAGE": 1,
        "MEAN_SOLAR_AZIMUTH_ANGLE": 171.0, "MEAN_SOLAR_ZENITH_ANGLE": 48.0, "PROCESSING_BASELINE": "05.09",
    }  # fmt: skip
    return EarthEngineImage(values, GRID.affine, str(GRID.crs), properties)


@pytest.fixture(scope="module")
def running_proxy(image):
    with earth_engine_server({f"{COLLECTION}/{SCENE}": image}) as server, fault_proxy(server.url) as proxy:
        yield proxy


@pytest.fixture
def proxy(running_proxy):
    running_proxy.clear()
    yield running_proxy
    running_proxy.clear()


@pytest.fixture
def source(proxy):
    source = EarthEngineSource(
        project="test-project", endpoint=proxy.url, retries=2, retry_wait_s=0.01, requests_per_second=None
    )
    connect(source)
    proxy.clear()
    return source


@pytest.fixture
def item(source):
    return get_gee_item(SCENE, source)


def _download(scene, store, source):
    download_gee_s2_sr_scene(scene, store, MAPPING, source=source)


def _assert_whole(store, image):
    scene = raw_store.open_scene(store, raw_store.GEE, SCENE)
    assert scene.bands == ("B2", "B4", "SCL")
    for band in BANDS:
        got = np.concatenate([values for _, values in scene.strips(band)])
        np.testing.assert_array_equal(got, image.bands[band])


def _assert_absent(store):
    assert raw_store.list_scenes(store, raw_store.GEE) == []
    assert [path.name for path in store.iterdir() if not path.name.endswith(".lock")] == []


def _asked(proxy, what):
    return sum(what in path for _, path in proxy.requests)


PASSING = {
    "429": Fault(PIXELS, "status", status=429),
    "429 with Retry-After": Fault(PIXELS, "status", status=429, retry_after=0.2),
    "500": Fault(PIXELS, "status", status=500),
    "503": Fault(PIXELS, "status", status=503),
    "reset before the answer": Fault(PIXELS, "reset", after_bytes=-1),
    "reset in the body": Fault(PIXELS, "reset"),
    "truncated, right length": Fault(PIXELS, "truncate_right_length"),
    "truncated, short length": Fault(PIXELS, "truncate_short_length"),
    "truncated in the header": Fault(PIXELS, "truncate_short_length", after_bytes=20),
    "nothing at all": Fault(PIXELS, "truncate_short_length", after_bytes=0),
    "stall before the answer": Fault(PIXELS, "stall", after_bytes=-1, stall_s=20),
    "stall in the body": Fault(PIXELS, "stall", stall_s=20),
}


def _impatient(source, fault):
    """Only where silence is the fault, so that a busy machine is not taken for one."""
    return replace(source, timeout_s=1, retries=1) if fault.action == "stall" else source


@pytest.mark.parametrize("fault", cases(PASSING, "429 with Retry-After", "reset in the body", "stall in the body"))
def test_a_fault_that_passes_is_tried_again_until_the_scene_is_whole(tmp_path, proxy, source, item, image, fault):
    times = 1 if fault.action == "stall" else 2
    source = _impatient(source, fault)
    connect(source)
    proxy.clear()
    proxy.faults(replace(fault, times=times))
    _download(item, tmp_path, source)
    _assert_whole(tmp_path, image)
    assert _asked(proxy, PIXELS) == len(BANDS) + times


@pytest.mark.parametrize(
    "fault", cases(PASSING, "503", "truncated, short length", "nothing at all", "stall before the answer")
)
def test_a_fault_that_stays_is_one_error_and_no_scene(tmp_path, proxy, source, item, image, fault):
    source = _impatient(source, fault)
    tries = source.retries + 1
    connect(source)
    proxy.clear()
    proxy.faults(replace(fault, times=FOR_EVER))
    with pytest.raises(
        RemoteError, match=rf"scene {SCENE}, band B2, rows 0 to 96, columns 0 to 80.*{tries} tries"
    ) as caught:
        _download(item, tmp_path, source)
    if fault.action == "status":
        assert f"{HTTPStatus(fault.status).phrase} (HTTP {fault.status})" in str(caught.value)
    assert _asked(proxy, PIXELS) == tries
    _assert_absent(tmp_path)
    proxy.clear()
    _download(item, tmp_path, source)
    _assert_whole(tmp_path, image)


@pytest.mark.parametrize(
    ("status", "advice"),
    [(400, "Check what was asked"), (401, "earthengine authenticate"), (403, "project may use Earth Engine"),
     (404, "Check the id")],
)  # fmt: skip
def test_a_refusal_is_told_at_once_in_googles_words(tmp_path, proxy, source, item, status, advice):
    proxy.clear()
    message = {"error": {"code": status, "message": "Words of Google.", "status": "SOMETHING"}}
    proxy.faults(Fault(PIXELS, "status", status=status, body=json.dumps(message), content_type="application/json"))
    with pytest.raises(RemoteError, match=rf"band B2.*{advice}") as caught:
        _download(item, tmp_path, source)
    # The anonymous login cannot be renewed, which hides what was answered to it.
    assert "Words of Google" in str(caught.value) or status == 401
    assert _asked(proxy, PIXELS) == 1
    _assert_absent(tmp_path)


def test_an_expired_token_is_told_without_showing_it(tmp_path, proxy, source):
    credentials = Credentials("secret-token")
    expired = replace(source, credentials=credentials)
    connect(expired)
    proxy.faults(Fault(VALUES, "status", status=401))
    with pytest.raises(RemoteError, match=rf"scene {SCENE}.*no longer.*earthengine authenticate") as caught:
        _download(SCENE, tmp_path, expired)
    assert "secret-token" not in str(caught.value)
    _assert_absent(tmp_path)


def test_retry_after_is_obeyed(tmp_path, proxy, source, item, image):
    proxy.clear()
    proxy.faults(Fault(PIXELS, "status", status=429, retry_after=0.5, times=1))
    _download(item, tmp_path, source)
    first, second = [request.started_s for request in proxy.log if PIXELS in request.path][:2]
    assert second - first >= 0.5
    _assert_whole(tmp_path, image)


def test_a_service_that_asks_for_an_hour_is_not_waited_for(tmp_path, proxy, source, item):
    proxy.faults(Fault(PIXELS, "status", status=429, retry_after=3600))
    with pytest.raises(RemoteError, match="asks to wait for 3600 s"):
        _download(item, tmp_path, source)
    _assert_absent(tmp_path)


@pytest.mark.parametrize("before", [True, False])
def test_nothing_is_sent_once_stopped(before):
    stop, sent = threading.Event(), []

    def send():
        sent.append(1)
        threading.Timer(0.05, stop.set).start()
        raise ConnectionError("broken")

    if before:
        stop.set()
    with pytest.raises(RemoteError, match="not asked for" if before else "broken"):
        ask(EarthEngineSource(project="p", retries=3, retry_wait_s=30), "scene x", send, stop=stop)
    assert len(sent) == (0 if before else 1)


@pytest.mark.parametrize(
    "fault", [PASSING[name] for name in ("503", "reset in the body", "truncated, short length")], ids=lambda f: f.action
)
def test_questions_about_scenes_are_tried_again_and_named(tmp_path, proxy, source, image, fault):
    fault = replace(fault, match=VALUES)
    proxy.faults(replace(fault, times=2))
    _download(SCENE, tmp_path, source)
    _assert_whole(tmp_path, image)
    proxy.faults(replace(fault, times=1))
    assert list(search_gee_s2_sr(years=[2023], source=source)) == [SCENE]
    proxy.faults(replace(fault, times=FOR_EVER))
    with pytest.raises(RemoteError, match=rf"search in {COLLECTION}.*3 tries"):
        search_gee_s2_sr(years=[2023], source=source)
    with pytest.raises(RemoteError, match=rf"scene {SCENE}.*3 tries"):
        get_gee_item(SCENE, source)


ACTIONS = ["status", "reset", "stall", "truncate_right_length", "truncate_short_length"]


@pytest.mark.parametrize("what", ["discovery", "algorithms"])
@pytest.mark.parametrize("action", cases({action: action for action in ACTIONS}, "status", "truncate_short_length"))
def test_connecting_is_tried_again(proxy, source, what, action):
    fault = Fault(what, action, stall_s=20, times=1)
    anew = replace(_impatient(source, fault), project=f"project-{what}-{action.replace('_', '-')}"[:30])
    proxy.faults(fault)
    connect(anew)
    assert get_gee_item(SCENE, anew).id == SCENE


@pytest.mark.parametrize("what", ["discovery", "algorithms"])
def test_a_project_that_is_refused_is_named_in_googles_words(proxy, source, what):
    message = {"error": {"code": 403, "message": "Caller does not have required permission to use project other."}}
    proxy.faults(Fault(what, "status", status=403, body=json.dumps(message), content_type="application/json"))
    for _ in range(2):
        with pytest.raises(RemoteError, match=r"connecting.*required permission to use project other.*HTTP 403"):
            connect(replace(source, project="other-project"))
    assert _asked(proxy, what) == 2


def test_bands_that_cannot_be_had_leave_a_scene_as_it_was(tmp_path, proxy, source, item, image):
    download_gee_s2_sr_scene(item, tmp_path, {"B2": "blue"}, source=source)
    proxy.faults(Fault(PIXELS, "truncate_short_length"))
    with pytest.raises(RemoteError, match="band B4"):
        _download(item, tmp_path, source)
    assert raw_store.open_scene(tmp_path, raw_store.GEE, SCENE).bands == ("B2", "SCL")
    proxy.faults()
    _download(item, tmp_path, source)
    assert set(raw_store.open_scene(tmp_path, raw_store.GEE, SCENE).bands) == set(BANDS)


def test_several_tiles_are_in_flight_but_no_more_than_allowed(tmp_path, image, monkeypatch):
    monkeypatch.setattr(earth_engine_pixels, "TILE_PX", 20)
    with (
        earth_engine_server({f"{COLLECTION}/{SCENE}": image}) as server,
        fault_proxy(server.url, latency_s=0.05) as proxy,
    ):
        source = EarthEngineSource(project="test-project", endpoint=proxy.url, connections=5, requests_per_second=None)
        _download(SCENE, tmp_path, source)
        assert 4 <= proxy.max_in_flight <= 5
    _assert_whole(tmp_path, image)


def test_one_tile_of_many_that_cannot_be_had_is_named_and_leaves_no_scene(tmp_path, proxy, source, item, monkeypatch):
    monkeypatch.setattr(earth_engine_pixels, "TILE_PX", 20)
    proxy.clear()
    proxy.faults(Fault("nothing", "status", times=7), Fault(PIXELS, "truncate_short_length"))
    with pytest.raises(RemoteError, match="band B2, rows 0 to 19, columns 0 to 20"):
        _download(item, tmp_path, source)
    _assert_absent(tmp_path)


@pytest.mark.parametrize("requests_before", cases({"first": 1, "middle": 25, "last": 45}, "middle"))
def test_a_download_that_is_killed_leaves_no_scene_and_the_next_one_makes_it_whole(
    tmp_path, image, monkeypatch, requests_before
):
    monkeypatch.setattr(earth_engine_pixels, "TILE_PX", 20)
    server = earth_engine_server({f"{COLLECTION}/{SCENE}": image})
    with server as running, fault_proxy(running.url, latency_s=0.02) as proxy:
        source = EarthEngineSource(project="test-project", endpoint=proxy.url, connections=4, requests_per_second=None)
        child = multiprocessing.get_context("fork").Process(target=_download, args=(SCENE, tmp_path, source))
        child.start()
        while _asked(proxy, PIXELS) < requests_before:
            assert child.is_alive()
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert raw_store.list_scenes(tmp_path, raw_store.GEE) == []
        _download(SCENE, tmp_path, source)
    _assert_whole(tmp_path, image)
    assert [path.suffix for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == [".zarr"]
