"""Synthetic sites: landscapes as scenes with auxiliary cubes, and label files in the layout of the published ones."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import shapely
from rasterio.features import shapes
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from darts.demo.landscape import Landscape, generate_landscape
from darts.demo.score import CLOUD_CLASSES
from darts.demo.write import demo_paths, write_demo_data
from darts.pipelines.sentinel2 import Sentinel2Pipeline
from darts.training.creating import create_dataset, dataset_form
from darts.training.label_files import FOOTPRINTS, LABELS, LONLAT
from darts.training.labels import read_labels
from darts.training.options import CreateOptions, LabelOptions, MatchOptions
from darts.training.samples import CreateSummary
from darts.training.scenes import SceneSource, sentinel2_scenes
from darts.training.targets import IGNORE, SLUMP
from darts_acquisition.areas import read_areas
from darts_utils.errors import ConfigError, MissingDataError, StoreError
from darts_utils.paths import DefaultPaths
from darts_utils.store import remove_leftovers, replacing

if TYPE_CHECKING:
    from darts_segmentation.training.patch_dataset import Sample

logger = logging.getLogger("darts.training")


@dataclass(frozen=True)
class SyntheticSite:
    """A folder with a synthetic scene, the cubes under it, and its labels."""

    folder: Path
    seed: int

    @property
    def region(self) -> str:
        """Region of its labels: landscapes of different seeds have nothing in common."""
        return f"synthetic-{self.seed}"

    @property
    def paths(self) -> DefaultPaths:
        """Folders of its raw data store and its cubes."""
        return demo_paths(self.folder)

    @property
    def labels(self) -> Path:
        """Outlines of its active slumps, also of those under clouds, and the clouds as areas to ignore."""
        return self.folder / f"{LABELS}_synthetic_{self.seed}.gpkg"

    @property
    def footprints(self) -> Path:
        """The outline of its scene."""
        return self.folder / f"{FOOTPRINTS}_synthetic_{self.seed}.gpkg"

    def scenes(self) -> SceneSource:
        """Return its scene as a source for `create_dataset`."""
        return sentinel2_scenes(Sentinel2Pipeline(default_dirs=self.paths, raw_data_source="cdse", offline=True))


def write_synthetic_site(folder: Path, seed: int, size: int = 1024) -> SyntheticSite:
    """Write the landscape of a seed as a site, and return it; a site that is there stays.

    Scene and cubes are laid out as by `darts demo`, labels as published: `TrainingLabel_synthetic_<seed>.gpkg` and
    `ImageFootprints_synthetic_<seed>.gpkg`. Stabilised slumps are background, clouds are to be ignored. The folder
    appears whole or not at all.

    Raises:
        ConfigError: the folder holds something else, or `size` is out of range.
        StoreError: it cannot be written.
    """
    site = SyntheticSite(Path(folder), seed)
    if site.folder.exists():
        if not (site.labels.exists() and site.footprints.exists()):
            raise ConfigError(f"{folder} is there and holds no synthetic site of seed {seed}; choose another folder")
        return site
    remove_leftovers(site.folder)
    with replacing(site.folder) as temporary:
        landscape = generate_landscape(seed, size)
        write_demo_data(landscape, temporary)
        _write_labels(landscape, SyntheticSite(temporary, seed))
    return site


def create_synthetic_dataset(
    dataset: Path,
    seeds: Sequence[int],
    scratch: Path,
    *,
    size: int = 1024,
    options: CreateOptions | None = None,
    workers: int = 1,
    on_sample: Callable[["Sample"], None] = lambda sample: None,
) -> CreateSummary:
    """Add the landscapes of seeds to a dataset, one after the other; those that it has are passed over.

    An interrupted call is taken up by calling again.

    Args:
        dataset: folder, new or with a dataset of the same form.
        seeds: each is a landscape, a sample and a region of its own.
        scratch: folder for the sites, which stay there (some 9 MB each at 1024 pixels).
        size: side of a landscape, in pixels.
        options: how patches are made.
        workers: processes that render landscapes; 1: this one.
        on_sample: hears of each sample when it is finished.

    Raises:
        DartsError: as for `create_dataset` and `write_synthetic_site`.
    """
    from darts_segmentation.training.patch_dataset import PatchWriter

    form = dataset_form(SyntheticSite(scratch, 0).scenes(), options or CreateOptions())
    PatchWriter(dataset, form)  # says at once that the dataset is of another form
    there = _regions_of(dataset)
    waiting = [seed for seed in seeds if SyntheticSite(scratch, seed).region not in there]
    summary = CreateSummary(there=len(seeds) - len(waiting))
    with _written_sites(waiting, scratch, size, min(workers, len(waiting))) as sites:
        for site in sites:
            labels = read_labels(LabelOptions(labels=[site.labels]))
            # Every landscape is wanted: quality knows the corner that the swath cuts off, the labels the clouds.
            anything = MatchOptions(max_days=0, min_cover=0, max_cloud_cover=100)
            summary += create_dataset(dataset, labels, site.scenes(), options, anything, on_sample=on_sample)
    return summary


def _write_labels(landscape: Landscape, site: SyntheticSite) -> None:
    slumps = landscape.polygons[landscape.polygons["kind"] == "slump"]
    date = f"{landscape.acquisition_time:%Y-%m-%d}"
    outlines = [*read_areas(slumps)] if len(slumps) else []
    clouds = _clouds(landscape)
    labels = gpd.GeoDataFrame(
        {
            "image_id": landscape.scene_id,
            "image_date": date,
            "region": site.region,
            "site": None,
            "label": [SLUMP] * len(outlines) + [IGNORE] * len(clouds),
            "id": [*slumps["id"], *range(-1, -len(clouds) - 1, -1)],
            "datasource": "synthetic",
            "author": "darts.demo",
            "subset": False,
            "target": ["Retrogressive Thaw Slumps"] * len(outlines) + ["Cloud"] * len(clouds),
        },
        geometry=outlines + clouds,
        crs=LONLAT,
    )
    outline = shapely.union_all(list(read_areas(landscape.geobox)))
    footprints = gpd.GeoDataFrame(
        {
            "image_id": [landscape.scene_id],
            "image_date": date,
            "region": site.region,
            "datasource": "synthetic",
            "subset": False,
            "iteration": f"synthetic_{site.seed}",
        },
        geometry=[outline],
        crs=LONLAT,
    )
    for table, file in ((labels, site.labels), (footprints, site.footprints)):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*geometry")  # of a table without rows
            table.to_file(file, layer=file.stem, driver="GPKG", geometry_type="MultiPolygon", promote_to_multi=True)


def _clouds(landscape: Landscape) -> list[BaseGeometry]:
    """Return the outlines of clouds, along the edges of pixels, in EPSG:4326."""
    cloud = np.isin(landscape.scl, CLOUD_CLASSES)
    found = shapes(cloud.astype("uint8"), mask=cloud, transform=landscape.geobox.affine)
    outlines = gpd.GeoSeries([shape(outline) for outline, _ in found], crs=str(landscape.geobox.crs))
    return [*read_areas(outlines)] if len(outlines) else []


def _regions_of(dataset: Path) -> set[str]:
    """Return the regions that have samples in a dataset which did not fail."""
    from darts_segmentation.training.patch_dataset import PatchDataset

    try:
        samples = PatchDataset.open(dataset).samples
    except MissingDataError:  # there is none yet, or a kill left only its beginning
        return set()
    return set(samples["region"][samples["state"] != "failed"])


@contextmanager
def process_pool(workers: int, initializer: Callable[[], None] | None = None) -> Iterator[ProcessPoolExecutor]:
    """Give processes to work in.

    Raises:
        StoreError: one was killed.
    """
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer) as pool:
            yield pool
    except BrokenProcessPool as error:
        raise StoreError(
            "a worker process was killed, as happens when memory runs out. Take fewer workers; what is made stays."
        ) from error


@contextmanager
def _written_sites(seeds: Sequence[int], scratch: Path, size: int, workers: int) -> Iterator[Iterator[SyntheticSite]]:
    """Give the sites of seeds in order; several processes write them ahead."""
    write = partial(_write_site, scratch, size)
    if workers <= 1:
        yield map(write, seeds)
        return
    with process_pool(workers) as pool:
        futures: list[Future[SyntheticSite]] = [pool.submit(write, seed) for seed in seeds]
        try:
            yield (future.result() for future in futures)
        finally:
            for future in futures:
                future.cancel()


def _write_site(scratch: Path, size: int, seed: int) -> SyntheticSite:
    return write_synthetic_site(scratch / f"site-{seed}-{size}", seed, size)
