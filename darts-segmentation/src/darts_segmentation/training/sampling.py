"""Which patches an epoch shows, in which order: decided by (seed, epoch) alone."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from darts_utils.errors import ConfigError

MOST_STEPS = 300
"""Epochs are no longer than this unless asked: after each one a killed training goes on, and is validated."""


class Draw(NamedTuple):
    """One patch to show, and what its random numbers depend on."""

    epoch: int
    position: int
    """Place in the epoch."""
    patch: int
    on_slump: bool
    """Whether a crop of it must show a slump."""


class EpochSampler:
    """Batches of draws, epoch after epoch, each epoch of the same number of steps.

    An epoch draws without repeating patches as long as there are any, and begins anew then. With `positive_share`,
    patches that show slumps and others are drawn apart: of the first n draws, whole or not, n × share (rounded down)
    are of the former, so each batch has its share but for one patch.

    Args:
        patches: the patches to draw from.
        positive: for each, whether it shows slumps.
        batch_size: draws a step.
        steps: steps an epoch; None: as many as show each patch about once, at most `MOST_STEPS`.
        positive_share: share of draws that show slumps, in 0 … 1; None: as the patches come.
        seed: with the epoch, what decides.

    Raises:
        ConfigError: there is nothing to draw from.
    """

    def __init__(
        self,
        patches: Sequence[int] | npt.NDArray[np.integer],
        positive: Sequence[bool] | npt.NDArray[np.bool_],
        batch_size: int,
        *,
        steps: int | None = None,
        positive_share: float | None = None,
        seed: int = 0,
    ) -> None:
        if not len(patches):
            raise ConfigError("there is no patch to train on; give the split 'train' a larger share, or more data")
        patches, positive = np.asarray(patches, np.int64), np.asarray(positive, bool)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self.steps = steps or min(MOST_STEPS, -(-len(patches) // batch_size))
        self._patches = [patches] if positive_share is None else [patches[~positive], patches[positive]]
        self._share = 0.0 if positive_share is None else positive_share
        wanted = [self._share < 1, self._share > 0]
        for kind, found, needed in zip(("without", "with"), self._patches, wanted, strict=False):
            if needed and positive_share is not None and not len(found):
                raise ConfigError(
                    f"positive_share {positive_share} needs patches {kind} slumps, and there are none to train on; "
                    f"set positive_share to {1.0 if kind == 'without' else 0.0}, or leave it out"
                )

    def __len__(self) -> int:
        return self.steps

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = self.draws(self.epoch)
        for start in range(0, len(draws), self.batch_size):
            yield draws[start : start + self.batch_size]

    def draws(self, epoch: int) -> list[Draw]:
        """Return all draws of an epoch."""
        count = self.steps * self.batch_size
        # Rounded, so that 0.3 of 10 are 3 and not 2.
        shown = np.floor(np.round(np.arange(count + 1) * self._share, 6)).astype(int)
        on_slump = np.diff(shown) > 0
        patches = np.empty(count, int)
        for kind, found in enumerate(self._patches):
            places = np.flatnonzero(on_slump == bool(kind))
            patches[places] = self._order(found, len(places), np.random.default_rng([self.seed, epoch, kind]))
        rows = zip(range(count), patches.tolist(), on_slump.tolist(), strict=True)
        return [Draw(epoch, position, patch, slump) for position, patch, slump in rows]

    @staticmethod
    def _order(found: npt.NDArray[Any], count: int, rng: np.random.Generator) -> npt.NDArray[Any]:
        rounds = -(-count // len(found)) if count else 0
        return np.concatenate([found[:0], *(rng.permutation(found) for _ in range(rounds))])[:count]
