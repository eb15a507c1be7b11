"""Statistics of a band over any number of patches, added up one by one."""

from dataclasses import dataclass, field

import numpy as np

from darts_utils.bands import band

BINS = 64


@dataclass
class BandStatistics:
    """What the values of a band are like; NaN where there is none."""

    valid: tuple[float, float]
    """Valid range of the band table."""
    count: int = 0
    """Finite values."""
    missing: int = 0
    """NaN."""
    infinite: int = 0
    minimum: float = np.nan
    maximum: float = np.nan
    mean: float = np.nan
    std: float = np.nan
    """Of all values, not of a sample of them."""
    below: int = 0
    """Values below the valid range."""
    above: int = 0
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)
    """Values within the valid range, in bins of equal width."""
    missing_share: float = np.nan
    labelled: int = 0
    """Finite values at pixels that are not ignored."""
    labelled_outside: int = 0
    outside_share: float = np.nan
    """Share of those at pixels that are not ignored, clouds for one, outside the valid range."""

    @classmethod
    def of_band(cls, name: str) -> "BandStatistics":
        """Return statistics without values yet."""
        return cls(valid=band(name).valid)

    def add(self, values: np.ndarray, labelled: np.ndarray | None = None) -> None:
        """Take in more values; `labelled` tells which are not ignored (None: all)."""
        self.missing += int(np.isnan(values).sum())
        self.infinite += int(np.isinf(values).sum())
        is_finite = np.isfinite(values)
        finite = values[is_finite].astype(np.float64)
        if finite.size:
            self._add_moments(finite)
            # The limits as single precision has them: a value that was clipped to one is not beyond it.
            low, high = (float(np.float32(limit)) for limit in self.valid)
            self.below += int((finite < low).sum())
            self.above += int((finite > high).sum())
            counts, _ = np.histogram(finite, bins=BINS, range=(low, high))
            self.histogram = [old + int(new) for old, new in zip(self.histogram, counts, strict=True)]
            told = finite if labelled is None else finite[labelled[is_finite]]
            self.labelled += told.size
            self.labelled_outside += int(((told < low) | (told > high)).sum())
            self.outside_share = self.labelled_outside / self.labelled if self.labelled else np.nan
        self.missing_share = self.missing / max(self.count + self.missing + self.infinite, 1)

    def _add_moments(self, finite: np.ndarray) -> None:
        """Join mean and variance of two sets (Chan, Golub and LeVeque 1983), which loses no digits to large sums."""
        if not self.count:
            self.count, self.mean, self.std = finite.size, float(finite.mean()), float(finite.std())
            self.minimum, self.maximum = float(finite.min()), float(finite.max())
            return
        total = self.count + finite.size
        step = float(finite.mean()) - self.mean
        squares = self.std**2 * self.count + float(finite.var()) * finite.size
        squares += step**2 * self.count * finite.size / total
        self.mean += step * finite.size / total
        self.std = float(np.sqrt(squares / total))
        self.count = total
        self.minimum = min(self.minimum, float(finite.min()))
        self.maximum = max(self.maximum, float(finite.max()))
