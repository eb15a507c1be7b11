"""What a dataset of patches holds, and what is wrong with it; read patch by patch, in bounded memory."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from darts_segmentation.training.band_statistics import BandStatistics
from darts_segmentation.training.cutting import NOT_ASKED
from darts_segmentation.training.patch_dataset import PatchDataset
from darts_segmentation.training.patch_form import BACKGROUND, IGNORE, SLUMP
from darts_segmentation.training.splits import overlapping_samples
from darts_utils.errors import ConfigError, StoreError

OUTSIDE_SHARE = 0.01
"""With more of a band's values outside its valid range, its units are doubtful."""
SHOWN = 5
"""So many examples are named in a problem."""


@dataclass
class PatchCounts:
    """How many samples, patches and pixels there are, of a region, a split, or all."""

    samples: int = 0
    patches: int = 0
    positive_patches: int = 0
    """Patches with slumps."""
    background: int = 0
    """Pixels."""
    slump: int = 0
    ignore: int = 0

    def add(self, pixels: np.ndarray) -> None:
        """Count a patch by its pixels of each class."""
        self.patches += 1
        self.positive_patches += bool(pixels[SLUMP])
        self.background += int(pixels[BACKGROUND])
        self.slump += int(pixels[SLUMP])
        self.ignore += int(pixels[IGNORE])


@dataclass
class DatasetReport:
    """What `check_dataset` found."""

    folder: str
    form: dict[str, Any]
    total: PatchCounts = field(default_factory=PatchCounts)
    regions: dict[str, PatchCounts] = field(default_factory=dict)
    splits: dict[str, PatchCounts] = field(default_factory=dict)
    """Empty where no splits were given."""
    sample_states: dict[str, int] = field(default_factory=dict)
    without_patches: list[dict[str, str]] = field(default_factory=list)
    """sample_id, state and reason of samples that are empty or failed."""
    bands: dict[str, BandStatistics] = field(default_factory=dict)
    duplicates: list[list[int]] = field(default_factory=list)
    """Patches that show exactly the same."""
    leaks: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of samples in different splits that overlap."""
    damaged: list[int] = field(default_factory=list)
    """Patches that cannot be read."""
    problems: list[str] = field(default_factory=list)
    """What is wrong or doubtful, a sentence each; the most serious first."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report in plain values, as JSON has them; a number that does not exist is None."""
        told: dict[str, Any] = _plain(asdict(self))
        return told


@dataclass
class _Notes:
    """What is noticed on the way."""

    pictures: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(list))
    unlabelled_gaps: list[int] = field(default_factory=list)
    other_classes: list[int] = field(default_factory=list)
    other_shares: list[int] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)


def check_dataset(
    folder: Path,
    splits: Mapping[str, Any] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetReport:
    """Return what a dataset holds and what is wrong with it.

    Args:
        folder: of the dataset.
        splits: name to patch numbers; leaks between them are looked for.
        progress: called with patches read and patches in all.

    Raises:
        MissingDataError: the folder holds no dataset.
        StoreError: its tables are damaged; single patches that are damaged are reported.
        ConfigError: a split names a patch that is not there.
    """
    dataset = PatchDataset.open(folder)
    samples = dataset.samples
    report = DatasetReport(str(folder), asdict(dataset.form))
    report.bands = {name: BandStatistics.of_band(name) for name in dataset.form.bands}
    report.sample_states = {str(state): int(count) for state, count in Counter(samples["state"]).items()}
    report.without_patches = [
        {name: str(row[name]) for name in ("sample_id", "state", "reason")}
        for _, row in samples.loc[samples["n_patches"] == 0].iterrows()
    ]
    for name, numbers in (splits or {}).items():
        if beyond := [int(number) for number in numbers if not 0 <= number < len(dataset)]:
            raise ConfigError(f"split {name} names patch {beyond[0]}, but {folder} has {len(dataset)} patches")
    report.leaks = overlapping_samples(dataset.metadata, splits or {})
    counts_of = _count_groups(report, dataset, splits or {})
    notes = _Notes()
    for number in range(len(dataset)):
        _check_patch(dataset, number, report, counts_of, notes)
        if progress is not None:
            progress(number + 1, len(dataset))
    report.duplicates = [numbers for numbers in notes.pictures.values() if len(numbers) > 1]
    report.problems = _problems(report, notes, splits or {})
    return report


def _count_groups(
    report: DatasetReport, dataset: PatchDataset, splits: Mapping[str, Any]
) -> "list[list[PatchCounts]]":  # fmt: skip
    """Return for each patch what it counts in; the samples are counted already."""
    metadata = dataset.metadata
    regions = metadata["region"].astype(str).tolist()
    report.regions = {name: PatchCounts() for name in sorted(set(regions))}
    report.splits = {name: PatchCounts() for name in splits}
    counts_of = [[report.total, report.regions[region]] for region in regions]
    for name, numbers in splits.items():
        for number in np.asarray(numbers, int):
            counts_of[number].append(report.splits[name])
        report.splits[name].samples = metadata["sample_id"].iloc[np.asarray(numbers, int)].nunique()
    report.total.samples = len(dataset.samples)
    for name, count in metadata.groupby("region")["sample_id"].nunique().items():
        report.regions[str(name)].samples = int(count)
    return counts_of


def _check_patch(
    dataset: PatchDataset, number: int, report: DatasetReport, counts_of: "list[list[PatchCounts]]", notes: _Notes
) -> None:
    try:
        x, y = dataset.read(number)
    except StoreError:
        report.damaged.append(number)
        return
    pixels = np.bincount(y.ravel(), minlength=IGNORE + 1)
    for counts in counts_of[number]:
        counts.add(pixels)
    for name, plane in zip(dataset.form.bands, x, strict=True):
        report.bands[name].add(plane, y != IGNORE)
    finite = np.isfinite(x)
    asked = [name not in NOT_ASKED for name in dataset.form.bands]
    if (~finite[asked].all(axis=0) & (y != IGNORE)).any():
        notes.unlabelled_gaps.append(number)
    if pixels[IGNORE + 1 :].any():
        notes.other_classes.append(number)
    labelled = pixels[BACKGROUND] + pixels[SLUMP]
    row = dataset.metadata.iloc[number]
    told = (row["positive_share"], row["labelled_share"])
    if not np.allclose(told, (pixels[SLUMP] / max(labelled, 1), labelled / y.size), atol=1e-9):
        notes.other_shares.append(number)
    if finite.any():
        notes.pictures[hashlib.blake2b(x.tobytes(), digest_size=16).digest()].append(number)
    else:
        notes.empty.append(number)


def _problems(report: DatasetReport, notes: _Notes, splits: Mapping[str, Any]) -> list[str]:
    found = [
        _of_patches(report.damaged, "cannot be read: their files are damaged or missing"),
        _of_patches(notes.other_classes, "have labels other than 0, 1 and 2"),
        _of_patches(notes.other_shares, "have other shares of slumps or labels than the metadata say"),
        _of_patches(notes.unlabelled_gaps, "have labels at pixels that lack a band; inference never looks there"),
        _of_patches(notes.empty, "have no value in any band"),
        _leak_problem(report),
        *_duplicate_problems(report, splits),
        *_class_problems(report),
        *(problem for name, band in report.bands.items() for problem in _band_problems(name, band)),
    ]
    failed = [row for row in report.without_patches if row["state"] == "failed"]
    if failed:
        reason, count = Counter(row["reason"] or "no reason given" for row in failed).most_common(1)[0]
        found.append(f"{len(failed)} of {report.total.samples} samples failed, {count} of them with {reason!r}")
    return [problem for problem in found if problem]


def _of_patches(numbers: list[int], what: str) -> str:
    return f"{len(numbers)} patches {what} ({_examples(numbers)})" if numbers else ""


def _examples(things: Any) -> str:
    shown = [str(thing) for thing in things[:SHOWN]]
    return ", ".join([*shown, "…"] if len(things) > SHOWN else shown)


def _leak_problem(report: DatasetReport) -> str:
    if not report.leaks:
        return ""
    pairs = [f"{one} in several splits" if one == other else f"{one} and {other}" for one, other in report.leaks]
    return f"{len(pairs)} leaks between splits, whose scores will be too good: samples overlap ({_examples(pairs)})"


def _duplicate_problems(report: DatasetReport, splits: Mapping[str, Any]) -> list[str]:
    split_of = {int(number): name for name, numbers in splits.items() for number in numbers}
    astride = [group for group in report.duplicates if len({split_of.get(n) for n in group} - {None}) > 1]
    groups = ["=".join(map(str, group)) for group in report.duplicates]
    between = ["=".join(map(str, group)) for group in astride]
    return [
        f"{len(between)} pictures are in several splits ({_examples(between)})" if between else "",
        f"{len(groups)} pictures are there more than once ({_examples(groups)})" if groups else "",
    ]


def _class_problems(report: DatasetReport) -> list[str]:
    if not report.total.patches:
        return ["there are no patches"]
    problems = []
    if not report.total.slump:
        problems.append("no pixel is a slump")
    if not report.total.background:
        problems.append("no pixel is background")
    for name, counts in report.splits.items():
        if not counts.patches:
            problems.append(f"split {name} has no patches")
        elif not counts.slump:
            problems.append(f"split {name} has no slumps")
    return problems


def _band_problems(name: str, band: BandStatistics) -> list[str]:
    problems = []
    if band.infinite:
        problems.append(f"band {name} has {band.infinite} infinite values")
    if not band.count:
        if band.missing:
            problems.append(f"band {name} has no values at all")
        return problems
    if band.minimum == band.maximum:
        problems.append(f"band {name} is {band.minimum:g} everywhere: nothing can be learned from it")
    if band.outside_share > OUTSIDE_SHARE:
        low, high = band.valid
        problems.append(
            f"band {name} has {band.outside_share:.1%} of its values outside {low:g} … {high:g} (they go from "
            f"{band.minimum:g} to {band.maximum:g}): is it in the units of the band table?"
        )
    return problems


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
