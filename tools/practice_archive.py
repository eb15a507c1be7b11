"""An archive to practise a campaign on: synthetic Sentinel-2 scenes, elevation and trends, served on this machine.

    python tools/practice_archive.py FOLDER [--size 1024] [--years 2023 2024]

One landscape of the demo is cut into four overlapping scenes a year. A STAC API, an S3 service, the server of the
elevation and an Earth Engine, all on 127.0.0.1, serve them over the real protocols, until Ctrl-C or SIGTERM. FOLDER
takes the models of the demo, `area.gpkg` to search by, `keys` with the keys of the S3 service, the true outlines in
`truth.gpkg`, and `campaign.toml`, which makes darts use all of this. It is written last, so the archive is ready
when it is there.
"""

import argparse
import contextlib
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import tomli_w
from odc.geo.geobox import GeoBox

from darts.demo import Landscape, bundled_models, generate_landscape
from darts_acquisition.tcvis import tcvis_cube_year
from darts_acquisition.tcvis_source import TCVIS_ASSETS
from darts_acquisition.testing import (
    EarthEngineImage,
    S3Server,
    cql2_stac_server,
    earth_engine_server,
    file_server,
    make_cdse_item,
    make_collection,
    make_pgc_collection,
    make_pgc_tile,
    s3_server,
)
from darts_acquisition.testing.scene_files import jp2_bytes
from darts_utils.store import replacing

SEED = 7
OVERLAP_PX = 128
DAY, SATELLITE = "0719T204021", "S2A"
TILES = (("08WMB", "08WNB"), ("08WMA", "08WNA"))
"""Where the parts are said to lie, north first; the outlines of real tiles are much larger."""
TREND_BANDS = ("TCB_slope", "TCG_slope", "TCW_slope")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the archive until this process is asked to end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=1024, help="side of the landscape in pixels of 10 m")
    parser.add_argument("--years", type=int, nargs="+", default=[2023, 2024])
    options = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with practice_archive(options.folder, options.size, options.years) as campaign:
        print(f"ready: {campaign} tells darts of it; Ctrl-C ends it", flush=True)
        ended.wait()
    return 0


@contextlib.contextmanager
def practice_archive(folder: Path, size: int = 1024, years: Sequence[int] = (2023, 2024)) -> Iterator[Path]:
    """Serve an archive until the block ends; gives the configuration file that makes darts use it."""
    landscape = generate_landscape(SEED, size, nodata=False)
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    for file in bundled_models().values():
        shutil.copyfile(file, models / file.name)
    gpd.GeoDataFrame(geometry=[landscape.geobox.extent.geom], crs=landscape.geobox.crs).to_file(folder / "area.gpkg")
    landscape.polygons.to_file(folder / "truth.gpkg")
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(s3_server())
        items = [item for year in years for item in _put_scenes(s3, landscape, year)]
        stac = stack.enter_context(cql2_stac_server(make_collection(), items))
        elevation = folder / "elevation-files"
        dem, files = _dem_tile(landscape, stack.enter_context(_served(elevation)))
        for name, content in files.items():
            (elevation / name).parent.mkdir(parents=True, exist_ok=True)
            (elevation / name).write_bytes(content)
        dem_stac = stack.enter_context(cql2_stac_server(make_pgc_collection(10), [dem]))
        engine = stack.enter_context(earth_engine_server(_trends(landscape, years)))
        settings = {
            "darts-dir": str(folder), "aoi-file": str(folder / "area.gpkg"), "years": list(years), "device": "cpu",
            "ee-project": "practice", "ee-endpoint": engine.url, "arcticdem-endpoint": dem_stac.url,
            "stac": {"endpoint": stac.url, "s3-endpoint": s3.endpoint},
        }  # fmt: skip
        access, secret = s3.keys
        (folder / "keys").write_text(f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n")
        with replacing(folder / "campaign.toml") as temporary:
            temporary.write_text(tomli_w.dumps({"darts": settings}), encoding="utf-8")
        yield folder / "campaign.toml"


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    folder.mkdir(exist_ok=True)
    with file_server(folder) as address:
        yield address


def _put_scenes(s3: S3Server, landscape: Landscape, year: int) -> Iterator[dict[str, Any]]:
    """Store the scenes of a year, and yield their STAC items."""
    for row, names in enumerate(TILES):
        for column, tile in enumerate(names):
            part = (_part(row, landscape.geobox.shape.y), _part(column, landscape.geobox.shape.x))
            scene_id = f"{SATELLITE}_MSIL2A_{year}{DAY}_N0511_R014_T{tile}_{year}0720T012345"
            files = dict(_images(landscape, part))
            item = make_cdse_item(
                scene_id, geobox_10m=landscape.geobox[part], files=files,
                sun_azimuth=landscape.sun_azimuth, sun_elevation=landscape.sun_elevation,
            )  # fmt: skip
            for name, content in files.items():
                bucket, _, key = item["assets"][name]["href"].removeprefix("s3://").partition("/")
                s3.put(bucket, key, content)
            yield item


def _part(number: int, size: int) -> slice:
    """Return the first or the second of two overlapping halves; they begin at pixels of 20 m."""
    half = (size + OVERLAP_PX) // 4 * 2
    return slice(0, half) if number == 0 else slice(size - half, size)


def _images(landscape: Landscape, part: tuple[slice, slice]) -> Iterator[tuple[str, bytes]]:
    grid: GeoBox = landscape.geobox[part]
    for name, numbers in zip(("B02_10m", "B03_10m", "B04_10m", "B08_10m"), landscape.digital_numbers, strict=True):
        yield name, jp2_bytes(np.ascontiguousarray(numbers[part]), grid)
    yield "SCL_20m", jp2_bytes(np.ascontiguousarray(landscape.scl[part][::2, ::2]), grid.zoom_out(2))


def _dem_tile(landscape: Landscape, address: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    return make_pgc_tile("41_16", landscape.dem_geobox, landscape.dem, base_url=address)


def _trends(landscape: Landscape, years: Sequence[int]) -> dict[str, EarthEngineImage]:
    bands = dict(zip(TREND_BANDS, landscape.trend, strict=True))
    image = EarthEngineImage(
        bands, tuple(landscape.trend_geobox.transform)[:6], "EPSG:4326",
        valid={name: values > 0 for name, values in bands.items()},
    )  # fmt: skip
    return {TCVIS_ASSETS[tcvis_cube_year(year)]: image for year in years}


if __name__ == "__main__":
    raise SystemExit(main())
