"""Test-time augmentation and weights of ensembles, against the definition."""

import pickle
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from darts_ensemble import EnsembleV1
from darts_segmentation import SMPSegmenter
from darts_segmentation.inference import DatasetRows, Reader
from darts_utils.errors import ConfigError

from .test_ensemble import OPTIONS, Stub, write

SYMMETRIC: dict[str, Any] = {"patch_size": 16, "overlap": 4, "batch_size": 3}
"""Patches of sides 16 + 12 n lie on a turned tile where they lie on the tile."""


class Formula(SMPSegmenter):
    """A network that is a function of patches (batch, y, x, band)."""

    terrain_convention = "true-north"
    required_bands: tuple[str, ...] = ()

    def __init__(self, bands: tuple[str, ...], answer: Callable[[Any], Any]) -> None:
        self.required_bands, self.answer = bands, answer

    def reader(self) -> Reader:
        asked = tuple(name for name in self.required_bands if name != "aspect")
        return Reader(bands=self.required_bands, asked=asked, predict=self.answer, most=lambda height, width: 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "terrain": write(folder / "terrain.pt", ["red", "aspect", "slope"], seed=1),
        "optical": write(folder / "optical.pt", ["nir", "red"], seed=2),
    }


def scene(height: int = 28, width: int = 16) -> xr.Dataset:
    """A tile with gaps on rough ground, some of it flat."""
    random = np.random.default_rng(0)
    dem = np.maximum(random.integers(0, 40, (height, width)), 12)
    red, nir = random.uniform(0, 0.4, (2, height, width)).astype(np.float32)
    red[:3, 5:9] = np.nan
    nir[10:20, :7] = np.nan
    return terrain(
        xr.Dataset({name: (("y", "x"), plane) for name, plane in {"red": red, "nir": nir, "dem": dem}.items()})
    )


def terrain(tile: xr.Dataset) -> xr.Dataset:
    """Add slope and aspect (Horn 1981) of the DEM on a grid without convergence."""
    z = np.pad(tile.dem.values.astype(float), 1, mode="edge")
    height, width = tile.dem.shape
    east = sum(w * (z[i : i + height, 2:] - z[i : i + height, :-2]) for i, w in enumerate((1, 2, 1)))
    south = sum(w * (z[2:, i : i + width] - z[:-2, i : i + width]) for i, w in enumerate((1, 2, 1)))
    aspect = np.where((east == 0) & (south == 0), np.nan, np.degrees(np.arctan2(-east, south)) % 360)
    slope = np.degrees(np.arctan(np.hypot(east, south) / 80))
    return tile.assign(
        aspect=(("y", "x"), aspect.astype(np.float32)), slope=(("y", "x"), slope.astype(np.float32))
    )  # fmt: skip


def turned(plane: np.ndarray, quarters: int, mirrored: bool) -> np.ndarray:
    return np.rot90(np.fliplr(plane) if mirrored else plane, quarters)


def turned_back(plane: np.ndarray, quarters: int, mirrored: bool) -> np.ndarray:
    straight = np.rot90(plane, -quarters)
    return np.fliplr(straight) if mirrored else straight


def eight_answers(ensemble: EnsembleV1, tile: xr.Dataset, **options: Any) -> dict[str, np.ndarray]:
    """Turn the scene itself and what the models say of it; (turn, y, x) for each model."""
    answers: dict[str, list[np.ndarray]] = {name: [] for name in ensemble.model_names}
    for mirrored in (False, True):
        for quarters in range(4):
            planes = {name: turned(tile[name].values, quarters, mirrored) for name in ("red", "nir", "dem")}
            there = terrain(xr.Dataset({name: (("y", "x"), plane) for name, plane in planes.items()}))
            result = ensemble.segment_tile(there, keep_inputs=True, **options)
            for name, of_model in answers.items():
                of_model.append(turned_back(result[f"probabilities-{name}"].values, quarters, mirrored))
    return {name: np.stack(of_model).astype(np.float64) for name, of_model in answers.items()}


def weighted(stack: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and population standard deviation of planes, NaN left out."""
    counted = np.where(np.isnan(stack), 0, weights[:, None, None])
    with np.errstate(invalid="ignore"):
        mean = (counted * np.nan_to_num(stack)).sum(0) / counted.sum(0)
        variance = (counted * np.nan_to_num(stack - mean) ** 2).sum(0) / counted.sum(0)
    return mean, np.sqrt(variance)


@pytest.mark.parametrize("weights", [None, {"terrain": 3, "optical": 0.5}])
def test_augmented_networks_say_what_they_say_of_the_turned_scenes(
    files: dict[str, Path], weights: dict[str, float] | None
) -> None:
    tile = scene()
    ensemble = EnsembleV1(files, "cpu", weights=weights)
    each = eight_answers(ensemble, tile, **SYMMETRIC)
    result = ensemble.segment_tile(tile, **SYMMETRIC, keep_inputs=True, augment=True)
    factors = np.repeat([weights[name] for name in files] if weights else [1.0, 1.0], 8)
    mean, std = weighted(np.concatenate(list(each.values())), factors)
    np.testing.assert_allclose(result.probabilities, mean, rtol=0, atol=5e-6)
    np.testing.assert_allclose(result.probability_std, std, rtol=0, atol=5e-6)
    for name, answers in each.items():
        np.testing.assert_allclose(result[f"probabilities-{name}"], answers.mean(0), rtol=0, atol=5e-6)
    plain = ensemble.segment_tile(tile, **SYMMETRIC)
    assert np.nanmax(np.abs(result.probabilities - plain.probabilities)) > 0.01
    np.testing.assert_array_equal(np.isnan(result.probabilities), np.isnan(plain.probabilities))
    assert np.isnan(result.probabilities).sum() > 0


def test_one_augmented_model_has_a_spread(files: dict[str, Path]) -> None:
    tile = scene()
    ensemble = EnsembleV1({"terrain": files["terrain"]}, "cpu")
    (each,) = eight_answers(ensemble, tile, **SYMMETRIC).values()
    result = ensemble.segment_tile(tile, **SYMMETRIC, augment=True)
    np.testing.assert_allclose(result.probability_std, np.std(each, axis=0), rtol=0, atol=5e-6)
    assert result.probability_std.max() > 0.01
    assert "probability_std" not in ensemble.segment_tile(tile, **SYMMETRIC)
    assert result.probabilities.attrs["data_source"] == "mean of models terrain, over flips and quarter turns"


def test_turning_does_not_matter_to_a_model_that_looks_at_each_pixel_alone() -> None:
    ensemble = EnsembleV1({"steep": Formula(("red", "slope"), lambda patches: patches.mean(axis=-1))})
    tile = scene(31, 17)
    plain = ensemble.segment_tile(tile, **OPTIONS)
    result = ensemble.segment_tile(tile, **OPTIONS, augment=True)
    np.testing.assert_allclose(result.probabilities, plain.probabilities, rtol=0, atol=1e-6)
    assert result.probability_std.max() <= 1e-6


def test_a_model_that_knows_where_north_is_gives_a_half() -> None:
    def upper_half(patches: np.ndarray) -> np.ndarray:
        return np.repeat(np.arange(patches.shape[1])[:, None] < patches.shape[1] / 2, patches.shape[2], 1)[
            None
        ].repeat(len(patches), 0).astype(np.float32)  # fmt: skip

    tile = scene(16, 16).fillna({"red": 0.1})
    result = EnsembleV1({"up": Formula(("red",), upper_half)}).segment_tile(tile, **SYMMETRIC, augment=True)
    np.testing.assert_allclose(result.probabilities, 0.5)
    np.testing.assert_allclose(result.probability_std, 0.5)


@pytest.mark.parametrize("augment", [False, True])
def test_rows_and_lists_give_what_the_tile_gives(files: dict[str, Path], augment: bool) -> None:
    tile = scene(30, 23)
    ensemble = EnsembleV1(files, "cpu", weights={"terrain": 2, "optical": 1})
    options = {**SYMMETRIC, "keep_inputs": True, "augment": augment}
    whole = ensemble.segment_tile(tile, **options)
    layers = ensemble.segment_rows(DatasetRows(tile, ensemble.required_bands, purpose="a test"), **options)
    assert set(layers) == {"probabilities", "probability_std", "probabilities-terrain", "probabilities-optical"}
    for name, layer in layers.items():
        xr.testing.assert_identical(layer, whole[name])
    part = tile.isel(x=slice(5))
    for one, result in zip((part, tile), ensemble.segment_tile_batched([part, tile], **options), strict=True):
        xr.testing.assert_allclose(result, ensemble.segment_tile(one, **options), atol=1e-6)


def test_whatever_takes_augment_is_asked_to(files: dict[str, Path]) -> None:
    asked: list[Any] = []

    class Turning(Stub):
        def segment_tile(self, tile: xr.Dataset, *, augment: bool = False) -> xr.Dataset:
            asked.append(augment)
            return super().segment_tile(tile)

    tile = scene()
    turning, plain = Turning(np.full((28, 16), 0.25)), Stub(np.full((28, 16), 1.0))
    ensemble = EnsembleV1({"turning": turning, "plain": plain, "optical": files["optical"]}, "cpu")
    result = ensemble.segment_tile(tile, **SYMMETRIC, augment=True, keep_inputs=True)
    ensemble.segment_tile(tile, **SYMMETRIC)
    assert asked == [True, False]
    # A model that answers once counts as much as one that answers eight times.
    own = result["probabilities-optical"].fillna(0)
    wanted = np.where(own == 0, 0.625, (0.25 + 1 + own) / 3)
    np.testing.assert_allclose(result.probabilities, wanted, rtol=0, atol=1e-6)


def test_the_legacy_aspect_is_not_turned(tmp_path: Path) -> None:
    tile = scene(8, 8)
    legacy = EnsembleV1({"old": write(tmp_path / "old.pt", ["aspect", "slope"], 3, terrain_convention="legacy")}, "cpu")
    with pytest.raises(ConfigError, match="aspect of terrain convention 'legacy'"):
        legacy.segment_tile(tile, augment=True)
    slopes = EnsembleV1({"old": write(tmp_path / "slope.pt", ["slope"], 3, terrain_convention="legacy")}, "cpu")
    assert "probability_std" in slopes.segment_tile(tile, augment=True)


def test_memory_of_two_augmented_models_stays_at_three_planes_and_two_batches() -> None:
    side = 400
    bands = ("red", "nir", "slope", "aspect")
    tile = xr.Dataset({name: (("y", "x"), np.full((side, side), 0.1, np.float32)) for name in bands})
    models = {
        "all": Formula(bands, lambda patches: patches.mean(axis=-1)),
        "few": Formula(bands[:2], lambda patches: patches[..., 0].copy()),
    }
    ensemble = EnsembleV1(models)
    tracemalloc.start()
    ensemble.segment_tile(tile, patch_size=48, overlap=12, batch_size=2, augment=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    plane, batch = side * side * 4, 2 * 48 * 48 * (len(bands) + 7) * 4
    # Two planes are the result.
    assert peak <= 5 * plane + 2 * batch


def test_two_models_hold_a_batch_their_rows_at_work_and_little_more() -> None:
    side, patch_size = 1024, 256
    bands = ("blue", "green", "red", "nir", "ndvi", "slope", "relative_elevation", "tc_brightness", "tc_greenness")
    tile = xr.Dataset({name: (("y", "x"), np.full((side, side), 0.1, np.float32)) for name in bands})
    models = {
        "few": Formula(bands[:6], lambda patches: patches[..., 0].copy()),
        "all": Formula(bands, lambda patches: patches[..., 1].copy()),
    }
    ensemble = EnsembleV1(models)
    tracemalloc.start()
    ensemble.segment_tile(tile, patch_size=patch_size, overlap=64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    result, batch, rows = 2 * side * side * 4, patch_size**2 * len(bands) * 4, 2 * patch_size * side * 4
    # What else there is: the answer and its blend for a patch.
    assert peak <= result + batch + rows + 8 * patch_size**2 * 4


def test_a_weighted_mean_counts_models_by_their_weights() -> None:
    nan = np.nan
    tile = xr.Dataset({"red": (("y", "x"), np.zeros((1, 4), np.float32))})
    values = {"a": [[0.2, 0.2, nan, nan]], "b": [[0.4, nan, 0.4, nan]], "c": [[0.9, 0.6, nan, nan]]}
    models = {name: Stub(plane) for name, plane in values.items()}
    result = EnsembleV1(models, weights={"b": 1, "c": 0.5, "a": 4.5}).segment_tile(tile)
    mean, std = weighted(np.array(list(values.values())), np.array([4.5, 1, 0.5]))
    np.testing.assert_allclose(result.probabilities, mean, rtol=1e-6)
    np.testing.assert_allclose(result.probability_std, std, rtol=1e-5)
    assert result.probabilities.attrs["data_source"] == "weighted mean of models a (4.5), b (1), c (0.5)"


@pytest.mark.parametrize("weight", [1, 3, 0.1, 1e300, np.float32(7)])
@pytest.mark.parametrize("augment", [False, True])
def test_equal_weights_change_no_bit(weight: Any, augment: bool) -> None:
    tile = scene(28, 16)
    models = {
        name: Formula(bands, lambda patches: np.cumsum(patches[..., 0], axis=1) / np.float32(patches.shape[1]))
        for name, bands in {"a": ("red", "slope"), "b": ("nir",), "c": ("aspect", "slope")}.items()
    }
    plain = EnsembleV1(models).segment_tile(tile, **SYMMETRIC, augment=augment)
    equal = EnsembleV1(models, weights=dict.fromkeys(models, weight)).segment_tile(tile, **SYMMETRIC, augment=augment)
    for name in ("probabilities", "probability_std"):
        np.testing.assert_array_equal(equal[name], plain[name])


def test_a_model_of_hardly_any_weight_still_speaks_where_it_is_alone() -> None:
    tile = xr.Dataset({"red": (("y", "x"), np.zeros((1, 2), np.float32))})
    models = {"loud": Stub([[0.5, np.nan]]), "quiet": Stub([[0.9, 0.9]])}
    for weights in ({"loud": 1e200, "quiet": 1e-200}, {"loud": 1, "quiet": 1e-9}):
        result = EnsembleV1(models, weights=weights).segment_tile(tile)
        np.testing.assert_allclose(result.probabilities, [[0.5, 0.9]], rtol=1e-6)
        np.testing.assert_allclose(result.probability_std, [[0, 0]], atol=2e-5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1}, "weights must name the models, each of them: a, b; got a"),
        ({"a": 1, "b": 1, "c": 1}, "got a, b, c"),
        ({}, "weights must name the models"),
        ([1, 2], r"weights must give each model's name a number, got \[1, 2\]"),
        ({"a": 1, "b": 0}, "weight of model 'b' must be a positive finite number, got 0"),
        ({"a": -1, "b": 1}, "'a'.*got -1"),
        ({"a": np.nan, "b": 1}, "got nan"),
        ({"a": 1, "b": np.inf}, "got inf"),
        ({"a": 1, "b": 10**400}, "positive finite"),
        ({"a": 1, "b": True}, "got True"),
        ({"a": 1, "b": "2"}, "got '2'"),
        ({"a": 1, "b": None}, "got None"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights: Any, message: str) -> None:
    models: Mapping[str, Any] = {"a": Stub([[0]]), "b": Stub([[0]])}
    with pytest.raises(ConfigError, match=message):
        EnsembleV1(models, weights=weights)


def test_weights_outlive_pickling_and_are_no_door(files: dict[str, Path]) -> None:
    given = {"optical": 2.0, "terrain": 1.0}
    ensemble = EnsembleV1(files, "cpu", weights=given)
    given["optical"] = 5.0
    assert ensemble.weights is not None
    ensemble.weights["optical"] = 7.0
    again = pickle.loads(pickle.dumps(ensemble))
    assert again.weights == ensemble.weights == {"terrain": 1.0, "optical": 2.0}
    assert list(again.weights) == ["terrain", "optical"]
    assert EnsembleV1(files, "cpu").weights is None


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", ["torch", "compile"])
@pytest.mark.parametrize("augment", [False, True])
def test_a_gpu_that_works_ahead_gives_what_a_cpu_gives(files: dict[str, Path], runtime: str, augment: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    options: dict[str, Any] = {"patch_size": 16, "overlap": 4, "batch_size": 3, "augment": augment}
    tiles = [scene(100, 70), scene(40, 200)]
    wanted = EnsembleV1(files, "cpu").segment_tile_batched(tiles, **options)
    found = EnsembleV1(files, "cuda", precision="fp32", runtime=runtime).segment_tile_batched(tiles, **options)
    for mine, theirs in zip(found, wanted, strict=True):
        for name in ("probabilities", "probability_std"):
            np.testing.assert_allclose(mine[name], theirs[name], atol=1e-4)
