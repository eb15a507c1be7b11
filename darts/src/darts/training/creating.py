"""From labels and scenes to a dataset of patches, with the loaders and the preprocessing of a run."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import shapely

from darts.tiles import Source
from darts.timings import TileClock
from darts.training.labels import LabelSet
from darts.training.matching import UNDATED, match_scenes
from darts.training.options import CreateOptions, MatchOptions
from darts.training.samples import CreateSummary, sample_of, with_scene
from darts.training.scenes import SceneSource
from darts.training.targets import area_window, make_target
from darts_acquisition.antimeridian import surface_of
from darts_preprocessing import preprocess_v2
from darts_utils.arrays import to_host
from darts_utils.errors import ConfigError, DartsError, MissingDataError
from darts_utils.grids import crop, pixel_size_m
from darts_utils.quality import quality_number
from darts_utils.quoting import listed
from darts_utils.store import replacing

if TYPE_CHECKING:
    import xarray as xr

    from darts_segmentation.training.patch_dataset import DatasetForm, Patch, PatchWriter, Sample

logger = logging.getLogger("darts.training")

MATCHES_FILE = "matches.parquet"
PIXEL_TOLERANCE = 0.1
"""A scene's pixels may differ by such a share from what the dataset says: orthotiles have 3.125 m, scenes 3 m."""


def create_dataset(
    dataset: Path,
    labels: LabelSet,
    source: SceneSource,
    options: CreateOptions | None = None,
    match: MatchOptions | None = None,
    *,
    on_sample: Callable[["Sample"], None] = lambda sample: None,
) -> CreateSummary:
    """Lay labels over the scenes that fit them best, cut them into patches, and add those to a dataset.

    Each footprint in its scene is a sample. Samples that the dataset has are passed over, so an interrupted call is
    taken up by calling again; one that failed is tried again, and does not stop the others. A footprint that by now
    fits another scene better gets a further sample. `matches.parquet` in the dataset tells which scenes were compared.

    Args:
        dataset: folder, new or with a dataset of the same form.
        labels: see `read_labels`.
        source: see `sentinel2_scenes` and `planet_scenes`.
        options: how patches are made.
        match: which scenes fit.
        on_sample: hears of each sample when it is finished.

    Raises:
        ConfigError: the dataset is of another form, or a parameter cannot be.
        MissingBandError: the scenes cannot give a band.
        MissingDataError: no scene fits any footprint; tells why.
        StoreError: the dataset cannot be written.
    """
    from darts_segmentation.training.patch_dataset import PatchWriter

    options = options or CreateOptions()
    source.use_bands(options.bands)
    writer = PatchWriter(dataset, dataset_form(source, options))
    matches = match_labels(labels, source, match or MatchOptions())
    chosen = matches[matches["chosen"]]
    footprints = labels.footprints.set_index("image_id", drop=False)
    unmatched = tuple(sorted(set(footprints.index) - set(chosen["image_id"])))
    if chosen.empty:
        raise MissingDataError(_no_match(matches, footprints))
    if unmatched:
        logger.warning("no scene fits %d of %d footprints: %s", len(unmatched), len(footprints), listed(unmatched))
    summary = CreateSummary(unmatched=unmatched)
    with writer:
        _add_matches(dataset / MATCHES_FILE, matches)
        for scene_id, rows in chosen.groupby("scene_id"):
            waiting = []
            for row in rows.to_dict("records"):
                sample = sample_of(footprints.loc[row["image_id"]], row)
                if writer.state_of(sample.sample_id) in ("patches", "empty"):
                    summary += CreateSummary(there=1)
                else:
                    waiting.append(sample)
            if waiting:
                summary += _add_scene(writer, str(scene_id), waiting, labels, source, options, on_sample)
    logger.info(
        "%s: %d samples with %d patches added, %d empty, %d there already, %d failed",
        dataset, summary.made, summary.n_patches, summary.empty, summary.there, len(summary.failed),
    )  # fmt: skip
    return summary


def dataset_form(source: SceneSource, options: CreateOptions) -> "DatasetForm":
    """Return what the patches of a source and of options are."""
    from darts_segmentation.training.patch_dataset import DatasetForm

    radii = {name: getattr(source.pipeline, name) for name in ("tpi_outer_radius", "tpi_inner_radius")}
    return DatasetForm(
        bands=tuple(options.bands),
        patch_size=options.patch_size,
        overlap=options.overlap,
        terrain_convention=options.terrain_convention,
        pixel_m=source.pixel_m,
        sensor=source.sensor,
        options={**options.as_told, **radii},
    )


def match_labels(labels: LabelSet, source: SceneSource, options: MatchOptions) -> pd.DataFrame:
    """Return how well the scenes of a source fit the footprints of labels; see `match_scenes`."""
    areas = labels.footprints.copy()
    for image_id in areas["image_id"][areas.geometry.isna()]:
        # Without an outline, scenes are looked for where the labels lie.
        own = labels.of(image_id).geometry
        areas.loc[areas["image_id"] == image_id, "geometry"] = surface_of(shapely.union_all(list(own)))
    candidates = source.find(areas, options)
    return match_scenes(labels.footprints, candidates, options, look=source.look, labels=labels.labels)


def make_tile(source: SceneSource, optical: "xr.Dataset", options: CreateOptions) -> "xr.Dataset":
    """Return an optical tile, or a part of one, with the features that patches need, made as in a run."""
    from darts.inputs import load_inputs
    from darts.needs import needed_features

    pipeline = source.pipeline
    features = needed_features(options.bands, ())
    inputs = load_inputs(
        Source(lambda _: optical, pipeline._arcticdem_resolution(), pipeline._result_metadata),
        None, features, pipeline._auxiliary(pipeline.default_dirs.resolve()),
        tpi_outer_radius=pipeline.tpi_outer_radius, offline=pipeline.offline, clock=TileClock(),
    )  # fmt: skip
    tile = preprocess_v2(
        *inputs.take(), tpi_outer_radius=pipeline.tpi_outer_radius, tpi_inner_radius=pipeline.tpi_inner_radius,
        terrain_convention=options.terrain_convention, device="cpu", features=features,
    )  # fmt: skip
    return to_host(tile)


def _add_scene(
    writer: "PatchWriter",
    scene_id: str,
    samples: "list[Sample]",
    labels: LabelSet,
    source: SceneSource,
    options: CreateOptions,
    on_sample: Callable[["Sample"], None],
) -> CreateSummary:
    """Load a scene once and add the samples of all its footprints."""
    summary = CreateSummary()
    optical: xr.Dataset | Exception
    try:
        optical = source.load(scene_id)
    except Exception as error:  # the one place that goes on, as the executor does with tiles
        optical = error
    for sample in samples:
        try:
            if isinstance(optical, Exception):
                raise optical
            sample = with_scene(sample, optical)
            tile, target, corner = _label_tile(sample, optical, labels, source, options)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            logger.log(logging.WARNING, "%s failed: %s", sample.sample_id, reason, exc_info=_unforeseen(error))
            sample = dataclasses.replace(sample, state="failed", reason=reason)
            writer.note(sample)
            summary += CreateSummary(failed=((sample.sample_id, reason),))
        else:
            count = writer.add(sample, _patches(tile, target, corner, writer.form, options))
            sample = dataclasses.replace(sample, state="patches" if count else "empty", n_patches=count)
            logger.info("%s: %d patches", sample.sample_id, count)
            summary += CreateSummary(made=int(count > 0), empty=int(count == 0), n_patches=count)
        on_sample(sample)
    return summary


def _label_tile(
    sample: "Sample", optical: "xr.Dataset", labels: LabelSet, source: SceneSource, options: CreateOptions
) -> "tuple[xr.Dataset, np.ndarray, tuple[int, int]]":
    """Return the part of a scene around a footprint with features, its target, and its row and column there."""
    geobox = optical.odc.geobox
    pixel = max(pixel_size_m(geobox))
    if abs(pixel / source.pixel_m - 1) > PIXEL_TOLERANCE:
        raise ConfigError(f"the scene has pixels of {pixel:g} m; the dataset is one of {source.pixel_m:g} m")
    # The legacy hillshade depends on where the middle of the scene is, so there no part may stand for it.
    if sample.footprint is None or options.terrain_convention == "legacy":
        window = slice(0, geobox.shape.y), slice(0, geobox.shape.x)
    else:
        found = area_window(geobox, sample.footprint)
        if found is None:
            raise MissingDataError("the scene does not reach the footprint")
        window = found
    part = crop(optical, geobox[window])
    tile = make_tile(source, part, options)
    target = make_target(
        geobox[window], labels.of(sample.image_id), sample.footprint, tile["quality_data_mask"].to_numpy(),
        quality_level=quality_number(options.quality_level), label_buffer_m=options.label_buffer_m,
        all_touched=options.all_touched, agreement=labels.agreement,
    )  # fmt: skip
    return tile, target, (window[0].start, window[1].start)


def _patches(
    tile: "xr.Dataset", target: np.ndarray, corner: tuple[int, int], form: "DatasetForm", options: CreateOptions
) -> "Iterator[Patch]":
    """Yield the patches of a part of a scene, with their places in the scene."""
    from darts_segmentation.training.cutting import cut_patches

    for patch in cut_patches(
        tile, target, form,
        keep_negative=options.keep_negative, keep_nan=options.keep_nan, min_labelled=options.min_labelled,
    ):  # fmt: skip
        yield dataclasses.replace(patch, row=patch.row + corner[0], col=patch.col + corner[1])


def _add_matches(file: Path, matches: pd.DataFrame) -> None:
    """Write the matches beside those of earlier calls; a pair that was compared again has the later ones."""
    if file.exists():
        matches = pd.concat([pd.read_parquet(file), matches], ignore_index=True)
        matches = matches.drop_duplicates(["image_id", "scene_id"], keep="last")
    with replacing(file) as temporary:
        matches.to_parquet(temporary, index=False)


def _no_match(matches: pd.DataFrame, footprints: pd.DataFrame) -> str:
    undated = int(footprints["time"].isna().sum())
    reasons = Counter(matches["reason"]).most_common(3)
    only_undated = undated == len(footprints) and matches["reason"].str.startswith(UNDATED).all()
    told = "; ".join(f"{reason} ({count})" for reason, count in reasons) or (
        UNDATED if only_undated else "none of them touches one"
    )
    remedies = []
    if undated:  # then no scene fits but that of the same name
        whose = "their date" if undated == len(footprints) else f"the date of those without one ({undated})"
        remedies.append(f"Give {whose} (--date 2021-08-21), or the name of their scene (--image-id)")
    if not only_undated:
        remedies.append("Take other scenes, or widen --max-days, --min-cover or --max-cloud-cover")
    return f"no scene fits any of {len(footprints)} footprints: {told}. {'. '.join(remedies)}"


def _unforeseen(error: Exception) -> bool:
    return not isinstance(error, DartsError)
