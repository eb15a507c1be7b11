"""What goes wrong around a merge: damaged and foreign files, links, other merges, kills, full disks."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import psutil
import pytest
import shapely

from darts_export import export_tile
from darts_export.dataset import merge_outputs
from darts_export.dataset.target import OWN_FILES
from darts_export.dataset.tile_folders import find_tiles
from darts_utils.errors import ConfigError, MissingDataError, StoreError

SEGMENTS, CUT, EXTENT = (
    f"prediction_{name}.parquet" for name in ("segments", "cut_segments", "extent")
)  # fmt: skip
NO_PLACE_ON_EARTH = 'ENGCRS["pit",EDATUM["stake"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'


@pytest.fixture(scope="module")
def good(make_tile, tmp_path_factory):
    """An output folder with one tile of one slump, as export writes it."""
    found = np.zeros((24, 24), bool)
    found[8:16, 6:18] = True
    tile = make_tile(
        {
            "probabilities": np.where(found, 0.8, 0.1).astype("float32"), "extent": np.ones((24, 24), bool),
            "quality_data_mask": np.full((24, 24), 2, "uint8"), "binarized_segmentation": found,
        },
        sensor="Sentinel-2", acquisition_time="2021-08-21T21:00:00Z", image_id="scene", tile_id="good",
    )  # fmt: skip
    run = tmp_path_factory.mktemp("run")
    export_tile(tile, run / "good", ("polygonized", "extent"))
    return run


@pytest.fixture
def run(good, tmp_path):
    """A copy of it, to be damaged at will."""
    return shutil.copytree(good, tmp_path / "run")


def rewritten(path, **columns):
    frame = gpd.read_parquet(path)
    frame.assign(**columns).to_parquet(path)


def moved(folder, crs=None, by=0.0):
    for path in folder.glob("*.parquet"):
        frame = gpd.read_parquet(path).set_crs(crs, allow_override=True)
        frame.assign(geometry=frame.translate(by, by)).to_parquet(path)


BOWTIE = [shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 9)])]

DAMAGES = {
    "cut-short": lambda tile: (tile / SEGMENTS).write_bytes((tile / SEGMENTS).read_bytes()[:-30]),
    "empty": lambda tile: (tile / SEGMENTS).write_bytes(b""),
    "gone": lambda tile: (tile / CUT).unlink(),
    "a-folder": lambda tile: ((tile / CUT).unlink(), (tile / CUT).mkdir()),
    "undated": lambda tile: rewritten(tile / EXTENT, acquisition_time=pd.NaT),
    "dated-in-words": lambda tile: rewritten(tile / EXTENT, acquisition_time="in August"),
    "dated-by-number": lambda tile: rewritten(tile / EXTENT, acquisition_time=20210821),
    "crooked": lambda tile: rewritten(tile / SEGMENTS, geometry=BOWTIE),
    "words-for-numbers": lambda tile: rewritten(tile / SEGMENTS, mean="high"),
    "no-crs": lambda tile: moved(tile),
    "not-on-earth": lambda tile: moved(tile, NO_PLACE_ON_EARTH),
    "far-out": lambda tile: moved(tile, "EPSG:32608", by=1e9),
    "extent-far-out": lambda tile: rewritten(
        tile / EXTENT, geometry=gpd.read_parquet(tile / EXTENT).translate(1e9, 1e9)
    ),
}  # fmt: skip


def test_damaged_and_foreign_tiles_are_named_and_stop_nothing(run, good, tmp_path, caplog):
    for name, damage in DAMAGES.items():
        damage(shutil.copytree(good / "good", run / name))
    shutil.copytree(good / "good", run / ".half.tmp")
    no_text = os.fsdecode(b"no-\xff-text")
    shutil.copytree(good / "good", run / no_text)
    (run / no_text / EXTENT).unlink()
    (run / "loop").symlink_to("loop")
    summary = merge_outputs([run], tmp_path / "out")
    assert summary.tiles == 1
    assert summary.rows["level1"] == 1
    assert len(summary.damaged) == len(DAMAGES) + 1
    for name in (*DAMAGES, r"no-\udcff-text"):
        assert any(name in reason for reason in summary.damaged), name
        assert name in caplog.text
    "\n".join(summary.damaged).encode()  # can be printed
    shutil.rmtree(run / "good")
    with pytest.raises(MissingDataError, match="no tile could be read"):
        merge_outputs([run], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_tile_counts_once_by_whatever_way_it_is_reached(run, tmp_path):
    (run / "also-good").symlink_to("good")
    (run / "up").symlink_to(".")
    shutil.copy(run / "good" / EXTENT, run / EXTENT)  # hides no tile below
    found = find_tiles([run, run / "good", run], "")
    assert [folder.path for folder in found] == [run, run / "also-good"]
    (run / EXTENT).unlink()
    summary = merge_outputs([run, tmp_path / "run"], tmp_path / "out")
    assert (summary.tiles, summary.duplicates, summary.damaged) == (1, 0, ())


def test_other_files_are_never_replaced(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").touch()
    with pytest.raises(ConfigError, match=r"thesis\.docx"):
        merge_outputs([run], tmp_path / "out")
    with pytest.raises(ConfigError, match="is a file"):
        merge_outputs([run], tmp_path / "out" / "thesis.docx")
    with pytest.raises(MissingDataError, match="no tile"):
        merge_outputs([tmp_path / "out"], tmp_path / "other")
    (tmp_path / "out" / "thesis.docx").unlink()
    merge_outputs([run], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == OWN_FILES


def test_a_link_to_the_folder_stays_one_and_a_folder_may_be_named_by_a_dot(run, tmp_path, monkeypatch):
    (tmp_path / "disk" / "dataset").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "dataset")
    merge_outputs([run], tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in (tmp_path / "disk" / "dataset").iterdir()} == OWN_FILES
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    merge_outputs([run], ".")
    assert {path.name for path in (tmp_path / "here").iterdir()} == OWN_FILES


def test_a_link_to_itself_is_told(run, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match="loop is a link that leads round in a circle"):
        merge_outputs([run], tmp_path / "loop")
    with pytest.raises(StoreError, match=r"loop/sub: .*Choose a folder you may write"):
        merge_outputs([run], tmp_path / "loop" / "sub")


@pytest.mark.parametrize("wrong", ["min_object_size", "processes", "pieces_at_once"])
def test_numbers_that_cannot_be_are_refused(run, tmp_path, wrong):
    with pytest.raises(ConfigError, match=f"{wrong} must be a whole number of at least 1"):
        merge_outputs([run], tmp_path / "out", **{wrong: 0})


@pytest.mark.parametrize("wrong", [40, 0.405, float("nan")])
def test_a_threshold_that_cannot_be_is_refused_by_its_name(run, tmp_path, wrong):
    with pytest.raises(ConfigError, match=r"^threshold must be .* 0\.01 … 0\.99; got"):
        merge_outputs([run], tmp_path / "out", threshold=wrong)


@pytest.mark.parametrize(
    ("layers", "asked", "told"),
    [
        ([], {"model": "none"}, "model 'none': only those of all models together .* --write-model-outputs"),
        (["-rts-full", "-t40", "-rts-t40"], {"model": "none"}, "there are those of rts, rts-full. .*-model-outputs"),
        ([], {"threshold": 0.4}, "threshold 0.4: only those of the main one are there. .* --more-thresholds 0.4"),
        (["-t30", "-t70"], {"threshold": 0.4}, "there are those at 0.3, 0.7. .* --more-thresholds"),
        (["-rts", "-t40"], {"model": "rts", "threshold": 0.4}, "threshold 0.4: only those of the main one"),
    ],
)
def test_of_a_layer_that_no_tile_has_it_is_told_what_there_is_instead(run, tmp_path, layers, asked, told):
    for layer in layers:
        shutil.copy(run / "good" / SEGMENTS, run / "good" / f"prediction_segments{layer}.parquet")
    with pytest.raises(MissingDataError, match=told) as refusal:
        merge_outputs([run], tmp_path / "out", **asked)
    assert len(str(refusal.value)) < 290
    assert not (tmp_path / "out").exists()


HOLD = """
import sys
from pathlib import Path
from darts_export.dataset.target import new_dataset
with new_dataset(Path(sys.argv[1])) as folder:
    (folder / "level1.parquet").touch()
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_merge(tmp_path):
    """A merge into `out` in another process, in the middle of its work."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out"], **pipes) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_two_merges_never_write_one_folder_and_a_killed_one_leaves_nothing(run, other_merge, tmp_path):
    with pytest.raises(ConfigError, match=r"another merge writes .*out now"):
        merge_outputs([run], tmp_path / "out")
    other_merge.send_signal(signal.SIGKILL)
    other_merge.wait()
    assert not (tmp_path / "out").exists()
    assert any(path.name.endswith(".tmp") for path in tmp_path.iterdir())
    merge_outputs([run], tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == OWN_FILES


def test_a_full_disk_leaves_nothing_and_says_so(run, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(disk)]
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        for room_kib in (4, 16, 40, 100, 200, 300, 400, 480):
            subprocess.run(["mount", "-o", f"remount,size={room_kib}k", str(disk)], check=True)
            with pytest.raises(StoreError, match="Is the disk full"):
                merge_outputs([run], disk / "out")
            assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write .*file/out"):
        merge_outputs([run], tmp_path / "file" / "out")


def regions_file(path, *rows, crs=4326):
    names, shapes = zip(*rows, strict=True)
    gpd.GeoDataFrame({"name": names}, geometry=list(shapes), crs=crs).to_file(path)
    return path


@pytest.mark.parametrize(
    ("name", "says"), [("all", "'all'"), ("N-01200+00300", "uses itself"), (None, "without a name")]
)
def test_regions_that_the_summary_could_not_tell_are_refused(run, tmp_path, name, says):
    rows = (("Yukon", shapely.box(-140, 60, -130, 70)), (name, shapely.box(-140, 60, -130, 70)))
    with pytest.raises(ConfigError, match=says):
        merge_outputs([run], tmp_path / "out", regions=regions_file(tmp_path / "regions.gpkg", *rows))


def test_a_region_in_several_rows_counts_once(run, tmp_path):
    # And one in the plane of the pole, around the antimeridian, does not turn inside out.
    yukon = shapely.box(-140, 60, -130, 70)
    lonlat = gpd.GeoSeries(
        [yukon, yukon, shapely.segmentize(shapely.box(170, 60, 195, 75), 1)], crs=4326
    )  # fmt: skip
    rows = zip(("Yukon", "Yukon", "Chukotka"), lonlat.to_crs(3413), strict=True)
    regions = regions_file(Path(tmp_path, "regions.gpkg"), *rows, crs=3413)
    merge_outputs([run], tmp_path / "out", regions=regions)
    summary = pd.read_parquet(tmp_path / "out" / "summary.parquet").set_index(["region", "year"])
    assert summary.n_level2["Yukon", 2021] == 1
    assert summary.seen_km2["Yukon", 2021] == pytest.approx(summary.seen_km2["all", 2021], rel=1e-6)
    assert "Chukotka" not in summary.index


def test_worker_processes_end_with_a_merge_that_is_killed(tmp_path):
    script = tmp_path / "merge.py"
    script.write_text(
        "import time\n"
        "from functools import partial\n"
        "from darts_export.dataset.merging import _mapping\n"
        "if __name__ == '__main__':\n"
        "    with _mapping(2) as run:\n"
        "        list(run(partial(time.sleep), [0.1, 0.1]))\n"
        "        print('at work', flush=True)\n"
        "        list(run(partial(time.sleep), [600, 600]))\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as merge:
        assert merge.stdout.readline() == "at work\n"
        workers = [child for child in psutil.Process(merge.pid).children() if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == 2
        merge.kill()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []
