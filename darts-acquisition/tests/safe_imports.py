"""A SAFE product to be imported, whole or to be spoilt, and what its files and the store hold."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

import darts_acquisition as da
from darts_acquisition.testing.safe_products import PRODUCT, SafeLook, write_safe

LOOK = SafeLook()
OPTICAL = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"}
SLIM = {10: ("B02", "B03", "B04", "B08")}
"""What an import takes unless asked for more."""


@pytest.fixture(scope="module")
def product(tmp_path_factory) -> Path:
    """A whole product; tests that spoil one take a copy."""
    return write_safe(tmp_path_factory.mktemp("products"))


@pytest.fixture
def spoilt(product, tmp_path) -> Path:
    return Path(shutil.copytree(product, tmp_path / "spoilt" / product.name))


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "store"


def read_band(product: Path, band: str, resolution: int) -> np.ndarray:
    with rasterio.Env(GDAL_NUM_THREADS="1"), rasterio.open(product / LOOK.image(band, resolution)) as file:
        return file.read(1)


def stored_band(store: Path, band: str, scene_id: str = PRODUCT) -> np.ndarray:
    return np.concatenate([values for _, values in da.open_scene(store, da.IMPORT, scene_id).strips(band)])


def nothing_in(store: Path) -> bool:
    return not store.exists() or not any(store.iterdir())
