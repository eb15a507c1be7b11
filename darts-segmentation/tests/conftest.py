from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from darts_segmentation import SMPSegmenter, save_checkpoint


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks as small as these are slower on two threads, all the more where tests share the machine."""
    torch.set_num_threads(1)


def tiny_arguments(bands: int) -> dict[str, Any]:
    return {
        "arch": "unet", "encoder_name": "tu-test_resnet", "encoder_depth": 2, "decoder_channels": [8, 4],
        "in_channels": bands, "classes": 1,
    }  # fmt: skip


@pytest.fixture(scope="session")
def write_tiny() -> Callable[..., Path]:
    """Write a tiny U-Net with random weights, and return its path."""

    import segmentation_models_pytorch as smp

    def write(path: Path, bands: tuple[str, ...] = ("red", "nir", "slope"), seed: int = 0, **options: Any) -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = smp.create_model(encoder_weights=None, **tiny_arguments(len(bands)))
        weights = network.state_dict()
        # Untrained logits hardly differ from pixel to pixel; larger ones make differences show.
        weights["segmentation_head.0.weight"] *= 20
        save_checkpoint(path, model=tiny_arguments(len(bands)), bands=bands, state_dict=weights, **options)
        return path

    return write


@pytest.fixture(scope="session")
def tiny(write_tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> SMPSegmenter:
    return SMPSegmenter(write_tiny(tmp_path_factory.mktemp("models") / "tiny.pt"), "cpu")


@pytest.fixture
def calls(tiny: SMPSegmenter) -> Any:
    """Shapes of the inputs that the tiny U-Net has seen."""
    seen: list[tuple[int, ...]] = []
    hook = tiny._network.module.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    yield seen
    hook.remove()


@pytest.fixture(scope="session")
def make_tile() -> Callable[..., xr.Dataset]:
    """Return a tile of random red, nir and slope on a UTM grid."""
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import xr_coords

    def make(height: int, width: int, seed: int = 0) -> xr.Dataset:
        random = np.random.default_rng(seed)
        geobox = GeoBox.from_bbox((5e5, 7.6e6, 5e5 + 10 * width, 7.6e6 + 10 * height), "epsg:32608", resolution=10)
        ranges = {"red": (-0.1, 0.5), "nir": (-0.1, 0.5), "slope": (0, 90)}
        bands = {
            name: (("y", "x"), random.uniform(lo, hi, (height, width)).astype(np.float32))
            for name, (lo, hi) in ranges.items()
        }
        bands["quality_data_mask"] = (("y", "x"), np.full((height, width), 2, np.uint8))
        return xr.Dataset(bands, coords=xr_coords(geobox), attrs={"tile_id": "T08WNB", "azimuth": 180.0})

    return make
