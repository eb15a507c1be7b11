"""Augmentation: directions in turned pictures, light over optical bands, gaps, crops."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_segmentation.training import augmentation
from darts_segmentation.training.augmentation import (
    AUGMENTATIONS,
    WAVELENGTHS_UM,
    Augmentation,
    crop_patch,
    with_origins,
)
from darts_segmentation.turns import EIGHT_TURNS
from darts_utils.bands import BANDS
from darts_utils.errors import ConfigError

OPTICAL = ("blue", "green", "red", "nir")
STACK = (*OPTICAL, "ndvi", "tc_wetness", "slope", "aspect", "hillshade")


def horn(dem: np.ndarray, pixel: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    """Slope and aspect (degrees, clockwise from the top) by Horn 1981, pixel by pixel; a frame of NaN."""
    slope, aspect = np.full(dem.shape, np.nan), np.full(dem.shape, np.nan)
    for row in range(1, dem.shape[0] - 1):
        for col in range(1, dem.shape[1] - 1):
            a, b, c, d, _, f, g, h, i = dem[row - 1 : row + 2, col - 1 : col + 2].ravel()
            east = ((c + 2 * f + i) - (a + 2 * d + g)) / (8 * pixel)
            south = ((g + 2 * h + i) - (a + 2 * b + c)) / (8 * pixel)
            slope[row, col] = np.degrees(np.arctan(np.hypot(east, south)))
            # Downhill is against the gradient: towards east by -east, towards north by +south.
            aspect[row, col] = np.degrees(np.arctan2(-east, south)) % 360
    return slope, aspect


def rough_dem(size: int = 9, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(300, 5, (size, size))


def patch(bands: tuple[str, ...] = STACK, size: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Physical values with gaps: a corner where all is missing, and flat ground without aspect."""
    rng = np.random.default_rng(seed)
    planes = []
    for name in bands:
        lo, hi = (0.02, 0.4) if name in OPTICAL else BANDS[name].valid
        planes.append(rng.uniform(lo, hi, (size, size)))
    x = np.array(planes, np.float32)
    if {"ndvi", "nir", "red"} <= set(bands):
        nir, red = x[bands.index("nir")], x[bands.index("red")]
        x[bands.index("ndvi")] = (nir - red) / (nir + red)
    x[:, :3, :4] = np.nan
    if "aspect" in bands:
        x[bands.index("aspect"), -2:] = np.nan
    y = rng.integers(0, 2, (size, size)).astype(np.uint8)
    y[:3, :4] = 2
    return x, y


def changed(names: list[str], x: np.ndarray, y: np.ndarray, seed: int, bands: tuple[str, ...] = STACK) -> Any:
    return Augmentation(names, bands)(x, y, np.random.default_rng(seed))


def only(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    for name, value in settings.items():
        monkeypatch.setattr(augmentation, name, value)


def test_aspect_in_a_turned_picture_is_that_of_the_turned_terrain() -> None:
    """The terrain itself is turned, its slope and aspect computed anew, and compared with what augmentation makes."""
    dem = rough_dem()
    slope, aspect = horn(dem)
    x = np.stack([dem, slope, aspect]).astype(np.float32)
    augment = Augmentation(["turns"], ["dem", "slope", "aspect"])
    found = set()
    for seed in range(60):
        turned, _ = augment(x, np.zeros(dem.shape, np.uint8), np.random.default_rng(seed))
        found.add(turned[0].tobytes())
        expected_slope, expected_aspect = horn(turned[0].astype(float))
        np.testing.assert_allclose(turned[1], expected_slope, rtol=1e-4)
        difference = (turned[2] - expected_aspect + 180) % 360 - 180
        assert np.nanmax(np.abs(difference)) < 0.05
        assert np.array_equal(np.isnan(turned[2]), np.isnan(expected_aspect))
    assert len(found) == len(EIGHT_TURNS)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 6), width=st.integers(1, 6))
def test_turns_keep_pixels_together(seed: int, height: int, width: int) -> None:
    """Every pixel keeps its values but for aspect, also where pictures are no squares."""
    rng = np.random.default_rng(seed)
    x = rng.random((3, height, width), np.float32)
    y = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    turned, labels = changed(["turns"], x, y, seed, ("red", "aspect", "slope"))
    order = np.argsort(labels.ravel())
    assert np.array_equal(turned[[0, 2]].reshape(2, -1)[:, order], x[[0, 2]].reshape(2, -1))
    assert sorted(labels.shape) == sorted(y.shape)


def test_soft_targets_turn_too() -> None:
    x, _ = patch(size=5)
    y = np.random.default_rng(0).random((5, 5)).astype(np.float32)
    x[0] = y
    for seed in range(8):
        turned, target = changed(["turns"], x, y, seed)
        assert np.array_equal(turned[0], target)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), names=st.sets(st.sampled_from([*AUGMENTATIONS])))
def test_gaps_stay_gaps_the_patch_stays_as_it_is_and_the_same_draw_gives_the_same(seed: int, names: set[str]) -> None:
    x, y = patch(seed=seed % 100)
    kept = x.copy(), y.copy()
    ordered = sorted(names)
    out, labels = changed(ordered, x, y, seed)
    assert np.array_equal(x, kept[0], equal_nan=True)
    assert np.array_equal(y, kept[1])
    assert out.dtype == np.float32
    assert labels.dtype == y.dtype
    again, labels_again = changed(ordered, x, y, seed)
    assert np.array_equal(out, again, equal_nan=True)
    assert np.array_equal(labels, labels_again)
    counts = np.isnan(out).sum(axis=(1, 2))
    before = np.isnan(x).sum(axis=(1, 2))
    if "dropout" in names:
        assert (counts >= before).all()
    else:
        assert np.array_equal(counts, before)
        assert sorted(labels.ravel()) == sorted(y.ravel())
    # What is missing altogether is never scored.
    assert (labels[np.isnan(out).all(axis=0)] == 2).all()


def test_light_changes_optical_bands_and_ndvi_alone() -> None:
    x, y = patch()
    out, labels = changed(["gain", "haze", "noise", "blur"], x, y, 3)
    rest = [place for place, name in enumerate(STACK) if name not in (*OPTICAL, "ndvi")]
    assert np.array_equal(out[rest], x[rest], equal_nan=True)
    assert np.array_equal(labels, y)
    known = np.isfinite(x[0])
    assert (out[:4][:, known] != x[:4][:, known]).mean() > 0.99
    red, nir = out[2].astype(float), out[3].astype(float)
    np.testing.assert_allclose(out[4][known], ((nir - red) / (nir + red))[known], atol=1e-6)


def test_indices_are_made_anew_from_bands_that_the_network_does_not_see() -> None:
    rng = np.random.default_rng(4)
    bands = with_origins(("slope", "gndvi", "ikaw"), ("slope", "gndvi", "ikaw", "blue", "green", "red", "nir"))
    assert bands == ("slope", "gndvi", "ikaw", "nir", "green", "red", "blue")
    assert with_origins(("slope", "ndvi", "red"), ("slope", "ndvi", "red")) == ("slope", "ndvi", "red")
    x = rng.uniform(0.05, 0.4, (7, 16, 16)).astype(np.float32)
    out, _ = changed(["turns", "gain", "haze", "noise", "blur"], x, np.zeros((16, 16), np.uint8), 5, bands)
    nir, green, red, blue = out[3:].astype(float)
    np.testing.assert_allclose(out[1], (nir - green) / (nir + green), atol=1e-6)
    np.testing.assert_allclose(out[2], (red - blue) / (red + blue), atol=1e-6)
    np.testing.assert_array_equal(np.sort(out[0], axis=None), np.sort(x[0], axis=None))


def test_ndvi_without_its_bands_stays_as_it_is() -> None:
    x, y = patch(("red", "ndvi", "slope"))
    out, _ = changed(["gain", "haze"], x, y, 1, ("red", "ndvi", "slope"))
    assert np.array_equal(out[1:], x[1:], equal_nan=True)
    assert not np.array_equal(out[0], x[0], equal_nan=True)


def test_ndvi_of_bands_that_cancel_out_is_no_new_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, GAIN_OF_SCENE=0.0, GAIN_OF_BAND=0.0)
    x = np.array([[[0.0, -0.1, 0.1]], [[0.0, 0.1, 0.3]], [[0.2, 0.3, 0.5]]], np.float32)
    out, _ = changed(["gain"], x, np.zeros((1, 3), np.uint8), 0, ("red", "nir", "ndvi"))
    np.testing.assert_allclose(out[2], [[0.2, 0.3, 0.5]], atol=1e-6)


def test_haze_is_stronger_at_shorter_wavelengths(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, HAZE_SHARE=1.0)
    bands = tuple(sorted(WAVELENGTHS_UM, key=lambda name: WAVELENGTHS_UM[name]))
    x = np.full((len(bands), 2, 2), 0.1, np.float32)
    for seed in range(20):
        out, _ = changed(["haze"], x, np.zeros((2, 2), np.uint8), seed, bands)
        added = (out - x)[:, 0, 0]
        assert (np.diff(added) <= 0).all()
        assert 0 <= added[1] <= augmentation.MOST_HAZE + 1e-6
        assert (out == out[:, :1, :1]).all()


def test_gain_of_a_scene_is_shared_by_its_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, GAIN_OF_BAND=0.0)
    x, y = patch(OPTICAL)
    ratios = []
    for seed in range(200):
        out, _ = changed(["gain"], x, y, seed, OPTICAL)
        ratio = (out / x)[np.isfinite(x)]
        assert np.ptp(ratio) < 1e-5
        ratios.append(np.log(ratio[0]))
    assert np.std(ratios) == pytest.approx(augmentation.GAIN_OF_SCENE, rel=0.2)


def test_blur_is_a_mean_over_known_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, BLUR_SHARE=1.0, BLUR_SIGMAS=(0.8, 0.8))
    x, y = patch(("red", "nir"), size=12)
    out, _ = changed(["blur"], x, y, 0, ("red", "nir"))
    for band in range(2):
        plane = x[band].astype(float)
        for row, col in [(0, 6), (3, 4), (4, 2), (11, 11), (6, 6)]:
            total = weight = 0.0
            for down in range(-3, 4):
                for right in range(-3, 4):
                    at = min(max(row + down, 0), 11), min(max(col + right, 0), 11)
                    share = np.exp(-(down**2 + right**2) / (2 * 0.8**2))
                    if np.isfinite(plane[at]):
                        total, weight = total + share * plane[at], weight + share
            assert out[band, row, col] == pytest.approx(total / weight, abs=1e-4)
    flat = np.full((2, 12, 12), 0.2, np.float32)
    flat[:, :5, :5] = np.nan
    same, _ = changed(["blur"], flat, y, 0, ("red", "nir"))
    np.testing.assert_allclose(same, flat, atol=1e-6)


def test_noise_has_no_pattern_and_no_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.full((4, 64, 64), 0.2, np.float32)
    added = np.stack([changed(["noise"], x, np.zeros((64, 64), np.uint8), seed, OPTICAL)[0] - x for seed in range(10)])
    assert 1e-4 < added.std() <= augmentation.MOST_NOISE
    assert abs(added.mean()) < 1e-4
    between = np.corrcoef(added.reshape(40, -1))
    assert np.abs(between - np.eye(40)).max() < 0.1


def test_holes_hide_all_bands_and_are_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, DROPOUT_SHARE=1.0)
    x, y = patch()
    soft = np.where(y == 2, np.nan, y).astype(np.float32)
    shares = []
    for seed in range(30):
        out, labels = changed(["dropout"], x, y, seed)
        hole = np.isnan(out).all(axis=0)
        shares.append(hole.mean())
        assert (labels[hole] == 2).all()
        assert np.array_equal(labels[~hole], y[~hole])
        assert np.array_equal(out[:, ~hole], x[:, ~hole], equal_nan=True)
        assert np.array_equal(np.isnan(changed(["dropout"], x, soft, seed)[1]), labels == 2)
    assert max(shares) > np.isnan(x[0]).mean() + 0.02


def test_the_legacy_aspect_is_not_turned() -> None:
    with pytest.raises(ConfigError, match="'turns' cannot turn aspect of terrain convention 'legacy'"):
        Augmentation(["turns"], ["red", "aspect"], terrain_convention="legacy")
    Augmentation(["gain"], ["red", "aspect"], terrain_convention="legacy")
    Augmentation(["turns"], ["red", "slope"], terrain_convention="legacy")


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(ConfigError, match="'rotate' is unknown; known: turns, gain"):
        Augmentation(["rotate"], ["red"])


def test_every_reflectance_band_has_a_wavelength() -> None:
    reflectance = {name for name, band in BANDS.items() if band.long_name.endswith("reflectance")}
    assert set(WAVELENGTHS_UM) == reflectance


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), size=st.integers(1, 12), height=st.integers(1, 12), width=st.integers(1, 12),
    slumps=st.integers(0, 3), soft=st.booleans(),
)  # fmt: skip
def test_a_crop_is_a_window_and_shows_a_slump_where_asked(
    seed: int, size: int, height: int, width: int, slumps: int, soft: bool
) -> None:
    rng = np.random.default_rng(seed)
    y = np.zeros((height, width), np.float32 if soft else np.uint8)
    y.flat[rng.integers(0, y.size, slumps)] = 1
    y.flat[rng.integers(0, y.size)] = np.nan if soft else 2
    x = np.arange(2 * y.size, dtype=np.float32).reshape(2, height, width)
    out, labels = crop_patch(x, y, size, rng, on_slump=True)
    assert out.shape == (2, *labels.shape) == (2, min(size, height), min(size, width))
    row, col = divmod(int(out[0, 0, 0]), width)
    window = np.s_[row : row + labels.shape[0], col : col + labels.shape[1]]
    assert np.array_equal(out, x[:, *window])
    assert np.array_equal(labels, y[window], equal_nan=soft)
    if (y == 1).any():
        assert (labels == 1).any()


def test_crops_without_a_wish_reach_every_place() -> None:
    x, y = np.arange(49, dtype=np.float32).reshape(1, 7, 7), np.zeros((7, 7), np.uint8)
    y[0, 0] = 1
    rng = np.random.default_rng(0)
    corners = {int(crop_patch(x, y, 3, rng)[0][0, 0, 0]) for _ in range(500)}
    assert len(corners) == 25
    wanted = {int(crop_patch(x, y, 3, rng, on_slump=True)[0][0, 0, 0]) for _ in range(50)}
    assert wanted == {0}
