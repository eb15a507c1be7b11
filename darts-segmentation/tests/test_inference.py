"""Inference against a blend written out in float64, patch by patch."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from darts_segmentation import cuts
from darts_segmentation.inference import Reader, Tally, predict_planes, predict_tiles
from darts_segmentation.patches import PatchOptions
from darts_segmentation.turns import EIGHT_TURNS, Turn
from darts_utils.errors import DeviceError

from .patchwise import ArrayRows

TABLE = {"hillshade": (0, 1), "slope": (0, 90), "aspect": (0, 360), "tc_wetness": (0, 255)}
"""What the band table says of the bands used here."""


@dataclass(frozen=True)
class Model:
    """A network of a formula, in the precision of its input, with all that a reader can ask for."""

    bands: tuple[str, ...]
    asked: tuple[str, ...]
    limits: dict[str, tuple[float, float]]
    stride: int = 1
    least: int = 1
    most: int | None = None

    def answer(self, patches: np.ndarray) -> np.ndarray:
        """What a pixel is told depends on all bands, its place, what is left of it, and the whole patch."""
        _, height, width, bands = patches.shape
        mixed = patches @ (1 / (2 + np.arange(bands))).astype(patches.dtype)
        left = np.cumsum(mixed, axis=2) / (1 + np.arange(width, dtype=patches.dtype))
        place = (np.arange(height, dtype=patches.dtype) / height)[:, None]
        return (mixed + left + mixed.mean(axis=(1, 2), keepdims=True) + place) / 6

    def reader(self, seen: list[Any] | None = None) -> Reader:
        def predict(patches: np.ndarray) -> np.ndarray:
            assert patches.dtype == np.float32
            assert patches.flags.c_contiguous
            assert 0 <= patches.min() <= patches.max() <= 1
            assert all(side % self.stride == 0 and side >= self.least for side in patches.shape[1:3])
            if seen is not None:
                seen.append(patches.shape)
            return self.answer(patches)

        return Reader(
            bands=self.bands, asked=self.asked, predict=predict, limits=self.limits,
            stride=self.stride, least=self.least, most=lambda side_y, side_x: self.most,
        )  # fmt: skip


def turned_by_hand(plane: np.ndarray, turn: Turn) -> np.ndarray:
    for _ in range(turn.mirrored):
        plane = np.fliplr(plane)
    for _ in range(turn.quarters):
        plane = np.flipud(plane.T)  # counterclockwise
    return plane


def facing_by_hand(degrees: np.ndarray, turn: Turn) -> np.ndarray:
    """Turn unit vectors (east, north), and read their direction."""
    east, north = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    if turn.mirrored:
        east = -east
    for _ in range(turn.quarters):
        east, north = -north, east
    return np.degrees(np.arctan2(east, north)) % 360


def put_back(answer: np.ndarray, turn: Turn, shape: tuple[int, int]) -> np.ndarray:
    """Where each pixel went is told by an image of their numbers."""
    went = turned_by_hand(np.arange(shape[0] * shape[1]).reshape(shape), turn)
    back = np.empty(shape)
    back.flat[went.ravel()] = answer.ravel()
    return back


def patches_of(size: int, options: PatchOptions, model: Model) -> tuple[list[int], int, int]:
    """Return starts in the padded axis, length, and length of the input."""
    padded = size + 2 * options.reflection
    length = min(options.patch_size, padded)
    starts = [0]
    while starts[-1] + length < padded:
        starts.append(min(starts[-1] + length - options.overlap, padded - length))
    full = max(length, model.least)
    while full % model.stride:
        full += 1
    return starts, length, full


def by_definition(
    planes: dict[str, np.ndarray], model: Model, options: PatchOptions, turn: Turn
) -> tuple[np.ndarray, int, int]:
    """Return the plane, and how many patches there are and hold a valid pixel."""
    shape = next(iter(planes.values())).shape
    margin = options.reflection
    valid = np.all([np.isfinite(planes[name].astype(float)) for name in model.asked], axis=0)
    padded = {name: np.pad(planes[name].astype(float), margin, mode="reflect") for name in model.bands}
    inner = np.zeros((shape[0] + 2 * margin, shape[1] + 2 * margin), bool)
    inner[margin : margin + shape[0], margin : margin + shape[1]] = valid
    on_tile = np.pad(np.ones(shape, bool), margin)
    total, weights = np.zeros(inner.shape), np.zeros(inner.shape)
    rows, height, full_y = patches_of(shape[0], options, model)
    columns, width, full_x = patches_of(shape[1], options, model)
    ramps = []
    for length in (height, width):
        place = np.arange(length)
        ramps.append(np.minimum(1, np.minimum(place + 1, length - place) / (options.overlap + 1)))
    planned = predicted = 0
    for top in rows:
        for left in columns:
            window = slice(top, top + height), slice(left, left + width)
            planned += bool(on_tile[window].any())
            if not inner[window].any():
                continue
            predicted += 1
            channels = []
            for name in model.bands:
                plane = np.pad(padded[name][window], [(0, full_y - height), (0, full_x - width)], mode="reflect")
                plane = turned_by_hand(plane, turn)
                if name == "aspect":
                    plane = facing_by_hand(plane, turn)
                lo, hi = model.limits.get(name, TABLE[name])
                channels.append(np.nan_to_num(np.clip((plane - lo) / (hi - lo), 0, 1)))
            answer = put_back(model.answer(np.stack(channels, axis=-1)[None])[0], turn, (full_y, full_x))
            weight = np.outer(*ramps)
            total[window] += weight * answer[:height, :width]
            weights[window] += weight
    with np.errstate(invalid="ignore"):
        plane = np.where(inner, total / weights, np.nan)
    return plane[margin : margin + shape[0], margin : margin + shape[1]], planned, predicted


def random_planes(shape: tuple[int, int], seed: int, gaps: float) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)

    def holes() -> np.ndarray:
        # Blocks, so that whole patches are empty as well.
        return np.kron(random.random((10, 10)) < gaps, np.ones((4, 4), bool))[: shape[0], : shape[1]]

    planes: dict[str, np.ndarray] = {"tc_wetness": random.integers(0, 256, shape, np.uint8)}
    for name in ("hillshade", "slope", "aspect"):
        lo, hi = TABLE[name]
        # No direction close to north: there rounding decides between 0 and 360.
        edge = 1 if name == "aspect" else -0.2 * (hi - lo)
        planes[name] = random.uniform(lo + edge, hi - edge, shape).astype(np.float32)
        planes[name][holes()] = np.nan
    for direction in (0, 90, 180, 270):  # where a turn gives 359 or 1 at the closest
        near = np.abs(planes["aspect"] - direction) < 1
        planes["aspect"][near] += 2
    planes["slope"][random.random(shape) < gaps / 20] = np.inf
    return planes


@st.composite
def models(draw: st.DrawFn) -> Model:
    bands = draw(st.permutations(list(TABLE)).flatmap(lambda names: st.integers(1, 4).map(lambda n: tuple(names[:n]))))
    asked = tuple(draw(st.sets(st.sampled_from(["hillshade", "slope", "tc_wetness"]), min_size=1)))
    limits = draw(st.sampled_from([{}, {"slope": (10, 40)}, {"tc_wetness": (100, 150), "hillshade": (0.5, 2)}]))
    stride, least = draw(st.integers(1, 5)), draw(st.sampled_from([1, 1, 9]))
    return Model(bands, asked, limits, stride=stride, least=least, most=draw(st.sampled_from([None, 1, 3])))


@st.composite
def patch_options(draw: st.DrawFn) -> PatchOptions:
    patch_size = draw(st.integers(1, 12))
    return PatchOptions(
        patch_size=patch_size,
        overlap=draw(st.one_of(st.just(patch_size - 1), st.integers(0, patch_size - 1))),
        reflection=draw(st.sampled_from([0, 0, 1, 7])),
        batch_size=draw(st.sampled_from([1, 2, 3, 7, 1000])),
    )


sides = st.one_of(st.just(1), st.integers(1, 16))


@settings(max_examples=20, deadline=None)
@given(
    shapes=st.lists(st.tuples(sides, sides), min_size=1, max_size=3),
    networks=st.lists(models(), min_size=1, max_size=3),
    options=patch_options(),
    gaps=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    turns=st.lists(st.sampled_from(EIGHT_TURNS), min_size=1, max_size=3, unique=True),
    seed=st.integers(0, 9),
)
@example(
    shapes=[(1, 1), (9, 6), (1, 1)],
    networks=[
        Model(("aspect", "slope"), ("slope",), {}, stride=4),
        Model(("hillshade",), ("hillshade",), {}, stride=3),
    ],
    options=PatchOptions(patch_size=12, overlap=11, reflection=10, batch_size=1000),
    gaps=0.3,
    turns=list(EIGHT_TURNS),
    seed=0,
)
def test_every_layer_is_the_blend_of_the_definition(
    shapes: list[tuple[int, int]],
    networks: list[Model],
    options: PatchOptions,
    gaps: float,
    turns: list[Turn],
    seed: int,
) -> None:
    tiles = [random_planes(shape, seed + number, gaps) for number, shape in enumerate(shapes)]
    tallies = [Tally() for _ in networks]
    shown: list[list[tuple[int, ...]]] = [[] for _ in networks]
    readers = [model.reader(seen) for model, seen in zip(networks, shown, strict=True)]
    layers = [
        [np.full(shape, 7, np.float32) for _ in range(len(networks) * len(turns))] for shape in shapes
    ]  # fmt: skip
    ends = [0] * len(tiles)
    rows = [ArrayRows(tile) for tile in tiles]
    for finished in predict_tiles(rows, readers, options, tallies, turns=turns):
        assert finished.first == ends[finished.tile]
        assert len(finished.layers[0]) > 0
        ends[finished.tile] += len(finished.layers[0])
        for layer, part in zip(layers[finished.tile], finished.layers, strict=True):
            assert part.dtype == np.float32
            layer[finished.first : ends[finished.tile]] = part
    assert ends == [shape[0] for shape in shapes]
    for number, model in enumerate(networks):
        counts = np.zeros(2, int)
        for tile, of_tile in zip(tiles, layers, strict=True):
            for place, turn in enumerate(turns):
                wanted, *count = by_definition(tile, model, options, turn)
                found = of_tile[number * len(turns) + place]
                np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5, equal_nan=True)
            counts += count
        assert (tallies[number].planned, tallies[number].predicted) == tuple(counts)
        assert sum(shape[0] for shape in shown[number]) == tallies[number].predicted * len(turns)
        assert all(shape[0] <= min(options.batch_size, model.most or 1000) for shape in shown[number])


def test_planes_are_the_mean_over_the_turns() -> None:
    model = Model(("slope", "aspect"), ("slope",), {}, stride=2)
    planes = random_planes((19, 30), 1, 0.2)
    options = PatchOptions(patch_size=8, overlap=3)
    ((found,),) = predict_planes([ArrayRows(planes)], [model.reader()], options, turns=EIGHT_TURNS)
    wanted = np.mean([by_definition(planes, model, options, turn)[0] for turn in EIGHT_TURNS], axis=0)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    ((as_it_is,),) = predict_planes([ArrayRows(planes)], [model.reader()], options)
    assert np.nanmax(np.abs(found - as_it_is)) > 0.01


def test_only_aspect_is_cut_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    normalize = cuts.normalize

    def counted(values: Any, name: str, limits: Any = None) -> Any:
        names.append(name)
        return normalize(values, name, limits)

    monkeypatch.setattr(cuts, "normalize", counted)
    reader = Model(("slope", "aspect", "hillshade"), ("slope",), {}).reader()
    predict_planes([ArrayRows(random_planes((8, 8), 0, 0.0))], [reader], PatchOptions(), turns=EIGHT_TURNS)
    assert (names.count("slope"), names.count("aspect"), names.count("hillshade")) == (1, 8, 1)


def test_networks_whose_inputs_have_the_same_sides_share_the_cut() -> None:
    shown: list[Any] = []

    def predict(patches: np.ndarray) -> np.ndarray:
        shown.append(patches)
        return patches[..., 0]

    readers = [
        Reader(bands=("slope",), asked=("slope",), predict=predict, stride=stride, least=least)
        for stride, least in ((1, 1), (4, 1), (8, 16))
    ]
    predict_planes([ArrayRows(random_planes((40, 40), 0, 0.0))], readers, PatchOptions(patch_size=16, overlap=4))
    assert all(np.shares_memory(shown[0], patches) for patches in shown)


def test_a_buffer_is_no_larger_than_the_patches_of_its_geometry() -> None:
    shown: list[Any] = []

    def predict(patches: np.ndarray) -> np.ndarray:
        shown.append(patches.base if patches.base is not None else patches)
        return patches[..., 0]

    reader = Reader(bands=("slope",), asked=("slope",), predict=predict)
    tiles = [ArrayRows(random_planes((side, side), side, 0.0)) for side in (9, 7, 5, 5)]
    predict_planes(tiles, [reader], PatchOptions(patch_size=16, overlap=4, batch_size=500))
    assert [len(buffer) for buffer in shown] == [1, 1, 2]


def test_memory_of_two_networks_in_eight_turns_stays_at_three_planes_and_two_batches() -> None:
    side = 600
    names = ("hillshade", "slope", "aspect", "red", "green", "blue")
    planes = {name: np.zeros((side, side), np.float32) for name in names}
    readers = [
        Reader(bands=bands, asked=("slope",), predict=lambda patches: patches[..., 0].copy())
        for bands in (names, names[:3])
    ]
    options = PatchOptions(patch_size=64, overlap=16, batch_size=2)
    tracemalloc.start()
    predict_planes([ArrayRows(planes)], readers, options, turns=EIGHT_TURNS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    plane, batch = side * side * 4, 2 * 64 * 64 * (len(names) + 7) * 4
    # Two planes are the result.
    assert peak <= 5 * plane + 2 * batch


def test_rows_at_work_are_held_once_for_each_network_and_turn() -> None:
    planes = {"slope": np.zeros((500, 300), np.float32)}
    reader = Reader(bands=("slope",), asked=("slope",), predict=lambda patches: patches[..., 0].copy())
    options = PatchOptions(patch_size=64, overlap=32, batch_size=1)
    tracemalloc.start()
    for _ in predict_tiles([ArrayRows(planes)], [reader, reader], options, turns=EIGHT_TURNS):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Nothing of it is doubled when rows are handed on: 1 copy of the rows held, a row of patches, and small things.
    assert peak <= 1.3 * 16 * 64 * 300 * 4


def test_bands_of_two_devices_are_refused() -> None:
    fake = type("ndarray", (np.ndarray,), {"__module__": "cupy"})
    planes = random_planes((8, 8), 0, 0.0)
    planes["slope"] = planes["slope"].view(fake)
    reader = Model(("slope", "hillshade"), ("hillshade",), {}).reader()
    with pytest.raises(DeviceError, match="different devices"):
        predict_planes([ArrayRows(planes)], [reader], PatchOptions())


@pytest.mark.parametrize("tiles", [[], [(3, 4)]])
def test_no_tile_and_no_network_give_nothing(tiles: Sequence[tuple[int, int]]) -> None:
    rows = [ArrayRows(random_planes(shape, 0, 0.0)) for shape in tiles]
    assert predict_planes([], [Model(("slope",), ("slope",), {}).reader()], PatchOptions()) == []
    assert predict_planes(rows, [], PatchOptions()) == [[] for _ in rows]
