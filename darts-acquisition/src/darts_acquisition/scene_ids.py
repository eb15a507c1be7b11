"""What the ids of Sentinel-2 scenes say about them."""

import re
from dataclasses import dataclass
from datetime import datetime

from darts_acquisition.times import parse_stamp
from darts_utils.errors import ConfigError
from darts_utils.quoting import shown

OFFSET_SINCE = (4, 0)
"""Processing baseline from which Level-2A digital numbers carry an offset of 1000."""

_CDSE = re.compile(
    r"(?P<platform>S2[A-D])_MSI(?P<level>L1C|L2A)_(?P<start>\d{8}T\d{6})_N(?P<baseline>\d{4})"
    r"_R(?P<orbit>\d{3})_T(?P<tile>\d{2}[A-Z]{3})_(?P<made>\d{8}T\d{6})(?:\.SAFE)?",
    re.ASCII,
)
_GEE = re.compile(r"(?P<start>\d{8}T\d{6})_(?P<granule>\d{8}T\d{6})_T(?P<tile>\d{2}[A-Z]{3})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class SceneId:
    """The parts of a scene id."""

    acquired: datetime
    """Start of the datatake, UTC."""
    mgrs_tile: str
    """MGRS tile without the leading T, such as `32VKR`."""
    platform: str | None = None
    """`S2A`, `S2B`, …; Earth Engine ids do not say."""
    processing_baseline: str | None = None
    """Such as `05.11`; Earth Engine ids do not say."""


def parse_cdse_id(scene_id: str) -> SceneId:
    """Return the parts of an id such as `S2A_MSIL2A_20241107T113311_N0511_R080_T32VKR_20241107T123948`.

    Raises:
        ConfigError: the id does not have this form.
    """
    match = _CDSE.fullmatch(scene_id)
    if match is None:
        raise ConfigError(
            f"{shown(scene_id)} is not a Sentinel-2 product id; "
            "expected one such as S2A_MSIL2A_20241107T113311_N0511_R080_T32VKR_20241107T123948"
        )
    baseline = match["baseline"]
    return SceneId(
        acquired=parse_stamp(match["start"], f"scene id {shown(scene_id)}"),
        mgrs_tile=match["tile"],
        platform=match["platform"],
        processing_baseline=f"{baseline[:2]}.{baseline[2:]}",
    )


def parse_gee_id(scene_id: str) -> SceneId:
    """Return the parts of an id such as `20230701T194909_20230701T195350_T11XNA`.

    Raises:
        ConfigError: the id does not have this form.
    """
    match = _GEE.fullmatch(scene_id)
    if match is None:
        raise ConfigError(
            f"{shown(scene_id)} is not a Sentinel-2 id of Earth Engine; "
            "expected one such as 20230701T194909_20230701T195350_T11XNA"
        )
    return SceneId(acquired=parse_stamp(match["start"], f"scene id {shown(scene_id)}"), mgrs_tile=match["tile"])


def scene_year(scene_id: str) -> int:
    """Return the year in which a scene (id of CDSE or Earth Engine) was acquired.

    Raises:
        ConfigError: the id has neither form.
    """
    parse = parse_gee_id if _GEE.fullmatch(scene_id) else parse_cdse_id
    return parse(scene_id).acquired.year


def baseline_has_offset(baseline: str) -> bool:
    """Whether Level-2A digital numbers of a processing baseline (`04.00`, `0511`) carry the offset of 1000.

    Raises:
        ConfigError: the baseline is not four digits with or without a dot.
    """
    match = re.fullmatch(r"(\d{1,2})\.?(\d{2})", baseline)
    if match is None:
        raise ConfigError(f"processing baseline {shown(baseline)} is unknown; expected one such as 05.11")
    return (int(match[1]), int(match[2])) >= OFFSET_SINCE
