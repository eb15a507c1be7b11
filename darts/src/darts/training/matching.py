"""Which scene fits a label footprint: by cover, cloud and days, and the better one wins."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import geopandas as gpd
import pandas as pd
import pyproj
import shapely
from shapely.geometry.base import BaseGeometry

from darts.training.options import MatchOptions
from darts_acquisition.antimeridian import surface_of
from darts_acquisition.areas import project_areas
from darts_utils.errors import DartsError

DAY = pd.Timedelta(days=1)
UNDATED = "the labels have no date"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A scene that labels may be used with."""

    scene_id: str
    time: pd.Timestamp
    """When it was acquired, UTC."""
    footprint: BaseGeometry
    """EPSG:4326, split at the antimeridian."""
    cloud: float | None = None
    """Share of cloud, 0 … 1; None: not known."""


class Look(NamedTuple):
    """What the pixels of a scene show of a footprint."""

    filled: float
    """Share of what lies on the scene's grid that has data."""
    cloud: float | None
    """Share of cloud and cloud shadow in what has data; None: the scene does not tell."""


LookAt = Callable[[str, BaseGeometry | None], Look | None]
"""Scene id and footprint → what its pixels show; None: they are not on disk yet."""


def match_scenes(
    footprints: gpd.GeoDataFrame,
    candidates: Iterable[Candidate],
    options: MatchOptions | None = None,
    *,
    look: LookAt | None = None,
    labels: gpd.GeoDataFrame | None = None,
) -> pd.DataFrame:
    """Return all pairs of a footprint and a scene that touch, with their scores, and the best of each footprint chosen.

    The score is the product of three shares, 0 … 1, and higher is better: cover (of the footprint by the scene),
    1 - cloud, and closeness = 1 - days / (max_days + 1). Scenes of which the cloud is not known count as cloudy as is
    allowed. The image that the labels were drawn on (the scene of that name) goes before all others and needs neither
    to be clear nor to have a date: what clouds hide, quality leaves out. Among equals the first by name is chosen.

    Columns: image_id, scene_id, days, cover, cloud, score (0 where refused), chosen, reason (why it was refused).

    Args:
        footprints: `LabelSet.footprints`. Without an outline, the area of the labels must be covered.
        candidates: the scenes.
        options: the limits.
        look: what the pixels show, asked for of pairs that would fit otherwise; beats what the candidate tells.
        labels: `LabelSet.labels`, for footprints without an outline.
    """
    options = options or MatchOptions()
    scenes = sorted(candidates, key=lambda scene: scene.scene_id)
    tree = shapely.STRtree([scene.footprint for scene in scenes])
    rows: list[list[dict[str, Any]]] = [[] for _ in range(len(footprints))]
    areas = [_area(footprint, labels) for footprint in footprints.itertuples()]
    touching = tree.query([shapely.Polygon() if area is None else area for area in areas], predicate="intersects")
    # Scene by scene, so that each has to be looked at but once.
    for number, at in sorted(zip(touching[1], touching[0], strict=True)):
        rows[at].append(_pair(next(footprints[at : at + 1].itertuples()), areas[at], scenes[number], options, look))
    for pairs in rows:
        fitting = [pair for pair in pairs if not pair["reason"]]
        if fitting:
            # max takes the first of equals, and the scenes are sorted by name.
            best = max(fitting, key=lambda pair: (pair["own"], pair["score"]))
            best["chosen"] = True
    columns = ["image_id", "scene_id", "days", "cover", "cloud", "score", "chosen", "reason"]
    table = pd.DataFrame([pair for pairs in rows for pair in pairs], columns=columns)
    return table.astype(dict.fromkeys(("days", "cover", "cloud", "score"), "float64") | {"chosen": bool})


def score_of(cover: float, cloud: float | None, days: float, options: MatchOptions) -> float:
    """Return how well a scene fits, 0 … 1, higher is better: cover × (1 - cloud) × closeness in days."""
    cloud = options.max_cloud_cover / 100 if cloud is None else cloud
    closeness = max(0.0, 1 - days / (options.max_days + 1))
    return cover * (1 - cloud) * closeness


def days_between(label_time: pd.Timestamp, scene_time: pd.Timestamp) -> float:
    """Return the days between labels and a scene; a label time of midnight stands for its whole day."""
    end = label_time + DAY if label_time == label_time.normalize() else label_time
    return float(max(label_time - scene_time, scene_time - end, pd.Timedelta(0)) / DAY)


def cover_of(footprint: BaseGeometry, scene: BaseGeometry) -> float:
    """Return the share of a footprint that a scene covers, both EPSG:4326, by area on the ground."""
    footprint, scene = shapely.make_valid(footprint), shapely.make_valid(scene)
    whole, covered = _project([footprint, surface_of(shapely.intersection(footprint, scene))])
    return float(min(covered.area / whole.area, 1.0)) if whole.area else 0.0


def _pair(
    footprint: Any, area: BaseGeometry, scene: Candidate, options: MatchOptions, look: LookAt | None
) -> dict[str, Any]:
    own = scene.scene_id == footprint.image_id
    dated = not pd.isna(footprint.time)
    days = days_between(footprint.time, scene.time) if dated else (0.0 if own else float("nan"))
    cover, cloud = cover_of(area, scene.footprint), scene.cloud
    reason = _refusal(days, cover, cloud if look is None else None, own, options)
    if not reason and look is not None:
        try:
            seen = look(scene.scene_id, footprint.geometry)
        except DartsError as error:
            seen, reason = None, f"cannot be read: {error}"
        if seen is not None:
            cover, cloud = cover * seen.filled, seen.cloud
        reason = reason or _refusal(days, cover, cloud, own, options)
    score = 0.0 if reason else score_of(cover, cloud, days, options)
    return {
        "image_id": footprint.image_id, "scene_id": scene.scene_id, "days": days, "cover": cover, "cloud": cloud,
        "score": score, "chosen": False, "reason": reason, "own": own,
    }  # fmt: skip


def _refusal(days: float, cover: float, cloud: float | None, own: bool, options: MatchOptions) -> str:
    reasons = []
    if not own and pd.isna(days):
        reasons.append(UNDATED)
    if not own and days > options.max_days:
        reasons.append(f"{days:.1f} days apart, more than {options.max_days:g}")
    if cover < options.min_cover:
        reasons.append(f"covers {cover:.0%} of the footprint, less than {options.min_cover:.0%}")
    if not own and cloud is not None and cloud > options.max_cloud_cover / 100:
        reasons.append(f"{cloud:.0%} cloud, more than {options.max_cloud_cover:g}%")
    return "; ".join(reasons)


def _area(footprint: Any, labels: gpd.GeoDataFrame | None) -> BaseGeometry | None:
    """Return what a scene must cover: the footprint, or else the labels; None: nothing is known."""
    if footprint.geometry is not None or labels is None:
        return footprint.geometry
    own = labels.geometry[labels["image_id"] == footprint.image_id]
    return shapely.union_all(list(own)) if len(own) else None


def _project(areas: Sequence[BaseGeometry]) -> list[BaseGeometry]:
    """Return areas around the first in a projection that keeps areas, halves at the antimeridian joined."""
    middle = areas[0].representative_point()
    crs = pyproj.CRS(f"+proj=laea +lat_0={middle.y:.6f} +lon_0={middle.x:.6f} +datum=WGS84 +units=m")
    return [area if area.is_empty else project_areas(gpd.GeoSeries([area], crs="EPSG:4326"), crs)[0] for area in areas]
