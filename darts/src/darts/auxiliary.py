"""The cubes of auxiliary data that tiles need: what is missing in them, and how it is fetched."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd

from darts.needs import TCVIS_BUFFER_PX, Needs, dem_buffer_px
from darts_acquisition import (
    ArcticDemSource,
    EarthEngineSource,
    download_arcticdem,
    download_tcvis,
    missing_arcticdem,
    missing_tcvis,
    tcvis_cube_year,
)
from darts_acquisition.transfer_report import TransferReport

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

SPARE_PX = 2
"""An area in longitude and latitude is a polygon of many points: what its edges leave out is less than this."""
FALLBACK_PIXEL_M = 10.0
"""For areas that do not say how large their pixels are."""


@dataclass(frozen=True, kw_only=True)
class AuxiliaryOptions:
    """Where auxiliary data lies and comes from; the pipelines document these fields."""

    arcticdem_path: Path
    arcticdem_resolution: int
    arcticdem_source: ArcticDemSource
    tcvis_path: Path
    tcvis_source: EarthEngineSource


@dataclass(frozen=True)
class CubeNeed:
    """A cube that some tiles need."""

    name: str
    areas: gpd.GeoDataFrame
    missing: Callable[[Any], "list[GeoBox]"]
    """Chunks that the cube lacks for an area."""
    fetch: Callable[[Any, TransferReport, Callable[["GeoBox"], None]], None]
    """Fetch what the cube lacks for an area; tells of bytes and of each chunk."""


def cubes_needed(
    areas: gpd.GeoDataFrame, needs: Needs, options: AuxiliaryOptions, tpi_outer_radius: int
) -> Iterator[CubeNeed]:
    """Yield the cubes that tiles need, each with the areas of its tiles (see `tile_areas`)."""
    if not len(areas):
        return
    if needs.dem:
        yield _arcticdem(areas, options, tpi_outer_radius)
    if needs.tcvis:
        years = areas.get("year", [None] * len(areas))
        by_cube = sorted((tcvis_cube_year(_year(year)), index) for index, year in enumerate(years))
        for cube_year, rows in itertools.groupby(by_cube, key=lambda pair: pair[0]):
            yield _tcvis(cube_year, areas.iloc[[index for _, index in rows]], options)


def _arcticdem(areas: gpd.GeoDataFrame, o: AuxiliaryOptions, tpi_outer_radius: int) -> CubeNeed:
    pixel_m = max(areas.get("pixel_m", [FALLBACK_PIXEL_M]))
    buffer = dem_buffer_px(pixel_m, tpi_outer_radius, o.arcticdem_resolution) + SPARE_PX

    def missing(area: Any) -> "list[GeoBox]":
        return missing_arcticdem(area, o.arcticdem_path, o.arcticdem_resolution, buffer=buffer)

    def fetch(area: Any, report: TransferReport, on_chunk: Callable[["GeoBox"], None]) -> None:
        download_arcticdem(
            area, o.arcticdem_path, o.arcticdem_resolution,
            buffer=buffer, source=o.arcticdem_source, report=report, on_chunk=on_chunk,
        )  # fmt: skip

    return CubeNeed(f"ArcticDEM {o.arcticdem_resolution} m", areas, missing, fetch)


def _tcvis(cube_year: int, areas: gpd.GeoDataFrame, o: AuxiliaryOptions) -> CubeNeed:
    scene_year = cube_year - 1  # the year of scenes that take this cube
    buffer = TCVIS_BUFFER_PX + SPARE_PX

    def missing(area: Any) -> "list[GeoBox]":
        return missing_tcvis(area, o.tcvis_path, scene_year, buffer=buffer)

    def fetch(area: Any, report: TransferReport, on_chunk: Callable[["GeoBox"], None]) -> None:
        download_tcvis(
            area, o.tcvis_path, scene_year, buffer=buffer, source=o.tcvis_source, report=report, on_chunk=on_chunk
        )

    return CubeNeed(f"TCVIS {cube_year}", areas, missing, fetch)


def _year(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)
