"""A user's own GeoTIFF (or JPEG 2000) files into the raw data store."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox

from darts_acquisition import raw_store
from darts_acquisition.rasters import open_raster, raster_geobox, read_strips, require_one_grid
from darts_acquisition.raw_scene import SceneInfo, check_angle
from darts_acquisition.times import parse_utc
from darts_utils import bands as band_table
from darts_utils.errors import ConfigError, GridMismatchError
from darts_utils.names import plain_name

logger = logging.getLogger("darts.acquisition.import")

ENCODED_SCALE, ENCODED_OFFSET = 1e-4, -0.1
"""Reflectance that is not delivered as uint16 is stored as DN = (reflectance + 0.1) / 1e-4, from 1 to 65535."""

BASELINE_0400 = datetime(2022, 1, 25, tzinfo=UTC)
"""From this day on the digital numbers of Level-2A have an offset, and 0.1 is what they are too high without it."""

Files = Path | str | Sequence[Path | str]
Bands = Mapping[str, int] | Sequence[str]


def import_scene(
    files: Files,
    store: Path | str,
    scene_id: str | None = None,
    *,
    bands: Bands = ("blue", "green", "red", "nir"),
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = 0,
    scl: Path | str | int | None = None,
    acquisition_time: str | datetime,
    sun_azimuth: float | None = None,
    sun_elevation: float | None = None,
    sensor: str = "Sentinel-2",
    overwrite: bool = False,
) -> Path:
    """Put one multi-band file, or one file a band, into the raw data store and return the scene's folder.

    uint16 and uint8 digital numbers are stored as delivered, with `scale` and `offset`. Everything else (signed
    integers, floats) is turned into reflectance and stored in steps of 1e-4 from −0.1 on (`ENCODED_SCALE`), lower
    values as the lowest step. Missing are: the value `nodata`, the nodata value that a file itself declares, NaN and
    infinity; they become 0, the nodata of the store. Where `nodata` is not 0 and a file does not declare 0, a digital
    number 0 is a value, and takes the next code, 1.

    Args:
        files: one file or several, all on one north-up grid in a projected CRS in metres.
        store: folder of the raw data store.
        scene_id: a plain name; None: the name of the file, if there is one file.
        bands: common name → number of the band, counted from 1 over all files in their order; or the names of
            all bands in that order.
        scale: reflectance = value × scale + offset. None: 1e-4 for integers, but bytes are refused; 1 for floats, which
            are taken for reflectance and refused if they do not look like it.
        offset: see `scale`; −0.1 for Level-2A of processing baseline 04.00 and later. None: 0, with a warning where
            such an offset is likely.
        nodata: a value that means missing; None: only what the files declare.
        scl: Sentinel-2 scene classification: a file, on the same grid or one whose pixels are whole multiples (20 m),
            or the number of a band, counted as above.
        acquisition_time: ISO 8601 with the time of day; UTC where it has no zone.
        sun_azimuth: degrees clockwise from true north; None: preprocessing computes it from place and time.
        sun_elevation: degrees above the horizon; None as above.
        sensor: name of the sensor.
        overwrite: replace a scene of this id.

    Raises:
        ConfigError: a parameter cannot work, a file has no usable CRS, or the scene exists.
        GridMismatchError: two files are on different grids.
        MissingDataError, StoreError: a file is missing or damaged, or the store cannot be written.
    """
    paths = _paths(files)
    scene_id = plain_name(_scene_id(scene_id, paths), "scene id")
    acquired = parse_utc(acquisition_time)
    check_angle(sun_azimuth, "sun_azimuth", 0, 360)
    check_angle(sun_elevation, "sun_elevation", -90, 90)
    for name, value in (("scale", scale), ("offset", offset)):
        if value is not None and (not math.isfinite(value) or (name == "scale" and value == 0)):
            raise ConfigError(f"{name} must be a finite number{', not 0' if name == 'scale' else ''}, got {value}")

    layers = _layers(paths)
    chosen = {name: _layer(layers, number, name) for name, number in _numbers(bands, len(layers)).items()}
    info = SceneInfo(
        scene_id=scene_id,
        geobox=layers[0].geobox,
        acquired=acquired,
        sun_azimuth=sun_azimuth,
        sun_elevation=sun_elevation,
        sensor=sensor,
    )
    scl_layer = None if scl is None else _scl_layer(scl, layers)
    codings = {name: _coding(layer, scale, offset or 0.0, nodata) for name, layer in chosen.items()}
    likely = sensor == "Sentinel-2" and acquired >= BASELINE_0400
    if offset is None and likely and any(not layer.dtype.startswith("float") for layer in chosen.values()):
        logger.warning(
            "%s: Level-2A of %s is stored as reflectance + 0.1, unless it was harmonised, as Earth Engine's is; give "
            "an offset of -0.1, or of 0 if it was", scene_id, acquired.year,
        )  # fmt: skip
    with raw_store.new_scene(store, raw_store.IMPORT, info, overwrite=overwrite) as writer:
        for name, layer in chosen.items():
            coding = codings[name]
            writer.add_band(name, _dn_strips(layer, coding), scale=coding.stored_scale, offset=coding.stored_offset)
        if scl_layer is not None:
            writer.add_band("scl", _scl_strips(scl_layer, info.geobox), dtype="uint8")
    return raw_store.scene_path(store, raw_store.IMPORT, scene_id)


@dataclass(frozen=True)
class _Layer:
    """One band of one file."""

    path: Path
    number: int
    dtype: str
    nodata: float | None
    geobox: GeoBox


@dataclass(frozen=True)
class _Coding:
    """How the values of a layer become digital numbers."""

    as_delivered: bool
    scale: float
    offset: float
    nodata: tuple[float, ...]

    @property
    def stored_scale(self) -> float:
        return self.scale if self.as_delivered else ENCODED_SCALE

    @property
    def stored_offset(self) -> float:
        return self.offset if self.as_delivered else ENCODED_OFFSET


def _paths(files: Files) -> list[Path]:
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
    if not paths:
        raise ConfigError("no files to import")
    return paths


def _scene_id(scene_id: str | None, paths: list[Path]) -> str:
    if scene_id is None and len(paths) > 1:
        raise ConfigError("several files make one scene: give it a scene_id")
    return paths[0].stem if scene_id is None else scene_id


def _layers(paths: list[Path]) -> list[_Layer]:
    """Return all bands of all files in order; all are on one grid."""
    layers: list[_Layer] = []
    for path in paths:
        found = _layers_of(path)
        if layers:
            require_one_grid((layers[0].path, layers[0].geobox), (path, found[0].geobox))
        layers += found
    return layers


def _layers_of(path: Path) -> list[_Layer]:
    with open_raster(path) as source:
        geobox = raster_geobox(source)
        about = zip(source.dtypes, source.nodatavals, strict=True)
        return [_Layer(path, number, dtype, nodata, geobox) for number, (dtype, nodata) in enumerate(about, 1)]


def _numbers(bands: Bands, count: int) -> dict[str, int]:
    """Return common name → number of the band."""
    if isinstance(bands, Mapping):
        numbers = dict(bands)
    elif isinstance(bands, str):
        raise ConfigError(f"bands must be a list of names or name → number, got {bands!r}")
    else:
        names = list(bands)
        # Four names for a file of seven bands would be a guess at which seven those are.
        if len(names) != count:
            more = "name each, or give numbers, such as blue=1 green=2 red=3 nir=7"
            less = "give all files of the scene at once, and not their folder"
            raise ConfigError(
                f"bands lists {len(names)} names, but the files have {count} band{'s' * (count != 1)}; "
                f"{more if count > len(names) else less}"
            )
        numbers = {name: number for number, name in enumerate(names, 1)}
        if len(numbers) < len(names):
            raise ConfigError(f"bands names a band twice: {names}")
    if not numbers:
        raise ConfigError("bands names no band")
    for name in numbers:
        if band_table.band(name).disk != "uint16":
            raise ConfigError(f"bands names {name!r}, which is not an optical band")
    return numbers


def _layer(layers: list[_Layer], number: int, name: str) -> _Layer:
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= len(layers):
        raise ConfigError(f"{name} is band {number!r}, but the files have bands 1 to {len(layers)}")
    return layers[number - 1]


def _scl_layer(scl: Path | str | int, layers: list[_Layer]) -> _Layer:
    if isinstance(scl, int):
        return _layer(layers, scl, "scl")
    found = _layers_of(Path(scl))
    if len(found) != 1:
        raise ConfigError(f"scl file {scl} has {len(found)} bands; expected one")
    return found[0]


def _coding(layer: _Layer, scale: float | None, offset: float, nodata: float | None) -> _Coding:
    kind = np.dtype(layer.dtype)
    if kind.kind not in "uif":
        raise ConfigError(f"{layer.path}, band {layer.number} holds {layer.dtype}; expected numbers")
    if scale is None and kind.itemsize == 1:
        raise ConfigError(
            f"{layer.path}, band {layer.number} holds bytes, as pictures do that were stretched for the eye; take the "
            "reflectance, or give the scale if bytes are what it is stored as"
        )
    missing = {float(value) for value in (nodata, layer.nodata) if value is not None and math.isfinite(value)}
    return _Coding(
        as_delivered=layer.dtype in ("uint8", "uint16"),
        scale=(1.0 if kind.kind == "f" else 1e-4) if scale is None else float(scale),
        offset=float(offset),
        nodata=tuple(sorted(missing)),
    )


def _dn_strips(layer: _Layer, coding: _Coding) -> Iterator[tuple[slice, np.ndarray]]:
    with open_raster(layer.path) as source:
        for rows, (values,) in read_strips(source, [layer.number], raw_store.CHUNK_PX):
            missing = ~np.isfinite(values)
            for value in coding.nodata:
                missing |= _equals(values, value)
            dn = values.astype("uint16") if coding.as_delivered else _encode(values, missing, layer, coding)
            dn[(dn == 0) & ~missing] = 1
            dn[missing] = 0
            yield rows, dn


def _equals(values: np.ndarray, value: float) -> np.ndarray | bool:
    # Compared in the dtype of the file: a nodata of −3.4e38 is meant as float32, and −9999 is no uint16 at all.
    if values.dtype.kind == "f":
        return values == values.dtype.type(value)
    limits = np.iinfo(values.dtype)
    fits = value == int(value) and limits.min <= value <= limits.max
    return values == values.dtype.type(int(value)) if fits else False


def _encode(values: np.ndarray, missing: np.ndarray, layer: _Layer, coding: _Coding) -> np.ndarray:
    reflectance = np.where(missing, 0, values).astype("float64") * coding.scale + coding.offset
    valid = reflectance[~missing]
    if values.dtype.kind == "f" and valid.size and np.median(valid) > 2:
        raise ConfigError(
            f"{layer.path}, band {layer.number}: floats with scale {coding.scale:g} give a median reflectance of "
            f"{np.median(valid):g}, which cannot be; pass the scale of the values (1e-4 for reflectance × 10000)"
        )
    return np.clip(np.rint((reflectance - ENCODED_OFFSET) / ENCODED_SCALE), 1, 65535).astype("uint16")


def _scl_strips(layer: _Layer, geobox: GeoBox) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the scene classification on the grid of the scene; coarser pixels are repeated."""
    times = _times_coarser(layer, geobox)
    with open_raster(layer.path) as source:
        for rows, (classes,) in read_strips(source, [layer.number], raw_store.CHUNK_PX):
            if layer.nodata is not None and math.isfinite(layer.nodata):
                classes = np.where(classes == layer.nodata, 0, classes)
            if classes.dtype.kind not in "ui" or classes.min() < 0 or classes.max() > 11:
                raise ConfigError(f"{layer.path}, band {layer.number} is no scene classification (classes 0 to 11)")
            fine = classes.astype("uint8").repeat(times, axis=0).repeat(times, axis=1)[:, : geobox.shape.x]
            start = rows.start * times
            fine = fine[: max(0, geobox.shape.y - start)]
            if len(fine):
                yield slice(start, start + len(fine)), fine


def _times_coarser(layer: _Layer, geobox: GeoBox) -> int:
    """Return how many pixels of the scene one pixel of the classification covers along each side."""
    times = round(layer.geobox.affine.a / geobox.affine.a)
    fits = (
        layer.geobox.crs == geobox.crs
        and times >= 1
        and np.allclose(
            layer.geobox.affine[:6],
            [geobox.affine.a * times, 0, geobox.affine.c, 0, geobox.affine.e * times, geobox.affine.f],
            rtol=0,
            atol=1e-6,
        )
        and all(times * side >= needed for side, needed in zip(layer.geobox.shape.yx, geobox.shape.yx, strict=True))
    )
    if not fits:
        raise GridMismatchError(
            f"scl {layer.path} must have the CRS and the corner of the scene, its pixel size or a whole multiple, and "
            "cover it"
        )
    return times
