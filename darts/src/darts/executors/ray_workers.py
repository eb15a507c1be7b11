"""Workers on a Ray cluster: an actor each, which loads the models once and keeps its tiles to itself."""

import logging
import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from darts import __version__
from darts.executors.crew import Crew, CrewWorkers, Member
from darts.executors.ray_actor import Briefing, Placed, TileWorker
from darts.executors.ray_cluster import describe, join_cluster, require_ray, share_of
from darts.executors.serving import STOP, Gone
from darts.executors.work import Work
from darts.records.events import Event, Job, Lost
from darts_utils.errors import ConfigError, DartsError, DeviceError

logger = logging.getLogger("darts.executors.ray_workers")

PATIENCE_S = 120.0
"""How long the cluster may have no room for any worker."""

SILENCE_S = 15.0
"""How long workers may lack room before that is told."""


class RayWorkers(CrewWorkers["_Member"]):
    """Workers that are actors of Ray's; one that dies is started again, wherever there is room."""

    def __init__(self, pipeline: Work, n_tiles: int) -> None:
        require_ray()
        self._actor_class: Any = None
        self._crew: Crew[_Member] = Crew((), n_tiles)
        self._messages: deque[tuple[_Member, Any]] = deque()
        self._told_of_lack = False
        self._cluster = join_cluster(pipeline.ray_address, gpus=pipeline.device != "cpu")
        try:
            self._share = share_of(pipeline, self._nodes())
            self._pipeline = _pickled(
                pipeline.for_worker("cuda" if self._share.gpus else "cpu", pipeline.memory_budget)
            )
            count = pipeline.ray_workers or sum(self._share.fits(node) for node in self._nodes())
            count = max(min(count, n_tiles), 1)
            self._crew = Crew([_Member(f"ray-{n}") for n in range(1, count + 1)], n_tiles)
            logger.info("%d workers with %s each, on %s", count, self._share, describe(self._nodes()))
            self._without_place_since = time.monotonic()
            for member in self._crew.members:
                self._start(member)
            self._wait_for_the_first()
        except BaseException:
            self.close(now=True)
            raise

    def submit(self, job: Job) -> None:
        """Give a job to the worker that has least to do."""
        member = self._crew.assign(job)
        try:
            member.actor.send.remote(job)
        except TypeError as error:  # Ray's word for what cannot be pickled
            raise ConfigError(f"tile {job.tile.tile_id} cannot be sent to the cluster: {_first_line(error)}") from error

    def next_event(self, timeout_s: float) -> Event | None:
        """Return what happened next; see `Workers`."""
        if not self._messages:
            self._listen(timeout_s)
        if not self._messages:
            return None
        member, message = self._messages.popleft()
        if isinstance(message, Placed):
            self._brief(member, message)
            return None
        if isinstance(message, Gone):
            return self._lost(member, message.reason)
        return self._crew.hear(member, message)

    def stop(self) -> None:
        """Let go of jobs that are not computed yet."""
        self._crew.stopping = True
        for member in self._crew.members:
            if member.ready:
                member.actor.send.remote(STOP)

    def close(self, *, now: bool = False) -> None:
        """End the workers, and the cluster if it was started for them; nothing is in flight, or nothing counts."""
        for member in self._crew.members:
            self._end(member)
        self._cluster.leave()

    def _listen(self, timeout_s: float) -> None:
        """Collect what workers tell, each of them in its order."""
        import ray

        listening = {member.hearing: member for member in self._crew.members if member.hearing is not None}
        if not listening:
            raise DartsError("no worker is left: each of them died again and again; see the log for the reasons")
        told, _ = ray.wait(list(listening), timeout=timeout_s)
        if told and len(listening) > 1:  # then all that have something, so that none is left unheard
            told, _ = ray.wait(list(listening), num_returns=len(listening), timeout=0)
        for reference in told:
            member = listening[reference]
            try:
                messages = ray.get(reference)
                member.hearing = member.actor.hear.remote()
            except ray.exceptions.RayError as error:
                messages = [Gone(_death(error))]
                member.hearing = None
            self._messages.extend((member, message) for message in messages)
        self._look_for_places()

    def _brief(self, member: "_Member", placed: Placed) -> None:
        """Tell a worker that found a place what it has to know."""
        if placed.version != __version__:
            raise ConfigError(
                f"{placed.host} has darts {placed.version}, this is {__version__}; all nodes of a cluster need the same"
            )
        logger.info("%s is on %s", member.name, placed.host)
        member.placed = True
        node = self._cluster.nodes().get(placed.node, {})
        neighbours = max(min(self._share.fits(node), len(self._crew.members)), 1)
        briefing = Briefing(pipeline=self._pipeline, folder=os.getcwd(), neighbours=neighbours)  # noqa: PTH109
        member.actor.send.remote(briefing)

    def _lost(self, member: "_Member", reason: str) -> Lost:
        self._end(member)
        lost, again = self._crew.lose(member, reason)
        if again:
            self._start(member)
        return lost

    def _start(self, member: "_Member") -> None:
        import ray

        if self._actor_class is None:
            self._actor_class = ray.remote(TileWorker)
        member.actor = self._actor_class.options(
            num_cpus=self._share.cpus,
            num_gpus=self._share.gpus,
            max_concurrency=3,  # `hear` waits in one thread while others receive
            scheduling_strategy="SPREAD",
        ).remote(member.name, self._share.cpus)
        member.hearing = member.actor.hear.remote()

    def _end(self, member: "_Member") -> None:
        import ray

        if member.actor is not None:
            with suppress(ray.exceptions.RayError, ValueError):
                ray.kill(member.actor)
        member.actor = member.hearing = None
        member.placed = False

    def _look_for_places(self) -> None:
        """Tell that workers wait for room.

        Raises:
            DeviceError: none has had any for long.
        """
        waiting = [member for member in self._crew.members if member.actor is not None and not member.placed]
        if len(waiting) < len(self._crew.members) or any(isinstance(told, Placed) for _, told in self._messages):
            self._without_place_since = time.monotonic()
        waited = time.monotonic() - self._without_place_since
        if waited > PATIENCE_S:
            raise DeviceError(
                f"the cluster had no room for a worker in {PATIENCE_S:.0f} s: {self._lack()}. Ask for less with "
                "--ray-cpus, add nodes, or wait until others are done"
            )
        if waited > SILENCE_S and not self._told_of_lack:
            self._told_of_lack = True
            logger.warning("the cluster has no room for a worker yet: %s", self._lack())

    def _lack(self) -> str:
        import ray

        free = ray.available_resources()
        return (
            f"one takes {self._share}, the cluster has {describe(self._nodes())}, of which {int(free.get('CPU', 0))} "
            f"cores and {int(free.get('GPU', 0))} GPUs are free"
        )

    def _nodes(self) -> list[Any]:
        return list(self._cluster.nodes().values())


@dataclass(eq=False)
class _Member(Member):
    """A worker's actor, and the pending call that brings what it tells next."""

    actor: Any = None
    hearing: Any = None
    placed: bool = False


def _pickled(pipeline: Work) -> bytes:
    from ray import cloudpickle

    try:
        return bytes(cloudpickle.dumps(pipeline))
    except Exception as error:
        raise ConfigError(
            f"{type(pipeline).__name__} cannot be sent to the cluster: {_first_line(error)}. "
            "Keep only plain values in it"
        ) from error


def _death(error: Exception) -> str:
    """Return why an actor is no more, in words.

    Raises:
        ConfigError: darts is not there where it should have worked.
    """
    text = str(error)
    logger.debug("Ray says: %s", text)
    if "failed to import" in text or "ModuleNotFoundError" in text:
        cause = next((line for line in text.splitlines() if "ModuleNotFoundError" in line or "ImportError" in line), "")
        raise ConfigError(
            f"a node of the cluster cannot load darts {__version__} ({cause.strip() or _first_line(error)}); "
            "all nodes need the same packages"
        ) from error
    if "running low on memory" in text:
        return (
            "Ray ended it because its node ran out of memory; take fewer workers a node, with more of --ray-cpus each"
        )
    if "node has died" in text or "node was terminated" in text:
        return "its node is gone"
    return "its process died; was the machine out of memory?"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
