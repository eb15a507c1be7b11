"""What is missing in the elevation is missing in what is said of the ground."""

from pathlib import Path

import numpy as np

from darts_ensemble import EnsembleV1
from darts_postprocessing import prepare_export
from darts_preprocessing import preprocess_v2
from darts_utils.testing import optical_tile, rough_dem, utm_geobox
from tests.conftest import OPTICAL, save_tiny_model


def test_a_gap_in_the_dem_reaches_the_extent(tmp_path: Path) -> None:
    geobox = utm_geobox((120, 130))
    dem = rough_dem(geobox.pad(30))
    dem.dem[70:90, 60:75] = np.nan
    model = save_tiny_model(tmp_path / "model.pt", (*OPTICAL, "slope"))
    tile = preprocess_v2(optical_tile(geobox), dem, None, features=["slope"])
    segmented = EnsembleV1({"model": model}, "cpu").segment_tile(tile, patch_size=96, overlap=16)
    found = prepare_export(segmented, mask_erosion_size=3, min_object_size=1, edge_erosion_size=0)
    rows, cols = np.indices(tile.slope.shape)
    gone = (rows >= 40) & (rows < 60) & (cols >= 30) & (cols < 45)
    assert np.isnan(segmented.probabilities.values[gone]).all()
    assert not found.extent.values[gone].any()
    near = (rows >= 39 - 3) & (rows < 61 + 3) & (cols >= 29 - 3) & (cols < 46 + 3)
    assert found.extent.values[~near].all()
