"""Pictures of scores: reliability diagram, precision over recall, scores over thresholds."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from darts_segmentation.training.scores.calibration import expected_calibration_error, reliability
from darts_segmentation.training.scores.pixels import ScoreHistogram
from darts_utils.store import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#7a4b94", "#777777"
"""Colours that colour-blind readers can tell apart."""


def write_pictures(pixels: ScoreHistogram, folder: Path | str) -> list[Path]:
    """Write the three pictures as PNG into a folder, and return their paths."""
    folder = Path(folder)
    return [
        draw_reliability(pixels, folder / "reliability.png"),
        draw_precision_recall(pixels, folder / "precision-recall.png"),
        draw_thresholds(pixels, folder / "thresholds.png"),
    ]


def draw_reliability(pixels: ScoreHistogram, path: Path | str, groups: int = 10) -> Path:
    """Draw the share of slump over the probability that was given, with the number of pixels below; return the path."""
    table = reliability(pixels, groups)
    figure = _figure(5.0, 6.0)
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="calibrated")
    upper.plot(table.confidence, table.share, color=BLUE, marker="o", label="model")
    error = expected_calibration_error(pixels, groups)
    upper.set(
        xlim=(0, 1), ylim=(0, 1), ylabel="share of slump", title="No pixel" if np.isnan(error) else
        f"Expected calibration error {error:.3f}",
    )  # fmt: skip
    upper.legend(loc="upper left", edgecolor="none")
    lower.bar(table.low, table.pixels, width=table.high - table.low, align="edge", color=BLUE, edgecolor="white")
    if table.pixels.size:
        lower.set_yscale("log")
        # A lone pixel in a group should show too.
        lower.set_ylim(bottom=0.5)
    lower.set(xlabel="probability", ylabel="pixels")
    return _write(figure, path)


def draw_precision_recall(pixels: ScoreHistogram, path: Path | str, marked: float = 0.5) -> Path:
    """Draw precision over recall, with the threshold `marked` and the one of the best F1; return the path."""
    curve = pixels.curve()
    figure = _figure(5.0, 5.0)
    axes = figure.subplots()
    axes.plot(curve.recall, curve.precision, color=BLUE)
    slump = int(pixels.positives.sum())
    if slump:
        base = slump / (slump + int(pixels.negatives.sum()))
        axes.axhline(base, color=GREY, linewidth=1, linestyle="--", label=f"chance ({base:.3f})")
        for threshold, colour, name in (
            (marked, ORANGE, "threshold"),
            (pixels.best_threshold(), GREEN, "best F1, threshold"),
        ):
            at = pixels.counts(threshold)
            label = f"{name} {threshold:g}: F1 {at.f1:.3f}"
            axes.plot(at.recall, at.precision, "o", color=colour, label=label, linestyle="none")
        axes.legend(loc="lower left", edgecolor="none")
    title = f"Average precision {pixels.average_precision:.3f}" if slump else "No slump"
    axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall", ylabel="precision", title=title)
    return _write(figure, path)


def draw_thresholds(pixels: ScoreHistogram, path: Path | str) -> Path:
    """Draw precision, recall, F1 and IoU over the threshold; return the path."""
    curve = pixels.curve()
    figure = _figure(6.0, 4.5)
    axes = figure.subplots()
    _lines(axes, curve.thresholds, {
        "precision": (curve.precision, ORANGE), "recall": (curve.recall, PURPLE), "F1": (curve.f1, BLUE),
        "IoU": (curve.iou, GREEN),
    })  # fmt: skip
    best = pixels.best_threshold()
    if not np.isnan(best):
        axes.axvline(best, color=GREY, linewidth=1, linestyle="--", label=f"best F1 at {best:g}")
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="threshold", ylabel="score", title="Pixels above a threshold")
    axes.legend(loc="lower center", ncols=3, edgecolor="none")
    return _write(figure, path)


def _lines(axes: "Axes", x: np.ndarray, lines: dict[str, tuple[np.ndarray, str]]) -> None:
    for label, (values, colour) in lines.items():
        axes.plot(x, values, label=label, color=colour)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    # Without pyplot: no state that outlives the picture, and no window.
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _write(figure: "Figure", path: Path | str) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(path)
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
