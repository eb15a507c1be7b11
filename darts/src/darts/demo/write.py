"""A landscape as the files a user would have: raw scene, auxiliary cubes, truth; and the tile read back from them."""

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from darts.demo.landscape import OFFSET, PROCESSING_BASELINE, SCALE, Landscape
from darts_acquisition import (
    CDSE,
    CDSE_BANDS,
    Cube,
    create_arcticdem_cube,
    create_tcvis_cube,
    list_scenes,
    load_arcticdem,
    load_cdse_s2_sr_scene,
    load_tcvis,
    scene_path,
    scene_year,
    tcvis_cube_year,
    write_scene,
)
from darts_acquisition.tcvis import VARIABLES as TREND_VARIABLES
from darts_preprocessing import preprocess_v2
from darts_utils.errors import ConfigError, MissingDataError
from darts_utils.paths import DefaultPaths
from darts_utils.store import replacing

CUBE_CHUNK_PX = 512
"""Side of the cubes' chunks: small, as the demo's ground is."""
TRUTH_FILE = "truth.gpkg"
DEM_BUFFER_PX = 20
TREND_BUFFER_PX = 4


def write_demo_data(landscape: Landscape, folder: Path | str) -> Path:
    """Write raw scene, DEM cube, trend cube and `truth.gpkg` into a folder, laid out as `DefaultPaths` has it.

    An earlier demo in the folder is replaced. `truth.gpkg` holds the outlines of all slumps with id, kind ("slump" is
    a target, "stabilised" is not), age_years, area_m2, seed and scene_id.

    Raises:
        ConfigError: the folder holds auxiliary cubes that no demo wrote.
        StoreError: the folder cannot be written.
    """
    folder = Path(folder)
    paths = demo_paths(folder)
    truth = folder / TRUTH_FILE
    store = paths.sentinel2_scenes("cdse")
    trend_cube = paths.tcvis / f"TCTrend{tcvis_cube_year(landscape.acquisition_time.year)}.icechunk"
    cubes = (paths.arcticdem(10), trend_cube)
    if any(cube.exists() for cube in cubes) and not truth.exists():
        raise ConfigError(f"{folder} holds cubes but no {TRUTH_FILE}, so no demo wrote them; choose another folder")
    for path in [*cubes, *(scene_path(store, CDSE, scene) for scene in _scenes_of(truth))]:
        shutil.rmtree(path, ignore_errors=True)

    outlines = landscape.polygons.assign(seed=landscape.seed, scene_id=landscape.scene_id)
    with replacing(truth) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*filename extension")
        outlines.to_file(temporary, layer="truth", driver="GPKG")
    numbers = dict(zip(CDSE_BANDS, landscape.digital_numbers, strict=True)) | {"SCL_20m": landscape.scl}
    write_scene(
        store, CDSE, landscape.scene_id, _dataset(numbers, landscape.geobox), datetime=landscape.acquisition_time,
        scale=SCALE, offset=OFFSET, sun_azimuth=landscape.sun_azimuth, sun_elevation=landscape.sun_elevation,
        processing_baseline=PROCESSING_BASELINE, overwrite=True,
    )  # fmt: skip
    dem = {"dem": landscape.dem, "datamask": np.isfinite(landscape.dem).astype("uint8")}
    _fill(create_arcticdem_cube(cubes[0], 10, CUBE_CHUNK_PX), _dataset(dem, landscape.dem_geobox))
    trend = dict(zip(TREND_VARIABLES, landscape.trend, strict=True))
    _fill(create_tcvis_cube(cubes[1], CUBE_CHUNK_PX), _dataset(trend, landscape.trend_geobox))
    return folder


def load_demo_tile(folder: Path | str, features: Sequence[str] | None = None) -> xr.Dataset:
    """Return the demo's scene with features, made by the same loaders and the same preprocessing as in the pipeline.

    Raises:
        MissingDataError: the folder holds no demo.
    """
    folder = Path(folder)
    paths = demo_paths(folder)
    scenes = _scenes_of(folder / TRUTH_FILE) or list_scenes(paths.sentinel2_scenes("cdse"), CDSE)
    if len(scenes) != 1:
        raise MissingDataError(f"{folder} does not hold one demo scene (found {len(scenes)}); run `darts demo` again")
    optical = load_cdse_s2_sr_scene(scenes[0], store=paths.sentinel2_scenes("cdse"), offline=True, device="cpu")
    geobox = optical.odc.geobox
    dem = load_arcticdem(geobox, paths.arcticdem(10), 10, buffer=DEM_BUFFER_PX, offline=True)
    trend = load_tcvis(geobox, paths.tcvis, year=scene_year(scenes[0]), buffer=TREND_BUFFER_PX, offline=True)
    return preprocess_v2(optical, dem, trend, device="cpu", features=features)


def demo_paths(folder: Path | str) -> DefaultPaths:
    """Return the folders of a demo."""
    folder = Path(folder)
    return DefaultPaths(darts_dir=folder, fast_dir=folder, large_dir=folder)


def _scenes_of(truth: Path) -> list[str]:
    if not truth.is_file():
        return []
    outlines = gpd.read_file(truth, ignore_geometry=True)
    return sorted(set(outlines["scene_id"])) if "scene_id" in outlines else []


def _dataset(bands: dict[str, np.ndarray], geobox: GeoBox) -> xr.Dataset:
    return xr.Dataset(
        {name: (("y", "x"), values) for name, values in bands.items()}, coords=xr_coords(geobox, dims=("y", "x"))
    )


def _fill(cube: Cube, block: xr.Dataset) -> None:
    cube.write(block, pad=True, message="Synthetic landscape of the demo")
