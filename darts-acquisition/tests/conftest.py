"""Small scenes and cubes on disk, made with the package's own writers."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio import Affine

from darts_acquisition import CDSE, Cube, write_scene

CDSE_ID = "S2A_MSIL2A_20241107T113311_N0511_R080_T32VKR_20241107T123948"
OPTICAL = ("B02_10m", "B03_10m", "B04_10m", "B08_10m")


@pytest.fixture
def cdse_id() -> str:
    return CDSE_ID


@pytest.fixture
def geobox() -> GeoBox:
    return GeoBox((37, 53), Affine(10, 0, 399960.0, 0, -10, 7_600_020.0), "EPSG:32608")


def dataset(geobox: GeoBox, **variables: np.ndarray) -> xr.Dataset:
    return xr.Dataset({k: (("y", "x"), v) for k, v in variables.items()}, coords=xr_coords(geobox, dims=("y", "x")))


@pytest.fixture
def make_dataset():
    return dataset


@pytest.fixture
def scene_dn(geobox: GeoBox) -> xr.Dataset:
    """Digital numbers with zeros strewn in, all classes of SCL, some that do not exist."""
    rng = np.random.default_rng(7)
    bands = {name: rng.integers(1, 12000, geobox.shape.yx).astype("uint16") for name in OPTICAL}
    for values in bands.values():
        values[rng.random(values.shape) < 0.05] = 0
    return dataset(geobox, **bands, SCL_20m=rng.integers(0, 14, geobox.shape.yx).astype("uint8"))


@pytest.fixture
def store(tmp_path: Path, scene_dn: xr.Dataset) -> Path:
    """A raw data store with one complete scene."""
    write_scene(
        tmp_path / "store",
        CDSE,
        CDSE_ID,
        scene_dn,
        datetime="2024-11-07T11:33:11.024Z",
        scale=1e-4,
        offset=-0.1,
        sun_azimuth=181.5,
        sun_elevation=10.0,
        processing_baseline="05.11",
    )
    return tmp_path / "store"


@pytest.fixture
def make_cube(tmp_path: Path):
    """A function that makes a cube of one float and one integer variable on any grid."""

    def make(grid: GeoBox, chunk: int = 16, name: str = "some.icechunk") -> Cube:
        return Cube.create(tmp_path / name, grid, {"height": ("float32", np.nan), "code": ("uint8", 0)}, chunk)

    return make
