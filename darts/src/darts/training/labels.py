"""Labels and the footprints of the images they were drawn on, from vector files."""

import logging
from collections import Counter
from dataclasses import dataclass, field

import geopandas as gpd
import pandas as pd

from darts.training.label_files import LONLAT, LabelFile, label_files, read_footprints, read_rows
from darts.training.options import LabelOptions
from darts.training.targets import Agreement
from darts_utils.errors import ConfigError

logger = logging.getLogger("darts.training")

LABEL_COLUMNS = ("image_id", "time", "region", "label", "annotator", "geometry")
FOOTPRINT_COLUMNS = ("image_id", "time", "region", "geometry")


@dataclass(frozen=True)
class LabelSet:
    """Labels, and the areas that were looked at for them."""

    labels: gpd.GeoDataFrame
    """EPSG:4326: image_id, time (UTC; midnight stands for the whole day), region, label (uint8: 1 slump, 0 background,
    2 ignore), annotator (from 0)."""
    footprints: gpd.GeoDataFrame
    """EPSG:4326, a row an image: image_id, time, region; geometry None: the whole scene."""
    agreement: Agreement = field(default_factory=Agreement)
    problems: tuple[str, ...] = ()
    """What could not be used, or only after repair, with its number."""

    def of(self, image_id: str) -> gpd.GeoDataFrame:
        """Return the labels of an image."""
        return self.labels[self.labels["image_id"] == image_id]


def read_labels(options: LabelOptions) -> LabelSet:
    """Return the labels and footprints of files; what cannot be used is counted, and told once.

    Invalid polygons are repaired. Labels whose image has no footprint are left out, unless `whole_scene` is set; so is
    an image id that lacks its end, where it begins just one footprint's id of the same date. Labels without a number
    of 0, 1 or 2 are areas to ignore.

    Raises:
        ConfigError: a file is missing or cannot be read, has no CRS, or none of the labels can be used.
    """
    problems: Counter[str] = Counter()
    files = list(label_files(options))
    footprints = _footprints(files, options, problems)
    labels = _labels(files, options, problems)
    labels = _assigned(labels, footprints, options, problems)
    footprints = _completed(footprints, labels, options, problems)
    told = tuple(f"{count} {what}" for what, count in problems.items())
    for line in told:
        logger.warning("labels: %s", line)
    if footprints.empty:
        reasons = f": {told[0]}{', and more, in the warnings above' if told[1:] else ''}" if told else ""
        raise ConfigError(
            f"none of the labels can be used{reasons}. Labels count within footprints: give them with footprints, or "
            "add whole_scene (--whole-scene) where all slumps of the scene were outlined"
        )
    labels["time"] = labels["time"].fillna(labels["image_id"].map(footprints.set_index("image_id")["time"]))
    labels = labels[labels["image_id"].isin(footprints["image_id"])].reset_index(drop=True)
    agreement = Agreement(options.min_agreeing, options.disputed_from)
    logger.info("%d labels in %d footprints", len(labels), len(footprints))
    return LabelSet(labels[list(LABEL_COLUMNS)], footprints[list(FOOTPRINT_COLUMNS)], agreement, told)


def _labels(files: list[LabelFile], options: LabelOptions, problems: Counter[str]) -> gpd.GeoDataFrame:
    tables = []
    for number, file in enumerate(files):
        rows = read_rows(file.labels, options, problems, "labels")
        rows["annotator"] = number if options.annotators else 0
        if options.image_id is not None:
            rows["image_id"] = rows["image_id"].fillna(options.image_id)
        rows["file"] = files[0].labels.stem if options.annotators else file.labels.stem
        tables.append(rows)
    return gpd.GeoDataFrame(pd.concat(tables, ignore_index=True), geometry="geometry", crs=LONLAT)


def _footprints(files: list[LabelFile], options: LabelOptions, problems: Counter[str]) -> gpd.GeoDataFrame:
    """Return the footprints of all files, each image once."""
    rows = [read_footprints(file, options, problems) for file in dict.fromkeys(f.footprints for f in files) if file]
    if not rows:
        return _of_whole_scenes([])
    table = gpd.GeoDataFrame(pd.concat(rows, ignore_index=True), geometry="geometry", crs=LONLAT)
    twice = table["image_id"].duplicated()
    if twice.any():
        problems["footprints of an image that has another one; they were united"] += int(twice.sum())
        table = table.dissolve("image_id", aggfunc="first").reset_index()
    return table[list(FOOTPRINT_COLUMNS)]


def _of_whole_scenes(image_ids: list[str]) -> gpd.GeoDataFrame:
    """Return footprints without an outline, time and region."""
    nothing = [None] * len(image_ids)
    times = pd.Series(pd.NaT, range(len(image_ids)), dtype="datetime64[ns, UTC]")
    columns = {
        "image_id": pd.Series(image_ids, dtype=object),
        "time": times,
        "region": pd.Series(nothing, dtype=object),
    }
    return gpd.GeoDataFrame(columns, geometry=nothing, crs=LONLAT)


def _assigned(
    labels: gpd.GeoDataFrame, footprints: gpd.GeoDataFrame, options: LabelOptions, problems: Counter[str]
) -> gpd.GeoDataFrame:
    """Return labels with the image ids of their footprints."""
    nameless = labels["image_id"].isna()
    parts = []
    if nameless.any() and len(footprints):
        # A label that reaches into two footprints counts in both.
        joined = labels[nameless].drop(columns="image_id").sjoin(footprints[["image_id", "geometry"]])
        outside = int(nameless.sum()) - joined.index.nunique()
        if outside:
            problems["labels without an image id that lie in no footprint; left out"] += outside
        parts.append(joined.drop(columns="index_right"))
        labels = labels[~nameless]
    elif nameless.any():
        labels.loc[nameless, "image_id"] = labels.loc[nameless, "file"]
    labels = labels.copy()
    labels["image_id"] = labels["image_id"].map(_names(labels, footprints, problems)).fillna(labels["image_id"])
    table = pd.concat([*parts, labels], ignore_index=True)
    return gpd.GeoDataFrame(table, geometry="geometry", crs=LONLAT)


def _names(labels: gpd.GeoDataFrame, footprints: gpd.GeoDataFrame, problems: Counter[str]) -> dict[str, str]:
    """Return the footprint's id for ids that lack their end: the only one of that date that begins with it."""
    known = set(footprints["image_id"])
    days = dict(zip(footprints["image_id"], footprints["time"].dt.floor("D"), strict=True))
    names = {}
    for name, rows in labels[~labels["image_id"].isin(known)].groupby("image_id"):
        day = rows["time"].iloc[0].floor("D")
        fits = [full for full in known if full.startswith(str(name)) and (pd.isna(day) or days[full] == day)]
        if len(fits) == 1:
            names[str(name)] = fits[0]
            problems["labels whose image id lacks its end; it is the only one of that date"] += len(rows)
    return names


def _completed(
    footprints: gpd.GeoDataFrame, labels: gpd.GeoDataFrame, options: LabelOptions, problems: Counter[str]
) -> gpd.GeoDataFrame:
    """Return footprints with time and region of their labels where they have none, and those of whole scenes."""
    without = sorted(set(labels["image_id"]) - set(footprints["image_id"]))
    if options.whole_scene:
        more = _of_whole_scenes(without)
        footprints = pd.concat([footprints, more], ignore_index=True) if len(footprints) else more
    elif without:
        lost = int(labels["image_id"].isin(without).sum())
        problems[f"labels of {len(without)} images without a footprint; left out"] += lost
    if footprints.empty:
        return footprints
    by_image = labels.groupby("image_id")
    # Not by map, which makes numbers of nothing.
    times = by_image["time"].first().reindex(footprints["image_id"]).array
    regions = {name: next(iter(rows.dropna().mode()), None) for name, rows in by_image["region"]}
    footprints["time"] = footprints["time"].fillna(pd.Series(times, footprints.index))
    if options.date is not None:
        footprints["time"] = footprints["time"].fillna(_time(options.date))
    own = footprints["region"].astype(object)
    of_labels = pd.Series([regions.get(name) for name in footprints["image_id"]], footprints.index, dtype=object)
    footprints["region"] = own.where(own.notna(), of_labels).fillna(options.region or "")
    bare = ~footprints["image_id"].isin(labels["image_id"])
    if bare.any():
        what = "all of their area is background" if options.keep_unlabelled else "left out"
        problems[f"footprints without any label; {what}"] += int(bare.sum())
    if not options.keep_unlabelled:
        footprints = footprints[~bare]
    if (undated := footprints["time"].isna()).any():
        problems["footprints without a date; only the scene of the same name fits them"] += int(undated.sum())
    return gpd.GeoDataFrame(footprints.reset_index(drop=True), geometry="geometry", crs=LONLAT)


def _time(text: str) -> pd.Timestamp:
    try:
        return pd.to_datetime(text, utc=True)
    except ValueError as error:
        raise ConfigError(f"date must be a day or a time, such as 2021-08-21, got {text!r}") from error
