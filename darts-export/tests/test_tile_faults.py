"""Where a tile's folder is written: what is replaced and what never, and failures, kills and full disks."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from darts_export import DEFAULT_BANDS, export_tile, missing_outputs
from darts_export import products as product_table
from darts_utils.errors import StoreError

from .test_tiles import contents


def test_an_existing_folder_is_replaced(tile, tmp_path):
    folder = export_tile(tile, tmp_path / "tile", ["probabilities"])
    (folder / "old.txt").write_text("old")
    export_tile(tile, folder, ["binarized"])
    assert [path.name for path in folder.iterdir()] == ["binarized.tif"]


@pytest.mark.parametrize("name", ["wow!", "50 % #2?", "a'b\"c;", "überall.zip"])
def test_a_folder_of_any_name_is_written(tile, tmp_path, name):
    bands = ["probabilities", "polygonized", "stac"]
    folder = export_tile(tile, tmp_path / name / name, bands)
    assert missing_outputs(folder, bands) == "none"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_holds_more_than_a_tile_is_never_replaced(tile, tmp_path, monkeypatch):
    (tmp_path / "out" / "a-tile").mkdir(parents=True)
    with pytest.raises(StoreError, match="it holds the folder a-tile"):
        export_tile(tile, tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out" / "a-tile")
    for here in (".", "", "..", tmp_path / "out" / "a-tile"):
        with pytest.raises(StoreError, match="it holds the folder you work in"):
            export_tile(tile, here)
    assert (tmp_path / "out" / "a-tile").is_dir()


@pytest.mark.parametrize("old", [True, False])
def test_a_failure_half_way_leaves_what_was_there_and_nothing_new(tile, tmp_path, monkeypatch, old):
    folder = tmp_path / "tile"
    if old:
        export_tile(tile, folder, ["probabilities"])
    before = contents(folder) if old else None

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(product_table, "write_geopackage", fail)
    with pytest.raises(StoreError, match="No space left"):
        export_tile(tile, folder)
    assert (contents(folder) if folder.exists() else None) == before
    assert list(tmp_path.iterdir()) == ([folder] if old else [])


def test_a_file_that_came_out_damaged_never_gets_its_name(tile, tmp_path, monkeypatch):
    def cut_short(path, *_):
        path.write_bytes(b"PAR1")

    monkeypatch.setattr(product_table, "write_parquet", cut_short)
    with pytest.raises(StoreError, match=r"prediction_extent\.parquet came out damaged"):
        export_tile(tile, tmp_path / "tile", ["extent"])
    assert not list(tmp_path.iterdir())


def test_a_kill_in_the_middle_leaves_nothing_that_counts(tile, tmp_path):
    script = """
        import pathlib, pickle, sys, time
        from darts_export import export_tile, products

        def stall(*_):
            beside = pathlib.Path(sys.argv[1]).parent
            while not any(file.stat().st_size for file in beside.glob(".tile.*.tmp/probabilities.tif")):
                time.sleep(0.01)  # products are written side by side
            print("half way", flush=True)
            time.sleep(60)

        products.vectors.extent = stall
        export_tile(pickle.load(sys.stdin.buffer), sys.argv[1], ["probabilities", "extent"])
    """
    folder, bands = tmp_path / "tile", ["probabilities", "extent"]
    command = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(pickle.dumps(tile))
        process.stdin.close()
        assert process.stdout.readline() == b"half way\n"
        assert list(tmp_path.glob(".tile.*.tmp/probabilities.tif"))
        os.kill(process.pid, signal.SIGKILL)
    assert missing_outputs(folder, bands) == "all"
    export_tile(tile, folder, bands)
    assert missing_outputs(folder, bands) == "none"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_folder_or_none(tile, tmp_path):
    script = """
        import pickle, sys
        from darts_export import export_tile

        tile = pickle.load(sys.stdin.buffer)
        while True:
            export_tile(tile, sys.argv[1])
            print("written", flush=True)
    """
    expected = contents(export_tile(tile, tmp_path / "expected" / "tile"))
    rng = np.random.default_rng(0)
    for trial in range(3):
        folder = tmp_path / str(trial) / "tile"
        command = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdin.write(pickle.dumps(tile))
            process.stdin.close()
            assert process.stdout.readline() == b"written\n"
            time.sleep(rng.uniform(0, 1))
            os.kill(process.pid, signal.SIGKILL)
        state = missing_outputs(folder)
        assert state in ("all", "none")
        assert (contents(folder) if folder.exists() else None) == (expected if state == "none" else None)
        export_tile(tile, folder)
        assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("room_kib", "bands", "debug"),
    [
        *((room, [*DEFAULT_BANDS, "optical"], False) for room in (64, 160, 240, 320)),
        *((4, [band], False) for band in ("probabilities", "optical", "polygonized", "extent", "thumbnail", "report")),
        # HDF5 ends the process with a segmentation fault where it cannot write as it closes.
        *((room, ["metadata"], True) for room in (8, 20, 100)),
    ],
)
def test_a_full_disk_leaves_nothing_and_says_so(tile, tmp_path, room_kib, bands, debug):
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room_kib}k", "tmpfs", str(tmp_path)]
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        with pytest.raises(StoreError, match=r"/tile: [^?]*\. Is the disk full\?$"):
            export_tile(tile, tmp_path / "tile", bands, debug=debug)
        assert not list(tmp_path.iterdir())
        assert missing_outputs(tmp_path / "tile") == "all"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_file_in_the_folders_place_is_an_error(tile, tmp_path):
    (tmp_path / "tile").write_text("mine")
    with pytest.raises(StoreError, match="a file has this name"):
        export_tile(tile, tmp_path / "tile")
    assert (tmp_path / "tile").read_text() == "mine"
