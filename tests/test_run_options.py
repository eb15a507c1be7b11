"""Options of how networks compute and of what counts as an object, through the real command."""

from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import xarray as xr

from darts_ensemble import EnsembleV1
from tests.conftest import Sample

PATCHES = ("--patch-size", 128, "--overlap", 32)


@pytest.fixture
def run(darts: Callable, sample: Sample, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that runs with options and gives the tile's folder."""

    def run(*tokens: object, name: str = "out") -> Path:
        common = ("--scene-ids", sample.scene_id, "--offline", "--output-data-dir", tmp_path / name, *PATCHES)
        done = darts("run", "sentinel2", *common, *tokens)
        assert done.code == 0, done.text
        return tmp_path / name / sample.scene_id

    return run


def read(file: Path) -> tuple[np.ndarray, dict[str, str]]:
    with rasterio.open(file) as raster:
        return raster.read(1), raster.tags()


def test_weights_and_augmentation_reach_the_networks_and_the_tags(run: Callable, sample: Sample) -> None:
    folder = run(
        "--augment", "--model-weights.full", 3, "--model-weights.optical", 1, "--precision", "fp32",
        "--export-bands", "probabilities", "--export-bands", "probability_std", "--debug-data", "--quality-level", 0,
    )  # fmt: skip
    stored, tags = read(folder / "probabilities.tif")
    assert (tags["DARTS_precision"], tags["DARTS_runtime"], tags["DARTS_augment"]) == ("fp32", "torch", "true")
    assert tags["DARTS_modelweights"] == '{"full": 3.0, "optical": 1.0}'
    models = {"full": sample.full_model, "optical": sample.optical_model}
    with xr.open_dataset(folder / "darts_inference_debug.nc", engine="h5netcdf") as tile:
        features = tile.drop_vars([name for name in tile.data_vars if "probabilit" in str(name)]).load()
    ensemble = EnsembleV1(models, "cpu", weights={"full": 3, "optical": 1})
    wanted = ensemble.segment_tile(features, patch_size=128, overlap=32, augment=True).probabilities.values
    plain = ensemble.segment_tile(features, patch_size=128, overlap=32).probabilities.values
    known = stored != 255
    assert known.mean() > 0.5
    # Features lose a little on their way through the NetCDF.
    assert np.abs(stored[known] - 100 * wanted[known]).mean() < 0.5
    assert np.abs(stored[known] - 100 * plain[known]).mean() > 1


def test_other_choices_of_computing_are_noticed_at_a_restart(darts: Callable, sample: Sample, run: Callable) -> None:
    folder = run()
    common = ("--scene-ids", sample.scene_id, "--offline", "--output-data-dir", folder.parent, *PATCHES)
    assert "other options" not in darts("run", "sentinel2", *common).flat
    assert "other options" in darts("run", "sentinel2", *common, "--augment").flat


def test_thresholds_give_files_of_their_own_that_follow_from_the_probabilities(run: Callable) -> None:
    folder = run(
        "--more-thresholds", 0.4, "--more-thresholds", 0.6, "--mask-erosion-size", 0, "--min-object-size", 1,
        "--write-model-outputs",
    )  # fmt: skip
    probabilities, _ = read(folder / "probabilities.tif")
    masks = {suffix: read(folder / f"binarized{suffix}.tif")[0] == 1 for suffix in ("-t40", "", "-t60")}
    assert masks["-t40"].sum() > masks[""].sum() > masks["-t60"].sum() > 0
    for (suffix, mask), threshold in zip(masks.items(), (0.4, 0.5, 0.6), strict=True):
        cut = gpd.read_parquet(folder / f"prediction_cut_segments{suffix}.parquet")
        segments = gpd.read_parquet(folder / f"prediction_segments{suffix}.parquet")
        assert segments.npixel.sum() == mask.sum()
        assert (segments.threshold == threshold).all()
        assert (segments["min"] > threshold).all()
        assert (probabilities[mask] >= 100 * threshold).all()
        assert not set(segments.segment_id) & set(cut.segment_id)
        for model in ("full", "optical"):
            own = gpd.read_parquet(folder / f"prediction_segments-{model}{suffix}.parquet")
            assert (own.model == model).all()
            assert (folder / f"prediction_segments-{model}{suffix}.gpkg").exists()
    ids = [name for file in folder.glob("prediction_*segments*.parquet") for name in gpd.read_parquet(file).segment_id]
    assert len(set(ids)) == len(ids)


def test_objects_grow_down_to_the_lower_threshold(run: Callable) -> None:
    rules = ("--mask-erosion-size", 0, "--min-object-size", 1, "--export-bands", "binarized")
    plain, _ = read(run(*rules, name="plain") / "binarized.tif")
    grown, tags = read(run(*rules, "--grow-threshold", 0.4, name="grown") / "binarized.tif")
    low, _ = read(run(*rules, "--binarization-threshold", 0.4, name="low") / "binarized.tif")
    assert tags["DARTS_growthreshold"] == "0.4"
    assert (low == 1).sum() >= (grown == 1).sum() > (plain == 1).sum()
    assert not ((grown == 1) & (low == 0)).any()


def test_small_and_wet_objects_go(run: Callable) -> None:
    rules = ("--mask-erosion-size", 0, "--min-object-size", 1, "--export-bands", "polygonized")
    everything = gpd.read_parquet(run(*rules, name="all") / "prediction_segments.parquet")
    large = gpd.read_parquet(run(*rules, "--min-object-area", 2050, name="large") / "prediction_segments.parquet")
    dry = gpd.read_parquet(run(*rules, "--max-water-share", 0, name="dry") / "prediction_segments.parquet")
    assert set(large.segment_id) == set(everything.segment_id[everything.area_m2 >= 2050]) < set(everything.segment_id)
    assert set(dry.segment_id) < set(everything.segment_id)


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (("--more-thresholds", 0.405), "more_thresholds must be whole numbers of percent"),
        (("--more-thresholds", 0.5), "more_thresholds must be different"),
        (("--grow-threshold", 0.6), "grow_threshold must be in 0 … 0.5"),
        (("--more-thresholds", 0.3, "--grow-threshold", 0.4), "grow_threshold must be in 0 … 0.3"),
        (("--max-water-share", 1.5), "max_water_share must be in 0 … 1"),
        (("--min-object-area", -1), "min_object_area must be 0 or more"),
        (("--min-object-area", "9e999"), "min_object_area must be 0 or more, got inf"),
        (("--precision", "fp16"), "fp16"),
        (("--model-weights.none", 2), "weights must name the models"),
        (("--model-weights.full", 2), "weights must name the models"),
    ],
)
def test_what_cannot_work_is_one_clear_error(darts: Callable, sample: Sample, tokens: tuple, says: str) -> None:
    done = darts("run", "sentinel2", "--scene-ids", sample.scene_id, "--offline", "--device", "cpu", *tokens)
    assert done.code == 2, done.text
    assert says in done.flat
    assert len(done.text.splitlines()) <= 4
