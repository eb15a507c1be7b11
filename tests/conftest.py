"""A small synthetic scene with its cubes and two tiny models, and the real command."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import settings

from darts.cli import run_command_line
from darts_acquisition import CDSE, write_scene
from tests.fork_server import ForkServer, Job, Process

if TYPE_CHECKING:
    from darts.demo import Landscape

settings.register_profile("fuzz")  # see tests/fuzzing.py

SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"

OPTICAL = ("blue", "green", "red", "nir")
TINY = {
    "arch": "unet",
    "encoder_name": "tu-test_resnet",
    "encoder_depth": 3,
    "decoder_channels": (16, 8, 8),
    "classes": 1,
}


@dataclass(frozen=True)
class Sample:
    """A data folder as `darts demo` makes it, with models of its own."""

    folder: Path
    landscape: "Landscape"

    @property
    def scene_id(self) -> str:
        return self.landscape.scene_id

    @property
    def optical_model(self) -> Path:
        return self.folder / "models" / "optical.pt"

    @property
    def full_model(self) -> Path:
        return self.folder / "models" / "full.pt"


def save_tiny_model(path: Path, bands: Sequence[str], *, seed: int = 0, **more: object) -> Path:
    """Save a network of random weights; wide enough a spread that some pixels lie above 0.5 and some below."""
    # The contract tests share this file, and need neither torch nor the models.
    import segmentation_models_pytorch as smp
    import torch

    from darts_segmentation import save_checkpoint

    torch.manual_seed(seed)
    network = smp.create_model(**TINY, encoder_weights=None, in_channels=len(bands)).eval()
    head = network.segmentation_head[0]
    with torch.inference_mode():
        logits = network(torch.rand(1, len(bands), 128, 128))
        head.bias.sub_(logits.mean()).div_(logits.std())
        head.weight.div_(logits.std())
    path.parent.mkdir(parents=True, exist_ok=True)
    model = {**TINY, "in_channels": len(bands)}
    save_checkpoint(path, model=model, bands=list(bands), state_dict=network.state_dict(), patch_size=256, **more)
    return path


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    from darts.demo import generate_landscape, write_demo_data

    folder = tmp_path_factory.mktemp("sample")
    landscape = generate_landscape(3, size=256)
    write_demo_data(landscape, folder)
    made = Sample(folder, landscape)
    terrain = ("ndvi", "slope", "aspect", "relative_elevation", "hillshade", "curvature")
    trends = ("tc_brightness", "tc_greenness", "tc_wetness")
    save_tiny_model(made.full_model, (*OPTICAL, *terrain, *trends), seed=1)
    save_tiny_model(made.optical_model, (*OPTICAL, "ndvi"), seed=2, card={"pixel_m": 10.0})
    return made


@pytest.fixture
def darts(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., "Result"]:
    """Return a function that runs a command line in an empty working directory on the sample's folders."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("DARTS_DATA_DIR", str(sample.folder))

    def run(*tokens: object) -> Result:
        capsys.readouterr()
        code = run_command_line([str(token) for token in tokens])
        shown = capsys.readouterr()
        return Result(code, shown.out + shown.err)

    return run


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    with ForkServer() as server:
        server.wait_until_ready()
        yield server


@pytest.fixture(scope="session")
def start_darts(fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Process]:
    """Return a function that starts the real command with its words, and what else a `Job` knows."""

    def start(*tokens: object, **how: bool) -> Process:
        log = tmp_path_factory.mktemp("process") / "log"
        return fork_server.start(Job(lines=[[str(token) for token in tokens]], log=str(log), **how))

    return start


@dataclass(frozen=True)
class Result:
    code: int
    text: str

    @property
    def flat(self) -> str:
        """What was printed, as one line."""
        return " ".join(self.text.split())


def write_small_scene(store: Path, scene_id: str, like: "Landscape", rows: slice, columns: slice) -> None:
    """Write a window of a landscape's optical bands as a scene of its own."""
    geobox = like.geobox[rows, columns]
    bands = {
        name: like.digital_numbers[k, rows, columns]
        for k, name in enumerate(("B02_10m", "B03_10m", "B04_10m", "B08_10m"))
    }
    bands["SCL_20m"] = like.scl[rows, columns]
    write_dn(store, scene_id, bands, geobox)


def write_dn(store: Path, scene_id: str, bands: dict[str, np.ndarray], geobox: object) -> None:
    from odc.geo.xr import xr_coords

    dn = xr.Dataset({name: (("y", "x"), values) for name, values in bands.items()}, coords=xr_coords(geobox))
    write_scene(store, CDSE, scene_id, dn, datetime="2023-07-30T20:58:51Z", scale=1e-4, offset=-0.1)


def results_of(output: Path) -> pd.DataFrame:
    """Return the last run's results table."""
    # Not by name: of two runs that began in the same second, the later one's sorts first.
    return pd.read_parquet(max(output.glob("*.results.parquet"), key=lambda file: file.stat().st_mtime_ns))
