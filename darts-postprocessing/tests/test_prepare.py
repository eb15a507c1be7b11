import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from scipy import ndimage

from darts_postprocessing import erode_mask, prepare_export
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError

NAN = np.float32(np.nan)
DISK = np.add.outer(np.arange(-3, 4) ** 2, np.arange(-3, 4) ** 2) <= 9


def make_tile(probs, quality=None, **layers):
    geobox = GeoBox(probs.shape, Affine(10, 0, 5e5, 0, -10, 7.6e6), "EPSG:32608")
    quality = np.full(probs.shape, 2, "uint8") if quality is None else quality
    bands = {"probabilities": probs, "quality_data_mask": quality, **layers}
    return xr.Dataset(
        {name: (("y", "x"), values) for name, values in bands.items()},
        coords=xr_coords(geobox),
        attrs={"tile_id": "a-tile"},
    )


@pytest.fixture
def tile():
    """Three objects: inside, at the edge, and crossing a column of quality 0; a NaN corner; two models."""
    rng = np.random.default_rng(0)
    probs = (rng.random((90, 120)) * 0.3).astype("float32")
    probs[40:50, 40:50] = 0.9
    probs[30:60, 0:20] = 0.8
    probs[65:85, 85:105] = 0.7
    probs[:15, 100:] = NAN
    quality = np.full(probs.shape, 2, "uint8")
    quality[:, 95] = 0
    quality[10:20, 10:20] = 1
    small = np.where(np.isnan(probs), NAN, np.float32(0.1))
    small[60:70, 60:70] = 0.95
    return make_tile(probs, quality, **{"probabilities-small": small, "probability_std": probs * np.float32(0.1)})


def test_the_extent_is_quality_and_probability_eroded_and_framed(tile):
    out = prepare_export(tile, mask_erosion_size=3)
    valid = (tile.quality_data_mask >= 1).values & np.isfinite(tile.probabilities.values)
    expected = ndimage.binary_erosion(valid, DISK, border_value=1)
    expected[:3] = expected[-3:] = expected[:, :3] = expected[:, -3:] = False
    np.testing.assert_array_equal(out.extent, expected)
    assert out.extent.dtype == bool


def test_objects_that_reach_outside_the_extent_go_whole_and_are_kept_apart(tile):  # O1
    out = prepare_export(tile, mask_erosion_size=3)
    inside = np.zeros(out.extent.shape, bool)
    inside[40:50, 40:50] = True
    np.testing.assert_array_equal(out.binarized_segmentation, inside)
    cut = np.isfinite(out.cut_probabilities.values)
    assert cut.sum() == 30 * 20 + 20 * 20
    np.testing.assert_array_equal(out.cut_probabilities.values[cut], tile.probabilities.values[cut])
    assert not (cut & out.binarized_segmentation.values).any()
    assert out.cut_probabilities.dtype == "float32"


def test_an_object_with_pixels_beside_missing_probability_goes_whole():
    probs = np.full((40, 40), np.float32(0.9))
    probs[:5] = NAN
    out = prepare_export(make_tile(probs), mask_erosion_size=1, edge_erosion_size=0)
    assert not out.binarized_segmentation.any()
    assert np.isfinite(out.cut_probabilities).sum() == 35 * 40


def test_probabilities_are_missing_outside_the_extent_alone(tile):
    out = prepare_export(tile, mask_erosion_size=3, ensemble_subsets=["small"])
    for name in ("probabilities", "probabilities-small", "probability_std"):
        np.testing.assert_array_equal(np.isfinite(out[name]), out.extent)
        np.testing.assert_array_equal(out[name].values[out.extent], tile[name].values[out.extent])
        assert out[name].dtype == "float32"


def test_subsets_get_objects_of_their_own(tile):
    out = prepare_export(tile, mask_erosion_size=3, ensemble_subsets=["small"])
    expected = np.zeros(out.extent.shape, bool)
    expected[60:70, 60:70] = True
    np.testing.assert_array_equal(out["binarized_segmentation-small"], expected)
    assert not np.isfinite(out["cut_probabilities-small"]).any()
    assert "binarized_segmentation-small" not in prepare_export(tile)


def test_the_input_tile_is_left_alone_and_its_other_variables_go_along(tile):
    before = tile.copy(deep=True)
    out = prepare_export(tile, ensemble_subsets=("small",))
    xr.testing.assert_identical(tile, before)
    assert out.odc.geobox == tile.odc.geobox
    assert out.attrs == tile.attrs
    xr.testing.assert_identical(out.quality_data_mask, tile.quality_data_mask)
    assert out["binarized_segmentation"].attrs["long_name"] == "Thaw features"


def test_a_zero_frame_and_zero_erosion_keep_the_tile():  # O2
    probs = np.full((60, 60), np.float32(0.9))
    for options in ({"edge_erosion_size": 0}, {"mask_erosion_size": 0}):
        out = prepare_export(make_tile(probs), **options)
        assert out.extent.all()
        assert out.binarized_segmentation.all()
    assert prepare_export(make_tile(probs), edge_erosion_size=7).extent.sum() == 46 * 46


def test_quality_level_none_cuts_nothing_but_missing_probabilities(tile):  # O6
    out = prepare_export(tile, quality_level=0)
    np.testing.assert_array_equal(out.extent, np.isfinite(tile.probabilities))
    assert out.binarized_segmentation.sum() == 100 + 600 + 400
    assert not np.isfinite(out.cut_probabilities).any()


def test_pixels_of_quality_zero_hold_no_objects_by_default():  # O6
    probs = np.zeros((40, 40), "float32")
    probs[10:30, 10:30] = 0.9
    quality = np.full(probs.shape, 2, "uint8")
    quality[:, :20] = 0
    assert not prepare_export(make_tile(probs, quality), mask_erosion_size=2).binarized_segmentation.any()


@pytest.mark.parametrize(("name", "level"), [("none", 0), ("low_quality", 1), ("high_quality", 2)])
def test_quality_levels_have_names(tile, name, level):
    xr.testing.assert_identical(
        prepare_export(tile, quality_level=name, mask_erosion_size=2),
        prepare_export(tile, quality_level=level, mask_erosion_size=2),
    )


def test_high_quality_is_stricter_than_low(tile):
    high, low = (prepare_export(tile, quality_level=level, mask_erosion_size=2).extent for level in (2, 1))
    assert low.values[15, 15]
    assert not high.values[15, 15]
    assert not (high & ~low).any()


def test_a_tile_of_one_pixel_or_without_any_probability_works():
    assert prepare_export(make_tile(np.ones((1, 1), "float32")), quality_level=0).extent.all()
    out = prepare_export(make_tile(np.full((37, 53), NAN)))
    assert not out.extent.any()
    assert not out.binarized_segmentation.any()


def test_the_mask_alone_erodes_the_same_way(tile):
    valid = (tile.quality_data_mask >= 1) & tile.probabilities.notnull()
    np.testing.assert_array_equal(prepare_export(tile, mask_erosion_size=4).extent, erode_mask(valid, 4))


@pytest.mark.parametrize(
    ("drop", "options"),
    [
        ("quality_data_mask", {}),
        ("quality_data_mask", {"quality_level": 0}),
        ("probabilities", {}),
        ("probabilities-small", {"ensemble_subsets": ["small"]}),
    ],
)
def test_a_missing_band_is_named(tile, drop, options):
    with pytest.raises(MissingBandError, match=f"a-tile lacks {drop}"):
        prepare_export(tile.drop_vars(drop), **options)


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"quality_level": 3}, "quality_level"),
        ({"quality_level": "best"}, "high_quality"),
        ({"bin_threshold": 2}, "between 0 and 1"),
        ({"mask_erosion_size": -1}, "mask_erosion_size"),
        ({"edge_erosion_size": -1}, "edge_erosion_size"),
        ({"min_object_size": 2.5}, "min_object_size"),
        ({"bin_threshold": "0.5"}, "between 0 and 1"),
        ({"bin_threshold": True}, "between 0 and 1"),
        ({"ensemble_subsets": "small"}, "list of model names"),
        ({"ensemble_subsets": None}, "list of model names"),
    ],
)
def test_options_that_cannot_work_are_refused(tile, option, match):
    with pytest.raises(ConfigError, match=match):
        prepare_export(tile, **option)


def test_a_tile_is_not_prepared_twice_for_its_extent_would_shrink_and_its_cut_objects_go(tile):
    with pytest.raises(ConfigError, match="a-tile went through prepare_export before"):
        prepare_export(prepare_export(tile, mask_erosion_size=3), mask_erosion_size=3)


def test_the_order_of_a_bands_dimensions_changes_nothing(tile):
    square = tile.isel(x=slice(15, 105))
    expected = prepare_export(square, mask_erosion_size=3)
    assert expected.sizes["x"] == expected.sizes["y"]
    turned = square.assign(quality_data_mask=square.quality_data_mask.transpose("x", "y"))
    for other in (turned, square.transpose("x", "y")):
        xr.testing.assert_identical(prepare_export(other, mask_erosion_size=3), expected)


def test_a_band_with_other_dimensions_is_named(tile):
    other = tile.assign(quality_data_mask=(("row", "x"), np.ones((3, 120), "uint8")))
    with pytest.raises(
        GridMismatchError, match=r"'quality_data_mask' of tile a-tile has the dimensions \('row', 'x'\)"
    ):
        prepare_export(other)


def test_lazy_bands_are_computed(tile):
    out = prepare_export(tile.chunk({"y": 20}), mask_erosion_size=3, ensemble_subsets=["small"])
    expected = prepare_export(tile, mask_erosion_size=3, ensemble_subsets=["small"])
    xr.testing.assert_identical(out.compute(), expected)


@pytest.mark.gpu
def test_a_tile_on_the_gpu_gives_the_same_bits(tile):
    from darts_utils.arrays import to_host

    there = prepare_export(tile, mask_erosion_size=3, ensemble_subsets=["small"], device="cuda")
    assert type(there["extent"].data).__module__.startswith("cupy")
    xr.testing.assert_identical(to_host(there), prepare_export(tile, mask_erosion_size=3, ensemble_subsets=["small"]))
