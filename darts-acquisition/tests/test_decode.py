"""Pixels of bands in files: coarser ones interpolated beside a plain loop and GDAL, classes repeated."""

import numpy as np
import pytest
from odc.geo.geobox import GeoBox, zoom_out
from rasterio import Affine
from rasterio.warp import Resampling, reproject

from darts_acquisition import decode
from darts_acquisition.testing.scene_files import cog_bytes

GEOBOX = GeoBox((240, 312), Affine(10, 0, 399960, 0, -10, 7600020), "EPSG:32608")


def brute_force(coarse, factor):
    """Bilinear between pixel centres in float64, pixel by pixel, over pixels that are not 0."""
    height, width = coarse.shape
    fine = np.zeros((height * factor, width * factor))
    for y, x in np.ndindex(fine.shape):
        if coarse[y // factor, x // factor] == 0:
            continue
        v, u = (y + 0.5) / factor - 0.5, (x + 0.5) / factor - 0.5
        total = weights = 0.0
        for j in (int(np.floor(v)), int(np.floor(v)) + 1):
            for i in (int(np.floor(u)), int(np.floor(u)) + 1):
                value = int(coarse[min(max(j, 0), height - 1), min(max(i, 0), width - 1)])
                weight = (1 - abs(v - j)) * (1 - abs(u - i))
                if value:
                    total, weights = total + weight * value, weights + weight
        fine[y, x] = total / weights
    return fine


@pytest.mark.parametrize("factor", [2, 6])
@pytest.mark.parametrize("strip", [7, 64, 2048])
def test_interpolation_does_not_depend_on_the_strips(tmp_path, monkeypatch, factor, strip):
    rng = np.random.default_rng(factor)
    coarse = rng.integers(0, 3, (18, 22)).astype("uint16") * rng.integers(1, 20000, (18, 22)).astype("uint16")
    (tmp_path / "x.tif").write_bytes(cog_bytes(coarse, zoom_out(GEOBOX, factor)[:18, :22], 0, 128))
    # Some fine pixels of the last coarse ones lie outside, as in a clip.
    grid = GEOBOX[: 18 * factor - 1, : 22 * factor - 1]
    monkeypatch.setattr(decode, "STRIP_PX", strip)
    monkeypatch.setattr(decode, "_BLEND_ROWS", 5)
    monkeypatch.setattr(decode, "_PIECE_PX", 9)
    values = np.concatenate([part for _, part in decode.decode_digital_numbers(tmp_path / "x.tif", grid)])
    exact = brute_force(coarse, factor)[:-1, :-1]
    assert np.abs(values - exact).max() <= 0.5 + 1e-2
    np.testing.assert_array_equal(values == 0, exact == 0)


def test_interpolation_agrees_with_gdal_where_all_is_valid(tmp_path):
    coarse = np.random.default_rng(3).integers(1, 20000, (30, 40)).astype("uint16")
    (tmp_path / "x.tif").write_bytes(cog_bytes(coarse, zoom_out(GEOBOX, 2)[:30, :40], 0, 128))
    grid = GEOBOX[:60, :80]
    values = np.concatenate([part for _, part in decode.decode_digital_numbers(tmp_path / "x.tif", grid)])
    warped = np.zeros(values.shape, "float64")
    reproject(
        coarse.astype("float64"), warped, src_transform=Affine(20, 0, 399960, 0, -20, 7600020),
        dst_transform=grid.affine, src_crs="EPSG:32608", dst_crs="EPSG:32608", resampling=Resampling.bilinear,
    )  # fmt: skip
    assert np.abs(values.astype("float64") - warped).max() <= 0.51


def test_classes_of_a_clip_of_odd_size_are_repeated_and_cut(tmp_path):
    coarse = np.random.default_rng(3).integers(0, 12, (9, 11)).astype("uint8")
    (tmp_path / "x.tif").write_bytes(cog_bytes(coarse, zoom_out(GEOBOX, 2)[:9, :11], 0, 128))
    values = np.concatenate([part for _, part in decode.decode_classes(tmp_path / "x.tif", GEOBOX[:17, :21])])
    np.testing.assert_array_equal(values, np.kron(coarse, np.ones((2, 2), "uint8"))[:17, :21])
