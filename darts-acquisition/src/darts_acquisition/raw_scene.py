"""One scene of the raw data store: its metadata, checked, and its bands, read strip by strip."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition.times import iso_utc, parse_utc
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError, MissingDataError, StoreError
from darts_utils.numbers import is_number
from darts_utils.quoting import first_line, shown
from darts_utils.store import replacing

MOST_SIDE_PX = 65_536
"""Pixels along a side of a raster at most; six times those of a tile of Sentinel-2."""


@dataclass(frozen=True, kw_only=True)
class SceneInfo:
    """What the store knows of a scene besides its pixels; None is unknown."""

    scene_id: str
    geobox: GeoBox
    acquired: datetime | None = None
    """UTC."""
    sun_azimuth: float | None = None
    """Degrees clockwise from true north."""
    sun_elevation: float | None = None
    """Degrees above the horizon."""
    processing_baseline: str | None = None
    sensor: str = "Sentinel-2"

    def check(self) -> None:
        """Check what can be checked before pixels are written.

        Raises:
            ConfigError: an angle is out of range, or the grid has no CRS or is not north-up.
        """
        check_angle(self.sun_azimuth, "sun_azimuth", 0, 360)
        check_angle(self.sun_elevation, "sun_elevation", -90, 90)
        a, b, _, d, e, _ = self.geobox.affine[:6]
        if self.geobox.crs is None or b or d or a <= 0 or e >= 0:
            raise ConfigError(f"scene {self.scene_id}: the grid needs a CRS and must be north-up, got {self.geobox!r}")
        check_size(f"scene {self.scene_id}", self.geobox.shape.yx)

    def to_attrs(self, bands: Sequence[str]) -> dict[str, Any]:
        """Return the group attributes of the store."""
        assert self.geobox.crs is not None  # see `check`
        return {
            "scene_id": self.scene_id,
            "crs": self.geobox.crs.to_wkt(),
            "transform": list(self.geobox.affine[:6]),
            "shape": list(self.geobox.shape.yx),
            "datetime": None if self.acquired is None else iso_utc(self.acquired),
            "sun_azimuth": self.sun_azimuth,
            "sun_elevation": self.sun_elevation,
            "processing_baseline": self.processing_baseline,
            "sensor": self.sensor,
            "bands": list(bands),
        }


@dataclass(frozen=True)
class RawScene:
    """A scene on disk; open it with `open_scene`."""

    path: Path
    info: SceneInfo
    bands: tuple[str, ...]
    """Asset names of what is complete."""

    @classmethod
    def open(cls, path: Path, scene_id: str) -> "RawScene":
        """Read and check a scene's metadata; see `open_scene`."""
        if not (path / "zarr.json").is_file():
            raise MissingDataError(f"scene {scene_id} is not in the raw data store (no complete {path})")
        try:
            attrs = json.loads((path / "zarr.json").read_text())["attributes"]
            if attrs["scene_id"] != scene_id:
                raise StoreError(f"{path} holds scene {attrs['scene_id']!r}, not {scene_id}")
            transform = [float(number) for number in attrs["transform"]]
            height, width = (int(side) for side in attrs["shape"])
            if len(transform) != 6 or not all(map(math.isfinite, transform)) or min(height, width) < 1:
                raise ValueError(f"transform {transform} or shape {height} × {width} cannot be")
            info = SceneInfo(
                scene_id=scene_id,
                geobox=GeoBox((height, width), Affine(*transform), attrs["crs"]),
                acquired=None if attrs.get("datetime") is None else parse_utc(attrs["datetime"], "datetime"),
                sun_azimuth=check_angle(attrs.get("sun_azimuth"), "sun_azimuth", 0, 360),
                sun_elevation=check_angle(attrs.get("sun_elevation"), "sun_elevation", -90, 90),
                processing_baseline=attrs.get("processing_baseline"),
                sensor=str(attrs.get("sensor") or "Sentinel-2"),
            )
            info.check()
            scene = cls(path, info, tuple(str(name) for name in attrs["bands"]))
        except StoreError:
            raise
        except Exception as error:
            # Whatever does not parse (JSON, CRS, numbers, keys) is damage of this one file.
            raise StoreError(
                f"scene {scene_id}: metadata {path / 'zarr.json'} is damaged ({_said(error)}). {_REMEDY}"
            ) from error
        for band in scene.bands:
            scene._array(band)
        return scene

    def require(self, *bands: str) -> None:
        """Check that the scene has all `bands`.

        Raises:
            MissingBandError: names the scene, what is missing and what it has.
        """
        missing = [band for band in bands if band not in self.bands]
        if missing:
            raise MissingBandError(
                f"scene {self.info.scene_id} in {self.path} lacks band {', '.join(missing)}; "
                f"it has {', '.join(self.bands) or 'none'}"
            )

    def dtype(self, band: str) -> np.dtype:
        """Return the dtype of a band."""
        return self._array(band).dtype

    def scaling(self, band: str) -> tuple[float, float] | None:
        """Return the stored (scale, offset) of a band, None where the store has none.

        Raises:
            StoreError: only one of the two is there, or one is no number.
        """
        attrs = self._array(band).attrs
        scale, offset = attrs.get("scale"), attrs.get("offset")
        if scale is None and offset is None:
            return None
        if not (is_number(scale) and is_number(offset)):
            raise StoreError(
                f"scene {self.info.scene_id}, band {band}: scale {scale!r} and offset {offset!r} in "
                f"{self.path / band} must both be numbers. {_REMEDY}"
            )
        return float(scale), float(offset)  # type: ignore[arg-type]

    def strips(self, band: str) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield a band as strips of rows, one row of chunks at a time.

        Raises:
            StoreError: a chunk is missing or damaged; names the scene, the band and the file.
        """
        array = self._array(band)
        for index in product(*(range(math.ceil(n / c)) for n, c in zip(array.shape, array.chunks, strict=True))):
            file = self.path / band / array.metadata.encode_chunk_key(index)
            if not file.is_file():
                raise StoreError(f"scene {self.info.scene_id}, band {band}: chunk {file} is missing. {_REMEDY}")
        for start in range(0, array.shape[0], array.chunks[0]):
            rows = slice(start, min(start + array.chunks[0], array.shape[0]))
            try:
                values = np.asarray(array[rows])
            except Exception as error:
                # Each codec has errors of its own; all of them mean that bytes on disk are not what was written.
                raise StoreError(
                    f"scene {self.info.scene_id}, band {band}: a chunk of rows {rows.start} to {rows.stop} in "
                    f"{self.path / band} is damaged ({_said(error)}). {_REMEDY}"
                ) from error
            yield rows, values

    def write_bands(self, bands: Sequence[str]) -> None:
        """Replace the list of complete bands, in one step."""
        file = self.path / "zarr.json"
        content = json.loads(file.read_text())
        content["attributes"]["bands"] = list(bands)
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(content, indent=2))

    def _array(self, band: str) -> zarr.Array:
        self.require(band)
        where = f"scene {self.info.scene_id}, band {band}: {self.path / band}"
        try:
            array = zarr.open_array(self.path / band, mode="r", zarr_format=3)
        except Exception as error:
            # Missing and unreadable metadata raise many types; `bands` says that the band is there.
            raise StoreError(f"{where} cannot be opened ({_said(error)}). {_REMEDY}") from error
        if array.shape != self.info.geobox.shape.yx:
            raise GridMismatchError(
                f"{where} has {array.shape[0]} × {array.shape[1]} pixels, but the scene's grid has "
                f"{self.info.geobox.shape.y} × {self.info.geobox.shape.x}. {_REMEDY}"
            )
        if array.dtype not in (np.uint8, np.uint16):
            raise StoreError(f"{where} holds {array.dtype} instead of uint16 or uint8. {_REMEDY}")
        return array


def check_size(what: str, shape: tuple[int, int]) -> None:
    """Check that a raster is not larger than memory is made for: a header of a few bytes can say any size.

    Raises:
        ConfigError: it is.
    """
    if max(shape) > MOST_SIDE_PX:
        raise ConfigError(
            f"{what} has {shape[0]} × {shape[1]} pixels by its header; at most {MOST_SIDE_PX} a side are read. Cut it, "
            "or fetch it again"
        )


def check_angle(value: Any, name: str, low: float, high: float) -> float | None:
    """Return an angle in degrees as float, None for None.

    Raises:
        ConfigError: no number, or out of range.
    """
    if value is None:
        return None
    if not is_number(value) or not low <= value <= high:
        raise ConfigError(f"{name} must be from {low} to {high} degrees, got {shown(value)}")
    return float(value)


_REMEDY = "Remove the folder of the scene and fetch or import it again."


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
