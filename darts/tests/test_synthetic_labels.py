"""Synthetic sites: label files in the published layout, and datasets whose patches hold the planted slumps."""

import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest

from darts.demo import generate_landscape, load_demo_tile
from darts.training import synthetic
from darts.training.creating import create_dataset
from darts.training.labels import read_labels
from darts.training.options import CreateOptions, LabelOptions, MatchOptions
from darts.training.samples import CreateSummary
from darts.training.synthetic import SyntheticSite, create_synthetic_dataset, write_synthetic_site
from darts_segmentation.training.patch_dataset import PatchDataset
from darts_utils.errors import ConfigError, StoreError

SEED, SIZE = 6, 256
BANDS = ["red", "nir", "ndvi", "tc_wetness", "relative_elevation", "slope", "hillshade", "curvature"]
OPTIONS = CreateOptions(bands=BANDS, patch_size=96, overlap=16, min_labelled=0)
ANYTHING = MatchOptions(min_cover=0, max_cloud_cover=100)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSite:
    return write_synthetic_site(tmp_path_factory.mktemp("sites") / "site", SEED, SIZE)


def test_a_site_is_laid_out_as_the_published_labels(site: SyntheticSite) -> None:
    landscape = generate_landscape(SEED, SIZE)
    assert site.labels.name == "TrainingLabel_synthetic_6.gpkg"
    assert site.footprints.name == "ImageFootprints_synthetic_6.gpkg"
    labels, footprints = gpd.read_file(site.labels), gpd.read_file(site.footprints)
    assert labels.crs.to_epsg() == footprints.crs.to_epsg() == 4326
    assert set(labels.label) == {1, 2}
    assert set(labels.region) == {"synthetic-6"}
    assert set(labels.image_id) == set(footprints.image_id) == {landscape.scene_id}
    assert set(labels.image_date) == {landscape.acquisition_time.date().isoformat()}
    assert (labels.label == 1).sum() == (landscape.polygons.kind == "slump").sum() > 0
    assert (landscape.polygons.kind == "stabilised").any()  # is no label
    read = read_labels(LabelOptions(labels=[site.folder]))
    assert read.problems == ()
    assert read.footprints.region.tolist() == ["synthetic-6"]


def test_clouds_are_to_be_ignored_pixel_by_pixel(tmp_path: Path) -> None:
    cloudy = write_synthetic_site(tmp_path / "site", 8, SIZE)
    landscape = generate_landscape(8, SIZE)
    labels = read_labels(LabelOptions(labels=[cloudy.folder]))
    options = CreateOptions(bands=["red"], patch_size=SIZE, min_labelled=0, quality_level=1)
    create_dataset(tmp_path / "ds", labels, cloudy.scenes(), options, ANYTHING)
    expected = (landscape.truth > 0).astype("uint8")
    cloud = np.isin(landscape.scl, (8, 9))
    assert (expected[cloud] == 1).any()  # slumps that nobody could see
    expected[cloud | (landscape.scl == 0)] = 2
    np.testing.assert_array_equal(PatchDataset.open(tmp_path / "ds").read_labels(0), expected)


def test_patches_hold_the_planted_slumps_and_the_features_of_a_run(site: SyntheticSite, tmp_path: Path) -> None:
    landscape = generate_landscape(SEED, SIZE)
    tile = load_demo_tile(site.folder, features=BANDS[2:])
    labels = read_labels(LabelOptions(labels=[site.folder]))
    create_dataset(tmp_path / "ds", labels, site.scenes(), OPTIONS, ANYTHING)
    dataset = PatchDataset.open(tmp_path / "ds")
    assert len(dataset) == 9
    layers = tile[BANDS].to_array().to_numpy()
    expected = (landscape.truth > 0).astype("uint8")
    expected[tile["quality_data_mask"].to_numpy() < 2] = 2
    expected[~np.isfinite(layers).all(axis=0)] = 2
    assert all((expected == kind).any() for kind in (0, 1, 2))
    for row in dataset.metadata.itertuples():
        x, y = dataset.read(row.patch)
        window = np.s_[row.row : row.row + 96, row.col : row.col + 96]
        np.testing.assert_array_equal(y, expected[window])
        np.testing.assert_allclose(x, layers[:, *window], rtol=1e-5, atol=1e-5)
    seen = np.isin(landscape.scl, (2, 4, 5, 6, 7, 10))
    assert (expected[~seen] == 2).all()  # clouds over slumps too


@pytest.mark.parametrize("convention", ["true-north", pytest.param("legacy", marks=pytest.mark.slow)])
def test_a_part_of_a_scene_has_the_features_that_the_whole_scene_has(
    site: SyntheticSite, tmp_path: Path, convention: str
) -> None:
    labels = read_labels(LabelOptions(labels=[site.folder]))
    whole = labels.footprints.to_crs("EPSG:32608")
    corner = whole.geometry[0].bounds
    part = whole.geometry[0].intersection(gpd.GeoSeries.from_xy([corner[0] + 900], [corner[1] + 1100]).buffer(700)[0])
    fewer = labels.footprints.set_geometry(gpd.GeoSeries([part], crs="EPSG:32608").to_crs("EPSG:4326"))
    options = CreateOptions(
        bands=[*BANDS, "aspect"], patch_size=64, min_labelled=0.01, quality_level=1, terrain_convention=convention
    )
    create_dataset(tmp_path / "ds", type(labels)(labels.labels, fewer), site.scenes(), options, ANYTHING)
    create_dataset(tmp_path / "whole", labels, site.scenes(), options, ANYTHING)
    every = PatchDataset.open(tmp_path / "whole")
    layers = np.full((len(options.bands), SIZE, SIZE), np.nan, "float32")
    for row in every.metadata.itertuples():
        layers[:, row.row : row.row + 64, row.col : row.col + 64] = every.read(row.patch)[0]
    dataset = PatchDataset.open(tmp_path / "ds")
    assert 0 < len(dataset) < len(every)
    for row in dataset.metadata.itertuples():
        x, y = dataset.read(row.patch)
        there = layers[:, row.row : row.row + 64, row.col : row.col + 64]
        np.testing.assert_allclose(x[:-1], there[:-1], rtol=1e-4, atol=1e-3)
        turn = np.abs((x[-1] - there[-1] + 180) % 360 - 180)
        assert np.nanmax(turn * (x[BANDS.index("slope")] > 0.5)) < 0.1
        assert (y != 2).any()


def test_a_site_that_is_there_stays(site: SyntheticSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "generate_landscape", None)
    assert write_synthetic_site(site.folder, SEED, SIZE) == site
    with pytest.raises(ConfigError, match="no synthetic site of seed 4"):
        write_synthetic_site(site.folder, 4, SIZE)


def test_an_interrupted_site_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / ".site.0123abcd.tmp").mkdir()  # of a writer that was killed
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "_write_labels", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_synthetic_site(tmp_path / "site", SEED, 128)
    assert list(tmp_path.iterdir()) == []
    assert write_synthetic_site(tmp_path / "site", SEED, 128).labels.exists()


def test_seeds_are_appended_one_by_one_and_never_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(dataset: str, seeds: list[int]) -> CreateSummary:
        return create_synthetic_dataset(tmp_path / dataset, seeds, tmp_path / "scratch", size=128, options=OPTIONS)

    first = create("ds", [1])
    assert (first.made, first.there) == (1, 0)
    second = create("ds", [1, 5])
    assert (second.made, second.there) == (1, 1)
    dataset = PatchDataset.open(tmp_path / "ds")
    assert dataset.samples.region.tolist() == ["synthetic-1", "synthetic-5"]
    assert len(dataset) == first.n_patches + second.n_patches == 2 * 4
    monkeypatch.setattr(synthetic, "generate_landscape", None)
    assert create("ds", [5, 1]) == CreateSummary(there=2)
    assert create("other", [5]).made == 1  # the site lies in the scratch folder


@pytest.mark.slow
def test_several_processes_render_what_one_renders(tmp_path: Path) -> None:
    for workers in (1, 2):
        folder = tmp_path / f"{workers}"
        options = {"size": 128, "options": OPTIONS, "workers": workers}
        create_synthetic_dataset(folder / "ds", [5, 1, 2], folder / "scratch", **options)
    one, two = (PatchDataset.open(tmp_path / name / "ds") for name in ("1", "2"))
    assert one.samples.sample_id.tolist() == two.samples.sample_id.tolist()
    assert len(one) == len(two) == 12
    for index in range(12):
        for mine, theirs in zip(one.read(index), two.read(index), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_worker_that_is_killed_is_told() -> None:
    with pytest.raises(StoreError, match="a worker process was killed"), synthetic.process_pool(1) as pool:
        pool.submit(os._exit, 1).result()


def test_another_form_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    create_synthetic_dataset(tmp_path / "ds", [1], tmp_path / "scratch", size=128, options=OPTIONS)
    with pytest.raises(ConfigError, match="another form"):
        create_synthetic_dataset(
            tmp_path / "ds", [1, 2], tmp_path / "scratch", size=128, options=CreateOptions(bands=["red"])
        )
    assert not (tmp_path / "scratch" / "site-2-128").exists()
