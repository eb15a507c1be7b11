"""Whatever goes wrong on the way, a chunk that counts as filled holds every pixel of the mosaic."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

import darts_acquisition as da
from darts_acquisition import stac_client, transfers
from darts_acquisition.arcticdem_source import arcticdem_fetcher
from darts_acquisition.testing import Fault, cql2_stac_server, file_server, make_pgc_collection
from darts_acquisition.testing.arcticdem_mosaic import TILE, Mosaic, serve_mosaic
from darts_utils.errors import ConfigError, RemoteError

from .parameters import cases

DEM = "41_16_10m_v4.1_dem.tif"
BLOCKS = rf"GET .*{re.escape(DEM)}"


@pytest.fixture(scope="module")
def _mosaic(tmp_path_factory):
    with serve_mosaic(tmp_path_factory.mktemp("mosaic")) as mosaic:
        yield mosaic


@pytest.fixture
def mosaic(_mosaic: Mosaic, monkeypatch):
    monkeypatch.setattr(transfers, "BACKOFF_S", 0.01)
    monkeypatch.setattr(stac_client, "BACKOFF_S", 0.01)
    yield _mosaic
    _mosaic.api.clear()
    _mosaic.files.clear()


@pytest.fixture
def cube(tmp_path) -> da.Cube:
    return da.create_arcticdem_cube(tmp_path / "arcticdem_10m.icechunk", 10, chunk=100)


def _download(cube: da.Cube, mosaic: Mosaic, **changes) -> None:
    da.download_arcticdem(TILE, cube.path, 10, source=replace(mosaic.source, **changes))


def _check_filled(cube: da.Cube, mosaic: Mosaic) -> int:
    """Check every pixel of the chunks that count as filled; return how many these are."""
    missing = cube.missing(TILE)
    filled = [chunk for chunk in cube.chunks_touching(TILE) if chunk not in missing]
    for chunk in filled:
        dem, mask = mosaic.on(chunk)
        stored = cube.read(chunk)
        np.testing.assert_array_equal(stored["dem"], dem)
        np.testing.assert_array_equal(stored["datamask"], mask)
    return len(filled)


def _check_whole(cube: da.Cube, mosaic: Mosaic) -> None:
    assert cube.missing(TILE) == []
    assert _check_filled(cube, mosaic) == len(cube.chunks_touching(TILE)) > 0


PASSING = {
    "429": Fault(BLOCKS, "status", status=429, times=2),
    "429 with Retry-After": Fault(BLOCKS, "status", status=429, retry_after=0.05, times=2),
    "500": Fault(BLOCKS, "status", status=500, times=2),
    "503": Fault(BLOCKS, "status", status=503, times=3),
    "reset before the body": Fault(BLOCKS, "reset", after_bytes=-1, times=2),
    "reset within the body": Fault(BLOCKS, "reset", times=2),
    "truncated, right length": Fault(BLOCKS, "truncate_right_length", times=2),
    "truncated, short length": Fault(BLOCKS, "truncate_short_length", times=2),
    "stall before the body": Fault(BLOCKS, "stall", after_bytes=-1, times=1),
    "stall within the body": Fault(BLOCKS, "stall", times=1),
    "whole file for a range": Fault(BLOCKS, "ignore_range", times=2),
    "corrupt": Fault(BLOCKS, "corrupt", times=1),
}


@pytest.mark.parametrize(
    "fault",
    cases(PASSING, "503", "reset within the body", "stall within the body", "whole file for a range", "corrupt"),
)
def test_a_fault_of_a_file_that_passes_is_overcome(mosaic, cube, fault):
    mosaic.files.faults(fault)
    _download(cube, mosaic)
    _check_whole(cube, mosaic)
    assert sum(request.fault is not None for request in mosaic.files.log) == fault.times


LASTING = {
    "403": (Fault(BLOCKS, "status", status=403), "403.*permission"),
    "404": (Fault(BLOCKS, "status", status=404), "404"),
    "429": (Fault(BLOCKS, "status", status=429), "429.*last of 4 tries"),
    "429 with a long Retry-After": (Fault(BLOCKS, "status", status=429, retry_after=7200), "429.*wait for 7200 s"),
    "500": (Fault(BLOCKS, "status", status=500), "500.*last of 4 tries"),
    "reset": (Fault(BLOCKS, "reset"), "connection broke.*last of 4 tries"),
    "truncated, right length": (Fault(BLOCKS, "truncate_right_length"), "connection broke.*last of 4 tries"),
    "truncated, short length": (Fault(BLOCKS, "truncate_short_length"), r"last of 4 tries"),
    "whole file for a range": (Fault(BLOCKS, "ignore_range"), "whole file.*last of 4 tries"),
    "corrupt": (Fault(BLOCKS, "corrupt"), "damaged.*3 times fetched"),
}


@pytest.mark.parametrize(("fault", "message"), cases(LASTING, "404", "429", "truncated, short length", "corrupt"))
def test_a_fault_of_a_file_that_lasts_is_one_error_and_no_chunk_claims_more_than_it_has(mosaic, cube, fault, message):
    mosaic.files.faults(fault)
    with pytest.raises(RemoteError, match=message) as caught:
        _download(cube, mosaic)
    for part in ("arcticdem_10m.icechunk", "chunk x ", "item 41_16_10m_v4.1, asset dem", f"/{DEM}"):
        assert part in str(caught.value)
    filled = _check_filled(cube, mosaic)
    assert filled < len(cube.chunks_touching(TILE))
    if fault.status in (403, 404) and fault.action == "status":
        # Asked once by each of those in flight.
        assert len([r for r in mosaic.files.log if DEM in r.path]) <= mosaic.source.connections
    mosaic.files.clear()
    _download(cube, mosaic)
    _check_whole(cube, mosaic)


def test_a_server_that_stays_silent_is_an_error(mosaic, cube):
    mosaic.files.faults(Fault(BLOCKS, "stall"))
    with pytest.raises(RemoteError, match=r"silent for 0\.3 s.*last of 2 tries"):
        _download(cube, mosaic, timeout_s=0.3, retries=1)
    _check_filled(cube, mosaic)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["corrupt", "truncate_short_length", "reset", "ignore_range"])
def test_a_mask_is_as_well_guarded_as_elevation(mosaic, cube, fault):
    mask = r"GET .*41_17_10m_v4\.1_datamask"
    mosaic.files.faults(Fault(mask, fault))
    with pytest.raises(RemoteError, match=r"item 41_17_10m_v4\.1, asset datamask"):
        _download(cube, mosaic)
    _check_filled(cube, mosaic)
    mosaic.files.faults(Fault(mask, fault, times=1))
    _download(cube, mosaic)
    _check_whole(cube, mosaic)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST /search", "status", status=503, times=2),
        Fault("POST /search", "status", status=429, retry_after=0.05, times=1),
        Fault("POST /search", "reset", times=2),
        Fault("POST /search", "truncate_right_length", times=2),
        Fault("POST /search", "truncate_short_length", times=2),
        Fault("POST /search", "stall", times=1),
        Fault("GET /", "status", status=500, times=1),
    ],
    ids=lambda fault: f"{fault.match} {fault.action}",
)
def test_a_fault_of_the_search_that_passes_is_overcome(mosaic, cube, fault):
    mosaic.api.faults(fault)
    _download(cube, mosaic)
    _check_whole(cube, mosaic)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("POST /search", "status", status=503), "pgc.*search.*503"),
        (Fault("POST /search", "status", status=400), "pgc.*search.*400"),
        (Fault("POST /search", "truncate_short_length"), "pgc.*search.*JSON"),
        (Fault("GET /", "status", status=404), "pgc.*404"),
    ],
    ids=lambda value: f"{value.match} {value.action} {value.status}" if isinstance(value, Fault) else "",
)
def test_a_search_that_fails_is_an_error_and_no_sea(mosaic, cube, fault, message):
    mosaic.api.faults(fault)
    with pytest.raises(RemoteError, match=message):
        _download(cube, mosaic)
    assert cube.missing(TILE) == cube.chunks_touching(TILE)


def test_a_search_that_finds_less_than_it_says_is_an_error_and_no_sea(mosaic, cube):
    def page(items, **changes):
        body = json.dumps({"type": "FeatureCollection", "features": items, "numberMatched": 4, "links": []})
        return Fault("POST /search", "status", status=203, body=body, content_type="application/json", **changes)

    # The first search asks whether the collection has any item.
    mosaic.api.faults(page(mosaic.items[:1], times=1), page([]))
    with pytest.raises(RemoteError, match="4 items match, but sent 0"):
        _download(cube, mosaic)
    assert cube.missing(TILE) == cube.chunks_touching(TILE)


def test_secrets_of_the_api_are_not_shown(mosaic):
    address = f"{mosaic.source.endpoint.replace('http://', 'http://user:password@')}?token=hidden"
    source = replace(mosaic.source, endpoint=address, collections={10: "none"})
    with pytest.raises(RemoteError) as caught:
        arcticdem_fetcher(10, source)
    assert "password" not in str(caught.value)
    assert "hidden" not in str(caught.value)
    with pytest.raises(ConfigError) as refused:
        replace(source, endpoint="ftp://user:password@host")
    assert "password" not in str(refused.value)


def _with_items(mosaic: Mosaic, change):
    items = json.loads(json.dumps(mosaic.items))
    for item in items:
        change(item)
    return cql2_stac_server(make_pgc_collection(10), items)


def _without_assets(item):
    item["assets"] = {}


def _without_mask(item):
    del item["assets"]["datamask"]


def _in_antarctica(item):
    item["properties"]["proj:code"] = "EPSG:3031"


def _without_type(item):
    item["type"] = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_type, "sent an item that cannot be read: .*does not represent"),
        (_without_assets, "item 41_16_10m_v4.1 of arcticdem-mosaics-v4.1-10m has no asset dem; it has none"),
        (_without_mask, "item 41_1[67]_10m_v4.1 of .* has no asset datamask; it has dem"),
        (_in_antarctica, "item 41_1[67]_10m_v4.1 of .* is in EPSG:3031.*EPSG:3413"),
    ],
)
def test_an_item_that_cannot_be_read_is_an_error_that_names_it(mosaic, cube, change, message):
    with _with_items(mosaic, change) as server, pytest.raises(RemoteError, match=message):
        _download(cube, mosaic, endpoint=server.url)
    _check_filled(cube, mosaic)


def test_items_that_do_not_say_where_they_lie_are_looked_at(mosaic, cube):
    def change(item):
        item["properties"] = {"datetime": item["properties"]["datetime"]}

    with _with_items(mosaic, change) as server:
        _download(cube, mosaic, endpoint=server.url)
    _check_whole(cube, mosaic)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"crs": "EPSG:3031"}, "it is in EPSG:3031, but EPSG:3413 is expected"),
        ({"crs": None}, "it is in no CRS"),
        ({"transform": rasterio.Affine(12, 0, -2_405_770, 0, -12, 29_620)}, "pixels measure 12 × -12"),
    ],
    ids=["another CRS", "no CRS", "other pixels"],
)
def test_a_file_on_another_grid_is_an_error(mosaic, cube, tmp_path, profile, message):
    def change(item):
        for asset in item["assets"].values():
            asset["href"] = f"{address}/other.tif"

    folder = tmp_path / "files"
    folder.mkdir()
    grid = {"driver": "GTiff", "height": 200, "width": 200, "count": 1, "dtype": "float32", "crs": "EPSG:3413"}
    transform = rasterio.Affine(10, 0, -2_405_770, 0, -10, 29_620)
    with rasterio.open(folder / "other.tif", "w", **grid | {"transform": transform} | profile) as file:
        file.write(np.ones((1, 200, 200), "float32"))
    with (
        file_server(folder) as address,
        _with_items(mosaic, change) as server,
        pytest.raises(RemoteError, match=message),
    ):
        _download(cube, mosaic, endpoint=server.url)
    assert _check_filled(cube, mosaic) < len(cube.chunks_touching(TILE))


@pytest.mark.parametrize("value", [1e8, -5000.0])
def test_impossible_elevations_are_damage(mosaic, cube, tmp_path, value):
    folder = tmp_path / "files"

    def change(item):
        for asset in item["assets"].values():
            path = asset["href"].removeprefix(mosaic.files.url)
            asset["href"] = f"{address}/{Path(path).name}"
            with rasterio.open(mosaic_file(path)) as source:
                profile, values = source.profile, source.read()
            if path.endswith("dem.tif"):
                values[0, 40:60] = value
            with rasterio.open(folder / Path(path).name, "w", **profile) as file:
                file.write(values)

    def mosaic_file(path: str) -> str:
        return f"/vsicurl/{mosaic.files.url}{path}"

    folder.mkdir()
    with (
        file_server(folder) as address,
        _with_items(mosaic, change) as server,
        pytest.raises(RemoteError, match=r"damaged \(elevations from"),
    ):
        _download(cube, mosaic, endpoint=server.url)
    _check_filled(cube, mosaic)


def test_messages_hold_no_signature(mosaic, cube):
    def sign(item):
        for asset in item["assets"].values():
            asset["href"] += "?X-Amz-Signature=secret"

    mosaic.files.faults(Fault(BLOCKS, "status", status=403))
    with _with_items(mosaic, sign) as server, pytest.raises(RemoteError) as caught:
        _download(cube, mosaic, endpoint=server.url)
    assert "secret" not in str(caught.value)
    assert DEM in str(caught.value)
