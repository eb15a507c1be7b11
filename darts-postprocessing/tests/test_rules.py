"""All rules of objects together and one by one, beside loops in plain Python."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from skimage.filters import apply_hysteresis_threshold

from darts_postprocessing import binarize, prepare_export
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError
from darts_utils.layers import object_suffixes
from darts_utils.testing import tile_on, utm_geobox

NAN = np.float32(np.nan)
WATER, LAND = 6, 4


@dataclass(frozen=True)
class Rules:
    size: int = 10
    min_px: int = 32
    level: int = 1
    frame: int | None = None
    grow: float | None = None
    water: float | None = None
    area: float | None = None


def extent_by_hand(probs, quality, rules):
    height, width = probs.shape
    places = list(np.ndindex(height, width))
    invalid = [place for place in places if quality[place] < rules.level or probs[place] != probs[place]]
    extent = np.ones(probs.shape, bool)
    for place in invalid:
        extent[place] = False
    if rules.level == 0:
        return extent
    frame = rules.size if rules.frame is None else rules.frame
    for y, x in places:
        framed = frame <= y < height - frame and frame <= x < width - frame
        extent[y, x] = framed and all((b - y) ** 2 + (a - x) ** 2 > rules.size**2 for b, a in invalid)
    return extent


def regions_by_hand(probs, threshold):
    above = {place for place in np.ndindex(*probs.shape) if probs[place] > np.float32(threshold)}
    while above:
        pixels = [above.pop()]
        for y, x in pixels:  # which grows
            near = {(y + j, x + i) for j in (-1, 0, 1) for i in (-1, 0, 1)} & above
            pixels += near
            above -= near
        yield pixels


def area_by_hand(geobox, pixels):
    """Add up the areas of pixels as geodesic polygons."""
    to_degrees = Transformer.from_crs(geobox.crs.to_wkt(), "EPSG:4326", always_xy=True)
    total = 0.0
    for y, x in pixels:
        corners = [geobox.affine @ corner for corner in ((x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1))]
        longitudes, latitudes = to_degrees.transform(*zip(*corners, strict=True))
        total += abs(Geod(ellps="WGS84").polygon_area_perimeter(longitudes, latitudes)[0])
    return total


def objects_by_hand(probs, threshold, extent, scl, geobox, rules):
    kept, cut = np.zeros(probs.shape, bool), np.full(probs.shape, NAN)
    for pixels in regions_by_hand(probs, threshold if rules.grow is None else rules.grow):
        if not all(extent[pixel] for pixel in pixels):
            for pixel in pixels:
                cut[pixel] = probs[pixel]
            continue
        if not any(probs[pixel] > np.float32(threshold) for pixel in pixels):
            continue
        too_wet = rules.water is not None and sum(scl[pixel] == WATER for pixel in pixels) > rules.water * len(pixels)
        too_small = rules.area is not None and area_by_hand(geobox, pixels) < rules.area
        if len(pixels) >= rules.min_px and not too_wet and not too_small:
            for pixel in pixels:
                kept[pixel] = True
    return kept, cut


def make_tile(probabilities, quality=None, scl=None, geobox=None, **layers):
    probs = probabilities
    quality = np.full(probs.shape, 2, "uint8") if quality is None else quality
    scl = np.full(probs.shape, LAND, "uint8") if scl is None else scl
    geobox = utm_geobox(probs.shape) if geobox is None else geobox
    return tile_on(geobox, {"probabilities": probs, "quality_data_mask": quality, "s2_scl": scl, **layers})


def prepare(tile, rules, threshold=0.5, **options):
    return prepare_export(
        tile, threshold, rules.size, rules.min_px, rules.level, edge_erosion_size=rules.frame,
        grow_threshold=rules.grow, max_water_share=rules.water, min_object_area=rules.area, **options,
    )  # fmt: skip


GEOBOXES = {
    "arctic": lambda shape: utm_geobox(shape),
    "southern": lambda shape: utm_geobox(shape, top=4_500_000.0, crs="EPSG:32719"),
    "pole": lambda shape: utm_geobox(shape, left=-100.0, top=100.0, crs="EPSG:3413"),
    "antimeridian": lambda shape: utm_geobox(shape, left=179.995, top=68.0, pixel=0.001, crs="EPSG:4326"),
    "odd pixels": lambda shape: utm_geobox(shape, pixel=3.125, left=300_000.3),
}


@settings(max_examples=60, deadline=None)
@example(seed=0, shape=(1, 1), where="arctic", rules=Rules(0, 1, 1, 0, 0.1, 0.0, 50.0), lost=0, share=1.0)
@example(seed=0, shape=(9, 7), where="pole", rules=Rules(1, 1, 0, 0, None, None, None), lost=1.0, share=0.5)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 22), st.integers(1, 22)),
    where=st.sampled_from(sorted(GEOBOXES)),
    rules=st.builds(
        Rules, size=st.integers(0, 3), min_px=st.integers(0, 5), level=st.integers(0, 2),
        frame=st.none() | st.integers(0, 3), grow=st.none() | st.sampled_from([0.0, 0.2, 0.25]),
        water=st.none() | st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0]),
        area=st.none() | st.sampled_from([0.0, 25.0, 150.0, 350.0, 20_000.0]),
    ),
    lost=st.sampled_from([0, 0.01, 0.1]),
    share=st.floats(0.05, 0.6),
)  # fmt: skip
def test_all_rules_together_are_those_of_plain_loops(seed, shape, where, rules, lost, share):
    rng = np.random.default_rng(seed)
    layers = {}
    for name in ("probabilities", "probabilities-other"):
        layers[name] = rng.random(shape, dtype="float32") ** np.float32(1 / (2 * share))
        layers[name][rng.random(shape) < lost] = NAN
    quality = rng.choice(np.array([0, 1, 2], "uint8"), shape, p=[lost / 4, lost / 4, 1 - lost / 2])
    scl = rng.choice(np.array([LAND, WATER], "uint8"), shape)
    geobox = GEOBOXES[where](shape)
    tile = make_tile(
        layers["probabilities"], quality, scl, geobox, **{"probabilities-other": layers["probabilities-other"]}
    )
    before = tile.copy(deep=True)
    out = prepare(tile, rules, more_thresholds=(0.75, 0.3), ensemble_subsets=["other"])

    assert tile.identical(before)
    extent = extent_by_hand(layers["probabilities"], quality, rules)
    np.testing.assert_array_equal(out.extent, extent)
    for suffix in object_suffixes(["other"], [0.75, 0.3]):
        threshold = {"75": 0.75, "30": 0.3}.get(suffix[-2:], 0.5)
        probs = layers["probabilities-other" if "other" in suffix else "probabilities"]
        kept, cut = objects_by_hand(probs, threshold, extent, scl, geobox, rules)
        np.testing.assert_array_equal(out[f"binarized_segmentation{suffix}"], kept, err_msg=suffix)
        np.testing.assert_array_equal(out[f"cut_probabilities{suffix}"], cut, err_msg=suffix)
        assert out[f"binarized_segmentation{suffix}"].dtype == bool
        assert out[f"cut_probabilities{suffix}"].dtype == "float32"
    for name, probs in layers.items():
        np.testing.assert_array_equal(out[name], np.where(extent, probs, NAN))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), low=st.floats(0, 1), high=st.floats(0, 1))
def test_growing_is_the_hysteresis_of_scikit_image(seed, low, high):
    low, high = sorted((low, high))
    probs = np.random.default_rng(seed).random((25, 31))
    # Its regions join by sides alone: where corners are apart by an empty pixel, both are the same.
    spread = np.zeros((50, 62))
    spread[::2, ::2] = probs
    spread[::2, 1::2] = np.minimum(probs, np.roll(probs, -1, 1)) * (probs > 0.3)
    spread[::2, 61] = 0
    found = binarize(spread, high, 0, np.ones(spread.shape, bool), grow_threshold=low)
    np.testing.assert_array_equal(found, apply_hysteresis_threshold(spread, low, np.nextafter(high, 2)))


def block(*places, shape=(40, 40), value=0.9):
    """Return probabilities of 0.1 with rectangles (top, left, height, width)."""
    probs = np.full(shape, np.float32(0.1))
    for top, left, height, width in places:
        probs[top : top + height, left : left + width] = value
    return probs


def test_an_object_grows_from_its_seed_across_corners():
    probs = block((10, 10, 5, 5), value=0.4)
    probs[15:18, 15:18] = 0.4  # touches by a corner
    probs[25:30, 25:30] = 0.4  # has no seed
    probs[17, 17] = 0.6
    tile = make_tile(probs)
    grown = prepare_export(tile, 0.5, 2, 2, grow_threshold=0.3)
    assert grown.binarized_segmentation.sum() == 25 + 9
    assert prepare_export(tile, 0.5, 2, 1).binarized_segmentation.sum() == 1
    np.testing.assert_array_equal(
        prepare_export(tile, 0.3, 2, 2, grow_threshold=0.3).binarized_segmentation,
        prepare_export(tile, 0.3, 2, 2).binarized_segmentation,
    )


def test_a_region_without_a_seed_is_kept_apart_at_the_edge_for_the_neighbour_may_see_its_seed():
    probs = block((0, 10, 6, 6), (0, 30, 6, 6), (20, 20, 6, 6), value=0.4)
    probs[5, 30] = 0.6
    out = prepare_export(make_tile(probs), 0.5, 2, 2, grow_threshold=0.3)
    cut = np.isfinite(out.cut_probabilities)
    assert cut[:6, 10:16].all()
    assert cut[:6, 30:36].all()
    assert cut.sum() == 72
    assert not out.binarized_segmentation.any()


@pytest.mark.parametrize(("share", "stays"), [(None, True), (1.0, True), (0.3, True), (0.29, False), (0.0, False)])
def test_an_object_of_which_a_larger_share_is_water_goes(share, stays):
    probs, scl = block((10, 10, 5, 10)), np.full((40, 40), LAND, "uint8")
    scl[10:15, 10:13] = WATER  # 15 of 50 pixels
    out = prepare_export(make_tile(probs, scl=scl), 0.5, 2, 1, max_water_share=share)
    assert out.binarized_segmentation.values.any() == stays
    assert not np.isfinite(out.cut_probabilities).any(), "what water removes was not cut"


@pytest.mark.parametrize("kind", ["uint8", "float32", "int64", "columns"])
def test_scene_classes_of_any_kind_are_understood(kind):
    probs, scl = block((10, 10, 5, 5), (20, 20, 5, 5)), np.full((40, 40), LAND, "uint8")
    scl[20:, 20:] = WATER
    scl = np.asfortranarray(scl) if kind == "columns" else scl.astype(kind)
    tile = make_tile(probs)
    out = prepare_export(tile.assign(s2_scl=(("y", "x"), scl)), 0.5, 2, 1, max_water_share=0.5)
    assert out.binarized_segmentation.values[12, 12]
    assert out.binarized_segmentation.sum() == 25


def test_an_object_in_water_that_reaches_outside_the_extent_stays_cut():
    tile = make_tile(block((0, 10, 8, 8)), scl=np.full((40, 40), WATER, "uint8"))
    out = prepare_export(tile, 0.5, 2, 1, max_water_share=0, min_object_area=1e9)
    assert np.isfinite(out.cut_probabilities).sum() == 64
    assert not out.binarized_segmentation.any()


@pytest.mark.parametrize(("area", "kept"), [(None, 61), (0, 61), (2500, 61), (2510, 36), (3600, 36), (3610, 0)])
def test_objects_of_less_area_go(area, kept):
    # Here, near 600 km east in the zone, a pixel of 10 m has 100.05 m².
    out = prepare_export(make_tile(block((5, 5, 5, 5), (20, 20, 6, 6))), 0.5, 2, 1, min_object_area=area)
    assert out.binarized_segmentation.sum() == kept
    assert not np.isfinite(out.cut_probabilities).any()


def test_both_minimum_sizes_hold():
    tile = make_tile(block((5, 5, 5, 5), (20, 20, 6, 6)))
    assert prepare_export(tile, 0.5, 2, 26, min_object_area=100).binarized_segmentation.sum() == 36
    assert prepare_export(tile, 0.5, 2, 10, min_object_area=3000).binarized_segmentation.sum() == 36
    assert prepare_export(tile, 0.5, 2, 37, min_object_area=100).binarized_segmentation.sum() == 0


def test_further_thresholds_have_layers_of_their_own():
    probs = block((10, 10, 10, 10), value=0.45)
    probs[12:18, 12:18] = 0.65
    tile = make_tile(probs, **{"probabilities-small": probs * np.float32(0.9)})
    out = prepare_export(tile, 0.5, 2, 1, ensemble_subsets=["small"], more_thresholds=[0.6, 0.4])
    sizes = {
        suffix: int(out[f"binarized_segmentation{suffix}"].sum()) for suffix in object_suffixes(["small"], [0.4, 0.6])
    }
    assert sizes == {"": 36, "-small": 36, "-t40": 100, "-small-t40": 100, "-t60": 36, "-small-t60": 0}
    assert out["binarized_segmentation-small-t40"].name == "binarized_segmentation-small-t40"
    assert out["binarized_segmentation-t40"].attrs["long_name"] == "Thaw features, threshold 0.40"
    assert {name for name in out if "-t" in name} == {
        f"{stem}{suffix}" for stem in ("binarized_segmentation", "cut_probabilities")
        for suffix in sizes if "-t" in suffix
    }  # fmt: skip


def test_further_thresholds_change_nothing_else():
    rng = np.random.default_rng(7)
    tile = make_tile(rng.random((60, 50), dtype="float32"))
    for options in ({}, {"grow_threshold": 0.3}):
        alone = prepare_export(tile, 0.7, 2, 3, **options)
        together = prepare_export(tile, 0.7, 2, 3, **options, more_thresholds=(0.8, 0.3, 0.75))
        xr.testing.assert_identical(together[list(alone)], alone)
        for threshold in (0.3, 0.8):
            other = prepare_export(tile, threshold, 2, 3, **options)
            for stem in ("binarized_segmentation", "cut_probabilities"):
                suffix = f"-t{round(threshold * 100)}"
                np.testing.assert_array_equal(together[stem + suffix], other[stem])


def test_thresholds_may_come_as_an_array():
    tile = make_tile(block())
    xr.testing.assert_identical(
        prepare_export(tile, more_thresholds=np.array([0.4, 0.6])), prepare_export(tile, more_thresholds=[0.4, 0.6])
    )


def test_objects_of_a_higher_threshold_lie_within_those_of_a_lower_one():
    probs = np.random.default_rng(9).random((80, 70), dtype="float32")
    names = ["", "-t60", "-t70", "-t90"]
    out = prepare_export(make_tile(probs), 0.5, 0, 0, more_thresholds=(0.6, 0.7, 0.9))
    for low, high in pairwise(out[f"binarized_segmentation{name}"].values for name in names):
        assert not (high & ~low).any()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"more_thresholds": [0.5]}, "bin_threshold itself"),
        ({"more_thresholds": [0.4, 0.4]}, "twice"),
        ({"more_thresholds": [0.405]}, "whole number"),
        ({"more_thresholds": [0]}, "0.01"),
        ({"more_thresholds": 0.4}, "list of thresholds"),
        ({"more_thresholds": "0.4"}, "list of thresholds"),
        ({"more_thresholds": None}, "list of thresholds"),
        ({"more_thresholds": ["0.4"]}, "each of more_thresholds lies between 0 and 1"),
        ({"more_thresholds": [0.4], "ensemble_subsets": ["net-t40"]}, "'net-t40'"),
        ({"grow_threshold": 0.51}, "grow_threshold must be at most each threshold"),
        ({"grow_threshold": 0.45, "more_thresholds": [0.4]}, "with a threshold of 0.4"),
        ({"grow_threshold": -0.1}, "grow_threshold lies between 0 and 1"),
        ({"grow_threshold": "low"}, "grow_threshold lies between 0 and 1"),
        ({"grow_threshold": float("nan")}, "grow_threshold lies between 0 and 1"),
        ({"max_water_share": 50}, "max_water_share is a share"),
        ({"max_water_share": "half"}, "max_water_share is a share"),
        ({"max_water_share": float("nan")}, "max_water_share is a share"),
        ({"min_object_area": -1.0}, "min_object_area is in m²"),
        ({"min_object_area": "large"}, "min_object_area is in m²"),
        ({"min_object_area": float("inf")}, "min_object_area is in m²"),
    ],
)
def test_rules_that_cannot_work_are_refused(options, match):
    probs = block()
    tile = make_tile(probs, **{"probabilities-net-t40": probs})
    with pytest.raises(ConfigError, match=match):
        prepare_export(tile, **options)


def test_the_rule_on_water_names_the_band_that_is_missing():
    with pytest.raises(MissingBandError, match="synthetic lacks s2_scl, which max_water_share needs"):
        prepare_export(make_tile(block()).drop_vars("s2_scl"), max_water_share=0.5)


def test_the_rule_on_areas_needs_a_grid():
    bare = {name: (("y", "x"), layer.values) for name, layer in make_tile(block()).data_vars.items()}
    tile = xr.Dataset(bare)
    with pytest.raises(GridMismatchError, match="min_object_area needs a tile with a grid"):
        prepare_export(tile, min_object_area=10)


@pytest.mark.gpu
@pytest.mark.parametrize("grow", [None, 0.6])
def test_all_rules_on_the_gpu_give_the_same_bits(grow):
    from darts_utils.arrays import to_host

    rng = np.random.default_rng(11)
    probs = rng.random((700, 600), dtype="float32")
    probs[rng.random(probs.shape) < 0.01] = NAN
    scl = rng.choice(np.array([LAND, WATER], "uint8"), probs.shape)
    tile = make_tile(probs, scl=scl)
    options = {
        "mask_erosion_size": 1, "min_object_size": 2, "bin_threshold": 0.7, "more_thresholds": (0.8, 0.65),
        "grow_threshold": grow, "max_water_share": 0.5, "min_object_area": 350.0,
    }  # fmt: skip
    xr.testing.assert_identical(
        to_host(prepare_export(tile, **options, device="cuda")), prepare_export(tile, **options)
    )
