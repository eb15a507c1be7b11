"""Planet scenes and orthotiles: surface reflectance, usable data mask, sun angles."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from darts_acquisition.planet_folders import PlanetFiles, parse_planet_name, planet_files
from darts_acquisition.quality import pack_udm2, quality_from_udm2, quality_from_valid
from darts_acquisition.rasters import open_raster, raster_geobox, read_strips, require_one_grid
from darts_acquisition.raw_scene import check_angle
from darts_acquisition.times import iso_utc, parse_utc
from darts_utils.bands import describe
from darts_utils.errors import ConfigError, StoreError
from darts_utils.json_text import parse_json

SCALE = 1e-4
BANDS = ("blue", "green", "red", "nir")
BAND_NUMBERS = {4: (1, 2, 3, 4), 8: (2, 4, 6, 8)}
"""Where blue, green, red, nir lie in a file of so many bands; eight are those of SuperDove: coastal blue, blue,
green I, green, yellow, red, red edge, nir."""

ROWS_AT_ONCE = 1024
_SOURCE = "PlanetScope surface reflectance"


def load_planet_scene(fpath: Path | str) -> xr.Dataset:
    """Return the optical bands of a Planet scene or orthotile.

    `blue green red nir` are float32 reflectance (y, x), NaN where the digital numbers of all four bands are 0.
    Attributes: `azimuth` and `elevation` of the sun (where the metadata have them), `tile_id`, `image_id`, `sensor`,
    `acquisition_time` (a bare date for an orthotile whose metadata give no time).

    Args:
        fpath: the folder of the scene or orthotile.

    Raises:
        ConfigError: the folder's name or the file's grid cannot be used.
        MissingDataError: no surface reflectance.
        StoreError: two files where one is expected, a damaged file, or bands that are not Planet's.
    """
    folder = Path(fpath)
    attrs = _attrs(folder)
    files = planet_files(folder)
    attrs["quality_source"] = _quality_source(files)
    with open_raster(files.reflectance) as source:
        geobox = raster_geobox(source)
        numbers = _band_numbers(source, files)
        values = {band: np.empty(geobox.shape.yx, "float32") for band in BANDS}
        for rows, dn in read_strips(source, numbers, ROWS_AT_ONCE):
            missing = ~dn.any(axis=0)
            for band, plane in zip(BANDS, dn, strict=True):
                part = values[band][rows]
                np.multiply(plane, np.float32(SCALE), out=part)
                part[missing] = np.nan
    return _dataset(values, geobox).assign_attrs(attrs | _sun(files.metadata))


def planet_geobox(fpath: Path | str) -> GeoBox:
    """Return the grid of a Planet scene or orthotile, of which the header alone is read.

    Args:
        fpath: the folder of the scene or orthotile.

    Raises:
        ConfigError, MissingDataError, StoreError: as for `load_planet_scene`.
    """
    with open_raster(planet_files(Path(fpath)).reflectance) as source:
        return raster_geobox(source)


def planet_year(fpath: Path | str) -> int:
    """Return the year in which a Planet scene or orthotile was taken, as `load_planet_scene` tells the time.

    Raises:
        ConfigError, MissingDataError, StoreError: as for `load_planet_scene`.
    """
    folder = Path(fpath)
    attrs = _attrs(folder) | _sun(planet_files(folder).metadata)
    return int(attrs["acquisition_time"][:4])


def load_planet_masks(fpath: Path | str) -> xr.Dataset:
    """Return `quality_data_mask` and `planet_udm` (uint8, y, x) of a Planet scene or orthotile.

    Without a UDM2 file quality is 2 where the bands are valid, and there is no `planet_udm`; the attribute
    `quality_source` says so.

    Args:
        fpath: the folder of the scene or orthotile.

    Raises:
        GridMismatchError: reflectance and UDM2 are on different grids.
        MissingDataError, StoreError, ConfigError: as for `load_planet_scene`.
    """
    folder = Path(fpath)
    parse_planet_name(folder.name)
    files = planet_files(folder)
    with open_raster(files.reflectance) as source:
        geobox = raster_geobox(source)
        valid = np.empty(geobox.shape.yx, bool)
        for rows, dn in read_strips(source, _band_numbers(source, files), ROWS_AT_ONCE):
            valid[rows] = dn.any(axis=0)
    if files.udm2 is None:
        quality = {"quality_data_mask": quality_from_valid(valid)}
        return _dataset(quality, geobox).assign_attrs(quality_source=_quality_source(files))

    masks = {name: np.empty(geobox.shape.yx, "uint8") for name in ("quality_data_mask", "planet_udm")}
    with open_raster(files.udm2) as source:
        require_one_grid((files.reflectance, geobox), (files.udm2, raster_geobox(source)))
        if source.count != 8 or set(source.dtypes) != {"uint8"}:
            raise StoreError(
                f"{files.udm2} has {source.count} bands of {source.dtypes[0]}; expected UDM2, which has 8 of uint8"
            )
        for rows, udm2 in read_strips(source, range(1, 9), ROWS_AT_ONCE):
            masks["quality_data_mask"][rows] = quality_from_udm2(udm2, valid[rows])
            masks["planet_udm"][rows] = pack_udm2(udm2)
    return _dataset(masks, geobox).assign_attrs(quality_source=_quality_source(files))


def _band_numbers(source: rasterio.DatasetReader, files: PlanetFiles) -> tuple[int, ...]:
    expected = 8 if files.has_eight_bands else 4
    if source.count != expected and not (source.count == 8 and not files.has_eight_bands):
        raise StoreError(
            f"{files.reflectance} has {source.count} bands; expected {expected} "
            f"({'SuperDove' if expected == 8 else 'blue, green, red, nir'})"
        )
    if set(source.dtypes) != {"uint16"}:
        raise StoreError(f"{files.reflectance} holds {source.dtypes[0]}; expected uint16 (reflectance × 10000)")
    return BAND_NUMBERS[source.count]


def _quality_source(files: PlanetFiles) -> str:
    return "valid pixels" if files.udm2 is None else "UDM2"


def _attrs(folder: Path) -> dict[str, Any]:
    name = parse_planet_name(folder.name)
    return {
        "tile_id": folder.name,
        "image_id": folder.name,
        "sensor": "PlanetScope",
        "acquisition_time": name.day.isoformat() if name.time is None else iso_utc(name.time),
    }


def _sun(metadata: Iterable[Path]) -> dict[str, Any]:
    """Return the sun angles and the time that the metadata files give; absent what they do not."""
    found: dict[str, Any] = {}
    for file in metadata:
        for name, value in _sun_of(file).items():
            if found.setdefault(name, value) != value:
                raise StoreError(f"{file} gives {name} {value}, another metadata file beside it {found[name]}")
    return found


def _sun_of(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(file.read_text())
        # As the data service writes an item: the values lie under "properties".
        values = {**content, **(content.get("properties") or {})}
        angles = {
            "azimuth": check_angle(_known(values.get("sun_azimuth")), "sun_azimuth", 0, 360),
            "elevation": check_angle(_known(values.get("sun_elevation")), "sun_elevation", -90, 90),
        }
        acquired = values.get("acquired")
        time = {} if acquired is None else {"acquisition_time": iso_utc(parse_utc(acquired, "acquired"))}
    except (ConfigError, ValueError, TypeError, AttributeError, OSError) as error:
        raise StoreError(f"{file} cannot be used: {error}; fetch it again or remove it") from error
    return {name: value for name, value in angles.items() if value is not None} | time


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _dataset(values: dict[str, np.ndarray], geobox: GeoBox) -> xr.Dataset:
    variables = {name: describe(xr.DataArray(data, dims=("y", "x")), name, _SOURCE) for name, data in values.items()}
    return xr.Dataset(variables, coords=xr_coords(geobox, dims=("y", "x")))
