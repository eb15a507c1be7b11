"""From labels and scenes to patches that line up with the slumps."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import rasterio.features
import shapely
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio import Affine

from darts.pipelines.planet import PlanetPipeline
from darts.pipelines.sentinel2 import Sentinel2Pipeline
from darts.pipelines.stac_options import StacOptions
from darts.training.creating import create_dataset
from darts.training.labels import read_labels
from darts.training.options import CreateOptions, LabelOptions, MatchOptions
from darts.training.samples import CreateSummary
from darts.training.scenes import planet_scenes, sentinel2_scenes
from darts_acquisition import import_scene
from darts_acquisition.testing import cql2_stac_server, file_server, make_collection, make_earth_search_scene
from darts_segmentation.training.patch_dataset import PatchDataset
from darts_utils.errors import MissingDataError

from .slump_scenes import (
    BOX,
    GRID,
    OPTIONS,
    SIZE,
    SLUMPS,
    content,
    imported,
    label_set,
    mosaic,
    to_lonlat,
    true_slumps,
    write_stored,
)

DATA = Path(__file__).parents[3] / "shared" / "data"
HAS_DATA = pytest.mark.skipif(not DATA.is_dir(), reason="the sample data do not stand beside the checkout")


def test_patches_line_up_with_the_slumps(tmp_path: Path) -> None:
    write_stored(tmp_path / "store", "s", cloud=0.06, nodata_cols=2)
    labels = label_set(tmp_path, {"img": BOX})
    summary = create_dataset(tmp_path / "ds", labels, imported(tmp_path / "store"), OPTIONS)
    dataset = PatchDataset.open(tmp_path / "ds")
    assert summary == CreateSummary(made=1, n_patches=len(dataset))
    x, y = mosaic(dataset, "img@s", GRID.shape.yx)
    expected = true_slumps().astype("uint8")
    outside = np.ones(expected.shape, bool)
    outside[4:84, 4:110] = False
    expected[outside] = 9
    expected[4:5, 4:110] = 2  # of the five rows of cloud
    np.testing.assert_array_equal(y, expected)
    ndvi = x[OPTIONS.bands.index("ndvi")]
    assert np.allclose(ndvi[y == 1], 100 / 3100)
    assert np.allclose(ndvi[y == 0], 2500 / 3500)
    assert np.allclose(x[0][y < 9], 0.06)
    row = dataset.samples.iloc[0]
    assert (row.image_id, row.scene_id, row.region, row.days, row.state) == ("img", "s", "here", 0, "patches")
    assert row.acquisition_time == "2021-08-21T21:00:19Z"
    assert row.cover == pytest.approx(1, abs=1e-3)
    assert row.cloud == pytest.approx(1 / 80)
    assert row.geometry.equals(labels.footprints.geometry[0])
    assert dataset.form.bands == tuple(OPTIONS.bands)
    assert (dataset.form.sensor, dataset.form.pixel_m) == ("Sentinel-2", 10.0)


def test_each_patch_has_its_place_on_earth(tmp_path: Path) -> None:
    write_stored(tmp_path / "store", "s")
    create_dataset(tmp_path / "ds", label_set(tmp_path, {"img": BOX}), imported(tmp_path / "store"), OPTIONS)
    for row in PatchDataset.open(tmp_path / "ds").metadata.itertuples():
        expected = to_lonlat(GRID, shapely.box(row.col, row.row, row.col + SIZE, row.row + SIZE).exterior)
        assert row.geometry.symmetric_difference(expected).area < 1e-3 * expected.area


def test_a_footprint_without_an_outline_is_the_whole_scene(tmp_path: Path) -> None:
    write_stored(tmp_path / "store", "s", nodata_cols=3)
    create_dataset(tmp_path / "ds", label_set(tmp_path, {"img": None}), imported(tmp_path / "store"), OPTIONS)
    dataset = PatchDataset.open(tmp_path / "ds")
    _, y = mosaic(dataset, "img@s", GRID.shape.yx)
    expected = true_slumps().astype("uint8")
    expected[:, :3] = 2
    np.testing.assert_array_equal(y, expected)
    whole = to_lonlat(GRID, [(0, 0), (120, 0), (120, 90), (0, 90)])
    assert dataset.samples.geometry[0].symmetric_difference(whole).area < 1e-4 * whole.area


def test_options_shape_the_patches(tmp_path: Path) -> None:
    write_stored(tmp_path / "store", "s", cloud=0.5)
    labels, source = label_set(tmp_path, {"img": BOX}), imported(tmp_path / "store")
    match = MatchOptions(max_cloud_cover=100)

    def made(name: str, **changes: object) -> PatchDataset:
        options = CreateOptions(**{"bands": ["red", "ndvi"], "patch_size": 24, "min_labelled": 0.01, **changes})
        create_dataset(tmp_path / name, labels, source, options, match)
        return PatchDataset.open(tmp_path / name)

    every = made("all")
    assert len(made("positive", keep_negative=False)) == (every.metadata.positive_share > 0).sum() < len(every)
    assert len(made("labelled", min_labelled=0.8)) == (every.metadata.labelled_share >= 0.8).sum() < len(every)
    assert len(made("overlapping", overlap=16)) > len(every)
    _, cloudy = mosaic(made("clouds", quality_level=1), "img@s", GRID.shape.yx)
    np.testing.assert_array_equal(cloudy[4:84, 4:110], true_slumps()[4:84, 4:110])
    _, ringed = mosaic(made("ring", quality_level=1, label_buffer_m=20), "img@s", GRID.shape.yx)
    np.testing.assert_array_equal(ringed == 1, cloudy == 1)
    assert 50 < (ringed == 2).sum() < 400


def test_the_better_scene_is_taken_and_the_comparison_written_down(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_stored(store, "a-late", "2021-08-26T21:00:00Z")
    write_stored(store, "b-cloudy", "2021-08-21T21:00:00Z", cloud=0.6)
    write_stored(store, "c-best", "2021-08-20T21:00:00Z")
    write_stored(store, "d-too-late", "2021-09-26T21:00:00Z")
    labels = label_set(tmp_path, {"img": BOX})
    create_dataset(tmp_path / "ds", labels, imported(store), OPTIONS)
    assert PatchDataset.open(tmp_path / "ds").samples.sample_id.tolist() == ["img@c-best"]
    matches = pd.read_parquet(tmp_path / "ds" / "matches.parquet").set_index("scene_id")
    assert matches.chosen.to_dict() == {"a-late": False, "b-cloudy": False, "c-best": True, "d-too-late": False}
    assert matches.score["c-best"] > matches.score["a-late"] > 0
    assert "cloud" in matches.reason["b-cloudy"]
    assert "days apart" in matches.reason["d-too-late"]


def test_scenes_can_be_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_stored(tmp_path / "store", name)
    source = imported(tmp_path / "store", scene_ids=["b"])
    create_dataset(tmp_path / "ds", label_set(tmp_path, {"img": BOX}), source, OPTIONS)
    assert PatchDataset.open(tmp_path / "ds").samples.scene_id.tolist() == ["b"]
    with pytest.raises(MissingDataError, match=r"not in .*: gone"):
        create_dataset(
            tmp_path / "ds",
            label_set(tmp_path, {"img": BOX}),
            imported(tmp_path / "store", scene_ids=["gone"]),
            OPTIONS,
        )


def test_an_archive_is_searched_around_each_footprint(tmp_path: Path) -> None:
    """From a STAC server on 127.0.0.1: the clear scene of the week is found, fetched, kept and cut."""
    scenes = {
        "S2A_T08WMB_20210819T204021_L2A": 2.0, "S2B_T08WMB_20210821T204021_L2A": 80.0,
        "S2A_T08WMB_20210925T204021_L2A": 0.0,
    }  # fmt: skip
    (served := tmp_path / "served").mkdir()
    with file_server(served) as files_url:
        items = []
        for name, cloud in scenes.items():
            item, files = make_earth_search_scene(name, GRID, base_url=files_url)
            item["properties"]["eo:cloud_cover"] = cloud
            items.append(item)
            for path, data in files.items():
                (served / path).parent.mkdir(parents=True, exist_ok=True)
                (served / path).write_bytes(data)
        with cql2_stac_server(make_collection(items[0]["collection"]), items) as stac:
            pipeline = Sentinel2Pipeline(
                raw_data_source="earth-search", raw_data_store=tmp_path / "store",
                stac=StacOptions(endpoint=stac.url),
            )  # fmt: skip
            options = CreateOptions(bands=["red", "ndvi"], patch_size=SIZE, min_labelled=0)
            create_dataset(tmp_path / "ds", label_set(tmp_path, {"img": BOX}), sentinel2_scenes(pipeline), options)
    assert PatchDataset.open(tmp_path / "ds").samples.scene_id.tolist() == ["S2A_T08WMB_20210819T204021_L2A"]
    matches = pd.read_parquet(tmp_path / "ds" / "matches.parquet")
    assert matches.scene_id.tolist() == ["S2A_T08WMB_20210819T204021_L2A"]
    # The servers are gone; what was fetched is enough.
    offline = Sentinel2Pipeline(raw_data_source="earth-search", raw_data_store=tmp_path / "store", offline=True)
    loose = MatchOptions(max_cloud_cover=100, min_cover=0)
    create_dataset(tmp_path / "ds2", label_set(tmp_path, {"img": BOX}), sentinel2_scenes(offline), options, loose)
    assert content(tmp_path / "ds2") == content(tmp_path / "ds")


def write_planet(folder: Path, slumps: np.ndarray, grid: GeoBox, *, cloud_rows: int = 0) -> None:
    folder.mkdir(parents=True)
    dn = np.stack([np.full(grid.shape.yx, v, "uint16") for v in (600, 700, 500, 3000)])
    dn[2:, slumps] = np.array([1500, 1600], "uint16")[:, None]
    mask = np.zeros((8, *grid.shape.yx), "uint8")
    mask[0], mask[5, :cloud_rows] = 1, 1
    profile = {"driver": "GTiff", "width": grid.shape.x, "height": grid.shape.y, "crs": str(grid.crs)}
    for name, values in (("AnalyticMS_SR", dn), ("udm2", mask)):
        file = folder / f"{folder.name}_3B_{name}.tif"
        with rasterio.open(
            file, "w", count=len(values), dtype=values.dtype, transform=grid.affine, **profile
        ) as raster:
            raster.write(values)
    angles = {"sun_azimuth": 170.5, "sun_elevation": 35.2}
    (folder / f"{folder.name}_metadata.json").write_text(json.dumps({"properties": angles}))


@pytest.mark.parametrize("has_footprint", [True, False])
def test_planet_images_are_found_by_the_ids_of_labels(tmp_path: Path, has_footprint: bool) -> None:
    grid = GeoBox((300, 400), GRID.affine * Affine.scale(0.3), GRID.crs)
    slumps = rasterio.features.rasterize(
        [shapely.transform(shapely.Polygon(c), lambda xy: xy / 0.3) for c in SLUMPS], grid.shape.yx
    ).astype(bool)
    name = "5811537_0870514_2021-08-21_2276"
    write_planet(tmp_path / "tiles" / "0870514" / name, slumps, grid, cloud_rows=40)
    write_planet(tmp_path / "scenes" / "20210821_204021_2276", np.zeros_like(slumps), grid)
    labels = label_set(tmp_path, {name: BOX if has_footprint else None})
    pipeline = PlanetPipeline(orthotiles_dir=tmp_path / "tiles", scenes_dir=tmp_path / "scenes", offline=True)
    options = CreateOptions(bands=["red", "nir", "ndvi"], patch_size=128)
    create_dataset(tmp_path / "ds", labels, planet_scenes(pipeline), options)
    dataset = PatchDataset.open(tmp_path / "ds")
    assert dataset.samples.scene_id.tolist() == [name]  # not the clear scene of the same day
    assert (dataset.form.sensor, dataset.form.pixel_m) == ("PlanetScope", 3.0)
    x, y = mosaic(dataset, f"{name}@{name}", grid.shape.yx)
    assert (y == 1).sum() == slumps.sum()
    assert np.allclose(x[2][y == 1], 100 / 3100)
    assert np.allclose(x[2][y == 0], 2500 / 3500)
    assert (y[14:40, 14:360] == 2).all()
    assert (y[:13] == (9 if has_footprint else 2)).all()


def test_pixels_of_another_size_are_refused(tmp_path: Path) -> None:
    coarse = GeoBox((45, 60), GRID.affine * Affine.scale(2), GRID.crs)
    write_stored(tmp_path / "store", "s", grid=coarse, slumps=np.zeros((45, 60), bool))
    summary = create_dataset(tmp_path / "ds", label_set(tmp_path, {"img": BOX}), imported(tmp_path / "store"), OPTIONS)
    assert "pixels of 20 m" in summary.failed[0][1]


@HAS_DATA
def test_experts_outlines_lie_on_the_slumps_of_the_peel_plateau(tmp_path: Path) -> None:
    clip = DATA / "s2" / "rts_sites" / "S2_20210821T210019_20210821T210020_T08WMA.tif"
    experts = sorted((DATA / "labels" / "rts_sites_experts").glob("*/*.shp"))
    bands = {"blue": 1, "green": 2, "red": 3, "nir": 7}
    import_scene([clip], tmp_path / "store", "peel", bands=bands, acquisition_time="2021-08-21T21:00:19Z")
    options = LabelOptions(
        annotators=experts, min_agreeing=6, disputed_from=1, whole_scene=True, date="2021-08-21",
        region="Peel Plateau", image_id="peel",
    )  # fmt: skip
    labels = read_labels(options)
    assert labels.labels.annotator.nunique() == 12
    create_dataset(
        tmp_path / "ds", labels, imported(tmp_path / "store"),
        CreateOptions(bands=["red", "nir", "ndvi"], patch_size=128, overlap=32),
    )  # fmt: skip
    with rasterio.open(clip) as raster:
        shape, transform = raster.shape, raster.transform
        red, nir = (raster.read(band).astype(float) for band in (3, 7))
    votes = sum(
        rasterio.features.rasterize(gpd.read_file(file).geometry, shape, transform=transform, dtype="uint8").astype(int)
        for file in experts
    )
    x, y = mosaic(PatchDataset.open(tmp_path / "ds"), "peel@peel", shape)
    np.testing.assert_array_equal(y, np.where(votes >= 6, 1, np.where(votes >= 1, 2, 0)))
    np.testing.assert_allclose(x[2], (nir - red) / (nir + red), atol=1e-5)
    assert x[2][y == 1].mean() == pytest.approx(0.23, abs=0.01)
    assert x[2][y == 0].mean() == pytest.approx(0.56, abs=0.01)


@HAS_DATA
def test_published_labels_line_up_with_a_scene_under_them(tmp_path: Path) -> None:
    """Over a synthetic scene, bare where a point in the published outlines lies in a slump."""
    labels = read_labels(
        LabelOptions(labels=[DATA / "labels" / "TrainingLabel_RTS_PlanetScope_Nitze_iteration005.gpkg"])
    )
    name = "5811537_0870113_2022-07-25_2276"
    middle = labels.of(name).to_crs("EPSG:32608").geometry.iloc[0].centroid
    # Off the multiples of 5 m, on which the outlines themselves run: a centre on an edge may go either way.
    corner = round(middle.x / 10) * 10 - 1498.77, round(middle.y / 10) * 10 + 1501.23
    grid = GeoBox((300, 300), Affine(10, 0, corner[0], 0, -10, corner[1]), "EPSG:32608")
    cols, rows = np.meshgrid(np.arange(300) + 0.5, np.arange(300) + 0.5)
    lon, lat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(*(grid.affine * (cols, rows)))
    points = shapely.points(lon, lat)
    slumps = np.any([shapely.contains(shape, points) for shape in labels.of(name).geometry], axis=0)
    inside = shapely.contains(labels.footprints.set_index("image_id").geometry[name], points)
    assert slumps.sum() > 200
    write_stored(tmp_path / "store", "s", "2022-07-27T20:40:21Z", grid=grid, slumps=slumps)
    create_dataset(tmp_path / "ds", labels, imported(tmp_path / "store"), OPTIONS, MatchOptions(min_cover=0))
    x, y = mosaic(PatchDataset.open(tmp_path / "ds"), f"{name}@s", (300, 300))
    np.testing.assert_array_equal(y[y != 9], np.where(inside, slumps, 2)[y != 9])
    assert (y == 1).sum() == (slumps & inside).sum()
    assert np.allclose(x[4][y == 1], 100 / 3100)
    assert np.allclose(x[4][y == 0], 2500 / 3500)
