"""Indices of vegetation and water from reflectance: one table of formulas."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr

from darts_utils.arrays import array_namespace
from darts_utils.bands import BANDS, require_bands
from darts_utils.errors import ConfigError

Bands = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Index:
    """A named formula of reflectance bands."""

    name: str
    long_name: str
    bands: tuple[str, ...]
    formula: str
    source: str
    compute: Callable[[Bands], Any]
    """Takes the bands' arrays by name, float32, and returns a new array."""


def _difference(first: Any, second: Any) -> Any:
    """Return (first - second) / (first + second) clipped to ±1; 0/0 is NaN."""
    ratio = first - second
    ratio /= first + second
    return array_namespace(ratio).clip(ratio, -1, 1, out=ratio)


def _ndvi(b: Bands) -> Any:
    return _difference(b["nir"], b["red"])


def _rvi(b: Bands) -> Any:
    return b["red"] / b["nir"]


def _root(value: Any) -> Any:
    return abs(value) ** np.float32(0.5)


_ROWS = (
    Index(
        name="ndvi", long_name=BANDS["ndvi"].long_name, bands=("nir", "red"),
        formula="(nir - red) / (nir + red), clipped to ±1", source="Rouse et al. 1974", compute=_ndvi,
    ),
    Index(
        name="gndvi", long_name="Green normalized difference vegetation index", bands=("nir", "green"),
        formula="(nir - green) / (nir + green), clipped to ±1", source="Gitelson et al. 1996",
        compute=lambda b: _difference(b["nir"], b["green"]),
    ),
    Index(
        name="grvi", long_name="Green-red vegetation index", bands=("green", "red"),
        formula="(green - red) / (green + red), clipped to ±1", source="Tucker 1979",
        compute=lambda b: _difference(b["green"], b["red"]),
    ),
    Index(
        name="ndwi", long_name="Normalized difference water index", bands=("green", "nir"),
        formula="(green - nir) / (green + nir), clipped to ±1", source="McFeeters 1996",
        compute=lambda b: _difference(b["green"], b["nir"]),
    ),
    Index(
        name="rvi", long_name="Ratio vegetation index", bands=("nir", "red"),
        formula="red / nir", source="Richardson and Wiegand 1977", compute=_rvi,
    ),
    Index(
        name="nrvi", long_name="Normalized ratio vegetation index", bands=("nir", "red"),
        formula="(rvi - 1) / (rvi + 1)", source="Baret and Guyot 1991",
        compute=lambda b: (_rvi(b) - 1) / (_rvi(b) + 1),
    ),
    Index(
        name="tvi", long_name="Transformed vegetation index", bands=("nir", "red"),
        formula="sqrt(ndvi + 0.5), NaN below", source="Deering et al. 1975",
        compute=lambda b: array_namespace(b["nir"]).sqrt(_ndvi(b) + np.float32(0.5)),
    ),
    Index(
        name="ctvi", long_name="Corrected transformed vegetation index", bands=("nir", "red"),
        formula="sign(ndvi + 0.5) sqrt(|ndvi + 0.5|)", source="Perry and Lautenschlager 1984",
        compute=lambda b: array_namespace(b["nir"]).sign(_ndvi(b) + np.float32(0.5)) * _root(
            _ndvi(b) + np.float32(0.5)),
    ),
    Index(
        name="ttvi", long_name="Thiam's transformed vegetation index", bands=("nir", "red"),
        formula="sqrt(|ndvi + 0.5|)", source="Thiam 1997",
        compute=lambda b: _root(_ndvi(b) + np.float32(0.5)),
    ),
    Index(
        name="savi", long_name="Soil-adjusted vegetation index", bands=("nir", "red"),
        formula="1.5 (nir - red) / (nir + red + 0.5)", source="Huete 1988",
        compute=lambda b: 1.5 * (b["nir"] - b["red"]) / (b["nir"] + b["red"] + 0.5),
    ),
    Index(
        name="evi", long_name="Enhanced vegetation index", bands=("nir", "red", "blue"),
        formula="2.5 (nir - red) / (nir + 6 red - 7.5 blue + 1)", source="Huete et al. 2002",
        compute=lambda b: 2.5 * (b["nir"] - b["red"]) / (b["nir"] + 6 * b["red"] - 7.5 * b["blue"] + 1),
    ),
    Index(
        name="vari", long_name="Visible atmospherically resistant index", bands=("green", "red", "blue"),
        formula="(green - red) / (green + red - blue)", source="Gitelson et al. 2002",
        compute=lambda b: (b["green"] - b["red"]) / (b["green"] + b["red"] - b["blue"]),
    ),
    Index(
        name="gli", long_name="Green leaf index", bands=("green", "red", "blue"),
        formula="(2 green - red - blue) / (2 green + red + blue)", source="Louhaichi et al. 2001",
        compute=lambda b: (2 * b["green"] - b["red"] - b["blue"]) / (2 * b["green"] + b["red"] + b["blue"]),
    ),
    Index(
        name="vdvi", long_name="Visible-band difference vegetation index", bands=("green", "red", "blue"),
        formula="(2 green - red - blue) / (2 green + red + blue), as gli", source="Wang et al. 2015",
        compute=lambda b: (2 * b["green"] - b["red"] - b["blue"]) / (2 * b["green"] + b["red"] + b["blue"]),
    ),
    Index(
        name="tgi", long_name="Triangular greenness index", bands=("green", "red", "blue"),
        formula="-0.5 (190 (red - green) - 120 (red - blue))", source="Hunt et al. 2011",
        compute=lambda b: -0.5 * (190 * (b["red"] - b["green"]) - 120 * (b["red"] - b["blue"])),
    ),
    Index(
        name="exg", long_name="Excess green of reflectance", bands=("green", "red", "blue"),
        formula="2 green - red - blue", source="Woebbecke et al. 1995",
        compute=lambda b: 2 * b["green"] - b["red"] - b["blue"],
    ),
)  # fmt: skip

INDICES = MappingProxyType({row.name: row for row in _ROWS})
"""The table of indices by name, read-only."""


def calculate_index(ds: xr.Dataset, name: str) -> xr.DataArray:
    """Return an index of the table by its name: float32 (y, x), NaN where a band is; 0/0 is NaN.

    Computed where the bands live. Attributes tell the formula and its source.

    Raises:
        ConfigError: the table has no such index.
        MissingBandError: the dataset lacks a band.
    """
    if name not in INDICES:
        raise ConfigError(f"index {name!r} is unknown; known indices: {', '.join(INDICES)}")
    index = INDICES[name]
    require_bands(ds, *index.bands, purpose=f"the index {name}")
    like = ds[index.bands[0]]
    arrays = {band: ds[band].transpose(*like.dims).data.astype("float32", copy=False) for band in index.bands}
    with np.errstate(divide="ignore", invalid="ignore"):
        values = index.compute(arrays)
    return xr.DataArray(
        values.astype("float32", copy=False),
        dims=like.dims,
        coords=like.coords,
        name=name,
        attrs={
            "long_name": index.long_name,
            "units": "1",
            "formula": index.formula,
            "references": index.source,
            "data_source": str(like.attrs.get("data_source", "optical")),
        },
    )


def _of_table(name: str) -> Callable[[xr.Dataset], xr.DataArray]:
    def calculate(ds: xr.Dataset) -> xr.DataArray:
        return calculate_index(ds, name)

    index = INDICES[name]
    calculate.__name__ = calculate.__qualname__ = f"calculate_{name}"
    calculate.__doc__ = f"Return `{name}`, {index.long_name}, float32 (y, x): {index.formula} ({index.source})."
    return calculate


calculate_ndvi = _of_table("ndvi")
calculate_gndvi = _of_table("gndvi")
calculate_grvi = _of_table("grvi")
calculate_ndwi = _of_table("ndwi")
calculate_rvi = _of_table("rvi")
calculate_nrvi = _of_table("nrvi")
calculate_tvi = _of_table("tvi")
calculate_ctvi = _of_table("ctvi")
calculate_ttvi = _of_table("ttvi")
calculate_savi = _of_table("savi")
calculate_evi = _of_table("evi")
calculate_vari = _of_table("vari")
calculate_gli = _of_table("gli")
calculate_vdvi = _of_table("vdvi")
calculate_tgi = _of_table("tgi")
calculate_exg = _of_table("exg")
