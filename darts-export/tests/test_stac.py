import hashlib
import json

import numpy as np
import pystac
import pytest
import rasterio
import rustac
from odc.geo.geobox import GeoBox
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.view import ViewExtension
from pystac.stac_object import STACObjectType
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from darts_export import PRODUCTS, export_tile
from darts_export.export import Export
from darts_export.metadata import darts_tags, identity
from darts_export.stac import UNKNOWN_TIME, write_item

METADATA = {"version": "0.1.0", "modelfiles": "unet", "modelchecksums": "unet:abc", "mmu": 32, "weights": {"b": 1}}


def export(tile, folder, **metadata):
    return Export(tile, folder, (), darts_tags(tile, metadata, folder.name), identity(tile, folder.name))


def written(tile, folder, files=None, **metadata):
    folder.mkdir(exist_ok=True)
    write_item(folder / "item.json", export(tile, folder, **metadata), files)
    item = json.loads((folder / "item.json").read_text(encoding="utf-8"))
    check(item)
    return item


def check(item):
    """Check against the core schemas, which come with pystac; those of extensions are on the net."""
    JsonSchemaSTACValidator().validate_core(item, STACObjectType.ITEM, "1.1.0")
    pystac.Item.from_dict(item)


def through_geoparquet(item, folder):
    """Write and read stac-geoparquet with rustac."""
    rustac.write_sync(str(folder / "items.parquet"), [item])
    (back,) = rustac.read_sync(str(folder / "items.parquet"))["features"]
    return back


@pytest.fixture(scope="module")
def whole(shared_tile, tmp_path_factory):
    """A folder with all products of a tile and its item."""
    folder = tmp_path_factory.mktemp("out") / "a-tile"
    bands = [token for token in PRODUCTS if token not in ("stac", "item", "report")]
    export_tile(shared_tile, folder, [*bands, "quality_data_mask"], ["small"], METADATA)
    return folder, written(shared_tile, folder, **METADATA)


def test_an_item_says_which_tile_was_seen_when_and_where(whole, shared_tile):
    _, item = whole
    assert item["id"] == "a-tile"
    assert item["properties"]["datetime"] == "2021-08-21T21:00:00Z"
    assert item["properties"]["constellation"] == "sentinel-2"
    assert item["properties"]["gsd"] == 10
    west, south, east, north = shared_tile.odc.geobox[5:-5, 5:-5].extent.to_crs("EPSG:4326").boundingbox.bbox
    assert item["bbox"] == pytest.approx([west, south, east, north], abs=2e-6)


def test_the_projection_is_that_of_the_tile(whole, shared_tile):
    proj = ProjectionExtension.ext(pystac.Item.from_dict(whole[1]))
    geobox = shared_tile.odc.geobox
    assert proj.code == "EPSG:32608"
    assert GeoBox(proj.shape, rasterio.Affine(*proj.transform), proj.code) == geobox
    assert proj.bbox == list(geobox.boundingbox.bbox)
    assert proj.geometry["type"] == "Polygon"


def test_the_sun_is_told_as_far_as_it_is_known(whole):
    view = ViewExtension.ext(pystac.Item.from_dict(whole[1]))
    assert view.sun_azimuth == 170.5
    assert view.sun_elevation is None


def test_every_file_is_an_asset_with_its_size_and_checksum(whole):
    folder, item = whole
    files = {path.name for path in folder.iterdir()} - {"item.json"}
    assert {asset["href"].removeprefix("./") for asset in item["assets"].values()} == files
    for asset in item["assets"].values():
        content = (folder / asset["href"]).read_bytes()
        assert asset["file:size"] == len(content)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
        assert asset.get("title") or asset["href"] == "./quality_data_mask.tif"
        assert asset["type"]
        assert asset["roles"]


def test_bands_are_described_as_their_files_have_them(whole):
    folder, item = whole
    rasters = {key: asset for key, asset in item["assets"].items() if asset["href"].endswith(".tif")}
    assert "probabilities-small" in rasters
    for asset in rasters.values():
        with rasterio.open(folder / asset["href"]) as source:
            assert tuple(band["name"] for band in asset["bands"]) == source.descriptions
            for number, band in enumerate(asset["bands"]):
                assert band["data_type"] == source.dtypes[number]
                assert band.get("nodata") == source.nodatavals[number]
                assert band.get("raster:scale", 1) == source.scales[number]
                assert band.get("raster:offset", 0) == source.offsets[number]
    assert [band["eo:common_name"] for band in rasters["optical"]["bands"]] == ["red", "green", "blue", "nir"]
    classes = rasters["binarized-small"]["bands"][0]["classification:classes"]
    assert [entry["value"] for entry in classes] == [0, 1]


def test_the_making_is_told_without_its_time(whole):
    properties = whole[1]["properties"]
    assert properties["processing:software"]["darts"] == "0.1.0"
    assert properties["darts:modelchecksums"] == "unet:abc"
    assert properties["darts:weights"] == {"b": 1}
    assert properties["darts:objects"] == 2
    assert not {"created", "updated", "processing:datetime"} & set(properties)


def test_extensions_are_declared_when_and_only_when_used(whole, make_tile, tmp_path):
    prefixes = {
        "proj": "projection", "raster": "raster", "file": "file", "processing": "processing",
        "classification": "classification", "eo": "eo", "view": "view",
    }  # fmt: skip
    declared = {address.split("/")[3] for address in whole[1]["stac_extensions"]}
    assert declared == set(prefixes.values())
    plain = written(make_tile({"probabilities": np.zeros((2, 2), "float32")}), tmp_path / "plain")
    assert {address.split("/")[3] for address in plain["stac_extensions"]} == {"projection", "processing"}


def test_pystac_and_rustac_read_it_back(whole, tmp_path):
    folder, item = whole
    read = pystac.Item.from_file(str(folder / "item.json"))
    assert read.to_dict(include_self_link=False)["properties"] == item["properties"]
    assert read.assets["optical"].get_absolute_href() == str(folder / "optical.tif")
    assert rustac.read_sync(str(folder / "item.json"))["properties"] == item["properties"]
    back = through_geoparquet(item, tmp_path)
    assert back["id"] == "a-tile"
    assert back["bbox"] == pytest.approx(item["bbox"])
    assert set(back["assets"]) == set(item["assets"])


def test_the_same_tile_gives_the_same_bytes(tile, tmp_path):
    texts = set()
    for name in ("one", "two"):
        written(tile.copy(deep=True), tmp_path / name, **METADATA)
        texts.add((tmp_path / name / "item.json").read_bytes())
    assert len(texts) == 1


def test_files_that_are_still_to_come_can_be_named(tile, tmp_path):
    item = written(tile, tmp_path / "out", files=["probabilities.tif", "item.json"])
    assert item["assets"]["probabilities"] == {
        "href": "./probabilities.tif",
        "title": "Probability of thaw features",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
    }
    assert list(item["assets"]) == ["probabilities"]


def test_an_unknown_time_is_a_range_that_hides_it_from_no_search(make_tile, tmp_path):
    item = written(make_tile({"probabilities": np.zeros((2, 2), "float32")}), tmp_path / "out")
    properties = item["properties"]
    assert (properties["datetime"], properties["start_datetime"], properties["end_datetime"]) == (None, *UNKNOWN_TIME)
    assert item["id"] == "out"


@pytest.mark.parametrize(
    ("crs", "corner", "resolution"),
    [
        ("EPSG:32601", (320000, 7500000), 1000.0),
        ("EPSG:3413", (-50000, 50000), 1000.0),
        ("EPSG:4326", (179.99, 70), 0.001),
        ("EPSG:32760", (3e5, 48e5), 10.0),
    ],
)
def test_items_at_the_seams_of_the_map_are_valid(make_tile, tmp_path, crs, corner, resolution):
    bands = {"probabilities": np.full((90, 90), np.float32(np.nan)), "extent": np.zeros((90, 90), bool)}
    item = written(make_tile(bands, crs, corner, resolution), tmp_path / "out")
    assert item["geometry"]["coordinates"]
    assert through_geoparquet(item, tmp_path)["geometry"]["type"] == item["geometry"]["type"]


@pytest.mark.parametrize("tile_id", ["<script>", "a b/c", "ü", "0"])
def test_any_tile_id_is_an_id(make_tile, tmp_path, tile_id):
    item = written(make_tile({"probabilities": np.zeros((1, 1), "float32")}, tile_id=tile_id), tmp_path / "out")
    assert item["id"] == tile_id


def test_a_grid_without_an_epsg_code_has_its_text(make_tile, tmp_path):
    crs = "+proj=laea +lat_0=80 +lon_0=33 +datum=WGS84 +units=m"
    item = written(make_tile({"probabilities": np.zeros((4, 4), "float32")}, crs, (0, 0)), tmp_path / "out")
    assert item["properties"]["proj:code"] is None
    assert "Lambert" in item["properties"]["proj:wkt2"]
