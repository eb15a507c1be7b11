"""Batches: patches are cut into a buffer until it is full, predicted, and blended into their canvases.

Where a network's device works while the host goes on (`PredictsAhead`), one buffer is filled while the other is worked
on. Answers are blended in the order in which they were asked for, so the results are the same.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from darts_segmentation.canvas import Canvas
from darts_segmentation.cuts import Cut, Planes, channels_of, cut_patch, is_whole, pack, seen
from darts_segmentation.patches import Span
from darts_segmentation.readers import PredictsAhead, Reader
from darts_segmentation.turns import AS_IS, Turn
from darts_utils.arrays import array_namespace, on_device_of


@dataclass(frozen=True, eq=False)
class RowOfPatches:
    """A row of patches of a tile, and its place among all that are worked on."""

    place: int
    canvas: Canvas
    number: int


@dataclass(frozen=True, eq=False)
class _Patch:
    row: RowOfPatches
    rows: Span
    columns: Span
    readers: tuple[int, ...]
    """Those that find a valid pixel in it."""


@dataclass(frozen=True, eq=False)
class _View:
    """One of the ways in which a batch is seen."""

    reader: int
    turn: Turn
    layer: int
    channels: list[int]


@dataclass(frozen=True, eq=False)
class _Asked:
    """Patches that a network is at work on."""

    first: int
    """Place of the first row of patches in their batch."""
    buffer: int
    """The buffer of their batch."""
    view: _View
    patches: list[_Patch]
    answer: Callable[[], Any]
    """Waits for the probabilities, and returns them."""


class Bench:
    """A batch being filled, and those at work, for readers that see the same pixels."""

    def __init__(self, readers: Sequence[Reader], turns: Sequence[Turn], cut: Cut, size: int) -> None:
        self.readers, self.members = readers, cut.readers
        self.channels, self.shape = cut.channels, (size, *cut.sides, len(cut.channels))
        self.views = [
            _View(number, turn, number * len(turns) + place, [cut.channels.index(c) for c in channels_of(reader, turn)])
            for number, reader in ((number, readers[number]) for number in cut.readers)
            for place, turn in enumerate(turns)
        ]
        # Who sees the batch itself comes first, so that the last may take its memory.
        self.views.sort(key=lambda view: not is_whole(view.channels, len(self.channels), view.turn))
        self.buffers: list[Any] = []
        """One, or two where they are filled in turn; none before the first patch."""
        self.filling = 0
        self.waiting: list[_Patch] = []
        """The patches in the buffer that is being filled."""
        self.asked: deque[_Asked] = deque()

    @property
    def works_ahead(self) -> bool:
        """Whether patches are cut while others are predicted."""
        return len(self.buffers) > 1

    def take(self, row: RowOfPatches, cut: Cut, planes: Planes) -> None:
        """Cut the patches of a row that hold valid pixels; whenever the batch is full, have it predicted."""
        canvas, rows = row.canvas, cut.rows[row.number]
        any_band = next(iter(planes.bands.values()))
        for columns in cut.columns:
            used = tuple(number for number in self.members if canvas.filled[number][columns.target].any())
            for number in self.members:
                canvas.tallies[number].planned += 1
                canvas.tallies[number].predicted += number in used
            if not used:
                continue
            with on_device_of(any_band):
                buffer = self._buffer(array_namespace(any_band))
                xp = array_namespace(buffer, *planes.bands.values())
                cut_patch(planes, rows, columns, self.channels, buffer[len(self.waiting)], xp)
            self.waiting.append(_Patch(row, rows, columns, used))
            if len(self.waiting) == len(buffer):
                self.ask()

    def ask(self) -> None:
        """Have predicted what waits in the buffer, and turn to the next one."""
        views = [(view, [i for i, patch in enumerate(self.waiting) if view.reader in patch.readers])
                 for view in self.views]  # fmt: skip
        views = [(view, slots) for view, slots in views if slots]
        for view, slots in views:
            # Copies of the batch are held for as many views as there are buffers.
            while len(self.asked) >= len(self.buffers):
                self._blend_next()
            self.asked.append(self._start(view, slots, is_last=view is views[-1][0]))
            if not self.works_ahead:
                self._blend_next()
        self.waiting = []
        self.filling = (self.filling + 1) % max(len(self.buffers), 1)

    def clear(self) -> None:
        """Have everything predicted, and blend it."""
        self.ask()
        while self.asked:
            self._blend_next()

    def is_done_with(self, place: int) -> bool:
        """Return whether all patches of the rows of patches down to a place are blended."""
        first = self.asked[0].first if self.asked else self.waiting[0].row.place if self.waiting else place + 1
        return first > place

    def _buffer(self, xp: Any) -> Any:
        """Return the buffer to fill, which nothing reads any more."""
        if not self.buffers:
            # Bands come last, as the network computes fastest (torch: channels_last).
            ahead = [predict for number in self.members if (predict := _ahead(self.readers[number])) is not None]
            if xp is np and len(ahead) == len(self.members):
                self.buffers = [ahead[0].empty(self.shape) for _ in range(2)]
            else:
                self.buffers = [xp.empty(self.shape, np.float32)]
        while any(asked.buffer == self.filling for asked in self.asked):
            self._blend_next()
        return self.buffers[self.filling]

    def _start(self, view: _View, slots: list[int], *, is_last: bool) -> _Asked:
        buffer, predict = self.buffers[self.filling], self.readers[view.reader].predict
        with on_device_of(buffer):
            if self.works_ahead:
                assert isinstance(predict, PredictsAhead)
                answer = predict.start(seen(buffer, slots, view.channels, view.turn, predict.empty))
            else:
                can_pack = is_last and view.turn == AS_IS and view.channels == sorted(view.channels)
                if can_pack and len(view.channels) < len(self.channels) and array_namespace(buffer) is np:
                    found = predict(pack(buffer, slots, view.channels))
                else:
                    found = predict(seen(buffer, slots, view.channels, view.turn))
                answer = _known(found)
        return _Asked(self.waiting[0].row.place, self.filling, view, [self.waiting[i] for i in slots], answer)

    def _blend_next(self) -> None:
        """Wait for the oldest answer, and blend it."""
        asked = self.asked.popleft()
        with on_device_of(self.buffers[0]):
            answers = asked.view.turn.undone(asked.answer())
            for patch, probabilities in zip(asked.patches, answers, strict=True):
                patch.row.canvas.blend(asked.view.layer, patch.rows, patch.columns, probabilities)


def _ahead(reader: Reader) -> PredictsAhead | None:
    """Return what predicts while the next buffer is filled; None for others."""
    predict = reader.predict
    return predict if isinstance(predict, PredictsAhead) and predict.buffers > 1 else None


def _known(answer: Any) -> Callable[[], Any]:
    return lambda: answer
