"""A small world of servers on 127.0.0.1: two Sentinel-2 scenes, elevation and trends around the sample's ground."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition import create_arcticdem_cube, create_tcvis_cube
from darts_acquisition.arcticdem import arcticdem_geobox
from darts_acquisition.tcvis import tcvis_geobox
from darts_acquisition.tcvis_source import TCVIS_ASSETS
from darts_acquisition.testing import (
    Cql2StacServer,
    EarthEngine,
    EarthEngineImage,
    S3Server,
    cql2_stac_server,
    earth_engine_server,
    file_server,
    make_cdse_scene,
    make_collection,
    make_pgc_collection,
    make_pgc_tile,
    s3_server,
)

GRID = GeoBox((160, 200), Affine(10, 0, 471_200, 0, -10, 7_546_900), "EPSG:32608")
SCENES = (
    "S2A_MSIL2A_20230719T204021_N0509_R014_T08WMA_20230720T012345",
    "S2B_MSIL2A_20230803T203849_N0509_R014_T08WMA_20230804T011122",
)
CLOUDY = "S2B_MSIL2A_20230724T203849_N0509_R014_T08WMA_20230725T011122"
EE_SCENE = "20230719T204021_20230719T204255_T08WMA"
CUBE_CHUNK_PX = 256
TCVIS_YEAR = 2024


@dataclass(frozen=True)
class World:
    """The servers, and the options that make darts use them."""

    stac: Cql2StacServer
    s3: S3Server
    dem_url: str
    dem_files: Path
    ee: EarthEngine

    @property
    def options(self) -> list[str]:
        return self.behind(self.s3.endpoint)

    def behind(self, s3_url: str) -> list[str]:
        """Return the options with another address of the S3 service."""
        return [
            "--stac.endpoint", self.stac.url, "--stac.s3-endpoint", s3_url,
            "--stac.requests-per-second", "500", "--stac.retries", "1",
            "--arcticdem-endpoint", self.dem_url, "--ee-endpoint", self.ee.url, "--ee-project", "test-project",
        ]  # fmt: skip


@contextlib.contextmanager
def loopback_world(folder: Path) -> Iterator[World]:
    """Run the servers until the block ends; `folder` takes the files of the elevation server."""
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(s3_server())
        items = []
        for seed, scene in enumerate(SCENES):
            item, files = make_cdse_scene(scene, GRID, seed=10 * seed + 1)
            items.append(item)
            for key, data in files.items():
                s3.put("eodata", key, data)
        cloudy, _ = make_cdse_scene(CLOUDY, GRID, seed=99, cloud_cover=60.0)
        stac = stack.enter_context(cql2_stac_server(make_collection(), [*items, cloudy], page_size=2))
        dem_files = folder / "dem"
        dem_files.mkdir(parents=True)
        files_url = stack.enter_context(file_server(dem_files))
        tile, files = _elevation(files_url)
        for path, data in files.items():
            (dem_files / path).parent.mkdir(parents=True, exist_ok=True)
            (dem_files / path).write_bytes(data)
        dem = stack.enter_context(cql2_stac_server(make_pgc_collection(10), [tile]))
        ee = stack.enter_context(earth_engine_server(_earth_engine_images()))
        yield World(stac, s3, dem.url, dem_files, ee)


def make_cubes(aux: Path) -> None:
    """Make empty cubes of small chunks, so that tests move kilobytes."""
    create_arcticdem_cube(aux / "arcticdem_10m.icechunk", 10, CUBE_CHUNK_PX)
    create_tcvis_cube(aux / f"TCTrend{TCVIS_YEAR}.icechunk", CUBE_CHUNK_PX)


def _elevation(base_url: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    grid = _around(GRID, arcticdem_geobox(10), 700)
    rows, columns = np.mgrid[: grid.shape.y, : grid.shape.x]
    dem = (300 + 40 * np.sin(rows / 17) + 25 * np.cos(columns / 11) + rows * 0.05).astype("float32")
    dem[200:203, 300:302] = np.nan
    return make_pgc_tile("41_16", grid, dem, base_url=base_url)


def _earth_engine_images() -> dict[str, EarthEngineImage]:
    grid = _around(GRID, tcvis_geobox(), 700)
    rng = np.random.default_rng(5)
    trends = {
        name: rng.integers(0, 256, grid.shape.yx).astype("uint8") for name in ("TCB_slope", "TCG_slope", "TCW_slope")
    }
    scene = {name: rng.integers(1, 6000, GRID.shape.yx).astype("uint16") for name in ("B2", "B3", "B4", "B8")}
    scene["B2"][:5, :7] = 0
    scene["SCL"] = rng.integers(0, 12, GRID.shape.yx).astype("uint8")
    corners = GRID.geographic_extent.geom.exterior.coords
    properties = {
        "system:index": EE_SCENE, "system:time_start": 1_689_799_221_000, "MGRS_TILE": "08WMA",
        "CLOUDY_PIXEL_PERCENTAGE": 4.0, "SNOW_ICE_PERCENTAGE": 1.0, "PROCESSING_BASELINE": "05.09",
        "MEAN_SOLAR_AZIMUTH_ANGLE": 175.5, "MEAN_SOLAR_ZENITH_ANGLE": 48.25,
        "system:footprint": {"type": "LinearRing", "coordinates": [list(xy) for xy in corners]},
    }  # fmt: skip
    return {
        TCVIS_ASSETS[TCVIS_YEAR]: EarthEngineImage(trends, tuple(grid.transform)[:6], "EPSG:4326"),
        f"COPERNICUS/S2_SR_HARMONIZED/{EE_SCENE}": EarthEngineImage(
            scene, tuple(GRID.transform)[:6], "EPSG:32608", properties
        ),
    }


def _around(target: GeoBox, grid: GeoBox, side: int) -> GeoBox:
    """Return a square of `side` pixels of a grid around the middle of a target."""
    middle = target.extent.centroid.to_crs(grid.crs)
    column, row = ~grid.affine * middle.coords[0]
    row, column = int(row) - side // 2, int(column) - side // 2
    return grid[row : row + side, column : column + side]
