import json

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio import Affine

import darts_acquisition as da
from darts_acquisition.earth_engine import EarthEngineSource, connect
from darts_acquisition.tcvis import download_tcvis, missing_tcvis
from darts_acquisition.tcvis_source import TCVIS_ASSETS, tcvis_fetcher
from darts_acquisition.testing import EarthEngineImage, Fault, earth_engine_server, fault_proxy
from darts_utils.errors import ConfigError, MissingDataError, RemoteError

TILE = GeoBox((80, 60), Affine(10, 0, 471_000, 0, -10, 7_550_000), "EPSG:32608")
WIDE_TILE = GeoBox((600, 600), TILE.affine, TILE.crs)
NAMES = {"TCB_slope": "tc_brightness", "TCG_slope": "tc_greenness", "TCW_slope": "tc_wetness"}


ASSETS = TCVIS_ASSETS


def _image(seed: int) -> EarthEngineImage:
    """Trends over a part of the wide tile, on the cube's pixels, with gaps."""
    rng = np.random.default_rng(seed)
    row, column = _pixel_of(WIDE_TILE)
    grid = da.tcvis_geobox().affine
    shape = (190, 500)
    transform = Affine(grid.a, 0, grid.c + (column - 8) * grid.a, 0, grid.e, grid.f + (row - 8) * grid.e)
    bands = {name: rng.integers(1, 256, shape).astype("uint8") for name in NAMES}
    return EarthEngineImage(bands, transform, "EPSG:4326", valid=dict.fromkeys(NAMES, rng.random(shape) < 0.9))


def _pixel_of(tile: GeoBox) -> tuple[int, int]:
    """The pixel of the cube at a tile's north-western corner."""
    left, _, _, top = tile.extent.to_crs("EPSG:4326").boundingbox
    grid = da.tcvis_geobox().affine
    return round((top - grid.f) / grid.e), round((left - grid.c) / grid.a)


IMAGES = {TCVIS_ASSETS[2024]: _image(4), f"{TCVIS_ASSETS[2022]}/part": _image(5)}


def _expected(asset: str, band: str, target: GeoBox) -> np.ndarray:
    """What the image has at the pixels of `target`, found by their centres; NaN where it has nothing."""
    image, at = IMAGES[asset], target.affine
    x, y = at.c + (np.arange(target.shape.x) + 0.5) * at.a, at.f + (np.arange(target.shape.y) + 0.5) * at.e
    j = np.floor((x - image.transform.c) / image.transform.a).astype(int)
    i = np.floor((y - image.transform.f) / image.transform.e).astype(int)
    height, width = image.bands[band].shape
    inside = ((i >= 0) & (i < height))[:, None] & ((j >= 0) & (j < width))
    i, j = i.clip(0, height - 1)[:, None], j.clip(0, width - 1)
    return np.where(inside & image.valid[band][i, j], image.bands[band][i, j], np.nan).astype("float32")


@pytest.fixture(scope="module")
def server():
    with earth_engine_server(IMAGES) as running:
        yield running


@pytest.fixture
def source(server):
    server.clear()
    return EarthEngineSource(project="test-project", endpoint=server.url, retries=0, requests_per_second=None)


def _fill(path, target=TILE, buffer=20) -> da.Cube:
    cube = da.create_tcvis_cube(path, chunk=256)
    area = cube.aligned(target, buffer)
    rng = np.random.default_rng(0)
    codes = {name: (("y", "x"), rng.integers(0, 256, area.shape.yx).astype("uint8")) for name in NAMES}
    cube.write(xr.Dataset(codes, coords=xr_coords(area, dims=("y", "x"))))
    return cube


@pytest.mark.parametrize(
    ("scene", "cube"),
    [(2016, 2019), (2018, 2019), (2019, 2020), (2020, 2022), (2021, 2022), (2022, 2024), (2023, 2024), (2030, 2024)],
)
def test_a_scene_takes_the_earliest_cube_of_the_year_after_or_later(scene, cube):
    assert da.tcvis_cube_year(scene) == cube


def test_without_a_year_the_newest_cube_is_taken():
    assert da.tcvis_cube_year() == da.tcvis_cube_year(None) == 2024


def test_zeros_are_missing_and_the_rest_are_floats(tmp_path):
    cube = _fill(tmp_path / "TCTrend2022.icechunk")
    ds = da.load_tcvis(TILE, tmp_path, 2021, buffer=3, offline=True)
    raw = cube.read(TILE, 3)
    for source, name in NAMES.items():
        codes = raw[source].values
        assert ds[name].dtype == np.float32
        np.testing.assert_array_equal(ds[name], np.where(codes == 0, np.nan, codes))
    assert ds.odc.geobox == raw.odc.geobox
    assert ds.odc.geobox.crs.epsg == 4326
    assert ds["tc_wetness"].dims == ("y", "x")


def test_the_cube_itself_or_its_folder_online_or_offline_give_the_same(tmp_path):
    cube = _fill(tmp_path / "TCTrend2024.icechunk")
    first = da.load_tcvis(TILE, tmp_path)
    assert da.load_tcvis(TILE, cube.path, year=2023, offline=True).identical(first)


def test_a_cube_of_another_period_is_refused(tmp_path):
    cube = _fill(tmp_path / "TCTrend2024.icechunk")
    with pytest.raises(ConfigError, match=r"TCTrend2019.*TCTrend2024"):
        da.load_tcvis(TILE, cube.path, year=2017)


def test_beyond_the_grid_all_is_missing(tmp_path):
    da.create_tcvis_cube(tmp_path / "TCTrend2024.icechunk", chunk=256)
    south = GeoBox((20, 20), Affine(10, 0, 500_000, 0, -10, 4_000_000), "EPSG:32733")
    ds = da.load_tcvis(south, tmp_path, offline=True)
    assert all(np.isnan(ds[name]).all() for name in NAMES.values())


def test_what_is_absent_names_the_command_offline(tmp_path):
    with pytest.raises(MissingDataError, match=r"TCTrend2020\.icechunk.*darts prepare-data sentinel2 --aux"):
        da.load_tcvis(TILE, tmp_path, 2019, offline=True)
    _fill(tmp_path / "TCTrend2020.icechunk")
    with pytest.raises(MissingDataError, match=r"TCTrend2022\.icechunk.*darts prepare-data planet --aux"):
        da.load_tcvis(TILE.zoom_out(0.3), tmp_path, 2020, offline=True)
    far = GeoBox((10, 10), Affine(10, 0, 521_000, 0, -10, 7_550_000), TILE.crs)
    with pytest.raises(MissingDataError, match=r"EPSG:4326.*darts prepare-data"):
        da.load_tcvis(far, tmp_path, 2019, offline=True)


@pytest.mark.parametrize("wrong", [{"year": 2021.5}, {"year": "2021"}, {"buffer": -2}, {"geobox": None}])
def test_parameters_that_cannot_work_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError):
        da.load_tcvis(**({"geobox": TILE, "data_dir": tmp_path} | wrong))


def test_the_grid_covers_the_north_once_around():
    grid = da.tcvis_geobox()
    left, bottom, right, top = grid.boundingbox
    assert (left, top) == (-180, 90)
    assert 180 <= right < 180.0003
    assert bottom <= 40
    assert grid.affine.a == -grid.affine.e == 0.0002695


def test_a_tile_on_the_antimeridian_is_read_in_one_piece(tmp_path):
    tile = GeoBox((40, 40), Affine(10, 0, 385_200, 0, -10, 7_760_000), "EPSG:32601")
    tile = GeoBox(tile.shape, Affine.translation(-_east_of_antimeridian(tile), 0) * tile.affine, tile.crs)
    path = tmp_path / "TCTrend2024.icechunk"
    cube = da.create_tcvis_cube(path, chunk=256)
    for chunk in cube.missing(tile, 2):
        codes = {name: (("y", "x"), np.full(chunk.shape.yx, 9, "uint8")) for name in NAMES}
        cube.write(xr.Dataset(codes, coords=xr_coords(chunk, dims=("y", "x"))))
    x = da.load_tcvis(tile, tmp_path, buffer=2, offline=True)["x"].values
    np.testing.assert_allclose(np.diff(x), 0.0002695)
    assert min(abs(x[0]), abs(x[-1])) < 180 < max(abs(x[0]), abs(x[-1]))


def test_online_what_is_missing_is_downloaded_and_kept(tmp_path, source, server):
    da.create_tcvis_cube(tmp_path / "TCTrend2024.icechunk", chunk=256)
    ds = da.load_tcvis(WIDE_TILE, tmp_path, buffer=2, source=source)
    for variable, name in NAMES.items():
        expected = _expected(ASSETS[2024], variable, ds.odc.geobox)
        assert 0 < np.isnan(expected).sum() < expected.size
        np.testing.assert_array_equal(ds[name], expected)
    server.clear()
    assert da.load_tcvis(WIDE_TILE, tmp_path, buffer=2, source=source).identical(ds)
    assert da.load_tcvis(WIDE_TILE, tmp_path, buffer=2, offline=True, source=source).identical(ds)
    assert server.requests == []


def test_a_collection_of_images_is_put_together(tmp_path, server, source):
    da.create_tcvis_cube(tmp_path / "TCTrend2022.icechunk", chunk=256)
    ds = da.load_tcvis(WIDE_TILE, tmp_path, 2021, source=source)
    np.testing.assert_array_equal(ds["tc_wetness"], _expected(f"{ASSETS[2022]}/part", "TCW_slope", ds.odc.geobox))


def test_an_asset_that_is_no_image_is_refused(tmp_path, server):
    with fault_proxy(server.url) as proxy:
        described = json.dumps({"type": "TABLE", "id": ASSETS[2022]})
        proxy.faults(
            Fault(rf"GET .*{ASSETS[2022]}", "status", status=200, body=described, content_type="application/json")
        )
        source = EarthEngineSource(project="test-project", endpoint=proxy.url, retries=0, requests_per_second=None)
        with pytest.raises(RemoteError, match=rf"{ASSETS[2022]}.*TABLE"):
            download_tcvis(WIDE_TILE, tmp_path, 2021, source=source)


def test_an_area_is_downloaded_chunk_by_chunk_and_not_again(tmp_path, source, server):
    cube = da.create_tcvis_cube(tmp_path / "TCTrend2024.icechunk", chunk=256)
    area = WIDE_TILE.extent.to_crs("EPSG:4326").geom
    missing, heard = missing_tcvis(area, tmp_path), []
    assert len(missing) > 1
    assert download_tcvis(area, tmp_path, source=source, on_chunk=heard.append) == len(missing) == len(heard)
    assert len(server.pixel_requests) == len(missing)
    server.clear()
    assert missing_tcvis(area, tmp_path) == []
    assert download_tcvis(area, tmp_path, source=source) == 0
    assert server.requests == []
    assert cube.missing(WIDE_TILE) == []


def test_an_absent_cube_is_made_with_chunks_of_several_requests(tmp_path, source, server):
    ds = da.load_tcvis(TILE, tmp_path, source=source)
    np.testing.assert_array_equal(ds["tc_greenness"], _expected(ASSETS[2024], "TCG_slope", ds.odc.geobox))
    assert da.Cube.open(tmp_path / "TCTrend2024.icechunk").chunk_px == 3600
    assert len(server.pixel_requests) % 4 == 0


def test_an_asset_that_cannot_be_seen_is_named_and_no_cube_made(tmp_path, source):
    with pytest.raises(RemoteError, match=rf"{ASSETS[2019]}.*HTTP 404"):
        da.load_tcvis(WIDE_TILE, tmp_path, 2017, source=source)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("action", ["status", "reset", "truncate_right_length", "truncate_short_length"])
def test_chunks_that_cannot_be_had_are_an_error_and_never_filled(tmp_path, server, action):
    cube = da.create_tcvis_cube(tmp_path / "TCTrend2024.icechunk", chunk=256)
    chunks = cube.missing(WIDE_TILE)
    with fault_proxy(server.url) as proxy:
        source = EarthEngineSource(
            project="test-project", endpoint=proxy.url, retries=1, retry_wait_s=0, requests_per_second=None
        )
        connect(source)
        # The first chunk comes through at its second try; whatever is asked for afterwards does not.
        proxy.faults(Fault("computePixels", action, times=1))
        cube.write(tcvis_fetcher(2024, source)(chunks[0]))
        proxy.faults(Fault("computePixels", action))
        with pytest.raises(RemoteError, match=rf"TCTrend2024.icechunk, chunk x .*{ASSETS[2024]}.*2 tries"):
            download_tcvis(WIDE_TILE, tmp_path, source=source)
        assert cube.missing(WIDE_TILE) == chunks[1:]
        with pytest.raises(MissingDataError):
            da.load_tcvis(WIDE_TILE, tmp_path, offline=True)
        proxy.faults()
        assert download_tcvis(WIDE_TILE, tmp_path, source=source) == len(chunks) - 1
    ds = da.load_tcvis(WIDE_TILE, tmp_path, offline=True)
    np.testing.assert_array_equal(ds["tc_brightness"], _expected(ASSETS[2024], "TCB_slope", ds.odc.geobox))


def _east_of_antimeridian(tile: GeoBox) -> float:
    """How far the middle of a tile lies east of 180°, in metres."""
    from pyproj import Transformer

    x, y = tile.affine * (tile.shape.x / 2, tile.shape.y / 2)
    latitude = Transformer.from_crs("EPSG:32601", "EPSG:4326", always_xy=True).transform(x, y)[1]
    return x - Transformer.from_crs("EPSG:4326", "EPSG:32601", always_xy=True).transform(180.0, latitude)[0]
