"""Patches that are cut while a device works on those before; the device is a thread here."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_segmentation import SMPSegmenter
from darts_segmentation.inference import DatasetRows, PredictsAhead, Reader, Tally, predict_planes, predict_tiles
from darts_segmentation.network import Predictor
from darts_segmentation.patches import PatchOptions
from darts_segmentation.turns import AS_IS, EIGHT_TURNS, Turn
from darts_utils.bands import normalize

from .patchwise import ArrayRows
from .test_inference import Model, models, patch_options, random_planes, sides


class Device:
    """A network that a thread computes later, and that finds out whether its patches were changed meanwhile."""

    buffers = 2

    def __init__(self, predict: Callable[[Any], Any], thread: ThreadPoolExecutor, *, planar: bool = False) -> None:
        self.predict, self.thread, self.planar = predict, thread, planar
        self.under_way: list[Any] = []
        self.most = 0
        self.made: list[Any] = []

    def empty(self, shape: tuple[int, ...]) -> Any:
        count, height, width, bands = shape
        array = np.full((count, bands, height, width), np.nan, np.float32).transpose(0, 2, 3, 1)
        self.made.append(array if self.planar else np.full(shape, np.nan, np.float32))
        return self.made[-1]

    def start(self, patches: Any) -> Callable[[], Any]:
        before = patches.copy()
        self.under_way.append(patches)
        self.most = max(self.most, len(self.under_way))
        answer = self.thread.submit(lambda: self.predict(np.ascontiguousarray(patches)))

        def wait() -> Any:
            found = answer.result()
            np.testing.assert_array_equal(patches, before)
            assert self.under_way.pop(0) is patches  # asked for in order
            return found

        return wait

    def __call__(self, patches: Any) -> Any:
        return self.start(patches)()


@pytest.fixture(scope="module")
def thread() -> Any:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def planes_of(tiles: Sequence[dict[str, np.ndarray]], readers: Sequence[Reader], *options: Any, **named: Any) -> Any:
    return predict_planes([ArrayRows(tile) for tile in tiles], readers, *options, **named)


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.tuples(sides, sides), min_size=1, max_size=3),
    networks=st.lists(models(), min_size=1, max_size=3),
    options=patch_options(),
    gaps=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    turns=st.lists(st.sampled_from(EIGHT_TURNS), min_size=1, max_size=3, unique=True),
    planar=st.booleans(),
    data=st.data(),
)
def test_a_device_that_works_later_gives_the_same_bits_and_its_patches_stay(
    thread: ThreadPoolExecutor,
    shapes: list[tuple[int, int]],
    networks: list[Model],
    options: PatchOptions,
    gaps: float,
    turns: list[Turn],
    planar: bool,
    data: st.DataObject,
) -> None:
    tiles = [random_planes(shape, number, gaps) for number, shape in enumerate(shapes)]
    readers = [model.reader() for model in networks]
    # One batch of any size for all: the answer of a formula does not depend on what else is in its batch.
    late = [data.draw(st.booleans(), label="late") for _ in readers]
    devices = [
        replace(reader, predict=Device(reader.predict, thread, planar=planar)) if is_late else reader
        for reader, is_late in zip(readers, late, strict=True)
    ]
    tallies = [[Tally() for _ in readers] for _ in range(2)]
    wanted = planes_of(tiles, readers, options, tallies[0], turns=turns)
    found = planes_of(tiles, devices, options, tallies[1], turns=turns)
    assert tallies[0] == tallies[1]
    for mine, theirs in zip(found, wanted, strict=True):
        for plane, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(plane, other)
    for reader in devices:
        if isinstance(reader.predict, Device):
            assert not reader.predict.under_way
            assert reader.predict.most <= 2


def test_the_next_batch_is_cut_while_the_device_works(thread: ThreadPoolExecutor) -> None:
    """The device does not answer before the second batch is there: without overlap this would never end."""
    second = Event()

    def predict(patches: np.ndarray) -> np.ndarray:
        assert second.wait(20)
        return patches[..., 0].copy()

    device = Device(predict, thread)
    start = device.start

    def counted(patches: Any) -> Callable[[], Any]:
        if device.under_way:
            second.set()
        return start(patches)

    device.start = counted  # type: ignore[method-assign]
    reader = Reader(bands=("slope",), asked=("slope",), predict=device)
    tile = {"slope": np.random.default_rng(0).uniform(0, 90, (64, 16)).astype(np.float32)}
    ((plane,),) = planes_of([tile], [reader], PatchOptions(patch_size=16, overlap=0, batch_size=1))
    np.testing.assert_allclose(plane, normalize(tile["slope"], "slope"), rtol=0, atol=1e-6, equal_nan=False)
    assert len(device.made) == 2  # and no more


def test_rows_are_handed_on_while_later_ones_are_at_work(thread: ThreadPoolExecutor) -> None:
    device = Device(lambda patches: patches[..., 0].copy(), thread)
    reader = Reader(bands=("slope",), asked=("slope",), predict=device)
    tile = ArrayRows({"slope": np.full((160, 16), 45, np.float32)})
    seen = []
    for finished in predict_tiles([tile], [reader], PatchOptions(patch_size=16, overlap=4, batch_size=1)):
        seen.append((finished.first, tile.asked[-1][1]))
    assert all(asked <= first + 4 * 16 for first, asked in seen)
    assert len(seen) > 8


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("turns", [(AS_IS,), EIGHT_TURNS])
def test_bands_as_they_are_can_be_normalised_by_the_network(
    thread: ThreadPoolExecutor, late: bool, turns: tuple[Turn, ...]
) -> None:
    tile = random_planes((21, 34), 0, 0.2)
    limits = {"slope": (10.0, 40.0)}
    bands = ("slope", "aspect", "tc_wetness")

    def mixed(patches: np.ndarray) -> np.ndarray:
        return patches @ np.array([0.5, 0.3, 0.2], np.float32)

    def normalising(patches: np.ndarray) -> np.ndarray:
        assert patches.dtype == np.float32
        assert np.nanmax(patches[..., 2]) > 1
        return mixed(np.stack([normalize(patches[..., i], name, limits.get(name)) for i, name in enumerate(bands)], -1))

    options = PatchOptions(patch_size=16, overlap=5, batch_size=2)
    reader = Reader(bands=bands, asked=("slope",), predict=mixed, limits=limits)
    raw = replace(reader, raw=True, predict=Device(normalising, thread, planar=True) if late else normalising)
    ((wanted, as_well, found),) = planes_of([tile], [reader, reader, raw], options, turns=turns)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(as_well, wanted)


def test_a_predictor_that_normalises_takes_batches_whose_bands_come_first(
    write_tiny: Callable[..., Path], make_tile: Callable[..., xr.Dataset], tmp_path: Path
) -> None:
    """What a GPU is given, on the CPU: `Predictor` with limits, and planar memory."""
    segmenter = SMPSegmenter(write_tiny(tmp_path / "tiny.pt"), "cpu")

    class Planar(Predictor):
        @property
        def buffers(self) -> int:
            return 2

        def empty(self, shape: tuple[int, ...]) -> Any:
            count, height, width, bands = shape
            return np.empty((count, bands, height, width), np.float32).transpose(0, 2, 3, 1)

    tile = make_tile(70, 90).where(lambda tile: tile.x > tile.x[7])
    rows = DatasetRows(tile, segmenter.required_bands, purpose="the test")
    reader = segmenter.reader()
    checkpoint = segmenter.checkpoint
    ahead = Planar(segmenter._network, [checkpoint.limits(name) for name in checkpoint.bands])
    assert isinstance(ahead, PredictsAhead)
    assert isinstance(reader.predict, PredictsAhead)
    readers = [reader, replace(reader, predict=ahead, raw=True)]
    # Batches of one: what else is in a batch changes a network's last bits.
    options = PatchOptions(patch_size=32, overlap=8, batch_size=1)
    ((wanted,),), ((found,),) = (predict_planes([rows], [one], options) for one in readers)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    assert np.isnan(wanted).any()
