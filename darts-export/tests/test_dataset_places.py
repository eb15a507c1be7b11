"""The antimeridian, the pole, the south, two zones, coverage, and the tables as files."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
import shapely
from PIL import Image
from pystac import STACObjectType
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from shapely import box

from darts_export.dataset import merge_outputs
from darts_export.dataset.clusters import close_pairs, connected
from darts_export.dataset.columns import TABLES
from darts_export.dataset.ids import ids_of
from darts_export.dataset.joining import join, without_collinear
from darts_export.dataset.planes import NORTH, SOUTH, project, to_lonlat
from darts_export.dataset.spill import cells_of_boxes
from darts_export.dataset.statistics import pooled

GEOD = pyproj.Geod(ellps="WGS84")


def area_of(shape):
    """Geodesic area, part by part; edges are short."""
    return sum(abs(GEOD.geometry_area_perimeter(part)[0]) for part in shapely.get_parts(shape))


def write_tile(out, name, crs, whole, seen, *, cut=(), clear=None, day="2021-07-01", pixel=10):
    folder = Path(out) / name / day
    folder.mkdir(parents=True)
    for file, shapes in (("prediction_segments", whole), ("prediction_cut_segments", cut)):
        shapes = np.array(list(shapes), dtype=object)
        pixels = np.rint(shapely.area(shapes) / pixel**2)
        lonlat = gpd.GeoSeries(shapely.segmentize(shapes, 500), crs=crs).to_crs(4326)
        columns = dict.fromkeys(("mean", "min", "max", "median", "std"), np.full(len(shapes), 0.7))
        areas = [abs(GEOD.geometry_area_perimeter(shape)[0]) for shape in lonlat]
        frame = gpd.GeoDataFrame(
            {"npixel": pixels.astype("int64"), "area_m2": np.array(areas, "float64"), **columns,
             "model": pd.Series(["m"] * len(shapes), dtype="string")},
            geometry=list(shapes), crs=crs,
        )  # fmt: skip
        frame.to_parquet(folder / f"{file}.parquet")
    text = {key: pd.Series([name] * 2, dtype="string") for key in ("tile_id", "image_id", "sensor")}
    frame = gpd.GeoDataFrame(
        {"kind": ["seen", "clear"], **text}, geometry=[seen, seen if clear is None else clear], crs=crs
    )
    frame["sensor"] = "Sentinel-2"
    frame["acquisition_time"] = pd.Series([pd.Timestamp(day, tz="UTC")] * 2, dtype="datetime64[ms, UTC]")
    frame.to_parquet(folder / "prediction_extent.parquet")


def tables(tmp_path, **options):
    summary = merge_outputs([tmp_path / "run"], tmp_path / "out", **options)
    return summary, {name: gpd.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in TABLES}


def centre(lon, lat, crs):
    x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    return round(x, -1), round(y, -1)


def around(point, half):
    return box(point[0] - half, point[1] - half, point[0] + half, point[1] + half)


def test_a_slump_on_the_antimeridian_is_one_and_is_cut_there(tmp_path):
    middle = centre(180, 68, "EPSG:32601")
    slump = around(middle, 300)
    write_tile(tmp_path / "run", "a", "EPSG:32601", [slump], around(middle, 20_000))
    _, found = tables(tmp_path)
    for table in ("level1", "level2", "slumps"):
        (row,) = found[table].itertuples()
        assert row.geometry.is_valid
        assert sorted(np.sign(part.centroid.x) for part in row.geometry.geoms) == [-1, 1]
        assert shapely.bounds(row.geometry)[[0, 2]].tolist() == [-180, 180]
        assert row.area_m2 == pytest.approx(area_of(row.geometry), rel=1e-5)
    seen = found["coverage"][found["coverage"].kind == "seen"]
    assert seen.area_km2.sum() == pytest.approx(1600, rel=2e-3)
    assert seen.geometry.is_valid.all()
    assert (seen.geometry.bounds.maxx - seen.geometry.bounds.minx).max() < 5
    assert sum(map(area_of, seen.geometry)) / 1e6 == pytest.approx(1600, rel=2e-3)
    west, _, east, _ = json.loads((tmp_path / "out" / "collection.json").read_text())["extent"]["spatial"]["bbox"][0]
    assert west > 170
    assert east < -170


def test_tiles_of_two_zones_share_a_slump_on_the_antimeridian(tmp_path):
    for name, crs in (("east", "EPSG:32601"), ("west", "EPSG:32660")):
        middle = centre(180, 68, crs)
        write_tile(tmp_path / "run", name, crs, [around(middle, 300)], around(middle, 20_000))
    _, found = tables(tmp_path)
    assert len(found["level1"]) == len(found["slumps"]) == 1
    row = found["level1"].iloc[0]
    assert (row.n_pieces, row.tile_ids) == (2, "east;west")
    # The zones are turned against each other by 5.6 degrees.
    assert 360_000 < row.area_m2 < 420_000
    assert found["coverage"].query("kind == 'seen'").area_km2.sum() < 1.12 * 1600


def test_the_pole_does_no_harm(tmp_path):
    # Polar stereographic; the pole is in the slump, which no slump is.
    write_tile(tmp_path / "run", "a", "EPSG:3413", [around((0, 0), 500)], around((0, 0), 30_000))
    _, found = tables(tmp_path)
    row = found["level1"].iloc[0]
    assert row.geometry.is_valid
    assert row.geometry.bounds[0] == -180
    assert row.geometry.bounds[2:] == (180, 90)
    assert row.area_m2 == pytest.approx(1e6, rel=0.08)  # the scale of EPSG:3413 is 0.97 there
    assert found["slumps"].area_m2[0] == pytest.approx(row.area_m2, rel=1e-6)
    seen = found["coverage"].query("kind == 'seen'")
    assert seen.geometry.is_valid.all()
    assert len(seen) == 4
    flat = seen.to_crs(NORTH).area.sum() / 1e6
    assert seen.area_km2.sum() == pytest.approx(flat, rel=1e-3)


def test_the_south_has_a_plane_of_its_own(tmp_path):
    middle = centre(-58, -62, "EPSG:32721")
    write_tile(tmp_path / "run", "a", "EPSG:32721", [around(middle, 100)], around(middle, 5000))
    _, found = tables(tmp_path)
    assert found["level1"].area_m2[0] == pytest.approx(area_of(found["level1"].geometry[0]), rel=1e-6)
    assert found["coverage"].region.str.startswith("S").all()
    assert found["coverage"].query("kind == 'seen'").area_km2.sum() == pytest.approx(100, rel=5e-3)


def test_a_slump_cut_at_the_border_of_zones_is_joined(tmp_path):
    east, west = (centre(-132, 70, crs) for crs in ("EPSG:32609", "EPSG:32608"))
    write_tile(tmp_path / "run", "w", "EPSG:32608", [], around(west, 200), cut=[around(west, 250)])
    write_tile(tmp_path / "run", "e", "EPSG:32609", [], around(east, 1000), cut=[around(east, 250)])
    summary, found = tables(tmp_path)
    assert len(found["level1"]) == 1
    assert found["level1"].cut[0]
    assert summary.dropped.unseen == 0


def test_coverage_keeps_holes_and_tells_days(tmp_path):
    middle = centre(-135, 68.5, "EPSG:32608")
    hole = around(middle, 1000)
    first, second = around(middle, 10_000) - hole, around((middle[0] + 5000, middle[1]), 10_000) - hole
    write_tile(tmp_path / "run", "a", "EPSG:32608", [], first, clear=around(middle, 500))
    write_tile(tmp_path / "run", "b", "EPSG:32608", [], second, day="2021-07-09")
    write_tile(tmp_path / "run", "c", "EPSG:32608", [], first, day="2022-07-09", clear=shapely.Polygon())
    _, found = tables(tmp_path)
    coverage = found["coverage"]
    by = coverage.groupby(["year", "kind"])
    assert by.area_km2.sum()[2021, "seen"] == pytest.approx(500 - 4, rel=5e-3)
    assert by.n_dates.max()[2021, "seen"] == 2
    assert (2022, "clear") not in by.groups
    inside = shapely.Point(*pyproj.Transformer.from_crs("EPSG:32608", 4326, always_xy=True).transform(*middle))
    assert not coverage.query("year == 2021 and kind == 'seen'").contains(inside).any()
    summary = pd.read_parquet(tmp_path / "out" / "summary.parquet")
    total = summary.query("region == 'all' and year == 2021").iloc[0]
    assert total.seen_km2 == pytest.approx(by.area_km2.sum()[2021, "seen"])
    assert (total.n_level1, total.area_km2) == (0, 0)


def test_the_summary_counts_by_cell_and_by_given_regions(tmp_path):
    middle = centre(-135, 68.5, "EPSG:32608")
    slumps = [around((middle[0] + east, middle[1]), 100) for east in (-3000, 1000, 3000)]
    write_tile(tmp_path / "run", "a", "EPSG:32608", slumps, around(middle, 10_000))
    write_tile(tmp_path / "run", "a", "EPSG:32608", slumps[:1], around(middle, 10_000), day="2022-07-01")
    regions = gpd.GeoDataFrame(
        {"name": ["west", "east"]}, geometry=[box(-140, 60, -135, 75), box(-135, 60, -130, 75)], crs=4326
    )
    regions.to_crs(3413).to_file(tmp_path / "regions.gpkg")
    merge_outputs([tmp_path / "run"], tmp_path / "out", regions=tmp_path / "regions.gpkg")
    rows = pd.read_csv(tmp_path / "out" / "summary.csv").set_index(["region", "year"])
    assert rows.loc[("all", 2021), "n_level2"] == 3
    assert (rows.loc[("west", 2021), "n_slumps"], rows.loc[("east", 2021), "n_slumps"]) == (1, 2)
    assert rows.loc[("west", 2021), "seen_km2"] == pytest.approx(200, rel=0.02)
    every = rows.reset_index().query("year != year").set_index("region")
    assert (every.n_slumps["all"], every.n_level2["all"]) == (3, 4)
    cells = rows.reset_index().query("year == 2021 and longitude == longitude")
    assert cells.n_level2.sum() == 3
    assert cells.latitude.between(67, 70).all()


def test_a_dataset_of_nothing_seen_and_nothing_found_is_one(tmp_path):
    write_tile(tmp_path / "run", "a", "EPSG:32608", [], shapely.Polygon())
    summary, found = tables(tmp_path)
    assert summary.rows == dict.fromkeys(TABLES, 0)
    assert [len(frame) for frame in found.values()] == [0] * len(TABLES)
    assert pd.read_csv(tmp_path / "out" / "summary.csv").empty
    check_collection(tmp_path / "out")


def check_collection(folder):
    collection = json.loads((folder / "collection.json").read_text())
    JsonSchemaSTACValidator().validate_core(collection, STACObjectType.COLLECTION, "1.1.0")


def test_every_file_is_what_it_says(tmp_path):
    middle = centre(-135, 68.5, "EPSG:32608")
    write_tile(tmp_path / "run", "a", "EPSG:32608", [around(middle, 100)], around(middle, 10_000))
    summary, found = tables(tmp_path)
    out = tmp_path / "out"
    for name, columns in TABLES.items():
        geo = json.loads(pq.read_schema(out / f"{name}.parquet").metadata[b"geo"])
        assert geo["version"] == "1.1.0"
        assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
        assert [column.name for column in columns] == list(found[name].columns[:-1])
        package = pyogrio.read_dataframe(out / f"{name}.gpkg")
        assert len(package) == len(found[name]) == summary.rows[name]
        assert pyogrio.read_info(out / f"{name}.gpkg")["geometry_type"] == "MultiPolygon"
        assert package.crs.to_epsg() == 4326
        with closing(sqlite3.connect(out / f"{name}.gpkg")) as database:
            assert database.execute("PRAGMA user_version").fetchone() == (10200,)  # newer ones make QGIS warn
            ((layer, geometry, style),) = database.execute(
                "SELECT f_table_name, f_geometry_column, styleQML FROM layer_styles WHERE useAsDefault"
            )
            assert layer == name
            assert database.execute("SELECT column_name FROM gpkg_geometry_columns").fetchone() == (geometry,)
            drawn_by = re.search(r'renderer-v2 type="\w+" attr="(\w+)"', style)
            assert drawn_by is None if name == "slumps" else drawn_by[1] in {column.name for column in columns}
    assert {asset["href"] for asset in json.loads((out / "collection.json").read_text())["assets"].values()} == {
        f"./{path.name}" for path in out.iterdir() if path.name != "collection.json"
    }
    check_collection(out)
    with Image.open(out / "map.png") as picture:
        assert len(picture.getcolors(1 << 20)) > 5
    text = (Path(__file__).parents[2] / "docs" / "dataset.md").read_text()
    for columns in TABLES.values():
        for column in columns:
            assert f"`{column.name}`" in text


def test_joined_pixels_have_the_outline_of_their_union():
    rng = np.random.default_rng(3)
    pixel, corner = 0.1, np.array([123456.7, 7654321.3])
    for _ in range(40):
        mask = rng.random((7, 9)) < 0.6
        boxes = np.array([box(c, r, c + 1, r + 1) for r, c in zip(*np.nonzero(mask), strict=True)], dtype=object)
        pieces = np.array([shapely.transform(one, lambda xy: corner + xy * pixel) for one in boxes], dtype=object)
        share = np.append(rng.integers(0, 3, len(pieces) - 3), [0, 1, 2])
        groups = [np.array([shapely.union_all(pieces[share == part]) for part in range(3)], dtype=object)]
        whole = join(groups, np.array([pixel]), added=True)
        assert whole.on_grid.all()
        assert whole.added[0].sum() == pytest.approx(mask.sum() * pixel**2)
        counted = shapely.transform(whole.geometry[0], lambda xy: np.rint((xy - corner) / pixel))
        plain = without_collinear(np.array([shapely.union_all(boxes)], dtype=object))[0]
        assert shapely.normalize(counted) == shapely.normalize(plain)
        turns = [len(ring.coords) for ring in shapely.get_rings(shapely.get_parts(plain))]
        assert min(turns) >= 5


def test_outlines_of_crossing_grids_stay_valid_on_their_way_to_longitude_and_latitude():
    rng = np.random.default_rng(11)
    pieces = []
    # Two on one grid and one on another: in the plane, edges of the one grid cross by less than rounding tells.
    for crs in ("EPSG:32608", "EPSG:32608", "EPSG:32609"):
        corner = np.array(centre(-132, 71, crs)) + 10 * rng.integers(0, 6, (150, 14, 2))
        pixels = shapely.box(corner[..., 0], corner[..., 1], corner[..., 0] + 10, corner[..., 1] + 10)
        pieces.append(project(shapely.union_all(pixels, axis=1), crs, NORTH))
    groups = list(np.stack(pieces, axis=1))
    whole = join(groups, np.full(len(groups), 10.0))
    assert not whole.on_grid.any()
    assert shapely.is_valid(to_lonlat(whole.geometry, NORTH, NORTH)).all()
    plain = np.array([shapely.union_all(group) for group in groups])
    assert shapely.area(shapely.symmetric_difference(whole.geometry, plain)).max() < 5


def test_components_are_those_of_a_search_one_by_one():
    rng = np.random.default_rng(4)
    for _ in range(30):
        count = int(rng.integers(1, 40))
        first, second = rng.integers(0, count, (2, rng.integers(0, 40)))
        label = connected(count, first, second)
        expected = list(range(count))
        for _ in range(count):
            for a, b in zip(first, second, strict=True):
                expected[a] = expected[b] = min(expected[a], expected[b])
        assert label.tolist() == expected


def test_close_pairs_are_those_of_all_pairs():
    rng = np.random.default_rng(5)
    corner = rng.uniform(0, 40, (60, 2))
    shapes = shapely.box(*corner.T, *(corner + rng.uniform(1, 5, (60, 2))).T)
    group = rng.integers(0, 3, 60)
    found = set(zip(*(side.tolist() for side in close_pairs(shapes, group, np.full(60, 0.5))), strict=True))
    assert found == {
        (a, b) for a in range(60) for b in range(a + 1, 60)
        if group[a] == group[b] and shapes[a].distance(shapes[b]) <= 0.5
    }  # fmt: skip


def test_cells_hold_what_touches_them():
    bounds = np.array([[-1.0, -1, 1, 1], [10, 10, 20, 20], [0, 0, 8192, 1]])
    row, cell = cells_of_boxes(bounds, np.array([False, False, True]))
    assert np.bincount(row).tolist() == [4, 1, 2]
    assert len(set(cell[row == 0])) == 4
    assert set(cell[row == 1]) < set(cell[row == 0])
    assert not set(cell[row == 2]) & set(cell[row != 2])


def test_statistics_of_parts_are_those_of_all_pixels():
    rng = np.random.default_rng(6)
    parts = [rng.random(size) for size in (5, 1, 12)]
    known = {
        "pval_mean": [part.mean() for part in parts], "pval_min": [part.min() for part in parts],
        "pval_max": [part.max() for part in parts], "pval_median": [np.median(part) for part in parts],
        "pval_std": [part.std() for part in parts],
    }  # fmt: skip
    whole = pooled({name: np.array(values) for name, values in known.items()}, np.array([5.0, 1, 12]))
    pixels = np.concatenate(parts)
    for name, value in (("mean", pixels.mean()), ("std", pixels.std()), ("min", pixels.min()), ("max", pixels.max())):
        assert whole[f"pval_{name}"] == pytest.approx(value)
    alone = pooled({name: np.array(values) for name, values in known.items()}, np.array([0.0, 0, 12]))
    assert alone["pval_median"] == np.median(parts[2])


def test_ids_are_stable_and_told_apart():
    ids = ids_of(["a", "b", "a"])
    assert ids.tolist()[:2] == ids_of(["a", "b"]).tolist()
    assert len(set(ids.tolist())) == 3
    assert (ids > 0).all()
    assert (ids < 2**53).all()


def test_what_encloses_a_pole_goes_along_it():
    for plane, pole in ((NORTH, 90), (SOUTH, -90)):
        (square,) = to_lonlat(np.array([box(-1000, -1000, 1000, 1000)], dtype=object), plane, plane)
        assert square.is_valid
        assert shapely.contains_xy(square, [-179, -1, 1, 90, 179], [pole - np.sign(pole) * 0.001] * 5).all()
        assert not shapely.contains_xy(square, 45, pole - np.sign(pole) * 0.02)
