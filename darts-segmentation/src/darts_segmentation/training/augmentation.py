"""Augmentation of patches in physical units, before they are normalised; NaN stays NaN, and nothing else becomes it.

What is changed is what another scene of the same place would show otherwise: how the picture lies, the light and the
air above the optical bands, the sensor's noise and sharpness, gaps. Terrain and trends are turned with the picture and
else left alone.
"""

from collections.abc import Callable, Collection, Sequence
from types import MappingProxyType

import numpy as np
from scipy import ndimage

from darts_segmentation.training.patch_form import IGNORE, SLUMP
from darts_segmentation.turns import DIRECTIONS, EIGHT_TURNS
from darts_utils.bands import INDEX_BANDS
from darts_utils.errors import ConfigError

WAVELENGTHS_UM = MappingProxyType(
    {
        "coastal": 0.443, "blue": 0.490, "green": 0.560, "red": 0.665, "rededge071": 0.705, "rededge075": 0.740,
        "rededge078": 0.783, "nir": 0.842, "nir08": 0.865, "nir09": 0.945, "swir16": 1.610, "swir22": 2.190,
    }
)  # fmt: skip
"""The optical bands, and where their middles lie; near enough for Sentinel-2 and Planet."""

GAIN_OF_SCENE, GAIN_OF_BAND = 0.10, 0.04
"""Standard deviation of the logarithm of the gain that all optical bands share, and of each band's own."""
HAZE_SHARE, MOST_HAZE = 0.5, 0.09
"""How many patches get haze, and the most reflectance it adds to blue."""
HAZE_EXPONENTS = (1.5, 4.0)
"""Path radiance falls with this power of the wavelength: 4 in clear air (Rayleigh), less the more aerosol there is."""
MOST_NOISE = 0.003
"""Largest standard deviation of the noise, in reflectance."""
BLUR_SHARE, BLUR_SIGMAS = 0.25, (0.4, 1.0)
"""How many patches are blurred, and the standard deviations of the kernels in pixels."""
DROPOUT_SHARE, MOST_HOLES, HOLE_SIDES = 0.3, 4, (0.05, 0.25)
"""How many patches get holes, how many at most, and their sides as shares of the patch's."""

AUGMENTATIONS = ("turns", "gain", "haze", "noise", "blur", "dropout")
"""turns: the eight flips and quarter turns, of which directions are turned too; gain, haze, noise, blur: on optical \
bands; dropout: rectangular gaps, which are not scored."""
OPTICAL_AUGMENTATIONS = ("gain", "haze", "blur", "noise")
"""In the order of nature: light, air, optics, sensor."""


class Augmentation:
    """Random changes of patches of some bands.

    Quarter turns and flips change the picture and, with it, the values of `aspect`, which then tell the direction in
    the turned picture. `hillshade` turns as a picture: its light then comes from elsewhere, as do the shadows of the
    optical bands, which turn along. Indices are made anew where the bands they come from were changed.

    Args:
        names: of `AUGMENTATIONS`.
        bands: the bands of the patches, in order.
        terrain_convention: how their terrain features are oriented.

    Raises:
        ConfigError: a name is unknown, or `aspect` is of the legacy convention, in which it cannot be turned.
    """

    def __init__(
        self, names: Sequence[str], bands: Sequence[str], *, terrain_convention: str = "true-north"
    ) -> None:  # fmt: skip
        if unknown := [name for name in names if name not in AUGMENTATIONS]:
            raise ConfigError(f"augmentations: {unknown[0]!r} is unknown; known: {', '.join(AUGMENTATIONS)}")
        turned = sorted(DIRECTIONS.intersection(bands))
        if "turns" in names and turned and terrain_convention != "true-north":
            raise ConfigError(
                f"augmentations: 'turns' cannot turn {', '.join(turned)} of terrain convention "
                f"{terrain_convention!r}, which is no compass direction; leave turns or the band out"
            )
        self.names, self.bands = tuple(names), tuple(bands)
        self._directions = [self.bands.index(name) for name in turned]
        self._optical = [place for place, name in enumerate(bands) if name in WAVELENGTHS_UM]
        self._wavelengths = np.array([WAVELENGTHS_UM[bands[place]] for place in self._optical])
        self._indices = [
            [self.bands.index(band) for band in (name, *pair)]
            for name, pair in INDEX_BANDS.items()
            if {name, *pair} <= set(self.bands)
        ]
        self._steps: list[Callable[[np.ndarray, np.random.Generator], None]] = [
            getattr(self, f"_{name}") for name in OPTICAL_AUGMENTATIONS if name in names and self._optical
        ]

    def __call__(self, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a patch otherwise: `x` float32 (band, y, x), and `y` (y, x), which may be soft, with NaN to ignore.

        What comes out are new arrays or views of the patch, which itself stays as it is.
        """
        if "turns" in self.names:
            x, y = self._turn(x, y, rng)
        if self._steps:
            x = self._other_light(x, rng)
        if "dropout" in self.names and rng.random() < DROPOUT_SHARE:
            x, y = self._with_holes(x, y, rng)
        return x, y

    def _turn(self, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        turn = EIGHT_TURNS[int(rng.integers(len(EIGHT_TURNS)))]
        turned = turn.of(x)
        if self._directions:
            turned = turned.copy()
            turned[self._directions] = turn.of_directions(turned[self._directions])
        return turned, turn.of(y[None])[0]

    def _other_light(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        x = x.copy()
        optical = x[self._optical]
        for step in self._steps:
            step(optical, rng)
        x[self._optical] = optical
        for index, first, second in self._indices:
            x[index] = _index_where_it_was(x[index], x[first], x[second])
        return x

    def _gain(self, optical: np.ndarray, rng: np.random.Generator) -> None:
        logarithm = rng.normal(0, GAIN_OF_SCENE) + rng.normal(0, GAIN_OF_BAND, len(optical))
        optical *= np.exp(logarithm).astype(np.float32)[:, None, None]

    def _haze(self, optical: np.ndarray, rng: np.random.Generator) -> None:
        hazy, most, exponent = rng.random() < HAZE_SHARE, rng.uniform(0, MOST_HAZE), rng.uniform(*HAZE_EXPONENTS)
        if hazy:
            path_radiance = most * (self._wavelengths / WAVELENGTHS_UM["blue"]) ** -exponent
            optical += path_radiance.astype(np.float32)[:, None, None]

    def _noise(self, optical: np.ndarray, rng: np.random.Generator) -> None:
        optical += np.float32(rng.uniform(0, MOST_NOISE)) * rng.standard_normal(optical.shape, np.float32)

    def _blur(self, optical: np.ndarray, rng: np.random.Generator) -> None:
        blurred, sigma = rng.random() < BLUR_SHARE, rng.uniform(*BLUR_SIGMAS)
        if not blurred:
            return
        for plane in optical:
            known = np.isfinite(plane)
            # Gaps take no part: the weighted sum over known pixels is divided by the weights of those.
            smooth = ndimage.gaussian_filter(np.where(known, plane, 0), sigma, mode="nearest")
            if not known.all():
                weights = ndimage.gaussian_filter(known.astype(np.float32), sigma, mode="nearest")
                smooth = np.divide(smooth, weights, out=smooth, where=known)
            np.copyto(plane, smooth, where=known)

    def _with_holes(self, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a patch with gaps, as scenes have them: all bands are missing there, and nothing is scored."""
        x, y = x.copy(), y.copy()
        for _ in range(int(rng.integers(1, MOST_HOLES + 1))):
            height, width = (max(1, round(side * rng.uniform(*HOLE_SIDES))) for side in y.shape)
            top, left = (
                int(rng.integers(side - size + 1)) for side, size in zip(y.shape, (height, width), strict=True)
            )
            window = np.s_[top : top + height, left : left + width]
            x[:, *window] = np.nan
            y[window] = np.nan if y.dtype.kind == "f" else IGNORE
        return x, y


def with_origins(bands: Sequence[str], there: Collection[str]) -> tuple[str, ...]:
    """Return bands, and after them those that their indices are made from, as far as they are there."""
    origins = [band for name in bands if name in INDEX_BANDS for band in INDEX_BANDS[name]]
    return tuple(dict.fromkeys([*bands, *(band for band in origins if band in there)]))


def crop_patch(
    x: np.ndarray, y: np.ndarray, size: int, rng: np.random.Generator, *, on_slump: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return a random square of a patch, as views; with `on_slump` one that shows a slump pixel, where there is one.

    The pixel is drawn from all of the slumps', and lies anywhere in the square. A patch that is no larger than `size`
    along an axis stays whole there.
    """
    sides = y.shape
    starts = [max(0, side - size) for side in sides]
    slumps = np.flatnonzero(y > 0.5 if y.dtype.kind == "f" else y == SLUMP) if on_slump else ()
    if len(slumps):
        place = divmod(int(slumps[rng.integers(len(slumps))]), sides[1])
        firsts = [
            int(rng.integers(max(0, at - size + 1), min(at, most) + 1))
            for at, most in zip(place, starts, strict=True)
        ]  # fmt: skip
    else:
        firsts = [int(rng.integers(most + 1)) for most in starts]
    window = tuple(slice(first, first + size) for first in firsts)
    return x[:, *window], y[window]


def _index_where_it_was(before: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    total = first + second
    # Where both bands cancel out, the index has no value; it keeps the one it had.
    ratio = np.divide(first - second, total, out=before.copy(), where=np.isfinite(before) & (total != 0))
    return np.clip(ratio, -1, 1)
