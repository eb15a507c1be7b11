"""The whole tile as NetCDF, for looking into what happened."""

import io
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import xarray as xr
from xarray.backends import H5NetCDFStore

from darts_utils.arrays import to_host

CHUNK_PX = 512


def write_debug(path: Path, tile: xr.Dataset) -> None:
    """Write all variables with the values they have in memory, not clipped or rounded as on disk, compressed.

    bool becomes int8 with a note that xarray understands; attributes NetCDF cannot hold become text.

    Raises:
        OSError: the file cannot be written.
    """
    host = to_host(tile)
    host.attrs = _attributes(host.attrs)
    encoding = {}
    for name, values in host.variables.items():
        values.attrs = _attributes(values.attrs)
        if name in host.data_vars and values.ndim:
            encoding[name] = {
                "zlib": True,
                "complevel": 2,
                "shuffle": True,
                "chunksizes": tuple(min(CHUNK_PX, length) for length in values.shape),
            }
    with _PatientFile(path) as file:
        try:
            with h5netcdf.File(file, "w") as netcdf:
                host.dump_to_store(H5NetCDFStore(netcdf), encoding=encoding)
        finally:
            file.complain()


class _PatientFile(io.FileIO):
    """A file that tells of a failed write only when asked: HDF5 2.0 crashes the process if one fails as it closes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and self._error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = self._error or error
            return self.tell() if size is None else size

    def complain(self) -> None:
        """Raise what the first failed write raised."""
        if self._error is not None:
            raise self._error


def _attributes(attrs: dict[Any, Any]) -> dict[str, Any]:
    """Return attributes as NetCDF knows them; fill values of an encoding that doesn't apply here are left out."""
    encoded = ("_FillValue", "scale_factor", "add_offset")
    kept = {str(k): v for k, v in attrs.items() if v is not None and k not in encoded}
    plain = (str, int, float, np.number, np.ndarray)
    return {k: v if isinstance(v, plain) and not isinstance(v, bool) else str(v) for k, v in kept.items()}
