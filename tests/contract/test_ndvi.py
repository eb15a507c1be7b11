"""SPEC 6: NDVI = (nir - red) / (nir + red), 0/0 is NaN, clipped to -1 … 1."""

import numpy as np
import pytest

from darts_preprocessing import calculate_ndvi


@pytest.mark.parametrize(
    ("nir", "red", "ndvi"),
    [
        (0.3, 0.1, 0.5),
        (0.1, 0.3, -0.5),
        (0.2, 0.2, 0),
        (0.4, 0, 1),
        (0.0, 0.0, np.nan),
        (np.nan, 0.1, np.nan),
        (0.1, np.nan, np.nan),
        (0.3, -0.1, 1),  # 0.4 / 0.2 = 2
        (-0.05, 0.15, -1),  # -0.2 / 0.1 = -2
        (1.5, 0.5, 0.5),  # bright snow is no error
    ],
)
def test_pixels_by_hand(on_grid, nir, red, ndvi):
    result = calculate_ndvi(on_grid(nir=np.float32([[nir]]), red=np.float32([[red]])))
    assert result.dtype == np.float32
    assert result.values[0, 0] == pytest.approx(ndvi, abs=1e-6, nan_ok=True)
