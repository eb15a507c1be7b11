"""A tiny model and patches for tests of runtimes, and whether OpenVINO is there."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

MakeTile = Callable[..., xr.Dataset]
WriteTiny = Callable[..., Path]


@pytest.fixture(scope="module")
def model(write_tiny: WriteTiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("runtimes") / "tiny.pt")


def needs_openvino() -> None:
    """Skip where it is not installed; pytest.importorskip would import it, and so report to its server."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.01, 0.99, shape).astype(np.float32)
