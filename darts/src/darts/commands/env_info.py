"""`darts env-info`: what a bug report needs to say."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from darts.memory import free_memory
from darts_utils.paths import DefaultPaths

PACKAGES = (
    "darts-permafrost", "numpy", "xarray", "odc-geo", "rasterio", "pyproj", "zarr", "icechunk",
    "torch", "segmentation-models-pytorch", "numba", "opencv-python-headless", "geopandas", "cupy",
)  # fmt: skip


def env_info(*, default_dirs: Annotated[DefaultPaths | None, Parameter(name="*")] = None) -> int:
    """Show versions, devices, GDAL and PROJ, free memory and the folders in use."""
    console = Console()
    table = Table("what", "value", title="darts environment", title_justify="left", show_lines=False)
    for what, value in _facts((default_dirs or DefaultPaths()).resolve()):
        table.add_row(what, value)
    console.print(table)
    return 0


def _facts(dirs: DefaultPaths) -> list[tuple[str, str]]:
    import pyproj
    import rasterio
    import torch

    facts = [("python", f"{platform.python_version()} on {platform.platform()}")]
    facts += [(name, _version(name)) for name in PACKAGES]
    facts += [("GDAL", rasterio.__gdal_version__), ("PROJ", pyproj.proj_version_str)]
    facts += [("CPU cores", str(os.cpu_count())), ("free memory", _free_memory())]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            facts.append((f"cuda:{index}", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"))
    else:
        facts.append(("CUDA devices", "none"))
    facts += [
        ("models", _folder(dirs.models)),
        ("Sentinel-2 scenes", _folder(dirs.sentinel2_scenes("cdse"))),
        ("Planet orthotiles", _folder(dirs.planet_orthotiles)),
        ("Planet scenes", _folder(dirs.planet_scenes)),
        ("auxiliary cubes", _folder(dirs.tcvis)),
        ("output", _folder(dirs.output(""))),
    ]
    return facts


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _free_memory() -> str:
    free = free_memory()
    return "unknown" if free is None else f"{free / 2**30:.1f} GiB"


def _folder(path: Path) -> str:
    return f"{path}{'' if path.is_dir() else ' (not there)'}"
