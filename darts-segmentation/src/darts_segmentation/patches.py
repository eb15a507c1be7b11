"""How a tile of any size is cut into patches for a network, and its answers blended into one plane."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from darts_utils.arrays import array_namespace
from darts_utils.bands import normalize
from darts_utils.errors import ConfigError

ROWS_IN_CACHE = 32
"""Rows of a patch that are normalised and interleaved at once."""

Predict = Callable[[Any], Any]
"""Turns patches (batch, y, x, band), float32 in 0 … 1, into probabilities (batch, y, x), in the same namespace."""


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
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")
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


@dataclass(frozen=True, eq=False)
class Patch:
    """One patch of the tile: a span of rows and a span of columns."""

    rows: Span
    columns: Span

    @property
    def target(self) -> tuple[slice, slice]:
        """Where the patch lies on the tile."""
        return self.rows.target, self.columns.target


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


def predict_in_patches(
    bands: Mapping[str, Any],
    valid: Any,
    predict: Predict,
    options: PatchOptions,
    *,
    limits: Mapping[str, tuple[float, float]] | None = None,
    stride: int = 1,
    least: int = 1,
    most: Callable[[int, int], int | None] = lambda side_y, side_x: None,
) -> tuple[Any, int, int]:
    """Return a plane (y, x) of probabilities, float32, and how many patches were planned and how many were predicted.

    Args:
        bands: planes (y, x) in memory form, in the order of the network's channels.
        valid: plane (y, x) of bool; patches without a valid pixel are not predicted, invalid pixels become NaN.
        predict: the network.
        options: patches and batches.
        limits: (lo, hi) of bands that are not normalised by the range of the band table.
        stride: what the network's input sides must be a multiple of.
        least: smallest input side that the network takes.
        most: how many inputs of the given sides are worth predicting at once, None for any number.
    """
    xp = array_namespace(valid, *bands.values())
    height, width = valid.shape
    rows = plan_spans(height, options, stride=stride, least=least)
    columns = plan_spans(width, options, stride=stride, least=least)
    patches = [patch for patch in _in_order(rows, columns) if valid[patch.target].any()]
    blended = xp.zeros((height, width), np.float32)
    size = min(options.batch_size, len(patches), most(rows[0].size, columns[0].size) or len(patches))
    # Bands come last, as the network computes fastest (torch: channels_last).
    buffer = xp.empty((size, rows[0].size, columns[0].size, len(bands)), np.float32)
    for start in range(0, len(patches), max(size, 1)):
        batch = patches[start : start + size]
        for slot, patch in zip(buffer, batch, strict=False):
            _cut(bands, patch, limits or {}, slot, xp)
        for patch, probabilities in zip(batch, predict(buffer[: len(batch)]), strict=True):
            _blend(probabilities, patch, blended, xp)
    xp.copyto(blended, np.float32(np.nan), where=~valid)
    return blended, len(rows) * len(columns), len(patches)


def _in_order(rows: list[Span], columns: list[Span]) -> Iterator[Patch]:
    # `_blend` relies on this order: it knows what came before from the spans.
    return (Patch(row, column) for row in rows for column in columns)


def _cut(bands: Mapping[str, Any], patch: Patch, limits: Mapping[str, tuple[float, float]], slot: Any, xp: Any) -> None:
    """Fill `slot` (y, x, band) with what the network sees of a patch."""
    window: tuple[Any, Any] = (patch.rows.source, patch.columns.source)
    if not all(isinstance(part, slice) for part in window):
        window = (
            xp.asarray(_as_index(patch.rows.source))[:, None],
            xp.asarray(_as_index(patch.columns.source))[None, :],
        )
    seen = {name: plane[window] for name, plane in bands.items()}
    # On a CPU a few rows of all bands stay in its cache while they are interleaved.
    step = ROWS_IN_CACHE if xp is np else patch.rows.size
    for start in range(0, patch.rows.size, step):
        part = slice(start, start + step)
        for channel, (name, values) in enumerate(seen.items()):
            slot[part, :, channel] = normalize(values[part], name, limits.get(name))


def _blend(probabilities: Any, patch: Patch, blended: Any, xp: Any) -> None:
    """Blend a patch's probabilities (y, x) into the plane, as a running weighted mean.

    mean += (new − mean) · w / (sum of the weights so far, w included): equal to the sum of w·p over the sum of w, but
    its rounding errors do not add up with the number of patches (West 1979, doi:10.1145/359146.359153), and where
    patches agree it is exact. The weights are products of both axes', so their sum is known without a plane of it.
    """
    rows, columns = patch.rows, patch.columns
    earlier = xp.asarray((rows.before / rows.share).astype(np.float32))[:, None]
    share = xp.asarray(columns.share.astype(np.float32))
    weight = share / (earlier + xp.asarray((columns.before + columns.share).astype(np.float32)))
    mean = blended[patch.target]
    mean += (probabilities[rows.inside, columns.inside] - mean) * weight


def _as_slice(index: npt.NDArray[np.intp]) -> slice | npt.NDArray[np.intp]:
    """Return the same pixels as a slice where they are neighbours in order, as they are but for padding."""
    neighbours = bool((np.diff(index) == 1).all())
    return slice(int(index[0]), int(index[-1]) + 1) if neighbours else index


def _as_index(source: slice | npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    return np.arange(source.start, source.stop) if isinstance(source, slice) else source
