"""Patch datasets on disk: what is written is read, appending is safe, and what does not fit is refused."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from darts_segmentation.training.patch_dataset import DatasetForm, Patch, PatchDataset, PatchWriter, Sample
from darts_utils.errors import ConfigError, MissingBandError

from .good_patches import assert_same, copy, good
from .patch_samples import FORM, patches_of, sample_of, write_samples

__all__ = ["copy", "good"]


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


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
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
