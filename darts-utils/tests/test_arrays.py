import sys
from types import ModuleType

import numpy as np
import pytest
import scipy.ndimage
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from darts_utils import arrays
from darts_utils.arrays import array_namespace, ndimage_of, resolve_device, to_device, to_host
from darts_utils.errors import DeviceError


class GpuArray(np.ndarray):
    """Looks like a cupy array as far as darts asks: its type's module, and `get` to bring it home."""

    def get(self) -> np.ndarray:
        return np.asarray(self)


GpuArray.__module__ = "cupy._core.core"


def on_gpu(values) -> GpuArray:
    return np.asarray(values).view(GpuArray)


@pytest.fixture
def cupy(monkeypatch):
    """Stand in for the package cupy, on any machine."""
    module = ModuleType("cupy")
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def tile():
    geobox = GeoBox.from_bbox((500_000, 7_700_000, 500_030, 7_700_020), crs="EPSG:32608", resolution=10)
    dims = ("y", "x")
    return xr.Dataset(
        {
            "red": (dims, np.float32([[0.1, 0.2, np.nan], [0.4, 0.5, 0.6]]), {"units": "1"}),
            "extent": (dims, np.array([[True, False, True], [True, True, False]])),
        },
        coords=xr_coords(geobox),
        attrs={"tile_id": "T1"},
    )


def test_host_arrays_belong_to_numpy():
    assert array_namespace(np.zeros(2), np.ones(3, bool)) is np
    assert array_namespace(np.float32(1)) is np
    assert array_namespace() is np


def test_gpu_arrays_belong_to_cupy(cupy):
    assert array_namespace(on_gpu([1]), on_gpu([2])) is cupy


def test_arrays_of_two_devices_are_refused():
    with pytest.raises(DeviceError, match="different devices"):
        array_namespace(np.zeros(2), on_gpu([1]))


def test_ndimage_of_numpy_is_scipy():
    assert ndimage_of(np) is scipy.ndimage


def test_what_is_on_the_host_is_not_copied(tile):
    home = to_host(tile)
    assert np.shares_memory(home.red.data, tile.red.data)
    values = np.arange(3)
    assert to_host(values) is values
    assert to_device(values, "cpu") is values


def test_moving_a_tile_keeps_names_grid_and_attributes(tile, cupy):
    away = tile.copy(deep=False)
    for name in tile.data_vars:
        away[name] = tile[name].copy(data=on_gpu(tile[name].data))
    home = to_host(away)
    assert type(home.red.data) is np.ndarray
    xr.testing.assert_identical(home, tile)
    assert home.odc.geobox == tile.odc.geobox
    assert isinstance(away.red.data, GpuArray)


def test_a_dataset_without_bands_can_be_moved(tile):
    empty = tile.drop_vars(["red", "extent"])
    assert to_host(empty).attrs == {"tile_id": "T1"}


def test_moving_to_a_gpu_without_cupy_says_what_to_install(tile, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match="extra 'cuda'"):
        to_device(tile, "cuda:0")


def test_the_cpu_is_always_there(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("device", ["auto", None])
def test_without_a_driver_auto_is_the_cpu(device, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resolve_device(device) == "cpu"


@pytest.mark.parametrize("device", ["cuda", "cuda:1", 0, 3])
def test_a_gpu_asked_for_by_name_is_never_replaced_by_the_cpu(device, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="auto"):
        resolve_device(device)


@pytest.mark.parametrize("device", ["gpu", "", "CUDA", "cuda:", "cuda:x", "cuda:-1", "mps", "0"])
def test_an_unknown_device_is_refused_with_the_names_there_are(device):
    with pytest.raises(DeviceError, match="'cuda', 'cpu', 'auto'"):
        resolve_device(device)


def test_auto_takes_the_first_gpu_with_half_its_memory_free(monkeypatch):
    monkeypatch.setattr(arrays, "_gpu_memory_use", lambda: [0.51, 0.5, 0.0])
    assert resolve_device("auto") == "cuda:1"
    assert resolve_device(None) == "cuda:1"
    assert resolve_device("cuda") == "cuda:0"
    assert resolve_device(2) == "cuda:2"
    assert resolve_device("cuda:2") == "cuda:2"


def test_auto_takes_the_cpu_when_every_gpu_is_busy(monkeypatch):
    monkeypatch.setattr(arrays, "_gpu_memory_use", lambda: [0.9, 0.6])
    assert resolve_device("auto") == "cpu"


@pytest.mark.parametrize("device", [2, -1, "cuda:2"])
def test_a_gpu_number_that_is_not_there_is_refused(device, monkeypatch):
    monkeypatch.setattr(arrays, "_gpu_memory_use", lambda: [0.1, 0.1])
    with pytest.raises(DeviceError, match="2 CUDA"):
        resolve_device(device)


@pytest.mark.gpu
def test_a_tile_goes_to_the_gpu_and_back(tile):
    away = to_device(tile, resolve_device("cuda"))
    assert type(away.red.data).__module__.startswith("cupy")
    xr.testing.assert_identical(to_host(away), tile)


def test_arrays_go_to_the_cpu_where_cupy_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(arrays, "_gpu_memory_use", lambda: [0.0])
    assert arrays.resolve_array_device(None) == "cpu"
    assert arrays.resolve_array_device("auto") == "cpu"
    assert arrays.resolve_array_device("cuda") == "cuda:0"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert arrays.resolve_array_device(None) == "cuda:0"
