"""Scenes of STAC archives: fetched from servers on 127.0.0.1, into the store, as tiles; and what does not fit."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pystac
import pytest
from odc.geo.geobox import GeoBox
from rasterio import Affine, Env
from rasterio.io import MemoryFile

import darts_acquisition as da
from darts_acquisition import transfers
from darts_acquisition.cdse import load_cdse_s2_sr_scene
from darts_acquisition.stac_scenes import download_scene, download_size
from darts_acquisition.stac_sources import CDSE_SOURCE, EARTH_SEARCH_SOURCE
from darts_acquisition.testing import fault_proxy, file_server, s3_server
from darts_acquisition.testing.scene_files import cog_bytes, jp2_bytes
from darts_acquisition.testing.sentinel2 import make_cdse_scene, make_earth_search_scene
from darts_utils.errors import GridMismatchError, MissingBandError, RemoteError

from .test_decode import GEOBOX, brute_force

CDSE_ID = "S2A_MSIL2A_20240719T204021_N0511_R014_T08WMA_20240720T003015"
COG_ID = "S2A_T08WMA_20240719T204021_L2A"
BANDS = {"B02_10m": "blue", "B03_10m": "green", "B04_10m": "red", "B08_10m": "nir"}
ALL_BANDS = BANDS | {"B11_20m": "swir16", "B09_60m": "nir09"}


class Counter:
    def __init__(self):
        self.bytes = 0

    def received(self, n_bytes):
        self.bytes += n_bytes


@pytest.fixture(scope="module")
def cdse():
    """A scene of the Copernicus Data Space: item, files by asset, keys on S3 by asset."""
    item, files = make_cdse_scene(CDSE_ID, GEOBOX, bands=(*ALL_BANDS, "SCL_20m"), block=64)
    keys = {name: asset["href"].removeprefix("s3://eodata/") for name, asset in item["assets"].items()}
    return SimpleNamespace(
        item=pystac.Item.from_dict(item), files={name: files[key] for name, key in keys.items()}, keys=keys
    )


@pytest.fixture(scope="module")
def served(cdse, tmp_path_factory):
    """(S3, proxy before it, proxy before HTTP, the folder behind that)"""
    folder = tmp_path_factory.mktemp("cogs")
    with s3_server() as s3, file_server(folder) as files, fault_proxy(s3.endpoint) as s3_proxy:
        for name, data in cdse.files.items():
            s3.put("eodata", cdse.keys[name], data)
        with fault_proxy(files) as files_proxy:
            yield s3, s3_proxy, files_proxy, folder


@pytest.fixture
def s3(served, monkeypatch):
    """(proxy, source) of the scene in JPEG 2000 on S3."""
    server, proxy, _, _ = served
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(transfers, "BACKOFF_S", 0.01)
    proxy.clear()
    return proxy, replace(CDSE_SOURCE, s3_endpoint=proxy.url, requests_per_second=None, timeout_s=5, retries=2)


@pytest.fixture(scope="module")
def cog(served):
    """A scene of COGs, without sizes and checksums: item, files by asset."""
    _, _, proxy, folder = served
    bands = ("blue", "green", "red", "nir", "swir16", "scl")
    item, files = make_earth_search_scene(COG_ID, GEOBOX, base_url=proxy.url, bands=bands, block=128)
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    for asset in item["assets"].values():
        del asset["file:size"], asset["file:checksum"]
    by_asset = {name: files[asset["href"].removeprefix(f"{proxy.url}/")] for name, asset in item["assets"].items()}
    return SimpleNamespace(item=pystac.Item.from_dict(item), files=by_asset)


COG_SOURCE = replace(EARTH_SEARCH_SOURCE, requests_per_second=None)


def read(store, scene_id, band, prefix=da.CDSE):
    scene = da.open_scene(store, prefix, scene_id)
    return np.concatenate([values for _, values in scene.strips(band)])


def decoded(data):
    """The pixels of a file, read whole by rasterio."""
    with Env(GDAL_NUM_THREADS="1"), MemoryFile(data) as memory, memory.open() as file:
        return file.read(1)


def with_assets(made, **fields):
    """A copy of the item with other fields in all assets; None takes one away."""
    item = copy.deepcopy(made.item.to_dict(include_self_link=False))
    for asset in item["assets"].values():
        for name, value in fields.items():
            asset.pop(name, None)
            if value is not None:
                asset[name] = value
    return pystac.Item.from_dict(item)


# ---- numbers ----


def test_a_scene_of_jpeg_2000_on_s3_comes_into_the_store_as_rasterio_reads_it(cdse, s3, tmp_path):
    _, source = s3
    fetched = download_scene(cdse.item, tmp_path, source, ALL_BANDS)
    assert fetched == (*ALL_BANDS, "SCL_20m")
    scene = da.open_scene(tmp_path, da.CDSE, CDSE_ID)
    assert scene.bands == fetched
    assert scene.info.geobox == GEOBOX
    for band in BANDS:
        np.testing.assert_array_equal(read(tmp_path, CDSE_ID, band), decoded(cdse.files[band]))
        assert scene.scaling(band) == (1e-4, -0.1)
    classes = decoded(cdse.files["SCL_20m"])
    np.testing.assert_array_equal(read(tmp_path, CDSE_ID, "SCL_20m"), np.kron(classes, np.ones((2, 2), "uint8")))
    for band, factor in (("B11_20m", 2), ("B09_60m", 6)):
        exact = brute_force(decoded(cdse.files[band]), factor)
        values = read(tmp_path, CDSE_ID, band)
        assert values.dtype == np.uint16
        assert np.abs(values - exact).max() <= 0.5 + 1e-2
        np.testing.assert_array_equal(values == 0, exact == 0)
    assert [entry.name for entry in tmp_path.iterdir()] == [f"cdse-s2-sr-scene-{CDSE_ID}.zarr"]


def test_the_tile_of_a_downloaded_scene_has_reflectance_masks_sun_and_grid_of_the_files(cdse, s3, tmp_path):
    _, source = s3
    tile = load_cdse_s2_sr_scene(cdse.item, store=tmp_path, device="cpu", source=source)
    assert tile.odc.geobox == GEOBOX
    assert tile.attrs["azimuth"] == 178.25
    assert tile.attrs["elevation"] == 43.5
    assert tile.attrs["acquisition_time"] == "2024-07-19T20:40:21Z"
    classes = np.kron(decoded(cdse.files["SCL_20m"]), np.ones((2, 2), "uint8"))
    valid = np.ones(GEOBOX.shape.yx, bool)
    for asset, name in BANDS.items():
        dn = decoded(cdse.files[asset]).astype("float64")
        np.testing.assert_allclose(tile[name], np.where(dn == 0, np.nan, dn * 1e-4 - 0.1), atol=1e-7)
        valid &= dn != 0
    np.testing.assert_array_equal(tile["s2_scl"], classes)
    expected = np.select([np.isin(classes, (0, 1)) | ~valid, np.isin(classes, (2, 4, 5, 6, 7, 10))], [0, 2], 1)
    np.testing.assert_array_equal(tile["quality_data_mask"], expected)


def test_a_scene_of_cogs_over_http_without_sizes_and_checksums_comes_in_too(cog, tmp_path):
    bands = COG_SOURCE.bands("blue", "green", "red", "nir", "swir16")
    tile = load_cdse_s2_sr_scene(cog.item, bands, tmp_path, device="cpu", source=COG_SOURCE)
    dn = decoded(cog.files["red"]).astype("float64")
    np.testing.assert_allclose(tile["red"], np.where(dn == 0, np.nan, dn * 1e-4 - 0.1), atol=1e-7)
    assert da.list_scenes(tmp_path, "earth-search-s2-sr-scene") == [COG_ID]
    assert "earth-search" in tile["red"].attrs["data_source"]


def test_an_offset_that_was_taken_off_already_is_not_taken_off_again(cog, tmp_path):
    item = with_assets(cog)
    item.properties["earthsearch:boa_offset_applied"] = True
    tile = load_cdse_s2_sr_scene(item, {"red": "red"}, tmp_path, device="cpu", source=COG_SOURCE)
    dn = decoded(cog.files["red"]).astype("float64")
    np.testing.assert_allclose(tile["red"], np.where(dn == 0, np.nan, dn * 1e-4), atol=1e-7)


# ---- what is fetched ----


def test_only_what_the_store_lacks_is_fetched(cdse, s3, tmp_path):
    proxy, source = s3
    assert download_scene(cdse.item, tmp_path, source, {"B02_10m": "blue"}) == ("B02_10m", "SCL_20m")
    proxy.clear()
    assert download_scene(cdse.item, tmp_path, source, {"B02_10m": "blue", "B11_20m": "swir16"}) == ("B11_20m",)
    assert [path.rpartition("_B")[2] for _, path in proxy.requests] == ["11_20m.jp2"]
    assert da.open_scene(tmp_path, da.CDSE, CDSE_ID).bands == ("B02_10m", "SCL_20m", "B11_20m")
    proxy.clear()
    assert download_scene(cdse.item, tmp_path, source, {"B11_20m": "swir16"}) == ()
    assert proxy.requests == []


def test_the_size_to_fetch_is_that_of_what_the_store_lacks(cdse, cog, s3, tmp_path):
    _, source = s3
    sizes = {name: len(data) for name, data in cdse.files.items()}
    assert download_size(cdse.item, tmp_path, source, BANDS) == sum(sizes[name] for name in (*BANDS, "SCL_20m"))
    counter = Counter()
    download_scene(cdse.item, tmp_path, source, {"B02_10m": "blue"}, report=counter)
    assert counter.bytes == sizes["B02_10m"] + sizes["SCL_20m"]
    assert download_size(cdse.item, tmp_path, source, BANDS) == sum(sizes[name] for name in BANDS) - sizes["B02_10m"]
    download_scene(cdse.item, tmp_path, source, BANDS)
    assert download_size(cdse.item, tmp_path, source, BANDS) == 0
    assert download_size(cog.item, tmp_path, COG_SOURCE, COG_SOURCE.bands("red")) is None


def test_at_least_four_assets_are_in_flight(cdse, served, s3, tmp_path):
    server, _, _, _ = served
    _, source = s3
    with fault_proxy(server.endpoint, latency_s=0.3) as slow:
        download_scene(cdse.item, tmp_path, replace(source, s3_endpoint=slow.url), BANDS)
        assert slow.max_in_flight >= 4


def test_scenes_at_once_share_the_connections_of_the_source(cdse, served, s3, tmp_path):
    server, _, _, _ = served
    _, source = s3
    with fault_proxy(server.endpoint, latency_s=0.1) as slow, ThreadPoolExecutor(3) as pool:
        source = replace(source, s3_endpoint=slow.url, connections=5)
        jobs = [pool.submit(download_scene, cdse.item, tmp_path / str(n), source, BANDS) for n in range(3)]
        assert [len(job.result()) for job in jobs] == [5, 5, 5]
        assert slow.max_in_flight == 5


def test_a_store_that_has_all_or_an_offline_run_sends_nothing(cdse, s3, tmp_path):
    proxy, source = s3
    source = replace(source, endpoint="http://127.0.0.1:9/")
    download_scene(cdse.item, tmp_path, source, BANDS)
    proxy.clear()
    online = load_cdse_s2_sr_scene(CDSE_ID, store=tmp_path, device="cpu", source=source)
    offline = load_cdse_s2_sr_scene(CDSE_ID, store=tmp_path, offline=True, device="cpu", source=source)
    assert online.identical(offline)
    with pytest.raises(MissingBandError, match="B11_20m"):
        load_cdse_s2_sr_scene(CDSE_ID, {"B11_20m": "swir16"}, tmp_path, offline=True, source=source)
    assert proxy.requests == []


def test_without_a_store_a_scene_is_loaded_and_nothing_is_kept(cdse, s3, tmp_path, monkeypatch):
    _, source = s3
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tile = load_cdse_s2_sr_scene(cdse.item, source=source, device="cpu")
    assert tile.odc.geobox == GEOBOX
    assert list(tmp_path.iterdir()) == []


# ---- items and files that do not fit ----


def assert_absent(store):
    assert da.list_scenes(store, da.CDSE) == []
    assert not store.exists() or list(store.iterdir()) == []


def test_an_item_without_assets_or_without_one_is_an_error_that_names_it(cdse, s3, tmp_path):
    proxy, source = s3
    item = cdse.item.clone()
    del item.assets["B04_10m"]
    with pytest.raises(MissingBandError, match=rf"{CDSE_ID}.*B04_10m"):
        download_scene(item, tmp_path, source, BANDS)
    item.assets = {}
    with pytest.raises(MissingBandError, match=rf"{CDSE_ID}.*none at all"):
        download_scene(item, tmp_path, source, BANDS)
    assert proxy.requests == []
    assert_absent(tmp_path)


def test_an_item_in_another_crs_is_an_error_before_anything_is_fetched(cdse, s3, tmp_path):
    proxy, source = s3
    with pytest.raises(RemoteError, match=rf"{CDSE_ID}.*EPSG:4326.*UTM"):
        download_scene(with_assets(cdse, **{"proj:code": "EPSG:4326"}), tmp_path, source, BANDS)
    assert proxy.requests == []
    assert_absent(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"proj:code": "EPSG:32609"},
        {"proj:transform": [10, 0, 399960, 0, -10, 7600030]},
        {"proj:shape": [10980, 10980]},
    ],
)
def test_files_on_another_grid_than_the_item_says_are_an_error(cdse, s3, tmp_path, fields):
    _, source = s3
    with pytest.raises(GridMismatchError, match=rf"{CDSE_ID}, asset \w+: s3://eodata/.*grid"):
        download_scene(with_assets(cdse, **fields), tmp_path, source, {"B02_10m": "blue", "B03_10m": "green"})
    assert_absent(tmp_path)


def test_an_item_that_describes_no_grid_takes_it_from_the_files(cdse, s3, tmp_path):
    _, source = s3
    item = with_assets(cdse, **{"proj:code": None, "proj:shape": None, "proj:transform": None})
    download_scene(item, tmp_path, source, ALL_BANDS)
    assert da.open_scene(tmp_path, da.CDSE, CDSE_ID).info.geobox == GEOBOX
    np.testing.assert_array_equal(read(tmp_path, CDSE_ID, "B08_10m"), decoded(cdse.files["B08_10m"]))


def _replaced(served, name, data):
    """Put another file on S3 and return an item's asset fields that fit it."""
    served[0].put("eodata", f"other/{name}.jp2", data)
    return f"s3://eodata/other/{name}.jp2"


POLAR = Affine(10, 0, -2_000_000, 0, -10, 500_000)


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda dn: jp2_bytes(dn, GeoBox(GEOBOX.shape, GEOBOX.affine, "EPSG:4326"), 64), "not projected"),
        (lambda dn: jp2_bytes(dn, GeoBox(GEOBOX.shape, GEOBOX.affine, "EPSG:3413"), 64), "m of its CRS"),
        (lambda dn: jp2_bytes(dn, GeoBox(GEOBOX.shape, POLAR, "EPSG:3413"), 64), "not in UTM"),
        (lambda dn: jp2_bytes(dn.astype("uint8"), GEOBOX, 64), "uint8"),
        (lambda dn: b"<html>Not found</html>", "damaged"),
        (lambda dn: b"", "damaged"),
    ],
)
def test_a_file_that_is_no_such_band_is_an_error_that_names_scene_asset_and_address(
    cdse, served, s3, tmp_path, make, cause
):
    _, source = s3
    item = with_assets(cdse, **{"file:size": None, "file:checksum": None, "proj:shape": None})
    item.assets["B02_10m"].href = _replaced(served, "B02_10m", make(decoded(cdse.files["B02_10m"])))
    with pytest.raises(RemoteError, match=rf"(?s){CDSE_ID}, asset B02_10m.*s3://eodata/other.*{cause}"):
        download_scene(item, tmp_path, source, BANDS)
    assert_absent(tmp_path)


def test_a_file_of_another_size_than_its_item_says_is_an_error_that_names_both(cdse, served, s3, tmp_path):
    _, source = s3
    item = with_assets(cdse, **{"file:size": None, "file:checksum": None})
    cut = jp2_bytes(decoded(cdse.files["B02_10m"])[:, :120], GEOBOX[:, :120], 64)
    item.assets["B02_10m"].href = _replaced(served, "B02_10m", cut)
    with pytest.raises(GridMismatchError, match=rf"{CDSE_ID}, asset B02_10m.*240×120.*240×312"):
        download_scene(item, tmp_path, source, BANDS)
    assert_absent(tmp_path)


def test_bands_of_another_grid_than_the_scene_in_the_store_are_an_error(cdse, s3, tmp_path, make_dataset):
    _, source = s3
    other = GEOBOX[:100, :100]
    dn = make_dataset(other, B02_10m=np.ones(other.shape.yx, "uint16"), SCL_20m=np.ones(other.shape.yx, "uint8"))
    da.write_scene(tmp_path, da.CDSE, CDSE_ID, dn, datetime=None)
    with pytest.raises(GridMismatchError, match=rf"{CDSE_ID}, asset B03_10m"):
        download_scene(cdse.item, tmp_path, source, {"B02_10m": "blue", "B03_10m": "green"})
    assert da.open_scene(tmp_path, da.CDSE, CDSE_ID).bands == ("B02_10m", "SCL_20m")


def test_a_local_catalogue_with_relative_addresses_works(cdse, tmp_path):
    folder = tmp_path / "catalogue"
    folder.mkdir()
    item = with_assets(cdse)
    for name, data in cdse.files.items():
        (folder / f"{name}.jp2").write_bytes(data)
        item.assets[name].href = f"./{name}.jp2"
    item.set_self_href(str(folder / "item.json"))
    download_scene(item, tmp_path / "store", CDSE_SOURCE, BANDS)
    np.testing.assert_array_equal(read(tmp_path / "store", CDSE_ID, "B02_10m"), decoded(cdse.files["B02_10m"]))


def local_scene(made, folder, **fields):
    """A copy of the item whose files lie in a folder."""
    folder.mkdir()
    item = with_assets(made, **fields)
    for name, data in made.files.items():
        (folder / f"{name}.jp2").write_bytes(data)
        item.assets[name].href = str(folder / f"{name}.jp2")
    return item


def test_an_id_that_ends_in_safe_is_that_of_the_same_scene(cdse, tmp_path):
    item = local_scene(cdse, tmp_path / "files")
    item.id = f"{CDSE_ID}.SAFE"
    tile = load_cdse_s2_sr_scene(item, BANDS, tmp_path / "store", device="cpu")
    assert tile.attrs["tile_id"] == CDSE_ID
    assert da.list_scenes(tmp_path / "store", da.CDSE) == [CDSE_ID]
    assert da.open_scene(tmp_path / "store", da.CDSE, CDSE_ID).info.scene_id == CDSE_ID
    assert download_scene(item, tmp_path / "store", CDSE_SOURCE, BANDS) == ()
    assert download_size(item, tmp_path / "store", CDSE_SOURCE, BANDS) == 0


def test_a_file_that_points_to_another_one_is_not_followed(cdse, tmp_path):
    item = local_scene(cdse, tmp_path / "files", **{"file:size": None, "file:checksum": None})
    other = tmp_path / "other.tif"
    other.write_bytes(cog_bytes(decoded(cdse.files["B02_10m"]), GEOBOX, 64))
    (tmp_path / "files" / "B02_10m.jp2").write_text(
        f'<VRTDataset rasterXSize="{GEOBOX.shape.x}" rasterYSize="{GEOBOX.shape.y}"><SRS>EPSG:32608</SRS>'
        "<GeoTransform>399960,10,0,7600020,0,-10</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{other}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(RemoteError, match=rf"{CDSE_ID}, asset B02_10m.*not recognized"):
        download_scene(item, tmp_path / "store", CDSE_SOURCE, BANDS)
    assert not da.scene_exists(tmp_path / "store", da.CDSE, CDSE_ID)
