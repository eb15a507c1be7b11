from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest

from darts.demo import (
    RULE,
    Landscape,
    apply_rule,
    bundled_models,
    demo_paths,
    edge_zone,
    generate_landscape,
    load_demo_tile,
    peel_model,
    score_objects,
    write_demo_data,
)
from darts_acquisition import CDSE, list_scenes
from darts_segmentation import load_checkpoint
from darts_utils.errors import ConfigError


@pytest.fixture(scope="module")
def landscape() -> Landscape:
    return generate_landscape(9001, 512)


@pytest.fixture(scope="module")
def folder(landscape: Landscape, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_data(landscape, tmp_path_factory.mktemp("demo"))


def test_the_folder_is_laid_out_as_default_paths_have_it(folder: Path, landscape: Landscape) -> None:
    assert list_scenes(folder / "input" / "sentinel2" / "cdse-scenes", CDSE) == [landscape.scene_id]
    assert (folder / "aux" / "arcticdem_10m.icechunk").is_dir()
    assert (folder / "aux" / "TCTrend2024.icechunk").is_dir()
    truth = gpd.read_file(folder / "truth.gpkg")
    assert set(truth.scene_id) == {landscape.scene_id}
    assert truth.crs == landscape.polygons.crs
    assert (truth.geometry.geom_equals(landscape.polygons.geometry)).all()


def test_the_pipelines_loaders_give_back_what_was_rendered(folder: Path, landscape: Landscape) -> None:
    tile = load_demo_tile(folder)
    assert tile.odc.geobox == landscape.geobox
    assert tile.attrs["azimuth"] == pytest.approx(landscape.sun_azimuth)
    nothing = landscape.scl == 0
    blue = landscape.digital_numbers[0] * 1e-4 - 0.1
    assert np.allclose(tile["blue"].to_numpy()[~nothing], blue[~nothing], atol=1e-6)
    assert np.isnan(tile["blue"].to_numpy()[nothing]).all()
    assert (tile["quality_data_mask"].to_numpy()[nothing] == 0).all()
    dem = tile["dem"].to_numpy()
    there = np.isfinite(dem)
    assert there.mean() > 0.97
    assert np.percentile(np.abs(dem - landscape.elevation)[there], 95) < 0.5
    slumps = landscape.truth > 0
    assert np.nanmean(tile["relative_elevation"].to_numpy()[slumps]) < -0.5
    assert np.nanmean(tile["tc_greenness"].to_numpy()[slumps]) < 116
    assert np.isfinite(tile["tc_wetness"].to_numpy()).mean() > 0.99


def test_the_plain_rule_fails_on_a_landscape_it_was_not_tuned_on(folder: Path, landscape: Landscape) -> None:
    tile = load_demo_tile(folder, features=("ndvi", "slope"))
    scl = landscape.scl
    edge = edge_zone(scl != 0)
    found = apply_rule(tile["ndvi"].to_numpy(), tile["slope"].to_numpy(), scl, ~edge, RULE)
    score = score_objects(found, landscape.truth, ~edge, cloud=np.isin(scl, (8, 9)), edge=edge)
    assert score.there > 0
    assert score.f1 <= 0.5


def test_a_second_demo_replaces_the_first(tmp_path: Path) -> None:
    first, second = (generate_landscape(seed, 128) for seed in (21, 22))
    write_demo_data(first, tmp_path)
    write_demo_data(second, tmp_path)
    assert list_scenes(demo_paths(tmp_path).sentinel2_scenes("cdse"), CDSE) == [second.scene_id]
    assert load_demo_tile(tmp_path, features=("ndvi",)).odc.geobox == second.geobox


def test_cubes_that_no_demo_wrote_are_left_alone(folder: Path, landscape: Landscape, tmp_path: Path) -> None:
    (tmp_path / "aux" / "arcticdem_10m.icechunk").mkdir(parents=True)
    with pytest.raises(ConfigError, match="no demo wrote"):
        write_demo_data(landscape, tmp_path)
    assert (tmp_path / "aux" / "arcticdem_10m.icechunk").is_dir()


def test_the_bundled_models_are_small() -> None:
    files = bundled_models()
    assert set(files) == {"demo-full", "demo-optical"}
    assert sum(file.stat().st_size for file in (*files.values(), peel_model())) < 12_000_000
    assert load_checkpoint(peel_model()).bands == ("ndvi", "gndvi", "ikaw")
