"""The whole tile as NetCDF, for looking into what happened."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from darts_utils.arrays import to_host

CHUNK_PX = 512


def write_debug(path: Path, tile: xr.Dataset) -> None:
    """Write all variables with the values they have in memory, not clipped or rounded as on disk, compressed.

    bool becomes int8 with a note that xarray understands; attributes NetCDF cannot hold become text.
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
    host.to_netcdf(path, engine="h5netcdf", encoding=encoding)


def _attributes(attrs: dict[Any, Any]) -> dict[str, Any]:
    """Return attributes as NetCDF knows them; fill values of an encoding that doesn't apply here are left out."""
    encoded = ("_FillValue", "scale_factor", "add_offset")
    kept = {str(k): v for k, v in attrs.items() if v is not None and k not in encoded}
    plain = (str, int, float, np.number, np.ndarray)
    return {k: v if isinstance(v, plain) and not isinstance(v, bool) else str(v) for k, v in kept.items()}
