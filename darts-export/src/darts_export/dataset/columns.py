"""The tables of the dataset: their columns, and what these mean."""

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa


class Column(NamedTuple):
    """A column of a table."""

    name: str
    type: pa.DataType
    meaning: str


_ID, _TEXT, _DATE, _REAL, _WHOLE, _BOOL = (
    pa.int64(), pa.string(), pa.date32(), pa.float64(), pa.int32(), pa.bool_()
)  # fmt: skip

_PROBABILITIES = (
    Column("pval_mean", _REAL, "mean probability, 0 to 1"),
    Column("pval_min", _REAL, "lowest probability"),
    Column("pval_max", _REAL, "highest probability"),
    Column("pval_median", _REAL, "median probability; of joined parts the weighted median of theirs"),
    Column("pval_std", _REAL, "standard deviation of the probability within the footprint"),
)

LEVEL1 = (
    Column("id", _ID, "of this footprint"),
    Column("slump_id", _ID, "of the slump across years"),
    Column("level2_id", _ID, "of the year's footprint that this one is a part of"),
    Column("year", _WHOLE, "calendar year, UTC"),
    Column("date", _DATE, "day of the observation, UTC"),
    Column("sensor", _TEXT, "Sentinel-2 or PlanetScope"),
    Column("model", _TEXT, "the model, or ensemble; several joined by ;"),
    Column(
        "threshold", _REAL, "probability above which a pixel is part of a footprint; null if not known, or if several"
    ),
    Column("image_ids", _TEXT, "images it was found in, joined by ;"),
    Column("tile_ids", _TEXT, "tiles it was found in, joined by ;"),
    Column("area_m2", _REAL, "area on the ellipsoid, m²"),
    Column("perimeter_m", _REAL, "length of all rings on the ellipsoid, m"),
    Column("npixel", _ID, "pixels"),
    *_PROBABILITIES,
    Column("probability_std", _REAL, "mean spread between the models; null with one model"),
    Column("valid_share_around", _REAL, "share of valid pixels around it; null if not known"),
    Column("n_pieces", _WHOLE, "polygons of tiles that were joined"),
    Column("cut", _BOOL, "whether a tile's edge, or the edge of valid pixels, cut one of them"),
)

LEVEL2 = (
    Column("id", _ID, "of this footprint"),
    Column("slump_id", _ID, "of the slump across years"),
    Column("year", _WHOLE, "calendar year, UTC"),
    Column("area_m2", _REAL, "area on the ellipsoid, m²"),
    Column("area_change_m2", _REAL, "against the slump's footprint before this one; null for the first"),
    Column("n_observations", _WHOLE, "days on which it was detected"),
    Column("n_looks", _WHOLE, "days on which its slump was seen, at least in part"),
    Column("first_date", _DATE, "first day on which it was detected"),
    Column("last_date", _DATE, "last day on which it was detected"),
    Column("sensors", _TEXT, "sensors that detected it, joined by ;"),
    *_PROBABILITIES,
)

SLUMPS = (
    Column("id", _ID, "of the slump: that of its first footprint in Level 2"),
    Column("parent_id", _ID, "the slump it split off from; null if none"),
    Column("merged_into_id", _ID, "the slump it became a part of; null if none, or if it came back"),
    Column("first_year", _WHOLE, "first year with a footprint"),
    Column("last_year", _WHOLE, "last year with a footprint"),
    Column("n_years", _WHOLE, "years with a footprint"),
    Column("n_years_looked", _WHOLE, "years in which it was seen, at least in part"),
    Column("first_date", _DATE, "first day on which it was detected"),
    Column("last_date", _DATE, "last day on which it was detected"),
    Column("last_look", _DATE, "last day on which it was seen, at least in part"),
    Column("area_m2", _REAL, "area of the largest extent over all years (the geometry), m²"),
    Column("first_area_m2", _REAL, "area in the first year"),
    Column("last_area_m2", _REAL, "area in the last year"),
    Column("area_change_m2", _REAL, "from the first year to the last"),
    Column("years", _TEXT, "years with a footprint, joined by ;"),
    Column("areas_m2", _TEXT, "areas in these years, in whole m², joined by ;"),
)

COVERAGE = (
    Column("year", _WHOLE, "calendar year, UTC"),
    Column("kind", _TEXT, "seen, or clear: seen with quality 2 and neither cloud nor cirrus"),
    Column("region", _TEXT, "cell of 100 km"),
    Column("area_km2", _REAL, "area on the ellipsoid, km²"),
    Column("n_dates", _WHOLE, "days with an image"),
)

SUMMARY = (
    Column("year", _WHOLE, "calendar year, UTC; null for all years"),
    Column("region", _TEXT, "cell of 100 km, region of the file that was given, or all"),
    Column("longitude", _REAL, "middle of the cell; null for other regions"),
    Column("latitude", _REAL, "middle of the cell; null for other regions"),
    Column("n_level1", _ID, "footprints of Level 1"),
    Column("n_level2", _ID, "footprints of Level 2"),
    Column("n_slumps", _ID, "different slumps"),
    Column("area_km2", _REAL, "area of the footprints of Level 2; null for all years"),
    Column("seen_km2", _REAL, "area seen; null for all years"),
    Column("clear_km2", _REAL, "area seen clear; null for all years"),
)

TABLES: Mapping[str, tuple[Column, ...]] = {
    "level1": LEVEL1, "level2": LEVEL2, "slumps": SLUMPS, "coverage": COVERAGE,
}  # fmt: skip
"""The tables with geometry."""


def stored_schema(table: str) -> pa.Schema:
    """Return the schema of a table, with `geometry` as WKB."""
    return pa.schema([*((column.name, column.type) for column in TABLES[table]), ("geometry", pa.binary())])
