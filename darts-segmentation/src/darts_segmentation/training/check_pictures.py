"""Pictures of a dataset of patches: what patches show, with their labels, and how the values of bands lie."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darts_segmentation.training.patch_form import IGNORE, SLUMP
from darts_utils.bands import band
from darts_utils.errors import ConfigError
from darts_utils.numbers import whole_number
from darts_utils.store import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from darts_segmentation.training.checks import DatasetReport
    from darts_segmentation.training.patch_dataset import PatchDataset

NATURAL = ("red", "green", "blue")
BRIGHTEST = 0.25
"""Reflectance that is shown white; the same in every patch, so that they can be compared."""
MISSING_COLOUR = (0.35, 0.2, 0.45)
SLUMP_COLOUR, HATCH_COLOUR = "#ff2d2d", "#777777"
BAR_COLOUR, MEAN_COLOUR = "#4477aa", "#cc3311"


def draw_patches(
    dataset: "PatchDataset", file: Path, *, indices: Sequence[int] | None = None, count: int = 16, seed: int = 0
) -> list[int]:
    """Draw patches with their labels into an image file, and return which.

    Natural colours with one fixed stretch where the dataset has them, else its first band in grey. Slumps are outlined
    in red, what is ignored is pale and hatched, missing pixels are violet.

    Args:
        dataset: to draw from.
        file: its ending decides about the format.
        indices: of the patches; None: those of `choose_patches`.
        count: how many.
        seed: of the choice.

    Raises:
        ConfigError: there is nothing to draw.
        StoreError: the file cannot be written, or a patch is damaged.
    """
    chosen = choose_patches(dataset, count, seed=seed) if indices is None else [int(index) for index in indices]
    if not chosen:
        raise ConfigError(f"there are no patches to draw in {dataset.folder}")
    columns = min(math.ceil(math.sqrt(len(chosen))), 6)
    rows = math.ceil(len(chosen) / columns)
    figure = _new_figure(columns * 2.6, rows * 2.95 + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, index in zip(panels, chosen, strict=False):
        _draw_patch(panel, dataset, index)
    for panel in panels[len(chosen) :]:
        panel.axis("off")
    figure.suptitle("Slumps outlined in red; pale and hatched: ignored; violet: missing", fontsize=9)
    _save(figure, file)
    return chosen


def choose_patches(dataset: "PatchDataset", count: int, *, seed: int = 0) -> list[int]:
    """Return `count` patches at random (fewer where there are fewer), half of them with slumps where there are enough.

    Raises:
        ConfigError: `count` is no whole number of at least 1.
    """
    count = whole_number("count", count, 1)
    order = np.random.default_rng(seed).permutation(len(dataset))
    has_slumps = dataset.metadata["positive_share"].to_numpy()[order] > 0
    slumps, others = order[has_slumps], order[~has_slumps]
    n_slumps = min(len(slumps), max(count - len(others), (count + 1) // 2))
    return sorted(int(number) for number in [*slumps[:n_slumps], *others[: count - n_slumps]])


def draw_bands(report: "DatasetReport", file: Path) -> None:
    """Draw the values of each band within its valid range, and what lies outside, into an image file.

    Raises:
        StoreError: the file cannot be written.
    """
    columns = min(len(report.bands), 4)
    rows = math.ceil(len(report.bands) / columns)
    figure = _new_figure(columns * 3.2, rows * 2.3 + 0.4)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (name, statistics) in zip(panels, report.bands.items(), strict=False):
        low, high = statistics.valid
        edges = np.linspace(low, high, len(statistics.histogram) + 1)
        panel.stairs(np.array(statistics.histogram) / max(statistics.count, 1), edges, fill=True, color=BAR_COLOUR)
        if statistics.count:
            panel.axvline(statistics.mean, color=MEAN_COLOUR, linewidth=1.2)
            spread = (statistics.mean - statistics.std, statistics.mean + statistics.std)
            panel.axvspan(*spread, color=MEAN_COLOUR, alpha=0.12, linewidth=0)
            panel.set_xlabel(
                f"{statistics.minimum:.4g} … {statistics.maximum:.4g}; {statistics.missing_share:.1%} missing, "
                f"{statistics.outside_share:.1%} outside",
                fontsize=7,
            )
        else:
            panel.set_xlabel("no values", fontsize=7)
        units = band(name).units
        panel.set_title(name if units == "1" else f"{name} ({units})", fontsize=9)
        panel.set_xlim(low, high)
        panel.set_yticks([])
        panel.tick_params(labelsize=7)
    for panel in panels[len(report.bands) :]:
        panel.axis("off")
    figure.suptitle("Values within the valid range; red: mean and standard deviation", fontsize=9)
    _save(figure, file)


def _draw_patch(panel: "Axes", dataset: "PatchDataset", index: int) -> None:
    x, y = dataset.read(index)
    panel.imshow(_picture(dataset.form.bands, x), interpolation="nearest")
    # Contours run through pixel centres, so the outermost pixels need neighbours.
    ignore = (np.pad(y, 1, mode="edge") == IGNORE).astype(float)
    slump = np.pad(y == SLUMP, 1).astype(float)
    at = np.arange(-1, y.shape[0] + 1)
    if ignore.any():
        pale = np.zeros((*y.shape, 4))
        pale[..., :3], pale[..., 3] = 1.0, 0.45 * (y == IGNORE)
        panel.imshow(pale, interpolation="nearest")
        if not ignore.all():
            hatched = panel.contourf(at, at, ignore, levels=[0.5, 1.5], colors="none", hatches=["////"])
            hatched.set(edgecolor=HATCH_COLOUR, linewidth=0)
    if slump.any():
        panel.contour(at, at, slump, levels=[0.5], colors=[SLUMP_COLOUR], linewidths=0.9)
    panel.set_xlim(-0.5, y.shape[1] - 0.5)
    panel.set_ylim(y.shape[0] - 0.5, -0.5)
    panel.set_xticks([])
    panel.set_yticks([])
    row = dataset.metadata.iloc[index]
    where = " · ".join(str(value) for value in (row["region"], str(row["acquisition_time"])[:10]) if value)
    panel.set_title(f"{index}: {_short(row['sample_id'])}\n{_short(where)}", fontsize=6.5, pad=3)


def _picture(bands: Sequence[str], x: np.ndarray) -> np.ndarray:
    """Return a patch as red, green and blue, 0 … 1."""
    if set(NATURAL) <= set(bands):
        shown = np.stack([x[list(bands).index(name)] for name in NATURAL], axis=-1) / BRIGHTEST
    else:
        low, high = band(bands[0]).valid
        shown = np.repeat((x[0, ..., None] - low) / (high - low), 3, axis=-1)
    missing = ~np.isfinite(shown).all(axis=-1)
    # A gamma lets dark tundra be seen.
    shown = np.clip(np.nan_to_num(shown), 0, 1) ** (1 / 1.6)
    shown[missing] = MISSING_COLOUR
    return shown


def _short(text: Any) -> str:
    told = str(text)
    return told if len(told) <= 34 else f"{told[:20]}…{told[-13:]}"


def _new_figure(width: float, height: float) -> "Figure":
    # Without pyplot, which keeps every figure and may want a screen.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", file: Path) -> None:
    file = Path(file)
    formats = sorted(figure.canvas.get_supported_filetypes())
    kind = file.suffix.lstrip(".").lower()
    if kind not in formats:
        raise ConfigError(f"{file} must end with one of .{', .'.join(formats)}")
    with replacing(file) as temporary:
        figure.savefig(temporary, format=kind, dpi=130)
