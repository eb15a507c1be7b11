"""`darts import-scene`: one's own GeoTIFF into the raw data store."""

import logging
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from darts_utils.errors import ConfigError, NotBuiltError
from darts_utils.paths import DefaultPaths

logger = logging.getLogger("darts.import")


def import_scene(
    files: list[Path],
    /,
    *,
    acquisition_time: str,
    scene_id: str | None = None,
    bands: str = "blue,green,red,nir",
    scale: float | None = None,
    offset: float = 0.0,
    nodata: float | None = 0,
    scl: str | None = None,
    sun_azimuth: float | None = None,
    sun_elevation: float | None = None,
    sensor: str = "Sentinel-2",
    store: Path | None = None,
    overwrite: bool = False,
    default_dirs: Annotated[DefaultPaths | None, Parameter(name="*")] = None,
) -> int:
    """Put one's own GeoTIFF, or one file a band, into the raw data store.

    Run it afterwards with `darts run sentinel2 --raw-data-source import --scene-ids <id> --offline`.

    Parameters
    ----------
    files
        One file with all bands, or one file a band; all on one grid in a UTM zone or another CRS in metres.
    acquisition_time
        Time of acquisition, such as 2021-08-21T21:00:19Z.
    scene_id
        Name of the scene; default: the name of the file.
    bands
        Which band is which: names in the order of the bands (blue,green,red,nir; - leaves one out), or names with
        numbers counted from 1 over all files (blue=1,green=2,red=3,nir=7).
    scale
        reflectance = value × scale + offset; default: 0.0001 for integers, 1 for floats.
    offset
        See scale; -0.1 for Level-2A of processing baseline 04.00 and later.
    nodata
        Value that means missing.
    scl
        Sentinel-2 scene classification: a file, or the number of a band. Without it, quality is high where all
        bands are valid.
    sun_azimuth
        Sun azimuth in degrees; default: computed from place and time.
    sun_elevation
        Sun elevation in degrees; default: computed from place and time.
    sensor
        Name of the sensor.
    store
        Raw data store; default: input/sentinel2/import-scenes under the large folder.
    overwrite
        Replace a scene of the same name.
    """
    import darts_acquisition

    for file in files:
        if file.suffix.upper() == ".SAFE":
            raise NotBuiltError(f"{file}: SAFE products are not built yet in this version; give the band files")
    store = store or (default_dirs or DefaultPaths()).resolve().sentinel2_scenes("import")
    path = darts_acquisition.import_scene(
        files,
        store,
        scene_id,
        bands=_bands(bands),
        scale=scale,
        offset=offset,
        nodata=nodata,
        scl=int(scl) if scl and scl.isdigit() else scl,
        acquisition_time=acquisition_time,
        sun_azimuth=sun_azimuth,
        sun_elevation=sun_elevation,
        sensor=sensor,
        overwrite=overwrite,
    )
    logger.info("imported into %s", path)
    return 0


def _bands(text: str) -> dict[str, int] | list[str | None]:
    """Read `blue=1,green=2` as numbers by name, and `blue,-,red` as names in order."""
    parts = [part.strip() for part in text.split(",")]
    if not any("=" in part for part in parts):
        return [None if part == "-" else part for part in parts]
    numbers: dict[str, int] = {}
    for part in parts:
        name, _, number = part.partition("=")
        if not name or not number.isdigit() or name in numbers:
            raise ConfigError(f"bands: {text!r} is not of the form blue=1,green=2,red=3,nir=4; look at {part!r}")
        numbers[name] = int(number)
    return numbers
