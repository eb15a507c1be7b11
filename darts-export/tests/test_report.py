import base64
import html
import io
import json
import re

import cv2
import numpy as np
import pytest
import shapely
from PIL import Image

from darts_export.export import Export
from darts_export.metadata import darts_tags, identity
from darts_export.preview import NODATA_GREY
from darts_export.report import render_report, write_report
from darts_utils.grids import meridian_convergence

SHARED_LAYERS = {"natural", "false-colour", "slope", "quality", "unclear", "extent", "probabilities"}


def export(tile, tmp_path, **metadata):
    return Export(tile, tmp_path, (), darts_tags(tile, metadata, tmp_path.name), identity(tile, tmp_path.name))


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def layers_of(page):
    found = re.findall(r'<image class="layer" id="layer-([\w-]+)"[^>]* href="data:image/\w+;base64,([^"]+)"', page)
    return {key: Image.open(io.BytesIO(base64.b64decode(content))) for key, content in found}


def drawn(path, shape):
    """Rasterise an SVG path of whole pixels, by the even-odd rule."""
    rings = []
    for part in re.findall(r"M([^M]+)z", path):
        start, steps = part.split("l")
        numbers = [np.array(re.findall(r"-?\d+", text), int).reshape(-1, 2) for text in (start, steps)]
        rings.append(np.cumsum(np.vstack(numbers), axis=0))
    inside = np.zeros(shape, bool)
    for ring in rings:
        (left, top), (right, bottom) = ring.min(axis=0), ring.max(axis=0)
        row, column = np.mgrid[top:bottom, left:right] + 0.5
        inside[top:bottom, left:right] ^= shapely.contains_xy(shapely.Polygon(ring), column, row)
    return inside


def test_a_page_needs_nothing_but_itself(tile, tmp_path):
    write_report(tmp_path / "preview.html", export(tile, tmp_path, source="https://example.org"))
    page = (tmp_path / "preview.html").read_text(encoding="utf-8")
    text = page.replace(html.escape("https://example.org"), "")
    assert not re.search(
        r"https?:|//\w|@import|url\(", re.sub(r'href="data:[^"]*"|^\s*//.*$', "", text, flags=re.MULTILINE)
    )
    assert all(link.startswith("data:") for link in re.findall(r'(?:href|src)="([^"]*)"', page))
    assert "default-src 'none'" in page


def test_the_same_tile_gives_the_same_bytes(tile, tmp_path):
    pages = {render_report(export(tile.copy(deep=True), tmp_path, version="1")) for _ in range(2)}
    assert len(pages) == 1


def test_the_tile_is_left_alone(tile, tmp_path):
    before = tile.copy(deep=True)
    render_report(export(tile, tmp_path))
    assert tile.identical(before)


def test_there_is_a_layer_for_each_band_that_can_be_seen(tile, tmp_path):
    tile = tile.assign(hillshade=tile.slope / 90, relative_elevation=tile.slope - 20)
    page = render_report(export(tile, tmp_path))
    layers = layers_of(page)
    assert set(layers) == SHARED_LAYERS | {"hillshade", "relative_elevation"}
    assert {picture.size for picture in layers.values()} == {(90, 70)}
    assert set(re.findall(r'data-layer="([\w-]+)"', page)) == {*layers, "objects"}


def test_natural_colours_have_the_stretch_of_the_thumbnail(make_tile, tmp_path):
    bands = {name: np.full((16, 16), value, "float32") for name, value in (("red", 0.1), ("green", 0.2), ("blue", 0.0))}
    bands["red"][:8] = np.nan
    picture = np.asarray(layers_of(render_report(export(make_tile(bands), tmp_path)))["natural"]).astype(int)
    assert picture[12, 8] == pytest.approx([round(255 * 0.5 ** (1 / 1.5)), 255, 0], abs=3)
    assert picture[3, 8] == pytest.approx([NODATA_GREY] * 3, abs=3)


def test_probabilities_are_clear_where_there_are_none(make_tile, tmp_path):
    values = np.array([[0, 0.5, 1, np.nan]], "float32")
    picture = layers_of(render_report(export(make_tile({"probabilities": values}), tmp_path)))["probabilities"]
    red, green, blue, alpha = np.moveaxis(np.asarray(picture.convert("RGBA"))[0].astype(int), -1, 0)
    assert alpha[0] == alpha[3] == 0
    assert 0 < alpha[1] < alpha[2]
    assert (red[2], green[2], blue[2]) == (235, 0, 90)


def test_masks_show_what_is_not_seen_and_not_good(tile, tmp_path):
    layers = layers_of(render_report(export(tile, tmp_path)))
    outside = np.asarray(layers["extent"].convert("RGBA"))[..., 3] > 0
    assert (outside == ~tile.extent.values).all()
    poor = np.asarray(layers["quality"].convert("RGBA"))[..., 3] > 0
    assert (poor == (tile.quality_data_mask.values < 2)).all()
    unclear = np.asarray(layers["unclear"].convert("RGBA"))[..., 3] > 0
    cloud = np.isin(tile.s2_scl.values, (8, 9, 10))
    assert (unclear == (tile.extent.values & ((tile.quality_data_mask.values < 2) | cloud))).all()


def test_outlines_follow_the_pixels_of_small_tiles(tile, tmp_path):
    paths = data_of(render_report(export(tile, tmp_path)))["objects"]["paths"]
    found = tile.binarized_segmentation.values
    assert (np.logical_or.reduce([drawn(path, found.shape) for path in paths]) == found).all()


def test_outlines_of_large_tiles_lose_less_than_half_a_pixel_of_the_picture(make_tile, tmp_path):
    shape = (60, 6144)  # a pixel of the picture is four of the tile
    noise = cv2.GaussianBlur(np.random.default_rng(3).standard_normal(shape).astype("float32"), (0, 0), 6)
    found = noise > noise.std()
    tile = make_tile({"probabilities": np.full(shape, np.float32(0.8)), "binarized_segmentation": found})
    paths = data_of(render_report(export(tile, tmp_path)))["objects"]["paths"]
    assert len(paths) == cv2.connectedComponents(found.view("uint8"), connectivity=8)[0] - 1
    changed = np.logical_xor.reduce([drawn(path, shape) for path in paths]) != found
    depth = cv2.distanceTransform(np.pad(changed, 1).view("uint8"), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert 0 < changed.mean() < 0.1
    assert depth.max() <= 3


def test_rows_hold_the_attributes_of_the_segments_and_what_is_alike_comes_once(tile, tmp_path):
    whole = export(tile, tmp_path)
    objects = data_of(render_report(whole))["objects"]
    for column in whole.segments.columns.drop("geometry"):
        wanted = whole.segments[column].tolist()
        if column in objects["columns"]:
            got = [row[objects["columns"].index(column)] for row in objects["rows"]]
        else:
            got = [objects["same"][column]] * len(wanted)
        if isinstance(wanted[0], float):
            assert np.array(got, float) == pytest.approx(np.array(wanted), rel=1e-5, nan_ok=True)
        elif column != "acquisition_time":
            assert got == [None if value is None else value for value in wanted]
    assert objects["same"]["acquisition_time"] == "2021-08-21T21:00:00Z"
    assert "tile_id" in objects["same"]


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "</script>", "<!--", "{{data}}", "&amp;", '"><b>'])
def test_texts_cannot_become_markup(tile, tmp_path, text):
    plain = render_report(export(tile, tmp_path, key="x"))
    tile.attrs |= {"tile_id": text, "image_id": text, "sensor": text}
    page = render_report(export(tile, tmp_path, key=text))
    assert data_of(page)["objects"]["same"]["image_id"] == text
    assert f"<h1>{html.escape(text)}</h1>" in page
    for opening in ("<script", "</script", "<b", "<!--"):
        assert page.count(opening) == plain.count(opening)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (5, 1), (33, 2)])
@pytest.mark.parametrize("value", [np.nan, 0.1])
def test_tiles_of_any_shape_and_without_any_value_have_a_page(make_tile, tmp_path, shape, value):
    plane = np.full(shape, np.float32(value))
    names = ("red", "green", "blue", "nir", "probabilities", "slope", "relative_elevation", "hillshade")
    bands = dict.fromkeys(names, plane) | {
        "extent": np.isfinite(plane), "binarized_segmentation": plane > 0.5,
        "quality_data_mask": np.zeros(shape, "uint8"),
    }  # fmt: skip
    page = render_report(export(make_tile(bands), tmp_path))
    assert {picture.size for picture in layers_of(page).values()} == {shape[::-1]}
    assert data_of(page)["objects"]["paths"] == []


def test_a_tile_with_nothing_to_see_still_has_its_metadata(make_tile, tmp_path):
    page = render_report(export(make_tile({"curvature": np.zeros((3, 4), "float32")}, tile_id="T"), tmp_path, mmu=32))
    assert layers_of(page) == {}
    assert data_of(page)["objects"] is None
    assert "<dt>mmu</dt><dd>32</dd>" in page


@pytest.mark.parametrize(
    ("crs", "corner"),
    [("EPSG:32608", (399960, 7600020)), ("EPSG:32760", (300000, 4800000)), ("EPSG:3413", (900000, -900000))],
)
def test_true_north_is_that_of_the_convergence(make_tile, tmp_path, crs, corner):
    tile = make_tile({"probabilities": np.zeros((40, 40), "float32")}, crs, corner, 100.0)
    place = data_of(render_report(export(tile, tmp_path)))["place"]
    # Seen from grid north, true north lies the other way round.
    wanted = -float(meridian_convergence(tile.odc.geobox).mean())
    assert place["north"] == pytest.approx(wanted, abs=0.02)


def test_a_pixel_has_its_length_on_the_ground_also_in_degrees(make_tile, tmp_path):
    tile = make_tile({"probabilities": np.zeros((10, 10), "float32")}, "EPSG:4326", (20, 60.005), 0.001)
    place = data_of(render_report(export(tile, tmp_path)))["place"]
    assert place["metres"] == pytest.approx(55.8, abs=0.1)  # a thousandth of a degree of longitude at 60° N
    assert place["north"] == 0


def test_around_the_pole_there_is_no_north_arrow(make_tile, tmp_path):
    tile = make_tile({"probabilities": np.zeros((10, 10), "float32")}, "EPSG:3413", (-50, 50), 10.0)
    assert data_of(render_report(export(tile, tmp_path)))["place"]["north"] is None


def test_pictures_of_large_tiles_are_shrunk_and_stay_small(make_tile, tmp_path):
    rng = np.random.default_rng(4)
    bands = {name: rng.random((1620, 1350), "float32") * 0.3 for name in ("red", "green", "blue", "probabilities")}
    page = render_report(export(make_tile(bands), tmp_path))
    assert {picture.size for picture in layers_of(page).values()} == {(1280, 1536)}
    assert len(page) < 3_500_000, "even pure noise"
