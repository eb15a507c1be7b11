"""Labelled tiles cut into patches: where the windows lie, what is ignored, and where on Earth they are."""

from itertools import pairwise
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio import Affine

from darts_segmentation.patches import PatchOptions, plan_spans
from darts_segmentation.training.cutting import cut_patches, outline
from darts_segmentation.training.patch_form import DatasetForm, Patch
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError
from darts_utils.grids import on_grid

FORM = DatasetForm(bands=("red", "slope", "aspect"), patch_size=8, overlap=2)


def grid(
    height: int, width: int, *, left: float = 500_000.0, top: float = 7_500_000.0, crs: str = "EPSG:32608"
) -> GeoBox:
    return GeoBox((height, width), Affine(10, 0, left, 0, -10, top), crs)


def tile_of(height: int, width: int, **planes: Any) -> xr.Dataset:
    """A tile whose red tells the pixel: 1000 · row + column."""
    rows, cols = np.indices((height, width))
    bands = {"red": 1000 * rows + cols, "slope": np.ones(rows.shape), "aspect": np.ones(rows.shape)} | planes
    geobox = grid(height, width)
    return xr.Dataset({name: on_grid(np.asarray(values, "float32"), geobox) for name, values in bands.items()})


def cut(tile: xr.Dataset, target: np.ndarray, form: DatasetForm = FORM, **options: Any) -> list[Patch]:
    return list(cut_patches(tile, target, form, **options))


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(8, 20), data=st.data())
def test_windows_lie_as_in_inference_and_show_what_the_tile_has(height, width, size, data) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    form = DatasetForm(bands=("red",), patch_size=size, overlap=overlap)
    tile = tile_of(height, width)
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    target = rng.integers(0, 3, (height, width))
    patches = cut(tile, target, form, min_labelled=0.0)
    options = PatchOptions(patch_size=size, overlap=overlap)
    starts = [[span.target.start for span in plan_spans(length, options)] for length in (height, width)]
    labelled = {
        (row, col) for row in starts[0] for col in starts[1] if (target[row : row + size, col : col + size] != 2).any()
    }
    assert {(patch.row, patch.col) for patch in patches} == labelled
    assert len(patches) == len(labelled)
    red = tile.red.values
    for patch in patches:
        for i in range(size):
            for j in range(size):
                row, col = patch.row + i, patch.col + j
                if row < height and col < width:
                    assert patch.x[0, i, j] == red[row, col]
                    assert patch.y[i, j] == target[row, col]
                else:
                    assert np.isnan(patch.x[0, i, j])
                    assert patch.y[i, j] == 2


def test_a_pixel_that_lacks_a_band_is_ignored_but_for_aspect() -> None:
    red, slope, aspect = (np.ones((8, 8)) for _ in range(3))
    red[0, 0], red[0, 1], slope[1, 0], aspect[2, 0] = np.nan, np.inf, np.nan, np.nan
    (patch,) = cut(tile_of(8, 8, red=red, slope=slope, aspect=aspect), np.ones((8, 8), bool))
    expected = np.ones((8, 8))
    expected[0, 0] = expected[0, 1] = expected[1, 0] = 2
    np.testing.assert_array_equal(patch.y, expected)
    assert np.isnan(patch.x[0, 0, 1])
    assert np.isnan(patch.x[2, 2, 0])
    assert patch.x.dtype == np.float32
    assert patch.y.dtype == np.uint8


def test_the_tile_and_the_target_stay_as_they_are() -> None:
    red = np.ones((8, 8), "float32")
    red[0, 0] = np.inf
    tile, target = tile_of(8, 8, red=red), np.ones((8, 8), "uint8")
    before = tile.copy(deep=True)
    cut(tile, target)
    xr.testing.assert_identical(tile, before)
    assert (target == 1).all()


def test_patches_without_slumps_are_dropped_on_request() -> None:
    target = np.zeros((8, 20), "uint8")
    target[3, 1] = 1
    assert [patch.col for patch in cut(tile_of(8, 20), target)] == [0, 6, 12]
    assert [patch.col for patch in cut(tile_of(8, 20), target, keep_negative=False)] == [0]


def test_a_slump_that_is_not_seen_is_none() -> None:
    red = np.ones((8, 8))
    red[3, 1] = np.nan
    target = np.zeros((8, 8), "uint8")
    target[3, 1] = 1
    assert cut(tile_of(8, 8, red=red), target, keep_negative=False) == []


def test_patches_with_gaps_within_their_labels_are_dropped_on_request() -> None:
    red = np.ones((8, 20))
    red[0, 0] = red[0, 19] = np.nan
    target = np.zeros((8, 20), "uint8")
    target[0, 19] = 2  # a gap, but no labels there
    assert len(cut(tile_of(8, 20, red=red), target)) == 3
    assert [patch.col for patch in cut(tile_of(8, 20, red=red), target, keep_nan=False)] == [6, 12]


@pytest.mark.parametrize(("least", "kept"), [(0.0, [0, 12]), (0.25, [0, 12]), (0.26, [0]), (1.0, [0])])
def test_patches_need_a_share_of_labels(least: float, kept: list[int]) -> None:
    target = np.full((8, 20), 2, "uint8")
    target[:, :8] = 0
    target[:2, 12:] = 0
    form = DatasetForm(bands=("red",), patch_size=8, overlap=0)
    # Windows begin at 0, 8 and 12; that at 8 has labels of the columns 12 to 15 only.
    found = cut(tile_of(8, 20), target, form, min_labelled=least)
    assert [patch.col for patch in found if patch.col != 8] == kept


def test_a_tile_without_labels_gives_nothing() -> None:
    assert cut(tile_of(8, 8), np.full((8, 8), 2), min_labelled=0.0) == []
    assert cut(tile_of(8, 8, red=np.full((8, 8), np.nan)), np.zeros((8, 8), int), min_labelled=0.0) == []


def test_what_cannot_be_cut_is_refused_at_once() -> None:
    tile = tile_of(8, 8)
    with pytest.raises(MissingBandError, match="slope"):
        cut_patches(tile.drop_vars("slope"), np.zeros((8, 8), int), FORM)
    with pytest.raises(GridMismatchError, match=r"\(8, 9\)"):
        cut_patches(tile, np.zeros((8, 9), int), FORM)
    with pytest.raises(GridMismatchError, match="grid"):
        cut_patches(tile.drop_vars(["x", "y", "spatial_ref"], errors="ignore"), np.zeros((8, 8), int), FORM)
    with pytest.raises(ConfigError, match="3"):
        cut_patches(tile, np.full((8, 8), 3), FORM)
    with pytest.raises(ConfigError, match="target"):
        cut_patches(tile, np.zeros((8, 8)), FORM)
    with pytest.raises(ConfigError, match="min_labelled"):
        cut_patches(tile, np.zeros((8, 8), int), FORM, min_labelled=1.5)


def exact_outline(geobox: GeoBox) -> shapely.Polygon:
    """Corners and 400 points an edge, one by one, with longitudes from 0 to 360."""
    transformer = Transformer.from_crs(geobox.crs, "EPSG:4326", always_xy=True)
    height, width = geobox.shape
    corners = [(0, 0), (width, 0), (width, height), (0, height), (0, 0)]
    points = []
    for (c0, r0), (c1, r1) in pairwise(corners):
        for part in np.linspace(0, 1, 400, endpoint=False):
            x, y = geobox.affine * (c0 + part * (c1 - c0), r0 + part * (r1 - r0))
            longitude, latitude = transformer.transform(x, y)
            points.append((longitude % 360, latitude))
    return shapely.Polygon(points)


@pytest.mark.parametrize(
    "geobox",
    [
        grid(256, 256),
        grid(1024, 1024, left=300_000, top=8_300_000, crs="EPSG:32660"),
        grid(1024, 512, left=-1_500_000, top=-500_000, crs="EPSG:3413"),
    ],
)
def test_an_outline_bends_as_the_window_does(geobox: GeoBox) -> None:
    exact = exact_outline(geobox)
    found = shapely.transform(outline(geobox), lambda points: np.column_stack([points[:, 0] % 360, points[:, 1]]))
    assert found.symmetric_difference(exact).area < 1e-4 * exact.area
    assert isinstance(outline(geobox), shapely.Polygon)


def test_an_outline_across_the_antimeridian_is_split() -> None:
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32660", always_xy=True).transform(179.99, 68.0)
    geobox = grid(256, 256, left=float(x), top=float(y), crs="EPSG:32660")
    found = outline(geobox)
    assert isinstance(found, shapely.MultiPolygon)
    assert found.is_valid
    west, east = sorted(found.geoms, key=lambda part: part.bounds[0])
    assert west.bounds[0] == -180
    assert east.bounds[2] == 180
    both = shapely.union_all([shapely.transform(west, lambda points: points + np.array([360, 0])), east])
    exact = exact_outline(geobox)
    assert both.symmetric_difference(exact).area < 1e-4 * exact.area
    # In metres it is as large as the window.
    area = gpd.GeoSeries([found], crs="EPSG:4326").to_crs("EPSG:6931").area.iloc[0]
    assert area == pytest.approx(2560**2, rel=2e-3)


def test_an_outline_that_ends_at_the_antimeridian_is_whole() -> None:
    geobox = GeoBox((10, 10), Affine(0.1, 0, 179, 0, -0.1, 70), "EPSG:4326")
    found = outline(geobox)
    assert isinstance(found, shapely.Polygon)
    assert found.bounds == pytest.approx((179, 69, 180, 70))


def test_a_window_around_the_pole_is_refused() -> None:
    with pytest.raises(ConfigError, match="pole"):
        outline(grid(256, 256, left=-1280, top=1280, crs="EPSG:3413"))


def test_the_outline_of_a_padded_patch_ends_with_the_tile() -> None:
    (patch,) = cut(tile_of(5, 6), np.zeros((5, 6), int), min_labelled=0.0)
    assert patch.geometry.equals_exact(outline(grid(5, 6)), 1e-12)
