"""Patch datasets on disk: what is written is read, appending and resuming are safe, damage is told."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal

from darts_segmentation.training.patch_dataset import DatasetForm, Patch, PatchDataset, PatchWriter, Sample
from darts_utils.errors import ConfigError, MissingBandError, MissingDataError, StoreError

from . import patch_samples
from .patch_samples import FORM, patches_of, sample_of, write_samples

PROGRAM = Path(patch_samples.__file__)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of six samples: 4, 1, 2 and 3 patches, a failed one, and an empty one."""
    folder = tmp_path_factory.mktemp("good") / "patches"
    write_samples(folder, 6)
    return folder


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    """The same, to be damaged at will."""
    return Path(shutil.copytree(good, tmp_path / "copy"))


def assert_same(one: Path, other: Path) -> None:
    """Tables, arrays and names of files are the same."""
    first, second = PatchDataset.open(one), PatchDataset.open(other)
    assert first.form == second.form
    assert_geodataframe_equal(first.metadata, second.metadata)
    assert_geodataframe_equal(first.samples, second.samples)
    for index in range(len(first)):
        for mine, theirs in zip(first.read(index), second.read(index), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    files = [{str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (one, other)]
    assert files[0] == files[1]


def test_what_was_written_is_read(good: Path) -> None:
    dataset = PatchDataset.open(good)
    assert len(dataset) == 10
    assert dataset.form == FORM
    expected = [patch for number in (0, 1, 2, 3) for patch in patches_of(number)]
    for index, patch in enumerate(expected):
        x, y = dataset.read(index)
        np.testing.assert_array_equal(x, patch.x)
        np.testing.assert_array_equal(y, patch.y)
        assert (x.dtype, y.dtype) == (np.float32, np.uint8)
        assert x.flags.writeable
        np.testing.assert_array_equal(dataset.read_labels(index), patch.y)
        row = dataset.metadata.iloc[index]
        assert row["positive_share"] == pytest.approx((patch.y == 1).sum() / (patch.y != 2).sum())
        assert row["labelled_share"] == pytest.approx((patch.y != 2).mean())
        assert row["col"] == patch.col
        assert row.geometry.equals(patch.geometry)
    assert dataset.metadata["patch"].tolist() == list(range(10))
    assert dataset.metadata["sample_id"].tolist() == [
        f"sample-00{number}" for number, count in enumerate((4, 1, 2, 3)) for _ in range(count)
    ]
    assert dataset.metadata["region"].iloc[4] == "Banks Island"
    assert dataset.metadata.crs == dataset.samples.crs == "EPSG:4326"


def test_the_samples_tell_what_became_of_them(good: Path) -> None:
    samples = PatchDataset.open(good).samples.set_index("sample_id")
    assert samples["state"].tolist() == ["patches"] * 4 + ["failed", "empty"]
    assert samples["n_patches"].tolist() == [4, 1, 2, 3, 0, 0]
    assert samples.loc["sample-004", "reason"] == "no scene"
    assert samples.loc["sample-002", "days"] == 4.0
    assert np.isnan(samples.loc["sample-002", "score"])
    assert samples.loc["sample-003", "score"] == 0.25
    assert samples.loc["sample-001"].geometry.equals(sample_of(1).footprint)


def test_other_programs_can_read_the_files(good: Path) -> None:
    import xarray as xr

    arrays = xr.open_zarr(good / "data.zarr", consolidated=False)
    assert arrays["x"].dims == ("patch", "band", "y", "x")
    assert arrays["x"].shape == (10, 3, 16, 16)
    assert arrays["y"].shape == (10, 16, 16)
    assert len(gpd.read_parquet(good / "metadata.parquet")) == 10
    assert json.loads((good / "dataset.json").read_text())["bands"] == ["red", "nir", "slope"]


def test_bands_are_chosen_by_name_and_in_order(good: Path) -> None:
    dataset = PatchDataset.open(good)
    x, _ = dataset.read(3)
    np.testing.assert_array_equal(dataset.read(3, ["slope", "red"])[0], x[[2, 0]])
    assert dataset.read(3, ["nir"])[0].shape == (1, 16, 16)
    np.testing.assert_array_equal(dataset.read(-1)[0], dataset.read(9)[0])
    with pytest.raises(MissingBandError, match="no band blue; it has red, nir, slope"):
        dataset.read(3, ["red", "blue"])
    for index in (10, -11):
        with pytest.raises(IndexError, match="10 patches"):
            dataset.read(index)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_dataset_is_read_by_other_processes(good: Path, method: str) -> None:
    dataset = PatchDataset.open(good)
    here = [dataset.read(index) for index in range(len(dataset))]  # zarr has threads now, which a fork loses
    with ProcessPoolExecutor(1 if method == "spawn" else 2, mp_context=get_context(method)) as pool:
        there = list(pool.map(dataset.read, range(len(here)), timeout=100))  # the dataset goes with its method
    for (x, y), (same_x, same_y) in zip(here, there, strict=True):
        np.testing.assert_array_equal(x, same_x)
        np.testing.assert_array_equal(y, same_y)


def test_an_empty_dataset_is_one(tmp_path: Path) -> None:
    with PatchWriter(tmp_path / "new", FORM) as writer:
        assert not writer.has("sample-000")
    dataset = PatchDataset.open(tmp_path / "new")
    assert len(dataset) == 0
    assert dataset.metadata["sample_id"].tolist() == []


def test_appending_gives_what_writing_at_once_gives(good: Path, tmp_path: Path) -> None:
    for count in (1, 2, 5, 6, 6):
        write_samples(tmp_path / "patches", count)
    assert_same(tmp_path / "patches", good)


def test_a_patch_of_missing_values_alone_is_kept(tmp_path: Path) -> None:
    patch = Patch(
        x=np.full((3, 16, 16), np.nan, "float32"), y=np.full((16, 16), 2, "uint8"), row=0, col=0,
        geometry=shapely.box(0, 60, 1, 61),
    )  # fmt: skip
    for number in range(2):  # in arrays that are new, and in ones that are there
        with PatchWriter(tmp_path / "patches", FORM) as writer:
            assert writer.add(replace(sample_of(0), sample_id=str(number)), [patch]) == 1
    dataset = PatchDataset.open(tmp_path / "patches")
    assert np.isnan(dataset.read(1)[0]).all()
    assert dataset.metadata["positive_share"].tolist() == [0.0, 0.0]


def test_a_sample_whose_patches_fail_leaves_nothing(good: Path, tmp_path: Path) -> None:
    def failing(patches: Iterator[Patch]) -> Iterator[Patch]:
        yield next(patches)
        raise RuntimeError("the scene is damaged")

    with PatchWriter(tmp_path / "patches", FORM) as writer:
        for number in range(6):
            sample = sample_of(number)
            if sample.state == "failed":
                writer.note(sample)
                continue
            if number < 4:
                with pytest.raises(RuntimeError, match="damaged"):
                    writer.add(sample, failing(patches_of(number)))
                assert not writer.has(sample.sample_id)
            writer.add(sample, patches_of(number))
    assert_same(tmp_path / "patches", good)


def test_a_sample_that_failed_may_come_again(copy: Path) -> None:
    with PatchWriter(copy, FORM) as writer:
        assert writer.state_of("sample-004") == "failed"
        writer.note(replace(sample_of(4), reason="no scene, again"))
        assert writer.add(replace(sample_of(4), state="patches", reason=""), patches_of(4)) == 4
        assert writer.state_of("sample-004") == "patches"
    dataset = PatchDataset.open(copy)
    assert len(dataset) == 14
    assert dataset.samples["sample_id"].tolist()[-2:] == ["sample-005", "sample-004"]
    np.testing.assert_array_equal(dataset.read(13)[0], list(patches_of(4))[-1].x)


def test_a_sample_is_not_added_twice(copy: Path) -> None:
    with PatchWriter(copy, FORM) as writer:
        with pytest.raises(ConfigError, match=r"sample-001.*already"):
            writer.add(sample_of(1), patches_of(1))
        with pytest.raises(ConfigError, match=r"sample-001.*already"):
            writer.note(replace(sample_of(1), state="failed"))
        with pytest.raises(ConfigError, match="only empty and failed"):
            writer.note(sample_of(7))
    with pytest.raises(ConfigError, match="with block"):
        writer.add(sample_of(7), patches_of(7))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"x": np.zeros((2, 16, 16), "float32")}, r"x of a patch must be float32 \(3, 16, 16\), got float32 \(2"),
        ({"x": np.zeros((3, 16, 16))}, "got float64"),
        ({"y": np.zeros((16, 15), "uint8")}, r"y of a patch must be uint8 \(16, 16\), got uint8 \(16, 15\)"),
        ({"y": np.full((16, 16), 3, "uint8")}, "0, 1 and 2 only, got 3"),
    ],
)
def test_patches_that_do_not_fit_are_refused(copy: Path, change: dict[str, Any], told: str) -> None:
    with PatchWriter(copy, FORM) as writer, pytest.raises(ConfigError, match=told):
        writer.add(replace(sample_of(1), sample_id="new"), [replace(next(patches_of(1)), **change)])
    assert len(PatchDataset.open(copy)) == 10


def test_a_dataset_of_another_form_refuses_more(good: Path) -> None:
    other = replace(FORM, bands=("red", "nir"), overlap=5, options={"buffer": 3, "more": True})
    with pytest.raises(ConfigError) as caught:
        PatchWriter(good, other)
    message = str(caught.value)
    for told in ("bands: ('red', 'nir', 'slope') against ('red', 'nir')", "overlap: 4 against 5",
                 "options.buffer: 2 against 3", "options.more: not set against True"):  # fmt: skip
        assert told in message
    assert "patch_size" not in message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bands": ()}, "at least one band"),
        ({"bands": ("red", "purple")}, "'purple' is not in the band table"),
        ({"bands": ("red", "red")}, "more than once"),
        ({"patch_size": 7}, "patch_size must be a whole number of at least 8"),
        ({"patch_size": 16.0}, "patch_size"),
        ({"overlap": 16}, "overlap must be smaller"),
        ({"overlap": -1}, "overlap"),
        ({"terrain_convention": "old"}, "terrain_convention"),
        ({"pixel_m": 0.0}, "pixel_m"),
        ({"pixel_m": float("nan")}, "pixel_m"),
        ({"options": {"where": Path()}}, "plain values"),
        ({"options": {"share": float("nan")}}, "plain values"),
    ],
)
def test_forms_are_checked(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        replace(FORM, **change)


def test_samples_are_checked() -> None:
    with pytest.raises(ConfigError, match="sample_id"):
        Sample(sample_id="")
    with pytest.raises(ConfigError, match="state"):
        Sample(sample_id="a", state="done")  # type: ignore[arg-type]


def test_a_form_is_what_was_written_whatever_the_kind_of_sequence(tmp_path: Path) -> None:
    form = DatasetForm(bands=["red"], patch_size=np.int64(8), options={"pairs": (1, 2)})  # type: ignore[arg-type]
    with PatchWriter(tmp_path / "patches", form):
        pass
    assert PatchDataset.open(tmp_path / "patches").form == form
    with PatchWriter(tmp_path / "patches", form):
        pass


def test_a_second_writer_is_refused_and_a_later_one_is_not(copy: Path) -> None:
    with PatchWriter(copy, FORM) as writer:
        with pytest.raises(ConfigError, match="another process writes the dataset"), PatchWriter(copy, FORM):
            pass
        writer.add(replace(sample_of(3), sample_id="still"), patches_of(3))
    with PatchWriter(copy, FORM) as writer:
        assert writer.has("still")


def test_readers_see_whole_samples_while_a_writer_writes(copy: Path) -> None:
    def watched(patches: Iterator[Patch]) -> Iterator[Patch]:
        for patch in patches:
            yield patch
            assert len(PatchDataset.open(copy)) == 10

    with PatchWriter(copy, FORM) as writer:
        writer.add(replace(sample_of(3), sample_id="new"), watched(patches_of(3)))
        assert len(PatchDataset.open(copy)) == 13
        # Metadata that are ahead of the samples, as between two steps of the writer.
        shutil.copy(copy / "samples.parquet", copy / "old")
        writer.add(replace(sample_of(2), sample_id="newer"), patches_of(2))
        (copy / "old").replace(copy / "samples.parquet")
        assert len(PatchDataset.open(copy)) == 13


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


@pytest.mark.parametrize("stride", [60, pytest.param(4, marks=pytest.mark.slow)])
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
