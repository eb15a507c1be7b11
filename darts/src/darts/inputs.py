"""What a tile is made from: the optical scene, and the auxiliary data that its features need."""

from collections.abc import Collection
from typing import Any

import pandas as pd
import xarray as xr

from darts.auxiliary import AuxiliaryOptions
from darts.needs import TCVIS_BUFFER_PX, dem_buffer_px
from darts.tiles import Inputs, Source
from darts.timings import TileClock
from darts_acquisition import load_arcticdem, load_tcvis
from darts_preprocessing.features import DEM_FEATURES, TREND_FEATURES


def load_inputs(
    source: Source,
    key: Any,
    features: Collection[str],
    auxiliary: AuxiliaryOptions,
    *,
    tpi_outer_radius: int,
    offline: bool,
    clock: TileClock,
) -> Inputs:
    """Return the optical tile of a key, with elevation and trends where features need them.

    They come from disk, or over the network where the source may.
    """
    optical = clock.run("Loading Optical", source.load, key)
    dem = tcvis = None
    if any(name in DEM_FEATURES for name in features):
        dem = clock.run(
            "Loading ArcticDEM",
            load_arcticdem,
            optical.odc.geobox,
            auxiliary.arcticdem_path,
            source.arcticdem_resolution,
            buffer=dem_buffer_px(_pixel(optical), tpi_outer_radius, source.arcticdem_resolution),
            offline=offline,
            source=auxiliary.arcticdem_source,
        )
    if any(name in TREND_FEATURES for name in features):
        tcvis = clock.run(
            "Loading TCVis",
            load_tcvis,
            optical.odc.geobox,
            auxiliary.tcvis_path,
            year=_year(optical),
            buffer=TCVIS_BUFFER_PX,
            offline=offline,
            source=auxiliary.tcvis_source,
        )
    return Inputs(optical, dem, tcvis)


def _pixel(optical: xr.Dataset) -> float:
    resolution = optical.odc.geobox.resolution
    return max(abs(resolution.x), abs(resolution.y))


def _year(optical: xr.Dataset) -> int | None:
    time = optical.attrs.get("acquisition_time")
    return None if time is None else pd.Timestamp(time).year
