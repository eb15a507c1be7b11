"""Datasets that are asked for again, that grow, that fail in part, or that cannot be made."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import shapely

from darts.training import creating
from darts.training.creating import create_dataset
from darts.training.labels import LabelSet
from darts.training.options import CreateOptions
from darts.training.samples import sample_name
from darts.training.scenes import SceneSource
from darts_acquisition import IMPORT, scene_path
from darts_segmentation.training.patch_dataset import PatchDataset
from darts_utils.errors import ConfigError, MissingBandError, MissingDataError

from .slump_scenes import GRID, OPTIONS, SIZE, content, imported, label_set, true_slumps, write_stored


@pytest.fixture
def two_scenes(tmp_path: Path) -> tuple[LabelSet, SceneSource]:
    """Three footprints: two in one scene, one in another."""
    store = tmp_path / "store"
    write_stored(store, "left", grid=GRID[:, :60], slumps=true_slumps()[:, :60])
    write_stored(store, "right", grid=GRID[:, 60:], slumps=true_slumps()[:, 60:])
    boxes = {"a": (2, 2, 30, 40), "b": (20, 10, 58, 70), "c": (62, 45, 118, 88)}
    labels = label_set(tmp_path, {name: shapely.box(*box).exterior.coords for name, box in boxes.items()})
    return labels, imported(store)


def test_a_scene_is_loaded_once_for_all_its_footprints(
    two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, source = two_scenes
    loaded = []
    load = SceneSource.load
    monkeypatch.setattr(SceneSource, "load", lambda self, scene_id: loaded.append(scene_id) or load(self, scene_id))
    assert create_dataset(tmp_path / "ds", labels, source, OPTIONS).made == 3
    assert loaded == ["left", "right"]
    again = create_dataset(tmp_path / "ds", labels, source, OPTIONS)
    assert (again.there, again.made, again.n_patches) == (3, 0, 0)
    assert loaded == ["left", "right"]


def test_appending_and_resuming_give_what_one_call_gives(
    two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, source = two_scenes
    create_dataset(tmp_path / "whole", labels, source, OPTIONS)

    part = LabelSet(labels.labels, labels.footprints[:1], labels.agreement)
    create_dataset(tmp_path / "appended", part, source, OPTIONS)
    create_dataset(tmp_path / "appended", labels, source, OPTIONS)
    assert content(tmp_path / "appended") == content(tmp_path / "whole")

    def interrupted(*args: object, **options: object) -> Iterator[object]:
        made = original(*args, **options)
        yield next(made)
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(1)
        yield from made

    started: list[int] = []
    original = creating._patches
    monkeypatch.setattr(creating, "_patches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create_dataset(tmp_path / "resumed", labels, source, OPTIONS)
    monkeypatch.undo()
    assert 0 < len(PatchDataset.open(tmp_path / "resumed").samples) < 3
    create_dataset(tmp_path / "resumed", labels, source, OPTIONS)
    assert content(tmp_path / "resumed") == content(tmp_path / "whole")
    assert len(pd.read_parquet(tmp_path / "resumed" / "matches.parquet")) == 3


def test_a_sample_that_fails_is_noted_and_tried_again(two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path) -> None:
    labels, source = two_scenes
    chunk = next(f for f in (scene_path(tmp_path / "store", IMPORT, "left") / "nir" / "c").rglob("*") if f.is_file())
    (kept := tmp_path / "kept").write_bytes(chunk.read_bytes())
    chunk.unlink()
    heard = []
    summary = create_dataset(tmp_path / "ds", labels, source, OPTIONS, on_sample=heard.append)
    assert summary.made == 1
    assert summary.exit_code == 1
    assert [name for name, _ in summary.failed] == ["a@left", "b@left"]
    assert all("nir" in reason for _, reason in summary.failed)
    assert [sample.state for sample in heard] == ["failed", "failed", "patches"]
    states = PatchDataset.open(tmp_path / "ds").samples.set_index("sample_id").state
    assert states.to_dict() == {"a@left": "failed", "b@left": "failed", "c@right": "patches"}
    chunk.write_bytes(kept.read_bytes())
    summary = create_dataset(tmp_path / "ds", labels, source, OPTIONS)
    assert (summary.made, summary.there, summary.exit_code) == (2, 1, 0)
    assert set(PatchDataset.open(tmp_path / "ds").samples.state) == {"patches"}


def test_what_no_scene_fits_is_told(two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path) -> None:
    labels, source = two_scenes
    elsewhere = labels.footprints.copy()
    elsewhere.loc[2, "geometry"] = shapely.box(0, 0, 1, 1)
    summary = create_dataset(tmp_path / "ds", LabelSet(labels.labels, elsewhere), source, OPTIONS)
    assert summary.unmatched == ("c",)
    long_ago = labels.footprints.assign(time=pd.Timestamp("1999-01-01", tz="UTC"))
    with pytest.raises(MissingDataError, match=r"no scene fits any of 3 footprints: .*days apart"):
        create_dataset(tmp_path / "ds2", LabelSet(labels.labels, long_ago), source, OPTIONS)


@pytest.mark.parametrize(
    ("undated", "told"),
    [
        ([0, 1, 2], r"the labels have no date \(3\)\. Give their date \(--date 2021-08-21\), or .* \(--image-id\)$"),
        ([0], r"days apart.*Give the date of those without one \(1\).* widen --max-days"),
        ([], "widen --max-days"),
    ],
)
def test_where_labels_have_no_date_the_option_that_gives_one_is_told(
    two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path, undated: list[int], told: str
) -> None:
    labels, source = two_scenes
    footprints = labels.footprints.assign(time=pd.Timestamp("1999-01-01", tz="UTC"))
    footprints.loc[undated, "time"] = pd.NaT
    with pytest.raises(MissingDataError, match=told):
        create_dataset(tmp_path / "ds", LabelSet(labels.labels, footprints), source, OPTIONS)


def test_without_a_date_nothing_is_searched_and_that_is_told(
    two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path
) -> None:
    labels, source = two_scenes
    footprints = labels.footprints.assign(time=pd.Series([pd.NaT] * 3, dtype="datetime64[ns, UTC]"))
    searched = dataclasses.replace(source, find=lambda areas, options: [])  # as an archive is searched by date
    with pytest.raises(MissingDataError, match=r"the labels have no date\. Give their date \(--date"):
        create_dataset(tmp_path / "ds", LabelSet(labels.labels, footprints), searched, OPTIONS)


def test_a_dataset_of_another_form_is_not_mixed(two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path) -> None:
    labels, source = two_scenes
    create_dataset(tmp_path / "ds", labels, source, OPTIONS)
    for other in (
        CreateOptions(bands=["red"], patch_size=SIZE, overlap=16, min_labelled=0.01),
        CreateOptions(bands=OPTIONS.bands, patch_size=SIZE, overlap=16, min_labelled=0.01, label_buffer_m=10),
    ):
        with pytest.raises(ConfigError, match="another form"):
            create_dataset(tmp_path / "ds", labels, source, other)


def test_bands_that_cannot_be_made_are_named_before_anything_is_loaded(
    two_scenes: tuple[LabelSet, SceneSource], tmp_path: Path
) -> None:
    labels, source = two_scenes
    with pytest.raises(MissingBandError, match=r"^bands: 'planet_udm' cannot be made .* --bands of blue, "):
        create_dataset(tmp_path / "ds", labels, source, CreateOptions(bands=["red", "planet_udm"]))
    with pytest.raises(MissingBandError, match="did you mean 'slope'") as refusal:
        create_dataset(tmp_path / "ds", labels, source, CreateOptions(bands=["red", "slop", "foo"]))
    assert "model" not in str(refusal.value)
    assert len(str(refusal.value)) < 290
    assert not (tmp_path / "ds").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"bands": []}, {"bands": ["red", "red"]}, {"overlap": 256}, {"min_labelled": 2}, {"quality_level": 3},
     {"label_buffer_m": -1}, {"patch_size": 0, "overlap": 0}],
)  # fmt: skip
def test_options_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CreateOptions(**wrong)


def test_names_of_samples_are_names_of_files_and_never_shared() -> None:
    assert sample_name("20200722_081437_1032", "S2A_X") == "20200722_081437_1032@S2A_X"
    names = {sample_name("a/b", "s"), sample_name("a:b", "s"), sample_name("a-b", "s"), sample_name("é", "s")}
    names |= {sample_name("x" * 300, "s"), sample_name("x" * 300, "t")}
    assert len(names) == 6
    assert all(name.isascii() and len(name) < 200 and not set(name) & set("/\\: ") for name in names)


def test_a_dataset_tells_the_quality_level_the_same_way_by_number_and_name() -> None:
    assert CreateOptions(quality_level="high_quality").as_told == CreateOptions(quality_level=2).as_told
