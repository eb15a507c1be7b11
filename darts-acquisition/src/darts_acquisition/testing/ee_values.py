"""The values that Earth Engine expressions are made of, and how they travel as JSON."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyproj
import shapely
import shapely.affinity
import shapely.geometry
from rasterio import Affine
from shapely.geometry.base import BaseGeometry

MAX_ELEMENTS = 5000
"""Earth Engine refuses to send more elements of a collection."""


class EarthEngineError(Exception):
    """What the server answers instead of a value."""

    def __init__(self, message: str, code: int = 400, status: str = "INVALID_ARGUMENT") -> None:
        super().__init__(message)
        self.code = code
        self.status = status


@dataclass(frozen=True)
class Grid:
    """Pixels that are asked for."""

    shape: tuple[int, int]
    affine: Affine
    crs: str

    def indices(self, other: "Grid") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return row and column on another grid of our pixels' centres, and whether they lie inside."""
        rows, columns = np.ogrid[0.5 : self.shape[0], 0.5 : self.shape[1]]
        if self.affine.b or self.affine.d or self.crs != other.crs:
            rows, columns = np.broadcast_arrays(rows, columns)
        x = self.affine.a * columns + self.affine.b * rows + self.affine.c
        y = self.affine.d * columns + self.affine.e * rows + self.affine.f
        if not self.affine.b and not self.affine.d and self.crs == other.crs:
            x, y = x[:1], y[:, :1]
        if self.crs != other.crs:
            x, y = pyproj.Transformer.from_crs(self.crs, other.crs, always_xy=True).transform(x, y)
        inverse = ~other.affine
        column = np.floor(inverse.a * x + inverse.b * y + inverse.c)
        row = np.floor(inverse.d * x + inverse.e * y + inverse.f)
        inside = (row >= 0) & (row < other.shape[0]) & (column >= 0) & (column < other.shape[1])
        return np.where(inside, row, 0).astype(int), np.where(inside, column, 0).astype(int), inside


Sampler = Callable[[Grid], tuple[np.ndarray, np.ndarray]]
"""Gives values on a grid, and where they are valid."""


@dataclass(frozen=True)
class Band:
    """A band that can be sampled on any grid."""

    name: str
    dtype: np.dtype
    sample: Sampler
    grid: Grid | None = None
    """Its own grid; None: of a constant."""

    def described(self) -> dict[str, Any]:
        """Return what `getInfo` shows of it."""
        if self.dtype.kind == "f":
            data_type: dict[str, Any] = {"precision": "double" if self.dtype.itemsize == 8 else "float"}
        else:
            limits = np.iinfo(self.dtype)
            data_type = {"precision": "int", "min": int(limits.min), "max": int(limits.max)}
        described: dict[str, Any] = {"id": self.name, "data_type": {"type": "PixelType"} | data_type}
        if self.grid is not None:
            described |= {
                "dimensions": self.grid.shape[::-1], "crs": self.grid.crs, "crs_transform": list(self.grid.affine)[:6]
            }  # fmt: skip
        return described


@dataclass(frozen=True)
class Element:
    """A feature, or with bands an image."""

    properties: Mapping[str, Any]
    geometry: Callable[[], BaseGeometry | None] = field(default=lambda: None)
    """In longitude and latitude."""
    id: str | None = None
    bands: tuple[Band, ...] | None = None

    def get(self, name: str) -> Any:
        """Return a property, None if there is none."""
        if name == "system:id":
            return self.id
        return self.properties.get(name)

    def image_bands(self) -> tuple[Band, ...]:
        """Return the bands of an image."""
        if self.bands is None:
            raise EarthEngineError("Expected an Image, got a Feature.")
        return self.bands

    def with_bands(self, bands: Sequence[Band]) -> "Element":
        """Return the image with other bands."""
        return replace(self, bands=tuple(bands), id=None)


@dataclass(frozen=True)
class Collection:
    """Elements in order."""

    elements: tuple[Element, ...]
    of_images: bool = True
    id: str | None = None


@dataclass(frozen=True)
class Date:
    """A moment, in milliseconds since 1970."""

    ms: int

    @cached_property
    def utc(self) -> datetime:
        """The moment."""
        return datetime.fromtimestamp(self.ms / 1000, UTC)


@dataclass(frozen=True)
class DateRange:
    """From start until just before end, in milliseconds since 1970."""

    start: int
    end: int


@dataclass(frozen=True)
class Reducer:
    """`toList` of tuples, `count`, `first`, `min`, `max`."""

    name: str
    inputs: int = 1


def milliseconds(value: Any) -> int:
    """Return a Date, a number or an ISO 8601 text as milliseconds since 1970."""
    if isinstance(value, Date):
        return value.ms
    if isinstance(value, int | float):
        return int(value)
    try:
        time = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
    except (AttributeError, ValueError):
        raise EarthEngineError(f"Date: Bad date/time '{value}'.") from None
    return round(time.replace(tzinfo=time.tzinfo or UTC).timestamp() * 1000)


def as_geometry(value: Any) -> BaseGeometry:
    """Return the geometry of a feature, a collection or a geometry."""
    if isinstance(value, Collection):
        return shapely.unary_union([as_geometry(element) for element in value.elements])
    if isinstance(value, Element):
        value = value.geometry()
    if isinstance(value, dict) and "type" in value:
        value = shapely.geometry.shape(value)
    if not isinstance(value, BaseGeometry):
        raise EarthEngineError("Geometry expected.")
    return value


def intersects(left: BaseGeometry, right: BaseGeometry) -> bool:
    """Whether two geometries in longitude and latitude meet, on whichever turn of the globe."""
    return any(left.intersects(shapely.affinity.translate(right, xoff=turn)) for turn in (-720, -360, 0, 360, 720))


def as_json(value: Any) -> Any:
    """Return a value as `value:compute` sends it."""
    if isinstance(value, Element):
        body: dict[str, Any] = {"type": "Feature" if value.bands is None else "Image"}
        if value.bands is None:
            geometry = value.geometry()
            body["geometry"] = None if geometry is None else shapely.geometry.mapping(geometry)
        else:
            body["bands"] = [band.described() for band in value.bands]
        if value.id is not None:
            body["id"] = value.id
        return body | {"properties": as_json(dict(value.properties))}
    if isinstance(value, Collection):
        if len(value.elements) > MAX_ELEMENTS:
            raise EarthEngineError(f"Collection query aborted after accumulating over {MAX_ELEMENTS} elements.")
        kind = "ImageCollection" if value.of_images else "FeatureCollection"
        named = {} if value.id is None else {"id": value.id}
        return {"type": kind} | named | {"features": [as_json(element) for element in value.elements]}
    if isinstance(value, Date):
        return {"type": "Date", "value": value.ms}
    if isinstance(value, DateRange):
        return {"type": "DateRange", "dates": [value.start, value.end]}
    if isinstance(value, BaseGeometry):
        return shapely.geometry.mapping(value)
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        return as_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise EarthEngineError(f"the test server cannot send a {type(value).__name__}")
