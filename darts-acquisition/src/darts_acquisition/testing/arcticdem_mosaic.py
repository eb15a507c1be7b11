"""A small ArcticDEM mosaic on servers on 127.0.0.1, and what a download of it must give."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition.arcticdem import arcticdem_geobox
from darts_acquisition.arcticdem_source import ArcticDemSource
from darts_acquisition.footprints import window_of
from darts_acquisition.testing.arcticdem import make_pgc_collection, make_pgc_tile
from darts_acquisition.testing.cql2 import cql2_stac_server
from darts_acquisition.testing.faults import FaultProxy, fault_proxy
from darts_acquisition.testing.files import file_server

TILE = GeoBox((80, 60), Affine(10, 0, 471_000, 0, -10, 7_550_000), "EPSG:32608")
"""The Sentinel-2 tile that elevation is wanted for."""


@dataclass(frozen=True)
class Mosaic:
    """Tiles on servers, and what they hold."""

    source: ArcticDemSource
    """Asks through the proxies."""
    api: FaultProxy
    files: FaultProxy
    dem: np.ndarray
    """Elevation around TILE, NaN where no tile has any."""
    mask: np.ndarray
    place: tuple[slice, slice]
    """Where `dem` lies on the whole grid."""
    items: list[dict]

    def on(self, block: GeoBox) -> tuple[np.ndarray, np.ndarray]:
        """Return elevation and mask that a block of the grid must have."""
        grid = arcticdem_geobox(10)
        column, row = (round(n) for n in ~grid.affine * (block.affine.c, block.affine.f))
        rows, columns = (
            np.arange(start - part.start, start - part.start + side)
            for start, side, part in zip((row, column), block.shape.yx, self.place, strict=True)
        )
        dem, mask = np.full(block.shape.yx, np.nan, "float32"), np.zeros(block.shape.yx, "uint8")
        inside = np.ix_((rows >= 0) & (rows < len(self.dem)), (columns >= 0) & (columns < self.dem.shape[1]))
        within = np.ix_(rows[inside[0].ravel()], columns[inside[1].ravel()])
        dem[inside], mask[inside] = self.dem[within], self.mask[within]
        return dem, mask


@contextlib.contextmanager
def serve_mosaic(folder: Path, **changes: Any) -> Iterator[Mosaic]:
    """Serve two tiles that overlap by a rim, with holes, and a strip of sea below, until the block ends.

    Args:
        folder: for the files.
        changes: fields of the source that are otherwise.
    """
    grid = arcticdem_geobox(10)
    window = window_of(TILE, grid, 40)
    height, width = window.shape
    rng = np.random.default_rng(5)
    dem, mask = np.full((height, width), np.nan, "float32"), np.zeros((height, width), "uint8")
    items = []
    with file_server(folder) as address, fault_proxy(address) as files:
        # The later id first: the order of the reply must not matter.
        for name, top, shape in (
            ("41_17", height // 2 - 25, (height // 2 - 30, width)),
            ("41_16", 0, (height // 2 + 10, width)),
        ):
            box = grid[window.rows[0] + top : window.rows[0] + top + shape[0], slice(*window.columns)]
            values = rng.uniform(-50, 900, shape).astype("float32").round(2)
            values[rng.random(shape) < 0.1] = np.nan
            measured = (np.isfinite(values) & (rng.random(shape) < 0.9)).astype("uint8")
            item, contents = make_pgc_tile(name, box, values, measured, base_url=files.url, block=128)
            items.append(item)
            for path, content in contents.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
            # The last one drawn wins here, so the first id is drawn last.
            place = slice(top, top + shape[0])
            known = np.isfinite(values)
            dem[place][known], mask[place][known] = values[known], measured[known]
        with cql2_stac_server(make_pgc_collection(10), items) as server, fault_proxy(server.url.rstrip("/")) as api:
            source = ArcticDemSource(endpoint=api.url + "/", requests_per_second=None, retries=3, timeout_s=1.5)
            rows, columns = slice(*window.rows), slice(*window.columns)
            yield Mosaic(replace(source, **changes), api, files, dem, mask, (rows, columns), items)
