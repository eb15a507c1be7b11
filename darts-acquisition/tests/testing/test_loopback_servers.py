import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
import numpy as np
import pystac_client
import pytest
import rasterio
import requests
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from darts_acquisition.testing import file_server, processes, s3_server, stac_server
from darts_utils.errors import ConfigError, MissingDataError, RemoteError

PACKAGE = Path(processes.__file__).parent


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


def collection(name: str = "c") -> dict:
    return {
        "type": "Collection", "stac_version": "1.1.0", "id": name, "description": "d", "license": "other", "links": [],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
    }  # fmt: skip


def items(count: int) -> list[dict]:
    return [
        {
            "type": "Feature", "stac_version": "1.1.0", "id": f"item-{n:04d}", "collection": "c",
            "geometry": {"type": "Point", "coordinates": [n / 10, 60]}, "bbox": [n / 10, 60, n / 10, 60],
            "properties": {"datetime": f"2024-01-{n % 28 + 1:02d}T00:00:00Z"}, "links": [], "assets": {},
        }
        for n in range(count)
    ]  # fmt: skip


def test_stac_server_gives_every_item_once_over_its_pages():
    with stac_server(collection(), items(25)) as url:
        assert url.endswith("/")
        found = [item.id for item in pystac_client.Client.open(url).search(collections=["c"], limit=7).items()]
    assert sorted(found) == [f"item-{n:04d}" for n in range(25)]


def test_stac_server_refuses_items_that_it_would_hide():
    with pytest.raises(ConfigError, match="item-0000"), stac_server(collection("other"), items(1)):
        pass


def test_a_program_that_is_not_installed_is_named():
    with pytest.raises(MissingDataError, match=r"no-such-server.*uv pip install 'its-package'"):
        processes.program("no-such-server", "its-package")


def test_a_server_that_does_not_start_shows_what_it_printed():
    with (
        pytest.raises(RemoteError, match="cannot do this"),
        processes.running(lambda _port: ["sh", "-c", "echo cannot do this; exit 3"], "/"),
    ):
        pass


def test_a_server_ends_with_its_block_also_on_an_exception():
    addresses = []

    def use_it():
        with stac_server(collection(), []) as url:
            addresses.append(url)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use_it()
    with pytest.raises(requests.ConnectionError):
        requests.get(addresses[0], timeout=5)


def test_s3_server_keeps_objects_for_those_with_keys(s3):
    s3.put("eodata", "a/b.bin", b"abc")
    assert s3.client.get_object(Bucket="eodata", Key="a/b.bin")["Body"].read() == b"abc"
    unsigned = boto3.client("s3", endpoint_url=s3.endpoint, region_name="x", config=Config(signature_version=UNSIGNED))
    with pytest.raises(ClientError, match="Forbidden"):
        unsigned.get_object(Bucket="eodata", Key="a/b.bin")


def test_s3_server_shows_public_objects_to_anybody(s3):
    s3.put("open", "a.bin", b"abc", public=True)
    assert requests.get(f"{s3.endpoint}/open/a.bin", timeout=5).content == b"abc"


def test_gdal_reads_from_s3_with_the_environment_given(s3, tmp_path, monkeypatch):
    pixels = np.arange(48, dtype="uint16").reshape(6, 8)
    with rasterio.open(tmp_path / "a.tif", "w", width=8, height=6, count=1, dtype="uint16") as file:
        file.write(pixels, 1)
    s3.put("eodata", "a.tif", (tmp_path / "a.tif").read_bytes())
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    with rasterio.open("s3://eodata/a.tif") as file:
        np.testing.assert_array_equal(file.read(1), pixels)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("files")
    (folder / "sub").mkdir()
    (folder / "sub" / "a b.bin").write_bytes(bytes(range(100)))
    (folder.parent / "outside.bin").write_bytes(b"no")
    with file_server(folder) as url:
        yield url


@pytest.mark.parametrize(
    ("asked", "status", "expected", "content_range"),
    [
        (None, 200, bytes(range(100)), None),
        ("bytes=10-19", 206, bytes(range(10, 20)), "bytes 10-19/100"),
        ("bytes=90-", 206, bytes(range(90, 100)), "bytes 90-99/100"),
        ("bytes=90-500", 206, bytes(range(90, 100)), "bytes 90-99/100"),
        ("bytes=-3", 206, bytes(range(97, 100)), "bytes 97-99/100"),
        ("bytes=100-", 416, b"", "bytes */100"),
        ("bytes=0-1,5-6", 200, bytes(range(100)), None),
    ],
)
def test_file_server_answers_ranges(files, asked, status, expected, content_range):
    response = requests.get(f"{files}/sub/a%20b.bin", headers={"Range": asked} if asked else {}, timeout=5)
    assert (response.status_code, response.content) == (status, expected)
    assert response.headers.get("Content-Range") == content_range


def test_file_server_answers_head_and_unchanged_files(files):
    head = requests.head(f"{files}/sub/a%20b.bin", timeout=5)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "100", b"")
    again = requests.get(f"{files}/sub/a%20b.bin", headers={"If-None-Match": head.headers["ETag"]}, timeout=5)
    assert again.status_code == 304


@pytest.mark.parametrize("path", ["/none.bin", "/sub", "/", "/..%2Foutside.bin"])
def test_file_server_shows_nothing_but_its_files(files, path):
    assert requests.get(files + path, timeout=5).status_code == 404


def test_gdal_reads_a_raster_from_the_file_server(tmp_path):
    pixels = np.arange(90000, dtype="float32").reshape(300, 300)
    profile = {"width": 300, "height": 300, "count": 1, "dtype": "float32", "tiled": True, "blockxsize": 64}
    with rasterio.open(tmp_path / "a.tif", "w", blockysize=64, **profile) as file:
        file.write(pixels, 1)
    with file_server(tmp_path) as url, rasterio.open(f"/vsicurl/{url}/a.tif") as file:
        np.testing.assert_array_equal(file.read(1), pixels)


def test_no_thread_stays_behind(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({}))
    before = set(threading.enumerate())
    with file_server(tmp_path) as url, requests.Session() as session:
        session.get(f"{url}/a.json", timeout=5)  # leaves its connection open
    assert not set(threading.enumerate()) - before


def test_servers_end_when_we_are_killed():
    # The package without its __init__.py, which takes seconds to import.
    script = f"""
import sys, time, types
for name, path in (("darts_acquisition", {str(PACKAGE.parent)!r}), ("darts_acquisition.testing", {str(PACKAGE)!r})):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from darts_acquisition.testing.faults import fault_proxy
from darts_acquisition.testing.files import file_server
from darts_acquisition.testing.stac import stac_server
with file_server(".") as files, fault_proxy(files) as proxy, stac_server({collection()!r}, []) as stac:
    print(files, proxy.url, stac, flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        addresses = process.stdout.readline().split()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert len(addresses) == 3
    end = time.monotonic() + 20
    while time.monotonic() < end and any(answers(address) for address in addresses):
        time.sleep(0.05)
    assert [answers(address) for address in addresses] == [False] * 3


def answers(address: str) -> bool:
    try:
        requests.get(address, timeout=5)
    except requests.ConnectionError:
        return False
    return True
