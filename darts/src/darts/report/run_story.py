"""What the ledger's records say of one run: its tiles by state, its attempts, its times."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from darts.records.ledger import Outcome, Record, RunEnd, RunStart, last_outcomes
from darts.timings import STEPS

TileState = Literal["done", "before", "left", "failed"]

STATES: Mapping[TileState, str] = {
    "done": "done",
    "before": "done before",
    "left": "left",
    "failed": "failed",
}
"""States of tiles, and what people read; on maps the later lie above the earlier."""


@dataclass(frozen=True)
class RunStory:
    """One run."""

    start: RunStart | None
    end: RunEnd | None
    states: Mapping[str, TileState]
    """State by tile id, in the order of the run."""
    attempts: tuple[Outcome, ...]
    """What was worked on, in the order of ends."""
    known: Mapping[str, Outcome]
    """The outcome that tells most of a tile's results, whatever run it is of."""
    corners: Mapping[str, tuple[tuple[float, float], ...]]
    """Longitude and latitude of tiles whose place is known."""

    @property
    def counts(self) -> dict[TileState, int]:
        """Tiles by state."""
        found = Counter(self.states.values())
        return {state: found[state] for state in STATES}

    @property
    def failures(self) -> list[Outcome]:
        """The last outcome of each tile that failed, in the order of the run."""
        last = {outcome.tile_id: outcome for outcome in self.attempts}
        return [last[tile_id] for tile_id, state in self.states.items() if state == "failed"]

    @property
    def began(self) -> datetime | None:
        """When the run began, or the first tile of a run whose start nobody wrote down."""
        if self.start is not None and (time := as_time(self.start.started)):
            return time
        return next((time for outcome in self.attempts if (time := as_time(outcome.finished))), None)

    @property
    def ended(self) -> datetime | None:
        """When the run ended, or the last tile of a run that was killed."""
        if self.end is not None and (time := as_time(self.end.finished)):
            return time
        return next((time for outcome in reversed(self.attempts) if (time := as_time(outcome.finished))), None)

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        if self.began is None or self.ended is None:
            return None
        return max((self.ended - self.began).total_seconds(), 0.0)

    @property
    def reason(self) -> str:
        """Why it ended."""
        return "not ended, or killed" if self.end is None else self.end.reason

    def steps(self) -> Iterator[tuple[str, list[float]]]:
        """Yield each step with the seconds of all attempts that came to it."""
        seconds: dict[str, list[float]] = {}
        for outcome in self.attempts:
            for step, took in outcome.seconds.items():
                seconds.setdefault(step, []).append(took)
        for step in (*STEPS, *sorted(set(seconds) - set(STEPS))):
            if step in seconds:
                yield step, seconds[step]

    def models(self) -> list[tuple[str, str, int]]:
        """Return name, checksum, and number of tiles of each model that made this run's results."""
        found = Counter(
            (name, checksum)
            for tile_id, outcome in self.known.items()
            if self.states.get(tile_id) in ("done", "before")
            for name, checksum in outcome.models.items()
        )
        return [(name, checksum, number) for (name, checksum), number in sorted(found.items())]


def tell_story(records: Sequence[Record], run: str) -> RunStory:
    """Return what records, oldest first, say of a run; those of other runs tell what it found done."""
    outcomes = [record for record in records if isinstance(record, Outcome)]
    own = [outcome for outcome in outcomes if outcome.run == run]
    start = next((record for record in records if isinstance(record, RunStart) and record.run == run), None)
    end = next((record for record in reversed(records) if isinstance(record, RunEnd) and record.run == run), None)
    ids = dict.fromkeys((*(start.tiles if start else ()), *(outcome.tile_id for outcome in own)))
    last, before = {outcome.tile_id: outcome for outcome in own}, last_outcomes(outcomes)
    known = {o.tile_id: o for o in outcomes if o.tile_id in ids and o.status != "failed"}
    known |= {o.tile_id: o for o in outcomes if o.tile_id in ids and o.files}
    return RunStory(
        start=start,
        end=end,
        states={tile_id: _state(last.get(tile_id), before.get(tile_id)) for tile_id in ids},
        attempts=tuple(outcome for outcome in own if outcome.status != "skipped"),
        known=known,
        corners={o.tile_id: o.corners for o in outcomes if o.tile_id in ids and o.corners},
    )


def as_time(text: str) -> datetime | None:
    """Return a time of the ledger, None where it is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _state(own: Outcome | None, last: Outcome | None) -> TileState:
    """Return the state of a tile by its last outcome in the run, and its last one that says something new."""
    if own is None:  # complete tiles are skipped without a word
        return "before" if last is not None and last.status != "failed" else "left"
    if own.status == "failed":
        return "left" if own.again else "failed"
    return "done" if own.status == "success" else "before"
