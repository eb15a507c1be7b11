"""The bundled models compute nearly the same however they are run."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from darts.demo import bundled_models
from darts_ensemble import EnsembleV1
from darts_segmentation import SMPSegmenter
from tests.golden import means_of_blocks, remembered, small_tile

MODELS = bundled_models()


@pytest.fixture(scope="module")
def tile(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return small_tile(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def exact(tile: xr.Dataset) -> dict[str, xr.DataArray]:
    return {name: SMPSegmenter(path, "cpu").segment_tile(tile).probabilities for name, path in MODELS.items()}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_bundled_models_say_what_they_said(name: str, exact: dict[str, xr.DataArray]) -> None:
    golden = remembered()[name]
    assert np.nanmax(golden) > 0.2
    np.testing.assert_allclose(means_of_blocks(exact[name]), golden, atol=1e-3)


def test_bf16_finds_the_same_objects(tile: xr.Dataset) -> None:
    single, half = (
        EnsembleV1(MODELS, "cpu", precision=precision).segment_tile(tile).probabilities.values > 0.5
        for precision in ("fp32", "bf16")
    )
    assert single.sum() > 100
    assert (single & half).sum() / (single | half).sum() >= 0.99


@pytest.mark.slow  # the short run asks for the same objects
@pytest.mark.parametrize("name", sorted(MODELS))
def test_bf16_changes_the_bundled_models_a_little(name: str, tile: xr.Dataset, exact: dict[str, xr.DataArray]) -> None:
    found = SMPSegmenter(MODELS[name], "cpu", precision="bf16").segment_tile(tile).probabilities
    difference = np.abs(found - exact[name])
    assert 0 < float(difference.mean()) <= 0.005
    assert float(exact[name].max()) > 0.5  # there is something to find


@pytest.mark.parametrize("name", sorted(MODELS))
def test_openvino_changes_the_bundled_models_a_little(
    name: str, tile: xr.Dataset, exact: dict[str, xr.DataArray], tmp_path: Path
) -> None:
    # pytest.importorskip would import it, and so report to its server.
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    path = tmp_path / MODELS[name].name  # its conversion must not lie in the installation
    path.write_bytes(MODELS[name].read_bytes())
    found = SMPSegmenter(path, "cpu", runtime="openvino").segment_tile(tile).probabilities
    np.testing.assert_allclose(found, exact[name], atol=1e-4)
    found = SMPSegmenter(path, "cpu", precision="bf16", runtime="openvino").segment_tile(tile).probabilities
    assert 0 < float(np.abs(found - exact[name]).mean()) <= 0.005
