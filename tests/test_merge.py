"""`darts merge`, through the real command, on what `darts run` wrote."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest

from darts.cli import run_command_line
from darts.demo import bundled_models, generate_landscape, load_demo_tile, write_demo_data
from darts_ensemble import EnsembleV1
from darts_export import export_tile
from darts_export.dataset import merge_outputs
from darts_postprocessing import prepare_export
from tests.conftest import Sample, write_small_scene

FILES = {
    "level1.parquet", "level1.gpkg", "level2.parquet", "level2.gpkg", "slumps.parquet", "slumps.gpkg",
    "coverage.parquet", "coverage.gpkg", "summary.parquet", "summary.csv", "map.png", "collection.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def two_tiles(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of two overlapping tiles of one day."""
    folder = tmp_path_factory.mktemp("two-tiles")
    write_small_scene(folder / "store", "west", sample.landscape, slice(0, 256), slice(0, 160))
    write_small_scene(folder / "store", "east", sample.landscape, slice(0, 256), slice(96, 256))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DARTS_DATA_DIR", str(sample.folder))
        code = run_command_line([
            "run", "sentinel2", "--scene-ids", "west", "east", "--raw-data-store", "store", "--offline",
            "--patch-size", "128", "--overlap", "32", "--output-data-dir", "out",
            "--model-files", str(sample.full_model), "--mask-erosion-size", "2", "--min-object-size", "4",
            "--export-bands", "polygonized", "extent", "stac",
        ])  # fmt: skip
    assert code == 0
    return folder / "out"


def test_two_tiles_become_a_dataset(darts: Callable, two_tiles: Path, tmp_path: Path) -> None:
    done = darts("merge", two_tiles, "--out", tmp_path / "dataset")
    assert done.code == 0, done.text
    assert {file.name for file in (tmp_path / "dataset").iterdir()} == FILES
    level1 = gpd.read_parquet(tmp_path / "dataset" / "level1.parquet")
    assert f"Level 1 {len(level1)} footprints by day" in done.flat
    assert len(level1) > 10
    assert level1.id.is_unique
    assert level1.crs.to_epsg() == 4326
    of_tiles = pd.concat([gpd.read_parquet(file) for file in two_tiles.glob("*/prediction_segments.parquet")])
    plane = level1.to_crs(of_tiles.crs)
    # A segment is part of one footprint, and no other.
    assert {plane.contains(middle).sum() for middle in of_tiles.representative_point()} == {1}
    assert plane.area.sum() == pytest.approx(of_tiles.union_all().area, rel=0.2)
    assert set(";".join(level1.tile_ids).split(";")) == {"west", "east"}
    coverage = gpd.read_parquet(tmp_path / "dataset" / "coverage.parquet")
    seen = gpd.read_parquet(next(two_tiles.glob("west/prediction_extent.parquet"))).set_index("kind")
    assert coverage[coverage.kind == "seen"].area_km2.sum() > seen.area_m2["seen"] / 1e6
    collection = json.loads((two_tiles / "collection.json").read_text())
    assert {link["title"] for link in collection["links"] if link["rel"] == "item"} == {"west", "east"}


def test_a_damaged_tile_is_named_and_the_others_are_merged(darts: Callable, two_tiles: Path, tmp_path: Path) -> None:
    shutil.copytree(two_tiles, tmp_path / "out")
    file = tmp_path / "out" / "west" / "prediction_segments.parquet"
    file.write_bytes(file.read_bytes()[:500])
    done = darts("merge", tmp_path / "out", "--out", tmp_path / "dataset")
    assert done.code == 1, done.text
    assert "west" in done.flat
    level1 = gpd.read_parquet(tmp_path / "dataset" / "level1.parquet")
    assert set(level1.tile_ids) == {"east"}


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (("none", "--out", "dataset"), "none"),
        ((".", "--out", "dataset"), "."),
        ((), "darts merge needs OUTPUTS"),
    ],
)
def test_what_cannot_be_merged_is_one_clear_error(darts: Callable, tokens: tuple, says: str) -> None:
    done = darts("merge", *tokens)
    assert done.code == 2, done.text
    assert "Traceback" not in done.text
    assert says in done.flat
    assert not Path("dataset").exists()


def test_one_map_of_the_demo_cut_into_nine_tiles_gives_the_slumps_of_the_uncut_one(tmp_path: Path) -> None:
    tile = load_demo_tile(write_demo_data(generate_landscape(9004, 256), tmp_path / "demo"))
    # The small landscape has few slumps; a low threshold gives more, ragged ones.
    tile = EnsembleV1(bundled_models(), "cpu").segment_tile(tile)[["probabilities", "quality_data_mask"]]
    tile.attrs |= {"image_id": "scene", "sensor": "Sentinel-2", "acquisition_time": "2023-07-30T20:58:51Z"}
    windows = {"whole": (slice(None), slice(None))}
    starts = (0, 75, 150)  # sides of 106 pixels, which overlap by 31: more than two frames
    windows |= {f"{y}-{x}": (slice(y, y + 106), slice(x, x + 106)) for y in starts for x in starts}
    for name, (rows, columns) in windows.items():
        part = tile.isel(y=rows, x=columns).assign_attrs(tile_id=name)
        ready = prepare_export(part, 0.05, mask_erosion_size=10, min_object_size=8)
        folder = tmp_path / ("whole" if name == "whole" else "parts") / name
        export_tile(ready, folder, ["polygonized", "extent"], metadata={"mmu": 8, "binarizethreshold": 0.05})
    found = {}
    for kind in ("whole", "parts"):
        summary = merge_outputs([tmp_path / kind], tmp_path / f"{kind}-dataset")
        assert not summary.damaged
        found[kind] = gpd.read_parquet(tmp_path / f"{kind}-dataset" / "level1.parquet").set_index("id").sort_index()
    whole, parts = found["whole"], found["parts"]
    assert len(whole) >= 4
    assert (parts.n_pieces > 1).any()
    assert list(parts.index) == list(whole.index)
    assert (parts.npixel == whole.npixel).all()
    assert (parts.normalize().to_wkb() == whole.normalize().to_wkb()).all()


@pytest.mark.slow
def test_nine_tiles_through_the_network_give_the_slumps_of_one(
    darts: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landscape = generate_landscape(9002, 640, cloud_cover=0, nodata=False)
    data = tmp_path / "data"
    write_demo_data(landscape, data)
    monkeypatch.setenv("DARTS_DATA_DIR", str(data))
    store = tmp_path / "store"
    parts = [slice(start, start + 320) for start in (0, 160, 320)]
    names = []
    for i, rows in enumerate(parts):
        for j, columns in enumerate(parts):
            names.append(f"part-{i}-{j}")
            write_small_scene(store, names[-1], landscape, rows, columns)
    write_small_scene(store, "whole", landscape, slice(0, 640), slice(0, 640))
    models = [token for path in bundled_models().values() for token in ("--model-files", path)]
    found = {}
    for kind, scenes in (("whole", ["whole"]), ("parts", names)):
        ids = [token for name in scenes for token in ("--scene-ids", name)]
        output, dataset = tmp_path / kind, tmp_path / f"{kind}-dataset"
        done = darts(
            "run", "sentinel2", *ids, "--raw-data-store", store, "--offline", *models, "--output-data-dir", output,
            "--export-bands", "polygonized", "--export-bands", "extent",
        )  # fmt: skip
        assert done.code == 0, done.text
        assert darts("merge", output, "--out", dataset).code == 0
        found[kind] = gpd.read_parquet(dataset / "level1.parquet")
    assert len(found["whole"]) >= 3
    assert (found["parts"].n_pieces > 1).any()
    assert len(found["parts"]) == len(found["whole"])
    assert found["parts"].area_m2.sum() == pytest.approx(found["whole"].area_m2.sum(), rel=0.02)
