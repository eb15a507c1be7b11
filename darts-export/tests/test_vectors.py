import itertools

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
import rasterio.features
import rasterio.transform
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from darts_export.geodesy import geodesic_area_m2
from darts_export.vector_files import write_geopackage, write_parquet
from darts_export.vectors import (
    EXTENT_COLUMNS,
    SEGMENT_COLUMNS,
    extent,
    segments,
)

IDS = {"tile_id": "t", "image_id": "i", "sensor": "s", "acquisition_time": pd.Timestamp("2021-08-21T21:00:00Z")}
NOTHING = {"tile_id": "t", "image_id": None, "sensor": None, "acquisition_time": pd.NaT}
NAN = np.float32(np.nan)
masks = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=16))


def painted(frame, tile):
    """Region_ID burnt back onto the tile's grid, by GDAL's rasterizer."""
    if frame.empty:
        return np.zeros(tile.odc.geobox.shape, "int32")
    pairs = zip(frame.geometry, frame.Region_ID, strict=True)
    return rasterio.features.rasterize(
        pairs, out_shape=tile.odc.geobox.shape, transform=tile.odc.geobox.affine, dtype="int32"
    )


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=masks, seed=st.integers(0, 2**32 - 1))
def test_polygons_are_the_8_connected_regions_pixel_by_pixel(make_tile, found, seed):
    probabilities = np.random.default_rng(seed).random(found.shape, dtype="float32")
    tile = make_tile({"probabilities": probabilities})
    frame = segments(tile, found, probabilities, "ensemble", IDS)
    labels, count = ndimage.label(found, structure=np.ones((3, 3)))
    assert len(frame) == count
    assert frame.is_valid.all()
    back = painted(frame, tile)
    np.testing.assert_array_equal(back > 0, found)
    first_pixels = []
    for row in frame.itertuples():
        inside = back == row.Region_ID
        assert len(np.unique(labels[inside])) == 1
        values = probabilities[inside].astype("float64")
        assert row.npixel == inside.sum()
        np.testing.assert_allclose(
            [row.min, row.max, row.mean, row.median, row.std],
            [values.min(), values.max(), values.mean(), np.median(values), values.std()],
            rtol=1e-12,
            atol=1e-12,
        )
        assert row.geometry.area == pytest.approx(100 * row.npixel)
        first_pixels.append(np.flatnonzero(inside)[0])
    assert first_pixels == sorted(first_pixels)
    assert frame.Region_ID.tolist() == list(range(1, count + 1))


def test_squares_joined_at_a_corner_are_one_row(make_tile):  # E7
    found = np.zeros((30, 30), bool)
    found[2:12, 2:12] = found[12:22, 12:22] = True
    frame = segments(make_tile({"p": found}), found, np.full(found.shape, 0.9), "ensemble", IDS)
    assert frame.npixel.tolist() == [200]
    assert frame.geometry.area.tolist() == [20000]
    assert frame.is_valid.all()


def test_holes_are_kept_and_outlines_have_corners_only(make_tile):
    found = np.zeros((20, 20), bool)
    found[2:18, 2:18] = True
    found[5:9, 6:8] = False
    (outline,) = segments(make_tile({"p": found}), found, np.ones(found.shape), "m", IDS).geometry
    assert len(outline.interiors) == 1
    assert len(outline.exterior.coords) == 5
    assert outline.area == (256 - 8) * 100


def test_missing_probabilities_are_never_counted(make_tile):  # E8
    found = np.zeros((10, 10), bool)
    found[1:4, 1:4] = found[6:9, 6:9] = True
    probabilities = np.full(found.shape, np.float32(0.75))
    probabilities[1:3, 1:4] = NAN
    probabilities[6:9, 6:9] = NAN
    frame = segments(make_tile({"p": found}), found, probabilities, "m", IDS)
    assert frame.loc[0, ["min", "max", "mean", "median", "std"]].tolist() == [0.75, 0.75, 0.75, 0.75, 0]
    assert frame.loc[1, ["min", "max", "mean", "median", "std"]].isna().all()
    assert frame.npixel.tolist() == [9, 9]


@pytest.mark.parametrize("ids", [IDS, NOTHING])
def test_the_schema_is_the_same_without_detections_and_without_ids(make_tile, tmp_path, ids):  # E12
    found = np.zeros((10, 10), bool)
    found[2:5, 2:5] = True
    tile = make_tile({"p": found})
    reference = segments(tile, found, np.full(found.shape, 0.9), "m", IDS)
    for mask in (found, np.zeros_like(found)):
        frame = segments(tile, mask, np.full(found.shape, 0.9), "m", ids)
        assert list(frame.columns) == [*SEGMENT_COLUMNS, "geometry"]
        assert frame.dtypes.equals(reference.dtypes)
        schemas, fields = [], []
        for number, one in enumerate((frame, reference)):
            write_parquet(tmp_path / f"{number}.parquet", one)
            write_geopackage(tmp_path / f"{number}.gpkg", one)
            schemas.append(pq.read_schema(tmp_path / f"{number}.parquet").remove_metadata())
            info = pyogrio.read_info(tmp_path / f"{number}.gpkg")
            fields.append([*zip(info["fields"], info["dtypes"], strict=True), info["geometry_type"]])
        assert schemas[0] == schemas[1]
        assert fields[0] == fields[1]


@pytest.mark.parametrize(
    ("crs", "corner"),
    [
        ("EPSG:32608", (3e5, 7.6e6)),
        ("EPSG:32708", (3e5, 2.5e6)),  # south
        ("EPSG:32660", (620_000, 7.5e6)),  # zone 60, here east of 180°
        ("EPSG:32660", (596_500, 7.6e6)),
        ("EPSG:32601", (390_000, 7.6e6)),
        ("EPSG:3413", (-1500, 1500)),  # around the pole
        ("EPSG:3413", (-2.2e6, 4e5)),
    ],
)
def test_areas_are_geodesic_wherever_they_lie(make_tile, crs, corner):
    found = np.zeros((300, 300), bool)
    found[20:280, 30:290] = True
    found[100:120, 90:150] = False
    tile = make_tile({"p": found}, crs=crs, corner=corner)
    (area,) = segments(tile, found, np.ones(found.shape), "m", IDS).area_m2
    # Independent of polygons: each pixel divided by the areal scale of the projection at its centre.
    geobox = tile.odc.geobox
    row, column = np.nonzero(found)
    x, y = rasterio.transform.xy(geobox.affine, row, column)
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    longitude, latitude = to_degrees.transform(x, y)
    scale = pyproj.Proj(crs).get_factors(longitude, latitude).areal_scale
    assert area == pytest.approx((100 / scale).sum(), rel=2e-6)


def test_an_object_across_the_antimeridian_has_its_true_area():
    to_grid = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32660", always_xy=True)
    x, y = to_grid.transform(180, 68)
    outline = shapely.box(round(x) - 500, round(y) - 500, round(x) + 500, round(y) + 500)
    to_degrees = pyproj.Transformer.from_crs("EPSG:32660", "EPSG:4326", always_xy=True)
    longitudes = to_degrees.transform(*shapely.get_coordinates(outline).T)[0]
    assert longitudes.min() < -179.9  # it does lie on both sides
    assert longitudes.max() > 179.9
    (area,) = geodesic_area_m2(np.array([outline]), "EPSG:32660", longest_edge=200)
    scale = pyproj.Proj("EPSG:32660").get_factors(180, 68).areal_scale
    assert area == pytest.approx(1e6 / scale, rel=1e-6)


def test_holes_are_taken_off_the_area_in_either_direction_of_their_rings():
    hole = [(10, 10), (10, 90), (90, 90), (90, 10)]
    moved = [[(x + 5e5, y + 7.6e6) for x, y in ring] for ring in (hole, hole[::-1])]
    outer = shapely.box(5e5, 7.6e6, 5e5 + 100, 7.6e6 + 100).exterior.coords
    areas = geodesic_area_m2(np.array([shapely.Polygon(outer, [ring]) for ring in moved]), "EPSG:32608", 200)
    np.testing.assert_allclose(areas, 3600 / 0.9996**2, rtol=1e-5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seen=masks, seed=st.integers(0, 2**32 - 1))
def test_the_extent_follows_the_pixels(make_tile, seen, seed):
    rng = np.random.default_rng(seed)
    quality = rng.integers(0, 3, seen.shape).astype("uint8")
    scl = rng.integers(0, 12, seen.shape).astype("uint8")
    tile = make_tile({"extent": seen, "quality_data_mask": quality, "s2_scl": scl})
    frame = extent(tile, IDS)
    clear = seen & (quality == 2) & (scl != 8) & (scl != 9) & (scl != 10)
    assert frame.kind.tolist() == ["seen", "clear"]
    for outline, expected in zip(frame.geometry, (seen, clear), strict=True):
        assert outline.is_valid
        assert outline.area == pytest.approx(100 * expected.sum())
        if expected.any():
            geobox = tile.odc.geobox
            burnt = rasterio.features.rasterize([outline], out_shape=geobox.shape, transform=geobox.affine)
            np.testing.assert_array_equal(burnt.astype(bool), expected)


def test_haze_and_cloud_bits_of_planet_are_not_clear(make_tile):
    udm = np.array([[0b1, 0b10, 0b100, 0b1000, 0b10000, 0b100000, 0]], "uint8")
    ones = np.ones(udm.shape, bool)
    tile = make_tile({"extent": ones, "quality_data_mask": ones * np.uint8(2), "planet_udm": udm})
    seen, clear = extent(tile, IDS).geometry.area
    assert (seen, clear) == (700, 400)


def test_extent_rows_are_there_even_when_empty(make_tile, tmp_path):
    shape = (12, 9)
    tile = make_tile({"extent": np.zeros(shape, bool), "quality_data_mask": np.zeros(shape, "uint8")})
    frame = extent(tile, NOTHING)
    write_parquet(tmp_path / "e.parquet", frame)
    write_geopackage(tmp_path / "e.gpkg", frame)
    for read in (gpd.read_parquet(tmp_path / "e.parquet"), gpd.read_file(tmp_path / "e.gpkg")):
        assert read.kind.tolist() == ["seen", "clear"]
        assert read.geometry.is_empty.all()
        assert set(EXTENT_COLUMNS) < set(read.columns)


def test_both_formats_read_back_with_crs_values_and_a_bbox_column(tile, tmp_path):
    frame = segments(tile, tile.binarized_segmentation.values, tile.probabilities.values, "ensemble", IDS)
    write_parquet(tmp_path / "s.parquet", frame)
    write_geopackage(tmp_path / "s.gpkg", frame)
    one, two = gpd.read_parquet(tmp_path / "s.parquet"), pyogrio.read_dataframe(tmp_path / "s.gpkg")
    for read in (one, two):
        assert read.crs == "EPSG:32608"
        assert read.geometry.geom_equals(frame.geometry).all()
        assert (read.acquisition_time == IDS["acquisition_time"]).all()
        np.testing.assert_array_equal(read["mean"], frame["mean"])
    metadata = pq.read_metadata(tmp_path / "s.parquet").metadata[b"geo"].decode()
    assert '"version": "1.1.0"' in metadata
    assert '"covering"' in metadata
    assert "bbox" in pq.read_schema(tmp_path / "s.parquet").names
    assert gpd.read_parquet(tmp_path / "s.parquet", bbox=(5e5, 7599e3, 5e5 + 50, 7.6e6)).empty


def test_files_are_the_same_bytes_each_time(tile, tmp_path):
    frame = segments(tile, tile.binarized_segmentation.values, tile.probabilities.values, "ensemble", IDS)
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        write_parquet(tmp_path / run / "s.parquet", frame)
        write_geopackage(tmp_path / run / "s.gpkg", frame)
    for name in ("s.parquet", "s.gpkg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert b"20" + pd.Timestamp.now().strftime("%y-%m-%dT").encode() not in (tmp_path / "one" / "s.gpkg").read_bytes()


def test_ids_do_not_depend_on_the_number_of_threads(make_tile):
    import cv2

    found = np.random.default_rng(9).random((130, 90)) > 0.7
    tile = make_tile({"p": found})
    frames, threads = [], cv2.getNumThreads()
    try:
        for number in (1, 2):
            cv2.setNumThreads(number)
            frames.append(segments(tile, found, np.ones(found.shape), "m", IDS))
    finally:
        cv2.setNumThreads(threads)
    for one, two in itertools.pairwise(frames):
        assert one.equals(two)


def test_ids_are_stable_and_do_not_depend_on_other_objects(make_tile):
    found = np.random.default_rng(5).random((60, 70)) > 0.75
    tile = make_tile({"p": found})
    probabilities = np.full(found.shape, 0.9)
    frame = segments(tile, found, probabilities, "m", IDS, threshold=0.5)
    assert frame.segment_id.is_unique
    assert frame.segment_id.str.fullmatch("[0-9a-f]{24}").all()
    again = segments(tile, found.copy(), probabilities * 0.5, "m", IDS, threshold=0.5)
    assert again.segment_id.tolist() == frame.segment_id.tolist()
    for row in frame.itertuples():
        if row.Region_ID % 7:
            continue
        alone = painted(frame[frame.Region_ID == row.Region_ID], tile) > 0
        assert segments(tile, alone, probabilities, "m", IDS, threshold=0.5).segment_id.tolist() == [row.segment_id]


def test_whatever_makes_an_object_another_changes_its_id(make_tile):
    found = np.zeros((20, 20), bool)
    found[3:6, 4:9] = True
    moved, changed = np.roll(found, 1, axis=1), found.copy()
    changed[4, 5] = False
    tile = make_tile({"p": found})
    elsewhere = make_tile({"p": found}, corner=(5e5 + 10, 7.6e6))
    values = np.full(found.shape, 0.9)
    ids = [
        segments(tile, found, values, "m", IDS, threshold=0.5),
        segments(tile, moved, values, "m", IDS, threshold=0.5),
        segments(tile, changed, values, "m", IDS, threshold=0.5),
        segments(elsewhere, found, values, "m", IDS, threshold=0.5),
        segments(tile, found, values, "n", IDS, threshold=0.5),
        segments(tile, found, values, "m", IDS, threshold=0.4),
        segments(tile, found, values, "m", IDS),
        *(segments(tile, found, values, "m", IDS | {key: "other"}, threshold=0.5) for key in ("tile_id", "image_id")),
    ]
    assert len({frame.segment_id[0] for frame in ids}) == len(ids)


def test_spread_and_surroundings_are_told(make_tile):
    found = np.zeros((40, 40), bool)
    found[10:14, 20:24] = True
    seen = np.zeros_like(found)
    seen[:, 22:] = True
    spread = np.full(found.shape, NAN)
    spread[10:14, 20:22] = 0.25
    tile = make_tile({"extent": seen})
    (row,) = segments(tile, found, np.ones(found.shape), "m", IDS, spread=spread).itertuples()
    assert row.probability_std == 0.25
    assert row.valid_share_around == pytest.approx(0.5, abs=1e-12)
    assert row.perimeter_m == pytest.approx(160 / 0.9996, rel=1e-4)
    (row,) = segments(make_tile({"p": found}), found, np.ones(found.shape), "m", IDS).itertuples()
    assert np.isnan(row.valid_share_around)
    assert np.isnan(row.probability_std)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seen=masks)
def test_the_extents_area_is_that_of_its_outline(make_tile, seen):
    tile = make_tile({"extent": seen, "quality_data_mask": seen.astype("uint8") * 2})
    frame = extent(tile, IDS)
    expected = geodesic_area_m2(frame.geometry.to_numpy(), "EPSG:32608", 200)
    np.testing.assert_allclose(frame.area_m2, expected, rtol=1e-6)
