import io
from datetime import UTC, datetime

import ee
import numpy as np
import pytest
import rasterio
from google.auth.credentials import AnonymousCredentials
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition.testing import EarthEngineImage, Fault, earth_engine_server, fault_proxy
from darts_utils.errors import ConfigError

S2 = "COPERNICUS/S2_SR_HARMONIZED"
TREND = "users/someone/TREND"
GRID = GeoBox((12, 16), Affine(10, 0, 499980, 0, -10, 7_800_000), "EPSG:32608")
OPTICAL = {name: np.arange(192, dtype="uint16").reshape(12, 16) + 1000 * n for n, name in enumerate(("B2", "B8"), 1)}
SCL = np.arange(48, dtype="uint8").reshape(6, 8)


def ms(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp() * 1000)


def image(**properties) -> EarthEngineImage:
    return EarthEngineImage({**OPTICAL, "SCL": SCL}, GRID.transform, "EPSG:32608", properties)


IMAGES = {
    f"{S2}/a": image(**{"system:time_start": ms(2021, 7, 15), "CLOUD": 5.0, "MGRS_TILE": "08WMA"}),
    f"{S2}/b": image(**{"system:time_start": ms(2021, 12, 31), "CLOUD": 50.0, "MGRS_TILE": "08WMA"}),
    f"{S2}/c": image(**{"system:time_start": ms(2022, 1, 1), "CLOUD": 10.0, "MGRS_TILE": "08WNA"}),
    f"{S2}/no-cloud-known": image(**{"system:time_start": ms(2023, 8, 1), "MGRS_TILE": "08WMA"}),
    f"{S2}/over-the-antimeridian": EarthEngineImage(
        OPTICAL, Affine(1000, 0, 369000, 0, -1000, 7_596_000), "EPSG:32601",
        {"system:time_start": ms(2024, 8, 1), "CLOUD": 0},
    ),
    f"{TREND}/west": EarthEngineImage(
        {"TCB": np.full((4, 4), 7, "uint8")}, Affine(0.5, 0, -132, 0, -0.5, 70), "EPSG:4326",
    ),
    f"{TREND}/east": EarthEngineImage(
        {"TCB": np.full((4, 4), 9, "uint8")}, Affine(0.5, 0, -131, 0, -0.5, 70), "EPSG:4326",
        valid={"TCB": np.tri(4, dtype=bool)},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def running():
    with earth_engine_server(IMAGES) as server:
        ee.Initialize(credentials=AnonymousCredentials(), url=server.url, project="test-project")
        ee.data.setMaxRetries(1)
        yield server
        ee.Reset()


@pytest.fixture
def server(running):
    running.clear()
    return running


@pytest.fixture
def scenes(server) -> ee.ImageCollection:
    return ee.ImageCollection(S2)


def ids(collection: ee.ImageCollection) -> list[str]:
    return sorted(collection.aggregate_array("system:index").getInfo())


def grid(geobox: GeoBox) -> dict:
    a, b, c, d, e, f, *_ = geobox.transform
    names = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
    return {
        "dimensions": {"width": geobox.shape.x, "height": geobox.shape.y},
        "affineTransform": dict(zip(names, (a, b, c, d, e, f), strict=True)),
        "crsCode": f"EPSG:{geobox.crs.epsg}",
    }


def pixels(expression: ee.Image, geobox: GeoBox = GRID, file_format: str = "NUMPY_NDARRAY"):
    return ee.data.computePixels({"expression": expression, "fileFormat": file_format, "grid": grid(geobox)})


def test_dates_are_from_start_until_before_end(scenes):
    assert ids(scenes.filterDate("2021-07-15", "2022-01-01")) == ["a", "b"]
    assert ids(scenes.filterDate("2021-12-31", "2022-01-02")) == ["b", "c"]


def test_calendar_ranges_hold_both_ends_and_go_over_the_turn_of_the_year(scenes):
    assert ids(scenes.filter(ee.Filter.calendarRange(7, 8, "month"))) == [
        "a",
        "no-cloud-known",
        "over-the-antimeridian",
    ]
    assert ids(scenes.filter(ee.Filter.calendarRange(12, 1, "month"))) == ["b", "c"]
    assert ids(scenes.filter(ee.Filter.calendarRange(2021, 2022, "year"))) == ["a", "b", "c"]


def test_comparisons(scenes):
    assert ids(scenes.filter(ee.Filter.lt("CLOUD", 10))) == ["a", "over-the-antimeridian"]
    assert ids(scenes.filter(ee.Filter.eq("CLOUD", 0))) == ["over-the-antimeridian"]
    assert ids(scenes.filter(ee.Filter.inList("MGRS_TILE", ["08WNA", "x"]))) == ["c"]
    assert ids(scenes.filter(ee.Filter.stringStartsWith("MGRS_TILE", "08WM"))) == ["a", "b", "no-cloud-known"]
    either = ee.Filter.Or(ee.Filter.eq("MGRS_TILE", "08WNA"), ee.Filter.gt("CLOUD", 40))
    assert ids(scenes.filter(either)) == ["b", "c"]
    assert ids(scenes.filter(ee.Filter.And(either, ee.Filter.eq("MGRS_TILE", "08WNA")))) == ["c"]


def test_what_lacks_a_property_passes_a_negated_comparison(scenes):
    # The client sends lte as not(greaterThan).
    assert ids(scenes.filter(ee.Filter.lte("CLOUD", 10))) == ["a", "c", "no-cloud-known", "over-the-antimeridian"]
    known = scenes.filter(ee.Filter.notNull(["CLOUD"]))
    assert ids(known.filter(ee.Filter.lte("CLOUD", 10))) == ["a", "c", "over-the-antimeridian"]


def test_bounds(scenes):
    inside = ee.Geometry.Polygon([[[-135.01, 70.2], [-134.9, 70.2], [-134.9, 70.4], [-135.01, 70.4]]])
    assert ids(scenes.filterBounds(inside)) == ["a", "b", "c", "no-cloud-known"]
    assert ids(scenes.filterBounds(ee.Geometry.Point([10, 60]))) == []


@pytest.mark.parametrize("lon", [-179.9, 180.1, 179.9, -180.1])
def test_bounds_meet_over_the_antimeridian(scenes, lon):
    near = ee.Geometry({"type": "Polygon", "coordinates": [[[lon, 68.4], [lon + 0.1, 68.4], [lon, 68.5], [lon, 68.4]]]})
    assert ids(scenes.filterBounds(near)) == ["over-the-antimeridian"]
    assert ids(scenes.filterBounds(ee.Geometry.Point([lon * 0.9, 68.4]))) == []


def test_properties_in_columns(scenes):
    few = scenes.filter(ee.Filter.notNull(["CLOUD"])).limit(3, "CLOUD", False)
    rows = few.reduceColumns(ee.Reducer.toList(2), ["system:index", "CLOUD"]).get("list").getInfo()
    assert rows == [["b", 50.0], ["c", 10.0], ["a", 5.0]]
    columns = few.reduceColumns(ee.Reducer.toList().repeat(2), ["system:id", "CLOUD"]).get("list").getInfo()
    assert columns == [[f"{S2}/b", f"{S2}/c", f"{S2}/a"], [50.0, 10.0, 5.0]]


def test_reduced_columns_drop_what_lacks_a_value(scenes):
    rows = scenes.reduceColumns(ee.Reducer.toList(2), ["system:index", "CLOUD"]).get("list").getInfo()
    assert "no-cloud-known" not in [row[0] for row in rows]


def test_mapped_elements(scenes):
    features = scenes.limit(2).map(lambda i: ee.Feature(None, {"id": i.get("system:index"), "cloud": i.get("CLOUD")}))
    assert [feature["properties"] for feature in features.getInfo()["features"]] == [
        {"id": "a", "cloud": 5.0},
        {"id": "b", "cloud": 50.0},
    ]
    listed = scenes.toList(2, 1).map(lambda i: ee.Image(i).toDictionary(["CLOUD"]))
    assert listed.getInfo() == [{"CLOUD": 50.0}, {"CLOUD": 10.0}]
    assert scenes.size().getInfo() == 5


def test_an_image_shows_its_bands_and_properties(server):
    info = ee.Image(f"{S2}/a").getInfo()
    assert (info["type"], info["id"], info["properties"]["CLOUD"]) == ("Image", f"{S2}/a", 5.0)
    assert [(band["id"], band["dimensions"], band["crs"]) for band in info["bands"]] == [
        ("B2", [16, 12], "EPSG:32608"), ("B8", [16, 12], "EPSG:32608"), ("SCL", [8, 6], "EPSG:32608"),
    ]  # fmt: skip
    assert info["bands"][2]["crs_transform"][:6] == [20, 0, 499980, 0, -20, 7_800_000]
    assert info["bands"][2]["data_type"] == {"type": "PixelType", "precision": "int", "min": 0, "max": 255}


def test_pixels_on_the_images_own_grid_are_exact(server):
    array = pixels(ee.Image(f"{S2}/a").select(["B8", "B2"]))
    assert array.dtype.names == ("B8", "B2")
    np.testing.assert_array_equal(array["B8"], OPTICAL["B8"])
    np.testing.assert_array_equal(array["B2"], OPTICAL["B2"])
    assert array["B2"].dtype == "uint16"


def test_a_coarser_band_is_repeated(server):
    array = pixels(ee.Image(f"{S2}/a").select("SCL"))
    np.testing.assert_array_equal(array["SCL"], SCL.repeat(2, 0).repeat(2, 1))


def test_pixels_beyond_the_image_are_zero(server):
    array = pixels(ee.Image(f"{S2}/a").select("B2"), GRID.pad(3))["B2"]
    expected = np.zeros((18, 22), "uint16")
    expected[3:-3, 3:-3] = OPTICAL["B2"]
    np.testing.assert_array_equal(array, expected)


def test_pixels_of_another_crs_are_those_under_the_centres(server):
    from pyproj import Transformer

    target = GeoBox.from_bbox((-135.0004, 70.3190, -134.9990, 70.3200), "EPSG:4326", resolution=0.0001)
    array = pixels(ee.Image(f"{S2}/a").select("B2"), target)["B2"]
    lon, lat = np.meshgrid(target.coords["longitude"].values, target.coords["latitude"].values)
    x, y = Transformer.from_crs(4326, 32608, always_xy=True).transform(lon, lat)
    row, column = ((7_800_000 - y) // 10).astype(int), ((x - 499980) // 10).astype(int)
    seen = (row >= 0) & (row < 12) & (column >= 0) & (column < 16)
    np.testing.assert_array_equal(array[seen], OPTICAL["B2"][row[seen], column[seen]])
    assert not array[~seen].any()


def test_a_mosaic_shows_the_last_image_that_is_valid(server):
    target = GeoBox((4, 6), Affine(0.5, 0, -132, 0, -0.5, 70), "EPSG:4326")
    array = pixels(ee.ImageCollection(TREND).mosaic(), target)["TCB"]
    expected = np.zeros((4, 6), "uint8")
    expected[:, :4] = 7
    expected[:, 2:][np.tri(4, dtype=bool)] = 9
    np.testing.assert_array_equal(array, expected)


def test_masked_pixels_take_the_value_of_unmask(server):
    target = GeoBox((4, 5), Affine(0.5, 0, -131, 0, -0.5, 70), "EPSG:4326")
    east = ee.Image(f"{TREND}/east")
    array = pixels(east.unmask(5), target)["TCB"]
    np.testing.assert_array_equal(array[:, :4], np.where(np.tri(4), 9, 5))
    assert not array[:, 4].any()
    assert (pixels(east.unmask(5, False), target)["TCB"][:, 4] == 5).all()


def test_casts_and_arithmetic(server):
    expression = ee.Image(f"{S2}/a").select("B2").multiply(0.5).add(1).rename("x").toFloat()
    array = pixels(expression)["x"]
    assert array.dtype == "float32"
    np.testing.assert_array_equal(array, OPTICAL["B2"].astype("float32") / 2 + 1)
    np.testing.assert_array_equal(pixels(ee.Image(f"{S2}/a").select("B8").toUint8())["B8"], 255)


def test_pixels_as_geotiff(server):
    with rasterio.open(io.BytesIO(pixels(ee.Image(f"{S2}/a").select(["B2", "B8"]), file_format="GEO_TIFF"))) as file:
        np.testing.assert_array_equal(file.read(2), OPTICAL["B8"])
        assert (file.crs.to_epsg(), file.transform, file.descriptions) == (32608, GRID.transform, ("B2", "B8"))


def test_pixels_of_an_asset(server):
    asked = {"assetId": f"{S2}/a", "fileFormat": "NUMPY_NDARRAY", "bandIds": ["B2"], "grid": grid(GRID)}
    np.testing.assert_array_equal(ee.data.getPixels(asked)["B2"], OPTICAL["B2"])


@pytest.mark.parametrize(
    ("shape", "bands", "fits"),
    [((4096, 4096), ["B2"], True), ((4096, 4097), ["B2"], False), ((4096, 2048), ["B2", "B8"], True),
     ((4096, 2049), ["B2", "B8"], False), ((1, 32769), ["SCL"], False)],
)  # fmt: skip
def test_requests_for_too_many_pixels_are_refused(server, shape, bands, fits):
    target = GeoBox(shape, GRID.transform, "EPSG:32608")
    if fits:
        assert pixels(ee.Image(f"{S2}/a").select(bands), target).shape == shape
        return
    with pytest.raises(ee.EEException, match="must be less than or equal to"):
        pixels(ee.Image(f"{S2}/a").select(bands), target)


def test_assets_are_shown_and_listed(server):
    shown = ee.data.getAsset(f"{S2}/a")
    assert (shown["type"], shown["properties"]["CLOUD"], shown["startTime"]) == ("IMAGE", 5.0, "2021-07-15T00:00:00Z")
    listed = ee.data.listAssets({"parent": f"projects/earthengine-public/assets/{S2}", "pageSize": 2})
    assert [asset["id"] for asset in listed["assets"]] == [f"{S2}/a", f"{S2}/b"]
    images = ee.data.listImages({"parent": f"projects/earthengine-public/assets/{S2}", "filter": "CLOUD<10"})
    assert [asset["id"] for asset in images["images"]] == [f"{S2}/a", f"{S2}/over-the-antimeridian"]


def test_what_is_not_there_is_an_error(server):
    with pytest.raises(ee.EEException, match="Image asset 'nothing' not found"):
        ee.Image("nothing").getInfo()
    with pytest.raises(ee.EEException, match="ImageCollection asset 'no/collection' not found"):
        ee.ImageCollection("no/collection").size().getInfo()
    with pytest.raises(ee.EEException, match="'B99' did not match any bands"):
        pixels(ee.Image(f"{S2}/a").select("B99"))
    with pytest.raises(ee.EEException, match="does not exist"):
        ee.data.getAsset(f"{S2}/z")


def test_an_unknown_function_is_named(server):
    with pytest.raises(ee.EEException, match=r"'Image\.sin'"):
        pixels(ee.Image(f"{S2}/a").sin())
    with pytest.raises(ee.EEException, match=r"'Kernel\.square'"):
        pixels(ee.Image(f"{S2}/a").convolve(ee.Kernel.square(1)))


def test_requests_are_recorded(server):
    pixels(ee.Image(f"{S2}/a").select("B2"))
    ee.ImageCollection(S2).size().getInfo()
    assert [method for method, _ in server.requests] == ["POST", "POST"]
    assert len(server.pixel_requests) == len(server.value_requests) == 1
    assert server.pixel_requests[0]["grid"]["dimensions"] == {"width": 16, "height": 12}
    server.clear()
    assert server.requests == []


def test_faults_reach_the_client_through_the_proxy():
    with earth_engine_server(IMAGES) as server, fault_proxy(server.url) as proxy:
        try:
            ee.Initialize(credentials=AnonymousCredentials(), url=proxy.url, project="test-project")
            assert ee.ImageCollection(S2).size().getInfo() == 5
            assert [path.partition("?")[0] for _, path in proxy.requests] == [path for _, path in server.requests]
            proxy.faults(Fault("value:compute", "status", 403, body='{"error": {"code": 403, "message": "not yours"}}',
                               content_type="application/json"))  # fmt: skip
            with pytest.raises(ee.EEException, match="not yours"):
                ee.ImageCollection(S2).size().getInfo()
        finally:
            ee.Reset()


def test_an_image_without_bands_is_refused():
    with pytest.raises(ConfigError, match="needs bands"):
        EarthEngineImage({}, GRID.transform, "EPSG:32608")
