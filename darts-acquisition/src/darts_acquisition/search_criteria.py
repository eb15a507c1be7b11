"""What a search asks for, checked and in one form for all archives."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import shapely

from darts_acquisition.antimeridian import Surface, surface_of
from darts_acquisition.areas import Aoi, read_areas
from darts_acquisition.mgrs_tiles import parse_mgrs_tile
from darts_acquisition.search_dates import Interval, search_intervals
from darts_utils.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """What a scene must meet; None: anything does."""

    area: Surface | None = None
    """In longitude and latitude, within −180…180."""
    tiles: Sequence[str] | None = None
    """Full names of MGRS tiles."""
    intervals: Sequence[Interval] = ()
    """Empty: any time."""
    max_cloud_cover: float | None = None
    max_snow_cover: float | None = None


def read_criteria(
    intersects: Aoi | None,
    tiles: str | Sequence[str] | None,
    start_date: str | date | None,
    end_date: str | date | None,
    max_cloud_cover: float | None,
    max_snow_cover: float | None,
    months: Iterable[int] | None,
    years: Iterable[int] | None,
) -> Criteria:
    """Return the parameters of a search as criteria.

    Raises:
        ConfigError: one cannot be; names it.
    """
    return Criteria(
        intervals=search_intervals(start_date, end_date, months, years),
        tiles=None if tiles is None else _tile_names(tiles),
        area=None if intersects is None else surface_of(shapely.union_all(list(read_areas(intersects)))),
        max_cloud_cover=_percent_limit(max_cloud_cover, "max_cloud_cover"),
        max_snow_cover=_percent_limit(max_snow_cover, "max_snow_cover"),
    )


def _tile_names(tiles: str | Sequence[str]) -> list[str]:
    """Return the full names of MGRS tiles, each once."""
    names = [tiles] if isinstance(tiles, str) else list(tiles)
    if not names:
        raise ConfigError("tiles is an empty list; leave it out, or name a tile such as 08WMA")
    return sorted({parse_mgrs_tile(name) for name in names})


def _percent_limit(percent: float | None, name: str) -> float | None:
    """Return a limit in percent; None where it limits nothing (None, 100). 0 is a real 0."""
    if percent is None:
        return None
    if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
        raise ConfigError(f"{name} must be a percentage from 0 to 100, or None for no limit, got {percent!r}")
    return None if percent == 100 else percent
