"""Losses of one class against the rest: from logits, in single precision or better, ignored pixels in no sum.

Each takes logits, targets in 0 … 1 (soft ones too) and which pixels are labelled, all of one shape, and returns a
scalar. Sums run over all labelled pixels of the batch: a patch without slumps would have no Dice of its own. A batch
without labelled pixels gives 0, with a gradient of 0.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional

from darts_utils.errors import ConfigError

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits, targets in 0 … 1 and labelled (bool), all (batch, y, x), to a scalar."""


def bce(
    logits: torch.Tensor, target: torch.Tensor, labelled: torch.Tensor, *, positive_weight: float = 1.0
) -> torch.Tensor:
    """Return the mean binary cross-entropy; slumps count `positive_weight` times."""
    logits, target = _labelled_only(logits, target, labelled)
    weight = torch.tensor(positive_weight, dtype=logits.dtype, device=logits.device)
    each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=weight)
    return _mean(each, labelled)


def focal(
    logits: torch.Tensor,
    target: torch.Tensor,
    labelled: torch.Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
) -> torch.Tensor:
    """Return the mean focal loss −α_t (1 − p_t)^γ log p_t, of Lin et al. 2017, arXiv:1708.02002, equation 5.

    Slumps are weighted by `alpha` and all else by 1 − `alpha`; None leaves weights out. With a soft target it is the
    mean over both classes, each as likely as the target says.
    """
    logits, target = _labelled_only(logits, target, labelled)
    log_p, log_q = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    positive = -torch.exp(gamma * log_q) * log_p
    negative = -torch.exp(gamma * log_p) * log_q
    weights = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    return _mean(weights[0] * target * positive + weights[1] * (1 - target) * negative, labelled)


def dice(
    logits: torch.Tensor, target: torch.Tensor, labelled: torch.Tensor, *, smooth: float = 1.0
) -> torch.Tensor:  # fmt: skip
    """Return 1 − (2 TP + s) / (2 TP + FP + FN + s), of Milletari et al. 2016, arXiv:1606.04797.

    `smooth` (s) pixels found rightly are added, so that a batch without slumps has a gradient too.
    """
    # (TP + s/2) / (TP + FP/2 + FN/2 + s/2), twice above and below.
    return tversky(logits, target, labelled, alpha=0.5, beta=0.5, smooth=smooth / 2)


def tversky(
    logits: torch.Tensor,
    target: torch.Tensor,
    labelled: torch.Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
    smooth: float = 1.0,
) -> torch.Tensor:
    """Return (1 − (TP + s) / (TP + α FP + β FN + s))^γ, of Salehi et al. 2017, arXiv:1706.05721.

    `alpha` weighs what was found wrongly and `beta` what was missed; `gamma` other than 1 makes it the focal Tversky
    loss of Abraham and Khan 2019, arXiv:1810.07842, whose exponent is 1/γ.
    """
    logits, target = _labelled_only(logits, target, labelled)
    found = torch.where(labelled, torch.sigmoid(logits), 0)
    # min(p, t) is p·t where targets are hard, and where they are soft its loss is least at p = t, which that of p·t
    # is not (Wang et al. 2023, arXiv:2303.16296).
    right = torch.minimum(found, target)
    total = right.sum()
    wrong, missed = (found - right).sum(), (target - right).sum()
    # A smooth of 0 leaves 0/0 where there is nothing to find and nothing found.
    least = torch.finfo(total.dtype).tiny
    miss = 1 - (total + smooth) / (total + alpha * wrong + beta * missed + smooth).clamp(min=least)
    # The slope of a power below 1 has no end at 0.
    return miss if gamma == 1 else miss.clamp(min=torch.finfo(miss.dtype).eps) ** gamma


def lovasz(logits: torch.Tensor, target: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    """Return the Lovász hinge of the Jaccard index, of Berman et al. 2018, arXiv:1705.08790, algorithm 1.

    Targets above 0.5 count as slumps: a hinge knows only two sides.
    """
    logits, target = _labelled_only(logits, target, labelled)
    truth = (target > 0.5) & labelled
    errors = 1 - logits * torch.where(truth, 1.0, -1.0).to(logits.dtype)
    # Ignored pixels come last of all, where the hinge is 0 and nothing comes after.
    errors = torch.where(labelled, errors, -torch.inf).flatten()
    errors, order = errors.sort(descending=True, stable=True)
    with torch.no_grad():
        # The steps are differences of ratios that are close to 1; float32 would round many of them to 0.
        slump = truth.flatten()[order].to(torch.float64)
        count = slump.sum()
        jaccard = 1 - (count - slump.cumsum(0)) / (count + (1 - slump).cumsum(0))
        steps = jaccard.diff(prepend=jaccard.new_zeros(1)).to(errors.dtype)
    return torch.dot(functional.relu(errors), steps)


LOSSES: Mapping[str, Callable[..., torch.Tensor]] = MappingProxyType(
    {"bce": bce, "focal": focal, "dice": dice, "tversky": tversky, "lovasz": lovasz}
)
"""Losses by name."""


class TotalLoss:
    """A weighted sum of losses.

    Args:
        weights: how much each counts, by its name in `LOSSES`.
        arguments: what a loss is told besides, by its name: {"tversky": {"alpha": 0.2, "beta": 0.8}}.

    Raises:
        ConfigError: a loss or an argument is unknown, or a number cannot work.
    """

    def __init__(
        self, weights: Mapping[str, float], arguments: Mapping[str, Mapping[str, float]] | None = None
    ) -> None:
        arguments = arguments or {}
        if unknown := [name for name in (*weights, *arguments) if name not in LOSSES]:
            raise ConfigError(f"losses: {unknown[0]!r} is unknown; known losses: {', '.join(LOSSES)}")
        if idle := [name for name in arguments if name not in weights]:
            raise ConfigError(f"loss_arguments: {idle[0]!r} is not among the losses ({', '.join(weights)})")
        for name, weight in weights.items():
            if not (_is_number(weight) and weight > 0):
                raise ConfigError(f"losses: the weight of {name!r} must be a number above 0, got {weight!r}")
        if not weights:
            raise ConfigError(f"losses: none is named; choose of {', '.join(LOSSES)}")
        self._parts = [
            (float(weight), _with_arguments(name, arguments.get(name, {}))) for name, weight in weights.items()
        ]

    def __call__(self, logits: torch.Tensor, target: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
        """Return the sum; under autocast too it is computed in single precision."""
        with torch.autocast(logits.device.type, enabled=False):
            parts = [weight * loss(logits, target, labelled) for weight, loss in self._parts]
        return torch.stack(parts).sum()


def _labelled_only(
    logits: torch.Tensor, target: torch.Tensor, labelled: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both in single precision or better, 0 where ignored: what stood there, NaN too, reaches no gradient."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return torch.where(labelled, logits.to(dtype), 0), torch.where(labelled, target.to(dtype), 0)


def _mean(each: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    return torch.where(labelled, each, 0).sum() / labelled.sum().clamp(min=1)


def _with_arguments(name: str, arguments: Mapping[str, Any]) -> Loss:
    loss = LOSSES[name]
    known = [key for key, row in inspect.signature(loss).parameters.items() if row.kind is row.KEYWORD_ONLY]
    for key, value in arguments.items():
        if key not in known:
            raise ConfigError(
                f"loss_arguments: {name!r} takes no {key!r}; it takes {', '.join(known) or 'no arguments'}"
            )
        if not (_is_number(value) and value >= 0):
            raise ConfigError(f"loss_arguments: {key!r} of {name!r} must be a number of at least 0, got {value!r}")
    if name == "focal" and (arguments.get("alpha") or 0) > 1:
        raise ConfigError(f"loss_arguments: 'alpha' of 'focal' must be in 0 … 1, got {arguments['alpha']!r}")
    return partial(loss, **arguments)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
