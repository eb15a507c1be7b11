import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import xarray as xr

from darts_ensemble import EnsembleV1
from darts_segmentation import SMPSegmenter, save_checkpoint
from darts_utils.errors import CheckpointError, ConfigError, GridMismatchError, MissingBandError

OPTIONS: dict[str, Any] = {"patch_size": 32, "overlap": 8, "batch_size": 3, "reflection": 2}


class Stub:
    """The smallest thing that can stand in for a model."""

    def __init__(self, values: Any, bands: Any = ("red",)) -> None:
        self.required_bands = bands
        self.values = np.asarray(values, np.float32)

    def segment_tile(self, tile: xr.Dataset) -> xr.Dataset:
        return tile.assign(probabilities=(("y", "x"), self.values))


def write(path: Path, bands: list[str], seed: int, **options: Any) -> Path:
    model = {
        "arch": "unet", "encoder_name": "tu-test_resnet", "encoder_depth": 2, "decoder_channels": [8, 4],
        "in_channels": len(bands), "classes": 1,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = smp.create_model(encoder_weights=None, **model).state_dict()
    weights["segmentation_head.0.weight"] *= 20
    save_checkpoint(path, model=model, bands=bands, state_dict=weights, **options)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "full": write(folder / "full.pt", ["nir", "red", "slope"], seed=1),
        "optical": write(folder / "optical.pt", ["red", "ndvi"], seed=2),
    }


@pytest.fixture
def tile() -> xr.Dataset:
    random = np.random.default_rng(0)
    bands = {name: (("y", "x"), random.random((40, 50), np.float32)) for name in ("red", "nir", "ndvi", "slope")}
    tile = xr.Dataset(bands, coords={"y": np.arange(40.0)[::-1], "x": np.arange(50.0)}, attrs={"tile_id": "T08WNB"})
    tile.slope[5:15, :] = np.nan  # one model cannot tell there
    tile.red[:, :4] = np.nan  # none can
    return tile


@pytest.fixture
def small() -> xr.Dataset:
    return xr.Dataset({"red": (("y", "x"), np.zeros((1, 4), np.float32))})


def test_mean_and_spread_are_those_of_the_models_valid_at_each_pixel(files: dict[str, Path], tile: xr.Dataset) -> None:
    result = EnsembleV1(files, "cpu").segment_tile(tile, **OPTIONS)
    each = np.stack([SMPSegmenter(path, "cpu").segment_tile(tile, **OPTIONS).probabilities for path in files.values()])
    full, optical = each.astype(np.float64)
    both = np.isfinite(full) & np.isfinite(optical)
    mean = np.where(both, (full + optical) / 2, np.where(np.isfinite(full), full, optical))
    std = np.where(both, np.abs(full - optical) / 2, np.where(np.isnan(mean), np.nan, 0))
    np.testing.assert_allclose(result.probabilities, mean, atol=1e-6)
    np.testing.assert_allclose(result.probability_std, std, atol=1e-6)
    assert std[both].max() > 0.01
    np.testing.assert_array_equal(np.isnan(result.probabilities), np.isnan(tile.red))


def test_the_tile_is_returned_with_layers_added_and_never_changed(files: dict[str, Path], tile: xr.Dataset) -> None:
    before = tile.copy(deep=True)
    result = EnsembleV1(files, "cpu").segment_tile(tile, **OPTIONS)
    xr.testing.assert_identical(tile, before)
    assert list(result.data_vars) == [*before.data_vars, "probabilities", "probability_std"]
    xr.testing.assert_identical(result[list(before.data_vars)], before)
    assert result.probabilities.dtype == result.probability_std.dtype == np.float32
    assert result.probabilities.attrs["data_source"] == "mean of models full, optical"
    assert result.probability_std.attrs["long_name"] == "Spread of probability between models"


def test_inputs_are_kept_where_asked(files: dict[str, Path], tile: xr.Dataset) -> None:
    result = EnsembleV1(files, "cpu").segment_tile(tile, keep_inputs=True, **OPTIONS)
    for name, path in files.items():
        own = SMPSegmenter(path, "cpu").segment_tile(tile, **OPTIONS).probabilities
        kept = result[f"probabilities-{name}"]
        np.testing.assert_array_equal(kept, own)
        assert kept.attrs["long_name"] == f"Probability of thaw features, model {name}"


def test_one_model_alone_has_no_spread(files: dict[str, Path], tile: xr.Dataset) -> None:
    ensemble = EnsembleV1({"optical": files["optical"]}, "cpu")
    result = ensemble.segment_tile(tile, keep_inputs=True, **OPTIONS)
    assert "probability_std" not in result
    np.testing.assert_array_equal(result.probabilities, result["probabilities-optical"])


def test_a_stand_in_of_five_lines_works(small: xr.Dataset) -> None:
    nan = np.nan
    ensemble = EnsembleV1(
        {"a": Stub([[0.2, 0.2, nan, nan]]), "b": Stub([[0.4, nan, 0.4, nan]]), "c": Stub([[0.9, 0.6, nan, nan]])}
    )
    result = ensemble.segment_tile(small, keep_inputs=True)
    np.testing.assert_allclose(result.probabilities, [[0.5, 0.4, 0.4, nan]], rtol=1e-6)
    np.testing.assert_allclose(result.probability_std, [[np.std([0.2, 0.4, 0.9]), 0.2, 0, nan]], rtol=1e-6)
    np.testing.assert_array_equal(result["probabilities-b"], np.float32([[0.4, nan, 0.4, nan]]))


def test_patch_options_reach_whatever_takes_them(small: xr.Dataset) -> None:
    seen = []

    class Recorder(Stub):
        def segment_tile(self, tile: xr.Dataset, **options: int) -> xr.Dataset:
            seen.append(options)
            return super().segment_tile(tile)

    class Picky(Stub):
        def segment_tile(self, tile: xr.Dataset, *, patch_size: int) -> xr.Dataset:
            seen.append({"patch_size": patch_size})
            return super().segment_tile(tile)

    values = np.zeros((1, 4))
    EnsembleV1({"all": Recorder(values), "one": Picky(values), "none": Stub(values)}).segment_tile(small, 64, 16, 2, 1)
    assert seen == [{"patch_size": 64, "overlap": 16, "batch_size": 2, "reflection": 1}, {"patch_size": 64}]


def test_an_ensemble_is_a_segmenter_itself(files: dict[str, Path], tile: xr.Dataset) -> None:
    inner = EnsembleV1(files, "cpu")
    outer = EnsembleV1({"pair": inner, "optical": files["optical"]}, "cpu")
    assert outer.required_bands == ("nir", "red", "slope", "ndvi")
    result = outer.segment_tile(tile, **OPTIONS)
    pair = inner.segment_tile(tile, **OPTIONS).probabilities
    optical = SMPSegmenter(files["optical"], "cpu").segment_tile(tile, **OPTIONS).probabilities
    np.testing.assert_allclose(result.probabilities, (pair + optical) / 2, atol=1e-6)
    assert list(outer.checksums) == ["pair/full", "pair/optical", "optical"]


def test_names_bands_and_checksums_come_in_the_order_given(files: dict[str, Path]) -> None:
    ensemble = EnsembleV1(files, "cpu")
    assert ensemble.model_names == ("full", "optical")
    assert ensemble.required_bands == ("nir", "red", "slope", "ndvi")
    assert ensemble.terrain_convention == "true-north"
    assert ensemble.checksums == {name: SMPSegmenter(path, "cpu").checkpoint.checksum for name, path in files.items()}
    assert EnsembleV1({"set": Stub([[0]], bands={"red", "nir", "blue"})}).required_bands == ("blue", "nir", "red")


def test_models_of_two_terrain_conventions_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    legacy = write(tmp_path / "legacy.pt", ["slope"], seed=3, terrain_convention="legacy")
    assert EnsembleV1({"old": legacy}, "cpu").terrain_convention == "legacy"
    with pytest.raises(CheckpointError, match="full: true-north, old: legacy"):
        EnsembleV1({"full": files["full"], "old": legacy}, "cpu")


def test_models_that_cannot_be_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one model"):
        EnsembleV1({})
    with pytest.raises(ConfigError, match="'a/b'"):
        EnsembleV1({"a/b": files["full"]}, "cpu")
    with pytest.raises(ConfigError, match="segment_tile"):
        EnsembleV1({"number": 3})  # type: ignore[dict-item]
    (tmp_path / "text.pt").write_text("no model")
    with pytest.raises(CheckpointError, match=r"text\.pt"):
        EnsembleV1({"text": tmp_path / "text.pt"}, "cpu")


def test_a_tile_that_lacks_bands_and_options_that_cannot_work_are_refused(
    files: dict[str, Path], tile: xr.Dataset
) -> None:
    ensemble = EnsembleV1(files, "cpu")
    with pytest.raises(MissingBandError, match="ndvi"):
        ensemble.segment_tile(tile.drop_vars("ndvi"), **OPTIONS)
    with pytest.raises(ConfigError, match="overlap"):
        ensemble.segment_tile(tile, patch_size=32, overlap=32)


def test_a_list_of_tiles_gives_the_same_as_one_by_one(files: dict[str, Path], tile: xr.Dataset) -> None:
    ensemble = EnsembleV1(files, "cpu")
    tiles = [tile, tile.isel(y=slice(7, 30), x=slice(3))]
    for one, result in zip(tiles, ensemble.segment_tile_batched(tiles, **OPTIONS, keep_inputs=True), strict=True):
        xr.testing.assert_allclose(result, ensemble.segment_tile(one, **OPTIONS, keep_inputs=True), atol=1e-6)


def test_an_ensemble_pickles_by_the_paths_of_its_models(files: dict[str, Path], tile: xr.Dataset) -> None:
    ensemble = EnsembleV1(files, "cpu")
    stored = pickle.dumps(ensemble)
    assert len(stored) < 2000
    xr.testing.assert_identical(
        pickle.loads(stored).segment_tile(tile, **OPTIONS), ensemble.segment_tile(tile, **OPTIONS)
    )


@pytest.mark.parametrize(("shape", "beside"), [((5, 6), True), ((4, 6), True), ((7, 6), False), ((1, 5, 6), True)])
def test_a_stand_in_whose_answer_does_not_fit_the_tile_is_named(
    files: dict[str, Path], tile: xr.Dataset, shape: tuple[int, ...], beside: bool
) -> None:
    class Other:
        required_bands = ("red",)

        def segment_tile(self, tile: xr.Dataset) -> xr.Dataset:
            return xr.Dataset({"probabilities": (("time", "y", "x")[-len(shape) :], np.zeros(shape, np.float32))})

    models = {"odd": Other()} | (dict(list(files.items())[:1]) if beside else {})
    with pytest.raises(GridMismatchError, match=r"model 'odd' returned probabilities of .* for a tile of"):
        EnsembleV1(models, "cpu").segment_tile(tile, **OPTIONS)
