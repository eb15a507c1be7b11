"""What goes wrong around a patch dataset: damage is told, kills and full disks cost nothing that was there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from darts_segmentation.training.patch_dataset import PatchDataset, PatchWriter
from darts_utils.errors import ConfigError, MissingDataError, StoreError

from . import patch_samples
from .good_patches import assert_same, copy, good
from .patch_samples import FORM, write_samples

__all__ = ["copy", "good"]

PROGRAM = Path(patch_samples.__file__)


def write_table(file: Path, **columns: object) -> None:
    """Write a table again with other values in some columns."""
    table = pq.read_table(file)
    for name, value in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array([value] * len(table)))
    pq.write_table(table, file)


DAMAGES: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "no-form": (lambda path: (path / "dataset.json").unlink(), MissingDataError, "holds no patch dataset"),
    "form-cut": (lambda path: (path / "dataset.json").write_text("{"), StoreError, "dataset.json is damaged"),
    "form-bare": (lambda path: (path / "dataset.json").write_text("{}"), StoreError, "dataset.json is damaged"),
    "form-later": (
        lambda path: (path / "dataset.json").write_text('{"kind": "darts patch dataset", "version": 2}'),
        StoreError, "version 2",
    ),
    "no-metadata": (lambda path: (path / "metadata.parquet").unlink(), MissingDataError, "metadata.parquet is missing"),
    "no-samples": (lambda path: (path / "samples.parquet").unlink(), MissingDataError, "samples.parquet is missing"),
    "metadata-cut": (
        lambda path: (path / "metadata.parquet").write_bytes((path / "metadata.parquet").read_bytes()[:-40]),
        StoreError, "metadata.parquet is damaged",
    ),
    "metadata-short": (
        lambda path: gpd.read_parquet(path / "metadata.parquet").iloc[:-1].to_parquet(path / "metadata.parquet"),
        StoreError, "do not fit each other",
    ),
    "metadata-of-others": (
        lambda path: shutil.copy(path / "samples.parquet", path / "metadata.parquet"), StoreError, "is damaged",
    ),
    "metadata-elsewhere": (
        lambda path: gpd.read_parquet(path / "metadata.parquet").to_crs(3413).to_parquet(path / "metadata.parquet"),
        StoreError, r"metadata.parquet is damaged: its geometry is in .*3413.*, not in EPSG:4326",
    ),
    "metadata-without-geometry": (
        lambda path: pd.DataFrame(gpd.read_parquet(path / "metadata.parquet").drop(columns="geometry")).to_parquet(
            path / "metadata.parquet"
        ),
        StoreError, "metadata.parquet is damaged",
    ),
    "metadata-of-bad-shapes": (
        lambda path: write_table(path / "metadata.parquet", geometry=b"no WKB"),
        StoreError, "metadata.parquet is damaged",
    ),
    "no-arrays": (lambda path: shutil.rmtree(path / "data.zarr"), MissingDataError, "data.zarr is missing"),
    "no-array": (lambda path: shutil.rmtree(path / "data.zarr/y"), StoreError, "y is damaged"),
    "array-cut": (lambda path: (path / "data.zarr/x/zarr.json").write_text("{"), StoreError, "x is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_told_when_the_dataset_is_opened(copy: Path, kind: str) -> None:
    damage, error, told = DAMAGES[kind]
    damage(copy)
    with pytest.raises(error, match=told):
        PatchDataset.open(copy)
    # Nor does a writer take it for something to begin anew.
    with pytest.raises((ConfigError, MissingDataError, StoreError)), PatchWriter(copy, FORM):
        pass


def test_damage_of_a_patch_is_told_when_it_is_read(copy: Path) -> None:
    first, second, third = (copy / f"data.zarr/x/c/{number}/0/0/0" for number in (2, 3, 4))
    first.unlink()
    second.write_bytes(second.read_bytes()[:100])
    content = bytearray(third.read_bytes())
    content[len(content) // 2] ^= 1
    third.write_bytes(content)
    dataset = PatchDataset.open(copy)
    for number in (2, 3, 4):
        with pytest.raises(StoreError, match=f"patch {number} is damaged"):
            dataset.read(number)
        dataset.read_labels(number)
    dataset.read(5)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("…")
    with pytest.raises(ConfigError, match=r"thesis\.txt"):
        PatchWriter(tmp_path, FORM)
    with pytest.raises(ConfigError, match="is a file"):
        PatchWriter(tmp_path / "thesis.txt", FORM)
    with pytest.raises(MissingDataError, match="holds no patch dataset"):
        PatchDataset.open(tmp_path / "nowhere")
    with pytest.raises(MissingDataError, match="holds no patch dataset"):
        PatchDataset.open(tmp_path / "thesis.txt")


def killed(how: str, folder: Path, count: int, number: int) -> int:
    """Run the program that kills writers, and return how many it killed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, str(PROGRAM), how, str(folder), str(count), str(number)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("stride", [90, pytest.param(4, marks=pytest.mark.slow)])
def test_a_kill_before_any_touch_of_the_folder_costs_nothing_that_was_there(tmp_path: Path, stride: int) -> None:
    kills = killed("kill_at_each_event", tmp_path, 2, stride)
    assert kills >= 180 // stride
    write_samples(tmp_path / "undisturbed", 2)
    for number in range(kills):
        assert_same(tmp_path / f"event-{number * stride}", tmp_path / "undisturbed")


@pytest.mark.slow
def test_kills_at_random_moments_cost_nothing_that_was_there(tmp_path: Path) -> None:
    count = 60
    kills = killed("kill_at_random", tmp_path / "patches", count, count)
    assert kills > 5
    write_samples(tmp_path / "undisturbed", count)
    assert_same(tmp_path / "patches", tmp_path / "undisturbed")


def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        with pytest.raises(StoreError, match=r"No space left.*make room"):
            write_samples(disk / "patches", 100)
        before = len(PatchDataset.open(disk / "patches").samples)
        assert 1 <= before < 100
        subprocess.run(["mount", "-o", "remount,size=5m", str(disk)], check=True)
        write_samples(disk / "patches", before + 5)
        write_samples(tmp_path / "undisturbed", before + 5)
        assert_same(disk / "patches", tmp_path / "undisturbed")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_folder_that_cannot_be_written_is_told(copy: Path) -> None:
    mount = ["mount", "--bind", "-o", "ro", str(copy), str(copy)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a folder that even root cannot write needs a mount")
    try:
        with pytest.raises(StoreError, match=r"Read-only.*folder you may write"), PatchWriter(copy, FORM):
            pass
        assert len(PatchDataset.open(copy)) == 10
    finally:
        subprocess.run(["umount", "-l", str(copy)], check=True)
