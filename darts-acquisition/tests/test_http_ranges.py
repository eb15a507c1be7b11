import threading

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition import http_ranges, transfers
from darts_acquisition.http_ranges import GAP_BYTES, LONGEST_RANGE_BYTES, RangeServer, RemoteFile, range_session
from darts_acquisition.remote_rasters import read_overlap
from darts_acquisition.testing import Fault, fault_proxy, file_server
from darts_acquisition.transfers import StoppedError
from darts_utils.errors import RemoteError

CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture(scope="module")
def _served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    with file_server(folder) as address, fault_proxy(address) as proxy:
        yield folder, proxy


@pytest.fixture
def served(_served, monkeypatch):
    monkeypatch.setattr(transfers, "BACKOFF_S", 0.01)
    _served[1].clear()
    (_served[0] / "file.bin").write_bytes(CONTENT)
    return _served


def _file(proxy, **settings) -> RemoteFile:
    return RemoteFile(f"{proxy.url}/file.bin", "some file", RangeServer(range_session(2), **settings))


def test_what_is_read_is_what_the_file_holds(served):
    file = _file(served[1])
    for start, length in ((0, 10), (2_999_990, 100), (1_000_000, 70_000), (1_000_010, 5), (3_000_000, 1)):
        assert file.read(start, length) == CONTENT[start : start + length]
    assert file.size == len(CONTENT)


def test_ranges_fetched_ahead_are_not_asked_for_again_and_neighbours_share_a_request(served):
    file = _file(served[1])
    near, far = 100_000 + GAP_BYTES // 2, 2_000_000
    file.fetch_ahead([(far, far + 100), (0, 100_000), (near, near + 50_000)])
    assert [entry.range for entry in served[1].log] == [f"bytes=0-{near + 49_999}", f"bytes={far}-{far + 99}"]
    assert file.read(near, 50_000) == CONTENT[near : near + 50_000]
    assert file.read(far, 100) == CONTENT[far : far + 100]
    assert len(served[1].log) == 2


def test_no_request_is_longer_than_the_limit_unless_one_range_is():
    ranges = [(n * 1_000_000, (n + 1) * 1_000_000) for n in range(20)]
    merged = http_ranges._merged(ranges)
    assert merged[0][0] == 0
    assert merged[-1][1] == 20_000_000
    assert all(end - start <= LONGEST_RANGE_BYTES for start, end in merged)
    assert [end for _, end in merged[:-1]] == [start for start, _ in merged[1:]]


def test_a_body_that_breaks_off_is_continued_where_it_ended(served):
    served[1].faults(Fault("GET", "truncate_right_length", after_bytes=700_000, times=1))
    file = _file(served[1])
    file.fetch_ahead([(1000, 2_000_000)])
    assert file.read(1000, 1_999_000) == CONTENT[1000:2_000_000]
    first, second = [int(entry.range.removeprefix("bytes=").split("-")[0]) for entry in served[1].log]
    assert first == 1000
    assert 400_000 < second <= 701_000


def test_a_file_that_changes_while_it_is_read_is_an_error(served):
    file = _file(served[1])
    file.read(0, 10)
    (served[0] / "file.bin").write_bytes(CONTENT[::-1])
    with pytest.raises(RemoteError, match=r"some file, http.*/file\.bin: the file changed"):
        file.read(2_000_000, 10)


def test_reading_stops_when_told_to(served):
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        _file(served[1], stop=stop).read(0, 10)
    assert served[1].log == []


def test_a_wait_ends_when_told_to_stop(served, monkeypatch):
    monkeypatch.setattr(transfers, "BACKOFF_S", 1000)
    monkeypatch.setattr(transfers, "MAX_BACKOFF_S", 1000)
    stop = threading.Event()
    served[1].faults(Fault("GET", "status"))
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(StoppedError):
        _file(served[1], stop=stop).read(0, 10)


def test_nobody_there_is_an_error_that_names_the_file():
    file = RemoteFile("http://127.0.0.1:9/file.bin?token=secret", "some file", RangeServer(range_session(1), retries=0))
    with pytest.raises(RemoteError, match=r"some file, http://127\.0\.0\.1:9/file\.bin: .*refused") as caught:
        file.read(0, 10)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("compress", "tiled"), [("deflate", True), ("lzw", True), ("none", True), ("none", False)])
def test_of_a_raster_only_the_blocks_of_a_window_are_fetched(served, compress, tiled):
    folder, proxy = served
    values = np.random.default_rng(1).normal(size=(1000, 1500)).astype("float32")
    profile = {"driver": "GTiff", "height": 1000, "width": 1500, "count": 1, "dtype": "float32", "crs": "EPSG:3413"}
    if tiled:
        profile |= {"tiled": True, "blockxsize": 128, "blockysize": 128}
    with rasterio.open(
        folder / "file.bin", "w", **profile, compress=compress, transform=Affine(10, 0, 0, 0, -10, 0)
    ) as file:
        file.write(values, 1)
    block = GeoBox((90, 80), Affine(10, 0, 7000, 0, -10, -9400), "EPSG:3413")
    overlap = read_overlap(
        f"{proxy.url}/file.bin", block, what="it", server=RangeServer(range_session(1)), decode=lambda v, nodata: v
    )
    assert overlap is not None
    # The raster ends 60 rows into the block.
    np.testing.assert_array_equal(overlap.values, values[940:1000, 700:780])
    assert overlap.place == (slice(0, 60), slice(0, 80))
    asked = [entry.range.removeprefix("bytes=").split("-") for entry in proxy.log]
    assert sum(int(end) + 1 - int(start) for start, end in asked) < (folder / "file.bin").stat().st_size / 4
