import hashlib
import os
import random
import shutil
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from darts.cli import run_command_line
from darts.records.ledger import Ledger, Outcome, RunEnd, RunStart
from darts.records.run_lock import hold_output
from darts.records.sharding import Shard
from darts.records.verify import Verification, verify_output
from darts_export import export_tile
from darts_utils.store import replacing

BANDS = ("probabilities", "binarized", "polygonized", "extent", "thumbnail", "metadata")
LONG_AGO = 1_700_000_000

Put = Callable[..., Path]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small tile."""
    shape = (40, 50)
    found = np.zeros(shape, bool)
    found[10:20, 10:25] = True
    layers = {
        **{name: np.full(shape, level, "float32") for name, level in (("red", 0.07), ("green", 0.06), ("blue", 0.03))},
        "quality_data_mask": np.full(shape, 2, "uint8"),
        "extent": np.ones(shape, bool),
        "probabilities": np.where(found, 0.8, 0.1).astype("float32"),
        "binarized_segmentation": found,
    }
    coords = xr_coords(GeoBox(shape, Affine(10, 0, 5e5, 0, -10, 7.6e6), "EPSG:32608"))
    tile = xr.Dataset({name: (("y", "x"), values) for name, values in layers.items()}, coords=coords)
    folder = export_tile(tile, tmp_path_factory.mktemp("exported") / "tile", bands=BANDS)
    assert len(list(folder.iterdir())) == 9
    return folder


@pytest.fixture
def put(exported: Path) -> Put:
    """Return a function that puts a finished tile into an output folder, and into its ledger."""

    def put(output: Path, tile_id: str, place: str | None = None, *, record: bool = True, **more: Any) -> Path:
        folder = output / (place or tile_id)
        shutil.copytree(exported, folder)
        os.utime(folder, (LONG_AGO, LONG_AGO))
        if record:
            Ledger(output).append(outcome_of(folder, tile_id, **more))
        return folder

    return put


def outcome_of(folder: Path, tile_id: str, **more: Any) -> Outcome:
    fields = {"output_path": str(folder), "status": "success", "files": files_of(folder)} | more
    return Outcome(tile_id=tile_id, **fields)


def files_of(folder: Path) -> dict[str, tuple[int, str]]:
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in sorted(contents.items())}


def told(result: Verification) -> list[tuple[str, str, str]]:
    return [(finding.tile_id, finding.file, finding.what) for finding in result.findings]


def remarks(result: Verification) -> list[tuple[str, str, str]]:
    return [(remark.tile_id, remark.file, remark.what) for remark in result.remarks]


def everything(folder: Path) -> dict[str, tuple[float, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*")
    }


@pytest.mark.parametrize("quick", [False, True])
def test_an_output_folder_as_it_was_written_is_clean_and_stays_as_it_is(tmp_path: Path, put: Put, quick: bool) -> None:
    for tile_id in ("a", "b"):
        put(tmp_path, tile_id)
    (tmp_path / "collection.json").write_text("{}")
    (tmp_path / "2026-07-01T12-30-00Z.results.parquet").write_text("none of a tile's")
    before = everything(tmp_path)
    seen: list[tuple[int, int]] = []
    result = verify_output(tmp_path, quick=quick, on_tile=lambda done, total: seen.append((done, total)))
    assert (result.findings, result.remarks) == ((), ())
    assert (result.tiles, result.files) == (2, 18)
    assert result.n_bytes == sum(path.stat().st_size for name in "ab" for path in (tmp_path / name).iterdir())
    assert seen == [(1, 2), (2, 2)]
    assert everything(tmp_path) == before


def _flip_a_bit(path: Path, content: bytes) -> None:
    place = random.randrange(len(content))
    path.write_bytes(content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :])


DAMAGES: list[tuple[str, bool, Callable[[Path, bytes], object]]] = [
    *[("changed", False, _flip_a_bit)] * 4,
    ("wrong size", True, lambda path, content: path.write_bytes(content[: random.randrange(len(content))])),
    ("wrong size", True, lambda path, content: path.write_bytes(content[:-1])),
    ("wrong size", True, lambda path, content: path.write_bytes(content + b"\n")),
    ("wrong size", True, lambda path, content: path.write_bytes(b"")),
    ("missing", True, lambda path, content: None),
    ("missing", True, lambda path, content: path.mkdir()),
    ("missing", True, lambda path, content: path.symlink_to("nowhere")),
]
"""Finding, whether sizes alone tell, and what does the damage to a file that was taken away."""


def test_every_damage_of_every_file_is_found(tmp_path: Path, put: Put) -> None:
    random.seed(3)
    for number, (_, _, damage) in enumerate(DAMAGES):
        for path in put(tmp_path, f"tile{number:02d}").iterdir():
            content = path.read_bytes()
            path.unlink()
            damage(path, content)
    names = sorted(files_of(put(tmp_path, "whole")))
    for quick in (False, True):
        expected = [
            (f"tile{number:02d}", name, what)
            for number, (what, seen_by_size, _) in enumerate(DAMAGES)
            for name in names
            if seen_by_size or not quick
        ]
        assert told(verify_output(tmp_path, quick=quick)) == expected


@pytest.mark.parametrize("name", ["probabilities.tif", "prediction_segments.gpkg", "prediction_extent.parquet"])
def test_a_file_that_was_damaged_when_it_was_recorded_is_found_by_opening_it(
    tmp_path: Path, put: Put, name: str
) -> None:
    folder = put(tmp_path, "a", record=False)
    (folder / name).write_bytes((folder / name).read_bytes()[:-100])
    Ledger(tmp_path).append(outcome_of(folder, "a"))
    assert told(verify_output(tmp_path)) == [("a", name, "unreadable")]
    assert told(verify_output(tmp_path, quick=True)) == []


def test_a_folder_that_is_gone_is_found(tmp_path: Path, put: Put) -> None:
    for tile_id in ("a", "b"):
        put(tmp_path, tile_id)
    shutil.rmtree(tmp_path / "a")
    assert told(verify_output(tmp_path)) == [("a", "", "gone")]
    (tmp_path / "a").touch()
    assert told(verify_output(tmp_path, quick=True)) == [("a", "", "gone")]


def test_the_newest_record_of_a_tile_counts(tmp_path: Path, put: Put) -> None:
    folder = put(tmp_path, "a", finished="2026-01-01T00:00:00+00:00")
    (folder / "thumbnail.jpg").write_bytes((folder / "thumbnail.jpg").read_bytes()[:-2] + b" \xff\xd9")
    assert told(verify_output(tmp_path)) == [("a", "thumbnail.jpg", "wrong size")]
    for status in ("success", "failed", "skipped"):  # the last two leave the files as they were
        files = files_of(folder) if status == "success" else {}
        Ledger(tmp_path, Shard(1, 2)).append(
            outcome_of(folder, "a", status=status, finished="2026-01-02T00:00:00+00:00", files=files)
        )
        assert told(verify_output(tmp_path)) == []


# ---- where the tiles lie ---------------------------------------------------------------------------------------------

PLACES = {
    "scene": "scene",  # a Planet scene, or a Sentinel-2 scene
    "4372514/scene": "4372514/scene",  # an orthotile that has the same last name
    "4372514/other": "4372514/other",
    "flat": "its own",  # pipelines that name folders otherwise than tiles
    "named": "region/of/its own",
}


@pytest.mark.parametrize("how", ["stays", "moved", "copied", "linked", "relative", "deeper"])
def test_an_output_folder_that_was_moved_or_copied_is_checked_where_it_is(
    tmp_path: Path, put: Put, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "else" / "where"
    old.mkdir()
    new.parent.mkdir()
    monkeypatch.chdir(tmp_path)
    for tile_id, place in PLACES.items():
        more = {"output_path": f"old/{place}"} if how == "relative" else {}
        put(old, tile_id, place, **more)
    if how == "copied":
        shutil.copytree(old, new)
        shutil.rmtree(old / "scene")
    elif how == "linked":
        new.symlink_to(old)
    elif how == "deeper":
        new = old / "backup"
        shutil.copytree(old, tmp_path / "backup")
        shutil.move(tmp_path / "backup", new)
        shutil.rmtree(old / "scene")
    elif how == "stays":
        new = old
    else:
        old.rename(new)
    result = verify_output(new)
    assert (told(result), remarks(result), result.files) == ([], [], 45)
    (new / "4372514/scene/binarized.tif").unlink()
    shutil.rmtree(new / "4372514/other")
    assert told(verify_output(new)) == [("4372514/scene", "binarized.tif", "missing"), ("4372514/other", "", "gone")]
    (new / "region/of/its own/thumbnail.jpg").unlink()
    assert told(verify_output(new))[2:] == [("named", "thumbnail.jpg", "missing")]
    (new / "its own/thumbnail.jpg").unlink()
    shutil.rmtree(new / "region")
    assert told(verify_output(new))[2] == ("flat", "thumbnail.jpg", "missing")
    if how in ("stays", "linked"):  # otherwise nothing tells that a folder of the same name is another tile's
        assert told(verify_output(new))[3:] == [("named", "", "gone")]
    shutil.rmtree(new / "its own")
    # The scene of the same name is not taken for the orthotile that is gone.
    shutil.rmtree(new / "4372514/scene")
    (new / "scene/thumbnail.jpg").unlink()
    assert told(verify_output(new)) == [
        ("scene", "thumbnail.jpg", "missing"), ("4372514/scene", "", "gone"), ("4372514/other", "", "gone"),
        ("flat", "", "gone"), ("named", "", "gone"),
    ]  # fmt: skip


# ---- remarks ---------------------------------------------------------------------------------------------------------


def test_files_that_nobody_recorded_are_remarks(tmp_path: Path, put: Put) -> None:
    folder = put(tmp_path, "a")
    (folder / "probabilities.tif.aux.xml").write_text("of QGIS")
    result = verify_output(tmp_path)
    assert told(result) == []
    assert remarks(result) == [("a", "probabilities.tif.aux.xml", "extra")]


def test_what_killed_writers_left_is_a_remark_and_stays(tmp_path: Path, put: Put) -> None:
    put(tmp_path, "4372514/scene")
    left = [".b.0123abcd.tmp", ".collection.json.0123abcd.tmp", "4372514/.x.tif.ffffffff.tmp"]
    (tmp_path / left[0]).mkdir()
    for name in left[1:]:
        (tmp_path / name).touch()
    for name in (".hidden", ".b.tmp", "b.0123abcd.tmp"):
        (tmp_path / name).touch()
    result = verify_output(tmp_path)
    assert told(result) == []
    assert remarks(result) == [(name, "", "leftover") for name in left]
    assert all((tmp_path / name).exists() for name in left)
    with hold_output(tmp_path):  # they may be what this run just writes
        assert remarks(verify_output(tmp_path)) == []


@pytest.mark.parametrize("quick", [False, True])
def test_tiles_that_are_there_and_not_recorded_are_remarks(tmp_path: Path, put: Put, quick: bool) -> None:
    put(tmp_path, "of an earlier version", files={})
    put(tmp_path, "killed/before it was recorded", record=False)
    Ledger(tmp_path).append(RunStart(run="r", started="", tiles=("killed/before it was recorded", "never made")))
    put(tmp_path, "of nobody", record=False)
    put(tmp_path, "killed/of nobody", record=False)
    (tmp_path / "logs").mkdir()
    (tmp_path / "killed" / "empty").mkdir()
    result = verify_output(tmp_path, quick=quick)
    assert told(result) == []
    assert sorted(remarks(result)) == [
        (tile_id, "", "not recorded")
        for tile_id in ("killed/before it was recorded", "killed/of nobody", "of an earlier version", "of nobody")
    ]


def test_a_tile_of_an_earlier_version_is_opened_and_missed(tmp_path: Path, put: Put) -> None:
    folder = put(tmp_path, "damaged", files={})
    (folder / "binarized.tif").write_bytes(b"II*\0")
    shutil.rmtree(put(tmp_path, "gone", files={}))
    shutil.rmtree(put(tmp_path, "failed", files={}, status="failed"))
    assert told(verify_output(tmp_path)) == [("damaged", "binarized.tif", "unreadable"), ("gone", "", "gone")]


# ---- while runs are at work ------------------------------------------------------------------------------------------


def start_now(*tiles: str, run: str = "now", **more: Any) -> RunStart:
    started = datetime.now(UTC).isoformat()
    return RunStart(run=run, started=started, tiles=tiles, host=socket.gethostname(), pid=os.getpid(), **more)


def test_a_tile_that_a_run_just_writes_is_no_finding(tmp_path: Path, put: Put) -> None:
    for tile_id in ("damaged before", "made again", "in between", "done in this run", "of nobody"):
        put(tmp_path, tile_id)
    with hold_output(tmp_path):
        Ledger(tmp_path).append(start_now("damaged before", "made again", "in between", "done in this run"))
        for tile_id in ("damaged before", "made again", "done in this run", "of nobody"):
            (tmp_path / tile_id / "thumbnail.jpg").write_bytes(b"something else")
        for tile_id in ("made again", "done in this run", "of nobody"):
            os.utime(tmp_path / tile_id)
        Ledger(tmp_path).append(
            outcome_of(tmp_path / "of nobody", "done in this run", run="now", status="skipped", files={})
        )
        (tmp_path / "in between").rename(tmp_path / ".in between.0123abcd.tmp")
        result = verify_output(tmp_path)
    assert sorted(told(result)) == [
        (tile_id, "thumbnail.jpg", "wrong size") for tile_id in ("damaged before", "done in this run", "of nobody")
    ]
    assert sorted(remarks(result)) == [("in between", "", "at work"), ("made again", "", "at work")]
    assert len(told(verify_output(tmp_path))) == 5  # the run is over


def test_tiles_that_are_made_again_and_again_are_never_findings(tmp_path: Path, put: Put) -> None:
    names = [f"tile{n}" for n in range(4)]
    for name in names:
        put(tmp_path, name)
    over = threading.Event()
    problems: list[BaseException] = []

    def make_again() -> None:
        try:
            with hold_output(tmp_path):
                for number in range(12):
                    Ledger(tmp_path).append(start_now(*names, run=f"run{number}"))
                    for name in names:
                        folder = tmp_path / name
                        with replacing(folder) as temporary:
                            temporary.mkdir()
                            (temporary / "darts_inference.json").write_text(f'{{"number": "{"9" * number}"}}')
                        Ledger(tmp_path).append(outcome_of(folder, name, run=f"run{number}"))
                    Ledger(tmp_path).append(RunEnd(run=f"run{number}", finished=datetime.now(UTC).isoformat()))
        except BaseException as error:
            problems.append(error)
        finally:
            over.set()

    writer = threading.Thread(target=make_again)
    writer.start()
    rounds = 0
    while not over.is_set():
        assert told(verify_output(tmp_path)) == []
        rounds += 1
    writer.join()
    assert problems == []
    assert rounds > 1
    assert told(verify_output(tmp_path)) == []


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_names_what_is_wrong_and_its_exit_code_tells(
    tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = put(tmp_path, "a")
    assert run_command_line(["verify", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("1 tile, 9 files and 0.000 GB checked: 0 findings\n")
    assert err == ""
    (folder / "binarized.tif").unlink()
    (folder / "notes.txt").touch()
    thumbnail = bytearray((folder / "thumbnail.jpg").read_bytes())
    thumbnail[100] ^= 1
    (folder / "thumbnail.jpg").write_bytes(thumbnail)
    put(tmp_path, "b\n[red]\x1b")
    shutil.rmtree(tmp_path / "b\n[red]\x1b")
    assert run_command_line(["verify", str(tmp_path)]) == 1
    out, _ = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "missing a binarized.tif"
    assert lines[1].startswith("changed a thumbnail.jpg SHA-256")
    assert lines[2].startswith("gone b [red]\\x1b no folder")
    assert "remarks" in lines
    assert "extra a notes.txt the ledger does not tell of it" in lines
    assert "3 findings in 2 tiles" in out
    assert "Remove the folders of these tiles" in out
    assert run_command_line(["verify", str(tmp_path), "--quick"]) == 1
    assert "changed" not in capsys.readouterr().out
