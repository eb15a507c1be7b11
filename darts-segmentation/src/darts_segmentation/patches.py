"""Where the patches of a tile of any size lie, and what weight each has in their blend."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from darts_utils.errors import ConfigError
from darts_utils.numbers import whole_number


@dataclass(frozen=True, kw_only=True)
class PatchOptions:
    """How a tile is cut for inference."""

    patch_size: int = 1024
    """Side of a square patch in pixels."""
    overlap: int = 256
    """Pixels that neighbours share; blended linearly."""
    batch_size: int = 8
    """Patches that the network sees at once."""
    reflection: int = 0
    """Pixels of extra reflect padding around the tile."""

    def __post_init__(self) -> None:
        for name, least in (("patch_size", 1), ("overlap", 0), ("batch_size", 1), ("reflection", 0)):
            whole_number(name, getattr(self, name), least)
        if self.overlap >= self.patch_size:
            raise ConfigError(f"overlap must be smaller than patch_size ({self.patch_size}), got {self.overlap}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Span:
    """One patch along one axis of the tile."""

    source: slice | npt.NDArray[np.intp]
    """Pixels of the tile that the network's input shows, padding included."""
    size: int
    """Length of the network's input."""
    inside: slice
    """Part of the network's input that lies on the tile and is kept."""
    target: slice
    """Where on the tile that part lies."""
    share: npt.NDArray[np.float64]
    """This span's share of the blend weight at each pixel of `target`; over all spans the shares sum to 1."""
    before: npt.NDArray[np.float64]
    """Shares of all earlier spans at the same pixels."""


def patch_starts(size: int, patch_size: int, overlap: int) -> list[int]:
    """Return the first pixels of the fewest patches that cover `size` pixels and share at least `overlap`.

    The last patch is shifted back to end with the axis; an axis shorter than a patch gives one start, 0.
    """
    if size <= patch_size:
        return [0]
    step = patch_size - overlap
    count = -(-(size - overlap) // step)
    return [min(index * step, size - patch_size) for index in range(count)]


def blend_weights(size: int, overlap: int) -> npt.NDArray[np.float64]:
    """Return the weight of each position of a patch, min(1, (i + 1)/(overlap + 1), (size − i)/(overlap + 1)).

    A patch's weight at (y, x) is the product of the two axes' weights; the blend divides by the sum over patches.
    """
    index = np.arange(size)
    return np.minimum(1, np.minimum(index + 1, size - index) / (overlap + 1))


def plan_spans(size: int, options: PatchOptions, *, stride: int = 1, least: int = 1) -> list[Span]:
    """Return the patches along an axis of `size` pixels, in order.

    The network's input is a whole multiple of `stride` and has at least `least` pixels. Beyond the tile (`reflection`)
    and beyond a patch that the stride does not divide, the image is mirrored about its outermost pixel.
    """
    padded = size + 2 * options.reflection
    length = min(options.patch_size, padded)
    input_size = -(-max(length, least) // stride) * stride
    ramp = blend_weights(length, options.overlap)
    starts = patch_starts(padded, options.patch_size, options.overlap)
    total = np.zeros(padded)
    for start in starts:
        total[start : start + length] += ramp
    done = np.zeros(padded)
    spans = []
    for start in starts:
        share = ramp / total[start : start + length]
        first = max(options.reflection - start, 0)
        stop = min(options.reflection + size - start, length)
        # A patch that lies wholly in the reflection padding has no say.
        if first < stop:
            shown = start + mirrored(np.arange(input_size), length)
            spans.append(
                Span(
                    source=_as_slice(mirrored(shown - options.reflection, size)),
                    size=input_size,
                    inside=slice(first, stop),
                    target=slice(start + first - options.reflection, start + stop - options.reflection),
                    share=share[first:stop],
                    before=done[start + first : start + stop].copy(),
                )
            )
        done[start : start + length] += share
    return spans


def mirrored(index: npt.NDArray[np.intp], size: int) -> npt.NDArray[np.intp]:
    """Return the pixels of an axis of `size` that positions inside or outside of it show when its edges are mirrors.

    The outermost pixel is not repeated (numpy's "reflect"); an axis of one pixel shows that pixel everywhere.
    """
    if size == 1:
        return np.zeros_like(index)
    folded = index % (2 * (size - 1))
    return np.minimum(folded, 2 * (size - 1) - folded)


def _as_slice(index: npt.NDArray[np.intp]) -> slice | npt.NDArray[np.intp]:
    """Return the same pixels as a slice where they are neighbours in order, as they are but for padding."""
    neighbours = bool((np.diff(index) == 1).all())
    return slice(int(index[0]), int(index[-1]) + 1) if neighbours else index


def as_index(source: slice | npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the pixels of a slice, or the pixels themselves."""
    return np.arange(source.start, source.stop) if isinstance(source, slice) else source
