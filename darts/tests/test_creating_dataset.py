"""From labels and scenes to patches that line up with the slumps."""

import json
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import rasterio.features
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer
from rasterio import Affine

from darts.pipelines.planet import PlanetPipeline
from darts.pipelines.sentinel2 import Sentinel2Pipeline
from darts.pipelines.stac_options import StacOptions
from darts.training import creating
from darts.training.creating import create_dataset
from darts.training.labels import LabelSet, read_labels
from darts.training.options import CreateOptions, LabelOptions, MatchOptions
from darts.training.samples import CreateSummary, sample_name
from darts.training.scenes import SceneSource, planet_scenes, sentinel2_scenes
from darts_acquisition import IMPORT, import_scene, scene_path, write_scene
from darts_acquisition.testing import cql2_stac_server, file_server, make_collection, make_earth_search_scene
from darts_segmentation.training.patch_dataset import PatchDataset
from darts_utils.errors import ConfigError, MissingBandError, MissingDataError

DATA = Path(__file__).parents[3] / "shared" / "data"
HAS_DATA = pytest.mark.skipif(not DATA.is_dir(), reason="the sample data do not stand beside the checkout")

GRID = GeoBox((90, 120), Affine(10, 0, 500_000, 0, -10, 7_700_000), "EPSG:32608")
OPTICAL = ["blue", "green", "red", "nir"]
SIZE = 64
OPTIONS = CreateOptions(bands=[*OPTICAL, "ndvi"], patch_size=SIZE, overlap=16, min_labelled=0.01)
SLUMPS = [((20.2, 15.3), (40.6, 18.4), (35.1, 38.7)), ((70.5, 50.5), (90.4, 52.3), (92.2, 75.8), (68.1, 70.2))]


def to_lonlat(grid: GeoBox, corners: object) -> shapely.Polygon:
    """Return a polygon of columns and rows in degrees, with corners enough to be straight in both."""
    dense = shapely.segmentize(shapely.Polygon(corners), 2)
    transformer = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    return shapely.transform(
        dense, lambda xy: np.column_stack(transformer.transform(*(grid.affine * (xy[:, 0], xy[:, 1]))))
    )


def true_slumps(grid: GeoBox = GRID) -> np.ndarray:
    cols, rows = np.meshgrid(np.arange(grid.shape.x) + 0.5, np.arange(grid.shape.y) + 0.5)
    points = shapely.points(cols, rows)
    return np.any([shapely.contains(shapely.Polygon(corners), points) for corners in SLUMPS], axis=0)


def write_stored(
    store: Path, scene_id: str, time: str = "2021-08-21T21:00:19Z", *, grid: GeoBox = GRID, cloud: float = 0.0,
    slumps: np.ndarray | None = None, nodata_cols: int = 0,
) -> None:  # fmt: skip
    """Write a scene whose slumps are bare, with clouds on its first rows."""
    bare = true_slumps(grid) if slumps is None else slumps
    scl = np.full(grid.shape.yx, 4, "uint8")
    scl[: round(cloud * grid.shape.y)] = 9
    values = {"blue": 600, "green": 700, "red": np.where(bare, 1500, 500), "nir": np.where(bare, 1600, 3000)}
    bands = {name: np.full(grid.shape.yx, value, "uint16") for name, value in values.items()}
    for plane in (*bands.values(), scl):
        plane[:, :nodata_cols] = 0
    data = xr.Dataset({name: (("y", "x"), v) for name, v in {**bands, "scl": scl}.items()}, coords=xr_coords(grid))
    write_scene(store, IMPORT, scene_id, data, datetime=time, scale=1e-4, offset=0.0)


def label_set(
    tmp_path: Path, footprints: dict[str, object], date: str | None = "2021-08-21", shapes: list | None = None
) -> LabelSet:
    """Return the slumps as labels of each footprint (columns and rows; None: the whole scene)."""
    shapes = [to_lonlat(GRID, corners) for corners in SLUMPS] if shapes is None else shapes
    rows = [{"image_id": name, "image_date": date, "label": 1, "region": "here"} for name in footprints for _ in shapes]
    gpd.GeoDataFrame(rows, geometry=shapes * len(footprints), crs="EPSG:4326").to_file(tmp_path / "labels.gpkg")
    areas = {name: corners for name, corners in footprints.items() if corners is not None}
    if not areas:
        return read_labels(LabelOptions(labels=[tmp_path / "labels.gpkg"], whole_scene=True))
    outlines = [to_lonlat(GRID, corners) for corners in areas.values()]
    table = {"image_id": list(areas), "image_date": [date] * len(areas)}
    gpd.GeoDataFrame(table, geometry=outlines, crs="EPSG:4326").to_file(tmp_path / "footprints.gpkg")
    return read_labels(LabelOptions(labels=[tmp_path / "labels.gpkg"], footprints=tmp_path / "footprints.gpkg"))


def imported(store: Path, **options: object) -> SceneSource:
    return sentinel2_scenes(Sentinel2Pipeline(raw_data_source="import", raw_data_store=store, offline=True, **options))


def mosaic(dataset: PatchDataset, sample_id: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return x (band, y, x; NaN where no patch is) and y (9 there) of a sample, put together on the scene's grid."""
    x = np.full((len(dataset.form.bands), *shape), np.nan, "float32")
    y = np.full(shape, 9, "uint8")
    for row in dataset.metadata[dataset.metadata.sample_id == sample_id].itertuples():
        px, py = dataset.read(row.patch)
        window = np.s_[row.row : row.row + py.shape[0], row.col : row.col + py.shape[1]]
        height, width = y[window].shape
        new = py[:height, :width]
        known = y[window] != 9
        np.testing.assert_array_equal(y[window][known], new[known])  # where patches overlap they agree
        x[:, *window] = px[:, :height, :width]
        y[window] = new
    return x, y


BOX = ((4.0, 4.0), (110.0, 4.0), (110.0, 84.0), (4.0, 84.0))


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


def content(dataset: Path) -> list[tuple[str, int, int, bytes, bytes]]:
    opened = PatchDataset.open(dataset)
    rows = [(row, *opened.read(row.patch)) for row in opened.metadata.itertuples()]
    return sorted((row.sample_id, row.row, row.col, x.tobytes(), y.tobytes()) for row, x, y in rows)


@pytest.fixture
def two_scenes(tmp_path: Path) -> tuple[LabelSet, SceneSource]:
    """Three footprints: two in one scene, one in another."""
    store = tmp_path / "store"
    write_stored(store, "left", grid=GRID[:, :60], slumps=true_slumps()[:, :60])
    write_stored(store, "right", grid=GRID[:, 60:], slumps=true_slumps()[:, 60:])
    boxes = {"a": (2, 2, 30, 40), "b": (20, 10, 58, 70), "c": (62, 45, 118, 88)}
    labels = label_set(tmp_path, {name: shapely.box(*box).exterior.coords for name, box in boxes.items()})
    return labels, imported(store)


def test_a_scene_is_loaded_once_for_all_its_footprints(
    two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, source = two_scenes
    loaded = []
    load = SceneSource.load
    monkeypatch.setattr(SceneSource, "load", lambda self, scene_id: loaded.append(scene_id) or load(self, scene_id))
    assert create_dataset(tmp_path / "ds", labels, source, OPTIONS).made == 3
    assert loaded == ["left", "right"]
    again = create_dataset(tmp_path / "ds", labels, source, OPTIONS)
    assert (again.there, again.made, again.n_patches) == (3, 0, 0)
    assert loaded == ["left", "right"]


def test_appending_and_resuming_give_what_one_call_gives(
    two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, source = two_scenes
    create_dataset(tmp_path / "whole", labels, source, OPTIONS)

    part = LabelSet(labels.labels, labels.footprints[:1], labels.agreement)
    create_dataset(tmp_path / "appended", part, source, OPTIONS)
    create_dataset(tmp_path / "appended", labels, source, OPTIONS)
    assert content(tmp_path / "appended") == content(tmp_path / "whole")

    def interrupted(*args: object, **options: object) -> Iterator[object]:
        made = original(*args, **options)
        yield next(made)
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(1)
        yield from made

    started: list[int] = []
    original = creating._patches
    monkeypatch.setattr(creating, "_patches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create_dataset(tmp_path / "resumed", labels, source, OPTIONS)
    monkeypatch.undo()
    assert 0 < len(PatchDataset.open(tmp_path / "resumed").samples) < 3
    create_dataset(tmp_path / "resumed", labels, source, OPTIONS)
    assert content(tmp_path / "resumed") == content(tmp_path / "whole")
    assert len(pd.read_parquet(tmp_path / "resumed" / "matches.parquet")) == 3


def test_a_sample_that_fails_is_noted_and_tried_again(two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path) -> None:
    labels, source = two_scenes
    chunk = next(f for f in (scene_path(tmp_path / "store", IMPORT, "left") / "nir" / "c").rglob("*") if f.is_file())
    (kept := tmp_path / "kept").write_bytes(chunk.read_bytes())
    chunk.unlink()
    heard = []
    summary = create_dataset(tmp_path / "ds", labels, source, OPTIONS, on_sample=heard.append)
    assert summary.made == 1
    assert summary.exit_code == 1
    assert [name for name, _ in summary.failed] == ["a@left", "b@left"]
    assert all("nir" in reason for _, reason in summary.failed)
    assert [sample.state for sample in heard] == ["failed", "failed", "patches"]
    states = PatchDataset.open(tmp_path / "ds").samples.set_index("sample_id").state
    assert states.to_dict() == {"a@left": "failed", "b@left": "failed", "c@right": "patches"}
    chunk.write_bytes(kept.read_bytes())
    summary = create_dataset(tmp_path / "ds", labels, source, OPTIONS)
    assert (summary.made, summary.there, summary.exit_code) == (2, 1, 0)
    assert set(PatchDataset.open(tmp_path / "ds").samples.state) == {"patches"}


def test_what_no_scene_fits_is_told(two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path) -> None:
    labels, source = two_scenes
    elsewhere = labels.footprints.copy()
    elsewhere.loc[2, "geometry"] = shapely.box(0, 0, 1, 1)
    summary = create_dataset(tmp_path / "ds", LabelSet(labels.labels, elsewhere), source, OPTIONS)
    assert summary.unmatched == ("c",)
    long_ago = labels.footprints.assign(time=pd.Timestamp("1999-01-01", tz="UTC"))
    with pytest.raises(MissingDataError, match=r"no scene fits any of 3 footprints: .*days apart"):
        create_dataset(tmp_path / "ds2", LabelSet(labels.labels, long_ago), source, OPTIONS)


def test_a_dataset_of_another_form_is_not_mixed(two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path) -> None:
    labels, source = two_scenes
    create_dataset(tmp_path / "ds", labels, source, OPTIONS)
    for other in (
        CreateOptions(bands=["red"], patch_size=SIZE, overlap=16, min_labelled=0.01),
        CreateOptions(bands=OPTIONS.bands, patch_size=SIZE, overlap=16, min_labelled=0.01, label_buffer_m=10),
    ):
        with pytest.raises(ConfigError, match="another form"):
            create_dataset(tmp_path / "ds", labels, source, other)


def test_bands_that_cannot_be_made_are_named_before_anything_is_loaded(
    two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path
) -> None:
    labels, source = two_scenes
    with pytest.raises(MissingBandError, match="planet_udm"):
        create_dataset(tmp_path / "ds", labels, source, CreateOptions(bands=["red", "planet_udm"]))
    assert not (tmp_path / "ds").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"bands": []}, {"bands": ["red", "red"]}, {"overlap": 256}, {"min_labelled": 2}, {"quality_level": 3},
     {"label_buffer_m": -1}, {"patch_size": 0, "overlap": 0}],
)  # fmt: skip
def test_options_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CreateOptions(**wrong)


def test_names_of_samples_are_names_of_files_and_never_shared() -> None:
    assert sample_name("20200722_081437_1032", "S2A_X") == "20200722_081437_1032@S2A_X"
    names = {sample_name("a/b", "s"), sample_name("a:b", "s"), sample_name("a-b", "s"), sample_name("é", "s")}
    names |= {sample_name("x" * 300, "s"), sample_name("x" * 300, "t")}
    assert len(names) == 6
    assert all(name.isascii() and len(name) < 200 and not set(name) & set("/\\: ") for name in names)


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


def test_a_dataset_tells_the_quality_level_the_same_way_by_number_and_name() -> None:
    assert CreateOptions(quality_level="high_quality").as_told == CreateOptions(quality_level=2).as_told
