"""Checks of a dataset of patches: counts, leaks, statistics and pictures, against plain NumPy and planted faults."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from darts_segmentation.training.band_statistics import BandStatistics
from darts_segmentation.training.check_pictures import choose_patches, draw_bands, draw_patches
from darts_segmentation.training.checks import DatasetReport, check_dataset
from darts_segmentation.training.patch_dataset import DatasetForm, Patch, PatchDataset, PatchWriter, Sample
from darts_utils.errors import ConfigError, MissingDataError

from .patch_samples import FORM, patches_of, sample_of, write_samples

PLAIN = DatasetForm(bands=("red", "slope"), patch_size=8)


def patch_of(seed: int, *, west: float = -130.0, y: Any = None, **planes: Any) -> Patch:
    """A patch with one slump pixel and values well within their ranges, but for what is given."""
    rng = np.random.default_rng(seed)
    x = np.stack([rng.uniform(0.1, 0.2, (8, 8)), rng.uniform(1, 30, (8, 8))]).astype("float32")
    for place, name in enumerate(PLAIN.bands):
        if name in planes:
            x[place] = planes[name]
    labels = np.zeros((8, 8), "uint8") if y is None else np.asarray(y, "uint8")
    if y is None:
        labels[2, 3] = 1
    return Patch(x=x, y=labels, row=0, col=0, geometry=shapely.box(west, 70, west + 0.01, 70.01))


def written(folder: Path, samples: dict[str, Sequence[Patch]], form: DatasetForm = PLAIN) -> Path:
    with PatchWriter(folder, form) as writer:
        for name, patches in samples.items():
            writer.add(Sample(sample_id=name, region=name[0].upper()), patches)
    return folder


def checked(tmp_path: Path, *patches: Patch, **options: Any) -> DatasetReport:
    return check_dataset(written(tmp_path / "patches", {"a": patches}), **options)


def test_a_good_dataset_has_no_problems(tmp_path: Path) -> None:
    report = checked(tmp_path, *(patch_of(seed, west=-130 + seed) for seed in range(4)))
    assert report.problems == []
    assert report.total.patches == report.total.positive_patches == 4
    assert (report.total.background, report.total.slump, report.total.ignore) == (4 * 63, 4, 0)


def test_clouds_that_are_ignored_do_not_make_the_units_doubtful(tmp_path: Path) -> None:
    bright = np.full((8, 8), 0.15)
    bright[:2] = 0.9
    ignored = np.zeros((8, 8))
    ignored[2, 3] = 1
    ignored[:2] = 2
    report = checked(tmp_path, patch_of(0, red=bright, y=ignored), patch_of(1))
    assert report.problems == []
    assert (report.bands["red"].above, report.bands["red"].outside_share) == (16, 0.0)


def test_counts_are_those_of_plain_numpy(tmp_path: Path) -> None:
    write_samples(tmp_path / "patches", 12)
    splits = {"train": [0, 1, 2, 5], "val": [4]}
    seen: list[tuple[int, int]] = []
    report = check_dataset(tmp_path / "patches", splits, progress=lambda done, total: seen.append((done, total)))
    dataset = PatchDataset.open(tmp_path / "patches")
    xs, ys = (np.stack(values) for values in zip(*(dataset.read(n) for n in range(len(dataset))), strict=True))
    regions = dataset.metadata["region"].to_numpy()
    for counts, chosen in [
        (report.total, np.ones(len(ys), bool)),
        (report.regions["Peel Plateau"], regions == "Peel Plateau"),
        (report.regions["Banks Island"], regions == "Banks Island"),
        (report.splits["train"], np.isin(np.arange(len(ys)), splits["train"])),
    ]:
        assert counts.patches == chosen.sum()
        assert counts.positive_patches == (ys[chosen] == 1).any(axis=(1, 2)).sum()
        assert [counts.background, counts.slump, counts.ignore] == [(ys[chosen] == k).sum() for k in (0, 1, 2)]
    assert (report.total.samples, report.splits["train"].samples) == (12, 2)
    assert report.regions["Peel Plateau"].samples == dataset.metadata[regions == "Peel Plateau"]["sample_id"].nunique()
    assert report.sample_states == {"patches": 8, "failed": 2, "empty": 2}
    assert report.without_patches[0] == {"sample_id": "sample-004", "state": "failed", "reason": "no scene"}
    assert any("2 of 12 samples failed, 2 of them with 'no scene'" in problem for problem in report.problems)
    assert seen == [(n + 1, len(ys)) for n in range(len(ys))]
    for place, name in enumerate(FORM.bands):
        band, values = report.bands[name], xs[:, place].astype("float64")
        finite = values[np.isfinite(values)]
        low, high = np.float32(band.valid)
        assert (band.count, band.missing) == (finite.size, np.isnan(values).sum())
        assert (band.minimum, band.maximum) == (finite.min(), finite.max())
        np.testing.assert_allclose([band.mean, band.std], [finite.mean(), finite.std()], rtol=1e-9)
        told = values[np.isfinite(values) & (ys != 2)]
        assert band.outside_share == pytest.approx(((told < low) | (told > high)).mean(), nan_ok=True)
        assert sum(band.histogram) == ((finite >= low) & (finite <= high)).sum()
        assert band.missing_share == pytest.approx(np.isnan(values).mean())


special = [np.nan, np.inf, -np.inf, 0.5, float(np.float32(-0.1))]
numbers = st.one_of(st.floats(-0.5, 1.0, width=32), st.sampled_from(special))


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(hnp.arrays(np.float32, st.integers(0, 12), elements=numbers), max_size=6))
def test_statistics_of_parts_are_those_of_the_whole(parts: list[np.ndarray]) -> None:
    statistics = BandStatistics.of_band("red")
    for part in parts:
        statistics.add(part)
    whole = np.concatenate([*parts, np.empty(0, "float32")]).astype("float64")
    finite = whole[np.isfinite(whole)]
    assert (statistics.count, statistics.missing) == (finite.size, np.isnan(whole).sum())
    assert statistics.infinite == np.isinf(whole).sum()
    assert statistics.count == statistics.below + statistics.above + sum(statistics.histogram)
    if finite.size:
        np.testing.assert_allclose([statistics.mean, statistics.std], [finite.mean(), finite.std()], atol=1e-9)
        assert (statistics.minimum, statistics.maximum) == (finite.min(), finite.max())
        assert statistics.below == (finite < np.float32(-0.1)).sum()
        assert statistics.above == (finite > 0.5).sum()
    else:
        assert np.isnan(statistics.mean)


def test_the_spread_of_values_far_from_zero_keeps_its_digits() -> None:
    statistics = BandStatistics.of_band("dem")
    rng = np.random.default_rng(0)
    parts = [(2000 + 0.01 * rng.standard_normal(1000)).astype("float32") for _ in range(50)]
    for part in parts:
        statistics.add(part)
    assert statistics.std == pytest.approx(np.concatenate(parts).astype("float64").std(), rel=1e-6)


def gap_at(value: float) -> np.ndarray:
    plane = np.linspace(0.1, 0.2, 64).reshape(8, 8)
    plane[0, 0] = value
    return plane


@pytest.mark.parametrize(
    ("patches", "told"),
    [
        ([patch_of(0, red=0.1)], "band red is 0.1 everywhere"),
        ([patch_of(0, red=np.linspace(1, 2, 64).reshape(8, 8))], r"100.0% of its values outside -0.1 … 0.5"),
        ([patch_of(0, red=gap_at(np.inf), y=np.pad([[2]], ((0, 7), (0, 7))))], "band red has 1 infinite values"),
        ([patch_of(0, red=gap_at(np.nan))], r"1 patches have labels at pixels that lack a band.*\(0\)"),
        ([patch_of(0, red=np.nan, y=np.full((8, 8), 2))], "band red has no values at all"),
        ([patch_of(0), patch_of(1), patch_of(0)], r"1 pictures are there more than once \(0=2\)"),
        ([patch_of(0, y=np.zeros((8, 8)))], "no pixel is a slump"),
        ([patch_of(0, y=np.ones((8, 8)))], "no pixel is background"),
        ([], "there are no patches"),
        ([patch_of(n, red=np.nan, slope=np.nan, y=np.full((8, 8), 2)) for n in range(7)],
         r"7 patches have no value in any band \(0, 1, 2, 3, 4, …\)"),
    ],
)  # fmt: skip
def test_planted_faults_are_found(tmp_path: Path, patches: list[Patch], told: str) -> None:
    report = checked(tmp_path, *patches)
    with pytest.raises(AssertionError, match=told):
        raise AssertionError("; ".join(report.problems))


def test_aspect_may_be_missing_where_labels_are(tmp_path: Path) -> None:
    form = replace(PLAIN, bands=("red", "aspect"))
    patches = [patch_of(seed) for seed in range(2)]
    patches[0].x[1, 0, 0] = np.nan
    assert check_dataset(written(tmp_path / "patches", {"a": patches}, form)).problems == []


def test_leaks_and_what_is_in_several_splits_are_found(tmp_path: Path) -> None:
    samples = {
        "a": [patch_of(0, west=-130)], "b": [patch_of(1, west=-129.995)], "c": [patch_of(2, west=-120)],
        "d": [patch_of(0, west=-110)],
    }  # fmt: skip
    folder = written(tmp_path / "patches", samples)
    good = check_dataset(folder, {"train": [0, 1, 3], "val": [2]})
    assert good.leaks == []
    assert good.problems == ["1 pictures are there more than once (0=3)"]
    bad = check_dataset(folder, {"train": [0, 2], "val": [1, 3], "test": []})
    assert bad.leaks == [("a", "b")]
    assert bad.problems[0] == (
        "1 leaks between splits, whose scores will be too good: samples overlap (a and b)"
    )  # fmt: skip
    assert "1 pictures are in several splits (0=3)" in bad.problems
    assert "split test has no patches" in bad.problems
    with pytest.raises(ConfigError, match=r"split val names patch 4, but .* has 4 patches"):
        check_dataset(folder, {"train": [0], "val": [4]})


def test_a_split_without_slumps_is_told(tmp_path: Path) -> None:
    folder = written(tmp_path / "patches", {"a": [patch_of(0)], "b": [patch_of(1, west=0, y=np.zeros((8, 8)))]})
    assert check_dataset(folder, {"train": [0], "val": [1]}).problems == ["split val has no slumps"]


def test_damaged_patches_and_wrong_tables_are_told_and_the_rest_is_counted(tmp_path: Path) -> None:
    import geopandas as gpd

    folder = written(tmp_path / "patches", {"a": [patch_of(seed) for seed in range(4)]})
    (folder / "data.zarr/x/c/1/0/0/0").unlink()
    table = gpd.read_parquet(folder / "metadata.parquet")
    table.loc[2, "positive_share"] = 0.5
    table.to_parquet(folder / "metadata.parquet")
    report = check_dataset(folder)
    assert report.damaged == [1]
    assert report.total.patches == 3
    assert report.problems == [
        "1 patches cannot be read: their files are damaged or missing (1)",
        "1 patches have other shares of slumps or labels than the metadata say (2)",
    ]
    with pytest.raises(MissingDataError):
        check_dataset(tmp_path)


def test_a_report_is_plain_values(tmp_path: Path) -> None:
    told = checked(tmp_path, patch_of(0, red=np.nan, y=np.full((8, 8), 2))).to_dict()
    again = json.loads(json.dumps(told, allow_nan=False))
    assert again == told
    assert told["bands"]["red"]["mean"] is None
    assert told["bands"]["slope"]["count"] == 64
    assert told["regions"]["A"]["ignore"] == 64


def pixels(file: Path) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(file))


def test_pictures_show_labels_and_bands(tmp_path: Path) -> None:
    dataset_folder = tmp_path / "patches"
    form = DatasetForm(bands=("red", "green", "blue", "slope"), patch_size=32)
    y = np.zeros((32, 32), "uint8")
    y[8:20, 10:24] = 1
    x = np.full((4, 32, 32), 0.1, "float32")
    outline = shapely.box(-130, 70, -129, 71)
    plain = Patch(x=x, y=np.zeros_like(y), row=0, col=0, geometry=outline)
    x_missing, hidden = x.copy(), y.copy()
    x_missing[:, 24:], hidden[24:] = np.nan, 2
    with PatchWriter(dataset_folder, form) as writer:
        writer.add(sample_of(0), [plain, replace(plain, y=y), replace(plain, x=x_missing, y=hidden)])
    dataset = PatchDataset.open(dataset_folder)
    pictures = []
    for index in range(3):
        assert draw_patches(dataset, tmp_path / f"{index}.png", indices=[index]) == [index]
        pictures.append(pixels(tmp_path / f"{index}.png"))
    redness = [((p[..., 0] > 0.9) & (p[..., 1] < 0.4)).sum() for p in pictures]
    assert redness[0] == 0
    assert min(redness[1:]) > 100
    draw_bands(check_dataset(dataset_folder), tmp_path / "bands.png")
    assert pixels(tmp_path / "bands.png").std() > 0.02
    draw_patches(dataset, tmp_path / "all.svg")
    assert "<svg" in (tmp_path / "all.svg").read_text()


def test_patches_to_draw_are_chosen_by_chance_half_with_slumps(tmp_path: Path) -> None:
    patches = [patch_of(n, y=None if n % 4 == 0 else np.zeros((8, 8))) for n in range(40)]
    dataset = PatchDataset.open(written(tmp_path / "patches", {"a": patches}))
    chosen = choose_patches(dataset, 6, seed=1)
    assert len(set(chosen)) == 6
    assert sum(number % 4 == 0 for number in chosen) == 3
    assert choose_patches(dataset, 6, seed=1) == chosen
    assert choose_patches(dataset, 6, seed=2) != chosen
    few = choose_patches(dataset, 30, seed=1)
    assert sum(number % 4 == 0 for number in few) == 10
    assert len(few) == 30
    assert draw_patches(dataset, tmp_path / "p.png", count=2) == choose_patches(dataset, 2)


def test_nothing_to_draw_and_unknown_formats_are_told(tmp_path: Path) -> None:
    dataset = PatchDataset.open(written(tmp_path / "patches", {"a": []}))
    with pytest.raises(ConfigError, match="no patches to draw"):
        draw_patches(dataset, tmp_path / "p.png")
    one = PatchDataset.open(written(tmp_path / "one", {"a": [patch_of(0)]}))
    with pytest.raises(ConfigError, match=r"must end with one of .*\.png"):
        draw_patches(one, tmp_path / "p.docx")
    with pytest.raises(ConfigError, match="count"):
        draw_patches(one, tmp_path / "p.png", count=0)


def test_patches_of_many_samples_are_checked(tmp_path: Path) -> None:
    """The fixture's own samples have values outside the table's range, which is told for the bands of reflectance."""
    with PatchWriter(tmp_path / "patches", FORM) as writer:
        writer.add(sample_of(3), patches_of(3))
    told = " ".join(check_dataset(tmp_path / "patches").problems)
    assert "band red has" in told
    assert "band nir has" in told
