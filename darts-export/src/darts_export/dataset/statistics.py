"""Statistics of joined objects, from those of their parts."""

from collections.abc import Mapping

import numpy as np

PROBABILITY = {
    "pval_mean": "mean", "pval_min": "min", "pval_max": "max", "pval_median": "median", "pval_std": "std",
}  # fmt: skip
"""Columns of the dataset, and of segments."""


def pooled(parts: Mapping[str, np.ndarray], weight: np.ndarray) -> dict[str, float]:
    """Return `pval_*` of the whole from those of its parts.

    The least and the largest are those of all parts. Mean and standard deviation are those of all pixels together,
    `weight` (number of pixels, or area) being what each part brings; parts without weight or without statistics do not
    count. Of the median only those of the parts are known: it is their weighted median.
    """
    whole = dict.fromkeys(PROBABILITY, np.nan)
    for name, extreme in (("pval_min", np.min), ("pval_max", np.max)):
        values = parts[name][np.isfinite(parts[name])]
        whole[name] = float(extreme(values)) if len(values) else np.nan
    known = (weight > 0) & np.isfinite(parts["pval_mean"])
    if not known.any():
        return whole
    part = {name: parts[name][known] for name in PROBABILITY}
    share = weight[known] / weight[known].sum()
    mean = float(share @ part["pval_mean"])
    variance = float(share @ (part["pval_std"] ** 2 + (part["pval_mean"] - mean) ** 2))
    return whole | {
        "pval_mean": mean,
        "pval_median": _weighted_median(part["pval_median"], share),
        "pval_std": float(np.sqrt(variance)),
    }


def weighted_mean(values: np.ndarray, weight: np.ndarray) -> float:
    """Return the weighted mean of the finite values, NaN without any."""
    known = (weight > 0) & np.isfinite(values)
    return float(weight[known] @ values[known] / weight[known].sum()) if known.any() else np.nan


def _weighted_median(values: np.ndarray, share: np.ndarray) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(share[order])
    at = int(np.searchsorted(reached, 0.5 - 1e-12))
    lower = values[order][min(at, len(values) - 1)]
    if at + 1 < len(values) and abs(reached[at] - 0.5) < 1e-12:
        return float((lower + values[order][at + 1]) / 2)
    return float(lower)
