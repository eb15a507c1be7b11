"""Sampling on a GPU, or on a stand-in that takes no arrays of the host."""

import contextlib
import sys
from types import ModuleType

import numpy as np
import pytest

from darts_utils import array_sampling
from darts_utils.arrays import to_host
from darts_utils.errors import DeviceError

from .sampling_cases import PLACES, assert_close, by_arrays, by_kernel, hills, nearest_by_kernel, positions


class GpuArray(np.ndarray):
    """Stands in for an array of cupy: takes no arrays of the host in arithmetic, as index or as value."""

    @property
    def device(self):
        return contextlib.nullcontext()

    def get(self):
        return self.view(np.ndarray)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if out is not None:
            options["out"] = tuple(to_host(there(array)) for array in out)
        result = getattr(ufunc, method)(*(to_host(there(value)) for value in inputs), **options)
        return out[0] if out is not None else np.asarray(result).view(GpuArray)

    def __getitem__(self, place):
        return np.asarray(self.get()[on_host(place)]).view(GpuArray)

    def __setitem__(self, place, value):
        self.get()[on_host(place)] = to_host(there(value))


GpuArray.__module__ = "cupy._core.core"


def there(value):
    """Return a value that cupy can take as an operand; an array of the host is none."""
    assert isinstance(value, GpuArray) or not isinstance(value, np.ndarray), "an array of the host among those of a GPU"
    return value


def on_host(place):
    parts = place if isinstance(place, tuple) else (place,)
    return tuple(to_host(there(part)) if isinstance(part, np.ndarray) else part for part in parts)


@pytest.fixture
def cupy(monkeypatch):
    """Put a cupy in place with the functions that there are on a GPU, which refuse arrays of the host."""

    def wrapped(function):
        def call(*args, **options):
            args = [there(value) for value in args]
            result = function(*(to_host(value) for value in args), **options)
            return tuple(part.view(GpuArray) for part in result) if isinstance(result, tuple) else result.view(GpuArray)

        return call

    names = "arange broadcast_to clip empty floor full isfinite nonzero take where zeros_like"
    module = ModuleType("cupy")
    vars(module).update({name: wrapped(getattr(np, name)) for name in names.split()}, nan=np.nan)
    module.asarray = lambda values: np.array(to_host(values)).view(GpuArray)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.mark.parametrize("place", ["turned", "downsampled strongly", "ever coarser", "nowhere"])
def test_on_a_gpu_no_array_of_the_host_is_among_the_operands(cupy, place):
    source, shape = hills((60, 70), missing=0.1), (41, 45)
    nodes = positions(shape, PLACES[place])
    np.testing.assert_array_equal(
        by_arrays(cupy, (source,), nodes, shape)[0], by_arrays(np, (source,), nodes, shape)[0]
    )
    out = cupy.empty(shape, "float32")
    array_sampling.sample_nearest(cupy.asarray(source), *nodes, 0, np.float32(np.nan), out)
    np.testing.assert_array_equal(out.get(), nearest_by_kernel(source, nodes, shape, np.float32(np.nan)))


def test_a_source_and_an_output_on_different_devices_are_refused(cupy):
    nodes = positions((5, 5), PLACES["turned"])
    with pytest.raises(DeviceError, match="different devices"):
        array_sampling.sample_cubic((cupy.asarray(hills((9, 9))),), *nodes, 0, (np.empty((5, 5), "float32"),))
    with pytest.raises(DeviceError, match="different devices"):
        array_sampling.sample_nearest(hills((9, 9)), *nodes, 0, 0, cupy.empty((5, 5), "float32"))


def test_the_gpu_that_holds_the_source_does_the_work(cupy, monkeypatch):
    entered = []

    class Gpu:
        def __enter__(self):
            entered.append("GPU 1")

        def __exit__(self, *args):
            pass

        def __str__(self):
            return "GPU 1"

    monkeypatch.setattr(GpuArray, "device", Gpu(), raising=False)
    nodes = positions((5, 6), PLACES["turned"])
    source = cupy.asarray(hills((9, 8)))
    array_sampling.sample_cubic((source,), *nodes, 0, (cupy.empty((5, 6), "float32"),))
    array_sampling.sample_nearest(source, *nodes, 0, 0, cupy.empty((5, 6), "float32"))
    assert entered == ["GPU 1", "GPU 1"]


@pytest.mark.gpu
@pytest.mark.parametrize("place", PLACES)
def test_a_gpu_gives_what_the_kernels_give(place):
    import cupy

    shape = (1100, 700)  # three blocks
    source = hills((900, 1000), missing=0.01)
    nodes = positions(shape, PLACES[place], cell=100)
    (found,) = by_arrays(cupy, (source,), nodes, shape)
    assert_close(found, by_kernel(source, nodes, shape), source)
    out = cupy.empty(shape, "float32")
    array_sampling.sample_nearest(cupy.asarray(source), *nodes, 0, np.float32(np.nan), out)
    np.testing.assert_array_equal(out.get(), nearest_by_kernel(source, nodes, shape, np.float32(np.nan)))
