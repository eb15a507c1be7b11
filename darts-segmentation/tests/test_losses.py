"""Losses against loops in double precision, finite differences and another library."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_segmentation.training.losses import LOSSES, TotalLoss, bce, dice, focal, lovasz, tversky
from darts_utils.errors import ConfigError

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
NAMES = sorted(LOSSES)


def batch(seed: int = 0, shape: tuple[int, ...] = (2, 5, 7), *, soft: bool = False, share: float = 0.7) -> Batch:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, shape))
    target = rng.random(shape) if soft else (rng.random(shape) < 0.4).astype(float)
    return logits, torch.from_numpy(target), torch.from_numpy(rng.random(shape) < share)


def pixels(logits: torch.Tensor, target: torch.Tensor, labelled: torch.Tensor) -> list[tuple[float, float]]:
    return [
        (x, t)
        for x, t, known in zip(
            logits.flatten().tolist(), target.flatten().tolist(), labelled.flatten().tolist(), strict=True
        )
        if known
    ]


def plain_bce(*given: torch.Tensor) -> float:
    found = pixels(*given)
    return -sum(t * math.log(p(x)) + (1 - t) * math.log(1 - p(x)) for x, t in found) / len(found)


def plain_focal(*given: torch.Tensor, gamma: float = 2.0, alpha: float = 0.25) -> float:
    found = pixels(*given)
    total = 0.0
    for x, t in found:
        total -= t * alpha * (1 - p(x)) ** gamma * math.log(p(x))
        total -= (1 - t) * (1 - alpha) * p(x) ** gamma * math.log(1 - p(x))
    return total / len(found)


def plain_tversky(*given: torch.Tensor, alpha: float = 0.3, beta: float = 0.7, smooth: float = 1.0) -> float:
    right = wrong = missed = 0.0
    for x, t in pixels(*given):
        right += min(p(x), t)
        wrong += max(p(x) - t, 0)
        missed += max(t - p(x), 0)
    return 1 - (right + smooth) / (right + alpha * wrong + beta * missed + smooth)


def plain_lovasz(*given: torch.Tensor) -> float:
    """Lovász extension by its definition: what each error adds to the Jaccard loss of the set of errors so far."""
    found = pixels(*given)
    errors = sorted(((1 - x * (1 if t > 0.5 else -1), t > 0.5) for x, t in found), key=lambda pair: -pair[0])
    slumps = sum(slump for _, slump in errors)
    total, before, missed, wrong = 0.0, 0.0, 0, 0
    for error, slump in errors:
        missed, wrong = missed + slump, wrong + (not slump)
        jaccard_loss = 1 - (slumps - missed) / (slumps + wrong)
        total += max(error, 0) * (jaccard_loss - before)
        before = jaccard_loss
    return total


def p(x: float) -> float:
    return 1 / (1 + math.exp(-x))


PLAIN: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., float]]] = {
    "bce": (bce, plain_bce),
    "focal": (lambda *given: focal(*given, alpha=0.25), plain_focal),
    "tversky": (tversky, plain_tversky),
    "dice": (
        lambda *given: dice(*given, smooth=2.0),
        lambda *given: plain_tversky(*given, alpha=0.5, beta=0.5, smooth=1.0),
    ),
    "lovasz": (lovasz, plain_lovasz),
}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.1, 0.5, 1.0]))
def test_a_loss_is_what_a_plain_loop_computes(name: str, soft: bool, seed: int, share: float) -> None:
    given_batch = batch(seed, soft=soft, share=share)
    if not given_batch[2].any():
        return
    ours, plain = PLAIN[name]
    assert float(ours(*given_batch)) == pytest.approx(plain(*given_batch), rel=1e-9, abs=1e-12)


def test_dice_is_the_formula_of_its_docstring() -> None:
    logits, target, labelled = batch(3)
    found = torch.sigmoid(logits)[labelled]
    truth = target[labelled]
    overlap = float((found * truth).sum())
    expected = 1 - (2 * overlap + 1) / (float(found.sum() + truth.sum()) + 1)
    assert float(dice(logits, target, labelled)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str, soft: bool) -> None:
    logits, target, labelled = batch(5, (1, 4, 5), soft=soft)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, target, labelled), (logits,))


@pytest.mark.parametrize("gamma", [0.5, 0.75, 2.0])
def test_gradients_of_the_focal_tversky_loss(gamma: float) -> None:
    logits, target, labelled = batch(6, (1, 4, 5))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tversky(x, target, labelled, gamma=gamma), (logits,))


def test_a_perfect_answer_has_a_gradient_even_with_an_exponent_below_one() -> None:
    target = torch.tensor([[[1.0, 0.0]]])
    logits = (1e4 * (2 * target - 1)).requires_grad_()
    tversky(logits, target, target >= 0, gamma=0.5).backward()
    assert torch.isfinite(logits.grad).all()


def test_losses_agree_with_segmentation_models_pytorch() -> None:
    """Theirs ignore rightly in the Lovász and focal losses only, so the others see every pixel labelled."""
    logits, target, labelled = batch(7, (2, 6, 6))
    everywhere = torch.ones_like(labelled)
    ignoring = torch.where(labelled, target, 255)
    theirs_lovasz = smp.losses.LovaszLoss("binary", per_image=False, ignore_index=255)
    # Their steps are float32.
    assert float(lovasz(logits, target, labelled)) == pytest.approx(
        float(theirs_lovasz(logits.float(), ignoring.float())), rel=1e-5
    )
    theirs_focal = smp.losses.FocalLoss("binary", alpha=0.25, gamma=2.0, ignore_index=255)
    assert float(focal(logits, target, labelled, alpha=0.25)) == pytest.approx(
        float(theirs_focal(logits[:, None], ignoring[:, None])), rel=1e-6
    )
    theirs_dice = smp.losses.DiceLoss("binary", smooth=1.0)  # theirs is half of ours
    assert float(dice(logits, target, everywhere, smooth=2.0)) == pytest.approx(
        float(theirs_dice(logits[:, None], target[:, None])), rel=1e-6
    )
    theirs_tversky = smp.losses.TverskyLoss("binary", alpha=0.3, beta=0.7, smooth=1.0)
    assert float(tversky(logits, target, everywhere)) == pytest.approx(
        float(theirs_tversky(logits[:, None], target[:, None])), rel=1e-6
    )
    theirs_bce = smp.losses.SoftBCEWithLogitsLoss(ignore_index=None)
    assert float(bce(logits, target, everywhere)) == pytest.approx(float(theirs_bce(logits, target)), rel=1e-6)


@pytest.mark.parametrize("garbage", [1e4, -1e4, float("inf"), float("nan")])
@pytest.mark.parametrize("name", NAMES)
def test_what_stands_at_ignored_pixels_changes_nothing(name: str, garbage: float) -> None:
    logits, target, labelled = batch(8)
    other_logits = torch.where(labelled, logits, garbage).requires_grad_()
    other_target = torch.where(labelled, target, float("nan"))
    logits.requires_grad_()
    loss, other = LOSSES[name](logits, target, labelled), LOSSES[name](other_logits, other_target, labelled)
    assert float(loss) == float(other)
    loss.backward()
    other.backward()
    assert torch.equal(logits.grad, other_logits.grad)
    assert (logits.grad[~labelled] == 0).all()
    assert (logits.grad[labelled] != 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_of_labelled_pixels_alone_is_the_same(name: str) -> None:
    logits, target, labelled = batch(9)
    alone = [values[labelled][None, None] for values in (logits, target, labelled)]
    assert float(LOSSES[name](logits, target, labelled)) == pytest.approx(float(LOSSES[name](*alone)), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_labels_gives_zero_with_a_gradient_of_zero(name: str) -> None:
    logits, target, labelled = batch(10, share=0.0)
    logits = logits.float().requires_grad_()
    loss = TotalLoss({name: 1.0})(logits, target, labelled)
    loss.backward()
    assert float(loss) == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_stay_finite(name: str, sign: int) -> None:
    target = torch.tensor([[[1.0, 0.0, 1.0, 0.0, 0.5]]])
    logits = torch.tensor([[[1e4, -1e4, -1e4, 1e4, 1e4]]]).mul(sign).requires_grad_()
    loss = LOSSES[name](logits, target, torch.ones_like(target, dtype=torch.bool))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_right_answer_costs_nothing_and_a_wrong_one_costs(name: str) -> None:
    target = torch.tensor([[[1.0, 0.0, 0.0, 1.0]]])
    known = torch.ones_like(target, dtype=torch.bool)
    right = 50 * (2 * target - 1)
    assert float(LOSSES[name](right, target, known)) == pytest.approx(0, abs=1e-6)
    assert float(LOSSES[name](-right, target, known)) > 0.5


@pytest.mark.parametrize("name", ["bce", "dice", "tversky"])
def test_the_loss_of_a_soft_target_is_least_at_the_target(name: str) -> None:
    target = torch.full((1, 2, 3), 0.3)
    known = torch.ones_like(target, dtype=torch.bool)
    levels = torch.arange(0.05, 1, 0.05)
    costs = [float(LOSSES[name](torch.full_like(target, float(torch.logit(level))), target, known)) for level in levels]
    assert float(levels[int(np.argmin(costs))]) == pytest.approx(0.3)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_truth_pulls_scores_down(name: str) -> None:
    logits = torch.full((1, 3, 3), 0.5, requires_grad=True)
    LOSSES[name](logits, torch.zeros(1, 3, 3), torch.ones(1, 3, 3, dtype=torch.bool)).backward()
    assert float(logits.grad.sum()) > 0
    assert (logits.grad >= 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_single_precision_under_autocast(dtype: torch.dtype) -> None:
    logits, target, labelled = batch(11, (4, 64, 64))
    rounded = logits.to(dtype)
    total = TotalLoss(dict.fromkeys(NAMES, 1.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = total(rounded, target.float(), labelled)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(total(rounded.double(), target, labelled)), rel=1e-5)


def test_a_sum_of_losses_is_weighted() -> None:
    given_batch = batch(12)
    total = TotalLoss({"bce": 2, "tversky": 0.5}, {"tversky": {"alpha": 0.1, "beta": 0.9}})
    expected = 2 * bce(*given_batch) + 0.5 * tversky(*given_batch, alpha=0.1, beta=0.9)
    assert float(total(*given_batch)) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("weights", "arguments", "message"),
    [
        ({"cross": 1}, {}, "'cross' is unknown; known losses: bce"),
        ({}, {}, "none is named"),
        ({"bce": 0}, {}, "weight of 'bce'"),
        ({"bce": float("nan")}, {}, "weight of 'bce'"),
        ({"bce": True}, {}, "weight of 'bce'"),
        ({"bce": 1}, {"dice": {"smooth": 1}}, "'dice' is not among the losses"),
        ({"bce": 1}, {"bce": {"gamma": 1}}, "'bce' takes no 'gamma'; it takes positive_weight"),
        ({"lovasz": 1}, {"lovasz": {"gamma": 1}}, "it takes no arguments"),
        ({"focal": 1}, {"focal": {"gamma": -1}}, "'gamma' of 'focal'"),
        ({"focal": 1}, {"focal": {"alpha": 2}}, "'alpha' of 'focal'"),
    ],
)
def test_a_sum_that_cannot_work_is_refused(
    weights: dict[str, float], arguments: dict[str, dict[str, float]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TotalLoss(weights, arguments)
