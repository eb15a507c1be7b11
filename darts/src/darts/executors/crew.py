"""What the one who watches over a run knows of workers in other processes: who has what to do, who died how often."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from darts.records.events import Dropped, Event, Finished, Job, Lost, Ready
from darts.records.restart import differences
from darts_utils.errors import DartsError, StoreError

logger = logging.getLogger("darts.executors.crew")

MOST_DEATHS = 4
"""Deaths of a worker in a row, without a tile done between them, after which it is not started again."""

LEAST_WINDOW = 2
"""Jobs that a worker has at least: one that it computes, and one that it loads."""


@dataclass(eq=False)
class Member:
    """A worker and what it has to do."""

    name: str
    ready: bool = False
    deaths: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)


AnyMember = TypeVar("AnyMember", bound=Member)


class Crew(Generic[AnyMember]):
    """The workers of a run."""

    def __init__(self, members: Sequence[AnyMember], n_tiles: int) -> None:
        self.members = tuple(members)
        self.facts: Ready | None = None
        self.stopping = False
        """Whether no further jobs will come, so that a worker that dies is not missed."""
        self._left = n_tiles

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the workers."""
        return tuple(member.name for member in self.members)

    def room(self) -> int:
        """Return how many further jobs the workers take now."""
        window = self._window()
        return sum(max(window - len(member.jobs), 0) for member in self.members if member.ready)

    def assign(self, job: Job) -> AnyMember:
        """Note that a job goes to the worker that has least to do, and return that worker."""
        member = min((member for member in self.members if member.ready), key=lambda member: len(member.jobs))
        member.jobs[job.tile.tile_id] = job
        return member

    def hear(self, member: AnyMember, message: Any) -> Event | None:
        """Note what a worker tells, and return it if it is an event.

        Raises:
            DartsError: the worker could not start, or computes with something else than the first one.
        """
        if isinstance(message, logging.LogRecord):
            source = logging.getLogger(message.name)
            if source.isEnabledFor(message.levelno):  # a worker tells all that it logs
                source.handle(message)
            return None
        if isinstance(message, DartsError):
            raise message
        if isinstance(message, Ready):
            self._check(message)
            member.ready = True
        elif isinstance(message, Finished):
            member.jobs.pop(message.outcome.tile_id, None)
            member.deaths = 0
            self._left -= message.outcome.status != "failed"
        elif isinstance(message, Dropped):
            member.jobs.pop(message.tile_id, None)
        return message

    def lose(self, member: AnyMember, reason: str) -> tuple[Lost, bool]:
        """Note that a worker died; return what is lost, and whether it may be started again."""
        lost = Lost(member.name, reason, tuple(member.jobs.values()))
        member.jobs.clear()
        member.ready = False
        member.deaths += 1
        if member.deaths >= MOST_DEATHS:
            logger.error("%s died %d times without a tile done; it is left out", member.name, member.deaths)
        return lost, member.deaths < MOST_DEATHS and not self.stopping

    def _window(self) -> int:
        """Return how many jobs a worker has at most: fewer towards the end, so that all end at about the same time."""
        from darts.executors.lane import WINDOW

        share = math.ceil(self._left / (2 * len(self.members)))
        return min(max(share, LEAST_WINDOW), WINDOW)

    def _check(self, ready: Ready) -> None:
        if self.facts is None:
            self.facts = ready
        elif ready.fingerprint != self.facts.fingerprint:
            raise StoreError(
                f"worker {ready.worker} loaded other models or options than the first one: "
                f"{differences(self.facts.settings, ready.settings)}. Leave model files alone while a run is at work"
            )


class CrewWorkers(ABC, Generic[AnyMember]):
    """What all workers in other processes have in common."""

    _crew: Crew[AnyMember]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the workers."""
        return self._crew.names

    @property
    def facts(self) -> Ready:
        """What the workers compute with."""
        assert self._crew.facts is not None
        return self._crew.facts

    def room(self) -> int:
        """Return how many further jobs the workers take now."""
        return self._crew.room()

    @abstractmethod
    def next_event(self, timeout_s: float) -> Event | None:
        """Return what happened next; see `Workers`."""

    def _wait_for_the_first(self) -> None:
        while self._crew.facts is None:
            if isinstance(lost := self.next_event(1.0), Lost):
                logger.warning("%s is lost: %s", lost.worker, lost.reason)
