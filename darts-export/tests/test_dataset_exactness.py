"""A map cut into tiles, postprocessed, exported and merged gives the slumps of the uncut map."""

from pathlib import Path
from tempfile import TemporaryDirectory

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from darts_export import vectors
from darts_export.dataset import merge_outputs
from darts_export.dataset.tile_folders import EXTENT_FILE, segment_files
from darts_export.export import Export
from darts_export.metadata import identity
from darts_export.vector_files import write_parquet

prepare_export = pytest.importorskip("darts_postprocessing", reason="cuts objects as a run does").prepare_export

NAN = np.float32(np.nan)


def write_tiles(probabilities, quality, windows, out, *, day, frame, erosion, smallest, grid):
    """Postprocess windows (top, bottom, left, right) of a map as tiles of one scene; write what a merge reads."""
    crs, resolution, left, top = grid
    for number, (r0, r1, c0, c1) in enumerate(windows):
        transform = Affine(resolution, 0, left + c0 * resolution, 0, -resolution, top - r0 * resolution)
        part = np.s_[r0:r1, c0:c1]
        tile = xr.Dataset(
            {
                "probabilities": (("y", "x"), probabilities[part].copy()),
                "quality_data_mask": (("y", "x"), quality[part].copy()),
            },
            coords=xr_coords(GeoBox(probabilities[part].shape, transform, crs)),
            attrs={
                "sensor": "Sentinel-2", "acquisition_time": f"{day}T21:00:00Z", "image_id": "scene",
                "tile_id": f"tile-{number}",
            },
        )  # fmt: skip
        ready = prepare_export(
            tile, mask_erosion_size=erosion, edge_erosion_size=frame, min_object_size=smallest, quality_level=1
        )
        folder = out / day / f"tile-{number}"
        folder.mkdir(parents=True)
        export = Export(ready, folder, (), {"DARTS_mmu": smallest}, identity(ready, folder.name))
        # The GeoPackages and all else that export_tile writes take most of its time, and are not read.
        whole, cut = segment_files("")
        write_parquet(folder / whole, export.segments, export.tags)
        write_parquet(folder / cut, export.cut_objects_of(""), export.tags)
        write_parquet(folder / EXTENT_FILE, vectors.extent(ready, export.ids), export.tags)


def cuttings(shape, rows, columns, overlap):
    def starts(size, count):
        side = -(-(size + (count - 1) * overlap) // count)
        return [(start, start + side) for start in (min(k * (side - overlap), size - side) for k in range(count))]

    return [(*down, *across) for down in starts(shape[0], rows) for across in starts(shape[1], columns)]


def assert_same_slumps(folder, probabilities, quality, rows, columns, overlap, **options):
    """Merge a map twice at once: as one tile of one day, and as many of another."""
    height, width = probabilities.shape
    tiles = cuttings(probabilities.shape, rows, columns, overlap)
    write_tiles(probabilities, quality, [(0, height, 0, width)], folder / "run", day="2021-08-21", **options)
    write_tiles(probabilities, quality, tiles, folder / "run", day="2021-08-22", **options)
    merge_outputs([folder / "run"], folder / "dataset")
    level1 = gpd.read_parquet(folder / "dataset" / "level1.parquet")
    level1["shape"] = shapely.to_wkb(shapely.normalize(level1.geometry.to_numpy()))
    whole, cut = (
        level1[level1.date.astype(str) == day].sort_values("shape").reset_index(drop=True)
        for day in ("2021-08-21", "2021-08-22")
    )
    assert len(whole) == len(gpd.read_parquet(folder / "run/2021-08-21/tile-0/prediction_segments.parquet"))
    assert list(cut["shape"]) == list(whole["shape"])
    assert list(cut.npixel) == list(whole.npixel)
    for name in ("area_m2", "perimeter_m", "pval_min", "pval_max"):
        np.testing.assert_allclose(cut[name], whole[name], rtol=1e-9)
    # A piece's mean holds for all of its pixels, those that others have too included.
    np.testing.assert_allclose(cut.pval_mean, whole.pval_mean, atol=0.1)
    return whole, cut


def blobs(shape, seed, size=1.2):
    """Return smooth noise between 0 and 1: blobs above 0.5, long ones, with holes, that meet at corners."""
    rng = np.random.default_rng(seed)
    noise = np.pad(rng.random(shape), 4, mode="wrap")
    offsets = np.arange(-4, 5)
    kernel = np.exp(-(offsets**2) / (2 * size**2))
    for axis in (0, 1):
        noise = np.apply_along_axis(np.convolve, axis, noise, kernel / kernel.sum(), mode="valid")
    return (((noise - noise.min()) / (noise.max() - noise.min())) ** 1.5).astype("float32")


UTM = ("EPSG:32608", 10.0, 500_000.0, 7_600_000.0)
PLANET_IN_THE_SOUTH = ("EPSG:32721", 3.0, 499_999.5, 4_100_001.5)


@pytest.mark.parametrize("grid", [UTM, PLANET_IN_THE_SOUTH])
@pytest.mark.parametrize(("rows", "columns", "overlap"), [(3, 3, 6), (1, 4, 9)])
def test_a_cut_map_gives_the_slumps_of_the_uncut_one(tmp_path, grid, rows, columns, overlap):
    probabilities = blobs((90, 100), seed=3)
    probabilities[10:13, 60:64] = NAN
    quality = np.full(probabilities.shape, 2, "uint8")
    quality[40:42, 30:33] = 0
    quality[75, 20] = 0
    options = {"frame": 3, "erosion": 3, "smallest": 8, "grid": grid}
    whole, cut = assert_same_slumps(tmp_path, probabilities, quality, rows, columns, overlap, **options)
    assert len(whole) > 10
    assert cut["cut"].any()


CUTTINGS = given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([0.7, 1.0, 1.6]),
    frame=st.integers(1, 4),
    erosion=st.integers(0, 4),
    smallest=st.integers(1, 12),
    rows=st.integers(1, 3),
    columns=st.integers(2, 3),
    more=st.integers(0, 4),
    holes=st.integers(0, 4),
)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@CUTTINGS
def test_any_cutting_of_any_map_gives_its_slumps(**drawn):
    check_a_cutting(**drawn)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@CUTTINGS
def test_any_of_many_cuttings_of_any_map_gives_its_slumps(**drawn):
    check_a_cutting(**drawn)


def check_a_cutting(*, seed, size, frame, erosion, smallest, rows, columns, more, holes):
    probabilities = blobs((44, 52), seed, size)
    rng = np.random.default_rng(seed)
    quality = np.full(probabilities.shape, 2, "uint8")
    for _ in range(holes):
        top, left = rng.integers(0, 44), rng.integers(0, 52)
        quality[top : top + rng.integers(1, 4), left : left + rng.integers(1, 4)] = 0
        probabilities[rng.integers(0, 44), rng.integers(0, 52)] = NAN
    erosion = min(erosion, frame)  # else a tile's erosion would have to know of what lies beyond its edge
    with TemporaryDirectory() as folder:
        assert_same_slumps(
            Path(folder), probabilities, quality, rows, columns, 2 * frame + more,
            frame=frame, erosion=erosion, smallest=smallest, grid=UTM,
        )  # fmt: skip


def test_a_slump_across_all_tiles_is_one(tmp_path):
    probabilities = np.zeros((90, 90), "float32")
    probabilities[8:82, 8:82] = 0.9
    probabilities[14:76, 14:76] = 0.1  # a ring
    probabilities[44, 8:82] = 0.8
    quality = np.full(probabilities.shape, 2, "uint8")
    options = {"frame": 3, "erosion": 3, "smallest": 8, "grid": UTM}
    _, cut = assert_same_slumps(tmp_path, probabilities, quality, 3, 3, 8, **options)
    assert len(cut) == 1
    assert len(cut.geometry[0].interiors) == 2
    assert cut.n_pieces[0] >= 9
    assert cut.tile_ids[0].count(";") >= 7


def test_a_slump_that_no_tile_saw_whole_to_its_end_is_dropped(tmp_path):
    probabilities = np.zeros((60, 60), "float32")
    probabilities[20:30, 20:58] = 0.9  # reaches into the frame
    probabilities[40:50, 20:40] = 0.9
    quality = np.full(probabilities.shape, 2, "uint8")
    options = {"frame": 4, "erosion": 4, "smallest": 8, "grid": UTM}
    _, cut = assert_same_slumps(tmp_path, probabilities, quality, 2, 2, 8, **options)
    assert len(cut) == 1
