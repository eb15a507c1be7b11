"""Names of what a tile has several of: layers and files of single models, and of further thresholds."""

import math
import re
from collections.abc import Sequence

from darts_utils.errors import ConfigError

_LIKE_A_THRESHOLD = re.compile(r"(.*-)?t\d\d")


def threshold_suffix(threshold: float) -> str:
    """Return what the names of a further threshold's layers and files end with: "-t40" for 0.40.

    Raises:
        ConfigError: it is not a whole number of percent in 0.01 … 0.99.
    """
    percent = round(threshold * 100) if math.isfinite(threshold) else 0
    if not 1 <= percent <= 99 or abs(threshold * 100 - percent) > 1e-9:
        raise ConfigError(f"more_thresholds must be whole numbers of percent in 0.01 … 0.99, got {threshold!r}")
    return f"-t{percent:02d}"


def check_model_names(models: Sequence[str]) -> None:
    """Check that no model's layers could be taken for those of a threshold.

    Raises:
        ConfigError: a name ends like the suffix of one.
    """
    for model in models:
        if _LIKE_A_THRESHOLD.fullmatch(model):
            raise ConfigError(f"model name {model!r} ends like the suffix of a threshold; give its file another name")


def object_suffix(model: str = "", threshold: float | None = None) -> str:
    """Return the suffix of a model's layer of objects (empty: of all models) at a further threshold (None: the main).

    Raises:
        ConfigError: the threshold is not a whole number of percent in 0.01 … 0.99.
    """
    return (f"-{model}" if model else "") + ("" if threshold is None else threshold_suffix(threshold))


def object_suffixes(models: Sequence[str] = (), thresholds: Sequence[float] = ()) -> list[str]:
    """Return the suffixes of all layers of objects: "" and "-<model>", and both again with each further threshold."""
    return [object_suffix(model, threshold) for threshold in (None, *thresholds) for model in ("", *models)]
