"""The band table: what each variable means in memory, on disk and to a model. One table is the source of truth."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr

from darts_utils.arrays import array_namespace
from darts_utils.errors import ConfigError, MissingBandError
from darts_utils.quoting import likely, shown

ROWS_AT_ONCE = 16
"""Encoding computes in float64 on this many rows at a time, so that the extra memory stays small."""

NAMED = 3
"""So many unknown names a message holds."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """One row of the band table; decoded = scale × stored + offset."""

    name: str
    long_name: str
    units: str
    memory: str
    """dtype in memory; float bands use NaN as their only nodata."""
    disk: str
    """dtype on disk."""
    valid: tuple[float, float]
    """Valid range of decoded values; also the range that models map to 0 … 1."""
    scale: float = 1.0
    offset: float = 0.0
    nodata: int | None = None
    """Code on disk of a missing value."""

    @property
    def nodata_is_in_range(self) -> bool:
        """Whether the nodata code would also be the code of a valid value (that value takes the next code)."""
        lo, hi = ((limit - self.offset) / self.scale for limit in self.valid)
        return self.nodata is not None and round(lo) <= self.nodata <= round(hi)


def _optical(name: str, long_name: str) -> Band:
    return Band(
        name=name, long_name=f"{long_name} reflectance", units="1", memory="float32", disk="uint16",
        valid=(-0.1, 0.5), scale=1e-4, offset=-0.1, nodata=0,
    )  # fmt: skip


def _classes(name: str, long_name: str, high: int, disk: str = "uint8") -> Band:
    return Band(name=name, long_name=long_name, units="1", memory="uint8", disk=disk, valid=(0, high))


def _trend(name: str, long_name: str) -> Band:
    return Band(name=name, long_name=long_name, units="1", memory="float32", disk="uint8", valid=(0, 255), nodata=0)


def _int16(name: str, long_name: str, units: str, valid: tuple[float, float], scale: float) -> Band:
    return Band(
        name=name, long_name=long_name, units=units, memory="float32", disk="int16",
        valid=valid, scale=scale, offset=valid[0], nodata=-1,
    )  # fmt: skip


def _share(name: str, long_name: str) -> Band:
    return Band(
        name=name, long_name=long_name, units="1", memory="float32", disk="uint8",
        valid=(0, 1), scale=0.01, offset=0.0, nodata=255,
    )  # fmt: skip


def _mask(name: str, long_name: str) -> Band:
    return Band(name=name, long_name=long_name, units="1", memory="bool", disk="uint8", valid=(0, 1))


_ROWS = (
    _optical("blue", "Blue"),
    _optical("green", "Green"),
    _optical("red", "Red"),
    _optical("nir", "Near infrared"),
    _optical("coastal", "Coastal aerosol"),
    _optical("rededge071", "Red edge 0.71 µm"),
    _optical("rededge075", "Red edge 0.75 µm"),
    _optical("rededge078", "Red edge 0.78 µm"),
    _optical("nir08", "Near infrared 0.87 µm"),
    _optical("nir09", "Near infrared 0.94 µm"),
    _optical("swir16", "Shortwave infrared 1.6 µm"),
    _optical("swir22", "Shortwave infrared 2.2 µm"),
    _classes("s2_scl", "Sentinel-2 scene classification", 11),
    _classes("planet_udm", "Planet usable data mask bits", 255),
    _classes("quality_data_mask", "Quality: 0 invalid, 1 low, 2 high", 2),
    _int16("dem", "Elevation", "m", (-100, 3000), 0.1),
    _classes("arcticdem_data_mask", "ArcticDEM valid data", 1, disk="bool"),
    _trend("tc_brightness", "Trend of tasseled cap brightness"),
    _trend("tc_greenness", "Trend of tasseled cap greenness"),
    _trend("tc_wetness", "Trend of tasseled cap wetness"),
    _int16("ndvi", "Normalized difference vegetation index", "1", (-1, 1), 1e-4),
    _int16("gndvi", "Green normalized difference vegetation index", "1", (-1, 1), 1e-4),
    _int16("ikaw", "Kawashima index, red against blue", "1", (-1, 1), 1e-4),
    _int16("relative_elevation", "Elevation above the mean around", "m", (-50, 50), 1 / 300),
    _int16("slope", "Slope", "degree", (0, 90), 0.01),
    _int16("aspect", "Aspect, clockwise from true north", "degree", (0, 360), 0.1),
    _int16("hillshade", "Hillshade", "1", (0, 1), 1e-4),
    _int16("curvature", "Curvature, positive on ridges", "0.01 m-1", (-1, 1), 1e-4),
    _share("probabilities", "Probability of thaw features"),
    _share("cut_probabilities", "Probability of objects that reach outside the extent"),
    _share("probability_std", "Spread of probability between models"),
    _mask("binarized_segmentation", "Thaw features"),
    _mask("extent", "Valid pixels after erosion"),
)

BANDS = MappingProxyType({row.name: row for row in _ROWS})
"""The band table by name, read-only."""

INDEX_BANDS = MappingProxyType({"ndvi": ("nir", "red"), "gndvi": ("nir", "green"), "ikaw": ("red", "blue")})
"""The indices among the bands of models, each the difference of two bands over their sum."""

_PER_MODEL = ("probabilities", "cut_probabilities", "binarized_segmentation")


def band(name: str) -> Band:
    """Return the table's row for a variable; `probabilities-<model>` and its like use the row of their stem.

    Raises:
        MissingBandError: the table has no such band.
    """
    if name in BANDS:
        return BANDS[name]
    stem, dash, model = name.partition("-")
    if dash and stem in _PER_MODEL:
        return replace(BANDS[stem], name=name, long_name=f"{BANDS[stem].long_name}, model {model}")
    raise MissingBandError(not_in_the_table([name]))


def not_in_the_table(names: Sequence[str]) -> str:
    """Return in words that the band table lacks names, and which name may have been meant."""
    return (
        f"{', '.join(map(shown, names[:NAMED]))}{' and more' if len(names) > NAMED else ''} "
        f"{'are' if len(names) > 1 else 'is'} not in the band table{likely(names[0], BANDS, ';')} "
        "known are names such as blue, nir, swir16, ndvi, slope"
    )


def encode(values: Any, name: str) -> Any:
    """Return the disk form of a band: clipped to the valid range, rounded to nearest, NaN as the nodata code.

    Takes an array (numpy, cupy) or DataArray in memory form. Where the nodata code lies inside the stored range, a
    value that would fall on it takes the next code. A DataArray gets `_FillValue`, `scale_factor` and `add_offset`.

    Raises:
        ConfigError: NaN in a band of classes, which has no code for it.
    """
    if isinstance(values, xr.DataArray):
        stored = values.copy(deep=False, data=encode(values.data, name))
        return stored.assign_attrs(**_disk_attrs(band(name)))
    row = band(name)
    xp = array_namespace(values)
    if row.memory != "float32":
        return _encode_classes(xp, values, row)
    stored = xp.empty(values.shape, row.disk)
    for start in range(0, max(len(values), 1) if values.ndim else 1, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE) if values.ndim else ()
        part = values[rows].astype("float64")
        code = xp.rint((xp.clip(part, *row.valid) - row.offset) / row.scale)
        if row.nodata is not None:
            if row.nodata_is_in_range:
                code = xp.where(code == row.nodata, row.nodata + 1, code)
            code = xp.where(xp.isnan(part), row.nodata, code)
        stored[rows] = code.astype(row.disk)
    return stored


def decode(stored: Any, name: str) -> Any:
    """Return the memory form of a band from its disk form; the nodata code of a float band becomes NaN."""
    if isinstance(stored, xr.DataArray):
        values = stored.copy(deep=False, data=decode(stored.data, name))
        values.attrs = {k: v for k, v in values.attrs.items() if k not in ("_FillValue", "scale_factor", "add_offset")}
        return values
    row = band(name)
    if row.memory != "float32":
        return stored.astype(row.memory)
    xp = array_namespace(stored)
    values = stored.astype("float32")
    values *= np.float32(row.scale)
    values += np.float32(row.offset)
    if row.nodata is not None:
        values[stored == row.nodata] = xp.nan
    return values


def normalize(values: Any, name: str, limits: tuple[float, float] | None = None) -> Any:
    """Return a band as models see it: float32, clip((value − lo) / (hi − lo), 0, 1), NaN as 0.

    `limits` (lo, hi) replaces the valid range of the table, as a checkpoint may ask.
    """
    if isinstance(values, xr.DataArray):
        return values.copy(deep=False, data=normalize(values.data, name, limits))
    lo, hi = band(name).valid if limits is None else limits
    xp = array_namespace(values)
    scaled = values.astype("float32")
    scaled -= np.float32(lo)
    scaled *= np.float32(1 / (hi - lo))
    # fmax takes the number where one side is NaN, so the lower limit also fills what is missing.
    return xp.minimum(xp.fmax(scaled, np.float32(0)), np.float32(1))


def require_bands(tile: xr.Dataset, *names: str, purpose: str = "this step") -> None:
    """Check that a tile has all bands `names`.

    Raises:
        MissingBandError: names the tile, what is missing, what it has, and what to do.
    """
    missing = [name for name in names if name not in tile.data_vars]
    if missing:
        tile_id = tile.attrs.get("tile_id") or "without an id"
        raise MissingBandError(
            f"tile {tile_id} lacks {', '.join(missing)}, which {purpose} needs; "
            f"it has {', '.join(map(str, tile.data_vars)) or 'no bands'}. "
            "Load the missing bands in acquisition, or choose a model that does without them."
        )


def describe(values: xr.DataArray, name: str, data_source: str) -> xr.DataArray:
    """Return the array with the table's name, `long_name` and `units`, and where its data came from."""
    row = band(name)
    return values.rename(name).assign_attrs(long_name=row.long_name, units=row.units, data_source=data_source)


def encode_tile(tile: xr.Dataset, names: Iterable[str] | None = None) -> xr.Dataset:
    """Return the disk form of a tile's bands (all of them, or `names`); other variables are left out."""
    chosen = [str(name) for name in tile.data_vars] if names is None else list(names)
    return tile[chosen].assign({name: encode(tile[name], name) for name in chosen})


def decode_tile(stored: xr.Dataset) -> xr.Dataset:
    """Return the memory form of a tile that `encode_tile` encoded."""
    return stored.assign({str(name): decode(stored[name], str(name)) for name in stored.data_vars})


def _encode_classes(xp: Any, values: Any, row: Band) -> Any:
    if values.dtype.kind == "b":
        return values.astype(row.disk)
    if values.dtype.kind == "f" and bool(xp.isnan(values).any()):
        raise ConfigError(
            f"band {row.name!r} holds NaN, but its classes have no code for it; give missing pixels a class"
        )
    lo, hi = (int(limit) for limit in row.valid)
    return xp.clip(values, lo, hi).astype(row.disk)


def _disk_attrs(row: Band) -> dict[str, Any]:
    attrs: dict[str, Any] = {} if row.nodata is None else {"_FillValue": np.dtype(row.disk).type(row.nodata)}
    if (row.scale, row.offset) != (1, 0):
        attrs |= {"scale_factor": row.scale, "add_offset": row.offset}
    return attrs
