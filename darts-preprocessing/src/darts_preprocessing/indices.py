"""Indices of vegetation, water, snow and fire from reflectance: one table of formulas, and spyndex for all others."""

import ast
import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import CodeType, MappingProxyType, ModuleType
from typing import Any

import numpy as np
import xarray as xr

from darts_utils.arrays import array_namespace
from darts_utils.bands import BANDS, INDEX_BANDS, require_bands
from darts_utils.errors import ConfigError
from darts_utils.threads import on_all_cores

BLOCK_PX = 2**17
"""Pixels that a thread computes at a time; what a formula holds in between then stays in the cache."""
GPU_BLOCK_PX = 2**24
"""Likewise on a GPU, where fewer blocks are faster and this many still need little memory."""

_FUNCTIONS = ("abs", "clip", "sign", "sqrt")
_NAME = re.compile(r"\b[A-Za-z]\w*")

_BAND_OF_LETTER = MappingProxyType(
    {
        "A": "coastal", "B": "blue", "G": "green", "R": "red", "RE1": "rededge071", "RE2": "rededge075",
        "RE3": "rededge078", "N": "nir", "N2": "nir08", "WV": "nir09", "S1": "swir16", "S2": "swir22",
    }
)  # fmt: skip
"""Our bands by their names in spyndex."""
_UNITS_OF_SPYNDEX = MappingProxyType({"S2REP": "nm"})


@dataclass(frozen=True, kw_only=True)
class Index:
    """A named formula of reflectance bands."""

    name: str
    long_name: str
    formula: str
    """Python arithmetic on names of bands and constants; `abs`, `clip`, `sign` and `sqrt` are numpy's."""
    source: str
    """Who published it."""
    constants: Mapping[str, float | None] = field(default_factory=dict)
    """Names in the formula that are no bands, with their defaults; None: must be given."""
    units: str = "1"

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands in the formula."""
        names = dict.fromkeys(_NAME.findall(self.formula))
        return tuple(name for name in names if name not in self.constants and name not in _FUNCTIONS)


def _difference(first: str, second: str) -> str:
    # Beyond ±1 only where a reflectance is negative.
    return f"clip(({first} - {second}) / ({first} + {second}), -1, 1)"


_NDVI = _difference(*INDEX_BANDS["ndvi"])

_ROWS = (
    Index(
        name="ndvi", long_name=BANDS["ndvi"].long_name, formula=_NDVI, source="Rouse et al. 1974",
    ),
    Index(
        name="gndvi", long_name=BANDS["gndvi"].long_name, formula=_difference(*INDEX_BANDS["gndvi"]),
        source="Gitelson et al. 1996, doi:10.1016/S0034-4257(96)00072-7",
    ),
    Index(
        name="grvi", long_name="Green-red vegetation index", formula=_difference("green", "red"),
        source="Tucker 1979, doi:10.1016/0034-4257(79)90013-0",
    ),
    Index(
        name="ndre", long_name="Normalized difference red edge index", formula=_difference("nir", "rededge071"),
        source="Gitelson and Merzlyak 1994, doi:10.1016/1011-1344(93)06963-4",
    ),
    Index(
        name="ikaw", long_name=BANDS["ikaw"].long_name, formula=_difference(*INDEX_BANDS["ikaw"]),
        source="Kawashima and Nakatani 1998, doi:10.1006/anbo.1997.0544",
    ),
    Index(
        name="ndwi", long_name="Normalized difference water index", formula=_difference("green", "nir"),
        source="McFeeters 1996, doi:10.1080/01431169608948714",
    ),
    Index(
        name="mndwi", long_name="Modified normalized difference water index", formula=_difference("green", "swir16"),
        source="Xu 2006, doi:10.1080/01431160600589179",
    ),
    Index(
        name="ndmi", long_name="Normalized difference moisture index", formula=_difference("nir", "swir16"),
        source="Wilson and Sader 2002, doi:10.1016/S0034-4257(01)00318-2",
    ),
    Index(
        name="ndsi", long_name="Normalized difference snow index", formula=_difference("green", "swir16"),
        source="Hall et al. 1995, doi:10.1016/0034-4257(95)00137-P",
    ),
    Index(
        name="nbr", long_name="Normalized burn ratio", formula=_difference("nir", "swir22"),
        source="Key and Benson 2006",
    ),
    Index(
        name="rvi", long_name="Ratio vegetation index", formula="red / nir",
        source="Richardson and Wiegand 1977",
    ),
    Index(  # (rvi - 1) / (rvi + 1), with one division
        name="nrvi", long_name="Normalized ratio vegetation index", formula=_difference("red", "nir"),
        source="Baret and Guyot 1991, doi:10.1016/0034-4257(91)90009-U",
    ),
    Index(
        name="tvi", long_name="Transformed vegetation index", formula=f"sqrt({_NDVI} + 0.5)",
        source="Deering et al. 1975",
    ),
    Index(
        name="ctvi", long_name="Corrected transformed vegetation index",
        formula=f"sign({_NDVI} + 0.5) * sqrt(abs({_NDVI} + 0.5))",
        source="Perry and Lautenschlager 1984, doi:10.1016/0034-4257(84)90013-0",
    ),
    Index(
        name="ttvi", long_name="Thiam's transformed vegetation index", formula=f"sqrt(abs({_NDVI} + 0.5))",
        source="Thiam 1997",
    ),
    Index(
        name="savi", long_name="Soil-adjusted vegetation index", formula="(1 + L) * (nir - red) / (nir + red + L)",
        constants={"L": 0.5}, source="Huete 1988, doi:10.1016/0034-4257(88)90106-X",
    ),
    Index(
        name="evi", long_name="Enhanced vegetation index",
        formula="g * (nir - red) / (nir + C1 * red - C2 * blue + L)",
        constants={"g": 2.5, "C1": 6.0, "C2": 7.5, "L": 1.0},
        source="Huete et al. 2002, doi:10.1016/S0034-4257(02)00096-2",
    ),
    Index(
        name="vari", long_name="Visible atmospherically resistant index",
        formula="(green - red) / (green + red - blue)",
        source="Gitelson et al. 2002, doi:10.1016/S0034-4257(01)00289-9",
    ),
    Index(
        name="gli", long_name="Green leaf index", formula="(2 * green - red - blue) / (2 * green + red + blue)",
        source="Louhaichi et al. 2001, doi:10.1080/10106040108542184",
    ),
    Index(  # the same as gli, found anew
        name="vdvi", long_name="Visible-band difference vegetation index",
        formula="(2 * green - red - blue) / (2 * green + red + blue)", source="Wang et al. 2015",
    ),
    Index(  # 190 = 670 - 480 and 120 = 670 - 550: wavelengths in nm
        name="tgi", long_name="Triangular greenness index",
        formula="-0.5 * (190 * (red - green) - 120 * (red - blue))",
        source="Hunt et al. 2013, doi:10.1016/j.jag.2012.07.020",
    ),
    Index(  # the paper takes chromatic coordinates: divide by red + green + blue for those
        name="exg", long_name="Excess green of reflectance", formula="2 * green - red - blue",
        source="Woebbecke et al. 1995, doi:10.13031/2013.27838",
    ),
)  # fmt: skip

INDICES = MappingProxyType({row.name: row for row in _ROWS})
"""The table of indices by name, read-only."""


def calculate_index(ds: xr.Dataset, name: str, **constants: float) -> xr.DataArray:
    """Return an index by its name: float32 (y, x), NaN where a band is, and where the formula has no finite answer.

    Names are looked up in the table `INDICES`, then among those of spyndex (see `find_index`). 0/0 is NaN, and so is
    any other division by zero, but for formulas that clip it. Computed where the bands live, on a CPU by all cores and
    with little memory besides the result. Attributes tell the formula with its constants and its source.

    Args:
        ds: a dataset with the bands, reflectance.
        name: of the index, in any case.
        constants: of the formula, in place of its defaults; `calculate_index(ds, "savi", L=0.25)`.

    Raises:
        ConfigError: no such index, or one that needs what darts does not have; no such constant, or one that must be
            given or is no number.
        MissingBandError: the dataset lacks a band.
    """
    index = find_index(name)
    numbers = _numbers(index, constants)
    require_bands(ds, *index.bands, purpose=f"the index {index.name}")
    like = ds[index.bands[0]]
    bands = {band: ds[band].transpose(*like.dims).data for band in index.bands}
    return xr.DataArray(
        _compute(index, bands, numbers),
        dims=like.dims,
        coords=like.coords,
        name=index.name,
        attrs={
            "long_name": index.long_name,
            "units": index.units,
            "formula": ", ".join([index.formula, *(f"{constant} = {value:g}" for constant, value in numbers.items())]),
            "references": index.source,
            "data_source": str(like.attrs.get("data_source", "optical")),
        },
    )


def find_index(name: str) -> Index:
    """Return formula, bands and source of an index: of the table `INDICES`, or else of spyndex, whatever the case.

    Raises:
        ConfigError: no such index, or one that needs what darts does not have.
    """
    return INDICES.get(name.lower()) or _find_in_spyndex(name)


def known_indices() -> dict[str, Index]:
    """Return all indices that can be computed: the table, then those of spyndex whose names it does not have."""
    import spyndex  # loads an HTTP client; most runs need none of its indices

    others = {str(name): _lacking(row) for name, row in spyndex.indices.items() if str(name).lower() not in INDICES}
    return {**INDICES, **{name: _find_in_spyndex(name) for name, lacking in others.items() if not lacking}}


def _find_in_spyndex(name: str) -> Index:
    import spyndex

    names = [str(other) for other in spyndex.indices]
    alike = [name] if name in names else [other for other in names if other.lower() == name.lower()]
    if not alike:
        near = _nearest(name, INDICES) + _nearest(name, [other for other in names if other.lower() not in INDICES])
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ConfigError(
            f"index {name!r} is unknown{hint} The table has {', '.join(INDICES)}; "
            f"spyndex {spyndex.__version__} has {len(names)}, which `known_indices()` lists"
        )
    if len(alike) > 1:
        raise ConfigError(f"index {name!r} is one of {' and '.join(alike)}; write it as one of these")
    row = spyndex.indices[alike[0]]
    if lacking := _lacking(row):
        raise ConfigError(
            f"index {row.short_name} needs {', '.join(lacking)}, which darts does not have; choose an index of "
            f"{', '.join(_BAND_OF_LETTER.values())}"
        )
    formula = _NAME.sub(lambda found: _BAND_OF_LETTER.get(found[0], found[0]), row.formula)
    return Index(
        name=row.short_name,
        long_name=row.long_name,
        formula=ast.unparse(ast.parse(formula)),  # with spaces, and without needless brackets
        source=row.reference,
        constants={part: spyndex.constants[part].default for part in row.bands if part not in _BAND_OF_LETTER},
        units=_UNITS_OF_SPYNDEX.get(row.short_name, "1"),
    )


def _lacking(row: Any) -> list[str]:
    """Return what an index of spyndex needs that is neither a band of ours nor a constant."""
    import spyndex

    lacking = [part for part in row.bands if part not in _BAND_OF_LETTER and part not in spyndex.constants]
    return [f"{part} ({spyndex.bands[part].long_name})" if part in spyndex.bands else part for part in lacking]


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    by_lower = {other.lower(): other for other in names}
    near = difflib.get_close_matches(name.lower(), by_lower, 20)
    near.sort(key=lambda other: sorted(other) != sorted(name.lower()))  # first those with only letters swapped
    return [by_lower[other] for other in near[:3]]


def _numbers(index: Index, given: Mapping[str, float]) -> dict[str, float]:
    """Return the constants of an index as Python floats, which leave float32 arrays what they are."""
    if unknown := sorted(set(given) - set(index.constants)):
        has = f"its constants are {', '.join(index.constants)}" if index.constants else "it has none"
        raise ConfigError(f"index {index.name} has no constant {unknown[0]!r}; {has}")
    numbers = {}
    for constant, value in {**index.constants, **given}.items():
        if value is None:
            raise ConfigError(f"index {index.name} needs {constant}, which has no default; give {constant}=…")
        try:
            numbers[constant] = float(value)
        except (TypeError, ValueError):
            numbers[constant] = math.nan
        if not math.isfinite(numbers[constant]):
            raise ConfigError(f"constant {constant} of index {index.name} must be a finite number, got {value!r}")
    return numbers


def _compute(index: Index, bands: Mapping[str, Any], numbers: Mapping[str, float]) -> Any:
    """Return the values of an index, float32, computed in blocks along the first dimension."""
    xp = array_namespace(*bands.values())
    arrays = {band: xp.asarray(values) for band, values in bands.items()}
    shape = next(iter(arrays.values())).shape
    code = compile(index.formula, f"<index {index.name}>", "eval")
    out = xp.empty(shape, "float32")

    def fill(start: int) -> None:
        block = slice(start, start + rows)
        parts = {band: values[block].astype("float32", copy=False) for band, values in arrays.items()}
        with np.errstate(all="ignore"):  # what has no answer becomes NaN
            values = _evaluate(code, xp, {**parts, **numbers})
            # Infinity times 0 is NaN; every number stays what it is.
            xp.multiply(values, 0, out=out[block])
            out[block] += values

    rows = max(1, (BLOCK_PX if xp is np else GPU_BLOCK_PX) * shape[0] // max(1, math.prod(shape)))
    blocks = range(0, shape[0], rows)
    if xp is np:
        on_all_cores(fill, blocks)  # numpy leaves the interpreter to the other threads while it computes
    else:
        for block in blocks:
            fill(block)
    return out


def _evaluate(code: CodeType, xp: ModuleType, names: dict[str, Any]) -> Any:
    functions = {"abs": abs, "clip": xp.clip, "sign": xp.sign, "sqrt": xp.sqrt}
    return eval(code, {"__builtins__": {}, **functions}, names)


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
calculate_ndre = _of_table("ndre")
calculate_ikaw = _of_table("ikaw")
calculate_ndwi = _of_table("ndwi")
calculate_mndwi = _of_table("mndwi")
calculate_ndmi = _of_table("ndmi")
calculate_ndsi = _of_table("ndsi")
calculate_nbr = _of_table("nbr")
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
