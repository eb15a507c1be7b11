"""The real command on the real Sentinel-2 clips over two slump sites, where the sample data stand beside the checkout.

The clips are top-of-atmosphere reflectance without scene classification, and no DEM could be had for them: the bundled
optical model runs alone.
"""

from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest
import rasterio

from darts.demo import bundled_models, peel_model
from tests.conftest import SHARED_DATA
from tests.test_run import DEFAULT_FILES

SITES = SHARED_DATA / "s2" / "rts_sites"
CLIPS = {
    "peel": ("S2_20210821T210019_20210821T210020_T08WMA.tif", "2021-08-21T21:00:19Z", 32608),
    "bykovsky": ("S2_20210721T035541_20210721T035540_T52WEE.tif", "2021-07-21T03:55:41Z", 32652),
}

pytestmark = pytest.mark.skipif(not SITES.is_dir(), reason="the sample data do not stand beside the checkout")


@pytest.mark.parametrize(
    ("site", "model"),
    [
        ("peel", bundled_models()["demo-optical"]),
        ("bykovsky", bundled_models()["demo-optical"]),
        ("peel", peel_model()),
    ],
    ids=lambda value: getattr(value, "stem", value),
)
def test_a_real_clip_gives_complete_results(darts: Callable, tmp_path: Path, site: str, model: Path) -> None:
    file, time, epsg = CLIPS[site]
    imported = darts(
        "import-scene", SITES / file, "--scene-id", site, "--bands", "blue=1", "green=2", "red=3", "nir=7",
        "--acquisition-time", time, "--store", tmp_path / "store",
    )  # fmt: skip
    assert imported.code == 0, imported.text
    result = darts(
        "run", "sentinel2", "--raw-data-source", "import", "--raw-data-store", tmp_path / "store", "--scene-ids", site,
        "--model-files", model, "--offline", "--output-data-dir", tmp_path / "out",
    )  # fmt: skip
    assert result.code == 0, result.text
    folder = tmp_path / "out" / site
    assert {entry.name for entry in folder.iterdir()} == DEFAULT_FILES
    with rasterio.open(folder / "probabilities.tif") as raster, rasterio.open(SITES / file) as clip:
        assert raster.crs.to_epsg() == epsg
        assert raster.transform == clip.transform
        assert raster.shape == clip.shape
        assert (raster.read(1) != 255).sum() > 0.8 * 231 * 231
    extent = gpd.read_parquet(folder / "prediction_extent.parquet")
    assert extent.acquisition_time.unique().tolist() == [pd.Timestamp(time)]
    assert "Traceback" not in result.text
